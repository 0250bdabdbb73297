"""Connections that are handed on to gRPC's own server: what clients send is bounded, over all of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from functools import partial
from pathlib import Path
from typing import Any, Callable

import pytest

from paddle_ranker.serving.core.budget import ByteBudget
from paddle_ranker.serving.core.connections import Connections
from paddle_ranker.serving.process.relay import PREFACE, Relay
from tests.started import until_in_loop

pytestmark = pytest.mark.unit
SECONDS = 60
HEADERS, DATA, END_STREAM, GOAWAY = 1, 0, 1, 7


def frame(kind: int, stream: int, size: int, flags: int = 0) -> bytes:
    return size.to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + bytes(size)


def relayed(folder: Path, budget: ByteBudget, test: Callable[..., Awaitable[None]]) -> None:
    """Run `test(connect, received, relays)`; the other server answers stream 1 where it is told to."""

    async def run() -> None:
        path, received, relays = str(folder / "socket"), bytearray(), list[Any]()

        async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while part := await reader.read(65536):
                received.extend(part)
                if part.endswith(frame(DATA, 1, 0, END_STREAM)):
                    writer.write(frame(HEADERS, 1, 20, END_STREAM))
            writer.close()

        def make() -> Relay:
            relays.append(Relay(path, Connections(100, budget), body_seconds=10.0, answer_seconds=20.0))
            return relays[-1]

        behind = await asyncio.start_unix_server(other, path)
        server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
        connect = partial(asyncio.open_connection, "127.0.0.1", server.sockets[0].getsockname()[1])
        await asyncio.wait_for(test(connect, received, relays), SECONDS)
        server.close()
        behind.close()

    asyncio.run(run())


def test_what_is_not_answered_yet_is_of_the_budget(tmp_path: Path) -> None:
    budget = ByteBudget(400_000)
    begin = PREFACE + frame(HEADERS, 1, 50, 4)

    async def check(connect: Any, received: bytearray, relays: list[Relay]) -> None:
        reader, writer = await connect()
        sent = begin + frame(DATA, 1, 16_000) * 10
        writer.write(sent)
        await until_in_loop(lambda: len(received) == len(sent))
        assert budget.held == len(sent) - len(PREFACE)
        writer.write(frame(DATA, 1, 0, END_STREAM))
        assert await reader.readexactly(29) == frame(HEADERS, 1, 20, END_STREAM)
        await until_in_loop(lambda: budget.held == 0)

        greedy, end = await connect()
        end.write(begin + frame(DATA, 1, 16_000) * 400)  # above three quarters, and still on its way then
        answer = await greedy.read()
        assert answer[3] == GOAWAY and b"have the 400,000 bytes" in answer
        await until_in_loop(lambda: budget.held == 0)
        for other in (writer, end):
            other.close()

    relayed(tmp_path, budget, check)


def test_a_request_that_does_not_come_whole_is_not_waited_for(tmp_path: Path) -> None:
    async def check(connect: Any, received: bytearray, relays: list[Relay]) -> None:
        reader, writer = await connect()
        writer.write(PREFACE + frame(HEADERS, 1, 50, 4))
        await until_in_loop(lambda: len(received) > len(PREFACE))
        relays[0].check(time.monotonic() + 9)
        writer.write(frame(DATA, 1, 10))  # still not whole
        await until_in_loop(lambda: received.endswith(frame(DATA, 1, 10)))
        relays[0].check(time.monotonic() + 11)
        answer = await reader.read()
        assert answer[3] == GOAWAY and b"did not arrive within 10 seconds" in answer
        writer.close()

        answered, writer = await connect()
        writer.write(PREFACE + frame(HEADERS, 1, 50, 4) + frame(DATA, 1, 0, END_STREAM))
        assert await answered.readexactly(29)
        relays[1].check(time.monotonic() + 11)
        assert not relays[1].transport.is_closing()
        writer.close()

    relayed(tmp_path, ByteBudget(), check)


def test_a_client_that_is_sent_away_and_reads_nothing_holds_nothing(tmp_path: Path) -> None:
    budget = ByteBudget(40_000_000)

    async def check(connect: Any, received: bytearray, relays: list[Relay]) -> None:
        _, writer = await connect()
        writer.write(PREFACE + frame(HEADERS, 1, 50, 4) + frame(DATA, 1, 16_000) * 10)
        await until_in_loop(lambda: budget.held > 160_000)
        relays[0].returned(frame(DATA, 1, 12_000_000) * 2)  # more than the system takes for who does not read
        relays[0].check(time.monotonic())
        relays[0].check(time.monotonic() + 11)
        left = relays[0].transport.get_write_buffer_size()
        assert budget.held == left > 0  # it may be reading
        relays[0].check(time.monotonic() + 21)
        assert not relays[0].transport.get_write_buffer_size()
        await until_in_loop(lambda: budget.held == 0)
        writer.close()

    relayed(tmp_path, budget, check)


def test_an_answer_that_the_client_does_not_take_is_not_kept(tmp_path: Path) -> None:
    """The window of HTTP/2 lets a client hold up an answer although it reads all that is sent."""

    async def check(connect: Any, received: bytearray, relays: list[Relay]) -> None:
        reader, writer = await connect()
        writer.write(PREFACE + frame(HEADERS, 1, 50, END_STREAM) + frame(HEADERS, 3, 50, END_STREAM))
        await until_in_loop(lambda: len(received) > len(PREFACE) + 100)
        begun = frame(HEADERS, 1, 20) + frame(HEADERS, 3, 20) + frame(DATA, 3, 0, END_STREAM)
        relays[0].returned(begun)
        relays[0].check(time.monotonic() + 19)
        assert not relays[0].transport.is_closing()
        relays[0].check(time.monotonic() + 21)
        answer = await reader.read()
        assert b"an answer was not taken within 20 seconds" in answer[len(begun) :]
        writer.close()

    relayed(tmp_path, ByteBudget(), check)


def test_frames_that_carry_nothing_are_read_slowly(tmp_path: Path) -> None:
    unknown, streams = frame(0x7F, 0, 0), range(1, 8001, 2)
    requests = b"".join(frame(HEADERS, one, 300, 4) + frame(DATA, one, 300, END_STREAM) for one in streams)

    async def check(connect: Any, received: bytearray, relays: list[Relay]) -> None:
        _, writer = await connect()
        writer.write(PREFACE + requests)
        await until_in_loop(lambda: len(received) == len(PREFACE) + len(requests))
        assert not relays[0]._pace.waits  # 8,000 frames are paid for by their bytes
        writer.write(unknown * 400_000)
        await until_in_loop(lambda: relays[0]._pace.waits and relays[0]._pace.owes)
        assert not relays[0].transport.is_reading()
        relays[0].fill(False)
        assert not relays[0].transport.is_reading()
        assert relays[0]._pace.owes <= 1024 // 9 + 1  # a slice's
        writer.close()

    relayed(tmp_path, ByteBudget(), check)
