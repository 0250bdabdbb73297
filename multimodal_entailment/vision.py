"""Networks that turn an image into features of its regions.

`small` is meant for training from scratch on a CPU; the others are worth their time only with pretrained parameters.
`efficientnet_lite0` is `efficientnet-lite0` of TensorFlow's TPU models (Google, 2020): EfficientNet without
squeeze-and-excitation and with ReLU6, for small devices.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, NamedTuple, Optional, Union

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from paddle_ranker.errors import CheckpointError, RankerError, UsageError, quoted, spelling_hint
from paddle_ranker.model.parameters import load_arrays


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


_LITE_WIDTH = 1280  # number of features of a region
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
    """The network from images `[n, 3, s, s]` float32 to feature maps `[n, 1280, s / 32, s / 32]`."""

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
        self.head = _Convolution(inputs, _LITE_WIDTH, 1)
        self.active = nn.ReLU6()

    def forward(self, images: Tensor) -> Tensor:
        return self.active(self.head(self.blocks(self.active(self.stem(images)))))


DOWNLOAD = "download"  # value that stands for a file of parameters: fetch Paddle's parameters
Colour = tuple[float, float, float]
_HALF: Colour = (0.5, 0.5, 0.5)
_IMAGENET: tuple[Colour, Colour] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class VisionEncoder(nn.Layer):
    """A network from images to the features of their regions.

    Args:
        network: from `[n, 3, s, s]` to a feature map `[n, width, h, w]`.
        width: the number of features of a region.
        mean, std: statistics of each colour, for values in [0, 1], which normalise the network's inputs.
    """

    def __init__(self, name: str, network: nn.Layer, width: int, mean: Colour, std: Colour):
        super().__init__()
        self.name, self.width, self.mean, self.std = name, width, mean, std
        self.network = network

    def normalise(self, pixels: Union[Tensor, np.ndarray]) -> Tensor:
        """Normalise uint8 pixels `[n, 3, s, s]` to float32, the network's input."""
        if isinstance(pixels, np.ndarray):
            pixels = paddle.to_tensor(pixels)
        # (pixels / 255 - mean) / std, in two passes over the pixels
        scale = np.array([1.0 / (255.0 * std) for std in self.std], np.float32)[:, None, None]
        shift = np.array([-mean / std for mean, std in zip(self.mean, self.std)], np.float32)[:, None, None]
        # Call nothing on the results of to_tensor: when Paddle 3 makes the graph, it would evaluate the call while
        # holding a lock that the evaluation waits for.
        by = paddle.to_tensor(scale)
        plus = paddle.to_tensor(shift)
        return pixels.astype("float32") * by + plus

    def forward(self, images: Tensor) -> Tensor:
        """Return the features `[n, regions, width]` of normalised images `[n, 3, s, s] float32`, row by row."""
        return self.network(images).flatten(2).transpose([0, 2, 1])

    def regions(self, size: int) -> int:
        """Return how many regions an image of `size` by `size` pixels has."""
        training = self.training
        self.eval()
        with paddle.no_grad():
            count = self(paddle.zeros([1, 3, size, size])).shape[1]
        if training:
            self.train()
        return int(count)

    def digest(self) -> str:
        """Return 16 hexadecimal digits that change with the name, the normalisation or any parameter."""
        digest = hashlib.sha256(f"{self.name} {self.mean} {self.std}".encode())
        for name, value in sorted(self.state_dict().items()):
            digest.update(f"{name} {value.shape}".encode())
            digest.update(np.ascontiguousarray(value.numpy()).tobytes())
        return digest.hexdigest()[:16]


def make_vision_encoder(name: str, weights: Optional[Union[str, Path]] = None) -> VisionEncoder:
    """Return a vision encoder by its name, one of `VISION_ENCODERS`.

    Batch normalisation always uses the statistics of the pretrained parameters, also in training: an image's features
    depend on that image alone, and small batches do not change statistics that were learnt from large batches.

    Args:
        weights: a `.pdparams` file of its parameters (`convert_image_weights` converts PyTorch's file);
            `DOWNLOAD`: the parameters that Paddle publishes for a ResNet, fetched once; None: random parameters.

    Raises `UsageError` for an unknown name, `CheckpointError` if the file's parameters are not this encoder's or cannot
    be fetched.
    """
    if name not in _KINDS:
        raise UsageError(
            f"vision encoder {quoted(name)}: choose from {', '.join(VISION_ENCODERS)}"
            f"{spelling_hint(name, VISION_ENCODERS)}"
        )
    kind = _KINDS[name]
    encoder = VisionEncoder(name, kind.network(), kind.width, kind.mean, kind.std)
    if weights is not None:
        path = _fetch(name) if str(weights) == DOWNLOAD else Path(weights)
        set_parameters(encoder, load_arrays(path), str(path))
    return encoder


def set_parameters(encoder: VisionEncoder, arrays: dict[str, np.ndarray], source: str) -> None:
    """Set the network's parameters from a dict keyed by their names; a classifier's (`fc.`) are ignored.

    Raises `CheckpointError`, naming the `source`, if a parameter is missing, has another shape, or is unknown.
    """
    arrays = {name: array for name, array in arrays.items() if not name.startswith("fc.")}
    parameters = encoder.network.state_dict()
    for name, value in parameters.items():
        if name not in arrays:
            raise CheckpointError(f"{source}: lacks {name}, a parameter of {encoder.name}; is it another network's?")
        if list(arrays[name].shape) != list(value.shape):
            shapes = f"{list(arrays[name].shape)}, expected {list(value.shape)}"
            raise CheckpointError(f"{source}: {name} has the shape {shapes}; is it another network's?")
    unknown = sorted(arrays.keys() - parameters.keys())
    if unknown:
        raise CheckpointError(f"{source}: holds {unknown[0]}, which {encoder.name} lacks; is it another network's?")
    encoder.network.set_state_dict({name: array.astype(np.float32) for name, array in arrays.items()})


def _fetch(name: str) -> Path:
    """Return the file of the parameters that Paddle publishes for a network; it is fetched once."""
    from paddle.vision.models import resnet

    from paddle_ranker.storage.atomic import cache_folder, made_once
    from paddle_ranker.storage.download import fetch, forget

    if name not in resnet.model_urls:
        raise CheckpointError(
            f"Paddle publishes no parameters for {name}: give a file of them, or train it from scratch"
        )
    address, expected = resnet.model_urls[name]
    target = cache_folder("vision", f"{name}.pdparams")
    with made_once(target) as missing:
        if missing:
            part = target.with_name(f"{name}.part")
            try:
                fetch(address, part)
            except RankerError as error:
                raise CheckpointError(
                    f"the parameters of {name} are not on this machine and could not be fetched ({error}): give a "
                    "local .pdparams file, or convert PyTorch's: paddle-ranker convert-image-weights SOURCE "
                    f"TARGET.pdparams --vision_encoder {name}"
                ) from error
            if hashlib.md5(part.read_bytes()).hexdigest() != expected:
                forget(part)
                raise CheckpointError(f"{address}: damaged on its way; run again to fetch it anew")
            part.rename(target)
            forget(part)
    return target


class SmallNetwork(nn.Sequential):
    """Network of five 3 x 3 convolutions, each halving the map: 128 x 128 pixels give 4 x 4 regions.

    It has group instead of batch normalisation: an image's features depend on that image alone, also in training. So
    several processes or accumulated batches compute the same as a single large batch.
    """

    channels: Sequence[int] = (16, 32, 64, 96, 128)

    def __init__(self) -> None:
        layers: list[nn.Layer] = []
        for inputs, outputs in zip((3, *self.channels), self.channels):
            layers += [
                nn.Conv2D(inputs, outputs, 3, stride=2, padding=1, bias_attr=False),
                nn.GroupNorm(num_groups=8, num_channels=outputs),
                nn.ReLU(),
            ]
        super().__init__(*layers)


def _resnet(name: str) -> nn.Layer:
    from paddle.vision import models

    network: nn.Layer = getattr(models, name)(num_classes=0, with_pool=False)
    fix_batch_norms(network)  # paddle.vision has no option for another normalisation
    return network


@dataclass(frozen=True)
class _Kind:
    """Recipe of an encoder: its network, the width of a region's features, and the normalisation of colours."""

    network: Callable[[], nn.Layer]
    width: int
    mean: Colour
    std: Colour


_KINDS = {
    "small": _Kind(SmallNetwork, SmallNetwork.channels[-1], _HALF, _HALF),
    "resnet18": _Kind(lambda: _resnet("resnet18"), 512, *_IMAGENET),
    "resnet50": _Kind(lambda: _resnet("resnet50"), 2048, *_IMAGENET),
    "efficientnet_lite0": _Kind(EfficientNetLite0, _LITE_WIDTH, (127 / 255,) * 3, (128 / 255,) * 3),
}
VISION_ENCODERS = tuple(_KINDS)
