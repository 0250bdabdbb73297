"""DistilBERT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from paddle_ranker.model.config import EncoderConfig
from paddle_ranker.model.encoders.family import TABLES, add_family, network_of
from paddle_ranker.model.hugging_face.architectures import Architecture, Names, Values
from paddle_ranker.storage.declared import Count
from paddle_ranker.storage.foreign_config import ForeignConfig


@dataclass(frozen=True)
class DistilBertConfig(EncoderConfig):
    """Configuration of DistilBERT: no token types; its pooler, which only classifiers have, applies relu."""

    type_vocab_size: Count = 0
    has_tanh_pooler: ClassVar[bool] = False


def _check_distilbert(settings: ForeignConfig, values: Values) -> None:
    for alias, name in (("hidden_size", "dim"), ("num_hidden_layers", "n_layers"), ("num_attention_heads", "n_heads")):
        if name in settings:
            settings.require(alias, settings.get(name), remedy=f"{name} says another; remove one of them")
        values[alias] = settings.get(alias, values[alias])


add_family(
    "distilbert",
    "DistilBert",
    Architecture(
        Names(
            {
                **TABLES,
                "transformer.layer.{}.sa_layer_norm": "encoder.layers.{}.norm1",
                "transformer.layer.{}.output_layer_norm": "encoder.layers.{}.norm2",
            },
            {
                "transformer.layer.{}.attention.q_lin": "encoder.layers.{}.self_attn.q_proj",
                "transformer.layer.{}.attention.k_lin": "encoder.layers.{}.self_attn.k_proj",
                "transformer.layer.{}.attention.v_lin": "encoder.layers.{}.self_attn.v_proj",
                "transformer.layer.{}.attention.out_lin": "encoder.layers.{}.self_attn.out_proj",
                "transformer.layer.{}.ffn.lin1": "encoder.layers.{}.linear1",
                "transformer.layer.{}.ffn.lin2": "encoder.layers.{}.linear2",
            },
            "distilbert",
            {"pre_classifier": "pooler.dense", "classifier": "classifier"},
        ),
        {
            "vocab_size": None,
            "dim": 768,
            "n_layers": 6,
            "n_heads": 12,
            "hidden_dim": 3072,
            "activation": "gelu",
            "dropout": 0.1,
            "attention_dropout": 0.1,
            "max_position_embeddings": 512,
            "initializer_range": 0.02,
            "pad_token_id": 0,
        },
        _check_distilbert,
        ours={
            "dim": "hidden_size",
            "n_layers": "num_hidden_layers",
            "n_heads": "num_attention_heads",
            "hidden_dim": "intermediate_size",
            "activation": "hidden_act",
            "dropout": "hidden_dropout_prob",
            "attention_dropout": "attention_probs_dropout_prob",
        },
        without_effect=frozenset(
            {"qa_dropout", "seq_classif_dropout", "sinusoidal_pos_embds", "position_embedding_type"}
        ),
    ),
    network_of("bert", "DistilBertEncoder"),
    DistilBertConfig,
)
