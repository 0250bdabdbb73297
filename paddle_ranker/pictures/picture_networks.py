"""Networks of towers that read pictures, or texts to compare with pictures: ViT, CLIP, SigLIP, convolutions.

| family | reads | vector |
| --- | --- | --- |
| clip_vision_model, vit | pictures | state of the first token, after the last norm |
| siglip_vision_model | pictures | one learned query that attends to all patches, then a feed-forward layer |
| convolutions | pictures | mean of the last layer's pixels; the network is small, trained from scratch in minutes |
| clip_text_model | texts | state of the first end token |
| siglip_text_model | texts, always padded to the same length | state of the last position, then a linear layer |
"""

from __future__ import annotations

from typing import Optional

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn
from paddle.distributed.fleet.utils import recompute

from paddle_ranker.encoding.columns import FileEncoder
from paddle_ranker.model.networks.attention import MASKED
from paddle_ranker.model.networks.bert import Attention, Encoder, activation_named
from paddle_ranker.model.networks.dropout import Masks
from paddle_ranker.pictures.picture_config import ConvolutionsConfig, PictureConfig, PictureTextConfig
from paddle_ranker.pictures.picture_encoder import PictureEncoder

_BLOCK = 3  # layers of a block of convolutions: convolution, norm, activation


class _Pixels(nn.Layer):
    """Normalisation of pixels, `[batch, 3, height, width]` uint8, by the channels' means and deviations."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.shift = [1 / 255] * 3, [0.0] * 3

    def forward(self, pixels: Tensor) -> Tensor:
        shape = [1, 3, 1, 1]
        scale, shift = (paddle.to_tensor(numbers, "float32").reshape(shape) for numbers in (self.scale, self.shift))
        return pixels.astype("float32") * scale - shift


class _PictureEncoder(Encoder):
    """Base of encoders of pictures, whose `pooled` takes pixels."""

    def normalise_as(self, rows: FileEncoder) -> None:
        """Normalise pixels by the means and deviations of a row encoder."""
        assert isinstance(rows, PictureEncoder)
        self.pixels.scale = [rows.factor / std for std in rows.std]
        self.pixels.shift = [mean / std for mean, std in zip(rows.mean, rows.std)]

    def _make_pooler(self) -> nn.Layer:
        return nn.Layer()


class _Patches(nn.Layer):
    """Embeddings of a picture's patches with positions, after a class token if there is one."""

    def __init__(self, config: PictureConfig):
        super().__init__()
        size, patch = config.hidden_size, config.patch_size
        self.patch_embeddings = nn.Conv2D(3, size, patch, patch, bias_attr=None if config.patch_bias else False)
        if config.class_token:
            self.class_embedding = self.create_parameter([1, 1, size])
        self.positions = self.create_parameter([1, config.positions, size])
        if config.norm_before_layers:
            self.layer_norm = nn.LayerNorm(size, epsilon=config.layer_norm_eps)
        self.config = config

    def forward(self, pixels: Tensor) -> Tensor:
        hidden = self.patch_embeddings(pixels).flatten(2).transpose([0, 2, 1])
        if self.config.class_token:
            first = paddle.zeros_like(hidden[:, :1]) + self.class_embedding
            hidden = paddle.concat([first, hidden], axis=1)
        hidden = hidden + self.positions
        return self.layer_norm(hidden) if self.config.norm_before_layers else hidden


class _AttentionHead(nn.Layer):
    """Head of SigLIP: pools all patches by the attention of a learned query."""

    def __init__(self, config: PictureConfig):
        super().__init__()
        size = config.hidden_size
        self.probe = self.create_parameter([1, 1, size])
        self.self_attn = Attention(size, config.num_attention_heads, 0.0, Masks())
        self.norm = nn.LayerNorm(size, epsilon=config.layer_norm_eps)
        self.linear1 = nn.Linear(size, config.intermediate_size)
        self.linear2 = nn.Linear(config.intermediate_size, size)
        self.activation = activation_named(config.hidden_act)

    def forward(self, hidden: Tensor) -> Tensor:
        query = paddle.zeros_like(hidden[:, :1]) + self.probe
        attended = self.self_attn(query, hidden, paddle.zeros([1, 1, 1, 1]))
        return (attended + self.linear2(self.activation(self.linear1(self.norm(attended)))))[:, 0]


class PictureTransformer(_PictureEncoder):
    """Transformer over a picture's patches, as in ViT, CLIP and SigLIP.

    Dosovitskiy et al., 2021, "An Image is Worth 16x16 Words".
    """

    config: PictureConfig

    def _make_embeddings(self) -> nn.Layer:
        self.pixels = _Pixels()
        return _Patches(self.config)

    def _make_pooler(self) -> nn.Layer:
        return _AttentionHead(self.config) if self.config.attention_head else nn.Layer()

    def forward(
        self, input_ids: Tensor, token_type_ids: Optional[Tensor] = None, extra: Optional[Tensor] = None
    ) -> Tensor:
        """Return the states of the tokens, `[batch, tokens, hidden]`.

        input_ids: pixels, `[batch, 3, height, width]` uint8; the other parameters are not used
        """
        if self.training:
            self.masks.restart()
        return self._after(self.encoder.layers, self.embeddings(self.pixels(input_ids)), paddle.zeros([1, 1, 1, 1]))

    def pooled(
        self, input_ids: Tensor, token_type_ids: Optional[Tensor] = None, extra: Optional[Tensor] = None
    ) -> Tensor:
        """Return the vector of each picture, `[batch, hidden]`; arguments as in `PictureTransformer.forward`."""
        states = self(input_ids)
        return self.pooler(states) if self.config.attention_head else states[:, 0]


class _Halving(nn.Conv2D):
    """Convolution of 3 x 3 pixels that halves height and width.

    In training, all pictures of a batch are one matrix product. Paddle's convolution multiplies picture by picture on a
    CPU, which takes twice as long if few pixels are left.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs, 3, stride=2, padding=1)

    def forward(self, pixels: Tensor) -> Tensor:
        if not self.training:
            return nn.Conv2D.forward(self, pixels)  # Paddle 2's graphs know no super() without arguments
        batch, inputs, height, width = pixels.shape
        outputs, sides = self.weight.shape[0], [(height + 1) // 2, (width + 1) // 2]
        windows = F.unfold(pixels, 3, strides=2, paddings=1).transpose([0, 2, 1]).reshape([-1, 9 * inputs])
        products = paddle.matmul(windows, self.weight.reshape([outputs, -1]), transpose_y=True) + self.bias
        return products.reshape([batch, *sides, outputs]).transpose([0, 3, 1, 2])


class Convolutions(_PictureEncoder):
    """Network of four convolutions, small enough to train from scratch.

    Each convolution halves height and width. A norm over groups of channels follows it.
    """

    config: ConvolutionsConfig

    def _make_embeddings(self) -> nn.Layer:
        self.pixels = _Pixels()
        return nn.Layer()

    def _make_layers(self) -> nn.Layer:
        widths = [3, *(self.config.hidden_size // share for share in (8, 4, 2, 1))]
        layers: list[nn.Layer] = []
        for inputs, outputs in zip(widths, widths[1:]):
            layers += [
                _Halving(inputs, outputs),
                nn.GroupNorm(min(8, outputs), outputs, epsilon=self.config.layer_norm_eps),
                nn.ReLU(),
            ]
        return nn.Sequential(*layers)

    def _initialise(self) -> None:
        for layer in self.encoder:
            if isinstance(layer, _Halving):
                nn.initializer.KaimingNormal()(layer.weight)
                nn.initializer.Constant(0.0)(layer.bias)

    def pooled(
        self, input_ids: Tensor, token_type_ids: Optional[Tensor] = None, extra: Optional[Tensor] = None
    ) -> Tensor:
        """Return the vector of each picture, `[batch, hidden]`; arguments as in `PictureTransformer.forward`."""
        hidden = self.pixels(input_ids)
        if self.training:
            hidden = self._altered(hidden)
        for start in range(0, len(self.encoder), _BLOCK):
            block = self.encoder[start : start + _BLOCK]
            # The first block is not recomputed: its input has no gradient, so Paddle would lose that of its weights.
            if self.gradient_checkpointing and self.training and start:
                hidden = recompute(block, hidden, preserve_rng_state=False)
            else:
                hidden = block(hidden)
        return hidden.mean([2, 3])

    def _altered(self, pixels: Tensor) -> Tensor:
        """Augment pictures in training: change colour, angle, position and scale at random.

        pixels: `[batch, 3, height, width]`
        """
        rng = np.random.default_rng(self.masks.draw())
        rows = len(pixels)
        angle, (width, height) = rng.uniform(-0.25, 0.25, rows), rng.uniform(0.85, 1.25, (2, rows))
        places = np.stack([
            np.stack([width * np.cos(angle), -height * np.sin(angle), rng.uniform(-0.15, 0.15, rows)], 1),
            np.stack([width * np.sin(angle), height * np.cos(angle), rng.uniform(-0.15, 0.15, rows)], 1),
        ], 1).astype(np.float32)  # fmt: skip
        grid = F.affine_grid(paddle.to_tensor(places), pixels.shape, align_corners=False)
        moved = F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
        factor, shift = rng.uniform(0.6, 1.3, (rows, 3, 1, 1)), rng.uniform(-0.2, 0.2, (rows, 3, 1, 1))
        return moved * paddle.to_tensor(factor.astype(np.float32)) + paddle.to_tensor(shift.astype(np.float32))


class _TextEmbeddings(nn.Layer):
    def __init__(self, config: PictureTextConfig):
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor, extra: Optional[Tensor]) -> Tensor:
        places = paddle.cumsum(paddle.ones_like(input_ids), axis=1) - paddle.ones_like(input_ids)
        hidden = self.word_embeddings(input_ids) + self.position_embeddings(places)
        return hidden if extra is None else hidden + extra


class PictureTextEncoder(Encoder):
    """CLIP's or SigLIP's encoder of texts."""

    config: PictureTextConfig

    def _make_embeddings(self) -> nn.Layer:
        return _TextEmbeddings(self.config)

    def _make_pooler(self) -> nn.Layer:
        return nn.Layer() if self.config.causal else nn.Linear(self.config.hidden_size, self.config.hidden_size)

    def _mask(self, input_ids: Tensor) -> Tensor:
        if not self.config.causal:
            return paddle.zeros([1, 1, 1, 1])
        places = paddle.cumsum(paddle.ones_like(input_ids[0]), axis=0)
        is_later = places.unsqueeze(0) > places.unsqueeze(1)
        return (is_later.astype("float32") * MASKED).unsqueeze([0, 1])

    def _whole(self, input_ids: Tensor) -> Tensor:
        """Pad ids to all positions if the encoder's results depend on padding; else return the ids unchanged."""
        if self.config.causal:
            return input_ids
        longest = self.config.max_position_embeddings
        padding = paddle.zeros_like(input_ids[:, :1]).expand([-1, longest]) + paddle.full(
            [1], self.config.pad_token_id, "int64"
        )
        return paddle.concat([input_ids, padding], axis=1)[:, :longest]

    def pooled(self, input_ids: Tensor, token_type_ids: Tensor, extra: Optional[Tensor] = None) -> Tensor:
        """Return the vector of each text, `[batch, hidden]`; arguments as in `Encoder.forward`."""
        input_ids = self._whole(input_ids + 0 * token_type_ids)
        states = self(input_ids, paddle.zeros_like(input_ids), extra)
        if not self.config.causal:
            return self.pooler(states[:, -1])
        is_end = (input_ids == self.config.eos_token_id).astype("int64")
        is_first = is_end * (paddle.cumsum(is_end, axis=1) == 1).astype("int64")
        return paddle.matmul(is_first.astype(states.dtype).unsqueeze(1), states)[:, 0]
