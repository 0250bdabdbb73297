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
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np

from benchmarks.harness.rankers import SHAPES, export_peers, export_rankers, prepare_ranker
from benchmarks.harness.report import write_report
from benchmarks.harness.servers import ServerProcess, serve_command, started
from benchmarks.harness.workers import Worker, leave_out, missing_packages
from benchmarks.inputs import PeerOptions, chosen, parse_numbers
from benchmarks.serving_client import DIALECTS, OK, Case, Dialect, Request, closed_loop, connect, open_loop
from benchmarks.serving_report import WAYS, Measured, Run, goals, shown_tables, values_of
from paddle_ranker import runtime
from paddle_ranker.data.records import LabeledPair
from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.errors import RankerError, UsageError
from paddle_ranker.options import main_of, option
from paddle_ranker.scoring.engines.registry import exported_engines

_WEB = ("fastapi", "uvicorn", "uvloop", "httptools")
TOLERANCE = 1e-5
_HOST = "127.0.0.1"
_WARM_UP_SECONDS = 2.0  # maximum seconds of each load in the warm-up, before the rounds
_OURS = "ours"


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
    """Options of `python -m benchmarks.serving`."""

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


def run(options: ServingBenchmarkOptions) -> None:
    """Print the tables for each shape and number of threads; write the JSON file."""
    shapes = [Path(options.model).name] if options.model else chosen("shapes", options.shapes, list(SHAPES))
    threads, shares = parse_numbers(options.threads, "threads"), parse_shares(options.load)
    if 0 in threads:
        raise UsageError(f"--threads {options.threads}: give numbers from 1 on")
    systems = available(options)
    runtime.prepare_command(0)
    runs = []
    for shape in shapes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            work = make_work(options, shape, systems, folder)
            gc.freeze()  # the collector skips existing objects while latencies are measured
            for count in threads:
                runs.append(measure(options, shape, count, systems, shares, work, folder))
                print(shown_tables(runs[-1]), flush=True)
                for goal in goals(runs[-1]):
                    print(goal, flush=True)
    write_report(options.json, values_of(options, runs))


def parse_shares(text: str) -> list[float]:
    """Return the comma-separated shares of `--load`, [] for "none"; `UsageError` if one is no number above 0."""
    if text == "none":
        return []
    try:
        shares = [float(part) for part in text.split(",")]
    except ValueError:
        shares = [0.0]
    if not all(share > 0 for share in shares):
        raise UsageError(f"--load {text}: give shares above 0, such as 0.25,0.5,0.75,0.9, or none")
    return shares


def available(options: ServingBenchmarkOptions) -> list[System]:
    """Return the chosen systems whose packages are installed, and print the ignored systems."""
    names = chosen("systems", options.systems, [system.name for system in SYSTEMS])
    wanted = [system for system in SYSTEMS if system.name in names]
    needed = sorted({package for system in wanted for package in system.packages})
    missing = missing_packages(options.peer_python, needed) if needed else set()
    return leave_out(wanted, lambda system: sorted(missing & set(system.packages)))


@dataclass(frozen=True)
class Work:
    """The requests of the benchmark: queries with several titles each, or the same pairs as single-title requests."""

    asked: list[Case]
    description: str

    @property
    def single(self) -> list[Case]:
        """Return each pair as a separate request."""
        return [
            Case(one.query, [title], one.pairs.take(np.array([row])), one.pad_id)
            for one in self.asked
            for row, title in enumerate(one.titles)
        ]


def make_work(options: ServingBenchmarkOptions, shape: str, systems: Sequence[System], folder: Path) -> Work:
    """Write the exported model, the peers' model and the pairs into `folder`; return the requests."""
    found = prepare_ranker(options, shape, options.seed, folder)
    asked = draw(found.graded, found.pair_encoder, options.queries, options.titles, options.seed)
    flat = [[one.query for one in asked for _ in one.titles], [title for one in asked for title in one.titles]]
    (folder / "pairs.json").write_text(json.dumps(flat), encoding="utf-8")
    pairs = found.pair_encoder.encode(*flat)
    export_rankers(folder, pairs, onnx=options.engine in ("onnx", "openvino", "auto"))
    if any(system.name == "onnxruntime" for system in systems):
        export_peers(options.peer_python, folder)
    tokens = f"{pairs.lengths.mean():.1f} tokens a pair"
    return Work(asked, f"{len(asked)} queries of {found.file.name} with {options.titles} titles each, {tokens}")


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


def requests(dialect: Dialect, cases: Sequence[Case]) -> list[Request]:
    """Return a request in this dialect for each query."""
    return [Request(dialect.write(case), len(case.titles)) for case in cases]


def measure(
    options: ServingBenchmarkOptions,
    shape: str,
    threads: int,
    systems: Sequence[System],
    shares: Sequence[float],
    work: Work,
    folder: Path,
) -> Run:
    """Measure the servers on the work in `folder`.

    Raises `RankerError` if a process ends, or if a server's probabilities differ from the servers' median.
    """
    result = Run(shape, threads, options.engine, work.description, options.titles, options.clients)
    result.systems = [Measured(system) for system in systems]
    with ExitStack() as stack:
        servers: dict[str, ServerProcess] = {}
        for system in systems:
            key = server_of(system)
            if key not in servers:
                command = _command(options, system, folder, threads)
                servers[key] = stack.enter_context(started(key, command, folder, threads))
        engine = _engine_alone(options, folder, threads)
        stack.callback(engine.close)
        engine.answer()
        _compare_scores(result, servers, work)
        _closed_loops(options, result, servers, engine, work)
        _open_loops(options, result, servers, work, shares)
        for measured in result.systems:
            measured.memory_mb = servers[server_of(measured.system)].memory_mb()
    return result


def server_of(system: System) -> str:
    """Return the name of the server for a system: all dialects of this toolkit share one."""
    return _OURS if system.ours else system.name


def _command(options: ServingBenchmarkOptions, system: System, folder: Path, threads: int) -> list[str]:
    if system.module is not None:
        return [options.peer_python, "-m", f"benchmarks.peers.{system.module}", str(folder), str(threads)]
    how = ["--engine", options.engine, "--cpu_threads", str(threads), "--workers", str(options.workers)]
    return serve_command(folder / "exported", *how, "--log_requests", "false")


def _engine_alone(options: ServingBenchmarkOptions, folder: Path, threads: int) -> Worker:
    worker = [sys.executable, "-m", "benchmarks.peers.serving_engine", str(folder), options.engine, str(threads)]
    return Worker("the engine alone", worker, threads, folder / "engine.log", hint="try another --engine")


def _compare_scores(result: Run, servers: dict[str, ServerProcess], work: Work) -> None:
    """Set each system's largest difference in probability from the median of all systems, over some requests.

    Raises `RankerError` if a difference exceeds `TOLERANCE`.
    """
    some = work.asked[:20]

    async def scores(measured: Measured) -> np.ndarray:
        dialect, server = DIALECTS[measured.system.dialect], servers[server_of(measured.system)]
        connection = connect(dialect, _HOST, server.port)
        found = []
        for one in some:
            answer = await connection.ask(dialect.write(one))
            if answer.code != OK:
                raise RankerError(f"{measured.system.name} answers {answer.code}: {server.said()[-500:].strip()}")
            found.append(dialect.read(answer.body, len(one.titles))[1])
        await connection.close()
        return np.concatenate(found)

    found = {measured.system.name: asyncio.run(scores(measured)) for measured in result.systems}
    expected = np.median(list(found.values()), axis=0)
    for measured in result.systems:
        measured.difference = float(np.abs(found[measured.system.name] - expected).max())
        if not measured.difference <= TOLERANCE:
            raise RankerError(
                f"the probabilities of {measured.system.name} are off by {measured.difference:.1e}, more than "
                f"{TOLERANCE:g}: its speed means nothing; leave it out with --systems, and report it"
            )


def _closed_loops(
    options: ServingBenchmarkOptions,
    result: Run,
    servers: dict[str, ServerProcess],
    engine: Worker,
    work: Work,
) -> None:
    made = _made(result, work)
    for number in range(options.rounds + 1):  # the first round is the warm-up
        seconds = options.seconds if number else min(options.seconds, _WARM_UP_SECONDS)
        for way in WAYS:
            answer = engine.ask(way=way, seconds=seconds, seed=options.seed + number)
            if number:
                result.engine.setdefault(way, []).append(answer["pairs"] / answer["seconds"])
        for measured in result.systems:
            server, dialect = servers[server_of(measured.system)], DIALECTS[measured.system.dialect]
            for loop in result.loops:
                used = server.processor_seconds()
                asked = made[dialect.name, loop.titles]
                load = asyncio.run(closed_loop(dialect, _HOST, server.port, asked, loop.clients, seconds))
                used = server.processor_seconds() - used
                if number:
                    measured.closed.setdefault(loop, []).append(load)
                    measured.cores.setdefault(loop, []).append(used / load.whole_seconds)


def _open_loops(
    options: ServingBenchmarkOptions,
    result: Run,
    servers: dict[str, ServerProcess],
    work: Work,
    shares: Sequence[float],
) -> None:
    made = _made(result, work)
    for number in range(options.rounds):
        for share in shares:
            for measured in result.systems:
                capacity = statistics.median(load.requests_per_second for load in measured.closed[result.many])
                if not capacity:
                    continue
                measured.offered[share] = rate = share * capacity
                dialect = DIALECTS[measured.system.dialect]
                load = asyncio.run(
                    open_loop(
                        dialect,
                        _HOST,
                        servers[server_of(measured.system)].port,
                        made[dialect.name, result.titles],
                        rate,
                        options.seconds,
                        options.seed + number,
                    )
                )
                measured.open.setdefault(share, []).append(load)


def _made(result: Run, work: Work) -> dict[tuple[str, int], list[Request]]:
    single = work.single
    made = {}
    for name in {measured.system.dialect for measured in result.systems}:
        made[name, result.titles] = requests(DIALECTS[name], work.asked)
        made[name, 1] = requests(DIALECTS[name], single)
    return made


main = main_of(run, ServingBenchmarkOptions, (__doc__ or "").split("\n")[0])


if __name__ == "__main__":
    sys.exit(main())
