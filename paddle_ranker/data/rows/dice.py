"""Random draws that give the same values on every Python version.

Python guarantees equal values for `random.Random.random()`, but not for `choice`, `shuffle` and `sample`, which this
module therefore implements by `random()`.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Dice:
    """A stream of random draws, determined by `seed` and `name`; streams with different names are independent."""

    def __init__(self, seed: int, name: str) -> None:
        digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
        self.random = random.Random(int.from_bytes(digest[:16], "big")).random

    def below(self, bound: int) -> int:
        """Return a random integer in [0, bound)."""
        return int(self.random() * bound)

    def chance(self, probability: float) -> bool:
        """Return True with the probability `probability`."""
        return self.random() < probability

    def pick(self, items: Sequence[T]) -> T:
        return items[int(self.random() * len(items))]

    def sample(self, items: Sequence[T], count: int) -> list[T]:
        """Return `count` items at different positions, in random order (Fisher-Yates, stopped after `count`)."""
        pool = list(items)
        for i in range(min(count, len(pool) - 1)):
            j = i + self.below(len(pool) - i)
            pool[i], pool[j] = pool[j], pool[i]
        return pool[:count]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """Return all items in random order."""
        return self.sample(items, len(items))
