"""Measures of an evaluation: by hand, by scikit-learn, and their intervals."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score, roc_auc_score

from multimodal_entailment.info import LABELS
from multimodal_entailment.measures import all_measures, class_statistics, evaluate_predictions, quick_measures

pytestmark = pytest.mark.unit


def draw(count: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.RandomState(seed)
    labels = random.choice(3, count, p=[0.2, 0.2, 0.6])
    probabilities = random.dirichlet([1.0, 1.0, 2.0], count)
    probabilities[np.arange(count), labels] += 0.3
    return labels, probabilities / probabilities.sum(axis=1, keepdims=True)


def test_by_hand() -> None:
    labels = np.array([0, 1, 2, 2])
    probabilities = np.array([[0.6, 0.3, 0.1], [0.2, 0.3, 0.5], [0.1, 0.1, 0.8], [0.4, 0.2, 0.4 - 1e-9]])
    found = quick_measures(labels, probabilities)
    assert found["accuracy"] == 0.5  # rows 1 and 3
    # F1: class 0 found once of two guesses (2/3), class 1 never (0), class 2 one of two found, two guessed (1/2).
    assert found["macro_f1"] == pytest.approx((2 / 3 + 0 + 1 / 2) / 3)
    assert found["loss"] == pytest.approx(-np.mean(np.log([0.6, 0.3, 0.8, 0.4])), rel=1e-6)
    figures = all_measures(labels, probabilities)
    assert figures["Contradictory auc"] == 1.0 and figures["Implies precision"] == 0.0
    assert figures["NoEntailment precision"] == 0.5 and figures["NoEntailment recall"] == 0.5


def test_as_scikit_learn_has_them() -> None:
    labels, probabilities = draw()
    predicted = probabilities.argmax(axis=1)
    figures = all_measures(labels, probabilities)
    assert figures["accuracy"] == accuracy_score(labels, predicted)
    assert figures["macro_f1"] == pytest.approx(f1_score(labels, predicted, average="macro"))
    two = labels > 0  # nothing of the first class, in labels or in predictions
    few = np.where(np.arange(3) == 0, 0.0, probabilities[two])
    few = few / few.sum(axis=1, keepdims=True)
    measured = evaluate_predictions(labels[two], few, resamples=50)
    assert measured.intervals["macro_f1"].estimate == pytest.approx(
        f1_score(labels[two], few.argmax(axis=1), average="macro")
    )
    assert np.isnan(measured.intervals[f"{LABELS[0]} f1"].estimate)
    assert figures["auc"] == pytest.approx(roc_auc_score(labels, probabilities, multi_class="ovr", average="macro"))
    for number, name in enumerate(LABELS):
        chosen = {"labels": [number], "average": "macro"}
        assert figures[f"{name} precision"] == pytest.approx(precision_score(labels, predicted, **chosen))
        assert figures[f"{name} recall"] == pytest.approx(recall_score(labels, predicted, **chosen))


def test_statistics_of_draws_are_the_figures_of_the_drawn_pairs() -> None:
    labels, probabilities = draw(60)
    drawn = np.random.RandomState(1).multinomial(60, np.full(60, 1 / 60), size=5).astype(float)
    statistics = class_statistics(labels, probabilities)
    for counts, *values in zip(drawn, *(statistic(drawn) for statistic in statistics.values())):
        rows = np.repeat(np.arange(60), counts.astype(int))
        expected = all_measures(labels[rows], probabilities[rows])
        assert dict(zip(statistics, values)) == pytest.approx({name: expected[name] for name in statistics})


def test_an_evaluation() -> None:
    labels, probabilities = draw(300)
    found = evaluate_predictions(labels, probabilities, resamples=400)
    accuracy = found.intervals["accuracy"]
    assert accuracy.estimate == all_measures(labels, probabilities)["accuracy"]
    # A binomial share's interval is 1.96 standard errors wide on either side.
    error = np.sqrt(accuracy.estimate * (1 - accuracy.estimate) / 300)
    assert accuracy.low == pytest.approx(accuracy.estimate - 1.96 * error, abs=0.012)
    assert accuracy.high == pytest.approx(accuracy.estimate + 1.96 * error, abs=0.012)
    assert found.confusion.sum() == 300 and np.trace(found.confusion) == round(300 * accuracy.estimate)
    assert found.confusion.sum(axis=1).tolist() == np.bincount(labels).tolist()
    assert found.to_dict()["figures"]["accuracy"]["estimate"] == accuracy.estimate  # type: ignore[index]


def test_a_class_that_is_not_there_has_no_recall_and_no_auc() -> None:
    labels, probabilities = draw(40)
    labels[labels == 1] = 2
    found = evaluate_predictions(labels, probabilities, resamples=100)
    assert np.isnan(found.intervals["Implies recall"].estimate) and np.isnan(found.intervals["auc"].estimate)
    assert found.to_dict()["figures"]["Implies auc"] == {"estimate": None, "low": None, "high": None}  # type: ignore[index]
    assert 0 < found.intervals["accuracy"].low < 1
