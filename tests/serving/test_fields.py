"""Every field of every protocol is honoured, refused by name, or without effect; what no protocol knows is refused.

The names are those of the clients in requirements/peers.in (the parameters of cohere's Client and ClientV2, voyageai,
openai, huggingface_hub, and what LiteLLM passes on) and of the servers' own request classes (vLLM, Text Embeddings
Inference, Infinity, Xinference), each with a value that asks for something else than the request without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from paddle_ranker.serving.core.metrics import Metrics
from paddle_ranker.serving.core.validation import Body
from paddle_ranker.serving.http.document_routes import DocumentsRequest, RemovalRequest
from paddle_ranker.serving.http.embeddings import EmbeddingsRequest, EmbedRequest
from paddle_ranker.serving.http.feedback import FeedbackRequest
from paddle_ranker.serving.http.rerank_formats import PredictRequest, RerankRequest, ScoreRequest, TextsRequest
from paddle_ranker.serving.http.search_routes import SearchRequest
from paddle_ranker.serving.process.worker import make_app
from tests.export_cases import write_case
from tests.serving_cases import Application, close_slots, opened_slots
from tests.tiny import write_tower

pytestmark = pytest.mark.parity

ALSO = {"texts": ["documents: is "]}  # at /rerank, where either may be meant
LONG = "深度学习" * 12  # is cut
DOCUMENTS = ["老年人护理教育研究", LONG, "深度学习"]
PAIRS = [["深度学习", text] for text in DOCUMENTS]
COMMON: dict[str, Any] = {
    "model": "other", "user": "me", "request_id": "r", "priority": 3, "cache_salt": "s", "padding": "max_length",
    "instruction": "Judge", "mm_processor_kwargs": {"a": 1}, "additional_data": 1, "add_special_tokens": False,
    "chat_template": "x", "chat_template_kwargs": {"a": 1}, "rank_fields": ["title"], "max_chunks_per_doc": 10,
    "return_embeddings": True, "return_len": True, "parameters": {"truncate": True}, "encoding_format": "base64",
    "output_dtype": "int8", "embed_dtype": "float16", "embedding_type": "binary", "endianness": "big",
    "modality": "image", "late_chunking": True, "return_multivector": True, "return_documents": True,
    "return_text": True,
}  # fmt: skip
ACTIVATION = {
    "raw_scores": True, "use_activation": False, "softmax": False, "activation": False, "truncate_prompt_tokens": 6,
    "truncation_side": "left",
}  # fmt: skip
RANKING: dict[str, Any] = {
    "max_query_length": 8, "max_doc_length": 8, "overlap": 2, "overlap_tokens": 2, "dimensions": 8, "normalize": False,
    "prompt_name": "query",
}  # fmt: skip
VECTORS: dict[str, Any] = {"messages": []}
# Of each path: the class, a request, and what else it may hold.
CASES: list[tuple[str, type[Body], dict[str, Any], dict[str, Any]]] = [
    *[
        (path, RerankRequest, {"query": "深度学习", "documents": DOCUMENTS}, {
            **COMMON, **RANKING, **ACTIVATION, "top_n": 1, "top_k": 1, "return_documents": True, "truncation": False,
            "truncate": False, "truncation_direction": "Left", "max_tokens_per_doc": 4, "max_tokens_per_query": 2,
            "texts": ["a"], "return_text": True,
        })
        for path in ("/v1/rerank", "/v2/rerank", "/rerank")
    ],
    ("/rerank", TextsRequest, {"query": "深度学习", "texts": DOCUMENTS, "truncate": True}, {
        **COMMON, **RANKING, **ACTIVATION, "truncate": False, "truncation_direction": "Left", "return_text": True,
        "documents": ["a"], "top_n": 1, "top_k": 1, "return_documents": True, "truncation": False,
        "max_tokens_per_doc": 4, "max_tokens_per_query": 2,
    }),
    ("/predict", PredictRequest, {"inputs": PAIRS, "truncate": True}, {
        **COMMON, **RANKING, **ACTIVATION, "truncate": False, "truncation_direction": "left",
        "documents": ["a"], "top_n": 1, "top_k": 1, "return_documents": True, "truncation": False,
        "max_tokens_per_doc": 4, "max_tokens_per_query": 2,
    }),
    *[
        (path, ScoreRequest, {"text_1": "深度学习", "text_2": DOCUMENTS}, {
            **COMMON, **RANKING, **ACTIVATION, "queries": "a", "documents": "a", "items": "a", "data_1": "a",
            "data_2": "a",
        })
        for path in ("/score", "/v1/score")
    ],
    *[
        (path, EmbeddingsRequest, {"input": DOCUMENTS}, {
            **COMMON, **VECTORS, "input_type": "query", "task": "retrieval.query", "encoding_format": "base64",
            "dimensions": 2, "output_dimension": 2, "truncation": False, "truncate": False, "truncation_side": "left",
            "truncate_prompt_tokens": 6, "normalize": False, "normalized": False, "use_activation": False,
            "prompt_name": "query",
        })
        for path in ("/v1/embeddings", "/embeddings")
    ],
    *[
        (path, EmbedRequest, {"inputs": DOCUMENTS, "truncate": True}, {
            **COMMON, **VECTORS, "truncate": False, "truncation_direction": "Left", "prompt_name": "query",
            "normalize": False, "dimensions": 2, "encoding_format": "base64", "input_type": "query",
            "task": "retrieval.query", "truncation": False, "normalized": False, "truncation_side": "left",
            "truncate_prompt_tokens": 6, "output_dimension": 2, "use_activation": False,
        })
        for path in ("/embed", "/")
    ],
]  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    base = tmp_path_factory.mktemp("served")
    ranker, tower = write_case(base / "ranker"), write_tower(base / "tower", nested_sizes=(2, 4))
    config, slots = opened_slots(model=ranker, tower=tower, served_name=("mine", "tower=vectors"))
    site = Application()
    site.app = make_app(slots, config, Metrics())
    yield site
    close_slots(slots)


def answered(site: Application, path: str, body: dict[str, Any]) -> tuple[int, Any]:
    answer = site.post(path, body)
    found = answer.json()
    if isinstance(found, dict):
        found = {name: value for name, value in found.items() if name not in ("id", "request_id", "created")}
    return answer.status_code, found


def message(found: dict[str, Any]) -> str:
    told: Any = found["error"]
    return str(told["message"] if isinstance(told, dict) else told)


@pytest.mark.parametrize(
    ("path", "kind", "body", "fields"), CASES, ids=[f"{case[0]}-{case[1].__name__}" for case in CASES]
)
def test_no_field_is_unused_in_silence(
    site: Application, path: str, kind: type[Body], body: dict[str, Any], fields: dict[str, Any]
) -> None:
    assert {*kind.model_fields, *kind.without_effect} <= {*fields, *body}, "say in CASES what the field asks for"
    plain = answered(site, path, body)
    assert plain[0] == 200, plain
    for name, value in {**fields, "no_protocol_knows_this": 1}.items():
        status, found = answered(site, path, {**body, name: value})
        if name in kind.model_fields:
            assert found != plain[1], name
            if status != 200:
                assert status in (400, 413, 422) and (name in message(found) or "truncate" in message(found)), found
            continue
        idle = kind.without_effect.get(name)
        if idle == ():
            assert (status, found) == plain, name
        else:
            assert status in (400, 422), (name, found)
            assert message(found).startswith((f"{name}: is ", *ALSO.get(name, ()))), (name, found)
        for same in (None, *(idle or ())):
            assert answered(site, path, {**body, name: same}) == plain, name


def test_the_model_s_name_is_the_served_one(site: Application) -> None:
    ranked = site.post("/v1/rerank", {"query": "a", "documents": ["b"]}).json()
    vectors = site.post("/v1/embeddings", {"input": "a"}).json()
    assert (ranked["model"], vectors["model"]) == ("mine", "vectors")
    assert [one["id"] for one in site.get("/v1/models").json()["data"]] == ["mine", "vectors"]


@pytest.mark.parametrize("kind", [SearchRequest, DocumentsRequest, RemovalRequest, FeedbackRequest])
def test_our_own_requests_refuse_what_they_do_not_know(kind: type[Body]) -> None:
    assert not kind.without_effect


def test_pairs_are_scored_in_the_shapes_of_vllm_and_tei(site: Application) -> None:
    ranked = site.post("/rerank", {"query": "深度学习", "texts": DOCUMENTS, "truncate": True}).json()
    wanted = [one["score"] for one in sorted(ranked, key=lambda one: int(one["index"]))]
    for asked in (
        {"text_1": "深度学习", "text_2": DOCUMENTS},
        {"queries": ["深度学习"], "items": DOCUMENTS},
        {"data_1": ["深度学习"] * 3, "data_2": DOCUMENTS},
    ):
        found = site.post("/score", asked).json()["data"]
        assert [(one["index"], one["score"]) for one in found] == list(enumerate(wanted))
    found = site.post("/predict", {"inputs": PAIRS, "truncate": True}).json()
    assert [[(one["label"], one["score"]) for one in pair] for pair in found] == [[("LABEL_0", one)] for one in wanted]
    alone = site.post("/predict", {"inputs": PAIRS[0]}).json()
    assert alone[0]["score"] == pytest.approx(wanted[0], abs=1e-6)
