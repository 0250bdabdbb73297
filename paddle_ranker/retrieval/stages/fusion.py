"""Fusion: one list of candidates from the lists of several searchers.

candidates = Candidates.of({"words": hits, "vectors": others})
order, scores = Fusion("rrf").best(candidates, 100)
[candidates.ids[number] for number in order]

A search keeps its list, and where its scores come from, as a `FusedList`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Union

import numpy as np

from paddle_ranker.array_types import Booleans, Floats, Integers
from paddle_ranker.errors import DataError, UsageError, brief, listed, quoted
from paddle_ranker.registry import Registry
from paddle_ranker.retrieval.stored.candidate_indexes import Hits
from paddle_ranker.retrieval.stored.schema import MOST_WEIGHT
from paddle_ranker.retrieval.values.search_defaults import FUSION
from paddle_ranker.retrieval.values.typed_values import NUMBER, Value
from paddle_ranker.storage.untrusted import read_json

if TYPE_CHECKING:
    from paddle_ranker.lexical.passages import Span

RRF_K = 60  # the constant of Cormack et al. (2009)
ValuesOf = Callable[[str, Sequence[str]], Sequence[tuple[Value, ...]]]  # (field, ids) to the documents' values
FORMAT = 6
FEATURE_DEPTH = 50  # first documents of a fused list that features order
_ABOVE, _TINY = 1.01, 1e-6  # factor and summand that make a title's bonus larger than the range of scores
_BEFORE_OTHERS = 1e-6  # distance of the last document that features order from the best of the others
SEARCHER_FEATURES = ("log_rank", "score", "normalised")  # of each searcher
FUSED_FEATURES = ("fused.log_rank", "fused.score")
TITLE = "exact_title"  # name of the signal of documents whose whole title is the query
TITLE_MATCH = "title_match"  # name of the signal of documents whose titles have all words of the query


@dataclass(frozen=True)
class Candidates:
    """Documents that searchers found for one query; a candidate's row is its index in `ids` and in the arrays.

    searchers: names of the searchers
    ids: ids of the first searcher's documents, then of further documents of the second searcher, and so on
    scores: `[candidates, searchers] float64`, NaN if the searcher did not find the document
    ranks: `[candidates, searchers] int64`, from 1; 0 if the searcher did not find the document
    titles: `[candidates] float64`, scores of titles, see `Hits`; 0 if words were not searched
    by_titles: `[candidates] float64`, summands of the scores by words that come from titles
    """

    searchers: tuple[str, ...]
    ids: list[str]
    scores: Floats
    ranks: Integers
    titles: Floats
    by_titles: Floats

    @classmethod
    def of(cls, lists: Mapping[str, Hits], title: float = 1.0) -> Candidates:
        """Join the hits of each searcher, by the documents' ids.

        title: weight of title matches, see `Fusion.title`. If the hits of a searcher have `titles`, as by words,
            their scores gain `title * Hits.titles` times the searcher's best score
        """
        numbers: dict[str, int] = {}
        rows_by_list = [[numbers.setdefault(id, len(numbers)) for id in hits.ids] for hits in lists.values()]
        scores = np.full((len(numbers), len(lists)), np.nan)
        ranks, (titles, by_titles) = np.zeros((len(numbers), len(lists)), np.int64), np.zeros((2, len(numbers)))
        for column, (rows, hits) in enumerate(zip(rows_by_list, lists.values())):
            scores[rows, column] = hits.scores
            ranks[rows, column] = np.arange(1, len(rows) + 1)
            if hits.titles is not None:
                titles[rows], by_titles[rows] = hits.titles, title * hits.scores.max(initial=0.0) * hits.titles
                scores[rows, column] += by_titles[rows]
                order = np.argsort(-scores[rows, column], kind="stable")
                ranks[np.array(rows)[order], column] = np.arange(1, len(rows) + 1)
        return cls(tuple(lists), list(numbers), scores, ranks, titles, by_titles)

    @classmethod
    def unscored(cls, ids: list[str]) -> Candidates:
        count = len(ids)
        return cls((), ids, np.empty((count, 0)), np.empty((count, 0), np.int64), np.zeros(count), np.zeros(count))

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def titled(self) -> Booleans:
        """Which candidates have the query as their whole title, `[candidates] bool`."""
        is_titled: Booleans = self.titles == 1
        return is_titled

    @property
    def normalised(self) -> Floats:
        """Scores by min-max normalisation per searcher, `[candidates, searchers]`; 0 for a document that is not found.

        As in Bruch et al. (2023), "An analysis of fusion functions for hybrid retrieval". If all scores of a searcher
        are equal, they become 1.
        """
        is_found = self.ranks > 0
        low = np.where(is_found, self.scores, np.inf).min(axis=0, initial=np.inf)
        high = np.where(is_found, self.scores, -np.inf).max(axis=0, initial=-np.inf)
        is_wide = high > low
        shares = np.divide(self.scores - low, high - low, out=np.ones_like(self.scores), where=is_wide)
        return np.where(is_found, shares, 0.0)


class ListFeatures(NamedTuple):
    """Features of the first documents of a fused list.

    searchers: names of the searchers
    names: names of all features; first come the `SEARCHER_FEATURES` of each searcher
    values: `[documents, features] float64`, standardised over these documents: their mean is 0, their deviation 1 or 0
    """

    searchers: tuple[str, ...]
    names: tuple[str, ...]
    values: Floats

    @classmethod
    def of(cls, candidates: Candidates, rows: Sequence[int], fused: Floats, texts: Floats) -> ListFeatures:
        """Return the features of the candidates in `rows`, which are in the order of the fused list.

        If a searcher did not find a document, the document gets the rank after the searcher's last document, and the
        searcher's lowest score among `rows`.

        fused: fused scores of the documents, `[documents]`
        texts: values of `LIST_FEATURES` for the documents, `[documents, features]`
        """
        from paddle_ranker.lexical.features import LIST_FEATURES
        from paddle_ranker.metrics.ranking import standardise

        ranks, scores = candidates.ranks[rows], candidates.scores[rows]
        last = candidates.ranks.max(axis=0, initial=0) + 1
        lowest = np.where(np.isnan(scores), np.inf, scores).min(axis=0, initial=np.inf)
        lowest = np.where(np.isinf(lowest), 0.0, lowest)
        of_searchers = [np.log(np.where(ranks > 0, ranks, last)), np.where(np.isnan(scores), lowest, scores)]
        of_searchers.append(candidates.normalised[rows])
        by_searcher = np.stack(of_searchers, axis=2).reshape(len(rows), -1)
        of_fusion = np.column_stack([np.log(np.arange(1, len(rows) + 1)), fused])
        names = [f"{searcher}.{name}" for searcher in candidates.searchers for name in SEARCHER_FEATURES]
        values, *_ = standardise(np.hstack([by_searcher, of_fusion, texts]), np.float64)
        return cls(candidates.searchers, (*names, *FUSED_FEATURES, *LIST_FEATURES), values)


class FeatureParts(NamedTuple):
    """Parts of a document's score by features.

    searchers: sum that each searcher's features add, `[searchers]`
    others: summand of each feature that belongs to no searcher, by name
    first: constant that is added to every document that features order, to put it above all other documents
    """

    searchers: Floats
    others: Mapping[str, float]
    first: float


def reciprocal_ranks(candidates: Candidates, weights: Floats) -> Floats:
    """Return, for each document, the weighted sum of 1 / (60 + rank) over the searchers that found it, `[candidates]`.

    This is reciprocal rank fusion (Cormack et al. 2009).
    """
    ranks = candidates.ranks
    shares = np.divide(1.0, RRF_K + ranks, out=np.zeros(ranks.shape), where=ranks > 0)
    sums: Floats = shares @ weights
    return sums


def weighted_scores(candidates: Candidates, weights: Floats) -> Floats:
    """Return the weighted sums of normalised scores, `[candidates]` (Bruch et al. 2023, convex combination)."""
    sums: Floats = candidates.normalised @ weights
    return sums


def by_score(scores: Floats, ids: Sequence[str]) -> list[int]:
    """Return the indices that sort scores, highest first; equal scores are sorted by id."""
    values = (-scores).tolist()
    return sorted(range(len(values)), key=lambda row: (values[row], ids[row]))


@dataclass(frozen=True)
class FusionKind:
    """Fusion method that users can choose.

    scores: called with the candidates and the searchers' weights, `[searchers]`; returns fused scores, `[candidates]`
    first: the score that a searcher of weight 1 adds to its first document
    what: describes the scores, for help texts
    """

    scores: Callable[[Candidates, Floats], Floats]
    first: float
    what: str


FUSIONS: Registry[FusionKind] = Registry("fusion", "--fusion")
FUSIONS.add("rrf", FusionKind(reciprocal_ranks, 1.0 / (RRF_K + 1), f"sum of 1 / ({RRF_K} + rank)"))
FUSIONS.add("weighted", FusionKind(weighted_scores, 1.0, "sum of the scores, each searcher's from 0 to 1"))


@dataclass(frozen=True)
class Signal:
    """Signal that the last stage adds to a ranker's logit: weight * (value - mean) / deviation, or 0 without a value.

    is_field: whether the values are numbers of a field, and not a searcher's normalised scores
    log: whether a value is replaced by log(1 + value)
    mean, deviation: mean and deviation of the values, after `log`
    """

    weight: float
    is_field: bool = False
    log: bool = False
    mean: float = 0.0
    deviation: float = 1.0

    @classmethod
    def of_values(cls, values: Floats, log: bool) -> Signal:
        """Return the signal of a field with weight 0.

        values: the field's numbers in many documents, as `numbers_of` returns them; they determine mean and deviation
        """
        from paddle_ranker.metrics.ranking import standardise

        finite = values[np.isfinite(values)]
        scaled = np.log1p(finite) if log else finite
        _, mean, deviation = standardise(scaled, np.float64)
        return cls(0.0, True, log, float(mean), float(deviation))

    def standardised(self, values: Floats) -> Floats:
        """Return (value - mean) / deviation, in any shape; 0 for NaN. With `log`, negative values count as 0."""
        scaled = np.log1p(np.maximum(values, 0.0)) if self.log else values
        return np.nan_to_num((scaled - self.mean) / self.deviation, nan=0.0)


def numbers_of(values: Sequence[tuple[Value, ...]]) -> Floats:
    """Convert documents' values of a field to numbers, `[n] float64`; NaN for a document without exactly one number."""
    return np.array(
        [float(items[0].of) if len(items) == 1 and items[0].kind == NUMBER else np.nan for items in values], np.float64
    )


@dataclass(frozen=True)
class Fusion:
    """Settings for fusing the searchers' lists, and for adding signals to a ranker's logit in the last stage.

    method: a name in `FUSIONS`
    weights: weights of searchers by name; other searchers have weight 1
    recall_weight: weight of `shares` in the last stage, where the ranker's logit has weight 1
    title: weight of title matches. A score by words gains `title * Hits.titles` times the best score by words. A
        document whose whole title is the query gains `titles_share` after fusion and in the last stage
    fields: weights of searched fields by name; other fields keep the schema's weights
    features: weights of features by name, see `ListFeatures`, whose weighted sum orders the first `FEATURE_DEPTH`
        documents of the fused list; empty: these documents keep their fused order
    signals: signals of the last stage, by name of a searcher or of a field of numbers
    """

    method: str = FUSION
    weights: Mapping[str, float] = field(default_factory=dict)
    recall_weight: float = 0.0
    title: float = 1.0
    fields: Mapping[str, float] = field(default_factory=dict)
    signals: Mapping[str, Signal] = field(default_factory=dict)
    features: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        FUSIONS[self.method]
        values = [*self.weights.values(), *self.features.values(), self.recall_weight, self.title]
        values += [
            value for signal in self.signals.values() for value in (signal.weight, signal.mean, signal.deviation)
        ]
        if not all(map(math.isfinite, values)):
            raise UsageError(f"weights {quoted(dict(self.weights))}: give finite numbers")
        if any(abs(weight) > MOST_WEIGHT for weight in self.weights.values()):  # sums must stay finite
            raise UsageError(f"weights {quoted(dict(self.weights))}: give numbers up to {MOST_WEIGHT:g}")
        if not all(signal.deviation > 0 for signal in self.signals.values()):
            raise UsageError(f"signals {listed([*self.signals])}: deviations must be above 0")
        if not all(0 < weight <= MOST_WEIGHT for weight in self.fields.values()):
            raise UsageError(f"weights of fields {quoted(dict(self.fields))}: give numbers above 0")

    def scores(self, candidates: Candidates) -> Floats:
        """Return the candidates' scores, `[candidates] float64`: `fused` plus `titles_share`."""
        fused = self.fused(candidates)
        return fused + self.titles_share(candidates.titled, fused)

    def titles_share(self, titled: Booleans, scores: Floats) -> Floats:
        """Return the bonus of documents whose whole title is the query, `[n]`; 0 for other documents.

        The bonus is `title` times the range of the scores, so that with 1 such a document comes first.

        titled: which documents have such a title, `[n] bool`
        scores: scores to which the bonus will be added, `[n]`
        """
        highest, lowest = scores.max(initial=0.0), scores.min(initial=0.0)
        bonus: Floats = self.title * (_ABOVE * (highest - lowest) + _TINY) * titled
        return bonus

    def fused(self, candidates: Candidates) -> Floats:
        """Return the candidates' fused scores, `[candidates]`; the scores of a single searcher are not fused."""
        weights = self.weights_of(candidates.searchers)
        if len(weights) == 1:
            return candidates.scores[:, 0]
        return FUSIONS[self.method].scores(candidates, weights)

    def parts(self, candidates: Candidates) -> Floats:
        """Return the contribution of each searcher to the scores, `[candidates, searchers]`."""
        weights = self.weights_of(candidates.searchers)
        if len(weights) == 1:
            return candidates.scores
        of = FUSIONS[self.method].scores
        return np.stack([of(candidates, alone) for alone in np.diag(weights)], axis=1)

    def best(self, candidates: Candidates, top_k: int) -> tuple[Integers, Floats]:
        """Return the rows and the scores of the best `top_k` candidates, `[found]` each, best first.

        Equal scores are in the order of `by_score`.
        """
        scores = self.scores(candidates)
        order = np.array(by_score(scores, candidates.ids)[:top_k], np.int64)
        return order, scores[order]

    def shares(self, candidates: Candidates) -> Floats:
        """Return fused scores, divided by the score of a document that all searchers rank first, `[candidates]`.

        If there is a single searcher, return its normalised scores.
        """
        if len(candidates.searchers) == 1:
            return candidates.normalised[:, 0]
        weights = self.weights_of(candidates.searchers)
        highest = FUSIONS[self.method].first * float(np.abs(weights).sum())
        return self.fused(candidates) / highest

    def added(self, candidates: Candidates, rows: Sequence[int], values: ValuesOf) -> dict[str, Floats]:
        """Return, by name of the signal, its summand for each candidate in `rows`, `[rows]`.

        values: called with a field and ids of documents; returns the documents' values of the field
        """
        summands, normalised = {}, candidates.normalised
        for name, signal in self.signals.items():
            if signal.is_field:
                numbers = numbers_of(values(name, [candidates.ids[row] for row in rows]))
            else:
                numbers = normalised[rows, candidates.searchers.index(name)]
            summands[name] = signal.weight * signal.standardised(numbers)
        return summands

    def by_feature(self, features: ListFeatures) -> Floats:
        """Return weight * value of each feature of each document, `[documents, features]`."""
        weights = np.array([self.features.get(name, 0.0) for name in features.names])
        summands: Floats = features.values * weights
        return summands

    def weights_of(self, searchers: Sequence[str]) -> Floats:
        """Return the weights of searchers, `[searchers]`.

        Raises `UsageError` if `self.weights` names a searcher that is not among `searchers`, or if all weights are 0.
        """
        unknown = sorted(self.weights.keys() - set(searchers))
        if unknown:
            raise UsageError(f"weights of {listed(unknown)}: the search is by {', '.join(searchers)}")
        weights = np.array([self.weights.get(name, 1.0) for name in searchers])
        if not weights.any():
            raise UsageError(f"weights {quoted(dict(self.weights))}: give one that is not 0")
        return weights

    def write(self, path: Union[str, Path], learned: Mapping[str, object]) -> None:
        """Write the fusion as JSON.

        learned: facts about how the weights were learned, which are written into the file, too
        """
        from paddle_ranker.storage.atomic import new_file

        with new_file(path) as stream:
            json.dump({"format": FORMAT, **asdict(self), "learned": learned}, stream, indent=2)
            stream.write("\n")

    @classmethod
    def read(cls, path: Union[str, Path]) -> Fusion:
        """Read a file that `write` wrote; raises `DataError` for any other file."""
        try:
            facts = read_json(Path(path))
            if not isinstance(facts, dict) or facts.get("format") != FORMAT:
                raise ValueError(f"no fusion of format {FORMAT}")
            weights, fields, features = ({str(name): float(value) for name, value in facts[key].items()}
                                         for key in ("weights", "fields", "features"))  # fmt: skip
            signals = {
                str(name): Signal(float(signal["weight"]), bool(signal["is_field"]), bool(signal["log"]),
                                  float(signal["mean"]), float(signal["deviation"]))
                for name, signal in facts["signals"].items()
            }  # fmt: skip
            recall_weight, title = float(facts["recall_weight"]), float(facts["title"])
            return cls(str(facts["method"]), weights, recall_weight, title, fields, signals, features)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, UsageError) as error:
            raise DataError(
                f"{path}: not a file of learned weights ({brief(str(error))}): make one with evaluate-recall "
                "--learn_weights"
            ) from error


class FusedList:
    """The candidates of one query in the order of their fused scores.

    Args:
        fusion: how the searchers' lists became one.
        candidates: the documents. Those of a list that is sorted by fields, which have no searchers, keep their order.
        spans: by id of a document that was found by a vector, the vector's passage.
        pieces: by id of a document that was found by a vector of a file, its piece of the recording (`pieces_of`).

    Attributes:
        scores: fused scores, `[candidates]`; 0 without searchers.
        order: rows, best first; equal scores are ordered by id.
        rank: rank in `order`, from 1, by row.
        by_feature: parts of the scores by features, by row; set by `order_by_features`.
        by_whole_title: summand of each score for a title that is the query, `[candidates]`.
    """

    def __init__(self, fusion: Fusion, candidates: Candidates, spans: Mapping[str, Span], pieces: Mapping[str, Span]):
        self.fusion, self.candidates, self.spans, self.pieces = fusion, candidates, spans, pieces
        self.by_feature: dict[int, FeatureParts] = {}
        scores = fusion.fused(candidates) if candidates.searchers else np.zeros(len(candidates))
        self.by_whole_title = fusion.titles_share(candidates.titled, scores)
        self._set_scores(scores + self.by_whole_title)

    def _set_scores(self, scores: Floats) -> None:
        self.scores, ids = scores, self.candidates.ids
        self.order = by_score(scores, ids) if self.candidates.searchers else [*range(len(ids))]
        self.rank = {row: rank for rank, row in enumerate(self.order, start=1)}

    def order_by_features(self, features: ListFeatures) -> None:
        """Order the first documents by `Fusion.features`; the rest of the list stays as it is.

        features: features of the first documents of `order`
        """
        by_feature = self.fusion.by_feature(features)
        top = self.order[: len(by_feature)]
        of_searchers = len(features.searchers) * len(SEARCHER_FEATURES)
        by_searcher = by_feature[:, :of_searchers].reshape(len(top), -1, len(SEARCHER_FEATURES)).sum(axis=2)
        scores = by_feature.sum(axis=1)
        titles = self.fusion.titles_share(self.candidates.titled[top], scores)
        scores, fused = scores + titles, self.scores.copy()
        others = fused[self.order[len(top) :]]
        above = float(others.max() - scores.min()) + _BEFORE_OTHERS if len(others) else 0.0
        fused[top], self.by_whole_title[top] = scores + above, titles
        for number, row in enumerate(top):
            added = dict(zip(features.names[of_searchers:], by_feature[number, of_searchers:].tolist()))
            self.by_feature[row] = FeatureParts(by_searcher[number], added, above)
        self._set_scores(fused)


def parse_fusion(name: str, weights: str = "") -> Fusion:
    """Return the fusion of `--fusion` (a name in `FUSIONS`, or a file) and of `--weights` (`words=1,vectors=2`)."""
    if name not in FUSIONS and Path(name).is_file():
        if weights:
            raise UsageError(f"--weights {brief(weights)}: {name} has weights of its own; give one of both")
        return Fusion.read(name)
    parsed = {}
    for part in filter(None, weights.split(",")):
        searcher, _, value = part.partition("=")
        if searcher.strip() in parsed:
            raise UsageError(f"--weights {quoted(weights)}: gives {brief(searcher.strip())} two weights; give one")
        try:
            parsed[searcher.strip()] = float(value)
        except ValueError:
            raise UsageError(
                f"--weights {quoted(weights)}: expected searchers and numbers, words=1,vectors=2"
            ) from None
    FUSIONS[name]  # raises with the choices
    return Fusion(name, parsed)
