"""Run EfficientNet-Lite0 in PyTorch: `python efficientnet_lite_worker.py WEIGHTS.pth INPUTS.npz OUTPUTS.npz`.

This file imports nothing of this project, so that it runs in any environment with torch. For each array of normalised
images `[n, 3, s, s]` it writes the feature maps `[n, 1280, s / 32, s / 32]` under the same name. The network is written
in PyTorch's functions, stage by stage, from TensorFlow's description.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

# Blocks, kernel, stride, expansion.
_STAGES = ((1, 3, 1, 1), (2, 3, 2, 6), (2, 5, 2, 6), (3, 3, 2, 6), (3, 5, 1, 6), (4, 5, 2, 6), (1, 3, 1, 6))


def features(state: dict[str, Any], images: Any) -> Any:
    """Return the feature maps of a batch."""
    from torch.nn import functional as F

    def convolved(values: Any, name: str, stride: int = 1, groups: int = 1) -> Any:
        weight = state[f"{name}.weight"]
        size, kernel = values.shape[-1], weight.shape[-1]
        padding = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        before = padding // 2
        return F.conv2d(F.pad(values, [before, padding - before] * 2), weight, stride=stride, groups=groups)

    def normed(values: Any, name: str) -> Any:
        parts = [state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(values, *parts, training=False, eps=1e-3)

    values = F.relu6(normed(convolved(images, "_conv_stem", 2), "_bn0"))
    number = 0
    for blocks, _, first_stride, expansion in _STAGES:
        for place in range(blocks):
            name, stride, inner = f"_blocks.{number}", 1 if place else first_stride, values
            if expansion > 1:
                inner = F.relu6(normed(convolved(inner, f"{name}._expand_conv"), f"{name}._bn0"))
            inner = convolved(inner, f"{name}._depthwise_conv", stride, groups=inner.shape[1])
            inner = normed(convolved(F.relu6(normed(inner, f"{name}._bn1")), f"{name}._project_conv"), f"{name}._bn2")
            values = inner + values if place else inner
            number += 1
    return F.relu6(normed(convolved(values, "_conv_head"), "_bn1"))


def main(weights: str, inputs_file: str, outputs_file: str) -> None:
    """Write the feature maps."""
    import torch

    state = torch.load(weights, weights_only=True)
    with torch.no_grad():
        outputs = {
            name: features(state, torch.from_numpy(array)).numpy() for name, array in np.load(inputs_file).items()
        }
    np.savez(outputs_file, **outputs)


if __name__ == "__main__":
    main(*sys.argv[1:])
