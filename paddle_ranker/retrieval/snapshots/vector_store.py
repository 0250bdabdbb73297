"""Interface of a store that has an index folder's vectors, too, and searches them, such as Milvus."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Optional, Protocol

from paddle_ranker.array_types import Booleans, Floats, Integers, Vectors
from paddle_ranker.retrieval.snapshots.open_segments import Generation
from paddle_ranker.retrieval.stored.segments import Segment


class VectorStore(Protocol):
    """Vectors of an index folder in a store elsewhere; `IndexKind.store` opens it."""

    def require_address(self) -> None:
        """Raise `UsageError` if the folder names a server with its vectors, and the caller has not named it."""

    def close(self) -> None:
        """Close the connection; the next use makes a new one."""

    def change(self, added: Sequence[Segment], removed: Sequence[str], commit: Callable[[], None]) -> None:
        """Insert the vectors of new segments, call `commit`, then delete those of removed documents.

        removed: ids of the removed documents; documents that are added again are kept
        commit: replaces index.json
        """

    def repair(self, now: Generation) -> None:
        """Finish a change that a killed process or a failure of the store left unfinished; `now` has the documents."""

    def search(
        self, now: Generation, queries: Vectors, k: int, allowed: Optional[Sequence[Booleans]]
    ) -> list[tuple[Integers, Floats]]:
        """Return, for each query, the document numbers and scores of its best `k` documents, best first.

        queries: vectors, `[q, size]`
        allowed: for each segment, which documents may be found; None: all
        """
