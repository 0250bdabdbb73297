"""Add, replace and remove documents for a server's callers: durable once confirmed, and seen by the next search."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Optional, TypeVar

import numpy as np

from paddle_ranker.array_types import Vectors
from paddle_ranker.data.rows.field_paths import replaced
from paddle_ranker.errors import DataError, RankerError, listed
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import VECTORS
from paddle_ranker.retrieval.stored.schema import PLACES
from paddle_ranker.retrieval.work.turns import Abandoned, Caller, Reserve, Turns, wait_for
from paddle_ranker.serving.core.faults import (
    ALREADY_THERE,
    NO_DOCUMENT,
    OVERLOADED,
    TIMED_OUT,
    UNAVAILABLE,
    UNPROCESSABLE,
    Fault,
)
from paddle_ranker.serving.core.threads import StoppableWork, in_context
from paddle_ranker.serving.slots.index_slot import IndexSlot
from paddle_ranker.serving.slots.queued_search import comparable

if TYPE_CHECKING:
    from paddle_ranker.retrieval.index.content_staging import StagedFiles
    from paddle_ranker.retrieval.snapshots.searchable import Added
    from paddle_ranker.retrieval.stored.segment_writing import SegmentData
    from paddle_ranker.serving.slots.tower_slot import TowerSlot

R = TypeVar("R")
_MOST_WAITING = 64  # requests that wait for their turn
_MERGE_SECONDS = 1.0  # a merge waits this long for another process that writes
_LOG = logging.getLogger(__name__)


class IndexWriter:
    """Writer of a server's index. A thread applies one request at a time, completely or not at all.

    Args:
        index: the slot of the index.
        tower: computes the vectors of new texts, through its queue; None if the index has no vectors.
    """

    def __init__(self, index: IndexSlot, tower: Optional[TowerSlot]):
        self._index, self._tower = index, tower
        late = "the index could be changed; nothing was"
        self._preparing = StoppableWork(_MOST_WAITING, name="index-preparing", what=late)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="index-writer")
        self._merging = ThreadPoolExecutor(1, thread_name_prefix="index-merger")
        self._waiting, self._merge_waits = 0, False

    async def add(
        self,
        documents: Sequence[Document],
        deadline: float,
        reserve: Optional[Reserve] = None,
        *,
        replace: bool,
        new_fields: Sequence[str] = (),
    ) -> Added:
        """Add documents. Return the counts of new, replaced and unchanged documents.

        deadline: time on `time.monotonic()`'s clock
        reserve: see `StoppableWork.run`
        replace: whether documents may replace stored ones with the same ids; False: a request that would is refused
        new_fields: as in `CollectionWriter.add`

        Raises `Fault`; then nothing was added.
        """
        from paddle_ranker.retrieval.index.content_staging import staged_files

        files = staged_files(self._index.local.snapshot().files)

        def made(collection: Collection) -> Sequence[Document]:
            nonlocal documents  # with names of staged files in fields, so that a second call decodes no file again
            documents = [files.keep(document, collection.info.schema) for document in documents]
            if not replace:
                _refuse_changes(collection, documents)
            return documents

        return await self._add(made, files, deadline, reserve, new_fields)

    async def change(
        self,
        changes: Sequence[tuple[str, Optional[str], Mapping[str, object]]],
        deadline: float,
        reserve: Optional[Reserve] = None,
        *,
        new_fields: Sequence[str] = (),
    ) -> Added:
        """Change stored documents. Return the counts of replaced and unchanged documents.

        changes: for each document its id, its new text (None: unchanged) and its new fields (None removes a field)
        deadline, reserve, new_fields: as in `add`

        Raises `Fault`, also for an id that no document has; then nothing was changed.
        """
        from paddle_ranker.retrieval.index.content_staging import staged_files

        def made(collection: Collection) -> Sequence[Document]:
            stored = collection.snapshot().documents_of([id for id, _, _ in changes])
            if missing := [id for id, _, _ in changes if id not in stored]:
                raise Fault(NO_DOCUMENT, f"there is no document {listed(missing)}; nothing was changed", field="id")
            documents = []
            for id, text, fields in changes:
                kept = dict(stored[id].fields)
                for name, value in fields.items():
                    kept = replaced(kept, name, value)
                if collection.info.schema.read_files and text not in (None, stored[id].text) and PLACES not in fields:
                    kept.pop(PLACES, None)  # places belong to the old text
                documents.append(Document(id, stored[id].text if text is None else text, kept))
            return documents

        return await self._add(made, staged_files(self._index.local.snapshot().files), deadline, reserve, new_fields)

    async def remove(self, ids: Sequence[str], deadline: float) -> int:
        """Remove the documents with these ids. Return how many existed. Raises `Fault`."""
        return await self._write(lambda collection: collection.writer.remove(ids), deadline)

    async def _add(
        self,
        made: Callable[[Collection], Sequence[Document]],
        files: StagedFiles,
        deadline: float,
        reserve: Optional[Reserve],
        new_fields: Sequence[str],
    ) -> Added:
        """Add documents. Their words and vectors, which take long, are computed before the lock on writing is taken.

        made: called with the index, possibly twice; returns the documents to add
        files: files of the documents that are not in the index folder yet
        deadline, reserve, new_fields: as in `add`
        """
        loop = asyncio.get_running_loop()
        vectors_of = partial(self._vectors, loop, deadline)

        def prepare(collection: Collection) -> list[SegmentData]:
            return collection.writer.prepare(made(collection), files, vectors_of, new_fields)

        def add(collection: Collection) -> Added:
            return collection.writer.add(
                made(collection), vectors_of, merge=False, prepared=prepared, files=files, new_fields=new_fields
            )

        self._begin()
        try:
            try:
                collection = self._index.local
                with _faults():
                    prepared = await self._preparing.run(1, deadline, partial(prepare, collection), reserve)
            finally:
                self._waiting -= 1
            added = await self._write(add, deadline)
        finally:
            await asyncio.shield(loop.run_in_executor(None, files.close))
        self._merge_if_many()
        return added

    def _begin(self) -> None:
        if self._waiting >= _MOST_WAITING:
            raise Fault(OVERLOADED, f"{_MOST_WAITING} changes wait for their turn, no more may", retry_after=1.0)
        self._waiting += 1

    async def _write(self, work: Callable[[Collection], R], deadline: float) -> R:
        self._begin()
        caller = Caller(deadline)
        try:
            do = in_context(partial(self._do, work, deadline, caller))
            return await asyncio.wrap_future(self._thread.submit(do))
        finally:
            caller.leave()
            self._waiting -= 1

    def _do(self, work: Callable[[Collection], R], deadline: float, caller: Caller) -> R:
        collection = self._index.local

        def write() -> R:
            with collection.writer.writing(deadline):
                return work(collection)

        try:
            with _faults():  # takes no turns with searches, since they may wait for this write
                return caller.run(write, Turns(1))
        except Abandoned as error:
            raise Fault(TIMED_OUT, "the deadline passed before the index could be changed; nothing was") from error

    def _vectors(self, loop: asyncio.AbstractEventLoop, deadline: float, texts: Sequence[str]) -> Vectors:
        """Compute the vectors of texts, `[n, size]`, through the tower's queue or at its URL. Called in a thread."""
        if self._index.options.tower_url is not None:
            return self._index.local.snapshot().tower(VECTORS).vectors(texts)
        if self._tower is None:
            raise Fault(UNPROCESSABLE, "this index has no tower that makes vectors", field="documents")
        parts = []
        for start in range(0, len(texts), self._tower.limits.pairs):
            computing = self._tower.vectors(texts[start : start + self._tower.limits.pairs], deadline=deadline)
            making = asyncio.run_coroutine_threadsafe(computing, loop)
            parts.append(comparable(wait_for(making).vectors, self._tower.info))
        return np.concatenate(parts)

    def _merge_if_many(self) -> None:
        from paddle_ranker.retrieval.index.merging import MOST_SEGMENTS

        if len(self._index.info.segments) > MOST_SEGMENTS and not self._merge_waits:
            self._merge_waits = True
            self._merging.submit(self._merge, self._index.local)

    def _merge(self, collection: Collection) -> None:
        self._merge_waits = False
        try:
            with collection.writer.writing(time.monotonic() + _MERGE_SECONDS):
                collection.writer.merge()
        except (RankerError, OSError) as error:
            _LOG.info("segments were not merged: %s", error)  # the next addition tries again
        except Exception:
            _LOG.exception("segments were not merged")


@contextmanager
def _faults() -> Iterator[None]:
    """Within the block, turn the errors of a change to the index into `Fault`s."""
    try:
        yield
    except DataError as error:
        raise Fault(UNPROCESSABLE, str(error), field="documents") from error
    except Fault:
        raise
    except RankerError as error:
        raise Fault(UNAVAILABLE, str(error), retry_after=1.0) from error
    except OSError as error:  # a full disk, a folder that may only be read
        problem = f"the index cannot be written ({error.strerror or error})"
        raise Fault(UNAVAILABLE, problem, retry_after=5.0) from error


def _refuse_changes(collection: Collection, documents: Sequence[Document]) -> None:
    from paddle_ranker.retrieval.stored.segment_writing import have_same_contents, storable

    documents = [storable(document, collection.info.schema) for document in documents]
    stored = collection.snapshot().documents_of([document.id for document in documents])
    changed = [
        document.id
        for document in documents
        if document.id in stored and not have_same_contents(stored[document.id], document)
    ]
    if changed:
        raise Fault(
            ALREADY_THERE, f"{listed(changed)}: there already, and not alike; mode replace replaces", field="id"
        )
