"""A family of encoders of a plugin: the title comes first, and the pooled output is the mean over all tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Optional

from paddle_ranker.encoding.columns import EncodedPairs
from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.model.config import EncoderConfig
from paddle_ranker.model.families import BERT, FAMILIES

if TYPE_CHECKING:
    from paddle import Tensor

    from paddle_ranker.model.networks.bert import Encoder


class TitleFirst(PairEncoder):
    def encode(self, queries: Sequence[str], titles: Sequence[str], **options: Any) -> EncodedPairs:
        """Encode each pair as `[CLS] title [SEP] query [SEP]`."""
        return super().encode(titles, queries, **options)


def mean_encoder(config: EncoderConfig) -> Encoder:
    from paddle_ranker.model.networks.bert import Encoder

    class MeanEncoder(Encoder):
        def pooled(self, input_ids: Tensor, token_type_ids: Tensor, extra: Optional[Tensor] = None) -> Tensor:
            states = self(input_ids, token_type_ids, extra)
            is_token = (input_ids != self.config.pad_token_id).astype(states.dtype).unsqueeze(-1)
            return (states * is_token).sum(1) / is_token.sum(1)

    return MeanEncoder(config)


FAMILIES.add(
    "mean",
    dataclasses.replace(BERT, network=mean_encoder, pair_encoder=lambda files, length, _: TitleFirst(files, length)),
)
