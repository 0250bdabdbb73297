"""The clients against live servers: the same scores from each, errors that say what happened, retries that help."""

from __future__ import annotations

import importlib.util
import json
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Callable
from urllib.parse import unquote

import numpy as np
import pytest

from paddle_ranker.__main__ import main
from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.errors import UsageError
from paddle_ranker.metrics.calibration import sigmoid
from paddle_ranker.paddle_serving import baidu_std
from paddle_ranker.paddle_serving.clients import BaiduStdClient, GrpcClient, HttpClient, PipelineClient
from paddle_ranker.paddle_serving.clients.command import QUERY, TITLE
from paddle_ranker.paddle_serving.clients.scoring_client import load_pair_encoder
from paddle_ranker.paddle_serving.messages import messages
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.serving.clients import RerankClient, SearchClient
from paddle_ranker.serving.clients.client_errors import (
    LateError,
    OverloadedError,
    RefusedError,
    ServerError,
    UnreachableError,
)
from paddle_ranker.serving.core.faults import OVERLOADED, UNPROCESSABLE, Fault
from tests.conftest import REPOSITORY, Call, commands_here, load_script
from tests.export_cases import Exports
from tests.fake_service import logit_of, logits_of_tokens
from tests.fake_teacher import Server, answered, http
from tests.live_service import SECONDS, LiveService
from tests.started import run_script
from tests.tiny import write_ranker

pytestmark = pytest.mark.server
QUERIES = ["深度", "abc", "深度"]
TITLES = ["深度学习", "x", ""]
Maker = Callable[..., Any]


@pytest.fixture(scope="module")
def live() -> Iterator[LiveService]:
    with LiveService(api_key=None) as server:
        yield server


@pytest.fixture(autouse=True)
def as_new(live: LiveService) -> Iterator[None]:
    yield
    live.service.failure = None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ranker(tmp_path_factory.mktemp("ranker") / "ranker")


MAKERS: dict[str, Maker] = {
    "baidu_std": BaiduStdClient,
    "http": HttpClient,
    "proto": partial(HttpClient, proto=True, gzip=True),
    "grpc": GrpcClient,
    "pipeline": PipelineClient,
    "gateway": partial(PipelineClient, protocol="http"),
}
ALL, GENERAL = list(MAKERS), list(MAKERS)[:4]


def connect(live: LiveService, name: str, timeout: float = SECONDS, **options: Any) -> Any:
    """Return a client of that name of the live server."""
    port = live.baidu_std if name == "baidu_std" else live.grpc if name in ("grpc", "pipeline") else live.http
    return MAKERS[name](port=port, timeout=timeout, **options)


@pytest.mark.parametrize("name", ALL)
def test_texts_are_scored_in_their_order_in_several_requests(live: LiveService, name: str) -> None:
    expected = sigmoid([logit_of(query, title) for query, title in zip(QUERIES, TITLES)])
    with connect(live, name, batch_size=2) as client:
        live.service.calls.clear()
        assert np.allclose(client.score(QUERIES, TITLES), expected, atol=1e-6)
        assert live.service.calls == [2, 1]
        assert client.score([], []).shape == (0,)
        with pytest.raises(UsageError, match="1 queries and 2 titles"):
            client.score(["a"], ["b", "c"])


@pytest.mark.parametrize("name", GENERAL)
def test_tokens_are_those_of_the_folder(live: LiveService, folder: Path, name: str) -> None:
    pairs = PairEncoder.from_folder(folder, 32).encode(QUERIES, TITLES)
    expected = sigmoid(logits_of_tokens(*pairs.pad([0, 1, 2]).values()))
    with connect(live, name, model_dir=folder) as client:
        assert np.allclose(client.score(QUERIES, TITLES), expected, atol=1e-6)


REFUSALS: list[tuple[Fault, type[ServerError], str, int]] = [  # the fault, the error, and how often is asked
    (Fault(UNPROCESSABLE, "is too long", field="title"), RefusedError, "title: is too long", 1),
    (Fault(OVERLOADED, "the queue is full", retry_after=0.01), OverloadedError, "the queue is full", 2),
    (Fault(OVERLOADED, "come back tomorrow", retry_after=86400), OverloadedError, "tomorrow", 1),
]


@pytest.mark.parametrize("name", ALL)
def test_what_is_refused_is_an_error_and_a_busy_server_is_asked_again(live: LiveService, name: str) -> None:
    with connect(live, name, retries=1) as client:
        for fault, error, words, asked in REFUSALS:
            if "tomorrow" in words and name in ("baidu_std", "pipeline", "gateway"):
                continue  # these protocols have no room for the seconds
            live.service.failure = fault
            live.service.calls.clear()
            with pytest.raises(error, match=rf"127.0.0.1:\d+: .*{words}"):
                client.score(["a"], ["b"])
            assert len(live.service.calls) == asked
        live.service.failure = None
        assert client.score(["a"], ["b"]).tolist() == [0.5]


@pytest.mark.parametrize("name", [*ALL, "rerank"])
def test_no_server_is_said(name: str) -> None:
    with unused_port() as port:
        client = MAKERS.get(name, RerankClient)(port=port, timeout=SECONDS, retries=1)
        with client, pytest.raises(UnreachableError, match=rf"127.0.0.1:{port}: .*(refused|onnect)"):
            client.score(["a"], ["b"])


@contextmanager
def unused_port() -> Iterator[int]:
    """Bind a port and do not listen: nobody else gets it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.mark.parametrize("name", ALL)
def test_a_client_may_wait_longer_than_a_request_may_say(live: LiveService, name: str) -> None:
    for seconds in (2 * 3600.0, 3e6):  # of which the milliseconds fit no int32
        with connect(live, name, timeout=seconds, retries=0) as client:
            assert client.score(["a"], ["b"]).shape == (1,)


@pytest.mark.parametrize("name", ALL)
def test_no_answer_in_time_is_said_and_not_asked_again(live: LiveService, name: str) -> None:
    live.hold()
    try:
        late = connect(live, name, timeout=0.1, retries=5)
        live.service.calls.clear()
        with late, pytest.raises(LateError):
            late.score(["a"], ["b"])
        assert len(live.service.calls) <= 1  # none if the request was late before it was read
    finally:
        live.release()


def test_baidu_std_packs_shows_its_key_and_connects_anew() -> None:
    with LiveService(api_key="right") as guarded:
        for compression in ("gzip", "zlib"):
            with connect(guarded, "baidu_std", compression=compression, api_key="right") as client:
                assert client.score(["a"], ["b"]).tolist() == [0.5]
                assert client._socket is not None
                client._socket.shutdown(socket.SHUT_RDWR)
                assert client.score(["a"], ["b"]).tolist() == [0.5]
        for name in ("baidu_std", "grpc"):
            with connect(guarded, name, api_key="wrong") as client, pytest.raises(RefusedError, match="key is wrong"):
                client.score(["a"], ["b"])


class Sending(Server):
    """Server that sends bytes to whoever says something."""

    def __init__(self, data: bytes):
        self._data = data
        super().__init__()

    def _serve(self, connection: socket.socket) -> None:
        connection.recv(1 << 16)
        connection.sendall(self._data)


def good_response(count: int) -> Any:
    response = messages().Response()
    response.outputs.add().tensor.add(elem_type=1, float_data=[0.5] * count)
    return response


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak baidu_std"),
        (baidu_std.reply(1, b"\xff"), "not a baidu"),
        (baidu_std.reply(2, b""), "answers request 2, not 1"),
        (baidu_std.reply(1, good_response(2).SerializeToString()), "2 probabilities came for 1 pairs"),
        (baidu_std.reply(1, b""), "0 tensors came"),
        (baidu_std.reply(1, messages().Response(err_no=5, err_msg="no").SerializeToString()), "error 5: no"),
        (b"PRPC\xff\xff\xff\xff\x00\x00\x00\x00", "announces an answer of 4,294,967,295 bytes"),
        (b"PRPC\x00", "the server closed the connection"),
    ],
)
def test_answers_that_are_none(answer: bytes, words: str) -> None:
    with Sending(answer) as server:
        client = BaiduStdClient(port=server.port, timeout=SECONDS, retries=0)
        with client, pytest.raises(ServerError, match=words):
            client.score(["a"], ["b"])


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("__import__('os').abort()", "no list of numbers"),
        ("[[0.5], [0.5]]", "2 probabilities came for 1 pairs"),
        ("{}", "no list of numbers"),
    ],
)
def test_nothing_that_a_pipeline_sends_is_evaluated(value: str, words: str) -> None:
    with Server(lambda asked: answered({"err_no": 0, "key": ["predict"], "value": [value]})) as server:
        client = PipelineClient(port=server.port, protocol="http", timeout=SECONDS)
        with client, pytest.raises(ServerError, match=words):
            client.score(["a"], ["b"])


def reranked(asked: dict[str, Any]) -> bytes:
    scores = [logit_of(asked["query"], text) for text in asked["documents"]]
    order = sorted(range(len(scores)), key=lambda index: -scores[index])[: asked.get("top_n", len(scores))]
    results = [{"index": index, "relevance_score": scores[index]} for index in order]
    return answered({"results": results})


def test_reranking() -> None:
    with Server(reranked) as server, RerankClient(port=server.port, timeout=SECONDS, api_key="k") as client:
        ranked = client.rank("ab", ["a", "abcd", "深度学"], top_k=2)
        assert [(title.index, title.title, title.probability) for title in ranked] == [
            (1, "abcd", 0.25),
            (2, "深度学", 0.125),
        ]
        assert server.heads[0].startswith("POST /v1/rerank ") and "\r\nAuthorization: Bearer k\r\n" in server.heads[0]
        assert client.score("ab", ["a", "abcd", "深度学"]).tolist() == [-0.125, 0.25, 0.125]
        assert client.rank("ab", []) == []
        client.batch_size = 2  # what the server takes of a request
        for top_k in (1, 2, 3, None):
            in_parts = client.rank("ab", ["a", "abcd", "深度学"], top_k)
            assert [(title.index, title.title) for title in in_parts] == [
                (1, "abcd"),
                (2, "深度学"),
                (0, "a"),
            ][:top_k]
        assert max(len(body["documents"]) for body in server.bodies[2:]) == 2
        with pytest.raises(UsageError, match="top_k: is '3', expected a whole number"):
            client.rank("ab", ["a"], top_k="3")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "content", "error", "words"),
    [
        (200, b"<html>", ServerError, "is no rerank server"),
        (200, b'{"results": [{"index": 7, "relevance_score": 1}]}', ServerError, "is no rerank server"),
        (200, b'{"results": []}', ServerError, "0 results came, expected 1"),
        (422, b'{"detail": "too long"}', RefusedError, "status 422: .*too long"),
        (302, b"elsewhere", RefusedError, "status 302"),
        (503, b"later", OverloadedError, "status 503: later"),
    ],
)
def test_rerank_servers_that_fail(status: int, content: bytes, error: type[Exception], words: str) -> None:
    with Server(lambda asked: http(content, status, location="http://127.0.0.1:1/")) as server:
        with RerankClient(port=server.port, timeout=SECONDS, retries=1) as client, pytest.raises(error, match=words):
            client.rank("q", ["t"])
        assert len(server.bodies) == (2 if error is OverloadedError else 1)


@pytest.fixture
def run(call: Call) -> Call:
    """What calls a script of `deploy/`; returns its status, output and errors."""
    return lambda script, *arguments: call(load_script(f"deploy/{script}").main, *arguments)


def shown(probabilities: np.ndarray) -> list[str]:
    return [f"[{np.float32(probability)!s}]" for probability in probabilities]


SCRIPTS = [  # a script, its arguments, the port it asks, whether it sends tokens, and what starts a server
    ("cpp/rpc_client.py", ["--client", "own"], "baidu_std", True, "deploy/cpp/start_server.sh"),
    ("cpp/http_client.py", [], "http", True, "deploy/cpp/start_server.sh"),
    ("cpp/http_client.py", ["--proto", "--gzip"], "http", True, "deploy/cpp/start_server.sh"),
    ("python/rpc_client.py", [], "grpc", False, "deploy/python/web_service.py"),
    ("python/rpc_client.py", ["--protocol", "http"], "http", False, "deploy/python/web_service.py"),
]


@pytest.mark.parametrize(("script", "arguments", "port", "tokens", "start"), SCRIPTS)
def test_the_scripts_print_the_contract_s_lines_and_say_how_a_server_starts(
    live: LiveService, folder: Path, tmp_path: Path, run: Call,
    script: str, arguments: list[str], port: str, tokens: bool, start: str,
) -> None:  # fmt: skip
    rows = tmp_path / "pairs.tsv"
    rows.write_text("深度\t深度学习\nabc\tx\n深度\t教育\n", encoding="utf-8")
    queries, titles = ["深度", "abc", "深度"], ["深度学习", "x", "教育"]
    expected = sigmoid([logit_of(query, title) for query, title in zip(queries, titles)])
    if tokens:
        arguments = ["--model_dir", str(folder), *arguments]
        pairs = PairEncoder.from_folder(folder, 32).encode(queries, titles)
        batches = [pairs.pad([0, 1]).values(), pairs.pad([2]).values()]
        expected = sigmoid(np.concatenate([logits_of_tokens(*batch) for batch in batches]))
    given = [*arguments, "--input_file", rows, "--batch_size", 2]
    status, printed, errors = run(script, "--port", getattr(live, port), *given)
    assert status == 0, errors
    timing, *lines = printed.splitlines()
    assert re.fullmatch(r"time to cost :\d+\.\d{4} seconds", timing)
    assert np.allclose([json.loads(line)[0] for line in lines], expected, atol=1e-6)
    assert lines == shown(np.array([json.loads(line)[0] for line in lines]))
    with unused_port() as nobody:
        status, _, errors = run(script, "--port", nobody, *arguments, "--retries", 0)
    assert status == 1 and f"127.0.0.1:{nobody}: " in errors and errors.count("\n") == 1
    assert f"{start} starts one" in errors and f"serve --model FOLDER --port {nobody};" in errors
    assert (REPOSITORY / start).is_file()


@pytest.mark.parametrize(
    ("script", "arguments", "status", "words"),
    [
        ("cpp/http_client.py", ["--query", "a"], 2, "--query and --title belong together"),
        ("cpp/rpc_client.py", ["--model_dir", "."], 1, "is an empty folder, not a ranker"),
        ("cpp/rpc_client.py", ["--client", "native", "--model_dir", "."], 2, "give --model_dir serving_client"),
        ("python/rpc_client.py", ["--service", "ernie", "--input_file", "no"], 1, "no"),
    ],
)
def test_scripts_say_what_went_wrong_in_a_line(
    run: Call,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    arguments: list[str],
    status: int,
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    found, _, errors = run(script, *arguments)
    assert found == status and words in errors and errors.count("\n") == 1


def test_a_server_without_an_index_is_not_one_without_a_document() -> None:
    errors = [{"error": "there is none", "error_type": kind} for kind in ("no_such_document", "not_found")]
    replies = [partial(lambda error, asked: http(json.dumps(error).encode(), 404), error) for error in errors]
    with Server(*replies) as server, SearchClient(port=server.port) as client:
        assert client.document("a") is None
        with pytest.raises(RefusedError, match="not_found"):
            client.document("a")


IDS = [
    "..", ".", "a/../b", "a//b", "/", "?", "a?b#c", "%", "%2e%2e", " ", "+", "水稻", "\ud800", "\n", "\x00", "\\"
]  # fmt: skip


def test_a_document_is_asked_for_at_its_own_address_whatever_its_id() -> None:
    document = {"id": "b", "text": "t", "fields": {}, "version": 1}
    with Server(lambda asked: answered(document)) as server, SearchClient(port=server.port) as client:
        assert client.document("b") == Document("b", "t")
        for id in IDS:
            with pytest.raises(ServerError, match="answers with document 'b', not "):
                client.document(id)
    paths = [head.split(" ", 2)[1].removeprefix("/v1/documents/") for head in server.heads]
    assert [unquote(path, errors="surrogatepass") for path in paths] == ["b", *IDS]


@pytest.fixture(scope="module")
def serving_client(exports: Exports, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("serving")
    exports.copy("calibrated", target / "output")
    with commands_here():
        paths = ["--server_path", str(target / "server"), "--client_path", str(target / "client")]
        assert main(["export-serving", "--dirname", str(target / "output"), *paths]) == 0
    return target / "client"


def test_rpc_with_a_serving_client_folder(
    live: LiveService, serving_client: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    pairs = load_pair_encoder(serving_client).encode([QUERY], [TITLE])
    expected = sigmoid(logits_of_tokens(*pairs.pad([0]).values()))
    line = ["--port", live.baidu_std, "--model_dir", serving_client]
    command = load_script("deploy/cpp/rpc_client.py")
    printed = [call(command.main, *line, "--client", client)[1] for client in ("auto", "own")]
    monkeypatch.setattr(command, "PROJECT", serving_client.parent)  # its `output` is what was exported
    monkeypatch.chdir(tmp_path)
    printed.append(call(command.main, *line[:2])[1])
    for text in printed:
        timing, line_of_scores = text.splitlines()
        assert timing.startswith("time to cost :")
        assert np.allclose(json.loads(line_of_scores), expected, atol=1e-6)


def test_the_native_client_runs_in_a_process_of_its_own(
    live: LiveService, serving_client: Path, tmp_path: Path
) -> None:
    if importlib.util.find_spec("paddle_serving_client") is None:  # importing it takes over signals and logs
        pytest.skip("needs the complete stack (paddle-serving-client)")
    model = ["--model_dir", serving_client, "--client", "native", "--retries", 1]
    found = run_script("deploy/cpp/rpc_client.py", "--port", live.baidu_std, *model, cwd=tmp_path)
    assert found.returncode == 0 and found.stdout.splitlines()[-2].startswith("time to cost :"), found.stderr
    with unused_port() as port:
        found = run_script("deploy/cpp/rpc_client.py", "--port", port, *model, cwd=tmp_path)
    assert found.returncode == 1 and "no scores; the native client" in found.stderr, found.stderr
    assert "deploy/cpp/start_server.sh starts one" in found.stderr
