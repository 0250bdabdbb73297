"""The interface of engines, and a pool of objects, one per thread, for those that need one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from paddle_ranker.encoding.columns import Arrays

if TYPE_CHECKING:
    from paddle_ranker.scoring.engines.inputs import InputLimits

# Padded tokens a thread has at once: a layer's activations then stay in its processor's caches. Twice as many cost 3%,
# eight times as many a third of the speed (4 layers, 312 wide, with 1 MB of second-level cache).
CPU_BATCH_TOKENS = 512


class Engine(Protocol):
    """What computes a model's outputs; may be called from several threads at once.

    Attributes: `name`, as `--engine` has it; `precision`, of the matrix products; `limits`, which inputs it takes. One
    that is fastest at some number of padded tokens a batch has it as `batch_tokens`.
    """

    name: str
    precision: str
    limits: InputLimits

    def run(self, arrays: Arrays) -> Arrays:
        """Return the outputs, by name, of one padded batch, as `Columns.pad` makes it.

        Raises `DataError` for inputs that the model does not take, where it would otherwise read outside its memory.
        """
        ...


T = TypeVar("T")


class Pool(Generic[T]):
    """Pool of objects, one per thread that computes, which are expensive to create.

    Args:
        make: creates one more; never called by two threads at once.
        first: those that are there already.
    """

    def __init__(self, make: Callable[[], T], *first: T):
        self._make = make
        self._idle = list(first)
        self._making = threading.Lock()

    @contextmanager
    def lend(self) -> Iterator[T]:
        """Yield one that no other thread has. The last that came back goes out first: its memory is warm."""
        try:
            one = self._idle.pop()
        except IndexError:
            with self._making:
                one = self._make()
        try:
            yield one
        finally:
            self._idle.append(one)
