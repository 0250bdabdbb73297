"""Similarity of a pair's two texts as features of a ranker's head: logit = head(pooled) + weights * cosines.

A tower encodes each text separately; its parameters do not change in training. Fine-tuning a cross-encoder on little
data loses much of the sentence encoder's knowledge, which the cosines restore. They compare the two vectors, the means
of several layers' states, the first tokens, and each token with the nearest token of the other text. All cosines are
computed from a pair's ids, so that an exported graph keeps its two inputs. The subfolder `similarity` of a ranker's
folder is a complete tower, which can also make vectors for an index.
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
from paddle_ranker.model.networks.bert import pool_states
from paddle_ranker.model.tower_network import TowerModel, load_tower, save_tower

SIMILARITY_FOLDER = "similarity"  # subfolder of the tower
START = "start"  # as a tower's name: the encoder that the training starts from
_BATCH_SQUARES = 1 << 17
_FAR = 1 << 14  # more than any place in a pair
_PROBES = ("Ab c1.2 Ünï", "北京大学，2024年", "ＡＢ　ｃ\tx", "new York's co-op")


class _Alone(NamedTuple):
    """Changes that turn a text's ids in a pair into the ids of the text encoded alone.

    before, after: ids to add before and after the text
    skipped_before, skipped_after: number of the pair's special tokens to leave out before and after the text
    """

    before: tuple[int, ...]
    after: tuple[int, ...]
    skipped_before: int
    skipped_after: int


class _TextOfPairs(NamedTuple):
    """One text of each pair of a batch, as it is encoded alone.

    ids: `[batch, length]` int64
    is_content: `[batch, length]` float32, 1 for the tokens of the text, 0 for special tokens and padding
    """

    ids: Tensor
    is_content: Tensor


class Side(NamedTuple):
    """One text of each pair of a batch, prepared for comparison with the other; all vectors have length 1.

    vectors: the tower's vector, the mean states of several layers and the first token's last state, concatenated,
        `[batch, size]` float32
    matches: states of the text's tokens after two layers, `[batch, tokens, 2 * hidden]` float32; 0 for special tokens
        and padding
    """

    vectors: Tensor
    matches: Tensor


class SimilarityHead(FeatureHead):
    """Head that compares query and title by a tower, and adds the result to a pair's logit.

    tower: computes the vectors; its parameters do not change in training
    pairs: encoder of the ranker's pairs

    Raises `CheckpointError` if the tokenizers of tower and ranker give texts different ids, or if the tower reads fewer
    tokens than a pair may have.
    """

    def __init__(self, tower: TowerModel, pairs: PairEncoder):
        self._depths = depths_of(tower.network.config.num_hidden_layers)
        super().__init__(len(feature_names(tower.network.config.num_hidden_layers)), _BATCH_SQUARES)
        _require_same_tokens(tower, pairs)
        self.model, self.tower = tower, tower.network
        for parameter in self.tower.parameters():
            parameter.stop_gradient = True
        template, encode = pairs.template, tower.texts
        prompts = [encode.tokens.encode_texts([""], prompt)[0] for prompt in (encode.query_prompt, encode.text_prompt)]
        before = [(*template.text_before, *prompt.tolist()) for prompt in prompts]
        self._query = _Alone(before[0], template.text_after, len(template.before), len(template.between))
        self._title = _Alone(before[1], template.text_after, 0, len(template.after))
        self._pad_id = pairs.pad_id

    def features(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        """Return the features of each pair, `[batch, count]` float32, in the order of `feature_names`."""
        if not paddle.in_dynamic_mode():
            return self.compare(*self.sides(input_ids, token_type_ids))
        with paddle.amp.auto_cast(False):  # mixed precision would train on other features than evaluation has
            return self.compare(*self.sides(input_ids, token_type_ids))

    def sides(self, input_ids: Tensor, token_type_ids: Tensor) -> tuple[Side, Side]:
        """Return the queries and the titles of pairs, prepared for comparison; a row may also be a single text."""
        texts, before = self._texts(input_ids, token_type_ids), (len(self._query.before), len(self._title.before))
        query, title = (self._side(text, skipped) for text, skipped in zip(texts, before))
        return query, title

    def compare(self, query: Side, title: Side) -> Tensor:
        """Compare queries and titles; return each pair's features, `[batch, count]` float32, as `features` does."""
        products, hidden = query.vectors * title.vectors, self.tower.config.hidden_size
        places = range(self.sizes[0] - (len(self._depths) + 1) * hidden, self.sizes[0], hidden)
        features = [products[:, : places[0]].sum(axis=1)]
        features += [products[:, place : place + hidden].sum(axis=1) for place in places]
        features += _best_matches(query.matches[:, :, :hidden], title.matches[:, :, :hidden])
        features += _best_matches(query.matches[:, :, hidden:], title.matches[:, :, hidden:])
        return paddle.stack(features, axis=1)

    @property
    def sizes(self) -> tuple[int, int]:
        """Sizes of a text's concatenated vectors and of a token's matches, see `Side`."""
        hidden = self.tower.config.hidden_size
        return self.model.info.size + (len(self._depths) + 1) * hidden, 2 * hidden

    def cosine(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        """Return only the first feature of each pair, the cosine of the two texts' vectors, `[batch]` float32."""
        query, title = (text.ids for text in self._texts(input_ids, token_type_ids))
        vectors = (_normalised(self.tower(ids, paddle.zeros_like(ids))) for ids in (query, title))
        return paddle.multiply(*vectors).sum(axis=1)

    def _texts(self, input_ids: Tensor, token_type_ids: Tensor) -> tuple[_TextOfPairs, _TextOfPairs]:
        if self.tower.training:
            self.tower.eval()
        is_token = (input_ids != self._pad_id).astype("int64")
        in_title = is_token * token_type_ids
        query = self._text(input_ids, is_token - in_title, self._query)
        return query, self._text(input_ids, in_title, self._title)

    def _states(self, ids: Tensor) -> list[Tensor]:
        return [states.astype("float32") for states in self.tower.encoder.states(ids, paddle.zeros_like(ids))]

    def _side(self, text: _TextOfPairs, before: int) -> Side:
        states, is_token = self._states(text.ids), text.ids != self._pad_id
        vectors = [self.tower.of_states(states[-1], text.ids, paddle.zeros_like(text.ids))]
        vectors += [pool_states(states[depth], is_token, "mean") for depth in self._depths]
        vectors += [states[-1][:, 0]]
        is_content = text.is_content[:, before:].unsqueeze(2)
        matches = [_normalised(states[depth][:, before:]) * is_content for depth in (-1, self._depths[1])]
        return Side(paddle.concat([_normalised(vector) for vector in vectors], axis=1), paddle.concat(matches, axis=2))

    def _text(self, input_ids: Tensor, inside: Tensor, alone: _Alone) -> _TextOfPairs:
        """Return one text of each pair with the ids that it has when encoded alone, padded to the batch's longest.

        inside: `[batch, length]` int64, 1 for the tokens of this text and its special tokens in the pair
        alone: how the text is encoded alone
        """
        # Constants are tensors: with Python's integers, an ONNX file computes in floats, which bf16 rounds.
        one, pad = paddle.full([1], 1, "int64"), paddle.full([1], self._pad_id, "int64")
        places = paddle.cumsum(paddle.ones_like(input_ids), axis=1) - one
        first = (inside * (paddle.full([1], _FAR, "int64") - places)).max(axis=1, keepdim=True)
        start = paddle.full([1], _FAR + alone.skipped_before, "int64") - first
        skipped = paddle.full([1], alone.skipped_before + alone.skipped_after, "int64")
        count = inside.sum(axis=1, keepdim=True) - skipped
        count = count * (count > 0).astype("int64")  # a row of one text alone lacks the other's special tokens
        shown = (places < count).astype("int64")
        ones = paddle.ones_like(places)
        rows = (ones[:, :1].cumsum(axis=0) - ones[:, :1]) * ones.sum(axis=1, keepdim=True)
        tokens = paddle.gather(input_ids.reshape([-1]), (rows + (places + start) * shown).reshape([-1]))
        text = tokens.reshape(paddle.shape(places)) * shown + pad * (one - shown)
        whole = paddle.concat([*_columns(text, alone.before), text, *_columns(text, alone.after)], axis=1)
        places = paddle.cumsum(paddle.ones_like(whole), axis=1) - one
        begin = paddle.full([1], len(alone.before), "int64")
        end = count + begin
        is_inside = (places < end + paddle.full([1], len(alone.after), "int64")).astype("int64")
        for number in range(len(alone.after)):
            here = (places == end + paddle.full([1], number, "int64")).astype("int64")
            whole = whole * (one - here) + paddle.full([1], alone.after[number], "int64") * here
        whole = whole * is_inside + pad * (one - is_inside)
        is_content = (places >= begin).astype("float32") * (places < end).astype("float32")
        longest = [end.max().reshape([1]) + paddle.full([1], len(alone.after), "int64")]
        if paddle.in_dynamic_mode():  # `paddle.slice` would read both bounds of both slices from the device
            count = longest[0].item()
            return _TextOfPairs(whole[:, :count], is_content[:, :count])
        none = [paddle.zeros([1], "int64")]
        return _TextOfPairs(paddle.slice(whole, [1], none, longest), paddle.slice(is_content, [1], none, longest))


def depths_of(layers: int) -> list[int]:
    """Return the layers whose mean states are compared: the embeddings (0), then about one layer per quarter."""
    return sorted({round(layers * quarter / 4) for quarter in range(4)})


def feature_names(layers: int) -> list[str]:
    """Return the names of the features of a similarity whose tower has `layers` layers."""
    depths = depths_of(layers)
    matches = ("query_mean", "query_least", "title_mean")  # of each token's best cosine with a token of the other text
    return [
        "cosine",
        *(f"mean_{depth}" for depth in depths),
        "first_token",
        *(f"{name}_{depth}" for depth in (layers, depths[1]) for name in matches),
    ]


def _columns(text: Tensor, ids: tuple[int, ...]) -> list[Tensor]:
    """Return a column, `[batch, 1]` int64, for each of `ids`; `text` gives the batch's size."""
    return [paddle.full_like(text[:, :1], id) for id in ids]


def _normalised(vectors: Tensor) -> Tensor:
    return F.normalize(vectors.astype("float32"), axis=-1)


def _best_matches(query: Tensor, title: Tensor) -> list[Tensor]:
    """Return three features, `[batch]` each, of the cosines between the tokens of both texts (ColBERT's MaxSim).

    The first two are the mean and the minimum, over query tokens, of the best cosine with a title token. The third is
    the mean, over title tokens, of the best cosine with a query token. All are 0 if a text has no tokens.

    query, title: states of length 1, or 0 for special tokens and padding, `[batch, length, size]` float32
    """
    # Half is far from both: stored states are rounded.
    in_query, in_title = (((states * states).sum(axis=2) > 0.5).astype("float32") for states in (query, title))
    cosines = paddle.matmul(query, title, transpose_y=True)
    of_query = (cosines + (in_title.unsqueeze(1) - 1.0) * _FAR).max(axis=2)
    of_title = (cosines + (in_query.unsqueeze(2) - 1.0) * _FAR).max(axis=1)
    count_query, count_title = in_query.sum(axis=1), in_title.sum(axis=1)
    either = (count_query * count_title > 0.5).astype("float32")
    return [
        either * (of_query * in_query).sum(axis=1) / count_query.clip(min=1.0),
        either * (of_query + (1.0 - in_query) * _FAR).min(axis=1),
        either * (of_title * in_title).sum(axis=1) / count_title.clip(min=1.0),
    ]


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
    tokens = tower.texts.tokens

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
