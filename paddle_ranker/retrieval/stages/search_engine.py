"""Search engine of a collection, for Python, commands and servers: by words, by vectors, and then by a ranker.

engine = SearchEngine.open("index", ranker="checkpoint/best")
for result in engine.search("query", top_k=10):
    print(result.title, result.text, result.searchers["words"].rank, result.probability)

`run_searches` runs the stages of `Search` in order, for many searches at once. It gets vectors and scores from
`SearchModels`. The `SearchModels` of a `SearchEngine` compute them at once; those of a server send the texts to the
server's queues.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Optional, Protocol, Union

import numpy as np
from typing_extensions import TypeVar

from paddle_ranker.addresses import is_url
from paddle_ranker.array_types import Floats, Vectors
from paddle_ranker.errors import UsageError, refuse_text
from paddle_ranker.model.load_options import DEFAULT_OPTIONS, LoadOptions
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.index.model_urls import ServiceFailed, UrlRanker, lend_tower, open_url_ranker
from paddle_ranker.retrieval.index.shards import open_index, open_shards
from paddle_ranker.retrieval.snapshots.searchable import Searchable, Snapshot, StaleSnapshot
from paddle_ranker.retrieval.stages.fusion import (
    Fusion,
    parse_fusion,
)
from paddle_ranker.retrieval.stages.ranking import CandidateRanking
from paddle_ranker.retrieval.stages.results import Result
from paddle_ranker.retrieval.stages.search import (
    FEATURES,
    RANK,
    Search,
    SearchSettings,
    Where,
    filter_of,
    select_searchers,
)
from paddle_ranker.retrieval.stored.candidate_indexes import Document, Hits
from paddle_ranker.retrieval.stored.manifest import VECTORS, WORDS
from paddle_ranker.retrieval.values.bounds import check_parameters
from paddle_ranker.retrieval.values.listing import Listing
from paddle_ranker.retrieval.values.search_defaults import TOP_K
from paddle_ranker.retrieval.words.word_search import AnyQuery
from paddle_ranker.retrieval.work.turns import TooLate, idle, in_turn, until, wait_for
from paddle_ranker.scoring.texts import list_texts, require_text
from paddle_ranker.storage.closing import Closable

if TYPE_CHECKING:
    from paddle_ranker.encoding.pair_encoder import PairEncoder
    from paddle_ranker.retrieval.snapshots.searchable import Added
    from paddle_ranker.retrieval.stages.search_ranker import SearchRanker
    from paddle_ranker.scoring.ranker import Ranker

C = TypeVar("C", bound=Searchable, default=Collection)
QueryVectors = Callable[[Sequence[str]], Vectors]
AnyRanker = Union["Ranker", UrlRanker]  # one that is open here, or behind a URL


class SearchEngine(Closable, Generic[C]):
    """Search engine of an index, which also adds documents; any number of threads may search at once.

    Args:
        collection: the open index, or a `RemoteCollection` of shards elsewhere.
        settings: how the index is searched.
        query_vectors: called with queries; returns their vectors, `[n, size]`, for the searcher `vectors` (default: the
            index's own tower).
        ranker: orders the first results; None: keep the fused order.

    Raises `UsageError` for a searcher that the index lacks, and for weights that are not valid.
    """

    def __init__(
        self,
        collection: C,
        settings: SearchSettings,
        query_vectors: Optional[QueryVectors] = None,
        ranker: Optional[AnyRanker] = None,
    ):
        check_parameters(Listing(), depth=settings.depth, rank_top=settings.rank_top)
        self.collection, self.settings, self.ranker = collection, settings, ranker
        self._query_vectors = query_vectors
        self._ranking = None
        if ranker is not None:
            from paddle_ranker.retrieval.stages.search_ranker import SearchRanker

            self._ranking = SearchRanker(collection, ranker)
        self.searchers = select_searchers(collection.info, settings)
        fields = [field for name, field in collection.info.vector_fields.items() if name in self.searchers]
        if fields or settings.ef is not None or settings.nprobe is not None:
            from paddle_ranker.retrieval.snapshots.vector_search import check_breadth

            check_breadth(fields[0].info if fields else None, settings.ef, settings.nprobe)
        settings.fusion.weights_of(self.searchers)
        collection.info.schema.weights_by(settings.fusion.fields)
        if fields:
            collection.require_address()

    @classmethod
    def open(
        cls,
        folder: Union[str, Path, Sequence[Union[str, Path]]],
        settings: Optional[SearchSettings] = None,
        *,
        ranker: Union[str, Path, AnyRanker, None] = None,
        tower: Optional[str] = None,
        options: LoadOptions = DEFAULT_OPTIONS,
        batch_size: int = 256,
        write: bool = False,
        has_query: bool = True,
    ) -> SearchEngine[Collection]:
        """Open an index folder, and the towers in it.

        folder: an index folder, or several folders that are searched as one index, see `open_shards`
        settings: how the index is searched
        ranker: an open ranker; the folder of a ranker, which is opened on the device of `options`; or a URL
        tower: URL of the tower of whole documents, if it is not in the folder
        options: how the towers are opened
        batch_size: texts of full length that are computed at once
        write: whether documents may be added and removed
        has_query: whether to open the towers now; else a tower is opened when a search first needs it

        Raises `CheckpointError` for a folder that is no index or is damaged.
        """
        settings = settings or SearchSettings()
        if isinstance(folder, (str, Path)):
            collection = open_index(folder, milvus_uri=settings.milvus_uri, write=write)
        elif write or settings.milvus_uri is not None:
            raise UsageError("shards are open for reading, and none is in Milvus: write to one folder at a time")
        else:
            collection = open_shards(folder)
        if has_query:
            open_query_towers(collection, settings, options, batch_size, tower)
        if is_url(ranker):
            ranker = open_url_ranker(str(ranker), batch_size)
        elif isinstance(ranker, (str, Path)):
            from paddle_ranker.scoring.ranker import Ranker

            ranker = Ranker.load(ranker, batch_size=batch_size, device=options.device, threads=options.threads)
        return SearchEngine(collection, settings, None, ranker)

    def close(self) -> None:
        """Close the index; a search that has begun can still finish."""
        self.collection.close()

    def add(self, documents: Iterable[Document]) -> Added:
        """Add documents, or replace documents of the same ids; see `CollectionWriter.add`."""
        refuse_text(documents, "documents", Document)
        return self.collection.writer.add(documents)

    def remove(self, ids: Iterable[str]) -> int:
        """Remove documents; see `CollectionWriter.remove`."""
        refuse_text(ids, "ids")
        return self.collection.writer.remove(ids)

    def search(
        self,
        query: str,
        top_k: int = TOP_K,
        where: Where = None,
        fusion: Union[str, Fusion, None] = None,
        group_by: Optional[str] = None,
        sort: Sequence[str] = (),
        like: Union[str, Path, bytes, None] = None,
    ) -> list[Result]:
        """Return up to `top_k` documents, best first.

        query: if it is "", documents are listed: by `sort`, else the newest first if there is a field of dates
        where: filter on the documents' fields: a `Filter`, "year>=2020 and lang=zh", a list of such conditions, or
            {"year": {"gte": 2020}, "lang": "zh"}
        fusion: "rrf", "weighted", or a file of learned weights (default: the settings' fusion)
        group_by: field by which results are grouped, so that only the best document of each value is returned; or
            "content" for groups of nearly equal texts, whose other documents are in `Result.similar`
        sort: fields that order all matching documents instead of scores; ["-year"] for the highest first
        like: example that results should resemble: the id of a document, or a file (its `Path` or bytes); with the
            query "", documents are found by it alone

        Raises `UsageError` for arguments that are not valid.
        """
        return self.run([require_text(query, "query")], top_k, where, fusion, group_by, sort, like)[0].results()

    def search_many(
        self,
        queries: Sequence[str],
        top_k: int = TOP_K,
        where: Where = None,
        fusion: Union[str, Fusion, None] = None,
        group_by: Optional[str] = None,
        sort: Sequence[str] = (),
    ) -> list[list[Result]]:
        """Search for many queries as `search` does, in shared batches; return a list of results per query."""
        return [search.results() for search in self.run(queries, top_k, where, fusion, group_by, sort)]

    def run(
        self,
        queries: Sequence[str],
        top_k: int = TOP_K,
        where: Where = None,
        fusion: Union[str, Fusion, None] = None,
        group_by: Optional[str] = None,
        sort: Sequence[str] = (),
        like: Union[str, Path, bytes, None] = None,
    ) -> list[Search]:
        """Search as `search_many` does; return the finished `Search` of each query."""
        refuse_text(queries, "queries")
        refuse_text(sort, "sort")
        queries = list_texts(queries, "queries")
        listing = Listing(top_k, where=filter_of(where), group_by=group_by, sort=sort)
        check_parameters(listing, query=queries[0] if queries else None, like=like, fusion=fusion)
        for number, query in enumerate(queries):
            if not query.strip() and len(queries) > 1:
                raise UsageError(
                    f"queries[{number}]: is empty: say what to search for, or list documents by one search"
                )
        example = None
        if like is not None:
            from paddle_ranker.retrieval.stored.content_files import like_of

            example = like_of(like, self.collection.info.schema)
        fused = parse_fusion(fusion) if isinstance(fusion, str) else fusion or self.settings.fusion
        if not fused.fields:
            fused = replace(fused, fields=self.settings.fusion.fields)
        rank_top = self.settings.rank_top if self.ranker is not None else 0
        settings = replace(self.settings, fusion=fused, rank_top=rank_top)
        fused.weights_of(self.searchers)

        def searches(now: Snapshot) -> list[Search]:
            return [Search(now, query, self.searchers, settings, listing, example) for query in queries]

        models = _Models(self.collection, self._ranking, self._query_vectors)
        return in_turn(lambda: run_searches(self.collection.snapshot(), searches, models))


class SearchModels(Protocol):
    """Models that searches use.

    Attributes:
        pair_encoder: encoder of the ranker's pairs; None if the ranker reads any length.
        is_calibrated: whether the ranker's probabilities are calibrated.
        rank_until: time on `time.monotonic()`'s clock by which ranking must be done.
    """

    rank_until: float

    @property
    def pair_encoder(self) -> Optional[PairEncoder]: ...

    @property
    def is_calibrated(self) -> bool: ...

    def begin_vectors(self, field: str, texts: Sequence[str]) -> Future[Vectors]:
        """Begin to compute the vectors of queries for a vector field; return a future of `[n, size]`."""
        ...

    def query_read(self, field: str, text: str) -> Optional[int]:
        """Return how many code points of a query a vector field's tower reads; None if all, or if unknown."""
        ...

    def logits(self, rankings: Sequence[CandidateRanking], texts: Sequence[Sequence[str]]) -> list[Floats]:
        """Score the texts of each search's `to_rank`; return `[texts] float64` per search.

        Raises `TooLate` if scoring would miss the deadline.
        """
        ...

    def leave_out(self, search: Search, stage: str, error: Union[TooLate, ServiceFailed]) -> None:
        """Let a search go on without a searcher or the ranker, which is too late or fails; or raise `error`."""
        ...


class _Models:
    """Models of a `SearchEngine`, which compute in the calling thread while other searches run."""

    rank_until = math.inf

    def __init__(
        self,
        collection: Searchable,
        ranking: Optional[SearchRanker],
        query_vectors: Optional[QueryVectors],
    ):
        self._collection, self._ranking, self._query_vectors = collection, ranking, query_vectors

    @property
    def pair_encoder(self) -> Optional[PairEncoder]:
        return None if self._ranking is None else self._ranking.pair_encoder

    @property
    def is_calibrated(self) -> bool:
        return self._ranking is not None and self._ranking.is_calibrated

    def begin_vectors(self, field: str, texts: Sequence[str]) -> Future[Vectors]:
        future = Future[Vectors]()
        try:
            with idle():
                if field == VECTORS and self._query_vectors is not None:
                    future.set_result(self._query_vectors(texts))
                else:
                    future.set_result(self._collection.snapshot().tower(field).query_vectors(texts))
        except ServiceFailed as error:
            future.set_exception(error)
        return future

    def query_read(self, field: str, text: str) -> Optional[int]:
        is_given = field == VECTORS and self._query_vectors is not None
        return None if is_given else self._collection.snapshot().tower(field).query_read(text)

    def logits(self, rankings: Sequence[CandidateRanking], texts: Sequence[Sequence[str]]) -> list[Floats]:
        assert self._ranking is not None
        return self._ranking.logits(rankings, texts)

    def leave_out(self, search: Search, stage: str, error: Union[TooLate, ServiceFailed]) -> None:
        if not isinstance(error, ServiceFailed):
            raise error
        search.leave_out(stage, error)


def run_searches(now: Snapshot, begin: Callable[[Snapshot], list[Search]], models: SearchModels) -> list[Search]:
    """Run the stages of searches in order; return the finished searches.

    now: snapshot to search
    begin: called with a snapshot; returns searches of the snapshot that differ only in their queries. If
        shards have changed, it is called again with a new snapshot
    """
    while True:
        try:
            searches = begin(now)
            if searches:
                _run(searches, models)
            return searches
        except StaleSnapshot as error:
            now = error.snapshot


def _run(searches: Sequence[Search], models: SearchModels) -> None:
    """Run all stages of some searches: encode, read, search, fuse, rank, finish.

    1. `SearchedQuery.choose_searchers`: vectors of an example (`like`), and the searchers that are used. A query
        without words needs none: its documents are listed.
    2. `SearchedQuery.words`: the parsed query with its corrections.
    3. `_find`: each searcher's hits, fused to one list. If the fusion has weights of features, these order the list's
       first documents. If the list is sorted, `Search.find_sorted` replaces `_find`.
    4. `_rank`: the ranker orders the first documents, if the search wants that.
    5. `Search.finish`: leaves out improbable documents, groups the list, and chooses the documents that are shown.

    `spans` of each search gets the times of the stages.
    """
    began, first = time.monotonic(), searches[0]
    with _timed(searches, "encode"), idle():
        for search in searches:
            if not search.query.is_browsing:
                search.query.choose_searchers()
    with _timed(searches, "read"):
        for search in searches:
            _ = search.query.words
    if first.is_sorted:
        with _timed(searches, "sort"):
            for search in searches:
                search.find_sorted()
    else:
        _find(searches, models)
    _rank([search for search in searches if search.wants_ranking], models)
    for search in searches:
        search.finish()
        search.spans.append(("total", began, time.monotonic()))


def _find(searches: Sequence[Search], models: SearchModels) -> None:
    """Look up all searches by all searchers; fuse the hits of each search to one list."""
    first = searches[0]
    fields = first.collection.info.vector_fields
    searchers, like_vectors = first.query.searchers, first.query.like_vectors
    asks = [name for name in searchers if name in fields and name not in like_vectors]
    vectors = {name: models.begin_vectors(name, [one.query.tower_text(name) for one in searches]) for name in asks}
    for search in searches:
        read = {name: models.query_read(name, search.query.tower_text(name)) for name in asks}
        search.read_by = {name: end for name, end in read.items() if end is not None}
    lookups = {name: _begin_lookups(searches, name, None) for name in searchers if name not in fields}
    for name in like_vectors:
        examples = np.concatenate([search.query.like_vectors[name] for search in searches])
        lookups[name] = _begin_lookups(searches, name, examples)
    # Towers in a queue compute vectors meanwhile; all shards elsewhere are called before the first is waited for.
    hits = {} if all(future.done() for future in vectors.values()) else _looked_up(searches, lookups)
    for name, future in vectors.items():
        try:
            with _timed(searches, "encode"):
                query_vectors = wait_for(future)
        except ServiceFailed as error:
            for search in searches:
                models.leave_out(search, name, error)
        else:
            lookups[name] = _begin_lookups(searches, name, query_vectors)
    hits.update(_looked_up(searches, {name: waits for name, waits in lookups.items() if name not in hits}))
    with _timed(searches, "fuse"):
        for number, search in enumerate(searches):
            search.fuse({name: hit_lists[number] for name, hit_lists in hits.items()})
    if first.settings.fusion.features:
        with _timed(searches, FEATURES):
            for search in searches:
                search.order_by_features()


def _rank(searches: Sequence[Search], models: SearchModels) -> None:
    if not searches:
        return
    from paddle_ranker.metrics.calibration import sigmoid

    try:
        with _timed(searches, RANK), until(models.rank_until):
            rankings = [search.ranking for search in searches]
            texts = [one.ranking.to_rank(one.settings.rank_top, models.pair_encoder) for one in searches]
            for ranking, search_logits in zip(rankings, models.logits(rankings, texts)):
                ranking.rank(search_logits, sigmoid(search_logits), is_calibrated=models.is_calibrated)
    except (TooLate, ServiceFailed) as error:
        for search in searches:
            models.leave_out(search, RANK, error)


def _begin_lookups(
    searches: Sequence[Search], searcher: str, vectors: Optional[Vectors]
) -> list[Callable[[], list[Hits]]]:
    """Begin lookups by a searcher: one for all searches, or one per search if a search has phrases or exclusions."""
    queries: Union[Sequence[AnyQuery], Vectors]
    if vectors is not None:
        queries = vectors
    else:
        queries = [search.query.words if searcher == WORDS else search.query.model_text for search in searches]
    if all(search.query.phrase_filter is None for search in searches):
        return [searches[0].begin_lookup(searcher, queries)]
    return [search.begin_lookup(searcher, queries[number : number + 1]) for number, search in enumerate(searches)]


def _looked_up(
    searches: Sequence[Search], lookups: Mapping[str, Sequence[Callable[[], list[Hits]]]]
) -> dict[str, list[Hits]]:
    """Wait for the lookups; return, by searcher, one `Hits` per search."""
    by_searcher = dict[str, list[Hits]]()
    for name, waits in lookups.items():
        with _timed(searches, name):
            by_searcher[name] = [hits for wait in waits for hits in wait()]
    return by_searcher


@contextmanager
def _timed(searches: Sequence[Search], stage: str) -> Iterator[None]:
    """Add the time of the block, which is a part of a stage, to `spans` of the searches."""
    began = time.monotonic()
    yield
    span = stage, began, time.monotonic()
    for search in searches:
        search.spans.append(span)


def open_query_towers(
    collection: Collection, settings: SearchSettings, options: LoadOptions, batch_size: int, url: Optional[str] = None
) -> None:
    """Open each tower of an index that searches with these settings need for the vectors of queries.

    url: URL of the tower of whole documents, if it is not in the folder
    """
    lend_tower(collection, url, batch_size)
    for name, field in collection.info.vector_fields.items():
        if field.tower is not None and name in (settings.by or (name,)):
            collection.snapshot().models.tower(collection.info, name, options, batch_size)
