"""Towers and rankers behind URLs: as good as those that are opened here, told from others, and done without."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable, Optional
from urllib.parse import urlsplit

import numpy as np
import pytest
import requests

from paddle_ranker import Index
from paddle_ranker.__main__ import main
from paddle_ranker.errors import RankerError, UsageError
from tests.conftest import REPOSITORY
from tests.fake_teacher import Server, answered, http, tei
from tests.started import Started, started
from tests.tiny import write_ranker, write_tower

pytestmark = pytest.mark.server
ROWS = [
    {"id": "a0", "name": "quiet mouse", "description": "makes no noise"},
    {"id": "a1", "name": "loud mouse", "description": "a mouse for gaming"},
    {"id": "a2", "name": "small mouse", "description": "a mouse to travel with"},
    {"id": "a3", "name": "keyboard", "description": "flat keys " * 40},
]
NAMED: dict[str, Any] = {"title": "name", "text": "description"}
QUERIES = ["mouse", "keys", "a quiet keyboard"]
KEY = "a-key"
MODEL = "bge"


@contextmanager
def running(folder: Path, *command: object, **environment: str) -> Iterator[tuple[str, Started]]:
    """Run a command that serves on a free port; yield its URL, and the process."""
    line = [sys.executable, "-m", "paddle_ranker", *map(str, command), "--port", "0"]
    with started(line, folder, PYTHONPATH=str(REPOSITORY), **environment) as server:
        server.until(lambda: "serving " in server.output)
        found: Any = re.search(r"http://127\.0\.0\.1:\d+", server.output)
        yield found[0], server


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Folders of a tower, whose queries have a network of their own prompts, a ranker, and an index with the tower."""
    folder = tmp_path_factory.mktemp("made")
    tower, ranker = write_tower(folder / "tower"), write_ranker(folder / "ranker")
    here = Index.build(ROWS[:3], folder / "here", tower=tower, **NAMED)
    here.add(ROWS[3:])
    return SimpleNamespace(folder=folder, tower=tower, ranker=ranker, here=here)


@pytest.fixture(scope="module")
def url(made: SimpleNamespace) -> Iterator[str]:
    """URL of this project's server of both, which wants `KEY`."""
    models = "--model", made.ranker, "--tower", made.tower
    with running(made.folder / "served", "serve", *models, PADDLE_RANKER_API_KEY=KEY) as (found, _):
        yield found


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TOWER", "RANKER"):
        monkeypatch.setenv(f"PADDLE_RANKER_{name}_KEY", KEY)


def vector_of(text: str) -> list[float]:
    """Return what the stranger's model makes of a text: its words' vectors, added up, not scaled."""
    total = np.zeros(8)
    for word in text.split():
        total += np.frombuffer(hashlib.sha256(word.encode()).digest()[:8], np.uint8) - 127.5
    return list(total + 0.5)


def stranger(
    asked: dict[str, Any], most: int = 10_000, turn: int = 0, refusal: int = 413, names: Sequence[str] = ()
) -> bytes:
    """Answer as another's server does: it knows two fields, refuses long texts, and answers last text first."""
    if not asked:
        return http(b"{}", 404)  # it has no list of models
    if not set(asked) <= {"input", "model"} or (names and asked.get("model") not in names):
        return http(b'{"error": "unknown field or model"}', 400)
    if max(map(len, asked["input"])) > most or len(asked["input"]) > 32:
        return http(b'{"error": "input is too long"}', refusal)
    vectors = [np.roll(vector_of(text), turn).tolist() for text in asked["input"]]
    return answered({"data": [{"index": i, "embedding": vector} for i, vector in reversed([*enumerate(vectors)])]})


def scores_of(index: Index, query: str) -> dict[str, float]:
    """Return the cosines by which a search by vectors finds its documents."""
    return {hit.id: hit.searchers["vectors"].score for hit in index.search(query, by="vectors")}


def test_models_behind_urls_search_as_the_same_models_here(
    made: SimpleNamespace, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = Index.build(ROWS[:3], tmp_path / "there", tower=f"{url}/v1", **NAMED)
    there.add(ROWS[3:])
    for query in QUERIES:
        own, found = scores_of(made.here, query), scores_of(there, query)
        assert [*own] == [*found] and len(own) == 4
        np.testing.assert_allclose([*own.values()], [*found.values()], atol=1e-5)
    for end in ("/rerank", "/v1/rerank", "/v2/rerank"):
        for query in QUERIES:
            ranked = [index.search(query, ranker=ranker) for index, ranker in
                      ((made.here, made.ranker), (there, url + end))]  # fmt: skip
            assert [hit.id for hit in ranked[0]] == [hit.id for hit in ranked[1]] and not ranked[1].degraded
            probabilities = [[hit.probability for hit in hits] for hits in ranked]
            np.testing.assert_allclose(np.array(probabilities[0]), np.array(probabilities[1]), atol=1e-5)
    with pytest.raises(RankerError, match="say where it is, --tower"):
        Index(tmp_path / "there").search("mouse")
    assert len(Index(tmp_path / "there").search("mouse", by="words")) == 3
    # The folder has no address that could be called, and commands find the same.
    assert not [
        path for path in (tmp_path / "there").rglob("*") if path.is_file() and b"127.0.0.1" in path.read_bytes()
    ]
    rest = ("--tower", f"{url}/v1", "--ranker", f"{url}/v1/rerank", "--format", "json")
    assert main(["search", "--index", str(tmp_path / "there"), "mouse", *rest]) == 0
    shown = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [hit["id"] for hit in shown["results"]] == [hit.id for hit in made.here.search("mouse", ranker=made.ranker)]
    (tmp_path / "more.jsonl").write_text(json.dumps({"id": "a4", "name": "pen", "description": "blue"}))
    add = ["index", "add", str(tmp_path / "there"), "--corpus", str(tmp_path / "more.jsonl")]
    assert main([*add, "--tower", f"{url}/v1"]) == 0 and main(add) == 2
    assert len(Index(tmp_path / "there", tower=url).search("pen", by="vectors")) == 5


def test_shards_are_built_by_a_tower_behind_a_url(made: SimpleNamespace, url: str, tmp_path: Path) -> None:
    Index.build(ROWS, tmp_path / "there", tower=f"{url}/v1", shards=2, **NAMED)
    own, found = scores_of(made.here, "mouse"), scores_of(Index(tmp_path / "there", tower=url), "mouse")
    assert own.keys() == found.keys()
    np.testing.assert_allclose([own[id] for id in found], [*found.values()], atol=1e-5)


def test_a_server_s_searches_go_on_by_words_when_the_models_are_killed(made: SimpleNamespace, tmp_path: Path) -> None:
    models = "--model", made.ranker, "--tower", made.tower
    with running(tmp_path / "models", "serve", *models, PADDLE_RANKER_API_KEY=KEY) as (url, process):
        Index.build(ROWS, tmp_path / "there", tower=f"{url}/v1", **NAMED).close()
        own = "search-serve", "--index", tmp_path / "there", "--writable", "true"
        asked = "--tower", f"{url}/v1", "--ranker", f"{url}/v1/rerank#{made.ranker.name}"
        with running(tmp_path / "searches", *own, *asked) as (searches, server):
            post = partial(requests.post, f"{searches}/v1/search", timeout=60)
            body: dict[str, Any] = {"query": "mouse", "fields": []}
            found = post(json=body).json()
            own_hits = made.here.search("mouse", ranker=made.ranker)
            assert [hit["id"] for hit in found["hits"]] == [hit.id for hit in own_hits]
            np.testing.assert_allclose(
                [hit["probability"] for hit in found["hits"]], [hit.probability for hit in own_hits], atol=1e-5
            )
            assert "degraded" not in found and found["ranked"] and found["model"] == made.ranker.name
            shown = requests.get(f"{searches}/v1/index", timeout=60).json()
            assert (shown["tower"], shown["ranker"]) == (urlsplit(url).netloc, made.ranker.name)
            page = post(json={**body, "top_k": 1, "cursor": ""}).json()
            new = {"documents": [{"id": "a4", "text": "a mouse pad"}]}
            assert requests.post(f"{searches}/v1/documents", json=new, timeout=60).json()["added"] == 1
            assert len(post(json={**body, "by": ["vectors"]}).json()["hits"]) == 5
            process.end()
            for _ in range(3):
                found = post(json=body).json()
                assert found["degraded"] == ["vectors", "rank"] and not found["ranked"]
                assert {hit["id"] for hit in found["hits"]} == {"a0", "a1", "a2", "a4"}
            assert post(json={**body, "by": ["vectors"]}).status_code == 503
            # A page behind one that was ranked would be of another list.
            assert post(json={**body, "top_k": 1, "cursor": page["cursor"]}).status_code == 503
            more = {"documents": [{"id": "a5", "text": "another mouse pad"}]}
            assert requests.post(f"{searches}/v1/documents", json=more, timeout=60).status_code == 503
            assert server.output.count("Connection refused") <= 4  # not for each search and model


@pytest.mark.parametrize("refusal", [413, 400])
def test_a_stranger_s_tower(tmp_path: Path, refusal: int, capsys: pytest.CaptureFixture[str]) -> None:
    reply = partial(stranger, most=120, refusal=refusal, names=[MODEL])
    with Server(reply) as server:
        url = f"http://127.0.0.1:{server.port}/v1#{MODEL}"
        prompts = {"query_prompt": "find ", "text_prompt": "text "}
        index = Index.build(ROWS, tmp_path / "index", tower=url, **prompts, **NAMED)
        assert "refuses long texts" in capsys.readouterr().err
        found = scores_of(index, "quiet mouse")
        texts = {row["id"]: f"text {row['name']} {row['description']}" for row in ROWS[:3]}
        query = np.array(vector_of("find quiet mouse"))
        for id, text in texts.items():
            vector = np.array(vector_of(text))
            cosine = query @ vector / np.linalg.norm(query) / np.linalg.norm(vector)
            assert found[id] == pytest.approx(cosine, abs=1e-5)
        sent = [body["input"] for body in server.bodies if body]
        assert {f"authorization: bearer {KEY}"} == {
            line.lower() for head in server.heads for line in head.splitlines() if line.lower().startswith("auth")
        }
        refused = sum(max(map(len, texts)) > 120 for texts in sent)
        assert 1 <= refused <= 10 and len(sent) > refused
        before = len(server.bodies)
        index.add([{"id": "b0", "name": "pad", "description": "x " * 400}])
        added = server.bodies[before:]
        assert {len(max(body["input"], key=len)) for body in added if body} != set()
        # What the index was told of the tower stays.
        with pytest.raises(RankerError, match="--query_prompt 'find ', not 'seek '"):
            Index.build(ROWS, tmp_path / "index", tower=url, query_prompt="seek ", **NAMED)


def test_another_model_behind_the_same_url_is_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Server(stranger) as server:
        url = f"http://127.0.0.1:{server.port}/v1#{MODEL}"
        index = Index.build(ROWS, tmp_path / "index", tower=url, **NAMED)
        assert index.search("mouse").degraded == ()
        server.replies = (partial(stranger, turn=3),)
        with pytest.raises(RankerError, match=f"is not {MODEL}, with which the index was built.*cosine of"):
            Index(tmp_path / "index", tower=url)
        found = index.search("mouse")  # of an index that was open before
        assert found.degraded == ("vectors",) and {hit.id for hit in found} == {"a0", "a1", "a2"}
        assert "without vectors" in repr(found)
        with pytest.raises(RankerError, match=f"is not {MODEL}"):
            index.add([{"id": "b0", "name": "pad", "description": "soft"}])
        assert main(["search", "--index", str(tmp_path / "index"), "mouse", "--tower", url]) == 1
        assert f"is not {MODEL}" in capsys.readouterr().err


def test_a_search_opens_without_the_service_and_a_build_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Server(stranger) as server:
        url = f"http://127.0.0.1:{server.port}"
        Index.build(ROWS, tmp_path / "index", tower=url, **NAMED)
    command = ["search", "--index", str(tmp_path / "index"), "mouse", "--format", "json"]
    assert main([*command, "--tower", url, "--ranker", f"{url}/rerank"]) == 0
    shown = capsys.readouterr()
    answer = json.loads(shown.out.splitlines()[-1])
    assert answer["degraded"] == ["vectors", "rank"] and len(answer["results"]) == 3
    assert "searches go on by words" in shown.err and "degraded" in shown.err
    with pytest.raises(RankerError, match="Connection refused"):
        Index.build(ROWS, tmp_path / "another", tower=url, **NAMED)
    assert not (tmp_path / "another").exists()


def test_a_ranker_of_a_stranger_is_given_what_it_takes(made: SimpleNamespace) -> None:
    def short(asked: dict[str, Any]) -> bytes:
        return http(b'{"error": "too long"}', 413) if max(map(len, asked["texts"])) > 100 else tei(asked)

    with Server(short) as server:
        hits = made.here.search("mouse keys", ranker=server.url, by="words")
        assert [hit.logit for hit in hits] == sorted((hit.logit for hit in hits), reverse=True)
        assert max(len(text) for text in server.bodies[-1]["texts"]) <= 100 and not hits.degraded
        assert {hit.logit for hit in hits} == {(len(text) - 10) / 8 for text in server.bodies[-1]["texts"]}


@pytest.mark.parametrize(
    "command, message",
    [
        (["--tower", "http://me:secret@host/v1#m"], "holds a user or a password"),
        (["--ranker", "http://me:secret@host/v1/rerank"], "holds a user or a password"),
        (["--tower", "https://host/v1?api_key=secret#m"], "PADDLE_RANKER_TOWER_KEY"),
        (["--tower", "checkpoint/tower"], "expected http://HOST/v1#MODEL"),
        (["--tower", "http://host:x/v1"], "--tower http://host:x/v1: "),
        (["--tower", "http://127.0.0.1:9/v1"], "has its own copy of its tower"),
        (["--ranker", "http://127.0.0.1:9/v1"], "shows no format: add one of /v2/rerank"),
        (["--ranker", "http://127.0.0.1:9/rerank#m"], "requests of Text Embeddings Inference name no model"),
        (["--ranker", "http://127.0.0.1:9/rerank", "--engine", "onnx"], "--engine is about a ranker that is opened"),
        (["--ranker", "ftp://host/rerank"], "ftp:// is not known"),
    ],
)
def test_wrong_urls_of_searches(
    made: SimpleNamespace, command: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["search", "--index", str(made.folder / "here"), "mouse", *command]) in (1, 2)
    shown = capsys.readouterr().err
    assert message in shown and "secret" not in shown


@pytest.mark.parametrize(
    "options, message",
    [
        ({"tower": "http://me:secret@host/v1#m"}, "holds a user or a password"),
        ({"tower": "http://host/v1#m", "passage_tokens": 64}, "are a tower's own tokens"),
        ({"query_prompt": "q: "}, "--query_prompt is about a tower behind a URL"),
        ({"tower": "http://127.0.0.1:9/v1", "field_tower": "x=http://127.0.0.1:9"}, "http"),
    ],
)
def test_wrong_options_of_builds(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        Index.build(ROWS, tmp_path / "index", **options, **NAMED)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "command, message",
    [
        (["serve", "--tower", "http://host/v1"], "--tower http://host/v1: is asked by searches of an index"),
        (["serve", "--model", "http://host/rerank"], "--ranker http://host/rerank: is asked by searches of an index"),
        (["search-serve", "--tower", "http://host/v1"], "leave out --tower http://host/v1"),
        (["search-serve", "--ranker", "http://a:secret@host/rerank"], "holds a user or a password"),
    ],
)
def test_wrong_urls_of_servers(
    made: SimpleNamespace, command: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    index = ["--index", str(made.folder / "here")] if command[0] == "search-serve" else []
    assert main([*command, *index, "--port", "0"]) in (1, 2)
    shown = capsys.readouterr().err
    assert message in shown and "secret" not in shown


def test_a_damaged_description_is_refused(tmp_path: Path) -> None:
    changes: list[tuple[Callable[[dict[str, Any]], Optional[dict[str, Any]]], str]] = [
        (lambda facts: None, "missing or damaged"),
        (lambda facts: {**facts, "size": 9}, "probes are not of 9 components"),
        (lambda facts: {**facts, "url": "http://elsewhere"}, "damaged"),
        (lambda facts: {**facts, "text_probe": []}, "damaged"),
    ]
    with Server(stranger) as server:
        url = f"http://127.0.0.1:{server.port}/v1"
        Index.build(ROWS, tmp_path / "index", tower=url, **NAMED).close()
        file = tmp_path / "index" / "tower_at_url" / "tower_at_url.json"
        facts = json.loads(file.read_text())
        for change, message in changes:
            wrong = change(dict(facts))
            file.unlink() if wrong is None else file.write_text(json.dumps(wrong))
            with pytest.raises(RankerError, match=message):
                Index(tmp_path / "index", tower=url)
