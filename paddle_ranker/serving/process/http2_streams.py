"""What a client has sent of its HTTP/2 streams that are not answered yet, seen from outside: frames' heads are enough.

| bytes | hold |
| --- | --- |
| 3 | length of the payload, big-endian |
| 1 | type |
| 1 | flags |
| 4 | stream |
| | payload |
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple, Optional

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
ENHANCE_YOUR_CALM = 0xB
_HEAD_BYTES = 9
_DATA, _HEADERS, _RST_STREAM, _GOAWAY, _CONTINUATION = 0, 1, 3, 7, 9
_END_STREAM = 0x1
_NUMBERS = struct.Struct(">II")


class Frame(NamedTuple):
    """The head of a frame, and its bytes, head and payload."""

    kind: int
    flags: int
    stream: int
    size: int


class FrameHeads:
    """Find the frames' heads in what passes.

    Args:
        skip: bytes that come before the first frame.
    """

    def __init__(self, skip: int = 0):
        self._skip = skip
        self._rest = b""  # of a head that has not come whole

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames that begin in `data`, which follows what was fed before."""
        place = 0
        if self._rest:
            data, self._rest = self._rest + data, b""
        while True:
            step = min(self._skip, len(data) - place)
            self._skip -= step
            place += step
            if len(data) - place < _HEAD_BYTES:
                self._rest = data[place:]
                return
            head = data[place : place + _HEAD_BYTES]
            self._skip = _HEAD_BYTES + int.from_bytes(head[:3], "big")
            yield Frame(head[3], head[4], int.from_bytes(head[5:], "big") & 0x7FFFFFFF, self._skip)


class OpenStreams:
    """The streams of one connection.

    Attributes: `held`, bytes that the client has sent of those that are not answered.
    """

    def __init__(self) -> None:
        self.held = 0
        self._sent: dict[int, int] = {}
        self._half_sent: dict[int, float] = {}  # since when, the oldest first
        self._newest = 0  # a stream has a higher number than those before it; heads of an older one begin none
        self._from_client, self._from_server = FrameHeads(len(PREFACE)), FrameHeads()

    def sent(self, data: bytes, now: float) -> None:
        """Note what the client sends."""
        for frame in self._from_client.feed(data):
            if frame.kind == _RST_STREAM:
                self._end(frame.stream)
                continue
            if frame.kind not in (_DATA, _HEADERS, _CONTINUATION):
                continue
            if frame.kind == _HEADERS and frame.stream > self._newest:
                self._newest = frame.stream
                self._sent[frame.stream] = 0
                self._half_sent[frame.stream] = now
            if frame.stream in self._sent:
                self._sent[frame.stream] += frame.size
                self.held += frame.size
            if frame.flags & _END_STREAM and frame.kind != _CONTINUATION:
                self._half_sent.pop(frame.stream, None)

    def answered(self, data: bytes) -> None:
        """Note what the server sends."""
        for frame in self._from_server.feed(data):
            ends = frame.kind in (_DATA, _HEADERS) and frame.flags & _END_STREAM
            if ends or frame.kind == _RST_STREAM:
                self._end(frame.stream)

    def unanswered(self) -> set[int]:
        """Return the streams that are not answered, sent whole or not."""
        return set(self._sent)

    def half_sent_since(self) -> Optional[float]:
        """Return when the oldest request that has not come whole began; None: there is none."""
        return next(iter(self._half_sent.values()), None)

    def _end(self, stream: int) -> None:
        self.held -= self._sent.pop(stream, 0)
        self._half_sent.pop(stream, None)


def goaway(code: int, reason: str) -> bytes:
    """Return the frame that ends a connection, whatever of its streams is answered, and says why."""
    payload = _NUMBERS.pack(0x7FFFFFFF, code) + reason.encode("utf-8")
    return len(payload).to_bytes(3, "big") + bytes((_GOAWAY, 0)) + bytes(4) + payload
