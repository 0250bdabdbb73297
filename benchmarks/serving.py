"""Put load on the server: pairs per second and latency, beside its engine alone, and beside other servers.

python -m benchmarks.serving [--shapes nano] [--threads 2] [--seconds 5] [--rounds 5] [--peer_python PYTHON]

Each server runs in a separate process, has the same weights and gets requests for the same pairs; the client runs on
the same machine. The servers and the engine without a server take turns in rounds, so that a busy moment of the machine
affects all of them. The servers' probabilities are compared first.
"""

from __future__ import annotations

import asyncio
import gc
import json
import math
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

import numpy as np

from benchmarks.harness.rankers import SHAPES, export_peers, export_ranker, prepare_ranker
from benchmarks.harness.report import Goal, format_table, median_and_range, ratio
from benchmarks.harness.servers import ServerProcess, serve_command, started
from benchmarks.harness.workers import Worker, leave_out, missing_packages
from benchmarks.inputs import PeerOptions, chosen, parse_numbers
from benchmarks.serving_client import DIALECTS, OK, Case, Load, Request, closed_loop, connect, open_loop
from paddle_ranker import runtime
from paddle_ranker.data.rows.records import LabeledPair
from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.errors import RankerError, UsageError
from paddle_ranker.metrics.intervals import Interval
from paddle_ranker.options import main_of, option
from paddle_ranker.scoring.engines.engine_registry import exported_engines

_WEB = ("fastapi", "uvicorn", "uvloop", "httptools")
TOLERANCE = 1e-5
OF_THE_ENGINE = 0.9  # goal for the server's speed over that of the engine alone
OF_THE_GAIN = 0.8  # goal for the server's gain over pairs one by one, relative to the engine's gain by batches of 32
WAYS = {"scorer": "in the scorer's batches", "batch_32": "in batches of 32",
        "batch_1": "one by one"}  # fmt: skip
_WARM_UP_SECONDS = 2.0  # maximum seconds of each load in the warm-up, before the rounds


@dataclass(frozen=True)
class System:
    """A server and a way to send it requests, one row of the tables.

    dialect: name of the way in which requests are sent, see `serving_client.DIALECTS`
    module: module of a peer's server; None for this toolkit's server
    packages: packages that the peer's environment must have
    """

    name: str
    title: str
    dialect: str = "rerank"
    module: Optional[str] = None
    packages: tuple[str, ...] = ()

    @property
    def ours(self) -> bool:
        return self.module is None


SYSTEMS = (
    System("ours_rerank", "ours: /v1/rerank"),
    System("ours_baidu_std", "ours: baidu_std, tensors", "baidu_std"),
    System("ours_json", "ours: HTTP, JSON tensors", "json"),
    System("ours_grpc", "ours: gRPC, tensors", "grpc"),
    System("sentence_transformers", "sentence-transformers, FastAPI", module="fastapi_sentence_transformers",
           packages=("torch", "sentence_transformers", *_WEB)),
    System("onnxruntime", "ONNX Runtime, dynamic batching", module="fastapi_onnx",
           packages=("torch", "transformers", "onnx", "onnxruntime", "orjson", *_WEB)),
    System("infinity", "Infinity, its own server", module="infinity_server", packages=("infinity_emb", "torch")),
)  # fmt: skip


@dataclass(frozen=True)
class ServingBenchmarkOptions(PeerOptions):
    shapes: str = option("nano", help=f"encoders, comma-separated, from {', '.join(SHAPES)}")
    systems: str = option("all", help=f"rows, comma-separated, from {', '.join(s.name for s in SYSTEMS)}")
    engine: str = option("inference", help="engine of this toolkit's server", choices=exported_engines())
    threads: str = option("2", help="threads of every model, comma-separated, one table each")
    workers: int = option(
        1, help="number of processes of this toolkit's server, each with --threads threads", minimum=1
    )
    queries: int = option(100, help="queries to ask about", minimum=1)
    titles: int = option(10, help="titles a request", minimum=2)
    clients: int = option(64, help="clients at once", minimum=2)
    seconds: float = option(5.0, help="seconds of each load in each round", above=0)
    rounds: int = option(5, help="timed rounds", minimum=1)
    load: str = option("0.25,0.5,0.75,0.9", help="shares of the capacity that the open loop offers; none: no open loop")
    seed: int = option(1000, help="random seed of the pairs, the parameters and the arrivals", minimum=0)


@dataclass(frozen=True)
class Loop:
    """A closed loop: the number of clients, and the number of titles of each request."""

    clients: int
    titles: int

    def __str__(self) -> str:
        return f"{self.clients} x {self.titles}"


@dataclass
class Measured:
    """Results of a system.

    difference: largest absolute difference of a probability from the systems' median
    server: the system's server
    closed: loads of all rounds, by closed loop
    open: open-loop loads of all rounds, by share of the server's capacity
    offered: requests sent per second, by share
    cores: the server's processor seconds per second in all rounds, by closed loop
    memory_mb: the server's memory at the end
    """

    system: System
    difference: float = math.nan
    server: ServerProcess = field(init=False)
    closed: dict[Loop, list[Load]] = field(default_factory=dict)
    open: dict[float, list[Load]] = field(default_factory=dict)
    offered: dict[float, float] = field(default_factory=dict)
    cores: dict[Loop, list[float]] = field(default_factory=dict)
    memory_mb: float = math.nan

    def speeds(self, loop: Loop) -> list[float]:
        """Return pairs per second in a closed loop, one value per round."""
        return [load.pairs_per_second for load in self.closed[loop]]


@dataclass
class Run:
    """The results for a shape and a number of threads, shown in one set of tables.

    `engine` maps each of `WAYS` to pairs per second of the engine without a server, one value per round.
    """

    shape: str
    threads: int
    engine_name: str
    work: str
    titles: int
    clients: int
    systems: list[Measured] = field(default_factory=list)
    engine: dict[str, list[float]] = field(default_factory=dict)

    @property
    def many(self) -> Loop:
        return Loop(self.clients, self.titles)

    @property
    def single(self) -> Loop:
        return Loop(self.clients, 1)

    @property
    def alone(self) -> Loop:
        return Loop(1, 1)

    @property
    def loops(self) -> list[Loop]:
        """Return the closed loops: all clients, or a single client, with many titles or one."""
        return list(dict.fromkeys((self.many, self.single, self.alone, Loop(1, self.titles))))


def shown_tables(run: Run) -> str:
    """Return the tables of the results, and lines that explain them."""
    lines = [f"\n{run.shape}, engine {run.engine_name}, threads: {run.threads}; {run.work}"]
    lines.append("the engine alone, pairs/s: " + "; ".join(
        f"{WAYS[way]} {median_and_range(speeds, 0)}" for way, speeds in run.engine.items()))  # fmt: skip
    lines.append("; ".join(f"{m.system.name} off by {m.difference:.0e}, {m.memory_mb:.0f} MB" for m in run.systems))
    header = ["clients x titles", "system", "pairs/s", "of the engine", "ours / it", "p50 / p99 ms", "cores", "errors"]
    lines += ["", format_table(header, [_closed_row(run, loop, row) for loop in run.loops for row in run.systems])]
    lines.append(
        "closed loop: a client asks again as soon as it is answered; of the engine: pairs/s over the engine's alone, "
        "in the scorer's batches, for single titles one by one; ours / it: ours by /v1/rerank over the row; cores: "
        "processor seconds a second, of the server and of the client"
    )
    shares = sorted({share for measured in run.systems for share in measured.open})
    if shares:
        lines += ["", _open_table(run, shares)]
        lines.append(
            f"open loop: requests of {run.titles} titles that come at random times, at a share of what the same server "
            f"did at {run.many}; a latency counts from when a request was due"
        )
    return "\n".join(lines)


def _closed_row(run: Run, loop: Loop, measured: Measured) -> list[str]:
    loads, speeds, own = measured.closed[loop], measured.speeds(loop), ours(run)
    faster = ratio(own.speeds(loop), speeds) if own is not None and not measured.system.ours else None
    client = statistics.median(load.client_seconds / load.whole_seconds for load in loads)
    return [
        str(loop),
        measured.system.title,
        median_and_range(speeds, 0),
        _shown(_over(speeds, run.engine.get("scorer" if loop.titles > 1 else "batch_1"))),
        _shown(faster),
        _latencies(loads),
        f"{statistics.median(measured.cores[loop]):.2f} + {client:.2f}",
        str(sum(load.failures for load in loads)),
    ]


def _open_table(run: Run, shares: Sequence[float]) -> str:
    rows = []
    for measured in run.systems:
        for share in shares:
            if share in measured.open:
                loads = measured.open[share]
                answered = [load.requests_per_second for load in loads]
                errors = sum(load.failures for load in loads)
                rows.append([measured.system.title, f"{share:g}", f"{measured.offered[share]:.1f}",
                             median_and_range(answered, 1), _latencies(loads), str(errors)])  # fmt: skip
    return format_table(["system", "load", "requests/s", "answered/s", "p50 / p99 ms", "errors"], rows)


def _latencies(loads: Sequence[Load]) -> str:
    together = Load(latencies=[seconds for load in loads for seconds in load.latencies])
    return f"{together.milliseconds(50):.1f} / {together.milliseconds(99):.1f}"


def _over(own: Sequence[float], others: Optional[Sequence[float]]) -> Optional[Interval]:
    return ratio(own, others) if others and all(own) else None


def _shown(found: Optional[Interval]) -> str:
    return f"{found:.2f}" if found else ""


def ours(run: Run) -> Optional[Measured]:
    """Return the row `ours_rerank`, which gets the same requests as the peers, or None if it was not measured."""
    return next((measured for measured in run.systems if measured.system.name == "ours_rerank"), None)


def goals(run: Run) -> Iterator[Goal]:
    """Yield the goals: a share of the engine's own speed, a share of its gain from batches, and no errors."""
    where = f"{run.shape}, {run.threads} thread{'s' if run.threads > 1 else ''}"
    own = ours(run)
    if own is not None:
        found = _over(own.speeds(run.many), run.engine.get("scorer"))
        if found:
            yield Goal(f"{where}: {run.many}, of the engine's own rate, {_shown(found)}", found.estimate, OF_THE_ENGINE)
        gain = _over(own.speeds(run.single), run.engine.get("batch_1"))
        if gain:
            engine = ratio(run.engine["batch_32"], run.engine["batch_1"])
            what = (
                f"{where}: {run.single}, times the engine one by one {_shown(gain)}; in batches of 32 {_shown(engine)}"
            )
            yield Goal(what, gain.estimate, OF_THE_GAIN * engine.estimate)
    errors = sum(load.failures for m in run.systems if m.system.ours for loads in (*m.closed.values(), *m.open.values())
                 for load in loads)  # fmt: skip
    yield Goal(f"{where}: errors of ours", errors, 0, at_most=True)


def run(options: ServingBenchmarkOptions) -> None:
    shapes = [Path(options.model).name] if options.model else chosen("shapes", options.shapes, list(SHAPES))
    threads, shares = parse_numbers(options.threads, "threads"), parse_shares(options.load)
    if 0 in threads:
        raise UsageError(f"--threads {options.threads}: give numbers from 1 on")
    systems = available(options)
    runtime.prepare_command(0)
    for shape in shapes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            cases, described = make_work(options, shape, systems, folder)
            gc.freeze()  # the collector skips existing objects while latencies are measured
            for count in threads:
                found = Run(shape, count, options.engine, described, options.titles, options.clients)
                found.systems = [Measured(system) for system in systems]
                measure(options, found, shares, cases, folder)
                print(shown_tables(found), *goals(found), sep="\n", flush=True)


def parse_shares(text: str) -> list[float]:
    """Return the comma-separated shares of `--load`, [] for "none"; `UsageError` if one is no number above 0."""
    with suppress(ValueError):
        shares = [] if text == "none" else list(map(float, text.split(",")))
        if all(share > 0 for share in shares):
            return shares
    raise UsageError(f"--load {text}: give shares above 0, such as 0.25,0.5,0.75,0.9, or none")


def available(options: ServingBenchmarkOptions) -> list[System]:
    """Return the chosen systems whose packages are installed, and print the ignored systems."""
    names = chosen("systems", options.systems, [system.name for system in SYSTEMS])
    wanted = [system for system in SYSTEMS if system.name in names]
    needed = sorted({package for system in wanted for package in system.packages})
    missing = missing_packages(options.peer_python, needed) if needed else set()
    return leave_out(wanted, lambda system: sorted(missing & set(system.packages)))


def make_work(
    options: ServingBenchmarkOptions, shape: str, systems: Sequence[System], folder: Path
) -> tuple[list[Case], str]:
    """Write the exported model, the peers' model and the pairs into `folder`; return the cases and a description."""
    found = prepare_ranker(options, shape, options.seed, folder)
    asked = draw(found.graded, found.pair_encoder, options.queries, options.titles, options.seed)
    flat = [[one.query for one in asked for _ in one.titles], [title for one in asked for title in one.titles]]
    (folder / "pairs.json").write_text(json.dumps(flat), encoding="utf-8")
    pairs = found.pair_encoder.encode(*flat)
    export_ranker(folder, pairs, onnx=options.engine in ("onnx", "openvino", "auto"))
    if any(system.name == "onnxruntime" for system in systems):
        export_peers(options.peer_python, folder)
    tokens = f"{pairs.lengths.mean():.1f} tokens a pair"
    return asked, f"{len(asked)} queries of {found.file.name} with {options.titles} titles each, {tokens}"


def draw(graded: Sequence[LabeledPair], encoder: PairEncoder, queries: int, titles: int, seed: int) -> list[Case]:
    """Draw queries with `titles` titles each: first the query's titles, then random titles of all queries."""
    titles_of: dict[str, list[str]] = {}
    for pair in graded:
        titles_of.setdefault(pair.query, []).append(pair.title)
    if len(titles_of) < queries:
        raise UsageError(f"the file has {len(titles_of)} queries, fewer than --queries {queries}")
    random = np.random.default_rng(seed)
    chosen = random.permutation(len(titles_of))[:queries].tolist()
    texts, cases = list(titles_of), []
    for number in chosen:
        query = texts[number]
        others = [graded[row].title for row in random.integers(len(graded), size=titles).tolist()]
        listed = (titles_of[query] + others)[:titles]
        cases.append(Case(query, listed, encoder.encode([query] * titles, listed), encoder.pad_id))
    return cases


def measure(
    options: ServingBenchmarkOptions, result: Run, shares: Sequence[float], cases: Sequence[Case], folder: Path
) -> None:
    """Measure the servers of `result` on the cases.

    Raises `RankerError` if a process ends, or if a server's probabilities differ from the servers' median.
    """
    threads, requests = result.threads, dict[tuple[str, int], list[Request]]()
    single = [Case(c.query, [title], c.pairs.take(np.array([row])), c.pad_id) for c in cases
              for row, title in enumerate(c.titles)]  # fmt: skip
    for dialect in {DIALECTS[measured.system.dialect] for measured in result.systems}:
        for titles, some in ((1, single), (options.titles, cases)):
            requests[dialect.name, titles] = [Request(dialect.write(case), titles) for case in some]
    with ExitStack() as stack:
        servers: dict[str, ServerProcess] = {}  # all dialects of this toolkit share one
        for measured in result.systems:
            key = "ours" if measured.system.ours else measured.system.name
            if key not in servers:
                command = _command(options, measured.system, folder, threads)
                servers[key] = stack.enter_context(started(key, command, folder, threads))
            measured.server = servers[key]
        line = [sys.executable, "-m", "benchmarks.peers.serving_engine", str(folder), options.engine, str(threads)]
        engine = Worker("the engine alone", line, threads, folder / "engine.log", hint="try another --engine")
        stack.callback(engine.close)
        engine.answer()
        _compare_scores(result, cases[:20])
        for number in range(options.rounds + 1):  # the first round is the warm-up
            _closed_loops(options, result, engine, requests, number)
        for number in range(options.rounds):
            for share in shares:
                for measured in result.systems:
                    _open_loop(options, measured, requests, share, result.many, options.seed + number)
        for measured in result.systems:
            measured.memory_mb = measured.server.memory_mb()


def _command(options: ServingBenchmarkOptions, system: System, folder: Path, threads: int) -> list[str]:
    if system.module is not None:
        return [options.peer_python, "-m", f"benchmarks.peers.{system.module}", str(folder), str(threads)]
    how = ["--engine", options.engine, "--cpu_threads", str(threads), "--workers", str(options.workers)]
    return serve_command(folder / "exported", *how, "--log_requests", "false")


def _compare_scores(result: Run, cases: Sequence[Case]) -> None:
    """Set each system's largest difference in probability from the median of all systems.

    Raises `RankerError` if a difference exceeds `TOLERANCE`.
    """

    async def scores(measured: Measured) -> np.ndarray:
        dialect, found = DIALECTS[measured.system.dialect], []
        connection = connect(dialect.transport, measured.server.port)
        for case in cases:
            answer = await connection.ask(dialect.write(case))
            if answer.code != OK:
                said = measured.server.said()[-500:].strip()
                raise RankerError(f"{measured.system.name} answers {answer.code}: {said}")
            found.append(dialect.read(answer.body, len(case.titles))[1])
        await connection.close()
        return np.concatenate(found)

    found = [asyncio.run(scores(measured)) for measured in result.systems]
    expected = np.median(found, axis=0)
    for measured, probabilities in zip(result.systems, found):
        measured.difference = float(np.abs(probabilities - expected).max())
        if not measured.difference <= TOLERANCE:
            raise RankerError(
                f"the probabilities of {measured.system.name} are off by {measured.difference:.1e}, more than "
                f"{TOLERANCE:g}: its speed means nothing; leave it out with --systems, and report it"
            )


def _closed_loops(
    options: ServingBenchmarkOptions,
    result: Run,
    engine: Worker,
    requests: dict[tuple[str, int], list[Request]],
    number: int,
) -> None:
    """Run the engine in each way and each closed loop on each server; keep the results but for round 0."""
    seconds = options.seconds if number else min(options.seconds, _WARM_UP_SECONDS)
    for way in WAYS:
        answer = engine.ask(way=way, seconds=seconds, seed=options.seed + number)
        if number:
            result.engine.setdefault(way, []).append(answer["pairs"] / answer["seconds"])
    for measured in result.systems:
        server, dialect = measured.server, DIALECTS[measured.system.dialect]
        for loop in result.loops:
            used = server.processor_seconds()
            asked = requests[dialect.name, loop.titles]
            load = asyncio.run(closed_loop(dialect.transport, server.port, asked, loop.clients, seconds))
            used = server.processor_seconds() - used
            if number:
                measured.closed.setdefault(loop, []).append(load)
                measured.cores.setdefault(loop, []).append(used / load.whole_seconds)


def _open_loop(
    options: ServingBenchmarkOptions,
    measured: Measured,
    requests: dict[tuple[str, int], list[Request]],
    share: float,
    loop: Loop,
    seed: int,
) -> None:
    """Offer a server a share of what it answered in the closed loop; do nothing if it answered nothing."""
    rate = share * statistics.median(load.requests_per_second for load in measured.closed[loop])
    if rate:
        dialect, port = DIALECTS[measured.system.dialect], measured.server.port
        sent = requests[dialect.name, loop.titles]
        work = open_loop(dialect.transport, port, sent, rate, options.seconds, seed)
        measured.offered[share] = rate
        measured.open.setdefault(share, []).append(asyncio.run(work))


main = main_of(run, ServingBenchmarkOptions, (__doc__ or "").split("\n")[0])


if __name__ == "__main__":
    sys.exit(main())
