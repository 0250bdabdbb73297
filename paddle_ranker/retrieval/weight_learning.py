"""Learn from judgments how much each searcher and each field counts, and how much recall counts beside a ranker.

learned = learn_weights(lists, ("words", "vectors"), folds=5)
Fusion("weighted", learned.weights)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Optional

import numpy as np

from paddle_ranker.array_types import Booleans, Floats
from paddle_ranker.errors import DataError
from paddle_ranker.metrics.choosing import choose
from paddle_ranker.metrics.logistic import LinearModel, fit_logistic, folds_of, out_of_fold, relevant_of
from paddle_ranker.metrics.ranking import RELEVANT
from paddle_ranker.retrieval.schema import MOST_WEIGHT

_FACTORS = np.array([1.0, 0.125, 0.25, 0.5, 2.0, 4.0, 8.0])  # of a field's weight, that are tried
_TITLES = np.array([1.0, 0.5, 0.25, 0.125, 0.0])  # weights of whole titles that are tried
_SWEEPS = 2  # over all fields, while their weights change
_MOST_TRIED, _MOST_STEPS = 100, 20  # sets of weights; parts of 1 that a weight is a number of


@dataclass(frozen=True)
class JudgedList:
    """The candidates of a query with their labels.

    query: the query's id
    ids: the documents' ids
    inputs: what is weighed, `[candidates, inputs] float64`
    labels: `[candidates] float64`, 0 where nobody judged
    titled: `[candidates] bool`, whose whole title is the query; None: none is
    """

    query: str
    ids: Sequence[str]
    inputs: Floats
    labels: Floats
    titled: Optional[Booleans] = None


@dataclass(frozen=True)
class Learned:
    """Weights, and scores by weights that never saw the query.

    weights: by input
    held_out: for each query the documents' scores by weights of other queries
    """

    weights: Mapping[str, float]
    held_out: Mapping[str, Mapping[str, float]]

    @property
    def is_equal(self) -> bool:
        """Whether the weights are equal, because no others are established to be better."""
        return len(set(self.weights.values())) == 1


def learn_weights(lists: Sequence[JudgedList], searchers: Sequence[str], folds: int = 5) -> Learned:
    """Learn the weights, which add up to 1, of searchers' normalised scores.

    They are those that make the mean logarithm of relevant documents' ranks the least: it asks for the first places as
    for recall further down. A few dozen queries tell it roughly: of all weights whose loss is within one standard error
    of the least one (of the difference, over queries), those nearest to equal ones are taken. They stay equal unless
    no more than one in fifty sets of queries that tell nothing would make some weights look so much better.

    Raises `DataError` for a single query, and if all candidates are relevant or none is.
    """
    tried, losses = _losses(lists)
    fold_of = folds_of(len(lists), folds)
    without = [_chosen(tried, losses[:, fold_of != fold]) for fold in range(fold_of.max() + 1)]
    scored = [(one, one.inputs @ without[fold]) for one, fold in zip(lists, fold_of)]
    held_out = {one.query: dict(zip(one.ids, scores.tolist())) for one, scores in scored}
    return Learned(dict(zip(searchers, _chosen(tried, losses).tolist())), held_out)


def learn_title(
    lists: Sequence[JudgedList], scores: Mapping[str, Mapping[str, float]], folds: int = 5
) -> tuple[float, Mapping[str, Mapping[str, float]]]:
    """Learn how much it counts that a document's whole title is the query, `Fusion.title`.

    The weight stays 1 unless a smaller one is better beyond chance, as in `learn_weights`.

    Args:
        lists: whose `titled` are candidates with such a title.
        scores: of each query's candidates, to which the weight is added.

    Returns the weight, and for each query the scores with a weight of other queries.
    """
    if not any(one.titled is not None and one.titled.any() for one in lists) or len(lists) < 2:
        return 1.0, scores
    tried, losses = dict[str, dict[str, Floats]](), np.zeros((len(_TITLES), len(lists)))
    for number, one in enumerate(lists):
        rows = [row for row, id in enumerate(one.ids) if id in scores[one.query]]
        own = np.array([scores[one.query][one.ids[row]] for row in rows])
        titled = np.zeros(len(own)) if one.titled is None else one.titled[rows]
        added = (own.max(initial=0.0) - own.min(initial=0.0)) * titled[:, None] * _TITLES
        tried[one.query] = dict(zip((one.ids[row] for row in rows), own[:, None] + added))
        losses[:, number] = _loss(one.labels[rows], own[:, None] + added)
    fold_of, distance = folds_of(len(lists), folds), 1.0 - _TITLES
    held_out = {}
    for fold in range(int(fold_of.max()) + 1):
        place = choose(losses[:, fold_of != fold], distance)
        for number in np.flatnonzero(fold_of == fold).tolist():
            query = lists[number].query
            held_out[query] = {id: float(by_weight[place]) for id, by_weight in tried[query].items()}
    return float(_TITLES[choose(losses, distance)]), held_out


def learn_fields(
    given: Sequence[float], losses_of: Callable[[tuple[float, ...]], Floats], count: int, folds: int = 5
) -> tuple[tuple[float, ...], list[tuple[float, ...]]]:
    """Learn the weights of searched fields; return them, and for each query those that the other folds' queries tell.

    One field's weight is multiplied at a time, by what makes the loss least. As in `learn_weights`, of the factors
    whose loss is about the least the nearest to 1 is taken, and 1 unless some are better beyond chance.

    Args:
        given: the weights to begin from.
        losses_of: returns the loss of each query by some weights, `[count]`: by `rank_loss`.
        count: how many queries there are.

    Raises `DataError` for a single query.
    """
    known: dict[tuple[float, ...], Floats] = {}

    def ascend(rows: Booleans) -> tuple[float, ...]:
        weights = tuple(given)
        for _ in range(_SWEEPS):
            before = weights
            for place in range(len(given)):
                tried = [(*weights[:place], min(weights[place] * one, MOST_WEIGHT), *weights[place + 1 :])
                         for one in _FACTORS.tolist()]  # fmt: skip
                for one in tried:
                    if one not in known:
                        known[one] = losses_of(one)
                steps = np.log2(_FACTORS)[:, None]
                step = float(_chosen(steps, np.array([known[one][rows] for one in tried]))[0])
                weights = tried[steps.ravel().tolist().index(step)]
            if weights == before:
                break
        return weights

    fold_of = folds_of(count, folds)
    without = [ascend(fold_of != fold) for fold in range(int(fold_of.max()) + 1)]
    return ascend(np.ones(count, bool)), [without[fold] for fold in fold_of.tolist()]


def rank_loss(ranks: Sequence[int]) -> float:
    """Return the mean logarithm of relevant documents' ranks, from 1."""
    return float(np.log(ranks).mean()) if ranks else 0.0


def learn_recall_weight(
    lists: Sequence[JudgedList],
    folds: int = 5,
    fused: Sequence[JudgedList] = (),
    signals: Optional[Mapping[str, int]] = None,
    *,
    recall: bool = True,
) -> Learned:
    """Learn the weights of the fused score and of further signals beside the ranker's logit, whose weight is 1.

    Every set of signals is measured on held-out folds by the loss of `learn_weights`. Of the sets that are about as
    good as the best one, choose the smallest; use no signal unless some set is better beyond chance. Raises `DataError`
    as `learn_weights` does, and if the logit counts against relevance.

    Args:
        lists: `inputs` are the logit, the share and, with `fused`, the searchers' normalised scores; then others.
        fused: input of `learn_weights`, whose learned weights replace the shares in `inputs`; the weights of a
            held-out query are learned from other queries.
        signals: the columns of `inputs` that are tried, by name.
        recall: whether the share may count.
    """
    inputs, labels, queries = _joined(lists)
    trial, tried_signals = _losses(fused) if fused else None, signals or {}

    def learn(rows: Booleans) -> tuple[LinearModel, Floats, tuple[str, ...]]:
        """Return the model of logit, share and signals, what makes these of the inputs, and the signals' names."""
        turn, known = np.eye(inputs.shape[1], 2), {query for query, is_known in zip(queries, rows) if is_known}
        if trial is not None:
            tried, losses = trial
            share = _chosen(tried, losses[:, [one.query in known for one in fused]])
            turn[:, 1] = 0.0
            turn[2 : 2 + len(share), 1] = share
        turn[:, 1] *= recall
        names = _chosen_signals([one for one in lists if one.query in known], turn, tried_signals, folds)
        turn = _with_columns(turn, [tried_signals[name] for name in names])
        return fit_logistic(inputs[rows] @ turn, labels[rows]), turn, names

    def model_of(rows: Booleans) -> LinearModel:
        model, turn, _ = learn(rows)
        return LinearModel(turn @ model.weights, model.bias)

    held_out = out_of_fold(inputs, labels, queries, folds, model_of)
    model, _, names = learn(np.ones(len(labels), bool))
    of_logit, *others = model.weights.tolist()
    if of_logit <= 0:
        raise DataError("the ranker's logits do not tell relevant candidates from others")
    weights = dict.fromkeys(tried_signals, 0.0)
    weights.update((name, weight / of_logit) for name, weight in zip(("recall", *names), others))
    return Learned({"logit": 1.0, **weights}, _by_query(lists, held_out))


def _chosen_signals(
    lists: Sequence[JudgedList], turn: Floats, signals: Mapping[str, int], folds: int
) -> tuple[str, ...]:
    """Return the names of the signals that count beside the columns that `turn` makes; see `learn_recall_weight`."""
    if not signals:
        return ()
    inputs, labels, queries = _joined(lists)
    sets = [names for size in range(len(signals) + 1) for names in combinations(signals, size)]
    losses = np.zeros((len(sets), len(lists)))
    for number, names in enumerate(sets):
        columns = inputs @ _with_columns(turn, [signals[name] for name in names])
        scores, start = out_of_fold(columns, labels, queries, folds), 0
        for place, one in enumerate(lists):
            losses[number, place] = _loss(one.labels, scores[start : start + len(one.ids), None])[0]
            start += len(one.ids)
    return sets[choose(losses, np.array([len(names) for names in sets], np.float64))]


def _with_columns(turn: Floats, columns: Sequence[int]) -> Floats:
    found: Floats = np.concatenate([turn, np.eye(len(turn))[:, columns]], axis=1)
    return found


def _losses(lists: Sequence[JudgedList]) -> tuple[Floats, Floats]:
    """Return weights to try, `[tried, inputs]`, and the loss of each for every query, `[tried, queries]`.

    The loss is the mean logarithm of the ranks of a query's relevant candidates; among equal scores the mean rank.
    """
    inputs, labels, _ = _joined(lists)
    relevant_of(labels)
    tried = _simplex(inputs.shape[1])
    losses = np.zeros((len(tried), len(lists)))
    for place, one in enumerate(lists):
        losses[:, place] = _loss(one.labels, one.inputs @ tried.T)
    return tried, losses


def _loss(labels: Floats, scores: Floats) -> Floats:
    """Return the mean logarithm of relevant candidates' ranks, `[tried]`, by scores `[candidates, tried]`; or 0."""
    relevant = scores[labels >= RELEVANT]
    if not len(relevant):
        return np.zeros(scores.shape[1])
    above = np.stack([(scores > own).sum(axis=0) + (scores == own).sum(axis=0) / 2 for own in relevant])
    found: Floats = np.log(above + 0.5).mean(axis=0)
    return found


def _simplex(count: int) -> Floats:
    """Return weights that add up to 1, `[tried, count]`: equal ones first, then all of some steps."""
    steps = max(n for n in range(1, _MOST_STEPS + 1) if n == 1 or comb(n + count - 1, count - 1) <= _MOST_TRIED)
    places = list(combinations(range(steps + count - 1), count - 1))
    bars = np.array(places, np.int64).reshape(len(places), count - 1)
    parts = np.diff(bars, axis=1, prepend=-1, append=steps + count - 1) - 1
    return np.concatenate([np.full((1, count), 1.0 / count), parts / steps])


def _chosen(tried: Floats, losses: Floats) -> Floats:
    """Return those weights nearest to equal ones, the first that were tried, by `choose`, `[inputs]`."""
    found: Floats = tried[choose(losses, np.square(tried - tried[0]).sum(axis=1))]
    return found


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
