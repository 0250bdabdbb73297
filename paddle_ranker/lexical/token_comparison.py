"""Compare the tokens of two texts by the characters that they stand for, for any tokenizer.

Match levels and lexical features depend on which tokens of the query are in the title. WordPiece's tokens are compared
by their ids. Other vocabularies have several tokens for the same characters, tokens of spaces, and tokens that are
parts of a character; a `Spelling` describes such tokens. The model computes the comparison from ids. Integers are added
to tensors as tensors: with Python's integers, an ONNX file would compute in floats, which OpenVINO rounds in bf16.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

import numpy as np
import paddle
from paddle import Tensor, nn

from paddle_ranker.encoding.tokenizers.interface import Spelling

_MORE_PARTS = 3  # most further parts of a character; UTF-8 has up to four bytes


@dataclass(frozen=True)
class Compared:
    """Tokens in comparable form, `[batch, length]` each, without tokens of spaces.

    ids: int64, equal for tokens that spell the same characters
    types: int64, 0 in the query and 1 in the title
    inside: float32, 1 for tokens that begin inside a character; None: no token does
    positions: int64, the new position of each input token, -1 for a removed token; None: no token was removed
    """

    ids: Tensor
    types: Tensor
    inside: Optional[Tensor] = None
    positions: Optional[Tensor] = None

    def at_inputs(self, values: Tensor) -> Tensor:
        """Rearrange values of the compared tokens to the order of the input tokens, `[batch, length]` int64.

        An input token of spaces gets 0.
        """
        if self.positions is None:
            return values
        positions = paddle.maximum(self.positions, paddle.zeros_like(self.positions))
        return _taken(values, positions) * (self.positions >= 0).astype(values.dtype)


class Speller(nn.Layer):
    """Layer that converts token ids to comparable form, by the tables of a spelling.

    The tables depend only on the tokenizer, so checkpoints do not have them.

    Args:
        vocab_size: number of the model's embeddings; the tokenizer may have fewer tokens.
        spelling: spelling of the tokenizer.
    """

    def __init__(self, vocab_size: int, spelling: Spelling):
        super().__init__()
        size = len(spelling.ids)
        #: `[vocab_size]` int64
        self.ids = np.concatenate([spelling.ids, np.arange(size, vocab_size)]).astype(np.int64)
        self._blank_id = int(self.ids[np.argmax(spelling.blank)])
        # The table marks kept tokens, not tokens of spaces: OpenVINO takes 1 - x of a table for quantized weights, and
        # then cannot load the graph in int8.
        unknown = np.zeros(len(self.ids) - size, bool)
        kept = ~np.append(spelling.blank, unknown) if spelling.blank.any() else None
        inside = np.append(spelling.inside, unknown) if spelling.inside.any() else None
        for name, values in (("ids", self.ids), ("inside", inside), ("kept", kept)):
            table = None if values is None else paddle.to_tensor(values.astype(np.int32))
            self.register_buffer(f"{name}_table", table, persistable=False)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor) -> Compared:
        """Return tokens in comparable form; tokens of spaces are moved to the end, like padding."""
        ids = looked_up(self.ids_table, input_ids)
        inside = None if self.inside_table is None else looked_up(self.inside_table, input_ids)
        if self.kept_table is None:
            return Compared(ids, token_type_ids, None if inside is None else inside.astype("float32"))
        kept = looked_up(self.kept_table, input_ids)
        count = kept.cumsum(axis=1)
        numbers = paddle.ones_like(count).cumsum(axis=1)
        # The n-th kept token follows all positions up to which fewer than n tokens are kept: of [a, space, b], kept is
        # [1, 0, 1], count [1, 1, 2], sources [0, 2, 2], and so the result [a, b, blank].
        sources = (count.unsqueeze(1) < numbers.unsqueeze(2)).astype("int64").sum(axis=2)
        unit, blank = (paddle.full([1], number, "int64") for number in (1, self._blank_id))
        sources = paddle.minimum(sources, numbers[:, -1:] - unit)
        is_token = (numbers <= count[:, -1:]).astype("int64")
        ids = _taken(ids, sources) * is_token + blank * (unit - is_token)
        types = _taken(token_type_ids, sources) * is_token
        if inside is not None:
            inside = (_taken(inside, sources) * is_token).astype("float32")
        return Compared(ids, types, inside, count * kept - unit)


def compared(speller: Optional[Speller], input_ids: Tensor, token_type_ids: Tensor) -> Compared:
    """Return tokens in comparable form; without a speller, tokens are compared by their ids."""
    return Compared(input_ids, token_type_ids) if speller is None else speller(input_ids, token_type_ids)


def whole_characters(same: Tensor, inside: Tensor) -> Tensor:
    """Return `same`, but with 0 for parts of characters, unless all parts of both characters are equal.

    same: `[batch, length, length]` float32, 1 if token i equals token j
    inside: `[batch, length]` float32, 1 for tokens that begin inside a character
    """
    begins = inside.unsqueeze(2)
    after = paddle.concat([inside[:, 1:], paddle.zeros_like(inside[:, :1])], axis=1)
    ends = paddle.maximum(after.unsqueeze(2), after.unsqueeze(1))
    before, behind = same, same
    for _ in range(_MORE_PARTS):
        before = same * (1.0 - begins * (1.0 - _one_on(before)))
        behind = same * (1.0 - ends * (1.0 - diagonal(behind, 1)))
    return before * behind


def diagonal(matrix: Tensor, steps: int) -> Tensor:
    """Shift `[batch, length, length]` so that (i, j) holds the value of (i + steps, j + steps), or else zero.

    The matrix is extended before it is sliced, because `steps` may exceed the length. `pad` is not used, because its
    oneDNN kernel in Paddle Inference writes beyond its memory.
    """
    rows = paddle.zeros_like(matrix[:, :1]).tile([1, steps, 1])
    longer = paddle.concat([matrix, rows], axis=1)[:, steps:]
    columns = paddle.zeros_like(longer[:, :, :1]).tile([1, 1, steps])
    return paddle.concat([longer, columns], axis=2)[:, :, steps:]


def _one_on(matrix: Tensor) -> Tensor:
    """Shift `[batch, length, length]` so that (i, j) holds the value of (i - 1, j - 1), or else zero."""
    rows = paddle.concat([paddle.zeros_like(matrix[:, :1]), matrix[:, :-1]], axis=1)
    return paddle.concat([paddle.zeros_like(rows[:, :, :1]), rows[:, :, :-1]], axis=2)


def looked_up(table: Tensor, ids: Tensor) -> Tensor:
    """Return the entries of a table `[vocab_size]` for ids `[batch, length]`, in the shape and type of the ids."""
    return paddle.gather(table, ids.reshape([-1])).astype(ids.dtype).reshape(paddle.shape(ids))


def _taken(values: Tensor, positions: Tensor) -> Tensor:
    """Return, for each row, its values at that row's `positions`, `[batch, length]`."""
    ones = paddle.ones_like(positions)
    starts = (ones[:, :1].cumsum(axis=0) - ones[:, :1]) * ones.sum(axis=1, keepdim=True)
    return paddle.gather(values.reshape([-1]), (positions + starts).reshape([-1])).reshape(paddle.shape(positions))
