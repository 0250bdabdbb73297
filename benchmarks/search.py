"""Measure large-scale search on generated titles: words and HNSW, and a ranker of fifty, here and on the server.

    python -m benchmarks.search --work_dir WORK --tower checkpoint/tower/best --documents 20000
    python -m benchmarks.search --work_dir WORK --tower checkpoint/tower/best --documents 1000000 --precision int8

The titles come from the demo's generator; queries are the first twelve characters of some titles. The tower, exported
to ONNX, makes all vectors; the ranker is `--ranker`, or nano with random weights. Titles, index and ranker
stay in WORK for the next run: a million titles take a quarter of an hour.

The measurements: recall of the graph against exact search; each stage alone, in this process; memory and opening time,
in a separate process; the server with one client, with many, at ten times its capacity, and while documents are added.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Optional

import numpy as np

from benchmarks.harness.rankers import SHAPES, export_ranker, write_random_ranker
from benchmarks.harness.report import Goal, format_table
from benchmarks.harness.servers import ServerProcess, started
from benchmarks.indexes import resident_mb, titles_of
from benchmarks.inputs import real_data_folder
from benchmarks.serving_client import HTTP, OK, Load, Request, closed_loop, connect, http, open_loop
from paddle_ranker import runtime
from paddle_ranker.commands import export, index
from paddle_ranker.data.rows.records import LabeledPair
from paddle_ranker.errors import RankerError
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.options import Options, main_of, option
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.stages.fusion import Candidates, Fusion
from paddle_ranker.retrieval.stored.manifest import VECTORS, WORDS
from paddle_ranker.retrieval.vectors.text_vectors import Tower
from paddle_ranker.scoring.ranker import Ranker
from paddle_ranker.storage.atomic import make_folder, new_file

_ENGINE = "onnx"
# Characters of a query; results of each searcher; titles to rank; titles in an answer.
CHARACTERS, RECALL, RANKED, SHOWN = 12, 100, 50, 10
EF = 100  # vectors that the search of a graph looks at
_TOGETHER = "recall and fusion"
_ADDED, _PAIRS = 20, 2000  # documents added one by one under load; pairs that a vocabulary is learned from
_DEADLINE = 30  # seconds, for the server's requests
_REFUSED = frozenset({"429", "503"})


@dataclass(frozen=True)
class SearchBenchmarkOptions(Options):
    work_dir: Optional[str] = option(None, help="folder for titles, index and ranker, which are kept for the next run")
    tower: Optional[str] = option(None, help="folder of the trained tower that makes the vectors")
    documents: int = option(20_000, help="titles", minimum=1000)
    ranker: Optional[str] = option(None, help="an exported ranker's folder (default: one with random weights)")
    precision: str = option("fp32", help="precision of the ranker on the server", choices=("fp32", "int8"))
    queries: int = option(200, help="queries", minimum=10)
    clients: int = option(32, help="clients at once", minimum=2)
    seconds: float = option(10.0, help="of each load", above=0)
    threads: int = option(2, help="threads of each engine", minimum=1)
    seed: int = option(7, help="seed of titles, parameters and arrivals", minimum=0)
    opened: Optional[str] = option(None, help="internal: only open this index, and measure its memory")


@dataclass
class Work:
    """The folders of a run, and its queries."""

    index: Path
    ranker: Path
    queries: list[str]
    texts: list[str]  # the titles that the queries come from


@dataclass
class Measured:
    """Results: milliseconds by stage, further values by name, and goals."""

    stages: dict[str, list[float]] = field(default_factory=dict)
    values: dict[str, object] = field(default_factory=dict)
    goals: list[Goal] = field(default_factory=list)

    def timed(self, stage: str, work: Callable[..., Any], *arguments: object) -> Any:
        """Call `work`, count its time, and return its result."""
        began = time.perf_counter()
        found = work(*arguments)
        self.stages.setdefault(stage, []).append(1e3 * (time.perf_counter() - began))
        return found

    def percentile(self, stage: str, percent: float) -> float:
        return float(np.percentile(self.stages[stage], percent))


def prepare(options: SearchBenchmarkOptions) -> Work:
    """Make the titles, exported tower, index and ranker that are missing."""
    if options.work_dir is None or options.tower is None:
        raise RankerError("name a folder with --work_dir, and a trained tower with --tower")
    work = make_folder(options.work_dir)
    titles, tower = work / f"titles-{options.documents}.jsonl", work / f"tower-{Path(options.tower).resolve().name}"
    built = work / f"index-{options.documents}-{tower.name}"
    if not titles.exists():
        with new_file(titles) as stream:
            for number, text in enumerate(titles_of(options.documents, options.seed)):
                stream.write(json.dumps({"id": str(number), "text": text}, ensure_ascii=False) + "\n")
    if not tower.exists():
        _run(export.main, "--model", options.tower, "--output", str(tower), "--onnx")
    began = time.perf_counter()
    _run(index.main, "build", "--corpus", str(titles), "--output", str(built), "--tower", str(tower),
         "--engine", _ENGINE, "--method", "faiss", "--cpu_threads", str(options.threads))  # fmt: skip
    print(f"index: {time.perf_counter() - began:.0f} s, {_megabytes(built):,.0f} MB", flush=True)
    draw = np.random.default_rng(options.seed)
    wanted = set(draw.choice(options.documents, min(_PAIRS, options.documents), replace=False).tolist())
    with titles.open(encoding="utf-8") as stream:
        texts = [str(json.loads(line)["text"]) for number, line in enumerate(stream) if number in wanted]
    asked = [texts[number] for number in draw.choice(len(texts), min(options.queries, len(texts)), replace=False)]
    ranker = Path(options.ranker) if options.ranker else _random_ranker(options, work, texts)
    return Work(built, ranker, [text[:CHARACTERS] for text in asked], asked)


def _run(main: Callable[[Sequence[str]], int], *arguments: str) -> None:
    with contextlib.redirect_stdout(sys.stderr):
        if main(arguments):
            raise RankerError(f"{' '.join(arguments[:2])} failed: see above")


def _random_ranker(options: SearchBenchmarkOptions, work: Path, texts: Sequence[str]) -> Path:
    folder = work / "ranker-nano"
    if not (folder / "exported").exists():
        make_folder(folder)
        pairs = [LabeledPair(text[:CHARACTERS], text, 1.0) for text in texts]
        vocab = real_data_folder() / "vocab" / "ernie-3.0-vocab.txt"
        encoder, _ = write_random_ranker(
            folder, SHAPES["nano"], vocab if vocab.is_file() else None, pairs, options.seed
        )
        encoded = encoder.encode([pair.query for pair in pairs], [pair.title for pair in pairs])
        export_ranker(folder, encoded, onnx=True)
    return folder / "exported"


def _megabytes(folder: Path) -> float:
    """Return the size of an index without its tower."""
    files = (path for path in folder.rglob("*") if path.is_file() and "tower" not in path.relative_to(folder).parts)
    return sum(path.stat().st_size for path in files) / 1e6


class Alone:
    """The parts of a search, in this process."""

    def __init__(self, options: SearchBenchmarkOptions, work: Work, measured: Measured):
        how = LoadOptions(engine=_ENGINE, threads=options.threads)
        self.collection, self.measured = Collection.open(work.index), measured
        folder = self.collection.snapshot().tower_folder
        assert folder is not None
        self.tower = Tower.open(folder, how, for_search=True)
        self.ranker = Ranker.load(work.ranker, engine=_ENGINE, threads=options.threads, precision=options.precision)

    def recall(self, queries: Sequence[str]) -> float:
        """Return the share of the ten nearest vectors that the graph finds."""
        vectors = self.tower.query_vectors(queries)
        near = self.collection.snapshot().search(VECTORS, vectors, 10, ef=EF)
        exact = self.collection.snapshot().search_exactly(vectors, 10)
        return float(np.mean([len({*a.ids} & {*b.ids}) / len(b.ids) for a, b in zip(near, exact)]))

    def search(self, query: str) -> list[str]:
        """Time each stage of a search, one after the other, and return the texts to rank."""
        timed, collection = self.measured.timed, self.collection
        vectors = timed("encode", self.tower.query_vectors, [query])
        (words,) = timed("words", collection.snapshot().search, WORDS, [query], RECALL)
        (near,) = timed("vectors", partial(collection.snapshot().search, ef=EF), VECTORS, vectors, RECALL)
        ids = timed("fuse", self._fused, {WORDS: words, VECTORS: near})
        documents = timed("documents", collection.snapshot().documents_of, ids)
        kept = self.measured.stages
        together = sum(kept[name][-1] for name in ("words", VECTORS, "fuse", "documents"))
        kept.setdefault(_TOGETHER, []).append(together)
        return [document.text for document in documents.values()]

    @staticmethod
    def _fused(hits: dict[str, Any]) -> list[str]:
        candidates = Candidates.of(hits)
        order, _ = Fusion("rrf").best(candidates, RANKED)
        return [candidates.ids[number] for number in order.tolist()]

    def rank(self, query: str, texts: Sequence[str]) -> None:
        self.measured.timed("rank", partial(self.ranker.score, logits=True), [query] * len(texts), list(texts))

    def encode_and_rank(self, query: str, texts: Sequence[str]) -> float:
        """Return the milliseconds of encoding a query and ranking texts alone."""
        began = time.perf_counter()
        self.tower.query_vectors([query])
        self.ranker.score([query] * len(texts), list(texts), logits=True)
        return 1e3 * (time.perf_counter() - began)

    def fastest(self, asked: Sequence[tuple[str, list[str]]], seconds: float) -> float:
        """Return the number of queries that the ranker orders per second, in batches of several queries."""
        began, done = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            some = [asked[(done + number) % len(asked)] for number in range(8)]
            queries = [query for query, texts in some for _ in texts]
            self.ranker.score(queries, [text for _, texts in some for text in texts], logits=True)
            done += len(some)
        return done / (time.perf_counter() - began)


def measure_alone(options: SearchBenchmarkOptions, work: Work, measured: Measured) -> tuple[Alone, float]:
    """Time the stages in this process; return them, and the ranker's maximum of queries per second."""
    alone = Alone(options, work, measured)
    for query in work.queries[:5]:
        alone.rank(query, alone.search(query))
    measured.stages.clear()
    asked = [(query, alone.search(query)) for query in work.queries]
    for query, texts in asked:
        alone.rank(query, texts)
    measured.goals += [
        Goal("recall@10 of the graph", alone.recall(work.queries), 0.95),
        Goal("recall and fusion, p50 ms", measured.percentile(_TOGETHER, 50), 5, at_most=True),
        Goal("recall and fusion, p99 ms", measured.percentile(_TOGETHER, 99), 10, at_most=True),
    ]
    return alone, alone.fastest(asked, options.seconds)


def measure_memory(work: Work, measured: Measured) -> None:
    """Open the index in a separate process, and ask it all queries."""
    command = [sys.executable, "-m", "benchmarks.search", "--opened", str(work.index)]
    done = subprocess.run(command, input=json.dumps(work.queries), capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    on_disk = _megabytes(work.index)
    measured.values["memory"] = {**found, "disk_mb": on_disk}
    measured.goals += [
        Goal("memory of the index after all queries, of its size on the disk", found["grown_mb"] / on_disk, 1.3, True),
        Goal("seconds to open it and answer first", found["seconds"], 5, at_most=True),
    ]


def opened(folder: Path) -> None:
    """Print the memory of a process that opens an index and searches for the queries of standard input."""
    queries = json.loads(sys.stdin.read())
    before, began = resident_mb(), time.perf_counter()
    collection = Collection.open(folder)
    collection.snapshot().search(WORDS, queries[:1], RECALL)
    seconds = time.perf_counter() - began
    vectors = np.concatenate([vector[None] for _, vector in collection.snapshot().sample(len(queries), 1)])
    collection.snapshot().search(VECTORS, vectors, RECALL)
    for query in queries:
        (hits,) = collection.snapshot().search(WORDS, [query], RECALL)
        collection.snapshot().documents_of(hits.ids)
    rollup = Path("/proc/self/smaps_rollup").read_text().splitlines()
    own = sum(int(line.split()[1]) for line in rollup if line.startswith("Anonymous"))
    print(json.dumps({"seconds": seconds, "grown_mb": resident_mb() - before, "not_shared_mb": own / 1e3}))


class Served:
    """The server, and the loads on it."""

    def __init__(self, options: SearchBenchmarkOptions, work: Work, server: ServerProcess, measured: Measured):
        self.options, self.work, self.server, self.measured = options, work, server, measured
        self.requests = [Request(self._search(query), 1) for query in work.queries]

    @staticmethod
    def _search(query: str, **more: object) -> bytes:
        body = {"query": query, "top_k": SHOWN, "depth": RECALL, "rank_top": RANKED, **more}
        return http("/v1/search", json.dumps(body, ensure_ascii=False).encode())

    async def _ask(self, *requests: bytes) -> list[dict[str, Any]]:
        connection, answers = connect(HTTP, self.server.port), []
        try:
            for request in requests:
                answer: Any = await connection.ask(request)
                if answer.code != OK:
                    raise RankerError(f"the server answered {answer.code}: {answer.body[:300]!r}")
                answers.append(json.loads(answer.body))
        finally:
            await connection.close()
        return answers

    async def measure(self, alone: Alone, fastest: float) -> None:
        await self.one_client(alone)
        await self.many_clients(fastest)
        await self.adding()

    async def one_client(self, alone: Alone) -> None:
        """Send one query after another; compute the same encoding and ranking in this process in turns."""
        connection = connect(HTTP, self.server.port)
        whole, parts, recall = [], [], []
        for number, query in enumerate([*self.work.queries[:5], *self.work.queries]):
            began = time.perf_counter()
            answer: Any = await connection.ask(self.requests[max(0, number - 5)].data)
            took = 1e3 * (time.perf_counter() - began)
            if answer.code != OK:
                raise RankerError(f"the server answered {answer.code}: {answer.body[:300]!r}")
            stages = json.loads(answer.body)["took_ms"]
            (shown,) = await self._ask(self._search(query, rank_top=0, top_k=RANKED))
            texts = [hit["text"] for hit in shown["hits"]]
            own = await asyncio.to_thread(alone.encode_and_rank, query, texts)
            if number >= 5:
                parts.append(own)
                whole.append(took)
                recall.append(stages["total"] - stages["encode"] - stages["rank"])
                for name, value in stages.items():
                    self.measured.stages.setdefault(f"server: {name}", []).append(value)
        await connection.close()
        stages_of = self.measured.stages
        stages_of["one client"], stages_of["encoding and ranking alone"] = whole, parts
        stages_of["server: recall and fusion"] = recall
        p50, p99 = np.percentile(whole, (50, 99)).tolist()
        self.measured.goals += [
            Goal("whole answer, of encoding and ranking alone", p50 / float(np.median(parts)), 1.15, at_most=True),
            Goal("whole answer, p50 ms", p50, 60 if self.options.precision == "fp32" else 40, at_most=True),
            Goal("whole answer, p99 ms", p99, 150, at_most=True),
            Goal("server: recall and fusion, p50 ms", float(np.median(recall)), 5, at_most=True),
            Goal("server: recall and fusion, p99 ms", float(np.percentile(recall, 99)), 10, at_most=True),
        ]

    async def many_clients(self, fastest: float) -> None:
        """Send queries from many clients, then at ten times the answered rate."""
        options, measured = self.options, self.measured
        load = await closed_loop(HTTP, self.server.port, self.requests, options.clients, options.seconds)
        self._keep(f"{options.clients} clients", load)
        if load.failures:
            raise RankerError(f"{load.failures} requests failed: {dict(load.codes)}; {self.server.said()[-500:]}")
        rate = load.requests_per_second
        measured.goals.append(
            Goal(f"{options.clients} clients, answers of what the ranker alone can do", rate / fastest, 0.9)
        )
        over = await open_loop(HTTP, self.server.port, self.requests, 10 * rate, options.seconds, options.seed)
        self._keep("ten times as much", over)
        others = sum(count for code, count in over.codes.items() if code not in (OK, *_REFUSED))
        slowest = over.milliseconds(99) / 1e3
        measured.goals += [
            Goal("ten times as much: accepted answers, p99 s", slowest, _DEADLINE, at_most=True),
            Goal("ten times as much: other codes than 200, 429 and 503", others, 0, at_most=True),
            Goal("ten times as much: answers a second, of those before", over.requests_per_second / rate, 0.8),
        ]

    async def adding(self) -> None:
        """Add documents one by one while clients search; time each from its request until a search finds it."""
        loop, waited = asyncio.get_running_loop(), []
        work = closed_loop(HTTP, self.server.port, self.requests, 4, self.options.seconds)
        load = loop.create_task(work)
        await asyncio.sleep(0.2)
        for number in range(_ADDED):
            id = f"added-{time.time_ns()}-{number}"
            body = {"documents": [{"id": id, "text": f"新加的文献第{number}篇 {id}"}]}
            began = time.perf_counter()
            await self._ask(http("/v1/documents", json.dumps(body, ensure_ascii=False).encode()))
            while True:
                (answer,) = await self._ask(self._search(id, by=["words"], rank_top=0))
                if any(hit["id"] == id for hit in answer["hits"]):
                    break
            waited.append(time.perf_counter() - began)
        self._keep("4 clients while documents are added", await load)
        self.measured.stages["added and found"] = [1e3 * seconds for seconds in waited]
        self.measured.goals.append(Goal("added documents are found, slowest s", max(waited), 2, at_most=True))

    def _keep(self, title: str, load: Load) -> None:
        self.measured.values[title] = {
            "answers_per_second": load.requests_per_second,
            "codes": dict(load.codes),
            "p50_ms": load.milliseconds(50),
            "p99_ms": load.milliseconds(99),
            "server_mb": self.server.memory_mb(),
        }


@contextlib.contextmanager
def serving(options: SearchBenchmarkOptions, work: Work) -> Iterator[ServerProcess]:
    threads = str(options.threads)
    command = [
        *(sys.executable, "-m", "paddle_ranker", "search-serve", "--index", str(work.index)),
        *("--ranker", str(work.ranker), "--port", "0", "--deadline_seconds", str(_DEADLINE), "--cpu_threads", threads),
        *("--engine", _ENGINE, "--precision", options.precision, "--tower_precision", "fp32"),
        *("--ef", str(EF), "--writable", "true", "--log_requests", "false"),
    ]
    with started("search", command, work.index.parent, options.threads) as server:
        yield server


def run(options: SearchBenchmarkOptions) -> int:
    if options.opened:
        opened(Path(options.opened))
        return 0
    runtime.prepare_command(options.threads)
    work, measured = prepare(options), Measured()
    measure_memory(work, measured)
    alone, fastest = measure_alone(options, work, measured)
    measured.values["ranker alone, queries a second"] = fastest
    with serving(options, work) as server:
        asyncio.run(Served(options, work, server, measured).measure(alone, fastest))
    print(
        f"{options.documents:,} titles, {len(work.queries)} queries, {work.ranker.parent.name} {options.precision}, "
        f"{options.threads} threads"
    )
    rows = []
    for name, taken in measured.stages.items():
        p50, p99 = np.percentile(taken, (50, 99)).tolist()
        rows.append([name, f"{p50:.2f}", f"{p99:.2f}"])
    print(format_table(["", "p50 ms", "p99 ms"], rows))
    for name, value in measured.values.items():
        print(f"{name}: {_shown(value)}")
    print(*measured.goals, sep="\n")
    return 0


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(one)}" for name, one in value.items())
    return f"{value:,.2f}" if isinstance(value, float) else str(value)


main = main_of(run, SearchBenchmarkOptions, __doc__)


if __name__ == "__main__":
    sys.exit(main())
