"""Trainings that a quality benchmark compares: its options, folds of queries, and finished runs kept on the disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np

from benchmarks.inputs import real_data_file
from paddle_ranker.commands.make_triples import group_by_query, make_triples
from paddle_ranker.data.records import LabeledPair, Triple, read_records
from paddle_ranker.errors import UsageError
from paddle_ranker.metrics.ranking import Floats, Integers
from paddle_ranker.options import Options, option
from paddle_ranker.storage.atomic import make_folder, new_file

Run = tuple[Floats, float]  # a score a pair, `[pairs] float64`, and seconds of training
FILES = {"qbqtc": "qbqtc/train.tsv", "kuake": "kuake_qtr/train.tsv"}
# Options that change no score.
_NOT_FACTS = {"debug", "data_dir", "systems", "reference", "seeds", "threads", "resamples", "scores_dir", "json"}


@dataclass(frozen=True)
class QualityOptions(Options):
    """Options of every benchmark that trains systems and compares what they score."""

    data_dir: Optional[str] = option(
        None, help="folder of the real data (default: PADDLE_RANKER_REAL_DATA, else ../shared/data)"
    )
    seeds: str = option("1", help="comma-separated random seeds, one run of each system that draws anything")
    threads: int = option(1, help="threads of training; 0: one a core", minimum=0)
    resamples: int = option(2000, help="bootstrap draws", minimum=10)
    scores_dir: Optional[str] = option(
        None, help="keep finished runs there and go on from them (another folder after a change of the code)"
    )
    json: Optional[str] = option(None, help="file for the results as JSON")

    def facts(self) -> dict[str, Any]:
        """Return the options that decide a score."""
        return {key: value for key, value in asdict(self).items() if key not in _NOT_FACTS}


@dataclass(frozen=True)
class System:
    """What ranked the pairs: for each run (seed) a score a pair, `[pairs] float64`, and the seconds of training."""

    name: str
    runs: tuple[Floats, ...]
    seconds: tuple[float, ...]


@dataclass(frozen=True)
class Split:
    """What one run learns from, and the rows (of all that is measured) that it scores."""

    name: str
    pairs: list[LabeledPair]
    rows: Integers
    triples: list[Triple] = field(default_factory=list)  # given ones; without them they are made of the pairs

    def triples_for(self, per_positive: int, seed: int) -> list[Triple]:
        """Return the triples to train on."""
        groups = group_by_query(self.pairs).values()
        return self.triples or [triple for group in groups for triple in make_triples(group, per_positive, seed)]


def grouped_folds(queries: Sequence[str], folds: int) -> Iterator[tuple[Integers, Integers]]:
    """Yield (rows to learn from, rows to score) of each fold; a query's rows are all on one side."""
    from sklearn.model_selection import GroupKFold

    if len(set(queries)) < folds:
        raise UsageError(f"--folds {folds}: there are only {len(set(queries))} queries")
    yield from GroupKFold(n_splits=folds).split(np.zeros(len(queries)), groups=list(queries))


def make_splits(
    data_dir: Optional[str], train_on: str, protocol: str, folds: int
) -> tuple[list[LabeledPair], list[Split]]:
    """Return the measured pairs, and the splits that together score each of them once.

    `protocol`: "dev" measures on qbqtc/dev.tsv, "cv" on the training file (`FILES`). Trained on "simclue" there are no
    folds: no query of QBQTC has been seen.
    """
    if protocol == "dev" and train_on == "kuake":
        raise UsageError(f"--protocol dev: {train_on} has no dev file; take cv")
    file = FILES.get(train_on, FILES["qbqtc"])
    measured = read_records(real_data_file(data_dir, "qbqtc/dev.tsv" if protocol == "dev" else file), LabeledPair)
    everything = np.arange(len(measured))
    if train_on == "simclue":
        triples = read_records(real_data_file(data_dir, "simclue/train_pairwise.tsv"), Triple)
        pairs = [
            LabeledPair(t.query, title, label) for t in triples for title, label in ((t.title, 1), (t.neg_title, 0))
        ]
        return measured, [Split("simclue", pairs, everything, triples)]
    if protocol == "dev":
        train = read_records(real_data_file(data_dir, file), LabeledPair)
        return measured, [Split("train", train, everything)]
    parts = grouped_folds([pair.query for pair in measured], folds)
    return measured, [
        Split(f"fold {number} of {folds}", [measured[row] for row in learn], score)
        for number, (learn, score) in enumerate(parts, 1)
    ]


def run_over_splits(
    name: str, pairs: int, splits: Sequence[Split], seeds: Sequence[int], run: Callable[[Split, int], Run]
) -> System:
    """Return the scores of all measured pairs, joined over the splits, once for each seed."""
    runs, seconds = [], []
    for seed in seeds:
        scores, spent = np.empty(pairs), 0.0
        for split in splits:
            scores[split.rows], took = run(split, seed)
            spent += took
        runs.append(scores)
        seconds.append(spent / len(splits))
    return System(name, tuple(runs), tuple(seconds))


def texts_of(pairs: Sequence[LabeledPair]) -> tuple[list[str], list[str]]:
    """Return the queries, and the titles."""
    return [pair.query for pair in pairs], [pair.title for pair in pairs]


class RunStore:
    """Keep each run under a name made from the facts that decide it; without a folder nothing is kept.

    The facts are options and data: after a change of the code, take another folder.
    """

    def __init__(self, folder: Optional[str]) -> None:
        self.folder = make_folder(folder) if folder is not None else None

    def get(self, facts: Mapping[str, Any], compute: Callable[[], Run]) -> Run:
        """Return the run of these facts, from the disk where it is there, else computed and kept."""
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


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file: the fact that says what data it holds."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
