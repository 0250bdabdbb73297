"""Learn from judgements how much each searcher counts in a fusion, and how much recall counts beside a ranker.

learned = learn_weights(lists, ("words", "vectors"), folds=5)
Fusion("weighted", learned.weights)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from paddle_ranker.errors import DataError
from paddle_ranker.metrics.logistic import (
    EQUAL,
    LinearModel,
    average_out_of_fold,
    choose_pull,
    fit_average,
    fit_logistic,
    out_of_fold,
)
from paddle_ranker.metrics.ranking import Booleans, Floats


@dataclass(frozen=True)
class JudgedList:
    """The candidates of a query with their labels.

    query: the query's id
    ids: the documents' ids
    inputs: what is weighed, `[candidates, inputs] float64`
    labels: `[candidates] float64`, 0 where nobody judged
    """

    query: str
    ids: Sequence[str]
    inputs: Floats
    labels: Floats


@dataclass(frozen=True)
class Learned:
    """Weights, and scores by weights that never saw the query.

    weights: by input; those of a logistic regression, divided so that their absolute values add up to 1
    held_out: for each query the documents' scores by weights of other queries
    pull: how strongly the weights are drawn to equal ones; infinite: they are equal
    """

    weights: Mapping[str, float]
    held_out: Mapping[str, Mapping[str, float]]
    pull: float = 0.0

    @property
    def is_equal(self) -> bool:
        """Whether the weights are equal ones, because the queries do not tell better ones."""
        return self.pull == EQUAL


def learn_weights(lists: Sequence[JudgedList], searchers: Sequence[str], folds: int = 5) -> Learned:
    """Learn the weights of searchers' normalised scores, drawn to equal ones as those of a blend are.

    How strongly they are drawn is chosen by cross-validation (see `paddle_ranker.metrics.logistic`). Raises `DataError`
    for a single query, and if all candidates are relevant or none is.
    """
    inputs, labels, queries = _joined(lists)
    held_out = average_out_of_fold(inputs, labels, queries, folds)
    weights, pull = _weights(lists, folds)
    return Learned(dict(zip(searchers, weights.tolist())), _by_query(lists, held_out), pull)


def learn_recall_weight(lists: Sequence[JudgedList], folds: int = 5, fused: Sequence[JudgedList] = ()) -> Learned:
    """Learn how much the fused score's share counts beside the ranker's logit.

    The weights are those of `logit + recall_weight * share`: the logit's is 1. Raises `DataError` as `learn_weights`
    does, and if the logit counts against relevance.

    Args:
        lists: `inputs` are the logit, the share and, with `fused`, the searchers' normalised scores.
        fused: what `learn_weights` learns from, for shares by learned weights in place of those in `inputs`; a held-out
            query's score is by shares and weights that never saw it.
    """
    inputs, labels, queries = _joined(lists)

    def learn(rows: Booleans) -> tuple[LinearModel, Floats]:
        """Return the model of logit and share, and what makes these of the inputs, `[inputs, 2]`."""
        pair = np.eye(inputs.shape[1], 2)
        if fused:
            known = {query for query, is_known in zip(queries, rows) if is_known}
            pair[:, 1] = [0.0, 0.0, *_weights([one for one in fused if one.query in known], folds)[0]]
        return fit_logistic(inputs[rows] @ pair, labels[rows]), pair

    def model_of(rows: Booleans) -> LinearModel:
        model, pair = learn(rows)
        return LinearModel(pair @ model.weights, model.bias)

    held_out = out_of_fold(inputs, labels, queries, folds, model_of)
    of_logit, of_share = learn(np.ones(len(labels), bool))[0].weights.tolist()
    if of_logit <= 0:
        raise DataError("the ranker's logits do not tell relevant candidates from others")
    return Learned({"logit": 1.0, "recall": of_share / of_logit}, _by_query(lists, held_out))


def _weights(lists: Sequence[JudgedList], folds: int) -> tuple[Floats, float]:
    """Return weights of the inputs whose absolute values add up to 1, `[inputs]`, and their pull."""
    inputs, labels, queries = _joined(lists)
    pull = choose_pull(inputs, labels, queries, folds)
    found = fit_average(inputs, labels, pull).weights
    total = float(np.abs(found).sum())
    if not total:
        raise DataError("the candidates' scores say nothing about which of them are relevant")
    return found / total, pull


def _joined(lists: Sequence[JudgedList]) -> tuple[Floats, Floats, list[str]]:
    if not lists:
        raise DataError("no candidates to learn weights from")
    queries = [one.query for one in lists for _ in one.ids]
    return np.concatenate([one.inputs for one in lists]), np.concatenate([one.labels for one in lists]), queries


def _by_query(lists: Sequence[JudgedList], scores: Floats) -> dict[str, dict[str, float]]:
    found, start = {}, 0
    for one in lists:
        found[one.query] = dict(zip(one.ids, scores[start : start + len(one.ids)].tolist()))
        start += len(one.ids)
    return found
