"""Clusters that run: who is admitted by a token, who is not, and clusters without a token."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.started import free_ports, is_open, started

pytest.importorskip("ray")
pytestmark = [pytest.mark.server, pytest.mark.slow]
SECONDS = 120
TOKEN, OTHER = "a" * 40, "b" * 40
JOINED = (1, "nothing is deployed under this name")


@contextmanager
def cluster(folder: Path, mode: str) -> Iterator[int]:
    """Start a cluster as `ray start` does, with the token in a HOME of its own; yield the port of its head."""
    port, client, first = free_ports(3)
    write_token(folder / mode)
    # A session's sockets have paths of at most 107 characters.
    session = tempfile.mkdtemp(prefix="ray")
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--port", str(port)),
        *("--ray-client-server-port", str(client), "--temp-dir", session, "--num-cpus", "1", "--disable-usage-stats"),
        *("--min-worker-port", str(first), "--max-worker-port", str(first + 40), "--include-dashboard=false"),
    ]
    with started(command, folder / f"{mode}-cluster", HOME=str(folder / mode), RAY_AUTH_MODE=mode) as running:
        running.until(lambda: is_open(port) and "Ray runtime started" in running.output)
        yield port
        running.process.send_signal(signal.SIGTERM)
        running.process.wait(SECONDS)
    shutil.rmtree(session, ignore_errors=True)


def write_token(home: Path) -> Path:
    """Write the token, for all to read, as Ray does; return its file."""
    file = home / ".ray" / "auth_token"
    file.parent.mkdir(parents=True)
    file.write_text(TOKEN, encoding="ascii")
    file.chmod(0o644)
    return file


def run(home: Path, *line: str, **environment: str) -> tuple[int, str]:
    """Run Python in a HOME; return the exit status and what it wrote as errors."""
    given = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    ended = subprocess.run(
        [sys.executable, *line],
        env={**given, "HOME": str(home), "PYTHONPATH": str(REPOSITORY), **environment},
        capture_output=True, text=True, timeout=SECONDS,
    )  # fmt: skip
    return ended.returncode, ended.stderr


@pytest.mark.thorough
@pytest.mark.parametrize("mode", ["token", "disabled"])
def test_a_cluster_admits_who_has_its_token_and_one_without_is_joined_only_if_that_is_wanted(
    mode: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    write_token(tmp_path / "home")
    with cluster(tmp_path, mode) as port:
        here = f"127.0.0.1:{port}"
        cases: list[tuple[str, list[str], dict[str, str], tuple[int, str]]] = {
            "token": [
                ("home", ["--ray", here], {}, JOINED),
                ("home", ["--ray", here], {"RAY_AUTH_MODE": "disabled"}, JOINED),
                ("home", [], {"RAY_ADDRESS": here}, JOINED),
                ("empty", ["--ray", f"localhost:{port}"], {"RAY_AUTH_TOKEN": TOKEN}, JOINED),
                ("home", ["--ray", here], {"RAY_AUTH_TOKEN": OTHER}, (1, "that of this machine is another one")),
                ("empty", ["--ray", here], {}, (1, "this machine has none")),
                ("home", ["--ray", here], {"RAY_AUTH_TOKEN_PATH": "/missing"}, (1, "cannot be opened")),
                ("home", ["--ray", f"ray://{here}"], {}, (2, f"--ray 'ray://{here}': expected")),
                ("home", [], {"RAY_ADDRESS": f"ray://{here}"}, (2, f"RAY_ADDRESS 'ray://{here}': expected")),
                ("home", ["--ray", "127.0.0.1:1"], {}, (1, "cannot be joined")),
            ],
            "disabled": [
                ("home", ["--ray", here], {}, (2, "asks for no token")),
                ("empty", [], {"RAY_ADDRESS": here}, (2, "asks for no token")),
                ("home", ["--ray", here], {"RAY_AUTH_MODE": "token"}, (2, "asks for no token")),
                ("home", ["--ray", here, "--ray_open", "true"], {}, JOINED),
            ],
        }[mode]
        for home, options, environment, (status, problem) in cases:
            line = "-m", "paddle_ranker", "deploy", "ray", "--status", *options
            found, said = run(tmp_path / home, *line, **environment)
            assert (found, problem in said) == (status, True), (home, options, environment, said)
            assert TOKEN not in said


@pytest.mark.thorough(keep=1)
@pytest.mark.parametrize("has_token", [False, True])
def test_only_its_user_may_read_the_token_of_a_cluster_of_this_machine(has_token: bool, tmp_path: Path) -> None:
    """Also where Ray's own variable says that there be none."""
    file = tmp_path / ".ray" / "auth_token"
    if has_token:
        write_token(tmp_path)
    program = "from paddle_ranker.scale.cluster import connected\nwith connected('local', 1): pass"
    status, said = run(tmp_path, "-c", program, RAY_AUTH_MODE="disabled")
    assert status == 0, said
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert (file.read_text(encoding="ascii") == TOKEN) == has_token


def test_a_cluster_that_a_command_starts_leaves_no_session(tmp_path: Path) -> None:
    """Its logs and sockets, which Ray keeps in the temporary folder; those of other clusters stay."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # a socket's path has at most 107 bytes
        (other := Path(folder) / "ray" / "session_other").mkdir(parents=True)
        program = (
            "from pathlib import Path\nfrom paddle_ranker.scale.cluster import connected\n"
            f"with connected('local', 1): print(len([*Path({folder!r}, 'ray').glob('session_2*')]))"
        )
        environment = {**os.environ, "HOME": str(tmp_path), "TMPDIR": folder, "RAY_TMPDIR": folder}
        ended = subprocess.run([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, check=True)
        assert ended.stdout == b"1\n"
        assert [path.name for path in other.parent.iterdir()] == [other.name]
