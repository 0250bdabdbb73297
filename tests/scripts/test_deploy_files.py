"""Files that run the server as a service: the container copies existing files, and the options are the server's."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from paddle_ranker.options import parse_options
from paddle_ranker.serving.core.server_config import ServeConfig
from paddle_ranker.serving.slots.slot_kinds import serve_options
from tests.checkout import ONCE
from tests.conftest import REPOSITORY, Call, load_script

DEPLOY = REPOSITORY / "deploy"
DOCKERFILE, COMPOSE = DEPLOY / "docker" / "Dockerfile", DEPLOY / "docker" / "compose.yml"
UNIT, DROP_IN = DEPLOY / "systemd" / "paddle-ranker.service", DEPLOY / "systemd" / "search.conf"
COMMAND = ["-m", "paddle_ranker", "serve"]

pytestmark = [pytest.mark.unit, ONCE]


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


@pytest.mark.parametrize("stack", ["modern", "gpu"])
def test_the_container_has_either_stack_at_one_path(tmp_path: Path, stack: str) -> None:
    assert instructions("ARG")[0] == "STACK=modern"
    (line,) = (line for line in instructions("RUN") if "setup.sh" in line)
    (tmp_path / "scripts").mkdir()
    setup = f'. "{REPOSITORY}/scripts/common.sh"; folder="$(environment_folder "$1")" && mkdir "${{folder##*/}}"'
    (tmp_path / "scripts" / "setup.sh").write_text(setup)
    subprocess.run(["bash", "-c", line], cwd=tmp_path, env={**os.environ, "STACK": stack}, check=True)
    (command,) = instructions("ENTRYPOINT")
    assert "/.venv/bin/python" in command and (tmp_path / ".venv").resolve().is_dir()


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


def test_the_container_of_the_search_service_can_write_to_its_volume_alone() -> None:
    (service,) = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"].values()
    assert service["command"][0] == "search-serve" and service["user"].split(":")[0] in instructions("USER")
    options: Any = parse_options(serve_options(), service["command"][1:], "search-serve", "")
    assert (str(options.index), str(options.search_log), options.writable) == ("/data/index", "/data/log", True)
    assert service["read_only"] and service["cap_drop"] == ["ALL"] and service["volumes"] == ["data:/data"]
    assert service["ports"] == [f"127.0.0.1:{options.port}:{options.port}"]
    assert int(service["stop_grace_period"].rstrip("s")) > options.drain_seconds
    assert "install -d -o 10001 -m 700 /data" in DOCKERFILE.read_text(encoding="utf-8")


def checked(tool: str, package: str, *command: object, **environment: str) -> None:
    """Run a tool's own check of a file; skip where the tool is missing."""
    if shutil.which(tool) is None:
        pytest.skip(f"needs {tool} (Debian's package {package})")
    done = subprocess.run([tool, *map(str, command)], env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0 and not (tool == "systemd-analyze" and done.stderr), done.stdout + done.stderr


def test_compose_reads_its_file() -> None:
    checked("docker-compose", "docker-compose", "-f", COMPOSE, "config", "--quiet", PADDLE_RANKER_API_KEY="a-key")


@pytest.mark.parametrize("is_search", [False, True])
def test_systemd_finds_nothing_wrong(tmp_path: Path, is_search: bool) -> None:
    folder = tmp_path / UNIT.name
    (tmp_path / f"{UNIT.name}.d").mkdir()
    for file, to in ((UNIT, folder), *([(DROP_IN, tmp_path / f"{UNIT.name}.d" / "search.conf")] * is_search)):
        text = file.read_text(encoding="utf-8").replace("/opt/paddle-ranker/.venv/bin/python", sys.executable)
        to.write_text(text.replace("file:/opt/paddle-ranker", f"file:{REPOSITORY}"), encoding="utf-8")
    checked("systemd-analyze", "systemd", "verify", UNIT.name, SYSTEMD_UNIT_PATH=f"{tmp_path}:")


def objects(name: str, on_gpus: bool) -> list[Any]:
    """Return the objects of a file for Kubernetes, with its lines for GPUs if `on_gpus`."""
    text = (DEPLOY / "kubernetes" / name).read_text(encoding="utf-8")
    assert "# nvidia.com/gpu: " in text
    return [*yaml.safe_load_all(re.sub("# (nvidia.com/gpu: |device: gpu)", r"\1", text) if on_gpus else text)]


@pytest.mark.parametrize("on_gpus", [False, True])
@pytest.mark.parametrize("path", sorted((DEPLOY / "kubernetes").glob("*.yaml")), ids=lambda path: path.name)
def test_kubernetes_takes_its_objects(path: Path, on_gpus: bool) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    for document in objects(path.name, on_gpus):
        if "ray.io/" not in document["apiVersion"]:  # the schemas are those of Kubernetes itself
            kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_the_job_of_a_training_is_one_thing() -> None:
    service, job, policy = objects("train.yaml", on_gpus=True)
    spec, name = job["spec"], job["metadata"]["name"]
    (container,) = spec["template"]["spec"]["containers"]
    assert service["spec"]["selector"] == policy["spec"]["podSelector"]["matchLabels"]
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": name}
    assert spec["template"]["spec"]["subdomain"] == service["metadata"]["name"]
    assert f"{name}-0.{service['metadata']['name']} " in container["command"][-2]
    nodes = next(one["value"] for one in container["env"] if one["name"] == "NODES")
    assert spec["completions"] == spec["parallelism"] == int(nodes)
    (memory,) = (mount["name"] for mount in container["volumeMounts"] if mount["mountPath"] == "/dev/shm")
    (volume,) = (one for one in spec["template"]["spec"]["volumes"] if one["name"] == memory)
    assert volume["emptyDir"]["medium"] == "Memory" and container["resources"]["limits"]["nvidia.com/gpu"] == 4


def test_nginx_and_caddy_read_their_files(tmp_path: Path) -> None:
    if shutil.which("openssl") is None or shutil.which("nginx") is None:
        pytest.skip("needs nginx and openssl (Debian's packages nginx-light, openssl)")
    key, certificate, main = tmp_path / "key", tmp_path / "certificate", tmp_path / "nginx.conf"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", "-keyout", str(key)]
    subprocess.run([*command, "-out", str(certificate)], check=True, capture_output=True)
    text = (DEPLOY / "proxy" / "nginx.conf").read_text(encoding="utf-8")
    text = text.replace("/etc/ssl/search.example.com.pem", str(certificate))
    text = text.replace("/etc/ssl/search.example.com.key", str(key))
    main.write_text(f"pid {tmp_path}/pid; error_log stderr; events {{}}\nhttp {{\n{text}\n}}", encoding="utf-8")
    checked("nginx", "nginx-light", "-t", "-q", "-p", tmp_path, "-c", main)
    checked("caddy", "caddy", "validate", "--adapter", "caddyfile", "--config", DEPLOY / "proxy" / "Caddyfile")


@pytest.mark.parametrize(
    ("name", "upstream", "option"),
    [("nginx.conf", "upstream ", "keepalive_timeout"), ("Caddyfile", "reverse_proxy ", "keepalive")],
)
def test_a_proxy_closes_idle_connections_before_the_server_does(name: str, upstream: str, option: str) -> None:
    text = (DEPLOY / "proxy" / name).read_text(encoding="utf-8")
    found = [float(seconds) for seconds in re.findall(rf"^\s*{option} (\d+)s\b", text, re.M)]
    assert len(found) == len(re.findall(rf"^\s*{upstream}", text, re.M)) > 0
    assert max(found) < ServeConfig().keep_alive_seconds


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
