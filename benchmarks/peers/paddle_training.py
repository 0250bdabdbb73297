"""Training loops on Paddle: this toolkit's own, and the published one."""

from __future__ import annotations

import tempfile

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from benchmarks.peers.answers import Pace
from benchmarks.peers.published import PublishedRanker
from benchmarks.peers.work import BenchmarkTriples, TrainingWork, batches_forever
from ernie_matching.data import join_triples
from ernie_matching.model import PairwiseExamples
from paddle_ranker.distributed import ProcessGroup
from paddle_ranker.encoding.columns import EncodedPairs
from paddle_ranker.model.config import EncoderConfig
from paddle_ranker.model.network import RankerNetwork
from paddle_ranker.training.losses.expression import RankingLoss
from paddle_ranker.training.options import TrainingOptions
from paddle_ranker.training.task import Task
from paddle_ranker.training.trainer import fit

FOREVER = 1_000_000


def ours(work: TrainingWork, triples: BenchmarkTriples, pace: Pace, *, match_embeddings: bool) -> None:
    """Run this toolkit's trainer as `train_pairwise.py` does, until the pace ends it."""
    network = RankerNetwork(EncoderConfig(**work.shape), work.never_match if match_embeddings else None)
    encoded = join_triples(triples.positives, triples.negatives)
    examples = _Paced(encoded, RankingLoss("margin_logit"))
    examples.pace = pace
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
            device="cpu",
        )
        task = Task(network, examples, dict, lambda path, results: None, "auc", part_factors=factors)
        fit(task, options, ProcessGroup())


class _Paced(PairwiseExamples):
    """Examples whose every step waits for the pace: the trainer itself stays as it is."""

    pace: Pace

    def loss(self, network: nn.Layer, indices: np.ndarray) -> tuple[Tensor, dict[str, float]]:
        self.pace.tick(len(indices))
        return super().loss(network, indices)


def published(work: TrainingWork, triples: BenchmarkTriples, pace: Pace) -> None:
    """Train as published: padded to a fixed length, one forward pass for each title, AdamW without clipping."""
    paddle.set_device("cpu")
    paddle.seed(work.seed)
    network = PublishedRanker(work.shape)
    network.train()
    optimizer = paddle.optimizer.AdamW(learning_rate=work.learning_rate, parameters=network.parameters())
    for indices in batches_forever(work, triples):
        pace.tick(len(indices))
        positive = F.sigmoid(network(*_padded(triples.positives, indices, work)))
        negative = F.sigmoid(network(*_padded(triples.negatives, indices, work)))
        loss = F.margin_ranking_loss(positive, negative, paddle.ones_like(positive), margin=0.2)
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        float(loss)


def _padded(pairs: EncodedPairs, indices: np.ndarray, work: TrainingWork) -> tuple[Tensor, Tensor]:
    ids, types = pairs.pad(indices).values()
    missing = ((0, 0), (0, work.padded_length - ids.shape[1]))
    return (
        paddle.to_tensor(np.pad(ids, missing, constant_values=work.pad_id)),
        paddle.to_tensor(np.pad(types, missing)),
    )
