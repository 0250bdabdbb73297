"""The clients against live servers: the same scores from each, errors that say what happened, retries that help."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Callable, Union

import numpy as np
import pytest

from paddle_ranker.__main__ import main
from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.errors import CheckpointError
from paddle_ranker.export.static_graph import export_model
from paddle_ranker.metrics.calibration import sigmoid
from paddle_ranker.model.kinds import load_ranker
from paddle_ranker.serving.clients import BaiduStdClient, GrpcClient, HttpClient, PipelineClient, RerankClient
from paddle_ranker.serving.clients.base import load_pair_encoder
from paddle_ranker.serving.clients.command import QUERY, TITLE
from paddle_ranker.serving.clients.errors import (
    LateError,
    OverloadedError,
    RefusedError,
    ServerError,
    UnreachableError,
)
from paddle_ranker.serving.core.faults import OVERLOADED, UNPROCESSABLE, Fault
from paddle_ranker.serving.paddle import baidu_std
from paddle_ranker.serving.paddle.messages import messages
from tests.conftest import REPOSITORY, load_script
from tests.fake_service import logit_of, logits_of_tokens
from tests.live_service import SECONDS, LiveService
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


def make_baidu(live: LiveService, **options: Any) -> BaiduStdClient:
    return BaiduStdClient(port=live.baidu_std, timeout=SECONDS, **options)


def make_http(live: LiveService, **options: Any) -> HttpClient:
    return HttpClient(port=live.http, timeout=SECONDS, **options)


def make_proto(live: LiveService, **options: Any) -> HttpClient:
    return HttpClient(port=live.http, timeout=SECONDS, proto=True, gzip=True, **options)


def make_grpc(live: LiveService, **options: Any) -> GrpcClient:
    return GrpcClient(port=live.grpc, timeout=SECONDS, **options)


def make_pipeline(live: LiveService, **options: Any) -> PipelineClient:
    return PipelineClient(port=live.grpc, timeout=SECONDS, **options)


def make_gateway(live: LiveService, **options: Any) -> PipelineClient:
    return PipelineClient(port=live.http, timeout=SECONDS, protocol="http", **options)


GENERAL: list[Maker] = [make_baidu, make_http, make_proto, make_grpc]
ALL: list[Maker] = [*GENERAL, make_pipeline, make_gateway]


@pytest.mark.parametrize("make", ALL)
def test_texts_are_scored_in_their_order_in_several_requests(live: LiveService, make: Maker) -> None:
    expected = sigmoid([logit_of(query, title) for query, title in zip(QUERIES, TITLES)])
    with make(live, batch_size=2) as client:
        live.service.calls.clear()
        assert np.allclose(client.score(QUERIES, TITLES), expected, atol=1e-6)
        assert live.service.calls == [2, 1]
        assert client.score([], []).shape == (0,)
        with pytest.raises(ValueError, match="1 queries and 2 titles"):
            client.score(["a"], ["b", "c"])


@pytest.mark.parametrize("make", GENERAL)
def test_tokens_are_those_of_the_folder(live: LiveService, folder: Path, make: Maker) -> None:
    pair_encoder = PairEncoder.from_folder(folder, 32)
    pairs = pair_encoder.encode(QUERIES, TITLES)
    expected = sigmoid(logits_of_tokens(*pairs.pad([0, 1, 2]).values()))
    with make(live, model_dir=folder) as client:
        assert np.allclose(client.score(QUERIES, TITLES), expected, atol=1e-6)


def test_the_compressions_of_baidu_std(live: LiveService) -> None:
    for compression in ("gzip", "zlib"):
        with make_baidu(live, compression=compression) as client:
            assert client.score(["a"], ["b"]).tolist() == [0.5]


def test_folders_that_have_a_tokenizer(folder: Path, tmp_path: Path) -> None:
    assert load_pair_encoder(folder).max_seq_length == 32
    with pytest.raises(CheckpointError, match=r"has no ranker.json; --model_dir takes"):
        load_pair_encoder(tmp_path)


@pytest.mark.parametrize("make", ALL)
def test_what_the_server_refuses_is_an_error_at_once(live: LiveService, make: Maker) -> None:
    live.service.failure = Fault(UNPROCESSABLE, "is too long", field="title")
    with make(live) as client:
        live.service.calls.clear()
        with pytest.raises(RefusedError, match=r"127.0.0.1:\d+: .*title: is too long"):
            client.score(["a"], ["b"])
        assert len(live.service.calls) == 1
        live.service.failure = None
        assert client.score(["a"], ["b"]).tolist() == [0.5]


@pytest.mark.parametrize("make", ALL)
def test_a_busy_server_is_asked_again(live: LiveService, make: Maker) -> None:
    live.service.failure = Fault(OVERLOADED, "the queue is full", retry_after=0.01)
    with make(live, retries=1) as client:
        live.service.calls.clear()
        with pytest.raises(OverloadedError, match="the queue is full"):
            client.score(["a"], ["b"])
        assert len(live.service.calls) == 2


def test_a_server_that_asks_for_too_much_patience_is_not_waited_for(live: LiveService) -> None:
    live.service.failure = Fault(OVERLOADED, "come back tomorrow", retry_after=86400)
    with make_http(live, retries=5) as client:
        live.service.calls.clear()
        with pytest.raises(OverloadedError, match="tomorrow"):
            client.score(["a"], ["b"])
        assert len(live.service.calls) == 1


@pytest.mark.parametrize(
    "client_class", [BaiduStdClient, HttpClient, GrpcClient, PipelineClient, "gateway", RerankClient]
)
def test_no_server_is_said(client_class: Any) -> None:
    with socket.socket() as taken:  # bound and not listening: nobody else gets the port
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        options: dict[str, Any] = {"port": port, "timeout": SECONDS, "retries": 1}
        if client_class == "gateway":
            client: Any = PipelineClient(protocol="http", **options)
        else:
            client = client_class(**options)
        with client, pytest.raises(UnreachableError, match=rf"127.0.0.1:{port}: .*(refused|onnect)"):
            client.score(["a"], ["b"])


@pytest.mark.parametrize("make", ALL)
def test_no_answer_in_time_is_said_and_not_asked_again(live: LiveService, make: Maker) -> None:
    live.hold()
    try:
        client = make(live, retries=5)
        client.close()
        options = {"protocol": "http"} if make is make_gateway else {}
        late = type(client)(port=client.port, timeout=0.1, retries=5, **options)
        live.service.calls.clear()
        with late, pytest.raises(LateError):
            late.score(["a"], ["b"])
        assert len(live.service.calls) == 1
    finally:
        live.release()


def test_a_connection_that_broke_is_made_anew(live: LiveService) -> None:
    with make_baidu(live) as client:
        assert client.score(["a"], ["b"]).tolist() == [0.5]
        assert client._socket is not None
        client._socket.shutdown(socket.SHUT_RDWR)
        assert client.score(["a"], ["b"]).tolist() == [0.5]


def test_the_key_is_shown() -> None:
    with LiveService(api_key="right") as guarded:
        for make in (make_baidu, make_grpc):
            with make(guarded, api_key="right") as client:
                assert client.score(["a"], ["b"]).tolist() == [0.5]
            with make(guarded, api_key="wrong") as client, pytest.raises(RefusedError, match="key is wrong"):
                client.score(["a"], ["b"])


@contextmanager
def answering(
    answers: Union[bytes, Callable[[bytes], tuple[int, dict[str, str], bytes]]],
) -> Iterator[tuple[int, list]]:
    """Yield a port: of plain TCP that sends `answers`, or of HTTP that sends what `answers` makes of a body."""
    asked: list[Any] = []
    if isinstance(answers, bytes):
        with socket.create_server(("127.0.0.1", 0)) as server:

            def serve() -> None:
                connection, _ = server.accept()
                with connection:
                    asked.append(connection.recv(1 << 16))
                    connection.sendall(answers)

            thread = threading.Thread(target=serve, daemon=True)
            thread.start()
            yield server.getsockname()[1], asked
            thread.join(SECONDS)
        return
    make = answers

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            asked.append((self.path, dict(self.headers), body))
            status, headers, content = make(body)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield http.server_address[1], asked
    finally:
        http.shutdown()
        thread.join(SECONDS)
        http.server_close()


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
    with answering(answer) as (port, _):
        client = BaiduStdClient(port=port, timeout=SECONDS, retries=0)
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
    content = json.dumps({"err_no": 0, "key": ["predict"], "value": [value]}).encode()
    with answering(lambda body: (200, {}, content)) as (port, _):
        client = PipelineClient(port=port, protocol="http", timeout=SECONDS)
        with client, pytest.raises(ServerError, match=words):
            client.score(["a"], ["b"])


def reranked(body: bytes) -> tuple[int, dict[str, str], bytes]:
    asked = json.loads(body)
    scores = [logit_of(asked["query"], text) for text in asked["documents"]]
    order = sorted(range(len(scores)), key=lambda index: -scores[index])[: asked.get("top_n", len(scores))]
    results = [{"index": index, "relevance_score": scores[index]} for index in order]
    return 200, {}, json.dumps({"results": results}).encode()


def test_reranking() -> None:
    with answering(reranked) as (port, asked), RerankClient(port=port, timeout=SECONDS, api_key="k") as client:
        ranked = client.rank("ab", ["a", "abcd", "深度学"], top_k=2)
        assert [(title.index, title.title, title.probability) for title in ranked] == [
            (1, "abcd", 0.25),
            (2, "深度学", 0.125),
        ]
        path, headers, _ = asked[0]
        assert path == "/v1/rerank" and headers["Authorization"] == "Bearer k"
        assert client.score("ab", ["a", "abcd", "深度学"]).tolist() == [-0.125, 0.25, 0.125]
        assert client.rank("ab", []) == []


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
    with answering(lambda body: (status, {"Location": "http://127.0.0.1:1/"}, content)) as (port, asked):
        with RerankClient(port=port, timeout=SECONDS, retries=1) as client, pytest.raises(error, match=words):
            client.rank("q", ["t"])
        assert len(asked) == (2 if error is OverloadedError else 1)


def run(script: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "deploy" / script), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=180,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
    )


def shown(probabilities: np.ndarray) -> list[str]:
    return [f"[{np.float32(probability)!s}]" for probability in probabilities]


@pytest.mark.parametrize(
    ("script", "arguments", "port", "tokens"),
    [
        ("cpp/rpc_client.py", ["--client", "own"], "baidu_std", True),
        ("cpp/http_client.py", [], "http", True),
        ("cpp/http_client.py", ["--proto", "--gzip"], "http", True),
        ("python/rpc_client.py", [], "grpc", False),
        ("python/rpc_client.py", ["--protocol", "http"], "http", False),
    ],
)
def test_the_scripts_print_the_contract_s_lines(
    live: LiveService, folder: Path, tmp_path: Path, script: str, arguments: list[str], port: str, tokens: bool
) -> None:
    rows = tmp_path / "pairs.tsv"
    rows.write_text("深度\t深度学习\nabc\tx\n深度\t教育\n", encoding="utf-8")
    queries, titles = ["深度", "abc", "深度"], ["深度学习", "x", "教育"]
    model = ["--model_dir", folder] if tokens else []
    if tokens:
        pair_encoder = PairEncoder.from_folder(folder, 32)
        pairs = pair_encoder.encode(queries, titles)
        batches = [pairs.pad([0, 1]).values(), pairs.pad([2]).values()]
        expected = sigmoid(np.concatenate([logits_of_tokens(*batch) for batch in batches]))
    else:
        expected = sigmoid([logit_of(query, title) for query, title in zip(queries, titles)])
    found = run(script, "--port", getattr(live, port), *model, *arguments, "--input_file", rows, "--batch_size", 2)
    assert found.returncode == 0, found.stderr
    timing, *lines = found.stdout.splitlines()
    assert re.fullmatch(r"time to cost :\d+\.\d{4} seconds", timing)
    assert np.allclose([json.loads(line)[0] for line in lines], expected, atol=1e-6)
    assert lines == shown(np.array([json.loads(line)[0] for line in lines]))


def test_a_script_without_arguments_asks_what_the_tutorial_asks(live: LiveService) -> None:
    found = run("python/rpc_client.py", "--port", live.grpc)
    expected = shown(sigmoid([logit_of(QUERY, TITLE)]).astype(np.float32))
    assert found.returncode == 0 and found.stdout.splitlines()[1:] == expected, found.stderr


def test_scripts_say_what_went_wrong_in_a_line(live: LiveService, tmp_path: Path) -> None:
    for script, arguments, status, words in (
        ("cpp/http_client.py", ["--query", "a"], 2, "--query and --title belong together"),
        ("cpp/rpc_client.py", ["--model_dir", tmp_path], 1, "has no ranker.json"),
        ("cpp/rpc_client.py", ["--client", "native", "--model_dir", tmp_path], 2, "give --model_dir serving_client"),
        ("python/rpc_client.py", ["--port", live.grpc, "--service", "ernie", "--input_file", "no"], 1, "no"),
    ):
        found = run(script, *arguments)
        assert found.returncode == status and words in found.stderr and "Traceback" not in found.stderr, found.stderr


@pytest.mark.parametrize("script", ["cpp/rpc_client.py", "cpp/http_client.py"])
def test_the_project_s_output_is_found_from_elsewhere(
    live: LiveService,
    serving_client: Path,
    script: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = load_script(f"deploy/{script}")
    monkeypatch.setattr(command, "PROJECT", serving_client.parent)  # its `output` is what was exported
    monkeypatch.chdir(tmp_path)
    port = live.baidu_std if script.startswith("cpp/rpc") else live.http
    assert command.main(["--port", str(port), "--timeout", "60"]) == 0
    found = capsys.readouterr()
    assert found.out.startswith("time to cost :") and f"taking {serving_client.parent / 'output'}" in found.err


@pytest.mark.parametrize(
    ("script", "arguments", "start"),
    [
        ("cpp/rpc_client.py", ["--client", "own"], "deploy/cpp/start_server.sh"),
        ("cpp/http_client.py", [], "deploy/cpp/start_server.sh"),
        ("python/rpc_client.py", [], "deploy/python/web_service.py"),
        ("python/rpc_client.py", ["--protocol", "http"], "deploy/python/web_service.py"),
    ],
)
def test_scripts_without_a_server_say_how_to_start_one(
    folder: Path, script: str, arguments: list[str], start: str
) -> None:
    model = [] if script.startswith("python") else ["--model_dir", folder]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        found = run(script, "--port", port, *model, *arguments, "--retries", 0)
    assert found.returncode == 1 and f"127.0.0.1:{port}: " in found.stderr
    assert f"{start} starts one" in found.stderr and f"serve --model FOLDER --port {port};" in found.stderr
    assert "--host" in found.stderr and len(found.stderr.strip().splitlines()) == 1
    assert (REPOSITORY / start).is_file()


@pytest.fixture(scope="module")
def serving_client(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("serving")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("paddle_ranker.runtime.prepare_command", lambda threads: None)
        export_model(load_ranker(folder), target / "output")
        paths = ["--server_path", str(target / "server"), "--client_path", str(target / "client")]
        assert main(["export-serving", "--dirname", str(target / "output"), *paths]) == 0
    return target / "client"


@pytest.mark.parametrize("client", ["auto", "own", "native"])
def test_rpc_with_a_serving_client_folder(live: LiveService, serving_client: Path, client: str) -> None:
    if client == "native" and importlib.util.find_spec("paddle_serving_client") is None:
        pytest.skip("needs the complete stack (paddle-serving-client)")
    pair_encoder = load_pair_encoder(serving_client)
    pairs = pair_encoder.encode(QUERIES[:2], TITLES[:2])
    expected = sigmoid(logits_of_tokens(*pairs.pad([0, 1]).values()))
    rows = serving_client.parent / "rows.tsv"
    rows.write_text("".join(f"{query}\t{title}\n" for query, title in zip(QUERIES[:2], TITLES[:2])), encoding="utf-8")
    model = ["--model_dir", serving_client, "--client", client]
    found = run("cpp/rpc_client.py", "--port", live.baidu_std, "--input_file", rows, *model)
    assert found.returncode == 0, found.stderr
    timing, *lines = found.stdout.splitlines()[-3:]
    assert timing.startswith("time to cost :")
    assert np.allclose([json.loads(line)[0] for line in lines], expected, atol=1e-6)


def test_the_native_client_without_a_server_is_an_error(serving_client: Path) -> None:
    if importlib.util.find_spec("paddle_serving_client") is None:
        pytest.skip("needs the complete stack (paddle-serving-client)")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        model = ["--model_dir", serving_client, "--client", "native", "--retries", 1]
        found = run("cpp/rpc_client.py", "--port", taken.getsockname()[1], *model)
    assert found.returncode == 1 and "no scores; what the native client says" in found.stderr, found.stderr
    assert "deploy/cpp/start_server.sh starts one" in found.stderr
