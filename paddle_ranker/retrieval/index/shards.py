"""Shards: several index folders that are searched as one.

with SearchEngine.open(["index-2023", "index-2024"]) as searcher:
    searcher.search("query")

Scores, ties, totals and facets are the same as if a single folder had all documents, in the folders' order: document
frequencies, mean lengths and the nearest vectors are taken over all segments.

`paddle-ranker index build --shards N` makes a folder of shards: `shards.json` names the index folders in it.
`open_index` opens it as any index, also for writing.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Optional, Union

import numpy as np

from paddle_ranker.errors import CheckpointError, UsageError, brief, listed, refuse_text
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.index.index_folder import IndexFolder, Lock
from paddle_ranker.retrieval.snapshots.open_segments import folder_of
from paddle_ranker.retrieval.stored.manifest import MANIFEST, IndexInfo, read_manifest, write_manifest
from paddle_ranker.storage.untrusted import inside, read_json

SHARDS = "shards.json"
FORMAT = 1
_PENDING = "pending"  # folder with the next manifests of several shards, which count at once
_NAME = re.compile(r"shard-\d{4,}", re.ASCII)


def open_index(
    folder: Union[str, Path], *, write: bool = False, wait: float = 0.0, milvus_uri: Optional[str] = None
) -> Collection:
    """Open an index folder, or a folder of shards; see `Collection.open`."""
    folder = Path(folder)
    folders = shard_folders(folder)
    index = IndexFolder(folder) if folders == [folder] else ShardFolders(folders, folder)
    return Collection.open(index, write=write, wait=wait, milvus_uri=milvus_uri)


def shard_folders(folder: Union[str, Path]) -> list[Path]:
    """Return the index folders in a folder of shards, in their documents' order. An index folder is returned alone.

    Raises `CheckpointError` if `shards.json` is damaged or of another format.
    """
    folder = Path(folder)
    try:
        state = read_json(inside(folder, SHARDS))
        if state["format"] != FORMAT:
            raise CheckpointError(
                f"{folder}: shards of format {brief(str(state['format']))}, and this version reads format {FORMAT}: "
                "build it anew with index build --shards"
            )
        names = state["shards"]
        if not names or len({*names}) < len(names) or not all(map(_NAME.fullmatch, names)):
            raise ValueError("it names what are no shards")
        return [inside(folder, name) for name in names]
    except (FileNotFoundError, NotADirectoryError):
        return [folder]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / SHARDS}: damaged ({brief(str(error))}); copy the index again") from error


def shard_name(number: int) -> str:
    """Return the name of the n-th shard's folder."""
    return f"shard-{number:04d}"


def write_shards(folder: Path, names: Sequence[str]) -> None:
    """Write `shards.json`, which makes a folder a folder of shards."""
    from paddle_ranker.storage.atomic import new_file, sync

    with new_file(inside(folder, SHARDS)) as stream:
        json.dump({"format": FORMAT, "shards": list(names)}, stream, indent=1)
    sync(folder)


class ShardFolders(IndexFolder):
    """Files of several index folders, whose documents are one collection.

    Args:
        folders: the shards' index folders, in their documents' order.
        root: the folder of shards, in which changes of several shards are recorded; None: the shards are only read.
    """

    def __init__(self, folders: Sequence[Path], root: Optional[Path] = None):
        super().__init__(root or folders[0], folders)
        self._root = root

    def read_info(self) -> IndexInfo:
        """Read and merge the manifests of all shards; raises `UsageError` if the folders are no shards of one index."""
        infos = _manifests(self.folders, self._root)
        if (vectors := infos[0].vectors) is not None and vectors.are_elsewhere:
            raise UsageError(
                f"{self.folders[0]}: has its vectors in {vectors.method}, which searches one index at a time"
            )
        info = IndexInfo.merged(dict(zip(map(str, self.folders), infos)))
        if len({segment.name for segment in info.segments}) < len(info.segments):
            raise UsageError(f"{listed(map(str, self.folders))}: are copies of one index, or were; build each anew")
        return info

    def lock(self, until: float = 0.0) -> Lock:
        """Lock all shards for writing; raises `UsageError` if the shards were opened without a folder of shards."""
        if self._root is None:
            raise UsageError("shards are open for reading: write to one folder at a time")
        return super().lock(until)

    def write_info(self, info: IndexInfo) -> None:
        """Replace the manifest of each shard that changes; if a writer is killed meanwhile, see `finish_change`."""
        assert self._root is not None
        changed = dict[Path, IndexInfo]()
        owners = [folder_of(segment.name, self.folders) for segment in info.segments]
        for folder, old in zip(self.folders, _manifests(self.folders)):
            segments = [segment for segment, owner in zip(info.segments, owners) if owner == folder]
            new = replace(old, segments=tuple(segments), words=info.words, states=info.states, floors=info.floors)
            if new != old:
                changed[folder] = new.next(segments, info.next_id)
        if len(changed) > 1:
            from paddle_ranker.storage.atomic import new_folder

            with new_folder(inside(self._root, _PENDING), replace=True) as pending:
                for folder, new in changed.items():
                    (pending / folder.name).mkdir()
                    write_manifest(pending / folder.name, new)
        for folder, new in changed.items():
            write_manifest(folder, new)
        shutil.rmtree(self._root / _PENDING, ignore_errors=True)

    def finish_change(self) -> None:
        """Write the manifests of a change that a killed writer has left in `pending`."""
        assert self._root is not None
        if (self._root / _PENDING).is_dir():
            for folder, info in zip(self.folders, _manifests(self.folders, self._root)):
                write_manifest(folder, info)
            shutil.rmtree(inside(self._root, _PENDING))


def open_shards(folders: Sequence[Union[str, Path]]) -> Collection:
    """Open several index folders for reading, as one collection.

    Raises `UsageError` if the folders were not built alike (analyser, schema, tower, kind of vectors), if their vectors
    are in Milvus, or if two folders have a document of the same id.
    """
    refuse_text(folders, "folders", str, Path)
    paths = [path for folder in folders for path in shard_folders(folder)]
    if not paths:
        raise UsageError("shards: name at least one index folder")
    opened = Collection.open(ShardFolders(paths))
    parts = opened.snapshot().parts
    hashes = [part.segment.arrays["id_hashes"].astype(np.int64) for part in parts]
    live = [keys[part.mask[rows]] for part, (keys, rows) in zip(parts, hashes)]
    twice = sum(map(len, live)) - len(np.unique(np.concatenate([*live, np.empty(0, np.int64)])))
    if twice:
        raise UsageError(f"{listed(map(str, paths))}: {twice:,} documents are in two of these; remove them from one")
    return opened


def _manifests(folders: Sequence[Path], root: Optional[Path] = None) -> list[IndexInfo]:
    """Read the manifests of all folders; no change between two reads is seen in part.

    root: the folder of shards; its folder `pending` holds manifests that a change is writing
    """
    while True:
        pending = [folder if root is None else inside(root, _PENDING) / folder.name for folder in folders]
        nexts = [_pending_info(path) for path in pending]
        infos = [read_manifest(folder) for folder in folders]
        if root is None or infos == [read_manifest(folder) for folder in folders]:
            break
    return [new if new is not None and new.generation > old.generation else old for new, old in zip(nexts, infos)]


def _pending_info(folder: Path) -> Optional[IndexInfo]:
    try:
        return read_manifest(folder)
    except CheckpointError:
        if (folder / MANIFEST).exists():
            raise
        return None
