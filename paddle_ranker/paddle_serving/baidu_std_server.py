"""Serve baidu_std, bRPC's protocol, on a connection: several requests in flight, replies with their correlation ids."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Optional, Union, cast

from paddle_ranker.errors import quoted
from paddle_ranker.paddle_serving import baidu_std
from paddle_ranker.paddle_serving.general_model import bounds, infer
from paddle_ranker.paddle_serving.messages import GENERAL_METHODS, GENERAL_SERVICE, Message, messages, parse
from paddle_ranker.paddle_serving.served_models import Models
from paddle_ranker.serving.core.byte_budget import Share
from paddle_ranker.serving.core.connections import Connections, PeerTimeout, close_gently, peer_of
from paddle_ranker.serving.core.faults import INTERNAL, INVALID, NO_METHOD, NOT_FOUND, TOO_LARGE, Fault
from paddle_ranker.serving.core.limits import require_key
from paddle_ranker.serving.core.threads import MUCH_BYTES, run_in_thread
from paddle_ranker.serving.slots.services import Counting

_SERVICES = (GENERAL_SERVICE, GENERAL_SERVICE.rpartition(".")[2])
_LOG = logging.getLogger(__name__)


class BaiduStdProtocol(asyncio.Protocol):
    """One baidu_std connection.

    It stops reading while many requests are in flight, or while the client does not read its replies. A request that
    cannot be scored is answered with an error. After bytes that are no frame the connection is closed, since the start
    of the next frame cannot be found. If the RpcMeta is enough to refuse a request (its key is wrong, the server has no
    room for it), the request is refused at once, and its body is discarded as it arrives.

    Args:
        api_key: key that a request must carry in its `authentication_data`; None: no key.
        connections: counts this connection and has the budget of bytes; default: no count and no limit.
        counting: counts requests, including frames that cannot be read.
        in_flight: maximum number of requests of this connection that are in progress at a time.
    """

    def __init__(
        self,
        models: Models,
        *,
        api_key: Optional[str] = None,
        connections: Optional[Connections] = None,
        counting: Counting = contextlib.nullcontext,
        in_flight: int = 64,
    ) -> None:
        self._models = models
        self._api_key = api_key
        self._connections = Connections(1) if connections is None else connections
        self._counting = counting
        self._most_in_flight = in_flight
        self._limit = models.ranker.limits.request_bytes
        self._tasks: set[asyncio.Task[None]] = set()
        self._budget = self._connections.budget
        self._buffer = bytearray()
        self._buffered = self._budget.share()
        self._skip = 0  # bytes that are still to come of a body that is discarded
        self._head: Optional[baidu_std.Head] = None  # head of the frame that is being read
        self._meta: Message = None  # its RpcMeta
        self._ending = False  # no further frame is read; the connection closes when requests in flight are answered
        self._reading = True
        self._lingers = False  # the client may still be sending when the connection is closed

    @property
    def in_flight(self) -> int:
        """Number of requests without a reply."""
        return len(self._tasks)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._client = peer_of(transport)
        self._loop = asyncio.get_running_loop()
        self._writable = asyncio.Event()  # the client keeps up with its replies
        self._writable.set()
        self._reading_timeout, self._writing_timeout = PeerTimeout(self._on_slow_frame), PeerTimeout(self.abort)
        self._connections.add(self)
        self._reading_turn = asyncio.Lock()  # large requests of one client are parsed one at a time

    def data_received(self, data: bytes) -> None:
        if not self._ending:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            self._buffer += data[skipped:]
            self._read_frames(len(data))

    def connection_lost(self, exc: Optional[Exception]) -> None:
        self._ending = True
        self._buffer.clear()
        self._buffered.end()
        self._reading_timeout.end()
        self._writing_timeout.end()
        self._writable.set()
        for task in self._tasks:  # nobody waits for them any more
            task.cancel()
        self._connections.discard(self)

    def pause_writing(self) -> None:
        self._writable.clear()
        self._writing_timeout.wait()
        self._read_or_pause()

    def resume_writing(self) -> None:
        self._writable.set()
        self._writing_timeout.stop()
        self._read_frames()

    def abort(self) -> None:
        self._transport.abort()

    def shutdown(self) -> None:
        """Read no further request. Close the connection when the requests in flight are answered."""
        if self._ending:
            return
        self._ending = True
        self._buffer.clear()
        self._buffered.end()
        self._reading_timeout.stop()
        self._read_or_pause()
        self._close_if_done()

    def _read_frames(self, size: int = 0) -> None:
        """Start work on every complete frame in the buffer, as long as more requests may be in flight.

        size: number of bytes that have come since the last call
        """
        while self._buffer and not self._ending and self._may_read() and self._read_frame():
            pass
        if not self._ending and not self._buffered.set(len(self._buffer)):
            self._refuse_the_frame()
        if not self._ending and self._may_read() and (self._buffer or self._skip):
            self._reading_timeout.wait(size)
        else:
            self._reading_timeout.stop()
        self._read_or_pause()

    def _on_slow_frame(self) -> None:
        self._end_with(Fault(INVALID, "the frame did not come in time", field="body"), 0)

    def _may_read(self) -> bool:
        return len(self._tasks) < self._most_in_flight and self._writable.is_set()

    def _read_frame(self) -> bool:
        """Take a frame from the buffer and start work on it. Return False if there is no complete frame.

        A frame that is too large ends the connection, and so do bytes that are no frame.
        """
        buffer = self._buffer
        # Bytes that do not begin a frame are refused before the head is complete.
        begins_well = buffer[: len(baidu_std.MAGIC)] == baidu_std.MAGIC[: len(buffer)]
        if begins_well and len(buffer) < baidu_std.HEAD_BYTES:
            return False
        try:
            if self._head is None:
                self._head = baidu_std.read_head(bytes(buffer[: baidu_std.HEAD_BYTES]).ljust(baidu_std.HEAD_BYTES))
            body_begin = baidu_std.HEAD_BYTES + self._head.meta_size
            frame_end = baidu_std.HEAD_BYTES + self._head.body_size
            too_large = self._head.body_size > self._limit + baidu_std.META_BYTES
            if len(buffer) < body_begin:
                return False
            if self._meta is None:
                self._meta = baidu_std.read_meta(bytes(buffer[baidu_std.HEAD_BYTES : body_begin]))
            meta = self._meta
        except Fault as fault:
            self._end_with(fault, 0)
            return False
        if too_large:
            problem = f"has {self._head.body_size:,} bytes, above the {self._limit:,} of a request"
            self._end_with(Fault(TOO_LARGE, problem, field="body"), meta.correlation_id)
            return False
        if len(buffer) < frame_end:
            return self._is_unwanted(meta)
        body = bytes(buffer[body_begin:frame_end])
        self._end_the_frame(frame_end)
        self._work_on(meta, body)
        return True

    def _is_unwanted(self, meta: Message) -> bool:
        """Refuse a frame by its RpcMeta, if possible, before its body has arrived. Return whether it was refused."""
        try:
            self._check(meta)
        except Fault as fault:
            self._refuse_the_frame(fault)
            return True
        return False

    def _refuse_the_frame(self, fault: Optional[Fault] = None) -> None:
        """Answer the frame that is being read with an error, and discard its body.

        fault: the error; default: the byte budget has no room for the frame
        """
        fault = fault or self._buffered.refusal()
        if self._head is None or self._meta is None:  # the buffer has many frames, or half an RpcMeta
            self._end_with(fault, 0)
            return
        meta, size = self._meta, baidu_std.HEAD_BYTES + self._head.body_size
        self._skip = max(0, size - len(self._buffer))
        self._end_the_frame(size)
        self._buffered.set(len(self._buffer))
        self._work_on(meta, fault)

    def _end_the_frame(self, size: int) -> None:
        del self._buffer[:size]
        self._head = self._meta = None
        self._reading_timeout.stop()

    def _work_on(self, meta: Message, body: Union[bytes, Fault]) -> None:
        task = self._loop.create_task(self._answer(meta, body))
        self._tasks.add(task)
        task.add_done_callback(self._answered)

    async def _answer(self, meta: Message, body: Union[bytes, Fault]) -> None:
        """Compute a request's answer, or refuse the request, and write the reply.

        body: the frame's body, or the reason to refuse
        """
        try:
            with self._budget.share() as share:
                with self._counting() as record:
                    if record is not None:
                        record.describe(client=self._client)
                    if isinstance(body, Fault):
                        raise body
                    if record is not None:
                        record.describe(request_bytes=len(body))
                    share.reserve(len(body))
                    request, deadline = await self._request(meta, body, share)
                    body = b""  # its texts are held once
                    response = await infer(request, self._models, deadline=deadline, share=share, record=record)
                    written = baidu_std.reply(meta.correlation_id, bytes(response.SerializeToString()))
                    if record is not None:
                        record.describe(answer_bytes=len(written))
                await self._send(written, share)
            return
        except Fault as fault:
            written = baidu_std.reply(meta.correlation_id, error=(fault.kind.brpc, str(fault.settled())))
        except Exception:
            _LOG.exception("a baidu_std request failed")
            written = baidu_std.reply(
                meta.correlation_id, error=(INTERNAL.brpc, "internal error; see the server's log")
            )
        await self._send(written)

    async def _send(self, reply: bytes, share: Optional[Share] = None) -> None:
        """Send a reply once the client has read enough of earlier replies. Until then, its bytes count in `share`."""
        if share is not None and len(reply) > share.held:
            share.reserve(len(reply))
        while not self._writable.is_set():
            await self._writable.wait()
        if not self._transport.is_closing():
            self._transport.write(reply)

    def _check(self, meta: Message) -> None:
        """Raise `Fault` if the RpcMeta alone shows that a request must be refused: its key, service or method."""
        require_key(self._api_key, meta.authentication_data)
        if not meta.HasField("request"):
            raise Fault(INVALID, "is missing", field="request")
        call = meta.request
        if call.service_name not in _SERVICES:
            raise Fault(NOT_FOUND, f"{quoted(call.service_name)} is not served here; {GENERAL_SERVICE} is")
        if call.method_name not in GENERAL_METHODS:
            raise Fault(NO_METHOD, f"{quoted(call.method_name)} is no method; {', '.join(GENERAL_METHODS)} are")

    async def _request(self, meta: Message, body: bytes, share: Share) -> tuple[Message, float]:
        """Parse the request in a frame's body. Return (request, deadline on `time.monotonic()`'s clock)."""
        arrived = time.monotonic()
        self._check(meta)
        call = meta.request
        much = MUCH_BYTES + 1 if meta.compress_type else 0  # the decompressed size is not known
        seconds = call.timeout_ms / 1000 if call.timeout_ms > 0 else self._models.ranker.limits.deadline_seconds
        deadline, allowed = arrived + seconds, bounds(self._models)
        async with self._reading_turn:
            payload = await run_in_thread(much, baidu_std.read_body, meta, body, self._limit, share, deadline=deadline)
            await run_in_thread(len(payload), share.reserve_read, payload, deadline=deadline)
            request = await run_in_thread(
                len(payload), parse, messages().Request, payload, allowed, share, deadline=deadline
            )
        if call.method_name == "debug":
            request.profile_server = True
        return request, deadline

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _LOG.error("a baidu_std reply could not be written", exc_info=task.exception())
        self._close_if_done()
        if not self._ending:
            self._read_frames()

    def _end_with(self, fault: Fault, correlation_id: int) -> None:
        """Answer with an error, read no further frame, and close the connection after the requests in flight."""
        with contextlib.suppress(Fault), self._counting() as record:
            if record is not None:
                record.describe(client=self._client)
            raise fault
        self._transport.write(baidu_std.reply(correlation_id, error=(fault.kind.brpc, str(fault))))
        self._lingers = True
        self.shutdown()

    def _close_if_done(self) -> None:
        if not self._ending or self._tasks or self._transport.is_closing():
            return
        if self._lingers:
            self._lingers = False
            close_gently(self._transport)
        else:
            self._transport.close()

    def _read_or_pause(self) -> None:
        """Pause reading while no more requests may begin, so that the kernel slows the sender, else resume."""
        wanted = self._ending or self._may_read()  # an ending connection reads on, to notice that the client leaves
        if wanted == self._reading or self._transport.is_closing():
            return
        self._reading = wanted
        if wanted:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()
