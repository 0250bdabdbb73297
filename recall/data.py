"""Training data of a tower: queries, the titles that answer them, and titles that do not; each text is encoded once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Optional, Union

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.data.records import LabeledPair, Pair, RecordFile, Text, Triple
from paddle_ranker.encoding.columns import EncodedTexts
from paddle_ranker.errors import DataError
from paddle_ranker.metrics.ranking import RELEVANT, Floats, Integers
from paddle_ranker.model.tower import TextEncoder
from paddle_ranker.options import RowOptions
from paddle_ranker.training.mining import open_as_one_of

Row = Union[LabeledPair, Triple, Pair, Text]
_KINDS = (LabeledPair, Triple, Pair)


@dataclass(frozen=True)
class Negatives:
    """The titles that do not answer an example's query: example i has `titles[offsets[i]:offsets[i + 1]]`, or none.

    offsets: `[n + 1]` int64; titles: `[m]` int64
    """

    offsets: Integers
    titles: Integers

    @classmethod
    def of(cls, found: Iterable[Iterable[int]]) -> Negatives:
        """Join the indices of each example's negatives."""
        rows = [list(row) for row in found]
        offsets = np.cumsum([0, *map(len, rows)])
        return cls(offsets, np.array([title for row in rows for title in row], np.int64))

    @property
    def most(self) -> int:
        """The largest number of negatives of an example."""
        return int(np.diff(self.offsets).max(initial=0))

    def draw(self, count: int, key: Sequence[int]) -> Integers:
        """Return places in `titles`, `[n, count]`: different ones of each example, at random; -1 beyond what it has."""
        sizes = np.diff(self.offsets)
        owner = np.repeat(np.arange(len(sizes)), sizes)
        order = np.lexsort((np.random.default_rng(key).random(len(self.titles)), owner))
        place = self.offsets[:-1, None] + np.arange(count)
        is_there = np.arange(count) < sizes[:, None]
        drawn: Integers = np.where(is_there, order[np.where(is_there, place, 0)] if len(order) else 0, -1)
        return drawn


@dataclass(frozen=True)
class TextPairs:
    """n examples: a query, a title that answers it, and possibly titles that do not.

    queries, titles: the distinct texts
    query_of, title_of: index of each example's query and title, `[n]` int64
    negatives: the titles that do not answer the examples' queries; None: the data have none
    answers: every (query, title) that is an answer, as `query * len(titles) + title`, sorted
    grades: the labels of these, `[answers]` float64, or 1
    texts: the distinct queries and titles themselves
    teacher: a teacher's logits by (query, title), both indices
    """

    queries: EncodedTexts
    titles: EncodedTexts
    query_of: Integers
    title_of: Integers
    negatives: Optional[Negatives]
    answers: Integers
    grades: Floats
    texts: tuple[list[str], list[str]]
    teacher: dict[tuple[int, int], float]

    def __len__(self) -> int:
        return len(self.query_of)

    def grades_of(self, queries: Integers, titles: Integers) -> Floats:
        """Return each title's grade for each query, `[queries, titles]`, 0 if it is no known answer; all by index."""
        codes = queries[:, None] * len(self.titles) + titles
        place = np.searchsorted(self.answers, codes).clip(max=len(self.answers) - 1)
        found: Floats = np.where(self.answers[place] == codes, self.grades[place], 0.0)
        return found

    def listed(self) -> tuple[Integers, Integers]:
        """Return every (query, title) of an example, and of its query and its negatives, once: indices, `[m]` each."""
        queries, titles = [self.query_of], [self.title_of]
        if self.negatives is not None:
            queries.append(np.repeat(self.query_of, np.diff(self.negatives.offsets)))
            titles.append(self.negatives.titles)
        codes = np.unique(np.concatenate(queries) * len(self.titles) + np.concatenate(titles))
        return codes // len(self.titles), codes % len(self.titles)

    def teacher_of(self, queries: Integers, titles: Integers) -> NDArray[np.float32]:
        """Return the teacher's logits of pairs, `[m]`; both are indices. Raises `DataError` for a pair without one."""
        found = [self.teacher.get(pair) for pair in zip(queries.tolist(), titles.tolist())]
        for pair, logit in zip(zip(queries, titles), found):
            if logit is None:
                query, title = self.texts[0][pair[0]], self.texts[1][pair[1]]
                raise DataError(
                    f"the pair ({query}, {title}) has no teacher's score, which --loss learns from: let paddle-ranker "
                    "distill add the scores, or give --teacher FOLDER"
                )
        return np.array(found, np.float32)


class _Numbers(dict[str, int]):
    """The numbers of texts, in the order in which they are first asked for."""

    def __missing__(self, text: str) -> int:
        self[text] = len(self)
        return self[text]


def open_rows(path: str, rules: Optional[RowOptions] = None) -> RecordFile[Row]:
    """Open training data: pairs, triples or labelled pairs."""
    return open_as_one_of(path, _KINDS, rules)  # type: ignore[return-value]


def encode_pairs(
    rows: Iterable[Row], encoder: TextEncoder, name: str, query_encoder: Optional[TextEncoder] = None
) -> TextPairs:
    """Encode rows, all of one kind.

    A pair is an example. Triples of the same query and title are one example with several negatives. Of labelled pairs,
    each title graded `RELEVANT` or above is an example, whose negatives are its query's titles of lower grades. A text
    alone is its own answer.

    Args:
        name: names the rows in messages.
        query_encoder: encodes the queries, if another encoder than the titles' does.

    Raises `DataError` if there is no example.
    """
    queries, titles = _Numbers(), _Numbers()
    examples: list[tuple[int, int]] = []
    others: dict[tuple[int, int], list[int]] = {}  # negatives, by example
    judged: dict[int, dict[int, float]] = {}  # of labelled pairs: each query's titles and their grades
    teacher: dict[tuple[int, int], float] = {}
    for row in rows:
        title = titles[row.text if isinstance(row, Text) else row.title]
        pair = queries[row.text if isinstance(row, Text) else row.query], title
        score = getattr(row, "teacher_score", None)
        if score is not None:
            teacher[pair] = score
        if isinstance(row, LabeledPair):
            grades = judged.setdefault(pair[0], {})
            if row.label >= RELEVANT and grades.get(title, 0.0) < RELEVANT:
                examples.append(pair)
            grades[title] = max(row.label, grades.get(title, row.label))
        elif isinstance(row, Triple):
            negative = titles[row.neg_title]
            if row.neg_teacher_score is not None:
                teacher[pair[0], negative] = row.neg_teacher_score
            if pair not in others:
                examples.append(pair)
            others.setdefault(pair, []).append(negative)
        else:
            examples.append(pair)
    if not examples:
        raise DataError(f"{name}: holds no title that answers a query, so there is nothing to train on")
    of_query, of_title = np.array(examples, np.int64).T
    encoded = encoder.encode(list(titles))
    is_same = query_encoder is None and encoder.query_prompt == encoder.text_prompt and list(queries) == list(titles)
    answers, first = np.unique(of_query * len(titles) + of_title, return_index=True)
    return TextPairs(
        encoded if is_same else (query_encoder or encoder).encode_queries(list(queries)),
        encoded,
        of_query,
        of_title,
        _negatives(examples, others, judged),
        answers,
        np.array([judged[examples[place][0]][examples[place][1]] if judged else 1.0 for place in first.tolist()]),
        (list(queries), list(titles)),
        teacher,
    )


def _negatives(
    examples: Sequence[tuple[int, int]],
    others: Mapping[tuple[int, int], Sequence[int]],
    judged: Mapping[int, Mapping[int, float]],
) -> Optional[Negatives]:
    if judged:
        return Negatives.of(
            [title for title, grade in judged[query].items() if grade < judged[query][own]] for query, own in examples
        )
    return Negatives.of(dict.fromkeys(others[pair]) for pair in examples) if others else None
