"""Open segments of an index folder, as `index.json` listed them at one time, with masks of the removed documents."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from itertools import islice, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Optional
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.array_types import Booleans, Floats, Integers, Vectors
from paddle_ranker.errors import CheckpointError, brief
from paddle_ranker.lexical.analyser import ENGLISH, PART, Analyser, Phrase, analyser
from paddle_ranker.lexical.postings import text_hashes
from paddle_ranker.lexical.tokens import STANDARD, Tokenizer
from paddle_ranker.retrieval.stored.candidate_indexes import INDEXES, CandidateIndex, Document, Hits, IndexOptions
from paddle_ranker.retrieval.stored.manifest import IndexInfo
from paddle_ranker.retrieval.stored.schema import TEXT
from paddle_ranker.retrieval.stored.segments import Segment, id_key
from paddle_ranker.retrieval.values.facets import FieldScale, Scale
from paddle_ranker.retrieval.values.filters import Condition, Filter
from paddle_ranker.retrieval.values.typed_values import CommonTypes
from paddle_ranker.retrieval.vectors.vector_settings import FAISS, VectorsInfo
from paddle_ranker.retrieval.words.query_parsing import ParsedQuery, required_word
from paddle_ranker.retrieval.words.query_rewriting import WordQuery
from paddle_ranker.retrieval.words.word_search import AnyQuery, CollectionStatistics, WordPart, WordSearcher, texts_of
from paddle_ranker.retrieval.work.turns import check, checked, locking
from paddle_ranker.storage.untrusted import inside, open_array
from paddle_ranker.unicode.characters import fold

if TYPE_CHECKING:
    from paddle_ranker.retrieval.snapshots.vector_search import IndexedPart

# Sizes of caches. They hold word searchers with other weights or statistics, documents with a synonym of several words,
# and documents that meet a query's phrases and exclusions.
_WEIGHTED, _PHRASES, _KEPT = 2, 256, 8
_PARTLY = 0.5  # factor of `WordSearcher.title_shares` for a title that is not the whole query
_PASSAGES = 4  # vectors searched per wanted document; if too few documents are found, this many times as many


@dataclass(frozen=True)
class OpenSegment:
    """Segment of a generation.

    live: `[documents] bool`, which of its documents are not removed; None if none is removed
    first: number of its first document; a generation numbers all documents of its segments in order
    """

    segment: Segment
    live: Optional[Booleans]
    first: int

    @property
    def mask(self) -> Booleans:
        """Which documents are live, `[documents] bool`."""
        return np.ones(len(self.segment), bool) if self.live is None else self.live

    def has(self, row: int) -> bool:
        """Return whether the document in this row is live."""
        return self.live is None or bool(self.live[row])


class Location(NamedTuple):
    """Location of a document: index of its segment in `Generation.parts`, and its row in this segment."""

    part: int
    row: int


class Generation:
    """Immutable set of the segments that `index.json` listed at one time, open for reading."""

    def __init__(self, folders: Sequence[Path], info: IndexInfo, opened: dict[str, Segment]):
        """Open the segments.

        folders: the index folders that hold the segments
        opened: segments that are open already, by name
        """
        self.info, self.parts = info, []
        if info.states is not None:
            from paddle_ranker.retrieval.snapshots.stored_states import kind_of_states

            open_states = kind_of_states(folders[0]).open
        first = 0
        for entry in info.segments:
            segment = opened.get(entry.name) or Segment(folder_of(entry.name, folders) / entry.name, info.schema)
            live = None
            with segment.reading():
                if entry.count != len(segment):
                    raise ValueError(f"{len(segment):,} documents, not {entry.count:,}")
                if info.states is not None:
                    segment.open_states(open_states, info.states)
                if entry.deleted is not None:
                    removed: Integers = open_array(inside(segment.folder.parent, entry.deleted), sys.maxsize)  # type: ignore[assignment]
                    live = np.ones(len(segment), bool)
                    if removed.dtype.kind in "iu" and (removed >= 0).all():
                        live[removed] = False
                    if len(removed) != entry.removed or len(live) - np.count_nonzero(live) != entry.removed:
                        raise ValueError(f"{entry.deleted} does not name {entry.removed:,} of them")
            self.parts.append(OpenSegment(segment, live, first))
            first += len(segment)
        self._firsts = np.array([part.first for part in self.parts], np.int64)
        self._others: dict[str, CandidateIndex] = {}
        self._building = threading.Lock()
        # By weights and statistics; the searcher with the schema's weights stays the first.
        self._weighted: dict[tuple[object, ...], WordSearcher] = {}
        self._named: WeakKeyDictionary[WordQuery, list[NDArray[np.int64]]] = WeakKeyDictionary()
        self.kept = lru_cache(maxsize=_KEPT)(self._kept)
        self.find_phrase = lru_cache(maxsize=_PHRASES)(self._find_phrase)
        self._having_all = lru_cache(maxsize=_KEPT)(self._find_phrases)
        self.words = self.words_by({})
        self.vectors = {name: self._vector_parts(name, field.info) for name, field in info.vector_fields.items()}

    def words_by(
        self, fields: Mapping[str, float], statistics: Optional[CollectionStatistics] = None
    ) -> Optional[WordSearcher]:
        """Return the word searcher; None for an index without words.

        fields: weights by field, in place of the schema's
        statistics: statistics of the whole collection, if this generation is one shard

        Raises `UsageError` for a field that is not searched.
        """
        words, schema, parts = self.info.words, self.info.schema, []
        weights = schema.weights_by(fields)
        key = (*weights, statistics)
        if words is None or key in self._weighted:
            return self._weighted.get(key)
        for part in self.parts:
            if part.segment.postings is None:
                raise CheckpointError(f"{part.segment.folder}: has no words, as index.json says; copy the index again")
            parts.append(WordPart(part.segment.postings, part.live, part.first, partial(self._has_word, part)))
        tokenizers = schema.tokenizers(words.tokenizer)
        searcher = WordSearcher(parts, tokenizers, words.k1, words.b, weights, statistics, self.find_phrase)
        if len(self._weighted) > _WEIGHTED:
            self._weighted.pop(list(self._weighted)[1], None)
        return self._weighted.setdefault(key, searcher)

    def _has_word(self, part: OpenSegment, row: int, word: str) -> bool:
        """Return whether a document has a word as written, in a field that is not literal."""
        schema = self.info.schema
        texts = schema.searched(part.segment.document(row))
        return any(
            analyser(field.analyser).has_word(text, word)
            for field, items in zip(schema.words, texts)
            if not field.is_literal
            for text in items
        )

    def _vector_parts(self, name: str, info: VectorsInfo) -> list[IndexedPart]:
        from paddle_ranker.retrieval.snapshots.vector_search import IndexedPart
        from paddle_ranker.retrieval.vectors.exact_search import VectorPart

        indexed, first = list[IndexedPart](), 0
        for part in self.parts:
            vectors = part.segment.vectors.get(name)
            if vectors is None or not vectors.stored.have_form(len(vectors), info.size, info.dtype):
                folder = part.segment.folder
                raise CheckpointError(f"{folder}: has no such {name} as index.json says; copy the index again")
            index = part.segment.open_index(name, info) if info.method == FAISS else None
            live = None if part.live is None else vectors.of(part.live)
            indexed.append(IndexedPart(VectorPart(vectors.stored, live, first), index))
            first += len(vectors)
        return indexed

    @cached_property
    def fields(self) -> list[str]:
        """The names of the declared fields, and of further fields that documents have."""
        declared = {field.name for field in self.info.schema.fields} - {TEXT}
        return sorted(declared.union(*(part.segment.fields for part in self.parts)))

    def type_of(self, field: str) -> str:
        """Return the type of a field's values: the declared type, or else `CommonTypes.undeclared_type`."""
        return self.info.schema.type_of(field) or self.common_types(field).undeclared_type

    def common_types(self, field: str) -> CommonTypes:
        """Return the types that all values of a field fit, over all segments."""
        types = CommonTypes()
        for part in self.parts:
            types.merge(part.segment.common_types(field))
        return types

    def documents(self) -> Iterator[Document]:
        for part in self.parts:
            yield from (part.segment.document(row) for row in range(len(part.segment)) if part.has(row))

    def found_phrases(self, phrases: Sequence[str], *, required: bool = False) -> list[str]:
        """Choose phrases one by one, in order: a phrase if some document has it and all phrases chosen before it.

        required: whether to stop at the first phrase that is not chosen
        """
        existing = list(self._having_all(tuple(phrases))[0])
        if not required:
            return existing
        return [*takewhile(lambda phrase: phrase in existing, phrases)]

    def _find_phrase(self, phrase: str) -> list[NDArray[np.int32]]:
        """Return, for each segment, the rows of the live documents that have a phrase in a searched field."""
        masks = _Phrases(self, [phrase], exactly=True).having(0, [part.mask for part in self.parts])
        return [np.flatnonzero(mask).astype(np.int32) for mask in masks]

    def _find_phrases(self, phrases: tuple[str, ...]) -> tuple[list[str], list[Booleans]]:
        """Return the phrases that `found_phrases` chooses and, for each segment, which documents have all of them."""
        existing, masks, reader = list[str](), [part.mask for part in self.parts], _Phrases(self, phrases, exactly=True)
        for number, phrase in enumerate(phrases):
            have = reader.having(number, masks)
            if any(mask.any() for mask in have):
                existing.append(phrase)
                masks = have
        return existing, masks

    def _kept(self, query: ParsedQuery) -> list[Booleans]:
        """Return, for each segment, which documents have all phrases of a query and none of its exclusions."""
        existing, masks = self._having_all(query.phrases)
        if len(existing) < len(query.phrases):
            return [np.zeros(len(mask), bool) for mask in masks]
        reader = _Phrases(self, query.excluded, exactly=False)
        for number in range(len(query.excluded)):
            masks = [mask & ~has for mask, has in zip(masks, reader.having(number, masks))]
        return masks

    def search_other(
        self,
        name: str,
        queries: Sequence[str],
        top_k: int,
        allowed: Optional[Sequence[Booleans]],
    ) -> list[Hits]:
        """Search by an index of `INDEXES`, which is built from all documents when it is first used.

        allowed: for each segment, which documents may be found; None: all
        """
        with locking(self._building):
            if name not in self._others:
                tokenizer = self.info.words.tokenizer if self.info.words else IndexOptions().words
                self._others[name] = INDEXES[name].build(checked(self.documents()), IndexOptions(tokenizer))
        index, results = self._others[name], []
        for hits in index.search(queries, top_k if allowed is None else max(1, len(index))):
            kept = [*range(len(hits.ids))]
            if allowed is not None:
                locations = [*map(self.find(hits.ids).__getitem__, hits.ids)]
                kept = [n for n in kept if allowed[locations[n].part][locations[n].row]]
            results.append(Hits([hits.ids[n] for n in kept[:top_k]], hits.scores[kept[:top_k]]))
        return results

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Turn an `IndexError` of the block, which a damaged index causes, into a `CheckpointError`."""
        try:
            yield
        except IndexError as error:
            folder = self.parts[0].segment.folder.parent
            raise CheckpointError(f"{folder}: damaged ({brief(str(error))}); run index check on it") from error

    def segments(self) -> dict[str, Segment]:
        return {part.segment.name: part.segment for part in self.parts}

    def allowed(self, where: Optional[Filter]) -> Optional[list[Booleans]]:
        """Return, for each segment, which documents are live and meet a filter; None without a filter.

        Raises `FilterError` for an unknown field, and for a comparison that the field's type does not allow.
        """
        if where is None:
            return None
        typed = where.typed(self.fields, self.type_of)
        return [
            meet if part.live is None else meet & part.live
            for part in self.parts
            for meet in [part.segment.matching(typed)]
        ]

    def scaled(self, field: str, type: str, masks: Sequence[Booleans], most: int) -> FieldScale:
        """Return the distribution of the numbers or dates that documents have in a field of this type.

        masks: for each segment, which documents count
        most: bytes of the field's values in a segment above which the result `is_large`
        """
        scales = list[FieldScale]()
        for part, mask in zip(self.parts, masks):
            counts = part.segment.value_counts(field, mask)
            if counts.any() and (scale := part.segment.numeric_values(field, type)) is not None:
                kind, ranks, positions = scale
                of_values = ranks[: len(counts)]
                is_counted = of_values >= 0
                of_ranks = np.bincount(of_values[is_counted], counts[is_counted], len(positions))
                scales.append(FieldScale(Scale(kind, positions, of_ranks.astype(np.int64))))
            else:
                scales.append(FieldScale(None, has_others=bool(counts.any())))
        return FieldScale.merged(scales, any(part.segment.bytes_of(field) > most for part in self.parts))

    def search_vectors(
        self,
        name: str,
        queries: Vectors,
        k: int,
        allowed: Optional[Sequence[Booleans]],
        breadth: Optional[int] = None,
        exactly: bool = False,
    ) -> list[Hits]:
        """Return, for each query, the best `k` documents by their nearest vector, with the passage of that vector.

        name: name of the vector field
        queries: `[q, size]`
        allowed: for each segment, which documents may be found; None: all
        breadth: ef or nprobe of an approximate index; None: the index's default
        exactly: compare every vector, even if the segments have approximate indexes
        """
        from paddle_ranker.retrieval.snapshots.vector_search import IndexedPart, search_vectors

        parts, fields = self.vectors[name], [part.segment.vectors[name] for part in self.parts]
        if exactly:
            parts = [IndexedPart(indexed.part, None) for indexed in parts]
        if all(vectors.passages is None for vectors in fields):
            return self.hits(search_vectors(parts, queries, k, allowed, breadth))
        masks = None
        if allowed is not None:
            masks = [vectors.of(mask) for vectors, mask in zip(fields, allowed)]
        most, wanted = sum(len(indexed.part.vectors) for indexed in parts), _PASSAGES * k
        while True:
            results = search_vectors(parts, queries, wanted, masks, breadth)
            best = [self._first_of_each(name, numbers, scores, k) for numbers, scores in results]
            if wanted >= most or all(
                len(rows) == k or len(numbers) < wanted for (rows, _, _), (numbers, _) in zip(best, results)
            ):
                break
            wanted *= _PASSAGES
        hits = self.hits([(numbers, scores) for numbers, scores, _ in best])
        return [query_hits._replace(passages=spans) for query_hits, (_, _, spans) in zip(hits, best)]

    def _first_of_each(
        self, name: str, numbers: Integers, scores: Floats, k: int
    ) -> tuple[Integers, Floats, list[Optional[tuple[int, int]]]]:
        """Return the numbers, scores and passages of the first `k` documents of a list of vectors, best first.

        numbers, scores: numbers and scores of the vectors, best first
        """
        firsts = np.array([indexed.part.first for indexed in self.vectors[name]], np.int64)
        best: dict[int, tuple[int, Optional[tuple[int, int]]]] = {}  # rank and passage of the first vector, by document
        owners = (np.searchsorted(firsts, numbers, "right") - 1).tolist()
        for rank, (part, number) in enumerate(zip(owners, numbers.tolist())):
            row, span = number - int(firsts[part]), None
            if (passages := self.parts[part].segment.vectors[name].passages) is not None:
                row, start, end = passages[row].tolist()
                span = (start, end) if end else None
            best.setdefault(self.parts[part].first + row, (rank, span))
            if len(best) == k:
                break
        ranks = [rank for rank, _ in best.values()]
        return np.array([*best], np.int64), scores[ranks], [span for _, span in best.values()]

    def hits(self, results: Sequence[tuple[Integers, Floats]]) -> list[Hits]:
        """Convert the numbers and scores of each query's documents to hits."""
        if not results:
            return []
        numbers = np.concatenate([numbers for numbers, _ in results])
        if len(self.parts) == 1:
            ids = self.parts[0].segment.ids(numbers)
        else:
            ids = [""] * len(numbers)
            parts = np.searchsorted(self._firsts, numbers, "right") - 1
            for number in np.unique(parts).tolist():
                part, here = self.parts[number], np.flatnonzero(parts == number)
                for index, id in zip(here.tolist(), part.segment.ids(numbers[here] - part.first)):
                    ids[index] = id
        remaining = iter(ids)
        return [Hits(list(islice(remaining, len(scores))), scores) for _, scores in results]

    def with_titles(
        self,
        words: WordSearcher,
        query: AnyQuery,
        k: int,
        allowed: Optional[Sequence[Booleans]],
        numbers: Integers,
        scores: Floats,
    ) -> Hits:
        """Add the best `k` documents that are named by the whole query to hits by words, and score all titles.

        `Hits.titles` is 1 for a document of `named`. For another title it is half of `WordSearcher.title_shares`.

        numbers, scores: numbers and scores of the documents found by words, best first
        """
        titled = [np.empty(0, np.int64)]
        for number, (part, rows) in enumerate(zip(self.parts, self.named(query))):
            mask = part.live if allowed is None else allowed[number]
            titled.append(part.first + (rows if mask is None else rows[mask[rows]]))
        whole = np.concatenate(titled)
        if len(whole):
            check()
            whole_scores = words.scores_of(query, whole)
            best = np.lexsort((whole, -whole_scores))[:k]
            whole, whole_scores = whole[best], whole_scores[best]
            is_new = ~np.isin(whole, numbers)
            numbers, scores = np.concatenate([numbers, whole[is_new]]), np.concatenate([scores, whole_scores[is_new]])
            order = np.lexsort((numbers, -scores))
            numbers, scores = numbers[order], scores[order]
        titles = _PARTLY * words.title_shares(query, self.info.schema.title_index, numbers)
        titles[np.isin(numbers, whole)] = 1.0
        (hits,) = self.hits([(numbers, scores)])
        return hits._replace(titles=titles) if titles.any() else hits

    def named(self, query: AnyQuery) -> list[NDArray[np.int64]]:
        """Return, for each segment, the rows of the documents whose title, id or value is the whole query, ascending.

        A title is compared with the query as typed and as corrected, without case, width, spaces and punctuation. Ids
        are compared as typed; if none is equal, by `id_key`. Ids do not count if documents have numbers as ids because
        they came without. A value of a searched field of numbers, dates, keywords or codes is compared with what
        `Field.readings` reads; the first reading that a document has counts. The rows may be of removed documents.
        The result is cached as long as the query lives.
        """
        if not isinstance(query, WordQuery):
            return self._find_named(query)
        named = self._named.get(query)
        if named is None:
            named = self._named[query] = self._find_named(query)
        return named

    def _find_named(self, query: AnyQuery) -> list[NDArray[np.int64]]:
        texts = texts_of(query)
        typed = texts[0].strip()
        keys = [key for text in texts if (key := self.info.schema.title_key(text))]
        found = [[part.segment.rows_of_titles(keys)] for part in self.parts]
        segments = [part.segment for part in self.parts]
        ways = list[list[Callable[[Segment], NDArray[np.int64]]]]()
        if self.info.next_id == 1 and typed:
            hashes = text_hashes([typed])
            ways.append(
                [
                    lambda segment: np.array([row for _, row in segment.rows_of_ids([typed], hashes)], np.int64),
                    lambda segment: segment.rows_of_id_keys([id_key(typed)]),
                ]
            )
        for field in self.info.schema.words:
            values = field.readings(typed) if field.name in self.fields else []
            conditions = [Condition(field.name, "=", (value,), self.type_of(field.name)) for value in values]
            ways.append([partial(Segment.rows_of_value, condition=condition) for condition in conditions])
        for either in ways:
            for rows_in in either:
                rows = [rows_in(segment) for segment in checked(segments)]
                if any(map(len, rows)):
                    for found_rows, more in zip(found, rows):
                        found_rows.append(more)
                    break
        return [np.unique(np.concatenate(rows)) for rows in found]

    def find(self, ids: Sequence[str]) -> dict[str, Location]:
        """Return the location of each live document whose id is in `ids`, by id."""
        hashes, locations = text_hashes(ids), {}
        for number, part in enumerate(self.parts):
            for index, row in checked(part.segment.rows_of_ids(ids, hashes)):
                if part.has(row):
                    locations[ids[index]] = Location(number, row)
        return locations

    def find_texts(self, texts: Sequence[str]) -> dict[str, Location]:
        """Return the location of the first live document with each text, by text.

        texts: texts of documents as `Schema.identity` returns them
        """
        wanted, locations = list(dict.fromkeys(texts)), dict[str, Location]()
        for number, part in enumerate(self.parts):
            for index, row in part.segment.rows_of_texts(wanted, text_hashes(wanted), part.live):
                locations[wanted[index]] = Location(number, row)
            wanted = [text for text in wanted if text not in locations]
        return locations

    def segment_at(self, location: Location) -> Segment:
        return self.parts[location.part].segment

    def document_at(self, location: Location) -> Document:
        return self.segment_at(location).document(location.row)


class _Phrases:
    """Finder of the documents that have the phrases of a query in a searched field.

    If a phrase is a single token of every field, such as one or two ideographs, the postings tell which documents have
    it. Otherwise the texts of documents with the phrase's tokens are read. A text that is read for one phrase is also
    checked for the phrases after it, so that no text is read twice.

    Args:
        exactly: whether a phrase of one word must occur as written. A `required_word` may always occur with the same
            stem, or, if it has several parts (t-shirt), as a `Phrase` with a language.
    """

    def __init__(self, generation: Generation, phrases: Sequence[str], *, exactly: bool):
        schema, words = generation.info.schema, generation.info.words
        tokenizers = schema.tokenizers(words.tokenizer if words is not None else STANDARD)
        self._parts, self._schema = generation.parts, schema
        self._folds = [tokenizer.fold if isinstance(tokenizer, Analyser) else fold for tokenizer in tokenizers]
        folding = list(zip(self._folds, tokenizers))
        words_of_phrases = [*map(required_word, phrases)]
        written = [word or phrase for word, phrase in zip(words_of_phrases, phrases)]
        by_stems = [not exactly or word is not None for word in words_of_phrases]
        self._phrases = [
            [Phrase(folded(phrase), _language_of(tokenize) if by_stem else "") for folded, tokenize in folding]
            for phrase, by_stem in zip(written, by_stems)
        ]
        self._have, self._may_have = list[list[Booleans]](), list[list[Booleans]]()  # for each phrase and part
        for alike, by_stem in zip(self._phrases, by_stems):
            have, may_have = ([np.zeros(len(part.segment), bool) for part in self._parts] for _ in range(2))
            by_tokenizer = dict(zip(tokenizers, alike))
            for tokenize, phrase in by_tokenizer.items():
                terms = tokenize.phrase_terms(phrase.text) if isinstance(tokenize, Analyser) else []
                if generation.words is None:
                    masks = [np.ones(len(part.segment), bool) for part in self._parts]
                else:
                    masks = generation.words.may_have(terms)
                may_have = [may | mask for may, mask in zip(may_have, masks)]
                if generation.words is not None and phrase.joined:
                    have = [has | mask for has, mask in zip(have, generation.words.may_have([(phrase.joined,)]))]
                if generation.words is None or len(terms) != 1:
                    continue
                if terms[0] == (phrase.text,) and (len(by_tokenizer) == 1 or by_stem):
                    have = [has | mask for has, mask in zip(have, masks)]
                elif by_stem and PART + phrase.text in terms[0] and not phrase.text.isdecimal():
                    masks = generation.words.may_have([terms[0][:2]])
                    have = [has | mask for has, mask in zip(have, masks)]
            self._have.append(have)
            self._may_have.append([may & ~has for may, has in zip(may_have, have)])

    def having(self, number: int, among: Sequence[Booleans]) -> list[Booleans]:
        """Return, for each segment, which of the documents `among` have the phrase at index `number`."""
        following = range(number, len(self._phrases))
        for index, (part, mask) in enumerate(zip(self._parts, among)):
            for row in checked(np.flatnonzero(mask & self._may_have[number][index]).tolist()):
                fields = self._schema.searched(part.segment.document(row))
                folded = [[fold(text) for text in texts] for fold, texts in zip(self._folds, fields)]
                for other in checked(following):
                    may_have = self._may_have[other][index]
                    if may_have[row]:
                        pairs = zip(self._phrases[other], folded)
                        matches = (phrase.matches(text) for phrase, texts in pairs for text in texts)
                        self._have[other][index][row] = any(any(checked(of_text)) for of_text in matches)
                        may_have[row] = False
        return [has & mask for has, mask in zip(self._have[number], among)]


def _language_of(tokenize: Tokenizer) -> str:
    """Return the language of an analyser's stems; "" for another tokenizer, which has none."""
    return tokenize.language or ENGLISH if isinstance(tokenize, Analyser) else ""


def folder_of(segment: str, folders: Sequence[Path]) -> Path:
    """Return the index folder that holds a segment; if no folder does, the first folder."""
    return next((folder for folder in folders if (folder / segment).is_dir()), folders[0])
