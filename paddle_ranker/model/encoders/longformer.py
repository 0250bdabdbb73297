"""Longformer: attention to near tokens, and of some tokens to all."""

from __future__ import annotations

from dataclasses import dataclass

from paddle_ranker.errors import quoted
from paddle_ranker.model.config import EncoderConfig
from paddle_ranker.model.encoders.family import (
    BERT_LINEAR,
    BERT_PLAIN,
    POOLER,
    ROBERTA_FIELDS,
    TWO_LAYERS,
    add_family,
    added_fields,
    check_bert,
    network_of,
)
from paddle_ranker.model.hugging_face.architectures import Architecture, Names, Values
from paddle_ranker.storage.declared import Positive
from paddle_ranker.storage.foreign_config import ForeignConfig


@dataclass(frozen=True)
class LongformerConfig(EncoderConfig):
    """Configuration of Longformer, whose tokens attend to `attention_window` / 2 tokens on either side."""

    attention_window: Positive = 512


def _check_longformer(settings: ForeignConfig, values: Values) -> None:
    check_bert(settings, values)
    windows = settings.get("attention_window", 512)
    windows = windows if isinstance(windows, list) and windows else [windows]
    if any(type(window) is not int or window % 2 or window != windows[0] for window in windows):
        raise settings.error(f"attention_window is {quoted(windows)}, expected one even number for all layers")
    values["attention_window"] = windows[0]


add_family(
    "longformer",
    "Longformer",
    Architecture(
        Names(
            BERT_PLAIN,
            {
                **BERT_LINEAR,
                **POOLER,
                "encoder.layer.{}.attention.self.query_global": "encoder.layers.{}.self_attn.q_global",
                "encoder.layer.{}.attention.self.key_global": "encoder.layers.{}.self_attn.k_global",
                "encoder.layer.{}.attention.self.value_global": "encoder.layers.{}.self_attn.v_global",
            },
            "longformer",
            TWO_LAYERS,
        ),
        {**ROBERTA_FIELDS, **added_fields(LongformerConfig)},
        _check_longformer,
        without_effect=frozenset({"onnx_export", "ignore_attention_mask", "attention_mode"}),
    ),
    network_of("longformer", "LongformerEncoder"),
    LongformerConfig,
)
