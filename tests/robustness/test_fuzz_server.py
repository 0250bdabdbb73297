"""The fuzzer: it finds servers that fail, repeats its requests, and our own server passes it."""

from __future__ import annotations

import asyncio
import random
import re
from typing import Any, Callable

import pytest

from paddle_ranker.paddle_serving import baidu_std
from tests.robustness import fuzz_server
from tests.robustness.fuzz_inputs import makers
from tests.robustness.fuzz_server import FuzzOptions, Tally

unit = pytest.mark.unit
Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]


@unit
def test_requests_depend_on_their_number_alone_and_are_changed() -> None:
    for name, make in makers().items():
        made = [make(random.Random(number)) for number in range(20)]
        assert made == [make(random.Random(number)) for number in range(20)]
        assert len(set(made)) > 10, name


def fuzz_against(answer: Answer, patience: float = 60) -> Tally:
    """Fuzz a server that answers every connection as `answer` does, within `patience` however busy the machine is."""

    async def run() -> Tally:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        options = FuzzOptions(requests=30, connections=10, patience=patience, seconds=600)
        tally = await fuzz_server._Fuzzer([port], options, lambda: True, lambda: None).run()
        server.close()
        return tally

    return asyncio.run(run())


def answering(data: bytes) -> Answer:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(data)
        writer.write_eof()
        while await reader.read(1 << 16):  # closed with bytes unread, the connection is reset and the answer lost
            pass
        writer.close()

    return answer


async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(3600)  # until the loop ends


@unit
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (answering(b"HTTP/1.1 500 Internal Server Error\r\n\r\n"), "internal error"),
        (answering(baidu_std.reply(1, error=(2001, "bug"))), "internal error"),
        (answering(b"Segmentation fault"), "an answer of no protocol"),
        (silence, "hangs"),
    ],
)
def test_servers_that_fail_are_found(answer: Answer, words: str) -> None:
    tally = fuzz_against(answer, patience=0.2 if answer is silence else 60)
    assert len(tally.failures) == tally.sent == 30
    assert all(words in failure for failure in tally.failures)


@pytest.mark.server
def test_our_own_server_passes(capsys: pytest.CaptureFixture) -> None:
    assert fuzz_server.main(["--requests", "600", "--seconds", "100", "--good_every", "200"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"\| all +\| 600 ", printed) and "failures: 0" in printed
