"""The server as it is started: one port for all protocols, its limits against slow and many clients, its signals."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import requests

from paddle_ranker.__main__ import main
from paddle_ranker.errors import UsageError
from paddle_ranker.paddle_serving.clients import BaiduStdClient, GrpcClient, HttpClient, PipelineClient
from paddle_ranker.scoring.ranker import Ranker
from paddle_ranker.serving.clients import RerankClient
from paddle_ranker.serving.core.limits import API_KEY_VARIABLE
from paddle_ranker.serving.core.server_config import ServeConfig
from paddle_ranker.serving.process import server as server_process
from paddle_ranker.serving.process import worker
from paddle_ranker.serving.process.supervisor import _Supervisor
from tests.conftest import REPOSITORY, Call
from tests.export_cases import write_case
from tests.started import Started, children, get, is_open, is_running, started, started_server, until, until_in_loop
from tests.tiny import PAIRS

pytestmark = pytest.mark.server
SECONDS = 120  # for what takes some seconds, on a machine that has much else to do
QUERIES, TITLES = [query for query, _ in PAIRS], [title for _, title in PAIRS]
KEY = "a-key"
HELD = "held"  # a file in a server's folder: while it is there, nothing is computed


class Server:
    """A server that runs."""

    def __init__(self, command: Started, ports: list[int]):
        self.command, self.ports = command, ports
        self.port, self.http_port = ports[0], ports[-1]  # of every protocol; of HTTP alone, where there is one

    @property
    def pid(self) -> int:
        return self.command.process.pid

    def logged(self, event: str) -> list[dict[str, Any]]:
        lines = [line for line in self.command.output.splitlines() if line.startswith("{")]
        return [fields for fields in map(json.loads, lines) if fields["event"] == event]

    def figure(self, name: str) -> float:
        """Return the sum of a figure's lines, 0 where there are none."""
        text = get(self.port, "/metrics")[1]
        return sum(float(line.split()[-1]) for line in str(text).splitlines() if line.startswith(name))

    def connect(self, data: bytes = b"", port: str = "port") -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", getattr(self, port)), timeout=SECONDS)
        connection.sendall(data)
        return connection

    def post(self, body: Any, path: str = "/v1/rerank", port: str = "port", key: str = KEY) -> requests.Response:
        url, headers = f"http://127.0.0.1:{getattr(self, port)}{path}", {"X-API-Key": key, "X-Request-Id": "mine"}
        return requests.post(url, json=body, headers=headers, timeout=SECONDS)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Let the engine compute nothing until the block ends."""
        file = self.command.folder / HELD
        file.touch()
        try:
            yield
        finally:
            file.unlink()

    def scores(self, port: str = "port") -> list[float]:
        answer = self.post({"query": QUERIES[0], "documents": TITLES}, port=port)
        answer.raise_for_status()
        by_index = sorted(answer.json()["results"], key=lambda result: result["index"])
        return [result["relevance_score"] for result in by_index]


@contextlib.contextmanager
def serving(model: Path, folder: Path, *options: str, **more: str) -> Iterator[Server]:
    environment = {"PADDLE_RANKER_PLUGINS": "tests.held_engine", "HELD": str(folder / HELD), API_KEY_VARIABLE: KEY}
    with started_server(model, folder, *options, **environment, **more) as found:
        yield Server(*found)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_case(tmp_path_factory.mktemp("models") / "ranker")


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(model, tmp_path_factory.mktemp("server") / "run", "--http_port", "0") as one:
        yield one


def many() -> bytes:
    """Return a request of more pairs than a batch has."""
    body = json.dumps({"query": "学", "documents": ["深度学习研究"] * 1000, "top_n": 1}).encode()
    head = f"POST /v1/rerank HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def read_all(connection: socket.socket) -> bytes:
    """Read until the other side closes."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def test_one_port_speaks_every_protocol_with_the_scores_of_the_ranker(server: Server, model: Path) -> None:
    ranker = Ranker.load(model)
    wanted = ranker.score(QUERIES, TITLES)
    where: dict[str, Any] = {"host": "127.0.0.1", "port": server.port, "timeout": SECONDS, "api_key": KEY}
    for make in (BaiduStdClient, HttpClient, GrpcClient):
        ways: tuple[dict[str, Any], ...] = ({}, {"model_dir": str(model)})
        for sends in ways:  # texts, or tokens
            with make(**where, **sends) as client:
                np.testing.assert_allclose(client.score(QUERIES, TITLES), wanted, atol=1e-5, err_msg=make.__name__)
    with PipelineClient(**where) as client:
        np.testing.assert_allclose(client.score(QUERIES, TITLES), wanted, atol=1e-5)
    found = RerankClient(**where).rank(QUERIES[0], TITLES)
    best = ranker.rank(QUERIES[0], TITLES)
    assert [title.index for title in found] == [title.index for title in best]
    np.testing.assert_allclose([t.probability for t in found], [t.probability for t in best], atol=1e-5)
    figures = str(get(server.port, "/metrics")[1])
    for protocol in ("baidu_std", "brpc_http", "grpc", "rerank"):
        assert f'ranker_requests_total{{outcome="ok",protocol="{protocol}"}}' in figures


def table(page: str, head: str) -> list[list[str]]:
    """Return the rows of a table in `docs/`, by the beginning of its first line."""
    text = (REPOSITORY / "docs" / page).read_text(encoding="utf-8")
    lines = text[text.index(f"\n| {head}") + 1 :].split("\n\n")[0].splitlines()[2:]
    return [line.strip("| ").split(" | ") for line in lines]


def test_the_log_has_the_fields_of_its_table(model: Path, tmp_path: Path) -> None:
    named = {name: of for names, of, _ in table("operation.md", "field | of") for name in re.findall(r"`(\w+)`", names)}
    with serving(model, tmp_path / "run", "--log_texts", "true") as server:
        trace = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "X-API-Key": KEY}
        body = json.dumps({"query": "a", "documents": TITLES})
        sent = requests.post(f"http://127.0.0.1:{server.port}/v1/rerank", data=body, headers=trace, timeout=SECONDS)
        where: dict[str, Any] = {"host": "127.0.0.1", "port": server.port, "timeout": SECONDS, "api_key": KEY}
        for make in (BaiduStdClient, GrpcClient):
            with make(**where) as client:
                client.score(QUERIES, TITLES)
        for refused in (b"no HTTP\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 101 + b"\r\n"):
            with server.connect(refused) as connection:
                read_all(connection)
        until(lambda: len(server.logged("request")) == 5)
        rerank, baidu_std, grpc, invalid, large = server.logged("request")
        assert {*rerank} == {*named} - {"stages"} and {"stages"} == {one for one in named if named[one] == "searches"}
        of_all = {name for name, of in named.items() if of not in ("HTTP", "searches")}
        assert {*baidu_std} == of_all and {*grpc} == of_all - {"client"}
        assert (rerank["request_bytes"], rerank["answer_bytes"]) == (len(body), int(sent.headers["content-length"]))
        assert (rerank["traceparent"], rerank["client"], rerank["outcome"]) == (trace["traceparent"], "127.0.0.1", "ok")
        for line, status, outcome in ((invalid, 400, "invalid_request"), (large, 431, "too_large")):
            assert {*line} <= {*named} and (line["protocol"], line["status"], line["outcome"]) == (
                "http",
                status,
                outcome,
            )
            assert server.figure(f'ranker_requests_total{{outcome="{outcome}",protocol="http"}}') == 1


def test_the_limits_of_the_table_are_those_of_the_server(server: Server) -> None:
    limits = requests.get(f"http://127.0.0.1:{server.port}/info", headers={"X-API-Key": KEY}, timeout=SECONDS).json()
    found: dict[str, float] = {}
    for cell, default, _ in table("serving.md", "limit | default"):
        names = [name for name in re.findall(r"--(\w+)", cell) if name in limits["limits"]]
        for name, number, unit in zip(names, *zip(*re.findall(r"(\d{1,3}(?:,\d{3})+|\d+)( MiB)?", default))):
            found[name] = float(number.replace(",", "")) * (2**20 if unit else 1)
    assert found == limits["limits"]


SIGNALS = {
    "SIGTERM, SIGINT, SIGQUIT": (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT),
    "the same again": (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT),
    "SIGHUP": (signal.SIGHUP,),
    "SIGUSR1, SIGUSR2, SIGALRM": (signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM),
    "SIGKILL to a worker": (signal.SIGKILL,),
}


def test_signals_have_the_effects_of_their_table(model: Path, tmp_path: Path) -> None:
    effects = {row[0]: row[1] for row in table("operation.md", "signal | effect")}
    assert effects.keys() == SIGNALS.keys()
    with serving(model, tmp_path / "run", "--workers", "2") as server:
        for number in SIGNALS["SIGUSR1, SIGUSR2, SIGALRM"]:
            for pid in (server.pid, *children(server.pid)):
                os.kill(pid, number)
        os.kill(server.pid, signal.SIGHUP)
        until(lambda: [line["status"] for line in server.logged("reload")] == ["switched"] * 2)
        (killed, *_) = children(server.pid)
        os.kill(killed, signal.SIGKILL)
        until(lambda: len(children(server.pid)) == 2 and killed not in children(server.pid))
        assert server.scores()
    again = [int(status) for status in re.findall(r"\d+", effects["the same again"])]
    for number, status in zip(SIGNALS["the same again"], again):
        assert status == 128 + number
        for workers in ("1", "2"):
            folder = tmp_path / f"{number.name}-{workers}"
            with serving(model, folder, "--workers", workers) as server, server.held(), server.connect(many()) as busy:
                until(lambda: server.figure("ranker_queue_pairs") > 0)
                os.kill(server.pid, number)
                # The parent's sockets are closed at once, too: nobody waits in the queue of a port that none takes.
                until(lambda: not is_open(server.port))
                os.kill(server.pid, number)
                assert server.command.process.wait(SECONDS) == status
                assert b"results" not in read_all(busy)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_server_that_is_about_to_stop_is_not_ready_and_answers(model: Path, tmp_path: Path, workers: str) -> None:
    """Before, idle connections end in time. It inherits another program's folder of metrics, which is not there."""
    body, idle = {"query": QUERIES[0], "documents": TITLES}, b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n"
    options = ("--workers", workers, "--stop_after_seconds", "5", "--keep_alive_seconds", "1")
    with serving(model, tmp_path / "run", *options, PROMETHEUS_MULTIPROC_DIR=str(tmp_path / "missing")) as server:
        with server.connect(idle) as connection:
            began = time.monotonic()
            assert b"200 OK" in read_all(connection) and 0.5 < time.monotonic() - began < 60
        assert server.post(body).headers.get("connection") != "close"
        os.kill(server.pid, signal.SIGTERM)
        until(lambda: server.post(body).headers.get("connection") == "close")
        assert get(server.port, "/ready")[0] == 503 and server.scores()
        until(lambda: not is_open(server.port))
        assert server.command.process.wait(SECONDS) == 0


def test_the_port_of_http_alone_answers_alike_and_asks_for_the_key(server: Server) -> None:
    assert f"http://127.0.0.1:{server.http_port} (HTTP)\n" in server.command.output
    answers = [server.post({"query": "a", "documents": TITLES}, port=port) for port in ("port", "http_port")]
    assert [answer.status_code for answer in answers] == [200, 200] and answers[0].json() == answers[1].json()
    assert [answer.headers["x-request-id"] for answer in answers] == ["mine", "mine"]
    for path in ("/v1/rerank", "/GeneralModelService/inference", "/admin/reload"):
        assert server.post({}, path, "http_port", key="wrong").status_code == 401


@pytest.mark.parametrize(
    ("port", "sent"), [("port", b"\x16\x03\x01\x02\x00 this is TLS\r\n\r\n"), ("http_port", b"PRPC\0\0\0\0\r\n\r\n")]
)
def test_what_is_no_protocol_of_a_port_is_refused(server: Server, port: str, sent: bytes) -> None:
    with server.connect(sent, port) as connection:
        assert read_all(connection).startswith(b"HTTP/1.1 400 ")
    server.scores()


def test_a_port_that_is_taken_is_an_error(server: Server, model: Path, call: Call) -> None:
    status, _, errors = call(main, "serve", "--model", model, "--port", server.port)
    assert status == 1 and f"127.0.0.1:{server.port}: another program listens there already" in errors


def test_a_folder_without_a_ranker_is_an_error(tmp_path: Path, call: Call) -> None:
    (tmp_path / "empty").mkdir()
    command = [sys.executable, "-m", "paddle_ranker", "serve", "--port", "0", "--workers", "2", "--model"]
    with started([*command, str(tmp_path / "empty")], tmp_path / "run", PYTHONPATH=str(REPOSITORY)) as process:
        assert process.process.wait(SECONDS) == 1
        assert str(tmp_path / "empty") in process.output and "serving " not in process.output
    for folder, status in (("empty", 1), ("none", 2)):
        assert call(main, "serve", "--port", 0, "--model", tmp_path / folder)[0] == status


def test_a_signal_lets_the_requests_in_flight_finish_and_ends_all_workers(model: Path, tmp_path: Path) -> None:
    with serving(model, tmp_path / "run", "--workers", "2", "--http_port", "0") as server:
        workers = children(server.pid)
        with server.connect() as idle, contextlib.ExitStack() as stack:
            with server.held():
                busy = [stack.enter_context(server.connect(many(), port)) for port in ("port", "http_port")]
                until(lambda: server.figure("ranker_queue_pairs") > 900)  # of both, beside those in the first batches
                os.kill(server.pid, signal.SIGTERM)
                until(lambda: server.logged("stop"))
            for answer in map(read_all, busy):
                assert answer.startswith(b"HTTP/1.1 200 ") and json.loads(answer.partition(b"\r\n\r\n")[2])["results"]
            assert read_all(idle) == b""
            assert server.command.process.wait(SECONDS) == 0
            with pytest.raises(ConnectionRefusedError):
                server.connect()
        assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def replace(target: Path, source: Path) -> None:
    shutil.rmtree(target)
    shutil.copytree(source, target)


def test_a_new_model_is_taken_without_losing_a_request_a_broken_one_not_and_two_signals_end_all(
    model: Path, tmp_path: Path
) -> None:
    other = write_case(tmp_path / "other", seed=8)
    served = tmp_path / "served"
    shutil.copytree(model, served)
    old, new = (Ranker.load(folder).score([QUERIES[0]] * len(TITLES), TITLES) for folder in (model, other))
    assert np.abs(old - new).max() > 1e-3
    failures, asked, done = list[object](), [0], threading.Event()

    def ask(server: Server) -> None:
        while not done.is_set():
            try:
                found = np.array(server.scores())
            except OSError as error:
                failures.append(error)
                continue
            if min(np.abs(found - old).max(), np.abs(found - new).max()) > 1e-5:
                failures.append(found)
            asked[0] += 1

    def reload(server: Server) -> tuple[int, Any]:
        answer = server.post(None, "/admin/reload")
        return answer.status_code, answer.json()

    with serving(served, tmp_path / "run") as server:
        clients = [threading.Thread(target=ask, args=(server,)) for _ in range(4)]
        for client in clients:
            client.start()
        try:
            until(lambda: asked[0] > 20)
            replace(served, other)
            os.kill(server.pid, signal.SIGHUP)
            until(lambda: [line["status"] for line in server.logged("reload")] == ["switched"])
            (served / "vocab.txt").write_text("broken", encoding="utf-8")
            status, answer = reload(server)
            assert (status, answer["error_type"]) == (409, "not_switched")
            assert "the old model goes on" in answer["error"]
            (served / "vocab.txt").unlink()
            os.mkfifo(served / "vocab.txt")  # nobody writes into it: a reader would wait for ever
            status, answer = reload(server)
            assert status == 409 and "vocab.txt: is no regular file" in answer["error"]
            replace(served, model)
            status, answer = reload(server)
            assert (status, answer["status"]) == (200, "switched")
            before = asked[0]
            until(lambda: asked[0] > before + 20)
        finally:  # clients left behind would go on against a server that is gone, and fill the memory
            done.set()
            for client in clients:
                client.join(SECONDS)
        assert failures == []
        # A model that was loaded since has not taken the signals, and a second one ends the server at once.
        with server.held(), server.connect(many()) as busy:
            until(lambda: server.figure("ranker_queue_pairs") > 0)
            os.kill(server.pid, signal.SIGTERM)
            until(lambda: server.logged("stop"))
            os.kill(server.pid, signal.SIGTERM)
            assert server.command.process.wait(SECONDS) == 128 + signal.SIGTERM
            assert b"results" not in read_all(busy)


@pytest.fixture(scope="module")
def two_workers(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(model, tmp_path_factory.mktemp("workers") / "run", "--workers", "2") as one:
        yield one


def test_workers_share_the_port_and_their_figures(two_workers: Server) -> None:
    until(lambda: len(children(two_workers.pid)) == 2)
    two_workers.scores()
    for _ in range(20):
        assert two_workers.post({"query": 7}).status_code == 422
    # The other worker may be asked for the figures before the one that answered last has counted.
    until(lambda: two_workers.figure('ranker_requests_total{outcome="unprocessable",protocol="rerank"}') == 20)


def test_what_is_open_in_a_worker_is_seen_by_who_asks_another_one(two_workers: Server) -> None:
    until(lambda: len(children(two_workers.pid)) == 2)
    by_worker: dict[str, list[http.client.HTTPConnection]] = {}
    with contextlib.ExitStack() as opened:

        def ask(connection: http.client.HTTPConnection, path: str) -> tuple[str, str]:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.headers["x-request-id"].partition("-")[0], answer.read().decode()

        def both_have_some() -> bool:
            connection = http.client.HTTPConnection("127.0.0.1", two_workers.port, timeout=SECONDS)
            opened.callback(connection.close)
            by_worker.setdefault(ask(connection, "/live")[0], []).append(connection)
            return len(by_worker) == 2 and min(map(len, by_worker.values())) > 2

        until(both_have_some)
        asked = next(iter(by_worker.values()))[0]  # as Prometheus does, which keeps its connection to one worker

        def are_seen() -> bool:
            return f"\nranker_connections {sum(map(len, by_worker.values()))}.0\n" in ask(asked, "/metrics")[1]

        until(are_seen)
        for connection in by_worker.popitem()[1]:
            connection.close()
        until(are_seen)


def test_a_worker_that_is_killed_is_started_anew(two_workers: Server) -> None:
    until(lambda: len(children(two_workers.pid)) == 2)
    before = children(two_workers.pid)
    os.kill(min(before), signal.SIGKILL)
    two_workers.scores()  # the other one answers
    seen = set(before)  # of many looks, since one that is taken while processes end may miss one

    def is_started_anew() -> bool:
        seen.update(children(two_workers.pid))
        return seen > before

    until(is_started_anew)
    (new,) = seen - before
    os.kill(max(before), signal.SIGKILL)
    assert two_workers.scores()  # by the new one, when it is ready
    assert new in children(two_workers.pid)


def test_a_worker_that_dies_is_replaced_though_the_temporary_folder_is_gone(two_workers: Server) -> None:
    until(lambda: len(children(two_workers.pid)) == 2)
    before = min(children(two_workers.pid))
    (counted,) = re.findall(r"\S+/gauge_livesum_\d+\.db", Path(f"/proc/{before}/maps").read_text(encoding="utf-8"))
    folder = Path(counted).parent
    shutil.rmtree(folder)  # as what clears /tmp of old files does
    status, figures = get(two_workers.port, "/metrics")
    assert status == 200 and "\nranker_connections " in str(figures)  # its own, which it has yet
    os.kill(before, signal.SIGKILL)
    until(lambda: before not in children(two_workers.pid) and any(folder.glob("gauge_livesum_*.db")))
    until(lambda: len(children(two_workers.pid)) == 2)
    two_workers.scores()
    assert "\nranker_connections " in str(get(two_workers.port, "/metrics")[1])


def test_a_signal_to_reload_reaches_every_worker(two_workers: Server) -> None:
    until(lambda: len(children(two_workers.pid)) == 2)

    def reloaded() -> bool:
        os.kill(two_workers.pid, signal.SIGHUP)  # again: a worker that starts at the moment is left out
        time.sleep(0.5)
        return len([line for line in two_workers.logged("reload") if line["status"] == "switched"]) >= 2

    until(reloaded)
    two_workers.scores()


def test_workers_end_when_the_one_that_started_them_is_killed(model: Path, tmp_path: Path) -> None:
    with serving(model, tmp_path / "run", "--workers", "2") as server:
        workers = children(server.pid)
        server.command.process.kill()
        server.command.process.wait(SECONDS)
        until(lambda: not any(is_running(pid) for pid in workers))


def test_a_worker_that_does_not_end_is_killed(model: Path, tmp_path: Path) -> None:
    options = ("--workers", "2", "--drain_seconds", "0")
    with serving(model, tmp_path / "run", *options, GRACE="1") as server:
        workers = children(server.pid)
        os.kill(min(workers), signal.SIGSTOP)  # it hangs
        server.command.process.terminate()
        assert server.command.process.wait(SECONDS) == 0
        assert not any(is_running(pid) for pid in workers)


SLOW_TO_BEGIN = """
import os, time
from pathlib import Path

real = os.kill

def kill(pid, number):
    real(pid, number)
    Path(f"signalled-{pid}").touch()

def wait():
    Path("begun").touch()
    while not Path(f"signalled-{os.getpid()}").exists():
        time.sleep(0.01)

os.kill = kill
os.register_at_fork(after_in_child=wait)
"""


def test_a_worker_that_is_told_to_stop_before_it_has_begun_stops(model: Path, tmp_path: Path) -> None:
    (tmp_path / "slow_to_begin.py").write_text(SLOW_TO_BEGIN, encoding="utf-8")
    command = [sys.executable, "-m", "paddle_ranker", "serve", "--model", str(model), "--port", "0", "--workers", "2"]
    paths = f"{tmp_path}{os.pathsep}{REPOSITORY}"
    folder = tmp_path / "run"
    with started(command, folder, PYTHONPATH=paths, PADDLE_RANKER_PLUGINS="slow_to_begin") as server:
        server.until((folder / "begun").exists)
        server.process.terminate()
        assert server.process.wait(SECONDS) == 0
        assert "did not end in time" not in server.output


@pytest.mark.unit
def test_freed_memory_goes_back_to_the_system_again_and_again_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []
    monkeypatch.setattr(worker, "_TRIM_SECONDS", 0.0)
    monkeypatch.setattr(worker, "trim_memory", lambda: threads.append(threading.current_thread()))

    async def returned() -> None:
        returning = asyncio.ensure_future(worker.return_freed_memory())
        await until_in_loop(lambda: len(threads) > 1)
        returning.cancel()

    asyncio.run(returned())
    assert threading.main_thread() not in threads


class _Workers:
    """A supervisor of two workers that tests play: `links` are their ends, `sent` the signals that they got."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.sent: list[tuple[int, int]] = []
        monkeypatch.setattr(os, "kill", lambda pid, number: self.sent.append((pid, number)))
        self.supervisor, self.links = _Supervisor(ServeConfig(workers=2), [], MagicMock()), []
        for slot, pid in zip(self.supervisor._slots, (11, 12)):
            slot.pid = pid
            slot.link, theirs = socket.socketpair()
            slot.link.setblocking(False)
            self.links.append(theirs)

    def say(self, number: int, **message: object) -> None:
        self.links[number].sendall(json.dumps(message).encode() + b"\n")
        self.supervisor._receive(self.supervisor._slots[number])
        self.supervisor._agree()

    def heard(self, number: int) -> list[Any]:
        return [json.loads(line) for line in self.links[number].recv(10_000).splitlines()]

    def reloads(self) -> list[int]:
        """Return the workers that were told to reload since the last call."""
        told, self.sent = [pid for pid, number in self.sent if number == signal.SIGHUP], []
        return told

    def end(self) -> None:
        for slot, link in zip(self.supervisor._slots, self.links):
            slot.end()
            link.close()
        os.close(self.supervisor._wake)
        os.close(self.supervisor._wake_end)


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Workers]:
    made = _Workers(monkeypatch)
    yield made
    made.end()


@pytest.mark.unit
def test_a_worker_that_was_not_ready_for_a_signal_gets_it_later(workers: _Workers) -> None:
    workers.say(0, digest="a")
    workers.supervisor._received.append(signal.SIGHUP)
    workers.supervisor._pass_on_signals()
    assert workers.reloads() == [11]
    workers.say(1, digest="a")
    assert workers.reloads() == [12]


@pytest.mark.unit
def test_workers_agree_on_one_digest_and_report_what_a_reload_came_to(workers: _Workers) -> None:
    workers.say(0, digest="a")
    workers.say(1, digest="a")
    assert not workers.reloads() and workers.heard(0) == workers.heard(1) == [{"all_ready": True}]
    workers.say(1, reload=True)
    assert workers.reloads() == [11, 12]
    workers.say(0, digest="b")
    workers.say(1, failed="no memory")  # it goes on with what it had
    assert workers.heard(1) == [{"outcomes": [{"digest": "b"}, {"failed": "no memory"}]}]
    assert workers.reloads() == [11, 12]  # since they differ
    workers.say(0, digest="b")
    workers.say(1, digest="b")
    assert not workers.reloads()
    workers.supervisor._slots[0].digest = None  # its successor loads what is at the path now
    workers.say(0, digest="c")
    assert workers.reloads() == [11, 12]


@pytest.mark.unit
def test_a_worker_that_gives_no_sign_of_life_is_killed(workers: _Workers) -> None:
    workers.say(0)
    workers.supervisor._kill_silent()
    assert not workers.sent
    workers.supervisor._slots[0].heard -= 1000
    workers.supervisor._kill_silent()
    assert workers.sent == [(11, signal.SIGKILL)]


@pytest.mark.thorough(keep=2)
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM])
def test_signals_during_the_start_end_nothing(model: Path, tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "paddle_ranker", "serve", "--model", str(model), "--port", "0"]
    with started(command, tmp_path / "run") as server:
        status = Path(f"/proc/{server.process.pid}/status")
        ignored = sum(1 << one - 1 for one in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM))

        def are_ignored() -> bool:
            (mask,) = re.findall(r"SigIgn:\s*(\w+)", status.read_text(encoding="utf-8"))
            return int(mask, 16) & ignored == ignored

        until(are_ignored)  # within the first tenth of a second, before anything large is imported
        server.process.send_signal(number)
        server.until(lambda: "serving" in server.output)
        server.process.send_signal(signal.SIGQUIT)
        assert server.process.wait(SECONDS) == 0


@pytest.mark.unit
@pytest.mark.parametrize(("limit", "most"), [((256, 256), 42), ((256, 100_000), 2048), ((1024, 1024), 298)])
def test_connections_are_as_many_as_the_system_allows_files(
    limit: tuple[int, int], most: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(server_process.resource, "getrlimit", lambda which: limit)
    monkeypatch.setattr(server_process.resource, "setrlimit", lambda which, limits: None)
    assert server_process.fit_connections(ServeConfig()).connections == most
    assert (f"takes {most} connections and not --connections 2,048" in capsys.readouterr().err) == (most < 2048)


@pytest.mark.unit
def test_an_address_may_have_the_brackets_of_a_url() -> None:
    assert ServeConfig(host="[::1]").is_loopback and not ServeConfig(host="[::]").is_loopback
    assert ServeConfig(host="[::]").is_own_host("fd00::1") and not ServeConfig(host="[::1]").is_own_host("fd00::1")
    if Path("/proc/net/if_inet6").is_file():
        for listener in server_process.listen(ServeConfig(host="[::]", port=0)):
            with listener, socket.create_connection(("127.0.0.1", listener.getsockname()[1]), SECONDS):
                assert listener.getsockname()[0] == "::"


@pytest.mark.unit
@pytest.mark.parametrize("more", [{"port": 8080}, {"more_ports": (8080,)}])
def test_a_port_is_for_one_of_the_two(more: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="--http_port 8080: --port or --more_ports has it already"):
        ServeConfig(http_port=8080, **more)
