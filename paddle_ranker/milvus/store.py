"""Vectors in Milvus: in a file or folder of Milvus Lite, in `milvus-lite server`, or in a Milvus server.

rows = MilvusRows("http://127.0.0.1:19530", "titles", 256)
rows.put(np.arange(len(vectors)), vectors)
keys = rows.nearest(queries, 10)
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, Optional, TypeVar

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.array_types import Booleans, Floats, Integers, Vectors
from paddle_ranker.errors import DataError, DependencyError, RankerError, UsageError, brief, quoted
from paddle_ranker.lexical.postings import text_hashes
from paddle_ranker.retrieval.snapshots.open_segments import Generation, Location
from paddle_ranker.retrieval.snapshots.vector_search import IndexedPart, search_vectors
from paddle_ranker.retrieval.stored.manifest import VECTORS
from paddle_ranker.retrieval.stored.segments import Segment
from paddle_ranker.retrieval.vectors.exact_search import products_of
from paddle_ranker.retrieval.vectors.vector_settings import VectorsInfo, is_address
from paddle_ranker.retrieval.work.top_k import best_rows
from paddle_ranker.storage.atomic import new_file
from paddle_ranker.storage.untrusted import inside, open_array

T = TypeVar("T")
TEXT_BYTES = 65_535  # largest text of a field in Milvus
MOST_FOUND = 16_384  # most rows that a search of Milvus returns
_AT_ONCE = 1 << 13  # rows that are sent at a time
_PENDING = "milvus.pending.npy"
_SECONDS = 60.0  # timeout of a call
# No pings: Milvus Lite's server takes them for an attack, and says so on standard error. Each call has a timeout.
_CHANNEL = {"grpc.keepalive_time_ms": (1 << 31) - 1}
_NOT_LOADED = 101  # error code for a collection that must be loaded first
_SHARE = 4  # a filter that leaves less than a quarter of the documents is searched exactly


def load_pymilvus() -> ModuleType:
    """Return the module pymilvus; raises `DependencyError` if it is not installed, or does not support this Python."""
    try:
        module = importlib.import_module("pymilvus")
    except Exception as error:  # an older protobuf makes the import fail in several ways
        raise DependencyError(
            "Milvus needs pymilvus, and protobuf 5.27 or later: pip install 'pymilvus>=3' 'milvus-lite>=3.2', on "
            "Python 3.10 or later"
        ) from error
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # errors are raised, too
    # Milvus Lite runs a server in this process, which logs its work and calls that it does not support.
    for name, level in (
        ("milvus_lite", logging.WARNING),
        ("faiss", logging.WARNING),
        ("grpc._server", logging.CRITICAL),
    ):
        logging.getLogger(name).setLevel(level)
    return module


class MilvusHits(NamedTuple):
    """Rows that Milvus found for a query, best first: keys, inner products and texts, `[found]` each."""

    keys: list[int]
    scores: list[float]
    texts: list[str]


class MilvusRows:
    """Collection in Milvus of vectors with integers as keys, and optional texts; created if it does not exist.

    Raises `RankerError` if Milvus cannot be reached or refuses a call, `DataError` if the collection has vectors of
    another size.
    """

    def __init__(self, uri: str, name: str, size: int, *, texts: bool = False):
        self._uri, self._name, self._texts = uri, name, texts
        pymilvus = load_pymilvus()
        self._client = self._call(lambda: pymilvus.MilvusClient(uri, timeout=_SECONDS, grpc_options=_CHANNEL))
        if not self._call(lambda: self._client.has_collection(name)):
            self._call(lambda: self._create(pymilvus, size))
        else:
            self._call(lambda: self._client.load_collection(name))
        fields = self._call(lambda: self._client.describe_collection(name))["fields"]
        sizes = [field["params"].get("dim") for field in fields if field["name"] == "vector"]
        if sizes != [size]:
            self.close()
            raise DataError(f"{uri}: the collection {name} holds vectors of {sizes or 'no'} components, not {size:,}")

    def _create(self, pymilvus: ModuleType, size: int) -> None:
        kinds = pymilvus.DataType
        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("key", kinds.INT64, is_primary=True)
        schema.add_field("vector", kinds.FLOAT_VECTOR, dim=size)
        if self._texts:
            schema.add_field("text", kinds.VARCHAR, max_length=TEXT_BYTES)
        indexes = self._client.prepare_index_params()
        indexes.add_index("vector", index_type="AUTOINDEX", metric_type="IP")
        self._client.create_collection(self._name, schema=schema, index_params=indexes)

    def put(self, keys: Integers, vectors: Vectors, texts: Sequence[str] = ()) -> None:
        """Insert rows, or replace rows of the same keys; call `finish` to make the rows durable and quick to search."""
        for start in range(0, len(keys), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            rows = [{"key": key, "vector": vector} for key, vector in zip(keys[part].tolist(), vectors[part])]
            for row, text in zip(rows, texts[part]):
                row["text"] = text
            done = self._call(partial(self._client.upsert, self._name, rows))
            if done["upsert_count"] != len(rows):
                raise RankerError(f"{self._uri}: stored {done['upsert_count']:,} of {len(rows):,} rows; try again")

    def drop(self, keys: Integers) -> None:
        """Delete the rows of these keys; keys without a row are ignored."""
        for start in range(0, len(keys), _AT_ONCE):
            batch = keys[start : start + _AT_ONCE].tolist()
            self._call(partial(self._client.delete, self._name, ids=batch))

    def drop_from(self, key: int) -> None:
        """Delete the rows of this key and of all larger keys."""
        self._call(lambda: self._client.delete(self._name, filter=f"key >= {key}"))

    def finish(self) -> None:
        """Make all changes durable; until then, Milvus Lite compares queries with each changed row."""
        self._call(lambda: self._client.flush(self._name))
        self._call(lambda: self._client.load_collection(self._name))

    def nearest(self, queries: Vectors, k: int) -> list[MilvusHits]:
        """Return, for each query of `[q, size]`, the `k` rows with the largest inner product, best first."""
        fields = ["key", "text"] if self._texts else ["key"]  # Milvus 2.3 returns the key only if it is named
        answers = self._call(
            lambda: self._client.search(
                self._name, queries, limit=k, output_fields=fields, consistency_level="Strong", timeout=_SECONDS
            )
        )
        return [
            MilvusHits(
                [int(hit["key"]) for hit in hits],
                [float(hit["distance"]) for hit in hits],
                [hit["entity"].get("text", "") for hit in hits] if self._texts else [],
            )
            for hits in answers
        ]

    def count(self) -> int:
        answer = self._call(
            lambda: self._client.query(self._name, output_fields=["count(*)"], consistency_level="Strong")
        )
        return int(answer[0]["count(*)"])

    def forget(self) -> None:
        """Delete the collection in Milvus."""
        self._call(lambda: self._client.drop_collection(self._name))

    def close(self) -> None:
        """Close the connection; Milvus Lite then lets other processes open its file."""
        self._client.close()

    def _call(self, ask: Callable[[], T], may_load: bool = True) -> T:
        try:
            return ask()
        except (load_pymilvus().MilvusException, ValueError, OSError) as error:
            # A new process of Milvus Lite, or of its server, has no collection loaded.
            if may_load and getattr(error, "code", None) == _NOT_LOADED:
                self._call(lambda: self._client.load_collection(self._name), may_load=False)
                return self._call(ask, may_load=False)
            raise RankerError(
                f"{self._uri}: Milvus failed ({brief(' '.join(str(error).split()), 200)}); see that it runs, that no "
                "other process has this file of Milvus Lite open, and that there is room"
            ) from error


def key_of(hashes: NDArray[np.uint64]) -> Integers:
    """Convert the hashes of documents' ids to Milvus keys, `[n] int64`."""
    keys: Integers = np.ascontiguousarray(hashes).view(np.int64)
    return keys


class MilvusSearch:
    """Vectors of an index folder in Milvus. Milvus finds candidates; the folder's own vectors give their scores.

    A row's key is the hash of the document's id. Before a change of Milvus, the keys of the changed rows are written to
    a file, which is deleted after the change. If a process is killed in between, the next writer repairs these rows.

    Args:
        folder: the index folder.
        info: how vectors are searched.
        trusted_uri: address of the server that the caller gave; a server that only the folder names is not used.
    """

    def __init__(self, folder: Path, info: VectorsInfo, trusted_uri: Optional[str]):
        self._folder, self._info, self._trusted_uri = folder, info, trusted_uri
        self._pending = folder / _PENDING
        self._connected: Optional[MilvusRows] = None
        self._connecting = threading.Lock()

    def require_address(self) -> None:
        """Raise `UsageError` if the folder names a Milvus server with its vectors, and the caller has not named it."""
        uri = self._info.server
        if uri != self._trusted_uri:
            raise UsageError(
                f"{self._folder}: its vectors are in Milvus at {quoted(uri)}, as the folder says; to connect there, "
                f"add --milvus_uri {brief(str(uri))} (in Python milvus_uri=)"
            )

    @property
    def _rows(self) -> MilvusRows:
        """The collection in Milvus; the connection is made when it is first needed."""
        self.require_address()
        with self._connecting:
            if self._connected is None:
                assert self._info.uri is not None and self._info.collection is not None
                is_file = not is_address(self._info.uri)
                uri = os.path.abspath(inside(self._folder, self._info.uri)) if is_file else self._info.uri
                self._connected = MilvusRows(uri, self._info.collection, self._info.size)
            return self._connected

    def close(self) -> None:
        """Close the connection; the next use makes a new one."""
        with self._connecting:
            if self._connected is not None:
                self._connected.close()
            self._connected = None

    def change(self, added: Sequence[Segment], removed: Sequence[str], commit: Callable[[], None]) -> None:
        """Insert the vectors of new segments, call `commit`, then delete the rows of removed documents.

        The keys of all these rows are in a file meanwhile; if the process dies, `repair` finishes the change.

        removed: ids of the removed documents; documents that are added again are kept
        commit: replaces index.json
        """
        gone, keys = key_of(text_hashes(removed)), [key_of(segment.hashes_of_rows()) for segment in added]
        with new_file(inside(self._pending.parent, _PENDING), "wb") as stream:
            np.save(stream, np.concatenate([gone, *keys]))
        for segment, segment_keys in zip(added, keys):
            for start in range(0, len(segment_keys), _AT_ONCE):
                stop = min(start + _AT_ONCE, len(segment_keys))
                self._rows.put(segment_keys[start:stop], segment.vectors[VECTORS].stored.block(start, stop))
        commit()
        self._rows.drop(np.setdiff1d(gone, np.concatenate([np.empty(0, np.int64), *keys])))
        self._rows.finish()
        self._pending.unlink()

    def repair(self, now: Generation) -> None:
        """Finish a change that a killed process or a failure of Milvus left unfinished.

        now: the index's documents; each changed row in Milvus gets its document's vector, or is deleted without one
        """
        self.require_address()
        if not os.path.lexists(self._pending):
            return
        keys = np.unique(open_array(inside(self._pending.parent, _PENDING), sys.maxsize)).astype(np.int64)
        locations = _locations_of(now, keys)
        for number, part in enumerate(now.parts):
            here = [(key, location.row) for key, location in zip(keys.tolist(), locations)
                    if location is not None and location.part == number]  # fmt: skip
            for start in range(0, len(here), _AT_ONCE):
                batch, rows = np.array(here[start : start + _AT_ONCE], np.int64).T
                self._rows.put(batch, part.segment.vectors[VECTORS].stored.rows(rows))
        self._rows.drop(keys[[location is None for location in locations]])
        self._rows.finish()
        self._pending.unlink()

    def search(
        self, now: Generation, queries: Vectors, k: int, allowed: Optional[Sequence[Booleans]]
    ) -> list[tuple[Integers, Floats]]:
        """Return, for each query, the document numbers and scores of its best `k` documents, best first.

        queries: vectors, `[q, size]`
        allowed: for each segment, which documents may be found; None: all
        """
        count = now.info.count
        left = count if allowed is None else sum(int(np.count_nonzero(mask)) for mask in allowed)
        wanted = min(2 * k * max(1, count) // max(1, left), max(1, count))
        if left * _SHARE < count or wanted > MOST_FOUND or not count or not len(queries):
            return self._exactly(now, queries, k, allowed)
        results = self._rows.nearest(queries, wanted)
        return [self._scored(now, query, k, allowed, hits.keys, left) for query, hits in zip(queries, results)]

    def _scored(
        self,
        now: Generation,
        query: Vectors,
        k: int,
        allowed: Optional[Sequence[Booleans]],
        keys: Sequence[int],
        left: int,
    ) -> tuple[Integers, Floats]:
        candidates, total = [], 0
        locations = [location for location in _locations_of(now, np.array(keys, np.int64)) if location is not None]
        for number, (part, _) in enumerate(now.vectors[VECTORS]):
            rows = np.array([location.row for location in locations if location.part == number], np.int64)
            rows = rows if allowed is None else rows[allowed[number][rows]]
            candidates.append((rows[None] + part.first, products_of(part.vectors, rows[None], query[None])))
            total += len(rows)
        if total < min(k, left):
            return self._exactly(now, query[None], k, allowed)[0]
        return best_rows(candidates, 1, k)[0]

    @staticmethod
    def _exactly(
        now: Generation, queries: Vectors, k: int, allowed: Optional[Sequence[Booleans]]
    ) -> list[tuple[Integers, Floats]]:
        return search_vectors([IndexedPart(part, None) for part, _ in now.vectors[VECTORS]], queries, k, allowed)


def _locations_of(now: Generation, keys: Integers) -> list[Optional[Location]]:
    """Return the location of the live document of each key, or None."""
    locations: list[Optional[Location]] = [None] * len(keys)
    for number, part in enumerate(now.parts):
        for index, row in part.segment.rows_of_hashes(keys.view(np.uint64)):
            if part.has(row):
                locations[index] = Location(number, row)
    return locations
