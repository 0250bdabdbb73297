"""The worker's side of `benchmarks.harness.workers`: read commands and write answers, one per line.

A worker sends `{"ready": ...}` as soon as it is ready, answers every line that it reads, and ends at the end of its
input. This module imports only the standard library, because peers run in separate environments.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO


def take_stdout() -> TextIO:
    """Return a stream to standard output for answers only; everything else that prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return answers


def send(answers: TextIO, answer: object) -> None:
    print(json.dumps(answer), file=answers, flush=True)


class Stopwatch:
    """A watch that measures clock seconds and processor seconds since its creation."""

    def __init__(self) -> None:
        self._start, self._cpu_start = time.perf_counter(), time.process_time()

    @property
    def seconds(self) -> float:
        """Clock seconds since creation."""
        return time.perf_counter() - self._start

    def took(self) -> dict[str, float]:
        """Return clock and processor seconds as the keys `seconds` and `cpu_seconds` of an answer."""
        return {"seconds": self.seconds, "cpu_seconds": time.process_time() - self._cpu_start}


def answer_commands(answers: TextIO, answer: Callable[[Any], object], commands: TextIO, ready: object = True) -> None:
    """Send that this worker is ready, then answer each command, a JSON value on a line, until the input ends."""
    send(answers, {"ready": ready})
    for line in commands:
        send(answers, answer(json.loads(line)))


class Pace:
    """Control of a training loop by another process: each line of `commands` states the steps of the next round.

    A round's answer holds its size, by the name `unit`, and its times. `answer` sends it; otherwise the first step of
    the next round does.
    """

    def __init__(self, commands: TextIO, answers: TextIO, unit: str) -> None:
        self._commands, self._answers, self._unit = commands, answers, unit
        self._left = self._size = 0
        self._watch = Stopwatch()
        self._ready = False

    def tick(self, size: int) -> None:
        """Begin a step of this size; call it first in every step. Raises `SystemExit` when there are no more rounds."""
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
        """Return the size of this round so far, and its seconds, as a dict."""
        return {self._unit: self._size, **self._watch.took()}

    def answer(self, measures: dict[str, Any]) -> None:
        send(self._answers, measures)
        self._size = 0
