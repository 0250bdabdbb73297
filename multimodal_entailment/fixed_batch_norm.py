"""Batch normalisation with the statistics of the pretrained parameters, also in training."""

from __future__ import annotations

import paddle.nn.functional as F
from paddle import Tensor, nn


class FixedBatchNorm(nn.BatchNorm2D):
    """Batch normalisation by stored statistics, which training does not change.

    Parameters and statistics have the names of `nn.BatchNorm2D`. That layer's `use_global_stats` would warn at each
    call in training that it changes the statistics.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Return the normalised images; input and output are `[n, channels, h, w]`."""
        return F.batch_norm(
            images, self._mean, self._variance, self.weight, self.bias, training=False, epsilon=self._epsilon
        )


def fix_batch_norms(network: nn.Layer) -> None:
    """Replace every batch normalisation in a network; call it before the network's parameters are loaded."""
    for parent in [network, *network.sublayers()]:
        for name, child in list(parent.named_children()):
            if type(child) is nn.BatchNorm2D:
                setattr(parent, name, FixedBatchNorm(child._num_features, epsilon=child._epsilon))
