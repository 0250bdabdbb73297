"""Interface of engines, and a pool for engines that need an object per thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from paddle_ranker.array_types import Arrays
from paddle_ranker.runtime import thread_count

if TYPE_CHECKING:
    from paddle_ranker.scoring.engines.inputs import InputLimits

# Padded tokens of a batch per thread: a layer's activations stay in the processor's caches. Batches of twice as many
# tokens are 3% slower, of eight times as many a third slower (4 layers, 312 wide, 1 MB of second-level cache).
CPU_BATCH_TOKENS = 512
# Padded tokens of a batch on a GPU: 256 rows of 128 tokens keep all its units busy, and 64 rows of 512 tokens take some
# 3 GB in an encoder of 12 heads in fp32.
GPU_BATCH_TOKENS = 32_768


def fastest_tokens(kind: str, threads: int) -> int:
    """Return the number of padded tokens per batch at which a kind of device ("cpu", "gpu") is fastest.

    threads: threads of a CPU; 0 means one per core
    """
    return CPU_BATCH_TOKENS * thread_count(threads) if kind == "cpu" else GPU_BATCH_TOKENS


class Engine(Protocol):
    """Runtime that computes a model's outputs; thread-safe.

    An engine may also have `batch_tokens`, the number of padded tokens in a batch at which it is fastest.

    Attributes:
        name: name of the engine, as in `--engine`.
        precision: precision of matrix products.
        limits: limits of the inputs.
    """

    name: str
    precision: str
    limits: InputLimits

    def run(self, arrays: Arrays) -> Arrays:
        """Return the outputs that the model's signature reads, by name, for a padded batch (`Columns.pad`).

        Raises `DataError` for inputs that would otherwise make the engine read outside its memory.
        """
        ...


T = TypeVar("T")


class Pool(Generic[T]):
    """Pool of objects that are expensive to create; each is used by one thread at a time.

    make: called without arguments, by one thread at a time; returns a new object
    first: objects that exist already
    """

    def __init__(self, make: Callable[[], T], *first: T):
        self._make = make
        self._idle = list(first)
        self._making = threading.Lock()

    @contextmanager
    def lend(self) -> Iterator[T]:
        """Yield the most recently used idle object for the block, or a new object if none is idle."""
        try:
            item = self._idle.pop()
        except IndexError:
            with self._making:
                item = self._make()
        try:
            yield item
        finally:
            self._idle.append(item)
