"""What goes wrong around a server: vanishing clients, idle connections, a worker that dies, a full disk.

Each returns what the server did wrong: nothing, where it went on.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Optional

from benchmarks.harness.servers import ServerProcess, serve_command, started
from tests.robustness.soak_traffic import HOST, Client, Question, Tally, good_round, steady

_DEADLINE = 60.0  # for what takes moments, on a machine that has much else to do
_HALF, _IDLE = 50, 1000  # connections
_FULL = Path("/dev/full")


async def idle_connections(server: ServerProcess, questions: Sequence[Question]) -> list[str]:
    """Keep 1,000 connections open that have asked once and ask nothing more."""
    [question] = [q for q in questions if q.dialect.name == "rerank"][:1]
    client = Client(server.port, Tally())
    failures = []
    try:
        for _ in range(0, _IDLE, 100):  # all are in the air before the first one is back: each has a connection
            await asyncio.gather(*(client.ask(question) for _ in range(100)))
            client.keep()
        failures += [f"idle connections: {text}" for text in client.tally.failures()]
        failures += await good_round(server.port, questions)
    finally:
        await client.close()
    return failures


async def half_open(server: ServerProcess, questions: Sequence[Question]) -> list[str]:
    """Leave in the middle of a request, after it, and half: by closing one direction, and by vanishing."""
    for question in questions[:_HALF]:
        if not question.dialect.method:
            for sent in (question.data[: len(question.data) // 2], question.data):
                await asyncio.get_running_loop().run_in_executor(None, _leave, server.port, sent)
    return await good_round(server.port, questions)


def _leave(port: int, sent: bytes) -> None:
    for vanish in (True, False):
        with socket.create_connection((HOST, port), _DEADLINE) as one, suppress(OSError):
            one.sendall(sent)
            if vanish:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, no goodbye
            else:
                one.shutdown(socket.SHUT_WR)


def killed_worker(model: Path, folder: Path, questions: Sequence[Question], rate: float, seed: int) -> list[str]:
    """Kill one of two workers under load: its own requests may break, and another one takes its place."""
    command = serve_command(model, "--workers", "2", "--cpu_threads", "1", "--log_requests", "false")
    with started("two_workers", command, folder, 1) as server:
        return asyncio.run(_kill_worker(server, questions, rate, seed)) + stop(server)


async def _kill_worker(server: ServerProcess, questions: Sequence[Question], rate: float, seed: int) -> list[str]:
    client = Client(server.port, Tally())
    load = asyncio.ensure_future(steady(client, questions, rate, 4.0, seed))
    await asyncio.sleep(1)
    before = server.processes()[1:]
    if len(before) != 2:
        return [f"{len(before)} workers run, not 2"]
    os.kill(before[0], signal.SIGKILL)
    await load
    await client.close()
    # What the killed worker had in its hands is lost: connections that end, and calls that gRPC calls unavailable.
    lost = ("closed", "UNAVAILABLE")
    failures = [f"a worker was killed: {text}" for text in client.tally.failures() if text.split(": ")[1].split(" (")[0]
                not in lost]  # fmt: skip
    end = time.monotonic() + _DEADLINE
    while len(set(server.processes()[1:]) - {before[0]}) < 2:
        if time.monotonic() > end:
            return [*failures, "no other worker took the place of the one that was killed"]
        await asyncio.sleep(0.05)
    return failures + await good_round(server.port, questions)


def full_disk(model: Path, folder: Path, questions: Sequence[Question]) -> list[str]:
    """Give the server a log that is full."""
    if not _FULL.exists():
        return [f"there is no {_FULL} here"]
    with started("full_disk", serve_command(model, "--cpu_threads", "1"), folder, 1, stderr=_FULL) as server:
        failures: list[str] = []
        for _ in range(3):
            failures += asyncio.run(good_round(server.port, questions))
        return failures + stop(server)


def stop(server: ServerProcess) -> list[str]:
    """Tell a server to stop, and see that it does."""
    if server.process.poll() is not None:
        return [f"{server.name} has ended with status {server.process.returncode}"]
    server.process.send_signal(signal.SIGTERM)
    status: Optional[int]
    try:
        status = server.process.wait(_DEADLINE)
    except subprocess.TimeoutExpired:
        return [f"{server.name} does not end after SIGTERM"]
    return [f"{server.name} ended with status {status}"] if status else []
