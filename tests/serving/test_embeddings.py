"""Vectors from a server: in the shapes of OpenAI, Text Embeddings Inference and Paddle Serving; errors and costs."""

from __future__ import annotations

import ast
import asyncio
import base64
import json
import re
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Optional

import httpx
import numpy as np
import pytest

from paddle_ranker.__main__ import main
from paddle_ranker.errors import CheckpointError, UsageError
from paddle_ranker.paddle_serving import general_model, pipeline
from paddle_ranker.paddle_serving.clients import BaiduStdClient, GrpcClient, HttpClient, PipelineClient
from paddle_ranker.paddle_serving.launchers import brpc_server
from paddle_ranker.paddle_serving.messages import messages
from paddle_ranker.paddle_serving.pipeline import PipelineNames
from paddle_ranker.paddle_serving.served_models import Models
from paddle_ranker.retrieval.vectors.text_vectors import Tower
from paddle_ranker.serving.core.byte_budget import ByteBudget
from paddle_ranker.serving.core.faults import TIMED_OUT, TOO_LARGE, Fault
from paddle_ranker.serving.core.json_text import number_lists
from paddle_ranker.serving.core.logs import JsonLog
from paddle_ranker.serving.core.metrics import Metrics
from paddle_ranker.serving.core.server_config import ServeConfig
from paddle_ranker.serving.process.worker import make_app
from paddle_ranker.serving.slots.ranker_slot import RankerSlot
from paddle_ranker.serving.slots.services import CountedRequest
from paddle_ranker.serving.slots.slot_kinds import SLOTS, serve_options, served_by, with_folder_in_slot
from paddle_ranker.serving.slots.slots import Slots
from paddle_ranker.serving.slots.tower_slot import ServedTower, TowerSlot, check
from recall.export_to_serving import main as export_to_serving
from tests.conftest import load_script
from tests.fake_service import FakeService
from tests.live_service import LiveService
from tests.serving_cases import SECONDS, Application
from tests.tiny import write_ranker, write_tower

pytestmark = pytest.mark.parity
TEXTS = ["老年人护理教育研究", "深度学习", "", 'a\tb\\n "😀"', "语言文化差异" * 9]
LIMITS: dict[str, Any] = {"request_bytes": 16384, "texts": 8, "characters": 60, "queue_texts": 16, "pairs": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tower(tmp_path_factory.mktemp("towers") / "tower")


def options(folder: Optional[Path], **changes: Any) -> Any:
    SLOTS.load_plugins()
    return with_folder_in_slot(serve_options()(folder=folder, **{**LIMITS, **changes}))


@pytest.fixture(scope="module")
def model(folder: Path) -> Iterator[ServedTower]:
    loaded = SLOTS["tower"].make(options(folder)).load()
    assert isinstance(loaded, ServedTower)
    yield loaded
    assert loaded.batcher.close(SECONDS)


@pytest.fixture(scope="module")
def tower(folder: Path) -> Tower:
    return Tower.open(folder)


@pytest.fixture(scope="module")
def slot(folder: Path, model: ServedTower) -> TowerSlot:
    made = SLOTS["tower"].make(options(folder))
    made.switch(model)
    assert isinstance(made, TowerSlot)
    return made


class Site(Application):
    """The server's, with a tower or none."""

    def __init__(self, model: Optional[ServedTower], folder: Path, **changes: Any):
        self.config = options(folder, **changes)
        self.slot = SLOTS["tower"].make(self.config)
        self.slot.switch(model)
        self.budget = ByteBudget()
        self.app = make_app(Slots({"tower": self.slot}), self.config, Metrics(), budget=self.budget)


@pytest.fixture
def site(model: ServedTower, folder: Path) -> Site:
    return Site(model, folder)


WAYS: list[tuple[str, dict[str, Any], bool]] = [  # a path, fields beside the texts, and whether they are queries
    ("/v1/embeddings", {"model": "any", "user": "me"}, False),
    ("/embeddings", {"input_type": "document", "dimensions": 8}, False),
    ("/v1/embeddings", {"encoding_format": "base64"}, False),
    ("/v1/embeddings", {"input_type": "query"}, True),
    ("/v1/embeddings", {"input_type": "search_query", "truncation": True}, True),
    ("/embed", {"normalize": True, "truncation_direction": "Right", "truncate": True}, False),
    ("/", {"truncate": True}, False),
    ("/embed", {"prompt_name": "query", "truncate": True}, True),
]


def vectors_in(answer: httpx.Response) -> np.ndarray:
    """Return the vectors of an answer in OpenAI's shape, as numbers or in base64, or in TEI's."""
    if isinstance(answer.json(), list):
        return np.array(answer.json())
    data = answer.json()["data"]
    assert [(one["object"], one["index"]) for one in data] == [("embedding", i) for i in range(len(data))]
    found = [one["embedding"] for one in data]
    return np.array([np.frombuffer(base64.b64decode(one), "<f4") if isinstance(one, str) else one for one in found])


def named(path: str, texts: Any) -> dict[str, Any]:
    return {"input" if "embeddings" in path else "inputs": texts}


@pytest.mark.parametrize(("path", "fields", "is_query"), WAYS)
def test_every_shape_has_the_tower_s_vectors(
    site: Site, tower: Tower, path: str, fields: dict[str, Any], is_query: bool
) -> None:
    make = tower.query_vectors if is_query else tower.vectors
    answer = site.post(path, {**named(path, TEXTS), **fields})
    np.testing.assert_allclose(vectors_in(answer), make(TEXTS), atol=1e-6)
    alone = site.post(path, {**named(path, TEXTS[0]), **fields})
    np.testing.assert_allclose(vectors_in(alone), make(TEXTS[:1]), atol=1e-6)
    if "embeddings" in path:
        encoder, found = tower.encoder, answer.json()
        tokens = int((encoder.encode_queries(TEXTS) if is_query else encoder.encode(TEXTS)).lengths.sum())
        assert (found["object"], found["model"]) == ("list", "tower")
        assert found["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    assert np.abs(tower.query_vectors(TEXTS) - tower.vectors(TEXTS)).max() > 1e-3


@contextmanager
def loaded(folder: Path) -> Iterator[Site]:
    """Serve a tower of another folder."""
    site = Site(None, folder)
    site.slot.switch(site.slot.load())
    yield site
    model = site.slot.switch(None)
    assert model is not None and model.close(SECONDS)


def test_nested_sizes_are_cut_off_and_normalised(tmp_path: Path) -> None:
    folder = write_tower(tmp_path / "tower", nested_sizes=(2, 4))
    whole = Tower.open(folder).vectors(TEXTS)[:, :4]
    wanted = whole / np.linalg.norm(whole, axis=1, keepdims=True)
    with loaded(folder) as site:
        for asked in ({"dimensions": 4}, {"output_dimension": 4}):
            found = vectors_in(site.post("/v1/embeddings", {"input": TEXTS, **asked}))
            np.testing.assert_allclose(found, wanted, atol=1e-6)
        answer = site.post("/embed", {"inputs": TEXTS, "dimensions": 4, "truncate": True})
        np.testing.assert_allclose(answer.json(), wanted, atol=1e-6)
        assert "2 or 4 or 8" in site.post("/embed", {"inputs": "a", "dimensions": 3}).json()["error"]


def test_queries_may_have_a_tower_of_their_own(tmp_path: Path) -> None:
    folder = write_tower(tmp_path / "tower", towers=2)
    shutil.move(write_tower(tmp_path / "other", seed=2), folder / "query")
    tower = Tower.open(folder)
    assert np.abs(tower.query_vectors(TEXTS) - tower.vectors(TEXTS)).max() > 1e-2
    with loaded(folder) as site:
        for kind, vectors in (("query", tower.query_vectors(TEXTS)), ("document", tower.vectors(TEXTS))):
            found = vectors_in(site.post("/v1/embeddings", {"input": TEXTS, "input_type": kind}))
            np.testing.assert_allclose(found, vectors, atol=1e-6)


def test_a_query_and_a_text_share_a_batch(slot: TowerSlot, tower: Tower) -> None:
    async def ask() -> Any:
        return await asyncio.gather(*(slot.vectors([text], is_query=i % 2 == 1) for i, text in enumerate(TEXTS)))

    found = np.concatenate([vectors.vectors for vectors in asyncio.run(ask())])
    np.testing.assert_allclose(found[::2], tower.vectors(TEXTS[::2]), atol=1e-6)
    np.testing.assert_allclose(found[1::2], tower.query_vectors(TEXTS[1::2]), atol=1e-6)


ERRORS: list[tuple[str, Any, int, Optional[str], str]] = [  # OpenAI's errors name the place apart, TEI's in the text
    ("/v1/embeddings", {"input": [[1, 2], [3]]}, 400, "input", "tokens"),
    ("/v1/embeddings", {"input": ["a", None]}, 400, "input[1]", "string"),
    ("/v1/embeddings", {"input": []}, 400, "input", "is empty"),
    ("/v1/embeddings", {}, 400, "input", "required"),
    ("/v1/embeddings", [], 400, "body", "object"),
    ("/v1/embeddings", {"input": ["a"] * 9}, 413, "input", "at most 8"),
    ("/v1/embeddings", {"input": ["a", "b" * 61]}, 413, "input[1]", "61 characters"),
    ("/v1/embeddings", {"input": [1] * 5000}, 400, "input", "holds tokens"),
    ("/v1/embeddings", {"input": "a", "encoding_format": "int8"}, 400, "encoding_format", "base64"),
    ("/v1/embeddings", {"input": "a", "input_type": "other"}, 400, "input_type", "query"),
    ("/v1/embeddings", {"input": "a", "dimensions": 4}, 400, "dimensions", "8 numbers"),
    ("/v1/embeddings", {"input": TEXTS, "truncation": False}, 413, "input[4]", "more than the 32"),
    ("/embed", {"inputs": TEXTS}, 413, None, "inputs[4]"),
    ("/embed", {"inputs": [1]}, 422, None, "inputs: holds tokens"),
    ("/embed", {"inputs": ["a", None]}, 422, None, "inputs[1]"),
    ("/embed", {"inputs": []}, 400, None, "is empty"),
    ("/embed", {"inputs": "a", "prompt_name": "answer"}, 422, None, "prompt_name: is 'answer'"),
    ("/embed", {"inputs": "a", "normalize": False}, 422, None, "length 1"),
    ("/embed", {"inputs": TEXTS, "truncate": True, "truncation_direction": "left"}, 422, None, "truncation_direction"),
    ("/embed_sparse", {"inputs": "a"}, 404, None, "POST /embed"),
    ("/v1/rerank", {"query": "a", "documents": ["b"]}, 404, None, "no ranker"),
]


@pytest.mark.parametrize(("path", "body", "status", "place", "words"), ERRORS)
def test_what_is_wrong_is_named_in_each_shape(
    site: Site, path: str, body: Any, status: int, place: Optional[str], words: str
) -> None:
    answer = site.post(path, body)
    error = answer.json()["error"]
    if place is None:
        assert words in error and isinstance(answer.json()["error_type"], str)
    else:
        assert words in error["message"] and (error["param"], error["type"]) == (place, "invalid_request_error")
    assert answer.status_code == status and answer.json()["request_id"] == answer.headers["x-request-id"]


def test_auto_truncate_cuts_for_every_client(model: ServedTower, folder: Path, tower: Tower) -> None:
    cutting = Site(model, folder, auto_truncate=True)
    for path in ("/embed", "/v1/embeddings"):
        found = vectors_in(cutting.post(path, named(path, "深" * 100)))
        np.testing.assert_allclose(found, tower.vectors(["深" * 60]), atol=1e-6)


def test_a_key_is_asked_for_and_a_server_without_a_tower_says_so(model: ServedTower, folder: Path) -> None:
    keyed = Site(model, folder, api_key="secret")
    refused = keyed.post("/v1/embeddings", {"input": "a"})
    assert refused.status_code == 401 and "key" in refused.json()["error"]["message"]
    assert keyed.post("/v1/embeddings", {"input": "a"}, authorization="Bearer secret").status_code == 200
    unloaded = Site(None, folder).post("/embed", {"inputs": "a"})
    assert (unloaded.status_code, unloaded.headers["retry-after"]) == (503, "5")


def test_a_deadline_and_a_caller_who_leaves_take_texts_off_the_queue(site: Site, slot: TowerSlot) -> None:
    late = site.post("/v1/embeddings", {"input": "a"}, **{"X-Request-Timeout-Ms": "0"})
    assert late.status_code == 504 and late.json()["error"]["type"] == "server_error"
    served = slot.ready()
    gate, honest = threading.Event(), served.runner.compute

    def held(columns: Any, rows: Any) -> Any:
        assert gate.wait(SECONDS)
        return honest(columns, rows)

    async def leave() -> None:
        first = asyncio.ensure_future(slot.vectors(["a"]))  # held by the engine
        while served.batcher.queued_rows or not served.batcher._computing:
            await asyncio.sleep(0.001)
        with pytest.raises(Fault) as raised:
            await slot.vectors(["b"] * 3, deadline=time.monotonic() + 0.05)
        assert raised.value.kind is TIMED_OUT and slot.queued_rows == 0
        left = asyncio.ensure_future(slot.vectors(["c"] * 4))
        while slot.queued_rows != 4:
            await asyncio.sleep(0.001)
        with pytest.raises(Fault) as raised:
            await slot.vectors(["d"] * 8 + ["e"] * 5)
        assert raised.value.kind is TOO_LARGE
        left.cancel()
        with suppress(asyncio.CancelledError):
            await left
        assert slot.queued_rows == 0
        gate.set()
        assert len((await first).vectors) == 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(served.runner, "compute", held)
        try:
            asyncio.run(asyncio.wait_for(leave(), SECONDS))
        finally:
            gate.set()


def test_an_answer_is_in_the_budget_before_it_is_worked_out(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"input": ["a"] * 8}
    site.budget.most = 1500  # the request and its texts fit, 8 vectors of 8 numbers do not
    asked: list[Any] = []
    monkeypatch.setattr(TowerSlot, "vectors", lambda *given, **named: asked.append(given))
    refused = site.post("/v1/embeddings", small)
    assert refused.status_code == 413 and "fewer rows" in refused.json()["error"]["message"] and not asked
    site.budget.most = 4000
    with site.budget.share() as other:
        other.reserve(2000)
        assert site.post("/v1/embeddings", small).status_code == 503 and not asked
    assert site.budget.held == 0


def test_info_and_the_description_know_the_tower(site: Site, model: ServedTower) -> None:
    info = site.ask("GET", "/info").json()
    assert info["tower"]["model_type"] == {"embedding": {"pooling": "mean"}} and info["tower"]["size"] == 8
    assert info["model_id"] == "tower" and info["limits"]["texts"] == 8
    paths = site.ask("GET", "/openapi.json").json()["paths"]
    assert {"/v1/embeddings", "/embed", "/v1/models"} <= set(paths) and "/v1/rerank" not in paths
    entry = {"id": "tower", "object": "model", "created": int(model.loaded_at), "owned_by": "paddle_ranker"}
    assert site.ask("GET", "/v1/models").json() == {"object": "list", "data": [entry]}


def test_numbers_are_short_and_make_the_same_float32() -> None:
    random = np.random.default_rng(0)
    scales = 10.0 ** random.uniform(-40, 30, (50, 1))
    vectors = np.concatenate([random.standard_normal((200, 64)), random.standard_normal((50, 64)) * scales])
    vectors[0, :4] = 0, -0.0, 1, -1
    vectors = vectors.astype(np.float32)
    rows = number_lists(vectors)
    np.testing.assert_array_equal(np.array([json.loads(row) for row in rows], np.float32), vectors)
    assert max(len(number) for row in rows[:200] for number in row[1:-1].split(b",")) <= 16


def test_what_is_no_tower_is_not_served(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a tower"):
        SLOTS["tower"].make(options(None, tower=write_ranker(tmp_path / "ranker"))).load()


@pytest.mark.parametrize(("factor", "words"), [(np.nan, "not numbers"), (0.5, "alone and in a batch")])
def test_a_tower_with_vectors_that_cannot_be_believed_is_not_served(
    model: ServedTower, monkeypatch: pytest.MonkeyPatch, factor: float, words: str
) -> None:
    honest = model.runner.compute

    def spoilt(columns: Any, rows: Any) -> Any:
        return {name: array * (factor if len(rows) > 1 else 1) for name, array in honest(columns, rows).items()}

    monkeypatch.setattr(model.runner, "compute", spoilt)
    with pytest.raises(CheckpointError, match=words):
        check(model.runner, model.model, model.folder)


# Paddle Serving's protocols.


def tensors(fetch: Sequence[str] = (), **columns: Any) -> Any:
    """Return a Request that feeds texts, or arrays of tokens, by their names."""
    request = messages().Request(fetch_var_names=fetch)
    for name, values in columns.items():
        if isinstance(values, list):
            request.tensor.add(alias_name=name, elem_type=20, data=values)
        else:
            request.tensor.add(name=name, shape=values.shape, int64_data=values.ravel().tolist())
    return request


def fetched(response: Any) -> np.ndarray:
    ((tensor,),) = (output.tensor for output in response.outputs)
    assert (tensor.name, tensor.alias_name, tensor.elem_type) == ("vector", "output_embedding", 1)
    return np.array(tensor.float_data, np.float32).reshape(tensor.shape)


@pytest.fixture
def alone(slot: TowerSlot) -> Models:
    """A server with a tower and without a ranker."""
    return Models(RankerSlot(ServeConfig()), slot, has_ranker=False)


@pytest.fixture
def both(slot: TowerSlot) -> FakeService:
    """A server with both."""
    service = FakeService()
    service.tower = slot
    return service


@pytest.mark.parametrize("fetch", [[], ["output_embedding"], ["vector"]])
def test_paddle_serving_s_tensors(alone: Models, tower: Tower, fetch: list[str]) -> None:
    found = asyncio.run(general_model.infer(tensors(fetch, text=TEXTS), alone))
    np.testing.assert_allclose(fetched(found), tower.vectors(TEXTS), atol=1e-6)
    found = asyncio.run(general_model.infer(tensors(fetch, query=TEXTS), alone))
    np.testing.assert_allclose(fetched(found), tower.query_vectors(TEXTS), atol=1e-6)
    tokens = tower.encoder.encode(TEXTS).pad(range(len(TEXTS)))
    found = asyncio.run(general_model.infer(tensors(fetch, **tokens), alone))
    np.testing.assert_allclose(fetched(found), tower.vectors(TEXTS), atol=1e-6)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (tensors(["predict"], text=["a"]), "choose from output_embedding, vector"),
        (tensors(text=["a"], query=["a"]), "send one of text or query"),
        (tensors(title=["a"]), "or text or query, are"),
        (tensors(), "lacks input_ids and token_type_ids"),
        (tensors(text=["a"] * 9), "at most 8"),
        (tensors(input_ids=np.array([[5, 999]]), token_type_ids=np.zeros((1, 2), int)), "input_ids"),
        (tensors(input_ids=np.array([[0, 0]]), token_type_ids=np.zeros((1, 2), int)), "padding"),
    ],
)
def test_tensors_that_a_tower_does_not_take(alone: Models, request_: Any, words: str) -> None:
    with pytest.raises(Fault, match=words):
        asyncio.run(general_model.infer(request_, alone))


def test_what_is_fetched_says_which_model_is_asked(both: FakeService, tower: Tower) -> None:
    tokens = tower.encoder.encode(TEXTS[:1]).pad([0])
    wanted = tower.vectors(TEXTS[:1])
    for asked in (["output_embedding"], tokens), ([], {"text": TEXTS[:1]}), (["vector"], {"text": TEXTS[:1]}):
        found = asyncio.run(general_model.infer(tensors(asked[0], **asked[1]), both))
        np.testing.assert_allclose(fetched(found), wanted, atol=1e-6)
    assert not both.calls
    for request in (tensors(query=["a"], title=["b"]), tensors(["predict"], query=["a"], title=["b"])):
        (output,) = asyncio.run(general_model.infer(request, both)).outputs
        assert output.tensor[0].alias_name == "predict"
    assert both.calls == [1, 1]


def test_the_pipeline_answers_with_vectors(alone: Models, both: FakeService, tower: Tower) -> None:
    wanted = tower.vectors(TEXTS[:3])
    keys = ["1", "0", "2"]
    for service, name in ((alone, ""), (alone, "ernie"), (alone, "tower"), (both, "tower")):
        request = messages().PipelineRequest(name=name, key=keys, value=[TEXTS[int(key)] for key in keys])
        found = asyncio.run(pipeline.infer(request, service))
        assert list(found.key) == ["output_embedding"]
        np.testing.assert_allclose(np.array(ast.literal_eval(found.value[0])), wanted, atol=1e-6)
    request.name = "ernie"
    with pytest.raises(Fault, match="is not JSON"):
        asyncio.run(pipeline.infer(request, both))  # which is the ranker's
    request.name = "other"
    with pytest.raises(Fault, match="Service name error"):
        asyncio.run(pipeline.infer(request, alone))


def test_paddle_serving_s_routes(site: Site, tower: Tower) -> None:
    body = {"tensor": [{"alias_name": "text", "elem_type": 20, "data": TEXTS}], "fetch_var_names": ["output_embedding"]}
    answer = site.post("/GeneralModelService/inference", body)
    ((tensor,),) = (output["tensor"] for output in answer.json()["outputs"])
    found = np.array(tensor["float_data"]).reshape(tensor["shape"])
    np.testing.assert_array_equal(found.astype(np.float32), found)
    np.testing.assert_allclose(found, tower.vectors(TEXTS), atol=1e-6)
    for path in ("/ernie/prediction", "/tower/prediction"):
        answer = site.post(path, {"key": ["0"], "value": [TEXTS[0]]})
        assert answer.json()["err_no"] == 0 and answer.json()["key"] == ["output_embedding"]
        np.testing.assert_allclose(json.loads(answer.json()["value"][0]), tower.vectors(TEXTS[:1]), atol=1e-6)
    assert site.post("/tower/other", {"key": ["0"], "value": ["a"]}).json()["err_no"] == 3002


def test_requests_for_vectors_are_counted_and_their_texts_logged_where_that_is_asked_for(
    alone: Models, tmp_path: Path
) -> None:
    metrics = Metrics()
    for log_texts in (False, True):
        with (tmp_path / "log").open("w+") as stream:
            log = JsonLog(stream.fileno(), with_texts=True)
            with CountedRequest(protocol="grpc", metrics=metrics, log=log, log_texts=log_texts) as record:
                asyncio.run(general_model.infer(tensors(text=TEXTS[:2]), alone, record=record))
            log.close()
            stream.seek(0)
            line = json.loads(stream.read())
        assert (line["pairs"], line["outcome"]) == (2, "ok")
        assert line.get("texts") == ({"texts": TEXTS[:2]} if log_texts else None)
    assert b'ranker_requests_total{outcome="ok",protocol="grpc"} 2.0' in metrics.render()[0]


def test_vectors_for_paddle_serving_are_in_the_budget(alone: Models) -> None:
    budget = ByteBudget(2000)
    with budget.share() as share, pytest.raises(Fault, match="fewer rows") as raised:
        asyncio.run(general_model.infer(tensors(text=["a"] * 8), alone, share=share))
    assert raised.value.kind is TOO_LARGE
    with budget.share() as share:
        asyncio.run(general_model.infer(tensors(text=["a"] * 2), alone, share=share))
        assert share.held >= 2 * 8 * 4


@pytest.fixture(scope="module")
def serving(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `serving_server` and `serving_client`, as export_to_serving.py writes them of a tower."""
    made = tmp_path_factory.mktemp("serving")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("paddle_ranker.runtime.prepare_command", lambda threads: None)
        assert main(["export", "--model", str(folder), "--output", str(made / "output")]) == 0
        prefix = "inference.get_pooled_embedding"
        names = ["--model_filename", f"{prefix}.pdmodel", "--params_filename", f"{prefix}.pdiparams"]
        paths = [f"--{side}_path={made / f'serving_{side}'}" for side in ("server", "client")]
        assert export_to_serving(["--dirname", str(made / "output"), *names, *paths, "--fetch_alias_names", "vec"]) == 0
    return made


def test_folders_for_paddle_serving(serving: Path, capsys: pytest.CaptureFixture[str]) -> None:
    conf = (serving / "serving_client" / "serving_client_conf.prototxt").read_text(encoding="ascii")
    assert re.findall(r'alias_name: "(.*)"', conf) == ["input_ids", "token_type_ids", "vec"]
    assert re.findall(r"fetch_type: (.)\n +shape: (.)", conf) == [("1", "8")]
    for source, target, words in (("output", "output", "would be lost"), ("serving_server", "x", "already")):
        paths = [f"--server_path={serving / target}", f"--client_path={serving / 'serving_client'}"]
        assert export_to_serving(["--dirname", str(serving / source), *paths]) == 1
        assert words in capsys.readouterr().err


def test_an_exported_tower_answers_in_place_of_the_vendor_s_server(serving: Path, tower: Tower) -> None:
    config = brpc_server.serve_config(brpc_server.read_launch(["--model", str(serving / "serving_server")]))
    slot = SLOTS["tower"].make(config)
    model = slot.load()
    slot.switch(model)
    assert isinstance(slot, TowerSlot) and list(served_by(config)) == ["tower"]
    service = Models(RankerSlot(ServeConfig()), slot, has_ranker=False)
    client = BaiduStdClient(model_dir=serving / "serving_client", batch_size=2)
    client._ask = lambda request: asyncio.run(general_model.infer(request, service))  # type: ignore[method-assign]
    np.testing.assert_allclose(client.vectors(TEXTS), tower.vectors(TEXTS), atol=1e-5)
    np.testing.assert_allclose(client.vectors(TEXTS, is_query=True), tower.query_vectors(TEXTS), atol=1e-5)
    with pytest.raises(UsageError, match="is a tower's"):
        client.score(["a"], ["b"])
    found = asyncio.run(general_model.infer(tensors(["vec"], text=TEXTS), service))
    assert found.outputs[0].tensor[0].alias_name == "vec"
    assert model.close(SECONDS)


def test_clients_and_their_scripts_ask_for_vectors(
    slot: TowerSlot, tower: Tower, serving: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with LiveService() as live:
        live.service.tower = slot
        for client in (
            BaiduStdClient(port=live.baidu_std),
            HttpClient(port=live.http),
            GrpcClient(port=live.grpc),
            PipelineClient(port=live.grpc, names=PipelineNames("tower")),
            PipelineClient(port=live.http, names=PipelineNames("tower"), protocol="http"),
        ):
            with client:
                client.batch_size = 2
                np.testing.assert_allclose(client.vectors(TEXTS), tower.vectors(TEXTS), atol=1e-6)
                assert client.vectors([]).shape == (0, 0)
        with pytest.raises(UsageError, match="another client"):
            client.vectors(["a"], is_query=True)
        live.service.has_ranker, own = False, ["--model_dir", str(serving / "serving_client")]
        for name, more in (
            ("cpp/rpc_client", ["--port", str(live.baidu_std), *own, "--client", "own"]),
            ("cpp/http_client", ["--port", str(live.http), *own]),
            ("python/rpc_client", ["--port", str(live.grpc)]),
        ):
            command = load_script(f"deploy/{name}.py").main
            assert command([*more, "--text", *TEXTS[:2]]) == 0
            first, *lines = capsys.readouterr().out.splitlines()
            assert first.startswith("time to cost :")
            np.testing.assert_allclose([json.loads(line) for line in lines], tower.vectors(TEXTS[:2]), atol=1e-6)
            assert command(["--text", "a", "--query", "b", "--title", "c"]) == 2
