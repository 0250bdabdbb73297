"""Qwen3, a causal decoder, and the chat into which its rerankers put a pair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from paddle_ranker.encoding.pair_encoder import INSTRUCTION, InstructedPairEncoder, PairEncoder
from paddle_ranker.encoding.tokenizers.interface import ModelTokenizer
from paddle_ranker.errors import CheckpointError, quoted
from paddle_ranker.model.config import Activation, EncoderConfig, Share
from paddle_ranker.model.encoders.family import add_family, added_fields, network_of, rotary_base
from paddle_ranker.model.hugging_face.architectures import PLAIN, Architecture, Names, Values
from paddle_ranker.storage.declared import Between, Count, Positive
from paddle_ranker.storage.foreign_config import ForeignConfig


@dataclass(frozen=True)
class Qwen3Config(EncoderConfig):
    """Configuration of Qwen3, a causal decoder: rotary positions, norms of queries and keys, gated feed-forward layers.

    num_key_value_heads: number of heads of keys and values; each serves an equal number of query heads
    head_dim: size of a head, independent of the width of the states
    attention_bias: whether the projections of the attention have a bias
    instruction: instruction of the chat of Qwen3-Reranker into which pairs are put; "": a title follows its query
        without a chat
    """

    type_vocab_size: Count = 0
    hidden_act: Activation = "silu"
    hidden_dropout_prob: Share = 0.0
    attention_probs_dropout_prob: Share = 0.0
    max_position_embeddings: Positive = 32768
    layer_norm_eps: float = 1e-6
    num_key_value_heads: Positive = 32
    head_dim: Positive = 128
    rope_theta: Annotated[float, Between(1, 1e12)] = 10000.0
    attention_bias: bool = False
    instruction: str = INSTRUCTION
    has_tanh_pooler: ClassVar[bool] = False
    heads_share_width: ClassVar[bool] = False
    shares_queries: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        heads, shared = self.num_attention_heads, self.num_key_value_heads
        if heads % shared or self.head_dim % 2:
            raise CheckpointError(
                f"num_attention_heads {heads}, num_key_value_heads {shared}, head_dim {self.head_dim}: expected a "
                "multiple of num_key_value_heads, and an even head_dim"
            )

    @property
    def estimated_parameters(self) -> int:
        attention = 2 * (self.num_attention_heads + self.num_key_value_heads) * self.head_dim
        layer = attention + 3 * self.intermediate_size
        table = self.max_position_embeddings * self.head_dim
        return self.hidden_size * (self.vocab_size + self.num_hidden_layers * layer) + table


def _of_chats(files: ModelTokenizer, max_seq_length: int, config: EncoderConfig) -> PairEncoder:
    assert isinstance(config, Qwen3Config)
    if not config.instruction:
        return PairEncoder(files, max_seq_length)
    return InstructedPairEncoder(files, max_seq_length, config.instruction)


def _check_qwen3(settings: ForeignConfig, values: Values) -> None:
    name = "rope_scaling" if settings.get("rope_scaling") else "rope_parameters"
    values["rope_theta"] = rotary_base(settings.inner(name), values["rope_theta"])
    if settings.states_null("num_key_value_heads"):  # not the default of the missing key
        values["num_key_value_heads"] = values["num_attention_heads"]
    settings.require("use_sliding_window", False, remedy=PLAIN)
    settings.require("is_causal", True, remedy=PLAIN)  # False: tokens also attend to those after them
    kinds = settings.get("layer_types", [])
    if not isinstance(kinds, list) or any(kind != "full_attention" for kind in kinds):
        raise settings.error(f"layer_types are {quoted(kinds)}: full attention in all layers is done here")


add_family(
    "qwen3",
    "Qwen3",
    Architecture(
        Names(
            {
                "embed_tokens": "embeddings.word_embeddings",
                "layers.{}.input_layernorm": "encoder.layers.{}.norm1",
                "layers.{}.post_attention_layernorm": "encoder.layers.{}.norm2",
                "norm": "encoder.norm",
                "layers.{}.self_attn.q_norm": "encoder.layers.{}.self_attn.q_norm",
                "layers.{}.self_attn.k_norm": "encoder.layers.{}.self_attn.k_norm",
                # These are not transposed, since the network has transformers' layout of these matrices.
                "layers.{}.self_attn.q_proj": "encoder.layers.{}.self_attn.q_proj",
                "layers.{}.self_attn.k_proj": "encoder.layers.{}.self_attn.k_proj",
                "layers.{}.self_attn.v_proj": "encoder.layers.{}.self_attn.v_proj",
                "layers.{}.self_attn.o_proj": "encoder.layers.{}.self_attn.out_proj",
                "layers.{}.mlp.gate_proj": "encoder.layers.{}.gate_proj",
                "layers.{}.mlp.up_proj": "encoder.layers.{}.up_proj",
                "layers.{}.mlp.down_proj": "encoder.layers.{}.down_proj",
            },
            {},
            "model",
            {"score": "classifier"},
            head_has_bias=False,
        ),
        {
            "vocab_size": None,
            "hidden_size": 4096,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "intermediate_size": 22016,
            "hidden_act": "silu",
            "attention_dropout": 0.0,
            "max_position_embeddings": 32768,
            "initializer_range": 0.02,
            "rms_norm_eps": 1e-6,
            "pad_token_id": None,
            **{name: default for name, default in added_fields(Qwen3Config).items() if name != "instruction"},
        },
        _check_qwen3,
        ours={"rms_norm_eps": "layer_norm_eps", "attention_dropout": "attention_probs_dropout_prob"},
        without_effect=frozenset({"sliding_window", "max_window_layers", "layer_norm_eps"}),
        checked=frozenset({"is_causal", "rope_scaling"}),
        answers=True,
    ),
    network_of("qwen3", "Qwen3Encoder"),
    Qwen3Config,
    _of_chats,
)
