"""EfficientNet-Lite0 (Google, 2020): EfficientNet without squeeze-and-excitation, and with ReLU6, for small devices.

The architecture is that of `efficientnet-lite0` in TensorFlow's TPU models; tests compare the outputs with PyTorch's.
"""

from __future__ import annotations

from typing import NamedTuple

from paddle import Tensor, nn

from multimodal_entailment.fixed_batch_norm import FixedBatchNorm

WIDTH = 1280  # number of features of a region
_STEM = 32
_EPSILON = 1e-3  # epsilon of the batch normalisation, as in TensorFlow


class _Stage(NamedTuple):
    """A sequence of blocks; the first has the stride and changes the number of channels."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    channels: int


_STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)


class _Convolution(nn.Layer):
    """A convolution with TensorFlow's SAME padding (odd padding goes below and to the right), then normalisation."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1):
        super().__init__()
        self.conv = nn.Conv2D(inputs, outputs, kernel, stride, "SAME", groups=groups, bias_attr=False)
        self.norm = FixedBatchNorm(outputs, epsilon=_EPSILON)

    def forward(self, images: Tensor) -> Tensor:
        """Convolve `[n, inputs, h, w]` to `[n, outputs, ceil(h / stride), ceil(w / stride)]`, and normalise."""
        return self.norm(self.conv(images))


class _Block(nn.Layer):
    """An inverted residual: expand, depthwise convolution, project; plus the input if it has the output's shape."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        inner = inputs * expansion
        self.expand = _Convolution(inputs, inner, 1) if expansion > 1 else None
        self.depthwise = _Convolution(inner, inner, kernel, stride, groups=inner)
        self.project = _Convolution(inner, outputs, 1)
        self.active = nn.ReLU6()
        self.adds = stride == 1 and inputs == outputs

    def forward(self, images: Tensor) -> Tensor:
        """Map `[n, inputs, h, w]` to `[n, outputs, ceil(h / stride), ceil(w / stride)]`."""
        inner = images if self.expand is None else self.active(self.expand(images))
        projected = self.project(self.active(self.depthwise(inner)))
        return projected + images if self.adds else projected


class EfficientNetLite0(nn.Layer):
    """The network from images `[n, 3, s, s]` float32 to feature maps `[n, WIDTH, s / 32, s / 32]`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Convolution(3, _STEM, 3, 2)
        blocks, inputs = [], _STEM
        for stage in _STAGES:
            for number in range(stage.blocks):
                stride = 1 if number else stage.stride
                blocks.append(_Block(inputs, stage.channels, stage.kernel, stride, stage.expansion))
                inputs = stage.channels
        self.blocks = nn.Sequential(*blocks)
        self.head = _Convolution(inputs, WIDTH, 1)
        self.active = nn.ReLU6()

    def forward(self, images: Tensor) -> Tensor:
        """Return the feature maps."""
        return self.active(self.head(self.blocks(self.active(self.stem(images)))))
