"""A search of a collection, and its stages: by words, by vectors, by both, and then by a ranker.

The stages are methods of `Search`. `run_searches` of `retrieval/stages/search_engine.py` runs them in order.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import TYPE_CHECKING, Optional, Union

import numpy as np

from paddle_ranker.array_types import Floats, Vectors
from paddle_ranker.errors import ParameterError, listed, quoted, refuse_text, spelling_hint
from paddle_ranker.lexical.postings import Hashes, text_hashes
from paddle_ranker.retrieval.index.floors import FEWEST, is_nothing_close
from paddle_ranker.retrieval.snapshots.searchable import LookupRequest, Matching, Snapshot
from paddle_ranker.retrieval.stages.fusion import (
    FEATURE_DEPTH,
    SEARCHER_FEATURES,
    TITLE,
    Candidates,
    FeatureParts,
    Fusion,
    ListFeatures,
    by_score,
)
from paddle_ranker.retrieval.stages.results import Result, SearcherScore
from paddle_ranker.retrieval.stored.candidate_indexes import Document, Hits, Like, LikeError
from paddle_ranker.retrieval.stored.manifest import WORDS, IndexInfo
from paddle_ranker.retrieval.stored.schema import PLACES
from paddle_ranker.retrieval.values.bounds import MOST_SHOWN, check_names, check_sort
from paddle_ranker.retrieval.values.facets import DATES
from paddle_ranker.retrieval.values.filters import Filter
from paddle_ranker.retrieval.values.listing import CONTENT, Listing, Position, SortedPosition
from paddle_ranker.retrieval.values.search_defaults import DEPTH, RANK_TOP
from paddle_ranker.retrieval.vectors.vector_settings import EXACT
from paddle_ranker.retrieval.words.query_parsing import ParsedQuery, parse_query, required_word
from paddle_ranker.retrieval.words.query_rewriting import PREFIX, WordQuery, corrected_phrases
from paddle_ranker.retrieval.words.word_search import QUERY_TYPES, AnyQuery, single_token
from paddle_ranker.retrieval.work.turns import check, checked, once, reserve

if TYPE_CHECKING:
    from paddle_ranker.encoding.pair_encoder import PairEncoder
    from paddle_ranker.lexical.highlights import Highlight, SharedWords
    from paddle_ranker.lexical.passages import Span
    from paddle_ranker.retrieval.stages.ranker_texts import TokenCounter
    from paddle_ranker.retrieval.stored.places import PlaceInFile
    from paddle_ranker.retrieval.words.synonyms import Synonyms
    from paddle_ranker.scoring.table_answers import TableAnswer

Where = Union[None, str, Iterable[str], Mapping[str, object], Filter]
_READ_AT_ONCE = 32  # documents that are in memory while a ranker's texts are made
RANK, FEATURES = "rank", "features"  # names of stages
_ABOVE = 1e-6  # distance of the last document that features order from the best of the others
_CLOSE = 0.1  # if the best document's probability is lower, no document is close
# A document is close by words if it has this share of the query's weight, or, beside the heaviest word that it has, the
# second share: a single word of a query about other things is in some document of any collection. Long questions and
# claims share as little as a quarter with the documents that answer them (python -m benchmarks.defaults). A tower that
# can tell says of few queries with an answer that nothing is close: words must say more against it.
_CLOSE_SHARES, _CLOSE_AGAINST_VECTORS = (0.38, 0.14), (0.5, 0.25)
_FIRST = 10  # documents, the first by words, that are looked at for this


@dataclass(frozen=True)
class SearchSettings:
    """Settings for searching an index.

    by: names of searchers; empty: all that the index has, or only `words` with `prefix`
    fusion: fuses the searchers' lists
    depth: number of documents that each searcher returns for fusion; at least as many as are shown or ranked
    rank_top: number of documents, the first of the fused list, that the ranker orders; 0: no ranking
    ef, nprobe: breadth of the search in an approximate index; None: the index's default
    literal: queries are searched as written: without corrections, synonyms, phrases and exclusions
    prefix: the last word of a query is unfinished
    synonyms: synonyms of words in queries
    milvus_uri: address of the Milvus server with the index's vectors, see `Collection.open`
    """

    by: tuple[str, ...] = ()
    fusion: Fusion = field(default_factory=Fusion)
    depth: int = DEPTH
    rank_top: int = RANK_TOP
    ef: Optional[int] = None
    nprobe: Optional[int] = None
    literal: bool = False
    prefix: bool = False
    synonyms: Optional[Synonyms] = None
    milvus_uri: Optional[str] = None


_WHOLE_LIST = Listing()


class Search:
    """Search of a snapshot, with a method for each stage, from `choose_searchers` to `finish`.

    Documents are named by rows: their indices in `candidates`. A stage calls `turns.check` between its steps, which
    lets other searches run.

    Args:
        collection: the snapshot that is searched.
        text: the query, as text or parsed.
        searchers: names of the searchers.
        settings: how the snapshot is searched; if `rank_top` is 0, nothing is ranked.
        listing: which documents are shown.
        like: an example, a document or a file. If the example has a vector in a vector field, the field is searched for
            this vector. If the query has no words, nothing else is searched. The example itself is never a result.

    Attributes:
        query: the parsed query.
        text: the query's words.
        is_browsing: whether the query has no words, and there is no `like`: then documents are listed, not searched.
        sort: fields that order the list; of a list without a query, the first field of dates, newest first, if there
            is one.
        is_sorted: whether fields order the list, or, without any, the documents' own order does.
        candidates: the searchers' lists, joined; set by `fuse`.
        best: best score by searcher.
        fused: fused scores, `[candidates]`; `order_by_features` replaces the scores of the first documents.
        fused_rank: rank after fusion, from 1, by row.
        by_feature: parts of the fused scores by features, by row; set by `order_by_features`.
        by_whole_title: summand of each fused score for a title that is the query, `[candidates]`.
        order: rows, best first; each stage may reorder or shorten this list.
        whole: ids of documents that the ranker reads whole, by index of the document's text in the result of `to_rank`.
        passages: spans of the texts that `to_rank` returned, by row.
        logits, probabilities: the ranker's scores, by row; set by `rank`.
        is_calibrated: whether `probabilities` are calibrated.
        cut: number of documents below `min_probability`; set by `finish`.
        shown: rows of the documents that are shown.
        documents: the documents that are shown, by id.
        answer_of: called with the index of a text in the result of `to_rank`; returns the cells of this table that
            answer the query, None for another text. The attribute is None if the ranker names no cells.
        similar: ids of documents left out as near duplicates, by row of the document that is shown in their place.
        read_by: for each searcher whose tower cuts the query, the number of code points that the tower reads.
        spans: parts of stages, as (name, begin, end) on `time.monotonic()`'s clock, in the order of their ends; at last
            the whole search, "total".
        degraded: names of the searchers and stages that were left out, because they would miss the deadline, or because
            the model behind a URL fails.
    """

    def __init__(
        self,
        collection: Snapshot,
        text: Union[str, ParsedQuery],
        searchers: Sequence[str],
        settings: SearchSettings,
        listing: Listing = _WHOLE_LIST,
        like: Optional[Like] = None,
    ):
        refuse_text(searchers, "searchers")
        if isinstance(text, str):
            text = parse_query(text, literal=settings.literal)
        self.query, self.text = text, text.text
        self.collection, self.searchers, self.settings = collection, tuple(searchers), settings
        self.top_k, self.offset, self.after, self.where = listing.top_k, listing.offset, listing.after, listing.where
        self.min_probability = listing.min_probability
        self.group_by, self.group_size = listing.group_by, listing.group_size
        self.fusion = restrict_fusion(settings.fusion, searchers)
        if listing.sort:
            check_sort(listing.sort, collection.fields)
        if listing.group_by is not None:
            check_names("group_by", [listing.group_by], [*collection.fields, CONTENT])
        self.like, self.like_vectors = like, dict[str, Vectors]()
        self.is_browsing = like is None and not self.has_words
        self.sort = listing.sort or (_newest_first(collection) if self.is_browsing else ())
        self.is_sorted = self.is_browsing or bool(self.sort)
        if self.after is not None and not self.after.fits(self.sort if self.is_sorted else None, self.group_by):
            raise ParameterError("after", "is a position in a list of another order")
        self.logits: dict[int, float] = {}
        self.added: dict[str, dict[int, float]] = {}  # by signal: summand of each ranked document's logit, by row
        self.by_feature: dict[int, FeatureParts] = {}
        self.probabilities: dict[int, float] = {}
        self.passages: dict[int, tuple[int, int]] = {}
        self.whole: dict[int, str] = {}
        self._scored_as: dict[int, int] = {}  # by row of a ranked document: index of its text in `to_rank`
        # By id of a document that was found by a vector: the vector's passage; its piece of a recording (`pieces_of`).
        self._vector_spans: dict[str, Span] = {}
        self._pieces: dict[str, Span] = {}
        self.documents: dict[str, Document] = {}
        self.similar: dict[int, list[str]] = {}
        self.answer_of: Optional[Callable[[int], Optional[TableAnswer]]] = None
        self._answers: dict[int, Optional[TableAnswer]] = {}  # by row, for `answer`
        self.read_by: dict[str, int] = {}
        self.spans: list[tuple[str, float, float]] = []
        self.degraded: list[str] = []
        self.is_calibrated = False
        self.best = dict[str, float]()
        self.cut = 0
        self._unfinished: list[int] = []  # the order before `finish`, which may be called again
        self._begins = 0  # row in `order` of the first document that is shown

    @property
    def took(self) -> dict[str, float]:
        """Milliseconds by stage."""
        took: dict[str, float] = {}
        for stage, begin, end in self.spans:
            took[stage] = round(took.get(stage, 0.0) + 1000 * (end - begin), 3)
        return took

    @property
    def is_ranked(self) -> bool:
        return bool(self.logits)

    @property
    def wants_ranking(self) -> bool:
        """Whether the ranker orders the first documents.

        False if `rank_top` is 0, if the list is sorted by fields, if the query has no words, if no document is found,
        and if the page before was not ranked.
        """
        is_ranked = not isinstance(self.after, Position) or self.after.is_ranked
        return bool(self.settings.rank_top and self.order and is_ranked and not self.is_sorted and self.has_words)

    @property
    def has_words(self) -> bool:
        """Whether the query has words, phrases or exclusions."""
        return bool(self.query.text.strip() or self.query.phrases or self.query.excluded)

    @property
    def shards(self) -> Optional[Mapping[str, int]]:
        """Counts of shards elsewhere: `total`, and `failed` (left out of this search); None if all shards are local."""
        return self.collection.shards

    @property
    def is_exact(self) -> bool:
        """Whether no approximate index of vectors (faiss, Milvus) is searched; always True for a sorted list."""
        fields = self.collection.info.vector_fields
        return self.is_sorted or all(fields[name].info.method == EXACT for name in self.searchers if name in fields)

    @once
    def words(self) -> WordQuery:
        """The query with corrections and synonyms; if words are not searched, with clear corrections alone.

        The query is as typed if only fields of files are searched (see `tower_text`), or with `literal`.
        """
        if self.is_browsing or self.settings.literal or all(map(self._has_files, self.searchers)):
            return WordQuery(self.text, self.text)
        if WORDS in self.searchers:
            return self.collection.rewrite_query(self.query, self.settings.prefix, self.settings.synonyms)
        read = self.collection.rewrite_query(self.query)
        return WordQuery(
            self.text, read.text, corrected=tuple(correction for correction in read.corrected if correction.is_clear)
        )

    @once
    def phrase_filter(self) -> Optional[ParsedQuery]:
        """The phrases that results must have, and the phrases that results must not have; None without either."""
        return self.collection.phrase_filter(replace(self.query, phrases=self._required))

    @once
    def _required(self) -> tuple[str, ...]:
        """The query's phrases; of a required word that no document has, its correction."""
        if not any(map(required_word, self.query.phrases)):
            return self.query.phrases
        return corrected_phrases(self.query.phrases, self.words, self.collection.info.schema.analyser)

    @property
    def phrases(self) -> list[str]:
        """The phrases that all results have."""
        return [] if self.phrase_filter is None else [*self.phrase_filter.phrases]

    @property
    def unfound(self) -> list[str]:
        """The query's phrases that the search ignores: no document has such a phrase and all phrases kept before it."""
        phrases = self.phrases
        return [phrase for phrase in self._required if phrase not in phrases]

    @property
    def model_text(self) -> str:
        """The query as rankers and towers of texts read it, with its clear corrections."""
        return self.words.text

    def tower_text(self, searcher: str) -> str:
        """The query as a searcher's tower reads it: as typed for fields of files, else `model_text`.

        Corrections come from the words of the index's texts, but pictures show things that no text names: a poodle is
        no mistyped noodle.
        """
        return self.text if self._has_files(searcher) else self.model_text

    def _has_files(self, searcher: str) -> bool:
        return any(field.name == searcher for field in self.collection.info.schema.files)

    def choose_searchers(self) -> None:
        """Compute the vector of `like` in each vector field, `[1, size]`; drop searchers with nothing to search for.

        A vector field with such a vector is always kept. Another searcher is dropped if the query has no words, or if
        its tower reads no texts. Raises `LikeError` if no searcher is left, or if `like` is unknown or has no vector.
        """
        fields = self.collection.info.vector_fields
        if self.like is not None:
            if self.like.id and self.collection.missing([self.like.id]):
                raise LikeError(f"there is no document {quoted(self.like.id)}")
            for name in filter(fields.__contains__, self.searchers):
                if len(vectors := self.collection.like_vectors(name, self.like)):
                    self.like_vectors[name] = vectors
            if not self.like_vectors:
                what = f"document {quoted(self.like.id)}" if self.like.id else f"a {self.like.kind}"
                problem = f"{what} has no vector in any of {listed(self.searchers)}, which are searched"
                raise LikeError(f"{problem}; build the index with --tower or --field_tower")
        texts = {name for name in self.searchers if name not in fields or fields[name].reads_texts}
        usable = {*self.like_vectors, *(texts if self.has_words else ())}
        if not usable:
            raise LikeError(f"is required, because towers of {listed(self.searchers)} read no texts")
        if not usable.issuperset(self.searchers):
            self.searchers = tuple(filter(usable.__contains__, self.searchers))
            self.fusion = restrict_fusion(self.settings.fusion, self.searchers)

    def leave_out(self, stage: str, error: Exception) -> None:
        """Go on without a searcher or the ranker, and record it in `degraded`; raise `error` if nothing is left."""
        if stage in self.searchers:
            if self.searchers == (stage,):
                raise error
            self.searchers = tuple(name for name in self.searchers if name != stage)
            self.fusion = restrict_fusion(self.settings.fusion, self.searchers)
        self.degraded.append(stage)

    def begin_lookup(
        self, searcher: str, queries: Union[Sequence[AnyQuery], Vectors, None] = None
    ) -> Callable[[], list[Hits]]:
        """Begin to search by one searcher; return a function that waits for the hits for each query.

        queries: queries of this search and of further searches with the same settings: vectors `[n, size]`, or texts,
            whose vectors the index's tower computes if `searcher` is a vector field. None: the query of this search
        """
        if queries is None:
            queries = [self.words if searcher == WORDS else self.tower_text(searcher)]
        refuse_text(queries, "queries", *QUERY_TYPES)
        settings, has_vectors = self.settings, searcher in self.collection.info.vector_fields
        breadth = (settings.ef, settings.nprobe) if has_vectors else (None, None)
        if has_vectors and not isinstance(queries, np.ndarray):
            queries = self.collection.tower(searcher).query_vectors([str(query) for query in queries])
        fields = self.fusion.fields if searcher == WORDS else {}
        asking = LookupRequest(
            searcher, queries, self._depth, self.where, *breadth, fields, self.phrase_filter, searcher == WORDS
        )
        return self.collection.begin_search(asking)

    @property
    def _depth(self) -> int:
        most = max(self.settings.depth, self.top_k, self.settings.rank_top)
        return most + 1 if self.like is not None and self.like.id else most

    def fuse(self, hits: Mapping[str, Hits]) -> None:
        """Fuse the hits of all searchers to one list; equal scores are ordered by id."""
        if self.like is not None and self.like.id:
            hits = {name: searcher_hits.without(self.like.id) for name, searcher_hits in hits.items()}
        self.best = {name: max(hits[name].scores, default=0.0) for name in self.searchers}
        self.candidates = Candidates.of({name: hits[name] for name in self.searchers}, self.fusion.title)
        self.by_feature = {}
        files = {field.name for field in self.collection.info.schema.files}
        self._vector_spans, self._pieces = {}, {}
        for name, searcher_hits in hits.items():
            spans = self._pieces if name in files else self._vector_spans
            spans.update(
                (id, span) for id, span in zip(searcher_hits.ids, searcher_hits.passages or ()) if span is not None
            )
        scores = self.fusion.fused(self.candidates)
        self.by_whole_title = self.fusion.titles_share(self.candidates.titled, scores)
        self._set_fused(scores + self.by_whole_title)

    def _set_fused(self, scores: Floats) -> None:
        self.fused: Floats = scores
        self.order = by_score(self.fused, self.candidates.ids)
        self.fused_rank = {row: rank for rank, row in enumerate(self.order, start=1)}

    def list_features(self) -> tuple[list[int], ListFeatures]:
        """Return the rows of the first documents of the fused list, best first, and their features.

        Features of texts are computed from the part of each text that a ranker of 128 tokens would read.
        """
        from paddle_ranker.lexical.features import list_features
        from paddle_ranker.retrieval.stages.ranker_texts import EstimatedTokens

        top, texts = self.order[:FEATURE_DEPTH], dict[int, str]()
        for documents in self._documents_at(top):
            texts.update(zip(documents, (text for _, text in self.read([*documents.values()], EstimatedTokens()))))
        tokenize = self.collection.info.schema.analyser
        weights = self._word_weights or dict.fromkeys(tokenize(self.model_text), 1.0)
        top_texts = [texts.get(row, "") for row in top]
        of_texts = list_features(self.model_text, weights, checked(top_texts), tokenize)
        return top, ListFeatures.of(self.candidates, top, self.fused[top], of_texts)

    def order_by_features(self) -> None:
        """Order the first documents of the fused list by `Fusion.features`; the rest of the list stays as it is."""
        if not self.order or not self.has_words:
            return
        top, features = self.list_features()
        by_feature = self.fusion.by_feature(features)
        of_searchers = len(features.searchers) * len(SEARCHER_FEATURES)
        by_searcher = by_feature[:, :of_searchers].reshape(len(top), -1, len(SEARCHER_FEATURES)).sum(axis=2)
        scores = by_feature.sum(axis=1)
        titles = self.fusion.titles_share(self.candidates.titled[top], scores)
        scores, fused = scores + titles, self.fused.copy()
        others = fused[self.order[len(top) :]]
        above = float(others.max() - scores.min()) + _ABOVE if len(others) else 0.0
        fused[top], self.by_whole_title[top] = scores + above, titles
        for number, row in enumerate(top):
            added = dict(zip(features.names[of_searchers:], by_feature[number, of_searchers:].tolist()))
            self.by_feature[row] = FeatureParts(by_searcher[number], added, above)
        self._set_fused(fused)

    def find_sorted(self) -> None:
        """Set the candidates to the first matching documents, after the position `after` if it is set, by `sort`.

        This stage replaces `fuse` in a sorted list.
        """
        after = self.after.last if isinstance(self.after, SortedPosition) else None
        count = self.offset + self.top_k + 1  # the last document shows that another page follows
        count = count if self.group_by is None else max(self._depth, count)
        self._sorted = self._matches.first(self.sort, count, after, self.where)
        self.candidates = Candidates.unscored([entry.id for entry in self._sorted])
        self._vector_spans, self.fused, self.order = {}, np.zeros(len(self._sorted)), [*range(len(self._sorted))]

    def to_rank(self, encoder: Optional[PairEncoder] = None) -> list[str]:
        """Cut the first documents with `read`; return the distinct texts that the ranker must score."""
        top, texts, whole = self.order[: self.settings.rank_top], dict[int, str](), list[int]()
        for documents in self._documents_at(top):
            for (row, document), (span, text) in zip(documents.items(), self.read([*documents.values()], encoder)):
                self.passages[row], texts[row] = span, text
                if span == (0, len(document.text)):
                    whole.append(row)
        reserve(sum(map(sys.getsizeof, texts.values())))
        # Equal texts are scored once: in two batches their logits would differ in the last digits, and not be ties.
        numbers = {text: number for number, text in enumerate(dict.fromkeys(texts[row] for row in top))}
        self._scored_as = {row: numbers[texts[row]] for row in top}
        self.whole = {numbers[texts[row]]: self.candidates.ids[row] for row in whole}
        return list(numbers)

    def _documents_at(self, rows: Sequence[int]) -> Iterator[dict[int, Document]]:
        """Yield the documents of the candidates at `rows`, a few at a time, by row, in any order."""
        row_of = {self.candidates.ids[row]: row for row in rows}
        documents = self.collection.each([*row_of])
        while batch := {row_of[id]: document for id, document in islice(documents, _READ_AT_ONCE)}:
            yield batch

    def read(self, documents: Sequence[Document], encoder: Optional[TokenCounter] = None) -> list[tuple[Span, str]]:
        """Cut documents for a ranker; return, for each, the span of its text that the ranker reads, and the input text.

        The span is the passage whose vector was found, else the whole text. If the ranker cannot read a span whole, the
        span is cut to the part with most of the query's words. The schema's template makes the input text of the span.

        encoder: encoder of the ranker's pairs; None if the ranker reads any length
        """
        refuse_text(documents, "documents", Document)
        from paddle_ranker.retrieval.stages.ranker_texts import texts_for_ranker

        refuse_text(documents, "documents", Document)
        return texts_for_ranker(
            self.collection, documents, encoder, self.model_text, lambda: self._word_weights, self._vector_spans
        )

    def rank(self, logits: Floats, probabilities: Floats, *, is_calibrated: bool = False) -> None:
        """Order the documents of `to_rank` by the sum of logit, weighted share, signals and title bonus.

        `Fusion.shares`, `Fusion.added` and `Fusion.titles_share` give the summands. Equal sums are ordered by id.

        logits, probabilities: the ranker's scores of the texts that `to_rank` returned, `[texts]`
        is_calibrated: whether the probabilities are calibrated
        """
        self.is_calibrated = is_calibrated
        numbers = [*self._scored_as.values()]
        logits, probabilities = logits[numbers], probabilities[numbers]
        top = self.order[: len(logits)]
        weight = self.fusion.recall_weight
        shares = self.fusion.shares(self.candidates)[top] if weight else np.zeros(len(top))
        added = self.fusion.added(self.candidates, top, self.collection.values)
        self.added = {name: dict(zip(top, values.tolist())) for name, values in added.items()}
        scores = logits + weight * shares + sum(added.values())
        titled = self.candidates.titled[top]
        if titled.any():
            title_scores = self.fusion.titles_share(titled, scores)
            scores, self.added[TITLE] = scores + title_scores, dict(zip(top, title_scores.tolist()))
        order = by_score(scores, [self.candidates.ids[row] for row in top])
        self.order[: len(top)] = [top[number] for number in order]
        self.logits = dict(zip(top, logits.tolist()))
        self.probabilities = dict(zip(top, probabilities.tolist()))

    def finish(self) -> None:
        """Leave out documents below `min_probability`, group the rest, and choose the documents that are shown."""
        self._unfinished = self._unfinished or self.order
        order, ids = self._unfinished, self.candidates.ids
        order = [row for row in order if not self.is_cut(row)]
        cut = len(self._unfinished) - len(order)
        before = set[int]()
        if isinstance(self.after, Position):  # shown documents come first, so that they stay the first of their groups
            is_shown = np.isin(self._hashes(order), self.after.hashes)
            before = {row for row, is_so in zip(order, is_shown.tolist()) if is_so}
            order = [*filter(before.__contains__, order), *(row for row in order if row not in before)]
        if self.group_by is not None:
            order = self._grouped(order, self.group_by)
        self._begins = self.offset
        if isinstance(self.after, SortedPosition):
            self._begins, self.offset = 0, self.after.shown
        elif self.after is not None:
            self._begins, self.offset = sum(row in before for row in order), len(self.after.hashes)
        shown = order[self._begins : self._begins + self.top_k]
        self.documents = self.collection.documents_of([ids[row] for row in shown])
        self.cut, self.order, self.shown = cut, order, shown

    @once
    def nothing_close(self) -> bool:
        """Whether no document is close to the query.

        If a calibrated ranker has scored documents: whether all probabilities are below 0.1. Otherwise: whether no
        vector searcher's best score is above its floor (see `floors`), and none of the first documents by words has
        enough of the query's words (see `_has_close_words`), more of them if a vector searcher can tell; False if the
        index has few documents, or lacks floors.
        Always False if the list is sorted by fields, if the last word is unfinished, if documents have a phrase of
        the query, and if the query names documents (see `Generation.named`).
        """
        if self.is_sorted or self.settings.prefix or self.phrases or self.candidates.titled.any():
            return False
        if self.is_calibrated and self.probabilities:
            return max(self.probabilities.values()) < _CLOSE
        info = self.collection.info
        vectors = {name: score for name, score in self.best.items() if name != WORDS}
        by_words = WORDS in self.searchers
        if info.count < FEWEST or (vectors and info.floors is None):
            return False
        found_by_words = self.best.get(WORDS, 0.0) > 0
        if info.floors is not None and not is_nothing_close(vectors, info.floors, by_words, found_by_words):
            return False
        tells = info.floors is not None and info.floors.can_tell(vectors)
        return not (by_words and self._has_close_words(*(_CLOSE_AGAINST_VECTORS if tells else _CLOSE_SHARES)))

    def _has_close_words(self, share: float, beside_one: float) -> bool:
        """Return whether one of the first documents by words, wherever shown, has enough of the query's weight.

        Enough is `share` of it; or `beside_one` of it beside the document's heaviest word, with the parts of this
        word, such as the characters of a pair. The other words count as much as they add to the document's score, and
        no more than their weight: a text of many pages has some words of any query once.
        """
        ranks = self.candidates.ranks[:, self.candidates.searchers.index(WORDS)]
        ids = [self.candidates.ids[row] for row in np.flatnonzero((ranks > 0) & (ranks <= _FIRST)).tolist()]
        total = self.collection.query_weight(self.words)
        explained = (self.collection.explain_words(self.words, some, self.fusion.fields) for some in (ids[:1], ids[1:]))
        for added in chain.from_iterable(some.values() for some in explained):  # mostly the first document has enough
            weights = {token: self._word_weights[token] for token in added}
            words = ({part for part in weights if part in token} for token in weights)
            heaviest = max(words, key=lambda parts: sum(map(weights.__getitem__, parts)), default=set[str]())
            whole = sum(weights[part] for part in heaviest)
            beside = sum(min(weights[token], score) for token, score in added.items() if token not in heaviest)
            if whole + beside >= share * total or beside >= beside_one * total:
                return bool(whole)
        return False

    def is_cut(self, row: int) -> bool:
        """Return whether a candidate's probability is below `min_probability`; False if the candidate is not ranked."""
        return self.probabilities.get(row, 1.0) < self.min_probability

    def dropped(self) -> dict[int, int]:
        """Return the documents that the ranker has removed from the first page: rank after ranking, by row.

        The ranker moved such a document behind the page, or gave it a probability below `min_probability`. The
        documents are added to `documents`. Documents that grouping leaves out do not count. The result is empty for a
        later page, for a list that is not ranked, and for a list that is sorted by fields.
        """
        if not self.is_ranked or self.offset or self.after is not None or self.is_sorted:
            return {}
        ended = {row: rank for rank, row in enumerate(self._unfinished, start=1) if self.is_cut(row)}
        ended.update((row, rank) for rank, row in enumerate(self.order, start=1) if rank > self.top_k)
        fused = sorted(self.fused_rank, key=self.fused_rank.__getitem__)[: self.top_k]
        ranks = {row: ended[row] for row in fused if row in ended}
        self.documents.update(self.collection.documents_of([self.candidates.ids[row] for row in ranks]))
        return ranks

    def position(self) -> Union[Position, SortedPosition, None]:
        """Return the position at which the next page begins; None if this page is the last."""
        if not self.shown or self._begins + len(self.shown) >= len(self.order):
            return None
        if self.is_sorted and self.group_by is None:
            return SortedPosition(self.offset + len(self.shown), self._sorted[self.shown[-1]])
        if not isinstance(self.after, Position):
            return Position(self.is_ranked, self._hashes(self.order[: self._begins + len(self.shown)]).tobytes())
        before = self.after.hashes
        if len(before) > MOST_SHOWN:
            before = before[np.isin(before, self._hashes(self._unfinished))]
        return Position(self.is_ranked, before.tobytes() + self._hashes(self.shown).tobytes())

    def _hashes(self, rows: Sequence[int]) -> Hashes:
        return text_hashes([self.candidates.ids[row] for row in rows])

    def _grouped(self, order: Sequence[int], field: str) -> list[int]:
        """Return the rows of the first `group_size` documents of each group, in order.

        A document without a value of the field is a group by itself. If `field` means groups of nearly equal texts,
        `similar` gets the ids of the documents that are left out.

        order: rows of the documents
        """
        self.similar, are_texts = {}, field == CONTENT and CONTENT not in self.collection.fields
        keys: Sequence[object]
        if are_texts:
            leaders = self._leaders(order)
            keys = leaders
        else:
            values_of_documents = self.collection.values(field, [self.candidates.ids[row] for row in order])
            value_keys = (tuple(value.key for value in values) for values in values_of_documents)
            keys = [key or row for row, key in zip(order, value_keys)]  # no number is equal to a tuple
        seen, kept = Counter[object](), list[int]()
        for number, (row, key) in enumerate(zip(order, keys)):
            seen[key] += 1
            if seen[key] <= self.group_size:
                kept.append(row)
            elif are_texts:
                self.similar.setdefault(leaders[number], []).append(self.candidates.ids[row])
        return kept

    def _leaders(self, order: Sequence[int]) -> list[int]:
        """Return, for each document in `order`, the row of the first document in `order` with nearly the same text.

        order: rows of the documents
        """
        from paddle_ranker.retrieval.stages.near_duplicates import Sketches, leaders, sketches_of

        check()
        rank = {row: number for number, row in enumerate(order)}
        sketches, with_text = list[Sketches](), list[int]()
        for documents in self._documents_at(order):
            texts = {row: document.text for row, document in documents.items() if document.text.strip()}
            with_text += texts
            sketches.append(sketches_of([*texts.values()]))
        if not with_text:
            return [*order]
        reserve(sum(sketch.nbytes for sketch in sketches))
        by_rank = sorted(range(len(with_text)), key=lambda index: rank[with_text[index]])
        first = leaders(np.concatenate(sketches)[by_rank])
        leader_of = {with_text[index]: with_text[by_rank[number]] for index, number in zip(by_rank, first)}
        return [leader_of.get(row, row) for row in order]

    @once
    def _word_weights(self) -> dict[str, float]:
        """Weight of each token of the query in BM25, by token; needed only if a long text is cut for the ranker."""
        return self.collection.word_weights(self.words)

    @once
    def _matches(self) -> Matching:
        """The documents that meet `phrase_filter` and share a word with the query.

        If words are not searched, or the query has none, documents need no word of the query.
        """
        by_words = WORDS in self.searchers and not self.is_browsing
        return self.collection.matching(self.words if by_words else None, self.phrase_filter)

    @property
    def _is_counted(self) -> bool:
        """Whether the documents that match can be counted: vectors alone find all documents, near or far."""
        return self.is_browsing or WORDS in self.searchers

    def total(self) -> Optional[int]:
        """Return how many documents share a word with the query and meet the filter; None if words are not searched.

        A query without words is met by all documents.
        """
        return self._matches.count(self.where) if self._is_counted else None

    def facets(self, names: Sequence[str]) -> dict[str, dict[str, int]]:
        """Count the documents of `total` by their values of fields; return, by field, the counts by value (as JSON).

        The most frequent values come first. Many numbers or dates are counted by ranges in ascending order, written as
        conditions of a filter: `{"gte": 2000, "lt": 2010}`. A field's counts ignore the filter's conditions on this
        field; otherwise all other values would have the count 0.

        Raises `ParameterError` for a field with too many values, and if words are not searched.
        """
        refuse_text(names, "names")
        check_names("facets", names, self.collection.fields)
        if not self._is_counted:
            raise ParameterError("facets", "count documents that share a word, and words are not searched")
        wanted = dict[str, Optional[Filter]]()
        for name in names:
            others = [condition for condition in self.where.conditions if condition.field != name] if self.where else []
            wanted[name] = Filter(tuple(others)) if others else None
        return self._matches.facets(wanted)

    def span_of(self, row: int) -> Span:
        """Return `Result.passage` of a shown document."""
        document = self.documents[self.candidates.ids[row]]
        return self.passages.get(row) or self._vector_spans.get(document.id, (0, len(document.text)))

    @once
    def shared_words(self) -> SharedWords:
        """Finder of the query's words, corrections and synonyms in texts."""
        from paddle_ranker.lexical.highlights import SharedWords

        analyser = self.collection.info.schema.analyser
        completions = {word for one in self.words.corrected if one.by == PREFIX for word in one.to}
        phrases = [
            extra.text
            for extra in self.words.extras
            if extra.is_whole
            # A completion of several parts stands for no part of it alone.
            and (
                single_token(analyser, extra.text) is None
                or (extra.text in completions and len(analyser(extra.text)) > 1)
            )
        ]
        words = [extra.text for extra in self.words.extras if extra.text not in phrases]
        return SharedWords("\n".join([self.text, *words]), analyser, phrases)

    def place_in_file(self, row: int, highlights: Optional[Sequence[Highlight]] = None) -> Optional[PlaceInFile]:
        """Return `Result.place` of a shown document.

        highlights: parts of the document's text with words of the query; None: they are computed
        """
        document = self.documents[self.candidates.ids[row]]
        schema = self.collection.info.schema
        if schema.reader_of(document) is None:
            return None
        from paddle_ranker.retrieval.stored.places import MOST_PLACES, place_of

        if highlights is None:
            highlights = self.shared_words.highlights(document.text)
        spans, piece = [(highlight.start, highlight.end) for highlight in highlights], self._pieces.get(document.id)
        if not spans and piece is None:
            span = self.span_of(row)
            spans = [span if span != (0, len(document.text)) else self.shared_words.passage(document.text, [])]
        in_file = place_of(document, schema, spans, piece)
        answer = self.answer(row)
        if in_file is None or answer is None or not answer.cells:
            return in_file
        return {**in_file, "cells": [[cell.row, cell.column] for cell in answer.cells[:MOST_PLACES]]}

    def answer(self, row: int) -> Optional[TableAnswer]:
        """Return the cells of a table that answer the query; None unless a ranker that names cells scored the table."""
        if self.answer_of is None or row not in self.logits:
            return None
        if row not in self._answers:
            self._answers[row] = self.answer_of(self._scored_as[row])
        return self._answers[row]

    def result(self, row: int) -> Result:
        candidates = self.candidates
        document = self.documents[candidates.ids[row]]
        by_searcher = zip(candidates.searchers, candidates.scores[row].tolist(), candidates.ranks[row].tolist())
        place_in_file = self.place_in_file(row)
        return Result(
            document.id,
            document.text,
            {name: value for name, value in document.fields.items() if place_in_file is None or name != PLACES},
            float(self.fused[row]),
            {name: SearcherScore(score, rank) for name, score, rank in by_searcher if rank},
            self.collection.info.schema.name_of(document),
            self.span_of(row),
            self.logits.get(row),
            self.probabilities.get(row),
            tuple(self.similar.get(row, ())),
            place_in_file,
            self.answer(row),
        )

    def results(self) -> list[Result]:
        """Return the results of this page, best first."""
        return [self.result(row) for row in checked(self.shown)]


def _newest_first(collection: Snapshot) -> tuple[str, ...]:
    """Return the sort key of the first field of dates, declared ones first; () without such a field."""
    schema = collection.info.schema
    dates = [field.name for field in schema.fields if schema.type_of(field.name) == DATES]
    if not dates:  # types of other fields are those of their values
        types = collection.types_of([name for name in collection.fields if not schema.type_of(name)])
        dates = [name for name, type in types.items() if type == DATES]
    return tuple(f"-{name}" for name in dates[:1])


def select_searchers(
    info: IndexInfo, settings: SearchSettings, searchers: Optional[tuple[str, ...]] = None
) -> tuple[str, ...]:
    """Return the searchers that the settings name, or the default; raises `ParameterError` for an unknown name.

    searchers: the names to choose from, in their order (default: all searchers of the index)
    """
    by, searchers = settings.by, info.searchers if searchers is None else searchers
    refuse_text(by, "by")
    if not by and settings.prefix and WORDS in searchers:
        by = (WORDS,)  # an unfinished word has a vector far from that of the finished one
    for name in by:
        if name not in searchers:
            problem = f"cannot be searched by {quoted(name)}, only by {listed(searchers)}"
            raise ParameterError("by", f"{problem}{spelling_hint(name, searchers)}")
    return tuple(name for name in searchers if name in by) if by else tuple(searchers)


def restrict_fusion(fusion: Fusion, searchers: Sequence[str]) -> Fusion:
    """Return a copy of a fusion that keeps only the weights and signals of `searchers`, and the signals of fields.

    If all of `searchers` would have weight 0, the weights are dropped, and each searcher has the default weight 1.
    """
    refuse_text(searchers, "searchers")
    signals = {name: signal for name, signal in fusion.signals.items() if signal.is_field or name in searchers}
    weights = {name: weight for name, weight in fusion.weights.items() if name in searchers}
    weights = weights if any(weights.get(name, 1.0) for name in searchers) else {}
    return replace(fusion, weights=weights, signals=signals)


def filter_of(where: Where) -> Optional[Filter]:
    """Convert `where` to a filter; raises `UsageError` if a condition is malformed."""
    if where is None or isinstance(where, Filter):
        return where
    if isinstance(where, Mapping):
        return Filter.of(where)
    return Filter.parse([where] if isinstance(where, str) else where)
