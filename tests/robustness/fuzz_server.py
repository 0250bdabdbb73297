"""Send a server 100,000 requests that are nearly right, and see that it answers the good ones in between.

python -m tests.robustness.fuzz_server [--seconds 120] [--requests 100000] [--seed 0]

Mutations of valid baidu_std frames, protobuf messages, HTTP requests, JSON bodies, forms and images go to both ports of
a server that is started on tiny models and a tiny index. A failure is an answer that is none, an internal error, a
connection that neither answers nor ends, a good request that does not get its scores, an error in the server's log, or
a server that has ended. The exit status is 1 where there was one; --seed repeats a run.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import requests

from benchmarks.harness.report import format_table
from multimodal_entailment.plugin import PATH as ENTAILMENT_PATH
from paddle_ranker.options import Options, main_of, option
from paddle_ranker.paddle_serving.clients import BaiduStdClient, GrpcClient, HttpClient, PipelineClient
from paddle_ranker.paddle_serving.clients.scoring_client import GeneralModelClient, ScoringClient
from paddle_ranker.paddle_serving.messages import messages
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.serving.clients import RerankClient, SearchClient
from paddle_ranker.serving.clients.client_errors import ServerError
from paddle_ranker.serving.core.faults import INTERNAL
from tests.robustness.fuzz_inputs import SAID, TITLES, makers, picture, posts_of
from tests.started import Started, started_server

_ANSWERS = (b"HTTP/1.1 ", b"PRPC", b"\x00\x00")  # an HTTP/2 frame begins with its length, which is small
_QUIET_SECONDS = 0.02  # without an answer for so long the client says that it has sent all
_SHOWN = 5


@dataclass(frozen=True)
class FuzzOptions(Options):
    """Options of `python -m tests.robustness.fuzz_server`."""

    seconds: float = option(120.0, help="stop after so long", above=0)
    requests: int = option(100_000, help="stop after so many mutated requests", minimum=1)
    seed: int = option(0, help="of the mutations", minimum=0)
    connections: int = option(32, help="requests that are under way at a time", minimum=1)
    patience: float = option(20.0, help="seconds after which a connection that does nothing hangs", above=0)
    good_every: int = option(500, help="mutated requests between two rounds of good ones", minimum=1)


@dataclass
class Tally:
    """What came of the requests of each kind: `counts[kind][outcome]`; failures as they are told."""

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    good: int = 0
    began: float = field(default_factory=time.monotonic)

    @property
    def sent(self) -> int:
        """Mutated requests that are done with."""
        return sum(sum(outcomes.values()) for outcomes in self.counts.values())


def fuzz(options: FuzzOptions) -> int:
    """Send the requests and print the table; return 1 where there was a failure."""
    with tempfile.TemporaryDirectory() as folder, serve_tiny(Path(folder)) as (server, ports):
        tally = _fuzz_at(ports, options, lambda: server.process.poll() is None)
        server.process.send_signal(signal.SIGTERM)
        try:
            status = server.process.wait(60)
        except subprocess.TimeoutExpired:
            tally.failures.append("the server does not end after SIGTERM")
        else:
            if status:
                tally.failures.append(f"the server ended with status {status}")
        # What a caller does wrong is no error of the server's.
        tally.failures += [
            f"the server's log: {line[:400]}"
            for line in server.output.splitlines()
            if '"level": "error"' in line or line.startswith("Traceback")
        ]
        return _report(tally)


@contextlib.contextmanager
def serve_tiny(folder: Path, *options: str) -> Iterator[tuple[Started, list[int]]]:
    """Start a server on three tiny models and an index; yield it, its port and that of HTTP alone."""
    from tests.entailment_cases import write_model
    from tests.tiny import write_index, write_ranker, write_tower

    documents = [Document(f"kept-{n}", f"{text}学习", {"year": 2020 + n}) for n, text in enumerate(TITLES)]
    index = write_index(folder / "index", write_tower(folder / "tower"), documents)
    others = ["--entailment_model", write_model(folder), "--index", str(index)]
    others += ["--writable", "true", "--search_log", str(folder / "log")]
    posts = [*others, "--http_port", "0"]
    quiet = ["--log_requests", "false"]
    with started_server(write_ranker(folder / "ranker"), folder / "run", *posts, *quiet, *options) as found:
        yield found


def _fuzz_at(ports: Sequence[int], options: FuzzOptions, is_alive: Callable[[], bool]) -> Tally:
    with contextlib.ExitStack() as stack:
        where: dict[str, Any] = {"timeout": options.patience, "retries": 0}
        clients: list[ScoringClient] = [
            stack.enter_context(client)
            for client in (
                BaiduStdClient(port=ports[0], **where), HttpClient(port=ports[0], **where),
                GrpcClient(port=ports[0], **where), PipelineClient(port=ports[0], protocol="http", **where),
            )
        ]  # fmt: skip
        reranker = stack.enter_context(RerankClient(port=ports[-1], **where))
        searcher = stack.enter_context(SearchClient(port=ports[-1], **where))

        def answers() -> list[np.ndarray]:
            """Ask what can be answered, over every protocol; raise `ServerError` where it is not."""
            queries, filters = ["深度"] * len(TITLES), {"year": {"gte": 2020}}
            search = searcher.search("学习", top_k=100, rank_top=3, by=["words"], where=filters)
            hits = search["hits"]
            searcher.feedback(search, hits[0]["id"], "click")
            kept = sorted(hit["id"] for hit in hits if hit["id"].startswith("kept-"))
            return [
                *(client.score(queries, TITLES) for client in clients),
                reranker.score("深度", TITLES[:-1]),  # it refuses an empty text, the last title
                *(client.vectors(TITLES) for client in clients if isinstance(client, GeneralModelClient)),
                np.array([int(id.partition("-")[2]) for id in kept]),
                np.array(_judgment(ports[0], options.patience)),
            ]

        expected = answers()
        search = searcher.search("学习", by=["words"])
        of_hit = {"id": search["hits"][0]["id"], "position": search["hits"][0]["rank"]}
        said = {"search_id": search["search_id"], "query": search["query"], **of_hit}

        def good_ones() -> None:
            for found, wanted in zip(answers(), expected):
                if found.shape != wanted.shape or not np.allclose(found, wanted, atol=1e-5):
                    raise ServerError(f"a good request got {found.tolist()}, expected {wanted.tolist()}")

        async def run() -> Tally:
            return await _Fuzzer(ports, options, is_alive, good_ones, said).run()

        return asyncio.run(run())


def _judgment(port: int, patience: float) -> list[float]:
    """Return the probabilities that a good pair of posts gets."""
    try:
        answer = requests.post(f"http://127.0.0.1:{port}{ENTAILMENT_PATH}", json=posts_of(picture()), timeout=patience)
        answer.raise_for_status()
        (result,) = answer.json()["results"]
        return list(map(float, result["probabilities"].values()))
    except (requests.RequestException, ValueError, KeyError) as error:
        raise ServerError(f"a good pair of posts got no judgment: {error}") from error


class _Fuzzer:
    """Sender of mutated requests. Make it where an event loop runs, which Python 3.9 asks of its lock."""

    def __init__(
        self,
        ports: Sequence[int],
        options: FuzzOptions,
        is_alive: Callable[[], bool],
        good_ones: Callable[[], None],
        said: Mapping[str, Any] = SAID,
    ) -> None:
        self._ports, self._options = ports, options
        self._is_alive, self._good_ones = is_alive, good_ones
        self._makers = list(makers(said).items())
        self._numbers = itertools.count()
        self._tally = Tally(counts={name: Counter() for name, _ in self._makers})
        self._good_lock = asyncio.Lock()
        self._stopped = False

    async def run(self) -> Tally:
        """Send requests over several connections at a time until there are enough of them, or no time is left."""
        await self._check()
        await asyncio.gather(*(self._worker() for _ in range(self._options.connections)))
        await self._check()
        return self._tally

    async def _worker(self) -> None:
        while not self._stopped and time.monotonic() - self._tally.began < self._options.seconds:
            number = next(self._numbers)
            if number >= self._options.requests:
                return
            name, make = self._makers[number % len(self._makers)]
            # Of the number alone: the same request again, whatever the order in which the answers came.
            data = make(random.Random(self._options.seed * 2**40 + number))
            outcome = await self._send(self._ports[number // len(self._makers) % len(self._ports)], data)
            self._tally.counts[name][outcome] += 1
            if outcome not in ("answered", "closed"):
                self._tally.failures.append(f"request {number} ({name}): {outcome}; it begins {data[:120]!r}")
            if number % self._options.good_every == self._options.good_every - 1:
                await self._check()

    async def _send(self, port: int, data: bytes) -> str:
        """Send what is nearly a request on a connection of its own; return what came of it."""
        try:
            reader, writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", port), self._options.patience)
        except (OSError, asyncio.TimeoutError) as error:
            return f"no connection ({error or type(error).__name__})"
        try:
            with contextlib.suppress(ConnectionError):  # it may refuse before all is sent
                writer.write(data)
            with contextlib.suppress(asyncio.TimeoutError):
                return _judged(await asyncio.wait_for(reader.read(1 << 16), _QUIET_SECONDS))
            with contextlib.suppress(OSError):
                writer.write_eof()
            return _judged(await asyncio.wait_for(reader.read(1 << 16), self._options.patience))
        except ConnectionError:
            return "closed"
        except asyncio.TimeoutError:
            return "hangs"
        finally:
            writer.close()

    async def _check(self) -> None:
        async with self._good_lock:
            try:
                await asyncio.get_running_loop().run_in_executor(None, self._good_ones)
                self._tally.good += 1
            except ServerError as error:
                self._tally.failures.append(f"good requests after {self._tally.sent:,} mutated ones: {error}")
            if not self._is_alive():
                self._tally.failures.append(f"the server has ended after {self._tally.sent:,} mutated requests")
                self._stopped = True


def _judged(answer: bytes) -> str:
    if not answer:
        return "closed"
    if not answer.startswith(_ANSWERS):
        return f"an answer of no protocol, {answer[:40]!r}"
    if answer.startswith(b"HTTP/1.1 500"):
        return "internal error"
    if answer.startswith(b"PRPC") and len(answer) >= 12:
        meta_size = int.from_bytes(answer[8:12], "big")
        meta = messages().RpcMeta.FromString(answer[12 : 12 + meta_size])
        if meta.response.error_code == INTERNAL.brpc:
            return "internal error"
    return "answered"


def _report(tally: Tally) -> int:
    rows, total = list[list[str]](), sum(tally.counts.values(), Counter[str]())
    for name, outcomes in [*tally.counts.items(), ("all", total)]:
        sent, fine = sum(outcomes.values()), (outcomes["answered"], outcomes["closed"])
        rows.append([name, *(f"{count:,}" for count in (sent, *fine, sent - sum(fine)))])
    print(format_table(["mutated", "requests", "answered", "closed", "failed"], rows))
    seconds = time.monotonic() - tally.began
    print(f"{seconds:.0f} seconds, {tally.good:,} rounds of good requests in between; failures: {len(tally.failures)}")
    print("".join(f"  {failure}\n" for failure in tally.failures[:_SHOWN]), end="")
    return 1 if tally.failures else 0


main = main_of(fuzz, FuzzOptions, __doc__)


if __name__ == "__main__":
    sys.exit(main())
