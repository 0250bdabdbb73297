"""Documents that a server's callers add, replace and remove: durable when confirmed, and found by the next search."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import wait
from functools import partial
from typing import Optional, TypeVar

import numpy as np

from paddle_ranker.errors import DataError, RankerError, listed
from paddle_ranker.retrieval.adding import Added
from paddle_ranker.retrieval.collection import Collection
from paddle_ranker.retrieval.exact import Vectors
from paddle_ranker.retrieval.indexes import Document
from paddle_ranker.retrieval.merging import MOST_SEGMENTS
from paddle_ranker.retrieval.segments import alike
from paddle_ranker.serving.core.apart import WorkQueue
from paddle_ranker.serving.core.faults import (
    ALREADY_THERE,
    NO_DOCUMENT,
    OVERLOADED,
    TIMED_OUT,
    UNAVAILABLE,
    UNPROCESSABLE,
    Fault,
)
from paddle_ranker.serving.core.index_slot import IndexSlot
from paddle_ranker.serving.core.searching import comparable
from paddle_ranker.serving.core.tower_slot import TowerSlot

R = TypeVar("R")
_MOST_WAITING = 64  # requests that wait for their turn
_LOOK_EVERY = 0.1  # seconds, whether the caller of a change has left
_MERGE_SECONDS = 1.0  # that a merge waits for another process's end
_LOG = logging.getLogger(__name__)


class IndexWriter:
    """Changes a server's index: one request after another in a thread of its own, whole or not at all.

    Args:
        index: the slot of the index.
        tower: makes the vectors of new texts, through its queue; None where the index has none.
    """

    def __init__(self, index: IndexSlot, tower: Optional[TowerSlot]):
        self._index, self._tower = index, tower
        self._thread, self._merging = WorkQueue(1, "index-writer"), WorkQueue(1, "index-merger")
        self._waiting, self._merge_waits = 0, False

    async def add(self, documents: Sequence[Document], deadline: float, *, replace: bool) -> Added:
        """Add documents; those of an id that is there are replaced, or refused unless `replace`. Raises `Fault`."""

        def add(collection: Collection, is_gone: Callable[[], bool]) -> Added:
            if not replace:
                _refuse_changes(collection, documents)
            return collection.add(documents, partial(self._vectors, loop, deadline, is_gone), merge=False)

        loop = asyncio.get_running_loop()
        added = await self._write(add, deadline)
        self._merge_if_many()
        return added

    async def change(
        self, changes: Sequence[tuple[str, Optional[str], Mapping[str, object]]], deadline: float
    ) -> Added:
        """Change documents that are there; of each its id, its new text or None, and fields, None for one that goes.

        Raises `Fault`, for an id that no document has too, and then changes nothing.
        """

        def change(collection: Collection, is_gone: Callable[[], bool]) -> Added:
            there = collection.documents_of([id for id, _, _ in changes])
            if missing := [id for id, _, _ in changes if id not in there]:
                raise Fault(NO_DOCUMENT, f"there is no document {listed(missing)}; nothing was changed", field="id")
            documents = []
            for id, text, fields in changes:
                merged = {**there[id].fields, **fields}
                kept = {name: value for name, value in merged.items() if value is not None or name not in fields}
                documents.append(Document(id, there[id].text if text is None else text, kept))
            return collection.add(documents, partial(self._vectors, loop, deadline, is_gone), merge=False)

        loop = asyncio.get_running_loop()
        added = await self._write(change, deadline)
        self._merge_if_many()
        return added

    async def remove(self, ids: Sequence[str], deadline: float) -> int:
        """Remove the documents of these ids, and return how many there were. Raises `Fault`."""
        return await self._write(lambda collection, _: collection.remove(ids), deadline)

    async def _write(self, work: Callable[[Collection, Callable[[], bool]], R], deadline: float) -> R:
        if self._waiting >= _MOST_WAITING:
            raise Fault(OVERLOADED, f"{_MOST_WAITING} changes wait for their turn, no more may", retry_after=1.0)
        gone = threading.Event()
        self._waiting += 1
        try:
            return await asyncio.wrap_future(self._thread.submit(0, partial(self._do, work, deadline, gone)))
        finally:
            gone.set()
            self._waiting -= 1

    def _do(self, work: Callable[[Collection, Callable[[], bool]], R], deadline: float, gone: threading.Event) -> R:
        if time.monotonic() >= deadline:
            raise Fault(TIMED_OUT, "the deadline passed before the index could be changed; nothing was")
        collection = self._index.ready().collection
        try:
            with collection.writing(deadline):
                return work(collection, gone.is_set)
        except DataError as error:
            raise Fault(UNPROCESSABLE, str(error), field="documents") from error
        except Fault:
            raise
        except RankerError as error:
            raise Fault(UNAVAILABLE, str(error), retry_after=1.0) from error
        except OSError as error:  # a full disk, a folder that may only be read
            problem = f"the index cannot be written ({error.strerror or error})"
            raise Fault(UNAVAILABLE, problem, retry_after=5.0) from error

    def _vectors(
        self, loop: asyncio.AbstractEventLoop, deadline: float, is_gone: Callable[[], bool], texts: Sequence[str]
    ) -> Vectors:
        """Return the vectors of texts, `[n, size]`, through the tower's queue; called in the thread that writes."""
        if self._tower is None:
            raise Fault(UNPROCESSABLE, "this index has no tower that makes vectors", field="documents")
        found = []
        for start in range(0, len(texts), self._tower.limits.pairs):
            asked = self._tower.vectors(texts[start : start + self._tower.limits.pairs], deadline=deadline)
            making = asyncio.run_coroutine_threadsafe(asked, loop)
            while not is_gone() and not wait([making], _LOOK_EVERY).done:
                pass
            if is_gone():
                making.cancel()  # takes the texts off the tower's queue
                raise Fault(TIMED_OUT, "nobody waits for the change any more")
            found.append(comparable(making.result().vectors, self._tower.info))
        return np.concatenate(found)

    def _merge_if_many(self) -> None:
        if len(self._index.info.segments) > MOST_SEGMENTS and not self._merge_waits:
            self._merge_waits = True
            self._merging.submit(0, self._merge)

    def _merge(self) -> None:
        self._merge_waits = False
        collection = self._index.ready().collection
        try:
            with collection.writing(time.monotonic() + _MERGE_SECONDS):
                collection.merge()
        except (RankerError, OSError) as error:
            _LOG.info("segments were not merged: %s", error)  # the next addition tries again
        except Exception:
            _LOG.exception("segments were not merged")


def _refuse_changes(collection: Collection, documents: Sequence[Document]) -> None:
    there = collection.documents_of([document.id for document in documents])
    changed = [one.id for one in documents if one.id in there and not alike(there[one.id], one)]
    if changed:
        raise Fault(
            ALREADY_THERE, f"{listed(changed)}: there already, and not alike; mode replace replaces", field="id"
        )
