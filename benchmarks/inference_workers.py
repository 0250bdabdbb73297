"""The processes of the inference benchmark, and what is asked of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

from benchmarks.inference_systems import System
from benchmarks.inputs import ROOT
from paddle_ranker import runtime
from paddle_ranker.errors import RankerError


class Process:
    """A process that answers lines of JSON with lines of JSON.

    Args:
        name: what messages call it.
        log: a file for what else it says.
    """

    def __init__(self, name: str, command: Sequence[str], threads: int, log: Path):
        self.name = name
        own = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        # As installed: this toolkit's own processes choose the math library's path by themselves.
        own.pop(runtime.MATH_VARIABLE, None)
        own.update({"GLOG_minloglevel": "2", "PYTHONPATH": str(ROOT), "TOKENIZERS_PARALLELISM": "false"})
        self._log = log.open("w+", encoding="utf-8")
        self.started = time.perf_counter()
        self._process = subprocess.Popen(
            list(command), env=own, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True
        )

    def ask(self, **command: Any) -> dict[str, Any]:
        """Send a command and return the answer; raises `RankerError` where the process has ended."""
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # why it ended is in its log
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """Wait for the next answer."""
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            last = (self._log.read().strip().splitlines() or ["it said nothing"])[-1]
            raise RankerError(f"the process of {self.name} ended ({last}): leave it out with --systems")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                stream.close()
        self._log.close()


def start_worker(system: System, folder: Path, threads: int, peer_python: str) -> Process:
    """Start a system's process; its first answer says that it is ready."""
    python = peer_python if system.peer else sys.executable
    command = [python, "-m", "benchmarks.peers.inference_worker", system.name, str(folder)]
    return Process(system.name, command, threads, folder / f"{system.name}.log")


def start_matrix_products(folder: Path, threads: int, peer_python: str) -> Optional[Process]:
    """Start the process that measures what the processor can do; None where no library for it is at hand."""
    process = Process(
        "matrix products",
        [peer_python, "-m", "benchmarks.peers.matrix_products", str(threads)],
        threads,
        folder / "matrix_products.log",
    )
    if process.answer()["ready"]:
        return process
    process.close()
    return None


def seconds_to_first_score(system: System, folder: Path, threads: int, peer_python: str, titles: int) -> float:
    """Return the seconds from the start of a new process to the scores of one query's first titles."""
    worker = start_worker(system, folder, threads, peer_python)
    try:
        worker.answer()
        worker.ask(do="latency", query=0, titles=titles)
        return time.perf_counter() - worker.started
    finally:
        worker.close()


def seconds_of_import(module: str) -> float:
    """Return the seconds of a new process that imports a module and ends."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True, check=True)
    return time.perf_counter() - start
