"""Models on Ray Serve answer as the plain server does, through kills and new versions."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml  # type: ignore[import-untyped]

from paddle_ranker.errors import RankerError
from paddle_ranker.options import options_from
from paddle_ranker.retrieval.index.shards import shard_name, write_shards
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.scale import deploy, releases
from paddle_ranker.scale.cluster import connected
from paddle_ranker.scale.ray_serve import application, arguments_of, config_of, deploy_options
from paddle_ranker.serving.core.server_config import ServeConfig
from tests.conftest import REPOSITORY, Call, commands_here
from tests.serving_cases import SECONDS, OpenedSite, close_slots
from tests.started import free_ports, is_open, post, started, until
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


@contextmanager
def asked(deployed: Deployed) -> Iterator[list[tuple[int, list[float]]]]:
    """Ask for scores by four clients during the block; yield the list of the answers: status and scores."""
    body = {"query": "深度", "documents": ["深度学习", "语言"]}
    stop, seen = threading.Event(), list[tuple[int, list[float]]]()

    def ask() -> None:
        while not stop.is_set():
            answer = deployed.post("/rerank", body)
            seen.append((answer.status_code, scores(answer)))

    clients = [threading.Thread(target=ask) for _ in range(4)]
    for one in clients:
        one.start()
    until(lambda: len(seen) > 4)
    yield seen
    before = len(seen)
    until(lambda: len(seen) > before + 4)
    stop.set()
    for one in clients:
        one.join()


def test_a_new_version_loses_no_request(deployed: Deployed) -> None:
    deployed.deploy("--model", deployed.folder / "ranker", "--replicas", 2)
    with asked(deployed) as seen:
        deployed.deploy("--model", deployed.folder / "other", "--replicas", 2)
    assert {status for status, _ in seen} == {200}
    first, last = seen[0][1], seen[-1][1]
    assert first != last and all(results in (first, last) for _, results in seen)


@pytest.mark.thorough
def test_a_new_version_that_is_broken_changes_nothing(
    deployed: Deployed, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the models show it, or a replica does although the models could be opened."""
    broken = shutil.copytree(deployed.folder / "other", tmp_path / "broken")
    (broken / "vocab.txt").unlink()
    with pytest.raises(RankerError) as reason:
        OpenedSite(model=broken)
    deployed.deploy("--model", deployed.folder / "ranker")
    line = "ray", "--port", deployed.port, "--model", broken
    for is_tried, what in ((True, "the version that runs goes on"), (False, "the version before is served again")):
        if not is_tried:
            monkeypatch.setattr(releases, "problem_of", lambda arguments: None)
        with asked(deployed) as seen:
            status, _, said = call(deploy.main, *line)
        assert status == 1 and said.endswith(f"{broken}: not deployed: {reason.value}; {what}\n"), said
        if is_tried:
            assert {status for status, _ in seen} == {200}
        assert deployed.post("/rerank", {"query": "深度", "documents": ["深度学习", "语言"]}).status_code == 200
    status, out, _ = call(deploy.main, "ray", "--status")
    assert status == 0 and out.splitlines()[:2] == [
        "paddle-ranker: running, on /",
        f"  --model {deployed.folder / 'ranker'}",
    ]


@pytest.mark.thorough
def test_a_new_version_that_no_machine_has_room_for_changes_nothing(deployed: Deployed, call: Call) -> None:
    deployed.deploy("--model", deployed.folder / "ranker")
    line = "ray", "--port", deployed.port, "--model", deployed.folder / "other", "--cpu_threads", 64
    with asked(deployed) as seen:
        status, _, said = call(deploy.main, *line)
    assert status == 1 and "no machine has 64 cores for a replica (the most cores: 16)" in said, said
    assert {status for status, _ in seen} == {200}


@pytest.mark.thorough
def test_shards_that_are_broken_are_found_before_they_replace_others(
    deployed: Deployed, tmp_path: Path, call: Call
) -> None:
    broken = shutil.copytree(deployed.folder / "shards", tmp_path / "shards")
    deployed.deploy("--shards", deployed.folder / "shards")
    (segment,) = (broken / shard_name(1)).glob("segment-*")
    shutil.rmtree(segment)
    status, _, said = call(deploy.main, "ray", "--port", deployed.port, "--shards", broken)
    assert status == 1 and shard_name(1) in said and said.endswith("; the version that runs goes on\n"), said


def test_a_key_that_is_missing_where_ray_runs_is_said(
    deployed: Deployed, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed.deploy("--model", deployed.folder / "ranker")
    monkeypatch.setenv("PADDLE_RANKER_API_KEY", "secret")  # as it was not when the cluster began
    status, _, said = call(deploy.main, "ray", "--port", deployed.port, "--model", deployed.folder / "other")
    assert status == 1 and f"{socket.gethostname()}: PADDLE_RANKER_API_KEY is not set" in said and "secret" not in said


@pytest.mark.thorough
def test_a_first_version_that_is_broken_leaves_nothing(deployed: Deployed, tmp_path: Path, call: Call) -> None:
    line = ["ray", "--name", "first", "--port", deployed.port, "--route_prefix", "/first", "--model"]
    broken = shutil.copytree(deployed.folder / "other", tmp_path / "broken")
    (broken / "vocab.txt").unlink()
    status, _, said = call(deploy.main, *line, broken)
    assert status == 1 and "vocab.txt" in said, said
    status, _, said = call(deploy.main, "ray", "--name", "first", "--port", deployed.port, "--model", broken)
    assert status == 1 and said.endswith(
        ': not deployed: Prefix / is being used by application "paddle-ranker". Failed to deploy application "first".\n'
    ), said
    for option in ("--status", "--stop"):
        status, _, said = call(deploy.main, "ray", "--name", "first", option)
        assert status == 1 and "nothing is deployed under this name" in said
    assert call(deploy.main, *line, deployed.folder / "other")[0] == 0
    status, out, said = call(deploy.main, "ray", "--name", "first", "--stop")
    assert (status, out, said) == (0, "first: ended\n", "")
    assert call(deploy.main, "ray", "--name", "first", "--status")[0] == 1


@pytest.mark.thorough
def test_a_service_of_one_machine_answers_what_it_has_begun_when_it_is_ended(
    deployed: Deployed, tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    line = ["deploy", "ray", "--ray", "local", "--model", deployed.folder / "ranker", "--port", port]
    command = [sys.executable, "-m", "paddle_ranker", *map(str, line), "--max_wait_us", "4000000"]
    statuses = list[int]()
    with started(command, tmp_path / "service", PYTHONPATH=str(REPOSITORY)) as service:
        service.until(lambda: "serving " in service.output)

        def ask() -> None:
            statuses.append(post(port, "/rerank", {"query": "深度", "documents": ["学习", "语言"]})[0])

        clients = [threading.Thread(target=ask) for _ in range(3)]
        for one in clients:
            one.start()
        time.sleep(1.5)  # a request waits four seconds for others
        service.process.send_signal(signal.SIGTERM)
        for one in clients:
            one.join()
        assert statuses == [200, 200, 200]
        assert service.process.wait(SECONDS) == 0


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
    assert call(deploy.main, "ray", "--stop")[0] == 0
    until(lambda: not is_open(deployed.port))  # Serve ends with its last application
    assert call(deploy.main, "ray", "--status")[0] == 1


def test_a_replica_opens_what_a_link_named_when_it_was_deployed(tmp_path: Path) -> None:
    """Also one that starts after the link was moved; answers have the name that they have on the plain server."""
    ranker = write_ranker(tmp_path / "run" / "model_3")
    link = tmp_path / "run" / "best"
    link.symlink_to(ranker.name)
    arguments = arguments_of(options_from(deploy_options(), model=link))
    assert arguments == {"model": str(ranker), "served_name": ["ranker=run/best"]}
    config = config_of(options_from(deploy_options(), **arguments))
    assert config.name_of("ranker", ranker) == ServeConfig(model=link).name_of("ranker", link) == "run/best"


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
        (["--status", "--model", "RANKER"], 2, "leave it out beside --status"),
        (["--stop", "--ray", "local"], 2, "leave it out beside --stop"),
        (["--model", "RANKER", "--ray_open", "true", "--ray", "local"], 2, "a cluster that runs"),
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
