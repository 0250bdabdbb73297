"""Results of the serving benchmark: tables, goals, and the same as JSON."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Optional

from benchmarks.harness.report import Goal, format_table, goal_values, median_and_range, ratio
from benchmarks.serving_client import Load
from paddle_ranker.metrics.intervals import Interval

if TYPE_CHECKING:
    from benchmarks.serving import System

OF_THE_ENGINE = 0.9  # goal for the server's speed over that of the engine alone
OF_THE_GAIN = 0.8  # goal for the server's gain over pairs one by one, relative to the engine's gain by batches of 32
WAYS = {"scorer": "in the scorer's batches", "texts": "the same, from texts", "batch_32": "in batches of 32",
        "batch_1": "one by one"}  # fmt: skip


@dataclass(frozen=True)
class Loop:
    """A closed loop: the number of clients, and the number of titles of each request."""

    clients: int
    titles: int

    def __str__(self) -> str:
        return f"{self.clients} x {self.titles}"


@dataclass
class Measured:
    """The results of one system.

    difference: largest absolute difference of a probability from the systems' median
    closed: by closed loop, one load per round
    open: by share of the server's capacity, one open-loop load per round
    offered: by share, the requests per second that were sent
    cores: by closed loop, the server's processor seconds per second, one value per round
    memory_mb: the server's memory at the end
    """

    system: System
    difference: float = math.nan
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
    lines.append("; ".join(_system_facts(measured) for measured in run.systems))
    lines += ["", _closed_table(run)]
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


def _system_facts(measured: Measured) -> str:
    return f"{measured.system.name} off by {measured.difference:.0e}, {measured.memory_mb:.0f} MB"


def _closed_table(run: Run) -> str:
    header = ["clients x titles", "system", "pairs/s", "of the engine", "ours / it", "p50 / p99 ms", "cores", "errors"]
    rows = [_closed_row(run, loop, measured) for loop in run.loops for measured in run.systems]
    return format_table(header, rows)


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


def values_of(options: Any, runs: Sequence[Run]) -> dict[str, Any]:
    """Return all results as a dict for JSON."""
    return {
        "options": asdict(options),
        "runs": [
            {
                "shape": run.shape,
                "threads": run.threads,
                "engine": run.engine_name,
                "work": run.work,
                "engine_pairs_per_second": run.engine,
                "systems": [_values(measured) for measured in run.systems],
                "goals": goal_values(goals(run)),
            }
            for run in runs
        ],
    }


def _values(measured: Measured) -> dict[str, Any]:
    return {
        "name": measured.system.name,
        "difference": measured.difference,
        "memory_mb": measured.memory_mb,
        "closed": {
            str(loop): {"server_cores": measured.cores[loop], "rounds": [_load_values(load) for load in loads]}
            for loop, loads in measured.closed.items()
        },
        "open": {
            f"{share:g}": {"offered": measured.offered[share], "rounds": [_load_values(load) for load in loads]}
            for share, loads in measured.open.items()
        },
    }


def _load_values(load: Load) -> dict[str, Any]:
    return {
        "seconds": load.seconds,
        "whole_seconds": load.whole_seconds,
        "pairs_per_second": load.pairs_per_second,
        "requests_per_second": load.requests_per_second,
        "client_seconds": load.client_seconds,
        "codes": dict(load.codes),
        **{f"p{percent}_ms": load.milliseconds(percent) for percent in (50, 90, 99)},
    }
