"""Learn a blend: a weighted average of a ranker's logits with those of a linear lexical model or another ranker."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from paddle_ranker.data.records import LabeledPair, Triple, read_records
from paddle_ranker.encoding.columns import EncodedPairs
from paddle_ranker.errors import CheckpointError, DataError
from paddle_ranker.metrics.intervals import Interval
from paddle_ranker.metrics.logistic import (
    EQUAL,
    LinearModel,
    average_out_of_fold,
    choose_pull,
    fit_average,
    fit_logistic,
)
from paddle_ranker.metrics.measures import HEADLINES, MEASURES, ranking_intervals
from paddle_ranker.metrics.ranking import Floats, Scored
from paddle_ranker.model.folder import RankerModel, with_lexical_features
from paddle_ranker.options import RowOptions
from paddle_ranker.scoring.engines.dygraph import DygraphEngine
from paddle_ranker.scoring.scorer import Scorer

Measured = dict[str, Interval]  # measures by name, with intervals over draws of queries


@dataclass(frozen=True)
class Average:
    """The weights of two members, and the measures of the members, of equal weights and of learned weights.

    pull: the strength of the regularisation towards equal weights; EQUAL: the weights are equal
    alone: the measures of each member
    equal: the measures of the members' mean logit
    blend: the measures of learned weights, each query scored with weights that never saw it
    ahead: for each member, by how much `blend` is ahead of it
    better: by how much `blend` is ahead of `equal`
    """

    weights: LinearModel
    pull: float
    alone: list[Measured]
    equal: Measured
    blend: Measured
    ahead: list[Measured]
    better: Measured

    def says(self, queries: int) -> str:
        """Return one line that compares learned with equal weights."""
        name, found = next(iter(self.better.items()))
        difference = f"{name} {found:+.4f} against equal weights, over draws of {queries:,} queries"
        if self.pull == EQUAL:
            return f"equal weights: {queries:,} queries do not tell better ones ({difference})"
        if found.low > 0:
            return f"learned weights are better than equal ones: {difference}"
        return f"note: that learned weights are better than equal ones is not established: {difference}"

    def rivals(self) -> list[int]:
        """Return the numbers of the members that the blend is not ahead of, the better one by the first measure first.

        The blend is ahead of a member if one of the differences is established to be above 0, and none to be below.
        """
        first = next(iter(self.blend))
        found = [number for number, differences in enumerate(self.ahead) if not _is_ahead(differences)]
        return sorted(found, key=lambda number: -self.alone[number][first].estimate)


def _is_ahead(differences: Measured) -> bool:
    found = differences.values()
    return any(difference.low > 0 for difference in found) and not any(difference.high < 0 for difference in found)


def learn_average(members: Floats, labels: Floats, queries: Sequence[str], folds: int) -> Average:
    """Learn the weights that average the members' logits, `[n, 2]`, from labels `[n]`.

    The weights are regularised towards equal weights; raises `DataError` as `paddle_ranker.metrics.logistic` does.
    """
    equal = members.mean(axis=1)
    blend = average_out_of_fold(members, labels, queries, folds)
    measures = [name for name in HEADLINES if MEASURES[name].applies(Scored(queries, labels, equal))]
    measure = partial(ranking_intervals, queries, labels, measures=measures)
    pull = choose_pull(members, labels, queries, folds)
    return Average(
        fit_average(members, labels, pull),
        pull,
        alone=[measure(member) for member in members.T],
        equal=measure(equal),
        blend=measure(blend),
        ahead=[measure(blend, member) for member in members.T],
        better=measure(blend, equal),
    )


def add_linear(parts: RankerModel, weights: LinearModel, linear: LinearModel) -> None:
    """Change the network in place so that it returns exactly weights[0] * logit + weights[1] * linear logit + bias."""
    network, (own, added) = parts.network, weights.weights
    assert network.lexical is not None
    if network.kinds[-1] != "linear":
        raise CheckpointError(f"its logit is a {network.kinds[-1]}, to which no linear model can be added exactly")
    bias = own * network.head.bias.numpy().astype("float64") + added * linear.bias + weights.bias
    lexical = own * network.lexical.weight.numpy().astype("float64") + added * linear.weights
    network.head.weight.set_value((own * network.head.weight.numpy().astype("float64")).astype("float32"))
    network.head.bias.set_value(bias.astype("float32"))
    network.lexical.weight.set_value(lexical.astype("float32"))


@dataclass(frozen=True)
class Learned:
    """A ranker with lexical features at its head, and a linear model of these features."""

    parts: RankerModel
    linear: LinearModel

    def logits(self, pairs: Sequence[LabeledPair]) -> Floats:
        """Return the linear model's logits, `[n]` float64."""
        return self.linear.logits(_features(self.parts, pairs))


def learn_linear(parts: RankerModel, train: Sequence[LabeledPair]) -> Learned:
    """Add lexical features to a ranker that has none, and learn a linear model of the features."""
    network = with_lexical_features(parts)
    assert network.lexical is not None
    if not network.lexical.has_learned:
        network.lexical.learn(_encode(parts, train))
    parts = dataclasses.replace(parts, network=network)
    labels = np.array([pair.label for pair in train], dtype=np.float64)
    return Learned(parts, fit_logistic(_features(parts, train), labels))


def _encode(parts: RankerModel, pairs: Sequence[LabeledPair]) -> EncodedPairs:
    return parts.row_encoder.encode([pair.query for pair in pairs], [pair.title for pair in pairs])


def _features(parts: RankerModel, pairs: Sequence[LabeledPair]) -> Floats:
    assert parts.network.lexical is not None
    return parts.network.lexical.of_pairs(_encode(parts, pairs), np.arange(len(pairs)), standardise=True)


def training_pairs(path: str, rules: RowOptions) -> list[LabeledPair]:
    """Return a file's labelled pairs, or make them from its triples: title has label 1, neg_title 0, each pair once."""
    try:
        return read_records(path, LabeledPair, rules)
    except DataError as not_labelled:
        try:
            triples = read_records(path, Triple, rules)
        except DataError:
            raise not_labelled from None
    relevant = {(triple.query, triple.title): 1.0 for triple in triples}
    others = {(triple.query, triple.neg_title): 0.0 for triple in triples}
    return [LabeledPair(*texts, label) for texts, label in {**others, **relevant}.items()]


def logits_of(parts: RankerModel, pairs: list[LabeledPair], batch_size: int) -> Floats:
    """Return the ranker's logits before any calibration, `[n]` float64."""
    scorer = Scorer(DygraphEngine(parts.network), parts.row_encoder, batch_size)
    return scorer.logits(scorer.encode([pair.query for pair in pairs], [pair.title for pair in pairs]))
