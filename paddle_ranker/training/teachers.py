"""Teachers: the mean logits of trained rankers; and data files with the logits of any teacher."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Optional, Protocol

import numpy as np

from paddle_ranker import runtime
from paddle_ranker.array_types import Floats
from paddle_ranker.data.rows.records import LabeledPair, Pair, Record, Triple
from paddle_ranker.encoding.pair_encoder import PairEncoder, shortest
from paddle_ranker.errors import refuse_text
from paddle_ranker.metrics.calibration import sigmoid
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.options.input_files import split_paths
from paddle_ranker.scoring.scoring_options import ScoringOptions


class Teacher(Protocol):
    """Source of logits to learn from: `Teachers`, or the `HttpTeacher` of `serving/clients/teacher.py`."""

    def __len__(self) -> int:
        """Return the number of rankers whose logits are averaged."""
        ...

    def logits(self, queries: Sequence[str], titles: Sequence[str]) -> Floats:
        """Return the logit of every (queries[i], titles[i]), `[n] float64`."""
        ...

    def report(self) -> None:
        """Print a summary, after all pairs are scored."""
        ...


class Teachers:
    """Rankers that score pairs, each with its own tokenizer, length and calibration.

    A ranker whose logits have a larger scale has more weight in the mean: calibrate the rankers first.

    sources: model folders (or parameter files), separated by `os.pathsep`
    options: device, batch size and the like; the constructor prepares the process for Paddle

    Raises `CheckpointError` if a ranker cannot be loaded.
    """

    def __init__(self, sources: str, options: ScoringOptions) -> None:
        runtime.prepare_command(options.cpu_threads)
        from paddle_ranker.model.model_folder import RANKER
        from paddle_ranker.scoring.files import scorer_for
        from paddle_ranker.scoring.loading import open_model

        self._rankers = []
        for source in split_paths(sources):
            ranker = open_model(source, RANKER, LoadOptions.of(options))
            self._rankers.append(scorer_for(ranker, options))

    def __len__(self) -> int:
        return len(self._rankers)

    @property
    def pair_encoder(self) -> Optional[PairEncoder]:
        """The encoder that truncates pairs for the first ranker; None if it reads whole pairs in windows."""
        first = self._rankers[0]
        return shortest(first.row_encoder) if first.windows is None else None

    def logits(self, queries: Sequence[str], titles: Sequence[str]) -> Floats:
        """Return the mean logit of every (queries[i], titles[i]), `[n] float64`."""
        refuse_text(queries, "queries")
        refuse_text(titles, "titles")
        logits = [scorer.logits(scorer.encode(queries, titles)) for scorer in self._rankers]
        return np.asarray(np.mean(logits, axis=0), np.float64)

    def score(self, queries: Sequence[str], titles: Sequence[str]) -> Floats:
        """Return the sigmoid of every mean logit, `[n] float64`."""
        return np.asarray(sigmoid(self.logits(queries, titles)), np.float64)

    def report(self) -> None:
        """Do nothing, since the command itself reports truncated texts at its end."""

    def truncations(self) -> list[dict[str, int]]:
        """Return how many pairs were truncated so far: for each ranker, counts by kind of truncation."""
        from paddle_ranker.scoring.files import truncations

        return [truncations(scorer.row_encoder, scorer.windows) for scorer in self._rankers]


class Scoring:
    """Scoring of records by a teacher, with counts of how often the teacher agrees with their labels."""

    def __init__(self, teachers: Teacher, relevant_from: float) -> None:
        self._teachers, self._relevant_from = teachers, relevant_from
        self.triples = self.ordered = self.unlabelled = self.relevant = 0

    def add(self, records: Sequence[Record]) -> Iterator[Record]:
        """Score records; yield triples and labelled pairs with the teacher's logits in place of any earlier logits.

        A pair without a label becomes a labelled pair: the teacher's probability decides whether the label is 1 or 0.
        """
        queries, titles = [], []
        for record in records:
            for title in _titles(record):
                queries.append(record.query)  # type: ignore[attr-defined]
                titles.append(title)
        logits = iter(_single(self._teachers.logits(queries, titles)))
        for record in records:
            if isinstance(record, Triple):
                positive, negative = next(logits), next(logits)
                self.triples += 1
                self.ordered += positive > negative
                yield replace(record, teacher_score=positive, neg_teacher_score=negative)
            elif isinstance(record, LabeledPair):
                yield replace(record, teacher_score=next(logits))
            elif isinstance(record, Pair):
                logit = next(logits)
                is_relevant = bool(sigmoid(logit) >= self._relevant_from)
                self.unlabelled += 1
                self.relevant += is_relevant
                yield LabeledPair(record.query, record.title, float(is_relevant), logit)

    def report(self) -> str:
        """Return lines that state which share of triples the teacher orders as they are, and which labels it gave."""
        lines = []
        if self.triples:
            lines.append(f"the teacher orders {self.ordered / self.triples:.1%} of the triples as they are")
        if self.unlabelled:
            lines.append(
                f"{self.unlabelled:,} pairs had no label: {self.relevant:,} got 1, the others 0, by the teacher's "
                f"probability ({self._relevant_from:g} and above)"
            )
        return "\n".join(lines)


def _titles(record: Record) -> tuple[str, ...]:
    if isinstance(record, Triple):
        return record.title, record.neg_title
    return (record.title,)  # type: ignore[attr-defined]


def _single(logits: Iterable[float]) -> list[float]:
    """Round logits to single precision, in which rankers compute them, so that files become shorter."""
    return [float(str(np.float32(logit))) for logit in logits]
