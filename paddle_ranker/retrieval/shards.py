"""Shards: several index folders that are searched as one.

with Searcher.open(["index-2023", "index-2024"]) as searcher:
    searcher.search("query")

Scores, ties, totals and facets are those of one folder to which the documents of all were added in the folders' order:
document frequencies, mean lengths and the best vectors are those of all segments together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Union

import numpy as np

from paddle_ranker.errors import CheckpointError, UsageError, listed, refuse_text
from paddle_ranker.retrieval.collection import Collection, stamp_of
from paddle_ranker.retrieval.contents import ContentFiles
from paddle_ranker.retrieval.generation import Generation
from paddle_ranker.retrieval.manifest import MILVUS, IndexInfo, read_manifest
from paddle_ranker.retrieval.segments import Segment


class Shards(Collection):
    """Index folders that are open for reading as one collection; documents are added to each folder by itself.

    Raises `UsageError` for folders that were not built alike (analyser, schema, tower, kind of vectors) or have their
    vectors in Milvus, and for a document in two folders.
    """

    def __init__(self, folders: Sequence[Union[str, Path]]):
        refuse_text(folders, "folders")
        paths = [Path(folder) for folder in folders]
        if not paths:
            raise UsageError("shards: name at least one index folder")
        super().__init__(paths[0], _open(paths, {}), None)
        self.folders = paths
        hashes = [part.segment.arrays["id_hashes"].astype(np.int64) for part in self._generation.parts]
        live = [keys[part.mask[rows]] for part, (keys, rows) in zip(self._generation.parts, hashes)]
        twice = sum(map(len, live)) - len(np.unique(np.concatenate([*live, np.empty(0, np.int64)])))
        if twice:
            raise UsageError(
                f"{listed(map(str, folders))}: {twice:,} documents are in two of these; remove them from one"
            )

    @property
    def is_current(self) -> bool:
        """Whether this is what all manifests say now, or one is gone."""
        try:
            return self._stamps() == self._stamp
        except FileNotFoundError:
            return True

    @property
    def files(self) -> ContentFiles:
        """The files that documents of any folder have in fields."""
        return ContentFiles(*self.folders)

    def refresh(self) -> bool:
        """Take up what others have added and removed; return whether there was anything."""
        with self._one_writer:
            stamp, before = self._stamps(), self.info.generation
            if sum(one.generation for one in _manifests(self.folders)) > before:
                self._generation = _open(self.folders, self._generation.segments())
            self._stamp = stamp
            return self.info.generation > before

    def _stamps(self) -> tuple[int, ...]:
        return tuple(number for folder in self.folders for number in stamp_of(folder))


def _manifests(folders: Sequence[Path]) -> list[IndexInfo]:
    """Return what each folder's index.json says; raises `UsageError` for folders that cannot be shards."""
    infos = [read_manifest(folder) for folder in folders]
    if infos[0].vectors is not None and infos[0].vectors.method == MILVUS:
        raise UsageError(f"{folders[0]}: has its vectors in Milvus, which searches one index at a time")
    for folder, info in zip(folders, infos):
        if not info.same_kind(infos[0]):
            raise UsageError(
                f"{folder}: was built otherwise than {folders[0]}, as index info shows; build it with the same tower, "
                "words and fields"
            )
    return infos


def _open(folders: Sequence[Path], opened: dict[str, Segment]) -> Generation:
    """Open what the manifests name; they may be replaced, and files deleted, meanwhile."""
    while True:
        infos = _manifests(folders)
        named = [(folder, one) for folder, info in zip(folders, infos) for one in info.segments]
        if len({one.name for _, one in named}) < len(named):
            raise UsageError(f"{listed(map(str, folders))}: are copies of one index, or were; build each anew")
        together = replace(
            infos[0], segments=tuple(one for _, one in named), generation=sum(info.generation for info in infos)
        )
        try:
            segments = {
                one.name: opened.get(one.name) or Segment(folder / one.name, together.schema) for folder, one in named
            }
            return Generation(folders[0], together, segments)
        except FileNotFoundError as error:
            if _manifests(folders) == infos:
                raise CheckpointError(f"{error.filename}: is missing; copy the index again") from error
