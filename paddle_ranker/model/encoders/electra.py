"""ELECTRA, whose embeddings may be narrower than its layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from paddle_ranker.model.config import EncoderConfig
from paddle_ranker.model.encoders.family import (
    BERT_FIELDS,
    BERT_LINEAR,
    BERT_PLAIN,
    TWO_LAYERS,
    add_family,
    added_fields,
    network_of,
)
from paddle_ranker.model.hugging_face.architectures import PLAIN, Architecture, Names, Values
from paddle_ranker.storage.declared import Positive
from paddle_ranker.storage.foreign_config import ForeignConfig


@dataclass(frozen=True)
class ElectraConfig(EncoderConfig):
    """Configuration of ELECTRA; if embeddings are narrower than the layers, a projection follows the embeddings."""

    embedding_size: Positive = 128
    has_tanh_pooler: ClassVar[bool] = False


def _check_electra(settings: ForeignConfig, values: Values) -> None:
    settings.require("position_embedding_type", "absolute", remedy=PLAIN)


add_family(
    "electra",
    "Electra",
    Architecture(
        Names(BERT_PLAIN, {**BERT_LINEAR, "embeddings_project": "embeddings.project"}, "electra", TWO_LAYERS),
        {
            **BERT_FIELDS,
            "hidden_size": 256,
            "num_attention_heads": 4,
            "intermediate_size": 1024,
            **added_fields(ElectraConfig),
        },
        _check_electra,
        without_effect=frozenset({"summary_type", "summary_use_proj", "summary_activation", "summary_last_dropout"}),
    ),
    network_of("electra", "ElectraEncoder"),
    ElectraConfig,
)
