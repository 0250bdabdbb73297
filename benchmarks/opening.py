"""Time a ranker from opening to its first score, next to reading and copying its largest file, and measure memory.

python -m benchmarks.opening --model HF_FOLDER_OR_EXPORT [--engines dygraph | inference,onnx,openvino] [--processes 2]

The file is in the page cache for all of them. Memory is read while all processes of an engine run: the private memory,
and the shared pages, such as those of mapped files.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.harness.report import format_table
from benchmarks.harness.workers import Worker, Workers
from benchmarks.inputs import chosen
from paddle_ranker.model.model_folder import identify
from paddle_ranker.options import Options, main_of, option
from paddle_ranker.scoring.engines.engine_registry import DYGRAPH, exported_engines


@dataclass(frozen=True)
class OpeningOptions(Options):
    model: str = option(help="a ranker's folder: ours, transformers', or an export")
    engines: str = option("all", help="engines of an export, comma-separated; all: every engine that runs it")
    processes: int = option(2, help="processes of each engine", minimum=1)


def run(options: OpeningOptions) -> None:
    folder = Path(options.model)
    largest = max((path for path in folder.iterdir() if path.is_file()), key=lambda path: path.stat().st_size)
    read, copy = read_and_copy(largest)
    engines = chosen("engines", options.engines, exported_engines()) if identify(folder).is_exported else [DYGRAPH]
    rows = [opened(folder, engine, options.processes) for engine in engines]
    print(f"{largest.name}, {largest.stat().st_size / 1e6:,.0f} MB: read in {read:.2f} s, copied in {copy:.2f} s")
    cells = [
        [
            engine,
            *(f"{value:.2f}" for value in seconds),
            f"{sum(seconds[1:]) / (read + copy):.2f}",
            *(f"{value:,.0f}" for value in memory),
        ]
        for engine, seconds, memory in rows
    ]
    heads = ["engine", "imports, s", "opening, s", "first score, s", "both / read and copy", "own MB", "shared MB"]
    print(format_table(heads, cells))


def read_and_copy(path: Path) -> tuple[float, float]:
    """Return the median seconds to read a file into memory, and to copy it there."""
    times = []
    for _ in range(3):
        began = time.perf_counter()
        content = np.fromfile(path, np.uint8)
        read = time.perf_counter()
        content.copy()
        times.append((read - began, time.perf_counter() - read))
    first, second = zip(*times)
    return statistics.median(first), statistics.median(second)


def opened(folder: Path, engine: str, processes: int) -> tuple[str, list[float], list[float]]:
    """Open a ranker in several processes, one after another; return their median seconds and their mean memory."""
    command = [sys.executable, "-m", "benchmarks.peers.opening_worker", str(folder), engine]
    with Workers() as workers, tempfile.TemporaryDirectory() as logs:
        names = [f"{engine} {number}" for number in range(processes)]
        ready = [workers.add(Worker(name, command, 1, Path(logs) / name, hint="leave it out")) for name in names]
        memory = [answer["mb"] for _, answer in workers.take_turns(lambda name: {})]
    seconds = np.median([answer["ready"] for answer in ready], axis=0)
    return engine, seconds.tolist(), np.mean(memory, axis=0).tolist()


main = main_of(run, OpeningOptions, (__doc__ or "").split("\n")[0])


if __name__ == "__main__":
    sys.exit(main())
