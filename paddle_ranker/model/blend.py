"""Blends of rankers: logit = weights[0] * logit[0] + weights[1] * logit[1] + ... + bias.

A blend's folder holds a folder for each member (`member_1`, `member_2`, ...), and a `ranker.json` of the kind `blend`
with the weights. Each member has its own tokenizer. A member is a ranker or a tower; a tower's logit is the cosine of
the two texts' vectors. Code that scores treats a blend as a ranker. A batch has the members' ids side by side: token
types 0 and 1 mark the first member's ids, 2 and 3 the second's, and so on.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import paddle
from paddle import Tensor, nn

from paddle_ranker.encoding.columns import TOKEN_TYPES
from paddle_ranker.encoding.pair_encoder import BlendedPairEncoder
from paddle_ranker.errors import CheckpointError
from paddle_ranker.metrics.calibration import Calibration
from paddle_ranker.metrics.logistic import LinearModel
from paddle_ranker.model.config import EncoderConfig
from paddle_ranker.model.hugging_face.folder import folder_pair_encoder
from paddle_ranker.model.info import BLEND, RankerInfo, blend_of
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.model_kind import RANKER_SIGNATURE, TrainedModel
from paddle_ranker.model.network import RankerNetwork
from paddle_ranker.model.ranker_folder import RankerModel, load_single, save_ranker, write_encoder
from paddle_ranker.model.similarity import SimilarityHead, load_similarity
from paddle_ranker.model.tower_network import TowerModel
from paddle_ranker.options import note_at_end

COSINE = "cosine"  # the kind of a member that is a tower, whose folder is a subfolder of the member's


class CosineNetwork(RankerNetwork):
    """Network whose logit is the cosine of a tower's vectors of a pair's two texts."""

    similarity_head: SimilarityHead

    def __init__(self, head: SimilarityHead):
        nn.Layer.__init__(self)  # without an encoder of pairs: the tower has its own
        self.config, self.pooling, self.similarity_head = head.tower.config, "", head

    def forward(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        """Return the cosines, `[batch]` float32; ids and token types are `[batch, length]` int64."""
        return self.similarity_head.cosine(input_ids, token_type_ids)


def member_of_tower(tower: TowerModel, source: Path) -> RankerModel:
    """Make a tower a member of a blend: a ranker whose logit is the cosine of query and title, each with its prompt.

    source: the tower's folder, for messages

    Raises `CheckpointError` if queries have a separate tower.
    """
    if tower.info.towers == 2:
        raise CheckpointError(f"{source}: has a separate tower for queries, and a member of a blend has one for both")
    tokens = tower.texts.tokens
    prompts = (tower.texts.query_prompt, tower.texts.text_prompt)
    length = tower.info.max_seq_length - max(map(tokens.count_tokens, prompts))
    pairs = copy(tokens)
    pairs.max_seq_length = length
    note_at_end(pairs)
    info = RankerInfo(COSINE, length, match_embeddings=False, similarity=True)
    return RankerModel(info, pairs, RANKER_SIGNATURE, CosineNetwork(SimilarityHead(tower, pairs)))


def _load_member(folder: Path, options: LoadOptions) -> RankerModel:
    info = RankerInfo.read(folder)
    if info is None or info.kind != COSINE:
        return load_single(folder, options)
    pairs = folder_pair_encoder(folder, options.max_seq_length or info.max_seq_length)
    return RankerModel(info, pairs, RANKER_SIGNATURE, CosineNetwork(load_similarity(folder, pairs)))


class BlendedNetwork(RankerNetwork):
    """Network of a blend: the weighted sum of its members' logits. `BlendedPairEncoder` creates the inputs."""

    def __init__(self, members: Sequence[RankerNetwork], weights: Sequence[float], bias: float):
        nn.Layer.__init__(self)  # without an encoder: only the members have encoders
        self.config = members[0].config
        self.members = nn.LayerList(list(members))
        self.weights, self.bias = list(weights), bias

    @property
    def configs(self) -> tuple[EncoderConfig, ...]:
        return tuple(member.config for member in self.members)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        """Return the logits, `[batch]` float32; the inputs are `[batch, sum of the members' lengths]` int64."""
        owner = token_type_ids[0] // TOKEN_TYPES  # of a column; the same in all rows
        logits, start = self.bias, paddle.zeros([1], dtype="int64")
        for number, (member, weight) in enumerate(zip(self.members, self.weights)):
            # Tensors rather than integers, so that an exported graph slices each batch at its own lengths.
            end = start + (owner == number).astype("int64").sum(keepdim=True)
            own_ids, own_types = (paddle.slice(array, [1], [start], [end]) for array in (input_ids, token_type_ids))
            logits = logits + weight * member(own_ids, own_types - TOKEN_TYPES * number)
            start = end
        return paddle.cast(logits, "float32")


@dataclass(frozen=True)
class BlendModel(TrainedModel[RankerInfo, BlendedPairEncoder]):
    """Blend with its members, opened in memory."""

    network: BlendedNetwork
    members: tuple[RankerModel, ...]


def save_blend(
    folder: Path,
    members: Sequence[RankerModel],
    weights: LinearModel,
    facts: dict[str, object],
    results: dict[str, object],
    calibration: Optional[Calibration] = None,
) -> None:
    """Write a blend and its members into an existing folder; call it inside `atomic.new_folder`.

    weights: the members' weights, and the bias
    facts: facts about the training for the info file
    results: measures of the blend by name
    """
    names = [f"member_{number}" for number in range(1, len(members) + 1)]
    for name, member in zip(names, members):
        (folder / name).mkdir()
        save_ranker(folder / name, member.network, member.row_encoder, member.info)
    info = RankerInfo(
        kind=BLEND,
        max_seq_length=max(member.info.max_seq_length for member in members),
        match_embeddings=any(member.info.match_embeddings for member in members),
        lexical_features=any(member.info.lexical_features for member in members),
        similarity=any(member.info.similarity for member in members),
        calibration=calibration,
        training=facts,
        results=results,
        blend={"members": names, "weights": weights.weights.tolist(), "bias": weights.bias},
    )
    info.write(folder, members[0].network.config)


def load_blend(folder: Path, options: LoadOptions) -> BlendModel:
    """Load a blend and its members for scoring; raises `CheckpointError` if it is damaged or a member is missing."""
    info = RankerInfo.read(folder)
    assert info is not None
    blend = blend_of(folder, info)
    options = LoadOptions(max_seq_length=options.max_seq_length, positive_label=options.positive_label)
    members = [_load_member(folder / name, options) for name in blend["members"]]
    network = BlendedNetwork([member.network for member in members], blend["weights"], blend["bias"])
    encoder = BlendedPairEncoder([member.row_encoder for member in members])
    return BlendModel(info, encoder, RANKER_SIGNATURE, network, tuple(members))


def write_members(folder: Path, blend: BlendModel) -> None:
    """Write the tokenizer, configuration and info of each member into its subfolder of an exported blend's folder."""
    for name, member in zip(blend_of(folder, blend.info)["members"], blend.members):
        (folder / name).mkdir()
        write_encoder(folder / name, member.network, member.row_encoder)
        member.info.write(folder / name, member.network.config)
