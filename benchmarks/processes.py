"""Time training by several processes: against one, with one thread and with as many, in triples a second.

python -m benchmarks.processes [--processes 2] [--shape nano] [--rounds 3] [--steps 4]

All arrangements train the same batches: a process's share of one is what the trainer makes of it. They take turns,
round after round, so that a busy moment hits all of them; the processes talk through gloo. A batch that several
processes share is a batch of all of them: speed is gained, and nothing is learned otherwise.
"""

from __future__ import annotations

import socket
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from benchmarks.line_process import LineProcess
from benchmarks.training import SHAPES, Timings, TrainingBenchmarkOptions, median_and_range, prepare, start_worker
from paddle_ranker.errors import RankerError, UsageError
from paddle_ranker.options import Options, option, run_command


@dataclass(frozen=True)
class ProcessesOptions(Options):
    """Options of `python -m benchmarks.processes`."""

    processes: int = option(2, help="processes, and threads of the one process beside them", minimum=2)
    file: Optional[str] = option(None, help="graded pairs: query, title, label (default: QBQTC's, else the demo's)")
    vocab: Optional[str] = option(None, help="vocab.txt (default: ERNIE 3.0's, else one trained on the file)")
    shape: str = option("nano", help="encoder", choices=tuple(SHAPES))
    rounds: int = option(3, help="timed rounds", minimum=1)
    steps: int = option(4, help="batches a round", minimum=1)
    batch_size: int = option(32, help="triples a batch, of all processes together", minimum=1)
    seed: int = option(1000, help="random seed of triples, batches and parameters", minimum=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size % self.processes:
            raise UsageError(f"--batch_size {self.batch_size}: {self.processes} processes cannot share it equally")


@dataclass(frozen=True)
class Arrangement:
    """So many processes that train together, with so many threads each."""

    processes: int
    threads: int

    def __str__(self) -> str:
        plural = ["process" if self.processes == 1 else "processes", "thread" if self.threads == 1 else "threads"]
        return f"{self.processes} {plural[0]}, {self.threads} {plural[1]}{'' if self.processes == 1 else ' each'}"


def run(options: ProcessesOptions) -> None:
    """Print the table."""
    arrangements = [Arrangement(1, 1), Arrangement(1, options.processes), Arrangement(options.processes, 1)]
    shared = ("file", "vocab", "steps", "batch_size", "seed")
    with tempfile.TemporaryDirectory() as name:
        work = TrainingBenchmarkOptions(**{field: getattr(options, field) for field in shared})
        print(f"{options.shape}: {prepare(work, options.shape, Path(name))}, rounds: {options.rounds}", flush=True)
        timings = measure(arrangements, options, Path(name))
    first = timings[0]
    print(f"{'':28}{'triples/s':>24}{'ratio':>20}{'a processor s':>16}")
    for arrangement, timing in zip(arrangements, timings):
        ratios = [own / other for own, other in zip(timing.by_clock, first.by_clock)]
        print(f"{arrangement!s:28}{median_and_range(timing.by_clock, 1):>24}{median_and_range(ratios, 2):>20}"
              f"{statistics.median(timing.by_processor):>16.1f}")  # fmt: skip
    print(f"ratio: the row against {arrangements[0]}; above 1 it is the faster one")


def measure(arrangements: Sequence[Arrangement], options: ProcessesOptions, folder: Path) -> list[Timings]:
    """Return each arrangement's timings on the work in `folder`; raises `RankerError` where a process ends."""
    timings = [Timings() for _ in arrangements]
    with ExitStack() as stack:
        teams = [start(arrangement, folder, stack) for arrangement in arrangements]
        for number in range(options.rounds + 1):  # the first one is the warm-up
            for team, timing in zip(teams, timings):
                for worker in team:
                    worker.begin(options.steps)
                answers = [worker.answer() for worker in team]
                triples = sum(answer["triples"] for answer in answers)
                if triples != options.steps * options.batch_size:
                    raise RankerError(f"{len(team)} processes trained {triples} triples in {options.steps} steps")
                if number:
                    timing.by_clock.append(triples / max(answer["seconds"] for answer in answers))
                    timing.by_processor.append(triples / sum(answer["cpu_seconds"] for answer in answers))
    return timings


def start(arrangement: Arrangement, folder: Path, stack: ExitStack) -> list[LineProcess]:
    """Start an arrangement's processes, which `stack` ends; return them when all are ready to train."""
    team = []
    for rank, environment in enumerate(environments(arrangement.processes)):
        team.append(start_worker("ours", folder, arrangement.threads, environment, rank))
        stack.callback(team[-1].close)
    for worker in team:
        worker.answer()
    return team


def environments(processes: int) -> list[dict[str, str]]:
    """Return the variables by which Paddle's launcher lets the processes of a training find each other.

    It cannot start them here, since it keeps their standard input and output, through which they are told when to go.
    """
    if processes == 1:
        return [{}]
    first, *others = (f"127.0.0.1:{port}" for port in free_ports(processes + 1))
    shared = {
        "PADDLE_MASTER": first,
        "PADDLE_TRAINERS_NUM": str(processes),
        "PADDLE_TRAINER_ENDPOINTS": ",".join(others),
        "PADDLE_DISTRI_BACKEND": "gloo",
    }
    return [
        {**shared, "PADDLE_TRAINER_ID": str(rank), "PADDLE_CURRENT_ENDPOINT": endpoint}
        for rank, endpoint in enumerate(others)
    ]


def free_ports(count: int) -> list[int]:
    """Return ports of this machine that nothing listens on just now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; return its exit status."""
    return run_command(run, ProcessesOptions, argv, description=(__doc__ or "").split("\n")[0])


if __name__ == "__main__":
    sys.exit(main())
