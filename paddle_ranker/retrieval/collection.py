"""Open index folder: a collection of documents, which can change while it is searched.

with Collection.open("index", write=True) as collection:
    collection.writer.add([Document("a", "水稻病害诊断", {"lang": "zh"})])
    (hits,) = collection.snapshot().search("words", ["水稻"], 10, Filter.parse(["lang=zh"]))

`index.json` names the valid segments (see `segments.py`) and their removed rows; a change replaces it atomically.
`IndexFolder` reads and writes the folder's files. A `LocalSnapshot` has the documents of one `index.json`.
`CollectionWriter` adds and removes documents.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Optional, Union

from paddle_ranker.data.documents import INNER, ROLES, DocumentFile
from paddle_ranker.errors import RankerError, UsageError, listed
from paddle_ranker.options import DocumentOptions, note
from paddle_ranker.retrieval.index_folder import IndexFolder, Lock
from paddle_ranker.retrieval.latest_snapshot import LatestSnapshot
from paddle_ranker.retrieval.manifest import MANIFEST, IndexInfo
from paddle_ranker.retrieval.milvus import address_of
from paddle_ranker.retrieval.open_segments import Generation
from paddle_ranker.retrieval.schema import TEXT
from paddle_ranker.retrieval.snapshot import LocalSnapshot
from paddle_ranker.retrieval.writer import CollectionWriter
from paddle_ranker.storage.closing import Closable


class Collection(Closable):
    """Open index folder, with its newest snapshot for searches, and its writer.

    Any number of threads may search while another thread writes or refreshes.

    Args:
        index: the folder.
        generation: the open segments of the folder.
        lock: lock of the folder, which `close` releases; None if the folder is open for reading.
        milvus_uri: address of the Milvus server with the vectors, as the caller gave it.

    Attributes:
        folder, folders: those of `index`, see `IndexFolder`.
        writer: changes the documents.
    """

    def __init__(
        self,
        index: IndexFolder,
        generation: Generation,
        lock: Optional[Lock] = None,
        milvus_uri: Optional[str] = None,
    ):
        self.index, self.folder, self.folders = index, index.folder, index.folders
        self._latest = LatestSnapshot(index, generation, milvus_uri)
        self.writer = CollectionWriter(self._latest, lock)

    @classmethod
    def create(cls, folder: Union[str, Path], info: IndexInfo) -> Collection:
        """Create an empty index folder and open it for writing; raises `RankerError` if the folder has an index."""
        index = IndexFolder(Path(folder))
        lock = index.lock()
        if (index.folder / MANIFEST).exists():
            lock.close()
            raise RankerError(f"{folder}: is an index already; add to it, or name another folder")
        index.write_info(info)
        return cls(index, Generation(index.folders, info, {}), lock, address_of(info.vectors))

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
        wait: seconds to wait for this process
        milvus_uri: address of the Milvus server with the index's vectors; raises `UsageError` if the folder names
            another server. None: connect to no server, even if the folder names one
        """
        index = folder if isinstance(folder, IndexFolder) else IndexFolder(Path(folder))
        uri = address_of(index.read_info().vectors)  # before the lock, which must not be created in any other folder
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
    def info(self) -> IndexInfo:
        """Contents of the latest index.json that was read."""
        return self._latest.info

    @property
    def fields(self) -> list[str]:
        return self._latest.snapshot.fields

    def __len__(self) -> int:
        return self.info.count

    def close(self) -> None:
        """Release the lock and close the connection to Milvus; snapshots can still be searched."""
        if (milvus := self._latest.snapshot.milvus) is not None:
            milvus.close()
        self.writer.close()

    def snapshot(self) -> LocalSnapshot:
        """Return a snapshot of the current documents."""
        return self._latest.snapshot

    @property
    def is_current(self) -> bool:
        """Whether index.json has not changed since the snapshot was opened; True without index.json."""
        return self._latest.is_current

    def refresh(self) -> bool:
        """Open the newest generation that others have written; return whether it is new.

        Does nothing if the folder now has another index.
        """
        return self._latest.refresh()

    def require_address(self) -> None:
        """Raise `UsageError` if the vectors are in a Milvus server that the caller has not named."""
        if (milvus := self._latest.snapshot.milvus) is not None:
            milvus.require_address()


def documents_for(collection: Collection, corpus: str, options: DocumentOptions) -> DocumentFile:
    """Open a corpus with the column names of an index.

    Logs the columns that only the corpus or only the index has. Raises `UsageError` if they share no column.
    """
    info, schema = collection.info, collection.info.schema
    rows = DocumentFile(
        corpus,
        options,
        joins_title=not schema.fields,
        columns=info.columns,
        files=schema.file_fields,
        declared=schema.spellings,
    )
    if not info.generation:
        return rows
    expected = dict.fromkeys([*info.columns.values(), *collection.fields])
    has_roles = any(getattr(options, f"{role}_column") is not None for role in ROLES) or rows.columns.get(TEXT) == TEXT
    lacking = [name for name in expected if name not in rows.names]
    more = sorted(rows.names - {*expected, *ROLES, *INNER, *rows.columns.values()})
    if more and expected and len(lacking) == len(expected) and not has_roles:
        raise UsageError(
            f"{corpus}: has the columns {listed(sorted(rows.names - {*ROLES}))}, and {collection.folder} has "
            f"{listed(expected)}: build another "
            f"index of it, or say what is what by --id_column, --title_column and --text_column"
        )
    differences = [f"lacks {listed(lacking)}"] if lacking else []
    differences += [f"has {listed(more)}, which are stored and not searched"] if more else []
    if differences:
        note(f"{corpus}: beside {collection.folder}, it {' and '.join(differences)}")
    return rows
