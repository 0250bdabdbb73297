"""Restart servers behind nginx, and deploy broken models on Ray Serve, while clients ask: is an answer lost?

python -m tests.robustness.rollouts [--requests 5000] [--restarts 4] [--deployments 3]

nginx has its defaults, and asks two servers of two workers each, which are restarted in turn. Prints the answers of
each kind; the exit status is 1 where one was lost or wrong. Needs nginx (Debian's package nginx-light) and Ray.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import requests

from benchmarks.harness.report import format_table
from paddle_ranker.errors import RankerError
from paddle_ranker.options import Options, main_of, option
from paddle_ranker.scale import deploy
from tests.started import SECONDS, Started, free_ports, get, is_open, started_server, until
from tests.tiny import write_ranker

OK = "answered"
_REST = 11.0  # seconds between restarts: nginx leaves a server that it could not reach alone for ten
_BODY = {"query": "深度", "documents": ["深度学习", "语言", "水稻病害"]}
_NGINX = """daemon off; pid {folder}/pid; error_log {folder}/error.log; events {{}}
http {{ access_log off; {paths}
upstream servers {{ {servers} }}
server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://servers; }} }} }}
"""


@dataclass(frozen=True)
class RolloutOptions(Options):
    """Options of `python -m tests.robustness.rollouts`."""

    requests: int = option(5000, help="least requests while servers are restarted, and while models are deployed")
    restarts: int = option(4, help="restarts of servers behind nginx")
    deployments: int = option(3, help="deployments of a broken model")
    clients: int = option(8, help="clients that ask at once", minimum=1)


class Clients:
    """Clients that ask for scores, each on a connection of its own. Attributes: `outcomes`, how many of each kind."""

    def __init__(self, port: int, count: int):
        self._url, self._stop, self._lock = f"http://127.0.0.1:{port}/rerank", threading.Event(), threading.Lock()
        self.outcomes: Counter[str] = Counter()
        self._expected = self._scores(requests.post(self._url, json=_BODY, timeout=SECONDS))
        self._threads = [threading.Thread(target=self._ask) for _ in range(count)]

    @property
    def asked(self) -> int:
        return sum(self.outcomes.values())

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *of_error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        with requests.Session() as session:
            while not self._stop.is_set():
                try:
                    answer = session.post(self._url, json=_BODY, timeout=SECONDS)
                    outcome = str(answer.status_code)
                    if answer.status_code == 200:
                        outcome = OK if self._scores(answer) == self._expected else "wrong scores"
                except requests.RequestException as error:
                    outcome = type(error).__name__
                with self._lock:
                    self.outcomes[outcome] += 1

    @staticmethod
    def _scores(answer: requests.Response) -> list[float]:
        """Return the scores of an answer; their last digits may differ between batches."""
        return [round(one["relevance_score"], 5) for one in answer.json()["results"]]


@contextlib.contextmanager
def nginx(folder: Path, ports: list[int]) -> Iterator[int]:
    """Start nginx with its defaults before servers; yield its port."""
    (port,) = free_ports(1)
    folder.mkdir()
    kinds = "client_body", "proxy", "fastcgi", "uwsgi", "scgi"
    text = _NGINX.format(
        folder=folder, port=port, paths="".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds),
        servers="".join(f"server 127.0.0.1:{each};" for each in ports),
    )  # fmt: skip
    (folder / "nginx.conf").write_text(text, encoding="utf-8")
    process = subprocess.Popen(["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")])
    try:
        until(lambda: is_open(port))
        yield port
    finally:
        process.terminate()
        process.wait(SECONDS)


def restarts(folder: Path, model: Path, options: RolloutOptions) -> Counter[str]:
    """Restart two servers of two workers in turn; return the answers of clients behind nginx."""
    ports = free_ports(2)
    with contextlib.ExitStack() as stack:

        def start(number: int) -> Started:
            server, _ = stack.enter_context(
                started_server(model, folder / f"server-{number}", "--port", ports[number % 2], "--workers", 2)
            )
            server.until(lambda: get(ports[number % 2], "/ready")[0] == 200)
            return server

        servers = [start(0), start(1)]
        with Clients(stack.enter_context(nginx(folder / "nginx", ports)), options.clients) as clients:
            for number in range(options.restarts):
                share = options.requests * (number + 1) // (options.restarts + 1)
                until(lambda share=share: clients.asked >= share)  # type: ignore[misc]
                servers[number].process.send_signal(signal.SIGTERM)
                if (status := servers[number].process.wait(SECONDS)) != 0:
                    raise RankerError(f"a server ended with {status}:\n{servers[number].output[-2000:]}")
                servers.append(start(number + 2))
                time.sleep(_REST)
            until(lambda: clients.asked >= options.requests)
        if set(clients.outcomes) != {OK}:
            print((folder / "nginx" / "error.log").read_text(encoding="utf-8")[-2000:], file=sys.stderr)
        return clients.outcomes


def deployments(folder: Path, model: Path, options: RolloutOptions) -> Counter[str]:
    """Deploy a broken model over one that answers, several times; return the answers of its clients."""
    from paddle_ranker.scale.cluster import connected

    broken = shutil.copytree(model, folder / "broken")
    (broken / "vocab.txt").unlink()
    (port,) = free_ports(1)

    def deployed(what: Path) -> int:
        return deploy.main(["ray", "--port", str(port), "--log_requests", "false", "--model", str(what)])

    with connected("local", 4):
        if deployed(model) != 0:
            raise RankerError(f"{model}: was not deployed")
        with Clients(port, options.clients) as clients:
            for number in range(options.deployments):
                share = options.requests * (number + 1) // (options.deployments + 1)
                until(lambda share=share: clients.asked >= share)  # type: ignore[misc]
                if deployed(broken) != 1:
                    raise RankerError(f"{broken}: was deployed")
            until(lambda: clients.asked >= options.requests)
        return clients.outcomes


def run(options: RolloutOptions) -> int:
    """Print the answers of each kind, and return 1 where one was lost or wrong."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        model = write_ranker(Path(name) / "ranker")
        works = {
            f"{options.restarts} restarts behind nginx": options.restarts and restarts,
            f"{options.deployments} deployments of a broken model": options.deployments and deployments,
        }
        for number, (label, work) in enumerate(works.items()):
            if work:
                (folder := Path(name) / str(number)).mkdir()
                outcomes = work(folder, model, options)
                others = {kind: count for kind, count in sorted(outcomes.items()) if kind != OK}
                rows.append([label, f"{sum(outcomes.values()):,}", f"{outcomes[OK]:,}", str(others or "none")])
    print(format_table(["what", "requests", OK, "lost or wrong"], rows))
    return int(any(row[-1] != "none" for row in rows))


main = main_of(run, RolloutOptions, (__doc__ or "").split("\n")[0])


if __name__ == "__main__":
    sys.exit(main())
