"""Send a server 100,000 requests that are nearly right, and see that it answers the good ones in between.

python -m tests.robustness.fuzz_server [--address 127.0.0.1:8600] [--seconds 120] [--requests 100000] [--seed 0]

Mutations of valid baidu_std frames, protobuf messages, HTTP requests, JSON bodies, forms, images and HTTP/2, and HTTP
requests in the bodies of others, go to one port; without an address, to both ports of a server of this project's, which
is started on tiny models and a tiny index. A failure is an answer that is none, an internal error,
a body that is taken for a request, a connection that neither answers nor ends, a good request that does not get its
scores, an error in the started server's log, or a server that has ended. The exit status is 1 where there was one;
--seed repeats a run.
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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

import numpy as np
import requests

from multimodal_entailment.plugin import PATH as ENTAILMENT_PATH
from paddle_ranker.errors import UsageError
from paddle_ranker.options import Options, main_of, option
from paddle_ranker.retrieval.indexes import Document
from paddle_ranker.serving.clients import (
    BaiduStdClient,
    GrpcClient,
    HttpClient,
    PipelineClient,
    RerankClient,
    SearchClient,
)
from paddle_ranker.serving.clients.base import GeneralModelClient, ScoringClient
from paddle_ranker.serving.clients.errors import RefusedError, ServerError
from paddle_ranker.serving.core.faults import INTERNAL
from paddle_ranker.serving.paddle.messages import messages
from tests.robustness.fuzz_inputs import SMUGGLED, TITLES, makers, picture, posts_of
from tests.started import Started, started_server

_ANSWERS = (b"HTTP/1.1 ", b"PRPC", b"\x00\x00")  # an HTTP/2 frame begins with its length, which is small
_QUIET_SECONDS = 0.02  # without an answer for so long the client says that it has sent all
_SHOWN = 5


@dataclass(frozen=True)
class FuzzOptions(Options):
    """Options of `python -m tests.robustness.fuzz_server`."""

    address: Optional[str] = option(None, help="host:port of the server (default: one is started on a tiny ranker)")
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
    if options.address is not None:
        host, _, digits = options.address.rpartition(":")
        if not host or not digits.isdecimal():
            raise UsageError(f"--address {options.address}: give host:port")
        return _report(_fuzz_at(host, [int(digits)], options, lambda: True))
    with tempfile.TemporaryDirectory() as folder, serve_tiny(Path(folder)) as (server, ports):
        tally = _fuzz_at("127.0.0.1", ports, options, lambda: server.process.poll() is None)
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


def _fuzz_at(host: str, ports: Sequence[int], options: FuzzOptions, is_alive: Callable[[], bool]) -> Tally:
    port = ports[0]
    clients: list[ScoringClient] = [
        client(host, port, timeout=options.patience, retries=0) for client in (BaiduStdClient, HttpClient, GrpcClient)
    ]
    clients.append(PipelineClient(host, port, protocol="http", timeout=options.patience, retries=0))
    reranker = RerankClient(host, ports[-1], timeout=options.patience, retries=0)
    with contextlib.ExitStack() as stack:
        for client in (*clients, reranker):
            stack.enter_context(client)
        queries = ["深度"] * len(TITLES)
        expected = clients[0].score(queries, TITLES)
        judged = _judgment(host, port, options.patience)
        vectors = _vectors(clients, reranker.port, options.patience)
        found = _found(reranker.port, options.patience)

        def good_ones() -> None:
            """Ask what can be answered, over every protocol; raises `ServerError`, `AssertionError`."""
            # /rerank refuses an empty text, the last title.
            answers = [*(client.score(queries, TITLES) for client in clients), reranker.score("深度", TITLES[:-1])]
            for answer in answers:
                if not np.allclose(answer, expected[: len(answer)], atol=1e-5):
                    raise ServerError(f"a good request got {answer.tolist()}, expected {expected.tolist()}")
            if not np.allclose(_vectors(clients, reranker.port, options.patience), vectors, atol=1e-5):
                raise ServerError("a good request for vectors got others")
            if _found(reranker.port, options.patience) != found:
                raise ServerError("a good search found others")
            judgment = _judgment(host, port, options.patience)
            if not np.allclose(judgment, judged, atol=1e-5):
                raise ServerError(f"a good pair of posts got {judgment}, expected {judged}")

        async def run() -> Tally:
            return await _Fuzzer(host, ports, options, is_alive, good_ones).run()

        return asyncio.run(run())


def _vectors(clients: Sequence[ScoringClient], http_port: int, patience: float) -> np.ndarray:
    """Return the vectors that a good request gets over each protocol; none of a server without a tower."""
    try:
        answer = requests.post(
            f"http://{clients[0].host}:{http_port}/v1/embeddings", json={"input": TITLES}, timeout=patience
        )
        if answer.status_code == 404:
            return np.empty(0)
        answer.raise_for_status()
        found = [one["embedding"] for one in answer.json()["data"]]
    except (requests.RequestException, ValueError, KeyError) as error:
        raise ServerError(f"a good request for vectors got none: {error}") from error
    return np.stack([found, *(client.vectors(TITLES) for client in clients if isinstance(client, GeneralModelClient))])


def _found(port: int, patience: float) -> list[str]:
    """Return the documents of the beginning that a good search finds, by words; none on a server without an index."""
    with SearchClient(port=port, timeout=patience, retries=0) as client:
        try:
            hits = client.search("学习", top_k=100, rank_top=3, use=["words"], filter={"year": {"gte": 2020}})["hits"]
        except RefusedError as error:
            if error.code == 404:
                return []
            raise
    return sorted(hit["id"] for hit in hits if hit["id"].startswith("kept-"))


def _judgment(host: str, port: int, patience: float) -> list[float]:
    """Return the probabilities that a good pair of posts gets; none of a server without a model of them."""
    try:
        answer = requests.post(f"http://{host}:{port}{ENTAILMENT_PATH}", json=posts_of(picture()), timeout=patience)
        if answer.status_code == 404:
            return []
        answer.raise_for_status()
        (result,) = answer.json()["results"]
        return list(map(float, result["probabilities"].values()))
    except (requests.RequestException, ValueError, KeyError) as error:
        raise ServerError(f"a good pair of posts got no judgment: {error}") from error


class _Fuzzer:
    """To be made where an event loop runs, which Python 3.9 asks of its lock."""

    def __init__(
        self,
        host: str,
        ports: Sequence[int],
        options: FuzzOptions,
        is_alive: Callable[[], bool],
        good_ones: Callable[[], None],
    ) -> None:
        self._host, self._ports, self._options = host, ports, options
        self._is_alive, self._good_ones = is_alive, good_ones
        self._makers = list(makers().items())
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
                self._fail(f"request {number} ({name}): {outcome}; it begins {data[:120]!r}")
            if number % self._options.good_every == self._options.good_every - 1:
                await self._check()

    async def _send(self, port: int, data: bytes) -> str:
        """Send what is nearly a request on a connection of its own; return what came of it."""
        try:
            reader, writer = await asyncio.wait_for(asyncio.open_connection(self._host, port), self._options.patience)
        except (OSError, asyncio.TimeoutError) as error:
            return f"no connection ({error or type(error).__name__})"
        try:
            with contextlib.suppress(ConnectionError):  # it may refuse before all is sent
                head, end, body = data.partition(b"\r\n\r\n") if SMUGGLED in data else (data, b"", b"")
                writer.write(head + end)
                if body:  # in a packet of its own, it is taken for a request more easily
                    await asyncio.sleep(_QUIET_SECONDS / 2)
                    writer.write(body)
            answer = b""
            with contextlib.suppress(asyncio.TimeoutError):
                answer = await asyncio.wait_for(reader.read(1 << 16), _QUIET_SECONDS)
                if not answer:
                    return "closed"
            if not answer:
                with contextlib.suppress(OSError):
                    writer.write_eof()
                answer = await asyncio.wait_for(reader.read(1 << 16), self._options.patience)
            with contextlib.suppress(asyncio.TimeoutError):
                while SMUGGLED in data and (more := await asyncio.wait_for(reader.read(1 << 16), _QUIET_SECONDS)):
                    answer += more
            return _judged(answer)
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
                self._fail(f"good requests after {self._tally.sent:,} mutated ones: {error}")
            if not self._is_alive():
                self._fail(f"the server has ended after {self._tally.sent:,} mutated requests")
                self._stopped = True

    def _fail(self, text: str) -> None:
        self._tally.failures.append(text)


def _judged(answer: bytes) -> str:
    if not answer:
        return "closed"
    if not answer.startswith(_ANSWERS):
        return f"an answer of no protocol, {answer[:40]!r}"
    if SMUGGLED in answer:
        return "a body became a request"
    if answer.startswith(b"HTTP/1.1 500"):
        return "internal error"
    if answer.startswith(b"PRPC") and len(answer) >= 12:
        meta_size = int.from_bytes(answer[8:12], "big")
        meta = messages().RpcMeta.FromString(answer[12 : 12 + meta_size])
        if meta.response.error_code == INTERNAL.brpc:
            return "internal error"
    return "answered"


def _report(tally: Tally) -> int:
    seconds = time.monotonic() - tally.began
    print("| mutated | requests | answered | closed | failed |")
    print("| --- | ---: | ---: | ---: | ---: |")
    total: Counter[str] = Counter()
    for name, outcomes in tally.counts.items():
        total.update(outcomes)
        print(_row(name, outcomes))
    print(_row("all", total))
    print(
        f"{seconds:.0f} seconds, {tally.sent / seconds:,.0f} requests a second; {tally.good:,} rounds of good requests "
        f"over 6 protocols in between; failures: {len(tally.failures)}"
    )
    for failure in tally.failures[:_SHOWN]:
        print(f"  {failure}")
    if len(tally.failures) > _SHOWN:
        print(f"  and {len(tally.failures) - _SHOWN:,} more")
    return 1 if tally.failures else 0


def _row(name: str, outcomes: Counter[str]) -> str:
    requests = sum(outcomes.values())
    failed = requests - outcomes["answered"] - outcomes["closed"]
    return f"| {name} | {requests:,} | {outcomes['answered']:,} | {outcomes['closed']:,} | {failed:,} |"


main = main_of(fuzz, FuzzOptions, __doc__)


if __name__ == "__main__":
    sys.exit(main())
