"""Snapshot of an index folder: the documents of one generation, and the methods by which a search reads them."""

from __future__ import annotations

import heapq
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Optional, Union

import numpy as np

from paddle_ranker.array_types import Vectors
from paddle_ranker.errors import DataError, UsageError, listed, quoted, refuse_text
from paddle_ranker.lexical.postings import text_hashes
from paddle_ranker.retrieval.snapshots.index_models import IndexModels
from paddle_ranker.retrieval.snapshots.matches import FACET_BYTES, Matches
from paddle_ranker.retrieval.snapshots.open_segments import Generation, Location, OpenSegment
from paddle_ranker.retrieval.snapshots.searchable import LookupRequest, phrase_filter_of
from paddle_ranker.retrieval.stored.candidate_indexes import Document, Hits, Like, LikeError
from paddle_ranker.retrieval.stored.manifest import VECTORS, WORDS, IndexInfo
from paddle_ranker.retrieval.stored.schema import FieldTower
from paddle_ranker.retrieval.values.facets import FieldSample, FieldScale
from paddle_ranker.retrieval.values.filters import Filter
from paddle_ranker.retrieval.values.typed_values import Value
from paddle_ranker.retrieval.words.query_parsing import ParsedQuery
from paddle_ranker.retrieval.words.query_rewriting import WordQuery
from paddle_ranker.retrieval.words.word_search import QUERY_TYPES, AnyQuery, CollectionStatistics, CountedQuery
from paddle_ranker.retrieval.work.turns import checked, reserve

if TYPE_CHECKING:
    from paddle_ranker.retrieval.snapshots.vector_store import VectorStore
    from paddle_ranker.retrieval.stored.content_files import ContentFiles
    from paddle_ranker.retrieval.words.synonyms import Synonyms

_AS_BUILT: Mapping[str, float] = MappingProxyType({})
_NO_TYPES: Mapping[str, str] = MappingProxyType({})
_HELD = 3  # memory that documents take until they are sent, as a multiple of their stored bytes


class LocalSnapshot:
    """Documents of an index folder at one time; later additions and removals do not change a snapshot. Thread-safe.

    Attributes:
        models: the index's copies of its towers and of its ranker.
        store: searches the vectors, if they are elsewhere, too; else None.
    """

    shards: Optional[Mapping[str, int]] = None  # see `Snapshot`

    def __init__(
        self, generation: Generation, folders: Sequence[Path], models: IndexModels, store: Optional[VectorStore]
    ):
        self._generation, self.models, self.store = generation, models, store
        self._folders, self._folder = folders, folders[0]

    @cached_property
    def files(self) -> ContentFiles:
        """The files in documents' fields."""
        from paddle_ranker.retrieval.stored.content_files import ContentFiles

        return ContentFiles(*self._folders)

    @property
    def generation(self) -> Generation:
        """The segments that are searched; raises `CheckpointError` if their files were cut short."""
        for part in self._generation.parts:
            part.segment.require_held()
        return self._generation

    @property
    def info(self) -> IndexInfo:
        return self._generation.info

    @property
    def fields(self) -> list[str]:
        return self._generation.fields

    @property
    def parts(self) -> list[OpenSegment]:
        """The segments, each with the mask of its live documents."""
        return self.generation.parts

    @property
    def tower_folder(self) -> Optional[Path]:
        """The folder of the tower of whole documents; None without such a tower."""
        tower = self.info.tower
        return None if tower is None or tower.is_at_url else self.models.folder(tower.folder)

    def __len__(self) -> int:
        return self.info.count

    def tower(self, field: str) -> FieldTower:
        """Return the tower of a vector field: the index's copy, which is opened when it is first needed."""
        return self.models.tower(self.info, field)

    def like_vectors(self, field: str, like: Like) -> Vectors:
        """Return the vector of an example in a vector field, `[1, size]`; `[0, size]` if there is no such vector.

        If a document has several vectors in the field, such as one per passage, the mean of the vectors is returned.
        """
        none = np.empty((0, self.info.vector_fields[field].info.size), np.float32)
        if like.kind:
            from paddle_ranker.data.files.pictures import ImageError

            is_taken = field != VECTORS and like.kind in self.info.schema.field(field).examples
            try:
                return self.tower(field).vectors([like.data]) if is_taken else none
            except (DataError, ImageError) as error:
                raise LikeError(str(error)) from error
        now = self.generation
        location = now.find([like.id]).get(like.id)
        vectors = None if location is None else now.segment_at(location).vectors.get(field)
        if location is None or vectors is None or not len(rows := vectors.rows(location.row)):
            return none
        with now.reading():
            mean: Vectors = vectors.stored.rows(rows).mean(axis=0, keepdims=True, dtype=np.float32)
        return mean

    def type_of(self, field: str) -> str:
        """Return the type of a field's values, a name in `typed_values.TYPES`."""
        return self.generation.type_of(field)

    def types_of(self, fields: Sequence[str]) -> dict[str, str]:
        """Return the types of the values of fields, by name, in the order of `fields`."""
        refuse_text(fields, "fields")
        return {name: self.type_of(name) for name in fields}

    def field_values(self, most: int, types: Mapping[str, str] = _NO_TYPES) -> dict[str, FieldSample]:
        """Return a sample of the values of each field, by name.

        most: if a segment has more bytes of a field's values, it adds a single value, maybe of a removed document
        types: types by field, on which several shards agree; any other field has the type that fits this shard
        """
        now, samples = self.generation, dict[str, FieldSample]()
        for name in self.fields:
            type = types.get(name) or now.type_of(name)
            of_parts = [part.segment.some_values(name, most, part.live) for part in now.parts]
            samples[name] = FieldSample.of(type, [value for values, _ in of_parts for value in values])
            if not all(are_all for _, are_all in of_parts):
                samples[name] = samples[name]._replace(are_all=False)
        return samples

    def search(
        self,
        by: str,
        queries: Union[Sequence[AnyQuery], Vectors],
        top_k: int,
        where: Optional[Filter] = None,
        ef: Optional[int] = None,
        nprobe: Optional[int] = None,
        fields: Mapping[str, float] = _AS_BUILT,
        phrase_filter: Optional[ParsedQuery] = None,
        titles: bool = False,
    ) -> list[Hits]:
        """Return, for each query, up to `top_k` documents, best first, equal scores in the documents' order.

        by: name of a searcher
        queries: vectors, `[n, size]` float32, if `by` is a vector field; else texts
        where: only documents whose fields meet this filter
        ef, nprobe: breadth of the search in an approximate index of vectors; raises `UsageError` for other searchers
        fields: weights of searched fields, by name, in place of the schema's
        phrase_filter: query whose phrases a document must have, and whose exclusions it must not have; see the method
        titles: also score titles, see `Generation.with_titles`; up to 2 * `top_k` documents are then returned
        """
        refuse_text(queries, "queries", *QUERY_TYPES)
        now = self.generation
        if by not in (names := self.info.searchers):
            raise UsageError(f"{self._folder}: cannot be searched by {quoted(by)}, only by {listed(names)}")
        allowed, kept = now.allowed(where), None if phrase_filter is None else now.kept(phrase_filter)
        if kept is not None:
            allowed = kept if allowed is None else [mask & other for mask, other in zip(allowed, kept)]
        if by == WORDS:
            words = now.words_by(fields, _statistics_of(queries))
            assert words is not None
            with now.reading():
                results = [words.search(query, top_k, allowed) for query in queries]
                if not titles:
                    return now.hits(results)
                pairs = zip(queries, results)
                return [now.with_titles(words, query, top_k, allowed, *result) for query, result in pairs]
        if by not in now.info.vector_fields:
            return now.search_other(by, [str(query) for query in queries], top_k, allowed)
        from paddle_ranker.retrieval.snapshots.vector_search import check_breadth, checked_vectors

        info = now.info.vector_fields[by].info
        breadth = check_breadth(info, ef, nprobe)
        vectors = checked_vectors(np.asarray(queries), None, info)
        with now.reading():
            if self.store is not None and by == VECTORS:
                return now.hits(self.store.search(now, vectors, top_k, allowed))
            return now.search_vectors(by, vectors, top_k, allowed, breadth)

    def begin_search(self, request: LookupRequest) -> Callable[[], list[Hits]]:
        """Return a function that, when called, runs `search` with the request's fields as arguments."""
        return partial(self.search, *request)

    def rewrite_query(self, query: ParsedQuery, prefix: bool = False, synonyms: Optional[Synonyms] = None) -> WordQuery:
        """Rewrite a query with corrections and synonyms of its words; see `QueryRewriter.rewrite`."""
        words = self.generation.words
        if words is None or words.rewriter is None:
            return WordQuery(query.text, query.text)
        return words.rewriter.rewrite(query, prefix, synonyms)

    def did_you_mean(self, query: WordQuery) -> Optional[str]:
        """Return the query with rare words replaced by frequent ones that look or sound alike.

        None if there is no such frequent word, or if words are not searched.
        """
        words = self.generation.words
        return None if words is None or words.rewriter is None else words.rewriter.did_you_mean(query)

    def phrase_filter(self, query: ParsedQuery) -> Optional[ParsedQuery]:
        """Return the phrases and exclusions of a query that restrict a search; None without either.

        A phrase is left out if no document has it together with the phrases before it. A document has a phrase if a
        searched field has it word for word, apart from case, width and spaces.
        """
        return phrase_filter_of(query, self.generation.found_phrases(query.phrases) if query.phrases else ())

    def words_given(self, query: WordQuery) -> dict[str, str]:
        """Return the part of the query for which each token of a correction or synonym stands, by token."""
        words = self.generation.words
        return {} if words is None else words.given_of(query)

    def word_weights(self, query: AnyQuery) -> dict[str, float]:
        """Return the weight of each token of a query in BM25, by token; empty if words are not searched."""
        words = self.generation.words
        return {} if words is None else words.weights_of(query)

    def query_weight(self, query: AnyQuery) -> float:
        """Return the sum of the weights of a query's words, see `WordSearcher.total_weight`; 0 without word search."""
        words = self.generation.words
        return 0.0 if words is None else words.total_weight(query)

    def values(self, field: str, ids: Sequence[str], type: str = "") -> list[tuple[Value, ...]]:
        """Return, for each id, the document's value in a field as its items: one, several for a list, or none.

        type: type of the field, on which several shards agree; "": the type that fits this shard
        """
        refuse_text(ids, "ids")
        now = self.generation
        locations, type = now.find(ids), type or now.type_of(field)
        return [
            now.segment_at(locations[id]).value(field, type, locations[id].row) if id in locations else ()
            for id in checked(ids)
        ]

    def matching(self, query: Optional[AnyQuery], phrase_filter: Optional[ParsedQuery] = None) -> Matches:
        """Return the documents that share a word with a query or are `named` by it; all documents if the query is None.

        phrase_filter: query whose phrases a document must have, and whose exclusions it must not have

        Raises `UsageError` if there is a query and words are not searched.
        """
        now = self.generation
        if query is None:
            masks = [part.mask for part in now.parts]
        elif now.words is None:
            raise UsageError(f"{self._folder}: has no words")
        else:
            masks = now.words.matching(query)
            for part, mask, rows in zip(now.parts, masks, now.named(query)):
                mask[rows if part.live is None else rows[part.live[rows]]] = True
        kept = None if phrase_filter is None else now.kept(phrase_filter)
        return Matches(now, masks if kept is None else [mask & is_kept for mask, is_kept in zip(masks, kept)])

    def scale(self, field: str, type: str = "") -> FieldScale:
        """Return the distribution of a field's numbers or dates over live documents.

        If a segment has more than a megabyte of the field's values, only `is_large` is set.

        type: see `values`
        """
        now = self.generation
        is_large = any(part.segment.bytes_of(field) > FACET_BYTES for part in now.parts)
        masks = [part.mask for part in now.parts]
        if is_large:
            return FieldScale(None, is_large=True)
        return now.scaled(field, type or now.type_of(field), masks, FACET_BYTES)

    def after(self, id: Optional[str], count: int) -> list[Document]:
        """Return the first `count` documents after an id, or from the beginning if the id is None.

        Documents are ordered by the hash of the id, then by the id. If each page begins after the last id of the page
        before, a document that stays unchanged during the listing is on exactly one page. The document of the last id
        may be removed between two pages.
        """
        now, key = self.generation, None if id is None else (int(text_hashes([id])[0]), id)
        pages = [part.segment.by_hash(key, part.live, count) for part in now.parts]
        numbered = ([(*entry, number) for entry in page] for number, page in enumerate(pages))
        locations = [Location(number, row) for _, _, row, number in itertools.islice(heapq.merge(*numbered), count)]
        size = sum(now.segment_at(location).document_bytes([location.row]) for location in locations)
        reserve(_HELD * size)
        return [now.document_at(location) for location in checked(locations)]

    def explain_words(
        self, query: AnyQuery, ids: Sequence[str], fields: Mapping[str, float] = _AS_BUILT
    ) -> dict[str, dict[str, float]]:
        """Return, by id, the summands of the document's score by words: a dict by token of the query.

        Unknown ids are left out. If words are not searched, each dict is empty.
        """
        refuse_text(ids, "ids")
        now, summands = self.generation, dict[str, dict[str, float]]()
        words, locations = now.words_by(fields, _statistics_of([query])), now.find(ids)
        for part in sorted({location.part for location in locations.values()}):
            part_ids = [id for id, location in locations.items() if location.part == part]
            rows = [locations[id].row for id in part_ids]
            summands.update(zip(part_ids, words.explain(query, part, rows) if words else [{}] * len(part_ids)))
        return summands

    def document(self, id: str) -> Document:
        """Return the document with this id; raises `KeyError` if there is none."""
        return self.documents_of([id])[id]

    def documents_of(self, ids: Sequence[str]) -> dict[str, Document]:
        """Return the documents whose ids are in `ids`, by id; unknown ids are left out."""
        return dict(self.each(ids, keep=True))

    def each(self, ids: Sequence[str], *, keep: bool = False) -> Iterator[tuple[str, Document]]:
        """Yield (id, document) for each of `ids`, in any order; unknown ids are left out.

        keep: whether the caller keeps all documents in memory; `turns.reserve` then counts their bytes
        """
        refuse_text(ids, "ids")
        now = self.generation
        locations = now.find(ids)
        rows: dict[int, list[int]] = {}
        for location in locations.values():
            rows.setdefault(location.part, []).append(location.row)
        size = sum(now.parts[part].segment.document_bytes(part_rows) for part, part_rows in rows.items())
        reserve(_HELD * size if keep else 0)
        for id, location in checked(locations.items()):
            yield id, now.document_at(location)

    def missing(self, ids: Iterable[str]) -> list[str]:
        """Return the distinct ids that no document has, in order."""
        refuse_text(ids, "ids")
        wanted = list(dict.fromkeys(ids))
        existing = self.generation.find(wanted)
        return [id for id in wanted if id not in existing]

    def sample(self, count: int, seed: int, *, removed: bool = False) -> list[tuple[Document, Vectors]]:
        """Draw `count` documents without replacement, or all if there are fewer; return each with its vector, `[size]`.

        A vector is that of the whole document, or of its first passage; without such vectors, it is empty.

        removed: draw from the removed documents that segments still have
        """
        now, drawn = self.generation, []
        counts = np.zeros(len(now.parts), np.int64)
        for number, part in enumerate(now.parts):
            whole = 0 if removed else len(part.segment)
            counts[number] = whole if part.live is None else np.count_nonzero(part.live != removed)
        ends, total = np.cumsum(counts), int(counts.sum())
        numbers = np.random.default_rng(seed).choice(total, min(count, total), replace=False)
        parts = np.searchsorted(ends, numbers, "right")
        rows = numbers - (ends - counts)[parts]  # among the documents of the segment that may be drawn
        for number in np.unique(parts).tolist():
            if (live := now.parts[number].live) is not None:
                of_part = parts == number
                rows[of_part] = np.flatnonzero(live != removed)[rows[of_part]]
        for location in map(Location, parts.tolist(), rows.tolist()):
            vectors, vector = now.segment_at(location).vectors.get(VECTORS), np.empty(0, np.float32)
            if vectors is not None:
                vector = vectors.stored.rows(vectors.rows(location.row)[:1])[0]
            drawn.append((now.document_at(location), vector))
        return drawn

    def search_exactly(self, vectors: Vectors, top_k: int, where: Optional[Filter] = None) -> list[Hits]:
        """Search vectors exhaustively; the reference for approximate indexes."""
        now = self.generation
        return now.search_vectors(VECTORS, vectors, top_k, now.allowed(where), exactly=True)

    def verify(self) -> tuple[int, int]:
        """Read all files that index.json names; return their number, and their size in bytes.

        Raises `CheckpointError` for a file that is missing or has changed.
        """
        counts = [part.segment.verify() for part in self.generation.parts]
        counts += [(1, self.files.verify(name)) for name in sorted(self.file_names())]
        return sum(files for files, _ in counts), sum(size for _, size in counts)

    def file_names(self) -> set[str]:
        """Return the names of the files in documents' fields."""
        names = set[str]()
        for field in self.info.schema.files:
            for part in self.generation.parts:
                for value in part.segment.some_values(field.name, sys.maxsize, part.live)[0]:
                    names.update(map(str, value if isinstance(value, list) else [value]))
        return names

    def has_file(self, name: str) -> bool:
        fields = [field.name for field in self.info.schema.files if field.name in self.fields]
        return any(self.matching(None).count(Filter.of({field: name})) for field in fields)

    def documents(self) -> Iterator[Document]:
        return self.generation.documents()


def _statistics_of(queries: Union[Sequence[AnyQuery], Vectors]) -> Optional[CollectionStatistics]:
    """Return the collection statistics that the queries carry; None if they carry none."""
    first = queries[0] if len(queries) else None
    return first.statistics if isinstance(first, CountedQuery) else None
