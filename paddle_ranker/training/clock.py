"""The seconds of a training, with and without what interrupts its steps."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Seconds of a run, and steps a second between two progress lines, evaluation and saving left out."""

    def __init__(self, step: int, seconds_before: float) -> None:
        self._start = self._mark = time.perf_counter()
        self._mark_step, self._before = step, seconds_before
        self._paused = self._paused_in_all = 0.0

    def rate(self, step: int) -> float:
        """Return the steps a second since the last call."""
        now = time.perf_counter()
        rate = (step - self._mark_step) / max(now - self._mark - self._paused, 1e-9)
        self._mark, self._mark_step, self._paused = now, step, 0.0
        return rate

    def seconds_here(self) -> float:
        """Return the seconds since this process began to train."""
        return time.perf_counter() - self._start

    def seconds(self) -> float:
        """Return the seconds of the run, those before it was resumed included."""
        return self._before + self.seconds_here()

    def training_seconds(self) -> float:
        """Return the seconds that this process spent on steps."""
        return self.seconds_here() - self._paused_in_all

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out what happens inside."""
        start = time.perf_counter()
        yield
        pause = time.perf_counter() - start
        self._paused += pause
        self._paused_in_all += pause
