"""The slot of a server's index: opens it, searches it in threads, and opens new generations that others write."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Optional, TypeVar

from paddle_ranker.errors import RankerError
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.index.model_urls import lend_tower, open_url_ranker
from paddle_ranker.retrieval.index.shards import open_index
from paddle_ranker.retrieval.snapshots.searchable import LookupRequest, Searchable, ShardError, Snapshot, StaleSnapshot
from paddle_ranker.retrieval.stages.fusion import Fusion, parse_fusion
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import VECTORS, IndexInfo
from paddle_ranker.retrieval.stored.schema import Schema
from paddle_ranker.retrieval.words.query_parsing import ParsedQuery
from paddle_ranker.retrieval.words.synonyms import Synonyms
from paddle_ranker.retrieval.work.turns import Reserve
from paddle_ranker.serving.core.batcher import BatchObserver
from paddle_ranker.serving.core.faults import UNAVAILABLE, Fault
from paddle_ranker.serving.core.search_log import SearchLog
from paddle_ranker.serving.core.server_config import ServeConfig
from paddle_ranker.serving.core.threads import StoppableWork
from paddle_ranker.serving.slots.index_options import IndexSlotOptions
from paddle_ranker.serving.slots.slots import Served, Slot
from paddle_ranker.serving.slots.stored_states import ServedStates, served_states
from paddle_ranker.storage.digest import json_digest

R = TypeVar("R")
_LOG = logging.getLogger(__name__)
_PROBE = "深度学习 search"  # query of the search when the index is opened
_MOST_TEXTS = 256  # texts of a request to a model behind a URL, if the service takes as many
_UNKNOWN = "qzxwvkj 靁鱻"  # unknown words: correcting them loads vocabularies and sounds before the first search


@dataclass(frozen=True)
class ServedIndex:
    """Open index of the server.

    name: name in answers
    folder: the index folder, with links followed when it was opened
    collection: the open index
    loaded_at: time at which it was opened, in seconds since 1970
    synonyms: synonyms of words in queries
    fusion: fuses the searchers' lists, unless a request names another fusion
    states: scores by the index's stored states, if the server's ranker made them; None in installations without them
    seen: the snapshot that one search sees; None if each use takes the newest snapshot
    """

    name: str
    folder: Path
    collection: Searchable
    fusion: Fusion
    loaded_at: float
    synonyms: Optional[Synonyms] = None
    states: Optional[ServedStates] = field(default_factory=served_states)
    seen: Optional[Snapshot] = None

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot `seen`, or the newest snapshot if `seen` is None."""
        return self.collection.snapshot() if self.seen is None else self.seen

    @property
    def info(self) -> IndexInfo:
        """Contents of index.json at the time of `snapshot`."""
        return self.collection.info if self.seen is None else self.seen.info

    @cached_property
    def digest(self) -> str:
        """Digest of the folder's path, device and inode; of the path alone for shards elsewhere."""
        found = os.stat(self.folder) if self.folder.exists() else None
        return json_digest(os.path.abspath(self.folder), *((found.st_dev, found.st_ino) if found else ()))

    @property
    def summary(self) -> dict[str, object]:
        """Name, version and document count of the index, for answers."""
        return {"name": self.name, "version": self.info.generation, "documents": self.info.count}

    @property
    def queued_rows(self) -> int:
        """Always 0, since no rows of an index wait for an engine."""
        return 0

    def close(self, seconds: Optional[float] = None) -> bool:
        """Close the connection to Milvus, if there is one. Searches in progress keep their snapshots."""
        self.collection.close()
        return True


class IndexSlot(Slot[ServedIndex]):
    """Slot of an index that is searched, while this server or other processes may change its documents.

    Args:
        config: the server's options.
        options: the index's options.

    Attributes:
        options: the index's options.
        url_ranker: the ranker behind a URL; None if there is none.
        work: the threads that search.
        log: log of searches; None if searches are not logged.

    Raises `RankerError` if the log's folder cannot be written to.
    """

    has_queue = False

    def __init__(self, config: ServeConfig, options: IndexSlotOptions):
        super().__init__(config, "index", options.index)
        self.options = options
        what = "the index was searched"
        self.work = StoppableWork(options.queue_searches, name="index", what=what, refuses=True)
        url = options.ranker_url
        self.url_ranker = None if url is None else open_url_ranker(url, _MOST_TEXTS)
        self._problem = ""  # the last logged problem with a new generation
        self.log = None if options.search_log is None else SearchLog(options.search_log, most_mb=options.search_log_mb)

    def switch(self, model: Optional[Served]) -> Optional[Served]:
        """Replace the model, see `Slot.switch`. If `model` is None, the server stops: also close the log."""
        if model is None and self.log is not None:
            self.log.close()
        return super().switch(model)

    def open(self) -> Searchable:
        assert self.folder is not None
        collection = open_index(self.folder, milvus_uri=self.options.milvus_uri)
        collection.require_address()
        lend_tower(collection, self.options.tower_url, _MOST_TEXTS)
        return collection

    def load(self, observer: Optional[BatchObserver] = None) -> ServedIndex:
        """Open the index, and search it once so that tokenizers and indexes are in memory. `observer` is not used.

        A reload reads all files of the index, to compare their checksums. Raises `CheckpointError` for a folder that is
        no index or is damaged, `UsageError` for options that do not fit
        the index.
        """
        assert self.folder is not None
        options, collection = self.options, self.open()
        if self.model is not None and isinstance(collection, Collection):
            collection.verify()  # before the index takes the place of one that answers
        fusion, info, now = parse_fusion(options.fusion, options.weights), collection.info, collection.snapshot()
        if info.vectors is not None or options.ef is not None or options.nprobe is not None:
            from paddle_ranker.retrieval.snapshots.vector_search import check_breadth

            check_breadth(info.vectors, options.ef, options.nprobe)
        fusion.weights_of(info.searchers)
        info.schema.weights_by(fusion.fields)
        for name in info.searchers:
            if name not in info.vector_fields:
                now.begin_search(LookupRequest(name, [_PROBE], 1))()  # loads a tokenizer, builds an index in memory
            elif name != VECTORS and info.vector_fields[name].reads_texts:  # the tower of `vectors` has its own slot
                now.begin_search(LookupRequest(name, now.tower(name).query_vectors([_PROBE]), 1))()
        synonyms = None if options.synonyms is None else Synonyms(options.synonyms)
        now.rewrite_query(ParsedQuery(_UNKNOWN), synonyms=synonyms)
        folder = (collection.folder if isinstance(collection, Collection) else self.folder).resolve()
        return ServedIndex(folder.name, folder, collection, fusion, time.time(), synonyms)

    @property
    def info(self) -> IndexInfo:
        """Contents of index.json. Raises `Fault(UNAVAILABLE)` until the index is open."""
        return self.ready().collection.info

    def describe(self) -> dict[str, object]:
        from paddle_ranker.retrieval.snapshots.vector_search import search_method

        served = self.ready()
        info, options = served.info, self.options
        return {
            **served.summary,
            "searchers": {name: search_method(info, name, options.ef, options.nprobe) for name in info.searchers},
            "fusion": served.fusion.method,
            "writable": options.writable,
            "loaded_at": served.loaded_at,
        }

    def gauges(self) -> dict[str, float]:
        """Return the size of the index, by the newest index.json, and the size of the log. See `Slot.gauges`."""
        gauges, served = dict[str, float](), self.model
        if served is not None:
            collection, info = served.collection, served.collection.info
            if isinstance(collection, Collection) and not collection.is_current:
                with suppress(RankerError, OSError):
                    info = collection.index.read_info()
            gauges |= {"search_documents": info.count, "search_segments": len(info.segments)}
        if self.log is not None:
            gauges |= {"search_log_bytes": self.log.size(), "search_log_lost_lines": self.log.lost}
        return gauges

    @property
    def schema(self) -> Schema:
        """The schema of the documents. Raises `Fault(UNAVAILABLE)` until the index is open."""
        return self.ready().collection.info.schema

    def documents_of(self, ids: Sequence[str]) -> dict[str, Document]:
        """Return the documents with these ids, by id. An id without a document is left out. Call it in a thread."""
        return self.latest().snapshot.documents_of(ids)

    @property
    def local(self) -> Collection:
        """The index in its local folder, whose documents can be changed.

        Raises `Fault(UNAVAILABLE)` if its documents are in shards elsewhere.
        """
        collection = self.ready().collection
        if not isinstance(collection, Collection):
            raise Fault(UNAVAILABLE, "the documents are in shards elsewhere, which this server only searches")
        return collection

    def latest(self) -> ServedIndex:
        """Return the index with a snapshot of all changes confirmed before this call. Call it in a thread."""
        return self.newest(self.ready())

    def newest(self, served: ServedIndex) -> ServedIndex:
        """Return an open index with a snapshot of all changes confirmed before this call. Call it in a thread."""
        if not served.collection.is_current:
            self._refresh(served.collection)
        return replace(served, seen=served.collection.snapshot())

    async def current(self, deadline: float) -> ServedIndex:
        """Return `latest()` without blocking the event loop: runs in a thread if the index has changed.

        deadline: as in `run`
        """
        if self.ready().collection.is_current:
            return self.latest()
        return await self.run(self.latest, deadline=deadline)

    def _refresh(self, collection: Searchable) -> None:
        """Open the newest generation of the index. If it cannot be read, log why, and keep the open one."""
        had_states = collection.info.states is not None
        try:
            collection.refresh()
            problem = ""
            if collection.info.states is not None and not had_states:
                _LOG.warning("the index has stored states now: reload the models to use them")
        except (RankerError, OSError) as error:
            problem = str(error)
        if problem and problem != self._problem:
            _LOG.warning("the index goes on as it was: %s", problem)
        self._problem = problem

    async def run(  # type: ignore[explicit-any]  # any function
        self,
        work: Callable[..., R],
        *arguments: object,
        deadline: float,
        reserve: Optional[Reserve] = None,
    ) -> R:
        """Run `work(*arguments)` in a thread. Return its result. If the call is cancelled first, `work` never begins.

        deadline: time on `time.monotonic()`'s clock
        reserve: called with the bytes that `work` is about to hold, see `StoppableWork.run`

        Raises the errors of `work`, `Fault(UNAVAILABLE)` for a shard that fails, and `Fault(TIMED_OUT)` at the
        deadline.
        """
        try:
            return await self.work.run(1, deadline, partial(work, *arguments), reserve)
        except (StaleSnapshot, ShardError) as error:
            _LOG.warning("%s", error)
            raise Fault(UNAVAILABLE, "a shard of the index fails; see the server's log", retry_after=1.0) from error
