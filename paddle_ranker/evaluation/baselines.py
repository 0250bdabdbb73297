"""What every ranker is measured beside: BM25 of words and of bigrams, and a linear model on lexical features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

import numpy as np

from paddle_ranker.data.records import LabeledPair
from paddle_ranker.errors import DataError
from paddle_ranker.lexical import BM25, LexicalLogistic
from paddle_ranker.metrics.ranking import RELEVANT, Floats, number_queries

FOLDS = 5
SEED = 1000


def bm25(tokenizer: str, queries: Sequence[str], titles: Sequence[str], collection: Sequence[str]) -> Floats:
    """Return BM25's scores of the pairs, `[n] float64`; rarity and length are those of the titles of `collection`."""
    baseline = BM25(tokenizer)
    baseline.fit([], collection)
    return baseline.score(queries, titles)


def linear(
    queries: Sequence[str], titles: Sequence[str], labels: Floats, train: Optional[Sequence[LabeledPair]] = None
) -> Floats:
    """Return the logits of a logistic regression on lexical features, `[n] float64`.

    It learns from `train`; without, each fifth of the queries is scored by what the other four fifths' labels teach:
    no query's own labels have a part in its scores. Raises `DataError` where there is nothing to learn from.
    """
    if train is not None:
        model = LexicalLogistic()
        model.fit([pair.query for pair in train], [pair.title for pair in train], [pair.label for pair in train])
        return model.score(queries, titles)
    numbers = number_queries(queries)
    count = int(numbers.max()) + 1
    if count < 2:
        raise DataError("one query only: the linear model needs others to learn from (--train_file)")
    folds = np.random.default_rng(SEED).permutation(count)[numbers] % min(FOLDS, count)
    for fold in np.unique(folds):
        if len(set(labels[folds != fold] >= RELEVANT)) < 2:
            raise DataError("too few queries with titles of both kinds: the linear model needs --train_file")
    return LexicalLogistic().cross_fit(queries, titles, labels, folds)
