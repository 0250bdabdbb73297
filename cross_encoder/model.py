"""The cross-encoder in training: a network scores each pair and learns whether it is relevant."""

from __future__ import annotations

import numpy as np
import paddle
from paddle import Tensor, nn

from paddle_ranker.array_types import Integers
from paddle_ranker.metrics.ranking import RELEVANT
from paddle_ranker.storage.arrays import gather
from paddle_ranker.training.examples import RankingExamples
from paddle_ranker.training.task import Means

# Maximum learning rate of a position tower, whose numbers range over some 3 whatever the network's rate is.
TOWER_RATE = 0.05
_POSITIONS = 100  # titles further down share the number of the last position


class PositionTower(nn.Layer):
    """Layer with a learned number for each position of a shown title, added to the title's logit in training only.

    It learns the effect of positions on clicks, so that the ranker need not learn it (Guo et al., "PAL: a position-bias
    aware learning framework for CTR prediction", RecSys 2019; added to logits as in Zhao et al., RecSys 2019).
    """

    def __init__(self) -> None:
        super().__init__()
        self.bias = self.create_parameter([_POSITIONS], default_initializer=nn.initializer.Constant(0.0))

    def forward(self, positions: Integers) -> Tensor:
        """Return the numbers of positions, from 1, `[n]` float32."""
        return paddle.gather(self.bias, paddle.to_tensor(np.minimum(positions, _POSITIONS) - 1))


class LabeledExamples(RankingExamples):
    """Training examples from labelled pairs."""

    def loss_of_logits(self, network: nn.Layer, logits: Tensor, rows: Integers) -> tuple[Tensor, Means]:
        """Return the mean loss of the pairs `rows`, and their `accuracy`, the share classified correctly."""
        right = (logits.detach() > 0) == paddle.to_tensor(self.pair_labels(rows) >= RELEVANT)
        if self._data.positions is not None:
            logits = logits + network.position_tower(gather(self._data.positions, rows))
        return self.loss_of(logits, rows), {"accuracy": right.astype("float32").mean()}
