"""The clients against live servers: the same scores from each, errors that say what happened, retries that help."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Callable, Union
from urllib.parse import unquote

import numpy as np
import pytest

from paddle_ranker.__main__ import main
from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.errors import CheckpointError, UsageError
from paddle_ranker.export.static_graph import export_model
from paddle_ranker.metrics.calibration import sigmoid
from paddle_ranker.model.kinds import load_ranker
from paddle_ranker.retrieval.indexes import Document
from paddle_ranker.serving.clients import (
    BaiduStdClient,
    GrpcClient,
    HttpClient,
    PipelineClient,
    RerankClient,
    SearchClient,
)
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
from tests.conftest import REPOSITORY, Call, load_script
from tests.fake_service import logit_of, logits_of_tokens
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
        with pytest.raises(ValueError, match="1 queries and 2 titles"):
            client.score(["a"], ["b", "c"])


@pytest.mark.parametrize("name", GENERAL)
def test_tokens_are_those_of_the_folder(live: LiveService, folder: Path, name: str) -> None:
    pair_encoder = PairEncoder.from_folder(folder, 32)
    pairs = pair_encoder.encode(QUERIES, TITLES)
    expected = sigmoid(logits_of_tokens(*pairs.pad([0, 1, 2]).values()))
    with connect(live, name, model_dir=folder) as client:
        assert np.allclose(client.score(QUERIES, TITLES), expected, atol=1e-6)


def test_the_compressions_of_baidu_std(live: LiveService) -> None:
    for compression in ("gzip", "zlib"):
        with connect(live, "baidu_std", compression=compression) as client:
            assert client.score(["a"], ["b"]).tolist() == [0.5]


def test_folders_that_have_a_tokenizer(folder: Path, tmp_path: Path) -> None:
    assert load_pair_encoder(folder).max_seq_length == 32
    with pytest.raises(CheckpointError, match=r"has no ranker.json; --model_dir takes"):
        load_pair_encoder(tmp_path)


@pytest.mark.parametrize("name", ALL)
def test_what_the_server_refuses_is_an_error_at_once(live: LiveService, name: str) -> None:
    live.service.failure = Fault(UNPROCESSABLE, "is too long", field="title")
    with connect(live, name) as client:
        live.service.calls.clear()
        with pytest.raises(RefusedError, match=r"127.0.0.1:\d+: .*title: is too long"):
            client.score(["a"], ["b"])
        assert len(live.service.calls) == 1
        live.service.failure = None
        assert client.score(["a"], ["b"]).tolist() == [0.5]


@pytest.mark.parametrize("name", ALL)
def test_a_busy_server_is_asked_again(live: LiveService, name: str) -> None:
    live.service.failure = Fault(OVERLOADED, "the queue is full", retry_after=0.01)
    with connect(live, name, retries=1) as client:
        live.service.calls.clear()
        with pytest.raises(OverloadedError, match="the queue is full"):
            client.score(["a"], ["b"])
        assert len(live.service.calls) == 2


def test_a_server_that_asks_for_too_much_patience_is_not_waited_for(live: LiveService) -> None:
    live.service.failure = Fault(OVERLOADED, "come back tomorrow", retry_after=86400)
    with connect(live, "http", retries=5) as client:
        live.service.calls.clear()
        with pytest.raises(OverloadedError, match="tomorrow"):
            client.score(["a"], ["b"])
        assert len(live.service.calls) == 1


@pytest.mark.parametrize("name", ["baidu_std", "http", "grpc", "pipeline", "gateway", "rerank"])
def test_no_server_is_said(name: str) -> None:
    make = MAKERS.get(name, RerankClient)
    with socket.socket() as taken:  # bound and not listening: nobody else gets the port
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        client = make(port=port, timeout=SECONDS, retries=1)
        with client, pytest.raises(UnreachableError, match=rf"127.0.0.1:{port}: .*(refused|onnect)"):
            client.score(["a"], ["b"])


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


def test_a_connection_that_broke_is_made_anew(live: LiveService) -> None:
    with connect(live, "baidu_std") as client:
        assert client.score(["a"], ["b"]).tolist() == [0.5]
        assert client._socket is not None
        client._socket.shutdown(socket.SHUT_RDWR)
        assert client.score(["a"], ["b"]).tolist() == [0.5]


def test_the_key_is_shown() -> None:
    with LiveService(api_key="right") as guarded:
        for name in ("baidu_std", "grpc"):
            with connect(guarded, name, api_key="right") as client:
                assert client.score(["a"], ["b"]).tolist() == [0.5]
            with connect(guarded, name, api_key="wrong") as client, pytest.raises(RefusedError, match="key is wrong"):
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
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            asked.append((self.path, dict(self.headers), body))
            status, headers, content = make(body)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST

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
        client.batch_size = 2  # what the server takes of a request
        for top_k in (1, 2, 3, None):
            in_parts = client.rank("ab", ["a", "abcd", "深度学"], top_k)
            assert [(title.index, title.title) for title in in_parts] == [
                (1, "abcd"),
                (2, "深度学"),
                (0, "a"),
            ][:top_k]
        assert max(len(json.loads(body)["documents"]) for _, _, body in asked[2:]) == 2
        with pytest.raises(UsageError, match="top_k '3': must be a whole number from 1 on"):
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
    with answering(lambda body: (status, {"Location": "http://127.0.0.1:1/"}, content)) as (port, asked):
        with RerankClient(port=port, timeout=SECONDS, retries=1) as client, pytest.raises(error, match=words):
            client.rank("q", ["t"])
        assert len(asked) == (2 if error is OverloadedError else 1)


@pytest.fixture
def run(call: Call) -> Call:
    """What calls a script of `deploy/`; returns its status, output and errors."""
    return lambda script, *arguments: call(load_script(f"deploy/{script}").main, *arguments)


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
    live: LiveService, folder: Path, tmp_path: Path, run: Call,
    script: str, arguments: list[str], port: str, tokens: bool,
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
    arguments = ["--port", str(getattr(live, port)), *arguments, "--input_file", str(rows), "--batch_size", "2"]
    if script.startswith("cpp/rpc"):  # as its users start it; the others in this process
        done = run_script(f"deploy/{script}", *arguments, cwd=tmp_path)
        status, printed, errors = done.returncode, done.stdout, done.stderr
    else:
        status, printed, errors = run(script, *arguments)
    assert status == 0, errors
    timing, *lines = printed.splitlines()
    assert re.fullmatch(r"time to cost :\d+\.\d{4} seconds", timing)
    assert np.allclose([json.loads(line)[0] for line in lines], expected, atol=1e-6)
    assert lines == shown(np.array([json.loads(line)[0] for line in lines]))


def test_a_script_without_arguments_asks_what_the_tutorial_asks(live: LiveService, tmp_path: Path) -> None:
    found = run_script("deploy/python/rpc_client.py", "--port", live.grpc, cwd=tmp_path)
    expected = shown(sigmoid([logit_of(QUERY, TITLE)]).astype(np.float32))
    assert found.returncode == 0 and found.stdout.splitlines()[1:] == expected, found.stderr


@pytest.mark.parametrize(
    ("script", "arguments", "status", "words"),
    [
        ("cpp/http_client.py", ["--query", "a"], 2, "--query and --title belong together"),
        ("cpp/rpc_client.py", ["--model_dir", "."], 1, "has no ranker.json"),
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


@pytest.mark.parametrize("script", ["cpp/rpc_client.py", "cpp/http_client.py"])
def test_the_project_s_output_is_found_from_elsewhere(
    live: LiveService, serving_client: Path, script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    command = load_script(f"deploy/{script}")
    monkeypatch.setattr(command, "PROJECT", serving_client.parent)  # its `output` is what was exported
    monkeypatch.chdir(tmp_path)
    port = live.baidu_std if script.startswith("cpp/rpc") else live.http
    status, printed, errors = call(command.main, "--port", port, "--timeout", 60)
    assert status == 0 and printed.startswith("time to cost :")
    assert f"taking {serving_client.parent / 'output'}" in errors


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
    run: Call, folder: Path, script: str, arguments: list[str], start: str
) -> None:
    model = [] if script.startswith("python") else ["--model_dir", folder]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        status, _, errors = run(script, "--port", port, *model, *arguments, "--retries", 0)
    assert status == 1 and f"127.0.0.1:{port}: " in errors and errors.count("\n") == 1
    assert f"{start} starts one" in errors and f"serve --model FOLDER --port {port};" in errors and "--host" in errors
    assert (REPOSITORY / start).is_file()


def test_a_server_without_an_index_is_not_one_without_a_document() -> None:
    for kind in ("no_such_document", "not_found"):
        content = json.dumps({"error": "there is none", "error_type": kind}).encode()
        with answering(lambda _: (404, {}, content)) as (port, _), SearchClient(port=port) as client:  # noqa: B023
            if kind == "no_such_document":
                assert client.document("a") is None
            else:
                with pytest.raises(RefusedError, match="not_found"):
                    client.document("a")


def test_a_document_is_asked_for_at_its_own_address_whatever_its_id() -> None:
    content = json.dumps({"id": "b", "text": "t", "fields": {}, "version": 1}).encode()
    ids = [
        "..",
        ".",
        "a/../b",
        "a//b",
        "/",
        "?",
        "a?b#c",
        "%",
        "%2e%2e",
        " ",
        "+",
        "水稻",
        "\ud800",
        "\n",
        "\x00",
        "\\",
    ]
    with answering(lambda _: (200, {}, content)) as (port, asked), SearchClient(port=port) as client:
        assert client.document("b") == Document("b", "t")
        for id in ids:
            with pytest.raises(ServerError, match="answers with document 'b', not "):
                client.document(id)
    paths = [path.removeprefix("/v1/documents/") for path, _, _ in asked]
    assert [unquote(path, errors="surrogatepass") for path in paths] == ["b", *ids]


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
def test_rpc_with_a_serving_client_folder(live: LiveService, serving_client: Path, client: str, tmp_path: Path) -> None:
    if client == "native":
        pytest.importorskip("paddle_serving_client", reason="needs the complete stack (paddle-serving-client)")
    pairs = load_pair_encoder(serving_client).encode(QUERIES[:2], TITLES[:2])
    expected = sigmoid(logits_of_tokens(*pairs.pad([0, 1]).values()))
    rows = tmp_path / "rows.tsv"
    rows.write_text("".join(f"{query}\t{title}\n" for query, title in zip(QUERIES[:2], TITLES[:2])), encoding="utf-8")
    arguments = ["--port", live.baidu_std, "--input_file", rows, "--model_dir", serving_client, "--client", client]
    found = run_script(
        "deploy/cpp/rpc_client.py", *arguments, cwd=tmp_path
    )  # the native one needs a process of its own
    assert found.returncode == 0, found.stderr
    timing, *lines = found.stdout.splitlines()[-3:]
    assert timing.startswith("time to cost :")
    assert np.allclose([json.loads(line)[0] for line in lines], expected, atol=1e-6)


def test_the_native_client_without_a_server_is_an_error(serving_client: Path, tmp_path: Path) -> None:
    pytest.importorskip("paddle_serving_client", reason="needs the complete stack (paddle-serving-client)")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        model = ["--model_dir", serving_client, "--client", "native", "--retries", 1]
        found = run_script("deploy/cpp/rpc_client.py", "--port", taken.getsockname()[1], *model, cwd=tmp_path)
    assert found.returncode == 1 and "no scores; the native client" in found.stderr, found.stderr
    assert "deploy/cpp/start_server.sh starts one" in found.stderr
