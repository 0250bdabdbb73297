"""One system of the inference benchmark: `python -m benchmarks.peers.inference_worker SYSTEM FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.peers.answers import answer_commands, take_stdout
from benchmarks.peers.inference_work import InferenceWork, Pairs, System, answer_as, load_inference_work, main_arguments


def main() -> int:
    """Load SYSTEM with the model of FOLDER, and score as the standard input says."""
    system, folder = main_arguments()
    answers = take_stdout()
    work, pairs = load_inference_work(folder)
    answer_commands(answers, answer_as(_open(system, folder, work, pairs), work), sys.stdin)
    return 0


def _open(system: str, folder: Path, work: InferenceWork, pairs: Pairs) -> System:
    # Each framework is imported by its own systems alone: a process is to hold what its users' processes hold.
    if system.startswith("ours"):
        from benchmarks.peers import inference_ours

        return inference_ours.open_system(system, folder, work, pairs)
    if system.startswith("published"):
        from benchmarks.peers import inference_published

        return inference_published.open_system(system, folder, work, pairs)
    if system.startswith(("torch", "sentence_transformers")):
        from benchmarks.peers import inference_torch

        return inference_torch.open_system(system, folder, work, pairs)
    from benchmarks.peers import inference_graphs

    return inference_graphs.open_system(system, folder, work, pairs)


if __name__ == "__main__":
    sys.exit(main())
