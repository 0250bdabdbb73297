"""One system of the training benchmark: `python -m benchmarks.peers.training_worker SYSTEM FOLDER`."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from benchmarks.peers.answers import Pace, take_stdout
from benchmarks.peers.work import BenchmarkTriples, TrainingWork, load_work

if TYPE_CHECKING:
    import numpy as np
    from paddle import Tensor, nn

FOREVER = 1_000_000


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Train as SYSTEM does on the work of FOLDER, one round of steps per line of standard input."""
    system, folder = sys.argv[1:] if argv is None else argv
    pace = Pace(sys.stdin, take_stdout(), "triples")
    work, triples = load_work(Path(folder))
    # A process imports only the framework of its system: both bring an OpenMP runtime, and two of them conflict.
    if system.startswith("torch"):
        from benchmarks.peers import torch_training

        bf16, fused = system == "torch_bf16", system == "torch_fused"
        torch_training.train(work, triples, pace, bf16=bf16, fused_optimizer=fused)
    else:
        train(work, triples, pace, bf16=system == "ours_bf16")
    return 0


def train(work: TrainingWork, triples: BenchmarkTriples, pace: Pace, *, bf16: bool = False) -> None:
    """Run this toolkit's trainer as `train_pairwise.py` does, until `pace` ends the training."""
    from paddle_ranker import runtime

    runtime.prepare_command(threads=0)  # as the training commands do; MKL_NUM_THREADS, if set, stays
    runtime.select_device(work.device)
    from ernie_matching.data import join_triples
    from ernie_matching.model import PairwiseExamples
    from paddle_ranker.distributed import ProcessGroup
    from paddle_ranker.model.config import EncoderConfig
    from paddle_ranker.model.network import RankerNetwork
    from paddle_ranker.training.losses.expression import RankingLoss
    from paddle_ranker.training.task import Means, Task
    from paddle_ranker.training.trainer import fit
    from paddle_ranker.training.training_options import TrainingOptions

    class Paced(PairwiseExamples):
        """Examples whose every step waits for `pace`, so that the trainer needs no change."""

        def loss(self, network: nn.Layer, indices: np.ndarray) -> tuple[Tensor, Means]:
            pace.tick(len(indices))
            return super().loss(network, indices)

    network = RankerNetwork(EncoderConfig(**work.shape), work.never_match)
    encoded = join_triples(triples.positives, triples.negatives)
    examples = Paced(encoded, RankingLoss("margin_logit"))
    factors = {"head": 10.0, "match_embeddings": 10.0}
    with tempfile.TemporaryDirectory() as folder:
        options = TrainingOptions(
            save_dir=folder,
            batch_size=work.batch_size,
            learning_rate=work.learning_rate,
            max_grad_norm=work.max_grad_norm,
            epochs=FOREVER,
            eval_step=FOREVER,
            save_step=FOREVER,
            seed=work.seed,
            device=work.device,
            use_amp=bf16,
            amp_dtype="bfloat16",
        )
        task = Task(network, examples, dict, lambda path, results: None, "auc", part_factors=factors)
        fit(task, options, ProcessGroup())


if __name__ == "__main__":
    sys.exit(main())
