"""The masked tokens: their choice, their share and their replacements."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from pretraining.examples import Masking

pytestmark = pytest.mark.unit

SPECIAL, MASK, VOCABULARY = [0, 1, 2, 3, 4], 3, 50
CONFIDENCE = 1 - 1e-6


def make(probability: float = 0.2, *, whole_words: bool = False, seed: int = 1) -> Masking:
    return Masking(
        probability, mask_id=MASK, special_ids=SPECIAL, vocab_size=VOCABULARY, whole_words=whole_words, seed=seed
    )


def batch(rows: int = 200, length: int = 120, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return ids of `rows` sequences, some shorter, with specials inside, and words of one to three tokens."""
    random = np.random.RandomState(seed)
    ids = random.randint(5, VOCABULARY, (rows, length))
    ids[random.rand(rows, length) < 0.05] = 4
    ids[:, 0] = 1
    for row in ids:
        end = random.randint(length // 2, length)
        row[end] = 2
        row[end + 1 :] = 0
    starts = random.rand(rows, length) < 0.5
    return ids, starts | np.isin(ids, SPECIAL)


def within(count: int, of: int, probability: float) -> bool:
    low, high = binom.interval(CONFIDENCE, of, probability)
    return bool(low <= count <= high)


def test_rates_are_those_asked_for_and_specials_stay() -> None:
    ids, starts = batch()
    for probability in (0.15, 0.2, 0.4):
        hidden = make(probability).mask(ids, starts, np.arange(len(ids)), epoch=1)
        ordinary = ~np.isin(ids, SPECIAL)
        chosen = np.zeros(ids.size, bool)
        chosen[hidden.indices] = True
        assert not (chosen & ~ordinary.reshape(-1)).any()
        assert within(int(chosen.sum()), int(ordinary.sum()), probability)
        np.testing.assert_array_equal(hidden.labels, ids.reshape(-1)[chosen])
        after, before = hidden.ids.reshape(-1), ids.reshape(-1)
        np.testing.assert_array_equal(after[~chosen], before[~chosen])
        masked = int((after[chosen] == MASK).sum())
        others = chosen & (after != MASK)
        changed = int((after[others] != before[others]).sum())
        assert within(masked, int(chosen.sum()), 0.8)
        assert within(changed, int(chosen.sum()), 0.1 * 44 / 45)  # one of 45 pieces is the original one
        assert not np.isin(after[others], SPECIAL).any()


def test_random_pieces_are_uniform() -> None:
    ids, starts = np.full((400, 200), 7), np.ones((400, 200), bool)
    hidden = make(0.9).mask(ids, starts, np.arange(400), epoch=1)
    after = hidden.ids[(hidden.ids != 7) & (hidden.ids != MASK)]
    counts = np.bincount(after, minlength=VOCABULARY)
    assert not counts[SPECIAL].any() and len(after) > 5000
    assert all(within(int(counts[i]), len(after), 1 / 44) for i in range(5, VOCABULARY) if i != 7)


def test_whole_words_are_hidden_whole_at_the_same_rate() -> None:
    ids, starts = batch()
    hidden = make(whole_words=True).mask(ids, starts, np.arange(len(ids)), epoch=1)
    special = np.isin(ids, SPECIAL)
    units = starts | special
    units[:, 1:] |= special[:, :-1]
    number = np.cumsum(units.reshape(-1))
    chosen = np.zeros(ids.size, bool)
    chosen[hidden.indices] = True
    words = int(number[-1]) + 1
    sizes = np.bincount(number, ~special.reshape(-1), words)
    hit = np.bincount(number, chosen, words)
    assert set(np.unique(hit[sizes > 0] / sizes[sizes > 0])) == {0.0, 1.0}
    assert sizes.max() > 3 and within(int((hit > 0).sum()), int((sizes > 0).sum()), 0.2)
    single = make().mask(ids, starts, np.arange(len(ids)), epoch=1)
    torn = np.bincount(number, np.isin(np.arange(ids.size), single.indices), words)
    assert ((torn > 0) & (torn < sizes)).any()  # without the option, words are split


def test_an_unknown_token_parts_a_word() -> None:
    ids, starts = np.array([[1, 10, 4, 11, 2]]), np.array([[True, True, False, False, True]])
    for number in range(40):
        places = make(0.5, whole_words=True).mask(ids, starts, np.array([number]), 1).indices.tolist()
        assert 2 not in places
    found = {
        tuple(make(0.5, whole_words=True).mask(ids, starts, np.array([number]), 1).indices.tolist())
        for number in range(40)
    }
    assert found == {(1,), (3,), (1, 3)}


def test_masks_follow_from_the_seed_the_epoch_and_the_sequence_alone() -> None:
    ids, starts = batch(rows=8)
    numbers = np.array([5, 900, 17, 3, 4, 6, 7, 8])
    masking = make()
    whole = masking.mask(ids, starts, numbers, epoch=2)
    again = make().mask(ids, starts, numbers, epoch=2)
    np.testing.assert_array_equal(whole.ids, again.ids)
    order = np.array([3, 0, 7])  # other neighbours, another order, wider padding
    wider = np.pad(ids[order], ((0, 0), (0, 9)))
    some = masking.mask(wider, np.pad(starts[order], ((0, 0), (0, 9)), constant_values=True), numbers[order], epoch=2)
    np.testing.assert_array_equal(some.ids[:, : ids.shape[1]], whole.ids[order])
    for other in (make(seed=2).mask(ids, starts, numbers, 2), masking.mask(ids, starts, numbers, 3)):
        assert (other.ids != whole.ids).any(axis=1).all()
    np.testing.assert_array_equal(ids, batch(rows=8)[0])  # the input is unchanged


def test_something_is_always_hidden_where_anything_can_be() -> None:
    ids = np.array([[1, 9, 2, 0], [1, 4, 2, 0], [1, 8, 7, 2]])
    starts = np.ones(ids.shape, bool)
    counts = np.zeros(3)
    for number in range(300):
        places = make(0.01).mask(ids, starts, np.array([number] * 3), 1).indices
        counts += np.bincount(places // 4, minlength=3)
    assert counts[0] == 300 and counts[1] == 0 and 300 <= counts[2] < 310
