"""A small ranker trained from nothing: no pretrained weights, a recipe of a dozen numbers."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from paddle_ranker.data.records import Triple
from paddle_ranker.options import Options, option
from paddle_ranker.training.options import TrainingOptions

if TYPE_CHECKING:
    from paddle_ranker.encoding.pair_encoder import PairEncoder
    from paddle_ranker.evaluation.evaluate import EvaluationSet
    from paddle_ranker.metrics.ranking import Floats


@dataclass(frozen=True)
class Recipe(Options):
    """The shape of the encoder, and how it is trained."""

    layers: int = option(2, help="layers", minimum=1)
    hidden_size: int = option(128, help="width", minimum=8)
    heads: int = option(4, help="attention heads; divides the width", minimum=1)
    dropout: float = option(0.2, help="dropout in training", minimum=0, below=1)
    normalize_before: bool = option(True, help="LayerNorm before each part of a layer")
    max_seq_length: int = option(64, help="longest pair in tokens", minimum=5)
    learning_rate: float = option(5e-4, help="peak learning rate", above=0)
    weight_decay: float = option(0.01, help="weight decay", minimum=0)
    warmup_proportion: float = option(0.06, help="share of the steps with a rising learning rate", minimum=0, below=1)
    max_grad_norm: float = option(1.0, help="clip the gradient's norm there; 0: don't", minimum=0)
    batch_size: int = option(16, help="triples a batch", minimum=1)
    epochs: int = option(1, help="passes over the triples", minimum=1)
    max_steps: int = option(0, help="stop after so many steps; 0: after the epochs", minimum=0)


@dataclass(frozen=True)
class Trained:
    """Logits of the evaluation set, `[pairs] float64`, and the seconds from encoding the triples to the last step."""

    logits: Floats
    seconds: float


def train_from_nothing(
    triples: Sequence[Triple],
    evaluation: EvaluationSet,
    pair_encoder: PairEncoder,
    recipe: Recipe,
    *,
    loss: str,
    margin: float,
    match_embeddings: bool,
    seed: int,
    lexical_features: bool = False,
) -> Trained:
    """Train a ranker of random parameters on `triples`, and score `evaluation` with what the last step left."""
    from ernie_matching.data import encode_triples
    from ernie_matching.model import PairwiseExamples
    from paddle_ranker import runtime
    from paddle_ranker.distributed import ProcessGroup
    from paddle_ranker.lexical.head import LexicalHead
    from paddle_ranker.metrics.auc import roc_auc
    from paddle_ranker.model.config import EncoderConfig
    from paddle_ranker.model.folder import never_match_ids
    from paddle_ranker.model.network import RankerNetwork
    from paddle_ranker.scoring.engines.dygraph import DygraphEngine
    from paddle_ranker.training.losses.expression import RankingLoss
    from paddle_ranker.training.task import Task
    from paddle_ranker.training.trainer import fit

    started = time.perf_counter()
    runtime.select_device("cpu")
    runtime.set_seed(seed)
    encoded = encode_triples(triples, pair_encoder)
    examples = PairwiseExamples(encoded, RankingLoss(loss, margin))
    config = EncoderConfig.small(
        pair_encoder.vocab_size,
        layers=recipe.layers,
        hidden_size=recipe.hidden_size,
        heads=recipe.heads,
        dropout=recipe.dropout,
        positions=recipe.max_seq_length,
        normalize_before=recipe.normalize_before,
    )
    never_match, lexical = never_match_ids(pair_encoder), None
    if lexical_features:
        lexical = LexicalHead(config.vocab_size, never_match)
        lexical.learn(encoded.pairs, examples.pair_labels)
    network = RankerNetwork(config, never_match if match_embeddings else None, lexical)
    logits: list[Floats] = []
    scoring = 0.0

    def evaluate() -> dict[str, float]:
        nonlocal scoring
        began = time.perf_counter()
        logits.append(evaluation.logits(DygraphEngine(network)))
        auc = roc_auc(evaluation.labels, logits[-1])
        scoring += time.perf_counter() - began
        return {"auc": auc}

    with tempfile.TemporaryDirectory() as folder:
        options = TrainingOptions(
            save_dir=str(Path(folder) / "checkpoint"),
            batch_size=recipe.batch_size,
            learning_rate=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            epochs=recipe.epochs,
            max_steps=recipe.max_steps,
            warmup_proportion=recipe.warmup_proportion,
            max_grad_norm=recipe.max_grad_norm,
            eval_step=_NEVER,  # after the last step alone: choosing a step by the measured file would flatter
            save_step=_NEVER,
            logging_steps=_NEVER,
            seed=seed,
            device="cpu",
        )
        fit(Task(network, examples, evaluate, lambda folder, results: None, "auc"), options, ProcessGroup())
    return Trained(logits[-1], time.perf_counter() - started - scoring)


_NEVER = 10**9
