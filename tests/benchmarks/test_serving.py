"""The load test: its client, its results, its goals, the command."""

from __future__ import annotations

import asyncio
import json
import math
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest

from benchmarks import serving
from benchmarks.serving import SYSTEMS, Measured, Run, goals, shown_tables
from benchmarks.serving_client import (
    BAIDU_STD,
    CLOSED,
    DIALECTS,
    HTTP,
    LATE,
    OK,
    Answer,
    Case,
    Load,
    Request,
    StreamConnection,
    closed_loop,
    open_loop,
    split_baidu_std,
    split_http,
)
from paddle_ranker.encoding.columns import EncodedPairs
from paddle_ranker.errors import RankerError, UsageError
from paddle_ranker.paddle_serving import baidu_std
from paddle_ranker.paddle_serving.messages import messages

unit, server, slow = pytest.mark.unit, pytest.mark.server, pytest.mark.slow
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]
BODY = b'{"results": []}'
ANSWER = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 15\r\n\r\n" + BODY


def asked() -> Case:
    pairs = EncodedPairs(
        np.array([1, 5, 2, 6, 2, 1, 5, 2, 2], np.int32), np.array([0, 5, 9]), np.array([3, 3], np.int32)
    )
    return Case("a", ["b", ""], pairs, 0)


@unit
def test_an_answer_is_found_by_its_length() -> None:
    for size in range(len(ANSWER)):
        assert split_http(bytearray(ANSWER[:size])) is None
    assert split_http(bytearray(ANSWER)) == (OK, BODY)
    assert split_http(bytearray(ANSWER.replace(b"200", b"503"))) == ("503", BODY)
    with pytest.raises(RankerError, match="no Content-Length"):
        split_http(bytearray(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"))
    for frame, answer in (
        (baidu_std.reply(1, b"scores"), (OK, b"scores")),
        (baidu_std.reply(1, error=(2004, "full")), ("2004", b"")),
    ):
        for size in range(len(frame)):
            assert split_baidu_std(bytearray(frame[:size])) is None
        assert split_baidu_std(bytearray(frame)) == answer


def with_server(handler: Handler, use: Callable[[int], Any]) -> Any:
    """Return the result of `use` for a server's port."""

    async def run() -> Any:
        listening = await asyncio.start_server(handler, "127.0.0.1", 0)
        try:
            return await use(listening.sockets[0].getsockname()[1])
        finally:
            listening.close()

    return asyncio.run(run())


def answering(*answers: bytes, seconds: float = 0.0) -> Handler:
    """Answer each request of a connection with the next of `answers`, the last one forever; b"" ends the connection."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = 0
        while await reader.read(1 << 16):
            await asyncio.sleep(seconds)
            writer.write(answers[min(number, len(answers) - 1)])
            number += 1
            if not answers[min(number, len(answers)) - 1]:
                break
        writer.close()

    return handle


@unit
def test_a_connection_says_what_came_and_opens_another_one() -> None:
    async def use(port: int, patience: float = 30.0) -> list[Answer]:
        connection = StreamConnection(port, HTTP, patience)
        answers = [await connection.ask(b"GET") for _ in range(3)]
        await connection.close()
        return answers

    assert with_server(answering(ANSWER), use) == [(OK, BODY)] * 3
    assert [answer.code for answer in with_server(answering(ANSWER, b""), use)] == [OK, CLOSED, OK]
    late = with_server(answering(ANSWER, seconds=5), lambda port: use(port, 0.05))
    assert [answer.code for answer in late] == [LATE] * 3
    assert [answer.code for answer in asyncio.run(use(1))] == [CLOSED] * 3


@unit
def test_a_server_that_speaks_something_else_stops_the_load() -> None:
    def use(port: int) -> Any:
        return StreamConnection(port, BAIDU_STD, 30).ask(b"PRPC")

    with pytest.raises(RankerError, match="a frame begins with"):
        with_server(answering(ANSWER), use)


@unit
def test_a_closed_loop_measures_what_a_server_does() -> None:
    # Four clients, each answered 20 ms after its request: at most 200 requests, 600 pairs per second.
    def use(port: int) -> Any:
        return closed_loop(HTTP, port, [Request(b"x", 3)], 4, 0.5)

    load = with_server(answering(ANSWER, seconds=0.02), use)
    assert load.failures == 0 and load.codes[OK] >= 4
    assert load.pairs == 3 * load.codes[OK] == 3 * len(load.latencies)
    assert 0 < load.pairs_per_second <= 600 * 1.1
    assert min(load.latencies) >= 0.019 and load.milliseconds(50) >= 19
    assert load.seconds <= load.whole_seconds
    failing = with_server(answering(ANSWER.replace(b"200", b"429")), use)
    assert failing.pairs == 0 and failing.codes["429"] == failing.failures > 0 and math.isnan(failing.milliseconds(99))


@unit
def test_an_open_loop_counts_from_when_a_request_was_due() -> None:
    def use(port: int) -> Any:
        return open_loop(HTTP, port, [Request(b"x", 1)], 100, 0.5, 7)

    assert 20 < sum(with_server(answering(ANSWER), use).codes.values()) < 90  # 50 are expected
    # A server that answers nothing for half a second: the first requests have waited as long.
    began: list[float] = []

    async def stuck(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1 << 16):
            began.append(time.monotonic())
            await asyncio.sleep(max(0.0, began[0] + 0.5 - time.monotonic()))
            writer.write(ANSWER)
        writer.close()

    load = with_server(stuck, use)
    assert load.failures == 0 and max(load.latencies) > 0.25


@unit
def test_every_dialect_writes_what_its_server_reads() -> None:
    one = asked()
    ids, types = one.arrays()
    for name in ("json", "baidu_std", "grpc"):
        data = DIALECTS[name].write(one)
        if name == "json":
            tensors = json.loads(data.partition(b"\r\n\r\n")[2])["tensor"]
            values = [tensor["int64_data"] for tensor in tensors]
        else:
            payload = data[-len(DIALECTS["grpc"].write(one)) :]
            values = [list(tensor.int64_data) for tensor in messages().Request.FromString(payload).tensor]
        assert values == [ids.ravel().tolist(), types.ravel().tolist()]
    assert json.loads(DIALECTS["tei"].write(one).partition(b"\r\n\r\n")[2])["texts"] == ["b", ""]
    ranked = b'{"results": [{"index": 1, "relevance_score": 0.75}, {"index": 0, "relevance_score": 0.5}]}'
    code, found = DIALECTS["rerank"].read(ranked, 2)
    assert code == OK and found.tolist() == [0.5, 0.75]
    closed = messages().PipelineResponse(err_no=3001).SerializeToString()
    assert DIALECTS["pipeline_grpc"].read(closed, 2)[0] == "3001"
    code, found = DIALECTS["pipeline_http"].read(b'{"err_no":0,"key":["predict"],"value":["[[0.5], [0.25]]"]}', 2)
    assert code == OK and found.tolist() == [0.5, 0.25]


def load_of(pairs_per_second: float, failures: int = 0) -> Load:
    codes = Counter({OK: 10, "500": failures})
    return Load(1.0, 1.0, int(pairs_per_second), codes, [0.001, 0.002, 0.009], 0.1)


def a_run() -> Run:
    run = Run("nano", 2, "inference", "100 queries", titles=10, clients=64)
    run.engine = {"scorer": [1000.0] * 2, "batch_32": [900.0] * 2, "batch_1": [300.0] * 2}
    for name, many, single in (("ours_rerank", 950, 660), ("onnxruntime", 500, 330)):
        measured = Measured(next(system for system in SYSTEMS if system.name == name), 1e-8)
        for loop in run.loops:
            measured.closed[loop] = [load_of(many if loop.titles > 1 else single)] * 2
            measured.cores[loop] = [1.5, 1.5]
        measured.open[0.5], measured.offered[0.5] = [load_of(many)], 47.5
        run.systems.append(measured)
    return run


@unit
def test_the_goals_are_shares_of_the_engine() -> None:
    run = a_run()
    found = [(round(goal.value, 3), round(goal.target, 3), goal.reached) for goal in goals(run)]
    # 950 of 1000; 660 over 300 against four fifths of 900 over 300; no errors.
    assert found == [(0.95, 0.9, True), (2.2, 2.4, False), (0, 0, True)]
    run.systems[0].open[0.5] = [load_of(950, failures=2)]
    assert [goal.reached for goal in goals(run)][-1] is False
    run.systems[0].closed[run.many][0].codes["500"] = 0
    shown = shown_tables(run)
    assert (
        "| 64 x 10          | ONNX Runtime, dynamic batching | 500 (500-500) | 0.50 [0.50, 0.50] | 1.90 [1.90, 1.90]"
        in shown
    )
    assert "in batches of 32 900 (900-900)" in shown and "| 47.5" in shown
    run.systems.pop(0)
    assert len(list(goals(run))) == 1 and shown_tables(run)


@pytest.mark.thorough
@slow
@server
def test_the_load_test_measures_a_small_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.tiny import VOCABULARY

    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    rows = [f"query{number % 7}\t标题 title {number * number}\t{number % 2}" for number in range(60)]
    (tmp_path / "pairs.tsv").write_text("\n".join(["query\ttitle\tlabel", *rows]) + "\n", encoding="utf-8")
    data = ["--file", str(tmp_path / "pairs.tsv"), "--vocab", str(tmp_path / "vocab.txt")]
    sizes = ["--shapes=tiny", "--queries=4", "--titles=3", "--clients=4", "--seconds=0.2", "--rounds=1", "--threads=1"]
    systems = ["--systems=ours_rerank,ours_grpc", "--load=0.5"]
    status = serving.main([*data, *sizes, *systems])
    shown, said = capsys.readouterr()
    assert status == 0, said
    for loop in ("4 x 3", "4 x 1", "1 x 1", "1 x 3"):
        rows = [line.split("|") for line in shown.splitlines() if line.startswith(f"| {loop} ")]
        assert len(rows) == 2 and all(row[-2].strip() == "0" for row in rows)  # no errors
    assert "ours: gRPC, tensors" in shown and "reached: tiny, 1 thread: errors of ours" in shown


@unit
def test_what_is_not_installed_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    options = serving.ServingBenchmarkOptions(systems="ours_rerank,onnxruntime", peer_python=sys.executable)
    found = {system.name for system in serving.available(options)}
    said = capsys.readouterr().out
    assert "ours_rerank" in found
    assert ("onnxruntime" in found) != ("onnxruntime (" in said)
    with pytest.raises(UsageError, match="choose from"):
        serving.available(serving.ServingBenchmarkOptions(systems="tensorrt"))
