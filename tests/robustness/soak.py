"""Let a server run for long under mixed load, then under too much, and see that it goes on.

python -m tests.robustness.soak [--minutes 30] [--above_seconds 60] [--model FOLDER] [--workers 1]

Below the limits every answer must have the scorer's probabilities, or the tower's vectors, and memory must stay flat;
above them the only other answer is to come again (429, 503 and what the other protocols have for it). The exit status
is 1 where something is not as it should be.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np

from benchmarks.harness.report import format_table, write_report
from benchmarks.harness.servers import ServerProcess, serve_command, started
from benchmarks.serving_client import HOST, OK
from paddle_ranker import runtime
from paddle_ranker.errors import RankerError
from paddle_ranker.metrics.intervals import Interval
from paddle_ranker.model.model_folder import identify
from paddle_ranker.options import Options, main_of, option
from tests.entailment_cases import write_model
from tests.robustness.costly_inputs import Attack, attacks
from tests.robustness.soak_traffic import (
    SOAKED,
    Client,
    Question,
    Tally,
    flood,
    good_round,
    make_questions,
    steady,
)
from tests.tiny import write_exported, write_tower

CONNECTIONS, QUEUE_PAIRS, PAIRS, DEADLINE_SECONDS = 1200, 600, 100, 30  # the server's limits
_ATTACK_EVERY, _RELOAD_EVERY = 0.2, 45.0  # seconds between two attacks, and between two reloads
_EXPECTED = (200, 400, 413, 431, 422, 429, 503)  # statuses that may answer an attack
_CAPACITY_SECONDS, _CAPACITY_CLIENTS = 2.0, 8
_SHARE = 0.5  # of the capacity found, below the limits
_BELOW, _ABOVE = (1, 10), (50, 50)  # titles a request
_FLOOD = 128  # clients: with 50 titles each, ten times what may wait
# Of the default model: the network takes longer than reading and writing do, so that what is too much waits for it, in
# the queue, and not before the event loop, where nothing is refused.
_SLOW = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 8, "num_attention_heads": 4,
         "initializer_range": 0.1, "max_seq_length": 64}  # fmt: skip
_SAMPLES = 600
_PATIENCE = 60.0  # seconds, for an answer to an attack
_ATTACK_BYTES = 2 << 20  # of an attack, once it is unpacked
_WARM_UP = 0.25  # of the time: caches fill, and the allocator finds its size
_BLOCKS = 20  # means of neighbouring samples, which are too alike to count each


@dataclass(frozen=True)
class SoakOptions(Options):
    """Options of `python -m tests.robustness.soak`."""

    minutes: float = option(30.0, help="of load below the limits", above=0)
    above_seconds: float = option(60.0, help="of load above the limits", above=0)
    rate: float = option(0.0, help="requests a second below the limits; 0: half of what the server can do", minimum=0)
    growth: float = option(1.0, help="percent of its memory that the server may grow by in that time", minimum=0)
    attacks: bool = option(True, help="attack the server and reload its models beside the load below the limits")
    model: Optional[str] = option(None, help="an exported ranker's folder (default: a small one with random weights)")
    workers: int = option(1, help="processes of the server", minimum=1)
    threads: int = option(1, help="threads of each of them", minimum=1)
    seed: int = option(0, help="of texts and arrivals", minimum=0)
    json: Optional[str] = option(None, help="write what was found to this file")


@dataclass
class Phase:
    """A part of the run, and what went wrong in it."""

    name: str
    said: str
    failures: list[str]


def run(options: SoakOptions) -> int:
    """Run the phases and print what came of each; return 1 where something was not as it should be."""
    if options.model is not None and not identify(Path(options.model)).is_exported:
        raise RankerError(f"--model {options.model}: is no exported ranker; make one: python -m paddle_ranker export")
    runtime.prepare_command(1)
    from paddle_ranker.serving.process.server import allow_open_files

    allow_open_files(4 * CONNECTIONS)
    phases: list[Phase] = []

    def end(name: str, said: str, failures: list[str]) -> None:
        phases.append(Phase(name, said, failures))
        print(f"{name}: {said or 'the server went on'}{'' if not failures else '; FAILED'}", flush=True)
        for failure in failures:
            print(f"  {failure}", flush=True)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = Path(options.model) if options.model else write_exported(folder, **_SLOW)
        others = {"entailment_model": write_model(folder), "tower": write_tower(folder / "tower")}
        questions = make_questions(model, others["tower"], options.seed, _BELOW)
        with started("server", _command(options, model, others), folder, options.threads) as server:
            rate = options.rate or asyncio.run(_capacity(server, questions)) * _SHARE
            attacker = Attacker(server, options.seed) if options.attacks else None
            below, grown = asyncio.run(_below(options, server, questions, rate))
            print(_table(below), flush=True)
            failures = below.failures()
            if attacker is not None:
                attacker.stop()
                print(f"attacks: {dict(attacker.counts)}", flush=True)
                failures += [f"{text} ({count} times)" for text, count in attacker.failures.items()]
            if max(below.seconds, default=0.0) > DEADLINE_SECONDS:
                failures.append(f"an answer came after {max(below.seconds):.0f} s")
            if not grown.is_flat(options.growth / 100 * grown.held):
                failures.append(f"memory grows: {grown}")
            end("below the limits", f"{rate:.0f} requests a second, {below.latency()}; memory {grown}", failures)
            large = make_questions(model, others["tower"], options.seed + 1, _ABOVE)
            above = asyncio.run(_above(options, server, large))
            print(_table(above), flush=True)
            end("above the limits", f"{above.answered} answered, {above.refused} told to come again, "
                f"{server.memory_mb():.0f} MB held", _failures_above(above))  # fmt: skip
            end("after it", "", asyncio.run(good_round(server.port, questions)))
            end("the server stops", f"{server.memory_mb():.0f} MB held", _stop(server) + _errors(server))
    write_report(options.json, _values(options, phases, rate, below, above, grown))
    return 1 if any(phase.failures for phase in phases) else 0


class Attacker:
    """Thread that sends expensive requests, whole or in part, and reloads the models now and then.

    Attributes: `counts` of what it did, `failures`, what the server did wrong.
    """

    def __init__(self, server: ServerProcess, seed: int):
        self.counts, self.failures = Counter[str](), Counter[str]()
        self._server, self._dice, self._over = server, random.Random(seed), threading.Event()
        of_an_index = (b"POST /v1/search ", b"POST /v1/documents ")  # which this server does not have
        self._attacks = [one for one in attacks(_ATTACK_BYTES) if not one.data.startswith(of_an_index)]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        reload_at = time.monotonic() + _RELOAD_EVERY
        while not self._over.wait(_ATTACK_EVERY):
            try:
                self._attack(self._dice.choice(self._attacks), leaves=self._dice.random() < 0.5)
            except OSError as error:
                self.failures[f"an attack was not answered: {error}"] += 1
            if time.monotonic() > reload_at:
                reload_at += _RELOAD_EVERY
                self.counts["reloads"] += 1
                os.kill(self._server.process.pid, signal.SIGHUP)

    def _attack(self, one: Attack, *, leaves: bool) -> None:
        port = self._dice.choice(self._server.ports) if one.data.startswith(b"POST") else self._server.port
        with socket.create_connection((HOST, port), _PATIENCE) as connection:
            if leaves:
                self.counts["left"] += 1
                connection.sendall(one.data[: self._dice.randrange(len(one.data))])
                return
            self.counts["sent"] += 1
            connection.sendall(one.data)
            answer = connection.recv(1 << 16)
        if not answer.startswith((b"PRPC", *(b"HTTP/1.1 %d " % status for status in _EXPECTED))):
            self.failures[f"{one.name}: answered {answer[:60]!r}"] += 1

    def stop(self) -> None:
        """End the attacks."""
        self._over.set()
        self._thread.join()


def _command(options: SoakOptions, model: Path, others: dict[str, Path]) -> list[str]:
    limits = {"connections": CONNECTIONS, "queue_pairs": QUEUE_PAIRS, "pairs": PAIRS,
              "deadline_seconds": DEADLINE_SECONDS, "texts": PAIRS, "queue_texts": QUEUE_PAIRS, **others,
              "workers": options.workers, "cpu_threads": options.threads, "http_port": 0}  # fmt: skip
    return serve_command(model, *(part for name, value in limits.items() for part in (f"--{name}", str(value))))


@dataclass(frozen=True)
class Growth:
    """MB by which memory grew over so many seconds after the warm-up, with its 95% interval; MB held at the end."""

    megabytes: Interval
    seconds: float
    held: float

    def is_flat(self, allowed: float) -> bool:
        """Return whether a growth of no more than `allowed` MB explains what was seen."""
        return self.megabytes.low <= allowed

    def __str__(self) -> str:
        found = self.megabytes
        return (
            f"{found.estimate:+.2f} MB [{found.low:+.2f}, {found.high:+.2f}] in {self.seconds:.0f} seconds, "
            f"{self.held:.0f} MB held"
        )


def growth(samples: Sequence[tuple[float, float]]) -> Growth:
    """Fit a line to samples (seconds, MB) by least squares, the warm-up left out.

    Raises `ValueError` where there are too few of them.
    """
    from scipy import stats

    times, megabytes = np.asarray(samples, dtype=np.float64).T
    kept = times >= times[0] + _WARM_UP * (times[-1] - times[0])
    times, megabytes = times[kept], megabytes[kept]
    blocks = min(_BLOCKS, len(times))
    if blocks < 3:
        raise ValueError(f"{len(times)} samples after the warm-up are too few for a line")
    x = np.array([part.mean() for part in np.array_split(times, blocks)])
    y = np.array([part.mean() for part in np.array_split(megabytes, blocks)])
    seconds = float(times[-1] - times[0])
    distances = x - x.mean()
    slope = float(distances @ y / (distances @ distances))
    left_over = y - y.mean() - slope * distances
    error = float(np.sqrt(left_over @ left_over / (blocks - 2) / (distances @ distances)))
    grown, half = slope * seconds, float(stats.t.ppf(0.975, blocks - 2)) * error * seconds
    return Growth(Interval(grown, grown - half, grown + half), seconds, float(megabytes[-1]))


async def _capacity(server: ServerProcess, questions: Sequence[Question]) -> float:
    """Return how many requests a second the server answers to a few clients; it is warm afterwards."""
    client = Client(server.port, Tally())
    try:
        await flood(client, questions, _CAPACITY_CLIENTS, _CAPACITY_SECONDS / 2)
        before, begin = client.tally.answered, time.perf_counter()
        await flood(client, questions, _CAPACITY_CLIENTS, _CAPACITY_SECONDS)
        rate = (client.tally.answered - before) / (time.perf_counter() - begin)
    finally:
        await client.close()
    if client.tally.failures():
        raise RankerError(f"the server does not answer: {'; '.join(client.tally.failures())}")
    return rate


async def _below(
    options: SoakOptions, server: ServerProcess, questions: Sequence[Question], rate: float
) -> tuple[Tally, Growth]:
    seconds = 60 * options.minutes
    samples: list[tuple[float, float]] = []

    async def sample() -> None:
        while True:
            samples.append((time.monotonic(), server.memory_mb()))
            await asyncio.sleep(seconds / _SAMPLES)

    client = Client(server.port, Tally())
    sampling = asyncio.ensure_future(sample())
    try:
        await steady(client, questions, rate, seconds, options.seed)
    finally:
        sampling.cancel()
        await client.close()
    return client.tally, growth(samples)


async def _above(options: SoakOptions, server: ServerProcess, questions: Sequence[Question]) -> Tally:
    client = Client(server.port, Tally())
    try:
        await flood(client, questions, _FLOOD, options.above_seconds)
    finally:
        await client.close()
    return client.tally


def _failures_above(tally: Tally) -> list[str]:
    failures = tally.failures(busy=True)
    if not tally.refused:
        failures.append("no request was refused: the limits were not reached")
    if not tally.answered:
        failures.append("no request was answered")
    return failures


def _stop(server: ServerProcess) -> list[str]:
    """Tell a server to stop, and see that it does."""
    if server.process.poll() is None:
        server.process.send_signal(signal.SIGTERM)
    status = server.process.wait(60)
    return [f"{server.name} ended with status {status}"] if status else []


def _errors(server: ServerProcess) -> list[str]:
    """Return the errors that the server wrote of itself: what a caller does wrong is none."""
    lines = [line for line in server.said().splitlines() if '"level": "error"' in line or line.startswith("Traceback")]
    return [f"the server's log: {line[:300]}" for line in lines[:5]]


def _table(tally: Tally) -> str:
    rows = []
    for name in SOAKED:
        codes = tally.codes.get(name)
        if codes:
            others = ", ".join(f"{code}: {count}" for code, count in sorted(codes.items()) if code != OK)
            rows.append([name, str(sum(codes.values())), str(codes[OK]), others])
    return format_table(["dialect", "requests", "right answers", "others"], rows)


def _values(
    options: SoakOptions, phases: Sequence[Phase], rate: float, below: Tally, above: Tally, grown: Growth
) -> dict[str, Any]:
    return {
        "options": asdict(options),
        "requests_per_second": rate,
        "memory": asdict(grown),
        "below": {name: dict(codes) for name, codes in below.codes.items()},
        "above": {name: dict(codes) for name, codes in above.codes.items()},
        "phases": [asdict(phase) for phase in phases],
    }


main = main_of(run, SoakOptions, (__doc__ or "").split("\n")[0])


if __name__ == "__main__":
    sys.exit(main())
