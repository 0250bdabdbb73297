"""Training data of a tower: queries and the titles that answer them, each text encoded once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Optional, Union

import numpy as np

from paddle_ranker.data.records import Pair, Triple
from paddle_ranker.encoding.columns import EncodedTexts
from paddle_ranker.errors import DataError
from paddle_ranker.metrics.ranking import Booleans, Integers
from paddle_ranker.model.tower import TextEncoder


@dataclass(frozen=True)
class TextPairs:
    """n queries, each with a title that answers it and possibly one that does not.

    queries, titles: the distinct texts
    query_of, title_of: index of each example's query and title, `[n]` int64
    negative_of: index of the title that does not answer the query, `[n]` int64; None: the data have none
    answers: every (query, title) that is an answer, as `query * len(titles) + title`, sorted
    """

    queries: EncodedTexts
    titles: EncodedTexts
    query_of: Integers
    title_of: Integers
    negative_of: Optional[Integers]
    answers: Integers

    def __len__(self) -> int:
        return len(self.query_of)

    def is_answer(self, queries: Integers, titles: Integers) -> Booleans:
        """Return whether each title is known to answer each query, `[queries, titles]`; both are indices."""
        codes = queries[:, None] * len(self.titles) + titles
        place = np.searchsorted(self.answers, codes).clip(max=len(self.answers) - 1)
        found: Booleans = self.answers[place] == codes
        return found


def encode_pairs(rows: Iterable[Union[Pair, Triple]], encoder: TextEncoder, name: str) -> TextPairs:
    """Encode all rows, which all have a `neg_title` or none has.

    Args:
        name: names the rows in messages.

    Raises `DataError` if there are no rows.
    """
    queries: dict[str, int] = {}
    titles: dict[str, int] = {}
    numbers: list[tuple[int, ...]] = []
    for row in rows:
        texts = (row.title, row.neg_title) if isinstance(row, Triple) else (row.title,)
        places = (titles.setdefault(text, len(titles)) for text in texts)
        numbers.append((queries.setdefault(row.query, len(queries)), *places))
    if not numbers:
        raise DataError(f"{name}: holds no pairs to train on")
    columns = np.array(numbers, np.int64).T
    answers = np.unique(columns[0] * len(titles) + columns[1])
    negatives = columns[2] if len(columns) > 2 else None
    return TextPairs(
        encoder.encode_queries(list(queries)), encoder.encode(list(titles)), columns[0], columns[1], negatives, answers
    )
