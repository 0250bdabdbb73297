"""The registry of ranking losses. Help texts and checks are made from its `Loss` objects.

    LOSSES.add("listnet", Loss(list_net, "-Σ softmax(y) log softmax(l)", "order of lists", LABELS, listwise=True))

The registry needs no Paddle, so that a typing error shows at once: a loss imports Paddle when it is computed.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Callable, Optional

from paddle_ranker.array_types import Booleans, Integers, Numbers
from paddle_ranker.metrics.ranking import RELEVANT
from paddle_ranker.registry import Registry

if TYPE_CHECKING:
    from paddle import Tensor


@dataclass(frozen=True)
class QueryRequirement:
    """Requirement of a loss on the titles of a query; if a query does not meet the requirement, its loss is 0.

    lacking: phrase for messages that describes a query that does not meet the requirement
    lacks: called with the lowest label, the highest label and the number of titles of each query, `[queries]` each;
        returns True for the queries that do not meet the requirement, `[queries] bool`
    """

    lacking: str
    lacks: Callable[[Numbers, Numbers, Integers], Booleans]


LABELS = QueryRequirement("one label only", lambda lowest, highest, titles: lowest == highest)
RELEVANCE = QueryRequirement(
    "no relevant title (label >= 1) or no other",
    lambda lowest, highest, titles: (lowest >= RELEVANT) | (highest < RELEVANT),
)
TITLES = QueryRequirement("one title only", lambda lowest, highest, titles: titles == 1)


@dataclass(frozen=True)
class Loss:  # type: ignore[explicit-any]  # the function's parameters name its arguments
    """A ranking loss.

    function: returns the mean over n titles, a scalar. The arguments are chosen by the names of the function's
        parameters: `logits`, `labels`, `relevant`, `queries`, `teacher` (`[n]` each; see `ranking_losses.py`),
        `highest` (the highest label of the training data), and `margin`
    formula: the loss's formula, in one line
    suits: the loss's purpose, in one line
    compares: requirement on the titles of a query; None: the loss judges each title by itself
    listwise: whether the loss uses all titles of a query at once
    margin: default of the margin, by which the score of the better title must exceed that of the worse title; None: the
        loss has no margin
    on_probabilities: whether the loss compares probabilities instead of logits
    """

    function: Callable[..., Tensor]  # type: ignore[explicit-any]
    formula: str
    suits: str
    compares: Optional[QueryRequirement] = None
    listwise: bool = False
    margin: Optional[float] = None
    on_probabilities: bool = False

    @cached_property
    def arguments(self) -> tuple[str, ...]:
        return tuple(inspect.signature(self.function).parameters)

    @property
    def teacher(self) -> bool:
        """Whether the loss learns from a teacher's logits instead of labels."""
        return "teacher" in self.arguments

    @property
    def shift_invariant(self) -> bool:
        """Return whether the loss stays the same if a number is added to all logits."""
        return self.compares is not None and not self.on_probabilities


LOSSES: Registry[Loss] = Registry("loss", "--loss")
OTHER_NAMES = {"cross_entropy": "bce", "ranknet_bce": "bce+ranknet"}


def loss_help(listwise: bool = True) -> str:
    """Return the help text of `--loss`: each loss with its purpose; if `listwise` is False, without listwise losses."""
    names = [f"{name} ({loss.suits})" for name, loss in LOSSES.items() if listwise or not loss.listwise]
    teachers = " and ".join(name for name, loss in LOSSES.items() if loss.teacher)
    return (
        f"loss to minimise: {', '.join(names)}; {teachers} learn from columns of a teacher's scores; sums with "
        "factors are possible, as in 0.5*bce+ranknet"
    )


def margin_help() -> str:
    margins = ", ".join(f"{loss.margin:g} for {name}" for name, loss in LOSSES.items() if loss.margin is not None)
    return f"by how much the better title must be ahead (default: {margins})"
