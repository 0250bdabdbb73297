"""A process of a benchmark that is told what to do by lines, and answers each with a line of JSON."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.inputs import ROOT
from paddle_ranker import runtime
from paddle_ranker.errors import RankerError


class LineProcess:
    """A running command.

    Args:
        name: what messages call it.
        threads: of its matrix products.
        log: a file for what else it says.
        environment: further variables.
        hint: what to do where it ends too early.
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
        own = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        # As installed: this toolkit's own processes choose the math library's path by themselves.
        own.pop(runtime.MATH_VARIABLE, None)
        own.update({"GLOG_minloglevel": "2", "PYTHONPATH": str(ROOT), "TOKENIZERS_PARALLELISM": "false", **environment})
        self._log = log.open("w+", encoding="utf-8")
        self.started = time.perf_counter()
        self._process = subprocess.Popen(
            list(command), env=own, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True
        )

    def begin(self, what: object) -> None:
        """Send a line: a value as it is printed, a dictionary as JSON."""
        assert self._process.stdin
        with suppress(BrokenPipeError):  # why it ended is in its log
            self._process.stdin.write((json.dumps(what) if isinstance(what, dict) else str(what)) + "\n")
            self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """Wait for the next answer; raises `RankerError`, with the last line of its log, where it has ended."""
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            last = (self._log.read().strip().splitlines() or ["it said nothing"])[-1]
            raise RankerError(f"the process of {self.name} ended ({last}): {self._hint}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, **command: Any) -> dict[str, Any]:
        """Send a command and return the answer."""
        self.begin(command)
        return self.answer()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                with suppress(BrokenPipeError):
                    stream.close()
        self._log.close()
