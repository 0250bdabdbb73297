"""Learn a blend: a weighted average of rankers' logits, towers' cosines, and linear models of lexical features."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Optional

import numpy as np

from paddle_ranker.array_types import Floats
from paddle_ranker.data.rows.records import LabeledPair, Triple, read_records
from paddle_ranker.encoding.columns import EncodedPairs
from paddle_ranker.errors import CheckpointError, DataError
from paddle_ranker.evaluation.comparison import CERTAIN, is_established
from paddle_ranker.lexical.graph import GRAPH_FEATURES
from paddle_ranker.metrics.intervals import Interval
from paddle_ranker.metrics.logistic import (
    EQUAL,
    LinearModel,
    average_out_of_fold,
    choose_pull,
    equal_average,
    fit_average,
    fit_logistic,
)
from paddle_ranker.metrics.measures import HEADLINES, MEASURES, ranking_intervals
from paddle_ranker.metrics.ranking import Scored
from paddle_ranker.metrics.significance import PERMUTATIONS, holm
from paddle_ranker.model.ranker_folder import RankerModel, with_lexical_features
from paddle_ranker.options import RowOptions
from paddle_ranker.scoring.engines.dygraph import DygraphEngine
from paddle_ranker.scoring.scorer import Scorer

BM25 = "bm25"  # name of the member that is BM25 of the tokens, one of a ranker's lexical features
Measured = dict[str, Interval]  # measures by name, with intervals over draws of queries


@dataclass(frozen=True)
class Average:
    """Learned weights of a blend's members, and measures of the blend, of each member, and of equal weights.

    weights: the weights, fitted to all pairs
    pull: strength of the regularisation towards equal weights; with the constant `EQUAL`, all weights are equal
    alone: measures of each member
    equal: measures of the mean of the members' standardised logits
    blend: measures of the blend; each query is scored with weights that were fitted to other queries
    ahead: for each member, the measures of `blend` minus those of the member
    better: the measures of `blend` minus those of `equal`
    without: for each member, measures of a blend of all other members, with weights fitted to other queries
    worth: for each member, the measures of `blend` minus those of `without`
    better_known, worth_known: names of the measures of `better`, and of each of `worth`, whose differences are
        established, see `is_established`
    logits: uncalibrated logits of the blend, with weights fitted to other folds of queries, `[n] float64`
    """

    weights: LinearModel
    pull: float
    alone: list[Measured]
    equal: Measured
    blend: Measured
    ahead: list[Measured]
    better: Measured
    without: list[Measured]
    worth: list[Measured]
    better_known: frozenset[str]
    worth_known: list[frozenset[str]]
    logits: Floats

    def verdict(self, queries: int) -> str:
        """Return one line that says whether learned weights are better than equal weights.

        queries: number of judged queries
        """
        name, gain = next(iter(self.better.items()))
        difference = f"{name} {gain:+.4f} against equal weights, over draws of {queries:,} queries"
        if self.pull == EQUAL:
            return f"equal weights: {queries:,} queries do not tell better ones ({difference})"
        if gain.estimate > 0 and name in self.better_known:
            return f"learned weights are better than equal ones: {difference}"
        return f"note: that learned weights are better than equal ones is not established: {difference}"

    def idle(self) -> list[int]:
        """Return the indices of the members whose worth is not established, by their worth in the first measure.

        The lowest worth comes first. A member's worth is established if at least one of its differences in `worth` is
        known to be above 0, and none to be below 0.
        """
        first = next(iter(self.blend))
        known = [
            [differences[name].estimate > 0 for name in names]
            for differences, names in zip(self.worth, self.worth_known)
        ]
        members = [number for number, gains in enumerate(known) if not gains or not all(gains)]
        return sorted(members, key=lambda number: self.worth[number][first].estimate)


def learn_average(members: Floats, labels: Floats, queries: Sequence[str], folds: int) -> Average:
    """Learn the weights of the members' logits in the blend.

    members: logits of the k members, `[n, k]`
    labels: `[n]`
    queries: query of each pair, `[n]`
    folds: number of parts of the queries for cross-validation

    The members' standardised logits get equal weights, unless other weights are significantly better. Raises
    `DataError` as the functions of `paddle_ranker.metrics.logistic` do.
    """
    equal = equal_average(members)
    blend, logits = average_out_of_fold(members, labels, queries, folds)
    measures = [name for name in HEADLINES if MEASURES[name].applies(Scored(queries, labels, equal))]
    measure = partial(ranking_intervals, queries, labels, measures=measures)
    known = partial(_known, queries, labels, blend, measures=measures)
    rests = [np.delete(members, number, axis=1) for number in range(members.shape[1])]
    others = [
        rest[:, 0] if rest.shape[1] == 1 else average_out_of_fold(rest, labels, queries, folds)[0] for rest in rests
    ]
    pull = choose_pull(members, labels, queries, folds)
    return Average(
        fit_average(members, labels, pull),
        pull,
        alone=[measure(member) for member in members.T],
        equal=measure(equal),
        blend=measure(blend),
        ahead=[measure(blend, member) for member in members.T],
        better=measure(blend, equal),
        without=[measure(other) for other in others],
        worth=[measure(blend, other) for other in others],
        better_known=known([equal])[0],
        worth_known=known(others),
        logits=logits,
    )


def _known(
    queries: Sequence[str], labels: Floats, blend: Floats, others: Sequence[Floats], measures: Sequence[str]
) -> list[frozenset[str]]:
    """Return for each of `others` the names of the measures in which its difference from the blend is established.

    Intervals and tests are corrected for the number of `others`.
    """
    ours, theirs = Scored(queries, labels, blend), [Scored(queries, labels, other) for other in others]
    confidence = 1 - CERTAIN / len(others)
    gaps = [
        ranking_intervals(queries, labels, blend, other, measures=measures, confidence=confidence) for other in others
    ]
    names = [set[str]() for _ in others]
    for name in measures:
        p_values = [MEASURES[name].p_value(ours, other, PERMUTATIONS, 1000) for other in theirs]
        tested = [p_value for p_value in p_values if p_value is not None]  # of all, or of none
        corrected: Sequence[Optional[float]] = holm(tested) or [None] * len(others)
        for number, p_value in enumerate(corrected):
            if is_established(gaps[number][name], p_value):
                names[number].add(name)
    return [*map(frozenset, names)]


def add_linear(ranker: RankerModel, factor: float, added: Sequence[tuple[float, LinearModel]], bias: float) -> None:
    """Change a ranker's network in place: its logit becomes factor * logit + sum(weight * linear logit) + bias.

    factor: factor of the ranker's logit
    added: (weight, linear model) for each linear model of the network's standardised lexical features
    bias: added to the logit

    Raises `CheckpointError` unless the ranker's logit is linear in its head.
    """
    network = ranker.network
    if network.kinds[-1] != "linear":
        raise CheckpointError(f"its logit is a {network.kinds[-1]}, to which no linear model can be added exactly")
    for parameter in (network.head.weight, network.head.bias):
        parameter.set_value((factor * parameter.numpy().astype("float64")).astype("float32"))
    for head in (network.lexical, network.similarity_head):
        if head is not None:
            head.weight.set_value((factor * head.weight.numpy().astype("float64")).astype("float32"))
    bias += sum(weight * linear.bias for weight, linear in added)
    network.head.bias.set_value((network.head.bias.numpy() + bias).astype("float32"))
    if network.lexical is not None and added:
        lexical = sum(weight * linear.weights for weight, linear in added)
        network.lexical.weight.set_value((network.lexical.weight.numpy() + lexical).astype("float32"))


def lexical_logits(ranker: RankerModel, linear: LinearModel, pairs: Sequence[LabeledPair]) -> Floats:
    """Score pairs with a linear model of a ranker's lexical features; return the logits, `[n]` float64."""
    return linear.logits(_features(ranker, pairs))


def with_features(ranker: RankerModel, train: Sequence[LabeledPair]) -> RankerModel:
    """Return the ranker with a lexical head and its tables (for example word frequencies).

    train: pairs from which the tables are learned, unless the ranker has tables already

    Raises `DataError` if tables must be learned and `train` is empty.
    """
    network = with_lexical_features(ranker)
    assert network.lexical is not None
    if not network.lexical.has_learned:
        if not train:
            raise DataError(
                f"{BM25} needs the frequencies of words, and the ranker has no lexical features: give --train, or a "
                "ranker trained with --lexical_features true"
            )
        network.lexical.learn(_encode(ranker, train))
    return dataclasses.replace(ranker, network=network)


def learn_linear(ranker: RankerModel, train: Sequence[LabeledPair]) -> LinearModel:
    """Fit a linear model of a ranker's lexical features to the labels of pairs."""
    labels = np.array([pair.label for pair in train], dtype=np.float64)
    return fit_logistic(_features(ranker, train), labels)


def bm25() -> LinearModel:
    """Return a linear model of the lexical features that is standardised BM25: all other weights are 0."""
    return LinearModel(np.array([float(name == "bm25_tokens") for name in GRAPH_FEATURES]), 0.0)


def _encode(ranker: RankerModel, pairs: Sequence[LabeledPair]) -> EncodedPairs:
    return ranker.row_encoder.encode([pair.query for pair in pairs], [pair.title for pair in pairs])


def _features(ranker: RankerModel, pairs: Sequence[LabeledPair]) -> Floats:
    assert ranker.network.lexical is not None
    return ranker.network.lexical.of_pairs(_encode(ranker, pairs), np.arange(len(pairs)), standardise=True)


def training_pairs(path: str, rules: RowOptions) -> list[LabeledPair]:
    """Read a file of labelled pairs, or of triples, and return labelled pairs.

    A triple's title gets the label 1, its neg_title the label 0. A pair of several triples is returned once; its label
    is 1 if it is the title of at least one of these triples.
    """
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


def logits_of(ranker: RankerModel, pairs: list[LabeledPair], batch_size: int) -> Floats:
    """Score pairs with a ranker; return the uncalibrated logits, `[n]` float64."""
    scorer = Scorer(DygraphEngine(ranker.network), ranker.row_encoder, batch_size)
    return scorer.logits(scorer.encode([pair.query for pair in pairs], [pair.title for pair in pairs]))
