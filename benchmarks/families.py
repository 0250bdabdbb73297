"""Time a batch of each family of networks: this toolkit's engines beside transformers, ONNX Runtime and OpenVINO.

python -m benchmarks.families --peer_python PYTHON [--families deberta,vit --layers 2 --rounds 5]

The models have random weights and the sizes of published base models; all systems compute the same batch in turns, each
in a separate process, and the outputs of float32 are compared first. `benchmarks/peers/family_worker.py` describes the
families and systems. The rows of a batch have one length, so that this times graphs and engines alone: `inference`
times texts of many lengths. With a single thread, times are processor times. Ratios are geometric means over rounds,
with 95% t intervals.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.harness.report import Goal, format_table, ratio
from benchmarks.harness.workers import Worker, Workers, missing_packages, process_environment, run_program
from benchmarks.inputs import chosen
from benchmarks.peers.family_worker import FAMILIES
from paddle_ranker.errors import RankerError
from paddle_ranker.options import Options, main_of, option

OURS = ("ours_inference", "ours_onnx", "ours_openvino", "ours_inference_bf16", "ours_openvino_bf16")
PEERS = ("torch", "torch_compiled", "onnxruntime", "openvino", "torch_compiled_bf16", "openvino_bf16")
AHEAD = 1.15  # of the fastest peer of the same precision
_WORKER = ("-m", "benchmarks.peers.family_worker")
_TOLERANCE = 1e-4  # of logits and of a vector's numbers, whose deviation is about 1


@dataclass(frozen=True)
class FamiliesOptions(Options):
    families: str = option("all", help=f"families, comma-separated, from {', '.join(FAMILIES)}")
    systems: str = option("all", help=f"systems, comma-separated, from {', '.join((*OURS, *PEERS))}")
    layers: int = option(0, help="layers of each model; 0: as many as published models have", minimum=0)
    threads: int = option(1, help="threads of each system", minimum=1)
    rounds: int = option(5, help="rounds", minimum=2)
    peer_python: str = option(sys.executable, help="Python interpreter of an environment with the peers")


def run(options: FamiliesOptions) -> None:
    needed = ["torch", "transformers", "onnx", "onnxruntime", "openvino"]
    lacking = missing_packages(options.peer_python, needed)
    if lacking:
        raise RankerError(f"--peer_python {options.peer_python}: lacks {', '.join(sorted(lacking))}; name another")
    systems = chosen("systems", options.systems, (*OURS, *PEERS))
    rows, goals = [], []
    for family in chosen("families", options.families, list(FAMILIES)):
        with tempfile.TemporaryDirectory() as folder:
            speeds = measure(Path(folder), family, systems, options)
        for suffix in ("", "_bf16"):
            names = [name for name in speeds if name.endswith("_bf16") == bool(suffix)]
            sides = [[name for name in names if name.startswith("ours") == is_ours] for is_ours in (True, False)]
            if not all(sides):
                continue
            own, peer = (max(side, key=lambda name: statistics.median(speeds[name])) for side in sides)
            times = ratio(speeds[own], speeds[peer])
            others = ", ".join(f"{name} {1000 / statistics.median(speeds[name]):,.0f}" for name in names)
            shown = f"{times.estimate:.2f} [{times.low:.2f}, {times.high:.2f}]"
            rows.append([family, suffix[1:] or "fp32", own.removeprefix("ours_"), peer, shown, others])
            goals.append(Goal(f"{family}, {own}, times as fast as {peer}", times.estimate, AHEAD))
            print(*map(" ".join, rows[-1:]), flush=True)
    print(format_table(["family", "precision", "ours", "fastest peer", "times as fast", "milliseconds"], rows))
    print(*goals, sep="\n")


def measure(folder: Path, family: str, systems: list[str], options: FamiliesOptions) -> dict[str, list[float]]:
    """Return by system the batches a second in each round; those that cannot compute the family are printed."""
    environment, python = process_environment(options.threads), options.peer_python
    write = [python, *_WORKER, "write", str(folder), family, str(options.layers)]
    run_program(write, f"transformers' {family} could not be written", environment)
    export = ["export", "--model", str(folder / "model"), "--output", str(folder / "exported"), "--onnx"]
    subprocess.run(
        [sys.executable, "-m", "paddle_ranker", *export], check=True, env=environment, stdout=subprocess.DEVNULL
    )
    speeds: dict[str, list[float]] = {}
    with Workers() as workers:
        outputs = {}
        for system in systems:
            interpreter = python if system in PEERS else sys.executable
            command = [interpreter, *_WORKER, system, str(folder), family, str(options.threads)]
            worker = Worker(system, command, options.threads, folder / f"{system}.log")
            try:
                outputs[system] = np.array(workers.add(worker)["ready"])
            except RankerError as error:  # as transformers' TAPAS, which has no ONNX file
                del workers.by_name[system]
                print(f"{family}: left out: {error}")
        exact = [system for system in outputs if not system.endswith("_bf16")]
        for system in exact:
            np.testing.assert_allclose(outputs[system], outputs[exact[0]], atol=_TOLERANCE, err_msg=system)
        for _ in range(options.rounds):
            for system, answer in workers.take_turns(lambda _: "1"):
                seconds = answer["cpu_seconds" if options.threads == 1 else "seconds"]
                speeds.setdefault(system, []).append(1 / seconds)
    return speeds


main = main_of(run, FamiliesOptions, (__doc__ or "").split("\n")[0], prog="benchmarks.families")


if __name__ == "__main__":
    raise SystemExit(main())
