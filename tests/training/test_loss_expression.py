"""The expressions of `--loss`: their grammar, their meaning, and errors."""

from __future__ import annotations

from typing import Optional

import pytest

from ernie_matching.train_pairwise import TrainPairwiseOptions
from paddle_ranker.errors import UsageError
from paddle_ranker.training.losses.expression import margin_of, parse_loss
from paddle_ranker.training.losses.loss_registry import LOSSES, OTHER_NAMES
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.unit


def terms(text: str) -> list[tuple[float, str]]:
    return [(term.factor, term.name) for term in parse_loss(text).terms]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *((name, [(1.0, name)]) for name in LOSSES),
        ("cross_entropy", [(1.0, "bce")]),
        ("ranknet_bce", [(1.0, "bce"), (1.0, "ranknet")]),
        ("bce+ranknet", [(1.0, "bce"), (1.0, "ranknet")]),
        ("0.5*bce+listnet", [(0.5, "bce"), (1.0, "listnet")]),
        (" 2 * lambda + 1e-3*mse ", [(2.0, "lambda"), (0.001, "mse")]),
        ("0.5*ranknet_bce+mse", [(0.5, "bce"), (0.5, "ranknet"), (1.0, "mse")]),
    ],
)
def test_sums_and_factors(text: str, expected: list[tuple[float, str]]) -> None:
    assert terms(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("margin_logits", "did you mean margin_logit"),
        ("bce+rank_net", "'rank_net' is no loss; choose from .*did you mean ranknet"),
        ("bce+", "the name of a loss is missing"),
        ("", "the name of a loss is missing"),
        ("bce+0.5*bce", "bce comes more than once"),
        ("ranknet_bce+ranknet", "ranknet comes more than once"),
        *((f"{factor}*bce", "is not a positive number") for factor in ("0", "-1", "nan", "inf", "", "half", "2*2")),
        ("bce*0.5", "is not a positive number"),
        ("__import__('os')", "is no loss"),
    ],
)
def test_what_is_no_loss_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_loss(text)


def test_what_a_sum_needs() -> None:
    plain, grouped, taught = parse_loss("bce+mse"), parse_loss("bce+softmax"), parse_loss("margin_mse+teacher_mse")
    assert [loss.compares_titles for loss in (plain, grouped, taught)] == [False, True, True]
    assert [loss.of_teacher for loss in (plain, grouped, taught)] == [(), (), ("margin_mse", "teacher_mse")]
    assert [loss.needs_labels for loss in (plain, grouped, taught)] == [True, True, False]
    invariant = {"listnet": True, "bce+listnet": False, "ranknet+lambda": True, "margin_probability": False}
    assert {text: parse_loss(text).shift_invariant for text in invariant} == invariant


def test_margins_follow_the_loss() -> None:
    assert parse_loss("margin_logit+bce").margins(None) == {"margin_logit": 1.0}
    assert parse_loss("margin_logit+margin_probability").margins(None) == {
        "margin_logit": 1.0,
        "margin_probability": 0.2,
    }
    assert parse_loss("margin_logit+ranknet").margins(0.5) == {"margin_logit": 0.5, "ranknet": 0.5}
    assert parse_loss("bce").margins(None) == {}
    with pytest.raises(UsageError, match="has no margin; leave it out, or choose from margin_logit"):
        parse_loss("bce+listnet").margins(0.1)
    with pytest.raises(UsageError, match="two quantities; leave it out"):
        parse_loss("margin_logit+margin_probability").margins(0.1)


@pytest.mark.parametrize(
    ("loss", "given", "expected"),
    [
        ("margin_probability", None, (0.2, True)),
        ("margin_probability", 0.1, (0.1, True)),
        ("bce+margin_probability", None, (0.2, True)),
        ("margin_logit", 0.1, (0.1, False)),
        ("0.5*ranknet+margin_logit", None, (1.0, False)),
        ("ranknet_bce", None, (0.0, False)),
        ("listnet", None, (0.0, False)),
    ],
)
def test_the_margin_a_ranker_is_judged_by(loss: str, given: Optional[float], expected: tuple[float, bool]) -> None:
    assert margin_of(loss, given) == expected


def pairwise(**values: object) -> TrainPairwiseOptions:
    return TrainPairwiseOptions(train_file="a", test_file="b", **values)  # type: ignore[arg-type]


def test_the_pairwise_ranker_learns_from_two_titles_at_a_time() -> None:
    for text in ("margin_logit+bce", "margin_mse", "0.5*teacher_mse+ranknet", "ranknet_bce", "mse"):
        assert pairwise(loss=text).expression.text == text
    for text in ("listnet", "bce+softmax", "lambda"):
        with pytest.raises(UsageError, match="cannot be used here; choose from bce, mse, margin_logit"):
            pairwise(loss=text)
    with pytest.raises(UsageError, match=r"--margin 0\.1: --loss margin_mse has no margin"):
        pairwise(loss="margin_mse", margin=0.1)


def table() -> list[str]:
    """Return the rows of the table in docs/losses.md, made from the registry."""
    rows = []
    for name, loss in LOSSES.items():
        names = [f"`{name}`", *(f"also `{other}`" for other, own in OTHER_NAMES.items() if own == name)]
        margin = "" if loss.margin is None else f", margin {loss.margin:g}"
        labels = "0/1" if "relevant" in loss.arguments else "graded" if "labels" in loss.arguments else "none"
        needs = (["`teacher_score`"] if loss.teacher else []) + (["whole queries"] if loss.compares else [])
        cells = [", ".join(names), loss.formula.replace("|", "\\|") + margin, labels, ", ".join(needs), loss.suits]
        rows.append(f"| {' | '.join(cells)} |".replace("|  |", "| |"))
    return rows


def test_the_page_on_losses_says_what_each_needs() -> None:
    page = (REPOSITORY / "docs" / "losses.md").read_text(encoding="utf-8")
    assert [line for line in page.splitlines() if line.startswith("| `") and line.count("|") > 5] == table()
