"""The HTTP application: the shapes that today's clients send and read, its errors, its key, its figures."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import html
import json
import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Optional
from unittest.mock import Mock

import numpy as np
import pytest
from starlette.routing import Router

from paddle_ranker.encoding.tokenizers.builtin import Tokenizer
from paddle_ranker.scoring.ranker import Ranker
from paddle_ranker.serving.core.config import ServeConfig
from paddle_ranker.serving.core.faults import OVERLOADED, Fault
from paddle_ranker.serving.core.logs import JsonLog
from paddle_ranker.serving.core.metrics import Metrics
from paddle_ranker.serving.core.ranker_slot import RankerSlot, ServedRanker
from paddle_ranker.serving.core.scores import Scores
from paddle_ranker.serving.core.slots import Slots
from paddle_ranker.serving.http import admin
from paddle_ranker.serving.http.endpoints import ENDPOINTS
from paddle_ranker.serving.http.rerank_formats import RankedResult, ScoredResult
from paddle_ranker.serving.process.worker import make_app
from tests.conftest import REPOSITORY
from tests.export_cases import write_case
from tests.serving_cases import SECONDS, Application, ask_app

pytestmark = pytest.mark.parity
QUERY = "深度学习"
TITLES = ["老年人护理教育研究", "深度学习在水稻病害诊断中的研究", "文化差异", "深度学习"]
LIMITS: dict[str, Any] = {"request_bytes": 4096, "pairs": 8, "characters": 60, "queue_pairs": 16}
KEY = "a key of many bytes"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedRanker]:
    folder = write_case(tmp_path_factory.mktemp("served") / "ranker")
    loaded = RankerSlot(ServeConfig(model=folder, **LIMITS)).load()
    yield loaded
    assert loaded.batcher.close(SECONDS)


@pytest.fixture(scope="module")
def probabilities(model: ServedRanker) -> list[float]:
    scores: list[float] = Ranker.load(model.folder).score([QUERY] * len(TITLES), TITLES).tolist()
    return scores


class Site(Application):
    """The server's, with a ranker or none."""

    def __init__(self, model: Optional[ServedRanker], **options: Any):
        self.config = ServeConfig(model=Path("ranker"), **LIMITS, **options)
        self.service = RankerSlot(self.config)
        self.service.switch(model)
        self.metrics = Metrics()
        self.log: Optional[JsonLog] = None

    @property
    def app(self) -> Any:
        return make_app(Slots({"ranker": self.service}), self.config, self.metrics, log=self.log)


@pytest.fixture
def site(model: ServedRanker) -> Site:
    return Site(model)


def best_first(probabilities: list[float]) -> list[int]:
    return sorted(range(len(probabilities)), key=lambda i: -probabilities[i])


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_documents_come_back_best_first(site: Site, probabilities: list[float], path: str) -> None:
    answer = site.post(path, {"model": "any", "query": QUERY, "documents": TITLES}).json()
    assert [result["index"] for result in answer["results"]] == best_first(probabilities)
    found = [result["relevance_score"] for result in answer["results"]]
    np.testing.assert_allclose(found, sorted(probabilities, reverse=True), atol=1e-6)
    assert "document" not in answer["results"][0]
    assert answer["model"] == "ranker"
    assert answer["id"]


def test_the_best_n_documents_with_their_texts(site: Site, probabilities: list[float]) -> None:
    documents = [TITLES[0], {"text": TITLES[1], "year": 2020}, *TITLES[2:]]
    asked = {"query": QUERY, "documents": documents, "top_n": 2, "return_documents": True}
    results = site.post("/v1/rerank", asked).json()["results"]
    first, second = best_first(probabilities)[:2]
    given = [one if isinstance(one, dict) else {"text": one} for one in documents]
    assert [result["document"] for result in results] == [given[first], given[second]]


def test_voyage_reads_its_own_names(site: Site, probabilities: list[float]) -> None:
    answer = site.post("/v1/rerank", {"query": QUERY, "documents": TITLES, "top_k": 1}).json()
    assert [result["index"] for result in answer["data"]] == best_first(probabilities)[:1]
    assert answer["object"] == "list"


def test_tokens_that_were_scored_are_counted_as_voyage_and_jina_do(site: Site, model: ServedRanker) -> None:
    encoder = model.model.row_encoder
    tokens = int(encoder.encode([QUERY] * len(TITLES), TITLES).lengths.sum())
    ways: tuple[dict[str, Any], ...] = ({}, {"top_k": None}, {"top_n": 1, "return_documents": True})
    for asked in ways:
        answer = site.post("/v1/rerank", {"query": QUERY, "documents": TITLES, **asked}).json()
        assert answer["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
        named = [{name: one[name] for name in ("index", "relevance_score")} for one in answer["results"]]
        assert answer["data"] == named  # that it is Voyage's API a client need not say
    long = {"query": QUERY, "documents": ["深度学习" * 12]}
    assert site.post("/v2/rerank", long).json()["usage"]["total_tokens"] == encoder.max_seq_length


def test_texts_are_written_once_for_all_names_of_the_results(site: Site) -> None:
    title = '","data":null,"results":null,"'
    asked = {"query": "a", "documents": [title, "深度学习"], "return_documents": True}
    answer = site.post("/rerank", asked)
    assert answer.text.count("深度学习") == 1
    found = answer.json()
    assert found["data"] == [{"index": r["index"], "relevance_score": r["relevance_score"]} for r in found["results"]]
    assert {result["document"]["text"] for result in found["results"]} == {title, "深度学习"}
    assert answer.text == json.dumps(found, ensure_ascii=False, separators=(",", ":"))
    assert list(found) == ["id", "model", "results", "meta", "usage", "object", "data"]


def test_null_is_as_good_as_nothing(site: Site) -> None:
    asked = {"query": QUERY, "documents": TITLES, "top_n": None, "return_documents": None, "model": None, "top_k": None}
    assert len(site.post("/v1/rerank", asked).json()["results"]) == len(TITLES)


def test_texts_are_answered_as_text_embeddings_inference_does(site: Site, probabilities: list[float]) -> None:
    answer = site.post("/rerank", {"query": QUERY, "texts": TITLES}).json()
    assert [result["index"] for result in answer] == best_first(probabilities)
    np.testing.assert_allclose([result["score"] for result in answer], sorted(probabilities, reverse=True), atol=1e-6)
    assert set(answer[0]) == {"index", "score"}
    raw = site.post("/rerank", {"query": QUERY, "texts": TITLES, "raw_scores": True, "return_text": True}).json()
    logits = [result["score"] for result in raw]
    np.testing.assert_allclose(1 / (1 + np.exp(-np.array(logits))), sorted(probabilities, reverse=True), atol=1e-6)
    assert [result["text"] for result in raw] == [TITLES[i] for i in best_first(probabilities)]


def test_a_pair_that_would_be_cut_is_refused_unless_told_to_cut(site: Site, model: ServedRanker) -> None:
    long = "深度学习" * 12
    refused = site.post("/rerank", {"query": QUERY, "texts": [TITLES[0], long]})
    assert (refused.status_code, refused.json()["field"]) == (413, "texts[1]")
    assert "more than the 32 tokens" in refused.json()["error"] and "--auto_truncate true" in refused.json()["error"]
    cut = site.post("/rerank", {"query": QUERY, "texts": [long], "truncate": True}).json()
    wanted = Ranker.load(model.folder).score([QUERY], [long])[0]
    assert cut[0]["score"] == pytest.approx(wanted, abs=1e-6)


PAIR = json.dumps({"query": QUERY, "title": TITLES[0]})
TENSORS = [{"name": name, "elem_type": 20, "data": [text]} for name, text in (("query", QUERY), ("title", TITLES[0]))]
ASKED: dict[str, list[dict[str, Any]]] = {  # of each path, all shapes of requests
    "/v1/rerank": [{"query": QUERY, "documents": TITLES}],
    "/v2/rerank": [{"query": QUERY, "documents": TITLES}],
    "/rerank": [
        {"query": QUERY, "documents": TITLES},
        {"query": QUERY, "texts": TITLES},
        {"query": QUERY, "texts": TITLES, "truncate": True},
    ],
    "/score": [{"text_1": QUERY, "text_2": TITLES}],
    "/v1/score": [{"queries": [QUERY] * len(TITLES), "documents": TITLES}],
    "/predict": [{"inputs": [QUERY, TITLES[0]]}, {"inputs": [[QUERY, title] for title in TITLES]}],
    "/GeneralModelService/inference": [{"tensor": TENSORS}],
    "/ernie/prediction": [{"key": ["0"], "value": [PAIR]}],
}


def test_no_endpoint_tokenizes_on_the_event_loop(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    own = [path for endpoint in ENDPOINTS.values() if endpoint.slots == ("ranker",) for path in endpoint.paths]
    assert ASKED.keys() >= set(own), "say in ASKED what is sent to the new endpoint"
    threads: list[str] = []
    encode = Tokenizer.encode

    def seen(self: Tokenizer, texts: Sequence[str], most: Optional[int] = None) -> Any:
        threads.append(threading.current_thread().name)
        return encode(self, texts, most)

    monkeypatch.setattr(Tokenizer, "encode", seen)
    for path, bodies in ASKED.items():
        for body in bodies:
            threads.clear()
            assert site.post(path, body).status_code == 200
            assert threads and {name.rstrip("0123456789") for name in threads} <= {"engine-", "encode-ahead"}, path


@pytest.mark.parametrize("truncate", [None, False, True])
def test_a_server_that_truncates_refuses_no_text_for_its_length(model: ServedRanker, truncate: Optional[bool]) -> None:
    site = Site(model, auto_truncate=True)
    long, endless = "深度学习" * 12, "文化" * 40  # of more tokens than are scored, of more characters than are read
    texts = [TITLES[0], long, endless]
    wanted = Ranker.load(model.folder).score([QUERY] * 3, texts)
    asked = {
        "query": QUERY,
        "texts": texts,
        "return_text": True,
        **({} if truncate is None else {"truncate": truncate}),
    }
    answer = site.post("/rerank", asked).json()
    np.testing.assert_allclose(by_index(answer, "score"), wanted, atol=1e-6)
    assert {one["index"]: one["text"] for one in answer} == dict(enumerate(texts))
    for path in ("/rerank", "/v1/rerank", "/v2/rerank"):
        ranked = site.post(path, {"query": QUERY, "documents": texts, "return_documents": True}).json()["results"]
        np.testing.assert_allclose(by_index(ranked, "relevance_score"), wanted, atol=1e-6)
        assert {one["index"]: one["document"]["text"] for one in ranked} == dict(enumerate(texts))
    pairs = [json.dumps({"query": QUERY, "title": text}) for text in texts]
    pipeline = site.post("/ernie/prediction", {"key": ["0", "1", "2"], "value": pairs}).json()
    np.testing.assert_allclose(np.array(json.loads(pipeline["value"][0]))[:, 0], wanted, atol=1e-6)
    tensors = [{"name": "query", "elem_type": 20, "data": [QUERY]}, {"name": "title", "elem_type": 20, "data": texts}]
    found = site.post("/GeneralModelService/inference", {"tensor": tensors}).json()["outputs"][0]["tensor"][0]
    np.testing.assert_allclose(found["float_data"], wanted, atol=1e-6)
    assert site.post("/rerank", {"query": endless, "texts": ["a"]}).status_code == 200
    assert site.post("/v1/rerank", {"query": "a", "documents": ["a"] * 9}).status_code == 413
    assert site.get("/info").json()["auto_truncate"] is True


def by_index(results: list[dict[str, Any]], name: str) -> list[float]:
    return [result[name] for result in sorted(results, key=lambda result: int(result["index"]))]


def test_documents_may_hold_the_word_texts(site: Site) -> None:
    answer = site.post("/rerank", {"query": QUERY, "documents": [{"text": "a", "texts": 1}, 'x "texts" y']})
    assert answer.status_code == 200
    assert len(answer.json()["results"]) == 2


@pytest.mark.parametrize(
    ("path", "body", "status", "field"),
    [
        ("/v1/rerank", b"{", 400, "body"),
        ("/v1/rerank", b"", 400, "body"),
        ("/v1/rerank", b"\xff\xfe", 400, "body"),
        ("/v1/rerank", b'{"query": "\\ud800", "documents": ["a"]}', 400, "body"),
        ("/v1/rerank", b'{"query": "a", "documents": ["a", {"text": "\\udfff b"}]}', 400, "body"),
        ("/v1/rerank", {"query": "a", "documents": ["a", " \u3000\n"]}, 422, "documents[1]"),
        ("/v1/rerank", {"query": "", "documents": ["a"]}, 422, "query"),
        ("/v1/rerank", {"query": "a", "documents": [{"title": "a"}]}, 422, "documents[0].text"),
        ("/v1/rerank", {"query": "a", "documents": ["a"], "top_n": 1, "top_k": 2}, 422, "top_k"),
        ("/v1/rerank", {"query": "a", "documents": ["a"], "top": 1}, 422, "top"),
        ("/rerank", {"query": "a", "texts": ["a", ""]}, 422, "texts[1]"),
        ("/score", {"text_1": "a", "text_2": ["a", " "]}, 422, "text_2[1]"),
        ("/score", {"text_1": ["a", "b"], "text_2": ["a", "b", "c"]}, 400, "text_1"),
        ("/score", {"text_1": "a", "documents": ["a"]}, 422, "body"),
        ("/score", {"text_1": "a", "text_2": ["a", 1]}, 422, "text_2[1]"),
        ("/score", {"text_1": "a", "text_2": []}, 400, "text_2"),
        ("/predict", {"inputs": [["a", "b"], ["a", "b", "c"]]}, 422, "inputs[1]"),
        ("/predict", {"inputs": [["a", "b"], "c"]}, 422, "inputs[1]"),
        ("/predict", {"inputs": "a"}, 422, "inputs"),
        ("/predict", {"inputs": ["a"]}, 422, "inputs"),
        ("/predict", {"inputs": [["a", "b"], ["a", " "]]}, 422, "inputs[1]"),
        ("/predict", {"inputs": [["a", "b"]] * 9}, 413, "inputs"),
        ("/v1/rerank", b"[]", 422, "body"),
        ("/v1/rerank", {"documents": ["a"]}, 422, "query"),
        ("/v1/rerank", {"query": "a"}, 422, "documents"),
        ("/v1/rerank", {"query": 7, "documents": ["a"]}, 422, "query"),
        ("/v1/rerank", {"query": "a", "documents": "a"}, 422, "documents"),
        ("/v1/rerank", {"query": "a", "documents": ["a", 3]}, 422, "documents[1]"),
        ("/v1/rerank", {"query": "a", "documents": ["a", None]}, 422, "documents[1]"),
        ("/v1/rerank", {"query": "a", "documents": []}, 400, "documents"),
        ("/v1/rerank", {"query": "a", "documents": ["a"], "top_n": 0}, 422, "top_n"),
        ("/v1/rerank", {"query": "a", "documents": ["a"], "top_n": "1"}, 422, "top_n"),
        ("/v1/rerank", {"query": "a", "documents": ["a"], "return_documents": "yes"}, 422, "return_documents"),
        ("/v1/rerank", {"query": "a", "documents": ["a"] * 9}, 413, "documents"),
        ("/v1/rerank", {"query": "a", "documents": ["a", "b" * 61]}, 413, "documents[1]"),
        ("/v1/rerank", {"query": "a" * 61, "documents": ["a"]}, 413, "query"),
        ("/v1/rerank", b" " * 4097, 413, "body"),
        ("/rerank", {"query": "a", "texts": ["a", 3]}, 422, "texts[1]"),
        ("/rerank", {"query": "a", "texts": "a"}, 422, "texts"),
        ("/rerank", {"query": "a", "texts": []}, 400, "texts"),
        ("/rerank", {"query": "a", "texts": ["a"] * 9}, 413, "texts"),
        ("/rerank", {"query": "a", "texts": ["a", "b" * 61], "truncate": True}, 413, "texts[1]"),
        ("/rerank", {"texts": ["a"]}, 422, "query"),
        ("/rerank", {"query": "a"}, 422, "documents"),
    ],
)
def test_what_is_wrong_is_named(site: Site, path: str, body: Any, status: int, field: str) -> None:
    answer = site.post(path, body)
    assert (answer.status_code, answer.json().get("field")) == (status, field)
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert answer.json()["error"].startswith(field)
    assert site.post("/v1/rerank", {"query": QUERY, "documents": TITLES}).status_code == 200


def test_a_packed_body_is_unpacked_within_the_limit(site: Site) -> None:
    asked = json.dumps({"query": QUERY, "documents": TITLES}).encode()
    answer = site.post("/v1/rerank", gzip.compress(asked), **{"content-encoding": "gzip"})
    assert len(answer.json()["results"]) == len(TITLES)
    bomb = gzip.compress(b" " * 5000)
    assert len(bomb) < 100
    assert site.post("/v1/rerank", bomb, **{"content-encoding": "gzip"}).status_code == 413
    assert site.post("/v1/rerank", b"no gzip", **{"content-encoding": "gzip"}).status_code == 400


def test_the_key_is_asked_for_and_compared_whole(model: ServedRanker) -> None:
    site = Site(model, api_key=KEY)
    asked = {"query": QUERY, "documents": TITLES}
    refused = site.post("/v1/rerank", asked)
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    for wrong in (KEY[:-1], KEY + "x", "x", ""):
        assert site.post("/v1/rerank", asked, authorization=f"Bearer {wrong}").status_code == 401
        assert site.post("/v1/rerank", asked, **{"x-api-key": wrong}).status_code == 401
    assert site.post("/v1/rerank", asked, authorization=f"Bearer {KEY}").status_code == 200
    assert site.post("/v1/rerank", asked, **{"x-api-key": KEY}).status_code == 200
    assert site.get("/info").status_code == site.get("/v1/models").status_code == 401
    assert site.post("/GeneralModelService/inference", {}).status_code == 401
    assert site.post("/ernie/prediction", {}).status_code == 401
    for path in ("/live", "/ready", "/health", "/metrics", "/docs", "/openapi.json"):
        assert site.get(path).status_code == 200, path


def test_a_request_id_comes_back_and_is_made_where_there_is_none(site: Site) -> None:
    assert site.get("/live", **{"x-request-id": "abc-123"}).headers["x-request-id"] == "abc-123"
    made = [site.get("/live").headers["x-request-id"] for _ in range(2)]
    assert made[0] != made[1]
    for unsound in ("a b", "x" * 129, '"'):
        assert site.get("/live", **{"x-request-id": unsound}).headers["x-request-id"] != unsound


def test_a_deadline_is_taken_from_its_header(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Optional[float]] = []

    async def score_pairs(queries: Any, titles: Any, *, deadline: Optional[float], **others: Any) -> Scores:
        seen.append(deadline)
        return Scores(np.full(len(titles), 0.5), np.zeros(len(titles)))

    monkeypatch.setattr(site.service, "score_pairs", score_pairs)
    asked = {"query": QUERY, "documents": TITLES}
    before = time.monotonic()
    site.post("/v1/rerank", asked, **{"x-request-timeout-ms": "60000"})
    site.post("/v1/rerank", asked)
    assert seen[0] is not None and before + 60 <= seen[0] <= time.monotonic() + 60
    assert seen[1] is None
    assert site.post("/v1/rerank", asked, **{"x-request-timeout-ms": "0"}).status_code == 504
    for wrong in ("-1", "1.5", "soon", "99999999999999"):
        answer = site.post("/v1/rerank", asked, **{"x-request-timeout-ms": wrong})
        assert (answer.status_code, answer.json()["field"].lower()) == (400, "x-request-timeout-ms"), wrong


@pytest.mark.parametrize(("failure", "status", "retry"), [("overloaded", 429, "3"), ("unexpected", 500, None)])
def test_faults_have_their_status(
    site: Site, monkeypatch: pytest.MonkeyPatch, failure: str, status: int, retry: Optional[str]
) -> None:
    async def score_pairs(queries: Any, titles: Any, *, deadline: Optional[float], **others: Any) -> Scores:
        if failure == "overloaded":
            raise Fault(OVERLOADED, "too much", retry_after=2.1)
        raise ValueError("a text of a user")

    monkeypatch.setattr(site.service, "score_pairs", score_pairs)
    answer = site.post("/v1/rerank", {"query": QUERY, "documents": TITLES})
    assert (answer.status_code, answer.headers.get("retry-after")) == (status, retry)
    assert "a text of a user" not in answer.text


def test_before_the_model_is_loaded_only_the_process_is_alive() -> None:
    site = Site(None)
    assert site.get("/live").status_code == 200
    for answer in (
        site.get("/ready"),
        site.get("/health"),
        site.post("/v1/rerank", {"query": "a", "documents": ["b"]}),
    ):
        assert (answer.status_code, answer.json()["error_type"]) == (503, "unavailable")
        assert int(answer.headers["retry-after"]) >= 1
    assert site.get("/info").status_code == 503


def test_operators_see_limits_and_figures(site: Site) -> None:
    info = site.get("/info").json()
    assert info["limits"]["pairs"] == 8
    assert info["limits"]["request_bytes"] == 4096
    assert (info["model_id"], info["kind"], info["max_input_length"]) == ("ranker", "pairwise", 32)
    assert info["engine"] == "dygraph"
    site.post("/v1/rerank", {"query": QUERY, "documents": TITLES})
    site.post("/v1/rerank", b"{")
    site.post("/rerank", {"query": QUERY, "texts": TITLES})
    site.post("/ernie/prediction", b"{")
    site.ask("PUT", "/v1/rerank")
    site.post("/GeneralModelService/train", b"")
    site.metrics.batches("ranker").batch(pairs=3, tokens=60, padded_tokens=80, seconds=0.5)
    figures = site.get("/metrics").text.splitlines()
    for line in (
        'ranker_requests_total{outcome="ok",protocol="rerank"} 1.0',
        'ranker_requests_total{outcome="invalid_request",protocol="rerank"} 1.0',
        'ranker_requests_total{outcome="ok",protocol="tei"} 1.0',
        'ranker_requests_total{outcome="invalid_request",protocol="pipeline_http"} 1.0',
        'ranker_requests_total{outcome="method_not_allowed",protocol="rerank"} 1.0',
        'ranker_requests_total{outcome="no_such_method",protocol="brpc_http"} 1.0',
        'ranker_request_seconds_count{protocol="rerank"} 3.0',
        "ranker_pairs_total 3.0",
        "ranker_padding_tokens_total 20.0",
        "ranker_engine_seconds_total 0.5",
        "ranker_queue_pairs 0.0",
    ):
        assert line in figures, line


@pytest.mark.parametrize("host", ["[", "[::1", "a/v2/rerank?"])
def test_a_host_that_is_none_changes_no_answer(model: ServedRanker, host: str) -> None:
    asked, site = {"query": QUERY, "documents": TITLES}, Site(model, allowed_hosts=("*",))
    found, wanted = site.post("/v1/rerank", asked, host=host), site.post("/v1/rerank", asked)
    assert found.status_code == 200 and {**found.json(), "id": ""} == {**wanted.json(), "id": ""}
    assert site.get("/docs", host=host).status_code == 200


@pytest.mark.parametrize(
    ("options", "host", "is_answered"),
    [
        ({}, "127.0.0.1:8600", True),
        ({}, "[::1]:8600", True),
        ({}, "LOCALHOST", True),
        ({}, "app.localhost:80", True),
        ({}, "ranker:8600", True),  # of a container
        ({}, "attacker.example", False),
        ({}, "127.0.0.1.attacker.example", False),
        ({}, "127.attacker.example", False),
        ({}, "10.1.2.3", False),
        ({"host": "0.0.0.0"}, "10.1.2.3:8600", True),
        ({"host": "0.0.0.0"}, "attacker.example", False),
        ({"host": "ranker.internal"}, "ranker.internal", True),
        ({"api_key": KEY}, "anything.example", True),
        ({"allowed_hosts": ("*.example.com", "other")}, "a.example.com:80", True),
        ({"allowed_hosts": ("*.example.com", "other")}, "other", True),
        ({"allowed_hosts": ("*.example.com", "other")}, "example.com.attacker.net", False),
        ({"allowed_hosts": ("other",), "api_key": KEY}, "127.0.0.1", False),
    ],
)
def test_a_name_that_points_here_from_elsewhere_is_refused(
    model: ServedRanker, options: dict[str, Any], host: str, is_answered: bool
) -> None:
    answer = Site(model, **options).get("/live", host=host)
    assert (answer.status_code == 200) == is_answered
    assert is_answered or (answer.status_code, answer.json()["field"]) == (421, "Host")


def test_answers_are_not_cached_and_the_docs_have_the_page_s_policy(site: Site) -> None:
    for path in ("/live", "/nothing", "/v1/rerank"):
        assert site.get(path).headers["cache-control"] == "no-store"
    docs = site.get("/docs")
    policy = docs.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in policy and "unsafe" not in policy
    (style,) = re.findall("<style>(.*?)</style>", docs.text, re.S)
    assert f"'sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}'" in policy
    assert docs.headers["x-content-type-options"] == "nosniff" and docs.headers["referrer-policy"] == "no-referrer"


def test_the_name_of_the_model_outlives_a_training(tmp_path: Path) -> None:
    folder = write_case(tmp_path / "model_376")
    (tmp_path / "best").symlink_to(folder)
    served = RankerSlot(ServeConfig(model=tmp_path / "best")).load()
    assert (served.name, served.folder.name) == ("best", "model_376") and served.batcher.close(SECONDS)
    assert ServeConfig(served_name=("mine",)).name_of("tower", folder) == "mine"
    assert ServeConfig(served_name=("mine",), model=folder).name_of("tower", folder) == "model_376"


def test_what_needs_no_key_is_made_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Mock(wraps=admin.openapi), Mock(wraps=admin.docs_page)
    monkeypatch.setattr(admin, "openapi", made[0])
    monkeypatch.setattr(admin, "docs_page", made[1])
    routes = admin.AdminRoutes(Slots({"ranker": site.service}), site.metrics, site.config, admin.Controls())
    app = Router(routes.routes())
    for path in ("/openapi.json", "/docs"):
        assert len({asyncio.run(ask_app(app, "GET", path)).text for _ in range(3)}) == 1
    assert [one.call_count for one in made] == [1, 1]
    renders: list[int] = []
    texts = [site.metrics.shown(partial(renders.append, second), second) for second in (7,) * 50 + (8,) * 50]
    assert renders == [7] * 10 + [8] * 10 and all(texts)


def test_the_description_names_every_route_and_the_page_needs_nothing_from_elsewhere(site: Site) -> None:
    description = site.get("/openapi.json").json()
    assert {"/rerank", "/v1/rerank", "/v2/rerank", "/info", "/metrics"} <= set(description["paths"])
    text = json.dumps(description)
    names = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert names <= set(description["components"]["schemas"])
    for result in (RankedResult, ScoredResult):
        described = description["components"]["schemas"][result.__name__]
        assert set(described["properties"]) == set(result.__annotations__)
    page = site.get("/docs").text
    assert "curl http://127.0.0.1/v1/rerank" in page and "X-API-Key" not in page
    for foreign in ("<script", "<link", "src=", "//cdn"):
        assert foreign not in page


def test_what_the_docs_show_is_what_the_server_answers(site: Site) -> None:
    text = (REPOSITORY / "docs/serving.md").read_text(encoding="utf-8")
    shown = re.findall(r"^    (curl -s [^{]*?(?:-d '([^']*)')?)\n    (\{.*?\})\n\n", text, re.MULTILINE | re.DOTALL)
    assert len(shown) == 3 == text.count("\n    {") == text.count("    curl ")
    for line, body, printed in shown:
        path = re.search(r"http://127.0.0.1:8600(/\S+)", line)
        assert path is not None
        answer = site.post(path[1], body.encode()) if body else site.get(path[1])
        assert list(answer.json()) == list(json.loads(printed))  # in this order
        assert constants(answer.json()) == constants(json.loads(printed)), line


def constants(value: Any, name: str = "") -> Any:
    """Return what of an answer does not depend on the model and the moment."""
    if isinstance(value, dict):
        return {key: constants(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [constants(item) for item in value]
    return type(value) if name in ("id", "model", "request_id") or isinstance(value, (int, float)) else value


@pytest.mark.parametrize("host", ["127.0.0.1:9123", "ranker.internal", "[::1]:8600"])
def test_the_page_s_example_asks_the_server_that_shows_it(model: ServedRanker, host: str) -> None:
    page = html.unescape(Site(model, api_key=KEY).get("/docs", host=host).text)
    assert f'curl -H "X-API-Key: $PADDLE_RANKER_API_KEY" http://{host}/v1/rerank' in page
    for odd in ("x;rm -rf $HOME", "a b", "<b>"):
        assert odd not in html.unescape(Site(model, allowed_hosts=("*",)).get("/docs", host=odd).text)


def test_reloading_needs_a_key(site: Site, model: ServedRanker) -> None:
    assert site.post("/admin/reload", b"").status_code == 404
    assert Site(model, api_key=KEY).post("/admin/reload", b"").status_code == 401


def test_nothing_is_at_other_paths(site: Site) -> None:
    assert site.get("/nothing").status_code == 404
    assert site.get("/v1/rerank").status_code == 405
    assert site.post("/rerank/", {}).status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "status", "allowed"),
    [
        ("GET", "/v1/rerank", 405, {"POST"}),
        ("DELETE", "/rerank", 405, {"POST"}),
        ("OPTIONS", "/v2/rerank", 405, {"POST"}),
        ("POST", "/live", 405, {"GET", "HEAD"}),
        ("GET", "/admin/reload", 405, {"POST"}),
        ("GET", "/GeneralModelService/inference", 405, {"POST"}),
        ("GET", "/GeneralModelService/none", 405, {"POST"}),
        ("GET", "/ernie/prediction", 405, {"POST"}),
        ("POST", "/v1/models", 405, {"GET", "HEAD"}),
        ("GET", "/v1/nothing", 404, None),
        ("POST", "/v1/nothing", 404, None),
        ("GET", "/none", 404, None),
        ("PATCH", "/a/b/c", 404, None),
    ],
)
def test_what_is_asked_in_another_way_is_refused_in_json(
    site: Site, method: str, path: str, status: int, allowed: Optional[set[str]]
) -> None:
    answer = site.ask(method, path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")
    found = answer.json()
    assert found["error"] == found["message"] and path in found["error"] and method in found["error"]
    assert found["request_id"] == answer.headers["x-request-id"]
    assert found["error_type"] == ("method_not_allowed" if allowed else "not_found")
    if allowed is None:
        assert "allow" not in answer.headers
    else:
        assert set(answer.headers["allow"].split(", ")) == allowed


def read_log(site: Site, folder: Path) -> list[dict[str, Any]]:
    path = folder / "log"
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY)
    try:
        site.log = JsonLog(descriptor)
        site.post("/v1/rerank", {"query": QUERY, "documents": TITLES}, **{"x-request-id": "number-7"})
        site.post("/v1/rerank", {"query": QUERY, "documents": [3]})
        site.post(f"/{QUERY}", b"")
        site.get("/ready")
        site.log.close(SECONDS)
    finally:
        os.close(descriptor)
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_log_has_ids_and_numbers_and_no_text_of_a_user(site: Site, tmp_path: Path) -> None:
    scored, refused, nowhere = read_log(site, tmp_path)
    assert (scored["request_id"], scored["protocol"], scored["status"], scored["pairs"]) == (
        "number-7",
        "rerank",
        200,
        4,
    )
    assert scored["milliseconds"] > 0
    assert (refused["status"], refused["error"]) == (422, "unprocessable")
    assert nowhere["status"] == 404
    assert "深度" not in json.dumps([scored, refused, nowhere], ensure_ascii=False)


def test_the_log_has_texts_where_that_is_asked_for(model: ServedRanker, tmp_path: Path) -> None:
    assert read_log(Site(model, log_texts=True), tmp_path)[0]["texts"] == {"query": QUERY, "documents": TITLES}


@pytest.mark.parametrize("broken", ["full disk", "closed pipe"])
def test_a_log_that_cannot_be_written_fails_no_request(site: Site, broken: str) -> None:
    if broken == "full disk":
        descriptor = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, descriptor = os.pipe()
        os.close(reader)
    try:
        site.log = JsonLog(descriptor)
        assert site.post("/v1/rerank", {"query": QUERY, "documents": TITLES}).status_code == 200
        site.log.close(SECONDS)
        assert site.log.lost == 1
    finally:
        os.close(descriptor)
