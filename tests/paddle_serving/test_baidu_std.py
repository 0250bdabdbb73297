"""baidu_std: frames, and a server that answers everything it can and stays alive for the next good request."""

from __future__ import annotations

import asyncio
import struct
import threading
import zlib
from collections.abc import Awaitable
from typing import Any, Callable, Optional

import pytest

from paddle_ranker.paddle_serving import baidu_std, baidu_std_server
from paddle_ranker.paddle_serving.baidu_std_server import BaiduStdProtocol
from paddle_ranker.paddle_serving.messages import GENERAL_SERVICE, messages
from paddle_ranker.serving.core.byte_budget import ByteBudget
from paddle_ranker.serving.core.connections import Connections
from paddle_ranker.serving.core.faults import UNAVAILABLE
from paddle_ranker.serving.core.limits import Limits
from tests.fake_service import FakeService, text_request
from tests.started import until_in_loop

pytestmark = pytest.mark.unit
SECONDS = 20  # for what takes milliseconds, on a machine that has much else to do


def request_bytes(query: str = "abc", titles: tuple[str, ...] = ("abcdefgh",), **fields: Any) -> bytes:
    return text_request(query, titles, **fields)


def frame(
    payload: Optional[bytes] = None,
    *,
    correlation_id: int = 7,
    service: str = GENERAL_SERVICE,
    method: str = "inference",
    attachment: bytes = b"",
    timeout_ms: int = 0,
    **fields: Any,
) -> bytes:
    meta = messages().RpcMeta(correlation_id=correlation_id, **fields)
    meta.request.service_name, meta.request.method_name = service, method
    if timeout_ms:
        meta.request.timeout_ms = timeout_ms
    if attachment:
        meta.attachment_size = len(attachment)
    written = baidu_std.write_frame(meta, request_bytes() if payload is None else payload)
    size = len(written) - 12 + len(attachment)
    return written[:4] + struct.pack(">I", size) + written[8:] + attachment


class Connection:
    """The client's end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.transport: Any = writer.transport

    async def ask(self, data: bytes) -> tuple[Any, Any]:
        self.writer.write(data)
        return await self.reply()

    async def reply(self) -> tuple[Any, Any]:
        """Return the next reply's RpcMeta, and its Response, None where it has none."""
        head = await asyncio.wait_for(self.reader.readexactly(12), SECONDS)
        magic, body_size, meta_size = struct.unpack(">4sII", head)
        assert magic == b"PRPC"
        body = await asyncio.wait_for(self.reader.readexactly(body_size), SECONDS)
        meta = messages().RpcMeta.FromString(body[:meta_size])
        payload = body[meta_size:]
        return meta, messages().Response.FromString(payload) if meta.response.error_code == 0 else None

    async def ended(self) -> bytes:
        """Return what still comes until the server closes."""
        return await asyncio.wait_for(self.reader.read(), SECONDS)


class Server:
    """The server's end. Attributes: `service`, which answers; `protocols`, one a connection."""

    def __init__(self, limits: Optional[Limits], options: dict[str, Any]) -> None:
        self.service, self.protocols = FakeService(limits), list[BaiduStdProtocol]()
        self._options, self._writers = options, list[asyncio.StreamWriter]()

    async def run(self, check: Check) -> None:
        """Run the check while a free port is served."""
        listening = await asyncio.get_running_loop().create_server(self._accept, "127.0.0.1", 0)
        self._port = listening.sockets[0].getsockname()[1]
        try:
            await check(self)
        finally:
            for writer in self._writers:
                writer.close()
            listening.close()
            await listening.wait_closed()

    def _accept(self) -> BaiduStdProtocol:
        self.protocols.append(BaiduStdProtocol(self.service, **self._options))
        return self.protocols[-1]

    async def connect(self) -> Connection:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers.append(writer)
        return Connection(reader, writer)


Check = Callable[[Server], Awaitable[None]]


def serve(check: Check, limits: Optional[Limits] = None, **options: Any) -> None:
    """Run `check(server)` against a server on a free port."""

    async def run() -> None:  # the service is made where the loop runs, which Python 3.9 asks for
        await Server(limits, options).run(check)

    asyncio.run(run())


def served(limits: Optional[Limits] = None, **options: Any) -> Callable[[Check], Callable[[], None]]:
    """Make a test of a coroutine: see `serve`."""
    return lambda check: lambda: serve(check, limits, **options)


def test_a_frame_is_its_head_then_its_parts() -> None:
    written = frame(b"payload", attachment=b"attached")
    magic, body_size, meta_size = struct.unpack(">4sII", written[:12])
    assert magic == b"PRPC" and body_size == len(written) - 12
    meta = baidu_std.read_meta(written[12 : 12 + meta_size])
    assert (meta.correlation_id, meta.attachment_size, meta.request.method_name) == (7, 8, "inference")
    assert written[12 + meta_size :] == b"payloadattached"
    assert baidu_std.read_body(meta, written[12 + meta_size :], 100) == b"payload"


@served()
async def test_replies_come_in_any_order_under_their_ids(server: Server) -> None:
    connection = await server.connect()
    server.service.gate = asyncio.Event()
    connection.writer.write(frame(request_bytes("a", ("b",)), correlation_id=1))
    await until_in_loop(lambda: server.service.waiting == 1)
    # Refused at once: it does not wait for the one before it.
    meta, _ = await connection.ask(frame(b"", correlation_id=2))
    assert (meta.correlation_id, meta.response.error_code) == (2, 1003)
    server.service.gate.set()
    meta, response = await connection.reply()
    assert meta.correlation_id == 1 and response.outputs


@served()
async def test_packed_payloads_and_attachments(server: Server) -> None:
    connection = await server.connect()
    for compress_type in (0, 2, 3):
        meta, response = await connection.ask(frame(attachment=b"not for us", compress_type=compress_type))
        assert meta.response.error_code == 0 and response.outputs


@served()
async def test_a_client_that_goes_away_frees_its_work(server: Server) -> None:
    server.service.gate = asyncio.Event()
    connection = await server.connect()
    connection.writer.write(frame() + frame())
    await until_in_loop(lambda: server.service.waiting == 2)
    connection.writer.close()
    await until_in_loop(lambda: server.service.cancelled == 2 and server.protocols[0].in_flight == 0)


MALFORMED = [
    (frame(service="other.Service"), 1001, "other.Service"),
    (frame(method="train"), 1002, "train"),
    (frame(b"\xff\xff"), 1003, "not a baidu.paddle_serving.predictor.general_model.Request"),
    (frame(compress_type=1), 1003, "snappy"),
    (frame(compress_type=9), 1003, "compress_type"),
    (baidu_std.write_frame(messages().RpcMeta(correlation_id=7), b"x"), 1003, "request: is missing"),
    (baidu_std.write_frame(messages().RpcMeta(correlation_id=7, attachment_size=5), b""), 1003, "request: is missing"),
    (frame(b"", attachment=b"", attachment_size=500), 1003, "attachment_size"),
    (frame(b"", attachment=b"", attachment_size=-1), 1003, "attachment_size"),
]


@served()
async def test_each_malformed_request_gets_an_error_and_the_next_good_one_its_scores(server: Server) -> None:
    connection = await server.connect()
    for data, code, words in MALFORMED:
        meta, _ = await connection.ask(data)
        assert (meta.correlation_id, meta.response.error_code) == (7, code), meta
        assert words in meta.response.error_text
        meta, response = await connection.ask(frame())
        assert meta.response.error_code == 0 and response.outputs


GARBAGE = [
    (b"GET / HTTP/1.1\r\n\r\n", "PRPC"),
    (b"\x00", "PRPC"),
    (struct.pack(">4sII", b"PRPC", 5, 6) + b"x" * 100, "cannot have 6 bytes"),
    (struct.pack(">4sII", b"PRPC", 2**32 - 1, 2**31), "RpcMeta of"),
    (struct.pack(">4sII", b"PRPC", 4, 4) + b"\xff\xff\xff\xff", "not a brpc.policy.RpcMeta"),
]


@served()
async def test_after_garbage_there_is_an_error_and_an_end(server: Server) -> None:
    for garbage, words in GARBAGE:
        connection = await server.connect()
        meta, _ = await connection.ask(garbage)
        assert meta.response.error_code == 1003 and words in meta.response.error_text
        assert await connection.ended() == b""
        assert (await (await server.connect()).ask(frame()))[1].outputs


@served(Limits(request_bytes=1000))
async def test_a_frame_that_is_too_large_is_refused_before_it_arrives(server: Server) -> None:
    connection = await server.connect()
    meta = messages().RpcMeta(correlation_id=9).SerializeToString()
    # A gigabyte is announced; of it only the RpcMeta comes.
    refused, _ = await connection.ask(struct.pack(">4sII", b"PRPC", 2**30, len(meta)) + meta)
    assert (refused.correlation_id, refused.response.error_code) == (9, 1003)
    assert "above the 1,000" in refused.response.error_text
    assert await connection.ended() == b""

    connection = await server.connect()
    bomb = messages().RpcMeta(correlation_id=9, compress_type=3)
    bomb.request.service_name, bomb.request.method_name = GENERAL_SERVICE, "inference"
    head, packed = bomb.SerializeToString(), zlib.compress(bytes(10**6))
    assert len(packed) < 2000
    sizes = struct.pack(">4sII", b"PRPC", len(head) + len(packed), len(head))
    refused, _ = await connection.ask(sizes + head + packed)
    assert refused.response.error_code == 1003 and "unpacks to more than" in refused.response.error_text


@served()
async def test_a_frame_may_come_in_pieces_and_several_at_once(server: Server) -> None:
    connection = await server.connect()
    data = frame(correlation_id=1) + frame(correlation_id=2) + frame(correlation_id=3)
    for start in range(0, len(data), 5):
        connection.writer.write(data[start : start + 5])
        await connection.writer.drain()
        await asyncio.sleep(0)
    assert {(await connection.reply())[0].correlation_id for _ in range(3)} == {1, 2, 3}


@served(in_flight=3)
async def test_no_more_is_read_than_is_worked_on(server: Server) -> None:
    server.service.gate = asyncio.Event()
    connection = await server.connect()
    for number in range(10):
        connection.writer.write(frame(correlation_id=number))
    await until_in_loop(lambda: server.service.waiting == 3)
    await asyncio.sleep(0.05)
    assert server.service.waiting == server.protocols[0].in_flight == 3
    server.service.gate.set()
    assert {(await connection.reply())[0].correlation_id for _ in range(10)} == set(range(10))


def test_replies_that_are_not_read_hold_the_budget_and_let_no_more_be_read() -> None:
    budget = ByteBudget()

    async def check(server: Server) -> None:
        connection = await server.connect()
        connection.transport.pause_reading()
        payload = request_bytes("q", tuple("t" * 1000))
        await until_in_loop(lambda: bool(server.protocols))
        protocol = server.protocols[0]
        sent = 0
        while protocol._writable.is_set():
            connection.writer.write(frame(payload))
            sent += 1
            await asyncio.sleep(0.001)
        await until_in_loop(lambda: not protocol._reading)
        assert 2**16 < protocol._transport.get_write_buffer_size() < 2**20
        connection.transport.resume_reading()
        for _ in range(sent):
            assert (await connection.reply())[1].outputs
        await until_in_loop(lambda: budget.held == 0)

    serve(check, connections=Connections(10, budget))


@served()
async def test_shutdown_answers_what_is_in_flight_and_closes(server: Server) -> None:
    server.service.gate = asyncio.Event()
    idle, busy = await server.connect(), await server.connect()
    busy.writer.write(frame())
    await until_in_loop(lambda: server.service.waiting == 1 and len(server.protocols) == 2)
    for protocol in server.protocols:
        protocol.shutdown()
    assert await idle.ended() == b""
    busy.writer.write(frame(correlation_id=8))  # too late
    await asyncio.sleep(0.01)
    server.service.gate.set()
    meta, response = await busy.reply()
    assert meta.correlation_id == 7 and response.outputs
    assert await busy.ended() == b""
    assert server.service.calls == [1]


def half(payload: bytes, sent: int, **fields: Any) -> tuple[bytes, bytes]:
    """Return the head of a frame with `sent` bytes of its body, and the rest of it."""
    whole = frame(payload, **fields)
    cut = len(whole) - len(payload) + sent
    return whole[:cut], whole[cut:]


@served(api_key="right")
async def test_what_the_meta_says_is_answered_before_the_body_comes(server: Server) -> None:
    connection = await server.connect()
    right: dict[str, Any] = {"authentication_data": b"right"}
    for fields, code in (({}, 1004), ({**right, "service": "none"}, 1001), ({**right, "method": "none"}, 1002)):
        begin, rest = half(bytes(3_000_000), 1000, **fields)
        connection.writer.write(begin)
        meta, _ = await connection.reply()
        assert (meta.response.error_code, meta.correlation_id) == (code, 7)
        for place in range(0, len(rest), 100_000):  # is thrown away as it comes
            connection.writer.write(rest[place : place + 100_000])
            await connection.writer.drain()
            assert len(server.protocols[-1]._buffer) == 0
        meta, response = await connection.ask(frame(correlation_id=8, **right))
        assert meta.correlation_id == 8 and response is not None


def test_frames_above_the_budget_are_refused_and_the_others_answered() -> None:
    budget = ByteBudget(4_000_000)

    async def check(server: Server) -> None:
        begin, rest = half(bytes(2_000_000), 990_000)
        held = [await server.connect() for _ in range(3)]  # three quarters of the budget
        for connection in held:
            connection.writer.write(begin)
        await until_in_loop(lambda: budget.held > 2_900_000)
        one_more = await server.connect()
        one_more.writer.write(begin)
        meta, _ = await one_more.reply()
        assert meta.response.error_code == UNAVAILABLE.brpc and "4,000,000 bytes" in meta.response.error_text
        assert budget.held < 3_100_000
        one_more.writer.write(rest)
        meta, response = await one_more.ask(frame(correlation_id=9))  # a small one has room
        assert meta.correlation_id == 9 and response is not None
        for connection in held:
            connection.writer.close()
        await until_in_loop(lambda: budget.held == 0)

    serve(check, connections=Connections(10, budget))


def test_a_connection_reads_one_request_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who sends many large requests at once waits behind his own, and others read theirs beside them."""
    gate, begun = threading.Event(), list[str]()
    real = baidu_std_server.parse

    def slow(expected: Any, data: bytes, *bounds: Any) -> Any:
        message = real(expected, data, *bounds)
        begun.append(message.tensor[0].data[0][:1])
        assert gate.wait(SECONDS)
        return message

    monkeypatch.setattr(baidu_std_server, "parse", slow)

    async def check(server: Server) -> None:
        many, other = await server.connect(), await server.connect()
        for number in range(3):
            many.writer.write(frame(request_bytes("m" * 100_000), correlation_id=number))
        await until_in_loop(lambda: begun == ["m"])
        await until_in_loop(lambda: server.protocols[0].in_flight == 3)
        other.writer.write(frame(request_bytes("o" * 100_000)))
        await until_in_loop(lambda: begun == ["m", "o"])
        gate.set()
        assert [(await many.reply())[0].correlation_id for _ in range(3)] == [0, 1, 2]
        assert (await other.reply())[1] is not None and begun == ["m", "o", "m", "m"]

    serve(check)
