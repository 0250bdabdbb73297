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
            relays.append(Relay(path, Connections(100, budget), 600.0, 10.0))
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
        end.write(begin + frame(DATA, 1, 16_000) * 20)  # above three quarters
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
    budget = ByteBudget(400_000)

    async def check(connect: Any, received: bytearray, relays: list[Relay]) -> None:
        _, writer = await connect()
        writer.write(PREFACE + frame(HEADERS, 1, 50, 4) + frame(DATA, 1, 16_000) * 10)
        await until_in_loop(lambda: budget.held > 160_000)
        relays[0].returned(frame(DATA, 1, 16_000_000) * 2)  # more than the system takes for who does not read
        relays[0].check(time.monotonic() + 11)
        assert relays[0].transport.is_closing() and budget.held == 0
        relays[0].check(time.monotonic() + 12)
        assert relays[0].transport.get_write_buffer_size()  # it may be reading
        relays[0].check(time.monotonic() + 23)
        assert not relays[0].transport.get_write_buffer_size()
        writer.close()

    relayed(tmp_path, budget, check)
