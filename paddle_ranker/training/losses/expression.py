"""What `--loss` says: a sum of losses by name. Read before Paddle is imported, so that a typing error shows at once.

    parse_loss("0.5*bce+listnet").terms    # (Term(0.5, "bce"), Term(1.0, "listnet"))

The losses themselves are in `paddle_ranker.training.losses.ranking`; docs/losses.md says when to use which.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

from paddle_ranker.errors import UsageError, did_you_mean

# What a loss that compares the titles of one query needs of them; a query without it is left out.
LABELS = "labels"  # titles of different labels
RELEVANCE = "relevance"  # relevant titles and others
TITLES = "titles"  # two titles


@dataclass(frozen=True)
class LossFacts:
    """What is to be known of a loss before it is computed.

    compares: what it needs of a query's titles (`LABELS`, `RELEVANCE`, `TITLES`); None: it judges each alone.
    listwise: it is about all titles of a query at once.
    teacher: it learns from a teacher's logits, not from labels.
    margin: by how much it asks the better title to be ahead, where nothing else is said; None: it has no margin.
    on_probabilities: it compares probabilities, not logits.
    """

    compares: Optional[str] = None
    listwise: bool = False
    teacher: bool = False
    margin: Optional[float] = None
    on_probabilities: bool = False

    @property
    def shift_invariant(self) -> bool:
        """Whether the same number added to all logits leaves it as it is."""
        return self.compares is not None and not self.on_probabilities


LOSSES = {
    "bce": LossFacts(),
    "mse": LossFacts(),
    "margin_logit": LossFacts(LABELS, margin=1.0),
    "margin_probability": LossFacts(LABELS, margin=0.2, on_probabilities=True),
    "ranknet": LossFacts(LABELS, margin=0.0),
    "listnet": LossFacts(LABELS, listwise=True),
    "softmax": LossFacts(RELEVANCE, listwise=True),
    "lambda": LossFacts(LABELS, listwise=True),
    "teacher_mse": LossFacts(teacher=True),
    "margin_mse": LossFacts(TITLES, teacher=True),
}
OTHER_NAMES = {"cross_entropy": "bce", "ranknet_bce": "bce+ranknet"}


@dataclass(frozen=True)
class Term:
    """One loss of a sum, and what it is multiplied by."""

    factor: float
    name: str

    @property
    def facts(self) -> LossFacts:
        """Return what is known of the loss."""
        return LOSSES[self.name]


@dataclass(frozen=True)
class LossExpression:
    """A sum of losses; `text` is how it was typed."""

    text: str
    terms: tuple[Term, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its losses."""
        return tuple(term.name for term in self.terms)

    @property
    def compares_titles(self) -> bool:
        """Whether some loss needs a query's titles in one batch."""
        return any(term.facts.compares for term in self.terms)

    @property
    def needs_labels(self) -> bool:
        """Whether some loss learns from labels."""
        return not all(term.facts.teacher for term in self.terms)

    @property
    def of_teacher(self) -> tuple[str, ...]:
        """The names of the losses that need a teacher's scores."""
        return tuple(term.name for term in self.terms if term.facts.teacher)

    @property
    def shift_invariant(self) -> bool:
        """Whether the gradient to the head's bias is zero but for rounding, which AdamW turns into full steps."""
        return all(term.facts.shift_invariant for term in self.terms)

    def margins(self, given: Optional[float]) -> dict[str, float]:
        """Return the margin of each loss that has one: `given`, or (None) its own default.

        Raises `UsageError` where a margin is given that no loss has, or that would mean two quantities.
        """
        with_margin = [term for term in self.terms if term.facts.margin is not None]
        if given is not None and not with_margin:
            known = ", ".join(name for name, facts in LOSSES.items() if facts.margin is not None)
            raise UsageError(
                f"--margin {given}: --loss {self.text} has no margin; leave it out, or choose from {known}"
            )
        if given is not None and len({term.facts.on_probabilities for term in with_margin}) > 1:
            raise UsageError(
                f"--margin {given}: --loss {self.text} has margins on probabilities and on logits, two quantities; "
                "leave it out for the default of each"
            )
        return {term.name: given if given is not None else term.facts.margin or 0.0 for term in with_margin}


def parse_loss(text: str, allowed: Sequence[str] = tuple(LOSSES)) -> LossExpression:
    """Return the sum that `text` names: losses joined by `+`, each with a factor (`0.5*bce`) or without.

    Raises `UsageError` for an unknown name, one that is not `allowed` here or comes twice, and for a factor that is
    not a positive number.
    """
    terms: list[Term] = []
    for part in text.split("+"):
        factor, star, name = part.rpartition("*")
        name = name.strip()
        scale = _factor(text, factor) if star else 1.0
        if name not in LOSSES and name not in OTHER_NAMES:
            known = [*LOSSES, *OTHER_NAMES]
            what = f"{name!r} is no loss" if name else "the name of a loss is missing"
            raise UsageError(
                f"--loss {text}: {what}; choose from {', '.join(known)}, or a sum of them as in 0.5*bce+ranknet"
                f"{did_you_mean(name, known)}"
            )
        terms += [Term(scale, own) for own in OTHER_NAMES.get(name, name).split("+")]
    names = [term.name for term in terms]
    twice = [name for name in LOSSES if names.count(name) > 1]
    if twice:
        raise UsageError(f"--loss {text}: {twice[0]} comes more than once; name each loss once, with its factor")
    unfit = [name for name in names if name not in allowed]
    if unfit:
        raise UsageError(f"--loss {text}: {unfit[0]} cannot be used here; choose from {', '.join(allowed)}")
    return LossExpression(text, tuple(terms))


def _factor(text: str, factor: str) -> float:
    try:
        number = float(factor)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise UsageError(f"--loss {text}: the factor {factor.strip()!r} is not a positive number, as in 0.5*bce")
    return number


def margin_of(loss: str, given: Optional[float] = None) -> tuple[float, bool]:
    """Return the margin by which a ranker of this loss is judged, and whether it is one on probabilities.

    `given`, else that of the loss: of a sum, of its margin loss; 0 on logits where there is none.
    """
    with_margin = [term.facts for term in parse_loss(loss).terms if term.facts.margin is not None]
    largest = max(with_margin, key=lambda facts: facts.margin or 0.0, default=LossFacts(margin=0.0))
    return (largest.margin or 0.0) if given is None else given, largest.on_probabilities


def margin_for(loss: str, given: Optional[float]) -> float:
    """Return the margin a user gave, else the loss's own default: a margin on logits is another quantity."""
    return margin_of(loss, given)[0]
