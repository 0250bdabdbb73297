"""Measure ranking quality from nothing (no pretrained weights) on QBQTC, beside lexical baselines.

python -m benchmarks.qbqtc --protocol cv --seeds 1,2,3      # out-of-fold over the train queries
python -m benchmarks.qbqtc --protocol dev --seeds 1,2,3     # trained on all of train, dev once
python -m benchmarks.qbqtc --train simclue                  # which pairwise loss: SimCLUE's triples, QBQTC's dev
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from benchmarks.from_nothing import Recipe, train_from_nothing
from benchmarks.qbqtc_splits import Split, make_splits
from benchmarks.report import (
    SHOWN,
    Goal,
    System,
    compare,
    figures_table,
    parse_numbers,
    real_data_file,
    report,
    write_report,
)
from benchmarks.run_store import Run, RunStore, file_digest
from paddle_ranker import runtime
from paddle_ranker.data.formats import check_writable
from paddle_ranker.data.records import LabeledPair, write_records
from paddle_ranker.errors import UsageError
from paddle_ranker.lexical import BM25, Baseline, LexicalLogistic, NgramLogistic
from paddle_ranker.options import option, run_command
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
class QbqtcOptions(Recipe):
    """Options of `python -m benchmarks.qbqtc`."""

    data_dir: Optional[str] = option(
        None, help="folder with qbqtc/, simclue/, vocab/ (default: PADDLE_RANKER_REAL_DATA, else ../shared/data)"
    )
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
    seeds: str = option("1", help="comma-separated random seeds, one run of the rankers each")
    threads: int = option(0, help="threads of training; 0: one a core", minimum=0)
    resamples: int = option(2000, help="bootstrap draws", minimum=10)
    scores_dir: Optional[str] = option(
        None, help="keep finished runs there and go on from them (another folder after a change of the code)"
    )
    json: Optional[str] = option(None, help="file for the results as JSON")


@dataclass(frozen=True)
class Contestant:
    """A row of the table: a lexical baseline, or the ranker with a loss, with or without what it is told of words."""

    name: str
    baseline: Optional[Callable[[], Baseline]] = None
    loss: str = ""
    margin: float = 0.0
    match_embeddings: bool = True
    lexical_features: bool = False


def contestants(options: QbqtcOptions) -> list[Contestant]:
    """Return the systems that the options name; raises `UsageError` for an unknown one."""
    names = (options.systems or (LOSSES if options.train == "simclue" else SYSTEMS)).split(",")
    found = []
    for name in names:
        loss, _, margin = name.partition(":")
        if name in LEXICAL:
            found.append(Contestant(name, LEXICAL[name]))
        elif name in RANKERS:
            own = margin_of(options.loss, options.margin)[0]
            lexical = name == "ranker_with_lexical"
            found.append(Contestant(name, None, options.loss, own, name != "ranker_without_match", lexical))
        elif loss in WITH_MARGIN and _is_number(margin):
            found.append(Contestant(name, None, loss, float(margin)))
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


class Bench:
    """Run systems over splits and seeds, with one line a finished run."""

    def __init__(self, options: QbqtcOptions, measured: list[LabeledPair], splits: list[Split]) -> None:
        self.options, self.measured, self.splits = options, measured, splits
        self.store = RunStore(options.scores_dir)
        used = ["qbqtc/train.tsv", "qbqtc/dev.tsv", "simclue/train_pairwise.tsv"]
        root = real_data_file(options.data_dir, "qbqtc/train.tsv").parent.parent
        self.digests = [file_digest(root / name) for name in used if (root / name).is_file()]

    def run(self, contestant: Contestant, seeds: Sequence[int]) -> System:
        """Return the scores of all measured pairs, joined over the splits, once for each seed."""
        runs, seconds = [], []
        for seed in seeds if contestant.baseline is None else [0]:  # a baseline draws nothing
            scores, spent = np.empty(len(self.measured)), 0.0
            for split in self.splits:
                began = time.perf_counter()
                facts = self._facts(contestant, split, seed)
                scores[split.rows], took = self.store.get(facts, self._job(contestant, split, seed))
                spent += took
                seeded = "" if contestant.baseline else f", seed {seed}"
                print(f"{contestant.name}, {split.name}{seeded}: {time.perf_counter() - began:.0f} s", flush=True)
            runs.append(scores)
            seconds.append(spent / len(self.splits))
        return System(contestant.name, tuple(runs), tuple(seconds))

    def _facts(self, contestant: Contestant, split: Split, seed: int) -> dict[str, Any]:
        told = {key: value for key, value in dataclasses.asdict(self.options).items() if key not in _NOT_FACTS}
        how = {"loss": contestant.loss, "margin": contestant.margin, "match": contestant.match_embeddings}
        how["lexical"] = contestant.lexical_features
        name = contestant.name if contestant.baseline else "ranker"
        return {**told, **how, "system": name, "split": split.name, "seed": seed, "data": self.digests}

    def _job(self, contestant: Contestant, split: Split, seed: int) -> Callable[[], Run]:
        if contestant.baseline is not None:
            return lambda: self._lexical(contestant, split)
        return lambda: self._ranker(contestant, split, seed)

    def _lexical(self, contestant: Contestant, split: Split) -> Run:
        assert contestant.baseline is not None
        baseline = contestant.baseline()
        began = time.perf_counter()
        baseline.fit(*_texts(split.pairs), [pair.label for pair in split.pairs])
        seconds = time.perf_counter() - began
        return baseline.score(*_texts([self.measured[row] for row in split.rows])), seconds

    def _ranker(self, contestant: Contestant, split: Split, seed: int) -> Run:
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
                loss=contestant.loss,
                margin=contestant.margin,
                match_embeddings=contestant.match_embeddings,
                lexical_features=contestant.lexical_features,
                seed=seed,
            )
        return trained.logits, seconds + trained.seconds


def _texts(pairs: Sequence[LabeledPair]) -> tuple[list[str], list[str]]:
    return [pair.query for pair in pairs], [pair.title for pair in pairs]


# Options that change no score, or whose effect stands in the facts in another form.
_NOT_FACTS = {"debug", "data_dir", "systems", "reference", "seeds", "threads", "resamples", "scores_dir", "json"}
_NOT_FACTS |= {"loss", "margin"}


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
    entrants = contestants(options)
    names = [contestant.name for contestant in entrants]
    reference = options.reference or ("ranker" if "ranker" in names else names[0])
    if reference not in names:
        raise UsageError(f"--reference {reference}: is not among the systems {', '.join(names)}")

    measured, splits = make_splits(options.data_dir, options.train, options.protocol, options.folds)
    bench = Bench(options, measured, splits)
    systems = [bench.run(contestant, seeds) for contestant in entrants]

    queries, labels = [pair.query for pair in measured], [pair.label for pair in measured]
    figures = compare(queries, labels, systems, reference, resamples=options.resamples)
    print(f"\ntrained on {options.train}, {options.vocabulary} vocabulary; measured on {len(measured):,} pairs of "
          f"{len(set(queries)):,} queries ({options.protocol}); means over seeds {options.seeds}, "
          "95% bootstrap intervals over queries\n")  # fmt: skip
    print(figures_table(systems, figures, reference))
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
