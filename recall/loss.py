"""`--loss` of a tower: in-batch negatives, and losses of a ranker over each query's own list. Needs no Paddle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from paddle_ranker.errors import DataError, UsageError, brief
from paddle_ranker.training.losses.expression import LossExpression, factor_of, parse_loss
from paddle_ranker.training.losses.loss_registry import LOSSES

IN_BATCH = "in_batch"
MOST_SCALE = 100.0  # maximum of a learned scale (Radford et al., 2021, "CLIP")


@dataclass(frozen=True)
class TowerLoss:
    """A sum of losses.

    in_batch: factor of the cross-entropy of each query's title among all titles of the batch; 0: no such loss
    of_lists: a ranker's losses, over the logits of each query's title and negatives; None: no such losses
    """

    in_batch: float
    of_lists: Optional[LossExpression]

    @property
    def of_teacher(self) -> tuple[str, ...]:
        return self.of_lists.of_teacher if self.of_lists else ()

    def require_negatives(self, most: int) -> None:
        """Raise `DataError` if a loss compares a query's title with its negatives, but no query has negatives.

        most: the largest number of negatives of an example
        """
        comparisons = self.of_lists.comparisons if self.of_lists and not most else {}
        names = [name for losses in comparisons.values() for name in losses]
        if names:
            raise DataError(
                f"--loss {' and '.join(names)}: compares the title of a query with its negatives, and the training "
                "data have none; let paddle-ranker mine find some, or leave that loss out"
            )


IN_BATCH_ALONE = TowerLoss(1.0, None)


def parse_tower_loss(text: str) -> TowerLoss:
    """Parse a sum such as `in_batch+0.5*margin_mse`; raises `UsageError` as `parse_loss` does."""
    in_batch, others = 0.0, []
    for part in text.split("+"):
        factor, star, name = part.rpartition("*")
        if name.strip() != IN_BATCH:
            others.append(part)
        elif in_batch:
            raise UsageError(f"--loss {brief(text)}: {IN_BATCH} comes more than once; name each loss once")
        else:
            in_batch = factor_of(text, factor) if star else 1.0
    try:
        return TowerLoss(in_batch, parse_loss("+".join(others)) if others else None)
    except UsageError as error:
        raise UsageError(str(error).replace("choose from ", f"choose from {IN_BATCH}, ")) from None


def tower_loss_help() -> str:
    teachers = ", ".join(name for name, loss in LOSSES.items() if loss.teacher)
    return (
        f"loss to minimise: {IN_BATCH}, or losses over the titles of a query in the file: {', '.join(LOSSES)} "
        f"({teachers} learn a teacher's scores); sums with factors are possible, as in {IN_BATCH}+0.5*margin_mse"
    )
