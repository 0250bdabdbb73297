"""Learn weights from judgments: of searchers, fields and features, and of the fused score beside a ranker's logit.

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

from paddle_ranker.array_types import Booleans, Floats, Integers
from paddle_ranker.errors import DataError
from paddle_ranker.metrics.calibration import sigmoid
from paddle_ranker.metrics.choosing import choose
from paddle_ranker.metrics.logistic import PENALTY, LinearModel, fit_logistic, folds_of, out_of_fold, relevant_of
from paddle_ranker.metrics.ranking import RELEVANT
from paddle_ranker.retrieval.stored.schema import MOST_WEIGHT

_FACTORS = np.array([1.0, 0.125, 0.25, 0.5, 2.0, 4.0, 8.0])  # tried factors of a field's weight
_TITLES = np.array([1.0, 0.5, 0.25, 0.125, 0.0])  # tried values of `Fusion.title`
_SWEEPS = 2  # most passes over all fields
_UNJUDGED = 0.3  # weight of a document that nobody judged, and that is probably not relevant
_MOST_TRIED, _MOST_STEPS = 100, 20  # tried sets of weights; a weight is a multiple of 1/20, or of a larger step


@dataclass(frozen=True)
class JudgedList:
    """Candidates of a query, with labels.

    query: the query's id
    ids: ids of the documents
    inputs: the scores that are weighted, `[candidates, inputs] float64`
    labels: `[candidates] float64`, 0 for a document that nobody judged
    titled: `[candidates] bool`, whether the document's whole title is the query; None: no document has such a title
    judged: `[candidates] bool`, whether somebody judged the document; None: all documents are judged
    """

    query: str
    ids: Sequence[str]
    inputs: Floats
    labels: Floats
    titled: Optional[Booleans] = None
    judged: Optional[Booleans] = None


@dataclass(frozen=True)
class Learned:
    """Learned weights, and held-out scores.

    weights: weight of each input, by name
    held_out: for each query, the scores of its documents by weights that were learned from other queries
    others: for each list, these weights, by name of an input; empty if only their scores are known
    """

    weights: Mapping[str, float]
    held_out: Mapping[str, Mapping[str, float]]
    others: Sequence[Mapping[str, float]] = ()

    @property
    def is_equal(self) -> bool:
        """Whether all weights are equal: no different weights are significantly better."""
        return len(set(self.weights.values())) == 1


def learn_weights(lists: Sequence[JudgedList], searchers: Sequence[str], folds: int = 5) -> Learned:
    """Learn the weights, which add up to 1, of searchers' normalised scores.

    The loss is the mean logarithm of relevant documents' ranks, which rewards the first ranks as well as recall. A few
    dozen queries estimate this loss only roughly. So all weights are considered whose loss differs from the least loss
    by at most one standard error of the difference, over queries; the weights nearest to equal weights are taken. The
    weights stay equal unless different weights are better beyond chance, by a test that at most one in fifty sets of
    uninformative queries would pass.

    Raises `DataError` for a single query, and if all candidates are relevant or none is.
    """
    tried, losses = _losses(lists)
    fold_of = folds_of(len(lists), folds)
    without = [
        dict(zip(searchers, _chosen(tried, losses[:, fold_of != fold]).tolist())) for fold in range(fold_of.max() + 1)
    ]
    others = [without[fold] for fold in fold_of.tolist()]
    held_out = {candidates.query: weighted(candidates, weights) for candidates, weights in zip(lists, others)}
    return Learned(dict(zip(searchers, _chosen(tried, losses).tolist())), held_out, others)


def weighted(candidates: JudgedList, weights: Mapping[str, float]) -> dict[str, float]:
    """Return the candidates' scores by id: the weighted sums of their inputs, in the order of `weights`."""
    return dict(zip(candidates.ids, (candidates.inputs @ np.array([*weights.values()])).tolist()))


def with_title(candidates: JudgedList, scores: Mapping[str, float], weight: float) -> dict[str, float]:
    """Return scores by id, with a bonus for the documents whose whole title is the query, see `Fusion.title`.

    Candidates without a score are left out.
    """
    return {id: float(values[0]) for id, values in _titled(candidates, scores, np.array([weight]))[0].items()}


def _titled(
    candidates: JudgedList, scores: Mapping[str, float], weights: Floats
) -> tuple[dict[str, Floats], Floats, Floats]:
    """Return scores with a title's bonus by each of the `weights`, by id; and as an array, `[scored, weights]`, with
    the labels, `[scored]`.
    """
    rows = [row for row, id in enumerate(candidates.ids) if id in scores]
    values = np.array([scores[candidates.ids[row]] for row in rows])
    is_titled = np.zeros(len(values)) if candidates.titled is None else candidates.titled[rows]
    all_of = values[:, None] + (values.max(initial=0.0) - values.min(initial=0.0)) * is_titled[:, None] * weights
    return dict(zip((candidates.ids[row] for row in rows), all_of)), all_of, candidates.labels[rows]


def learn_title(
    lists: Sequence[JudgedList], scores: Mapping[str, Mapping[str, float]], folds: int = 5
) -> tuple[float, Mapping[str, Mapping[str, float]]]:
    """Learn `Fusion.title`, the weight of a document whose whole title is the query.

    The weight stays 1 unless a smaller weight is better beyond chance, see `learn_weights`. Returns the weight; and, by
    query and id, scores of the candidates with a weight that was learned from other queries.

    lists: candidates; `titled` says which candidates have such a title
    scores: by query and id, the candidates' scores before the title's bonus is added
    """
    if not any(candidates.titled is not None and candidates.titled.any() for candidates in lists) or len(lists) < 2:
        return 1.0, scores
    tried, losses = dict[str, dict[str, Floats]](), np.zeros((len(_TITLES), len(lists)))
    for number, candidates in enumerate(lists):
        tried[candidates.query], all_of, labels = _titled(candidates, scores[candidates.query], _TITLES)
        losses[:, number] = _loss(labels, all_of)
    fold_of, distance = folds_of(len(lists), folds), 1.0 - _TITLES
    held_out = {}
    for fold in range(int(fold_of.max()) + 1):
        index = choose(losses[:, fold_of != fold], distance)
        for number in np.flatnonzero(fold_of == fold).tolist():
            query = lists[number].query
            held_out[query] = {id: float(by_weight[index]) for id, by_weight in tried[query].items()}
    return float(_TITLES[choose(losses, distance)]), held_out


def learn_fields(
    start: Sequence[float], losses_of: Callable[[tuple[float, ...]], Floats], count: int, folds: int = 5
) -> tuple[tuple[float, ...], list[tuple[float, ...]]]:
    """Learn the weights of searched fields.

    One field after the other, the field's weight is multiplied by several factors. The weight changes only if some
    factor lowers the loss beyond chance. Among the factors with about the lowest loss, the factor nearest to 1 is then
    taken. See `learn_weights`.

    start: the weights to begin with
    losses_of: called with weights; returns the loss of each query, `[count]`, as of `rank_loss`
    count: number of queries

    Returns the weights, and for each query the weights that were learned from the other folds' queries.

    Raises `DataError` for a single query.
    """
    loss_cache: dict[tuple[float, ...], Floats] = {}

    def ascend(rows: Booleans) -> tuple[float, ...]:
        weights = tuple(start)
        for _ in range(_SWEEPS):
            before = weights
            for index in range(len(start)):
                tried = [(*weights[:index], min(weights[index] * factor, MOST_WEIGHT), *weights[index + 1 :])
                         for factor in _FACTORS.tolist()]  # fmt: skip
                for trial in tried:
                    if trial not in loss_cache:
                        loss_cache[trial] = losses_of(trial)
                steps = np.log2(_FACTORS)[:, None]
                step = float(_chosen(steps, np.array([loss_cache[trial][rows] for trial in tried]))[0])
                weights = tried[steps.ravel().tolist().index(step)]
            if weights == before:
                break
        return weights

    fold_of = folds_of(count, folds)
    without = [ascend(fold_of != fold) for fold in range(int(fold_of.max()) + 1)]
    return ascend(np.ones(count, bool)), [without[fold] for fold in fold_of.tolist()]


def learn_features(lists: Sequence[JudgedList], names: Sequence[str]) -> dict[str, float]:
    """Learn `Fusion.features` from the features of judged lists.

    The loss is RankNet's (Burges et al. 2005) of a linear model: the logistic loss of each pair of documents of a query
    that differ in their labels. The weight of a pair is the difference of its labels, multiplied by 0.3 for each of its
    documents that nobody judged. All queries have the same total weight.

    Args:
        lists: columns of `inputs` are features.
        names: the features' names.

    Raises `DataError` if no query has documents with different labels.
    """
    from scipy.optimize import minimize

    inputs, better, worse, weights_of_pairs = _feature_pairs(lists)

    def loss(weights: Floats) -> tuple[float, Floats]:
        scores = inputs @ weights
        gaps = scores[better] - scores[worse]
        pull = weights_of_pairs * sigmoid(-gaps)
        moved = np.bincount(worse, pull, len(inputs)) - np.bincount(better, pull, len(inputs))
        mean = float(weights_of_pairs @ np.logaddexp(0.0, -gaps))
        return mean + PENALTY * float(weights @ weights) / 2, moved @ inputs + PENALTY * weights

    start = np.zeros(len(names))
    weights = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 500}).x
    return dict(zip(names, weights.tolist()))


def _feature_pairs(lists: Sequence[JudgedList]) -> tuple[Floats, Integers, Integers, Floats]:
    """Return the pairs of documents of a query that differ in their labels: (inputs, better, worse, weights).

    `inputs` has a row per document, of all lists that have a pair. For each pair, `better` and `worse` have the rows of
    its documents, and `weights` its weight; all weights add up to 1. Raises `DataError` if there are no pairs.
    """
    inputs, rows, weights, first = list[Floats](), list[Integers](), list[Floats](), 0
    for candidates in lists:
        judged = candidates.judged
        trust = np.ones(len(candidates.labels)) if judged is None else np.where(judged, 1.0, _UNJUDGED)
        pair_weights = np.maximum(candidates.labels[:, None] - candidates.labels, 0.0) * trust[:, None] * trust
        pairs = np.argwhere(pair_weights)
        if len(pairs):
            inputs.append(candidates.inputs)
            rows.append(first + pairs)
            weights.append(pair_weights[pairs[:, 0], pairs[:, 1]] / pair_weights.sum())
            first += len(candidates.labels)
    if not inputs:
        raise DataError("no query has documents with different labels to learn the weights of features from")
    better, worse = np.concatenate(rows).T
    return np.concatenate(inputs), better, worse, np.concatenate(weights) / len(inputs)


def rank_loss(ranks: Sequence[int]) -> float:
    """Return the mean logarithm of the ranks, from 1, of relevant documents; 0 without such documents."""
    return float(np.log(ranks).mean()) if ranks else 0.0


def learn_recall_weight(
    lists: Sequence[JudgedList],
    folds: int = 5,
    fused: Sequence[JudgedList] = (),
    signals: Optional[Mapping[str, int]] = None,
    *,
    recall: bool = True,
) -> Learned:
    """Learn the weights of the fused score and of further signals; the ranker's logit has the weight 1.

    Every set of signals is evaluated on held-out folds by the loss of `learn_weights`. If some set is better than none
    beyond chance, the smallest set that is about as good as the best set is taken. Otherwise no signal is taken. Raises
    `DataError` as `learn_weights` does, and if the logit's weight is not positive.

    lists: candidates. The columns of `inputs` are the logit, the share (see `Fusion.shares`), the searchers' normalised
        scores if `fused` is given, and further signals
    fused: lists from which `learn_weights` would learn the searchers' weights. The share is then computed by weights
        that are learned in this way, for a held-out query from other queries. Empty: the share in `inputs` is used
    signals: by name, the column of `inputs` of each signal to try
    recall: whether the share may count
    """
    inputs, labels, queries = _joined(lists)
    trial, tried_signals = _losses(fused) if fused else None, signals or {}

    def learn(rows: Booleans) -> tuple[LinearModel, Floats, tuple[str, ...]]:
        """Return the model, the matrix that turns `inputs` into the model's inputs, and the names of its signals."""
        turn, training = np.eye(inputs.shape[1], 2), {query for query, is_known in zip(queries, rows) if is_known}
        if trial is not None:
            tried, losses = trial
            share = _chosen(tried, losses[:, [candidates.query in training for candidates in fused]])
            turn[:, 1] = 0.0
            turn[2 : 2 + len(share), 1] = share
        turn[:, 1] *= recall
        trained = [candidates for candidates in lists if candidates.query in training]
        names = _chosen_signals(trained, turn, tried_signals, folds)
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
    """Choose signals to add to the columns of `inputs @ turn`, see `learn_recall_weight`; return the signals' names."""
    if not signals:
        return ()
    inputs, labels, queries = _joined(lists)
    sets = [names for size in range(len(signals) + 1) for names in combinations(signals, size)]
    losses = np.zeros((len(sets), len(lists)))
    for number, names in enumerate(sets):
        columns = inputs @ _with_columns(turn, [signals[name] for name in names])
        scores, start = out_of_fold(columns, labels, queries, folds), 0
        for index, candidates in enumerate(lists):
            losses[number, index] = _loss(candidates.labels, scores[start : start + len(candidates.ids), None])[0]
            start += len(candidates.ids)
    return sets[choose(losses, np.array([len(names) for names in sets], np.float64))]


def _with_columns(turn: Floats, columns: Sequence[int]) -> Floats:
    extended: Floats = np.concatenate([turn, np.eye(len(turn))[:, columns]], axis=1)
    return extended


def _losses(lists: Sequence[JudgedList]) -> tuple[Floats, Floats]:
    """Return the weights to try, `[tried, inputs]`, and their losses, `[tried, queries]`; see `_loss`."""
    inputs, labels, _ = _joined(lists)
    relevant_of(labels)
    tried = _simplex(inputs.shape[1])
    losses = np.zeros((len(tried), len(lists)))
    for index, candidates in enumerate(lists):
        losses[:, index] = _loss(candidates.labels, candidates.inputs @ tried.T)
    return tried, losses


def _loss(labels: Floats, scores: Floats) -> Floats:
    """Return the mean logarithm of the relevant candidates' ranks by each column of `scores`: `[tried]`.

    Equal scores share their mean rank. The loss is 0 if no candidate is relevant.

    scores: `[candidates, tried]`
    """
    relevant = scores[labels >= RELEVANT]
    if not len(relevant):
        return np.zeros(scores.shape[1])
    above = np.stack([(scores > score).sum(axis=0) + (scores == score).sum(axis=0) / 2 for score in relevant])
    loss: Floats = np.log(above + 0.5).mean(axis=0)
    return loss


def _simplex(count: int) -> Floats:
    """Return weights that add up to 1, `[tried, count]`: equal weights first, then a grid."""
    steps = max(n for n in range(1, _MOST_STEPS + 1) if n == 1 or comb(n + count - 1, count - 1) <= _MOST_TRIED)
    divisions = list(combinations(range(steps + count - 1), count - 1))
    bars = np.array(divisions, np.int64).reshape(len(divisions), count - 1)
    parts = np.diff(bars, axis=1, prepend=-1, append=steps + count - 1) - 1
    return np.concatenate([np.full((1, count), 1.0 / count), parts / steps])


def _chosen(tried: Floats, losses: Floats) -> Floats:
    """Return the row of `tried`, `[inputs]`, that `choose` takes; rows near the first row are preferred."""
    weights: Floats = tried[choose(losses, np.square(tried - tried[0]).sum(axis=1))]
    return weights


def _joined(lists: Sequence[JudgedList]) -> tuple[Floats, Floats, list[str]]:
    if not lists:
        raise DataError("no candidates to learn weights from")
    queries = [candidates.query for candidates in lists for _ in candidates.ids]
    inputs = np.concatenate([candidates.inputs for candidates in lists])
    return inputs, np.concatenate([candidates.labels for candidates in lists]), queries


def _by_query(lists: Sequence[JudgedList], scores: Floats) -> dict[str, dict[str, float]]:
    by_query, start = {}, 0
    for candidates in lists:
        by_query[candidates.query] = dict(zip(candidates.ids, scores[start : start + len(candidates.ids)].tolist()))
        start += len(candidates.ids)
    return by_query
