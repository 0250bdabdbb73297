"""The processes of the inference benchmark, and what is asked of them."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Optional

from benchmarks.inference_systems import System
from benchmarks.line_process import LineProcess


def start_worker(system: System, folder: Path, threads: int, peer_python: str) -> LineProcess:
    """Start a system's process; its first answer says that it is ready."""
    python = peer_python if system.peer else sys.executable
    command = [python, "-m", "benchmarks.peers.inference_worker", system.name, str(folder)]
    return LineProcess(system.name, command, threads, folder / f"{system.name}.log")


def start_matrix_products(folder: Path, threads: int, peer_python: str) -> Optional[LineProcess]:
    """Start the process that measures what the processor can do; None where no library for it is at hand."""
    process = LineProcess(
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
