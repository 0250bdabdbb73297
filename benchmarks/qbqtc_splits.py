"""What a benchmark on QBQTC learns from and what it measures: dev once, or every train query out of fold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Optional

import numpy as np

from benchmarks.report import real_data_file
from paddle_ranker.commands.make_triples import group_by_query, make_triples
from paddle_ranker.data.records import LabeledPair, Triple, read_records
from paddle_ranker.errors import UsageError
from paddle_ranker.metrics.ranking import Integers


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

    `protocol`: "dev" measures on qbqtc/dev.tsv, "cv" on qbqtc/train.tsv. Trained on "simclue" there are no folds: no
    query of QBQTC has been seen.
    """
    measured_name = "qbqtc/dev.tsv" if protocol == "dev" else "qbqtc/train.tsv"
    measured = read_records(real_data_file(data_dir, measured_name), LabeledPair)
    everything = np.arange(len(measured))
    if train_on == "simclue":
        triples = read_records(real_data_file(data_dir, "simclue/train_pairwise.tsv"), Triple)
        pairs = [
            LabeledPair(t.query, title, label) for t in triples for title, label in ((t.title, 1), (t.neg_title, 0))
        ]
        return measured, [Split("simclue", pairs, everything, triples)]
    if protocol == "dev":
        train = read_records(real_data_file(data_dir, "qbqtc/train.tsv"), LabeledPair)
        return measured, [Split("train", train, everything)]
    parts = grouped_folds([pair.query for pair in measured], folds)
    return measured, [
        Split(f"fold {number} of {folds}", [measured[row] for row in learn], score)
        for number, (learn, score) in enumerate(parts, 1)
    ]
