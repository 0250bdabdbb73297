"""Models on Ray Serve answer as the plain server does, through kills and new versions."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml  # type: ignore[import-untyped]

from paddle_ranker.commands import deploy
from paddle_ranker.retrieval.candidate_indexes import Document
from paddle_ranker.retrieval.shards import shard_name, write_shards
from paddle_ranker.scale.cluster import connected
from paddle_ranker.scale.ray_serve import application
from tests.conftest import Call, commands_here
from tests.serving_cases import SECONDS, OpenedSite, close_slots
from tests.started import free_ports
from tests.tiny import write_index, write_ranker, write_tower

pytest.importorskip("ray")
pytestmark = [pytest.mark.server, pytest.mark.slow]
WORDS = ["深度学习", "水稻病害", "老年人护理", "语言文化", "经济增长", "教育法律"]
DOCUMENTS = [
    Document(f"d{6 * n + m}", f"{one}在{other}中的研究", {"year": 2000 + n * m})
    for n, one in enumerate(WORDS)
    for m, other in enumerate(WORDS)
]


class Deployed:
    """Serve on a cluster of this machine. Attributes: `folder`, with models and shards; `place`."""

    def __init__(self, folder: Path):
        self.folder = folder
        (self.port,) = free_ports(1)
        self.place = f"http://127.0.0.1:{self.port}"

    def deploy(self, *line: object) -> None:
        with commands_here():
            assert deploy.main(["ray", "--port", str(self.port), *map(str, line)]) == 0

    def post(self, path: str, body: Any) -> requests.Response:
        return requests.post(self.place + path, json=body, timeout=SECONDS)


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    base = tmp_path_factory.mktemp("serve")
    tower = write_tower(base / "tower")
    write_ranker(base / "ranker")
    write_ranker(base / "other", seed=2)
    write_index(base / "index", tower, DOCUMENTS)
    names = [shard_name(number) for number in range(3)]
    (base / "shards").mkdir()
    for name, share in zip(names, (DOCUMENTS[:5], DOCUMENTS[5:20], DOCUMENTS[20:])):
        write_index(base / "shards" / name, tower, share)
    write_shards(base / "shards", names)
    with connected("local", 16):  # of which most wait
        yield Deployed(base)
        from ray import serve

        serve.shutdown()


def plain(answer: Any) -> Any:
    """Return an answer without what differs each time."""
    found = answer.json()
    for name in ("took_ms", "search_id", "cursor", "id", "request_id", "took"):
        found.pop(name, None)
    return answer.status_code, found


ASKED: list[tuple[str, Any]] = [
    ("/rerank", {"query": "深度", "documents": ["深度学习", "语言", "水稻病害"], "top_n": 2}),
    ("/v1/rerank", {"query": "深度", "documents": ["深度学习", "语言"], "return_documents": True}),
    ("/v1/embeddings", {"input": ["水稻病害", "语言"], "model": "tower"}),
    ("/v1/search", {"query": "水稻病害研究", "explain": True, "facets": ["year"], "rank_top": 5}),
    ("/v1/search", {"query": '"教育法律" -水稻病害', "where": {"year": {"gte": 2003}}, "total": True}),
    ("/v1/search", {"query": ""}),
    ("/rerank", {"query": "深度"}),
    ("/nothing", {}),
]


def test_a_replica_answers_as_the_plain_server(deployed: Deployed) -> None:
    deployed.deploy("--index", deployed.folder / "index", "--model", deployed.folder / "ranker")
    here = OpenedSite(index=deployed.folder / "index", model=deployed.folder / "ranker")
    for path, body in ASKED:
        assert plain(deployed.post(path, body)) == plain(here.post(path, body)), (path, body)
    close_slots(here.slots)


def test_shards_answer_as_one_index_and_say_which_failed(deployed: Deployed) -> None:
    from ray import serve

    index = deployed.folder / "shards"
    deployed.deploy("--shards", index, "--model", deployed.folder / "ranker", "--partial", "true")
    here = OpenedSite(index=index, model=deployed.folder / "ranker")
    for path, body in ASKED:
        status, found = plain(deployed.post(path, body))
        if "hits" in found:
            assert found.pop("shards") == {"total": 3, "failed": 0}
        assert (status, found) == plain(here.post(path, body)), (path, body)
    close_slots(here.slots)

    shard = serve.get_deployment_handle("shard-1", "paddle-ranker")
    os.kill(shard.process_id.remote().result(), signal.SIGKILL)
    failed, end = set[int](), time.monotonic() + SECONDS
    while failed != {0, 1} and time.monotonic() < end:  # refused by none: Serve starts the shard again
        answer = deployed.post("/v1/search", {"query": "水稻病害", "rank_top": 0})
        assert answer.status_code == 200, answer.text
        failed.add(answer.json()["shards"]["failed"])
    assert 0 in failed


def scores(answer: requests.Response) -> list[float]:
    """Return the scores of an answer; in other batches, their last digits may differ."""
    return [round(one["relevance_score"], 6) for one in answer.json().get("results", [])]


def test_a_new_version_loses_no_request(deployed: Deployed) -> None:
    deployed.deploy("--model", deployed.folder / "ranker", "--replicas", 2)
    body = {"query": "深度", "documents": ["深度学习", "语言"]}
    first, stop, seen = scores(deployed.post("/rerank", body)), threading.Event(), list[Any]()

    def ask() -> None:
        while not stop.is_set():
            answer = deployed.post("/rerank", body)
            seen.append((answer.status_code, scores(answer)))

    clients = [threading.Thread(target=ask) for _ in range(4)]
    for one in clients:
        one.start()
    deployed.deploy("--model", deployed.folder / "other", "--replicas", 2)
    last = scores(deployed.post("/rerank", body))
    stop.set()
    for one in clients:
        one.join()
    assert first != last and len(seen) > 4
    assert {status for status, _ in seen} == {200}
    assert all(results in (first, last) for _, results in seen)


def test_a_configuration_deploys_the_same(deployed: Deployed, tmp_path: Path, call: Call) -> None:
    from ray import serve

    ranker, file = deployed.folder / "ranker", tmp_path / "service.yaml"
    line = ["ray", "--port", deployed.port, "--model", ranker, "--replicas", "1:3", "--batch_size", 8, "--write", file]
    assert call(deploy.main, *line)[0] == 0
    configuration = yaml.safe_load(file.read_text())
    (written,) = configuration["applications"]
    assert written["args"] == {"model": str(ranker), "replicas": "1:3", "batch_size": 8}
    module, _, name = written["import_path"].partition(":")
    assert (module, name) == (application.__module__, application.__name__)
    serve.start(http_options=configuration["http_options"])
    serve.run(application(written["args"]), name="paddle-ranker")
    assert deployed.post("/rerank", {"query": "深度", "documents": ["学习"]}).status_code == 200


@pytest.mark.parametrize(
    "line, status, problem",
    [
        ([], 2, "nothing to serve"),
        (["--model", "RANKER", "--workers", 2], 2, "--workers"),
        (["--model", "RANKER", "--device", "gpu:1"], 2, "Ray chooses which"),
        (["--model", "RANKER", "--replicas", "3:1"], 2, "MIN:MAX"),
        (["--model", "RANKER", "--partial", "true"], 2, "--shards"),
        (["--shards", "SHARD", "--index", "SHARD"], 2, "in place of --index"),
        (["--model", "RANKER", "--port", 1], 2, "listens"),
        (["--model", "./missing"], 2, "missing: there is no such folder"),
    ],
)
def test_what_cannot_be_deployed_is_refused(
    deployed: Deployed, call: Call, line: list[object], status: int, problem: str
) -> None:
    from ray import serve

    serve.start(http_options={"port": deployed.port})  # it may run already; the row "listens" needs it
    named = {"RANKER": deployed.folder / "ranker", "SHARD": deployed.folder / "shards"}
    found, _, said = call(deploy.main, "ray", "--port", deployed.port, *(named.get(str(one), one) for one in line))
    assert (found, problem in said) == (status, True), said
