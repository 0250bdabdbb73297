"""Short processes as forks of a process that has imported Paddle, which takes most of their time otherwise."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable

# What the forked commands and functions import. A test process has one such server, which its first fork starts.
_PRELOADED = [
    "onnxruntime",
    "paddle_ranker.commands.search_serve",
    "paddle_ranker.export.static_graph",
    "paddle_ranker.lexical.highlights",
    "paddle_ranker.retrieval.vectors.text_vectors",
    "paddle_ranker.serving.process.worker",
    "paddle_ranker.training.ranker_training",
    "tests.robustness.test_killed_documents",
    "tests.robustness.test_walk_docs",
]


def context() -> Any:
    """Return the context of `multiprocessing` whose processes are such forks."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(_PRELOADED)
    return found


def fork(function: Callable[..., object], *arguments: object, output: Path, seconds: float) -> int:
    """Call a function in a fork, which writes its standard output and errors to a file; return its exit status.

    Raises `TimeoutError` if the function takes longer than `seconds`.
    """
    process = context().Process(target=_redirected, args=(output, function, *arguments))
    process.start()
    process.join(seconds)
    if process.exitcode is None:
        process.kill()  # Python waits for it at its end otherwise
        process.join()
        raise TimeoutError(f"a fork takes more than {seconds} s")
    return int(process.exitcode)


def _redirected(output: Path, function: Callable[..., object], *arguments: object) -> None:
    with output.open("wb") as stream:
        for descriptor in (1, 2):
            os.dup2(stream.fileno(), descriptor)
    function(*arguments)


def run_code(command: Sequence[str], **_options: object) -> subprocess.CompletedProcess[str]:
    """Run `[PYTHON, "-c", CODE, *ARGUMENTS]` as `subprocess.run` does, in a fork; errors are in the output."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "output"
        status = fork(execute, command[2], ["-c", *command[3:]], output=output, seconds=300)
        return subprocess.CompletedProcess(command, status, output.read_text(encoding="utf-8", errors="replace"), "")


def execute(code: str, arguments: list[str]) -> None:
    """Run code in this process as a program with these arguments, as `python -c` does."""
    sys.argv = arguments
    exec(compile(code, "<code>", "exec"), {"__name__": "__main__"})  # noqa: S102
