"""Time a wav2vec 2.0's vector of a sound here and in transformers, in turns, one thread each.

python -m benchmarks.sounds FOLDER --peer_python PYTHON

FOLDER is a published wav2vec2. Times are those of the processor; memory is the largest resident size of a process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass

import numpy as np

from benchmarks.inputs import ROOT
from paddle_ranker.errors import RankerError
from paddle_ranker.options import Options, main_of, option

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_TOLERANCE = 1e-4  # of the vectors' first numbers


@dataclass(frozen=True)
class SoundsOptions(Options):
    folder: str = option(positional=True, help="folder of a published wav2vec2")
    seconds: int = option(10, help="seconds of the sound, which is noise", minimum=1)
    rounds: int = option(3, help="rounds", minimum=1)
    peer_python: str = option(sys.executable, help="Python interpreter of an environment with torch and transformers")


def run(options: SoundsOptions) -> None:
    """Print the milliseconds a second of sound, and the memory, of each system."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **dict.fromkeys(_THREADS, "1")}
    processes = {
        system: subprocess.Popen(
            [python, str(ROOT / "benchmarks/peers/sound_worker.py"), options.folder, system, str(options.seconds)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )
        for system, python in (("dygraph", sys.executable), ("transformers", options.peer_python))
    }  # fmt: skip
    try:
        rounds = [{name: _ask(process) for name, process in processes.items()} for _ in range(options.rounds)]
    finally:
        for process in processes.values():
            process.kill()
    for name in processes:
        seconds, memory, first = np.array([each[name] for each in rounds]).T
        print(f"{name}: {1000 * np.mean(seconds) / options.seconds:.1f} ms a second of sound, {max(memory):.0f} MB")
        if abs(first[0] - rounds[0]["transformers"][2]) > _TOLERANCE:
            raise RankerError(f"{name}: its vector begins with {first[0]}, and transformers' is another")
    ratios = np.log([each["dygraph"][0] / each["transformers"][0] for each in rounds])
    print(
        f"here / transformers: {np.exp(ratios.mean()):.3f} ({np.exp(ratios.min()):.3f} to {np.exp(ratios.max()):.3f})"
    )


def _ask(process: subprocess.Popen[str]) -> tuple[float, float, float]:
    """Return the seconds, the megabytes and the first number that a worker prints."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    for line in process.stdout:
        if line.startswith("result "):
            seconds, memory, first = map(float, line.split()[1:])
            return seconds, memory, first
    raise RankerError("a worker ended; its error is above")


main = main_of(run, SoundsOptions, __doc__, prog="benchmarks.sounds")

if __name__ == "__main__":
    sys.exit(main())
