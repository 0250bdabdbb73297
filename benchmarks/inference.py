"""Time scoring on a CPU: this toolkit's engines, the published code, PyTorch, ONNX Runtime and OpenVINO, in turns.

python -m benchmarks.inference [--shapes nano,medium] [--threads 1,2] [--peer_python PYTHON] [--plot FILE.png]

All systems have the same weights and score the same pairs; their probabilities are compared first. Every system runs
in a separate process. The systems take turns in rounds, so that a busy moment of the machine affects all of them, and
are compared within each round. Unless a row says otherwise, texts are encoded beforehand.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Optional

import numpy as np

from benchmarks.harness.rankers import ALL_SHAPES, FAMILY_SHAPES, export_peers, export_rankers, prepare_ranker
from benchmarks.harness.report import write_report
from benchmarks.harness.workers import Worker, Workers, leave_out, missing_packages, require_some
from benchmarks.inference_report import Measured, goals, shown_tables, values_of, write_plot
from benchmarks.inputs import PeerOptions, chosen, parse_numbers
from benchmarks.peers.inference_work import (
    InferenceWork,
    Pairs,
    load_inference_work,
    matrix_product_operations,
    save_inference_work,
    sigmoid,
)
from benchmarks.training import PUBLISHED_LENGTH
from paddle_ranker import runtime
from paddle_ranker.errors import RankerError, UsageError
from paddle_ranker.options import main_of, option
from paddle_ranker.scoring.engines.precisions import has_bf16

TOLERANCE = 1e-5
PARTS = ("offline", "latency", "start")
PADDED_PAIRS = 32  # one batch
FIRST_TITLES = 10  # number of titles whose scores end a start


@dataclass(frozen=True)
class System:
    """A measured system, one row of the table.

    precision: a peer is compared with this toolkit's systems of the same precision
    packages: modules that the system's environment must have
    exact: its probabilities may differ from those of the other exact systems by rounding only
    peer: it runs in the environment of `--peer_python`
    padded: every pair costs the same, so a few pairs suffice
    slow_start: compiling takes long, so it is started only once
    texts: the encoding of the texts is timed too
    baseline: the goals demand that this toolkit is faster; otherwise the system is only shown
    """

    name: str
    title: str
    precision: str = "fp32"
    packages: tuple[str, ...] = ()
    exact: bool = True
    peer: bool = False
    padded: bool = False
    slow_start: bool = False
    texts: bool = False
    baseline: bool = False

    @property
    def ours(self) -> bool:
        return self.name.startswith("ours")

    @property
    def ernie(self) -> bool:
        """Return True if it runs only ERNIE's and BERT's shapes."""
        return self.name.startswith(("published", "sentence_transformers"))

    @property
    def needs_onnx(self) -> bool:
        """Return True if it is a system of this toolkit that reads the exported ONNX file."""
        return self.name.startswith(("ours_onnx", "ours_openvino"))

    @property
    def is_compared(self) -> bool:
        """Return True if peers are compared with it: a system of this toolkit that runs the same plain model."""
        return self.ours and not self.texts and not self.name.endswith(("_match", "_dygraph"))


_PADDLE, _NLP = ("paddle",), ("paddle", "paddlenlp")
_TORCH, _ST = ("torch", "transformers"), ("torch", "sentence_transformers")
_ORT, _OV = ("onnxruntime",), ("openvino",)

SYSTEMS = [
    System("ours_inference", "ours: Paddle Inference", packages=_PADDLE),
    System("ours_onnx", "ours: ONNX Runtime", packages=_ORT),
    System("ours_openvino", "ours: OpenVINO", packages=_OV),
    System("ours_inference_bf16", "ours: Paddle Inference bf16", "bf16", _PADDLE, exact=False),
    System("ours_openvino_bf16", "ours: OpenVINO bf16", "bf16", _OV, exact=False),
    System("ours_onnx_int8", "ours: ONNX Runtime int8", "int8", _ORT, exact=False),
    System("ours_openvino_int8", "ours: OpenVINO int8", "int8", _OV, exact=False),
    System("ours_dygraph", "ours: dygraph", packages=_PADDLE),
    System("ours_inference_match", "ours: Paddle Inference, match embeddings", packages=_PADDLE, exact=False),
    System("ours_openvino_match", "ours: OpenVINO, match embeddings", packages=_OV, exact=False),
    System("ours_inference_texts", "ours: Paddle Inference, from texts", packages=_PADDLE, texts=True),
    System("ours_openvino_texts", "ours: OpenVINO, from texts", packages=_OV, texts=True),
    System("published", "published: eager, padded", packages=_NLP, padded=True),
    System("published_inference", "published model in Paddle Inference, padded", packages=_NLP, padded=True),
    System("torch", "transformers, eager", packages=_TORCH, peer=True, baseline=True),
    System("torch_compiled", "transformers, compiled and frozen", packages=_TORCH, peer=True, slow_start=True,
           baseline=True),
    System("sentence_transformers", "sentence-transformers, from texts", packages=_ST, peer=True, texts=True,
           baseline=True),
    System("onnxruntime", "transformers' ONNX in ONNX Runtime", packages=_ORT, peer=True, baseline=True),
    System("openvino", "transformers' ONNX in OpenVINO", packages=_OV, peer=True, baseline=True),
    System("torch_bf16", "transformers bf16, eager", "bf16", _TORCH, exact=False, peer=True, baseline=True),
    System("torch_compiled_bf16", "transformers bf16, compiled and frozen", "bf16", _TORCH, exact=False, peer=True,
           slow_start=True, baseline=True),
    System("sentence_transformers_bf16", "sentence-transformers bf16, from texts", "bf16", _ST, exact=False, peer=True,
           texts=True, baseline=True),
    System("openvino_bf16", "transformers' ONNX in OpenVINO bf16", "bf16", _OV, exact=False, peer=True, baseline=True),
    System("onnxruntime_int8", "transformers' ONNX in ONNX Runtime, dynamic int8", "int8", _ORT, exact=False,
           peer=True, baseline=True),
]  # fmt: skip

EXPORT_PACKAGES = ("torch", "transformers", "onnx", "onnxruntime")  # packages for writing the peers' ONNX files


@dataclass(frozen=True)
class InferenceBenchmarkOptions(PeerOptions):
    """Options of `python -m benchmarks.inference`."""

    shapes: str = option("nano,medium", help=f"encoders, comma-separated, from {', '.join(ALL_SHAPES)}")
    systems: str = option("all", help=f"rows, comma-separated, from {', '.join(s.name for s in SYSTEMS)}")
    parts: str = option("all", help=f"measurements, comma-separated, from {', '.join(PARTS)}")
    threads: str = option("1", help="threads of every system, comma-separated, one table each")
    pairs: int = option(256, help="pairs a round", minimum=1)
    rounds: int = option(5, help="timed rounds", minimum=2)
    titles: str = option("10,50,100", help="numbers of titles of a query whose latency is measured")
    queries: int = option(10, help="queries per number of titles", minimum=1)
    starts: int = option(3, help="fresh processes a system", minimum=1)
    batch_size: int = option(32, help="pairs per batch of the peers", minimum=1)
    seed: int = option(1000, help="random seed of the pairs and the parameters", minimum=0)
    plot: Optional[str] = option(None, help="PNG file for a plot of the offline speeds")


@dataclass
class Run:
    """The results for a shape and a number of threads, shown in one table."""

    shape: str
    threads: int
    pairs: str
    systems: list[Measured] = field(default_factory=list)
    peak: dict[str, float] = field(default_factory=dict)  # GFLOP/s by precision
    operations: float = 0.0  # for the matrix products of one pair
    import_seconds: list[float] = field(default_factory=list)


def run(options: InferenceBenchmarkOptions) -> None:
    """Print the tables for each shape and number of threads; write the plot and the JSON file."""
    shapes = [Path(options.model).name] if options.model else chosen("shapes", options.shapes, list(ALL_SHAPES))
    parts = chosen("parts", options.parts, PARTS)
    threads, titles = parse_numbers(options.threads, "threads"), parse_numbers(options.titles, "titles")
    all_systems = available(options)
    runs = []
    for shape in shapes:
        systems = [system for system in all_systems if shape not in FAMILY_SHAPES or not system.ernie]
        with tempfile.TemporaryDirectory() as folder:
            prepare(options, shape, Path(folder), max(titles), systems)
            for count in threads:
                runs.append(measure(options, shape, count, parts, titles, systems, Path(folder)))
                print(shown_tables(runs[-1]), flush=True)
                for goal in goals(runs[-1]):
                    print(goal)
    if options.plot:
        write_plot(Path(options.plot), runs)
        print(f"plot: {options.plot}")
    write_report(options.json, values_of(options, runs))


def available(options: InferenceBenchmarkOptions) -> list[System]:
    """Return the chosen systems that can run here; print each ignored system with the package that it lacks."""
    names = chosen("systems", options.systems, [system.name for system in SYSTEMS])
    wanted = [system for system in SYSTEMS if system.name in names]
    needed = sorted({package for system in wanted for package in system.packages} | set(EXPORT_PACKAGES))
    missing = {peer: missing_packages(python, needed) for peer, python in
               ((True, options.peer_python), (False, sys.executable))}  # fmt: skip

    def lacks(system: System) -> list[str]:
        # Making the peers' ONNX files needs more packages than running them.
        from_file = system.peer and system.name.startswith(("onnxruntime", "openvino"))
        found = set(system.packages + (EXPORT_PACKAGES if from_file else ())) & missing[system.peer]
        if system.needs_onnx and metadata.version("paddlepaddle").startswith("2."):
            found.add("Paddle 3, which writes ONNX files")
        if system.precision == "bf16" and not has_bf16():
            found.add("a processor with bfloat16")
        return sorted(found)

    found = leave_out(wanted, lacks)
    if options.model:
        found = require_some([s for s in found if not s.name.endswith("_match")])
    return found


def prepare(
    options: InferenceBenchmarkOptions, shape: str, folder: Path, titles: int, systems: Sequence[System]
) -> None:
    """Write the workers' input into `folder`: the pairs, a ranker, its exports, and the peers' model."""
    runtime.prepare_command(0)
    found = prepare_ranker(options, shape, options.seed, folder)
    graded, pair_encoder = found.graded, found.pair_encoder
    needed = options.pairs + options.queries
    if len(graded) < needed:
        raise UsageError(f"{found.file} holds {len(graded)} pairs, fewer than --pairs and --queries together: {needed}")
    order = np.random.default_rng(options.seed).permutation(len(graded))
    offline = [graded[row] for row in order[: options.pairs]]
    queries, texts = [pair.query for pair in offline], [pair.title for pair in offline]
    for number in range(options.queries):
        # A query has few titles; other queries' titles complete the list.
        query = graded[order[options.pairs + number]].query
        drawn = np.random.default_rng([options.seed, number]).integers(len(graded), size=titles)
        queries += [query] * titles
        texts += [graded[row].title for row in drawn]
    work = InferenceWork(
        shape=found.config,
        pad_id=pair_encoder.pad_id,
        max_seq_length=PUBLISHED_LENGTH,
        batch_size=options.batch_size,
        padded_length=PUBLISHED_LENGTH,
        threads=1,
        offline=options.pairs,
        queries=options.queries,
        latency_titles=titles,
    )
    encoded = pair_encoder.encode(queries, texts)
    save_inference_work(folder, work, Pairs(queries, texts, encoded))
    export_rankers(folder, encoded, onnx=any(system.needs_onnx for system in systems))
    if any(system.peer for system in systems) and not missing_packages(options.peer_python, EXPORT_PACKAGES):
        export_peers(options.peer_python, folder)


def measure(
    options: InferenceBenchmarkOptions,
    shape: str,
    threads: int,
    parts: Sequence[str],
    titles: Sequence[int],
    systems: Sequence[System],
    folder: Path,
) -> Run:
    """Measure the systems on the work in `folder`.

    Raises `RankerError` if a process ends, or if the probabilities of a system that should be exact are not.
    """
    work, pairs = _with_threads(folder, threads)
    lengths = pairs.encoded.lengths[: work.offline]
    result = Run(shape, threads, f"{work.offline} pairs, {lengths.mean():.1f} tokens each")
    result.operations = matrix_product_operations(work.shape, lengths) / work.offline
    with Workers() as workers:
        for system in systems:
            worker = start_worker(system, folder, threads, options.peer_python)
            workers.add(worker)
            worker.ask(do="latency", query=0, titles=min(FIRST_TITLES, work.latency_titles))
            result.systems.append(Measured(system, first_start=_since(worker)))
        _compare_scores(result, workers.by_name, work)
        if "offline" in parts:
            products = start_matrix_products(folder, threads, options.peer_python)
            if products:
                workers.callback(products.close)
            _offline(options, result, workers, products)
        if "latency" in parts:
            _latency(options, result, workers.by_name, titles)
        for measured in result.systems:
            measured.peak_mb = workers.by_name[measured.system.name].ask(do="memory")["peak_mb"]
    if "start" in parts:
        _starts(options, result, folder, min(FIRST_TITLES, work.latency_titles))
    return result


def _since(worker: Worker) -> float:
    return time.perf_counter() - worker.started


def _with_threads(folder: Path, threads: int) -> tuple[InferenceWork, Pairs]:
    work, pairs = load_inference_work(folder)
    work = dataclasses.replace(work, threads=threads)
    save_inference_work(folder, work, pairs)
    return work, pairs


def _compare_scores(result: Run, workers: dict[str, Worker], work: InferenceWork) -> None:
    """Set each system's largest difference in probability from the median of the exact systems."""
    found = {}
    for measured in result.systems:
        count = min(work.offline, PADDED_PAIRS) if measured.system.padded else work.offline
        found[measured.system.name] = sigmoid(workers[measured.system.name].ask(do="scores", pairs=count)["logits"])
    exact = [found[m.system.name] for m in result.systems if m.system.exact and not m.system.padded]
    if not exact:
        return
    expected = np.median(exact, axis=0)
    for measured in result.systems:
        if measured.system.name.endswith("_match"):
            continue  # it runs another model
        own = found[measured.system.name]
        measured.difference = float(np.abs(own - expected[: len(own)]).max())
        if measured.system.exact and not measured.difference <= TOLERANCE:
            raise RankerError(
                f"the probabilities of {measured.system.name} are off by {measured.difference:.1e}, more than "
                f"{TOLERANCE:g}: its speed means nothing; leave it out with --systems, and report it"
            )


def _offline(options: InferenceBenchmarkOptions, result: Run, workers: Workers, products: Optional[Worker]) -> None:
    by_name = {measured.system.name: measured for measured in result.systems}

    def command(name: str) -> dict[str, object]:
        padded = by_name[name].system.padded
        return {"do": "offline", "pairs": min(PADDED_PAIRS, options.pairs) if padded else options.pairs}

    for _ in range(options.rounds):
        for name, answer in workers.take_turns(command):
            by_name[name].add(answer, "pairs")
        if products:
            for precision, speed in products.ask().items():
                result.peak[precision] = max(result.peak.get(precision, 0.0), speed)


def _latency(
    options: InferenceBenchmarkOptions, result: Run, workers: dict[str, Worker], titles: Sequence[int]
) -> None:
    for count in titles:
        for query in range(options.queries):
            for measured in result.systems:
                worker = workers[measured.system.name]
                if query == 0:
                    worker.ask(do="latency", query=query, titles=count)  # an engine prepares for a new batch shape once
                seconds = worker.ask(do="latency", query=query, titles=count)["seconds"]
                measured.latencies.setdefault(count, []).append(seconds * 1000)


def _starts(options: InferenceBenchmarkOptions, result: Run, folder: Path, titles: int) -> None:
    for _ in range(options.starts):
        for measured in result.systems:
            if measured.system.slow_start:
                measured.starts = [measured.first_start]
            else:
                seconds = seconds_to_first_score(measured.system, folder, result.threads, options.peer_python, titles)
                measured.starts.append(seconds)
        result.import_seconds.append(seconds_of_import("paddle"))


def start_worker(system: System, folder: Path, threads: int, peer_python: str) -> Worker:
    """Start a system's process; its first answer is that it is ready."""
    python = peer_python if system.peer else sys.executable
    command = [python, "-m", "benchmarks.peers.inference_worker", system.name, str(folder)]
    return Worker(system.name, command, threads, folder / f"{system.name}.log")


def start_matrix_products(folder: Path, threads: int, peer_python: str) -> Optional[Worker]:
    """Start the process that measures the processor's matrix products; return None if it has no library for them."""
    process = Worker(
        "matrix products",
        [peer_python, "-m", "benchmarks.peers.matrix_products", str(threads)],
        threads,
        folder / "matrix_products.log",
    )
    if process.answer()["ready"]:
        return process
    process.close()
    return None


def seconds_to_first_score(system: System, folder: Path, threads: int, peer_python: str, titles: int) -> float:
    """Return the seconds from the start of a new process until it has scored the first `titles` of one query."""
    worker = start_worker(system, folder, threads, peer_python)
    try:
        worker.answer()
        worker.ask(do="latency", query=0, titles=titles)
        return time.perf_counter() - worker.started
    finally:
        worker.close()


def seconds_of_import(module: str) -> float:
    """Return the seconds that a new process takes to import a module and end."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True, check=True)
    return time.perf_counter() - start


main = main_of(run, InferenceBenchmarkOptions, (__doc__ or "").split("\n")[0])


if __name__ == "__main__":
    sys.exit(main())
