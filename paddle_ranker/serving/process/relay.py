"""Relay connections to another server of this process: gRPC has its own, on a private Unix socket.

The relay counts the bytes of HTTP/2 streams that are not answered yet. For that it reads only the heads of frames:

| bytes | hold |
| --- | --- |
| 3 | length of the payload, big-endian |
| 1 | type |
| 1 | flags |
| 4 | stream |
| | payload |
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import struct
import time
from collections.abc import Iterator
from typing import NamedTuple, Optional, cast

from paddle_ranker.serving.core.connections import Connections, Unsent, close_lingering
from paddle_ranker.serving.core.peers import look_at
from paddle_ranker.serving.core.turns import REQUEST, Pace

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
ENHANCE_YOUR_CALM = 0xB
_HEAD_BYTES = 9
_DATA, _HEADERS, _RST_STREAM, _GOAWAY, _CONTINUATION = 0, 1, 3, 7, 9
_END_STREAM = 0x1
_NUMBERS = struct.Struct(">II")
_SLICE = 16 * 1024  # bytes that are passed on in one go
_GOODBYE_SECONDS = 1.0  # that a client has to go by itself when the server stops


class Frame(NamedTuple):
    """The head of an HTTP/2 frame; `size` is the bytes of head and payload."""

    kind: int
    flags: int
    stream: int
    size: int


class FrameHeads:
    """Finds the heads of frames in the bytes that pass.

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
    """The unanswered HTTP/2 streams of one connection.

    Attributes: `held`, bytes that the client has sent on these streams. `frames`, `begun` and `ended` count since they
    were last set to 0: frames and new streams of the client, streams that the server has answered.
    """

    def __init__(self) -> None:
        self.held = self.frames = self.begun = self.ended = 0
        self._sent: dict[int, int] = {}
        self._half_sent: dict[int, float] = {}  # since when, the oldest first
        self._half_answered: dict[int, float] = {}  # likewise
        self._newest = 0  # a stream has a higher number than those before it; heads of an older one begin none
        self._from_client, self._from_server = FrameHeads(len(PREFACE)), FrameHeads()

    def sent(self, data: bytes, now: float) -> None:
        """Note what the client sends."""
        for frame in self._from_client.feed(data):
            self.frames += 1
            if frame.kind == _RST_STREAM:
                self._end(frame.stream)
                continue
            if frame.kind not in (_DATA, _HEADERS, _CONTINUATION):
                continue
            if frame.kind == _HEADERS and frame.stream > self._newest:
                self._newest = frame.stream
                self.begun += 1
                self._sent[frame.stream] = 0
                self._half_sent[frame.stream] = now
            if frame.stream in self._sent:
                self._sent[frame.stream] += frame.size
                self.held += frame.size
            if frame.flags & _END_STREAM and frame.kind != _CONTINUATION:
                self._half_sent.pop(frame.stream, None)

    def answered(self, data: bytes, now: float) -> None:
        """Note what the server sends."""
        for frame in self._from_server.feed(data):
            ends = frame.kind in (_DATA, _HEADERS) and frame.flags & _END_STREAM
            if ends or frame.kind == _RST_STREAM:
                self.ended += frame.stream in self._sent
                self._end(frame.stream)
            elif frame.kind == _HEADERS and frame.stream in self._sent:
                self._half_answered[frame.stream] = now

    def unanswered(self) -> set[int]:
        """Return the numbers of the streams that are not answered, complete or not."""
        return set(self._sent)

    def half_sent_since(self) -> Optional[float]:
        """Return when the oldest incomplete request began; None if there is none."""
        return next(iter(self._half_sent.values()), None)

    def half_answered_since(self) -> Optional[float]:
        """Return when the oldest incomplete answer began; None if there is none.

        The client decides how much of an answer it is sent at a time (the window of HTTP/2's flow control).
        """
        return next(iter(self._half_answered.values()), None)

    def _end(self, stream: int) -> None:
        self.held -= self._sent.pop(stream, 0)
        self._half_sent.pop(stream, None)
        self._half_answered.pop(stream, None)


def goaway(code: int, reason: str) -> bytes:
    """Return the GOAWAY frame, which ends a connection and says why."""
    payload = _NUMBERS.pack(0x7FFFFFFF, code) + reason.encode("utf-8")
    return len(payload).to_bytes(3, "big") + bytes((_GOAWAY, 0)) + bytes(4) + payload


class Relay(asyncio.Protocol):
    """The client's side of a relayed connection. It is closed if the byte budget of all connections has no room.

    Args:
        path: path of the Unix socket.
        idle_seconds: seconds without any bytes after which the connection is closed.
        body_seconds: seconds in which a request must arrive.
        answer_seconds: seconds in which the client must take an answer.
    """

    def __init__(
        self,
        path: str,
        connections: Connections,
        *,
        idle_seconds: float = 600.0,
        body_seconds: float = 30.0,
        answer_seconds: float = 60.0,
    ):
        self._path = path
        self._connections = connections
        self._idle_seconds, self._body_seconds, self._answer_seconds = idle_seconds, body_seconds, answer_seconds
        self._streams, self._buffered = OpenStreams(), connections.budget.share()
        self._pace = Pace(connections.turns, self._pass_on)
        self._returned = 0  # bytes of answers since the pace was last told
        self._is_full = False  # the other side takes no more for now
        self._moved = time.monotonic()
        self._stopping: Optional[float] = None  # since when
        self._owed: set[int] = set()  # streams that had begun then
        self._waiting = bytearray()  # what the client has sent and was not passed on
        self._other: Optional[asyncio.Transport] = None
        self._task: Optional[asyncio.Task[None]] = None
        self._has_ended = False  # what still comes is discarded

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connect with the other server."""
        self.transport = cast(asyncio.Transport, transport)
        self._unsent = Unsent(self.transport, self._connections.budget, self._answer_seconds)
        self.transport.pause_reading()  # until it is
        self._task = asyncio.get_running_loop().create_task(self._connect())

    def data_received(self, data: bytes) -> None:
        """Pass on what the client sends."""
        if self._has_ended:
            return
        self._moved = time.monotonic()
        self._waiting += data
        self._pass_on()

    def returned(self, data: bytes) -> None:
        """Pass on what the server answers."""
        self._moved = time.monotonic()
        self._returned += len(data)
        self._streams.answered(data, self._moved)
        if not self._is_over():
            self._buffered.set(self._streams.held + len(self._waiting))
            self._unsent.write(data)

    def connection_lost(self, exc: Optional[Exception]) -> None:
        """Close the connection to the other server, too."""
        self._connections.discard(self)
        self._buffered.end()
        self._unsent.end()
        self._pace.end()
        if self._task is not None:
            self._task.cancel()
        if self._other is not None:
            self._other.close()

    def pause_writing(self) -> None:
        """Read no more from the server: the client does not keep up."""
        if self._other is not None:
            self._other.pause_reading()

    def resume_writing(self) -> None:
        """Read from the server again."""
        if self._other is not None:
            self._other.resume_reading()

    def check(self, now: float) -> None:
        """See `Connection`."""
        if now - self._moved > self._idle_seconds:
            self.transport.abort()
        self._unsent.check(now)
        if self._is_over():
            return
        if not self.transport.is_reading() and look_at(self.transport).sent_all:
            self.transport.abort()  # as where it is read from: who closes his side has left
        sent, answered = self._streams.half_sent_since(), self._streams.half_answered_since()
        if sent is not None and now - sent > self._body_seconds:
            self._end(f"a request did not arrive within {self._body_seconds:g} seconds")
        elif answered is not None and now - answered > self._answer_seconds:
            self._end(f"an answer was not taken within {self._answer_seconds:g} seconds")
        elif self._stopping is not None and now - self._stopping > _GOODBYE_SECONDS and not self._is_owed():
            self.transport.close()

    def shutdown(self) -> None:
        """Wait for requests in flight; then `check` closes the connection of a client that ignores gRPC's GOAWAY."""
        if self._stopping is None:
            self._stopping, self._owed = time.monotonic(), self._streams.unanswered()

    def abort(self) -> None:
        """See `Connection`."""
        self.transport.abort()

    def fill(self, is_full: bool) -> None:
        """Stop reading from the client while the other side takes no more; then read on."""
        self._is_full = is_full
        self._read_or_pause()

    def other_is_lost(self) -> None:
        """Close the connection: the other side is gone."""
        if not self._has_ended:
            self.transport.close()

    def _is_over(self) -> bool:
        return self._has_ended or self.transport.is_closing()

    def _pass_on(self) -> None:
        """Pass on what the client has sent, in slices, as long as the pace allows."""
        while self._waiting and self._other is not None and not self._is_over() and self._pace.may_read():
            size = self._pace.slice(_SLICE)
            data = bytes(self._waiting[:size])
            del self._waiting[:size]
            self._streams.sent(data, self._moved)
            self._tell_pace(len(data))
            self._other.write(data)
        if not (self._is_over() or self._buffered.set(self._streams.held + len(self._waiting))):
            self._end(str(self._buffered.refusal()))
        self._read_or_pause()

    def _tell_pace(self, size: int) -> None:
        """Tell the pace what has come with the last `size` bytes; the frames that an answer needs are paid for, too."""
        streams = self._streams
        self._pace.took(streams.frames, size + self._returned, answers=streams.ended, units=REQUEST * streams.begun)
        streams.frames = streams.ended = streams.begun = self._returned = 0

    def _read_or_pause(self) -> None:
        if self.transport.is_closing():
            return
        if not self._has_ended and (self._is_full or self._other is None or self._pace.waits):
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def _is_owed(self) -> bool:
        """Return whether a request that had begun when the server was stopped is still unanswered."""
        return bool(self._owed & self._streams.unanswered())

    async def _connect(self) -> None:
        loop, connection = asyncio.get_running_loop(), socket.socket(socket.AF_UNIX)
        try:
            connection.setblocking(False)
            with _named(connection, self._path):
                await loop.sock_connect(connection, self._path)
            other, _ = await loop.create_unix_connection(lambda: _Server(self), sock=connection)
        except BaseException as error:
            connection.close()
            if not isinstance(error, OSError):
                raise
            self.transport.abort()
            return
        self._other = other
        self._pass_on()

    def _end(self, reason: str) -> None:
        """Tell the client why, and close the connection."""
        if not self._is_over():
            self._has_ended = True
            self._waiting.clear()
            self._read_or_pause()
            self._unsent.write(goaway(ENHANCE_YOUR_CALM, reason))
            close_lingering(self.transport)
        self._buffered.end()
        if self._other is not None:
            self._other.abort()  # what it has read of the requests is forgotten


_NUMBERS_OF_NAMES = itertools.count(1)


@contextlib.contextmanager
def _named(connection: socket.socket, path: str) -> Iterator[None]:
    """Give a Unix socket a name of its own beside `path`, by which the other server tells connections apart."""
    name = f"{path}{next(_NUMBERS_OF_NAMES)}"
    try:
        connection.bind(name)
    except OSError:  # the path is too long: a socket without a name serves, too
        yield
        return
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(name)  # the socket keeps it


class _Server(asyncio.Protocol):
    """The server's side."""

    def __init__(self, relay: Relay):
        self._relay = relay

    def data_received(self, data: bytes) -> None:
        self._relay.returned(data)

    def pause_writing(self) -> None:
        self._relay.fill(True)

    def resume_writing(self) -> None:
        self._relay.fill(False)

    def connection_lost(self, exc: Optional[Exception]) -> None:
        self._relay.other_is_lost()
