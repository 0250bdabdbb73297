"""What the frameworks' classes share: searches, ranks and vectors, from models in this process or a server at a URL.

Sources open their folder at the first use, may be called by several threads, and can be pickled.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Generic, NamedTuple, Optional, TypeVar, Union

import numpy as np

from paddle_ranker import runtime
from paddle_ranker.array_types import Floats, Vectors
from paddle_ranker.errors import UsageError, listed, quoted, require_pairs
from paddle_ranker.serving.clients import EmbeddingsClient, RerankClient, SearchClient

if TYPE_CHECKING:
    from paddle_ranker.notebook import Index
    from paddle_ranker.retrieval.vectors.text_vectors import Tower
    from paddle_ranker.scoring.ranker import Ranker

T = TypeVar("T")
KEY_VARIABLE = "PADDLE_RANKER_API_KEY"
TIMEOUT = 30.0  # default seconds for an answer of a server
_OPERATORS = {"==": "eq", "=": "eq", "!=": "ne", ">": "gt", ">=": "gte", "<": "lt", "<=": "lte", "in": "in"}


class _Opened(Generic[T]):
    """A model, an index or a client that is opened at the first use, once; a pickle holds how, not what."""

    def __init__(self, opening: Callable[..., T], *arguments: Any) -> None:
        self._opening, self._arguments = opening, arguments
        self._lock, self._value = threading.Lock(), None  # type: threading.Lock, Optional[T]

    def __reduce__(self) -> tuple[type[_Opened[T]], tuple[Any, ...]]:
        return type(self), (self._opening, *self._arguments)

    def get(self) -> T:
        with self._lock:
            if self._value is None:
                self._value = self._opening(*self._arguments)
            return self._value


class Found(NamedTuple):
    """A document that a search found.

    score: the ranker's probability; without a ranker, the search's score. None for documents behind those that the
        ranker has ordered
    metadata: the document's fields, and its `place` in its file if it has one
    """

    id: str
    text: str
    score: Optional[float]
    metadata: dict[str, Any]


class SearchSource:
    """Searches of an index.

    Args:
        index: an `Index`, or its folder.
        ranker: a `Ranker`, a folder or a name; it orders what the index finds.
        url: URL of a `search-serve`, in place of an index. It has its own ranker.
        key: the server's key; None: that of `PADDLE_RANKER_API_KEY`.
        timeout: seconds for an answer of the server.
        options: further arguments of `Index.search`, or fields of `/v1/search`.
    """

    def __init__(
        self,
        index: Union[Index, str, Path, None] = None,
        ranker: Union[Ranker, str, Path, None] = None,
        url: Optional[str] = None,
        key: Optional[str] = None,
        timeout: Optional[float] = None,
        options: Optional[Mapping[str, Any]] = None,
    ) -> None:
        _require_one("index", index, url, key, timeout)
        if url is not None and ranker is not None:
            raise UsageError("ranker: the server at url has its own ranker (search-serve --ranker): leave it out")
        self._options = dict(options or {})
        for name in ("query", "top_k", "where", "ranker", "fields", "snippet", "cursor"):
            if name in self._options:
                raise UsageError(f"options: {name} is no option of these searches; leave it out")
        self._index = None if index is None else _Opened(_open_index, index)
        self._client = None if url is None else _Opened(_open_client, SearchClient, url, key, timeout)
        self._ranker = ranker

    def search(self, query: str, top_k: int, where: Optional[Mapping[str, Any]] = None) -> list[Found]:
        """Return the best documents, at most `top_k`; raises `UsageError` or `ServerError` for a refused request."""
        if self._index is None:
            assert self._client is not None
            fields = {"top_k": top_k, **self._options, **({"where": where} if where else {})}
            hits = self._client.get().search(query, **fields)["hits"]
            fused = [hit["stages"].get("fused", {"score": 0.0})["score"] for hit in hits]  # none if sorted by fields
            rows = [
                (hit["id"], hit["text"], hit["fields"], hit.get("place"), hit.get("probability"), score)
                for hit, score in zip(hits, fused)
            ]
        else:
            results = self._index.get().search(query, top_k=top_k, where=where, ranker=self._ranker, **self._options)
            rows = [(hit.id, hit.text, hit.fields, hit.place, hit.probability, hit.score) for hit in results]
        is_ranked = any(probability is not None for *_, probability, _ in rows)
        return [
            Found(id, text, probability if is_ranked else score, {**fields, **({"place": place} if place else {})})
            for id, text, fields, place, probability, score in rows
        ]


class RankSource:
    """Scores of texts for a query; an empty text, which servers refuse, has the probability 0.

    Args:
        ranker: a `Ranker`, a folder or a name.
        url: URL of a `serve` of a ranker, or of another server with `/v1/rerank`, in place of a ranker.
        key, timeout: as of `SearchSource`.
        model: the model's name at the server, if it has several.
    """

    def __init__(
        self,
        ranker: Union[Ranker, str, Path, None] = None,
        url: Optional[str] = None,
        key: Optional[str] = None,
        timeout: Optional[float] = None,
        model: Optional[str] = None,
    ) -> None:
        _require_one("ranker", ranker, url, key, timeout, model)
        self._source: _Opened[Union[Ranker, RerankClient]] = (
            _Opened(_open_ranker, ranker)
            if url is None
            else _Opened(_open_client, RerankClient, url, key, timeout, model)
        )

    def rank(self, query: str, texts: Sequence[str], top_k: Optional[int] = None) -> list[tuple[int, float]]:
        """Return places in `texts` with their probabilities, best first, at most `top_k`."""
        read = [place for place, text in enumerate(texts) if not _is_empty(text)]
        ranked = self._source.get().rank(query, [texts[place] for place in read], top_k) if read else []
        found = [(read[title.index], title.probability) for title in ranked]
        empty = [(place, 0.0) for place, text in enumerate(texts) if _is_empty(text)]
        return [*found, *empty][:top_k]

    def score(self, queries: Sequence[str], texts: Sequence[str]) -> Floats:
        """Return the probability of each pair (queries[i], texts[i]), `[n] float64`."""
        require_pairs(queries, texts)
        source, scores = self._source.get(), np.zeros(len(queries))
        places: dict[str, list[int]] = {}
        for place, (query, text) in enumerate(zip(queries, texts)):
            if not _is_empty(text):
                places.setdefault(query, []).append(place)
        if isinstance(source, RerankClient):
            for query, of_query in places.items():
                scores[of_query] = source.score(query, [texts[place] for place in of_query])
        else:
            read = [place for of_query in places.values() for place in of_query]
            scores[read] = source.score([queries[place] for place in read], [texts[place] for place in read])
        return scores


class VectorSource:
    """Vectors of texts and of queries.

    Args:
        tower: a `Tower`, a folder or a name. Vectors of a tower that compares them by cosine have length 1.
        url: URL of a `serve` or `search-serve` of a tower, in place of a tower.
        key, timeout, model: as of `RankSource`.
    """

    def __init__(
        self,
        tower: Union[Tower, str, Path, None] = None,
        url: Optional[str] = None,
        key: Optional[str] = None,
        timeout: Optional[float] = None,
        model: Optional[str] = None,
    ) -> None:
        _require_one("tower", tower, url, key, timeout, model)
        self._source: _Opened[Union[Tower, EmbeddingsClient]] = (
            _Opened(_open_tower, tower)
            if url is None
            else _Opened(_open_client, EmbeddingsClient, url, key, timeout, model)
        )

    def vectors(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors of texts that are searched, `[n, size]`."""
        return self._source.get().vectors(texts)

    def query_vectors(self, queries: Sequence[str]) -> Vectors:
        """Return the vectors of queries, `[n, size]`."""
        return self._source.get().query_vectors(queries)


def where_of(conditions: Iterable[tuple[str, str, Any]]) -> dict[str, dict[str, Any]]:
    """Return a filter of `Index.search` and `/v1/search`, of conditions that a document must all meet.

    conditions: field, operator (==, !=, >, >=, <, <=, in, and "not in" of one value) and value

    Raises `UsageError` for other operators, and for two conditions that the filter cannot hold together.
    """
    where: dict[str, dict[str, Any]] = {}
    for field, operator, value in conditions:
        if operator in ("not in", "nin") and isinstance(value, (list, tuple)) and len(value) == 1:
            operator, value = "!=", value[0]
        if operator not in _OPERATORS:
            raise UsageError(f"filter of {quoted(field)}: there is no {quoted(operator)}, only {listed(_OPERATORS)}")
        of_field = where.setdefault(field, {})
        if of_field.setdefault(_OPERATORS[operator], value) != value:
            raise UsageError(f"filter of {quoted(field)}: two conditions with {operator}; give the stricter one, or in")
    return where


def plain_source(value: Any) -> Any:
    """Return a path as text and an `Index` as its folder's path, so that configurations hold it; else the value."""
    from paddle_ranker.notebook import Index

    if isinstance(value, Index):
        return str(value.folder.absolute())
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def saved_source(name: str, value: Any) -> Optional[str]:
    """Return an argument for a configuration that is saved; raises `UsageError` for an open model."""
    value = plain_source(value)
    if value is None or isinstance(value, str):
        return value
    raise UsageError(f"{name}: {type(value).__name__} is open, and cannot be saved; give its folder in its place")


def _require_one(name: str, given: object, url: Optional[str], *of_url: object) -> None:
    if (given is None) == (url is None):
        raise UsageError(f"{name} and url: {'neither' if url is None else 'both'} given, expected one of them")
    if url is None and any(value is not None for value in of_url):
        raise UsageError(f"key, timeout, model: are of the server at url, and {name} was given: leave them out")


def _is_empty(text: str) -> bool:
    return not text or text.isspace()


def _open_index(index: Any) -> Index:
    runtime.prepare(threads=0)
    from paddle_ranker.notebook import Index

    return index if isinstance(index, Index) else Index(index)


def _open_ranker(ranker: Any) -> Ranker:
    runtime.prepare(threads=0)
    from paddle_ranker.scoring.ranker import Ranker

    return ranker if isinstance(ranker, Ranker) else Ranker.load(ranker)


def _open_tower(tower: Any) -> Tower:
    from paddle_ranker.retrieval.vectors.text_vectors import Tower

    return tower if isinstance(tower, Tower) else Tower.open(tower, for_search=True)


def _open_client(client: Any, url: str, key: Optional[str], timeout: Optional[float], *model: Optional[str]) -> Any:
    key = key or os.environ.get(KEY_VARIABLE) or None
    named = {"model": model[0]} if model else {}
    return client(url=url, api_key=key, timeout=TIMEOUT if timeout is None else timeout, **named)
