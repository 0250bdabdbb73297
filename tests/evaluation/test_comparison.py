"""Verdicts keep their error rates: chance is seldom called better, and a clear difference is found."""

from __future__ import annotations

import numpy as np
import pytest

from paddle_ranker.evaluation import comparison
from paddle_ranker.evaluation.comparison import System, compare_systems, is_established
from paddle_ranker.evaluation.pairs import MeasuredPairs
from paddle_ranker.evaluation.report.text import systems_table, verdict
from paddle_ranker.metrics.intervals import Interval

pytestmark = pytest.mark.unit

MEASURE = "mrr@10"
_TITLES = 4


@pytest.fixture(autouse=True)
def one_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "measurable", lambda pairs: [MEASURE])  # the others take time


def system(name: str, places: np.ndarray) -> System:
    """Return a system that ranks the relevant title of each query, the query's first title, at a place from 0."""
    scores = -np.tile(np.arange(1.0, _TITLES + 1), (len(places), 1))
    scores[:, 0] = -places - 1.5
    return System(name, scores.ravel())


def pairs_of(queries: int) -> MeasuredPairs:
    ids = [f"q{query}" for query in range(queries) for _ in range(_TITLES)]
    labels, judged = np.tile(np.eye(_TITLES)[0], queries), np.ones(queries * _TITLES, bool)
    return MeasuredPairs("drawn", ids, [f"d{number}" for number in range(len(ids))], labels, judged, judged)


def verdicts_of(reference: np.ndarray, *others: np.ndarray) -> list[str]:
    named = [system("reference", reference), *(system(str(number), places) for number, places in enumerate(others))]
    found = compare_systems(pairs_of(len(reference)), named, resamples=500, permutations=1000)
    return [found.measured[other.name][MEASURE].verdict for other in found.others]


@pytest.mark.thorough(keep=2)
@pytest.mark.parametrize(("queries", "differing"), [(10, 1.0), (20, 1.0), (30, 0.2)])
@pytest.mark.parametrize("others", [1, 3])
def test_systems_that_differ_by_chance_are_called_different_at_most_at_the_nominal_rate(
    queries: int, differing: float, others: int
) -> None:
    """A query's places are drawn from one distribution for all systems; a share of the queries is sparse: equal."""
    generator, tries, called = np.random.default_rng(queries + others), 300, 0
    for _ in range(tries):
        drawn = generator.integers(0, _TITLES, (others + 1, queries))
        places = np.where(generator.random(queries) < differing, drawn, drawn[0])
        called += any(verdicts_of(*places))
    nominal = comparison.CERTAIN
    assert called / tries <= nominal + 2 * np.sqrt(nominal * (1 - nominal) / tries)  # the last: this test's own chance


@pytest.mark.parametrize("others", [1, 3])
@pytest.mark.parametrize("queries", [10, 30])
def test_a_clear_difference_is_found_in_both_directions(queries: int, others: int) -> None:
    last, first = np.full(queries, 3), np.zeros(queries, np.int64)
    assert verdicts_of(last, *[first] * others) == ["better"] * others
    assert verdicts_of(first, *[last] * others) == ["worse"] * others


def test_both_the_interval_and_the_test_decide() -> None:
    beyond, around = Interval(0.2, 0.1, 0.3), Interval(0.2, -0.1, 0.5)
    found = {(gap, p): is_established(gap, p) for gap in (beyond, around) for p in (0.05, 0.051, None)}
    assert [given for given, known in found.items() if known] == [(beyond, 0.05), (beyond, None)]


def test_a_difference_that_the_test_alone_refuses_shows_its_p_value() -> None:
    """All five queries gain: the interval excludes 0, and two of 32 sign patterns are as extreme."""
    found = compare_systems(pairs_of(5), [system("old", np.full(5, 3)), system("new", np.zeros(5))], resamples=200)
    assert verdict(found, "new", MEASURE) == (
        "No difference between new and old is established: MRR@10 +0.750 [+0.750, +0.750] (p 0.062)."
    )
    assert any("(p 0.062)  wins 5, losses 0" in line for line in systems_table(found))
