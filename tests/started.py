"""Commands as their users start them: run to their end, or in a process group that ends with the block."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Callable

import requests

from tests.conftest import REPOSITORY

SECONDS = 180  # for what takes some seconds, on a machine that has much else to do


class Started:
    """A command that runs. Attributes: `process`; `folder`, where it runs."""

    def __init__(self, command: Sequence[str], folder: Path, environment: dict[str, str]):
        self.folder = folder
        self._log = folder / "output.txt"
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    @property
    def output(self) -> str:
        """What it has written, in whole lines while it runs: a write can be seen half done."""
        ended = self.process.poll() is not None
        text = self._log.read_text(encoding="utf-8", errors="replace")
        return text if ended else text[: text.rfind("\n") + 1]

    def until(self, condition: Callable[[], bool], *, running: bool = True) -> None:
        """Wait until the condition holds; fail where the command ends before that, if it is to be `running`."""
        end = time.monotonic() + SECONDS
        while not condition():
            if running and self.process.poll() is not None:
                assert condition(), f"it has ended:\n{self.output[-3000:]}"  # with this as the last that it did
                return
            assert time.monotonic() < end, f"nothing came of it:\n{self.output[-3000:]}"
            time.sleep(0.05)

    def end(self) -> None:
        """Kill what is left of the process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def run_script(script: str, *arguments: object, cwd: Path, **keywords: Any) -> subprocess.CompletedProcess[str]:
    """Run a Python file of the checkout in `cwd`, with arguments of any type, and return its end."""
    line = [sys.executable, str(REPOSITORY / script), *map(str, arguments)]
    return subprocess.run(line, cwd=cwd, capture_output=True, text=True, timeout=SECONDS, **keywords)


def until(condition: Callable[[], Any]) -> None:
    """Wait until the condition holds; fail where that takes very long."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.005)


async def until_in_loop(condition: Callable[[], Any]) -> None:
    """Let the event loop run until the condition holds; fail where that takes very long."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        await asyncio.sleep(0.001)


def children(process: int) -> set[int]:
    """Return the processes that a process has started."""
    return set(map(int, Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii").split()))


def is_running(process: int) -> bool:
    """Return whether a process lives; one that has ended and that nobody has waited for does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def held_training(module: str, step: int, file: Path) -> list[str]:
    """Return how a training's command line begins, of which the options follow: see `held` in altered_training.py."""
    script = REPOSITORY / "tests" / "altered_training.py"
    return [sys.executable, "-u", str(script), f"held:{step}:{file}:{module}"]


def held_at(module: str, step: int, file: Path, arguments: Sequence[str], cwd: Path) -> subprocess.Popen[str]:
    """Start a training; return when it has printed the line of `step`, where it waits until `file` is there."""
    process = subprocess.Popen(
        [*held_training(module, step, file), *arguments], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(f"global step {step},"):
            return process
    raise AssertionError(f"ended before step {step}: {process.communicate()[1]}")


@contextlib.contextmanager
def started(command: Sequence[str], folder: Path, **environment: str) -> Iterator[Started]:
    """Start a command in `folder`, which is made, with variables beside those of the test's own."""
    folder.mkdir(parents=True)
    command_that_runs = Started(command, folder, environment)
    try:
        yield command_that_runs
    finally:
        command_that_runs.end()


@contextlib.contextmanager
def started_server(
    model: Path, folder: Path, *options: object, **environment: str
) -> Iterator[tuple[Started, list[int]]]:
    """Start `paddle_ranker serve` in `folder`, which is made; yield it, its port and that of HTTP alone, if any."""
    command = [sys.executable, "-m", "paddle_ranker", "serve", "--model", str(model), "--port", "0"]
    environment.setdefault("PYTHONPATH", str(REPOSITORY))
    with started([*command, *map(str, options)], folder, **environment) as server:
        server.until(lambda: "serving " in server.output)
        [line] = [line for line in server.output.splitlines() if line.startswith("serving ")]
        yield server, [int(port) for port in re.findall(r"http://127\.0\.0\.1:(\d+)", line)]


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on, and that the system gives to nobody who asks for any port meanwhile."""
    found: set[int] = set()
    while len(found) < count:
        port = random.SystemRandom().randrange(10_000, 32_000)  # the system's own begin at 32,768
        with socket.socket() as one, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            found.add(port)
    return sorted(found)


def is_open(port: int) -> bool:
    """Return whether something listens on a port of this machine."""
    with socket.socket() as one:
        one.settimeout(5)
        return one.connect_ex(("127.0.0.1", port)) == 0


def post(port: int, path: str, body: Any) -> tuple[int, Any]:
    """Post JSON as `curl -d` does, which calls it a form; return the status and the answer, 0 where none came."""
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    return _ask("POST", f"http://127.0.0.1:{port}{path}", data=json.dumps(body), headers=form)


def get(port: int, path: str) -> tuple[int, Any]:
    """Get a path; return the status and the answer, 0 where none came."""
    return _ask("GET", f"http://127.0.0.1:{port}{path}")


def _ask(method: str, url: str, **more: Any) -> tuple[int, Any]:
    try:
        answer = requests.request(method, url, timeout=SECONDS, **more)
    except requests.RequestException:
        return 0, None
    try:
        return answer.status_code, answer.json()
    except ValueError:
        return answer.status_code, answer.text
