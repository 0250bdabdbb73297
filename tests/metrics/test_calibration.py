"""Calibration: fits worked out by hand and by scikit-learn, calibration measures, and data without a fit."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss

from paddle_ranker.errors import CheckpointError, DataError
from paddle_ranker.metrics.calibration import Calibration
from paddle_ranker.metrics.calibration_fitting import (
    calibration_error_of,
    calibration_measures,
    expected_calibration_error,
    fit,
    fit_and_judge,
    fit_out_of_fold,
)
from paddle_ranker.model.info import RankerInfo
from paddle_ranker.model.model_folder import RANKER, load_model
from paddle_ranker.model.ranker_folder import Fresh, start_ranker
from tests.tiny import change_json, write_ranker

pytestmark = pytest.mark.unit
LN3 = math.log(3)


def draws(count: int = 400, seed: int = 1) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return queries, graded labels and logits that are three times too large, and too low by 2."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=count)
    labels = np.where(random.random(count) < expit(logits), random.integers(1, 3, count), 0)
    return [f"q{i // 8}" for i in range(count)], labels.astype(float), 3 * logits - 2


def test_a_temperature_by_hand() -> None:
    # Of the pairs at logit 1 three in four are relevant, at -1 one in four: sigmoid(s) = 3/4, s = ln 3.
    logits = np.repeat([1.0, -1.0], 4)
    found = fit("temperature", np.array([1, 1, 2, 0, 1, 0, 0, 0.0]), logits)
    assert found.scale == pytest.approx(LN3, abs=1e-9) and found.shift == 0
    np.testing.assert_allclose(expit(found.apply(logits)), np.repeat([0.75, 0.25], 4), atol=1e-9)


def test_platt_scaling_by_hand() -> None:
    # At logit 5 one in four is relevant, at 7 three: sigmoid(5 s + t) = 1/4 and sigmoid(7 s + t) = 3/4.
    found = fit("platt", np.array([1, 0, 0, 0, 1, 1, 1, 0.0]), np.repeat([5.0, 7.0], 4))
    assert (found.scale, found.shift) == (pytest.approx(LN3, abs=1e-9), pytest.approx(-6 * LN3, abs=1e-8))
    shown = [str(Calibration("platt", 0.5, shift)) for shift in (-2.0, 2.0, 0.0)]
    assert shown == ["sigmoid(0.5 * logit - 2)", "sigmoid(0.5 * logit + 2)", "sigmoid(0.5 * logit)"]


@pytest.mark.parametrize("method", ["temperature", "platt"])
@pytest.mark.parametrize("seed", range(3))
def test_fits_agree_with_scikit_learn(method: str, seed: int) -> None:
    _, labels, logits = draws(seed=seed)
    theirs = LogisticRegression(C=1e12, fit_intercept=method == "platt", tol=1e-12, max_iter=10_000)
    theirs.fit(logits[:, None], labels >= 1)
    found = fit(method, labels, logits)
    assert found.scale == pytest.approx(theirs.coef_[0, 0], abs=1e-5)
    assert found.shift == pytest.approx(float(np.ravel(theirs.intercept_)[0]), abs=1e-5)


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_the_unit_of_logits_is_of_no_consequence(unit: float) -> None:
    _, labels, logits = draws()
    one, other = fit("platt", labels, logits), fit("platt", labels, unit * logits + unit)
    np.testing.assert_allclose(one.apply(logits), other.apply(unit * logits + unit), atol=1e-6)


@pytest.mark.parametrize(
    ("method", "labels", "logits", "message"),
    [
        ("platt", [1, 1], [0, 1], "one class only, 2 of 2 pairs"),
        ("temperature", [0, 0], [0, 1], "one class only, 0 of 2 pairs"),
        ("platt", [1, 0, 1], [2, 2, 2], "scores all pairs alike"),
        ("temperature", [1, 0], [0, 0], "scores all pairs alike"),
        ("platt", [1, 1, 0, 0], [5, 4, 4, 3], "without a mistake"),
        ("temperature", [1, 1, 0], [5, 0, -1], "without a mistake"),
        ("platt", [0, 0, 1, 1], [5, 4, 4, 3], "the wrong way round"),
        ("platt", [0, 1, 0, 0, 1, 1], [5, 4, 4, 3, 2, 3], "the wrong way round"),
        ("temperature", [1, 0, 0, 0], [6, 5, 5, 5], "no temperature above 0 fits.*--method platt"),
        ("temperature", [1, 0], [-1, 1], "no temperature above 0 fits"),
    ],
)
def test_what_has_no_fit_is_refused(method: str, labels: list[float], logits: list[float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        fit(method, np.array(labels, float), np.array(logits, float))
    # so is a fold, by name
    with pytest.raises(DataError, match="of 2: the ranker tells relevant pairs from others"):
        fit_out_of_fold("platt", [*"aaabbb"], np.array([1, 0, 0, 0, 1, 0.0]), np.array([3, 2, 1, 3, 2, 1.0]), 2)


def test_the_calibration_error_by_hand() -> None:
    relevant = np.array([True, False, True, True])
    probabilities = np.array([0.05, 0.06, 0.95, 0.94])
    # First bin: 0.11 stated for 1; last (above 14/15): 0.95 and 0.94 for 2. (|0.11 - 1| + |1.89 - 2|) / 4
    assert expected_calibration_error(relevant, probabilities) == pytest.approx((0.89 + 0.11) / 4)
    # A bin holds its upper bound: 1/15 is in the first with 0, 2/15 in the second with 1.1/15.
    edges = np.array([0.0, 1 / 15, 1.1 / 15, 2 / 15, 1.0])
    expected = (abs(1 / 15 - 1) + abs(3.1 / 15 - 1) + 0) / 5
    assert expected_calibration_error(np.array([1, 0, 0, 1, 1], bool), edges) == pytest.approx(expected)


def test_the_measures_agree_with_scikit_learn() -> None:
    _, labels, logits = draws()
    measures = calibration_measures(labels, logits)
    assert measures["brier"] == pytest.approx(brier_score_loss(labels >= 1, expit(logits)), abs=1e-12)
    assert measures["cross_entropy"] == pytest.approx(log_loss(labels >= 1, expit(logits)), abs=1e-9)
    fitted = calibration_measures(labels, fit("platt", labels, logits).apply(logits))
    assert all(fitted[name] < measures[name] - 0.02 for name in measures)


def test_out_of_fold_no_pair_is_judged_by_a_fit_to_its_query() -> None:
    queries, labels, logits = draws(160)
    found = fit_out_of_fold("platt", queries, labels, logits, folds=20)
    names = np.array(queries)
    for query in dict.fromkeys(queries):  # 20 queries, 20 folds: each is left out once
        alone = names == query
        expected = fit("platt", labels[~alone], logits[~alone]).apply(logits[alone])
        np.testing.assert_allclose(found[alone], expected, atol=1e-9)
    with pytest.raises(DataError, match="20 queries are too few for 21 folds"):
        fit_out_of_fold("platt", queries, labels, logits, folds=21)


@settings(max_examples=50, deadline=None)
@given(
    st.floats(1e-3, 1e3), st.floats(-1e3, 1e3), st.lists(st.integers(-1000, 1000), min_size=2, max_size=9, unique=True)
)
def test_the_order_is_kept(scale: float, shift: float, logits: list[int]) -> None:
    applied = Calibration("platt", scale, shift).apply(np.array(logits))
    assert np.argsort(applied).tolist() == np.argsort(logits).tolist()
    np.testing.assert_allclose(Calibration("platt", scale, shift).undo(applied), logits, atol=1e-6)


def stored(folder: Path, **changes: Any) -> Path:
    """Write a ranker whose `ranker.json` holds a calibration, changed."""
    write_ranker(folder)
    change_json(folder / "ranker.json", calibration={"method": "platt", "scale": 0.5, "shift": -2.0, **changes})
    return folder


def test_a_calibration_travels_in_the_folder(tmp_path: Path) -> None:
    folder = stored(tmp_path / "r", fitted_on={"pairs": 7}, a_later_field=1)
    info = RankerInfo.read(folder)
    assert info and info.calibration == Calibration("platt", 0.5, -2.0, {"pairs": 7})
    assert load_model(folder, RANKER).info.calibration == info.calibration
    copy = tmp_path / "copy"
    copy.mkdir()
    info.write(copy, load_model(folder, RANKER).network.config)
    assert RankerInfo.read(copy) == info


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": 0.0}, "above 0"),
        ({"scale": -1}, "above 0"),
        ({"scale": float("nan")}, "scale is nan, expected a number"),
        ({"shift": "0"}, "shift is 0, expected a number"),
        ({"shift": None}, "shift is None, expected a number"),
        ({"searched": {"top": 50}}, "searched.tenth, calibration.searched.spread is missing"),
        ({"searched": {"top": 50, "tenth": [0.5] * 9, "spread": [0.5] * 10}}, "tenth is .* expected a list of 10 to"),
        ({"searched": {"top": 50, "tenth": [0.5] * 10, "spread": ["1"] * 10}}, r"spread\[0\] is 1, expected a number"),
    ],
)
def test_a_damaged_calibration_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=rf"ranker\.json: damaged \(calibration.*{message}"):
        load_model(stored(tmp_path / "r", **changes), RANKER)


def test_training_starts_without_a_calibration(tmp_path: Path) -> None:
    parts = start_ranker(stored(tmp_path / "r"), Fresh("pairwise"))
    assert parts.dropped_calibration and parts.info.calibration is None
    assert not start_ranker(write_ranker(tmp_path / "other"), Fresh("pairwise")).dropped_calibration


def test_an_error_over_draws_is_that_of_the_drawn_pairs() -> None:
    queries, labels, logits = draws(80)
    numbers, relevant, probabilities = np.arange(80) // 8, labels >= 1, expit(logits)
    drawn = np.random.default_rng(0).multinomial(10, np.full(10, 0.1), size=5)
    rows = [np.repeat(np.arange(80), counts[numbers]) for counts in drawn]
    wanted = [expected_calibration_error(relevant[one], probabilities[one]) for one in rows]
    found = calibration_error_of(numbers, relevant, probabilities)(drawn.astype(float))
    assert found == pytest.approx(wanted) and len(queries) == 80


def test_the_interval_out_of_fold_has_the_error_of_other_queries() -> None:
    """The value alone is below most of them: queries differ in how many relevant titles they have."""
    above_value = above_interval = 0
    for seed in range(30):
        random = np.random.default_rng(seed)

        def drawn(random: np.random.Generator = random) -> tuple[list[str], np.ndarray, np.ndarray]:
            logits = 3 * random.normal(size=(60, 20)) - 1
            often = expit(0.4 * logits + random.normal(-1.5, 1.0, (60, 1)))
            labels = (random.random(often.shape) < often).astype(float)
            return [str(number // 20) for number in range(1200)], labels.ravel(), logits.ravel()

        judged = fit_and_judge("platt", *drawn(), 5)
        _, labels, logits = drawn()
        other = calibration_measures(labels, judged.calibration.apply(logits))["calibration_error"]
        assert judged.error.estimate == pytest.approx(judged.measures["out_of_fold"]["calibration_error"])
        above_value += other > judged.error.estimate
        above_interval += other > judged.error.high
    assert above_value >= 20 and above_interval <= 3
