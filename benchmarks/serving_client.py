"""A client that puts load on a server at little cost: requests made beforehand, keep-alive connections.

A dialect is a way to write requests and read answers. An answer with scores has the code `OK`; any other has the
protocol's number or name of the error. A connection has one request at a time, and an answer ends by its stated length.
In a closed loop, a fixed number of clients each send the next request once the last is answered. In an open loop,
requests are sent at a rate, without waiting for answers. A request's latency then counts from the time it
was due, so that it includes waiting for a slow server.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Optional, Union

import numpy as np

from paddle_ranker.encoding.columns import Columns
from paddle_ranker.errors import RankerError
from paddle_ranker.paddle_serving import baidu_std
from paddle_ranker.paddle_serving.json_messages import write_message
from paddle_ranker.paddle_serving.messages import GENERAL_SERVICE, PIPELINE_SERVICE, Message, messages

OK = "ok"
HOST = "127.0.0.1"
HTTP, BAIDU_STD = "HTTP", "baidu_std"  # transports; that of gRPC is the path of its method
_INFERENCE, _GATEWAY = "/GeneralModelService/inference", "/ernie/prediction"

CLOSED, LATE = "closed", "late"  # no answer came, because the connection ended, or within the time limit
_HEAD_END, _LENGTH = b"\r\n\r\n", b"content-length:"
# Maximum seconds of a closed loop with few answers, and seconds between checks.
_LONGEST_SECONDS, _LOOK_SECONDS = 120.0, 0.02
_MOST_CONNECTIONS = 512  # maximum of an open loop; further requests wait in the client, which counts in their latency


def http(path: str, body: bytes, content_type: str = "application/json", *headers: str) -> bytes:
    head = [f"POST {path} HTTP/1.1", "Host: ranker", f"Content-Type: {content_type}", f"Content-Length: {len(body)}"]
    return "\r\n".join([*head, *headers, "", ""]).encode() + body


@dataclass(frozen=True)
class Case:
    """A query with its titles, both as texts and as token ids."""

    query: str
    titles: list[str]
    pairs: Columns
    pad_id: int

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Return ids and token types, `[titles, length]` int64 each."""
        input_ids, token_type_ids = self.pairs.pad(np.arange(len(self.pairs))).values()
        return input_ids, token_type_ids


@dataclass(frozen=True)
class Dialect:
    """A way to send requests to a server.

    transport: `HTTP`, `BAIDU_STD`, or the path of a gRPC method
    write: returns a request's bytes; for gRPC the message
    read: returns the code and the probabilities `[titles]` in the body of an answer that the transport calls `OK`
    busy: codes with which the server asks to send the request again later
    """

    name: str
    transport: str
    write: Callable[[Case], bytes]
    read: Callable[[bytes, int], tuple[str, np.ndarray]]
    busy: frozenset[str]


def _rerank(case: Case) -> bytes:
    body = json.dumps({"query": case.query, "documents": case.titles}, ensure_ascii=False)
    return http("/v1/rerank", body.encode())


def _read_rerank(body: bytes, count: int) -> tuple[str, np.ndarray]:
    return _by_index(json.loads(body)["results"], "relevance_score", count)


def _tei(case: Case) -> bytes:
    body = {"query": case.query, "texts": case.titles, "truncate": True}
    return http("/rerank", json.dumps(body, ensure_ascii=False).encode())


def _read_tei(body: bytes, count: int) -> tuple[str, np.ndarray]:
    return _by_index(json.loads(body), "score", count)


def _by_index(results: Sequence[dict[str, Any]], name: str, count: int) -> tuple[str, np.ndarray]:
    probabilities = np.full(count, np.nan)
    for result in results:
        probabilities[result["index"]] = result[name]
    return OK, probabilities


def _tokens(case: Case) -> Message:
    request = messages().Request(fetch_var_names=["predict"])
    for name, values in zip(("input_ids", "token_type_ids"), case.arrays()):
        tensor = request.tensor.add(name=name, alias_name=name, elem_type=0, shape=values.shape)
        tensor.int64_data.extend(values.ravel().tolist())
    return request


def _texts(case: Case) -> Message:
    request = messages().Request(fetch_var_names=["predict"])
    request.tensor.add(name="query", elem_type=20, data=[case.query], shape=[1])
    request.tensor.add(name="title", elem_type=20, data=case.titles, shape=[len(case.titles)])
    return request


def _json(case: Case) -> bytes:
    return http(_INFERENCE, write_message(_tokens(case)))


def _read_json(body: bytes, count: int) -> tuple[str, np.ndarray]:
    [output] = json.loads(body)["outputs"]
    [tensor] = output["tensor"]
    return OK, np.array(tensor["float_data"])


def _proto(case: Case) -> bytes:
    return http(_INFERENCE, _texts(case).SerializeToString(), "application/proto")


def _message(case: Case) -> bytes:
    return bytes(_tokens(case).SerializeToString())


def _baidu_std(case: Case) -> bytes:
    meta = messages().RpcMeta(correlation_id=1)
    meta.request.service_name, meta.request.method_name = GENERAL_SERVICE, "inference"
    return baidu_std.write_frame(meta, _message(case))


def _read_message(body: bytes, count: int) -> tuple[str, np.ndarray]:
    response = messages().Response.FromString(body)
    if response.err_no:
        return str(response.err_no), np.empty(0)
    return OK, np.array(response.outputs[0].tensor[0].float_data)


def _pipeline_message(case: Case) -> Message:
    values = [json.dumps({"query": case.query, "title": title}, ensure_ascii=False) for title in case.titles]
    return messages().PipelineRequest(key=[str(place) for place in range(len(values))], value=values)


def _pipeline(case: Case) -> bytes:
    return bytes(_pipeline_message(case).SerializeToString())


def _read_pipeline(body: bytes, count: int) -> tuple[str, np.ndarray]:
    response = messages().PipelineResponse.FromString(body)
    return _printed(response.err_no, response.value)


def _gateway(case: Case) -> bytes:
    return http(_GATEWAY, write_message(_pipeline_message(case)))


def _read_gateway(body: bytes, count: int) -> tuple[str, np.ndarray]:
    answer = json.loads(body)
    return _printed(answer.get("err_no", 0), answer.get("value", ()))


def _printed(number: int, values: Sequence[str]) -> tuple[str, np.ndarray]:
    if number:
        return str(number), np.empty(0)
    return OK, np.array(json.loads(values[0])).reshape(-1)


_HTTP_BUSY = frozenset({"429", "503"})
_GRPC_BUSY = frozenset({"RESOURCE_EXHAUSTED", "UNAVAILABLE"})
_RPC_BUSY = frozenset({"2003", "2004"})  # brpc's codes for a server that is closing and for an exceeded limit
_PIPELINE_BUSY = frozenset({"3001"})  # the pipeline's code for a server that is closing

DIALECTS = {
    dialect.name: dialect
    for dialect in (
        Dialect("rerank", HTTP, _rerank, _read_rerank, _HTTP_BUSY),
        Dialect("tei", HTTP, _tei, _read_tei, _HTTP_BUSY),
        Dialect("json", HTTP, _json, _read_json, _HTTP_BUSY),
        Dialect("proto", HTTP, _proto, _read_message, _HTTP_BUSY),
        Dialect("baidu_std", BAIDU_STD, _baidu_std, _read_message, _RPC_BUSY),
        Dialect("grpc", f"/{GENERAL_SERVICE}/inference", _message, _read_message, _GRPC_BUSY),
        Dialect("pipeline_http", HTTP, _gateway, _read_gateway, _PIPELINE_BUSY | _HTTP_BUSY),
        Dialect("pipeline_grpc", f"/{PIPELINE_SERVICE}/inference", _pipeline, _read_pipeline, _PIPELINE_BUSY),
    )
}


class Answer(NamedTuple):
    """An answer: `code` is `OK`, `CLOSED`, `LATE` or the protocol's error code, `body` the bytes received."""

    code: str
    body: bytes


def split_http(buffer: bytearray) -> Optional[Answer]:
    """Return the HTTP answer at the beginning of `buffer`, or None if it is not complete yet."""
    end = buffer.find(_HEAD_END)
    if end < 0:
        return None
    head = bytes(buffer[:end]).lower()
    place = head.find(_LENGTH)
    if place < 0:
        raise RankerError(f"the server's answer has no Content-Length: {head[:200]!r}")
    length = int(head[place + len(_LENGTH) :].split(b"\r\n", 1)[0])
    if len(buffer) < end + 4 + length:
        return None
    status = head[9:12].decode("ascii", "replace")
    return Answer(OK if status == "200" else status, bytes(buffer[end + 4 : end + 4 + length]))


def split_baidu_std(buffer: bytearray) -> Optional[Answer]:
    """Return the answer in the baidu_std frame at the beginning of `buffer`, or None if it is not complete yet."""
    if len(buffer) < baidu_std.HEAD_BYTES:
        return None
    head = baidu_std.read_head(buffer)
    begin = baidu_std.HEAD_BYTES + head.meta_size
    if len(buffer) < baidu_std.HEAD_BYTES + head.body_size:
        return None
    meta = baidu_std.read_meta(bytes(buffer[baidu_std.HEAD_BYTES : begin]))
    payload = bytes(buffer[begin : baidu_std.HEAD_BYTES + head.body_size])
    return Answer(str(meta.response.error_code) if meta.response.error_code else OK, payload)


class _Stream(asyncio.Protocol):
    """A connection with one request at a time."""

    def __init__(self, split: Any) -> None:
        self._split = split
        self._buffer = bytearray()
        self._answer: Optional[asyncio.Future[Answer]] = None
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            answer = self._split(self._buffer)
        except Exception as error:  # the answer violates the protocol, so the run must end
            if self._answer and not self._answer.done():
                self._answer.set_exception(error)
            return
        if answer is not None:
            self._buffer.clear()
            self._finish(answer)

    def connection_lost(self, exc: Optional[Exception]) -> None:
        self.transport = None
        self._finish(Answer(CLOSED, b""))

    async def ask(self, data: bytes, patience: float) -> Answer:
        loop = asyncio.get_running_loop()
        self._answer = loop.create_future()
        timer = loop.call_later(patience, self._give_up)
        self.transport.write(data)
        try:
            return await self._answer
        finally:
            timer.cancel()

    def _give_up(self) -> None:
        self._finish(Answer(LATE, b""))
        if self.transport is not None:
            self.transport.abort()
            self.transport = None  # set now, so that the next request opens another connection

    def _finish(self, answer: Answer) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(answer)


class StreamConnection:
    """A connection over HTTP or baidu_std; `ask` opens it, and reopens it if it has ended."""

    def __init__(self, port: int, transport: str, patience: float) -> None:
        self._port, self._patience = port, patience
        self._split = split_baidu_std if transport == BAIDU_STD else split_http
        self._stream: Optional[_Stream] = None

    async def ask(self, data: bytes) -> Answer:
        if self._stream is None or self._stream.transport is None:
            try:
                _, self._stream = await asyncio.get_running_loop().create_connection(
                    lambda: _Stream(self._split), HOST, self._port
                )
            except OSError:
                return Answer(CLOSED, b"")
        return await self._stream.ask(data, self._patience)

    async def close(self) -> None:
        if self._stream is not None and self._stream.transport is not None:
            self._stream.transport.abort()


class GrpcConnection:
    """A gRPC channel that shares its connection with no other channel."""

    def __init__(self, port: int, method: str, patience: float) -> None:
        import grpc
        import grpc.aio

        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
        options.append(("grpc.initial_reconnect_backoff_ms", 100))
        self._channel = grpc.aio.insecure_channel(f"{HOST}:{port}", options=options)
        self._call = self._channel.unary_unary(method)
        self._error = grpc.aio.AioRpcError
        self._patience = patience

    async def ask(self, data: bytes) -> Answer:
        try:
            return Answer(OK, await self._call(data, timeout=self._patience))
        except self._error as error:
            code: str = error.code().name
            return Answer(LATE if code == "DEADLINE_EXCEEDED" else code, (error.details() or "").encode())

    async def close(self) -> None:
        await self._channel.close(None)


Connection = Union[StreamConnection, GrpcConnection]


def connect(transport: str, port: int, patience: float = 60.0) -> Connection:
    """Return a connection that opens at its first request; an answer may take `patience` seconds."""
    if transport in (HTTP, BAIDU_STD):
        return StreamConnection(port, transport, patience)
    return GrpcConnection(port, transport, patience)


class Request(NamedTuple):
    """A request's bytes in a dialect, and the number of pairs that it asks to score."""

    data: bytes
    pairs: int


@dataclass
class Load:
    """The results of a load on a server.

    seconds: length of the measured period
    whole_seconds: the same, with the time before and after it
    pairs: number of pairs scored in the measured period
    codes: number of answers by code
    latencies: seconds of each request that was answered `OK`
    client_seconds: processor time of this client in `whole_seconds`
    """

    seconds: float = 0.0
    whole_seconds: float = 0.0
    pairs: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    client_seconds: float = 0.0

    @property
    def pairs_per_second(self) -> float:
        return self.pairs / self.seconds if self.seconds else 0.0

    @property
    def requests_per_second(self) -> float:
        return self.codes[OK] / self.seconds if self.seconds else 0.0

    @property
    def failures(self) -> int:
        return sum(self.codes.values()) - self.codes[OK]

    def milliseconds(self, percent: float) -> float:
        """Return a percentile of the latencies in milliseconds, NaN if there are none."""
        return 1000 * float(np.percentile(self.latencies, percent)) if self.latencies else float("nan")


async def closed_loop(transport: str, port: int, requests: Sequence[Request], clients: int, seconds: float) -> Load:
    """Run `clients` clients at once, and measure from the time when each has received its first answer.

    The measured period lasts until there are as many answers as clients, at most `_LONGEST_SECONDS`. It begins and ends
    with an answer, because a batch's answers come together, and must not be divided by the end of the period.
    """
    load, queue = Load(), itertools.cycle(requests)
    start, processor = time.perf_counter(), time.process_time()
    done: list[tuple[float, Answer, int, float]] = []  # time, answer, pairs, seconds
    begun = asyncio.get_running_loop().create_future()
    waiting, stopped = clients, False

    async def client(connection: Connection) -> None:
        nonlocal waiting
        first = True
        while not stopped:
            request = next(queue)
            sent = time.perf_counter()
            answer = await connection.ask(request.data)
            now = time.perf_counter()
            done.append((now, answer, request.pairs, now - sent))
            if first:
                first, waiting = False, waiting - 1
                if not waiting:
                    begun.set_result((now, len(done)))

    connections = [connect(transport, port) for _ in range(clients)]
    tasks = [asyncio.ensure_future(client(connection)) for connection in connections]
    try:
        await asyncio.wait({begun, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()
        begin, before = begun.result()
        await asyncio.sleep(seconds)
        # Without this, a server that answers in bursts further apart than `seconds` would seem to answer nothing.
        while len(done) - before < clients and time.perf_counter() - begin < _LONGEST_SECONDS:
            await asyncio.sleep(_LOOK_SECONDS)
        counted, stopped = done[before:] or done[-1:], True
        await asyncio.gather(*tasks)
    finally:
        stopped = True
        for connection in connections:
            await connection.close()
    load.whole_seconds, load.client_seconds = time.perf_counter() - start, time.process_time() - processor
    _count(load, counted, begin)
    return load


async def open_loop(
    transport: str, port: int, requests: Sequence[Request], rate: float, seconds: float, seed: int
) -> Load:
    """Send `rate` requests per second at random (Poisson) times for `seconds`, and measure until all are answered."""
    loop = asyncio.get_running_loop()
    gaps = np.random.default_rng(seed).exponential(1 / rate, size=max(1, int(2 * rate * seconds) + 10))
    due = [moment for moment in np.cumsum(gaps).tolist() if moment < seconds] or [0.0]
    queue, idle = itertools.cycle(requests), deque[Connection]()
    everyone: list[Connection] = []
    free = asyncio.Semaphore(_MOST_CONNECTIONS)
    done: list[tuple[float, Answer, int, float]] = []

    async def one(request: Request, moment: float) -> None:
        async with free:
            if not idle:
                idle.append(connect(transport, port))
                everyone.append(idle[-1])
            connection = idle.pop()
            answer = await connection.ask(request.data)
            idle.append(connection)
        now = time.perf_counter()
        done.append((now, answer, request.pairs, now - moment))

    tasks = []
    processor = time.process_time()
    begin = time.perf_counter()
    try:
        for moment in due:
            wait = begin + moment - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            tasks.append(loop.create_task(one(next(queue), begin + moment)))
        await asyncio.gather(*tasks)
    finally:
        for connection in everyone:
            await connection.close()
    load = Load(whole_seconds=time.perf_counter() - begin, client_seconds=time.process_time() - processor)
    _count(load, done, begin)
    return load


def _count(load: Load, done: Sequence[tuple[float, Answer, int, float]], begin: float) -> None:
    for _, answer, pairs, seconds in done:
        load.codes[answer.code] += 1
        if answer.code == OK:
            load.pairs += pairs
            load.latencies.append(seconds)
    load.seconds = max(moment for moment, *_ in done) - begin
