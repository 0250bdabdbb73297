"""A search of a collection, and its stages: by words, by vectors, by both, and then by a ranker.

`run_searches` of `retrieval/stages/search_engine.py` runs the stages in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Optional, Union

import numpy as np

from paddle_ranker.array_types import Vectors
from paddle_ranker.errors import ParameterError, listed, quoted, refuse_text, spelling_hint
from paddle_ranker.retrieval.index.floors import FEWEST, is_nothing_close
from paddle_ranker.retrieval.snapshots.searchable import LookupRequest, Snapshot
from paddle_ranker.retrieval.stages.fusion import Candidates, FusedList, Fusion
from paddle_ranker.retrieval.stages.page import ListPage
from paddle_ranker.retrieval.stages.query import SearchedQuery
from paddle_ranker.retrieval.stages.ranking import CandidateRanking
from paddle_ranker.retrieval.stages.results import HitDetails, Result
from paddle_ranker.retrieval.stored.candidate_indexes import Hits, Like
from paddle_ranker.retrieval.stored.manifest import WORDS, IndexInfo
from paddle_ranker.retrieval.values.bounds import check_names, check_sort
from paddle_ranker.retrieval.values.facets import DATES
from paddle_ranker.retrieval.values.filters import Filter
from paddle_ranker.retrieval.values.listing import CONTENT, Listing, Position, SortedDocument, SortedPosition
from paddle_ranker.retrieval.values.search_defaults import DEPTH, RANK_TOP
from paddle_ranker.retrieval.vectors.vector_settings import EXACT
from paddle_ranker.retrieval.words.query_parsing import ParsedQuery
from paddle_ranker.retrieval.words.word_search import QUERY_TYPES, AnyQuery
from paddle_ranker.retrieval.work.turns import checked, once

if TYPE_CHECKING:
    from paddle_ranker.lexical.passages import Span
    from paddle_ranker.retrieval.words.synonyms import Synonyms

Where = Union[None, str, Iterable[str], Mapping[str, object], Filter]
RANK, FEATURES = "rank", "features"  # names of stages
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
    """Search of a snapshot: its stages, and what each of them leaves to the next.

    `query` chooses the searchers; `begin_lookup` and `fuse` find candidates by them (`find_sorted` finds a list that is
    sorted by fields); `ranking` lets a ranker order the first ones; `finish` chooses those that are shown. Documents
    are named by rows: their indices in `fused.candidates`. A stage calls `turns.check` between its steps, which lets
    other searches run.

    Args:
        collection: the snapshot that is searched.
        text: the query, as text or parsed.
        searchers: names of the searchers.
        settings: how the snapshot is searched; if `rank_top` is 0, nothing is ranked.
        listing: which documents are shown.
        like: an example, a document or a file. If the example has a vector in a vector field, the field is searched for
            this vector. If the query has no words, nothing else is searched. The example itself is never a result.

    Attributes:
        query: the query as it is read, and the searchers that are used.
        sort: fields that order the list; of a list without a query, the first field of dates, newest first, if there
            is one.
        is_sorted: whether fields order the list, or, without any, the documents' own order does.
        best: best score by searcher; set by `fuse`.
        fused: the candidates in fused order; set by `fuse` or `find_sorted`, as is `ranking`.
        ranking: what the ranker reads of the candidates, and its scores.
        page: the documents that are shown; set by `finish`.
        details: what is shown of them; set by `finish`.
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
        self.collection, self.settings, self.listing = collection, settings, listing
        literal, prefix, synonyms = settings.literal, settings.prefix, settings.synonyms
        self.query = SearchedQuery(collection, text, searchers, like, literal=literal, prefix=prefix, synonyms=synonyms)
        if listing.sort:
            check_sort(listing.sort, collection.fields)
        if listing.group_by is not None:
            check_names("group_by", [listing.group_by], [*collection.fields, CONTENT])
        self.sort = listing.sort or (_newest_first(collection) if self.query.is_browsing else ())
        self.is_sorted = self.query.is_browsing or bool(self.sort)
        after = listing.after
        if after is not None and not after.fits(self.sort if self.is_sorted else None, listing.group_by):
            raise ParameterError("after", "is a position in a list of another order")
        self.best, self.read_by = dict[str, float](), dict[str, int]()
        self.spans: list[tuple[str, float, float]] = []
        self.degraded: list[str] = []
        self._sorted: Optional[Sequence[SortedDocument]] = None

    @property
    def took(self) -> dict[str, float]:
        """Milliseconds by stage."""
        took: dict[str, float] = {}
        for stage, begin, end in self.spans:
            took[stage] = round(took.get(stage, 0.0) + 1000 * (end - begin), 3)
        return took

    @property
    def wants_ranking(self) -> bool:
        """Whether the ranker orders the first documents.

        False if `rank_top` is 0, if the list is sorted by fields, if the query has no words, if no document is found,
        and if the page before was not ranked.
        """
        is_ranked = not isinstance(self.listing.after, Position) or self.listing.after.is_ranked
        wants = self.settings.rank_top and self.fused.order and is_ranked
        return bool(wants and not self.is_sorted and self.query.has_words)

    @property
    def shards(self) -> Optional[Mapping[str, int]]:
        """Counts of shards elsewhere: `total`, and `failed` (left out of this search); None if all shards are local."""
        return self.collection.shards

    @property
    def is_exact(self) -> bool:
        """Whether no approximate index of vectors (faiss, Milvus) is searched; always True for a sorted list."""
        fields, names = self.collection.info.vector_fields, self.query.searchers
        return self.is_sorted or all(fields[name].info.method == EXACT for name in names if name in fields)

    def leave_out(self, stage: str, error: Exception) -> None:
        """Go on without a searcher or the ranker, and record it in `degraded`; raise `error` if nothing is left."""
        if stage in self.query.searchers:
            self.query.leave_out(stage, error)
        self.degraded.append(stage)

    def begin_lookup(
        self, searcher: str, queries: Union[Sequence[AnyQuery], Vectors, None] = None
    ) -> Callable[[], list[Hits]]:
        """Begin to search by one searcher; return a function that waits for the hits for each query.

        queries: queries of this search and of further searches with the same settings: vectors `[n, size]`, or texts,
            whose vectors the index's tower computes if `searcher` is a vector field. None: the query of this search
        """
        if queries is None:
            queries = [self.query.words if searcher == WORDS else self.query.tower_text(searcher)]
        refuse_text(queries, "queries", *QUERY_TYPES)
        settings, has_vectors = self.settings, searcher in self.collection.info.vector_fields
        breadth = (settings.ef, settings.nprobe) if has_vectors else (None, None)
        if has_vectors and not isinstance(queries, np.ndarray):
            queries = self.collection.tower(searcher).query_vectors([str(query) for query in queries])
        fields, where = settings.fusion.fields if searcher == WORDS else {}, self.listing.where
        asking = LookupRequest(
            searcher, queries, self._depth, where, *breadth, fields, self.query.phrase_filter, searcher == WORDS
        )
        return self.collection.begin_search(asking)

    @property
    def _depth(self) -> int:
        most = max(self.settings.depth, self.listing.top_k, self.settings.rank_top)
        return most + 1 if self.query.like is not None and self.query.like.id else most

    def fuse(self, hits: Mapping[str, Hits]) -> None:
        """Fuse the hits of all searchers to one list; equal scores are ordered by id."""
        like, searchers = self.query.like, self.query.searchers
        if like is not None and like.id:
            hits = {name: searcher_hits.without(like.id) for name, searcher_hits in hits.items()}
        self.best = {name: max(hits[name].scores, default=0.0) for name in searchers}
        files = {field.name for field in self.collection.info.schema.files}
        spans: dict[str, Span] = {}
        pieces: dict[str, Span] = {}
        for name, searcher_hits in hits.items():
            (pieces if name in files else spans).update(
                (id, span) for id, span in zip(searcher_hits.ids, searcher_hits.passages or ()) if span is not None
            )
        fusion = restrict_fusion(self.settings.fusion, searchers)
        candidates = Candidates.of({name: hits[name] for name in searchers}, fusion.title)
        self._set_fused(FusedList(fusion, candidates, spans, pieces))

    def _set_fused(self, fused: FusedList) -> None:
        self.fused, self.ranking = fused, CandidateRanking(self.query, fused)

    def order_by_features(self) -> None:
        """Order the first documents of the fused list by `Fusion.features`; the rest of the list stays as it is."""
        if self.fused.order and self.query.has_words:
            _, features = self.ranking.list_features()
            self.fused.order_by_features(features)

    def find_sorted(self) -> None:
        """Set the candidates to the first matching documents, after the position `after` if it is set, by `sort`.

        This stage replaces `fuse` in a sorted list.
        """
        listing = self.listing
        after = listing.after.last if isinstance(listing.after, SortedPosition) else None
        count = listing.offset + listing.top_k + 1  # the last document shows that another page follows
        count = count if listing.group_by is None else max(self._depth, count)
        self._sorted = self.query.matches.first(self.sort, count, after, listing.where)
        self._set_fused(FusedList(self.settings.fusion, Candidates.unscored([one.id for one in self._sorted]), {}, {}))

    def finish(self) -> None:
        """Leave out documents below `min_probability`, group the rest, and choose the documents that are shown."""
        self.page = ListPage(self.collection, self.fused, self.ranking, self.listing, self._sorted)
        self.details = HitDetails(self.query, self.fused, self.ranking, self.page)

    def results(self) -> list[Result]:
        """Return the results of this page, best first."""
        return [self.details.result(row) for row in checked(self.page.shown)]

    def dropped(self) -> dict[int, int]:
        """Return the documents that the ranker has removed from the first page, see `ListPage.dropped`."""
        return self.page.dropped()

    def total(self) -> Optional[int]:
        """Return how many documents share a word with the query and meet the filter; None if words are not searched.

        A query without words is met by all documents.
        """
        return self.query.matches.count(self.listing.where) if self.query.is_counted else None

    def facets(self, names: Sequence[str]) -> dict[str, dict[str, int]]:
        """Count the documents of `total` by their values of fields; return, by field, the counts by value (as JSON).

        The most frequent values come first. Many numbers or dates are counted by ranges in ascending order, written as
        conditions of a filter: `{"gte": 2000, "lt": 2010}`. A field's counts ignore the filter's conditions on this
        field; otherwise all other values would have the count 0.

        Raises `ParameterError` for a field with too many values, and if words are not searched.
        """
        refuse_text(names, "names")
        check_names("facets", names, self.collection.fields)
        if not self.query.is_counted:
            raise ParameterError("facets", "count documents that share a word, and words are not searched")
        wanted, where = dict[str, Optional[Filter]](), self.listing.where
        for name in names:
            others = [condition for condition in where.conditions if condition.field != name] if where else []
            wanted[name] = Filter(tuple(others)) if others else None
        return self.query.matches.facets(wanted)

    @once
    def nothing_close(self) -> bool:
        """Whether no document is close to the query.

        If a calibrated ranker has scored documents: whether all probabilities are below 0.1. Otherwise: whether no
        vector searcher's best score is above its floor (see `floors`), and none of the first documents by words has
        enough of the query's words (see `SearchedQuery.has_close_words`), more of them if a vector searcher can tell;
        False if the index has few documents, or lacks floors.
        Always False if the list is sorted by fields, if the last word is unfinished, if documents have a phrase of
        the query, and if the query names documents (see `Generation.named`).
        """
        candidates = self.fused.candidates
        if self.is_sorted or self.settings.prefix or self.query.phrases or candidates.titled.any():
            return False
        if self.ranking.is_calibrated and self.ranking.probabilities:
            return max(self.ranking.probabilities.values()) < _CLOSE
        info = self.collection.info
        vectors = {name: score for name, score in self.best.items() if name != WORDS}
        by_words = WORDS in self.query.searchers
        if info.count < FEWEST or (vectors and info.floors is None):
            return False
        found_by_words = self.best.get(WORDS, 0.0) > 0
        if info.floors is not None and not is_nothing_close(vectors, info.floors, by_words, found_by_words):
            return False
        tells = info.floors is not None and info.floors.can_tell(vectors)
        if not by_words:
            return True
        ranks = candidates.ranks[:, candidates.searchers.index(WORDS)]
        ids = [candidates.ids[row] for row in np.flatnonzero((ranks > 0) & (ranks <= _FIRST)).tolist()]
        shares = _CLOSE_AGAINST_VECTORS if tells else _CLOSE_SHARES
        return not self.query.has_close_words(ids, self.settings.fusion.fields, *shares)


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
