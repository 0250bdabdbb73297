"""Haystack's own pipelines with these: run, asynchronous runs, filters, YAML."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("haystack", reason="needs Haystack: docs/setup.md#frameworks")

from haystack import Document, Pipeline
from haystack.utils import Secret
from haystack.utils.filters import document_matches_filter

from paddle_ranker import Index, Ranker
from paddle_ranker.errors import UsageError
from paddle_ranker.integrations.haystack import (
    PaddleRankerDocumentEmbedder,
    PaddleRankerRanker,
    PaddleRankerRetriever,
    PaddleRankerTextEmbedder,
)
from paddle_ranker.retrieval.vectors.text_vectors import Tower
from tests.integrations.conftest import KEY

pytestmark = pytest.mark.server


@pytest.fixture(params=["here", "url"])
def served(request: pytest.FixtureRequest, made: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Arguments of retriever, ranker and embedders."""
    if request.param == "here":
        searched = {"index": made.hybrid, "ranker": made.ranker}
        return SimpleNamespace(retriever=searched, ranker={"ranker": made.ranker}, embedder={"tower": made.tower})
    monkeypatch.setenv("MY_KEY", KEY)
    source = {"url": request.getfixturevalue("url"), "key": Secret.from_env_var("MY_KEY")}
    return SimpleNamespace(retriever=source, ranker=source, embedder=source)


def test_a_pipeline_finds_and_ranks_and_comes_back_from_yaml(served: Any, made: SimpleNamespace) -> None:
    chosen = {"field": "meta.price", "operator": "<", "value": 60}
    with Index(made.hybrid) as index:
        hits = index.search("mouse", top_k=3, ranker=str(made.ranker), where="price<60")
    texts = [f"{hit.fields['name']} / {hit.text}" for hit in hits]
    expected = Ranker.load(made.ranker).rank("mouse", texts, 2)
    pipeline = Pipeline()
    pipeline.add_component("retriever", PaddleRankerRetriever(**served.retriever, top_k=3, filters=chosen))
    options: dict[str, Any] = {"top_k": 2, "meta_fields_to_embed": ["name"], "embedding_separator": " / "}
    pipeline.add_component("ranker", PaddleRankerRanker(**served.ranker, **options))
    pipeline.connect("retriever.documents", "ranker.documents")
    asked = {"retriever": {"query": "mouse"}, "ranker": {"query": "mouse"}}
    both = pipeline.run(asked, include_outputs_from={"retriever"})
    assert [(one.id, one.content, one.meta) for one in both["retriever"]["documents"]] == [
        (hit.id, hit.text, hit.fields) for hit in hits
    ]
    scores = [document.score for document in both["retriever"]["documents"]]
    assert scores == pytest.approx([hit.probability for hit in hits], rel=1e-5)
    found = both["ranker"]["documents"]
    assert [document.id for document in found] == [hits[title.index].id for title in expected]
    assert [document.score for document in found] == pytest.approx([title.probability for title in expected], rel=1e-5)
    text = pipeline.dumps()
    assert KEY not in text
    again = Pipeline.loads(text, allowed_modules=["paddle_ranker.*"])
    assert again.run(asked)["ranker"]["documents"] == found
    assert asyncio.run(again.run_async(asked))["ranker"]["documents"] == found
    least = expected[0].probability - 1e-3
    only = again.run({**asked, "ranker": {"query": "mouse", "score_threshold": least}})["ranker"]["documents"]
    assert [document.id for document in only] == [document.id for document in found if document.score >= least]


@pytest.mark.parametrize(
    "chosen",
    [
        {"field": "meta.brand", "operator": "==", "value": "Acme"},
        {"field": "brand", "operator": "not in", "value": ["Acme"]},
        {"operator": "OR", "conditions": [{"field": "meta.price", "operator": "in", "value": [30.0, 79.0]}]},
        {
            "operator": "AND",
            "conditions": [
                {"field": "meta.price", "operator": ">", "value": 20},
                {"operator": "AND", "conditions": [{"field": "meta.price", "operator": "<=", "value": 49}]},
                {"field": "meta.brand", "operator": "!=", "value": "Globex"},
            ],
        },
    ],
)
def test_filters_choose_what_haystack_chooses(made: SimpleNamespace, chosen: dict[str, Any]) -> None:
    retriever = PaddleRankerRetriever(made.index)
    everything = retriever.run("mouse keyboard", top_k=9)["documents"]
    expected = {document.id for document in everything if document_matches_filter(chosen, document)}
    found = retriever.run("mouse keyboard", filters=chosen)["documents"]
    assert len(everything) == 4 and {document.id for document in found} == expected != set()


@pytest.mark.parametrize(
    "chosen",
    [
        {"operator": "OR", "conditions": [{"field": "a", "operator": "==", "value": 1}] * 2},
        {"operator": "NOT", "conditions": [{"field": "a", "operator": "==", "value": 1}]},
        {"field": "a", "operator": "not in", "value": [1, 2]},
        {"field": "a", "value": 1},
        {"brand": "Acme"},
    ],
)
def test_filters_that_an_index_cannot_hold_are_refused_at_once(made: SimpleNamespace, chosen: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="filter"):
        PaddleRankerRetriever(made.index, filters=chosen)


def test_embedders_make_vectors(served: Any, made: SimpleNamespace) -> None:
    tower = Tower.open(made.tower)
    documents = [Document(content="makes no noise", meta={"name": "mouse"}), Document(content="keys")]
    embedder = PaddleRankerDocumentEmbedder(**served.embedder, meta_fields_to_embed=["name"])
    again = PaddleRankerDocumentEmbedder.from_dict(embedder.to_dict())
    expected = tower.vectors(["mouse\nmakes no noise", "keys"])
    for one in (embedder, again):
        answer = one.run(documents)
        for document, given, vector in zip(answer["documents"], documents, expected):
            assert document.embedding == pytest.approx(vector.tolist(), abs=1e-5)
            assert given.embedding is None and document.id == given.id
    assert asyncio.run(embedder.run_async(documents)) == answer
    text = PaddleRankerTextEmbedder.from_dict(PaddleRankerTextEmbedder(**served.embedder).to_dict())
    assert text.run("keys")["embedding"] == pytest.approx(tower.query_vectors(["keys"])[0].tolist(), abs=1e-5)
    assert asyncio.run(text.run_async("keys")) == text.run("keys")
    for wrong, given in ((text, documents), (embedder, "keys"), (embedder, ["keys"])):
        with pytest.raises(TypeError, match="Embedder takes"):
            wrong.run(given)


def test_a_key_and_an_open_ranker_are_not_written(made: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match="token"):
        PaddleRankerRanker(url="http://127.0.0.1:9", key=Secret.from_token(KEY)).to_dict()
    with pytest.raises(UsageError, match="ranker: Ranker is open"):
        PaddleRankerRanker(Ranker.load(made.ranker)).to_dict()
