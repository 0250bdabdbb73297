"""One system of the inference benchmark: `python -m benchmarks.peers.inference_worker SYSTEM FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.peers.inference_work import InferenceWork, Pairs, Subject, load_inference_work, main_arguments, serve
from benchmarks.peers.work import take_stdout


def main() -> int:
    """Load SYSTEM with the model of FOLDER, and score as the standard input says."""
    system, folder = main_arguments()
    answers = take_stdout()
    work, pairs = load_inference_work(folder)
    serve(_subject(system, folder, work, pairs), work, sys.stdin, answers)
    return 0


def _subject(system: str, folder: Path, work: InferenceWork, pairs: Pairs) -> Subject:
    # Each framework is imported by its own systems alone: a process is to hold what its users' processes hold.
    if system.startswith("ours"):
        from benchmarks.peers import inference_ours

        return inference_ours.subject(system, folder, work, pairs)
    if system.startswith("published"):
        from benchmarks.peers import inference_published

        return inference_published.subject(system, folder, work, pairs)
    if system.startswith(("torch", "sentence_transformers")):
        from benchmarks.peers import inference_torch

        return inference_torch.subject(system, folder, work, pairs)
    from benchmarks.peers import inference_graphs

    return inference_graphs.subject(system, folder, work, pairs)


if __name__ == "__main__":
    sys.exit(main())
