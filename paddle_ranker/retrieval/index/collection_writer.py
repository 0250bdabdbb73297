"""Change the documents of an index folder.

A change writes new segments, or files with removed rows, and then commits: it replaces `index.json`. A writer that is
killed before the commit has changed no document; the next writer deletes its files, but for segments of
`unfinished.json`, whose vectors the next addition uses.
"""

from __future__ import annotations

import itertools
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Optional, Protocol, Union

import numpy as np

from paddle_ranker.array_types import Booleans
from paddle_ranker.data.rows.documents import DocumentFile
from paddle_ranker.data.rows.field_paths import ROLES
from paddle_ranker.data.rows.records import DocumentRow
from paddle_ranker.errors import RankerError, UsageError, checked_items, listed, refuse_text
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.model_folder import TOWER, identify
from paddle_ranker.options import DocumentOptions, note
from paddle_ranker.retrieval.index.content_staging import StagedFiles, staged_files
from paddle_ranker.retrieval.index.floors import measure_floors, need_measuring
from paddle_ranker.retrieval.index.index_folder import IndexFolder, Lock, delete
from paddle_ranker.retrieval.index.ingestion import Addition, Cutter, RepeatedIdsError, Unfinished, VectorsOf
from paddle_ranker.retrieval.index.merging import first_to_merge, merge_segments
from paddle_ranker.retrieval.snapshots.open_segments import Location, OpenSegment
from paddle_ranker.retrieval.snapshots.searchable import Added
from paddle_ranker.retrieval.snapshots.snapshot import LocalSnapshot
from paddle_ranker.retrieval.snapshots.vector_search import index_writers
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import VECTORS, Floors, IndexInfo, RankerStates, SegmentInfo
from paddle_ranker.retrieval.stored.schema import TEXT
from paddle_ranker.retrieval.stored.segment_writing import SegmentData
from paddle_ranker.retrieval.stored.segments import Segment
from paddle_ranker.storage.atomic import new_file, remove_unfinished
from paddle_ranker.storage.untrusted import inside

MERGED_AT_ONCE = 1 << 16  # most documents that an addition merges
_LOOKED_UP = 100  # up to this many files are looked up one by one


class OpenFolder(Protocol):
    """Open index folder whose documents a `CollectionWriter` changes; see `Collection`."""

    index: IndexFolder
    folder: Path

    @property
    def changing(self) -> AbstractContextManager[object]: ...

    @property
    def info(self) -> IndexInfo: ...

    @property
    def fields(self) -> list[str]: ...

    def snapshot(self) -> LocalSnapshot: ...

    def refresh(self) -> bool: ...

    def take_up(self) -> None: ...


class CollectionWriter:
    """Writer of an index folder's documents; only one process, and one thread in it, can write at a time.

    Args:
        collection: the open folder, whose snapshot each change replaces.
        lock: lock of the folders, held until `close`. None: `writing` takes the lock during its block.

    A change raises `UsageError` if the folder is open for reading.
    """

    def __init__(self, collection: OpenFolder, lock: Optional[Lock] = None):
        self._collection, self._index = collection, collection.index
        self._numbers = itertools.count(1)  # numbers of new segments
        self._lock = lock  # keeps other processes from writing; `Collection.changing` keeps other threads from it
        self._keeps_lock = lock is not None  # until `close`; else while there are `_threads`
        self._threads = 0  # number of threads that are in `writing`
        self._taking = threading.Lock()  # guards `_lock` and `_threads`
        if lock is not None:
            self._begin()

    @property
    def _snapshot(self) -> LocalSnapshot:
        return self._collection.snapshot()

    def close(self) -> None:
        """Release the lock, so that other processes can write."""
        if self._keeps_lock:
            self._let_go()

    def _let_go(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @contextmanager
    def writing(self, until: float) -> Iterator[None]:
        """Hold the lock of the folders during the block, which may change documents; threads share the lock.

        until: time on `time.monotonic()`'s clock up to which to wait until another process releases the lock

        Raises `RankerError` if the lock is not free by then, or if the folder now has another index, or none.
        """
        with self._taking:
            if self._lock is None:
                self._index.read_info()  # raises before a lock is put into a folder that is no index
                self._lock = self._index.lock(until)
                try:
                    self._collection.refresh()
                    if self._index.read_info() != self._collection.info:
                        raise RankerError(
                            f"{self._index.folder}: another index is there now; open it before it is changed"
                        )
                    self._begin()
                except BaseException:
                    self._let_go()
                    raise
            self._threads += 1
        try:
            yield
        finally:
            with self._taking:
                self._threads -= 1
                if not self._threads and not self._keeps_lock:
                    self._let_go()

    def add(
        self,
        documents: Iterable[Document],
        vectors_of: Optional[VectorsOf] = None,
        *,
        merge: bool = True,
        prepared: Sequence[SegmentData] = (),
        files: Optional[StagedFiles] = None,
        new_fields: Iterable[str] = (),
    ) -> Added:
        """Add documents, or replace documents of the same ids; durable when this returns.

        If adding fails, no document is added. If the merge that follows fails, all documents are added. A document with
        an indexed id and the same text and fields is ignored. With other text or fields, it replaces the indexed
        document, goes to the end of the order and gets the next version. If the index has the vector of a text, the
        vector is copied.

        vectors_of: called with texts; returns their vectors, `[n, size]` (default: the index's own tower)
        merge: whether to merge small segments at the end; if not, call the method `merge` soon, in any thread
        prepared: result of `prepare` for these documents
        files: the files of these documents, as in `prepare`; the caller closes it
        new_fields: fields that are new, although their names are like those of fields that the index has
        """
        refuse_text(new_fields, "new_fields")
        refuse_text(documents, "documents", Document)
        return self._add(documents, vectors_of, merge, prepared=prepared, files=files, new_fields=new_fields)

    def prepare(
        self,
        documents: Sequence[Document],
        files: StagedFiles,
        vectors_of: Optional[VectorsOf] = None,
        new_fields: Iterable[str] = (),
    ) -> list[SegmentData]:
        """Compute words and vectors of documents, for `add`; other threads may write meanwhile."""
        refuse_text(new_fields, "new_fields")
        refuse_text(documents, "documents", Document)
        return self._addition(vectors_of, files, new_fields=new_fields).prepare(documents)

    def _addition(
        self,
        vectors_of: Optional[VectorsOf],
        files: StagedFiles,
        unfinished: Optional[Unfinished] = None,
        prepared: Sequence[SegmentData] = (),
        new_fields: Iterable[str] = (),
    ) -> Addition:
        now = self._snapshot
        vectors_of = vectors_of or (lambda texts: now.tower(VECTORS).vectors(texts))
        write_states = None if now.info.states is None else partial(now.models.write_states, info=now.info)
        arguments = vectors_of, self._cutter, files, now.tower, unfinished, prepared, write_states, new_fields
        return Addition(self._index.folders, self._new_segment, now.generation, *arguments)

    def add_rows(
        self,
        rows: Iterable[DocumentRow],
        vectors_of: Optional[VectorsOf] = None,
        *,
        sync: bool = False,
        files: Optional[StagedFiles] = None,
        new_fields: Iterable[str] = (),
    ) -> Added:
        """Add the rows of a corpus as `add` does.

        A row without an id gets the id of the indexed document with the same text and fields, or the next free number.
        If an earlier row has the same text and fields, a row without an id is left out.

        sync: whether to remove the documents that are not among the rows
        new_fields: as in `add`
        """
        refuse_text(new_fields, "new_fields")
        refuse_text(rows, "rows", DocumentRow)
        return self._add(rows, vectors_of, True, sync, files=files, new_fields=new_fields)

    def _add(
        self,
        rows: Iterable[Union[Document, DocumentRow]],
        vectors_of: Optional[VectorsOf],
        merge: bool,
        sync: bool = False,
        prepared: Sequence[SegmentData] = (),
        files: Optional[StagedFiles] = None,
        new_fields: Iterable[str] = (),
    ) -> Added:
        with self._changing(), ExitStack() as ends:
            staged = ends.enter_context(staged_files(self._snapshot.files)) if files is None else files
            unfinished = Unfinished(self._index.folders, self._collection.info.schema)
            addition = self._addition(vectors_of, staged, unfinished, prepared, new_fields)
            added = addition.run(checked_items(rows, "documents", Document, DocumentRow))
            ends.callback(self._forget_files, staged.names)  # forget published files that no document names
            staged.publish()
            removed = [*addition.replaced, *addition.gone, *(addition.absent if sync else ())]
            if addition.segments or removed:
                self._replace(removed, addition.segments, addition.next_id)
            unfinished.forget()
        if merge:
            self.merge()
        return added

    def merge(self, most: Optional[int] = MERGED_AT_ONCE) -> None:
        """Merge the last segments of each folder that has many segments; see `first_to_merge`.

        most: maximum number of documents to merge in a folder; a folder with more to merge is left as it is, because
            merging would take long. None: no limit; files that no document has are then deleted, too
        """
        with self._changing():
            now = self._snapshot.generation
            if most is None and now.info.schema.files:
                self._snapshot.files.forget_all_but(self._snapshot.file_names())
        for folder in self._index.folders:
            self._merge([part for part in now.parts if part.segment.folder.parent == folder], most)

    def _merge(self, parts: Sequence[OpenSegment], most: Optional[int]) -> None:
        """Merge the last segments of a folder into one segment, if the folder has many segments.

        parts: all segments of the folder
        most: see `merge`
        """
        sizes = [int(np.count_nonzero(part.mask)) for part in parts]
        first = first_to_merge(sizes)
        if first is None or (most is not None and sum(sizes[first:]) > most):
            return
        old, merged = parts[first:], self._new_segment(parts[0].segment.folder.parent)
        merge_segments(merged, [(part.segment, part.live) for part in old], index_writers(self._collection.info))
        with self._changing():
            # Documents may have been removed meanwhile, and earlier segments may be gone.
            masks = {part.segment.name: part.mask for part in self._snapshot.generation.parts}
            if not all(part.segment.name in masks for part in old):
                raise RankerError(f"{self._index.folder}: a segment went while it was merged; merge again")
            live = np.concatenate([masks[part.segment.name][part.mask] for part in old])
            segments, first = list(self._collection.info.segments), list(masks).index(old[0].segment.name)
            segments[first : first + len(old)] = [self._segment_info(merged, live)]
            self._commit(segments)

    def measure_floors(self) -> None:
        """Measure the floors of vector searchers if that is needed, see `need_measuring`.

        For each field with a tower, this computes the vectors of 200 queries, and searches for them.
        """
        now = self._snapshot
        if need_measuring(now.info):
            floors = measure_floors(now)
            with self._changing():
                self._commit(self._collection.info.segments, floors=floors)

    def remove(self, ids: Iterable[str]) -> int:
        """Remove documents by id; return how many of the ids existed. Durable when this returns."""
        refuse_text(ids, "ids")
        with self._changing():
            locations = self._snapshot.generation.find(list(ids))
            if locations:
                self._replace(list(locations.values()))
            return len(locations)

    def _replace(self, removed: Sequence[Location], added: Sequence[SegmentInfo] = (), next_id: int = 0) -> None:
        """Commit a generation without removed documents and with added segments; change vectors elsewhere alike."""
        now, segments = self._snapshot.generation, list(self._collection.info.segments)
        files = set[str]()
        for location in removed if now.info.schema.files else ():
            files |= now.info.schema.file_names(now.document_at(location))
        for number in sorted({location.part for location in removed}):
            live = now.parts[number].mask.copy()
            live[[location.row for location in removed if location.part == number]] = False
            segments[number] = self._segment_info(now.parts[number].segment.folder, live)
        change_store, store = None, self._snapshot.store
        if store is not None:
            opened = [Segment(self._index.folder / segment.name, self._collection.info.schema) for segment in added]
            gone = [now.segment_at(location).id(location.row) for location in removed]
            change_store = partial(store.change, opened, gone)
        self._commit([*segments, *added], next_id, change_store)
        self._forget_files(files)

    def _segment_info(self, segment: Path, live: Booleans) -> SegmentInfo:
        """Return a segment's entry for index.json; write the list of its removed rows, if there are any."""
        removed = np.flatnonzero(~live)
        if not len(removed):
            return SegmentInfo(segment.name, len(live))
        before = next(
            (entry.deleted or "" for entry in self._collection.info.segments if entry.name == segment.name), ""
        )
        number = 1 + max(self._collection.info.generation, int(before.partition(".deleted-")[2].partition(".")[0] or 0))
        file = inside(segment.parent, f"{segment.name}.deleted-{number}.npy")
        with new_file(file, "wb") as stream:
            np.save(stream, removed)
        return SegmentInfo(segment.name, len(live), file.name, len(removed))

    def store_states(self, states: RankerStates, options: LoadOptions, batch_size: int) -> None:
        """Compute and store the states of all documents; words and vectors stay as they are.

        states: describes the states and their ranker; each folder must already have a copy of the ranker
        options, batch_size: how the ranker is opened
        """
        models = self._snapshot.models
        models.states_ranker(states, options, batch_size)
        with self._changing():
            now, segments = self._snapshot.generation, []
            info = replace(now.info, states=states)
            for part in now.parts:
                folder, source = self._new_segment(part.segment.folder.parent), (part.segment, part.live)
                write_states = partial(models.write_states, info=info)
                merge_segments(folder, [source], index_writers(now.info), write_states=write_states)
                segments.append(SegmentInfo(folder.name, int(np.count_nonzero(part.mask))))
            self._commit(segments, states=states)

    @cached_property
    def _cutter(self) -> Cutter:
        """Divider of texts into passages, by tokens of the index's own tower; without a tower, by estimated tokens."""
        info = self._collection.info
        folder = self._snapshot.tower_folder
        if folder is None or not info.schema.passage_tokens:
            return Cutter(info.schema, None)
        return Cutter(info.schema, identify(folder).row_encoder(TOWER))

    def _new_segment(self, folder: Path) -> Path:
        """Return the path of a new segment, whose name no segment of this or another index has."""
        return folder / f"segment-{next(self._numbers):08d}-{secrets.token_hex(4)}"

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Keep other threads from writing during the block, and repair vectors elsewhere before it.

        Raises `UsageError` if the folder is open for reading.
        """
        if self._lock is None:
            raise UsageError(f"{self._index.folder}: is open for reading; open it with write=True")
        with self._collection.changing:
            self._index.require_same()
            if self._snapshot.store is not None:
                self._snapshot.store.repair(self._snapshot.generation)
            yield

    def _commit(
        self,
        segments: Sequence[SegmentInfo],
        next_id: int = 0,
        change_store: Optional[Callable[[Callable[[], None]], None]] = None,
        states: Optional[RankerStates] = None,
        floors: Optional[Floors] = None,
    ) -> None:
        """Commit a generation of the non-empty segments by a new index.json; durable when this returns.

        Files of segments that are no longer listed are deleted.

        change_store: called with the function that writes index.json; changes vectors elsewhere before and after
            calling it
        states, floors: new values for index.json; None: keep the present value
        """
        info = self._collection.info
        before = replace(info, states=states or info.states, floors=floors or info.floors)
        following = before.next([segment for segment in segments if segment.live], next_id)
        self._index.require_same()
        write = partial(self._index.write_info, following)
        try:
            if change_store is None:
                write()
            else:
                change_store(write)
        finally:  # a change that is committed counts, even if the store fails afterwards
            self._collection.take_up()
        for name in before.files() - self._collection.info.files():
            self._index.delete(name)

    def _begin(self) -> None:
        """Clean up after a killed writer: finish its change if it was committed in part, else delete its files."""
        self._index.finish_change()
        info, folders = self._collection.info, self._index.folders
        segments = [path for folder in folders for path in folder.glob("segment-*")]
        self._numbers = itertools.count(1 + max(map(_number_of, segments), default=0))
        named = info.files() | {segment.name for segment in Unfinished(folders, info.schema).segments}
        for folder in folders:
            remove_unfinished(folder)
        for path in segments:
            if path.name not in named:
                delete(path)
        self._forget_files(self._snapshot.files.forget_staged())

    def _forget_files(self, names: set[str]) -> None:
        """Delete each file in `names` that no document has."""
        if not self._index.is_same:
            return
        now = self._snapshot
        live = now.file_names() if len(names) > _LOOKED_UP else {*filter(now.has_file, names)}
        now.files.forget(name for name in names if name not in live)


def _number_of(path: Path) -> int:
    number = path.name.split("-")[1].split(".")[0]
    return int(number) if number.isdigit() else 0


@contextmanager
def repeated_ids_placed(rows: DocumentFile) -> Iterator[None]:
    """Convert an error about repeated ids in the block, an addition of `rows`, to one that names their places."""
    try:
        yield
    except RepeatedIdsError as error:
        raise rows.repeated(error.ids) or error from error


def documents_for(
    collection: OpenFolder, corpus: str, options: DocumentOptions, *, keeps_left_out: bool = False
) -> DocumentFile:
    """Open a corpus with the column names of an index, for `kept_rows`; `keeps_left_out` as for `DocumentFile`.

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
        keeps_left_out=keeps_left_out,
        goes_on=True,
    )
    if not info.generation:
        return rows
    expected = dict.fromkeys([*info.columns.values(), *collection.fields])
    has_roles = any(getattr(options, f"{role}_column") is not None for role in ROLES) or rows.columns.get(TEXT) == TEXT
    lacking = [name for name in expected if name not in rows.names]
    more = sorted(rows.names - {*expected, *ROLES, *rows.columns.values()})
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
