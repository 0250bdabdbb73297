"""Parse `--loss`, a sum of named losses. This needs no Paddle, so that a typing error shows at once.

    parse_loss("0.5*bce+listnet").terms    # (Term(0.5, "bce"), Term(1.0, "listnet"))

    RankingLoss("0.5*bce+listnet")(logits, labels, queries).backward()

The losses themselves are in `ranking_losses.py`; docs/losses.md explains when to use each loss.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional, Union

from paddle_ranker.array_types import Numbers
from paddle_ranker.errors import UsageError, brief, quoted, spelling_hint
from paddle_ranker.metrics.ranking import RELEVANT
from paddle_ranker.training.losses.loss_registry import LOSSES, OTHER_NAMES, Loss, QueryRequirement

if TYPE_CHECKING:
    from paddle import Tensor


@dataclass(frozen=True)
class Term:
    """A loss in a sum of losses, with its factor."""

    factor: float
    name: str

    @property
    def loss(self) -> Loss:
        return LOSSES[self.name]


@dataclass(frozen=True)
class LossExpression:
    """A sum of losses; `text` is the expression that the user typed."""

    text: str
    terms: tuple[Term, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(term.name for term in self.terms)

    @property
    def comparisons(self) -> dict[QueryRequirement, list[str]]:
        """Names of the losses that compare titles of a query, as lists by the losses' requirement on the titles."""
        needed = dict.fromkeys(loss.compares for loss in LOSSES.values() if loss.compares)
        names = {need: [term.name for term in self.terms if term.loss.compares == need] for need in needed}
        return {need: losses for need, losses in names.items() if losses}

    @property
    def compares_titles(self) -> bool:
        """Return whether at least one loss needs all titles of a query in one batch."""
        return any(term.loss.compares for term in self.terms)

    @property
    def needs_labels(self) -> bool:
        """Return whether at least one loss learns from labels."""
        return not all(term.loss.teacher for term in self.terms)

    @property
    def of_teacher(self) -> tuple[str, ...]:
        """Return the names of the losses that need a teacher's scores."""
        return tuple(term.name for term in self.terms if term.loss.teacher)

    @property
    def shift_invariant(self) -> bool:
        """Return whether the sum stays the same if a number is added to all logits.

        If so, the gradient of the head's bias is only rounding noise, which AdamW would turn into full steps.
        """
        return all(term.loss.shift_invariant for term in self.terms)

    def margins(self, margin: Optional[float]) -> dict[str, float]:
        """Return, for each loss with a margin, by name, `margin`; if `margin` is None, the loss's default.

        If `margin` is not None, raises `UsageError` if no loss has a margin, or if the sum has both margins on logits
        and margins on probabilities.
        """
        with_margin = [term for term in self.terms if term.loss.margin is not None]
        if margin is not None and not with_margin:
            choices = ", ".join(name for name, facts in LOSSES.items() if facts.margin is not None)
            raise UsageError(
                f"--margin {margin}: --loss {self.text} has no margin; leave it out, or choose from {choices}"
            )
        if margin is not None and len({term.loss.on_probabilities for term in with_margin}) > 1:
            raise UsageError(
                f"--margin {margin}: --loss {self.text} has margins on probabilities and on logits, two quantities; "
                "leave it out for the default of each"
            )
        return {term.name: margin if margin is not None else term.loss.margin or 0.0 for term in with_margin}


def parse_loss(text: str, *, listwise: bool = True) -> LossExpression:
    """Parse the sum in `text`: names of losses joined by `+`, each with a factor (`0.5*bce`) or without.

    listwise: whether listwise losses are allowed

    Raises `UsageError` if a name is unknown or occurs twice, a listwise loss is not allowed, or a factor is not a
    positive number.
    """
    terms: list[Term] = []
    shown = brief(text)
    for part in text.split("+"):
        factor, star, name = part.rpartition("*")
        name = name.strip()
        scale = factor_of(text, factor) if star else 1.0
        if name not in LOSSES and name not in OTHER_NAMES:
            choices = [*LOSSES, *OTHER_NAMES]
            problem = f"{quoted(name)} is no loss" if name else "the name of a loss is missing"
            raise UsageError(
                f"--loss {shown}: {problem}; choose from {', '.join(choices)}, or a sum of them as in 0.5*bce+ranknet"
                f"{spelling_hint(name, choices)}"
            )
        terms += [Term(scale, known_name) for known_name in OTHER_NAMES.get(name, name).split("+")]
    names = [term.name for term in terms]
    twice = [name for name in LOSSES if names.count(name) > 1]
    if twice:
        raise UsageError(f"--loss {shown}: {twice[0]} comes more than once; name each loss once, with its factor")
    allowed = [name for name, loss in LOSSES.items() if listwise or not loss.listwise]
    unfit = [name for name in names if name not in allowed]
    if unfit:
        raise UsageError(f"--loss {shown}: {unfit[0]} cannot be used here; choose from {', '.join(allowed)}")
    return LossExpression(text, tuple(terms))


def factor_of(text: str, factor: str) -> float:
    """Parse `factor`, which is part of the expression `text`; raises `UsageError` unless it is finite and above 0."""
    try:
        number = float(factor)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise UsageError(
            f"--loss {brief(text)}: the factor {quoted(factor.strip())} is not a positive number, as in 0.5*bce"
        )
    return number


def margin_of(loss: str, margin: Optional[float] = None) -> tuple[float, bool]:
    """Return the margin with which a ranker trained with `loss` is measured, and whether it is on probabilities.

    If `margin` is None, the margin is the largest default of the losses in the sum; if no loss has a margin, it is 0 on
    logits.
    """
    losses = [term.loss for term in parse_loss(loss).terms]
    margins = [(facts.margin, facts.on_probabilities) for facts in losses if facts.margin is not None]
    largest, on_probabilities = max(margins, key=lambda pair: pair[0], default=(0.0, False))
    return largest if margin is None else margin, on_probabilities


class RankingLoss:
    """A sum of losses as a function of a batch's logits.

    expression: the losses and their factors, parsed or as text
    margin: margin of all losses that have a margin; None: each loss's default. If no loss has a margin, a value raises
        `UsageError`
    highest_label: the highest label of the training data, for which the target of `mse` is the probability 1
    """

    def __init__(
        self, expression: Union[LossExpression, str], margin: Optional[float] = None, highest_label: float = 1.0
    ):
        self.expression = parse_loss(expression) if isinstance(expression, str) else expression
        self._margins = self.expression.margins(margin)
        self._highest = highest_label

    @property
    def margin(self) -> Optional[float]:
        """Return the largest margin of the losses in the sum; None if no loss has a margin."""
        return max(self._margins.values(), default=None)

    def __call__(
        self,
        logits: Tensor,
        labels: Numbers,
        queries: Optional[Numbers] = None,
        teacher: Optional[Numbers] = None,
    ) -> Tensor:
        """Return the weighted sum of the losses, a scalar. No query's titles may be divided between batches.

        If a logit is NaN or infinite, the result is NaN. A loss alone might hide this: relu, for example, turns NaN
        into 0, and a diverged training would look finished.

        logits: `[n]` float32
        labels, queries, teacher: `[n]` each

        Raises `ValueError` if a loss needs `queries` or `teacher`, but the argument is None.
        """
        if queries is None and self.expression.compares_titles:
            raise ValueError(f"--loss {self.expression.text} compares the titles of one query: give the queries")
        if teacher is None and self.expression.of_teacher:
            raise ValueError(f"--loss {self.expression.text} learns from a teacher: give its logits")
        batch: dict[str, object] = {"labels": labels, "relevant": labels >= RELEVANT, "queries": queries}
        batch.update(logits=logits, teacher=teacher, highest=self._highest)
        losses = [logits.sum() * 0.0]  # NaN if a logit is NaN or infinite
        for term in self.expression.terms:
            arguments = {**batch, "margin": self._margins.get(term.name)}
            values = {name: arguments[name] for name in term.loss.arguments}
            losses.append(term.factor * term.loss.function(**values))
        return sum(losses)
