"""The API key: where it comes from, and whether a caller shows it."""

from __future__ import annotations

import hmac
from typing import Optional, Union

from paddle_ranker.serving.core.faults import UNAUTHORIZED, Fault

API_KEY_VARIABLE = "PADDLE_RANKER_API_KEY"


def require_key(api_key: Optional[str], shown: Union[str, bytes, None]) -> None:
    """Raise `Fault(UNAUTHORIZED)` where a key is asked for and another one, or none, is shown.

    Takes the same time however much of it is right. `shown` may begin with `Bearer `.
    """
    if api_key is None:
        return
    given = shown.encode("utf-8", "surrogateescape") if isinstance(shown, str) else (shown or b"")
    if given[:7].lower() == b"bearer ":
        given = given[7:]
    if not hmac.compare_digest(given, api_key.encode("utf-8")):
        raise Fault(UNAUTHORIZED, "the API key is missing" if not given else "the API key is wrong")
