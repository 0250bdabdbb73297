"""Time ViT-B/32, the picture tower of a CLIP: this toolkit's engines, PyTorch and ONNX Runtime, in turns.

python -m benchmarks.picture_engines --peer_python PYTHON [--pictures 8 --rounds 9]

The model has random weights. Every system runs in a separate process on the same pixels, which are decoded beforehand;
the vectors of float32 are compared first. `benchmarks/peers/picture_worker.py` describes the systems. With a single
thread, times are processor times. The ratios are geometric means over rounds, with 95% t intervals. `quantize` writes
the int8 models; random weights say nothing about its gate.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.harness.report import Goal, format_table, ratio
from benchmarks.harness.workers import Worker, Workers, missing_packages, process_environment
from benchmarks.inputs import ROOT, chosen
from paddle_ranker.errors import RankerError
from paddle_ranker.options import Options, main_of, option

OURS = ("ours_inference", "ours_onnx", "ours_openvino", "ours_onnx_int8", "ours_openvino_int8")
PEERS = ("torch", "onnxruntime")
_SIDE, _FILES = 224, 32
_TOLERANCE = 1e-4  # of a vector's numbers, whose deviation is 1


@dataclass(frozen=True)
class PictureEnginesOptions(Options):
    pictures: int = option(8, help="pictures that a system computes at once in each round", minimum=1)
    threads: int = option(1, help="threads of each system", minimum=1)
    rounds: int = option(9, help="rounds", minimum=2)
    systems: str = option("all", help=f"systems, comma-separated, from {', '.join((*OURS, *PEERS))}")
    peer_python: str = option(sys.executable, help="Python interpreter of an environment with torch and transformers")


def prepare(folder: Path, options: PictureEnginesOptions) -> None:
    """Write the pixels, and the model with its exports of both sides."""
    draw = np.random.default_rng(0)
    np.save(folder / "pixels.npy", draw.integers(0, 256, (options.pictures, 3, _SIDE, _SIDE), np.uint8))
    for number in range(_FILES):
        noise = draw.integers(0, 256, (_SIDE, _SIDE, 3), np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
    (folder / "pairs.tsv").write_text("".join(f"{number}.png\t{number}.png\n" for number in range(_FILES)))
    worker, environment = str(ROOT / "benchmarks/peers/picture_worker.py"), process_environment(options.threads)
    subprocess.run([options.peer_python, worker, "write", str(folder), "1"], check=True, env=environment)
    ours = [sys.executable, "-m", "paddle_ranker"]
    exported, pairs = str(folder / "exported"), str(folder / "pairs.tsv")
    quantize = ["quantize", "--model", exported, "--calibration_file", pairs, "--test", pairs, "--max_loss", "1"]
    for command in (
        ["export", "--model", str(folder / "model"), "--output", exported, "--onnx"],
        [*quantize, "--seconds", "0.1", "--cpu_threads", str(options.threads)],
    ):
        subprocess.run([*ours, *command], check=True, env=environment, stdout=subprocess.DEVNULL)


def run(options: PictureEnginesOptions) -> None:
    systems = chosen("systems", options.systems, (*OURS, *PEERS))
    lacking = missing_packages(options.peer_python, ["torch", "transformers", "onnx", "onnxscript", "onnxruntime"])
    if lacking:
        raise RankerError(f"--peer_python {options.peer_python}: lacks {', '.join(sorted(lacking))}; name another")
    speeds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as temporary, Workers() as workers:
        folder = Path(temporary)
        prepare(folder, options)
        vectors = {}
        for system in systems:
            python = options.peer_python if system in PEERS else sys.executable
            command = [python, str(ROOT / "benchmarks/peers/picture_worker.py"), system, str(folder)]
            worker = Worker(system, [*command, str(options.threads)], options.threads, folder / f"{system}.log")
            vectors[system] = np.array(workers.add(worker)["ready"])
        exact = [system for system in systems if not system.endswith("int8")]
        for system in exact:
            np.testing.assert_allclose(vectors[system], vectors[exact[0]], atol=_TOLERANCE, err_msg=system)
        for _ in range(options.rounds):
            for system, answer in workers.take_turns(lambda _: "1"):
                seconds = answer["cpu_seconds" if options.threads == 1 else "seconds"]
                speeds.setdefault(system, []).append(options.pictures / seconds)
    peers = [system for system in systems if system in PEERS]
    rows = []
    for system, speed in speeds.items():
        ratios = [f"{ratio(speed, speeds[peer]):.2f}" for peer in peers]
        rows.append([system, f"{statistics.median(speed):.1f}", *ratios])
    print(f"ViT-B/32, {options.pictures} pictures at once, {options.threads} threads")
    print(format_table(["system", "pictures a second", *(f"times as fast as {peer}" for peer in peers)], rows))
    fastest = max((system for system in exact if system in OURS), key=lambda system: statistics.median(speeds[system]))
    for peer in peers:
        print(Goal(f"{fastest}, times as fast as {peer}", ratio(speeds[fastest], speeds[peer]).estimate, 1.0))


main = main_of(run, PictureEnginesOptions, __doc__, prog="benchmarks.picture_engines")


if __name__ == "__main__":
    raise SystemExit(main())
