"""Similarity of a pair's two texts as a feature of a ranker's head: logit = head(pooled) + weight * cosine.

A tower, frozen in the state in which the training found it, makes a vector of each text alone. Fine-tuning a
cross-encoder on little data forgets much of what the sentence encoder knew, and the cosine brings it back. Everything
is computed from a pair's ids, so that an exported graph keeps its two inputs. A ranker's folder holds the tower in the
subfolder `similarity`, a whole tower that also makes vectors for an index.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import paddle
import paddle.nn.functional as F
from paddle import Tensor

from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.errors import CheckpointError
from paddle_ranker.lexical.head import FeatureHead
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.tower_network import TowerModel, load_tower, save_tower

SIMILARITY_FOLDER = "similarity"  # subfolder of the tower
START = "start"  # as a tower's name: the encoder that the training starts from
_BATCH_SQUARES = 1 << 17
_PROBES = ("Ab c1.2 Ünï", "北京大学，2024年", "ＡＢ　ｃ\tx", "new York's co-op")


class _Alone(NamedTuple):
    """How a text of a pair is encoded alone: ids before and behind it, and special tokens of the pair to leave out."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    skipped_before: int
    skipped_after: int


class SimilarityHead(FeatureHead):
    """Layer that computes the contribution of query's and title's similarity to a pair's logit.

    Args:
        tower: makes the vectors; its parameters do not change in training.
        pairs: the encoder of the ranker's pairs, which must have the tower's tokens.

    Raises `CheckpointError` if the tower's tokenizer gives other ids, or the tower reads shorter texts only.
    """

    def __init__(self, tower: TowerModel, pairs: PairEncoder):
        super().__init__(1, _BATCH_SQUARES)
        _require_same_tokens(tower, pairs)
        self.model, self.tower = tower, tower.network
        for parameter in self.tower.parameters():
            parameter.stop_gradient = True
        template, encode = pairs.template, tower.row_encoder
        prompts = encode.tokens.encode_texts([encode.query_prompt, encode.text_prompt])
        before = [(*template.text_before, *prompt.tolist()) for prompt in prompts]
        self._query = _Alone(before[0], template.text_after, len(template.before), len(template.between))
        self._title = _Alone(before[1], template.text_after, 0, len(template.after))
        self._pad_id = pairs.pad_id

    def features(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        """Return the cosine of each pair's texts, `[batch, 1]` float32."""
        is_token = (input_ids != self._pad_id).astype("int64")
        in_title = is_token * token_type_ids
        queries = self.vectors(self._text(input_ids, is_token - in_title, self._query))
        return self.cosines(queries, self.vectors(self._text(input_ids, in_title, self._title)))

    def vectors(self, ids: Tensor) -> Tensor:
        """Return the vectors of texts that are encoded alone, `[batch, size]` float32, for ids `[batch, length]`."""
        if self.tower.training:
            self.tower.eval()
        return F.normalize(self.tower(ids, paddle.zeros_like(ids)), axis=-1)

    def cosines(self, queries: Tensor, titles: Tensor) -> Tensor:
        """Return the features of query and title vectors, `[batch, 1]` float32; the vectors are `[batch, size]`."""
        return (queries * titles).sum(axis=1, keepdim=True).astype("float32")

    def _text(self, input_ids: Tensor, inside: Tensor, alone: _Alone) -> Tensor:
        """Return one text of each pair as it is encoded alone, `[batch, longest]` int64, padded.

        Args:
            inside: `[batch, length]` int64, 1 for the tokens of that text and its special tokens.
        """
        # Whole numbers are added as tensors: with Python's, an ONNX file computes in floats, which bf16 rounds.
        one = paddle.full([1], 1, "int64")
        places = paddle.cumsum(paddle.ones_like(input_ids), axis=1) - one
        first = (inside * (paddle.full([1], 1 << 20, "int64") - places)).max(axis=1, keepdim=True)
        start = paddle.full([1], (1 << 20) + alone.skipped_before, "int64") - first
        count = inside.sum(axis=1, keepdim=True)
        count = count - paddle.full([1], alone.skipped_before + alone.skipped_after, "int64")
        shown = (places < count).astype("int64")
        ones = paddle.ones_like(places)
        rows = (ones[:, :1].cumsum(axis=0) - ones[:, :1]) * ones.sum(axis=1, keepdim=True)
        found = paddle.gather(input_ids.reshape([-1]), (rows + (places + start) * shown).reshape([-1]))
        pad = paddle.full([1], self._pad_id, "int64")
        text = found.reshape(paddle.shape(places)) * shown + pad * (one - shown)
        head = [paddle.full_like(text[:, :1], token) for token in alone.before]
        tail = paddle.zeros_like(text[:, :1])
        whole = paddle.concat([*head, text, *([tail + pad] * len(alone.after))], axis=1)
        places = paddle.cumsum(paddle.ones_like(whole), axis=1) - one
        end = count + paddle.full([1], len(alone.before), "int64")
        for number, token in enumerate(alone.after):
            here = (places == end + paddle.full([1], number, "int64")).astype("int64")
            whole = whole * (one - here) + paddle.full([1], token, "int64") * here
        longest = end.max().reshape([1]) + paddle.full([1], len(alone.after), "int64")
        return paddle.slice(whole, [1], [paddle.zeros([1], "int64")], [longest])


def load_similarity(folder: Path, pairs: PairEncoder) -> SimilarityHead:
    """Load the tower of a ranker's folder into a new head; raises `CheckpointError` if it is missing or damaged."""
    source = folder / SIMILARITY_FOLDER
    if not source.is_dir():
        raise CheckpointError(
            f"{folder}: has no folder {SIMILARITY_FOLDER}, whose tower the ranker's similarity needs; copy the folder "
            "again, with its subfolders"
        )
    return SimilarityHead(load_tower(source, LoadOptions()), pairs)


def save_similarity(folder: Path, head: SimilarityHead) -> None:
    """Write the tower of a head into the folder of a ranker."""
    target = folder / SIMILARITY_FOLDER
    target.mkdir()
    save_tower(target, head.model, head.model.info)


def _require_same_tokens(tower: TowerModel, pairs: PairEncoder) -> None:
    tokens = tower.row_encoder.tokens

    def probed(encoder: PairEncoder, texts: Sequence[str]) -> list[list[int]]:
        return [ids.tolist() for ids in encoder.encode_texts(texts)]

    if tokens.token_to_id != pairs.token_to_id or probed(tokens, _PROBES) != probed(pairs, _PROBES):
        raise CheckpointError(
            "the tower's tokenizer is not the ranker's, so their ids do not mean the same: name a tower that comes "
            "from the same encoder"
        )
    longest = tower.network.config.longest_pair
    if longest < pairs.max_seq_length:
        raise CheckpointError(
            f"the tower reads texts of up to {longest} tokens, and the ranker pairs of {pairs.max_seq_length}: give "
            "--max_seq_length, or another tower"
        )
