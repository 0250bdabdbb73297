"""Configurations of networks of pictures, and of texts to compare with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from paddle_ranker.model.config import Activation, EncoderConfig, Share
from paddle_ranker.storage.declared import Between, Count, Length, Positive
from paddle_ranker.storage.untrusted import UncheckedObject

# Published models, by transformers' names, that have also a tower of texts; all published models.
WITH_TEXTS = ("clip", "chinese_clip", "siglip")
MODEL_TYPES = (*WITH_TEXTS, "vit")
_IDLE = """
image_processor_type feature_extractor_type processor_class data_format input_data_format return_tensors device
disable_grouping default_to_square do_convert_rgb _valid_processor_keys auto_map image_seq_length
"""
IDLE = frozenset(_IDLE.split())  # keys of processors that change no pixels by themselves
GRID = 4  # numbers of a patch's place in ViLT: its row and column, and the picture's counts of rows and columns


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


@dataclass(frozen=True)
class ViltConfig(EncoderConfig):
    """Configuration of ViLT, which reads a text and the patches of a picture.

    image_size: side in pixels of the square picture whose patches have learned positions
    patch_size: side of a patch in pixels
    shortest_edge: shorter side in pixels to which pictures are scaled
    size_divisor: number of pixels, a multiple of `patch_size`, of which the sides of scaled pictures are multiples
    resample: Pillow's number of the filter that scales pictures
    """

    max_position_embeddings: Positive = 40
    normalize_before: bool = True
    image_size: Length = 384
    patch_size: Annotated[int, Between(1, 64)] = 32
    modality_type_vocab_size: Annotated[int, Between(2, 16)] = 2
    shortest_edge: Length = 384
    size_divisor: Length = 32
    resample: Annotated[int, Between(0, 5)] = 3

    @property
    def place_limits(self) -> tuple[int, ...]:
        """Exclusive upper limits: of a patch's row and column, a picture's number of rows and columns, and pixels."""
        most = 2 * self.shortest_edge // self.patch_size + 1
        return (most,) * GRID + (256,) * (3 * self.patch_size**2)

    @property
    def longest_pair(self) -> int:
        """Maximum length of a pair in tokens: of the text, of the whole picture (one token), and of its patches."""
        return self.max_position_embeddings + self.picture_tokens

    @property
    def longest_edge(self) -> int:
        """Maximum longer side in pixels of a scaled picture, as in transformers."""
        return int(1333 / 800 * self.shortest_edge)

    @property
    def picture_tokens(self) -> int:
        """Maximum number of tokens of a picture: one of the whole, and one of each patch."""
        return 1 + (self.shortest_edge // self.patch_size) * (self.longest_edge // self.patch_size)

    def files(self) -> dict[str, UncheckedObject]:
        """Return `preprocessor_config.json`, by which transformers scales pictures."""
        moments = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "rescale_factor": 1 / 255}
        return {"preprocessor_config.json": {
            "image_processor_type": "ViltImageProcessor", "do_resize": True, "do_rescale": True, "do_normalize": True,
            "do_pad": True, "size": {"shortest_edge": self.shortest_edge}, "size_divisor": self.size_divisor,
            "resample": self.resample, **moments,
        }}  # fmt: skip
