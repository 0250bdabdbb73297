"""Trainings that a quality benchmark compares: their options, folds of queries, and finished runs kept on disk."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Optional, Protocol

import numpy as np

from benchmarks.inputs import parse_numbers, real_data_file
from paddle_ranker import runtime
from paddle_ranker.array_types import Floats, Integers
from paddle_ranker.commands.make_triples import group_by_query, make_triples
from paddle_ranker.data.rows.records import LabeledPair, Triple, read_records
from paddle_ranker.errors import RankerError, UsageError
from paddle_ranker.lexical.bm25 import BM25
from paddle_ranker.lexical.features import LexicalLogistic
from paddle_ranker.metrics.ranking import standardised
from paddle_ranker.model.model_folder import RANKER, load_model
from paddle_ranker.model.parameters import PARAMETERS_FILE
from paddle_ranker.options import Options, option, parse_options
from paddle_ranker.storage.atomic import make_folder, new_file

if TYPE_CHECKING:
    from paddle_ranker.model.config import EncoderConfig

Run = tuple[Floats, float]  # one score per pair, `[pairs] float64`, and the seconds of training
FILES = {"qbqtc": "qbqtc/train.tsv", "kuake": "kuake_qtr/train.tsv"}
NEVER = 10**9
# Options that do not affect scores.
_NOT_FACTS = {"debug", "data_dir", "systems", "reference", "seeds", "threads", "resamples", "scores_dir"}


@dataclass(frozen=True)
class QualityOptions(Options):
    """Options of every benchmark that trains systems and compares their scores."""

    data_dir: Optional[str] = option(
        None, help="folder of the real data (default: PADDLE_RANKER_REAL_DATA, else ../shared/data)"
    )
    seeds: str = option(
        "1", help="comma-separated random seeds, one run per seed of each system that uses random numbers"
    )
    threads: int = option(1, help="threads of training; 0: one per core", minimum=0)
    resamples: int = option(2000, help="bootstrap draws", minimum=10)
    scores_dir: Optional[str] = option(
        None, help="folder for finished runs, which are reused (use another folder after a change of the code)"
    )

    def facts(self) -> dict[str, Any]:
        """Return a dict of the options that affect scores."""
        return {key: value for key, value in asdict(self).items() if key not in _NOT_FACTS}

    def begin(self) -> list[int]:
        """Prepare the process for Paddle, and return the seeds."""
        seeds = parse_numbers(self.seeds, "seeds")
        runtime.prepare_command(self.threads)
        return seeds


@dataclass(frozen=True)
class System:
    """Results of a system: a score per pair, `[pairs] float64`, and the seconds of training, for each run (seed)."""

    name: str
    runs: tuple[Floats, ...]
    seconds: tuple[float, ...]


@dataclass(frozen=True)
class Split:
    """Training data of a run, and the indices of the measured pairs that the run scores."""

    name: str
    pairs: list[LabeledPair]
    rows: Integers

    def triples_for(self, per_positive: int, seed: int) -> list[Triple]:
        """Make triples from the pairs, `per_positive` for each positive."""
        groups = group_by_query(self.pairs).values()
        return [triple for group in groups for triple in make_triples(group, per_positive, seed)]


def grouped_folds(queries: Sequence[str], folds: int) -> Iterator[tuple[Integers, Integers]]:
    """Yield (rows to learn from, rows to score) for each fold; all rows of a query are on the same side."""
    from sklearn.model_selection import GroupKFold

    if len(set(queries)) < folds:
        raise UsageError(f"--folds {folds}: there are only {len(set(queries))} queries")
    yield from GroupKFold(n_splits=folds).split(np.zeros(len(queries)), groups=list(queries))


def data_file(data_dir: Optional[str], data: str) -> Path:
    """Return the file of labelled pairs of a known data set, or `data` itself as a path."""
    return real_data_file(data_dir, FILES[data]) if data in FILES else Path(data)


def make_splits(
    data_dir: Optional[str], train_on: str, protocol: str, folds: int
) -> tuple[list[LabeledPair], list[Split]]:
    """Return the measured pairs, and the splits that together score each measured pair once.

    `protocol`: "dev" measures on qbqtc/dev.tsv, "cv" on the training file (see `data_file`).
    """
    if protocol == "dev" and train_on != "qbqtc":
        raise UsageError(f"--protocol dev: {train_on} has no dev file; take cv")
    file = data_file(data_dir, train_on)
    measured = read_records(real_data_file(data_dir, "qbqtc/dev.tsv") if protocol == "dev" else file, LabeledPair)
    if protocol == "dev":
        train = read_records(file, LabeledPair)
        return measured, [Split("train", train, np.arange(len(measured)))]
    parts = grouped_folds([pair.query for pair in measured], folds)
    return measured, [
        Split(f"fold {number} of {folds}", [measured[row] for row in learn], score)
        for number, (learn, score) in enumerate(parts, 1)
    ]


def resembling(measured: Sequence[LabeledPair], learned: Sequence[LabeledPair]) -> set[str]:
    """Return the measured queries that share a title, or 30% of their characters' bigrams, with a learned query.

    The share is that of the union (Jaccard), regardless of case.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    names, others = (list(dict.fromkeys(pair.query for pair in pairs)) for pairs in (measured, learned))
    counter = CountVectorizer(analyzer="char", ngram_range=(2, 2), binary=True)
    bigrams = counter.fit_transform([*names, *others])
    sizes = bigrams.sum(axis=1).A1
    common = (bigrams[: len(names)] @ bigrams[len(names) :].T).tocoo()
    union = sizes[common.row] + sizes[len(names) + common.col] - common.data
    titles = {pair.title for pair in learned}
    near = {names[row] for row in common.row[common.data >= 0.3 * union]}
    return near | {pair.query for pair in measured if pair.title in titles}


def texts_of(pairs: Sequence[LabeledPair]) -> tuple[list[str], list[str]]:
    return [pair.query for pair in pairs], [pair.title for pair in pairs]


class RunStore:
    """Store of finished runs in a folder, keyed by facts: the options and digests of data that determine a run.

    Facts do not include the code, so use a new folder after changing it. Without a folder, nothing is stored.
    """

    def __init__(self, folder: Optional[str]) -> None:
        self.folder = make_folder(folder) if folder is not None else None

    def get(self, facts: Mapping[str, Any], compute: Callable[[], Run]) -> Run:
        """Return a run from the disk, or else compute and store it."""
        if self.folder is None:
            return compute()
        path = self._path(facts)
        if path.is_file():
            with np.load(path, allow_pickle=False) as stored:
                return stored["scores"], float(stored["seconds"])
        scores, seconds = compute()
        with new_file(path, "wb") as stream:
            np.savez(stream, scores=scores, seconds=np.float64(seconds))
        return scores, seconds

    def _path(self, facts: Mapping[str, Any]) -> Path:
        assert self.folder is not None
        text = json.dumps(facts, sort_keys=True, ensure_ascii=False)
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.npz"


def run_seeds(
    store: RunStore, name: str, seeds: Sequence[int], facts: Mapping[str, Any], train: Callable[[int], Run]
) -> System:
    """Run a system for each seed, or take its runs from the store; each run prints a line.

    facts: the values that determine a run, besides the system's name and the seed
    train: computes the run of a seed
    """
    runs = []
    for seed in seeds:
        runs.append(store.get({**facts, "system": name, "seed": seed}, partial(train, seed)))
        print(f"{name}, seed {seed}: {runs[-1][1]:.0f} s of training", flush=True)
    return System(name, tuple(scores for scores, _ in runs), tuple(seconds for _, seconds in runs))


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, which identifies its data in the facts of a run."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Harness:
    """A data set's splits, over which systems are run; each finished run prints a line.

    Attributes: `measured`, the measured pairs; their `queries` and `labels`; `splits`; `digests` of the files used.
    """

    def __init__(
        self, options: QualityOptions, train_on: str, protocol: str, folds: int, scores_dir: Optional[str] = None
    ) -> None:
        self.measured, self.splits = make_splits(options.data_dir, train_on, protocol, folds)
        self.queries = [pair.query for pair in self.measured]
        self.labels = np.array([pair.label for pair in self.measured])
        self.store = RunStore(scores_dir or options.scores_dir)
        used = [data_file(options.data_dir, train_on)]
        if train_on in FILES:
            root = used[0].parent.parent
            used = [*dict.fromkeys([*used, root / FILES["qbqtc"], root / "qbqtc/dev.tsv"])]
        self.digests = [file_digest(path) for path in used if path.is_file()]

    def run(
        self, name: str, seeds: Sequence[int], facts: Mapping[str, Any], train: Callable[[Split, int], Run]
    ) -> System:
        """Run a system on all splits for each seed; return its scores of all measured pairs, and seconds per split.

        Each split's scores are `standardised`.

        Args:
            facts: the values that determine a run, besides split, seed and data.
            train: computes the run of a split and a seed if none is kept.
        """
        runs, seconds = [], []
        for seed in seeds:
            scores, spent = np.empty(len(self.measured)), 0.0
            for split in self.splits:
                own = {**facts, "split": split.name, "seed": seed, "data": self.digests}
                found, took = self.store.get(own, partial(train, split, seed))
                scores[split.rows] = standardised(found)
                print(f"{name}, {split.name}, seed {seed}: {took:.0f} s of training", flush=True)
                spent += took
            runs.append(scores)
            seconds.append(spent / len(self.splits))
        return System(name, tuple(runs), tuple(seconds))

    def baseline(self, name: str) -> System:
        """Fit a lexical baseline on each split; return its scores as a single run, as it uses no random numbers."""
        return self.run(
            name, [0], {"system": name}, lambda split, seed: fit_baseline(name, split.pairs, self.of(split))
        )

    def of(self, split: Split) -> list[LabeledPair]:
        """Return the pairs that a run on the split scores."""
        return [self.measured[row] for row in split.rows]


class Baseline(Protocol):
    """A model that learns from graded pairs and scores each pair independently."""

    def fit(self, queries: Sequence[str], titles: Sequence[str], labels: Sequence[float]) -> None:
        """Learn from labelled pairs."""

    def score(self, queries: Sequence[str], titles: Sequence[str]) -> Floats:
        """Return a score per pair, `[pairs] float64`; higher is more relevant."""


LEXICAL: dict[str, Callable[[], Baseline]] = {
    "bm25_words": lambda: BM25("jieba"),
    "bm25_bigrams": lambda: BM25("bigram"),
    "features": LexicalLogistic,
}


def fit_baseline(name: str, learn: Sequence[LabeledPair], held_out: Sequence[LabeledPair]) -> Run:
    """Fit a lexical baseline on `learn`; return its scores of `held_out`, and the seconds of the fit."""
    baseline = LEXICAL[name]()
    began = time.perf_counter()
    baseline.fit(*texts_of(learn), [pair.label for pair in learn])
    seconds = time.perf_counter() - began
    return baseline.score(*texts_of(held_out)), seconds


def small_starter(corpus: Path, folder: Path, layers: int, hidden_size: int, positions: int, seed: int) -> Path:
    """Write an encoder with random parameters, and a vocabulary of the texts in `corpus`; return its folder."""
    from paddle_ranker.commands.starter import StarterOptions, make_starter

    return make_starter(
        StarterOptions(
            corpus=str(corpus),
            output_dir=str(folder),
            num_hidden_layers=layers,
            hidden_size=hidden_size,
            num_attention_heads=max(hidden_size // 32, 1),
            max_position_embeddings=positions,
            seed=seed,
        )
    )


def replace_encoder(folder: Path, config: EncoderConfig, seed: int) -> None:
    """Replace the encoder in `folder` by one of `config` with random parameters; the tokenizer stays."""
    from paddle_ranker.model.families import family_of, write_config
    from paddle_ranker.model.parameters import save_arrays

    runtime.set_seed(seed)
    write_config(folder, config)
    save_arrays(family_of(config.model_type).network(config).state_dict(), folder / PARAMETERS_FILE)


def train_cross_encoder(
    train_file: Path, test_file: Path, encoder: Path, folder: Path, values: Mapping[str, object], *more: str
) -> float:
    """Train with `train_ce.train` into `folder`; return the seconds.

    Use the checkpoint `last`: the best one is chosen on the measured file, so its scores would be too good.

    values: options of the command by name
    more: further options, as typed
    """
    from cross_encoder.train_ce import TrainCeOptions, train

    files = {"train_set": train_file, "test_file": test_file, "model_name_or_path": encoder, "save_dir": folder}
    steps = dict.fromkeys(("eval_step", "save_step", "logging_steps"), NEVER)
    given = {**files, **steps, "device": "cpu", "warmup_proportion": 0.06, **values}
    typed = [*(f"--{name}={value}" for name, value in given.items()), *more]
    began = time.perf_counter()
    train(parse_options(TrainCeOptions, typed, "train_ce.py", ""))
    return time.perf_counter() - began


def score_file(ranker: Path, file: Path) -> Floats:
    """Return the ranker's logits of all pairs of a file, including pairs with contradicting labels."""
    from paddle_ranker.evaluation.evaluation_set import EvaluationSet
    from paddle_ranker.scoring.engines.dygraph import DygraphEngine

    parts = load_model(ranker, RANKER)
    return EvaluationSet(file, parts.row_encoder, 64).logits(DygraphEngine(parts.network))


def converted_encoder(source: Path, target: Path) -> Path:
    """Return `source` if it is an encoder of this toolkit; else convert it into `target`, and return `target`."""
    from paddle_ranker.commands.convert import ConvertOptions, convert

    if (source / PARAMETERS_FILE).is_file():
        return source
    if not (target / PARAMETERS_FILE).is_file():
        if target.exists():
            raise RankerError(f"{target}: holds no encoder; remove it")
        convert(ConvertOptions(source=str(source), target=str(target)))
    return target
