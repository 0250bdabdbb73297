"""What a search finds of the right answers, as a ranking that every measure takes."""

from __future__ import annotations

import ir_measures
import numpy as np
import pytest

from paddle_ranker.errors import DataError
from paddle_ranker.evaluation.recall import RecallSet
from paddle_ranker.metrics.measures import average_precision, recall_at, reciprocal_rank_at

pytestmark = pytest.mark.unit


def test_texts_are_known_once_and_answers_join_the_corpus() -> None:
    judged = RecallSet([("q", "b"), ("r", "x"), ("q", "a"), ("q", "b")], ["a", "b", "a", "c"])
    assert (judged.queries, judged.corpus, list(judged.answers)) == (["q", "r"], ["a", "b", "c", "x"], [[1, 0], [3]])
    found = judged.ranking(np.array([[2, 1], [0, 2]]))
    assert recall_at(found, 1).tolist() == [0.0, 0.0] and recall_at(found, 2).tolist() == [0.5, 0.0]
    assert reciprocal_rank_at(found, 10).tolist() == [0.5, 0.0]
    with pytest.raises(DataError, match="no pairs of a query and its answer"):
        RecallSet([])


@pytest.mark.parametrize("results", [1, 4, 12])
def test_measures_are_those_of_trec_eval(results: int) -> None:
    random = np.random.default_rng(results)
    corpus = [f"d{number}" for number in range(12)]
    pairs = [(f"q{query}", f"d{random.integers(12)}") for query in range(9) for _ in range(1 + query % 4)]
    judged = RecallSet(pairs, corpus)
    numbers = np.array([random.permutation(12)[:results] for _ in judged.queries])
    qrels = {query: dict.fromkeys((judged.corpus[a] for a in answers), 1)
             for query, answers in zip(judged.queries, judged.answers)}  # fmt: skip
    run = {query: {judged.corpus[number]: -float(place) for place, number in enumerate(row)}
           for query, row in zip(judged.queries, numbers.tolist())}  # fmt: skip
    wanted = {f"{one.measure} {one.query_id}": one.value for one in ir_measures.iter_calc(
        [ir_measures.R @ 3, ir_measures.RR @ 10, ir_measures.AP], qrels, run)}  # fmt: skip
    found = judged.ranking(numbers)
    values = {"R@3": recall_at(found, 3), "RR@10": reciprocal_rank_at(found, 10), "AP": average_precision(found)}
    assert wanted == pytest.approx(
        {f"{name} {query}": of_query[place] for name, of_query in values.items()
         for place, query in enumerate(judged.queries)}
    )  # fmt: skip
