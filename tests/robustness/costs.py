"""What requests cost that are made to be expensive: `python -m tests.robustness.costs` prints it.

A server is started on a tiny ranker and a tiny model of pairs of posts. Each attack is sent on a connection of its own,
and meanwhile others ask a good request again and again. A failure is memory or processor time beyond the options'
limits, a good request that is not answered, or no answer at all to the attack; the exit status is 1 where there was
one.
"""

from __future__ import annotations

import contextlib
import re
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Callable

import requests

from benchmarks.harness.servers import processor_seconds
from paddle_ranker.options import Options, main_of, option
from tests.robustness.costly_inputs import Attack, attacks
from tests.robustness.fuzz_server import serve_tiny

_MEGABYTE = 1024 * 1024
_STAY_SECONDS = 3.0  # for which connections stay whose answers are not taken
_SECONDS = 120.0  # for what takes moments, on a machine that has much else to do
GOOD = {"query": "深度", "documents": ["深度学习", "ab"]}


@dataclass(frozen=True)
class CostOptions(Options):
    """Options of `python -m tests.robustness.costs`."""

    unpacked_mb: float = option(15.0, help="of an attack, once it is unpacked", above=0, maximum=15.5)
    buffered_mb: int = option(64, help="of the server's budget of bytes", minimum=48)
    most_mb: int = option(500, help="by which an attack may raise the server's memory", minimum=1)
    most_seconds: float = option(10.0, help="of processor time that an attack may take", above=0)


@dataclass
class Cost:
    """What an attack took: bytes sent and unpacked, processor seconds, MB, how long others waited, what came back."""

    name: str
    sent: int
    unpacked: int
    seconds: float
    megabytes: float
    longest_wait: float
    answer: str


class Server:
    """The server's process, as the kernel sees it."""

    def __init__(self, pid: int, port: int):
        self.pid, self.port = pid, port

    def forget_peak(self) -> None:
        """Let the peak of its memory begin anew."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5", encoding="ascii")

    def megabytes(self, name: str = "VmHWM") -> float:
        """Return its peak; "VmRSS": what it holds now."""
        found = re.search(rf"^{name}:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text("utf-8"), re.M)
        assert found is not None
        return int(found.group(1)) / 1024

    def ask(self) -> None:
        """Ask a good request; raises where it is not answered rightly."""
        answer = requests.post(f"http://127.0.0.1:{self.port}/v1/rerank", json=GOOD, timeout=_SECONDS)
        answer.raise_for_status()
        assert len(answer.json()["results"]) == len(GOOD["documents"])

    def measure(self, name: str, sent: int, unpacked: int, attack: Callable[[], str]) -> Cost:
        """Run an attack beside good requests."""
        self.forget_peak()
        before, began = self.megabytes("VmRSS"), processor_seconds(self.pid)
        waits, over, failures = [0.0], threading.Event(), list[str]()

        def others() -> None:
            while not over.is_set():
                since = time.monotonic()
                try:
                    self.ask()
                except Exception as error:
                    failures[:] = [f"a good request failed: {error}"]
                waits.append(time.monotonic() - since)
                over.wait(0.02)

        asking = threading.Thread(target=others)
        asking.start()
        try:
            answer = attack()
        except OSError as error:
            answer = f"none ({error})"
        finally:
            over.set()
            asking.join()
        used = processor_seconds(self.pid) - began
        return Cost(name, sent, unpacked, used, self.megabytes() - before, max(waits), *(failures or [answer]))


def send(port: int, attack: Attack) -> str:
    """Send a request; return the beginning of what comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=_SECONDS) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused before its end
            connection.sendall(attack.data)
        answer = connection.recv(65536)
    status, _, rest = answer.partition(b"\r\n")
    body = rest.rpartition(b"\r\n\r\n")[2] if status.startswith(b"HTTP/") else answer[12:]
    return f"{status[9:12].decode() if status.startswith(b'HTTP/') else ''} {_readable(body)}".strip()


def leave(port: int, attack: Attack) -> str:
    """Send something on many connections, take no answers, and leave after some seconds."""
    with contextlib.ExitStack() as ends:
        for _ in range(attack.connections):
            connection = ends.enter_context(socket.create_connection(("127.0.0.1", port), timeout=_SECONDS))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.setblocking(False)
            with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
                connection.send(attack.data)
        time.sleep(_STAY_SECONDS)
    return "not taken"


def _readable(data: bytes) -> str:
    return "".join(character for character in data.decode("utf-8", "replace") if character.isprintable())[:90]


def measure(options: CostOptions) -> int:
    """Start a server, attack it, print the table; return 1 where something cost too much."""
    costs: list[Cost] = []
    budget = ["--buffered_bytes", str(options.buffered_mb * _MEGABYTE)]
    with tempfile.TemporaryDirectory() as folder, serve_tiny(Path(folder), *budget) as (started, (port, _)):
        server = Server(started.process.pid, port)
        server.ask()
        for attack in attacks(int(options.unpacked_mb * _MEGABYTE)):
            run = partial(send if attack.is_taken else leave, port, attack)
            sent = attack.connections * len(attack.data)
            costs.append(server.measure(attack.name, sent, attack.connections * attack.unpacked, run))
        ended = started.process.poll() is not None
    print(_table(costs))
    failures = [cost.name for cost in costs if _is_too_much(cost, options)]
    print(f"failures: {len(failures) + ended}" + "".join(f"\n  {name}" for name in failures))
    return int(bool(failures) or ended)


def _is_too_much(cost: Cost, options: CostOptions) -> bool:
    is_unanswered = not cost.answer or cost.answer.startswith(("none", "a good request"))
    return is_unanswered or cost.megabytes > options.most_mb or cost.seconds > options.most_seconds


def _table(costs: Sequence[Cost]) -> str:
    lines = ["| attack | KB sent | MB unpacked | processor s | MB more | longest wait of others s | answer |"]
    lines.append("| --- | ---: | ---: | ---: | ---: | ---: | --- |")
    for cost in costs:
        lines.append(
            f"| {cost.name} | {cost.sent / 1024:,.0f} | {cost.unpacked / _MEGABYTE:.1f} | {cost.seconds:.2f} | "
            f"{cost.megabytes:.0f} | {cost.longest_wait:.2f} | {cost.answer} |"
        )
    return "\n".join(lines)


main = main_of(measure, CostOptions, "Send requests that are made to be expensive.")


if __name__ == "__main__":
    sys.exit(main())
