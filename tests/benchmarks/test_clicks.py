"""Simulated clicks against the formulas of their distribution, and the benchmark on a few clicks."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import clicks
from benchmarks.clicks import ClicksOptions, by_cascade, by_position, read_queries
from tests.conftest import Call

pytestmark = pytest.mark.unit
ATTRACTION, SATISFACTION = np.array([0.9, 0.1, 0.5]), np.array([0.8, 0.0, 0.4])


def share(model: clicks.Clicks, searches: int = 20_000) -> np.ndarray:
    """Return how often each position is clicked."""
    draw, options = np.random.default_rng(1), ClicksOptions(exponent=1.0)
    return np.mean([model(ATTRACTION, SATISFACTION, options, draw) for _ in range(searches)], axis=0)


def test_clicks_by_position_are_as_frequent_as_looks_times_attraction() -> None:
    assert share(by_position).tolist() == pytest.approx([0.9, 0.1 / 2, 0.5 / 3], abs=0.015)


def test_a_cascade_ends_where_somebody_is_satisfied_or_has_enough() -> None:
    second = (1 - 0.9 * 0.8) * 0.9
    third = second * 0.9  # the second satisfies nobody
    assert share(by_cascade).tolist() == pytest.approx([0.9, second * 0.1, third * 0.5], abs=0.015)


def test_no_query_is_learned_from_and_measured() -> None:
    logged, measured = read_queries(ClicksOptions(queries=30, test_queries=20))
    assert (len(logged), len(measured)) == (30, 20) and not set(logged) & set(measured)
    assert all(len({pair.title for pair in pairs}) == len(pairs) > 1 for pairs in logged.values())
    assert read_queries(ClicksOptions(queries=30, test_queries=20)) == (logged, measured)
    assert read_queries(ClicksOptions(queries=30, test_queries=20, data_seed=8))[0] != logged


def test_the_table_has_every_system_that_is_asked_for(call: Call) -> None:
    names = "click_softmax,click_softmax_ipw,ranknet_tower"
    tiny = ("--queries", 6, "--test_queries", 4, "--searches", 5, "--epochs", 1, "--hidden_size", 8, "--resamples", 50)
    status, printed, errors = call(clicks.main, "--systems", names, "--seeds", "1", "--clicks", "cascade", *tiny)
    assert status == 0, errors
    assert "30 searches, " in printed and "e = " in printed
    rows = [line.split("|")[1].strip() for line in printed.splitlines() if line.startswith("| ")]
    assert rows[2:] == [*names.split(","), "bm25, which was logged"]
    status, _, errors = call(clicks.main, "--clicks", "both")
    assert status == 2 and "choose from position, cascade" in errors
