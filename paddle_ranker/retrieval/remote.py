"""Shards of an index in other processes or on other machines, searched as if all were in one folder.

service = ShardService("index-1")  # beside the folder of a shard
calls = [lambda name, *args: pool.submit(service.call, name, *args), ...]  # here: a transport for each shard
with SearchEngine(RemoteCollection(calls), SearchSettings()) as searcher:
    searcher.search("query")

A document must be in one shard only. Searches read a `RemoteSnapshot`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence

from paddle_ranker.errors import refuse_text
from paddle_ranker.retrieval.candidate_indexes import Document
from paddle_ranker.retrieval.ingestion import Added
from paddle_ranker.retrieval.manifest import IndexInfo
from paddle_ranker.retrieval.remote_calls import Call, ShardCalls
from paddle_ranker.retrieval.remote_snapshot import RemoteSnapshot
from paddle_ranker.storage.prefetch import chunks
from paddle_ranker.storage.untrusted import Unchecked

_CURRENT_SECONDS = 1.0  # seconds for which facts of shards count as current; searches always get the newest facts
_AT_ONCE = 256  # documents that are added at a time


class RemoteCollection:
    """Shards in other processes or on other machines, as one collection.

    Args:
        calls: a transport to each shard, in the order of their documents.
        partial: if some shards fail, answer from the others; `shards` of a snapshot counts them. Otherwise a failure
            raises `ShardError`.
        timeout: seconds that a shard has for each call.

    Attributes:
        writer: adds and removes documents.

    Raises `UsageError` for shards that were not built alike. The next search calls a failed shard again; with
    `partial`, a shard that timed out is called again only after `timeout` seconds.
    """

    def __init__(self, calls: Sequence[Call], *, partial: bool = False, timeout: float = 30.0):
        self._calls = ShardCalls(calls, partial, timeout)
        self.writer = RemoteWriter(self._calls)
        self._ask_facts(range(len(calls)))
        self._calls.merged()  # raises for shards of other kinds

    def _ask_facts(self, numbers: Iterable[int]) -> None:
        if failed := self._calls.send("facts", dict.fromkeys(numbers, ()))().failures():
            self._calls.require(failed, failed)

    @property
    def info(self) -> IndexInfo:
        return self._calls.merged().info

    @property
    def fields(self) -> list[str]:
        return self._calls.merged().fields

    def __len__(self) -> int:
        return self.info.count

    @property
    def is_current(self) -> bool:
        """Whether the shards answered within the last second. A search sees all additions in any case."""
        return time.monotonic() < self._calls.answered_at + _CURRENT_SECONDS

    def refresh(self) -> bool:
        """Ask the shards for their generations; return whether any shard has a newer one."""
        before, resting = self.info.generation, self._calls.resting()
        self._ask_facts(number for number in range(len(self._calls)) if number not in resting)
        return self.info.generation > before

    def snapshot(self) -> RemoteSnapshot:
        """Return a snapshot for one search; each shard answers all its calls from the same generation."""
        return RemoteSnapshot(self._calls)

    def require_address(self) -> None:
        """Do nothing: shards never have their vectors in Milvus."""

    def close(self) -> None:
        """Do nothing: the caller closes the transports."""


class RemoteWriter:
    """Writer of documents to shards elsewhere; every shard must answer."""

    def __init__(self, calls: ShardCalls):
        self._calls, self._writing = calls, threading.Lock()

    def add(self, documents: Iterable[Document]) -> Added:
        """Add documents, or replace documents of the same ids; new documents go to the smallest shard.

        Raises `ShardError` if a shard fails. Documents that other shards have added stay; add all documents again.
        """
        refuse_text(documents, "documents", Document)
        added = Added(0, 0, 0)
        with self._writing:
            for batch in chunks(documents, _AT_ONCE):
                missing = self._all("missing", [document.id for document in batch])
                ids = {document.id for document in batch}
                owners = {id: number for number, lacking in missing.items() for id in ids - {*lacking}}
                sizes = {number: facts.info.count for number, (_, facts) in self._calls.latest.items()}
                shares: dict[int, list[Document]] = {}
                for document in batch:
                    if document.id not in owners:
                        owners[document.id] = min(sizes, key=lambda number: (sizes[number], number))
                        sizes[owners[document.id]] += 1
                    shares.setdefault(owners[document.id], []).append(document)
                done = self._calls.all("add", {number: (share,) for number, share in shares.items()})
                added = Added(*map(sum, zip(added, *done.values())))
        return added

    def remove(self, ids: Iterable[str]) -> int:
        """Remove the documents with these ids; return how many existed. Every shard must answer."""
        refuse_text(ids, "ids")
        with self._writing:
            return sum(self._all("remove", list(ids)).values())

    def _all(self, name: str, *args: Unchecked) -> dict[int, Unchecked]:
        return self._calls.all(name, dict.fromkeys(range(len(self._calls)), args))
