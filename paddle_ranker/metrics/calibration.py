"""Calibration: scale and shift logits so that their sigmoid is a reliable probability.

probability = sigmoid(scale * logit + shift), scale > 0. A temperature T is scale = 1 / T without a shift (Guo, Pleiss,
Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017); with a shift it is Platt scaling (Platt,
"Probabilistic Outputs for Support Vector Machines", 1999). Both methods keep the order of scores.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple, Optional

import numpy as np
from numpy.typing import ArrayLike, NDArray

from paddle_ranker.array_types import Floats
from paddle_ranker.errors import CheckpointError
from paddle_ranker.storage.declared import Between, OneOf, Positive, require_declared

METHODS = ("platt", "temperature")
FEW_QUERIES = 100  # with fewer, a fit may well make other queries' probabilities worse
LEAST_LISTS, _TENTH, _PERCENTILES = 10, 10, 101
_Lists = Annotated[tuple[float, ...], Between(LEAST_LISTS, 10_000)]
_CHANCE = 0.005  # probability that `unlike` reports a difference of searches of the same kind


class ListScores(NamedTuple):
    """Two values that describe the logits of a ranked list, for comparisons of lists.

    tenth: the tenth best logit, or the last of a shorter list
    spread: the standard deviation of the logits
    """

    tenth: float
    spread: float

    @classmethod
    def of(cls, logits: Floats) -> ListScores:
        """Return the two values, rounded to 4 decimals, of a list with these calibrated logits, `[n]`, n > 0."""
        tenth = np.sort(logits)[::-1][min(_TENTH, len(logits)) - 1]
        return cls(round(float(tenth), 4), round(float(logits.std()), 4))


AUTO, LOGITS = "auto", "logits"
SCORE_KINDS = (AUTO, LOGITS, "probabilities")  # of a teacher
LEAST_PROBABILITY = 2.0**-24  # probabilities are clipped to this distance from 0 and 1, which is a logit of 16.6


@dataclass(frozen=True)
class SearchScores:
    """Scores of a ranker in searches of the index for which it was calibrated; stored with the calibration.

    top: how many documents were ranked for each query
    tenth: `ListScores.tenth` of each search, ascending; for more than 101 searches, the percentiles 0 to 100
    spread: `ListScores.spread` of each search, in the same form

    Raises `CheckpointError` if a field is not valid, for example if there are fewer than ten values.
    """

    top: Positive
    tenth: _Lists
    spread: _Lists

    def __post_init__(self) -> None:
        require_declared(self)

    @classmethod
    def of(cls, queries: Sequence[str], logits: Floats, top: int) -> SearchScores:
        """Return the `SearchScores` of searches.

        queries: query of each ranked document, `[n]`
        logits: calibrated logit of each ranked document, `[n]`
        top: how many documents were ranked for each query
        """
        from paddle_ranker.metrics.ranking import number_queries

        numbers = number_queries(queries)
        lists = np.array([ListScores.of(logits[numbers == number]) for number in range(int(numbers.max()) + 1)])
        if len(lists) > _PERCENTILES:
            lists = np.percentile(lists, np.linspace(0, 100, _PERCENTILES), axis=0).round(4)
        tenth, spread = np.sort(lists, axis=0).T.tolist()
        return cls(top, tuple(tenth), tuple(spread))

    def unlike(self, lists: Sequence[ListScores]) -> Optional[dict[str, object]]:
        """Return how the searches `lists` differ from the stored ones; None if the difference may be due to chance.

        The result names the value that differs more, `tenth` or `spread` (`measure`), its stored median (`expected`),
        and its median in `lists` (`seen`). The test is the two-sample test of Kolmogorov and Smirnov.
        """
        from scipy.stats import ks_2samp

        compared = [
            (name, getattr(self, name), [getattr(scores, name) for scores in lists]) for name in ListScores._fields
        ]
        chances = [ks_2samp(expected, others, method="asymp").pvalue for _, expected, others in compared]
        if min(chances) * len(chances) > _CHANCE:
            return None
        name, expected, others = compared[int(np.argmin(chances))]
        return {
            "measure": name,
            "expected": round(float(np.median(expected)), 2),
            "seen": round(float(np.median(others)), 2),
        }


@dataclass(frozen=True)
class Calibration:
    """The scale and shift that calibrate a ranker's logits, and the data of their fit; stored in `ranker.json`.

    method: how scale and shift were fitted, one of `METHODS`
    scale, shift: calibrated logit = scale * logit + shift; scale > 0
    fitted_on: facts about the file of the fit: name, digest, counts of pairs, queries and relevant pairs, and how the
        pairs were scored
    searched: scores of searches if the calibration is for searches of an index, else None
    figures: how well the calibration fits; the result of `figures_of`

    Raises `CheckpointError` if scale or shift is not a finite number, or scale is not above 0.
    """

    method: Annotated[str, OneOf(*METHODS)]
    scale: float
    shift: float
    fitted_on: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    searched: Optional[SearchScores] = None

    def __post_init__(self) -> None:
        require_declared(self)
        if self.scale <= 0:
            raise CheckpointError(
                f"calibration: scale is {self.scale}, which does not keep the order; it must be above 0"
            )

    def apply(self, logits: NDArray[Any]) -> Floats:
        """Calibrate a ranker's logits, of any shape; returns float64."""
        return self.scale * np.asarray(logits, np.float64) + self.shift

    def undo(self, logits: NDArray[Any]) -> Floats:
        """Recover the ranker's uncalibrated logits from calibrated logits, of any shape; returns float64."""
        return (np.asarray(logits, np.float64) - self.shift) / self.scale

    def fold(self, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the weight and bias that a linear head needs to compute calibrated logits; shapes do not change."""
        return (self.scale * weight.astype(np.float64)).astype(weight.dtype), self.apply(bias).astype(bias.dtype)

    def __str__(self) -> str:
        shift = f" {'-' if self.shift < 0 else '+'} {abs(self.shift):.6g}" if self.shift else ""
        return f"sigmoid({self.scale:.6g} * logit{shift})"


def with_bias(calibration: Optional[Calibration], bias: float) -> Optional[Calibration]:
    """Return the calibration of logits from which a head's bias was taken; None if there is nothing to add."""
    if calibration is not None:
        return dataclasses.replace(calibration, shift=calibration.scale * bias + calibration.shift)
    return Calibration("platt", 1.0, bias, {"on": "no data: the bias of the head"}) if bias else None


def sigmoid(logits: ArrayLike) -> Floats:
    """Return 1 / (1 + exp(-logits)), of any shape, float64, accurate for large logits of either sign.

    SciPy's `expit` returns the same, but its module takes longer to load than a small ranker.
    """
    return np.asarray(np.exp(-np.logaddexp(0.0, -np.asarray(logits, np.float64))))


def are_probabilities(scores: Floats) -> bool:
    """Return whether scores of unknown kind count as probabilities: all of them are within 0 and 1."""
    return bool(((scores >= 0) & (scores <= 1)).all())


def logits_of(probabilities: Floats) -> Floats:
    """Return log(p / (1 - p)), float64; probabilities next to 0 and 1 become -16.6 and 16.6."""
    clipped = np.clip(np.asarray(probabilities, np.float64), LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    return np.asarray(np.log(clipped) - np.log1p(-clipped), np.float64)
