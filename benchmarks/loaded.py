"""Count the lines of the package that short programs load, and the processor time of their start.

python -m benchmarks.loaded [--rounds 3] [--modules "search by words"]

The programs run from nothing to their first answer, each in processes of its own. A line counts once for all processes
of a program. The seconds are medians over rounds, of a run without a trace of its imports.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import sys
import tempfile
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from benchmarks.harness.report import format_table
from benchmarks.harness.servers import started
from benchmarks.harness.workers import ROOT, process_environment, run_program
from paddle_ranker.options import Options, main_of, option

TRACED = {"PYTHONPROFILEIMPORTTIME": "1"}  # Python then writes a line for each module that it imports
_IMPORTED = re.compile(r"^import time:.*\| +(paddle_ranker[\w.]*)$", re.M)
DOCUMENTS = [{"text": "a lace for a shoe"}, {"text": "red shoes"}, {"text": "a blue bag"}]
SEARCH = """
from paddle_ranker import Index
with Index("index") as index:
    assert index.search("shoe")
"""
SCORE = """
from paddle_ranker import Ranker
Ranker.load("ranker").score(["shoe"], ["red shoes"])
"""
NAMES = ("search by words", "score a pair", "serve searches", "list of commands", "search command")


@dataclass(frozen=True)
class LoadedOptions(Options):
    rounds: int = option(3, help="runs of each program", minimum=1)
    modules: Optional[str] = option(None, help="also print the modules and lines of this program", choices=NAMES)


@dataclass(frozen=True)
class Program:
    """A program whose start is measured.

    run: called with the working folder and further environment variables; returns the trace of the imports, if the
        variables ask for it, and the processor time in seconds
    lines, seconds: goals; None: no goal
    """

    name: str
    run: Callable[[Path, dict[str, str]], tuple[str, float]]
    lines: Optional[int] = None
    seconds: Optional[float] = None


def python(*arguments: str) -> Callable[[Path, dict[str, str]], tuple[str, float]]:
    """Return a function that runs Python with arguments to its end."""

    def run(folder: Path, environment: dict[str, str]) -> tuple[str, float]:
        before = os.times()
        command = ["env", "-C", str(folder), sys.executable, *arguments]
        done = run_program(command, f"{' '.join(arguments)[:40]} failed", {**process_environment(1), **environment})
        after = os.times()
        taken = after.children_user + after.children_system - before.children_user - before.children_system
        return done.stderr, taken

    return run


def serve(folder: Path, environment: dict[str, str]) -> tuple[str, float]:
    """Start a server of searches, and search once."""
    variables = [f"{name}={value}" for name, value in environment.items()]
    command = [sys.executable, "-m", "paddle_ranker", "search-serve", "--index", str(folder / "index"), "--port", "0"]
    with started("search-serve", ["env", *variables, *command], folder, 1) as server:
        body = json.dumps({"query": "shoe"}).encode()
        address = f"http://127.0.0.1:{server.port}/v1/search"
        request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            assert json.load(answer)["hits"]
        return server.said(), server.processor_seconds()


PROGRAMS = (
    Program(NAMES[0], python("-c", SEARCH), 12_000),
    Program(NAMES[1], python("-c", SCORE), 18_000),
    Program(NAMES[2], serve, 40_000),
    Program(NAMES[3], python("-m", "paddle_ranker", "--help"), None, 0.2),
    Program(NAMES[4], python("-m", "paddle_ranker", "search", "--index", "index", "shoe"), None, 0.5),
)


def loaded_lines(trace: str) -> dict[str, int]:
    """Return the lines of each module of the package that a trace of imports names."""
    lines = {}
    for name in sorted({*_IMPORTED.findall(trace)}):
        path = ROOT.joinpath(*name.split("."))
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        lines[name] = len(file.read_bytes().splitlines())
    return lines


def run(options: LoadedOptions) -> None:
    from benchmarks.harness.rankers import SHAPES, write_random_ranker
    from paddle_ranker import Index
    from paddle_ranker.data.rows.records import LabeledPair

    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Index.build(DOCUMENTS, folder / "index").close()
        pairs = [LabeledPair("shoe", document["text"], 1) for document in DOCUMENTS]
        write_random_ranker(folder, SHAPES["tiny"], None, pairs, 1)
        for program in PROGRAMS:
            trace, _ = program.run(folder, TRACED)
            lines = loaded_lines(trace)
            seconds = statistics.median(program.run(folder, {})[1] for _ in range(options.rounds))
            goals = ["" if program.lines is None else f"{program.lines:,}"]
            goals += ["" if program.seconds is None else f"{program.seconds:.2f}"]
            rows.append([program.name, f"{sum(lines.values()):,}", goals[0], f"{seconds:.2f}", goals[1]])
            if program.name == options.modules:
                print(format_table(["module", "lines"], [[module, f"{count:,}"] for module, count in lines.items()]))
    print(format_table(["program", "lines", "goal", "processor time, s", "goal"], rows))


main = main_of(run, LoadedOptions, (__doc__ or "").split("\n")[0])


if __name__ == "__main__":
    sys.exit(main())
