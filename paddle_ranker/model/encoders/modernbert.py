"""ModernBERT: rotary positions, local attention in most layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from paddle_ranker.errors import quoted
from paddle_ranker.model.config import Activation, EncoderConfig
from paddle_ranker.model.encoders.family import add_family, added_fields, head_size, network_of, rotary_base
from paddle_ranker.model.hugging_face.architectures import PLAIN, Architecture, Names, Values
from paddle_ranker.storage.declared import Between, Count, Positive
from paddle_ranker.storage.foreign_config import ForeignConfig


@dataclass(frozen=True)
class ModernBertConfig(EncoderConfig):
    """Configuration of ModernBERT: rotary positions, local attention in most layers, gated feed-forward layers.

    The first and every `global_attn_every_n_layers`-th layer after it attend to all tokens. The other layers attend to
    a window of `local_attention` tokens.
    """

    type_vocab_size: Count = 0
    hidden_act: Activation = "gelu"
    max_position_embeddings: Positive = 8192
    layer_norm_eps: float = 1e-5
    global_attn_every_n_layers: Positive = 3
    local_attention: Positive = 128
    global_rope_theta: Annotated[float, Between(1, 1e12)] = 160000.0
    local_rope_theta: Annotated[float, Between(1, 1e12)] = 10000.0
    norm_bias: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    classifier_bias: bool = False
    classifier_activation: Activation = "gelu"
    classifier_pooling: str = "cls"
    has_tanh_pooler: ClassVar[bool] = False

    @property
    def estimated_parameters(self) -> int:
        layer = 4 * self.hidden_size + 3 * self.intermediate_size
        tables = 2 * self.max_position_embeddings * (self.hidden_size // self.num_attention_heads)
        return self.hidden_size * (self.vocab_size + self.num_hidden_layers * layer) + tables


_THETAS = {"full_attention": "global_rope_theta", "sliding_attention": "local_rope_theta"}
_MODERN_IDLE = """
embedding_dropout decoder_bias deterministic_flash_attn sparse_prediction sparse_pred_ignore_index
reference_compile repad_logits_with_grad layer_norm_eps position_embedding_type
"""


def _check_modern(settings: ForeignConfig, values: Values) -> None:
    size, heads = values["hidden_size"], values["num_attention_heads"]
    settings.require("head_dim", head_size(size, heads), remedy=PLAIN)
    rotary, scaling = settings.inner("rope_parameters"), settings.inner("rope_scaling")
    for kind, ours in _THETAS.items():
        values[ours] = rotary_base(scaling, rotary_base(rotary.inner(kind), values[ours]))
    if "layer_types" in settings:
        kinds = settings.get("layer_types")
        if not isinstance(kinds, list):
            raise settings.error(f"layer_types is {quoted(kinds)}, expected a list")
        every = next((n for n in range(1, len(kinds)) if kinds[n] == "full_attention"), len(kinds))
        pattern = ["sliding_attention" if number % every else "full_attention" for number in range(len(kinds))]
        if kinds != pattern:
            raise settings.error(f"layer_types are {quoted(kinds)}: full attention in every n-th is done here")
        values["global_attn_every_n_layers"] = every
    if "sliding_window" in settings:  # tokens to either side; takes precedence
        window = settings.get("sliding_window")
        if type(window) is not int:
            raise settings.error(f"sliding_window is {quoted(window)}, expected a whole number")
        values["local_attention"] = 2 * window
    settings.require("classifier_pooling", "cls", "mean", remedy=PLAIN)


add_family(
    "modernbert",
    "ModernBert",
    Architecture(
        Names(
            {
                "embeddings.tok_embeddings": "embeddings.word_embeddings",
                "embeddings.norm": "embeddings.layer_norm",
                "layers.{}.attn_norm": "encoder.layers.{}.norm1",
                "layers.{}.mlp_norm": "encoder.layers.{}.norm2",
                "final_norm": "encoder.norm",
            },
            {
                "layers.{}.attn.Wqkv": "encoder.layers.{}.self_attn.qkv_proj",
                "layers.{}.attn.Wo": "encoder.layers.{}.self_attn.out_proj",
                "layers.{}.mlp.Wi": "encoder.layers.{}.linear1",
                "layers.{}.mlp.Wo": "encoder.layers.{}.linear2",
            },
            "model",
            {"head.dense": "pooler.dense", "head.norm": "pooler.norm", "classifier": "classifier"},
        ),
        {
            "vocab_size": None,
            "hidden_size": 768,
            "num_hidden_layers": 22,
            "num_attention_heads": 12,
            "intermediate_size": 1152,
            "hidden_activation": "gelu",
            "mlp_dropout": 0.0,
            "attention_dropout": 0.0,
            "max_position_embeddings": 8192,
            "initializer_range": 0.02,
            "norm_eps": 1e-5,
            "pad_token_id": 50283,
            **added_fields(ModernBertConfig),
        },
        _check_modern,
        ours={
            "hidden_activation": "hidden_act",
            "norm_eps": "layer_norm_eps",
            "mlp_dropout": "hidden_dropout_prob",
            "attention_dropout": "attention_probs_dropout_prob",
        },
        without_effect=frozenset(_MODERN_IDLE.split()),
        checked=frozenset({"rope_scaling"}),
    ),
    network_of("modernbert", "ModernBertEncoder"),
    ModernBertConfig,
)
