"""`--loss` of a tower: losses over the batch, and losses of a ranker over each query's own list. Needs no Paddle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional, Union

from paddle_ranker.errors import DataError, UsageError, brief
from paddle_ranker.registry import Registry
from paddle_ranker.training.losses.expression import LossExpression, factor_of, parse_loss
from paddle_ranker.training.losses.loss_registry import LOSSES

if TYPE_CHECKING:
    from paddle import Tensor

IN_BATCH = "in_batch"
MOST_SCALE = 100.0  # maximum of a learned scale (Radford et al., 2021, "CLIP")


@dataclass(frozen=True)
class BatchLoss:
    """A loss that compares each query's title with all negatives of the batch.

    function: called with the logits of the queries' own titles, less the margin, `[b]`; the logits of all titles, which
        are hugely negative for titles that are no negatives, `[b, q]`; and the scale of the cosines. A logit is scale *
        cosine. Returns the loss of each query, `[b]`, 0 for a query without negatives
    suits: the loss's purpose, in one line
    scaled: whether the loss depends on the scale
    """

    function: Callable[[Tensor, Tensor, Union[float, Tensor]], Tensor]
    suits: str
    scaled: bool = True


def in_batch(own: Tensor, others: Tensor, scale: Union[float, Tensor]) -> Tensor:
    """Return the cross-entropy of each query's title among all titles.

    With logits of scale * (cosine - margin), the margin for the query's title only (Wang et al., 2018, "CosFace").
    """
    import paddle

    return paddle.nn.functional.softplus(paddle.logsumexp(others, axis=1) - own)


def hardest(own: Tensor, others: Tensor, scale: Union[float, Tensor]) -> Tensor:
    """Return max(0, margin - (cosine of the query's title - largest cosine of a negative)).

    The source is the maximum of hinges of Faghri et al., 2018, "VSE++". PaddleNLP's `SemanticIndexHardestNeg` takes the
    row's largest cosine for that of the query's title, so that a query whose negative is ahead, which has most to
    learn, has no gradient. Here it is the title's own.
    """
    import paddle

    return paddle.clip(others.max(axis=1) - own, min=0.0) / scale  # relu would turn NaN into 0


BATCH_LOSSES: Registry[BatchLoss] = Registry("loss", "--loss")
BATCH_LOSSES.add(IN_BATCH, BatchLoss(in_batch, "all negatives of the batch, by cross-entropy"))
BATCH_LOSSES.add("hardest", BatchLoss(hardest, "the hardest negative of the batch, by --margin", scaled=False))


@dataclass(frozen=True)
class TowerLoss:
    """A sum of losses.

    of_batch: factors of the losses over the batch, by name
    of_lists: a ranker's losses, over the logits of each query's title and negatives; None: no such losses
    """

    of_batch: Mapping[str, float]
    of_lists: Optional[LossExpression]

    @property
    def of_teacher(self) -> tuple[str, ...]:
        return self.of_lists.of_teacher if self.of_lists else ()

    @property
    def scaled(self) -> bool:
        """Whether the sum depends on the scale of the cosines."""
        return self.of_lists is not None or any(BATCH_LOSSES[name].scaled for name in self.of_batch)

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


IN_BATCH_ALONE = TowerLoss({IN_BATCH: 1.0}, None)


def parse_tower_loss(text: str) -> TowerLoss:
    """Parse a sum such as `in_batch+0.5*margin_mse`; raises `UsageError` as `parse_loss` does."""
    of_batch, others = dict[str, float](), []
    for part in text.split("+"):
        factor, star, name = (piece.strip() for piece in part.rpartition("*"))
        if name not in BATCH_LOSSES:
            others.append(part)
        elif name in of_batch:
            raise UsageError(f"--loss {brief(text)}: {name} comes more than once; name each loss once")
        else:
            of_batch[name] = factor_of(text, factor) if star else 1.0
    try:
        return TowerLoss(of_batch, parse_loss("+".join(others)) if others else None)
    except UsageError as error:
        raise UsageError(str(error).replace("choose from ", f"choose from {', '.join(BATCH_LOSSES)}, ")) from None


def tower_loss_help() -> str:
    teachers = ", ".join(name for name, loss in LOSSES.items() if loss.teacher)
    of_batch = ", ".join(f"{name} ({loss.suits})" for name, loss in BATCH_LOSSES.items())
    return (
        f"loss to minimise: {of_batch}, or losses over the titles of a query in the file: {', '.join(LOSSES)} "
        f"({teachers} learn a teacher's scores); sums with factors are possible, as in {IN_BATCH}+0.5*margin_mse"
    )
