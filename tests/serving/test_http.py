"""The HTTP application: the shapes that today's clients send and read, its errors, its key, its figures."""

from __future__ import annotations

import gzip
import json
import os
import re
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Optional

import numpy as np
import pytest

from paddle_ranker.scoring.ranker import Ranker
from paddle_ranker.serving.core.logs import JsonLog
from paddle_ranker.serving.core.metrics import Metrics
from paddle_ranker.serving.core.server_config import ServeConfig
from paddle_ranker.serving.http.rerank_formats import RankedResult, ScoredResult
from paddle_ranker.serving.process.worker import make_app
from paddle_ranker.serving.slots.ranker_slot import RankerSlot, ServedRanker
from paddle_ranker.serving.slots.services import Scores
from paddle_ranker.serving.slots.slots import Slots
from tests.export_cases import write_case
from tests.serving_cases import SECONDS, Application

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


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank", "/rerank/", "/v1//rerank", "//v2/rerank//"])
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
    asked = {"query": QUERY, "documents": TITLES, "top_n": None, "return_documents": None, "model": None, "top_k": 1}
    answer = site.post("/v1/rerank", asked).json()
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


def test_a_server_that_truncates_refuses_no_text_for_its_length(model: ServedRanker) -> None:
    site = Site(model, auto_truncate=True)
    texts = [TITLES[0], "深度学习" * 12, "文化" * 40]  # more tokens than are scored, more characters than are read
    wanted = Ranker.load(model.folder).score([QUERY] * 3, texts)
    for truncate in ({}, {"truncate": False}, {"truncate": True}):
        answer = site.post("/rerank", {"query": QUERY, "texts": texts, "return_text": True, **truncate}).json()
        np.testing.assert_allclose(by_index(answer, "score"), wanted, atol=1e-6)
        assert {one["index"]: one["text"] for one in answer} == dict(enumerate(texts))
    for path in ("/rerank", "/v1/rerank", "/v2/rerank"):
        ranked = site.post(path, {"query": QUERY, "documents": texts}).json()["results"]
        np.testing.assert_allclose(by_index(ranked, "relevance_score"), wanted, atol=1e-6)
    pairs = [json.dumps({"query": QUERY, "title": text}) for text in texts]
    pipeline = site.post("/ernie/prediction", {"key": ["0", "1", "2"], "value": pairs}).json()
    np.testing.assert_allclose(np.array(json.loads(pipeline["value"][0]))[:, 0], wanted, atol=1e-6)
    tensors = [{"name": "query", "elem_type": 20, "data": [QUERY]}, {"name": "title", "elem_type": 20, "data": texts}]
    found = site.post("/GeneralModelService/inference", {"tensor": tensors}).json()["outputs"][0]["tensor"][0]
    np.testing.assert_allclose(found["float_data"], wanted, atol=1e-6)
    assert site.post("/v1/rerank", {"query": "a", "documents": ["a"] * 9}).status_code == 413
    assert site.get("/info").json()["auto_truncate"] is True


def by_index(results: list[dict[str, Any]], name: str) -> list[float]:
    return [result[name] for result in sorted(results, key=lambda result: int(result["index"]))]


@pytest.mark.parametrize(
    ("path", "body", "status", "field"),
    [
        ("/v1/rerank", b"{", 400, "body"),
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
        ("/v1/rerank", {"query": "a", "documents": "a"}, 422, "documents"),
        ("/v1/rerank", {"query": "a", "documents": ["a", 3]}, 422, "documents[1]"),
        ("/v1/rerank", {"query": "a", "documents": []}, 400, "documents"),
        ("/v1/rerank", {"query": "a", "documents": ["a"], "top_n": 0}, 422, "top_n"),
        ("/v1/rerank", {"query": "a", "documents": ["a"], "top_n": "1"}, 422, "top_n"),
        ("/v1/rerank", {"query": "a", "documents": ["a"], "return_documents": "yes"}, 422, "return_documents"),
        ("/v1/rerank", {"query": "a", "documents": ["a"] * 9}, 413, "documents"),
        ("/v1/rerank", {"query": "a", "documents": ["a", "b" * 61]}, 413, "documents[1]"),
        ("/v1/rerank", {"query": "a" * 61, "documents": ["a"]}, 413, "query"),
        ("/v1/rerank", b" " * 4097, 413, "body"),
        ("/rerank", {"query": "a", "texts": ["a", 3]}, 422, "texts[1]"),
        ("/rerank", {"query": "a", "texts": []}, 400, "texts"),
        ("/rerank", {"query": "a", "texts": ["a"] * 9}, 413, "texts"),
        ("/rerank", {"query": "a", "texts": ["a", "b" * 61], "truncate": True}, 413, "texts[1]"),
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
    assert (info["limits"]["pairs"], info["limits"]["request_bytes"]) == (8, 4096)
    assert (info["model_id"], info["kind"], info["max_input_length"]) == ("ranker", "pairwise", 32)
    assert info["engine"] == "dygraph"
    for method, path, body in (
        ("POST", "/v1/rerank", {"query": QUERY, "documents": TITLES}),
        ("POST", "/v1/rerank", b"{"),
        ("POST", "/rerank", {"query": QUERY, "texts": TITLES}),
        ("POST", "/ernie/prediction", b"{"),
        ("PUT", "/v1/rerank", None),
        ("POST", "/GeneralModelService/train", b""),
    ):
        site.ask(method, path, body)
    site.metrics.batches("ranker").batch(pairs=3, tokens=60, padded_tokens=80, seconds=0.5)
    figures = site.get("/metrics").text.splitlines()
    for outcome, protocol in (
        ("ok", "rerank"), ("invalid_request", "rerank"), ("ok", "tei"), ("invalid_request", "pipeline_http"),
        ("method_not_allowed", "rerank"), ("no_such_method", "brpc_http"),
    ):  # fmt: skip
        assert f'ranker_requests_total{{outcome="{outcome}",protocol="{protocol}"}} 1.0' in figures
    for line in (
        'ranker_request_seconds_count{protocol="rerank"} 3.0', "ranker_pairs_total 3.0",
        "ranker_padding_tokens_total 20.0", "ranker_engine_seconds_total 0.5", "ranker_queue_pairs 0.0",
    ):  # fmt: skip
        assert line in figures, line
    renders: list[int] = []
    for second in (7,) * 50 + (8,) * 50:  # who needs no key cannot keep the server busy with them
        site.metrics.shown(partial(renders.append, second), second)
    assert renders == [7] * 10 + [8] * 10


@pytest.mark.parametrize("host", ["[", "[::1", "a/v2/rerank?"])
def test_a_host_that_is_none_changes_no_answer(model: ServedRanker, host: str) -> None:
    asked, site = {"query": QUERY, "documents": TITLES}, Site(model, allowed_hosts=("*",))
    found, wanted = site.post("/v1/rerank", asked, host=host), site.post("/v1/rerank", asked)
    assert found.status_code == 200 and {**found.json(), "id": ""} == {**wanted.json(), "id": ""}
    assert site.get("/openapi.json", host=host).status_code == 200


@pytest.mark.parametrize(
    ("options", "host", "is_answered"),
    [
        ({}, "[::1]:8600", True),
        ({}, "LOCALHOST", True),
        ({}, "ranker:8600", True),  # of a container
        ({}, "attacker.example", False),
        ({}, "127.0.0.1.attacker.example", False),
        ({}, "10.1.2.3", False),
        ({"host": "0.0.0.0"}, "10.1.2.3:8600", True),
        ({"host": "0.0.0.0"}, "attacker.example", False),
        ({"host": "ranker.internal"}, "ranker.internal", True),
        ({"api_key": KEY}, "anything.example", True),
        ({"allowed_hosts": ("*.example.com", "other")}, "a.example.com:80", True),
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


def test_answers_are_not_cached_and_the_docs_run_this_server_s_scripts_alone(site: Site) -> None:
    for path in ("/live", "/nothing", "/v1/rerank"):
        assert site.get(path).headers["cache-control"] == "no-store"
    docs = site.get("/docs")
    policy = docs.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in policy and "default-src 'self';" in policy and "script-src" not in policy
    assert docs.headers["x-content-type-options"] == "nosniff" and docs.headers["referrer-policy"] == "no-referrer"
    scripts = re.findall(r'<script[^>]* src="([^"]+)"', docs.text)
    assert scripts == ["docs/openapi-explorer.js"] and site.get(f"/{scripts[0]}").status_code == 200


def test_the_name_of_the_model_outlives_a_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_case(tmp_path / "news" / "model_376")
    (tmp_path / "news" / "best").symlink_to(folder)
    served = RankerSlot(ServeConfig(model=tmp_path / "news" / "best")).load()
    assert (served.name, served.folder.name) == ("news/best", "model_376") and served.batcher.close(SECONDS)
    assert ServeConfig(served_name=("mine",)).name_of("tower", folder) == "mine"
    assert ServeConfig(served_name=("mine",), model=folder).name_of("tower", folder) == "news/model_376"
    monkeypatch.chdir(tmp_path / "news")
    for given, name in (("best", "news/best"), ("/best", "best"), ("output", "output")):
        assert ServeConfig().name_of("ranker", Path(given)) == name


def test_the_description_names_every_route(site: Site) -> None:
    description = site.get("/openapi.json").json()
    assert {"/rerank", "/v1/rerank", "/v2/rerank", "/info", "/metrics"} <= set(description["paths"])
    names = re.findall(r"#/components/schemas/(\w+)", json.dumps(description))
    assert set(names) <= set(description["components"]["schemas"])
    for result in (RankedResult, ScoredResult):
        described = description["components"]["schemas"][result.__name__]
        assert set(described["properties"]) == set(result.__annotations__)
    assert "curl http://127.0.0.1/v1/rerank" in description["info"]["description"]
    assert "X-API-Key" not in description["info"]["description"]
    body = description["paths"]["/v1/rerank"]["post"]["requestBody"]["content"]["application/json"]["example"]
    assert body["query"] == "深度学习" and len(body["documents"]) > 1


def test_the_description_s_example_asks_the_server_that_shows_it(model: ServedRanker) -> None:
    def example(site: Site, host: str) -> str:
        return str(site.get("/openapi.json", host=host).json()["info"]["description"])

    wanted = 'curl -H "X-API-Key: $PADDLE_RANKER_API_KEY" http://ranker.internal:9123/v1/rerank'
    assert wanted in example(Site(model, api_key=KEY), "ranker.internal:9123")
    for odd in ("x;rm -rf $HOME", "a b", "<b>"):
        assert odd not in example(Site(model, allowed_hosts=("*",)), odd)


def test_the_description_has_the_address_before_a_proxy(site: Site) -> None:
    def described(**headers: str) -> tuple[Any, str]:
        content = site.get("/openapi.json", **{name.replace("_", "-"): value for name, value in headers.items()}).json()
        return content.get("servers"), content["info"]["description"]

    assert described()[0] is None
    for forwarded, address in (
        ({"x_forwarded_proto": "https", "x_forwarded_prefix": "/rank/er/"}, "https://127.0.0.1/rank/er"),
        ({"x_forwarded_proto": "https"}, "https://127.0.0.1"),
        ({"x_forwarded_prefix": "/ranker"}, "http://127.0.0.1/ranker"),
    ):
        servers, description = described(**forwarded)
        assert servers == [{"url": address}] and f"curl {address}/v1/rerank" in description
    for odd in ('/a"; rm', "//elsewhere.example", "/" + "a/" * 40, "no-slash"):
        assert described(x_forwarded_prefix=odd)[0] is None, odd


def test_reloading_needs_a_key(site: Site, model: ServedRanker) -> None:
    assert site.post("/admin/reload", b"").status_code == 404
    assert Site(model, api_key=KEY).post("/admin/reload", b"").status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "status", "allowed"),
    [
        ("GET", "/v1/rerank", 405, {"POST"}),
        ("POST", "/live", 405, {"GET", "HEAD"}),
        ("GET", "/admin/reload", 405, {"POST"}),
        ("GET", "/GeneralModelService/inference", 405, {"POST"}),
        ("POST", "/docs/", 404, None),
        ("GET", "/v1/nothing", 404, None),
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
    assert (refused["status"], refused["outcome"]) == (422, "unprocessable")
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
