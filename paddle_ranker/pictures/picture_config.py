"""Configurations of networks of pictures, and of texts to compare with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from paddle_ranker.model.config import Activation, EncoderConfig, Share
from paddle_ranker.storage.declared import Count, Length, Positive

# Published models, by transformers' names, that have also a tower of texts; all published models.
WITH_TEXTS = ("clip", "chinese_clip", "siglip")
MODEL_TYPES = (*WITH_TEXTS, "vit")


@dataclass(frozen=True)
class PictureTextConfig(EncoderConfig):
    """Configuration of CLIP's and SigLIP's encoders of texts.

    causal: True in CLIP: a token attends to itself and earlier tokens, and the vector is the state of the first
        `eos_token_id`. False in SigLIP: texts are padded to `max_position_embeddings`, and the vector is the state of
        the last position
    """

    type_vocab_size: Count = 0
    hidden_act: Activation = "quick_gelu"
    hidden_dropout_prob: Share = 0.0
    attention_probs_dropout_prob: Share = 0.0
    max_position_embeddings: Positive = 77
    layer_norm_eps: float = 1e-5
    normalize_before: bool = True
    causal: bool = True
    eos_token_id: Count = 49407


@dataclass(frozen=True)
class PictureConfig(EncoderConfig):
    """Configuration of a transformer over the patches of a picture: ViT, CLIP, SigLIP.

    image_size, patch_size: sides of pictures and of patches in pixels
    class_token: whether a learned token precedes the patches; its state is then the vector
    patch_bias: whether the projection of the patches has a bias
    norm_before_layers: whether a norm precedes the first layer
    attention_head: whether the vector is computed by a learned query that attends to the patches
    """

    vocab_size: Count = 0
    type_vocab_size: Count = 0
    hidden_dropout_prob: Share = 0.0
    attention_probs_dropout_prob: Share = 0.0
    layer_norm_eps: float = 1e-5
    normalize_before: bool = True
    image_size: Length = 224
    patch_size: Length = 32
    class_token: bool = True
    patch_bias: bool = False
    norm_before_layers: bool = False
    attention_head: bool = False
    has_tanh_pooler: ClassVar[bool] = False

    @property
    def positions(self) -> int:
        """Number of tokens of a picture."""
        return (self.image_size // self.patch_size) ** 2 + int(self.class_token)


@dataclass(frozen=True)
class ConvolutionsConfig(PictureConfig):
    """Configuration of a network of four convolutions; the last has `hidden_size` channels."""

    model_type: str = "convolutions"
    hidden_size: Positive = 384
    num_hidden_layers: Positive = 4
    num_attention_heads: Positive = 1
    image_size: Length = 64

    @property
    def estimated_parameters(self) -> int:
        return 5 * self.hidden_size**2
