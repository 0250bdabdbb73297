"""Long work in steps, such as arranging the values of a field. Between two steps, other work may run.

def squares(numbers: Sequence[int]) -> Steps[list[int]]:
    for number in numbers:
        ...
        yield  # after a few milliseconds
    return found

run_steps(squares(numbers))  # for one caller, whose deadline ends it
kept = Kept(lambda: squares(numbers))
kept.result()  # for all callers: each continues the work of the callers before
"""

from __future__ import annotations

import threading
from bisect import bisect
from collections.abc import Callable, Generator, Sequence
from random import Random
from typing import Generic, Optional, TypeVar

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.array_types import Integers
from paddle_ranker.retrieval.work.turns import check

K = TypeVar("K", bound=tuple[object, ...])
T = TypeVar("T")
Steps = Generator[None, None, T]  # returns the result; a step calls neither `check` nor `Kept.result`
AT_ONCE = 256  # Python objects of a step
_SORTED_AT_ONCE = 1 << 12  # keys that are sorted in one call, which holds the GIL
_NUMBERS_AT_ONCE = 1 << 16


def run_steps(steps: Steps[T]) -> T:
    """Run all steps, and return the result; calls `check` before each."""
    while True:
        check()
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result


class Kept(Generic[T]):
    """Result of long work that is done once, for all callers; thread-safe.

    If a caller leaves, the next caller continues with the next step. So several callers together finish work that
    takes longer than any of them waits. Callers that wait at the same time do the steps in turn.

    Args:
        begin: returns the steps. It is called again if a step has raised an error.
    """

    def __init__(self, begin: Callable[[], Steps[T]]):
        self._begin: Optional[Callable[[], Steps[T]]] = begin
        self._steps: Optional[Steps[T]] = None
        self._lock, self._results = threading.Lock(), list[T]()

    def result(self) -> T:
        """Do the steps that are left, and return the result; calls `check` before each step."""
        return self._results[0] if self._results else run_steps(self.steps())

    def steps(self) -> Steps[T]:
        """Return the steps that are left, for longer work that needs the result."""
        while not self._results:
            with self._lock:
                if self._begin is not None:
                    self._advance(self._begin)
            yield
        return self._results[0]

    def _advance(self, begin: Callable[[], Steps[T]]) -> None:
        self._steps = self._steps or begin()
        try:
            next(self._steps)
        except StopIteration as end:
            self._results.append(end.value)
            self._begin = self._steps = None  # they refer to what has this result
        except BaseException:
            self._steps = None
            raise


def in_order(keys: Sequence[K]) -> Steps[list[list[K]]]:
    """Sort distinct keys; return lists of a few thousand keys each, which follow each other in order."""
    if len(keys) <= _SORTED_AT_ONCE:
        yield
        return [sorted(keys)]
    sample = Random(len(keys)).sample(keys, min(2 + 4 * len(keys) // _SORTED_AT_ONCE, len(keys) // 2))
    bounds: list[K] = sorted(sample)
    parts: list[list[K]] = [[] for _ in range(len(bounds) + 1)]
    for start in range(0, len(keys), AT_ONCE):
        for key in keys[start : start + AT_ONCE]:
            parts[bisect(bounds, key)].append(key)
        yield
    runs = list[list[K]]()
    for part in parts:
        runs += yield from in_order(part)
    return runs


def places_in_order(keys: Sequence[tuple[object, int]]) -> Steps[NDArray[np.int32]]:
    """Sort pairs (key, number), distinct, by key and then by number; return the numbers, `[n]`."""
    places = [np.empty(0, np.int32)]
    for run in (yield from in_order(keys)):
        places.append(np.array([place for _, place in run], np.int32))
        yield
    return np.concatenate(places)


def order_of_numbers(numbers: NDArray[np.generic]) -> Steps[Integers]:
    """Return the indices that sort numbers, none of which may be NaN; equal numbers keep their order."""
    if len(numbers) <= _NUMBERS_AT_ONCE:
        yield
        return np.argsort(numbers, kind="stable")
    sampled = np.random.default_rng(0).integers(0, len(numbers), 2 + 4 * len(numbers) // _NUMBERS_AT_ONCE)
    bounds, parts = np.unique(numbers[sampled]), np.empty(len(numbers), np.uint16)
    for start in range(0, len(numbers), _NUMBERS_AT_ONCE):
        here = slice(start, start + _NUMBERS_AT_ONCE)
        parts[here] = np.searchsorted(bounds, numbers[here], "right")
        yield
    order = np.argsort(parts, kind="stable")  # NumPy sorts 16-bit numbers in linear time
    yield
    end = 0
    for size in np.bincount(parts).tolist():
        part = order[end : end + size]
        order[end : end + size] = part[np.argsort(numbers[part], kind="stable")]
        end += size
        yield
    return order
