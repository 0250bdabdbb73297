"""The search service of `deploy/`: command lines of unit and container, run with a read-only root, and proxies."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional, cast

import grpc
import pytest
import yaml  # type: ignore[import-untyped]

from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import IndexInfo, WordsInfo
from paddle_ranker.serving.core.limits import API_KEY_VARIABLE
from tests.checkout import ONCE
from tests.conftest import REPOSITORY
from tests.live_service import LiveService
from tests.robustness.test_proxy import Proxy, free_ports
from tests.scripts.test_deploy_files import COMPOSE, DROP_IN, UNIT, instructions
from tests.started import SECONDS, Started, children, started, until
from tests.tiny import write_ranker

pytestmark = pytest.mark.server
KEY = "CHANGE-THIS-KEY"  # as in nginx.conf
PAGE, SEARCH, ADD = "/", "/v1/search?q=%E6%B0%B4%E7%A8%BB", "/v1/documents"


def ask(port: int, path: str, body: Any = None, key: Optional[str] = None) -> tuple[int, Any]:
    """Return the status and the JSON of an answer; the path is sent as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    headers = {"Content-Type": "application/json", **({"X-API-Key": key} if key else {})}
    connection.request("GET" if body is None else "POST", path, json.dumps(body) if body is not None else None, headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, json.loads(content) if content[:1] == b"{" else content


def found(port: int, key: Optional[str] = None) -> list[str]:
    status, answer = ask(port, SEARCH, key=key)
    assert status == 200, answer
    return [hit["id"] for hit in answer["hits"]]


def unit_command() -> list[str]:
    """Return the service's command line, as systemd reads both files."""
    lines = [line for file in (UNIT, DROP_IN) for line in re.findall("^ExecStart=(.*)$", file.read_text(), re.M)]
    assert len(lines) == 3 and lines[1] == ""  # which takes the unit's own away
    return shlex.split(lines[2])


def container_command() -> list[str]:
    (entry,) = instructions("ENTRYPOINT")
    (service,) = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"].values()
    return [*json.loads(entry), *service["command"]]


def read_only(command: list[str], *writable: Path) -> list[str]:
    """Return what starts a command without capabilities, which can write to these folders alone.

    Where the test may not mount (it is not root, or in a container without that right), the command stays as it is.
    """
    mounts = "".join(f"mount --bind {one} {one} && " for one in map(shlex.quote, map(str, writable)))
    refused = f"! touch {shlex.quote(str(writable[0].parent))}/written 2>/dev/null"
    script = f'{mounts}mount -o remount,bind,ro / && {refused} && exec setpriv --bounding-set=-all --no-new-privs "$@"'
    tools = ["unshare", "--mount", "sh", "-c", script, "sh"]
    has_tools = all(map(shutil.which, ("unshare", "setpriv")))
    tried = has_tools and subprocess.run([*tools, "true"], check=False, capture_output=True).returncode == 0
    return [*tools, *command] if tried else command


@contextlib.contextmanager
def service(folder: Path, command: list[str]) -> Iterator[tuple[Started, int, Path]]:
    """Start a service in a folder that stands for the paths of the files; yield it, its port and its log's folder."""
    state, ranker, temporary = folder / "state", folder / "model", folder / "tmp"
    for one in (state, temporary):
        one.mkdir(parents=True)
    write_ranker(ranker)
    with Collection.create(state / "index", IndexInfo(WordsInfo("standard"), None)) as collection:
        collection.writer.add([Document("a", "水稻病害"), Document("b", "老年人护理")])
    (port,) = free_ports(1)
    text = shlex.join([sys.executable, *command[1:]])
    for old, new in (
        ("%S/paddle-ranker", str(state)), ("/data", str(state)), ("/srv/paddle-ranker/model", str(ranker)),
        ("--port=8600", f"--port={port}"), ("--port 8600", f"--port {port}"), ("--host=0.0.0.0", "--host=127.0.0.1"),
    ):  # fmt: skip
        text = text.replace(old, new)
    assert not any(left in text for left in ("8600", "%", "/srv", "/opt", "0.0.0.0")), text
    environment = {API_KEY_VARIABLE: KEY, "PYTHONPATH": str(REPOSITORY), "PADDLE_RANKER_PLUGINS": ""}
    environment |= {"HOME": str(temporary), "TMPDIR": str(temporary), "PADDLE_RANKER_CACHE": str(temporary)}
    line = read_only(shlex.split(text), state, temporary)
    with started(line, folder / "run", **environment) as server:
        server.until(lambda: "serving " in server.output)
        yield server, port, state / "log"


def test_a_server_with_two_workers_and_grpc_needs_no_temporary_folder(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    write_ranker(tmp_path / "model")
    (port,) = free_ports(1)
    serve = [sys.executable, "-m", "paddle_ranker", "serve", str(tmp_path / "model"), "--port", str(port)]
    line = read_only([*serve, "--workers", "2"], tmp_path / "state")
    nowhere = str(tmp_path / "none")
    with started(line, tmp_path / "run", PYTHONPATH=str(REPOSITORY), TMPDIR=nowhere, HOME=nowhere) as server:
        server.until(lambda: "serving " in server.output)
        assert "warning" not in server.output  # both workers' metrics are in shared memory
        assert ask(port, "/ready")[0] == 200
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            assert channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=SECONDS) == b"\x08\x01"
        workers = children(server.process.pid)
        folders = {
            path.parent
            for path in Path("/dev/shm").glob("paddle_ranker_*/*.db")
            if int(path.stem.rpartition("_")[2]) in workers
        }
        assert len(folders) == 1
        server.process.kill()  # its workers end, and delete the folder
        until(lambda: not any(folder.exists() for folder in folders))


@pytest.mark.parametrize("command", [unit_command, container_command])
def test_the_service_searches_writes_logs_and_stops(tmp_path: Path, command: Any) -> None:
    with service(tmp_path, command()) as (server, port, log):
        assert ask(port, SEARCH)[0] == 401 and ask(port, ADD, {"documents": []})[0] == 401
        assert found(port, KEY) == ["a"]
        assert ask(port, ADD, {"documents": [{"id": "c", "text": "水稻"}]}, KEY)[1]["added"] == 1
        assert sorted(found(port, KEY)) == ["a", "c"]
        until(lambda: sum(one.read_text(encoding="utf-8").count('"shown"') for one in log.glob("*.jsonl")) == 2)
        assert ask(port, "/ready")[0] == 200
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(SECONDS) == 0


@contextlib.contextmanager
def caddy(folder: Path, port: int) -> Iterator[int]:
    """Start Caddy with the project's configuration, without TLS, before a server; yield its port."""
    (own,) = free_ports(1)
    text = (REPOSITORY / "deploy" / "proxy" / "Caddyfile").read_text(encoding="utf-8")
    for old, new in (("search.example.com {", f"http://127.0.0.1:{own} {{"), ("127.0.0.1:8600", f"127.0.0.1:{port}"),
                     ("{\n\tservers", "{\n\tadmin off\n\tservers")):  # fmt: skip
        assert old in text
        text = text.replace(old, new)
    folder.mkdir()
    (folder / "Caddyfile").write_text(text, encoding="utf-8")
    command = ["caddy", "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]
    environment = {
        API_KEY_VARIABLE: KEY,
        "HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder),
        "XDG_DATA_HOME": str(folder),
    }
    with started(command, folder / "run", **environment) as running:
        running.until(lambda: "serving initial configuration" in running.output)
        yield own


@contextlib.contextmanager
def nginx(folder: Path, port: int) -> Iterator[int]:
    folder.mkdir()
    proxy = Proxy(folder, cast(LiveService, SimpleNamespace(shared=port)))
    yield proxy.port
    proxy.stop()


@ONCE
@pytest.mark.parametrize("proxy", [nginx, caddy])
def test_everybody_may_search_through_a_proxy_and_only_the_key_may_write(tmp_path: Path, proxy: Any) -> None:
    if shutil.which(proxy.__name__) is None:
        pytest.skip(f"needs {proxy.__name__} (Debian's package nginx-light, caddy)")
    document = {"documents": [{"id": "c", "text": "水稻"}]}
    with service(tmp_path, unit_command()) as (_, direct, _), proxy(tmp_path / "proxy", direct) as port:
        assert ask(port, PAGE)[0] == 200 and found(port) == found(port, "wrong") == ["a"]
        assert ask(port, "/v1/search", {"query": "水稻"})[0] == ask(port, "/v1/index")[0] == 200
        for key in (None, "wrong"):
            assert ask(port, ADD, document, key)[0] == ask(port, f"{ADD}/a", key=key)[0] == 401
            assert ask(port, "/v1/rerank", {"query": "a", "documents": ["b"]}, key)[0] == 401
            for path in ("/v1/search/../documents/a", "/v1/documents/../search?q=a", "/v1/documents/a?/v1/search",
                         "//v1/search/../documents/a", "/v1/searches", "/v1%2Fsearch/..%2Fdocuments%2Fa"):  # fmt: skip
                assert ask(port, path, key=key)[0] in (400, 401, 404), path
        assert found(port) == ["a"] and ask(port, ADD, document, KEY)[1]["added"] == 1
        assert sorted(found(port)) == ["a", "c"]
        for path in ("/metrics", "/info", "/admin/reload"):
            assert ask(port, path, key=KEY)[0] == 403, path
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
        connection.putrequest("POST", ADD)
        for name, value in (("X-API-Key", KEY), ("Content-Length", str(17 << 20))):
            connection.putheader(name, value)
        connection.endheaders()
        assert connection.getresponse().status == 413
        connection.close()
