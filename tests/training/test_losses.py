"""Losses against values worked out by hand, against finite differences, and in parts against the whole."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from paddle_ranker.evaluation.evaluation_set import mean_margin_loss
from paddle_ranker.training.losses.expression import RankingLoss
from paddle_ranker.training.losses.loss_registry import LOSSES, Loss
from paddle_ranker.training.losses.ranking_losses import (
    binary_cross_entropy,
    click_softmax,
    kl_divergence,
    lambda_rank,
    list_net,
    margin_mse,
    margin_on_logits,
    margin_on_probabilities,
    mean_squared_error,
    rank_net,
    softmax_cross_entropy,
    teacher_mse,
)

pytestmark = pytest.mark.unit

# Three queries of three, two and one titles, not adjacent; the last has nothing to compare.
LOGITS = [1.0, 3.0, 0.0, 2.0, 5.0, -1.0]
LABELS = np.array([2.0, 0.0, 0.0, 1.0, 1.0, 1.0])
QUERIES = np.array([7, 8, 7, 9, 8, 7])
TEACHER = np.array([2.0, 1.0, -1.0, 0.5, 4.0, 0.0])
NAMES = sorted(LOSSES)
COMPARING = sorted(name for name, facts in LOSSES.items() if facts.compares)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def tensor(values: object, dtype: str = "float32") -> paddle.Tensor:
    return paddle.to_tensor(values, dtype=dtype, stop_gradient=False)


def by_query(first: float, second: float) -> float:
    """Return the mean over the six titles: three of query 7, two of query 8, and one of query 9, which adds 0."""
    return (3 * first + 2 * second) / 6


def cross_entropy(labels: list[float], logits: list[float]) -> float:
    target, model = ([math.exp(x) / sum(map(math.exp, row)) for x in row] for row in (labels, logits))
    return -sum(t * math.log(m) for t, m in zip(target, model))


DISCOUNTS = [1.0, 1 / math.log2(3), 0.5]
BEST = 3 + 1 / math.log2(3)  # of the labels 2, 1, 0: gains 3, 1, 0
# Query 7, labels 2, 0, 1 at ranks 1, 2, 3. Query 8: label 1 at rank 1, 0 at rank 2; gains 1 and 0 over 1.
LAMBDA = (3 / BEST * (DISCOUNTS[0] - DISCOUNTS[1]) * softplus(-1) + 2 / BEST * (1.0 - 0.5) * softplus(-2)
          + 1 / BEST * (DISCOUNTS[1] - 0.5) * softplus(1), (1.0 - DISCOUNTS[1]) * softplus(-2))  # fmt: skip
# For triples: differences of three positive and three negative titles.
POSITIVE, NEGATIVE = [2.0, 0.0, -1.0], [0.5, 0.0, 1.0]
ORDER = sum(softplus(-d) for d in (1.5, 0.0, -2.0)) / 3
JUDGED = sum(softplus(-p) + softplus(n) for p, n in zip(POSITIVE, NEGATIVE)) / 6
PROBABILITIES = [sigmoid(p) - sigmoid(n) for p, n in zip(POSITIVE, NEGATIVE)]
SIX, TITLES = (LOGITS, LABELS, QUERIES), (POSITIVE + NEGATIVE, [1.0, 1.0, 1.0, 0.0, 0.0, 0.0], [0, 1, 2, 0, 1, 2])


@pytest.mark.parametrize(
    ("loss", "arguments", "expected"),
    [
        # Labels over the highest of the file, 3: targets 2/3, 0 and 1/3; one below 0 counts as 0.
        (mean_squared_error, ([1.0, -2.0, 0.0], [2.0, -1.0, 1.0], 3.0),
         ((sigmoid(1) - 2 / 3) ** 2 + sigmoid(-2) ** 2 + (0.5 - 1 / 3) ** 2) / 3),
        # Query 7: (2 > 0), (2 > 1), (1 > 0) -> differences 1, 2, -1; query 8: 5 - 3.
        (rank_net, SIX, by_query((softplus(-1) + softplus(-2) + softplus(1)) / 3, softplus(-2))),
        (rank_net, (*SIX, 0.5), by_query((softplus(-0.5) + softplus(-1.5) + softplus(1.5)) / 3, softplus(-1.5))),
        (margin_on_probabilities, (*SIX, 0.3),
         by_query(sum(max(0.0, 0.3 - d) for d in (sigmoid(1) - 0.5, sigmoid(1) - sigmoid(-1), sigmoid(-1) - 0.5)) / 3,
                  max(0.0, 0.3 - (sigmoid(5) - sigmoid(3))))),
        (list_net, SIX, by_query(cross_entropy([2, 0, 1], [1, 0, -1]), cross_entropy([0, 1], [3, 5]))),
        # Query 7 has two relevant titles (1 and -1) against 0; query 8 has 5 against 3.
        (softmax_cross_entropy, (LOGITS, LABELS >= 1, QUERIES),
         by_query((softplus(0 - 1) + softplus(0 + 1)) / 2, softplus(3 - 5))),
        (softmax_cross_entropy, ([0.5, 1.0, -1.0], [1, 0, 0], [0, 0, 0]),
         -math.log(math.exp(0.5) / (math.exp(0.5) + math.e + 1 / math.e))),
        (lambda_rank, SIX, by_query(*LAMBDA) / math.log(2)),
        # 2^5000 overflows, and 2^-5000 is 0: gains 1 and 0 over 1.
        (lambda_rank, ([1.0, 2.0], [5000.0, 0.0], [0, 0]), (1.0 - DISCOUNTS[1]) * softplus(1) / math.log(2)),
        (lambda_rank, ([1.0, 2.0], [0.0, -1.0], [0, 0]), 0.0),
        (teacher_mse, (LOGITS, TEACHER), (1 + 4 + 1 + 2.25 + 1 + 1) / 6),
        # Query 7, logits 1, 0, -1, the teacher's 2, -1, 0: (1 - 3)^2, (2 - 2)^2, (1 + 1)^2; query 8: (3 - 5) - (1 - 4).
        (margin_mse, (LOGITS, QUERIES, TEACHER), by_query((4 + 0 + 4) / 3, 1.0)),
        # The first two titles alone are compared: log of softmax([2, -1]) and of softmax([1, 0]).
        (kl_divergence, ([1.0, 0.0, 5.0], [0, 0, 1], [2.0, -1.0, 0.0]),
         2 / 3 * (sigmoid(3) * (softplus(-1) - softplus(-3)) + sigmoid(-3) * (softplus(1) - softplus(3)))),
        # A triple is a query of two titles.
        (RankingLoss("ranknet"), TITLES, ORDER),
        (RankingLoss("ranknet_bce"), TITLES, ORDER + JUDGED),
        (RankingLoss("softmax"), TITLES, ORDER),
        (RankingLoss("margin_logit"), TITLES, 4 / 3),
        (RankingLoss("margin_probability"), TITLES, sum(max(0.0, 0.2 - d) for d in PROBABILITIES) / 3),
        # The teacher is ahead by 3, 0 and 2.
        (RankingLoss("margin_mse"), (*TITLES, [3.0, 1.0, 1.0, 0.0, 1.0, -1.0]), (1.5**2 + 0 + 4.0**2) / 3),
    ],
)  # fmt: skip
def test_by_hand(loss: Any, arguments: tuple[Any, ...], expected: float) -> None:
    logits, *rest = arguments
    rest = [np.asarray(values) if isinstance(values, list) else values for values in rest]
    assert float(loss(tensor(logits), *rest)) == pytest.approx(expected, abs=1e-6)


def test_binary_cross_entropy() -> None:
    logits = tensor([2.0, -1.0, 0.5])
    loss = binary_cross_entropy(logits, np.array([True, False, True]))
    assert float(loss) == pytest.approx((softplus(-2.0) + softplus(-1.0) + softplus(-0.5)) / 3, abs=1e-6)
    loss.backward()  # (sigmoid(l) - y) / n
    expected = [(sigmoid(x) - y) / 3 for x, y in ((2.0, 1), (-1.0, 0), (0.5, 1))]
    assert logits.grad.numpy().tolist() == pytest.approx(expected, abs=1e-6)
    four = RankingLoss("bce")(tensor([0.3] * 4), np.array([1.0, 0.0, 0.0, 0.0]))  # a label of 0.25: one of four titles
    assert float(RankingLoss("bce")(tensor([0.3]), np.array([0.25]))) == pytest.approx(float(four), abs=1e-6)


def test_the_cross_entropy_of_two_classes_is_that_of_the_folded_logit() -> None:
    classes, relevant = np.random.RandomState(0).randn(5, 2).astype("float32"), np.array([1, 0, 0, 1, 1])
    two = tensor(classes)
    expected = F.cross_entropy(two, paddle.to_tensor(relevant))
    expected.backward()
    folded = tensor(classes[:, 1] - classes[:, 0])
    loss = RankingLoss("cross_entropy")(folded, relevant)
    loss.backward()
    assert float(loss) == pytest.approx(float(expected), abs=1e-6)
    np.testing.assert_allclose(two.grad.numpy(), np.stack([-folded.grad.numpy(), folded.grad.numpy()], 1), atol=1e-6)


def test_margin_on_logits() -> None:
    logits = tensor(LOGITS)
    loss = margin_on_logits(logits, LABELS, QUERIES, 1.5)  # short of the margin: 0.5, 0, 2.5; 0
    assert float(loss) == pytest.approx(by_query(3.0 / 3, 0.0), abs=1e-6)
    loss.backward()  # of each pair that is short 3/6 of a third: 0 ahead of 2, and 5 ahead of 2
    assert logits.grad.numpy().tolist() == pytest.approx([-1 / 6, 0, 2 / 6, 0, 0, -1 / 6], abs=1e-6)


@pytest.mark.parametrize("apart", [63.0, 65.0, 100.0, 1e4])
def test_list_net_where_logits_lie_far_apart(apart: float) -> None:
    logits, labels = tensor([0.0, apart, 0.5]), np.array([2.0, 0.0, 1.0])
    loss = list_net(logits, labels, np.zeros(3))
    target = np.exp(labels) / np.exp(labels).sum()
    expected = apart - target[2] * 0.5 - target[1] * apart  # log softmax(l) is l - apart to float32's last digit
    assert float(loss) == pytest.approx(expected, rel=1e-6)
    loss.backward()  # softmax(l) - softmax(y)
    assert logits.grad.numpy().tolist() == pytest.approx([-target[0], 1 - target[1], -target[2]], abs=1e-6)


def test_the_least_losses_have_no_gradient() -> None:
    labels = np.array([0.5, 0.0, 0.25, 0.25, 0.1, 0.0])
    logits = tensor([math.log(2.0), -30.0, 0.0, 0.0, 1.0, 7.0])
    loss = click_softmax(logits, labels, np.array([1, 1, 1, 1, 2, 3]))  # two queries with one title
    assert float(loss) == pytest.approx(4 / 6 * (0.5 * math.log(2.0) + 0.5 * math.log(4.0)), abs=1e-6)
    loss.backward()
    np.testing.assert_allclose(logits.grad.numpy(), 0.0, atol=1e-7)
    logits = tensor(LABELS + 3.0)
    list_net(logits, LABELS, QUERIES).backward()
    np.testing.assert_allclose(logits.grad.numpy(), 0.0, atol=1e-7)


def test_lambda_rank_weighs_equal_logits_the_less_relevant_title_first_whatever_their_order() -> None:
    # Ranks 1, 2, 3 of labels 0, 1, 2.
    d = DISCOUNTS
    weights = (1 * (d[0] - d[1]) + 3 * (d[0] - d[2]) + 2 * (d[1] - d[2])) / BEST
    for labels in ([2.0, 0.0, 1.0], [0.0, 1.0, 2.0], [1.0, 2.0, 0.0]):
        found = float(lambda_rank(tensor([0.5, 0.5, 0.5]), np.array(labels), np.zeros(3)))
        assert found == pytest.approx(weights, abs=1e-6)  # log2(1 + exp(0)) is 1


def made(count: int = 40, queries: int = 9) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return logits, graded labels, queries and a teacher's logits of titles in random order."""
    draw = np.random.RandomState(3)
    grouped = draw.randint(0, queries, count)
    labels = np.where(grouped == 4, 1.0, draw.randint(0, 4, count))  # all titles of one query have the same label
    return draw.randn(count), labels.astype(np.float64), grouped * 1000, 2.0 * draw.randn(count)


SUMS = [*NAMES, "0.5*bce+ranknet+2*lambda", "margin_mse+0.1*listnet+mse"]


@pytest.mark.parametrize("text", SUMS)
def test_the_gradient_is_that_of_finite_differences(text: str) -> None:
    values, *rest = made()
    loss = RankingLoss(text, highest_label=3.0)
    logits = tensor(values, "float64")
    loss(logits, *rest).backward()
    step, slopes = 1e-5, []
    for place in range(len(values)):
        ends = []
        for sign in (1, -1):
            moved = values.copy()
            moved[place] += sign * step
            ends.append(float(loss(tensor(moved, "float64"), *rest)))
        slopes.append((ends[0] - ends[1]) / (2 * step))
    assert np.abs(slopes).max() > 1e-3
    np.testing.assert_allclose(logits.grad.numpy(), slopes, atol=1e-8)


@pytest.mark.parametrize("text", SUMS)
def test_parts_of_whole_queries_weighted_by_their_titles_add_up_to_the_batch(text: str) -> None:
    logits, labels, queries, teacher = made()
    loss = RankingLoss(text, highest_label=3.0)
    whole = float(loss(tensor(logits), labels, queries, teacher))
    for parts in ([0, 4, 2], [1], [5]), ([0, 1, 2, 3], [4], [5, 6, 7, 8]):  # a part of a query left out, and the others
        rest = sorted(set(range(9)) - {code for part in parts for code in part})
        total = 0.0
        for part in [*parts, rest] if rest else parts:
            chosen = np.flatnonzero(np.isin(queries // 1000, part))
            value = float(loss(tensor(logits[chosen]), labels[chosen], queries[chosen], teacher[chosen]))
            total += len(chosen) * value / len(logits)
        assert total == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize("text", SUMS)
def test_the_order_of_the_titles_does_not_matter(text: str) -> None:
    titles, order = made(), np.random.RandomState(1).permutation(40)
    loss = RankingLoss(text, highest_label=3.0)
    values = [float(loss(tensor(x), *rest)) for x, *rest in (titles, [column[order] for column in titles])]
    assert values[1] == pytest.approx(values[0], rel=1e-5) and values[0] > 0


def test_a_sum_is_the_sum_of_its_losses() -> None:
    logits, *rest = made()
    bce, listnet = (float(RankingLoss(name)(tensor(logits), *rest)) for name in ("bce", "listnet"))
    assert float(RankingLoss("0.25*bce + 3*listnet")(tensor(logits), *rest)) == pytest.approx(0.25 * bce + 3 * listnet)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_called_shift_invariant_is(name: str) -> None:
    logits, *rest = made()
    loss = RankingLoss(name)
    values = [float(loss(tensor(logits + shift, "float64"), *rest)) for shift in (0.0, 3.0)]
    assert (values[1] == pytest.approx(values[0], abs=1e-9)) is LOSSES[name].shift_invariant
    assert loss.expression.shift_invariant is LOSSES[name].shift_invariant


@pytest.mark.parametrize("name", NAMES)
def test_a_logit_that_is_not_a_number_shows_in_the_loss(name: str) -> None:
    for place in range(6):
        logits = list(LOGITS)
        logits[place] = float("nan")
        assert math.isnan(float(RankingLoss(name)(tensor(logits), LABELS, QUERIES, TEACHER)))


def test_a_logit_that_is_not_a_number_shows_in_a_loss_that_hides_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LOSSES._items, "hides", Loss(lambda logits: F.relu(-logits).mean(), "", ""))
    assert F.relu(tensor([math.nan])).item() == 0.0
    assert math.isnan(float(RankingLoss("hides+bce")(tensor([1.0, math.nan]), LABELS[:2])))
    assert float(RankingLoss("hides")(tensor([1.0, -3.0]), LABELS[:2])) == 1.5


@pytest.mark.parametrize("name", COMPARING)
def test_where_nothing_can_be_compared_the_loss_and_its_gradient_are_nothing(name: str) -> None:
    logits = tensor([1.0, 3.0, 2.0])
    queries = np.arange(3) if name in ("margin_mse", "kl") else np.zeros(3)
    loss = RankingLoss(name)(logits, np.ones(3), queries, np.arange(3.0))
    loss.backward()
    assert float(loss) == 0.0 and logits.grad.numpy().tolist() == [0.0, 0.0, 0.0]


def test_what_a_loss_needs_is_asked_for() -> None:
    logits, labels = tensor([1.0, 2.0]), np.array([1.0, 0.0])
    for text, wanted in (("listnet", "give the queries"), ("teacher_mse", "give its logits")):
        with pytest.raises(ValueError, match=wanted):
            RankingLoss(text)(logits, labels)


@pytest.mark.parametrize("name", NAMES)
def test_logits_far_apart_leave_the_loss_and_its_gradient_finite(name: str) -> None:
    values = tensor([80.0, -80.0, 30.0, -1e4, 1e4, 0.0])
    found = RankingLoss(name)(values, LABELS, QUERIES, TEACHER)
    found.backward()
    assert math.isfinite(float(found)) and np.isfinite(values.grad.numpy()).all()


def test_mean_margin_loss_of_a_file() -> None:
    queries = ["a", "a", "b", "a", "b"]
    labels = np.array([1.0, 0.0, 1.0, 0.0, 1.0])
    logits = np.array([2.0, 1.5, 0.0, 3.0, 9.0])
    # query a: 2.0 against 1.5 and 3.0, margin 1: 0.5 and 2; query b has no negative
    assert mean_margin_loss(queries, labels, logits, 1.0, probabilities=False) == pytest.approx(1.25)
    assert math.isnan(mean_margin_loss(["a"], np.ones(1), np.ones(1), 1.0, probabilities=True))
