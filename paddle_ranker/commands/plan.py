"""Plan the machines of a search service: measure here what texts and searches cost, and extrapolate.

paddle-ranker plan --texts 1e9 --queries_per_second 5000 --latency_ms 100
paddle-ranker plan --texts 2e7 --queries_per_second 50 --corpus texts.jsonl --tower checkpoint/tower --ranker none

It takes about a minute, computes on one core, and says what it assumes.
"""

from __future__ import annotations

import math
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Optional

import numpy as np

from paddle_ranker import runtime
from paddle_ranker.data.demo.scenes import triples
from paddle_ranker.data.records import DocumentRow, RecordFile, Text
from paddle_ranker.errors import DataError, UsageError
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.options import RowOptions, json_text, main_of, option
from paddle_ranker.retrieval.faiss_index import load_faiss
from paddle_ranker.retrieval.manifest import EXACT, FAISS, VECTORS, IndexInfo, VectorsInfo, WordsInfo
from paddle_ranker.retrieval.options import DEPTH, RANK_TOP
from paddle_ranker.retrieval.schema import Schema, infer

if TYPE_CHECKING:
    from paddle_ranker.retrieval.collection import Collection
    from paddle_ranker.retrieval.exact import Vectors
    from paddle_ranker.retrieval.indexes import Document
    from paddle_ranker.retrieval.vectors import Tower
    from paddle_ranker.scoring.ranker import Ranker

NONE = "none"
LARGE, TIMES = (
    40_000,
    4,
)  # documents of the larger index that is measured, and how many times as many as the smaller has
_LEAST = 400  # documents
_SECONDS = 8.0  # that each model is measured for, at most
_QUERIES, _QUERY_CHARACTERS, _SEARCHED = 100, 12, 4  # how many, how long, how often
_BUSY = 0.6  # share of the cores that is planned to be busy
_IN_MEMORY = 0.8  # share of a machine's memory that indexes may take
_ROUND_MS, _ROUNDS = 2.0, 3  # of a search over shards: words' statistics, lists, documents
_LAYERS, _WIDTH, _HEADS = 4, 312, 12  # of ERNIE 3.0 nano
_GB = 1e9


@dataclass(frozen=True)
class PlanOptions(RowOptions):
    texts: float = option(help="how many texts the service searches, such as 1e9", minimum=1)
    queries_per_second: float = option(help="how many queries it answers", above=0)
    latency_ms: float = option(100.0, help="how long a search takes, at most, where nothing waits", above=0)
    corpus: Optional[str] = option(
        None, help="some of the texts, as index build takes them (default: the demo's titles)", files=True
    )
    queries: Optional[str] = option(
        None, help=f"queries, a text a line (default: the first {_QUERY_CHARACTERS} characters of texts)", files=True
    )
    tower: Optional[str] = option(
        None, help="makes the vectors; none: search by words alone (default: random weights in ERNIE 3.0 nano's shape)"
    )
    ranker: Optional[str] = option(
        None, help="ranks what is found; none: nothing does (default: random weights in ERNIE 3.0 nano's shape)"
    )
    rank_top: int = option(RANK_TOP, help="texts that the ranker orders", minimum=1)
    method: str = option(FAISS, help="how vectors are searched", choices=(EXACT, FAISS))
    machine_cores: int = option(16, help="cores of each machine", minimum=1)
    machine_gb: float = option(64.0, help="memory of each machine, in GB", above=0)
    format: str = option("text", help="text, or one JSON object", choices=("text", "json"))


class Sizes(NamedTuple):
    """Bytes of an index of some documents, and times of its searches.

    disk, memory: bytes of all files, and of those that searches read
    words_ms, vectors_ms: processor time of a query
    """

    documents: int
    disk: int
    memory: int
    words_ms: float
    vectors_ms: float


@dataclass(frozen=True)
class Costs:
    """Measured costs, in processor time of one core.

    small, large: two indexes
    store_ms, vector_ms: of a document: its words and the index of its vector; the vector
    query_ms, rank_ms: of a query: its vector; ranking `rank_top` texts
    process: bytes of a process with the models
    """

    small: Sizes
    large: Sizes
    store_ms: float
    vector_ms: float
    query_ms: float
    rank_ms: float
    process: int
    method: str

    def search_ms(self, documents: float) -> float:
        """Return how long a search of so many documents takes: words and exact vectors in proportion, graphs by log."""
        few, many = self.small, self.large
        share = (documents - few.documents) / (many.documents - few.documents)
        words = few.words_ms + share * max(0.0, many.words_ms - few.words_ms)
        if self.method == FAISS:
            share = math.log(max(1.0, documents / few.documents)) / math.log(many.documents / few.documents)
        vectors = few.vectors_ms + share * max(0.0, many.vectors_ms - few.vectors_ms)
        return max(words, 0.0) + max(vectors, 0.0)

    def bytes_of(self, documents: float, name: str) -> float:
        """Return the bytes of `disk` or `memory` that so many documents take."""
        few, many = getattr(self.small, name), getattr(self.large, name)
        each = (many - few) / (self.large.documents - self.small.documents)
        return max(few + (documents - self.small.documents) * each, documents * each)


@dataclass(frozen=True)
class Plan:
    """How many machines a service takes; each of `copies` of `shards` holds `shard_texts`."""

    shards: int
    shard_texts: int
    copies: int
    cores: int
    machines: int
    memory_gb: float
    disk_gb: float
    latency_ms: float
    vector_core_hours: float
    build_core_hours: float
    build_hours: float


def plan_of(costs: Costs, options: PlanOptions) -> Plan:
    """Return the plan with the fewest shards that meets the latency; raises `UsageError` where none does.

    A query's vector and its ranking are computed once, by all cores of a machine where that is needed; each shard
    searches on a core of its own.
    """
    threads = options.machine_cores
    models_ms = (costs.query_ms + costs.rank_ms) / threads
    fits = options.machine_gb * _GB * _IN_MEMORY
    shards = max(1, math.ceil(costs.bytes_of(options.texts, "memory") / fits))

    def latency(shards: int) -> float:
        rounds = _ROUNDS * _ROUND_MS if shards > 1 else 0.0
        return models_ms + rounds + costs.search_ms(options.texts / shards)

    least, most = shards, max(shards, math.ceil(options.texts / costs.large.documents))
    if latency(most) > options.latency_ms:
        raise UsageError(
            f"--latency_ms {options.latency_ms:g}: a search takes {latency(most):.3g} ms at least, of which the models "
            f"take {models_ms:.3g} ms on {threads:,} cores; allow more, rank fewer texts (--rank_top), take a smaller "
            "ranker, or more --machine_cores"
        )
    most = least if latency(least) <= options.latency_ms else most
    while least < most:  # from two shards on, the latency falls with their number
        middle = (least + most) // 2
        least, most = (least, middle) if latency(middle) <= options.latency_ms else (middle + 1, most)
    shards, texts = least, options.texts / least
    search_ms = costs.search_ms(texts)
    each = options.queries_per_second * search_ms / 1e3 / _BUSY  # cores that one shard keeps busy
    copies = max(1, math.ceil(each / options.machine_cores))
    model_cores = options.queries_per_second * (costs.query_ms + costs.rank_ms) / 1e3 / _BUSY
    cores = math.ceil(model_cores + shards * each)
    memory = copies * shards * (costs.bytes_of(texts, "memory") + costs.process)
    memory += math.ceil(model_cores / options.machine_cores) * costs.process
    machines = max(math.ceil(cores / options.machine_cores), math.ceil(memory / fits), copies)
    vector_hours, store_hours = (options.texts * one / 3.6e6 for one in (costs.vector_ms, costs.store_ms))
    return Plan(
        shards=shards,
        shard_texts=math.ceil(texts),
        copies=copies,
        cores=cores,
        machines=machines,
        memory_gb=memory / _GB,
        disk_gb=copies * shards * costs.bytes_of(texts, "disk") / _GB,
        latency_ms=latency(shards),
        vector_core_hours=vector_hours,
        build_core_hours=vector_hours + store_hours,
        build_hours=(vector_hours + store_hours) / (machines * options.machine_cores),
    )


def measure(options: PlanOptions, folder: Path, large: int = LARGE) -> Costs:
    """Measure what texts, searches and models cost, on one core; writes into the folder."""
    from paddle_ranker.retrieval.vectors import normalised

    documents, schema = _documents(options, large)
    texts = [one.text for one in documents]
    queries = [text[:_QUERY_CHARACTERS] for text in texts[:: max(1, len(texts) // _QUERIES)]][:_QUERIES]
    if options.queries is not None:
        queries = [row.text for row in islice(RecordFile(options.queries, Text), _QUERIES)]
    tower, ranker = _models(options, folder, texts)
    vector_ms = query_ms = rank_ms = 0.0
    made, asked = None, None
    if tower is not None:
        load_faiss()
        vector_ms, read = _each_ms(tower.vectors, [schema.passage(one) for one in documents])
        query_ms, _ = _each_ms(tower.query_vectors, queries, at_once=1)
        made, asked = normalised(np.concatenate(read)), normalised(tower.query_vectors(queries))
    if ranker is not None:
        titles = [schema.passage(one) for one in documents[: options.rank_top]]
        rank_ms, _ = _each_ms(lambda some: ranker.score(some * len(titles), titles), queries, at_once=1)
        rank_ms *= options.rank_top / len(titles)
    draw = np.random.default_rng(0)

    def like(count: int) -> Optional[Vectors]:
        """Return vectors like those that were made: sums of two of them."""
        if made is None:
            return None
        first, second = draw.integers(0, len(made), (2, count))
        found: Vectors = normalised(made[first] + made[second] * draw.random((count, 1), np.float32))
        return found

    def index(count: int) -> tuple[Sizes, float]:
        built = folder / f"index-{count}"
        return _index(built, options, schema, documents[:count], like(count), queries, asked)

    (few, _), (many, store_ms) = index(len(documents) // TIMES), index(len(documents))
    process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Costs(few, many, store_ms, vector_ms, query_ms, rank_ms, process, options.method)


def _documents(options: PlanOptions, count: int) -> tuple[list[Document], Schema]:
    from paddle_ranker.retrieval.indexes import Document

    if options.corpus is None:
        titles = dict.fromkeys(islice((text for triple in triples(7) for text in triple), 4 * count))
        rows = [DocumentRow(text) for text in islice(titles, count)]
    else:
        rows = [*islice(RecordFile(options.corpus, DocumentRow, options, joins_title=False), count)]
    if len(rows) < _LEAST:
        raise DataError(f"{options.corpus}: {len(rows):,} texts; a plan needs {_LEAST:,} of them at least")
    return [Document(str(number), row.text, row.fields) for number, row in enumerate(rows)], infer(rows)


def _models(options: PlanOptions, folder: Path, texts: Sequence[str]) -> tuple[Optional[Tower], Optional[Ranker]]:
    from paddle_ranker.retrieval.vectors import Tower
    from paddle_ranker.scoring.ranker import Ranker

    encoder, tower = "", None
    if None in (options.tower, options.ranker):
        encoder = _random_encoder(folder, texts)
    if options.tower != NONE:
        load = LoadOptions(device="cpu", threads=1, pooling=None if options.tower else "mean")
        tower = Tower.open(options.tower or encoder, load, for_search=True)
    if options.ranker == NONE:
        return tower, None
    return tower, Ranker.load(options.ranker or _random_ranker(Path(encoder)), device="cpu", threads=1)


def _random_encoder(folder: Path, texts: Sequence[str]) -> str:
    from paddle_ranker.commands.starter import StarterOptions, make_starter

    (folder / "texts.txt").write_text("".join(f"{' '.join(text.split())}\n" for text in texts), encoding="utf-8")
    made = StarterOptions(
        corpus=str(folder / "texts.txt"),
        output_dir=str(folder / "encoder"),
        num_hidden_layers=_LAYERS,
        hidden_size=_WIDTH,
        num_attention_heads=_HEADS,
    )
    return str(make_starter(made))


def _random_ranker(encoder: Path) -> str:
    from paddle_ranker.encoding.pair_encoder import PairEncoder
    from paddle_ranker.model.families import read_config
    from paddle_ranker.model.folder import save_ranker
    from paddle_ranker.model.info import RankerInfo
    from paddle_ranker.model.network import RankerNetwork

    pairs, folder = PairEncoder.from_folder(encoder, 128), encoder.parent / "ranker"
    config = read_config(encoder)
    assert config is not None  # the starter has written one
    network = RankerNetwork(config, None)
    network.eval()
    folder.mkdir()
    save_ranker(folder, network, pairs, RankerInfo(kind="pairwise", max_seq_length=128, match_embeddings=False))
    return str(folder)


def _each_ms(
    compute: Callable[[list[str]], object], texts: Sequence[str], at_once: int = 64
) -> tuple[float, list[Vectors]]:
    """Return the processor milliseconds of each text, some at once for some seconds, and the results."""
    compute([*texts[:at_once]])  # compiles, and warms caches
    end, spent, done, found = time.monotonic() + _SECONDS, 0.0, 0, []
    for start in range(0, len(texts), at_once):
        some = [*texts[start : start + at_once]]
        began = time.process_time()
        found.append(np.asarray(compute(some)))
        spent, done = spent + time.process_time() - began, done + len(some)
        if time.monotonic() > end:
            break
    return 1e3 * spent / done, found


def _index(
    folder: Path,
    options: PlanOptions,
    schema: Schema,
    documents: Sequence[Document],
    vectors: Optional[Vectors],
    queries: Sequence[str],
    asked: Optional[Vectors],
) -> tuple[Sizes, float]:
    """Build an index and search it; return what it takes, and the processor milliseconds of storing a document."""
    from paddle_ranker.retrieval.collection import WORDS, Collection

    info = IndexInfo(WordsInfo("standard"), None, schema=schema)
    if vectors is not None:
        info = replace(info, vectors=VectorsInfo(options.method, vectors.shape[1]))
    waiting = iter(() if vectors is None else [*vectors])
    with Collection.create(folder, info) as collection:
        began = time.process_time()
        collection.add(documents, lambda texts: np.stack([*islice(waiting, len(texts))]))
        collection.merge(None)
        store_ms = 1e3 * (time.process_time() - began) / len(documents)
        files = [path for path in folder.rglob("*") if path.is_file()]
        disk = sum(path.stat().st_size for path in files)
        read = disk - sum(path.stat().st_size for path in files if path.name == "documents.jsonl")
        words_ms = _search_ms(collection, WORDS, [[one] for one in queries])
        vectors_ms = 0.0 if asked is None else _search_ms(collection, VECTORS, [one[None] for one in asked])
    return Sizes(len(documents), disk, read, words_ms, vectors_ms), store_ms


def _search_ms(collection: Collection, by: str, queries: Sequence[Sequence[str]] | Sequence[Vectors]) -> float:
    """Return the processor milliseconds of a query, the least of some rounds."""
    spent = []
    for _ in range(_SEARCHED):
        began = time.process_time()
        for query in queries:
            collection.search(by, query, DEPTH)
        spent.append(time.process_time() - began)
    return 1e3 * min(spent) / len(queries)


def _assumptions(options: PlanOptions) -> Iterator[str]:
    tower, ranker = options.tower != NONE, options.ranker != NONE
    yield "one core here is like one core there; texts and queries are like those that were measured"
    yield "searches by words take time in proportion to a shard's texts, at most"
    if tower:
        grows = "with the logarithm of" if options.method == FAISS else "in proportion to"
        yield f"searches by vectors take time {grows} a shard's texts; sums of two vectors stand for the others'"
    if tower or ranker:
        yield f"models use all {options.machine_cores:,} cores of a machine for one query without loss, and no GPU"
    yield f"a call of all shards takes {_ROUND_MS:g} ms, a search {_ROUNDS} of them; {_BUSY:.0%} of the cores are busy"
    yield "the files that searches read stay in memory, texts on the disk; merging needs as much disk again for a while"


def _text(costs: Costs, plan: Plan, options: PlanOptions, seconds: float) -> Iterator[str]:
    many, few, shown = costs.large, costs.small, "the demo's titles" if options.corpus is None else options.corpus
    yield f"measured here in {seconds:.0f} s, on one core, with {many.documents:,} of {shown}:"
    yield f"  a text     {costs.vector_ms:.3g} ms for its vector, {costs.store_ms:.3g} ms for its words and index"
    disk, memory = (costs.bytes_of(1e6, name) / 1e6 for name in ("disk", "memory"))
    yield f"             {disk:,.0f} bytes on disk, of which searches read {memory:,.0f}"
    for one in (few, many):
        by = f"{one.words_ms:.3g} ms by words, {one.vectors_ms:.3g} ms by vectors"
        yield f"  a search   {by} of {one.documents:,} texts"
    ranked = f", {costs.rank_ms:.3g} ms for ranking {options.rank_top:,} texts" if costs.rank_ms else ""
    yield f"  a query    {costs.query_ms:.3g} ms for its vector{ranked}"
    asked = f"{options.queries_per_second:,g} queries a second, {options.latency_ms:g} ms each"
    yield f"planned for {options.texts:,.0f} texts, {asked}:"
    yield f"  shards     {plan.shards:,} of {plan.shard_texts:,} texts, {plan.copies:,} times each"
    machine = f"{options.machine_cores:,} cores and {options.machine_gb:g} GB"
    yield f"  machines   {plan.machines:,} of {machine}; {plan.cores:,} cores for searches"
    yield f"  memory     {plan.memory_gb:,.0f} GB; disk {plan.disk_gb:,.0f} GB"
    yield f"  a search   {plan.latency_ms:.3g} ms, where nothing waits"
    vectors, both, hours = map(_short, (plan.vector_core_hours, plan.build_core_hours, plan.build_hours))
    yield f"  building   {vectors} core hours for vectors, {both} in all; {hours} hours on these machines"
    yield "assumed, so that this is an extrapolation:"
    yield from (f"  - {one}" for one in _assumptions(options))


def _short(value: float) -> str:
    return f"{float(f'{value:.3g}'):,g}"


def plan(options: PlanOptions) -> None:
    """Print what a service takes."""
    runtime.prepare_command(1)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        costs = measure(options, Path(folder))
    found, seconds = plan_of(costs, options), time.monotonic() - began
    if options.format == "json":
        facts = {"measured": {**asdict(costs), "small": costs.small._asdict(), "large": costs.large._asdict()}}
        print(json_text({**facts, "plan": asdict(found), "assumed": [*_assumptions(options)]}))
        return
    for line in _text(costs, found, options, seconds):
        print(line)


main = main_of(plan, PlanOptions, __doc__)
