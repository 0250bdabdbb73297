"""LlamaIndex's own classes with these: retrieve, postprocessors, vector stores, serialization."""

from __future__ import annotations

import asyncio
import pickle
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("llama_index.core", reason="needs LlamaIndex: docs/setup.md#frameworks")

from llama_index.core import VectorStoreIndex
from llama_index.core.schema import MetadataMode, TextNode
from llama_index.core.vector_stores import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters

from paddle_ranker import Index, Ranker
from paddle_ranker.errors import UsageError
from paddle_ranker.integrations.llama_index import PaddleRankerEmbedding, PaddleRankerRerank, PaddleRankerRetriever
from paddle_ranker.retrieval.vectors.text_vectors import Tower
from tests.integrations.conftest import KEY

pytestmark = pytest.mark.server


def filters(*conditions: tuple[str, str, Any], joined: str = "and") -> MetadataFilters:
    parts = [
        MetadataFilter(key=key, operator=FilterOperator(operator), value=value) for key, operator, value in conditions
    ]
    return MetadataFilters(filters=parts, condition=FilterCondition(joined))


def test_a_retriever_finds_what_the_index_finds(made: SimpleNamespace, url: str) -> None:
    with Index(made.hybrid) as index:
        expected = index.search("mouse", top_k=2, ranker=str(made.ranker), where="price<60")
    chosen = filters(("price", "<", 60))
    for source in ({"index": made.hybrid, "ranker": made.ranker}, {"url": url, "key": KEY}):
        retriever = PaddleRankerRetriever(**source, similarity_top_k=2, filters=chosen)
        found = retriever.retrieve("mouse")
        assert [node.node_id for node in found] == [hit.id for hit in expected]
        assert [node.score for node in found] == pytest.approx([hit.probability for hit in expected], rel=1e-5)
        assert found[0].text == expected[0].text and found[0].metadata == expected[0].fields
        assert asyncio.run(retriever.aretrieve("mouse")) == found
        assert pickle.loads(pickle.dumps(retriever)).retrieve("mouse") == found  # noqa: S301


@pytest.mark.parametrize(
    "given, ids",
    [
        (filters(("price", "in", [30.0, 79.0])), {"a1", "a3"}),
        (filters(("brand", "nin", ["Acme"])), {"a1", "a3"}),
        (filters(("brand", "!=", "Acme"), ("price", ">=", 31)), {"a1"}),
        (filters(("brand", "==", "Acme"), joined="or"), {"a0", "a2"}),
        (MetadataFilters(filters=[filters(("price", "<", 40)), filters(("price", ">", 20))]), {"a3"}),
    ],
)
def test_filters_are_those_of_llama_index(made: SimpleNamespace, given: MetadataFilters, ids: set[str]) -> None:
    found = PaddleRankerRetriever(made.index, filters=given).retrieve("mouse keyboard")
    assert {node.node_id for node in found} == ids


@pytest.mark.parametrize(
    "given",
    [
        filters(("brand", "==", "a"), ("brand", "==", "b"), joined="or"),
        filters(("brand", "==", "a"), joined="not"),
        filters(("brand", "text_match", "a")),
        filters(("brand", "nin", ["a", "b"])),
    ],
)
def test_filters_that_an_index_cannot_hold_are_refused_at_once(made: SimpleNamespace, given: MetadataFilters) -> None:
    with pytest.raises(UsageError, match="filter"):
        PaddleRankerRetriever(made.index, filters=given)


def test_a_postprocessor_orders_nodes(made: SimpleNamespace, url: str) -> None:
    nodes = PaddleRankerRetriever(made.index).retrieve("mouse")
    for mode in (MetadataMode.NONE, MetadataMode.EMBED):
        texts = [node.node.get_content(mode) for node in nodes]
        expected = Ranker.load(made.ranker).rank("mouse", texts, 2)
        for source in ({"ranker": str(made.ranker)}, {"url": url, "key": KEY}):
            reranker = PaddleRankerRerank(**source, top_n=2, metadata_mode=mode)
            again = PaddleRankerRerank.from_json(reranker.to_json(), key=source.get("key"))
            assert KEY not in reranker.to_json() + repr(reranker)
            for one in (reranker, again, pickle.loads(pickle.dumps(reranker))):  # noqa: S301
                found = one.postprocess_nodes(nodes, query_str="mouse")
                assert [node.node_id for node in found] == [nodes[title.index].node_id for title in expected]
                scores = [title.probability for title in expected]
                assert [node.score for node in found] == pytest.approx(scores, rel=1e-5)
            assert asyncio.run(reranker.apostprocess_nodes(nodes, query_str="mouse")) == found
    with pytest.raises(UsageError, match="none was given"):
        reranker.postprocess_nodes(nodes)
    with pytest.raises(ValueError, match="ranker: Ranker is open"):  # pydantic's, around ours
        PaddleRankerRerank(ranker=Ranker.load(made.ranker)).to_json()


def test_an_embedding_knows_queries_from_texts(made: SimpleNamespace, url: str) -> None:
    tower, texts = Tower.open(made.tower), ["quiet mouse", "keys"]
    for source in ({"tower": str(made.tower)}, {"url": url, "key": KEY}):
        embedding = PaddleRankerEmbedding(**source)
        again = PaddleRankerEmbedding.from_dict(embedding.to_dict(), key=source.get("key"))
        query = tower.query_vectors(["keys"])[0].tolist()
        assert again.get_query_embedding("keys") == pytest.approx(query, abs=1e-5)
        for vector, expected in zip(embedding.get_text_embedding_batch(texts), tower.vectors(texts)):
            assert vector == pytest.approx(expected.tolist(), abs=1e-5)
        assert asyncio.run(embedding.aget_query_embedding("keys")) == pytest.approx(query, abs=1e-5)
        assert len(asyncio.run(embedding.aget_text_embedding_batch(texts))) == 2
        assert embedding.model_name == str(source.get("tower") or url) and KEY not in str(embedding.to_payload())
    index = VectorStoreIndex([TextNode(text=text, id_=text) for text in texts], embed_model=embedding)
    nearest = max(texts, key=lambda text: float(tower.vectors([text])[0] @ query))
    assert index.as_retriever(similarity_top_k=1).retrieve("keys")[0].node_id == nearest
