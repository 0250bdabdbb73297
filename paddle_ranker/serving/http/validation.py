"""What pydantic found in a request's body, as a fault."""

from __future__ import annotations

from collections.abc import Collection
from typing import Union

from pydantic import ValidationError

from paddle_ranker.serving.core.faults import INVALID, UNPROCESSABLE, Fault


def refusal(error: ValidationError, union_tags: Collection[str] = ()) -> Fault:
    """Return the fault of the first thing that is wrong; its field is `documents[3].text`, or `body`.

    Args:
        union_tags: which of a union's types pydantic tried: they stand in its locations, and in no request.
    """
    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return Fault(INVALID, f"is not JSON ({first['ctx']['error']})", field="body")
    return Fault(UNPROCESSABLE, first["msg"], field=_path(first["loc"], union_tags) or "body")


def _path(location: tuple[Union[int, str], ...], union_tags: Collection[str]) -> str:
    shown = ""
    for part in location:
        if isinstance(part, int):
            shown += f"[{part}]"
        elif part not in union_tags:
            shown += f".{part}" if shown else part
    return shown
