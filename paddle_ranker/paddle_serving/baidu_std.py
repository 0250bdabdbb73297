"""Frames of baidu_std, brpc's own protocol.

| bytes | hold |
| --- | --- |
| 4 | `PRPC` |
| 4 | size of all that follows the 12 bytes of this head, big-endian |
| 4 | size of the RpcMeta, big-endian |
| | RpcMeta, payload, attachment |
"""

from __future__ import annotations

import struct
from typing import NamedTuple, Optional

from paddle_ranker.errors import quoted
from paddle_ranker.paddle_serving.messages import Message, messages, parse
from paddle_ranker.serving.core.byte_budget import Share
from paddle_ranker.serving.core.faults import INVALID, TOO_LARGE, Fault
from paddle_ranker.serving.core.limits import pack, unpack

MAGIC = b"PRPC"
HEAD_BYTES = 12
META_BYTES = 64 * 1024  # more than any RpcMeta needs
_HEAD = struct.Struct(">4sII")
NONE, GZIP, ZLIB = 0, 2, 3
_METHODS = {GZIP: "gzip", ZLIB: "zlib"}
_NAMES = {1: "snappy", 4: "lz4"}


class Head(NamedTuple):
    """Sizes that a frame's head states, in bytes.

    body_size: of all that follows the head
    meta_size: of the RpcMeta within the body
    """

    body_size: int
    meta_size: int


def read_head(data: bytes) -> Head:
    """Return the sizes that the first 12 bytes of `data` state.

    Raises `Fault` if these bytes are not a frame's head, or the RpcMeta is too large. The caller must close the
    connection then.
    """
    magic, body_size, meta_size = _HEAD.unpack_from(data)
    if magic != MAGIC:
        raise Fault(INVALID, f"a frame begins with {quoted(MAGIC)}, not {quoted(magic)}")
    if meta_size > body_size:
        raise Fault(INVALID, f"a frame of {body_size:,} bytes cannot have {meta_size:,} bytes of RpcMeta in it")
    if meta_size > META_BYTES:
        raise Fault(TOO_LARGE, f"an RpcMeta of {meta_size:,} bytes is above {META_BYTES:,}")
    return Head(body_size, meta_size)


def read_meta(data: bytes) -> Message:
    """Parse an RpcMeta. Raises `Fault(INVALID)` for other bytes."""
    return parse(messages().RpcMeta, data)


def read_body(meta: Message, body: bytes, limit: int, share: Optional[Share] = None) -> bytes:
    """Return the payload, decompressed, in `body`, the bytes of a frame after its RpcMeta. An attachment is ignored.

    meta: the frame's RpcMeta
    limit: maximum number of bytes of the decompressed payload
    share: the request's share of the worker's byte budget

    Raises `Fault` for sizes that do not fit, an unknown compression, damaged data, and data above the limit.
    """
    size = meta.attachment_size
    if not 0 <= size <= len(body):
        raise Fault(INVALID, f"is {size:,}, after the RpcMeta come {len(body):,} bytes", field="attachment_size")
    payload = body[: len(body) - size]
    if meta.compress_type in _METHODS:
        payload = unpack(payload, _METHODS[meta.compress_type], limit, share)
    elif meta.compress_type != NONE:
        name = _NAMES.get(meta.compress_type, "nothing that brpc has")
        problem = f"is {meta.compress_type} ({name}), expected 0 (none), 2 (gzip) or 3 (zlib)"
        raise Fault(INVALID, problem, field="compress_type")
    elif len(payload) > limit:
        raise Fault(TOO_LARGE, f"has {len(payload):,} bytes, above the {limit:,} of a request", field="body")
    return payload


def write_frame(meta: Message, payload: bytes = b"") -> bytes:
    """Return the bytes of a frame without an attachment, its payload compressed by `meta.compress_type`."""
    if meta.compress_type in _METHODS:
        payload = pack(payload, _METHODS[meta.compress_type])
    written = meta.SerializeToString()
    return b"".join((_HEAD.pack(MAGIC, len(written) + len(payload), len(written)), written, payload))


def reply(correlation_id: int, payload: bytes = b"", *, error: Optional[tuple[int, str]] = None) -> bytes:
    """Return the frame that answers a request, with a payload or an error.

    correlation_id: the request's id
    error: (error number of brpc, text), or None
    """
    meta = messages().RpcMeta(correlation_id=correlation_id)
    meta.response.SetInParent()
    if error is not None:
        meta.response.error_code, meta.response.error_text = error
    return write_frame(meta, payload)
