"""Servers to measure: start a server, read its process's resources, and end it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Optional

from benchmarks.harness.workers import process_environment
from paddle_ranker.errors import RankerError

_ADDRESS = re.compile(r"http://127\.0\.0\.1:(\d+)")


class ServerProcess:
    """A running server; raises `RankerError` if it does not start.

    Attributes: `ports`; `port`, the first of them; `process`.
    """

    def __init__(self, name: str, process: subprocess.Popen[str], log: Path) -> None:
        self.name, self.process, self._log = name, process, log
        assert process.stdout is not None
        for line in process.stdout:
            self.ports = list(map(int, _ADDRESS.findall(line)))
            if self.ports:
                self.port = self.ports[0]
                return
        raise RankerError(f"the server of {name} did not start: {self.said()[-500:].strip() or 'it said nothing'}")

    def said(self) -> str:
        """Return the server's log; "" if the log is no regular file, as /dev/full has no end."""
        if not self._log.is_file():
            return ""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def processes(self) -> list[int]:
        """Return the process ids of the server and its children."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        try:
            return [self.process.pid, *map(int, children.read_text().split())]
        except OSError:
            return [self.process.pid]

    def processor_seconds(self) -> float:
        """Return the processor time in seconds of the server's processes, 0 if the system does not report it."""
        return sum(processor_seconds(pid) for pid in self.processes())

    def memory_mb(self) -> float:
        """Return the resident memory of the server's processes in MiB, NaN if the system does not report it."""
        return sum(memory_mb(pid) for pid in self.processes())


def processor_seconds(pid: int) -> float:
    """Return the processor time in seconds of a process, 0 if the system does not report it."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(pid: int) -> float:
    """Return the resident memory of a process in MiB, NaN if the system does not report it."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return float("nan")
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextmanager
def started(
    name: str, command: Sequence[str], folder: Path, threads: int, stderr: Optional[Path] = None
) -> Iterator[ServerProcess]:
    """Start a server's command, wait until it prints its address, and kill it at the end of the block.

    `stderr` is the file of its log; default: a file in `folder`.
    """
    environment = process_environment(threads)
    log = stderr or folder / f"{name}.log"
    with log.open("ab" if stderr else "wb") as stream:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=stream, text=True)
    try:
        yield ServerProcess(name, process, log)
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def serve_command(model: Path, *more: str) -> list[str]:
    """Return the command line of this toolkit's server on a free port, with `more` options."""
    return [sys.executable, "-m", "paddle_ranker", "serve", "--model", str(model), "--port", "0", *more]
