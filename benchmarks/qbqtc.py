"""Measure ranking quality without pretrained weights on QBQTC, beside lexical baselines.

python -m benchmarks.qbqtc --protocol cv --seeds 1,2,3      # out-of-fold over the train queries
python -m benchmarks.qbqtc --protocol dev --seeds 1,2,3     # trained on all of train, dev once
python -m benchmarks.qbqtc --train simclue                  # which pairwise loss: SimCLUE's triples, QBQTC's dev
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Optional

import numpy as np

from benchmarks.harness.quality import SHOWN, Measure, publish
from benchmarks.harness.report import Goal
from benchmarks.harness.runs import LEXICAL, NEVER, Harness, QualityOptions, Run, Split, System
from benchmarks.inputs import real_data_file
from paddle_ranker import runtime
from paddle_ranker.data.records import write_records
from paddle_ranker.errors import UsageError
from paddle_ranker.options import Options, main_of, option
from paddle_ranker.training.losses.expression import margin_of
from paddle_ranker.training.options import TrainingOptions

if TYPE_CHECKING:
    from ernie_matching.model import PairwiseExamples
    from paddle_ranker.encoding.pair_encoder import PairEncoder
    from paddle_ranker.model.network import RankerNetwork

RANKERS = ("ranker", "ranker_without_match", "ranker_with_lexical")
SYSTEMS = "bm25_words,bm25_bigrams,features,ranker_without_match,ranker"
LOSSES = (
    "margin_probability:0.1,margin_probability:0.2,"
    "margin_logit:0.5,margin_logit:1,margin_logit:2,ranknet:0"
)  # fmt: skip
WITH_MARGIN = ("margin_logit", "margin_probability", "ranknet", "ranknet_bce")
# Goals for a ranker from random weights on dev, trained on two cores.
GOALS = {"auc": 0.78, "ndcg@10": 0.86}
GOAL_SECONDS = 180.0


@dataclass(frozen=True)
class Recipe(Options):
    """Options for the shape of the encoder, and for its training."""

    layers: int = option(2, help="layers", minimum=1)
    hidden_size: int = option(128, help="width", minimum=8)
    heads: int = option(4, help="attention heads; the number must divide the width", minimum=1)
    dropout: float = option(0.2, help="dropout in training", minimum=0, below=1)
    normalize_before: bool = option(True, help="LayerNorm before each part of a layer")
    max_seq_length: int = option(64, help="longest pair in tokens", minimum=5)
    learning_rate: float = option(5e-4, help="maximum of the learning rate", above=0)
    weight_decay: float = option(0.01, help="weight decay", minimum=0)
    warmup_proportion: float = option(0.06, help="warm-up, as a share of all steps", minimum=0, below=1)
    max_grad_norm: float = option(1.0, help="clip the gradient to this norm; 0: no clipping", minimum=0)
    batch_size: int = option(16, help="triples a batch", minimum=1)
    epochs: int = option(1, help="epochs", minimum=1)
    max_steps: int = option(0, help="maximum number of steps; 0: all steps of the epochs", minimum=0)

    def training_options(self, save_dir: Path, seed: int) -> TrainingOptions:
        """Return the trainer's options, without evaluations and checkpoints before the end."""
        return TrainingOptions(
            save_dir=str(save_dir), seed=seed, device="cpu", eval_step=NEVER, save_step=NEVER, logging_steps=NEVER,
            batch_size=self.batch_size, learning_rate=self.learning_rate, weight_decay=self.weight_decay,
            epochs=self.epochs, max_steps=self.max_steps, warmup_proportion=self.warmup_proportion,
            max_grad_norm=self.max_grad_norm,
        )  # fmt: skip


@dataclass(frozen=True)
class QbqtcOptions(Recipe, QualityOptions):
    """Options of `python -m benchmarks.qbqtc`."""

    train: str = option("qbqtc", help="what to learn from", choices=("qbqtc", "simclue"))
    protocol: str = option(
        "dev",
        help="dev: learn from all, measure on qbqtc/dev.tsv; cv: measure on every query of qbqtc/train.tsv, by a run "
        "that has not seen it",
        choices=("dev", "cv"),
    )
    folds: int = option(3, help="folds of --protocol cv", minimum=2)
    systems: Optional[str] = option(
        None,
        help=f"comma-separated: {', '.join(LEXICAL)}, {', '.join(RANKERS)}, or a loss:margin, which is the "
        f"ranker with that loss (default: {SYSTEMS}; with --train simclue {LOSSES})",
    )
    reference: Optional[str] = option(
        None, help="system with which the others are compared (default: ranker, else the first)"
    )
    loss: str = option(
        "margin_logit",
        help="loss of the rankers",
        choices=WITH_MARGIN,
    )
    margin: Optional[float] = option(None, help="margin by which a positive must be ahead (default: the loss's)")
    per_positive: int = option(2, help="maximum number of triples in which a title is the better one", minimum=1)
    vocabulary: str = option(
        "ernie",
        help="own: word pieces trained on the training texts; ernie: vocab/ernie-3.0-vocab.txt",
        choices=("own", "ernie"),
    )
    vocab_size: int = option(8000, help="maximum number of word pieces of --vocabulary own", minimum=1)
    threads: int = option(0, help="threads of training; 0: one per core", minimum=0)


@dataclass(frozen=True)
class Row:
    """A row of the table: a lexical baseline (`loss` is ""), or the ranker with its loss and its lexical inputs."""

    name: str
    loss: str = ""
    margin: float = 0.0
    match_embeddings: bool = True
    lexical_features: bool = False


def rows_of(options: QbqtcOptions) -> list[Row]:
    """Return the rows that the options name; raises `UsageError` for a name that is unknown or repeats."""
    names = (options.systems or (LOSSES if options.train == "simclue" else SYSTEMS)).split(",")
    found = []
    for name in names:
        loss, _, margin = name.partition(":")
        if name in LEXICAL:
            found.append(Row(name))
        elif name in RANKERS:
            own = margin_of(options.loss, options.margin)[0]
            lexical = name == "ranker_with_lexical"
            found.append(Row(name, options.loss, own, name != "ranker_without_match", lexical))
        elif loss in WITH_MARGIN and _is_number(margin):
            found.append(Row(name, loss, float(margin)))
        else:
            known = ", ".join([*LEXICAL, *RANKERS])
            raise UsageError(f"--systems {name}: choose from {known}, or name a loss as in margin_logit:1")
    if len(set(names)) < len(names):
        raise UsageError(f"--systems {','.join(names)}: name each system once")
    return found


def _is_number(text: str) -> bool:
    try:
        return np.isfinite(float(text)).item()
    except ValueError:
        return False


def train_from_nothing(options: QbqtcOptions, row: Row, harness: Harness, split: Split, seed: int) -> Run:
    """Train a ranker from random parameters; return its final logits of the held-out pairs, and the seconds.

    The seconds count from the training of the word pieces to the last step.
    """
    from ernie_matching.data import encode_triples
    from ernie_matching.model import PairwiseExamples
    from paddle_ranker.distributed import ProcessGroup
    from paddle_ranker.evaluation.evaluate import EvaluationSet
    from paddle_ranker.metrics.auc import roc_auc
    from paddle_ranker.scoring.engines.dygraph import DygraphEngine
    from paddle_ranker.training.losses.expression import RankingLoss
    from paddle_ranker.training.task import Task
    from paddle_ranker.training.trainer import fit

    with tempfile.TemporaryDirectory() as name:
        folder, began = Path(name), time.perf_counter()
        pair_encoder = make_pair_encoder(options, split, folder)
        runtime.select_device("cpu")
        runtime.set_seed(seed)
        encoded = encode_triples(split.triples_for(options.per_positive, seed), pair_encoder)
        examples = PairwiseExamples(encoded, RankingLoss(row.loss, row.margin))
        network = make_network(options, row, pair_encoder, examples)
        write_records(folder / "held_out.tsv", harness.of(split))
        evaluation, found = EvaluationSet(folder / "held_out.tsv", pair_encoder, 64), []

        # Only after the last step: choosing the best checkpoint would bias the result.
        def evaluate() -> dict[str, float]:
            seconds = time.perf_counter() - began
            found.append((evaluation.logits(DygraphEngine(network)), seconds))
            return {"auc": roc_auc(evaluation.labels, found[-1][0])}

        task = Task(network, examples, evaluate, lambda folder, results: None, "auc")
        fit(task, options.training_options(folder / "checkpoint", seed), ProcessGroup())
        return found[-1]


def make_network(
    options: QbqtcOptions, row: Row, pair_encoder: PairEncoder, examples: PairwiseExamples
) -> RankerNetwork:
    """Make a ranker of random parameters; its lexical features, if any, have learned from the examples."""
    from paddle_ranker.encoding.pair_encoder import never_match_ids
    from paddle_ranker.lexical.head import LexicalHead
    from paddle_ranker.model.config import EncoderConfig
    from paddle_ranker.model.network import RankerNetwork

    config = EncoderConfig.small(
        pair_encoder.vocab_size,
        layers=options.layers,
        hidden_size=options.hidden_size,
        heads=options.heads,
        dropout=options.dropout,
        positions=options.max_seq_length,
        normalize_before=options.normalize_before,
    )
    never_match, lexical = never_match_ids(pair_encoder), None
    if row.lexical_features:
        lexical = LexicalHead(config.vocab_size, never_match)
        lexical.learn(examples.pairs, examples.pair_labels)
    return RankerNetwork(config, never_match if row.match_embeddings else None, lexical)


def make_pair_encoder(options: QbqtcOptions, split: Split, folder: Path) -> PairEncoder:
    """Write ERNIE's vocabulary, or one trained on the split's texts, into `folder`; return its pair encoder."""
    from paddle_ranker.encoding.pair_encoder import PairEncoder
    from paddle_ranker.encoding.vocabulary import train_wordpiece_vocabulary, write_vocabulary

    if options.vocabulary == "ernie":
        content = real_data_file(options.data_dir, "vocab/ernie-3.0-vocab.txt").read_bytes()
        (folder / "vocab.txt").write_bytes(content)
    else:
        texts = dict.fromkeys(text for pair in split.pairs for text in (pair.query, pair.title))
        write_vocabulary(folder, train_wordpiece_vocabulary(texts, options.vocab_size))
    return PairEncoder.from_folder(folder, options.max_seq_length)


def run(options: QbqtcOptions) -> None:
    """Print the table of all systems, and the goals reached or missed."""
    rows = rows_of(options)
    names = [row.name for row in rows]
    reference = options.reference or ("ranker" if "ranker" in names else names[0])
    if reference not in names:
        raise UsageError(f"--reference {reference}: is not among the systems {', '.join(names)}")
    seeds = options.begin()
    harness = Harness(options, options.train, options.protocol, options.folds)
    kept = {key: value for key, value in options.facts().items() if key not in ("loss", "margin")}

    def system(row: Row) -> System:
        if not row.loss:
            return harness.baseline(row.name)
        facts = {**kept, **asdict(row), "name": "ranker"}  # the same ranker under another name then is not run again
        return harness.run(row.name, seeds, facts, partial(train_from_nothing, options, row, harness))

    def goals(measured: Mapping[str, Mapping[str, Measure]]) -> list[Goal]:
        if (options.train, options.protocol) != ("qbqtc", "dev") or "ranker" not in names:
            return []
        found = [
            Goal(f"ranker's {SHOWN[name]}", measured["ranker"][name].interval.estimate, GOALS[name]) for name in GOALS
        ]
        slowest = max(systems[names.index("ranker")].seconds)
        return [*found, Goal("seconds of training", slowest, GOAL_SECONDS, at_most=True)]

    systems = [system(row) for row in rows]
    head = (f"trained on {options.train}, {options.vocabulary} vocabulary; measured on {len(harness.measured):,} pairs "
            f"of {len(set(harness.queries)):,} queries ({options.protocol})")  # fmt: skip
    publish(options, harness.queries, harness.labels, systems, reference, head, goals=goals)


main = main_of(run, QbqtcOptions, (__doc__ or "").split("\n")[0], prog="benchmarks.qbqtc")


if __name__ == "__main__":
    raise SystemExit(main())
