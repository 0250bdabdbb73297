"""One system of the training benchmark: `python -m benchmarks.peers.training_worker SYSTEM FOLDER`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Optional


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Train as SYSTEM does on the work of FOLDER, step by step as the standard input says."""
    system, folder = sys.argv[1:] if argv is None else argv
    from benchmarks.peers.answers import Pace, take_stdout
    from benchmarks.peers.work import load_work

    pace = Pace(sys.stdin, take_stdout(), "triples")
    work, triples = load_work(Path(folder))
    # Each framework is imported by its own systems alone: both bring OpenMP, and two in one process disagree.
    if system.startswith("torch"):
        from benchmarks.peers import torch_training

        bf16, fused = system == "torch_bf16", system == "torch_fused"
        torch_training.train(work, triples, pace, bf16=bf16, fused_optimizer=fused)
    else:
        if system.startswith("ours"):
            from paddle_ranker import runtime

            runtime.prepare_command(threads=0)  # as the training commands do; MKL_NUM_THREADS, if set, stays
        from benchmarks.peers import paddle_training

        if system.startswith("published"):
            paddle_training.published(work, triples, pace)
        else:
            paddle_training.ours(work, triples, pace, match_embeddings=system == "ours")
    return 0


if __name__ == "__main__":
    sys.exit(main())
