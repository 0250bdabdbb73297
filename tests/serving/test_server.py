"""The server as it is started: one port for all protocols, its limits against slow and many clients, its signals."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import http.client
import json
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Optional
from unittest.mock import MagicMock

import numpy as np
import pytest

from paddle_ranker.errors import CheckpointError
from paddle_ranker.scoring.ranker import Ranker
from paddle_ranker.serving.clients import BaiduStdClient, GrpcClient, HttpClient, PipelineClient, RerankClient
from paddle_ranker.serving.core.config import ServeConfig
from paddle_ranker.serving.core.limits import API_KEY_VARIABLE
from paddle_ranker.serving.core.reload import Reloadable, Reloader
from paddle_ranker.serving.process import worker
from paddle_ranker.serving.process.supervisor import _Supervisor
from tests.conftest import REPOSITORY
from tests.export_cases import write_case
from tests.started import Started, children, get, is_running, post, started, started_server, until, until_in_loop
from tests.tiny import PAIRS

pytestmark = pytest.mark.server
SECONDS = 120  # for what takes some seconds, on a machine that has much else to do
QUERIES, TITLES = [query for query, _ in PAIRS], [title for _, title in PAIRS]
MANY = 20_000  # pairs of a request that is not answered at once
LARGE = ("--pairs", str(MANY), "--queue_pairs", str(2 * MANY))
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

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Let the engine compute nothing until the block ends."""
        file = self.command.folder / HELD
        file.touch()
        try:
            yield
        finally:
            file.unlink()

    def scores(self, port: Optional[int] = None) -> list[float]:
        status, answer = post(port or self.port, "/v1/rerank", {"query": QUERIES[0], "documents": TITLES})
        assert status == 200, answer
        by_index = sorted(answer["results"], key=lambda result: result["index"])
        return [result["relevance_score"] for result in by_index]


@contextlib.contextmanager
def serving(model: Path, folder: Path, *options: str, key: Optional[str] = None) -> Iterator[Server]:
    environment = {"PADDLE_RANKER_PLUGINS": "tests.held_engine", "HELD": str(folder / HELD)}
    with started_server(model, folder, *options, **environment, **({API_KEY_VARIABLE: key} if key else {})) as found:
        yield Server(*found)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_case(tmp_path_factory.mktemp("models") / "ranker")


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    options = ["--request_bytes", "2000000"]
    with serving(model, tmp_path_factory.mktemp("server") / "run", "--http_port", "0", *options, *LARGE) as one:
        yield one


Connect = Callable[..., socket.socket]


@pytest.fixture(params=["port", "http_port"])
def connect(server: Server, request: pytest.FixtureRequest) -> Connect:
    """Return what connects to either port of the server: HTTP has the same limits on both."""
    return functools.partial(server.connect, port=request.param)


def many(count: int = MANY) -> bytes:
    """Return a request of so many pairs, more than a batch has."""
    body = json.dumps({"query": "学", "documents": ["深度学习研究"] * count, "top_n": 1}).encode()
    return b"POST /v1/rerank HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body


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
    where: dict[str, Any] = {"host": "127.0.0.1", "port": server.port, "timeout": SECONDS}
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


def test_what_is_no_protocol_is_refused(server: Server) -> None:
    with server.connect(b"\x16\x03\x01\x02\x00 this is TLS\r\n\r\n") as connection:
        assert read_all(connection).startswith(b"HTTP/1.1 400 ")
    server.scores()


def test_a_body_above_the_limit_is_refused_before_it_is_sent(connect: Connect) -> None:
    with connect(b"POST /v1/rerank HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n") as connection:
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_a_client_that_leaves_frees_its_work(server: Server, connect: Connect) -> None:
    cancelled = 'ranker_requests_total{outcome="cancelled",protocol="rerank"}'
    before, cancelled_before = server.figure("ranker_pairs_total"), server.figure(cancelled)
    with server.held():
        with connect(many()):
            until(lambda: server.figure("ranker_queue_pairs") > 0)
        until(lambda: server.figure(cancelled) - cancelled_before == 1)
    until(lambda: server.figure("ranker_queue_pairs") == 0)
    assert server.figure("ranker_pairs_total") - before < MANY


def test_a_port_that_is_taken_is_an_error(server: Server, model: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "paddle_ranker", "serve", "--model", str(model), "--port", str(server.port)]
    with started(command, tmp_path / "run", PYTHONPATH=str(REPOSITORY)) as process:
        assert process.process.wait(SECONDS) == 1
        assert f"127.0.0.1:{server.port}: another program listens there already" in process.output


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_folder_without_a_ranker_is_an_error(tmp_path: Path, workers: str) -> None:
    (tmp_path / "empty").mkdir()
    command = [sys.executable, "-m", "paddle_ranker", "serve", "--port", "0", "--workers", workers, "--model"]
    with started([*command, str(tmp_path / "empty")], tmp_path / "run", PYTHONPATH=str(REPOSITORY)) as process:
        assert process.process.wait(SECONDS) == 1
        assert str(tmp_path / "empty") in process.output
        assert "serving " not in process.output
    with started([*command, str(tmp_path / "none")], tmp_path / "again", PYTHONPATH=str(REPOSITORY)) as process:
        assert process.process.wait(SECONDS) == 2


def require_answer_before_the_end(server: Server, connect: Connect) -> None:
    """Stop a server while it has a request in flight, which must be answered first."""
    with connect() as busy, connect() as idle:
        with server.held():
            busy.sendall(many(1000))
            until(lambda: server.figure("ranker_queue_pairs") > 0)
            os.kill(server.pid, signal.SIGTERM)
            until(lambda: server.logged("stop"))
        answer = read_all(busy)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["results"]
        assert read_all(idle) == b""
        assert server.command.process.wait(SECONDS) == 0
        with pytest.raises(ConnectionRefusedError):
            connect()


def test_a_signal_lets_the_request_in_flight_finish(model: Path, tmp_path: Path) -> None:
    with serving(model, tmp_path / "run") as server:
        require_answer_before_the_end(server, server.connect)


def test_a_second_signal_ends_the_server_at_once(model: Path, tmp_path: Path) -> None:
    with serving(model, tmp_path / "run") as server, server.held(), server.connect(many(1000)) as busy:
        until(lambda: server.figure("ranker_queue_pairs") > 0)
        os.kill(server.pid, signal.SIGTERM)
        until(lambda: server.logged("stop"))
        os.kill(server.pid, signal.SIGTERM)
        assert server.command.process.wait(SECONDS) == 128 + signal.SIGTERM
        assert b"results" not in read_all(busy)


def replace(target: Path, source: Path) -> None:
    shutil.rmtree(target)
    shutil.copytree(source, target)


def test_a_new_model_is_taken_without_losing_a_request_and_a_broken_one_is_not(model: Path, tmp_path: Path) -> None:
    other = write_case(tmp_path / "other", seed=8)
    served = tmp_path / "served"
    shutil.copytree(model, served)
    old, new = (Ranker.load(folder).score([QUERIES[0]] * len(TITLES), TITLES) for folder in (model, other))
    assert np.abs(old - new).max() > 1e-3
    failures: list[object] = []
    asked = [0]
    done = threading.Event()

    def ask(server: Server) -> None:
        while not done.is_set():
            request = urllib.request.Request(
                f"http://127.0.0.1:{server.port}/v1/rerank",
                json.dumps({"query": QUERIES[0], "documents": TITLES}).encode(),
                {"X-API-Key": KEY},
            )
            try:
                results = json.loads(urllib.request.urlopen(request, timeout=SECONDS).read())["results"]
            except OSError as error:
                failures.append(error)
                continue
            found = np.array([r["relevance_score"] for r in sorted(results, key=lambda result: result["index"])])
            if min(np.abs(found - old).max(), np.abs(found - new).max()) > 1e-5:
                failures.append(found)
            asked[0] += 1

    def reload(server: Server) -> tuple[int, Any]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{server.port}/admin/reload", b"", {"Authorization": f"Bearer {KEY}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    with serving(served, tmp_path / "run", key=KEY) as server:
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
        os.kill(server.pid, signal.SIGTERM)  # a model that was loaded since has not taken the signals
        assert server.command.process.wait(SECONDS) == 0


@pytest.fixture(scope="module")
def two_workers(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(model, tmp_path_factory.mktemp("workers") / "run", "--workers", "2", "--http_port", "0") as one:
        yield one


def test_workers_share_the_port_and_their_figures(two_workers: Server) -> None:
    until(lambda: len(children(two_workers.pid)) == 2)
    two_workers.scores()
    for _ in range(20):
        assert post(two_workers.port, "/v1/rerank", {"query": 7})[0] == 422
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
    until(lambda: len(children(two_workers.pid)) == 2 and min(before) not in children(two_workers.pid))
    (new,) = children(two_workers.pid) - before
    os.kill(max(before), signal.SIGKILL)
    for port in (two_workers.port, two_workers.http_port):  # by the new one, when it is ready
        assert two_workers.scores(port)
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


def test_a_signal_ends_all_workers(model: Path, tmp_path: Path) -> None:
    with serving(model, tmp_path / "run", "--workers", "2") as server:
        workers = children(server.pid)
        server.command.process.terminate()
        assert server.command.process.wait(SECONDS) == 0
        assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def test_workers_end_when_the_one_that_started_them_is_killed_and_the_next_start_clears_up(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = Path(tempfile.mkdtemp())  # tmp_path's name is longer than a socket's may be
    monkeypatch.setenv("TMPDIR", str(temporary))

    def folders() -> set[Path]:
        return set(temporary.glob("paddle_ranker_*"))

    with serving(model, tmp_path / "run", "--workers", "2") as server:
        workers = children(server.pid)
        server.command.process.kill()
        server.command.process.wait(SECONDS)
        until(lambda: not any(is_running(pid) for pid in workers))
    left = folders()
    assert left
    with serving(model, tmp_path / "again") as server:
        held = folders()
        assert held and not held & left
        server.command.process.terminate()
        assert server.command.process.wait(SECONDS) == 0
    assert not folders()
    shutil.rmtree(temporary)


def test_a_worker_that_does_not_end_is_killed(model: Path, tmp_path: Path) -> None:
    options = ("--workers", "2", "--drain_seconds", "0")
    with serving(model, tmp_path / "run", *options) as server:
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
        returning = asyncio.ensure_future(worker._return_freed_memory())
        await until_in_loop(lambda: len(threads) > 1)
        returning.cancel()

    asyncio.run(returned())
    assert threading.main_thread() not in threads


class _Stuck:
    """A slot whose model is loaded once the test lets it."""

    folder = Path("a folder")

    def __init__(self) -> None:
        self.begun, self.gate, self.loads = threading.Event(), threading.Event(), 0

    def load(self, observer: object) -> object:
        self.loads += 1
        self.begun.set()
        assert self.gate.wait(SECONDS)
        raise CheckpointError("damaged")


@pytest.mark.unit
def test_a_load_that_does_not_end_is_known_though_nobody_waits_for_it() -> None:
    slot: Any = _Stuck()
    anything: Any = MagicMock()

    async def stopped(reloader: Reloader) -> None:
        asking = asyncio.ensure_future(reloader.reload())
        await until_in_loop(slot.begun.is_set)
        asking.cancel()  # its caller leaves, and then the server stops

    reloader = Reloader([Reloadable(slot, None)], anything, anything)
    asyncio.run(stopped(reloader))
    assert reloader.is_busy  # so the process ends without a wait for the thread
    slot.gate.set()
    until(lambda: not reloader.is_busy)


@pytest.mark.unit
def test_who_signals_during_a_load_gets_another_one() -> None:
    """What is being loaded may have been read before the files were replaced."""
    slot: Any = _Stuck()
    anything: Any = MagicMock()

    async def asked(reloader: Reloader) -> None:
        reloader.reload_soon()
        await until_in_loop(slot.begun.is_set)
        reloader.reload_soon()
        reloader.reload_soon()
        slot.gate.set()
        await until_in_loop(lambda: not reloader._reloads)

    asyncio.run(asked(Reloader([Reloadable(slot, None)], anything, anything)))
    assert slot.loads == 2


@pytest.mark.unit
def test_a_worker_that_was_not_ready_for_a_signal_gets_it_later(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number)))
    anything: Any = MagicMock()
    supervisor = _Supervisor(ServeConfig(workers=2), [], anything)
    for slot, pid in zip(supervisor._slots, (11, 12)):
        slot.pid = pid
    os.write(supervisor._ready_end, b"11\n")
    supervisor._receive()
    supervisor._received.append(signal.SIGHUP)
    supervisor._pass_on_signals()
    assert sent == [(11, signal.SIGHUP)]
    os.write(supervisor._ready_end, b"12\n")
    supervisor._receive()
    assert sent == [(11, signal.SIGHUP), (12, signal.SIGHUP)]
    for name in ("_life", "_life_end", "_ready_pipe", "_ready_end", "_wake", "_wake_end"):
        os.close(getattr(supervisor, name))
