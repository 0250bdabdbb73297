"""The lexical part of a tower's vectors: values by hand, tokens that do not count, and products."""

from __future__ import annotations

from collections import Counter

import numpy as np
import paddle
import pytest

from paddle_ranker.encoding.tokenizers.interface import Spelling
from paddle_ranker.errors import DataError
from paddle_ranker.lexical.vector import LexicalVector

pytestmark = pytest.mark.unit
VOCABULARY, PAD, CLS, SEP, UNKNOWN = 40, 0, 1, 2, 3
SPECIAL = [PAD, CLS, SEP, UNKNOWN]
TITLES = [[5, 6, 7, 8], [5, 6, 9], [5, 30], [5, 31, 32], [5, 6, 7, 8]]
Ids = list[int]


def learned(size: int = 64) -> LexicalVector:
    layer = LexicalVector(VOCABULARY, size, SPECIAL)
    layer.learn([np.array([CLS, *title, SEP], np.int32) for title in TITLES])
    return layer


def vectors(layer: LexicalVector, *texts: Ids) -> np.ndarray:
    length = max(map(len, texts)) + 3
    ids = np.full((len(texts), length), PAD, np.int64)
    for row, text in zip(ids, texts):
        row[: len(text) + 2] = [CLS, *text, SEP]
    return layer(paddle.to_tensor(ids), paddle.zeros_like(paddle.to_tensor(ids))).numpy()


def rarity(token: int) -> float:
    """Return the idf of a token in the four distinct titles."""
    count = len({tuple(title) for title in TITLES if token in title})
    return float(np.log(1 + (4 - count + 0.5) / (count + 0.5)))


def test_a_vector_is_the_sum_of_the_signs_of_tokens_and_bigrams() -> None:
    layer = learned()
    first, second = layer.first_signs.numpy(), layer.second_signs.numpy()
    assert set(np.unique(first)) == set(np.unique(second)) == {-1.0, 1.0} and first.shape == (7, 64)
    signs = [first[token // 7] * second[token % 7] for token in range(VOCABULARY)]
    wanted = sum(np.sqrt(rarity(token)) * signs[token] for token in (5, 6, 9))
    for left, right in ((5, 6), (6, 9)):
        wanted = wanted + np.sqrt(rarity(left) + rarity(right)) * signs[left] * np.roll(signs[right], 1)
    wanted = np.sqrt(0.3) * wanted / np.linalg.norm(wanted)
    np.testing.assert_allclose(vectors(layer, [5, 6, 9])[0], wanted, atol=1e-6)


def test_products_say_how_much_of_their_weight_texts_share() -> None:
    layer = learned(1 << 14)
    texts = [[5, 6, 7, 8], [8, 7, 6, 5], [7, 8, 30], [31, 32], [30, 30, 31], [UNKNOWN], [7, UNKNOWN, 8]]
    grams = [
        Counter([*((token,) for token in text), *zip(text, text[1:])]) if UNKNOWN not in text
        else Counter((token,) for token in text if token != UNKNOWN)
        for text in texts
    ]  # fmt: skip
    weight = {gram: sum(map(rarity, gram)) for counts in grams for gram in counts}
    products = np.array(
        [[sum(weight[gram] * a[gram] * b[gram] for gram in a) for b in grams] for a in grams]
    )  # fmt: skip
    lengths = np.sqrt(np.maximum(np.diag(products), 1e-9))
    found = vectors(layer, *texts)
    np.testing.assert_allclose(found @ found.T, 0.3 * products / lengths / lengths[:, None], atol=0.03)
    assert np.abs(found[5]).max() == 0.0  # nothing in this text counts


def test_tokens_that_spell_the_same_are_the_same() -> None:
    ids = np.arange(30)
    ids[21], ids[25] = 11, PAD
    blank = np.zeros(30, bool)
    blank[25] = True
    layer = LexicalVector(VOCABULARY, 64, SPECIAL, Spelling(ids, np.zeros(30, bool), blank))
    layer.learn([np.array([CLS, 21, 25, 12, SEP], np.int32), np.array([CLS, 13, SEP], np.int32)])
    assert layer.weight.numpy()[11] == pytest.approx(np.log(2))
    found = vectors(layer, [11, 12, 13], [21, 25, 12, 13], [22, 12, 13])
    np.testing.assert_allclose(found[1], found[0], atol=1e-6)
    assert np.abs(found[2] - found[0]).max() > 0.03


def test_every_tower_has_the_same_signs_and_a_batch_changes_nothing() -> None:
    one, two = LexicalVector(250_002, 8, SPECIAL), LexicalVector(250_002, 8, SPECIAL)
    assert one.first_signs.shape == [501, 8] and (one.first_signs == two.first_signs).numpy().all()
    with pytest.raises(DataError, match="no titles"):
        one.learn([])
    layer = learned()
    alone, together = vectors(layer, [7, 8]), vectors(layer, [7, 8], [30] * 20)
    np.testing.assert_allclose(together[:1], alone, atol=1e-7)
