"""A client that puts load on a server and costs little itself: keep-alive connections, bytes made beforehand.

Closed loop: so many clients, each of which asks again as soon as it is answered. Open loop: requests come when they
come, at a rate, whether the earlier ones are answered or not; a request's latency counts from when it was due, so that
what waits for a slow server is not left out.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from benchmarks.serving_connections import Answer, Connection, connect
from benchmarks.serving_dialects import OK, Dialect

_LONGEST_SECONDS, _LOOK_SECONDS = 120.0, 0.02  # of a closed loop that gets few answers, between looks at it
_MOST_CONNECTIONS = 512  # of an open loop: what comes above waits at the client, and its time counts


class Request(NamedTuple):
    """Bytes of a dialect that ask for so many pairs."""

    data: bytes
    pairs: int


@dataclass
class Load:
    """What came of some load.

    seconds: that were measured
    whole_seconds: with those before and after
    pairs: that were scored in the measured seconds
    codes: answers, by their code
    latencies: seconds that each answered request took
    client_seconds: of processor time that this client used, in the whole
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
        """Return a percentile of the latencies."""
        return 1000 * float(np.percentile(self.latencies, percent)) if self.latencies else float("nan")


async def closed_loop(
    dialect: Dialect, host: str, port: int, requests: Sequence[Request], clients: int, seconds: float
) -> Load:
    """Let so many clients ask at once, and measure from when each has had its first answer.

    What is measured holds at least as many answers as there are clients. It ends, as it begins, with an answer: a
    batch's answers come together, and half of them would count double or not at all.
    """
    load, queue = Load(), itertools.cycle(requests)
    start, processor = time.perf_counter(), time.process_time()
    done: list[tuple[float, Answer, int, float]] = []  # when, what, pairs, seconds
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

    connections = [connect(dialect, host, port) for _ in range(clients)]
    tasks = [asyncio.ensure_future(client(connection)) for connection in connections]
    try:
        await asyncio.wait({begun, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()
        begin, before = begun.result()
        await asyncio.sleep(seconds)
        # A server that answers in bursts further apart than that would seem to stand still.
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
    dialect: Dialect,
    host: str,
    port: int,
    requests: Sequence[Request],
    rate: float,
    seconds: float,
    seed: int,
) -> Load:
    """Let `rate` requests a second come, at random (Poisson) times; measure all of them until the last is answered."""
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
                idle.append(connect(dialect, host, port))
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
