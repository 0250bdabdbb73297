"""Measure ranking quality without pretrained weights on QBQTC, beside lexical baselines.

python -m benchmarks.qbqtc --protocol cv --seeds 1,2,3      # out-of-fold over the train queries
python -m benchmarks.qbqtc --protocol dev --seeds 1,2,3     # trained on all of train, dev once
"""

from __future__ import annotations

import math
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from benchmarks.harness.quality import print_comparison
from benchmarks.harness.runs import LEXICAL, NEVER, Harness, QualityOptions, Run, Split
from benchmarks.inputs import real_data_file
from paddle_ranker import runtime
from paddle_ranker.data.rows.records import write_records
from paddle_ranker.errors import UsageError
from paddle_ranker.options import main_of, option
from paddle_ranker.training.losses.expression import margin_of
from paddle_ranker.training.training_options import TrainingOptions

if TYPE_CHECKING:
    from ernie_matching.model import PairwiseExamples
    from paddle_ranker.encoding.pair_encoder import PairEncoder
    from paddle_ranker.model.network import RankerNetwork

RANKERS = ("ranker", "ranker_without_match", "ranker_with_lexical")
SYSTEMS = "bm25_words,bm25_bigrams,features,ranker_without_match,ranker"
WITH_MARGIN = ("margin_logit", "margin_probability", "ranknet", "ranknet_bce")
MAX_SEQ_LENGTH, TRIPLES_OF_A_POSITIVE = 64, 2


@dataclass(frozen=True)
class QbqtcOptions(QualityOptions):
    protocol: str = option(
        "dev",
        help="dev: learn from all, measure on qbqtc/dev.tsv; cv: measure on every query of qbqtc/train.tsv, by a run "
        "that has not seen it",
        choices=("dev", "cv"),
    )
    folds: int = option(3, help="folds of --protocol cv", minimum=2)
    systems: str = option(
        SYSTEMS,
        help=f"comma-separated: {', '.join(LEXICAL)}, {', '.join(RANKERS)}, LOSS:MARGIN, the ranker with that loss, or "
        "rdrop:FACTOR, the ranker with R-Drop",
    )
    reference: Optional[str] = option(
        None, help="system with which the others are compared (default: ranker, else the first)"
    )
    max_steps: int = option(0, help="maximum number of steps; 0: all steps of an epoch", minimum=0)
    threads: int = option(0, help="threads of training; 0: one per core", minimum=0)


@dataclass(frozen=True)
class Row:
    """A row of the table: a lexical baseline (`loss` is ""), or the ranker with its loss, inputs and R-Drop factor."""

    name: str
    loss: str = ""
    margin: float = 0.0
    match_embeddings: bool = True
    lexical_features: bool = False
    rdrop_coef: float = 0.0


def row_of(name: str) -> Row:
    """Return the row of a name; raises `UsageError` for an unknown name."""
    loss, _, margin = name.partition(":")
    if name in LEXICAL:
        return Row(name)
    if name in RANKERS:
        own = margin_of("margin_logit")[0]
        return Row(name, "margin_logit", own, name != "ranker_without_match", name == "ranker_with_lexical")
    with suppress(ValueError):
        if loss == "rdrop" and math.isfinite(float(margin)):
            return replace(row_of("ranker"), name=name, rdrop_coef=float(margin))
        if loss in WITH_MARGIN and math.isfinite(float(margin)):
            return Row(name, loss, float(margin))
    known = ", ".join([*LEXICAL, *RANKERS])
    raise UsageError(f"--systems {name}: choose from {known}, or name a loss as in margin_logit:1, or rdrop:1")


def train_from_nothing(options: QbqtcOptions, row: Row, harness: Harness, split: Split, seed: int) -> Run:
    """Train a ranker from random parameters; return its final logits of the held-out pairs, and the seconds."""
    from ernie_matching.data import encode_triples
    from ernie_matching.model import PairwiseExamples
    from paddle_ranker.distributed import ProcessGroup
    from paddle_ranker.encoding.pair_encoder import PairEncoder
    from paddle_ranker.evaluation.evaluation_set import EvaluationSet
    from paddle_ranker.metrics.auc import roc_auc
    from paddle_ranker.scoring.engines.dygraph import DygraphEngine
    from paddle_ranker.training.losses.expression import RankingLoss
    from paddle_ranker.training.task import Task
    from paddle_ranker.training.trainer import fit

    with tempfile.TemporaryDirectory() as name:
        folder, began = Path(name), time.perf_counter()
        vocabulary = real_data_file(options.data_dir, "vocab/ernie-3.0-vocab.txt").read_bytes()
        (folder / "vocab.txt").write_bytes(vocabulary)
        pair_encoder = PairEncoder.from_folder(folder, MAX_SEQ_LENGTH)
        runtime.select_device("cpu")
        runtime.set_seed(seed)
        encoded = encode_triples(split.triples_for(TRIPLES_OF_A_POSITIVE, seed), pair_encoder)
        examples = PairwiseExamples(encoded, RankingLoss(row.loss, row.margin), row.rdrop_coef)
        network = make_network(row, pair_encoder, examples)
        write_records(folder / "held_out.tsv", harness.of(split))
        evaluation, found = EvaluationSet(folder / "held_out.tsv", pair_encoder, 64), []

        # Only after the last step: choosing the best checkpoint would bias the result.
        def evaluate() -> dict[str, float]:
            seconds = time.perf_counter() - began
            found.append((evaluation.logits(DygraphEngine(network)), seconds))
            return {"auc": roc_auc(evaluation.labels, found[-1][0])}

        training = TrainingOptions(
            save_dir=str(folder / "checkpoint"), seed=seed, device="cpu", batch_size=16, learning_rate=5e-4, epochs=1,
            weight_decay=0.01, warmup_proportion=0.06, max_steps=options.max_steps, eval_step=NEVER, save_step=NEVER,
            logging_steps=NEVER,
        )  # fmt: skip
        fit(Task(network, examples, evaluate, lambda folder, results: None, "auc"), training, ProcessGroup())
        return found[-1]


def make_network(row: Row, pair_encoder: PairEncoder, examples: PairwiseExamples) -> RankerNetwork:
    """Make a ranker of random parameters; its lexical features, if any, have learned from the examples."""
    from paddle_ranker.encoding.pair_encoder import never_match_ids
    from paddle_ranker.lexical.head import LexicalHead
    from paddle_ranker.model.config import EncoderConfig
    from paddle_ranker.model.network import RankerNetwork

    config = EncoderConfig(
        pair_encoder.vocab_size, hidden_size=128, num_hidden_layers=2, num_attention_heads=4, intermediate_size=512,
        hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.2, max_position_embeddings=MAX_SEQ_LENGTH,
        normalize_before=True,
    )  # fmt: skip
    never_match, lexical = never_match_ids(pair_encoder), None
    if row.lexical_features:
        lexical = LexicalHead(config.vocab_size, never_match)
        lexical.learn(examples.pairs, examples.pair_labels)
    return RankerNetwork(config, never_match if row.match_embeddings else None, lexical)


def run(options: QbqtcOptions) -> None:
    names = options.systems.split(",")
    rows = list(map(row_of, names))
    if len(set(names)) < len(names):
        raise UsageError(f"--systems {options.systems}: name each system once")
    reference = options.reference or ("ranker" if "ranker" in names else names[0])
    if reference not in names:
        raise UsageError(f"--reference {reference}: is not among the systems {', '.join(names)}")
    seeds = options.begin()
    harness = Harness(options, "qbqtc", options.protocol, options.folds)
    systems = []
    for row in rows:
        facts = {**options.facts(), **asdict(row), "name": "ranker"}  # the same ranker is not run under two names
        train = partial(train_from_nothing, options, row, harness)
        systems.append(harness.run(row.name, seeds, facts, train) if row.loss else harness.baseline(row.name))
    head = f"measured on {len(harness.measured):,} pairs of {len(set(harness.queries)):,} queries ({options.protocol})"
    print_comparison(options, harness.queries, harness.labels, systems, reference, head)


main = main_of(run, QbqtcOptions, (__doc__ or "").split("\n")[0], prog="benchmarks.qbqtc")


if __name__ == "__main__":
    raise SystemExit(main())
