"""How a worker of a speed benchmark reads commands and answers them, a line each, as `benchmarks.harness.workers` asks.

A worker says that it is ready when it is, answers every line that it reads, and ends at the end of its input. Nothing
here imports more than the standard library: peers run in environments of their own.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO


def take_stdout() -> TextIO:
    """Return the standard output for answers alone, and send what anything else prints to the standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return answers


def send(answers: TextIO, answer: object) -> None:
    """Write an answer."""
    print(json.dumps(answer), file=answers, flush=True)


class Stopwatch:
    """Seconds since it was made, by the clock and of the processor."""

    def __init__(self) -> None:
        self._start, self._cpu_start = time.perf_counter(), time.process_time()

    @property
    def seconds(self) -> float:
        """Seconds by the clock."""
        return time.perf_counter() - self._start

    def took(self) -> dict[str, float]:
        """Return both as an answer has them."""
        return {"seconds": self.seconds, "cpu_seconds": time.process_time() - self._cpu_start}


def answer_commands(answers: TextIO, answer: Callable[[Any], object], commands: TextIO, ready: object = True) -> None:
    """Say that this worker is ready, then answer each command, a value in JSON, until there are no more."""
    send(answers, {"ready": ready})
    for line in commands:
        send(answers, answer(json.loads(line)))


class Pace:
    """Make a training loop stop and go at another process's word: each line that it sends is a number of steps.

    `unit` is what a step's size counts. A round is answered with its size and what it took: where it ends, by
    `answer`, or else when the next one begins.
    """

    def __init__(self, commands: TextIO, answers: TextIO, unit: str) -> None:
        self._commands, self._answers, self._unit = commands, answers, unit
        self._left = self._size = 0
        self._watch = Stopwatch()
        self._ready = False

    def tick(self, size: int) -> None:
        """Begin a step of such a size; call it first in every step. Raises `SystemExit` at the end."""
        if self._left == 0:
            if not self._ready:
                self._ready = True
                send(self._answers, {"ready": True})
            elif self._size:
                self.answer(self.took())
            self._left, self._size = int(self._commands.readline() or 0), 0
            if self._left == 0:
                raise SystemExit(0)
            self._watch = Stopwatch()
        self._left -= 1
        self._size += size

    def took(self) -> dict[str, Any]:
        """Return the size of this round so far, and what it took."""
        return {self._unit: self._size, **self._watch.took()}

    def answer(self, measures: dict[str, Any]) -> None:
        """Answer a round."""
        send(self._answers, measures)
        self._size = 0
