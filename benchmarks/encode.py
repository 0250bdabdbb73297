"""Time the encoding of texts on a CPU: this toolkit's engines, sentence-transformers, ONNX Runtime and OpenVINO.

python -m benchmarks.encode --model M3E [--peer_python PYTHON] [--systems NAMES] [--rounds 5]

All systems have the same weights and encode the same texts, tokenization included; their vectors are compared first.
Every system runs in a separate process. The systems take turns in rounds, and are compared within each round.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np

from benchmarks.harness.report import Goal, Speeds, format_table, goal_values, ratio, write_report
from benchmarks.harness.workers import Worker, Workers, leave_out, missing_packages
from benchmarks.inference_report import FASTER_THAN_BASELINES
from benchmarks.inputs import ROOT, chosen, graded_pairs_and_vocabulary
from paddle_ranker import runtime
from paddle_ranker.errors import RankerError
from paddle_ranker.options import Options, main_of, option

TOLERANCE = 1e-5  # for vectors of length 1
CALIBRATION_TEXTS = 256


@dataclass(frozen=True)
class System:
    """A measured system, one row of the table; those of fp32 are held to `TOLERANCE`."""

    name: str
    title: str
    precision: str = "fp32"
    packages: tuple[str, ...] = ()

    @property
    def ours(self) -> bool:
        return self.name.startswith("ours")


_ST, _ORT, _OV = ("torch", "sentence_transformers"), ("onnxruntime", "transformers"), ("openvino", "transformers")
SYSTEMS = [
    System("ours_inference", "ours: Paddle Inference", packages=("paddle",)),
    System("ours_onnx", "ours: ONNX Runtime", packages=("onnxruntime",)),
    System("ours_openvino", "ours: OpenVINO", packages=("openvino",)),
    System("ours_inference_bf16", "ours: Paddle Inference bf16", "bf16", ("paddle",)),
    System("ours_openvino_bf16", "ours: OpenVINO bf16", "bf16", ("openvino",)),
    System("ours_onnx_int8", "ours: ONNX Runtime int8", "int8", ("onnxruntime",)),
    System("ours_openvino_int8", "ours: OpenVINO int8", "int8", ("openvino",)),
    System("sentence_transformers", "sentence-transformers", packages=_ST),
    System("sentence_transformers_compiled", "sentence-transformers, compiled and frozen", packages=_ST),
    System("onnxruntime", "transformers' ONNX in ONNX Runtime", packages=_ORT),
    System("openvino", "transformers' ONNX in OpenVINO", packages=_OV),
    System("sentence_transformers_bf16", "sentence-transformers bf16", "bf16", _ST),
    System("sentence_transformers_compiled_bf16", "sentence-transformers bf16, compiled and frozen", "bf16", _ST),
    System("openvino_bf16", "transformers' ONNX in OpenVINO bf16", "bf16", _OV),
    System("onnxruntime_int8", "transformers' ONNX in ONNX Runtime, dynamic int8", "int8", _ORT),
]


@dataclass(frozen=True)
class EncodeBenchmarkOptions(Options):
    """Options of `python -m benchmarks.encode`."""

    model: str = option(help="the encoder: a folder that is pooled by the mean; m3e-small of benchmarks.convert_real")
    file: Optional[str] = option(None, help="pairs whose titles are encoded (default: QBQTC's, else the demo's)")
    peer_python: str = option(sys.executable, help="Python interpreter of an environment with the peers")
    systems: str = option("all", help=f"rows, comma-separated, from {', '.join(s.name for s in SYSTEMS)}")
    texts: int = option(1000, help="texts a round", minimum=1)
    rounds: int = option(5, help="timed rounds", minimum=2)
    threads: int = option(1, help="threads of every system", minimum=1)
    batch_size: int = option(32, help="texts per batch of the peers", minimum=1)
    seed: int = option(1000, help="seed of the draw of the texts", minimum=0)
    json: Optional[str] = option(None, help="file for all results")


def prepare(options: EncodeBenchmarkOptions, systems: Sequence[System], folder: Path) -> float:
    """Write the texts, the exported tower and the peers' model into `folder`; return the mean tokens of a text."""
    runtime.prepare_command(options.threads)
    from paddle_ranker.data.records import Pair, RecordFile
    from paddle_ranker.encoding.batching import scoring_batches
    from paddle_ranker.export.quantizer import Quantizer
    from paddle_ranker.export.static_graph import export_model
    from paddle_ranker.model.load_options import LoadOptions
    from paddle_ranker.model.tower_network import load_tower
    from paddle_ranker.scoring.engines.precisions import has_int8

    file, _ = graded_pairs_and_vocabulary(options.file, None)
    titles = list(dict.fromkeys(row.title for row in RecordFile(file, Pair)))
    drawn = np.random.default_rng(options.seed).permutation(len(titles))[: options.texts].tolist()
    texts = [titles[number] for number in drawn]
    (folder / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
    model = load_tower(Path(options.model), LoadOptions(pooling="mean"))
    exported, _ = export_model(model, folder / "exported", onnx=any("_o" in s.name for s in systems if s.ours))
    columns = model.row_encoder.encode(texts)
    if any(system.ours and system.precision == "int8" for system in systems):
        assert exported.onnx is not None
        sample = columns.take(np.arange(min(len(columns), CALIBRATION_TEXTS)))
        batches = [sample.pad(rows) for rows in scoring_batches(sample.lengths, 4096, 4096)]
        quantizer = Quantizer(exported.onnx, folder)
        quantized = quantizer.quantize(quantizer.calibrate(batches), full_range=has_int8())
        exported.onnx.with_suffix(".int8.onnx").write_bytes(quantized.SerializeToString())
    (folder / "hf").symlink_to(Path(options.model).resolve())
    if any(system.name.startswith(("onnxruntime", "openvino")) for system in systems):
        command = [options.peer_python, "-m", "benchmarks.peers.encode_worker", "export", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise RankerError(f"the peers' ONNX file could not be written ({last}): leave them out with --systems")
    return float(columns.lengths.mean())


def measure(
    options: EncodeBenchmarkOptions, systems: Sequence[System], folder: Path
) -> tuple[dict[str, float], dict[str, Speeds]]:
    """Return each system's speeds, and the distance of its normalised vectors from the exact systems' median.

    Raises `RankerError` if a process ends, or if a system in fp32 is off by more than `TOLERANCE`.
    """
    speeds = {system.name: Speeds() for system in systems}
    with Workers() as workers:
        for system in systems:
            python = sys.executable if system.ours else options.peer_python
            command = [python, "-m", "benchmarks.peers.encode_worker", system.name, str(folder)]
            command += [str(options.threads), str(options.batch_size)]
            workers.add(Worker(system.name, command, options.threads, folder / f"{system.name}.log"))
            workers.by_name[system.name].ask(texts=options.texts, keep=True)
        off = differences(systems, folder)
        for _ in range(options.rounds):
            for name, answer in workers.take_turns(lambda _: {"texts": options.texts}):
                speeds[name].add(answer, "texts")
    return off, speeds


def differences(systems: Sequence[System], folder: Path) -> dict[str, float]:
    """Return how far each system's vectors are from the median of those in fp32."""
    found = {system.name: np.load(folder / f"{system.name}.npy") for system in systems}
    unit = {name: vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for name, vectors in found.items()}
    exact = [unit[system.name] for system in systems if system.precision == "fp32"]
    expected = np.median(exact or list(unit.values()), axis=0)
    off = {name: float(np.abs(vectors - expected).max()) for name, vectors in unit.items()}
    for system in systems:
        if system.precision == "fp32" and not off[system.name] <= TOLERANCE:
            raise RankerError(
                f"the vectors of {system.name} are off by {off[system.name]:.1e}, more than {TOLERANCE:g}: its speed "
                "means nothing; leave it out with --systems, and report it"
            )
    return off


def best_of(systems: Sequence[System], speeds: dict[str, Speeds], precision: str, ours: bool) -> Optional[System]:
    """Return the fastest system of a precision, among ours or among the peers; None if there is none."""
    those = [system for system in systems if system.precision == precision and system.ours == ours]
    return max(those, key=lambda system: statistics.median(speeds[system.name].by_clock), default=None)


def goals(systems: Sequence[System], speeds: dict[str, Speeds]) -> Iterator[Goal]:
    """Yield, for each precision, the ratio of our fastest system to the peers' fastest."""
    for precision, target in FASTER_THAN_BASELINES.items():
        best, peer = (best_of(systems, speeds, precision, ours) for ours in (True, False))
        if best is not None and peer is not None:
            found = ratio(speeds[best.name].by_clock, speeds[peer.name].by_clock)
            what = f"{precision}: {best.name} against {peer.name} [{found.low:.2f}, {found.high:.2f}], times"
            yield Goal(what, found.estimate, target)


def table(systems: Sequence[System], off: dict[str, float], speeds: dict[str, Speeds]) -> str:
    """Return the table of the results."""
    rows = []
    for system in systems:
        own = speeds[system.name]
        best = best_of(systems, speeds, system.precision, True)
        against = ""
        if best is not None and best is not system:
            found = ratio(speeds[best.name].by_clock, own.by_clock)
            against = f"{found.estimate:.2f} [{found.low:.2f}, {found.high:.2f}]"
        clock = own.by_clock
        rows.append(
            [
                system.title,
                f"{off[system.name]:.0e}",
                f"{statistics.median(clock):,.1f} ({min(clock):,.1f}-{max(clock):,.1f})",
                f"{statistics.median(own.by_processor):,.1f}",
                against,
            ]
        )
    return format_table(["system", "off by", "texts/s", "a processor s", "ours / it"], rows)


def run(options: EncodeBenchmarkOptions) -> None:
    """Print the table and the goals."""
    names = chosen("systems", options.systems, [system.name for system in SYSTEMS])
    wanted = [system for system in SYSTEMS if system.name in names]
    needed = sorted({package for system in wanted for package in system.packages})
    missing = {
        ours: missing_packages(sys.executable if ours else options.peer_python, needed) for ours in (True, False)
    }
    systems = leave_out(wanted, lambda system: sorted(set(system.packages) & missing[system.ours]))
    with tempfile.TemporaryDirectory() as folder:
        tokens = prepare(options, systems, Path(folder))
        off, speeds = measure(options, systems, Path(folder))
    print(f"{options.texts} texts, {tokens:.1f} tokens each; threads: {options.threads}")
    print(table(systems, off, speeds))
    print("off by: of vectors of length 1; ours / it: the fastest of ours in that precision, over the row")
    found = list(goals(systems, speeds))
    print(*found, sep="\n")
    values: dict[str, Any] = {"options": asdict(options), "tokens": tokens, "off": off, "goals": goal_values(found)}
    write_report(options.json, {**values, "speeds": {name: asdict(own) for name, own in speeds.items()}})


main = main_of(run, EncodeBenchmarkOptions, (__doc__ or "").split("\n")[0])


if __name__ == "__main__":
    sys.exit(main())
