"""Losses that compare all rows of a batch: across micro-batches (gradient accumulation) and across processes.

With in-batch negatives, the loss of a text depends on all texts of the batch. So the loss of a batch cannot be computed
as a sum over parts of the batch, the micro-batches. The gradient is computed in three passes (Gao et al., 2021,
"Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", https://arxiv.org/abs/2101.06983):

1. each process computes the outputs of its parts, one after another, without keeping activations;
2. all outputs are gathered, and the loss and its gradient with respect to every output are computed;
3. each process computes its parts again, with the same dropout, and passes the gradients back.

So a batch of any size takes the memory of one part, and N processes compute what one process computes on the union.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import paddle
from paddle import Tensor, nn

from paddle_ranker.array_types import Integers
from paddle_ranker.distributed import ProcessGroup
from paddle_ranker.training.precision import Precision
from paddle_ranker.training.task import Examples, Means


@runtime_checkable
class WholeBatchExamples(Examples, Protocol):
    """Training examples whose loss needs the outputs of all examples of a batch."""

    def outputs(self, network: nn.Layer, indices: Integers) -> Tensor:
        """Return the network's outputs for all rows of the examples `indices`, `[m * rows_each, size]` float32."""
        ...

    def whole_losses(
        self, network: nn.Layer, outputs: Tensor, parts: Sequence[Integers]
    ) -> Iterator[tuple[Tensor, Means]]:
        """Yield summands of a batch's mean loss, each with the summands of further means, by name.

        The caller computes a summand's gradient before it takes the next summand, so only one graph is in memory.

        outputs: the outputs of all parts' examples, one part after another, `[rows, size]` float32
        parts: the indices of each part's examples; no part is empty
        """
        ...


def backward(
    examples: WholeBatchExamples,
    network: nn.Layer,
    batch: Sequence[Integers],
    processes: ProcessGroup,
    precision: Precision,
    seed: Callable[[int], None],
) -> tuple[Tensor, Means]:
    """Compute a batch's loss, and add its gradients, times the loss scale, to this process's parameters.

    The batch's gradient is the sum of the gradients over all processes.

    batch: indices of each part's examples; this process computes the parts `rank`, `rank + size`, ...
    seed: called with a part's index in the batch; seeds dropout for that part

    Returns the loss and further means by name, equal in every process.
    """
    local = [place for place in range(processes.rank, len(batch), processes.size) if len(batch[place])]
    parts = [part for part in batch if len(part)]
    is_alone = len(parts) == 1 and processes.size == 1

    def outputs(place: int) -> Tensor:
        seed(place)
        with precision.forward():
            return examples.outputs(network, batch[place])

    if is_alone:
        whole = outputs(local[0])
        leaf = whole.detach()
        leaf.stop_gradient = False
        result = _loss_on(examples, network, leaf, parts, precision)
        paddle.autograd.backward([whole], [leaf.grad])
        return result

    rows = [examples.rows_each * len(part) for part in batch]
    ends = np.cumsum(rows)
    with paddle.no_grad():
        outputs_of = {place: outputs(place).detach() for place in local}
    # The first process always has a part.
    width = int(processes.sum(np.array([float(outputs_of[0].shape[1]) if processes.is_first else 0.0]))[0])
    leaf = paddle.concat(
        [
            outputs_of[place] if place in outputs_of else paddle.zeros([rows[place], width])
            for place in range(len(batch))
            if rows[place]
        ]
    )
    del outputs_of
    processes.sum_tensor(leaf)
    leaf.stop_gradient = False
    result = _loss_on(examples, network, leaf, parts, precision)
    for parameter in network.parameters():  # each process has the whole gradient of the loss's own parameters
        if parameter.grad is not None and processes.size > 1:
            paddle.assign(parameter.grad / processes.size, output=parameter.grad)
    for place in local:
        start = int(ends[place]) - rows[place]
        paddle.autograd.backward([outputs(place)], [leaf.grad[start : int(ends[place])]])
    return result


def _loss_on(
    examples: WholeBatchExamples,
    network: nn.Layer,
    leaf: Tensor,
    parts: Sequence[Integers],
    precision: Precision,
) -> tuple[Tensor, Means]:
    """Compute a batch's loss from all outputs, `leaf`; add the gradients to `leaf` and to parameters of the loss.

    Returns the loss and further means by name.
    """
    losses, all_means = list[Tensor](), list[Means]()
    for loss, means in examples.whole_losses(network, leaf, parts):
        (loss * precision.scale).backward()
        losses.append(loss.detach())
        all_means.append(means)
    return paddle.add_n(losses), {name: sum(means[name] for means in all_means) for name in all_means[0]}
