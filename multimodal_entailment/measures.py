"""Measures of predicted classes, computed with scikit-learn, with bootstrap intervals over pairs of posts."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Callable, Optional

import numpy as np
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    log_loss,
    precision_recall_fscore_support,
    roc_auc_score,
)

from multimodal_entailment.data import PostPair
from multimodal_entailment.info import LABELS
from paddle_ranker.array_types import Floats
from paddle_ranker.metrics.auc import auc_of
from paddle_ranker.metrics.intervals import Interval, Statistic, bootstrap_intervals

_CLASSES = list(range(len(LABELS)))
HEADLINES = ("accuracy", "macro_f1", "auc")
SHOWN = {"accuracy": "accuracy", "macro_f1": "macro-F1", "auc": "ROC AUC (mean of one-vs-rest)"}


def quick_measures(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Return `loss` (mean -log p, nats), `accuracy` and `macro_f1` of `[n]` labels and `[n, classes]` probabilities.

    As in scikit-learn, `macro_f1` is the mean of the classes that occur, in labels or in predictions.
    """
    predicted = probabilities.argmax(axis=1)
    kept = np.clip(probabilities, 1e-12, None)
    return {
        "loss": float(log_loss(labels, kept / kept.sum(axis=1, keepdims=True), labels=_CLASSES)),
        "accuracy": float(accuracy_score(labels, predicted)),
        "macro_f1": float(f1_score(labels, predicted, average="macro")),
    }


def all_measures(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Return a dict of loss, accuracy, macro-F1, and each class's precision, recall, F1 and one-vs-rest ROC AUC.

    `auc` is the mean of the classes' AUCs (macro). Recall and AUC are NaN for a class without examples, and so is the
    F1 of one that is not predicted either; precision is 0 for a class that is never predicted.
    """
    predicted = probabilities.argmax(axis=1)
    measures = quick_measures(labels, probabilities)
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=_CLASSES, zero_division=0
    )
    aucs = [_auc(labels == number, probabilities[:, number]) for number in _CLASSES]
    measures["auc"] = float(np.mean(aucs))
    for number, name in enumerate(LABELS):
        measures[f"{name} precision"] = float(precision[number])
        measures[f"{name} recall"] = float(recall[number]) if support[number] else float("nan")
        occurs = support[number] or (predicted == number).any()
        measures[f"{name} f1"] = float(f1[number]) if occurs else float("nan")
        measures[f"{name} auc"] = aucs[number]
    return measures


def _auc(is_class: np.ndarray, probabilities: np.ndarray) -> float:
    if is_class.all() or not is_class.any():
        return float("nan")
    return float(roc_auc_score(is_class, probabilities))


@dataclass(frozen=True)
class EntailmentEvaluation:
    """A dict from measure to value with 95% interval, and the confusion matrix (rows: truth, columns: predictions)."""

    count: int
    intervals: dict[str, Interval]
    confusion: np.ndarray

    def to_dict(self) -> dict[str, object]:
        """Return the evaluation, JSON-ready; undefined values are None."""
        return {
            "pairs": self.count,
            "labels": list(LABELS),
            "figures": {
                name: {key: _or_none(value) for key, value in vars(interval).items()}
                for name, interval in self.intervals.items()
            },
            "confusion": self.confusion.tolist(),
        }


def evaluate_predictions(
    labels: np.ndarray, probabilities: np.ndarray, *, resamples: int = 2000, seed: int = 1000
) -> EntailmentEvaluation:
    """Measure `probabilities` `[n, classes]` against `labels` `[n]`; the intervals are over draws of pairs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # raised for a measure that no draw defines
        intervals = bootstrap_intervals(
            class_statistics(labels, probabilities), len(labels), resamples=resamples, seed=seed
        )
    measures = all_measures(labels, probabilities)
    intervals = {name: replace(interval, estimate=measures[name]) for name, interval in intervals.items()}
    confusion = confusion_matrix(labels, probabilities.argmax(axis=1), labels=_CLASSES)
    return EntailmentEvaluation(len(labels), intervals, confusion)


def class_statistics(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, Statistic]:
    """Return the measures of `all_measures`, except the loss, as functions of the counts of each pair in a draw.

    A draw's confusion matrix is a single product here; scikit-learn would take minutes for thousands of draws.
    """
    size = len(_CLASSES)
    cells = np.eye(size * size)[labels * size + probabilities.argmax(axis=1)]
    pairs = np.arange(len(labels))
    aucs = [auc_of(pairs, (labels == number).astype(float), probabilities[:, number]) for number in _CLASSES]

    def of_counts(measure: Callable[[Floats], Floats]) -> Statistic:
        return lambda drawn: measure((drawn @ cells).reshape(-1, size, size))

    statistics: dict[str, Statistic] = {
        "accuracy": of_counts(lambda counts: np.trace(counts, axis1=1, axis2=2) / counts.sum(axis=(1, 2))),
        "macro_f1": of_counts(lambda counts: np.nanmean([_f1(counts, number) for number in _CLASSES], axis=0)),
        "auc": lambda drawn: np.mean([auc(drawn) for auc in aucs], axis=0),
    }
    for number, name in enumerate(LABELS):
        statistics[f"{name} precision"] = of_counts(partial(_share, number=number, axis=1, undefined=0.0))
        statistics[f"{name} recall"] = of_counts(partial(_share, number=number, axis=2, undefined=np.nan))
        statistics[f"{name} f1"] = of_counts(partial(_f1, number=number))
        statistics[f"{name} auc"] = aucs[number]
    return statistics


def labels_of(pairs: Sequence[PostPair]) -> np.ndarray:
    """Return the labels of labelled pairs, `[n] int64`."""
    return np.array([pair.label for pair in pairs], np.int64)


def _share(counts: Floats, number: int, axis: int, undefined: float) -> Floats:
    """Return a class's precision (axis 1) or recall (axis 2) in each draw, `[draws]`.

    counts: the draws' confusion matrices, rows the truth, `[draws, classes, classes]`
    number: the class
    undefined: result for a class that is never predicted (axis 1) or has no examples (axis 2)
    """
    whole = counts.sum(axis=axis)[:, number]
    return np.where(whole > 0, counts[:, number, number] / np.maximum(whole, 1.0), undefined)


def _f1(counts: Floats, number: int) -> Floats:
    both = counts.sum(axis=1)[:, number] + counts.sum(axis=2)[:, number]
    return np.where(both > 0, 2.0 * counts[:, number, number] / np.maximum(both, 1.0), np.nan)


def _or_none(value: float) -> Optional[float]:
    return None if np.isnan(value) else value
