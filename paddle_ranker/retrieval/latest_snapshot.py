"""Newest snapshot of an index folder that this process has opened."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Optional

from paddle_ranker.retrieval.index_folder import IndexFolder
from paddle_ranker.retrieval.index_models import IndexModels
from paddle_ranker.retrieval.manifest import MILVUS, IndexInfo
from paddle_ranker.retrieval.milvus import MilvusSearch
from paddle_ranker.retrieval.open_segments import Generation
from paddle_ranker.retrieval.snapshot import LocalSnapshot
from paddle_ranker.retrieval.turns import locking


class LatestSnapshot:
    """Holder of the newest snapshot of an index folder, which `refresh` and `take_up` replace.

    Args:
        index: the folder.
        milvus_uri: address of the Milvus server that the caller gave; no other server is connected to.

    Attributes:
        snapshot: the snapshot.
        changing: lock that a thread holds while it replaces the snapshot.
    """

    def __init__(self, index: IndexFolder, generation: Generation, milvus_uri: Optional[str]):
        self.index, self.changing = index, threading.RLock()
        self._stamp: tuple[int, ...] = ()  # stamp of the index.json that was read; set by the first `refresh`
        models, milvus, vectors = IndexModels(index.folders[0]), None, generation.info.vectors
        if vectors is not None and vectors.method == MILVUS:
            milvus = MilvusSearch(index.folder, vectors, milvus_uri)
        self.snapshot = LocalSnapshot(generation, index.folders, models, milvus)

    @property
    def info(self) -> IndexInfo:
        return self.snapshot.info

    @property
    def is_current(self) -> bool:
        """Whether index.json has not changed since the snapshot was opened; True without index.json."""
        try:
            return self.index.stamp() == self._stamp
        except FileNotFoundError:
            return True

    def refresh(self) -> bool:
        """Open the newest generation that others have written; return whether it is new.

        Does nothing if the folder now has an index of another kind (`IndexInfo.same_kind`). An index to which stored
        states were added is of the same kind.
        """
        with locking(self.changing):
            stamp, info = self.index.stamp(), self.index.read_info()  # in this order, so that no later change is missed
            current = self.info if self.info.states is not None else replace(self.info, states=info.states)
            is_new = info.generation > self.info.generation and info.same_kind(current)
            if is_new:
                self._reopen()
            self._stamp = stamp
            return is_new

    def take_up(self) -> None:
        """Open the generation that this process has written."""
        self._reopen()
        self._stamp = self.index.stamp()

    def _reopen(self) -> None:
        old = self.snapshot
        generation = self.index.open_generation(old.generation.segments())
        self.snapshot = LocalSnapshot(generation, self.index.folders, old.models, old.milvus)
