"""Words of a text as a vector. The inner product of two texts' vectors is about the weight of their common tokens and
bigrams.

A tower trained on little data learns what texts mean, but does not notice that a title has a rare word of the query. So
a part of its vectors can be lexical: a random projection of the text's tokens and bigrams (Achlioptas, 2003,
"Database-friendly random projections"; in retrieval, Luan et al., 2021, "Sparse, Dense, and Attentional
Representations"). Every token has a vector of signs, +1 and -1. A bigram has the product of its first token's signs and
its second token's signs, rotated by one position. A text's vector is the sum of these vectors, each times the root of
its weight. The inner product of two texts' vectors is then about `size` times the summed weights of their common tokens
and bigrams, since independent signs cancel. A token's weight is its inverse document frequency, a bigram's weight the
sum of its tokens' weights.

The vector depends only on the ids, so it is computed inside the model, and an exported graph keeps its inputs. The
signs of token t of n are the products of row t // r of one table and row t % r of another, r the root of n, so the
tables are small for any vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Optional

import numpy as np
import paddle
import paddle.nn.functional as F
from numpy.typing import NDArray
from paddle import Tensor, nn

from paddle_ranker.encoding.tokenizers.interface import Spelling
from paddle_ranker.lexical.bm25 import text_statistics
from paddle_ranker.lexical.token_comparison import Speller, compared, looked_up

_SEED = 0  # all towers draw the same signs, so that vectors of two towers can be compared
_SHARE = 0.3  # of the inner product of two vectors, the lexical part: 0.2 to 0.5 were best on QBQTC, with four towers


class LexicalVector(nn.Layer):
    """Layer that computes the lexical part of a text's vector from its ids.

    The layer has no trained parameters; `learn` sets the weights.

    Args:
        vocab_size: number of tokens in the model's vocabulary.
        size: length of the vectors; the noise of an inner product falls with the square root of `size`.
        never_match: ids of the special tokens, padding and [UNK], which have weight 0 and interrupt bigrams.
        spelling: the spelling of each token, used to compare tokens; None compares them by id.
    """

    def __init__(self, vocab_size: int, size: int, never_match: Sequence[int], spelling: Optional[Spelling] = None):
        super().__init__()
        self.never_match = sorted(never_match)
        self.speller = None if spelling is None else Speller(vocab_size, spelling)
        rows = math.isqrt(vocab_size - 1) + 1
        draw = np.random.default_rng(_SEED)
        for name in ("first_signs", "second_signs"):
            signs = draw.integers(0, 2, (rows, size)) * 2.0 - 1.0
            self.register_buffer(name, paddle.to_tensor(signs.astype(np.float32)))
        for name, table in zip(("first_row", "second_row"), divmod(np.arange(vocab_size), rows)):
            self.register_buffer(name, paddle.to_tensor(table.astype(np.int32)), persistable=False)
        self.register_buffer("weight", paddle.zeros([vocab_size]))

    def forward(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        """Return the lexical parts of texts' vectors, `[batch, size]` float32.

        A part has the norm sqrt(`_SHARE`), or 0 for a text without weighted tokens.

        input_ids, token_type_ids: `[batch, length]` int64
        """
        ids = compared(self.speller, input_ids, token_type_ids).ids
        weights = paddle.gather(self.weight, ids.reshape([-1])).reshape(paddle.shape(ids))
        counts = (weights > 0.0).astype("float32")
        signs = F.embedding(looked_up(self.first_row, ids), self.first_signs) * F.embedding(
            looked_up(self.second_row, ids), self.second_signs
        )
        rotated = paddle.concat([signs[:, 1:, -1:], signs[:, 1:, :-1]], axis=-1)
        of_bigrams = (weights[:, :-1] + weights[:, 1:]) * counts[:, :-1] * counts[:, 1:]
        tokens = paddle.sqrt(weights).unsqueeze(-1) * signs
        bigrams = paddle.sqrt(of_bigrams).unsqueeze(-1) * signs[:, :-1] * rotated
        return F.normalize(tokens.sum(axis=1) + bigrams.sum(axis=1), axis=-1) * math.sqrt(_SHARE)

    def learn(self, texts: Iterable[NDArray[np.int32]]) -> None:
        """Set each token's weight to its inverse document frequency in encoded texts, `[tokens]` each."""
        text_ids = None if self.speller is None else self.speller.ids
        idf, _ = text_statistics(texts, self.weight.shape[0], self.never_match, text_ids)
        self.weight.set_value(idf)
