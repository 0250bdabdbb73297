"""Clicks as labels: counts and rates worked out by hand, and positions against scikit-learn's Poisson regression."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import PoissonRegressor

from paddle_ranker.errors import DataError
from paddle_ranker.training.clicks import ClickCounts, Session, click_rates, count_clicks, estimate_exponent

pytestmark = pytest.mark.unit


def session(ids: str, clicked: str = "", query: str = "q", first: int = 1) -> Session:
    return Session(query, list(ids), frozenset(clicked), first)


def test_rates_worked_out_by_hand() -> None:
    counts = count_clicks(
        [session("abc", "c"), session("abc"), session("cb", "c", first=2), session("a", "a", "other")]
    )
    assert counts.pairs == [("q", "a"), ("q", "b"), ("q", "c"), ("other", "a")]
    assert counts.usual_positions().tolist() == [1, 2, 3, 1]
    # e = 1: position k is looked at in 1/k of all searches. c: shown at 3, 3 and 2, clicked at 3 and at 2.
    assert click_rates(counts, "none").tolist() == pytest.approx([0.0, 0.0, 2 / 3, 1.0])
    assert click_rates(counts, "coec", 1.0).tolist() == pytest.approx([0.0, 0.0, 1.0, 1.0])  # 2 / (7 / 6), at most 1
    more = count_clicks([session("abc", "c"), *[session("abc")] * 9])
    assert [click_rates(more, how, 1.0)[2] for how in ("coec", "ipw")] == pytest.approx([3 / 10, 3 / 10])
    both = count_clicks([session("ca", "c"), *[session("ca")] * 4, *[session("ac", "c")] * 1, *[session("ac")] * 4])
    assert click_rates(both, "ipw", 1.0)[0] == pytest.approx((1 + 2) / 10)
    assert click_rates(both, "coec", 1.0)[0] == pytest.approx(2 / (5 + 5 / 2))


def test_one_click_weighs_no_more_than_ten() -> None:
    counts = count_clicks([session("a", "a", first=100), *[session("a", first=100)] * 99])
    assert click_rates(counts, "ipw", 1.0).tolist() == pytest.approx([10 / 100])


def simulated(exponent: float, searches: int, seed: int) -> ClickCounts:
    """Draw searches for 30 queries of ten documents, whose order changes from search to search."""
    draw = np.random.default_rng(seed)
    attraction, sessions = draw.uniform(0.1, 0.9, (30, 10)), []
    for _ in range(searches):
        query = int(draw.integers(30))
        order = np.argsort(-attraction[query] + draw.normal(0, 0.3, 10))
        seen = draw.random(10) < np.arange(1, 11.0) ** -exponent
        clicked = [str(id) for id in order[seen & (draw.random(10) < attraction[query, order])]]
        sessions.append(Session(str(query), [str(id) for id in order], frozenset(clicked)))
    return count_clicks(sessions)


def test_the_exponent_is_that_of_a_poisson_regression_with_an_effect_of_each_pair() -> None:
    counts = simulated(0.8, 300, 1)
    found = estimate_exponent(counts)
    columns = np.column_stack([np.log(counts.position), np.eye(len(counts.pairs))[counts.pair]])
    regression = PoissonRegressor(alpha=1e-9, fit_intercept=False, solver="newton-cholesky", max_iter=1000)
    regression.fit(columns, counts.clicks / counts.views, sample_weight=counts.views)
    assert found.value == pytest.approx(-regression.coef_[0], abs=1e-3)
    assert 0 < found.pairs <= len(counts.pairs)


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.5])
def test_the_interval_holds_the_true_exponent(exponent: float) -> None:
    found = [estimate_exponent(simulated(exponent, 600, seed)) for seed in range(10)]
    assert sum(one.low <= exponent <= one.high for one in found) >= 9  # clicks vary less than Poisson's counts
    assert np.mean([one.value for one in found]) == pytest.approx(exponent, abs=0.06)


def test_a_log_that_cannot_tell_says_so() -> None:
    with pytest.raises(DataError, match="at two positions"):
        estimate_exponent(count_clicks([session("abc", "a"), session("abc", "b"), session("cba", "", "other")]))
