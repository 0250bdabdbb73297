"""BigBird: attention to blocks of tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from paddle_ranker.model.config import Activation, EncoderConfig
from paddle_ranker.model.encoders.family import (
    BERT_FIELDS,
    BERT_LINEAR,
    BERT_PLAIN,
    TWO_LAYERS,
    add_family,
    added_fields,
    check_bert,
    network_of,
)
from paddle_ranker.model.hugging_face.architectures import PLAIN, Architecture, Names, Values
from paddle_ranker.storage.declared import Count, OneOf, Positive
from paddle_ranker.storage.foreign_config import ForeignConfig


@dataclass(frozen=True)
class BigBirdConfig(EncoderConfig):
    """Configuration of BigBird, in which tokens attend to blocks of `block_size` tokens.

    A token attends to its block, both blocks beside it, the first and the last block. In evaluation, transformers takes
    the first block in place of each of the `num_random_blocks` random blocks. This toolkit does so in training, too.

    attention_type: "block_sparse", or "original_full" for attention to all tokens
    """

    hidden_act: Activation = "gelu_new"
    max_position_embeddings: Positive = 4096
    attention_type: Annotated[str, OneOf("block_sparse", "original_full")] = "block_sparse"
    block_size: Positive = 64
    num_random_blocks: Count = 3
    has_tanh_pooler: ClassVar[bool] = False

    @property
    def longest_full(self) -> int:
        """Maximum length, in tokens, of a text in which each token attends to all tokens."""
        is_sparse = self.attention_type == "block_sparse"
        return (5 + 2 * self.num_random_blocks) * self.block_size if is_sparse else self.max_position_embeddings


def _check_big_bird(settings: ForeignConfig, values: Values) -> None:
    check_bert(settings, values)
    settings.require("use_bias", True, remedy=PLAIN)
    settings.require("rescale_embeddings", False, remedy=PLAIN)


add_family(
    "big_bird",
    "BigBird",
    Architecture(
        Names(BERT_PLAIN, BERT_LINEAR, "bert", TWO_LAYERS),
        {**BERT_FIELDS, "hidden_act": "gelu_new", "max_position_embeddings": 4096, **added_fields(BigBirdConfig)},
        _check_big_bird,
    ),
    network_of("big_bird", "BigBirdEncoder"),
    BigBirdConfig,
)
