"""LangChain: a retriever, a document compressor that reranks, and embeddings.

    from langchain_classic.retrievers import ContextualCompressionRetriever
    from paddle_ranker.integrations.langchain import PaddleRankerRerank, PaddleRankerRetriever

    retriever = PaddleRankerRetriever(index="my_index", k=50)
    reranked = ContextualCompressionRetriever(
        base_compressor=PaddleRankerRerank(ranker="checkpoint/best", top_n=5), base_retriever=retriever
    )
    reranked.invoke("quiet mouse")

Asynchronous methods run the others in threads.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Optional

from paddle_ranker.errors import UsageError, package_for
from paddle_ranker.integrations.sources import (
    KEY_VARIABLE,
    RankSource,
    SearchSource,
    VectorSource,
    plain_source,
    where_of,
)

with package_for(__name__, "langchain-core"):
    from langchain_core.callbacks import (
        AsyncCallbackManagerForRetrieverRun,
        CallbackManagerForRetrieverRun,
        Callbacks,
    )
    from langchain_core.documents import BaseDocumentCompressor, Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.load.serializable import Serializable
    from langchain_core.retrievers import BaseRetriever
    from langchain_core.runnables import run_in_executor
    from pydantic import ConfigDict, Field, PrivateAttr, SecretStr, field_validator

SCORE = "relevance_score"  # LangChain's rerankers write scores there
_CONFIG = ConfigDict(arbitrary_types_allowed=True, extra="forbid")  # of each class, since LangChain's replace a base's


class _Source(Serializable):
    """Arguments that all classes share: `url` of a server, its `key` and the `timeout` in seconds."""

    url: Optional[str] = None
    key: Optional[SecretStr] = None
    timeout: Optional[float] = Field(None, gt=0)

    @field_validator("index", "ranker", "tower", mode="before", check_fields=False)
    @classmethod
    def _plain(cls, value: Any) -> Any:
        return os.fspath(value) if isinstance(value, os.PathLike) else value

    @classmethod
    def is_lc_serializable(cls) -> bool:
        return True

    @property
    def lc_secrets(self) -> dict[str, str]:
        return {"key": KEY_VARIABLE}

    def _server(self) -> dict[str, Any]:
        key = None if self.key is None else self.key.get_secret_value()
        return {"url": self.url, "key": key, "timeout": self.timeout}


class PaddleRankerRetriever(_Source, BaseRetriever):
    """A retriever that searches an index folder or a `search-serve`.

    index: folder of an index, or an `Index`
    ranker: folder or name of a ranker, or a `Ranker`, that orders what the index finds
    k: most documents of an answer
    filter: conditions that documents must meet, `{"price": {"$lt": 50}, "brand": "Acme"}`; the signs $ may be left out
    options: further arguments of `Index.search`, or fields of `/v1/search`: `{"rank_top": 100}`

    `invoke(query, k=…, filter=…)` replaces both for one call. A document's `id` is that of the index, its metadata are
    the fields and `relevance_score`.
    """

    model_config = _CONFIG

    index: Any = None
    ranker: Any = None
    k: int = Field(10, ge=1)
    filter: Optional[dict[str, Any]] = None
    options: dict[str, Any] = Field(default_factory=dict)
    _source: SearchSource = PrivateAttr()

    def model_post_init(self, context: Any) -> None:
        super().model_post_init(context)
        self._source = SearchSource(self.index, self.ranker, **self._server(), options=self.options)
        self.index = plain_source(self.index)
        where_of(_conditions(self.filter))  # refuses a wrong filter at once

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: Optional[int] = None,
        filter: Optional[dict[str, Any]] = None,
    ) -> list[Document]:
        where = where_of(_conditions(self.filter if filter is None else filter))
        return [
            Document(id=found.id, page_content=found.text, metadata=_scored(found.metadata, found.score))
            for found in self._source.search(query, self.k if k is None else k, where)
        ]

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **replaced: Any
    ) -> list[Document]:
        return await run_in_executor(
            None, self._get_relevant_documents, query, run_manager=run_manager.get_sync(), **replaced
        )


class PaddleRankerRerank(_Source, BaseDocumentCompressor):
    """A document compressor that orders documents by a ranker, and keeps the best.

    ranker: folder or name of a ranker, or a `Ranker`
    model: the model's name at a server that has several
    top_n: most documents to keep; None: all

    The documents are copies with `relevance_score` in their metadata.
    """

    model_config = _CONFIG

    ranker: Any = None
    model: Optional[str] = None
    top_n: Optional[int] = Field(None, ge=1)
    _source: RankSource = PrivateAttr()

    def model_post_init(self, context: Any) -> None:
        super().model_post_init(context)
        self._source = RankSource(self.ranker, **self._server(), model=self.model)

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Optional[Callbacks] = None
    ) -> Sequence[Document]:
        """Return the best documents, best first."""
        ranked = self._source.rank(query, [document.page_content for document in documents], self.top_n)
        return [
            documents[place].model_copy(update={"metadata": _scored(documents[place].metadata, probability)})
            for place, probability in ranked
        ]


class PaddleRankerEmbeddings(_Source, Embeddings):
    """Embeddings of a tower, which knows queries from documents.

    tower: folder or name of a tower, or a `Tower`
    model: the model's name at a server that has several
    """

    model_config = _CONFIG

    tower: Any = None
    model: Optional[str] = None
    _source: VectorSource = PrivateAttr()

    def model_post_init(self, context: Any) -> None:
        super().model_post_init(context)
        self._source = VectorSource(self.tower, **self._server(), model=self.model)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return the vectors of texts that are searched."""
        vectors: list[list[float]] = self._source.vectors(texts).tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of a query."""
        vector: list[float] = self._source.query_vectors([text])[0].tolist()
        return vector


def _scored(metadata: Mapping[str, Any], score: Optional[float]) -> dict[str, Any]:
    return {**metadata} if score is None else {**metadata, SCORE: score}


def _conditions(filter: Optional[Mapping[str, Any]]) -> Iterable[tuple[str, str, Any]]:
    """Yield the conditions of a filter as LangChain's vector stores take them; raises `UsageError` for `$or`."""
    for field, wanted in (filter or {}).items():
        if field == "$and":
            for part in wanted:
                yield from _conditions(part)
        elif field.startswith("$"):
            raise UsageError(f"filter: there is no {field}; all conditions must be met, and $in takes several values")
        elif isinstance(wanted, Mapping):
            for operator, value in wanted.items():
                yield field, _SIGNS.get(str(operator).lstrip("$"), str(operator)), value
        else:
            yield field, "in" if isinstance(wanted, (list, tuple)) else "==", wanted


_SIGNS = {"eq": "==", "ne": "!=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<=", "nin": "not in"}
