"""A request's body within limits, and an answer only as long as somebody waits for it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from paddle_ranker.serving.compression import pack, unpack
from paddle_ranker.serving.faults import INVALID, TOO_LARGE, Fault
from paddle_ranker.serving.headers import TIMEOUT_HEADER
from paddle_ranker.serving.limits import Limits

T = TypeVar("T")
_WORTH_PACKING = 512  # bytes; below that gzip makes an answer hardly smaller


async def read_body(request: Request, limit: int) -> bytes:
    """Return a request's body, unpacked, of at most `limit` bytes.

    Raises `Fault` above the limit, as soon as that is known, for an encoding other than gzip, and for damaged gzip;
    `ClientDisconnect` where the client left.
    """
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated[:18]) > limit:
        raise Fault(TOO_LARGE, f"has {stated[:18]} bytes, above the {limit:,} of a request", field="body")
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise Fault(TOO_LARGE, f"has more than the {limit:,} bytes of a request", field="body")
        parts.append(part)
    body = b"".join(parts)
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip"):
        raise Fault(INVALID, f"{encoding[:40]!r} is not understood, only gzip", field="Content-Encoding")
    return unpack(body, "gzip", limit)


def patience(request: Request, limits: Limits) -> float:
    """Return the seconds that the caller waits: as its `x-timeout-ms` says, or the server's own deadline.

    Raises `Fault(INVALID)` for what is no number of milliseconds.
    """
    stated = request.headers.get(TIMEOUT_HEADER)
    if stated is None:
        return limits.deadline_seconds
    if not re.fullmatch("[0-9]{1,9}", stated):
        raise Fault(INVALID, f"{stated[:40]!r} is no number of milliseconds", field=TIMEOUT_HEADER)
    return int(stated) / 1000


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` returns; where the client leaves before that, cancel it and raise `ClientDisconnect`.

    The body must have been read.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        gone.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait({task})


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def answer(request: Request, content: bytes, content_type: str, status: int = 200, **headers: str) -> Response:
    """Return a response, packed with gzip where the client takes that and it is worth it."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if len(content) >= _WORTH_PACKING and _takes_gzip(request.headers.get("accept-encoding", "")):
        content = pack(content, "gzip")
        named.update({"content-encoding": "gzip", "vary": "accept-encoding"})
    response = Response(content, status_code=status, headers=named)
    response.headers["content-type"] = content_type  # as it is: the vendor's client compares it as a whole
    return response


def _takes_gzip(accepted: str) -> bool:
    for choice in accepted.lower().split(","):
        name, _, quality = choice.partition(";")
        if name.strip() in ("gzip", "*"):
            return quality.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
