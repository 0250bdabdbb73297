"""Attacks on the transport through nginx with deploy/proxy/nginx.conf, before a server: nginx must stop them."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from paddle_ranker.paddle_serving.messages import GENERAL_SERVICE
from tests.checkout import ONCE
from tests.conftest import REPOSITORY
from tests.live_service import SECONDS, LiveService
from tests.paddle_serving.test_grpc import request_bytes
from tests.serving.test_http_connection import BODY, PATH, UPGRADES, chunked, request, statuses
from tests.started import until

pytestmark = [
    ONCE,
    pytest.mark.server,
    pytest.mark.skipif(shutil.which("nginx") is None, reason="needs nginx (Debian's package nginx-light)"),
]
REQUEST = request()
LAST = request(BODY, b"Connection: close")


class Proxy:
    """nginx with the project's configuration, on free ports, with short times.

    Attributes: `port` of HTTP/1.1 and `http2` of HTTP/2, both without TLS; `live`, the server behind it.
    """

    def __init__(self, folder: Path, live: LiveService) -> None:
        self.live = live
        self.port, self.http2 = free_ports(2)
        text = (REPOSITORY / "deploy" / "proxy" / "nginx.conf").read_text(encoding="utf-8")
        for old, new in (
            ("listen 443 ssl http2;", f"listen 127.0.0.1:{self.port}; listen 127.0.0.1:{self.http2} http2;"),
            ("127.0.0.1:8600", f"127.0.0.1:{live.shared}"),
            ("_timeout 10s", "_timeout 1s"),
            ("rate=20r/s", "rate=10r/s"),
            ("burst=100", "burst=40"),
            ("allow 127.0.0.1;", ""),
        ):
            assert old in text
            text = text.replace(old, new)
        text = re.sub(r"    ssl_certificate.*\n", "", text)
        paths = "".join(
            f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (folder / "nginx.conf").write_text(
            f"daemon off; pid {folder}/pid; error_log {folder}/error.log; events {{}}\n"
            f"http {{ access_log off; {paths}\n{text}\n}}\n",
            encoding="utf-8",
        )
        self._process = subprocess.Popen(["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")])
        until(self._listens)

    def _listens(self) -> bool:
        assert self._process.poll() is None
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), SECONDS):
            return True
        return False

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(SECONDS)

    def connect(self, sent: bytes = b"") -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), SECONDS)
        connection.sendall(sent)
        return connection

    def answers(self, sent: bytes) -> list[int]:
        """Return the statuses of all answers until nginx closes, which it does once nothing more comes in time."""
        parts = []
        with contextlib.suppress(ConnectionResetError), self.connect(sent) as connection:
            while part := connection.recv(65536):
                parts.append(part)
        return statuses(b"".join(parts))


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in taken]


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with LiveService() as live:
        running = Proxy(tmp_path_factory.mktemp("nginx"), live)
        yield running
        running.stop()


@pytest.fixture(autouse=True)
def as_new(proxy: Proxy) -> None:
    proxy.live.service.calls.clear()


def test_what_clients_send_arrives(proxy: Proxy) -> None:
    for sent in (
        REQUEST,
        request(BODY, *UPGRADES["h2c"]),
        request(b"", b"Transfer-Encoding: chunked", length=False) + chunked(BODY),
    ):
        assert proxy.answers(sent + LAST) == [200, 200]
    assert proxy.live.service.calls == [1] * 6


def test_grpc_arrives(proxy: Proxy) -> None:
    grpc = pytest.importorskip("grpc")
    with grpc.insecure_channel(f"127.0.0.1:{proxy.http2}") as channel:
        assert channel.unary_unary(f"/{GENERAL_SERVICE}/inference")(request_bytes(), timeout=SECONDS)


ENDS = {
    "length and chunks": (b"Content-Length: 5\r\nTransfer-Encoding: chunked", b"0\r\n\r\n"),
    "two lengths": (b"Content-Length: 0\r\nContent-Length: %d" % len(REQUEST), b""),
    "a list of lengths": (b"Content-Length: 0, %d" % len(REQUEST), b""),
    "a signed length": (b"Content-Length: +%d" % len(REQUEST), b""),
    "a length in two words": (b"Content-Length: 0 %d" % len(REQUEST), b""),
    "a length that wraps": (b"Content-Length: %d" % 2**64, b""),
    "no length": (b"Content-Length:", b""),
    "an unknown coding": (b"Transfer-Encoding: xchunked", b""),
    "a coding after chunked": (b"Transfer-Encoding: chunked, identity", b"0\r\n\r\n"),
    "a coding before chunked": (b"Transfer-Encoding: gzip, chunked", b"0\r\n\r\n"),
    "two codings": (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", b"0\r\n\r\n"),
    "a signed chunk": (b"Transfer-Encoding: chunked", b"+0\r\n\r\n"),
    "a chunk in C's hexadecimal": (b"Transfer-Encoding: chunked", b"0x0\r\n\r\n"),
    "a chunk that wraps": (b"Transfer-Encoding: chunked", b"1" + b"0" * 16 + b"\r\n\r\n\r\n"),
    "a chunk that does not end": (b"Transfer-Encoding: chunked", b"2\r\n{}xx0\r\n\r\n"),
}


@pytest.mark.parametrize("name", ENDS)
def test_no_request_is_hidden_in_another_s_body(proxy: Proxy, name: str) -> None:
    header, body = ENDS[name]
    assert proxy.answers(request(body, header, length=False) + REQUEST)[0] >= 400
    assert proxy.live.service.calls == []


REFUSED = {
    "a long field": (request(BODY, b"X: " + b"a" * 70_000), 400),
    "many fields": (request(BODY, *[b"X-%d: " % n + b"a" * 100 for n in range(1000)]), 400),
    "a long target": (REQUEST.replace(PATH, PATH + b"?" + b"a" * 70_000), 414),
    "two hosts": (request(BODY, b"Host: x"), 400),
    "no host": (REQUEST.replace(b"Host: x\r\n", b""), 400),
    "a tunnel": (b"CONNECT example.com:80 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "no HTTP": (b"\x00garbage\r\n\r\n", 400),
    "a large body": (request(b"", b"Content-Length: 20000000", length=False), 413),
    "metrics": (b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 403),
    "a reload": (b"POST /admin/reload HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", 403),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_nginx_refuses(proxy: Proxy, name: str) -> None:
    sent, status = REFUSED[name]
    assert proxy.answers(sent)[0] == status
    assert proxy.live.service.calls == []


SLOW = {"nothing": b"", "half a head": REQUEST[:30], "half a body": REQUEST[:-5]}


@pytest.mark.parametrize("name", SLOW)
def test_who_is_slow_is_cut_off_and_never_seen_by_the_server(proxy: Proxy, name: str) -> None:
    assert proxy.answers(SLOW[name]) in ([], [408])
    assert proxy.live.service.calls == [] and len(proxy.live._connections) <= 1


def test_connections_and_rates_of_an_address_are_limited(proxy: Proxy) -> None:
    with contextlib.ExitStack() as stack:
        half = [stack.enter_context(proxy.connect(REQUEST[:-5])) for _ in range(32)]
        until(lambda: proxy.answers(LAST) == [429])
        for connection in half:
            connection.close()
    until(lambda: proxy.answers(LAST) == [200])
    assert {*proxy.answers(REQUEST * 300 + LAST)} == {200, 429}
