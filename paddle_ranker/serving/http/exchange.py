"""Read a request's body within limits, and its deadline; compress answers for clients that accept gzip."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Callable, Optional, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from paddle_ranker.errors import brief, listed, quoted
from paddle_ranker.retrieval.work.turns import Reserve
from paddle_ranker.serving.core.byte_budget import Share
from paddle_ranker.serving.core.faults import INVALID, READ_ONLY, TIMED_OUT, TOO_LARGE, UNPROCESSABLE, Fault
from paddle_ranker.serving.core.limits import LONGEST_TIMEOUT, TIMEOUT_HEADER, pack, unpack
from paddle_ranker.serving.core.threads import MUCH_BYTES, run_in_thread

R = TypeVar("R")
_WORTH_PACKING = 512  # bytes; gzip hardly shortens smaller answers
_DEADLINE = "deadline"  # in a request's state
SHARE = "share"  # in a request's state: its `Share` of the worker's byte budget


def is_own_page(headers: Mapping[bytes, bytes]) -> bool:
    """Return whether a request comes from a page of this server, or from no page.

    Browsers say so in `Sec-Fetch-Site`, which no page can set. They do not send it to plain http names, where the
    header `Origin` has the page's site.

    headers: the request's header fields, by their names in lower case
    """
    site, origin = headers.get(b"sec-fetch-site"), headers.get(b"origin")
    if site is not None:
        return site in (b"same-origin", b"none")
    return origin is None or origin.partition(b"://")[2] == headers.get(b"host")


def require_own_page(headers: Mapping[bytes, bytes]) -> None:
    """Raise `Fault` if a page of another site made the user's browser send the request."""
    if not is_own_page(headers):
        origin = quoted(headers.get(b"origin", b"other sites").decode("latin-1"))
        raise Fault(READ_ONLY, f"pages of {origin} may not change anything here", field="Origin")


def refuse_parameters(request: Request, *names: str) -> None:
    """Raise `Fault` for a query parameter of the URL that is not in `names`."""
    for name in request.query_params:
        if name not in names:
            choice = f"only {listed(names)}" if names else "which takes none there"
            raise Fault(UNPROCESSABLE, f"is no parameter of {request.url.path}, {choice}", field=brief(name))


def refuse_repeated(name: str, times: int) -> None:
    """Raise `Fault` if the URL has the query parameter `name` more than once. `times` is how often the URL has it."""
    if times > 1:
        raise Fault(UNPROCESSABLE, f"stands {times} times in the address, expected once", field=name)


async def read_request(request: Request, limit: int, parse: Callable[[bytes], R]) -> R:
    """Read a request's body with `read_body`, and return `parse(body)`. Large bodies are parsed in a thread.

    Raises the errors of `read_body` and of `parse`, and `Fault` at the request's deadline.
    """
    deadline = deadline_of(request)  # counts from before the body has come
    body = await read_body(request, limit)
    return await run_in_thread(len(body), parse, body, deadline=deadline)


async def read_body(request: Request, limit: int) -> bytes:
    """Read a request's body, at most `limit` bytes, and decompress it.

    Raises `Fault` for a body above the limit, damaged gzip or an unknown encoding, and if the worker's byte budget has
    no room for the body and its texts. Raises `ClientDisconnect` if the client left.
    """
    share: Optional[Share] = request.scope.get("state", {}).get(SHARE)
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip"):
        raise Fault(INVALID, f"{quoted(encoding)} is not understood, only gzip", field="Content-Encoding")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length[:18]) > limit:
        raise Fault(TOO_LARGE, f"has {length[:18]} bytes, above the {limit:,} of a request", field="body")
    body, parts, size, has_more = b"", list[bytes](), 0, True
    while has_more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body, has_more = message.get("body", b""), message.get("more_body", False)
        size += len(body)
        if size > limit:
            raise Fault(TOO_LARGE, f"has more than the {limit:,} bytes of a request", field="body")
        if has_more or parts:
            parts.append(body)
            if share is not None:
                share.reserve(size)
    if parts:
        body = b"".join(parts)
        del parts, message
    deadline = deadline_of(request)
    if encoding not in ("", "identity"):
        much = MUCH_BYTES + 1  # the decompressed size is not known
        body = await run_in_thread(much, unpack, body, "gzip", limit, share, deadline=deadline)
    if share is not None:
        await run_in_thread(len(body), share.reserve_read, body, deadline=deadline)
    return body


def deadline_of(request: Request) -> Optional[float]:
    """Return the deadline that the header `X-Request-Timeout-Ms` sets, on `time.monotonic()`'s clock, or None.

    The milliseconds count from the first call for this request. Raises `Fault(TIMED_OUT)` for 0, and `Fault(INVALID)`
    unless the header is a whole number up to `LONGEST_TIMEOUT`.
    """
    state = request.scope.setdefault("state", {})
    if _DEADLINE not in state:
        state[_DEADLINE] = _stated_deadline(request)
    deadline: Optional[float] = state[_DEADLINE]
    return deadline


def _stated_deadline(request: Request) -> Optional[float]:
    timeout = request.headers.get(TIMEOUT_HEADER)
    if timeout is None:
        return None
    if not re.fullmatch("[0-9]{1,9}", timeout) or int(timeout) > LONGEST_TIMEOUT:
        raise Fault(INVALID, f"is {quoted(timeout)}, expected 1 to {LONGEST_TIMEOUT}", field=TIMEOUT_HEADER)
    if not int(timeout):
        raise Fault(TIMED_OUT, "is 0: nobody waits for an answer", field=TIMEOUT_HEADER)
    return time.monotonic() + int(timeout) / 1000


def reserve_of(request: Request) -> Optional[Reserve]:
    """Return the function that reserves memory for the answer in the byte budget, or None without a budget."""
    share: Optional[Share] = request.scope["state"].get(SHARE)
    return None if share is None else share.reserve_answer


def answer(
    request: Request, content: bytes, content_type: str = "application/json", status: int = 200, **headers: str
) -> Response:
    """Return a response with `content`, compressed if it is large enough and the client accepts gzip.

    headers: further header fields by name, with `_` for `-`
    """
    named = {"content-type": content_type, **{name.replace("_", "-"): value for name, value in headers.items()}}
    made = Response
    if len(content) >= _WORTH_PACKING and takes_gzip(request):
        named.update({"content-encoding": "gzip", "vary": "accept-encoding"})
        if len(content) > MUCH_BYTES:
            made = _PackedLater
        else:
            content = pack(content, "gzip")
    return made(content, status_code=status, headers=named)


class _PackedLater(Response):
    """Response with large content, which a thread compresses when it is sent."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.body = await run_in_thread(len(self.body), pack, self.body, "gzip")
        self.headers["content-length"] = str(len(self.body))
        await super().__call__(scope, receive, send)


def takes_gzip(request: Request) -> bool:
    """Return whether the client accepts answers in gzip."""
    for choice in request.headers.get("accept-encoding", "").lower().split(","):
        name, _, quality = choice.partition(";")
        if name.strip() in ("gzip", "*"):
            return quality.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
