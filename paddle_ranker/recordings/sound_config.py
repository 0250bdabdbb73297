"""Configuration of networks of sounds, as `sound_models.py` reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from paddle_ranker.errors import CheckpointError
from paddle_ranker.model.config import Activation, EncoderConfig, Share
from paddle_ranker.storage.declared import Between, Count, Length, OneOf, Positive

MODEL_TYPES = ("wav2vec2", "hubert")
_Sizes = Annotated[tuple[Positive, ...], Between(1, 64)]


@dataclass(frozen=True)
class SoundConfig(EncoderConfig):
    """Configuration of wav2vec 2.0 and HuBERT: convolutions over samples, then a transformer over their frames.

    conv_dim: output channels of each convolution
    conv_kernel: width of each convolution, in samples or in frames of the convolution before
    conv_stride: step of each convolution
    conv_bias: whether the convolutions have a bias
    conv_act: the activation after each convolution
    feat_extract_norm: "group": the first convolution's channels are normalised over time; "layer": each convolution's
        frames are normalised over channels
    feat_proj_layer_norm: whether a norm precedes the linear layer between convolutions and transformer
    num_conv_pos_embeddings, num_conv_pos_embedding_groups: width and groups of the convolution that adds positions
    conv_pos_batch_norm: whether frames are scaled and shifted before the convolution that adds positions
    """

    vocab_size: Count = 0
    type_vocab_size: Count = 0
    hidden_dropout_prob: Share = 0.1
    layer_norm_eps: float = 1e-5
    conv_dim: _Sizes = (512,) * 7
    conv_kernel: _Sizes = (10, 3, 3, 3, 3, 2, 2)
    conv_stride: _Sizes = (5, 2, 2, 2, 2, 2, 2)
    conv_bias: bool = False
    conv_act: Activation = "gelu"
    feat_extract_norm: Annotated[str, OneOf("group", "layer")] = "group"
    feat_proj_layer_norm: bool = True
    num_conv_pos_embeddings: Length = 128
    num_conv_pos_embedding_groups: Length = 16
    conv_pos_batch_norm: bool = False
    has_tanh_pooler: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not len(self.conv_dim) == len(self.conv_kernel) == len(self.conv_stride):
            raise CheckpointError(
                f"conv_dim, conv_kernel and conv_stride are of {len(self.conv_dim)}, {len(self.conv_kernel)} and "
                f"{len(self.conv_stride)} convolutions; they must be of as many"
            )
        if self.hidden_size % self.num_conv_pos_embedding_groups:
            raise CheckpointError(
                f"hidden_size {self.hidden_size} is not a multiple of num_conv_pos_embedding_groups "
                f"{self.num_conv_pos_embedding_groups}"
            )

    @property
    def estimated_parameters(self) -> int:
        inputs = (1, *self.conv_dim)
        convolutions = sum(a * b * size for a, b, size in zip(inputs, self.conv_dim, self.conv_kernel))
        layer = 4 * self.hidden_size + 2 * self.intermediate_size
        positions = self.hidden_size * self.num_conv_pos_embeddings // self.num_conv_pos_embedding_groups
        return convolutions + self.hidden_size * (self.conv_dim[-1] + positions + self.num_hidden_layers * layer)
