"""Networks that read sounds: wav2vec 2.0 (Baevski et al., 2020) and HuBERT (Hsu et al., 2021).

Convolutions turn samples into frames, about 50 a second, and a transformer reads the frames. A sound's states do not
depend on the other sounds of its batch: padding changes no state, not even where a norm runs over time.
"""

from __future__ import annotations

from typing import Optional

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from paddle_ranker.array_types import Array
from paddle_ranker.model.networks.attention import MASKED
from paddle_ranker.model.networks.bert import Encoder, activation_named
from paddle_ranker.model.networks.dropout import Dropout, Masks
from paddle_ranker.recordings.sound_config import SoundConfig

_EPSILON = 1e-5  # added to the variance by the norms of convolutions


class _Convolution(nn.Conv1D):
    """Convolution of frames `[batch, channels, 1, frames]`.

    `nn.Conv1D` adds and takes the third axis around each convolution, and engines then reorder the numbers each time.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        bias: bool = True,
    ):
        super().__init__(inputs, outputs, kernel, groups=groups, bias_attr=None if bias else False)
        self.stride, self.padding, self.groups = [1, stride], [0, padding], groups

    def forward(self, frames: Tensor) -> Tensor:
        return F.conv2d(frames, self.weight.unsqueeze(2), self.bias, self.stride, self.padding, groups=self.groups)


class _NormOverTime(nn.Layer):
    """Norm of each channel over the frames of a sound, without padding; `GroupNorm` with a group per channel."""

    def __init__(self, channels: int):
        super().__init__()
        one = nn.initializer.Constant(1.0)
        self.weight = self.create_parameter([channels], default_initializer=one)
        self.bias = self.create_parameter([channels], is_bias=True)

    def forward(self, frames: Tensor, is_frame: Tensor) -> Tensor:
        share = (is_frame / is_frame.sum(axis=1, keepdim=True)).unsqueeze(2)
        frames = frames - paddle.matmul(frames, share)
        variance = paddle.matmul(frames * frames, share)
        # Paddle Inference 2.6 computes weight / root wrongly.
        frames = frames / paddle.sqrt(variance + _EPSILON)
        return frames * self.weight.unsqueeze([0, 2]) + self.bias.unsqueeze([0, 2])


class _SoundConvolution(nn.Layer):
    """Convolution over samples (`number` 0) or over the frames of the convolution before; with norm and activation."""

    def __init__(self, config: SoundConfig, number: int):
        super().__init__()
        inputs = config.conv_dim[number - 1] if number else 1
        size, kernel, stride = (sizes[number] for sizes in (config.conv_dim, config.conv_kernel, config.conv_stride))
        self.conv = _Convolution(inputs, size, kernel, stride, bias=config.conv_bias)
        self.kernel, self.stride = kernel, stride
        self.over_time = config.feat_extract_norm == "group" and number == 0
        self.over_channels = config.feat_extract_norm == "layer"
        if self.over_time:
            self.norm = _NormOverTime(size)
        elif self.over_channels:
            self.norm = nn.LayerNorm(size, epsilon=_EPSILON)
        self.activation = activation_named(config.conv_act)

    def forward(self, frames: Tensor, is_frame: Tensor) -> tuple[Tensor, Tensor]:
        frames = self.conv(frames)
        # A frame belongs to the sound if its last sample does.
        is_frame = is_frame[:, self.kernel - 1 :: self.stride]
        if self.over_time:
            frames = self.norm(frames.squeeze(2), is_frame).unsqueeze(2)
        elif self.over_channels:
            frames = self.norm(frames.transpose([0, 2, 3, 1])).transpose([0, 3, 1, 2])
        return self.activation(frames), is_frame


class _Positions(nn.Layer):
    """Convolution over frames that encodes a frame's position; its output is added to the frames."""

    def __init__(self, config: SoundConfig):
        super().__init__()
        size, kernel = config.hidden_size, config.num_conv_pos_embeddings
        if config.conv_pos_batch_norm:
            self.scale = self.create_parameter([size], default_initializer=nn.initializer.Constant(1.0))
            self.shift = self.create_parameter([size], is_bias=True)
        groups = config.num_conv_pos_embedding_groups
        self.conv = _Convolution(size, size, kernel, padding=kernel // 2, groups=groups)
        self.activation, self.config = activation_named(config.conv_act), config

    def forward(self, hidden: Tensor, is_frame: Tensor) -> Tensor:
        hidden = hidden * is_frame
        if self.config.conv_pos_batch_norm:
            hidden = hidden * self.scale + self.shift * is_frame
        positions = self.conv(hidden.transpose([0, 2, 1]).unsqueeze(2)).squeeze(2)
        if self.config.num_conv_pos_embeddings % 2 == 0:  # the convolution returns one frame too many
            positions = positions[:, :, :-1]
        return self.activation(positions).transpose([0, 2, 1])


class _Frames(nn.Layer):
    """Convolutions from samples to frames, a linear layer, and positions: the input of the transformer."""

    def __init__(self, config: SoundConfig, masks: Masks):
        super().__init__()
        last, size = config.conv_dim[-1], config.hidden_size
        self.convolutions = nn.LayerList([_SoundConvolution(config, number) for number in range(len(config.conv_dim))])
        if config.feat_proj_layer_norm:
            self.norm = nn.LayerNorm(last, epsilon=config.layer_norm_eps)
        self.projection = nn.Linear(last, size)
        self.positions = _Positions(config)
        if not config.normalize_before:
            self.layer_norm = nn.LayerNorm(size, epsilon=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob, masks)
        self.config = config

    def forward(self, samples: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the frames, `[batch, frames, hidden]`, and a mask, `[batch, frames]`: 1 for frames, 0 for padding.

        samples, lengths: as `input_ids` and `token_type_ids` in `SoundTransformer.forward`
        """
        # cumsum, unlike arange(length), exports with a dynamic length
        places = paddle.cumsum(paddle.ones_like(samples).astype("int64"), axis=1)
        is_frame = (places <= lengths.reshape([-1, 1])).astype("float32")
        frames = samples.unsqueeze([1, 2])
        for convolution in self.convolutions:
            frames, is_frame = convolution(frames, is_frame)
        frames = frames.squeeze(2).transpose([0, 2, 1])
        hidden = self.projection(self.norm(frames) if self.config.feat_proj_layer_norm else frames)
        hidden = hidden + self.positions(hidden, is_frame.unsqueeze(2))
        return self.dropout(hidden if self.config.normalize_before else self.layer_norm(hidden)), is_frame


class SoundTransformer(Encoder):
    """wav2vec 2.0's and HuBERT's encoder of samples."""

    config: SoundConfig
    embeddings_class = _Frames

    def _make_pooler(self) -> nn.Layer:
        return nn.Layer()

    def _states(self, samples: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        if self.training:
            self.masks.restart()
        hidden, is_frame = self.embeddings(samples, lengths)
        mask = ((1.0 - is_frame) * MASKED).unsqueeze([1, 2])
        return self._after(self.encoder.layers, hidden, mask), is_frame

    def forward(self, input_ids: Tensor, token_type_ids: Tensor, extra: Optional[Tensor] = None) -> Tensor:
        """Return the states of the frames, `[batch, frames, hidden]`.

        input_ids: samples, `[batch, samples]` float32, with padding after each sound
        token_type_ids: number of samples of each sound, `[batch]` int64
        extra: not used
        """
        return self._states(input_ids, token_type_ids)[0]

    def pooled(self, input_ids: Tensor, token_type_ids: Tensor, extra: Optional[Tensor] = None) -> Tensor:
        """Return the mean of the frames' states, `[batch, hidden]`; arguments as in `SoundTransformer.forward`."""
        states, is_frame = self._states(input_ids, token_type_ids)
        share = is_frame / is_frame.sum(axis=1, keepdim=True)
        return paddle.matmul(share.unsqueeze(1), states)[:, 0]


class SpeechNetwork(nn.Layer):
    """Encoder of sounds with a head that spells speech, by connectionist temporal classification (CTC).

    weight, bias: parameters of the head, `[hidden, letters]` and `[letters]`
    """

    def __init__(self, encoder: SoundTransformer, weight: Array, bias: Array):
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(*weight.shape)
        self.head.weight.set_value(weight)
        self.head.bias.set_value(bias)

    def forward(self, samples: Tensor, lengths: Tensor) -> Tensor:
        """Return the logits of the letters in each frame, `[batch, frames, letters]`.

        samples, lengths: as `input_ids` and `token_type_ids` in `SoundTransformer.forward`
        """
        return self.head(self.encoder(samples, lengths))
