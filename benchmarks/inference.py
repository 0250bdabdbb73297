"""Time scoring: this toolkit's engines, the published code, PyTorch, ONNX Runtime and OpenVINO, in turns.

python -m benchmarks.inference [--shapes nano,medium] [--threads 1,2] [--peer_python PYTHON]
python -m benchmarks.inference --device gpu --shapes medium --pairs 4096 --batch_size 256
python -m benchmarks.inference --shapes modernbert-base --tokens 4096 --pairs 1 --systems ours_openvino,torch

All systems have the same weights and score the same pairs; their probabilities are compared first. Every system runs
in a separate process. The systems take turns in rounds, so that a busy moment of the machine affects all of them, and
are compared within each round. Unless a row says otherwise, texts are encoded beforehand.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

import numpy as np
import paddle

from benchmarks.harness.rankers import ALL_SHAPES, FAMILY_SHAPES, export_peers, export_ranker, prepare_ranker
from benchmarks.harness.report import Goal, Speeds, format_table, median_and_range, ratio
from benchmarks.harness.workers import Worker, Workers, leave_out, missing_packages
from benchmarks.inputs import DEVICES, PeerOptions, chosen, parse_numbers
from benchmarks.peers.inference_work import InferenceWork, Pairs, load_inference_work, save_inference_work
from benchmarks.training import PUBLISHED_LENGTH, SEED
from paddle_ranker import runtime
from paddle_ranker.errors import RankerError, UsageError
from paddle_ranker.metrics.calibration import sigmoid
from paddle_ranker.options import main_of, option
from paddle_ranker.scoring.engines.precisions import has_bf16

TOLERANCE = 1e-5
PADDED_PAIRS = 32  # one batch
FASTER_THAN_BASELINES = {"fp32": 1.15, "bf16": 1.0, "fp16": 1.0, "int8": 1.0}
FASTER_THAN_PUBLISHED = {"fp32": 25.0, "bf16": 40.0}
PUBLISHED_GOAL_SHAPE = "nano"
LONG, LONG_FASTER_THAN_TORCH = 4096, 2.0  # tokens of a pair, and times PyTorch's rate


@dataclass(frozen=True)
class System:
    """A measured system, one row of the table.

    precision: a peer is compared with this toolkit's systems of the same precision
    packages: modules that the system's environment must have
    exact: its probabilities may differ from those of the other exact systems by rounding only
    peer: it runs in the environment of `--peer_python`
    padded: every pair costs the same, so a few pairs suffice
    baseline: the goals demand that this toolkit is faster; otherwise the system is only shown
    """

    name: str
    title: str
    precision: str = "fp32"
    packages: tuple[str, ...] = ()
    exact: bool = True
    peer: bool = False
    padded: bool = False
    baseline: bool = False

    @property
    def ours(self) -> bool:
        return self.name.startswith("ours")

    @property
    def ernie(self) -> bool:
        """Return True if it runs only ERNIE's and BERT's shapes."""
        return self.name.startswith(("published", "sentence_transformers"))

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices that it runs on."""
        if self.precision == "fp16":
            return ("gpu",)
        return ("cpu",) if self.precision == "int8" or "openvino" in self.name else DEVICES

    @property
    def from_file(self) -> bool:
        """Return True if it is a peer that reads transformers' ONNX file."""
        return self.name.startswith(("onnxruntime", "openvino"))

    @property
    def needs_onnx(self) -> bool:
        """Return True if it is a system of this toolkit that reads the exported ONNX file."""
        return self.name.startswith(("ours_onnx", "ours_openvino"))


_PADDLE, _NLP = ("paddle",), ("paddle", "paddlenlp")
_TORCH, _ST = ("torch", "transformers"), ("torch", "sentence_transformers")
_ORT, _OV = ("onnxruntime",), ("openvino",)

SYSTEMS = [
    System("ours_inference", "ours: Paddle Inference", packages=_PADDLE),
    System("ours_onnx", "ours: ONNX Runtime", packages=_ORT),
    System("ours_openvino", "ours: OpenVINO", packages=_OV),
    System("ours_inference_bf16", "ours: Paddle Inference bf16", "bf16", _PADDLE, exact=False),
    System("ours_inference_fp16", "ours: Paddle Inference fp16", "fp16", _PADDLE, exact=False),
    System("ours_openvino_bf16", "ours: OpenVINO bf16", "bf16", _OV, exact=False),
    System("ours_onnx_int8", "ours: ONNX Runtime int8", "int8", _ORT, exact=False),
    System("ours_openvino_int8", "ours: OpenVINO int8", "int8", _OV, exact=False),
    System("published", "published: eager, padded", packages=_NLP, padded=True),
    System("torch", "transformers, eager", packages=_TORCH, peer=True, baseline=True),
    System("torch_compiled", "transformers, compiled and frozen", packages=_TORCH, peer=True, baseline=True),
    System("sentence_transformers", "sentence-transformers, from texts", packages=_ST, peer=True,
           baseline=True),
    System("onnxruntime", "transformers' ONNX in ONNX Runtime", packages=_ORT, peer=True, baseline=True),
    System("openvino", "transformers' ONNX in OpenVINO", packages=_OV, peer=True, baseline=True),
    System("torch_bf16", "transformers bf16, eager", "bf16", _TORCH, exact=False, peer=True, baseline=True),
    System("torch_fp16", "transformers fp16, eager", "fp16", _TORCH, exact=False, peer=True, baseline=True),
    System("torch_compiled_bf16", "transformers bf16, compiled and frozen", "bf16", _TORCH, exact=False, peer=True,
           baseline=True),
    System("sentence_transformers_bf16", "sentence-transformers bf16, from texts", "bf16", _ST, exact=False, peer=True,
           baseline=True),
    System("openvino_bf16", "transformers' ONNX in OpenVINO bf16", "bf16", _OV, exact=False, peer=True, baseline=True),
    System("onnxruntime_int8", "transformers' ONNX in ONNX Runtime, dynamic int8", "int8", _ORT, exact=False,
           peer=True, baseline=True),
]  # fmt: skip

EXPORT_PACKAGES = ("torch", "transformers", "onnx", "onnxruntime")  # packages for writing the peers' ONNX files


@dataclass(frozen=True)
class InferenceBenchmarkOptions(PeerOptions):
    shapes: str = option("nano,medium", help=f"encoders, comma-separated, from {', '.join(ALL_SHAPES)}")
    systems: str = option("all", help=f"rows, comma-separated, from {', '.join(s.name for s in SYSTEMS)}")
    device: str = option("cpu", help="device of every system", choices=DEVICES)
    threads: str = option("1", help="threads of every system, comma-separated, one table each")
    pairs: int = option(256, help="pairs a round", minimum=1)
    tokens: int = option(
        0, help="tokens of each pair, whose title is then repeated; 0: pairs as they are, cut to 128", minimum=0
    )
    rounds: int = option(5, help="timed rounds", minimum=2)
    batch_size: int = option(32, help="pairs per batch of the peers", minimum=1)


@dataclass
class Measured(Speeds):
    """A system's pairs per second, and its largest difference of a probability from the exact systems, if compared."""

    difference: Optional[float] = None

    @property
    def speed(self) -> float:
        """Return pairs per second by the clock, the median of the rounds."""
        return statistics.median(self.by_clock)


@dataclass
class Run:
    """The results for a shape and a number of threads (or the GPU), shown in one table."""

    shape: str
    threads: int
    pairs: str
    systems: dict[System, Measured] = field(default_factory=dict)
    tokens: int = 0  # of each pair, if all have as many

    def best_of(self, precision: str, *, ours: bool, prefix: str = "") -> Optional[System]:
        """Return the fastest system of a precision, of ours or of the baselines, whose name starts with `prefix`."""
        named = [s for s in self.systems if s.precision == precision and s.name.startswith(prefix)]
        own = [s for s in named if (s.ours if ours else s.baseline)]
        return max(own, key=lambda system: self.systems[system].speed, default=None)


def run(options: InferenceBenchmarkOptions) -> None:
    shapes = [Path(options.model).name] if options.model else chosen("shapes", options.shapes, list(ALL_SHAPES))
    threads, all_systems = parse_numbers(options.threads, "threads"), available(options)
    for shape in shapes:
        systems = [system for system in all_systems if shape not in FAMILY_SHAPES or not system.ernie]
        with tempfile.TemporaryDirectory() as folder:
            prepare(options, shape, Path(folder), systems)
            for count in threads:
                found = measure(options, shape, count, systems, Path(folder))
                print(shown_table(found), *goals(found), sep="\n", flush=True)


def available(options: InferenceBenchmarkOptions) -> list[System]:
    """Return the chosen systems that can run here; print each ignored system with the package that it lacks."""
    names = chosen("systems", options.systems, [system.name for system in SYSTEMS])
    wanted = [system for system in SYSTEMS if system.name in names and options.device in system.devices]
    needed = sorted({package for system in wanted for package in system.packages} | set(EXPORT_PACKAGES))
    missing = {peer: missing_packages(python, needed) for peer, python in
               ((True, options.peer_python), (False, sys.executable))}  # fmt: skip

    def lacks(system: System) -> list[str]:
        # Making the peers' ONNX files needs more packages than running them.
        found = set(system.packages + (EXPORT_PACKAGES if system.from_file else ())) & missing[system.peer]
        if system.needs_onnx and paddle.__version__.startswith("2."):
            found.add("Paddle 3, which writes ONNX files")
        if system.precision == "bf16" and options.device == "cpu" and not has_bf16():
            found.add("a processor with bfloat16")
        return sorted(found)

    return leave_out(wanted, lacks)


def prepare(options: InferenceBenchmarkOptions, shape: str, folder: Path, systems: Sequence[System]) -> None:
    """Write the workers' input into `folder`: the pairs, a ranker, its exports, and the peers' model."""
    runtime.prepare_command(0)
    length = options.tokens or PUBLISHED_LENGTH
    found = prepare_ranker(options, shape, SEED, folder, length)
    graded, encoder = found.graded, found.pair_encoder
    if len(graded) < options.pairs:
        raise UsageError(f"{found.file} holds {len(graded)} pairs, fewer than --pairs {options.pairs}")
    order = np.random.default_rng(SEED).permutation(len(graded))[: options.pairs]
    queries, titles = [graded[row].query for row in order], [graded[row].title for row in order]
    if options.tokens:
        titles = [" ".join([title] * length) for title in titles]  # at least one token each
    encoded = encoder.encode(queries, titles)
    work = InferenceWork(found.config, encoder.pad_id, length, options.batch_size, PUBLISHED_LENGTH, 1, options.device)
    save_inference_work(folder, work, Pairs(queries, titles, encoded))
    int8 = any(system.ours and system.precision == "int8" for system in systems)
    export_ranker(folder, encoded, onnx=any(system.needs_onnx for system in systems), int8=int8)
    if any(system.from_file for system in systems) and not missing_packages(options.peer_python, EXPORT_PACKAGES):
        export_peers(options.peer_python, folder)


def measure(
    options: InferenceBenchmarkOptions, shape: str, threads: int, systems: Sequence[System], folder: Path
) -> Run:
    """Measure the systems on the work in `folder`.

    Raises `RankerError` if a process ends, or if the probabilities of a system that should be exact are not.
    """
    work, pairs = load_inference_work(folder)
    save_inference_work(folder, dataclasses.replace(work, threads=threads), pairs)
    count, tokens = len(pairs.queries), pairs.encoded.lengths.mean()
    by_name = {system.name: system for system in systems}
    shown = f"{count} pairs, {tokens:.1f} tokens each"
    result = Run(shape, threads, shown, {system: Measured() for system in systems}, options.tokens)

    def command(name: str) -> dict[str, object]:
        return {"pairs": min(PADDED_PAIRS, count) if by_name[name].padded else count}

    with Workers() as workers:
        for system in systems:
            python = options.peer_python if system.peer else sys.executable
            line = [python, "-m", "benchmarks.peers.inference_worker", system.name, str(folder)]
            workers.add(Worker(system.name, line, threads, folder / f"{system.name}.log"))
        compare_scores(
            result, {name: worker.ask(**command(name))["logits"] for name, worker in workers.by_name.items()}
        )
        for _ in range(options.rounds):
            for name, answer in workers.take_turns(command):
                result.systems[by_name[name]].add(answer, "pairs")
    return result


def compare_scores(result: Run, logits: Mapping[str, Sequence[float]]) -> None:
    """Set each system's largest difference in probability from the median of the exact systems."""
    found = {name: np.asarray(sigmoid(np.array(values))) for name, values in logits.items()}
    exact = [found[system.name] for system in result.systems if system.exact and not system.padded]
    if not exact:
        return
    expected = np.median(exact, axis=0)
    for system, measured in result.systems.items():
        own = found[system.name]
        measured.difference = float(np.abs(own - expected[: len(own)]).max())
        if system.exact and not measured.difference <= TOLERANCE:
            raise RankerError(
                f"the probabilities of {system.name} are off by {measured.difference:.1e}, more than {TOLERANCE:g}: "
                "its speed means nothing; leave it out with --systems, and report it"
            )


def goals(run: Run) -> Iterator[Goal]:
    """Yield the goals: this toolkit's best system must be faster than the best baseline and the published code."""
    where = f"{run.shape}, {run.threads} thread{'s' if run.threads > 1 else ''}"
    published = next((system for system in run.systems if system.name == "published"), None)
    is_long = run.tokens >= LONG
    for precision, usual in FASTER_THAN_BASELINES.items():
        target = LONG_FASTER_THAN_TORCH if is_long else usual
        best = run.best_of(precision, ours=True)
        baseline = run.best_of(precision, ours=False, prefix="torch" if is_long else "")
        rivals = [(baseline, f"{baseline.name}", target)] if baseline else []
        if published and precision in FASTER_THAN_PUBLISHED and run.shape == PUBLISHED_GOAL_SHAPE:
            rivals.append((published, "the published way", FASTER_THAN_PUBLISHED[precision]))
        for rival, name, wanted in rivals if best else ():
            assert best
            found = ratio(run.systems[best].by_clock, run.systems[rival].by_clock)
            what = f"{where}, {precision}: {best.name} against {name} [{found.low:.2f}, {found.high:.2f}], times"
            yield Goal(what, found.estimate, wanted)


def shown_table(run: Run) -> str:
    """Return the table of the results, with lines on the pairs and on the columns."""
    rows = []
    for system, measured in run.systems.items():
        best = run.best_of(system.precision, ours=True) or run.best_of("bf16", ours=True)
        against = ratio(run.systems[best].by_clock, measured.by_clock) if best and best is not system else None
        off_by = "" if measured.difference is None else f"{measured.difference:.0e}"
        speed, by_processor = median_and_range(measured.by_clock, 1), f"{statistics.median(measured.by_processor):.1f}"
        rows.append([system.title, off_by, speed, by_processor, f"{against:.2f}" if against else ""])
    return "\n".join(
        [
            f"\n{run.shape}: {run.pairs}; threads: {run.threads}",
            format_table(["system", "off by", "pairs/s", "a processor s", "ours / it"], rows),
            "ours / it: the fastest of ours in that precision, over the row",
        ]
    )


main = main_of(run, InferenceBenchmarkOptions, (__doc__ or "").split("\n")[0])


if __name__ == "__main__":
    sys.exit(main())
