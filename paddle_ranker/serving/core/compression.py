"""Unpack what a caller packed, never to more than was agreed: a few bytes can become gigabytes."""

from __future__ import annotations

import gzip
import zlib

from paddle_ranker.serving.core.faults import INVALID, TOO_LARGE, Fault

_WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "zlib": zlib.MAX_WBITS}


def unpack(data: bytes, method: str, limit: int) -> bytes:
    """Return what `data` holds, packed with `method` (gzip or zlib), at most `limit` bytes.

    Raises `Fault`: `TOO_LARGE` above the limit, `INVALID` for damaged data.
    """
    unpacker = zlib.decompressobj(_WINDOW_BITS[method])
    try:
        unpacked = unpacker.decompress(data, limit + 1)
    except zlib.error as error:
        raise Fault(INVALID, f"is not {method} ({error})", field="body") from error
    if len(unpacked) > limit:
        raise Fault(TOO_LARGE, f"unpacks to more than the {limit:,} bytes of a request", field="body")
    if not unpacker.eof:
        raise Fault(INVALID, f"ends in the middle of its {method} data", field="body")
    if unpacker.unused_data:
        raise Fault(INVALID, f"goes on for {len(unpacker.unused_data):,} bytes after its {method} data", field="body")
    return unpacked


def pack(data: bytes, method: str) -> bytes:
    """Return `data`, packed with `method`: gzip (the same bytes at any time) or zlib."""
    return gzip.compress(data, compresslevel=1, mtime=0) if method == "gzip" else zlib.compress(data, 1)
