"""Files that run the server as a service: the container copies existing files, and the options are the server's."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from paddle_ranker.options import parse_options
from paddle_ranker.serving.core.config import ServeConfig
from tests.conftest import REPOSITORY, Call, load_script

DOCKERFILE = REPOSITORY / "deploy" / "docker" / "Dockerfile"
UNIT = REPOSITORY / "deploy" / "systemd" / "paddle-ranker.service"
COMMAND = ["-m", "paddle_ranker", "serve"]

pytestmark = pytest.mark.unit


def instructions(name: str) -> list[str]:
    """Return the arguments of every instruction of that name, continued lines joined."""
    text = DOCKERFILE.read_text(encoding="utf-8").replace("\\\n", " ")
    return [line[len(name) :].strip() for line in text.splitlines() if line.startswith(f"{name} ")]


def test_the_container_copies_what_the_set_up_reads() -> None:
    copied = [part for line in instructions("COPY") if not line.startswith("--from") for part in line.split()[:-1]]
    ignored = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").split()
    for name in copied:
        assert (REPOSITORY / name).exists() and name not in ignored, name
    # setup.sh stamps an environment with the project's packages; a missing one would be set up again and again.
    packages = {path.parent.name for path in REPOSITORY.glob("*/__init__.py")} - {"tests"}
    assert packages <= set(copied) and {"requirements", "scripts", "pyproject.toml"} <= set(copied)


def test_the_container_serves_as_somebody_without_privileges() -> None:
    assert instructions("USER") == ["10001"] and "--uid 10001" in DOCKERFILE.read_text(encoding="utf-8")
    words = [
        part for name in ("ENTRYPOINT", "CMD") for line in instructions(name) for part in re.findall(r'"(.*?)"', line)
    ]
    assert words[1:4] == COMMAND and words[0].startswith(instructions("WORKDIR")[0])
    options = parse_options(ServeConfig, words[4:], "serve", "")
    assert (options.host, options.port, str(options.model)) == ("0.0.0.0", 8600, "/model")
    assert instructions("EXPOSE") == ["8600"]


def test_the_service_starts_the_server_with_options_that_it_has() -> None:
    text = UNIT.read_text(encoding="utf-8")
    start = shlex.split(re.findall(r"^ExecStart=(.*)$", text, re.M)[0])
    assert start[1:4] == COMMAND
    options = parse_options(ServeConfig, start[4:], "serve", "")
    assert options.host == "127.0.0.1"
    stop_seconds = float(re.findall(r"^TimeoutStopSec=(.*)$", text, re.M)[0])
    assert stop_seconds > options.drain_seconds  # otherwise requests in flight would be cut off


def start_server(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(REPOSITORY / "deploy/cpp/start_server.sh"), *arguments]
    environment = {**os.environ, "PADDLE_RANKER_PYTHON": sys.executable}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def test_a_model_that_is_not_there_is_refused_before_anything_starts(tmp_path: Path) -> None:
    done = start_server(tmp_path, "--model", "none")
    assert done.returncode == 2 and "--model none: there is no such folder; bash " in done.stderr, done.stderr
    assert "scripts/export_to_serving.sh" in done.stderr and len(done.stderr.strip().splitlines()) == 1
    if importlib.util.find_spec("paddle_serving_server") is not None:  # the launcher accepts only its own folders
        done = start_server(tmp_path, f"--model={tmp_path}")
        assert done.returncode == 2 and f"export_to_serving.sh --dirname {tmp_path} makes" in done.stderr


def test_the_web_service_names_a_model_that_is_missing(tmp_path: Path, call: Call) -> None:
    main = load_script("deploy/python/web_service.py").main
    status, _, errors = call(main, "--model_dir", tmp_path / "none")
    assert status == 2 and "none: there is no such folder; bash scripts/export_to_serving.sh" in errors


@pytest.mark.parametrize("host", ["0.0.0.0", "::1"])
def test_the_web_service_looks_at_the_ports_of_its_address(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    if ":" in host and not Path("/proc/net/if_inet6").is_file():
        pytest.skip("needs IPv6")
    script = load_script("deploy/python/web_service.py")
    monkeypatch.setenv(script.HOST_VARIABLE, host)
    for name in ("serve_here", "serve_by_paddle_serving"):
        monkeypatch.setattr(script, name, lambda config: 0)
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as taken:
        port = taken.getsockname()[1]
        ports = "--rpc_port", port, "--http_port", port
        status, _, errors = call(script.main, "--model_dir", tmp_path, *ports)
        assert status == 1 and f"--rpc_port {port}: another program listens there already" in errors
    assert call(script.main, "--model_dir", tmp_path, *ports)[0] == 0
