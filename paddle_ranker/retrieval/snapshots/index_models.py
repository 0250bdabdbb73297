"""Copies of models in an index folder: towers, and the ranker that computes stored states."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from paddle_ranker.errors import UsageError
from paddle_ranker.model.load_options import DEFAULT_OPTIONS, LoadOptions
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import VECTORS, IndexInfo, RankerStates
from paddle_ranker.retrieval.stored.schema import FIELD_TYPES, TEXT, FieldTower
from paddle_ranker.storage.untrusted import folder_without_links

if TYPE_CHECKING:
    from paddle_ranker.retrieval.snapshots.stored_states import ComputeStates


class IndexModels:
    """Copies of models in an index folder, each opened when it is first needed. Thread-safe.

    Args:
        folder: the index folder.
    """

    def __init__(self, folder: Path):
        self._root = folder
        self._towers: dict[str, FieldTower] = {}  # by vector field
        self._compute_states: Optional[ComputeStates] = None
        self._opening = threading.Lock()

    def folder(self, name: str) -> Path:
        """Return the folder of a model's copy; raises `CheckpointError` if `name` leads outside the index folder."""
        return folder_without_links(self._root, name)

    def tower(
        self, info: IndexInfo, field: str, options: LoadOptions = DEFAULT_OPTIONS, batch_size: int = 256
    ) -> FieldTower:
        """Return the tower of a vector field; raises `UsageError` if the field has no tower.

        options, batch_size: how to open the tower; without effect if it is open already
        """
        with self._opening:
            if field not in self._towers:
                copied = info.vector_fields[field].tower
                if copied is None:
                    raise UsageError(
                        f"{self._root}: has no tower that makes vectors of queries: search by words, or give vectors"
                    )
                if copied.is_at_url:
                    raise UsageError(
                        f"{self._root}: a model behind a URL made its vectors: say where it is, --tower "
                        "http://HOST/v1#MODEL, or search by words alone, --by words"
                    )
                kind = TEXT if field == VECTORS else info.schema.field(field).type
                open_tower = FIELD_TYPES[kind].open_tower
                assert open_tower is not None  # `info_of` has checked this
                self._towers[field] = open_tower(self.folder(copied.folder), options, batch_size)
            return self._towers[field]

    def lend_tower(self, field: str, tower: FieldTower) -> None:
        """Let an open tower make the vectors of a field, instead of the index's copy, or where there is none."""
        self._towers[field] = tower

    def states_ranker(
        self, states: RankerStates, options: LoadOptions = DEFAULT_OPTIONS, batch_size: int = 256
    ) -> ComputeStates:
        """Return what computes the stored states of new documents: the index's copy of their ranker.

        options, batch_size: how to open the ranker; without effect if it is open already
        """
        from paddle_ranker.retrieval.snapshots.stored_states import kind_of_states

        with self._opening:
            if self._compute_states is None:
                open_ranker = kind_of_states(self._root).open_ranker
                self._compute_states = open_ranker(self.folder(states.folder), options, batch_size)
            return self._compute_states

    def lend_states_ranker(self, compute: ComputeStates) -> None:
        """Let an open ranker compute the stored states of new documents, instead of the index's copy."""
        self._compute_states = compute

    def write_states(self, target: Path, documents: Iterable[Document], info: IndexInfo) -> None:
        """Write the stored states of a segment's documents into the empty folder `target`."""
        assert info.states is not None
        self.states_ranker(info.states)(target, documents, info.schema, info.states.dtype)
