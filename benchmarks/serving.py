"""Put load on the server: pairs a second and latency, beside its own engine alone, and beside other servers.

python -m benchmarks.serving [--shapes nano] [--threads 2] [--seconds 5] [--rounds 5] [--peer_python PYTHON]

Each server is a process of its own, has the same weights and is asked for the same pairs; the client runs on the same
machine. Servers and the engine alone take turns, round after round, so that a busy moment of the machine hits all of
them. The probabilities of all are compared first.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np

from benchmarks.harness.figures import write_report
from benchmarks.harness.workers import Worker, leave_out, missing_packages, with_baseline
from benchmarks.inputs import PeerOptions, chosen, parse_numbers
from benchmarks.serving_connections import connect
from benchmarks.serving_dialects import DIALECTS, OK
from benchmarks.serving_load import Request, closed_loop, open_loop
from benchmarks.serving_peers import SYSTEMS, ServerProcess, System, peer_command, serve_command, started
from benchmarks.serving_report import WAYS, Measured, Run, goals, shown_tables, values_of
from benchmarks.serving_work import EXPORTED, Work, make_work, requests
from benchmarks.training import SHAPES
from paddle_ranker import runtime
from paddle_ranker.errors import RankerError, UsageError
from paddle_ranker.options import option, run_command
from paddle_ranker.scoring.engines.registry import exported_engines

TOLERANCE = 1e-5
_HOST = "127.0.0.1"
_WARM_UP_SECONDS = 2.0  # of each load, before the rounds
_OURS, _BEFORE = "ours", "before"


@dataclass(frozen=True)
class ServingBenchmarkOptions(PeerOptions):
    """Options of `python -m benchmarks.serving`."""

    shapes: str = option("nano", help=f"encoders, comma-separated, from {', '.join(SHAPES)}")
    systems: str = option("all", help=f"rows, comma-separated, from {', '.join(s.name for s in SYSTEMS)}")
    engine: str = option("inference", help="engine of this toolkit's server", choices=exported_engines())
    threads: str = option("2", help="threads of every model, comma-separated, one table each")
    workers: int = option(1, help="processes of this toolkit's server, each with so many threads", minimum=1)
    queries: int = option(100, help="queries to ask about", minimum=1)
    titles: int = option(10, help="titles a request", minimum=2)
    clients: int = option(64, help="clients at once", minimum=2)
    seconds: float = option(5.0, help="of each load in each round", above=0)
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
            work = make_work(
                folder,
                shape=shape,
                model=options.model,
                file=options.file,
                vocab=options.vocab,
                queries=options.queries,
                titles=options.titles,
                seed=options.seed,
                peer_python=options.peer_python if any(s.name == "onnxruntime" for s in systems) else None,
                onnx=options.engine in ("onnx", "openvino", "auto"),
            )
            gc.freeze()  # what stays is not looked through while latencies are taken
            for count in threads:
                runs.append(measure(options, shape, count, systems, shares, work, folder))
                print(shown_tables(runs[-1]), flush=True)
                for goal in goals(runs[-1]):
                    print(goal, flush=True)
    write_report(options.json, values_of(options, runs))


def parse_shares(text: str) -> list[float]:
    """Return the comma-separated shares of `--load`; raises `UsageError` where one is none."""
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
    """Return the systems asked for whose packages are installed, and say which others are left out."""
    names = chosen("systems", options.systems, [system.name for system in SYSTEMS])
    wanted = [system for system in SYSTEMS if system.name in names]
    needed = sorted({package for system in wanted for package in system.packages})
    missing = missing_packages(options.peer_python, needed) if needed else set()
    found = leave_out(wanted, lambda system: sorted(missing & set(system.packages)))
    return with_baseline(found, options.baseline)


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

    Raises `RankerError` where a process ends, or a server's probabilities are not the engine's.
    """
    result = Run(shape, threads, options.engine, work.description, options.titles, options.clients)
    result.systems = [Measured(system) for system in systems]
    with ExitStack() as stack:
        servers: dict[str, ServerProcess] = {}
        for system in systems:
            key = server_of(system)
            if key not in servers:
                command = _command(options, system, folder, threads)
                servers[key] = stack.enter_context(started(key, command, folder, threads, checkout=system.checkout))
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
    """Return which server answers a system's requests: ours speaks all of its dialects, as that of before does."""
    if system.checkout:
        return _BEFORE
    return _OURS if system.ours else system.name


def _command(options: ServingBenchmarkOptions, system: System, folder: Path, threads: int) -> list[str]:
    if system.module is not None:
        return peer_command(system, options.peer_python, folder, threads)
    how = ["--engine", options.engine, "--cpu_threads", str(threads), "--workers", str(options.workers)]
    return serve_command(folder / EXPORTED, *how, "--log_requests", "false")


def _engine_alone(options: ServingBenchmarkOptions, folder: Path, threads: int) -> Worker:
    worker = [sys.executable, "-m", "benchmarks.peers.serving_engine", str(folder), options.engine, str(threads)]
    return Worker("the engine alone", worker, threads, folder / "engine.log", hint="try another --engine")


def _compare_scores(result: Run, servers: dict[str, ServerProcess], work: Work) -> None:
    """Fill in how far each system's probabilities are from the median of all, over some of the requests."""
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
    for number in range(options.rounds + 1):  # the first one is the warm-up
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


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; return its exit status."""
    return run_command(run, ServingBenchmarkOptions, argv, description=(__doc__ or "").split("\n")[0])


if __name__ == "__main__":
    sys.exit(main())
