"""Repetition of tokens, so that a text and its answer, the same text, differ in length (ESimCSE)."""

from __future__ import annotations

import numpy as np

from paddle_ranker.array_types import Integers
from paddle_ranker.encoding.columns import EncodedTexts, offsets_of

_LEAST = 2  # in short texts, up to this many tokens are repeated whatever the rate


def repeat_tokens(texts: EncodedTexts, rate: float, longest: int, random: np.random.Generator) -> EncodedTexts:
    """Return texts in which random tokens stand twice, never the first and the last one, `[CLS]` and `[SEP]`.

    Of a text of n tokens, a number from 0 to max(2, rate * n) is drawn, and that many tokens without replacement (Wu et
    al., "ESimCSE: enhanced sample building method for contrastive learning of unsupervised sentence embedding",
    COLING 2022).

    rate: share of the tokens that may be repeated
    longest: maximum length of a text with its repeated tokens
    """

    def counts(length: int) -> Integers:
        inner = max(0, length - 2)
        most = max(0, min(max(_LEAST, int(rate * inner)), inner, longest - length))
        repeats = np.ones(length, np.int64)
        repeats[1 + random.permutation(inner)[: random.integers(0, most + 1)]] = 2
        return repeats

    rows = [np.repeat(texts[row], counts(len(texts[row]))) for row in range(len(texts))]
    lengths = np.array([len(row) for row in rows], np.int64)
    return EncodedTexts(np.concatenate(rows), offsets_of(lengths), texts.pad_id)
