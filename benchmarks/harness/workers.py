"""Worker processes of the speed benchmarks, which take turns; they read commands and write answers, one per line."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Callable, Optional, Protocol, TypeVar

from benchmarks.inputs import ROOT
from paddle_ranker import runtime
from paddle_ranker.errors import RankerError, UsageError

INSTALL = "python -m venv PEERS && PEERS/bin/python -m pip install -r requirements/peers.in"


class System(Protocol):
    """A measured system, a row of a table."""

    @property
    def name(self) -> str: ...


S = TypeVar("S", bound=System)


def process_environment(threads: int) -> dict[str, str]:
    """Return the environment of a process with `threads` threads."""
    own = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    # As installed: this toolkit's processes choose the math library's path themselves.
    own.pop(runtime.MATH_VARIABLE, None)
    own.update({"GLOG_minloglevel": "2", "PYTHONPATH": str(ROOT), "TOKENIZERS_PARALLELISM": "false"})
    return own


class Worker:
    """A running process that reads commands and writes answers, one per line.

    Args:
        name: the name that messages use.
        threads: number of threads of its matrix products.
        log: file for its standard error.
        environment: further environment variables.
        hint: the advice of the error message if the process ends too early.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        threads: int,
        log: Path,
        environment: Mapping[str, str] = {},
        *,
        hint: str = "leave it out with --systems",
    ):
        self.name, self._hint = name, hint
        own = {**process_environment(threads), **environment}
        self._log = log.open("w+", encoding="utf-8")
        self.started = time.perf_counter()
        self._process = subprocess.Popen(
            list(command), env=own, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True
        )

    def begin(self, what: object) -> None:
        """Send a line without waiting for the answer: a dict as JSON, any other value as `str`."""
        assert self._process.stdin
        with suppress(BrokenPipeError):  # the process has ended: `answer` raises an error with its log
            self._process.stdin.write((json.dumps(what) if isinstance(what, dict) else str(what)) + "\n")
            self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """Wait for the next answer; raises `RankerError`, with the log's last line, if the process has ended."""
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            last = (self._log.read().strip().splitlines() or ["it said nothing"])[-1]
            raise RankerError(f"the process of {self.name} ended ({last}): {self._hint}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, **command: Any) -> dict[str, Any]:
        self.begin(command)
        return self.answer()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                with suppress(BrokenPipeError):
                    stream.close()
        self._log.close()


class Workers(ExitStack):
    """The workers of a benchmark, which take turns; they end with the `with` block."""

    def __init__(self) -> None:
        super().__init__()
        self.by_name: dict[str, Worker] = {}

    def add(self, worker: Worker) -> dict[str, Any]:
        """Add a worker, wait until it is ready, and return its first answer, `{"ready": ...}`."""
        self.callback(worker.close)
        self.by_name[worker.name] = worker
        return worker.answer()

    def take_turns(self, command: Callable[[str], object]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Run one round: send `command(name)` to each worker in turn, and yield its name and answer.

        In rounds, something that slows the machine for a while affects all workers.
        """
        for name, worker in self.by_name.items():
            worker.begin(command(name))
            yield name, worker.answer()


def run_program(
    command: Sequence[str], failed: str, environment: Optional[Mapping[str, str]] = None
) -> subprocess.CompletedProcess[str]:
    """Run a program in the checkout; raises `RankerError`, `failed` with the last line of its error, if it fails.

    environment: all environment variables of the program; defaults to those of this process
    """
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise RankerError(f"{failed} ({last})")
    return done


def missing_packages(python: str, names: Sequence[str]) -> set[str]:
    """Return the modules of `names` that the interpreter `python` does not find.

    Raises `RankerError` if the interpreter cannot be run.
    """
    code = "import sys, json, importlib.util as u; print(json.dumps([n for n in sys.argv[1:] if not u.find_spec(n)]))"
    try:
        done = subprocess.run([python, "-c", code, *names], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise RankerError(f"--peer_python {python}: cannot be run ({error}); name a Python interpreter") from None
    return set(json.loads(done.stdout))


def leave_out(systems: Sequence[S], lacks: Callable[[S], Sequence[str]]) -> list[S]:
    """Return the systems that lack no package, and print the others; raises `UsageError` if none remains."""
    lacking = {system.name: sorted(lacks(system)) for system in systems}
    left_out = [f"{name} ({', '.join(packages)})" for name, packages in lacking.items() if packages]
    if left_out:
        print(f"not installed, so left out: {'; '.join(left_out)}\nto have the peers: {INSTALL}, and "
              "--peer_python PEERS/bin/python")  # fmt: skip
    return require_some([system for system in systems if not lacking[system.name]])


def require_some(systems: list[S]) -> list[S]:
    """Return the systems; raises `UsageError` if the list is empty."""
    if not systems:
        raise UsageError("no system is left to measure: choose others with --systems")
    return systems
