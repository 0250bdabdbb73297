"""Haystack: a retriever, a ranker, and embedders of texts and of documents.

    from haystack import Pipeline
    from paddle_ranker.integrations.haystack import PaddleRankerRanker, PaddleRankerRetriever

    pipeline = Pipeline()
    pipeline.add_component("retriever", PaddleRankerRetriever(index="my_index", top_k=50))
    pipeline.add_component("ranker", PaddleRankerRanker(ranker="checkpoint/best", top_k=5))
    pipeline.connect("retriever.documents", "ranker.documents")
    pipeline.run({"retriever": {"query": "quiet mouse"}, "ranker": {"query": "quiet mouse"}})

`Pipeline.loads` needs `allowed_modules=["paddle_ranker.*"]`, as for every package outside Haystack's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, Union

from paddle_ranker.errors import UsageError, package_for, quoted
from paddle_ranker.integrations.sources import (
    RankSource,
    SearchSource,
    VectorSource,
    saved_source,
    where_of,
)

with package_for(__name__, "haystack-ai"):
    from haystack import Document, component, default_from_dict, default_to_dict
    from haystack.utils import Secret

if TYPE_CHECKING:
    from paddle_ranker.notebook import Index
    from paddle_ranker.retrieval.vectors.text_vectors import Tower
    from paddle_ranker.scoring.ranker import Ranker


@component
class PaddleRankerRetriever:
    """A retriever that searches an index folder or a `search-serve`.

    Args:
        index, ranker, url, timeout, options: as of `SearchSource`.
        key: the server's key (default with `url`: that of the variable `PADDLE_RANKER_API_KEY`).
        top_k: most documents of an answer.
        filters: conditions that documents must meet, joined by AND; `meta.` before a field may be left out.

    A document's `id` is that of the index, its `meta` are the fields.
    """

    def __init__(
        self,
        index: Union[Index, str, Path, None] = None,
        ranker: Union[Ranker, str, Path, None] = None,
        *,
        url: Optional[str] = None,
        key: Optional[Secret] = None,
        timeout: Optional[float] = None,
        top_k: int = 10,
        filters: Optional[dict[str, Any]] = None,
        options: Optional[dict[str, Any]] = None,
    ) -> None:
        self.index, self.ranker, self.url, self.timeout = index, ranker, url, timeout
        self.key, self.top_k, self.filters, self.options = key, top_k, filters, options
        where_of(_conditions(filters))  # refuses a wrong filter at once
        self._source = SearchSource(index, ranker, url, _value(key), timeout, options)

    def to_dict(self) -> dict[str, Any]:
        """Return the component's arguments; raises `UsageError` for an open ranker."""
        return default_to_dict(
            self,
            index=saved_source("index", self.index),
            ranker=saved_source("ranker", self.ranker),
            **_server(self),
            top_k=self.top_k,
            filters=self.filters,
            options=self.options,
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> PaddleRankerRetriever:
        """Make a component of what `to_dict` returned."""
        return default_from_dict(cls, data)

    @component.output_types(documents=list[Document])
    def run(
        self, query: str, filters: Optional[dict[str, Any]] = None, top_k: Optional[int] = None
    ) -> dict[str, list[Document]]:
        """Return the best documents for a query; `filters` and `top_k` replace those of the component."""
        where = where_of(_conditions(self.filters if filters is None else filters))
        found = self._source.search(query, self.top_k if top_k is None else top_k, where)
        return {
            "documents": [Document(id=one.id, content=one.text, meta=one.metadata, score=one.score) for one in found]
        }

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query: str, filters: Optional[dict[str, Any]] = None, top_k: Optional[int] = None
    ) -> dict[str, list[Document]]:
        """Do what `run` does, in a thread."""
        return await asyncio.to_thread(self.run, query, filters, top_k)


@component
class PaddleRankerRanker:
    """A ranker that orders documents by their probability of relevance, and keeps the best.

    Args:
        ranker, url, timeout, model: as of `RankSource`.
        key: as of `PaddleRankerRetriever`.
        top_k: most documents to keep; None: all.
        score_threshold: least probability of a document that is kept.
        meta_fields_to_embed: fields of the metadata that are read before the content.
        embedding_separator: text between these fields and the content.
    """

    def __init__(
        self,
        ranker: Union[Ranker, str, Path, None] = None,
        *,
        url: Optional[str] = None,
        key: Optional[Secret] = None,
        timeout: Optional[float] = None,
        model: Optional[str] = None,
        top_k: Optional[int] = None,
        score_threshold: Optional[float] = None,
        meta_fields_to_embed: Optional[list[str]] = None,
        embedding_separator: str = "\n",
    ) -> None:
        self.ranker, self.url, self.key, self.timeout, self.model = ranker, url, key, timeout, model
        self.top_k, self.score_threshold = top_k, score_threshold
        self.meta_fields_to_embed, self.embedding_separator = meta_fields_to_embed or [], embedding_separator
        self._source = RankSource(ranker, url, _value(key), timeout, model)

    def to_dict(self) -> dict[str, Any]:
        """Return the component's arguments; raises `UsageError` for an open ranker."""
        return default_to_dict(
            self,
            ranker=saved_source("ranker", self.ranker),
            **_server(self),
            model=self.model,
            top_k=self.top_k,
            score_threshold=self.score_threshold,
            meta_fields_to_embed=self.meta_fields_to_embed,
            embedding_separator=self.embedding_separator,
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> PaddleRankerRanker:
        """Make a component of what `to_dict` returned."""
        return default_from_dict(cls, data)

    @component.output_types(documents=list[Document])
    def run(
        self,
        query: str,
        documents: list[Document],
        top_k: Optional[int] = None,
        score_threshold: Optional[float] = None,
    ) -> dict[str, list[Document]]:
        """Return the documents, best first; `top_k` and `score_threshold` replace those of the component."""
        least = self.score_threshold if score_threshold is None else score_threshold
        texts = _texts(documents, self.meta_fields_to_embed, self.embedding_separator)
        ranked = self._source.rank(query, texts, self.top_k if top_k is None else top_k)
        return {
            "documents": [
                replace(documents[place], score=probability)
                for place, probability in ranked
                if least is None or probability >= least
            ]
        }

    @component.output_types(documents=list[Document])
    async def run_async(
        self,
        query: str,
        documents: list[Document],
        top_k: Optional[int] = None,
        score_threshold: Optional[float] = None,
    ) -> dict[str, list[Document]]:
        """Do what `run` does, in a thread."""
        return await asyncio.to_thread(self.run, query, documents, top_k, score_threshold)


@component
class PaddleRankerTextEmbedder:
    """An embedder of queries by a tower.

    Args:
        tower, url, timeout, model: as of `VectorSource`.
        key: as of `PaddleRankerRetriever`.
    """

    def __init__(
        self,
        tower: Union[Tower, str, Path, None] = None,
        *,
        url: Optional[str] = None,
        key: Optional[Secret] = None,
        timeout: Optional[float] = None,
        model: Optional[str] = None,
    ) -> None:
        self.tower, self.url, self.key, self.timeout, self.model = tower, url, key, timeout, model
        self._source = VectorSource(tower, url, _value(key), timeout, model)

    def to_dict(self) -> dict[str, Any]:
        """Return the component's arguments; raises `UsageError` for an open tower."""
        return default_to_dict(self, tower=saved_source("tower", self.tower), **_server(self), model=self.model)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> PaddleRankerTextEmbedder:
        """Make a component of what `to_dict` returned."""
        return default_from_dict(cls, data)

    @component.output_types(embedding=list[float], meta=dict[str, Any])
    def run(self, text: str) -> dict[str, Any]:
        """Return the vector of a query, as `embedding`."""
        if not isinstance(text, str):
            raise TypeError(f"text: {quoted(text)}: expected a text; PaddleRankerDocumentEmbedder takes documents")
        return {"embedding": self._source.query_vectors([text])[0].tolist(), "meta": _model_named(self)}

    @component.output_types(embedding=list[float], meta=dict[str, Any])
    async def run_async(self, text: str) -> dict[str, Any]:
        """Do what `run` does, in a thread."""
        return await asyncio.to_thread(self.run, text)


@component
class PaddleRankerDocumentEmbedder:
    """An embedder of documents by a tower.

    Args:
        tower, url, key, timeout, model: as of `PaddleRankerTextEmbedder`.
        meta_fields_to_embed, embedding_separator: as of `PaddleRankerRanker`.
    """

    def __init__(
        self,
        tower: Union[Tower, str, Path, None] = None,
        *,
        url: Optional[str] = None,
        key: Optional[Secret] = None,
        timeout: Optional[float] = None,
        model: Optional[str] = None,
        meta_fields_to_embed: Optional[list[str]] = None,
        embedding_separator: str = "\n",
    ) -> None:
        self.tower, self.url, self.key, self.timeout, self.model = tower, url, key, timeout, model
        self.meta_fields_to_embed, self.embedding_separator = meta_fields_to_embed or [], embedding_separator
        self._source = VectorSource(tower, url, _value(key), timeout, model)

    def to_dict(self) -> dict[str, Any]:
        """Return the component's arguments; raises `UsageError` for an open tower."""
        return default_to_dict(
            self,
            tower=saved_source("tower", self.tower),
            **_server(self),
            model=self.model,
            meta_fields_to_embed=self.meta_fields_to_embed,
            embedding_separator=self.embedding_separator,
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> PaddleRankerDocumentEmbedder:
        """Make a component of what `to_dict` returned."""
        return default_from_dict(cls, data)

    @component.output_types(documents=list[Document], meta=dict[str, Any])
    def run(self, documents: list[Document]) -> dict[str, Any]:
        """Return copies of the documents with their vectors as `embedding`."""
        if not isinstance(documents, list) or not all(isinstance(document, Document) for document in documents):
            raise TypeError("documents: expected a list of Documents; PaddleRankerTextEmbedder takes a text")
        vectors = self._source.vectors(_texts(documents, self.meta_fields_to_embed, self.embedding_separator))
        embedded = [replace(document, embedding=vector.tolist()) for document, vector in zip(documents, vectors)]
        return {"documents": embedded, "meta": _model_named(self)}

    @component.output_types(documents=list[Document], meta=dict[str, Any])
    async def run_async(self, documents: list[Document]) -> dict[str, Any]:
        """Do what `run` does, in a thread."""
        return await asyncio.to_thread(self.run, documents)


def _value(key: Optional[Secret]) -> Optional[str]:
    """Return a secret's text; None, which stands for the default variable, if there is no secret."""
    value: Optional[str] = None if key is None else key.resolve_value()
    return value


def _server(made: Any) -> dict[str, Any]:
    """Return a component's arguments about a server, for `to_dict`; Haystack refuses a key that is no variable's."""
    key = made.key.to_dict() if made.key is not None else None
    return {"url": made.url, "key": key, "timeout": made.timeout}


def _model_named(embedder: Any) -> dict[str, Any]:
    source = embedder.tower if isinstance(embedder.tower, (str, Path)) else embedder.url
    return {"model": embedder.model or str(source or "tower")}


def _texts(documents: Sequence[Document], fields: Sequence[str], separator: str) -> list[str]:
    """Return the documents' contents behind the values of these fields of their metadata."""
    return [
        separator.join(
            [
                *(str(document.meta[name]) for name in fields if document.meta.get(name) is not None),
                document.content or "",
            ]
        )
        for document in documents
    ]


def _conditions(filters: Optional[Mapping[str, Any]]) -> Iterable[tuple[str, str, Any]]:
    """Yield the conditions of filters; raises `UsageError` for those that are not joined by AND."""
    if not filters:
        return
    if "conditions" in filters:
        conditions = filters["conditions"]
        operator = filters.get("operator")
        if operator != "AND" and not (operator == "OR" and len(conditions) == 1):
            raise UsageError(f"filters: there is no {quoted(operator)}, only AND; the operator in takes several values")
        for part in conditions:
            yield from _conditions(part)
    elif not {"field", "operator", "value"} <= filters.keys():
        raise UsageError(f"filters: {quoted(dict(filters))}: expected field, operator and value")
    else:
        name = filters["field"]
        yield name[len("meta.") :] if name.startswith("meta.") else name, filters["operator"], filters["value"]
