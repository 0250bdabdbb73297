"""Open index folder: a collection of documents, which can change while it is searched.

with Collection.open("index", write=True) as collection:
    collection.writer.add([Document("a", "水稻病害诊断", {"lang": "zh"})])
    (hits,) = collection.snapshot().search("words", ["水稻"], 10, Filter.parse(["lang=zh"]))

`index.json` names the valid segments (see `segments.py`) and their removed rows; a change replaces it atomically.
`IndexFolder` reads and writes the folder's files. A `LocalSnapshot` has the documents of one `index.json`. The
`CollectionWriter` of `collection_writer.py` changes them.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Optional, Union, cast

from paddle_ranker.errors import CheckpointError, RankerError, UsageError
from paddle_ranker.retrieval.index.index_folder import IndexFolder, Lock
from paddle_ranker.retrieval.snapshots.index_models import IndexModels
from paddle_ranker.retrieval.snapshots.open_segments import Generation
from paddle_ranker.retrieval.snapshots.snapshot import LocalSnapshot
from paddle_ranker.retrieval.stored.manifest import MANIFEST, IndexInfo
from paddle_ranker.retrieval.vectors.vector_settings import EXACT, FAISS, VectorsInfo
from paddle_ranker.retrieval.work.turns import locking
from paddle_ranker.storage.closing import Closable

if TYPE_CHECKING:
    from paddle_ranker.retrieval.index.collection_writer import CollectionWriter
    from paddle_ranker.retrieval.snapshots.vector_store import VectorStore


def _server_of(info: IndexInfo) -> Optional[str]:
    return None if info.vectors is None else info.vectors.server


def _store_of(index: IndexFolder, vectors: Optional[VectorsInfo], server: Optional[str]) -> Optional[VectorStore]:
    """Return the store elsewhere that has an index's vectors; None if they are in the folder alone.

    Raises `CheckpointError` if this installation has no such store.
    """
    if vectors is None or not vectors.are_elsewhere:
        return None
    from paddle_ranker.retrieval.stored.candidate_indexes import INDEXES

    open_store = INDEXES[vectors.method].store if vectors.method in INDEXES else None
    if open_store is None:
        raise CheckpointError(
            f"{index.folder}: its vectors are in {vectors.method}, which this installation lacks; open it by one that "
            f"has it, or build it anew with --method {EXACT} or {FAISS}"
        )
    return cast("VectorStore", open_store(index.folder, vectors, server))


class Collection(Closable):
    """Open index folder, with its newest snapshot for searches, and its writer.

    Any number of threads may search while another thread writes or refreshes.

    Args:
        index: the folder.
        generation: the open segments of the folder.
        lock: lock of the folder, which `close` releases; None if the folder is open for reading.
        milvus_uri: address of the server of vectors that the caller gave; no other server is connected to.

    Attributes:
        folder, folders: the attributes of `index`, see `IndexFolder`.
        changing: lock that a thread holds while it replaces the snapshot.
    """

    def __init__(
        self,
        index: IndexFolder,
        generation: Generation,
        lock: Optional[Lock] = None,
        milvus_uri: Optional[str] = None,
    ):
        self.index, self.folder, self.folders = index, index.folder, index.folders
        self.changing = threading.RLock()
        self._stamp: tuple[int, ...] = ()  # stamp of the index.json that was read; set by the first `refresh`
        store = _store_of(index, generation.info.vectors, milvus_uri)
        self._snapshot = LocalSnapshot(generation, index.folders, IndexModels(index.folders[0]), store)
        self._lock, self._making_writer = lock, threading.Lock()
        self._writer: Optional[CollectionWriter] = None
        if lock is not None:
            _ = self.writer  # cleans up after a killed writer

    @classmethod
    def create(cls, folder: Union[str, Path], info: IndexInfo) -> Collection:
        """Create an empty index folder and open it for writing; raises `RankerError` if the folder has an index."""
        index = IndexFolder(Path(folder))
        lock = index.lock()
        if (index.folder / MANIFEST).exists():
            lock.close()
            raise RankerError(f"{folder}: is an index already; add to it, or name another folder")
        index.write_info(info)
        return cls(index, Generation(index.folders, info, {}), lock, _server_of(info))

    @classmethod
    def open(
        cls,
        folder: Union[str, Path, IndexFolder],
        *,
        write: bool = False,
        wait: float = 0.0,
        milvus_uri: Optional[str] = None,
    ) -> Collection:
        """Open an index folder; raises `CheckpointError` if the folder has no index, or a damaged one.

        write: whether documents may be added and removed; raises `RankerError` if another process has the folder open
            for writing
        wait: seconds to wait, for writing, until the other process closes the folder
        milvus_uri: address of the Milvus server with the index's vectors; raises `UsageError` if the folder names
            another server. None: connect to no server, even if the folder names one
        """
        index = folder if isinstance(folder, IndexFolder) else IndexFolder(Path(folder))
        uri = _server_of(index.read_info())  # before the lock, which must not be created in any other folder
        if milvus_uri is not None and milvus_uri != uri:
            raise UsageError(f"--milvus_uri {milvus_uri}: the vectors of {index.folder} are not there; leave it out")
        lock = index.lock(time.monotonic() + wait) if write else None
        try:
            return cls(index, index.open_generation({}), lock, milvus_uri)
        except BaseException:
            if lock is not None:
                lock.close()
            raise

    @property
    def writer(self) -> CollectionWriter:
        """Writer of the documents; its code is loaded when it is first needed."""
        with self._making_writer:
            if self._writer is None:
                from paddle_ranker.retrieval.index.collection_writer import CollectionWriter

                self._writer = CollectionWriter(self, self._lock)
            return self._writer

    @property
    def info(self) -> IndexInfo:
        """Contents of the latest index.json that was read."""
        return self._snapshot.info

    @property
    def fields(self) -> list[str]:
        return self._snapshot.fields

    def __len__(self) -> int:
        return self.info.count

    def close(self) -> None:
        """Release the lock and close the connection to vectors elsewhere; snapshots can still be searched."""
        if (store := self._snapshot.store) is not None:
            store.close()
        if self._writer is not None:
            self._writer.close()

    def snapshot(self) -> LocalSnapshot:
        """Return a snapshot of the current documents."""
        return self._snapshot

    @property
    def is_current(self) -> bool:
        """Whether the snapshot shows what index.json names now; True if index.json no longer exists."""
        try:
            return self.index.stamp() == self._stamp
        except FileNotFoundError:
            return True

    def verify(self) -> tuple[int, int]:
        """Read all files of the newest generation; return their number, and their size in bytes.

        If another process merges segments meanwhile and deletes their files, the generation that it has written is read
        instead. Raises `CheckpointError` for a file that is missing or has changed.
        """
        while True:
            try:
                return self.snapshot().verify()
            except (CheckpointError, FileNotFoundError):
                if not self.refresh():
                    raise

    def refresh(self) -> bool:
        """Open the newest generation if another process has written one since the last time; return True if so.

        Raises `RankerError` if the folder was moved. Does nothing if the folder now has an index of another kind
        (`IndexInfo.same_kind`), unless stored states were added and nothing else differs.
        """
        with locking(self.changing):
            self.index.require_same()
            stamp = self.index.stamp()  # before index.json is read, so that no later change is missed
            if stamp == self._stamp:
                return False
            info = self.index.read_info()
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
        old = self._snapshot
        generation = self.index.open_generation(old.generation.segments())
        self._snapshot = LocalSnapshot(generation, self.index.folders, old.models, old.store)

    def require_address(self) -> None:
        """Raise `UsageError` if the vectors are on a server that the caller has not named."""
        if (store := self._snapshot.store) is not None:
            store.require_address()
