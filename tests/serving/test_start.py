"""HTTP requests that come while the models are loaded, and connections that come as the server stops."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from paddle_ranker.serving.core.connections import Connections, ProtocolHandler
from paddle_ranker.serving.process.protocols import Acceptor
from tests.conftest import REPOSITORY
from tests.export_cases import write_case
from tests.started import SECONDS, Started, children, free_ports, get, post, started, until, until_in_loop

pytestmark = pytest.mark.server


class Starting:
    """A server that loads its model until `held` is away. Attributes: `statuses` of the answers so far."""

    def __init__(self, command: Started, port: int, held: Path):
        self.command, self.held, self.statuses = command, held, list[int]()
        self.port, self._asking = port, threading.Thread(target=self._ask)

    def _ask(self) -> None:
        self.statuses.append(post(self.port, "/rerank", {"query": "学", "documents": ["深度学习"]})[0])

    def ask(self) -> None:
        """Ask for a score in a thread; return when that waits."""
        self._asking.start()
        time.sleep(0.3)

    def wait(self) -> list[int]:
        """Return the answers when there is one."""
        self._asking.join(SECONDS)
        return self.statuses

    def operators(self) -> list[int]:
        """Return the statuses of what operators ask."""
        return [get(self.port, path)[0] for path in ("/live", "/ready", "/metrics", "/info")]


@contextlib.contextmanager
def starting(folder: Path, *options: str, **more: str) -> Iterator[Starting]:
    (port,), held = free_ports(1), folder / "held"
    held.touch()
    model = write_case(folder / "ranker")
    command = [sys.executable, "-m", "paddle_ranker", "serve", "--model", str(model), "--port", str(port), *options]
    environment = {"PADDLE_RANKER_PLUGINS": "tests.held_engine", "HELD": str(held), "PYTHONPATH": str(REPOSITORY)}
    with started(command, folder / "run", **environment, **more) as server:
        server.until(held.with_name("begun").exists)
        yield Starting(server, port, held)


def test_a_request_waits_for_the_model_and_operators_do_not(tmp_path: Path) -> None:
    with starting(tmp_path) as server:
        server.ask()
        assert server.operators() == [200, 503, 200, 503] and server.statuses == []
        server.held.unlink()
        assert server.wait() == [200]
        server.command.until(lambda: "serving " in server.command.output)
        assert server.operators() == [200] * 4


def test_a_request_waits_no_longer_than_its_deadline(tmp_path: Path) -> None:
    with starting(tmp_path, "--deadline_seconds", "0.5") as server:
        server.ask()
        assert server.wait() == [503]


def test_a_server_that_is_stopped_before_it_is_ready_answers_who_waits(tmp_path: Path) -> None:
    with starting(tmp_path) as server:
        server.ask()
        server.command.process.send_signal(signal.SIGTERM)
        assert server.wait() == [503]
        assert server.command.process.wait(SECONDS) == 0


def test_a_server_is_ready_when_all_workers_are_and_tells_systemd(tmp_path: Path) -> None:
    name = f"notified-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(f"\0{name}")
        notified.setblocking(False)
        with starting(tmp_path, "--workers", "2", NOTIFY_SOCKET=f"@{name}") as server:
            until(lambda: len(children(server.command.process.pid)) == 2)
            slow = server.held.with_name(f"{server.held.name}.{min(children(server.command.process.pid))}")
            slow.touch()
            server.held.unlink()
            until(lambda: get(server.port, "/info")[0] == 200)  # of the other one, which has loaded its model
            assert [get(server.port, "/ready")[0] for _ in range(20)] == [503] * 20
            with pytest.raises(BlockingIOError):
                notified.recv(100)
            slow.unlink()
            until(lambda: {get(server.port, "/ready")[0] for _ in range(20)} == {200})
            notified.settimeout(SECONDS)
            assert notified.recv(100) == b"READY=1"


class _Heard(asyncio.Protocol):
    """A protocol that keeps what it is sent."""

    def __init__(self, heard: list[bytes]):
        self._heard = heard

    def data_received(self, data: bytes) -> None:
        self._heard.append(data)


def test_connections_in_the_system_s_queue_are_accepted_before_the_port_is_closed() -> None:
    """As where several workers take one at a time; what is not accepted, the system resets."""

    async def close() -> None:
        heard: list[bytes] = []
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        acceptor = Acceptor(listener, [(b"", ProtocolHandler(lambda: _Heard(heard)))], Connections(100), at_a_time=1)
        address = listener.getsockname()
        with contextlib.ExitStack() as stack:
            for _ in range(20):
                stack.enter_context(socket.create_connection(address)).sendall(b"?")
            acceptor.close()
            await until_in_loop(lambda: heard == [b"?"] * 20)
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address)

    asyncio.run(close())
