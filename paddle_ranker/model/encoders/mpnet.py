"""MPNet: attention with biases by relative position."""

from __future__ import annotations

from dataclasses import dataclass

from paddle_ranker.model.config import EncoderConfig
from paddle_ranker.model.encoders.family import (
    BERT_LINEAR,
    POOLER,
    ROBERTA_FIELDS,
    TABLES,
    TWO_LAYERS,
    add_family,
    network_of,
)
from paddle_ranker.model.hugging_face.architectures import PLAIN, Architecture, Names, Values
from paddle_ranker.storage.declared import Count
from paddle_ranker.storage.foreign_config import ForeignConfig


@dataclass(frozen=True)
class MPNetConfig(EncoderConfig):
    """Configuration of MPNet: no token types, and attention biases by relative position, shared by all layers."""

    type_vocab_size: Count = 0
    pad_token_id: Count = 1


def _check_mpnet(settings: ForeignConfig, values: Values) -> None:
    settings.require("relative_attention_num_buckets", 32, remedy=PLAIN)
    settings.require("pad_token_id", 1, remedy=PLAIN)


add_family(
    "mpnet",
    "MPNet",
    Architecture(
        Names(
            {
                **TABLES,
                "encoder.layer.{}.attention.LayerNorm": "encoder.layers.{}.norm1",
                "encoder.layer.{}.output.LayerNorm": "encoder.layers.{}.norm2",
                "encoder.relative_attention_bias": "encoder.relative_attention_bias",
            },
            {
                **{name: ours for name, ours in BERT_LINEAR.items() if ".attention." not in name},
                "encoder.layer.{}.attention.attn.q": "encoder.layers.{}.self_attn.q_proj",
                "encoder.layer.{}.attention.attn.k": "encoder.layers.{}.self_attn.k_proj",
                "encoder.layer.{}.attention.attn.v": "encoder.layers.{}.self_attn.v_proj",
                "encoder.layer.{}.attention.attn.o": "encoder.layers.{}.self_attn.out_proj",
                **POOLER,
            },
            "mpnet",
            TWO_LAYERS,
        ),
        {name: default for name, default in ROBERTA_FIELDS.items() if name != "type_vocab_size"},
        _check_mpnet,
        without_effect=frozenset({"position_embedding_type", "type_vocab_size"}),
    ),
    network_of("bert", "MPNetEncoder"),
    MPNetConfig,
)
