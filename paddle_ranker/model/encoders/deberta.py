"""DeBERTa-v2 and -v3: attention by content and by relative position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from paddle_ranker.model.config import Activation, EncoderConfig
from paddle_ranker.model.encoders.family import (
    BERT_FIELDS,
    BERT_LINEAR,
    BERT_PLAIN,
    POOLER,
    add_family,
    added_fields,
    head_size,
    network_of,
)
from paddle_ranker.model.hugging_face.architectures import PLAIN, Architecture, Names, Values
from paddle_ranker.storage.declared import LONGEST, Between, Count, OneOf, Positive
from paddle_ranker.storage.foreign_config import ForeignConfig
from paddle_ranker.storage.untrusted import UncheckedObject

_Offset = Annotated[int, Between(-1, LONGEST)]  # -1: not stated


@dataclass(frozen=True)
class DebertaConfig(EncoderConfig):
    """Configuration of DeBERTa-v2 and -v3: attention by content and by relative position, in logarithmic buckets.

    pos_att_type: "c2p" (content to position), "p2c" (position to content), or both
    share_att_key: whether the content's query and key projections also project the positions
    norm_rel_ebd: "layer_norm" or "none", for the embeddings of relative positions
    position_biased_input: whether the input also has embeddings of absolute positions
    conv_kernel_size: kernel size of the convolution beside the first layer; 0: no convolution
    """

    type_vocab_size: Count = 0
    layer_norm_eps: float = 1e-7
    relative_attention: bool = False
    max_relative_positions: _Offset = -1
    position_buckets: _Offset = -1
    norm_rel_ebd: str = "none"
    share_att_key: bool = False
    position_biased_input: bool = True
    pos_att_type: tuple[Annotated[str, OneOf("c2p", "p2c")], ...] = ()
    conv_kernel_size: Count = 0
    conv_act: Activation = "tanh"
    conv_groups: Positive = 1
    embedding_size: Count = 0
    pooler_hidden_act: Activation = "gelu"
    has_tanh_pooler: ClassVar[bool] = False

    @classmethod
    def from_dict(cls, values: UncheckedObject) -> EncoderConfig:
        """Create a configuration as the base class does; `pos_att_type` may also be a string, "p2c|c2p"."""
        kinds = values.get("pos_att_type")
        kinds = [kind.strip() for kind in kinds.lower().split("|")] if isinstance(kinds, str) else kinds
        return super().from_dict({**values, "pos_att_type": kinds})

    @property
    def has_rel_norm(self) -> bool:
        """Whether embeddings of relative positions pass through LayerNorm."""
        return self.relative_attention and self.norm_rel_ebd == "layer_norm"

    @property
    def unused(self) -> tuple[str, ...]:
        """Endings of names of parameters that this network does not use, though transformers' files may have them."""
        parameters = {
            "embeddings.position_embeddings": self.position_biased_input,
            "encoder.rel_embeddings": self.relative_attention,
            "encoder.rel_norm": self.has_rel_norm,
        }
        return tuple(name for name, is_used in parameters.items() if not is_used)

    @property
    def span(self) -> int:
        """Maximum distance of relative positions, to the left and to the right."""
        if self.position_buckets > 0:
            return self.position_buckets
        return self.max_relative_positions if self.max_relative_positions > 0 else self.max_position_embeddings


def _check_deberta(settings: ForeignConfig, values: Values) -> None:
    settings.require("talking_head", False, remedy=PLAIN)
    usual = head_size(values["hidden_size"], values["num_attention_heads"])
    settings.require("attention_head_size", usual, remedy=PLAIN)
    settings.require("pooler_hidden_size", values["hidden_size"], remedy=PLAIN)
    values["norm_rel_ebd"] = str(values["norm_rel_ebd"]).lower()
    if values["norm_rel_ebd"] not in ("none", "layer_norm"):
        settings.require("norm_rel_ebd", "none", "layer_norm", remedy=PLAIN)


add_family(
    "deberta-v2",
    "DebertaV2",
    Architecture(
        Names(
            {
                **BERT_PLAIN,
                "encoder.rel_embeddings": "encoder.rel_embeddings",
                "encoder.LayerNorm": "encoder.rel_norm",
                "encoder.conv.conv": "encoder.conv.conv",
                "encoder.conv.LayerNorm": "encoder.conv.norm",
            },
            {
                **{name: ours for name, ours in BERT_LINEAR.items() if ".self." not in name},
                "encoder.layer.{}.attention.self.query_proj": "encoder.layers.{}.self_attn.q_proj",
                "encoder.layer.{}.attention.self.key_proj": "encoder.layers.{}.self_attn.k_proj",
                "encoder.layer.{}.attention.self.value_proj": "encoder.layers.{}.self_attn.v_proj",
                "encoder.layer.{}.attention.self.pos_key_proj": "encoder.layers.{}.self_attn.pos_k_proj",
                "encoder.layer.{}.attention.self.pos_query_proj": "encoder.layers.{}.self_attn.pos_q_proj",
                "embeddings.embed_proj": "embeddings.project",
            },
            "deberta",
            {**POOLER, "classifier": "classifier"},
        ),
        {
            **BERT_FIELDS,
            "hidden_size": 1536,
            "num_hidden_layers": 24,
            "num_attention_heads": 24,
            "intermediate_size": 6144,
            "type_vocab_size": 0,
            "layer_norm_eps": 1e-7,
            **added_fields(DebertaConfig),
            "embedding_size": None,
        },
        _check_deberta,
        without_effect=frozenset({"pooler_dropout", "cls_dropout", "legacy", "position_embedding_type"}),
    ),
    network_of("deberta", "DebertaEncoder"),
    DebertaConfig,
)
