"""Interface of collections that are searched: in a folder, or in shards in other processes or on other machines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Optional, Protocol, Union

from paddle_ranker.array_types import Vectors
from paddle_ranker.errors import RankerError
from paddle_ranker.retrieval.stored.candidate_indexes import Document, Hits, Like
from paddle_ranker.retrieval.stored.manifest import IndexInfo
from paddle_ranker.retrieval.stored.schema import FieldTower
from paddle_ranker.retrieval.values.filters import Filter
from paddle_ranker.retrieval.values.typed_values import Value
from paddle_ranker.retrieval.words.query_parsing import ParsedQuery
from paddle_ranker.retrieval.words.query_rewriting import WordQuery
from paddle_ranker.retrieval.words.word_search import AnyQuery

if TYPE_CHECKING:
    from paddle_ranker.retrieval.stored.content_files import ContentFiles
    from paddle_ranker.retrieval.values.facets import FieldSample, FieldScale
    from paddle_ranker.retrieval.values.listing import SortedDocument
    from paddle_ranker.retrieval.words.synonyms import Synonyms


class Added(NamedTuple):
    """Counts of an addition.

    new: documents with new ids
    replaced: documents that replaced a document with the same id
    unchanged: documents that the index had already
    repeated: rows without an id that were left out, because they equal an earlier row
    absent: documents of the index that were not among the rows
    gone: documents of the index for parts of a file that the file no longer has
    """

    new: int
    replaced: int
    unchanged: int
    repeated: int = 0
    absent: int = 0
    gone: int = 0


class ShardError(RankerError):
    """Error: a shard failed, or did not answer in time."""


class StaleSnapshot(RankerError):
    """Error: a shard no longer has the generation with which a search began, or fails; the search must begin again.

    Attributes:
        snapshot: the snapshot for the new search.
    """

    def __init__(self, snapshot: Snapshot):
        super().__init__("the shards of this search have changed: search again")
        self.snapshot = snapshot


class LookupRequest(NamedTuple):
    """Request to search by one searcher; its fields are the parameters of `LocalSnapshot.search`."""

    by: str
    queries: Union[Sequence[AnyQuery], Vectors]
    top_k: int
    where: Optional[Filter] = None
    ef: Optional[int] = None
    nprobe: Optional[int] = None
    fields: Mapping[str, float] = MappingProxyType({})
    phrase_filter: Optional[ParsedQuery] = None
    titles: bool = False


class Matching(Protocol):
    """Documents that match a query; see `Matches`."""

    def count(self, where: Optional[Filter]) -> int: ...

    def facets(self, wanted: Mapping[str, Optional[Filter]]) -> dict[str, dict[str, int]]: ...

    def first(
        self,
        sort: Sequence[str],
        count: int,
        after: Optional[SortedDocument] = None,
        where: Optional[Filter] = None,
    ) -> list[SortedDocument]: ...


class Snapshot(Protocol):
    """Documents of a collection at one time, for one search; see `LocalSnapshot` for the methods.

    shards: number of shards elsewhere (`total`), and of shards that are left out (`failed`); None for index folders
    files: files in documents' fields; None for shards elsewhere
    """

    @property
    def info(self) -> IndexInfo: ...

    @property
    def fields(self) -> list[str]: ...

    @property
    def shards(self) -> Optional[Mapping[str, int]]: ...

    @property
    def files(self) -> Optional[ContentFiles]: ...

    def __len__(self) -> int: ...

    def tower(self, field: str) -> FieldTower: ...

    def like_vectors(self, field: str, like: Like) -> Vectors: ...

    def begin_search(self, request: LookupRequest) -> Callable[[], list[Hits]]: ...

    def rewrite_query(
        self, query: ParsedQuery, prefix: bool = False, synonyms: Optional[Synonyms] = None
    ) -> WordQuery: ...

    def did_you_mean(self, query: WordQuery) -> Optional[str]: ...

    def words_given(self, query: WordQuery) -> dict[str, str]: ...

    def word_weights(self, query: AnyQuery) -> dict[str, float]: ...

    def query_weight(self, query: AnyQuery) -> float: ...

    def phrase_filter(self, query: ParsedQuery) -> Optional[ParsedQuery]: ...

    def matching(self, query: Optional[AnyQuery], phrase_filter: Optional[ParsedQuery] = None) -> Matching: ...

    def explain_words(
        self, query: AnyQuery, ids: Sequence[str], fields: Mapping[str, float] = ...
    ) -> dict[str, dict[str, float]]: ...

    def type_of(self, field: str) -> str: ...

    def types_of(self, fields: Sequence[str]) -> dict[str, str]: ...

    def scale(self, field: str) -> FieldScale: ...

    def field_values(self, most: int) -> dict[str, FieldSample]: ...

    def values(self, field: str, ids: Sequence[str]) -> list[tuple[Value, ...]]: ...

    def missing(self, ids: Iterable[str]) -> list[str]: ...

    def documents_of(self, ids: Sequence[str]) -> dict[str, Document]: ...

    def each(self, ids: Sequence[str]) -> Iterator[tuple[str, Document]]: ...


class Writer(Protocol):
    """Writer that changes the documents of a collection; see `CollectionWriter`."""

    def add(self, documents: Iterable[Document]) -> Added: ...

    def remove(self, ids: Iterable[str]) -> int: ...


class Searchable(Protocol):
    """Open collection, a `Collection` or a `RemoteCollection`, which gives each search a snapshot."""

    @property
    def info(self) -> IndexInfo: ...

    @property
    def fields(self) -> list[str]: ...

    @property
    def is_current(self) -> bool: ...

    @property
    def writer(self) -> Writer: ...

    def __len__(self) -> int: ...

    def snapshot(self) -> Snapshot: ...

    def refresh(self) -> bool: ...

    def require_address(self) -> None: ...

    def close(self) -> None: ...


def phrase_filter_of(query: ParsedQuery, phrases: Sequence[str]) -> Optional[ParsedQuery]:
    """Return a query of `phrases` and the exclusions of `query`, which filters documents; None without either."""
    return ParsedQuery("", tuple(phrases), query.excluded) if phrases or query.excluded else None
