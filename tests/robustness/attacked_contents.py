"""Good searches beside contents that cost much: `python -m tests.robustness.attacked_contents` prints what they cost.

A server searches an index of texts whose documents may have pictures, films and sounds. For each file of
`content_bombs`, clients send it again and again for some seconds, from another process on the same machine: as it is
and in gzip, half of them wait for the answers, half of them leave after a third of a second. Meanwhile good searches
and `/live` are asked. Then all clients leave. The exit status is 1 where a good search was lost or wrong or took longer
than --most_seconds, where memory or the work after the last client had left are above their limits, or where the server
does not end within seconds after SIGTERM in the middle of an attack.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from benchmarks.harness.report import format_table
from benchmarks.serving_client import http
from paddle_ranker.options import Options, main_of, option
from paddle_ranker.serving.process.worker import _TRIM_SECONDS
from tests.robustness.content_bombs import Bomb, bombs, url
from tests.started import Started, children, get, post, started_server

_TIMEOUT, _LEAVES_AFTER = 60.0, 0.3  # seconds that clients wait: patient and impatient ones
_IDLE = 0.1  # seconds of processor time per second below which a server does nothing
_LONGEST_WORK = 60.0
_MEGABYTE = 1 << 20
_DOCUMENTS = 2000
NOTHING = "nothing"


@dataclass(frozen=True)
class ContentOptions(Options):
    """Options of `python -m tests.robustness.attacked_contents`."""

    seconds: float = option(8.0, help="seconds of each attack", above=0)
    connections: tuple[str, ...] = option(("4", "24"), help="connections of each attack", several=True)
    most_seconds: float = option(1.0, help="that a good search may take at most", above=0)
    most_mb: int = option(1200, help="by which an attack may raise the server's memory", minimum=1)
    most_kept_mb: int = option(300, help="of memory that the server may hold more after all attacks", minimum=1)
    most_work: float = option(3.0, help="seconds until work ends after the last client has left", above=0)
    only: str = option("", help="part of the names of the attacks that are run (default: all)")


def write_models(folder: Path, server: str) -> list[str]:
    """Write the models and the index of a server; return the command line's options, the ranker's folder first."""
    from tests.model.test_families import write_folder
    from tests.pictures import vilt_cases
    from tests.pictures.test_pictures import published as published_pictures
    from tests.pictures.test_vilt import EXPECTED
    from tests.recordings.test_sounds import published as published_sounds
    from tests.tables import table_cases

    if server == "tables":
        return [str(table_cases.write_folder(folder / "tables"))]
    if server == "boxes":
        return [str(write_folder(folder / "boxes", "layoutlm"))]
    ranker, clip = folder / "ranker", published_pictures("clip", folder / "clip")
    ranker.mkdir()
    vilt_cases.write(ranker, EXPECTED["shapes"])
    towers = {"picture": clip, "film": clip, "recording": published_sounds("hubert", folder / "hubert")}
    write_index(folder, towers)
    return [str(ranker), "--tower", str(clip), "--index", str(folder / "index"), "--writable", "true"]


def write_index(folder: Path, towers: dict[str, Path]) -> None:
    """Write an index of texts and a picture; its fields have towers."""
    from paddle_ranker.commands.index import main as index

    rows = [json.dumps({"id": f"d{n}", "text": f"title{n} rare{n}x lamp chair table"}) for n in range(_DOCUMENTS)]
    (folder / "corpus.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    build = ["build", "--corpus", str(folder / "corpus.jsonl"), "--output", str(folder / "index")]
    build += ["--field", ",".join(f"{name}:{name}" for name in towers)]
    build += ["--field_tower", ",".join(f"{name}={path}" for name, path in towers.items())]
    assert index(build) == 0


class _Clients:
    """Clients that send a request again and again until they are stopped; runs in a process of its own."""

    def __init__(self, port: int, requests: Sequence[bytes], connections: int):
        self._port, self._requests = port, requests
        self.statuses, self._over = Counter[str](), threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(n,), daemon=True) for n in range(connections)]

    def run(self, seconds: float) -> Counter[str]:
        """Send for some seconds, leave, and return how often each status came."""
        for one in self._threads:
            one.start()
        time.sleep(seconds)
        self._over.set()
        for one in self._threads:
            one.join()
        return self.statuses

    def _send(self, number: int) -> None:
        while not self._over.is_set():
            sent = time.monotonic()
            ends = sent + (_LEAVES_AFTER if number % 2 else _TIMEOUT)
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 5) as connection:
                connection.sendall(self._requests[number // 2 % len(self._requests)])
                connection.settimeout(0.1)
                answer = b""
                while not answer and not self._over.is_set() and time.monotonic() < ends:
                    with contextlib.suppress(socket.timeout):
                        answer = connection.recv(65536)
                        if not answer:
                            break
                self.statuses[answer[9:12].decode("ascii", "replace") or "left"] += 1
            if time.monotonic() - sent < 0.05:
                self._over.wait(0.05)


def _attack(port: int, requests: Sequence[bytes], connections: int, seconds: float, results: Any) -> None:
    results.put(dict(_Clients(port, requests, connections).run(seconds)))


def requests_of(bomb: Bomb) -> list[bytes]:
    """Return the HTTP requests of a bomb: as it is, and in gzip."""
    body = json.dumps(bomb.body()).encode()
    return [
        http(bomb.path, body),
        http(bomb.path, gzip.compress(body, 6), "application/json", "Content-Encoding: gzip"),
    ]


class _Server:
    """A started server and its children, as the kernel sees them."""

    def __init__(self, started: Started, port: int, has_index: bool):
        self.started, self.port, self._has_index = started, port, has_index

    def processes(self) -> list[int]:
        found, waiting = list[int](), [self.started.process.pid]
        while waiting:
            found.append(waiting.pop())
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                waiting += children(found[-1])
        return found

    def megabytes(self) -> float:
        """Return the memory of all processes that they share with no other."""
        total = 0
        for process in self.processes():
            with contextlib.suppress(OSError):
                lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii").splitlines()
                total += sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
        return total / 1024

    def processor_seconds(self) -> float:
        """Return the processor time of all processes, of children that have ended, too."""
        total = 0
        for process in self.processes():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
                total += sum(map(int, fields[11:15] if process == self.started.process.pid else fields[11:13]))
        return total / 100

    def good(self, number: int) -> tuple[str, dict[str, Any], Optional[str]]:
        """Return the path and body of a good request, and the id of the document that it must find."""
        if not self._has_index:
            return "/v1/rerank", {"query": "a", "documents": ["a b", "b"]}, None
        return "/v1/search", {"query": f"rare{number}x", "top_k": 3, "by": ["words"], "rank_top": 0}, f"d{number}"


class Measured:
    """What good requests and `/live` took beside an attack; memory that the server held."""

    def __init__(self, server: _Server):
        self._server = server
        self.searches, self.lives, self.problems = [0.0], [0.0], list[str]()
        self.peak = 0.0
        self._over = threading.Event()
        self._threads = [threading.Thread(target=work) for work in (self._search, self._live, self._weigh)]

    def __enter__(self) -> Measured:
        for one in self._threads:
            one.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for one in self._threads:
            one.join()

    def _search(self) -> None:
        for number in self._numbers():
            path, body, wanted = self._server.good(number)
            began = time.monotonic()
            status, answer = post(self._server.port, path, body)
            if status != 200 or (wanted and answer["hits"][0]["id"] != wanted):
                self.problems.append(f"{status} {str(answer)[:80]}")
            self.searches.append(time.monotonic() - began)

    def _live(self) -> None:
        for _ in self._numbers():
            began = time.monotonic()
            if (status := get(self._server.port, "/live")[0]) != 200:
                self.problems.append(f"/live: {status}")
            self.lives.append(time.monotonic() - began)

    def _weigh(self) -> None:
        for _ in self._numbers():
            self.peak = max(self.peak, self._server.megabytes())

    def _numbers(self) -> Iterator[int]:
        number = 0
        while not self._over.wait(0.05):
            number = (number * 37 + 11) % _DOCUMENTS
            yield number


def work_after(server: _Server) -> tuple[float, float]:
    """Wait until the server does nothing; return after how many seconds, and the processor seconds until then."""
    began, before = time.monotonic(), server.processor_seconds()
    last, quiet = before, 0
    while time.monotonic() - began < _LONGEST_WORK:
        time.sleep(0.25)
        now = server.processor_seconds()
        quiet = quiet + 1 if now - last < 0.25 * _IDLE else 0
        last = now
        if quiet == 3:
            break
    return max(0.0, time.monotonic() - began - 0.75), last - before


def attacked(
    server: _Server, bomb: Optional[Bomb], connections: int, options: ContentOptions
) -> tuple[list[str], list[str]]:
    """Attack a server, or let some seconds pass without an attack; return the table's row and the problems."""
    context = multiprocessing.get_context("spawn")
    results, before = context.Queue(), server.megabytes()
    requests = [] if bomb is None else requests_of(bomb)
    arguments = server.port, requests, connections if requests else 0, options.seconds, results
    process = context.Process(target=_attack, args=arguments)
    process.start()
    with Measured(server) as measured:
        statuses = results.get(timeout=options.seconds + 4 * _TIMEOUT)
    process.join()
    seconds, used = work_after(server)
    more, longest, live = measured.peak - before, max(measured.searches), max(measured.lives)
    problems = [f"{len(measured.problems)} good requests failed: {measured.problems[0]}"] if measured.problems else []
    for what, value, most in (
        ("a good request took seconds", longest, options.most_seconds),
        ("/live took seconds", live, options.most_seconds),
        ("megabytes", more, options.most_mb),
        ("seconds of work after the clients had left", seconds, options.most_work),
    ):
        problems += [f"{what}: {value:,.2f}"] if value > most else []
    shown = ", ".join(f"{status} x {count}" for status, count in sorted(statuses.items()))
    middle = sorted(measured.searches)[len(measured.searches) // 2]
    row = [f"{connections}", f"{1000 * middle:,.0f}", f"{1000 * longest:,.0f}", f"{1000 * live:,.0f}", f"{more:,.0f}"]
    return [*row, f"{seconds:.1f}", f"{used:.1f}", shown], problems


def ends(server: _Server, bomb: Bomb, connections: int) -> float:
    """Send SIGTERM in the middle of an attack; return after how many seconds the server has ended."""
    context = multiprocessing.get_context("spawn")
    results: Any = context.Queue()
    process = context.Process(target=_attack, args=(server.port, requests_of(bomb), connections, 6.0, results))
    process.start()
    time.sleep(4.0)
    began = time.monotonic()
    server.started.process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.started.process.wait(_LONGEST_WORK)
    seconds = time.monotonic() - began
    results.get(timeout=_TIMEOUT)
    process.join()
    return seconds


def run(options: ContentOptions) -> int:
    """Attack a server of each kind; print the table and the failures."""
    rows, failures = list[list[str]](), list[str]()
    named = {name: bomb for name, bomb in bombs().items() if options.only in name}
    for kind in dict.fromkeys(bomb.server for bomb in named.values()):
        with tempfile.TemporaryDirectory() as base:
            os.environ["XDG_CACHE_HOME"] = str(Path(base) / "cache")
            model, *more = write_models(Path(base), kind)
            more += ["--log_requests", "false"]
            with started_server(Path(model), Path(base) / "run", *more) as (started, (port, *_)):
                server = _Server(started, port, "--index" in more)
                warm(server, kind)
                held = server.megabytes()
                own = {name: bomb for name, bomb in named.items() if bomb.server == kind}
                for name, bomb in [(NOTHING, None), *own.items()]:
                    for connections in map(int, options.connections) if bomb is not None else (0,):
                        row, problems = attacked(server, bomb, connections, options)
                        rows.append([name, *row])
                        print(*rows[-1], *problems, sep="  ", flush=True)
                        failures += [f"{name}, {connections} connections: {problem}" for problem in problems]
                time.sleep(_TRIM_SECONDS + 5)  # after which a server has returned freed memory
                kept = server.megabytes() - held
                seconds = ends(server, next(iter(own.values())), max(map(int, options.connections)))
                print(f"{kind}: {kept:,.0f} MB more are held after all attacks; ended {seconds:.1f} s after SIGTERM")
                failures += [f"{kind}: {kept:,.0f} MB are kept"] if kept > options.most_kept_mb else []
                failures += [f"{kind}: ended {seconds:.1f} s after SIGTERM"] if seconds > 10 else []
    costs = ["p50 ms", "longest ms", "live ms", "MB more", "work after s", "processor s"]
    head = ["contents", "clients", *costs, "answers"]
    print(format_table(head, rows))
    print(f"failures: {len(failures)}" + "".join(f"\n  {failure}" for failure in failures))
    return int(bool(failures))


def warm(server: _Server, kind: str) -> None:
    """Ask what loads the libraries of the contents, so that memory is compared with that of a server in use."""
    from tests.data.test_bombs import png, wav
    from tests.recordings.test_film import RED, make

    path, body, _ = server.good(1)
    assert post(server.port, path, body)[0] == 200
    files = {"picture": png(64, 64), "recording": wav(8000, 16_000), "film": make((RED,))} if kind == "pictures" else {}
    for name, data in files.items():
        status, answer = post(server.port, "/v1/search", {"query": "", "like": {name: url(data)}})
        assert status == 200, answer


main = main_of(run, ContentOptions, "Send contents that cost much to a server, beside good searches.")

if __name__ == "__main__":
    sys.exit(main())
