"""Measure ranking quality from nothing (no pretrained weights) on QBQTC, beside lexical baselines.

python -m benchmarks.qbqtc --protocol cv --seeds 1,2,3      # out-of-fold over the train queries
python -m benchmarks.qbqtc --protocol dev --seeds 1,2,3     # trained on all of train, dev once
python -m benchmarks.qbqtc --train simclue                  # which pairwise loss: SimCLUE's triples, QBQTC's dev
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from benchmarks.baselines import Baseline, NgramLogistic
from benchmarks.from_nothing import Recipe, train_from_nothing
from benchmarks.harness.figures import Goal, write_report
from benchmarks.harness.quality import SHOWN, print_comparison, report
from benchmarks.harness.runs import (
    QualityOptions,
    Run,
    RunStore,
    Split,
    System,
    file_digest,
    make_splits,
    run_over_splits,
    texts_of,
)
from benchmarks.inputs import parse_numbers, real_data_file
from paddle_ranker import runtime
from paddle_ranker.data.records import LabeledPair, write_records
from paddle_ranker.errors import UsageError
from paddle_ranker.lexical import BM25, LexicalLogistic
from paddle_ranker.options import option, run_command
from paddle_ranker.storage.atomic import check_writable
from paddle_ranker.training.losses.expression import margin_of

if TYPE_CHECKING:
    from paddle_ranker.encoding.pair_encoder import PairEncoder

LEXICAL: dict[str, Callable[[], Baseline]] = {
    "bm25_words": lambda: BM25("jieba"),
    "bm25_bigrams": lambda: BM25("bigram"),
    "features": LexicalLogistic,
    "ngrams": NgramLogistic,
}
RANKERS = ("ranker", "ranker_without_match", "ranker_with_lexical")
SYSTEMS = "bm25_words,bm25_bigrams,features,ranker_without_match,ranker"
LOSSES = (
    "margin_probability:0.1,margin_probability:0.2,"
    "margin_logit:0.5,margin_logit:1,margin_logit:2,ranknet:0"
)  # fmt: skip
WITH_MARGIN = ("margin_logit", "margin_probability", "ranknet", "ranknet_bce")
# What a ranker from nothing is to reach on dev, training on two cores.
GOALS = {"auc": 0.78, "ndcg@10": 0.86}
GOAL_SECONDS = 180.0


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
    reference: Optional[str] = option(None, help="system the others are compared to (default: ranker, else the first)")
    loss: str = option(
        "margin_logit",
        help="loss of the rankers",
        choices=WITH_MARGIN,
    )
    margin: Optional[float] = option(None, help="by how much a positive must be ahead (default: the loss's own)")
    per_positive: int = option(2, help="most triples a title is the better one of", minimum=1)
    vocabulary: str = option(
        "ernie",
        help="own: word pieces trained on the texts learned from; ernie: vocab/ernie-3.0-vocab.txt",
        choices=("own", "ernie"),
    )
    vocab_size: int = option(8000, help="word pieces of --vocabulary own at the most", minimum=1)
    threads: int = option(0, help="threads of training; 0: one a core", minimum=0)


@dataclass(frozen=True)
class Contender:
    """A row of the table: a lexical baseline, or the ranker with a loss, with or without what it is given of words."""

    name: str
    baseline: Optional[Callable[[], Baseline]] = None
    loss: str = ""
    margin: float = 0.0
    match_embeddings: bool = True
    lexical_features: bool = False


def contenders(options: QbqtcOptions) -> list[Contender]:
    """Return the systems that the options name; raises `UsageError` for an unknown one."""
    names = (options.systems or (LOSSES if options.train == "simclue" else SYSTEMS)).split(",")
    found = []
    for name in names:
        loss, _, margin = name.partition(":")
        if name in LEXICAL:
            found.append(Contender(name, LEXICAL[name]))
        elif name in RANKERS:
            own = margin_of(options.loss, options.margin)[0]
            lexical = name == "ranker_with_lexical"
            found.append(Contender(name, None, options.loss, own, name != "ranker_without_match", lexical))
        elif loss in WITH_MARGIN and _is_number(margin):
            found.append(Contender(name, None, loss, float(margin)))
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


class Harness:
    """Run systems over splits and seeds, with one line a finished run."""

    def __init__(self, options: QbqtcOptions, measured: list[LabeledPair], splits: list[Split]) -> None:
        self.options, self.measured, self.splits = options, measured, splits
        self.store = RunStore(options.scores_dir)
        used = ["qbqtc/train.tsv", "qbqtc/dev.tsv", "simclue/train_pairwise.tsv"]
        root = real_data_file(options.data_dir, "qbqtc/train.tsv").parent.parent
        self.digests = [file_digest(root / name) for name in used if (root / name).is_file()]

    def run(self, contender: Contender, seeds: Sequence[int]) -> System:
        """Return the scores of all measured pairs, joined over the splits, once for each seed."""

        def run(split: Split, seed: int) -> Run:
            began = time.perf_counter()
            found = self.store.get(self._facts(contender, split, seed), lambda: self._train(contender, split, seed))
            seeded = "" if contender.baseline else f", seed {seed}"
            print(f"{contender.name}, {split.name}{seeded}: {time.perf_counter() - began:.0f} s", flush=True)
            return found

        drawn = seeds if contender.baseline is None else [0]  # a baseline draws nothing
        return run_over_splits(contender.name, len(self.measured), self.splits, drawn, run)

    def _facts(self, contender: Contender, split: Split, seed: int) -> dict[str, Any]:
        told = {key: value for key, value in self.options.facts().items() if key not in ("loss", "margin")}
        how = {"loss": contender.loss, "margin": contender.margin, "match": contender.match_embeddings}
        how["lexical"] = contender.lexical_features
        name = contender.name if contender.baseline else "ranker"
        return {**told, **how, "system": name, "split": split.name, "seed": seed, "data": self.digests}

    def _train(self, contender: Contender, split: Split, seed: int) -> Run:
        if contender.baseline is None:
            return self._ranker(contender, split, seed)
        return fit_baseline(contender.baseline(), split.pairs, [self.measured[row] for row in split.rows])

    def _ranker(self, contender: Contender, split: Split, seed: int) -> Run:
        from paddle_ranker.evaluation.evaluate import EvaluationSet

        options = self.options
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            pair_encoder = make_pair_encoder(options, split, Path(folder))
            triples = split.triples_for(options.per_positive, seed)
            seconds = time.perf_counter() - began
            held_out = Path(folder) / "held_out.tsv"
            write_records(held_out, (self.measured[row] for row in split.rows))
            trained = train_from_nothing(
                triples,
                EvaluationSet(held_out, pair_encoder, 64),
                pair_encoder,
                options,
                loss=contender.loss,
                margin=contender.margin,
                match_embeddings=contender.match_embeddings,
                lexical_features=contender.lexical_features,
                seed=seed,
            )
        return trained.logits, seconds + trained.seconds


def fit_baseline(baseline: Baseline, learn: Sequence[LabeledPair], held_out: Sequence[LabeledPair]) -> Run:
    """Fit a lexical baseline; return how it scores what is held out, and the seconds."""
    began = time.perf_counter()
    baseline.fit(*texts_of(learn), [pair.label for pair in learn])
    seconds = time.perf_counter() - began
    return baseline.score(*texts_of(held_out)), seconds


def make_pair_encoder(options: QbqtcOptions, split: Split, folder: Path) -> PairEncoder:
    """Return an encoder with ERNIE's vocabulary, or with one trained on the texts of the split; uses `folder`."""
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
    """Print the table of all systems, and what was reached."""
    if options.json:
        check_writable(options.json)
    seeds = parse_numbers(options.seeds, "seeds")
    runtime.prepare_command(options.threads)
    rows = contenders(options)
    names = [contender.name for contender in rows]
    reference = options.reference or ("ranker" if "ranker" in names else names[0])
    if reference not in names:
        raise UsageError(f"--reference {reference}: is not among the systems {', '.join(names)}")

    measured, splits = make_splits(options.data_dir, options.train, options.protocol, options.folds)
    harness = Harness(options, measured, splits)
    systems = [harness.run(contender, seeds) for contender in rows]

    queries, labels = [pair.query for pair in measured], [pair.label for pair in measured]
    head = (f"trained on {options.train}, {options.vocabulary} vocabulary; measured on {len(measured):,} pairs of "
            f"{len(set(queries)):,} queries ({options.protocol})")  # fmt: skip
    figures = print_comparison(options, queries, labels, systems, reference, head)
    goals = []
    if (options.train, options.protocol) == ("qbqtc", "dev") and "ranker" in names:
        goals = [
            Goal(f"ranker's {SHOWN[name]}", figures["ranker"][name].interval.estimate, GOALS[name]) for name in GOALS
        ]
        slowest = max(systems[names.index("ranker")].seconds)
        goals.append(Goal("seconds of training", slowest, GOAL_SECONDS, at_most=True))
        print("\n" + "\n".join(map(str, goals)))
    facts = {"pairs": len(measured), "queries": len(set(queries)), "reference": reference}
    write_report(options.json, report(options, systems, figures, goals, **facts))


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; return its exit status."""
    return run_command(run, QbqtcOptions, argv, (__doc__ or "").split("\n")[0], prog="benchmarks.qbqtc")


if __name__ == "__main__":
    raise SystemExit(main())
