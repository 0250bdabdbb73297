"""LayoutLM and LiLT, whose tokens have boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.encoding.tokenizers.interface import ModelTokenizer
from paddle_ranker.errors import CheckpointError
from paddle_ranker.model.config import EncoderConfig
from paddle_ranker.model.encoders.family import (
    BERT_FIELDS,
    BERT_LINEAR,
    BERT_PLAIN,
    POOLER,
    TWO_LAYERS,
    Encodes,
    add_family,
    added_fields,
    check_bert,
    network_of,
)
from paddle_ranker.model.hugging_face.architectures import Architecture, Names
from paddle_ranker.storage.declared import MOST, Between, Positive


@dataclass(frozen=True)
class LayoutLMConfig(EncoderConfig):
    """Configuration of LayoutLM, whose tokens have boxes with coordinates from 0 to 1,000."""

    max_2d_position_embeddings: Annotated[int, Between(1001, MOST)] = 1024

    @property
    def place_limits(self) -> tuple[int, ...]:
        """Exclusive upper limits of a box's left, top, right and bottom."""
        return (self.max_2d_position_embeddings,) * 4


@dataclass(frozen=True)
class LiltConfig(LayoutLMConfig):
    """Configuration of LiLT, whose tokens have a second, narrower state, the layout, for their boxes.

    channel_shrink_ratio: width of a token's state divided by that of its layout
    """

    channel_shrink_ratio: Positive = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden_size % 6 or (self.hidden_size // self.num_attention_heads) % self.channel_shrink_ratio:
            raise CheckpointError(
                f"hidden_size {self.hidden_size}, num_attention_heads {self.num_attention_heads}, "
                f"channel_shrink_ratio {self.channel_shrink_ratio}: expected a multiple of 6, and heads whose width is "
                "a multiple of channel_shrink_ratio"
            )

    @property
    def layout_size(self) -> int:
        """Size of the vector that a LiLT computes of a token's box, in each layer."""
        return self.hidden_size // self.channel_shrink_ratio


def _boxed(*, last_corner: bool) -> Encodes:
    """Return a function that creates an encoder with boxes; its separators have the last corner or the first."""

    def encoder(files: ModelTokenizer, max_seq_length: int, config: EncoderConfig) -> PairEncoder:
        from paddle_ranker.layouts.boxed_pairs import SIDE, BoxedPairEncoder

        return BoxedPairEncoder(files, max_seq_length, SIDE if last_corner else 0)

    return encoder


_BOX_TABLES = {
    f"embeddings.{side}_position_embeddings": f"embeddings.{side}_position_embeddings" for side in ("x", "y", "h", "w")
}


add_family(
    "layoutlm",
    "LayoutLM",
    Architecture(
        Names({**BERT_PLAIN, **_BOX_TABLES}, {**BERT_LINEAR, **POOLER}, "layoutlm"),
        {**BERT_FIELDS, **added_fields(LayoutLMConfig)},
        check_bert,
    ),
    network_of("paddle_ranker.layouts.networks", "LayoutLMEncoder"),
    LayoutLMConfig,
    # transformers' tokenizer of LayoutLMv2 and the models' authors give separators the last corner
    _boxed(last_corner=True),
)


add_family(
    "lilt",
    "Lilt",
    Architecture(
        Names(
            {
                **BERT_PLAIN,
                **{f"layout_{name}": ours for name, ours in _BOX_TABLES.items()},
                "layout_embeddings.box_position_embeddings": "embeddings.box_position_embeddings",
                "layout_embeddings.LayerNorm": "embeddings.layout_norm",
                "encoder.layer.{}.attention.layout_output.LayerNorm": "encoder.layers.{}.layout_norm1",
                "encoder.layer.{}.layout_output.LayerNorm": "encoder.layers.{}.layout_norm2",
            },
            {
                **BERT_LINEAR,
                **POOLER,
                "layout_embeddings.box_linear_embeddings": "embeddings.box_linear_embeddings",
                "encoder.layer.{}.attention.self.layout_query": "encoder.layers.{}.self_attn.layout_q",
                "encoder.layer.{}.attention.self.layout_key": "encoder.layers.{}.self_attn.layout_k",
                "encoder.layer.{}.attention.self.layout_value": "encoder.layers.{}.self_attn.layout_v",
                "encoder.layer.{}.attention.layout_output.dense": "encoder.layers.{}.self_attn.layout_out",
                "encoder.layer.{}.layout_intermediate.dense": "encoder.layers.{}.layout_linear1",
                "encoder.layer.{}.layout_output.dense": "encoder.layers.{}.layout_linear2",
            },
            "lilt",
            TWO_LAYERS,
        ),
        {**BERT_FIELDS, **added_fields(LiltConfig)},
        check_bert,
    ),
    network_of("paddle_ranker.layouts.networks", "LiltEncoder"),
    LiltConfig,
    _boxed(last_corner=False),
)
