"""Compare Ray Serve's replicas with the plain server: requests a second of one ranker, by the same clients, in turns.

python -m benchmarks.scale_serving --model checkpoint/best
python -m benchmarks.scale_serving --model checkpoint/best --titles 50 --clients 32

Each server has engines of one thread, and its clusters and processes run all the time; only one is asked at a time.
"""

from __future__ import annotations

import asyncio
import json
import socket
import statistics
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from benchmarks.harness.report import format_table
from benchmarks.harness.servers import serve_command, started
from benchmarks.serving_client import HOST, HTTP, OK, Request, closed_loop, http
from demo_world.scenes import triples
from paddle_ranker.errors import RankerError
from paddle_ranker.options import Options, main_of, option

PLAIN = "plain server"


@dataclass(frozen=True)
class ScaleServingOptions(Options):
    model: str = option(help="folder of a ranker")
    titles: int = option(10, help="titles of a request", minimum=1)
    clients: int = option(16, help="clients at once", minimum=1)
    seconds: float = option(4.0, help="of each load in each round", above=0)
    rounds: int = option(5, help="timed rounds", minimum=1)
    replicas: tuple[int, ...] = option((1, 2), help="numbers of replicas", several=True)


def requests_of(titles: int) -> list[Request]:
    """Return requests with titles of the demo."""
    rows = [*islice(triples(7), 20 * titles)]
    bodies = [
        {"query": rows[start][0], "documents": [row[1] for row in rows[start : start + titles]]}
        for start in range(0, len(rows), titles)
    ]
    return [Request(http("/rerank", json.dumps(body, ensure_ascii=False).encode()), titles) for body in bodies]


def run(options: ScaleServingOptions) -> None:
    """Print requests a second of each, and their ratios to the plain server, the median of all rounds."""
    requests = requests_of(options.titles)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as servers:
        commands = {PLAIN: serve_command(Path(options.model), "--cpu_threads", "1", "--log_requests", "false")}
        for number in options.replicas:
            with socket.socket() as free:
                free.bind((HOST, 0))
                port = free.getsockname()[1]
            commands[f"Serve, {number} replicas"] = [
                *(sys.executable, "-m", "paddle_ranker", "deploy", "ray", "--ray", "local", "--model", options.model),
                *("--replicas", str(number), "--port", str(port), "--log_requests", "false"),
            ]
        running = {
            name: servers.enter_context(started(name.replace(" ", "-"), command, Path(folder), 1))
            for name, command in commands.items()
        }
        rates: dict[str, list[float]] = {name: [] for name in running}
        for turn in range(options.rounds + 1):
            for name, server in running.items():
                load = asyncio.run(closed_loop(HTTP, server.port, requests, options.clients, options.seconds))
                if set(load.codes) != {OK}:
                    raise RankerError(f"{name}: answered {dict(load.codes)}")
                if turn:  # the first one warms up
                    rates[name].append(load.requests_per_second)
    rows = []
    for name, own in rates.items():
        shares = [rate / plain for rate, plain in zip(own, rates[PLAIN])]
        spread = f"{statistics.median(shares):.2f} ({min(shares):.2f} to {max(shares):.2f})"
        rows.append([name, f"{statistics.median(own):.1f}", spread])
    print(format_table(["server", "requests/s", "of the plain server"], rows))


main = main_of(run, ScaleServingOptions, __doc__)

if __name__ == "__main__":
    raise SystemExit(main())
