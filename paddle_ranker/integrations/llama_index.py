"""LlamaIndex: a retriever, a node postprocessor that reranks, and an embedding.

    from llama_index.core.query_engine import RetrieverQueryEngine
    from paddle_ranker.integrations.llama_index import PaddleRankerRerank, PaddleRankerRetriever

    engine = RetrieverQueryEngine.from_args(
        PaddleRankerRetriever(index="my_index", similarity_top_k=50),
        node_postprocessors=[PaddleRankerRerank(ranker="checkpoint/best", top_n=5)],
    )

Asynchronous methods run the others in threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, Union

from paddle_ranker.errors import UsageError, package_for
from paddle_ranker.integrations.sources import RankSource, SearchSource, VectorSource, saved_source, where_of

with package_for(__name__, "llama-index-core"):
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.bridge.pydantic import ConfigDict, Field, PrivateAttr, field_serializer
    from llama_index.core.callbacks import CallbackManager
    from llama_index.core.embeddings import BaseEmbedding
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode
    from llama_index.core.vector_stores import MetadataFilters

if TYPE_CHECKING:
    from paddle_ranker.notebook import Index
    from paddle_ranker.scoring.ranker import Ranker


class PaddleRankerRetriever(BaseRetriever):
    """A retriever that searches an index folder or a `search-serve`.

    Args:
        index, ranker, url, key, timeout, options: as of `SearchSource`.
        similarity_top_k: most nodes of an answer.
        filters: conditions that documents must meet, joined by "and".
        callback_manager, verbose: as of LlamaIndex's retrievers.

    A node's id is the document's, its metadata are the fields.
    """

    def __init__(
        self,
        index: Union[Index, str, Path, None] = None,
        ranker: Union[Ranker, str, Path, None] = None,
        *,
        url: Optional[str] = None,
        key: Optional[str] = None,
        timeout: Optional[float] = None,
        similarity_top_k: int = 10,
        filters: Optional[MetadataFilters] = None,
        options: Optional[Mapping[str, Any]] = None,
        callback_manager: Optional[CallbackManager] = None,
        verbose: bool = False,
    ) -> None:
        super().__init__(callback_manager=callback_manager, verbose=verbose)
        self.similarity_top_k = similarity_top_k
        self._where = where_of(_conditions(filters))
        self._source = SearchSource(index, ranker, url, key, timeout, options)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [
            NodeWithScore(node=TextNode(id_=found.id, text=found.text, metadata=found.metadata), score=found.score)
            for found in self._source.search(query_bundle.query_str, self.similarity_top_k, self._where)
        ]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)


class PaddleRankerRerank(BaseNodePostprocessor):
    """A node postprocessor that orders nodes by a ranker, and keeps the best.

    ranker: folder or name of a ranker, or a `Ranker`
    url, key, timeout, model: a server in place of a ranker, and the model's name there; the key is not serialized
    top_n: most nodes to keep; None: all
    metadata_mode: what a node's text is read with: `none` its text alone, `embed` or `llm` its metadata, too
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", protected_namespaces=())

    ranker: Any = None
    url: Optional[str] = None
    key: Optional[str] = Field(None, exclude=True, repr=False)
    timeout: Optional[float] = Field(None, gt=0)
    model: Optional[str] = None
    top_n: Optional[int] = Field(None, ge=1)
    metadata_mode: MetadataMode = MetadataMode.NONE
    _source: RankSource = PrivateAttr()

    def model_post_init(self, context: Any) -> None:
        super().model_post_init(context)
        self._source = RankSource(self.ranker, self.url, self.key, self.timeout, self.model)

    @field_serializer("ranker")
    def _saved(self, ranker: Any) -> Optional[str]:
        return saved_source("ranker", ranker)

    @classmethod
    def class_name(cls) -> str:
        return "PaddleRankerRerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: Optional[QueryBundle] = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise UsageError("query_bundle: nodes are ordered for a query, and none was given")
        texts = [node.node.get_content(metadata_mode=self.metadata_mode) for node in nodes]
        ranked = self._source.rank(query_bundle.query_str, texts, self.top_n)
        return [NodeWithScore(node=nodes[place].node, score=probability) for place, probability in ranked]


class PaddleRankerEmbedding(BaseEmbedding):
    """An embedding of a tower, which knows queries from texts.

    tower: folder or name of a tower, or a `Tower`
    url, key, timeout, model: a server in place of a tower, and the model's name there; the key is not serialized
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", protected_namespaces=())

    tower: Any = None
    url: Optional[str] = None
    key: Optional[str] = Field(None, exclude=True, repr=False)
    timeout: Optional[float] = Field(None, gt=0)
    model: Optional[str] = None
    _source: VectorSource = PrivateAttr()

    def model_post_init(self, context: Any) -> None:
        super().model_post_init(context)
        self._source = VectorSource(self.tower, self.url, self.key, self.timeout, self.model)
        if "model_name" not in self.model_fields_set:
            self.model_name = self.model or str(
                self.url or (self.tower if isinstance(self.tower, (str, Path)) else "tower")
            )

    @field_serializer("tower")
    def _saved(self, tower: Any) -> Optional[str]:
        return saved_source("tower", tower)

    @classmethod
    def class_name(cls) -> str:
        return "PaddleRankerEmbedding"

    def _get_query_embedding(self, query: str) -> list[float]:
        vector: list[float] = self._source.query_vectors([query])[0].tolist()
        return vector

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = self._source.vectors(texts).tolist()
        return vectors

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await asyncio.to_thread(self._get_text_embedding, text)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)


def _conditions(filters: Optional[MetadataFilters]) -> Iterable[tuple[str, str, Any]]:
    """Yield the conditions of filters; raises `UsageError` for those that are not joined by "and"."""
    if filters is None:
        return
    joined = "and" if filters.condition is None else filters.condition.value
    if joined != "and" and (joined == "not" or len(filters.filters) > 1):
        raise UsageError(f"filters: there is no {joined!r}; all conditions must be met, and `in` takes several values")
    for part in filters.filters:
        if isinstance(part, MetadataFilters):
            yield from _conditions(part)
        else:
            yield part.key, part.operator.value, part.value
