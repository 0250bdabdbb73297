"""Networks that turn an image into features of its regions.

`small` is made to be trained from nothing on a CPU; the others are worth their time with pretrained parameters.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Optional, Union

import numpy as np
import paddle
from paddle import Tensor, nn

from paddle_ranker.errors import CheckpointError, UsageError
from paddle_ranker.options import did_you_mean
from paddle_ranker.parameters import load_arrays

VISION_ENCODERS = ("small",)

Colour = tuple[float, float, float]
_HALF: Colour = (0.5, 0.5, 0.5)


class VisionEncoder(nn.Layer):
    """A network from images to the features of their regions.

    Args:
        network: from `[n, 3, s, s]` to a map of features `[n, width, h, w]`.
        width: features of a region.
        mean, std: of each colour, in [0, 1]: what the network's inputs are normalised by.
    """

    def __init__(self, name: str, network: nn.Layer, width: int, mean: Colour, std: Colour):
        super().__init__()
        self.name, self.width, self.mean, self.std = name, width, mean, std
        self.network = network

    def normalise(self, pixels: Union[Tensor, np.ndarray]) -> Tensor:
        """Return pixels `[n, 3, s, s] uint8` as the network takes them, float32."""
        mean, std = (paddle.to_tensor(colour, "float32").reshape([1, 3, 1, 1]) for colour in (self.mean, self.std))
        return (paddle.to_tensor(pixels).astype("float32") / 255.0 - mean) / std

    def forward(self, images: Tensor) -> Tensor:
        """Return the features `[n, regions, width]` of normalised images `[n, 3, s, s] float32`; row by row."""
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
        """Return 16 hexadecimal digits that differ where the name or any parameter does."""
        digest = hashlib.sha256(f"{self.name} {self.mean} {self.std}".encode())
        for name, value in sorted(self.state_dict().items()):
            digest.update(f"{name} {value.shape}".encode())
            digest.update(np.ascontiguousarray(value.numpy()).tobytes())
        return digest.hexdigest()[:16]


def make_vision_encoder(name: str, weights: Optional[Union[str, Path]] = None) -> VisionEncoder:
    """Return a vision encoder by its name, one of `VISION_ENCODERS`.

    Args:
        weights: a `.pdparams` file of its parameters; None: random ones.

    Raises `UsageError` for an unknown name, `CheckpointError` for a file whose parameters are not this encoder's.
    """
    if name not in VISION_ENCODERS:
        raise UsageError(
            f"vision encoder {name!r}: choose from {', '.join(VISION_ENCODERS)}{did_you_mean(name, VISION_ENCODERS)}"
        )
    encoder = VisionEncoder("small", SmallNetwork(), SmallNetwork.channels[-1], _HALF, _HALF)
    if weights is not None:
        _load(encoder, Path(weights))
    return encoder


def _load(encoder: VisionEncoder, path: Path) -> None:
    """Set the network's parameters to those of a file, but for a classifier's (`fc.`, `classifier.`)."""
    arrays = load_arrays(path)
    arrays = {name: array for name, array in arrays.items() if not name.startswith(("fc.", "classifier."))}
    wanted = encoder.network.state_dict()
    for name, value in wanted.items():
        if name not in arrays:
            raise CheckpointError(f"{path}: lacks {name}, a parameter of {encoder.name}; is it of another network?")
        if list(arrays[name].shape) != list(value.shape):
            shapes = f"{list(arrays[name].shape)}, expected {list(value.shape)}"
            raise CheckpointError(f"{path}: {name} has the shape {shapes}; is it of another variant of {encoder.name}?")
    unknown = sorted(arrays.keys() - wanted.keys())
    if unknown:
        raise CheckpointError(f"{path}: holds {unknown[0]}, which {encoder.name} lacks; is it of another network?")
    encoder.network.set_state_dict({name: array.astype(np.float32) for name, array in arrays.items()})


class SmallNetwork(nn.Sequential):
    """Five convolutions of 3 x 3, each halving the map: 128 x 128 pixels give 4 x 4 regions.

    Normalised by groups, not by batches: an image's features, also in training, depend on that image alone, so that
    several processes or accumulated batches compute what one large batch would.
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
