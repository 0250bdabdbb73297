"""Several processes that train one model: every process gets a share of each batch, and gradients are summed.

`python -m paddle.distributed.launch` starts the processes and tells them apart by environment variables. Each step
equals one process with the union of the batches: a share's gradient counts by its number of examples.
"""

from __future__ import annotations

import os
from typing import Callable

import numpy as np
import paddle
from paddle import Tensor, nn

LossOfShare = Callable[[np.ndarray], tuple[Tensor, dict[str, float]]]


class ProcessGroup:
    """The processes of this training; one where the launcher started no more."""

    def __init__(self) -> None:
        self.size = int(os.environ.get("PADDLE_TRAINERS_NUM", "1"))
        self.rank = int(os.environ.get("PADDLE_TRAINER_ID", "0"))
        if self.size > 1:
            paddle.distributed.init_parallel_env()

    @property
    def is_first(self) -> bool:
        """Whether this process prints, evaluates and saves."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            paddle.distributed.barrier()

    def broadcast(self, network: nn.Layer) -> None:
        """Give every process the first one's parameters."""
        if self.size > 1:
            for tensor in network.state_dict().values():
                paddle.distributed.broadcast(tensor, src=0)

    def backward(
        self, network: nn.Layer, loss_of: LossOfShare, share: np.ndarray, whole: int
    ) -> tuple[float, dict[str, float]]:
        """Compute the gradients of the mean loss over the whole batch; return that loss and the first figures.

        Args:
            loss_of: the mean loss of some examples.
            share: this process's examples of the batch, maybe none.
            whole: examples in the batch, all processes together.
        """
        if self.size == 1:
            loss, figures = loss_of(share)
            loss.backward()
            return float(loss), figures
        value, figures = 0.0, {}
        if len(share):
            loss, figures = loss_of(share)
            loss = loss * (len(share) / whole)
            loss.backward()
            value = float(loss)
        for parameter in network.parameters():
            if parameter.stop_gradient:
                continue
            gradient = parameter.grad if parameter.grad is not None else paddle.zeros_like(parameter)
            paddle.distributed.all_reduce(gradient)
            parameter.grad = gradient
        total = paddle.to_tensor([value])
        paddle.distributed.all_reduce(total)
        return float(total), figures
