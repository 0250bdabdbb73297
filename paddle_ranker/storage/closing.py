"""Objects that a `with` statement closes."""

from __future__ import annotations

from abc import ABC, abstractmethod

from typing_extensions import Self


class Closable(ABC):
    """Base of objects that a `with` statement closes: `with Collection.open(folder) as collection:`."""

    @abstractmethod
    def close(self) -> None:
        """Free what the object holds."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()
