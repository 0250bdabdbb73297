"""Split rankers as two networks: the lower layers, in which each text attends only to itself, and the upper layers.

A ranker with a similarity also compares both texts by a tower. Its lower layers then also return a `Side` for each
text, and its upper layers compare the two.
"""

from __future__ import annotations

import dataclasses
import hashlib
import tempfile
from pathlib import Path
from typing import Optional, Union

import numpy as np
import paddle
from paddle import Tensor, nn

from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.model.config import EncoderConfig
from paddle_ranker.model.info import RankerInfo
from paddle_ranker.model.model_kind import ExportFacts, ModelPart, RowEncoder, TrainedModel
from paddle_ranker.model.network import RankerNetwork
from paddle_ranker.model.similarity import Side, SimilarityHead
from paddle_ranker.storage.digest import content_digest
from paddle_ranker.stored_titles.signatures import LOWER, UPPER, split_signatures


class LowerLayers(nn.Layer):
    """Lower layers of a ranker whose encoder is split; they compute the states of each text of a pair by itself."""

    def __init__(self, network: RankerNetwork):
        super().__init__()
        self.network, self.configs = network, network.configs

    def forward(self, input_ids: Tensor, token_type_ids: Tensor) -> Union[Tensor, tuple[Tensor, ...]]:
        """Return the states, `[batch, length, width]` float32, of `[batch, length]` int64 inputs.

        If the ranker has a similarity, also return vectors and matches of the query, then those of the title, see
        `Side`; matches are padded to the length of the ids.
        """
        states, head = self.network.apart(input_ids, token_type_ids), _similarity(self.network)
        if head is None:
            return states
        query, title = head.sides(input_ids, token_type_ids)
        matches, of_title = _as_long(query.matches, input_ids), _as_long(title.matches, input_ids)
        return states, query.vectors, matches, title.vectors, of_title


class UpperLayers(nn.Layer):
    """Upper layers of a ranker whose encoder is split: logits of pairs from the states of both texts."""

    def __init__(self, network: RankerNetwork):
        super().__init__()
        self.network, self.configs = network, network.configs

    def forward(
        self,
        states: Tensor,
        input_ids: Tensor,
        token_type_ids: Tensor,
        query_vectors: Optional[Tensor] = None,
        query_matches: Optional[Tensor] = None,
        title_vectors: Optional[Tensor] = None,
        title_matches: Optional[Tensor] = None,
    ) -> Tensor:
        """Return the logits, `[batch, 1]` float32, before calibration.

        states: states of both texts' tokens, as `LowerLayers` returns them, `[batch, length, width]`
        query_vectors, query_matches, title_vectors, title_matches: fields of each text's `Side`; None if the ranker has
            no similarity
        """
        head, similarity = _similarity(self.network), None
        if head is not None:
            query, title = Side(query_vectors, query_matches), Side(title_vectors, title_matches)
            similarity = head.of_features(head.compare(query, title))
        return self.network.above(states, input_ids, token_type_ids, similarity).unsqueeze(-1)


def _as_long(matches: Tensor, input_ids: Tensor) -> Tensor:
    """Cut matches, `[batch, tokens, size]`, or pad them with zeros, to the length of `input_ids`."""
    ones = paddle.ones_like(input_ids)
    zeros = (ones - ones).astype("float32").unsqueeze(2) * matches[:, :1]
    whole, length = paddle.concat([matches, zeros], axis=1), ones[:1].sum().reshape([1])
    return paddle.slice(whole, [1], [paddle.zeros([1], "int64")], [length])


def similarity_sizes(network: RankerNetwork) -> tuple[int, int]:
    """Return the last dimensions of `Side.vectors` and `Side.matches`; (0, 0) for a network without a similarity."""
    head = _similarity(network)
    return (0, 0) if head is None else head.sizes


def lower_digest(network: RankerNetwork, encoder: RowEncoder) -> str:
    """Return a digest, 16 hexadecimal digits, of all that stored titles depend on.

    These are the tokenizer, the lower layers, the layer that narrows the states, and the tower of a similarity.
    """
    digest, below = hashlib.sha256(), ("embeddings.", *(f"encoder.layers.{n}." for n in range(network.encoder.lower)))
    with tempfile.TemporaryDirectory() as folder:
        encoder.save(folder)
        digest.update(content_digest(Path(folder)).encode())
    digest.update(_settings(network.config).encode())
    state = {name: value for name, value in network.encoder.state_dict().items() if name.startswith(below)}
    if network.narrow is not None:
        state.update({f"narrow.{name}": value for name, value in network.narrow.down.state_dict().items()})
    head = _similarity(network)
    if head is not None:
        info = head.model.info
        made = info.size, info.pooling, info.output_tanh, info.cut_from, info.text_prompt
        digest.update(f"{_settings(head.tower.config)}{made}".encode())
        state.update({f"tower.{name}": value for name, value in head.tower.own_state().items()})
    for name, value in sorted(state.items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(value.numpy()).data)
    return digest.hexdigest()[:16]


def _settings(config: EncoderConfig) -> str:
    """Describe a configuration by the settings that differ from their defaults, so that new settings keep digests."""
    values = ((field.name, getattr(config, field.name), field.default) for field in dataclasses.fields(config))
    return f"{type(config).__name__}{[(name, value) for name, value, default in values if value != default]}"


def _similarity(network: RankerNetwork) -> Optional[SimilarityHead]:
    head = network.similarity_head
    assert head is None or isinstance(head, SimilarityHead)
    return head


def parts(model: TrainedModel[RankerInfo, PairEncoder]) -> tuple[ModelPart, ...]:
    """Return the lower and the upper layers of a split ranker, for its export."""
    network = model.network
    sizes = similarity_sizes(network)
    lower, upper = split_signatures(network.states_width, *sizes)
    facts: ExportFacts = {"ranker": lower_digest(network, model.row_encoder), "similarity": sizes}
    return (
        ModelPart(LOWER, lower, lambda: LowerLayers(network), facts),
        ModelPart(UPPER, upper, lambda: UpperLayers(network)),
    )
