"""An index folder: a collection's documents, their words and vectors, which can be searched while documents are added.

with Collection.open("index", write=True) as collection:
    collection.add([Document("a", "水稻病害诊断", {"lang": "zh"})])
    (hits,) = collection.search("words", ["水稻"], 10, Filter.parse(["lang=zh"]))

`index.json`, which is replaced in one step, names the segments that count (see `segments.py`) and the rows of each that
are removed. Whoever has the folder open keeps what it named then, until `refresh`. One process at a time may write.
"""

from __future__ import annotations

import copy
import heapq
import itertools
import os
import secrets
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property, partial, reduce
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Optional, Union

import numpy as np

from paddle_ranker.array_types import Booleans, Vectors
from paddle_ranker.data.records import DocumentRow
from paddle_ranker.errors import RankerError, UsageError, brief, checked_items, listed, quoted, refuse_text
from paddle_ranker.lexical.postings import text_hashes
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.model_folder import TOWER, identify
from paddle_ranker.retrieval.adding import Added, Addition, Cutter, Unfinished, VectorsOf, checked_vectors
from paddle_ranker.retrieval.contents import ContentFiles, StagedFiles
from paddle_ranker.retrieval.facets import Counts, Facets, FieldSample, FieldScale, Wanted, facets_of
from paddle_ranker.retrieval.filters import Filter
from paddle_ranker.retrieval.generation import Generation, Part, Place, open_generation
from paddle_ranker.retrieval.indexes import INDEXES, Document, Hits
from paddle_ranker.retrieval.manifest import (
    MANIFEST,
    VECTORS,
    IndexInfo,
    RankerStates,
    SegmentInfo,
    is_address,
    read_manifest,
    write_manifest,
)
from paddle_ranker.retrieval.manifest import WORDS as WORDS
from paddle_ranker.retrieval.merging import first_to_merge, merge_segments
from paddle_ranker.retrieval.milvus import MilvusSearch
from paddle_ranker.retrieval.reading import ParsedQuery, Synonyms, WordQuery
from paddle_ranker.retrieval.schema import CONTENTS, TEXT, FieldTower
from paddle_ranker.retrieval.searchable import LookupRequest
from paddle_ranker.retrieval.segments import Segment, SegmentData
from paddle_ranker.retrieval.sorting import SortedDocument, first_of_segment, merged, sort_keys
from paddle_ranker.retrieval.values import TYPES, Value
from paddle_ranker.retrieval.vector_search import (
    MILVUS,
    check_breadth,
    how_found,
    index_writers,
)
from paddle_ranker.retrieval.words import ASKED, Asked, CountedQuery, Totals
from paddle_ranker.retrieval.work import check, checked, locking, reserve
from paddle_ranker.scoring.stored import TextStates, TitleStates, joined
from paddle_ranker.storage.atomic import locked, new_file, remove_unfinished
from paddle_ranker.storage.untrusted import inside, own_folder

if TYPE_CHECKING:
    from paddle_ranker.scoring.stored_ranker import SplitRanker

_AS_BUILT: Mapping[str, float] = MappingProxyType({})
_NO_TYPES: Mapping[str, str] = MappingProxyType({})
_DEFAULTS = LoadOptions()
_LOOKED_UP = 100  # most files that are looked up one by one
_HELD = 3  # times the bytes of documents, while they are read and answered with
FACET_BYTES = 1 << 20  # of a field's values in a segment, that are counted
MERGED_AT_ONCE = 1 << 16  # most documents that an addition merges
_LOCK, _WAIT_SECONDS = "writer.lock", 0.01
Lock = ExitStack  # of the folders of an index


class Collection:
    """An index folder that is open.

    Attributes: `folder`; `folders`, those that hold segments: itself, or one of each shard; `info`, what its
    index.json says;
    `searchers`, the names that it can be searched by; `tower_folder`, its own copy of the tower, None where there are
    no vectors or they were made elsewhere.

    Searches may run in any number of threads, also while another thread adds, removes or refreshes.
    """

    def __init__(self, folder: Path, generation: Generation, lock: Optional[Lock], folders: Sequence[Path] = ()):
        self.folder, self.folders = folder, list(folders) or [folder]
        self._generation = generation  # replaced whole; see `_now`
        self._stamp: tuple[int, ...] = ()  # of the index.json that was read; the first `refresh` finds it
        self._numbers = itertools.count(1)  # of new segments
        self._towers: dict[str, FieldTower] = {}  # by vector field, once they are needed; snapshots share them
        self._split_rankers: list[SplitRanker] = []  # one, once it is needed; snapshots share it
        self._opening = threading.Lock()
        self._connected: list[MilvusSearch] = []  # one, once it is needed; snapshots share it
        self._connecting = threading.Lock()
        self._trusted_uri: Optional[str] = None  # the server of Milvus that the caller has named
        self._lock = lock  # keeps other processes from writing, `_one_writer` this one's other threads
        self._keeps_lock = lock is not None  # until `close`; else while there are `_writers`
        self._writers = 0  # threads in `writing`
        self._taking = threading.Lock()  # guards `_lock` and `_writers`
        self._one_writer = threading.RLock()
        if lock is not None:
            self._begin_writing()

    @classmethod
    def create(cls, folder: Union[str, Path], info: IndexInfo) -> Collection:
        """Make an empty index folder and open it for writing; raises `RankerError` if there is one already."""
        folder = Path(folder)
        lock = take_lock([folder])
        if (folder / MANIFEST).exists():
            lock.close()
            raise RankerError(f"{folder}: is an index already; add to it, or name another folder")
        write_manifest(folder, info)
        created = cls(folder, Generation(folder, info, {}), lock)
        created._trusted_uri = _address_of(info)
        return created

    @classmethod
    def open(
        cls, folder: Union[str, Path], *, write: bool = False, until: float = 0.0, milvus_uri: Optional[str] = None
    ) -> Collection:
        """Open an index folder; raises `CheckpointError` for another or a damaged folder.

        write: documents may be added and removed; raises `RankerError` if another process has it open so, after `until`
        milvus_uri: the server that the index's vectors are in; an address that only the folder names is not used
        """
        folder = Path(folder)
        uri = _address_of(read_manifest(folder))  # before a lock is put into a folder that is none
        if milvus_uri is not None and milvus_uri != uri:
            raise UsageError(f"--milvus_uri {milvus_uri}: the vectors of {folder} are not there; leave it out")
        lock = take_lock([folder], until) if write else None
        try:
            opened = cls(folder, open_generation(folder, {}), lock)
            opened._trusted_uri = milvus_uri
            return opened
        except BaseException:
            if lock is not None:
                lock.close()
            raise

    @property
    def _now(self) -> Generation:
        """What is searched now; a method that uses it twice keeps it in a variable.

        Raises `CheckpointError` if its files were cut short.
        """
        found = self._generation
        for part in found.parts:
            part.segment.require_held()
        return found

    @property
    def generation(self) -> Generation:
        """What is searched now, and never changes."""
        return self._now

    @property
    def info(self) -> IndexInfo:
        return self._generation.info

    @property
    def searchers(self) -> tuple[str, ...]:
        """The names that `search` takes."""
        return self.info.searchers

    @property
    def shards(self) -> Optional[Mapping[str, int]]:
        """How many shards elsewhere are searched, and how many failed: None, for a folder has none."""
        return None

    @property
    def fields(self) -> list[str]:
        """The names of the documents' fields."""
        return self._generation.fields

    @property
    def parts(self) -> list[Part]:
        """The segments that are searched now, with the documents there that are not removed."""
        return self._now.parts

    def count(self, where: Filter) -> int:
        """Return how many documents meet a filter."""
        return sum(int(np.count_nonzero(mask)) for mask in self._now.allowed(where) or ())

    def type_of(self, field: str) -> str:
        """Return the type of a field's values, a name in `values.TYPES`."""
        return self._now.type_of(field)

    def field_values(self, most: int, types: Mapping[str, str] = _NO_TYPES) -> dict[str, FieldSample]:
        """Return the values that documents have in each field.

        A segment with more than `most` bytes of a field's values gives one of them, which may be a removed document's.

        types: of fields in the shards of which this is one
        """
        now, found = self._now, dict[str, FieldSample]()
        for name in self.fields:
            type = types.get(name) or now.type_of(name)
            some = [part.segment.some_values(name, most, part.live) for part in now.parts]
            found[name] = FieldSample.of(type, [value for values, _ in some for value in values])
            if not all(are_all for _, are_all in some):
                found[name] = found[name]._replace(are_all=False)
        return found

    def model_folder(self, name: str) -> Path:
        """Return the folder of the copy of a model; raises `CheckpointError` if it names anything outside itself."""
        return own_folder(self.folders[0], name)

    @property
    def tower_folder(self) -> Optional[Path]:
        tower = self.info.tower
        return None if tower is None else self.model_folder(tower.folder)

    def __len__(self) -> int:
        return self.info.count

    def __enter__(self) -> Collection:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    @property
    def has_milvus(self) -> bool:
        """Whether the vectors are searched by Milvus."""
        return self.info.vectors is not None and self.info.vectors.method == MILVUS

    def _milvus(self) -> MilvusSearch:
        """Return the connection to Milvus, which is made when it is first needed."""
        self.require_address()
        with self._connecting:
            if not self._connected:
                assert self.info.vectors is not None
                self._connected.append(MilvusSearch(self.folder, self.info.vectors))
            return self._connected[0]

    def require_address(self) -> None:
        """Raise `UsageError` if the vectors are on a server that the folder names, and the caller does not."""
        uri = _address_of(self.info)
        if uri != self._trusted_uri:
            raise UsageError(
                f"{self.folder}: its vectors are in Milvus at {quoted(uri)}, as the folder says; to connect there, add "
                f"--milvus_uri {brief(str(uri))} (in Python milvus_uri=)"
            )

    def close(self) -> None:
        """Let others write; what is open for searches stays so until it is forgotten."""
        while self._connected:
            self._connected.pop().close()
        if self._keeps_lock:
            self._let_go()

    def _let_go(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def read_info(self) -> IndexInfo:
        """Return what index.json says now."""
        return read_manifest(self.folder)

    def _write_info(self, info: IndexInfo) -> None:
        """Replace index.json."""
        write_manifest(self.folder, info)

    def _open_generation(self) -> Generation:
        """Open what index.json says now."""
        return open_generation(self.folder, self._generation.segments())

    def _stamp_now(self) -> tuple[int, ...]:
        """Return what differs once index.json is replaced; that of each folder."""
        found = [os.stat(folder / MANIFEST) for folder in self.folders]
        return tuple(number for one in found for number in (one.st_ino, one.st_mtime_ns, one.st_size))

    @property
    def is_current(self) -> bool:
        """Whether this is what index.json says now, or that is gone; costs a look at the file's dates."""
        try:
            return self._stamp_now() == self._stamp
        except FileNotFoundError:
            return True

    def refresh(self) -> bool:
        """Take up what others have added and removed, also first states, not another index; return whether they did."""
        with locking(self._one_writer):
            stamp, info = self._stamp_now(), self.read_info()  # what is written later is a change
            own = self.info if self.info.states is not None else replace(self.info, states=info.states)
            is_new = info.generation > self.info.generation and info.same_kind(own)
            if is_new:
                self._generation = self._open_generation()
            self._stamp = stamp
            return is_new

    def snapshot(self) -> Collection:
        """Return the collection as it is now, for reading: several searches of it see the same documents."""
        found = copy.copy(self)
        found._lock = None
        return found

    @contextmanager
    def writing(self, until: float) -> Iterator[None]:
        """Open for writing for a while, and let other processes write again afterwards; several threads may.

        until: time on `time.monotonic()`'s clock up to which another process's end is waited for; raises `RankerError`,
            as where another index, or none, is in the folder by now
        """
        with self._taking:
            if self._lock is None:
                self.read_info()  # before a lock is put into a folder that is none
                self._lock = take_lock(self.folders, until)
                try:
                    self.refresh()
                    if self.read_info() != self.info:
                        raise RankerError(f"{self.folder}: another index is there now; open it before it is changed")
                    self._begin_writing()
                except BaseException:
                    self._let_go()
                    raise
            self._writers += 1
        try:
            yield
        finally:
            with self._taking:
                self._writers -= 1
                if not self._writers and not self._keeps_lock:
                    self._let_go()

    def search(
        self,
        by: str,
        queries: Union[Sequence[Asked], Vectors],
        top_k: int,
        where: Optional[Filter] = None,
        ef: Optional[int] = None,
        nprobe: Optional[int] = None,
        fields: Mapping[str, float] = _AS_BUILT,
        phrase_filter: Optional[ParsedQuery] = None,
        titles: bool = False,
    ) -> list[Hits]:
        """Return, for each query, up to `top_k` documents, best first, equal scores in the documents' order.

        by: one of `searchers`: vector fields take vectors, `[n, size]` float32, all others take texts
        where: only documents whose fields meet it
        ef, nprobe: how widely an approximate index of vectors looks; raises `UsageError` for one that has no such thing
        fields: other weights of some fields, for words
        phrase_filter: only documents with its phrases and nothing that it excludes; see `Collection.phrase_filter`
        titles: find by words up to `top_k` documents more, those whose whole title is the query, and name them
        """
        refuse_text(queries, "queries", *ASKED)
        now = self._now
        if by not in self.searchers:
            raise UsageError(f"{self.folder}: cannot be searched by {quoted(by)}, only by {listed(self.searchers)}")
        allowed, kept = now.allowed(where), None if phrase_filter is None else now.kept(phrase_filter)
        if kept is not None:
            allowed = kept if allowed is None else [one & other for one, other in zip(allowed, kept)]
        if by == WORDS:
            words = now.words_by(fields, _totals_of(queries))
            assert words is not None
            with now.reading():
                found = [words.search(query, top_k, allowed) for query in queries]
                if not titles:
                    return now.hits(found)
                pairs = zip(queries, found)
                return [now.hits_with_titles(words, query, top_k, allowed, *own) for query, own in pairs]
        if by not in now.info.vector_fields:
            return now.search_other(by, [str(query) for query in queries], top_k, allowed)
        info = now.info.vector_fields[by].info
        breadth = check_breadth(info, ef, nprobe)
        vectors = checked_vectors(np.asarray(queries), None, info)
        with now.reading():
            if info.method == MILVUS:
                return now.hits(self._milvus().search(now, vectors, top_k, allowed))
            return now.search_vectors(by, vectors, top_k, allowed, breadth)

    def begin_search(self, asked: LookupRequest) -> Callable[[], list[Hits]]:
        """Return a function that searches as `search` does."""
        return partial(self.search, *asked)

    def tower(self, field: str, options: LoadOptions = _DEFAULTS, batch_size: int = 256) -> FieldTower:
        """Return the index's copy of the tower of a vector field, which is opened when it is first needed.

        Raises `UsageError` if there is none.
        """
        with self._opening:
            if field not in self._towers:
                copied = self.info.vector_fields[field].tower
                if copied is None:
                    raise UsageError(
                        f"{self.folder}: has no tower that makes vectors of queries: search by words, or give vectors"
                    )
                kind = TEXT if field == VECTORS else self.info.schema.field(field).type
                open_tower = CONTENTS[kind].open_tower
                assert open_tower is not None  # as the manifest was checked
                self._towers[field] = open_tower(self.model_folder(copied.folder), options, batch_size)
            return self._towers[field]

    def states_ranker(self, options: LoadOptions = _DEFAULTS, batch_size: int = 256) -> SplitRanker:
        """Return the index's copy of the ranker that makes the states, which is opened when it is first needed."""
        from paddle_ranker.scoring.stored_ranker import SplitRanker

        assert self.info.states is not None
        with self._opening:
            if not self._split_rankers:
                folder = self.model_folder(self.info.states.folder)
                self._split_rankers.append(SplitRanker.open(folder, options, batch_size))
            return self._split_rankers[0]

    def lend_states_ranker(self, ranker: SplitRanker) -> None:
        """Make the states of new documents by an open ranker in place of the index's own copy of it."""
        self._split_rankers[:] = [ranker]

    def _write_states(self, target: Path, documents: Iterable[Document]) -> None:
        from paddle_ranker.retrieval.states import write_states

        assert self.info.states is not None
        write_states(target, documents, self.info.schema, self.states_ranker(), self.info.states.dtype)

    def states_of(self, ids: Sequence[str], most: int) -> tuple[list[int], Optional[TextStates]]:
        """Return which of some documents have stored states of at most `most` tokens, and the states.

        The documents are places in `ids`; the states are in the order of the places.
        """
        refuse_text(ids, "ids")
        now, found, rows, tokens = self._now, list[int](), list[tuple[TitleStates, list[int]]](), 0
        places = now.find(ids)
        for number, part in enumerate(now.parts):
            own = [(n, places[id].row) for n, id in enumerate(ids) if id in places and places[id].part == number]
            if part.segment.states is not None and own:
                lengths = part.segment.states.lengths_of([row for _, row in own]).tolist()
                fitting = [one for one, length in zip(own, lengths) if 0 < length <= most]
                found += [place for place, _ in fitting]
                rows.append((part.segment.states, [row for _, row in fitting]))
                tokens += sum(length for length in lengths if length <= most)
        if not found:
            return [], None
        numbers = tokens * (rows[0][0].info.width + rows[0][0].info.matches)
        check()
        reserve(numbers * np.dtype(np.float32).itemsize)
        with now.reading():
            return found, reduce(joined, (states.take(own) for states, own in rows))

    @property
    def files(self) -> ContentFiles:
        """The files that documents of any folder have in fields."""
        return ContentFiles(*self.folders)

    def read_words(self, query: ParsedQuery, prefix: bool = False, synonyms: Optional[Synonyms] = None) -> WordQuery:
        """Return a query with what its words may stand for among those of the documents; see `Reader.read`."""
        words = self._now.words
        if words is None or words.reader is None:
            return WordQuery(query.text, query.text)
        return words.reader.read(query, prefix, synonyms)

    def better_spelled(self, query: WordQuery) -> Optional[str]:
        """Return a query with frequent words in place of very rare ones that look or sound alike, None without any."""
        words = self._now.words
        return None if words is None or words.reader is None else words.reader.better(query)

    def phrase_filter(self, query: ParsedQuery) -> Optional[ParsedQuery]:
        """Return a query with those of its phrases that documents must have; None: it restricts nothing.

        A phrase that no document has, or none with those before, is not required. A document has a phrase if a searched
        field has it word for word, whatever the cases, widths and spaces.
        """
        return phrase_filter_of(query, self._now.found_phrases(query.phrases) if query.phrases else ())

    def words_given(self, query: WordQuery) -> dict[str, str]:
        """Map each token of a correction or a synonym to the part of the query that it stands for."""
        words = self._now.words
        return {} if words is None else words.given_of(query)

    def word_weights(self, query: Asked) -> dict[str, float]:
        """Return how much each token of a query counts by words, by token; nothing without words."""
        words = self._now.words
        return {} if words is None else words.weights_of(query)

    def values(self, field: str, ids: Sequence[str], type: str = "") -> list[tuple[Value, ...]]:
        """Return a field's values of the documents with these ids: those of a list, or one; nothing for none.

        type: of the field in the shards of which this is one
        """
        refuse_text(ids, "ids")
        now = self._now
        places, type = now.find(ids), type or now.type_of(field)
        return [
            now.parts[place.part].segment.value(field, type, place.row) if (place := places.get(id)) is not None else ()
            for id in ids
        ]

    def matching(self, query: Optional[Asked], phrase_filter: Optional[ParsedQuery] = None) -> Matches:
        """Return the documents that share a word with a query; None: all documents.

        phrase_filter: as of `search`

        Raises `UsageError` for a query of an index without words.
        """
        now = self._now
        if query is None:
            masks = [part.mask for part in now.parts]
        elif now.words is None:
            raise UsageError(f"{self.folder}: has no words")
        else:
            masks = now.words.matching(query)
        kept = None if phrase_filter is None else now.kept(phrase_filter)
        return Matches(now, masks if kept is None else [mask & own for mask, own in zip(masks, kept)])

    def scale(self, field: str, type: str = "") -> FieldScale:
        """Return the numbers or dates that live documents have in a field; `type` as of `values`.

        Values of more than a megabyte in a segment are not looked at.
        """
        now = self._now
        is_large = any(part.segment.bytes_of(field) > FACET_BYTES for part in now.parts)
        masks = [part.mask for part in now.parts]
        return (
            FieldScale(None, is_large=True)
            if is_large
            else now.scaled(field, type or now.type_of(field), masks, FACET_BYTES)
        )

    def after(self, id: Optional[str], count: int) -> list[Document]:
        """Return the documents after an id (None: the first ones) in an order that no change moves.

        It is that of the ids' hashes, equal ones by id. So whoever goes on after the last id of a page sees each
        document that stays exactly once, also if that id was removed, and whatever segments and shards it moves to.
        """
        now, key = self._now, None if id is None else (int(text_hashes([id])[0]), id)
        each = [part.segment.by_hash(key, part.live, count) for part in now.parts]
        numbered = ([(*one, number) for one in own] for number, own in enumerate(each))
        places = [Place(number, row) for _, _, row, number in itertools.islice(heapq.merge(*numbered), count)]
        size = sum(now.parts[place.part].segment.document_bytes([place.row]) for place in places)
        reserve(_HELD * size)
        return [now.at(place) for place in checked(places)]

    def explain_words(
        self, query: Asked, ids: Sequence[str], fields: Mapping[str, float] = _AS_BUILT
    ) -> dict[str, dict[str, float]]:
        """Return, by id, what each token of a query adds to a document's score by words, by token.

        Documents that are not here are left out; without words, nothing adds anything.
        """
        refuse_text(ids, "ids")
        now, found = self._now, dict[str, dict[str, float]]()
        words, places = now.words_by(fields, _totals_of([query])), now.find(ids)
        for part in sorted({place.part for place in places.values()}):
            own = [id for id, place in places.items() if place.part == part]
            rows = [places[id].row for id in own]
            found.update(zip(own, words.explain(query, part, rows) if words else [{}] * len(own)))
        return found

    def how(self, by: str, ef: Optional[int] = None, nprobe: Optional[int] = None) -> str:
        """Return how a searcher finds documents, for people: `BM25`, `exact`, `faiss hnsw_sq8, ef 100`."""
        return how_searched(self.info, by, ef, nprobe)

    def document(self, id: str) -> Document:
        """Return the document with this id; raises `KeyError` if there is none."""
        return self.documents_of([id])[id]

    def documents_of(self, ids: Sequence[str]) -> dict[str, Document]:
        """Return the documents with these ids, by id; an id that no document has is left out."""
        return dict(self.each(ids, keep=True))

    def each(self, ids: Sequence[str], *, keep: bool = False) -> Iterator[tuple[str, Document]]:
        """Yield the documents with these ids, one after the other; an id that no document has is left out.

        keep: the caller keeps them all, which counts as memory
        """
        refuse_text(ids, "ids")
        now = self._now
        places = now.find(ids)
        rows: dict[int, list[int]] = {}
        for place in places.values():
            rows.setdefault(place.part, []).append(place.row)
        size = sum(now.parts[part].segment.document_bytes(own) for part, own in rows.items())
        reserve(_HELD * size if keep else 0)
        for id, place in checked(places.items()):
            yield id, now.at(place)

    def missing(self, ids: Iterable[str]) -> list[str]:
        """Return those of some ids that no document has, each once, in their order."""
        refuse_text(ids, "ids")
        asked = list(dict.fromkeys(ids))
        found = self._now.find(asked)
        return [id for id in asked if id not in found]

    def sample(self, count: int, seed: int, *, removed: bool = False) -> list[tuple[Document, Vectors]]:
        """Return some documents, drawn without repetition, and the vector of each, `[size]`.

        removed: of those that are removed, as long as their segments are not merged
        """
        now, drawn = self._now, []
        live = np.concatenate(
            [part.first + np.flatnonzero(part.mask != removed) for part in now.parts] or [np.empty(0, int)]
        )
        numbers = np.random.default_rng(seed).choice(live, min(count, len(live)), replace=False)
        for place in now.places(numbers):
            own = now.parts[place.part].segment.vectors.get(VECTORS)
            drawn.append(
                (now.at(place), np.empty(0, np.float32) if own is None else own.stored.rows(own.rows(place.row)[:1])[0])
            )
        return drawn

    def search_exactly(self, vectors: Vectors, top_k: int, where: Optional[Filter] = None) -> list[Hits]:
        """Return what `search` by vectors would find if it compared every vector, whatever index there is."""
        now = self._now
        return now.search_vectors(VECTORS, vectors, top_k, now.allowed(where), exactly=True)

    def verify(self) -> tuple[int, int]:
        """Read all that index.json names; return the number of files and their bytes.

        Raises `CheckpointError` for a file that is missing or not as it was written.
        """
        found = [part.segment.verify() for part in self._now.parts]
        found += [(1, len(self.files.read(name))) for name in sorted(self._file_names())]
        return sum(files for files, _ in found), sum(size for _, size in found)

    def _file_names(self) -> set[str]:
        """Return the names of the files that documents have."""
        names = set[str]()
        for field in self.info.schema.files:
            for part in self._now.parts:
                for value in part.segment.some_values(field.name, sys.maxsize, part.live)[0]:
                    names.update(map(str, value if isinstance(value, list) else [value]))
        return names

    def has_file(self, name: str) -> bool:
        """Return whether a document has a file of this name."""
        fields = [field.name for field in self.info.schema.files if field.name in self.fields]
        return any(self.count(Filter.of({field: name})) for field in fields)

    def _forget_files(self, names: set[str]) -> None:
        """Delete those of these files that no document has."""
        live = self._file_names() if len(names) > _LOOKED_UP else {*filter(self.has_file, names)}
        self.files.forget(name for name in names if name not in live)

    def documents(self) -> Iterator[Document]:
        """Return an iterator over all documents, in their order."""
        return self._now.documents()

    def add(
        self,
        documents: Iterable[Document],
        vectors_of: Optional[VectorsOf] = None,
        *,
        merge: bool = True,
        prepared: Sequence[SegmentData] = (),
        files: Optional[StagedFiles] = None,
    ) -> Added:
        """Add documents, or replace those of the same id; durable when it returns, and nothing is added if it raises.

        A replaced document goes to the end of the order, its version counts up. Documents that are there as given are
        left as they are, and vectors of texts that are there are not computed again.

        vectors_of: returns the vectors of texts, `[n, size]`, where the index has vectors (default: its own tower)
        merge: merge small segments before it returns; else call `merge` soon, which may be in another thread
        prepared: what `prepare` returned for these documents
        files: has their files, from `prepare` on; whoever opened it closes it
        """
        refuse_text(documents, "documents", Document)
        return self._add(documents, vectors_of, merge, prepared=prepared, files=files)

    def prepare(
        self, documents: Sequence[Document], files: StagedFiles, vectors_of: Optional[VectorsOf] = None
    ) -> list[SegmentData]:
        """Work out words and vectors of documents, for `add`; others may write meanwhile."""
        refuse_text(documents, "documents", Document)
        return self._addition(vectors_of, files).prepare(documents)

    def _addition(
        self,
        vectors_of: Optional[VectorsOf],
        files: StagedFiles,
        unfinished: Optional[Unfinished] = None,
        prepared: Sequence[SegmentData] = (),
    ) -> Addition:
        vectors_of = vectors_of or (lambda texts: self.tower(VECTORS).vectors(texts))
        write_states = None if self.info.states is None else self._write_states
        given = vectors_of, self._cutter, files, self.tower, unfinished, prepared, write_states
        return Addition(self.folders, self._new_segment, self._now, *given)

    def add_rows(
        self, rows: Iterable[DocumentRow], vectors_of: Optional[VectorsOf] = None, *, sync: bool = False
    ) -> Added:
        """Add the rows of a file as `add` does; `sync`: and remove the documents that are not among them.

        A row without an id is the document that has its text already, also in this file, with its fields unless the row
        has some; if there is none, it gets the next free number as its id.
        """
        refuse_text(rows, "rows", DocumentRow)
        return self._add(rows, vectors_of, True, sync)

    def _add(
        self,
        rows: Iterable[Union[Document, DocumentRow]],
        vectors_of: Optional[VectorsOf],
        merge: bool,
        sync: bool = False,
        prepared: Sequence[SegmentData] = (),
        files: Optional[StagedFiles] = None,
    ) -> Added:
        with self._one_thread_writing(), ExitStack() as ends:
            staged = ends.enter_context(self.files.staged()) if files is None else files
            unfinished = Unfinished(self.folders, self.info.schema)
            addition = self._addition(vectors_of, staged, unfinished, prepared)
            added = addition.run(checked_items(rows, "documents", Document, DocumentRow))
            ends.callback(self._forget_files, staged.names)  # of those that are published, if documents lack them
            staged.publish()
            removed = [*addition.replaced, *(addition.absent if sync else ())]
            if addition.segments or removed:
                self._replace(removed, addition.segments, addition.next_id)
            unfinished.forget()
        if merge:
            self.merge()
        return added

    def merge(self, most: Optional[int] = MERGED_AT_ONCE) -> None:
        """Merge segments where there are many: each then holds more documents than those after it together.

        most: leave it if more documents than these would be merged, which takes long; None: merge any number, and
            delete the files that no document has
        """
        with self._one_thread_writing():
            now = self._now
            if most is None and now.info.schema.files:
                self.files.forget_all_but(self._file_names())
        for folder in self.folders:
            self._merge([part for part in now.parts if part.segment.folder.parent == folder], most)

    def _merge(self, own: Sequence[Part], most: Optional[int]) -> None:
        """Merge the segments of a folder."""
        sizes = [int(np.count_nonzero(part.mask)) for part in own]
        first = first_to_merge(sizes)
        if first is None or (most is not None and sum(sizes[first:]) > most):
            return
        old, merged = own[first:], self._new_segment(own[0].segment.folder.parent)
        merge_segments(merged, [(part.segment, part.live) for part in old], index_writers(self.info))
        with self._one_thread_writing():
            # What was removed meanwhile is removed from the merged one; a segment before these may have gone, too.
            masks = {part.segment.name: part.mask for part in self._now.parts}
            if not all(part.segment.name in masks for part in old):
                raise RankerError(f"{self.folder}: a segment went while it was merged; merge again")
            live = np.concatenate([masks[part.segment.name][part.mask] for part in old])
            segments, first = list(self.info.segments), list(masks).index(old[0].segment.name)
            segments[first : first + len(old)] = [self._segment_info(merged, live)]
            self._commit(segments)

    def store_states(self, states: RankerStates, options: LoadOptions, batch_size: int) -> None:
        """Store the states of all documents; words and vectors stay as they are.

        states: name the copy of the ranker that is in each folder already
        options, batch_size: how it is opened
        """
        from paddle_ranker.retrieval.states import write_states
        from paddle_ranker.scoring.stored_ranker import SplitRanker

        ranker = SplitRanker.open(self.model_folder(states.folder), options, batch_size)
        self._split_rankers = [ranker]
        with self._one_thread_writing():
            now, segments = self._now, []
            for part in now.parts:
                folder, source = self._new_segment(part.segment.folder.parent), (part.segment, part.live)

                def write(target: Path, documents: Iterable[Document]) -> None:
                    write_states(target, documents, now.info.schema, ranker, states.dtype)

                merge_segments(folder, [source], index_writers(now.info), write_states=write)
                segments.append(SegmentInfo(folder.name, int(np.count_nonzero(part.mask))))
            self._commit(segments, states=states)

    def remove(self, ids: Iterable[str]) -> int:
        """Remove the documents of these ids and return how many there were; durable when it returns."""
        refuse_text(ids, "ids")
        with self._one_thread_writing():
            found = self._now.find(list(ids))
            if found:
                self._replace(list(found.values()))
            return len(found)

    @cached_property
    def _cutter(self) -> Cutter:
        """Divides texts into passages by the tokens of the index's own tower, or of any if it has none."""
        folder, schema = self.tower_folder, self.info.schema
        if folder is None or not schema.passage_tokens:
            return Cutter(schema, None)
        return Cutter(schema, identify(folder).row_encoder(TOWER))

    def _new_segment(self, folder: Path) -> Path:
        """Return the folder of a new segment, whose name no segment of another index has."""
        return folder / f"segment-{next(self._numbers):08d}-{secrets.token_hex(4)}"

    @contextmanager
    def _one_thread_writing(self) -> Iterator[None]:
        """Keep other threads from writing, Milvus brought to index.json; raises `UsageError` if open for reading."""
        if self._lock is None:
            raise UsageError(f"{self.folder}: is open for reading; open it with write=True")
        with self._one_writer:
            if self.has_milvus:
                self._milvus().repair(self._now)
            yield

    def _replace(self, removed: Sequence[Place], added: Sequence[SegmentInfo] = (), next_id: int = 0) -> None:
        """Make a new generation without some documents and with some new segments; Milvus holds the same then."""
        now, segments = self._now, list(self.info.segments)
        files = set[str]()
        for place in removed if now.info.schema.files else ():
            files |= now.info.schema.file_names(now.at(place))
        for number in sorted({place.part for place in removed}):
            live = now.parts[number].mask.copy()
            live[[place.row for place in removed if place.part == number]] = False
            segments[number] = self._segment_info(now.parts[number].segment.folder, live)
        change_milvus = None
        if self.has_milvus:
            opened = [Segment(self.folder / one.name, self.info.schema) for one in added]
            change_milvus = partial(self._milvus().change, opened, now.keys_of(removed))
        self._commit([*segments, *added], next_id, change_milvus)
        self._forget_files(files)

    def _commit(
        self,
        segments: Sequence[SegmentInfo],
        next_id: int = 0,
        change_milvus: Optional[Callable[[Callable[[], None]], None]] = None,
        states: Optional[RankerStates] = None,
    ) -> None:
        """Make a new generation of the segments that have documents: durable when this returns, the others are deleted.

        change_milvus: changes Milvus as well, and calls its argument to write index.json
        states: which states are stored from now on, if otherwise
        """
        before = replace(self.info, states=states or self.info.states)
        write = partial(self._write_info, before.next([one for one in segments if one.live], next_id))
        try:
            if change_milvus is None:
                write()
            else:
                change_milvus(write)
        finally:  # Milvus may fail behind the change, which counts all the same
            self._generation = self._open_generation()
            self._stamp = self._stamp_now()
        for name in before.files() - self.info.files():
            for folder in self.folders:
                _delete(folder / name)

    def _segment_info(self, segment: Path, live: Booleans) -> SegmentInfo:
        """Return what index.json says of a segment; write which of its rows are removed, if there are any."""
        removed = np.flatnonzero(~live)
        if not len(removed):
            return SegmentInfo(segment.name, len(live))
        before = next((one.deleted or "" for one in self.info.segments if one.name == segment.name), "")
        number = 1 + max(self.info.generation, int(before.partition(".deleted-")[2].partition(".")[0] or 0))
        file = inside(segment.parent, f"{segment.name}.deleted-{number}.npy")
        with new_file(file, "wb") as stream:
            np.save(stream, removed)
        return SegmentInfo(segment.name, len(live), file.name, len(removed))

    def _begin_writing(self) -> None:
        """Delete what a killed writer has left."""
        found = [path for folder in self.folders for path in folder.glob("segment-*")]
        self._numbers = itertools.count(1 + max(map(_number_of, found), default=0))
        named = self.info.files() | {segment.name for segment in Unfinished(self.folders, self.info.schema).segments}
        for folder in self.folders:
            remove_unfinished(folder)
        for path in found:
            if path.name not in named:
                _delete(path)
        self._forget_files(self.files.forget_staged())


class Matches:
    """Documents of a generation that match a query.

    Args:
        now: the generation.
        masks: for each of its segments, which documents these are, `[documents] bool`.
    """

    def __init__(self, now: Generation, masks: list[Booleans]):
        self._now, self._masks = now, masks

    def count(self, where: Optional[Filter]) -> int:
        """Return how many of the documents meet a filter."""
        return sum(int(np.count_nonzero(mask)) for mask in self._meeting(where))

    def facets(self, wanted: Mapping[str, Optional[Filter]]) -> dict[str, dict[str, int]]:
        """Count the values of fields among the documents that meet each field's filter; of lists each item.

        Returns counts by value as JSON, the most frequent first. Numbers, and dates, of which there are many values,
        are counted by ranges in their order, each a condition that `Filter.of` takes. Raises `UsageError` for a field
        with too many values.
        """
        typed = {name: Wanted(self._now.type_of(name), where) for name, where in wanted.items()}
        return facets_of(typed, lambda: [self.scales(typed)], lambda others: [self.values(others)])

    def scales(self, wanted: Facets) -> dict[str, FieldScale]:
        """Return the numbers or dates that the documents have in fields; see `facets`."""
        return {
            name: self._now.scaled(name, type, self._meeting(where), FACET_BYTES)
            for name, (type, where) in wanted.items()
        }

    def values(self, wanted: Facets) -> dict[str, Counts]:
        """Count the values of fields; see `facets`."""
        found = dict[str, Counts]()
        for name, (type, where) in wanted.items():
            counts = found[name] = Counts()
            for part, mask in zip(self._now.parts, self._meeting(where)):
                counted = part.segment.value_counts(name, mask).tolist()
                for value, count in checked(zip(part.segment.values_of(name), counted)):
                    items = {one.key: one for one in TYPES[type].values(value)} if count else {}
                    counts.update(dict.fromkeys(items.values(), count))
        return found

    def first(
        self,
        sort: Sequence[str],
        count: int,
        after: Optional[SortedDocument] = None,
        where: Optional[Filter] = None,
        types: Sequence[str] = (),
    ) -> list[SortedDocument]:
        """Return the first `count` documents that meet a filter, in the order of fields.

        sort: the fields, `-year` for the highest first
        after: only documents behind this one
        types: of the fields in the shards of which this is one
        """
        keys = sort_keys(sort, types or self._now.type_of)
        each = zip(self._now.parts, self._meeting(where))
        return merged([first_of_segment(part.segment, mask, keys, after, count) for part, mask in each], keys, count)

    def _meeting(self, where: Optional[Filter]) -> list[Booleans]:
        return [mask & own for mask, own in zip(self._masks, self._now.allowed(where) or self._masks)]


def how_searched(info: IndexInfo, by: str, ef: Optional[int] = None, nprobe: Optional[int] = None) -> str:
    """Return how a searcher finds documents, for people: `BM25`, `exact`, `faiss hnsw_sq8, ef 100`."""
    if by not in info.vector_fields:
        return "BM25" if by == WORDS else INDEXES[by].what
    vectors = info.vector_fields[by].info
    return how_found(vectors, check_breadth(vectors, ef, nprobe))


def phrase_filter_of(query: ParsedQuery, found: Sequence[str]) -> Optional[ParsedQuery]:
    """Return what a query restricts a search to, given those of its phrases that documents have; None: to nothing."""
    refuse_text(found, "found")
    return ParsedQuery("", tuple(found), query.excluded) if found or query.excluded else None


def _totals_of(queries: Union[Sequence[Asked], Vectors]) -> Optional[Totals]:
    """Return the totals that queries are to be scored with; None: those of the collection itself."""
    first = queries[0] if len(queries) else None
    return first.totals if isinstance(first, CountedQuery) else None


def _address_of(info: IndexInfo) -> Optional[str]:
    """Return the address of the server of Milvus that the vectors are in, None if they are in no server."""
    vectors = info.vectors
    return vectors.uri if vectors is not None and vectors.method == MILVUS and is_address(vectors.uri) else None


def _number_of(path: Path) -> int:
    number = path.name.split("-")[1].split(".")[0]
    return int(number) if number.isdigit() else 0


def take_lock(folders: Sequence[Path], until: float = 0.0) -> Lock:
    """Return the locks of writers; `until`: time on `time.monotonic()`'s clock up to which they are waited for."""
    with ExitStack() as held:
        for folder in folders:
            while True:
                try:
                    held.enter_context(locked(folder / _LOCK, wait=False))
                    break
                except BlockingIOError:
                    if time.monotonic() >= until:
                        raise RankerError(f"{folder}: another process is writing to it; wait for its end") from None
                time.sleep(_WAIT_SECONDS)
        return held.pop_all()


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
