"""LangChain's own classes with these: invoke, batch, chains, compression, vector stores, serialization."""

from __future__ import annotations

import asyncio
import pickle
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("langchain_core", reason="needs LangChain: docs/setup.md#frameworks")

from langchain_core.load import dumps, loads
from langchain_core.vectorstores import InMemoryVectorStore

from paddle_ranker import Index, Ranker
from paddle_ranker.errors import UsageError
from paddle_ranker.integrations.langchain import PaddleRankerEmbeddings, PaddleRankerRerank, PaddleRankerRetriever
from paddle_ranker.retrieval.vectors.text_vectors import Tower
from tests.integrations.conftest import KEY

pytestmark = pytest.mark.server


@pytest.fixture(params=["here", "url"])
def retriever(request: pytest.FixtureRequest, made: SimpleNamespace) -> PaddleRankerRetriever:
    if request.param == "here":
        return PaddleRankerRetriever(index=made.hybrid, ranker=made.ranker, k=2)
    return PaddleRankerRetriever(url=request.getfixturevalue("url"), key=KEY, k=2)


def test_a_retriever_finds_what_the_index_finds(retriever: PaddleRankerRetriever, made: SimpleNamespace) -> None:
    with Index(made.hybrid) as index:
        expected = index.search("mouse", top_k=2, ranker=str(made.ranker))
    found = retriever.invoke("mouse")
    assert [document.id for document in found] == [hit.id for hit in expected]
    assert [document.page_content for document in found] == [hit.text for hit in expected]
    assert found[0].metadata == {**expected[0].fields, "relevance_score": pytest.approx(expected[0].probability)}
    assert asyncio.run(retriever.ainvoke("mouse")) == found == retriever.batch(["mouse", "keys"])[0]
    assert asyncio.run(retriever.abatch(["mouse"])) == [found]
    cheap = retriever.invoke("mouse", k=4, filter={"price": {"$lt": 50}})
    assert {document.id for document in cheap} == {"a0", "a2", "a3"}
    assert asyncio.run(retriever.ainvoke("mouse", filter={"brand": "Acme"}, k=9))[0].metadata["brand"] == "Acme"


def test_what_is_saved_comes_back_without_the_key(
    retriever: PaddleRankerRetriever, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = dumps(retriever)
    assert KEY not in text and KEY not in repr(retriever)
    again = loads(
        text,
        allowed_objects=[PaddleRankerRetriever],
        valid_namespaces=["paddle_ranker"],
        secrets_map={"PADDLE_RANKER_API_KEY": KEY},
    )
    assert again.invoke("mouse") == retriever.invoke("mouse") == pickle.loads(pickle.dumps(retriever)).invoke("mouse")  # noqa: S301


def test_a_compressor_orders_documents(made: SimpleNamespace, url: str) -> None:
    documents = PaddleRankerRetriever(index=made.index, k=4).invoke("mouse")
    given = [document.model_copy(deep=True) for document in documents]
    texts = [document.page_content for document in documents]
    expected = Ranker.load(made.ranker).rank("mouse", texts, 2)
    for source in ({"ranker": made.ranker}, {"ranker": Ranker.load(made.ranker)}, {"url": url, "key": KEY}):
        reranker = PaddleRankerRerank(**source, top_n=2)
        found = reranker.compress_documents(documents, "mouse")
        assert [document.id for document in found] == [documents[title.index].id for title in expected]
        scores = [document.metadata["relevance_score"] for document in found]
        assert scores == pytest.approx([title.probability for title in expected], rel=1e-5)
        assert asyncio.run(reranker.acompress_documents(documents, "mouse")) == found and documents == given
    assert PaddleRankerRerank(ranker=made.ranker).compress_documents([], "mouse") == []


def test_embeddings_know_queries_from_documents(made: SimpleNamespace, url: str) -> None:
    tower, texts = Tower.open(made.tower), ["quiet mouse", "keys"]
    for source in ({"tower": made.tower}, {"url": url, "key": KEY}):
        embeddings = PaddleRankerEmbeddings(**source)
        assert embeddings.embed_query("keys") == pytest.approx(tower.query_vectors(["keys"])[0].tolist(), abs=1e-5)
        for vector, expected in zip(embeddings.embed_documents(texts), tower.vectors(texts)):
            assert vector == pytest.approx(expected.tolist(), abs=1e-5)
        assert asyncio.run(embeddings.aembed_query("keys")) == pytest.approx(embeddings.embed_query("keys"))
    again = loads(dumps(embeddings), allowed_objects=[PaddleRankerEmbeddings], valid_namespaces=["paddle_ranker"],
                  secrets_map={"PADDLE_RANKER_API_KEY": KEY})  # fmt: skip
    store = InMemoryVectorStore.from_texts(texts, again)
    assert len(store.similarity_search("keys", k=1)) == 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"filter": {"$or": [{"price": 1}]}}, r"there is no \$or"),
        ({"filter": {"price": {"$regex": "x"}}}, "regex"),
        ({"options": {"where": {}}}, "where is no option"),
        ({"url": "http://127.0.0.1:9"}, "both given"),
    ],
)
def test_wrong_arguments_are_refused_at_once(made: SimpleNamespace, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PaddleRankerRetriever(index=made.index, **arguments)


def test_a_misspelt_argument_is_refused(made: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match="top_k"):
        PaddleRankerRetriever(index=made.index, top_k=3)
    combined = {"$and": [{"price": {"$gt": 20}}, {"price": {"lt": 60}}], "brand": ["Acme", "Globex"]}
    found = PaddleRankerRetriever(index=made.index, filter=combined).invoke("mouse keyboard")
    assert {document.id for document in found} == {"a2", "a3"}
