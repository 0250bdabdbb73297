"""Queries with right answers in a corpus, to measure the recall of a search."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Optional, Union, cast

import numpy as np

from paddle_ranker.array_types import Integers
from paddle_ranker.data.rows.records import (
    AnswerDocument,
    JudgedDocument,
    LabeledPair,
    Pair,
    RecordFile,
    open_as_one_of,
)
from paddle_ranker.errors import DataError, refuse_text
from paddle_ranker.metrics.ranking import RELEVANT, UNRANKED, Ranking
from paddle_ranker.options import RowOptions

_NO_ANSWERS = "there are no pairs of a query and its answer to evaluate on"
JudgedPair = Union[LabeledPair, Pair]


def open_pairs(path: str, rules: Optional[RowOptions] = None) -> RecordFile[JudgedPair]:
    """Open a file of labelled pairs, or of pairs of a query and its answer; see `label_of`."""
    return cast(RecordFile[JudgedPair], open_as_one_of(path, (LabeledPair, Pair), rules))


def open_judged(path: str, rules: Optional[RowOptions] = None) -> RecordFile[JudgedPair]:
    """Open a file as `open_pairs` does, in which a title may be a document's id, title or text."""
    return cast(RecordFile[JudgedPair], open_as_one_of(path, (JudgedDocument, AnswerDocument), rules))


def label_of(pair: JudgedPair) -> int:
    """Return a pair's label; 1 if it has none."""
    return int(getattr(pair, "label", RELEVANT))


def notes_on(source: RecordFile[JudgedPair], queries: Collection[str], answered: Collection[str]) -> list[str]:
    """Return one line for each reason that rows or queries of a file were skipped.

    queries: all queries of the file
    answered: the queries that have an answer

    Raises `DataError` if no query has an answer.
    """
    if not answered:
        raise DataError(f"{source.path}: {_NO_ANSWERS}")
    notes = [f"{source.path}: {source.report()}"] if source.skipped else []
    if len(answered) < len(queries):
        count = len(queries) - len(answered)
        notes.append(f"{source.path}: {count:,} of {len(queries):,} queries have no title labelled 1 or more: left out")
    return notes


class RecallSet:
    """Queries, a corpus, and the documents of the corpus that answer each query.

    Args:
        pairs: (query, title) of titles that answer the query.
        corpus: texts to search; titles of `pairs` that the corpus lacks are added.

    Attributes:
        queries, corpus: the distinct queries, and the distinct texts of the corpus.
        answers: for each query, the indices in the corpus of the documents that answer it.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]], corpus: Iterable[str] = ()):
        refuse_text(corpus, "corpus")
        numbers = {text: number for number, text in enumerate(dict.fromkeys(corpus))}
        answers: dict[str, list[int]] = {}
        for query, title in pairs:
            place = numbers.setdefault(title, len(numbers))
            answers.setdefault(query, [])
            if place not in answers[query]:
                answers[query].append(place)
        if not answers:
            raise DataError(_NO_ANSWERS)
        self.queries, self.corpus = list(answers), list(numbers)
        self.answers: Sequence[Sequence[int]] = list(answers.values())

    def ranking(self, numbers: Integers) -> Ranking:
        """Return the results of a search as a ranking, for measures per query such as `recall_at`.

        numbers: the results of each query as indices in the corpus, best first, `[queries, results]`
        """
        hits = np.array([np.isin(row, answers) for row, answers in zip(numbers, self.answers)])
        query, position = np.indices(hits.shape).reshape(2, -1)
        missed = np.repeat(np.arange(len(hits)), [len(answers) for answers in self.answers] - hits.sum(axis=1))
        query, position, labels = (
            np.concatenate(both)
            for both in (
                (query, missed),
                (position, np.full(len(missed), UNRANKED)),
                (RELEVANT * hits.ravel(), np.full(len(missed), RELEVANT)),
            )
        )
        order = np.argsort(query, kind="stable")
        return Ranking(query[order], position[order], labels[order], len(hits))
