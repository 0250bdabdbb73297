"""Windows over long titles: cut by hand, against a loop over plain lists, and scored against one window at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_ranker import Ranker
from paddle_ranker.encoding.columns import EncodedPairs, offsets_of
from paddle_ranker.encoding.windows import Windows, make_windows
from paddle_ranker.errors import UsageError
from tests.engine_calls import logits_of
from tests.tiny import HAN, PAIRS, write_ranker

unit, parity = pytest.mark.unit, pytest.mark.parity
CLS, SEP = 1, 2


def pairs_of(texts: list[tuple[list[int], list[int]]]) -> EncodedPairs:
    """Encode pairs of ids as `PairEncoder` does."""
    rows = [[CLS, *query, SEP, *title, SEP] for query, title in texts]
    ids = np.array([token for row in rows for token in row], np.int32)
    offsets = offsets_of(np.array([len(row) for row in rows], np.int64))
    return EncodedPairs(ids, offsets, np.array([len(query) + 2 for query, _ in texts], np.int32))


def windows_by_hand(query: list[int], title: list[int], length: int, overlap: int) -> list[list[int]]:
    """Cut one pair, token by token."""
    room = length - 3
    query, first = list(query), list(title)
    while len(query) + len(first) > room:  # as PaddleNLP does: from the longer one, from the title where equal
        (query if len(query) > len(first) else first).pop()
    found, start = [], 0
    while True:
        shown = title[start : start + len(first)]
        found.append([CLS, *query, SEP, *shown, SEP])
        if start + len(shown) >= len(title):
            return found
        start += len(first) - overlap


@unit
def test_windows_cut_by_hand() -> None:
    title = list(range(20, 32))
    split = Windows(10, overlap=2).split(pairs_of([([10, 11], title), ([10], [20, 21])]))
    assert split.offsets.tolist() == [0, 4, 5]
    assert [split.pairs[i].tolist() for i in range(5)] == [
        [CLS, 10, 11, SEP, 20, 21, 22, 23, 24, SEP],
        [CLS, 10, 11, SEP, 23, 24, 25, 26, 27, SEP],
        [CLS, 10, 11, SEP, 26, 27, 28, 29, 30, SEP],
        [CLS, 10, 11, SEP, 29, 30, 31, SEP],
        [CLS, 10, SEP, 20, 21, SEP],
    ]
    assert split.pairs.second_starts.tolist() == [4, 4, 4, 4, 3]


@unit
def test_a_query_gives_way_to_the_title_beyond_half_and_only_then() -> None:
    windows = Windows(10, overlap=0)
    query = list(range(10, 19))
    split = windows.split(pairs_of([(query, [20, 21]), (query, [20, 21, 22, 23])]))
    assert (
        [split.pairs[i].tolist() for i in range(3)]
        == [
            [CLS, *query[:5], SEP, 20, 21, SEP],  # the title is short: the query has the rest, and one window is enough
            [CLS, *query[:4], SEP, 20, 21, 22, SEP],
            [CLS, *query[:4], SEP, 23, SEP],
        ]
    )
    assert (windows.windowed, windows.cut) == (1, 2)


@unit
@settings(max_examples=200, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 90)), min_size=1, max_size=8),
    length=st.integers(7, 40),
    share=st.floats(0, 1),
)
def test_windows_are_those_of_a_loop_and_show_every_token(
    lengths: list[tuple[int, int]], length: int, share: float
) -> None:
    overlap = int(share * ((length - 3) // 2 - 1))
    texts = [(list(range(100, 100 + q)), list(range(200, 200 + t))) for q, t in lengths]
    windows = Windows(length, overlap=overlap)
    split = windows.split(pairs_of(texts))
    assert windows.windowed == int((np.diff(split.offsets) > 1).sum())
    for i, (query, title) in enumerate(texts):
        found = [split.pairs[j].tolist() for j in range(split.offsets[i], split.offsets[i + 1])]
        assert found == windows_by_hand(query, title, length, overlap)
        assert all(len(row) <= length for row in found)
        titles = [row[split.pairs.second_starts[split.offsets[i]] :][:-1] for row in found]
        assert sorted({token for shown in titles for token in shown}) == title
        assert all(set(a) & set(b) == set(b[:overlap]) for a, b in zip(titles, titles[1:]))


@unit
def test_pooling_by_hand() -> None:
    logits, offsets = np.array([1.0, 3.0, 2.0, -1.0, 4.0, 6.0]), np.array([0, 3, 4, 6])
    assert Windows(20).pool(logits, offsets).tolist() == [3, -1, 6]
    assert Windows(20, "mean_top_k").pool(logits, offsets).tolist() == [2.5, -1, 5]
    assert Windows(20, "mean_top_k", top_k=3).pool(logits, offsets).tolist() == [2, -1, 5]
    assert Windows(20, "mean_top_k", top_k=1).pool(logits, offsets).tolist() == [3, -1, 6]
    assert Windows(20).pool(np.zeros(0), np.array([0])).tolist() == []


@unit
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((64, "max", 30, None), "--window_overlap 30: must be at least 0 and below 30"),
        ((64, "max", -1, None), "--window_overlap -1"),
        ((64, "max", None, 2), "--window_top_k belongs to --windows mean_top_k"),
        ((64, "mean_top_k", None, 0), "--window_top_k 0"),
        ((64, "mean", None, None), "--windows mean: choose from max, mean_top_k"),
        ((64, "none", 4, None), "--window_overlap 4 is of no use without --windows"),
        ((64, "none", None, 4), "--window_top_k 4 is of no use without --windows"),
    ],
)
def test_windows_that_cannot_be_and_defaults(
    arguments: tuple[int, str, Optional[int], Optional[int]], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        make_windows(*arguments)
    assert make_windows(64, "none", None, None) is None
    windows = make_windows(64, "mean_top_k", None, None)
    assert windows and windows.facts() == {"pooling": "mean_top_k", "overlap": 16, "top_k": 2}
    assert [Windows(length).overlap for length in (5, 7, 8, 128)] == [0, 1, 1, 32]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ranker(tmp_path_factory.mktemp("windows") / "ranker", max_seq_length=20)


LONG = [
    *PAIRS,
    ("深度学习", "".join(HAN)),
    ("老年人护理", "农业水稻" * 30 + "老年人护理"),
    ("".join(HAN), "经济增长" * 9),
    ("法律", "教育"),
]
QUERIES, TITLES = [list(column) for column in zip(*LONG)]


@parity
@pytest.mark.parametrize(("pooling", "top_k"), [("max", None), ("mean_top_k", None), ("mean_top_k", 3)])
def test_scores_are_those_of_windows_scored_one_at_a_time(
    folder: Path, pooling: str, top_k: Optional[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    ranker = Ranker.load(folder, windows=pooling, window_overlap=3, window_top_k=top_k)
    (encoder,) = ranker.row_encoder.members
    expected = []
    for pair in LONG:
        query, title = (ids.tolist() for ids in encoder.encode_texts(pair))
        logits = []
        for row in windows_by_hand(query, title, 20, 3):
            row = [{CLS: encoder.cls_id, SEP: encoder.sep_id}.get(t, t) for t in row]
            types = np.zeros(len(row), np.int64)
            types[row.index(encoder.sep_id) + 1 :] = 1
            logits.append(float(logits_of(ranker.scorer.engine, np.array([row]), types[None])[0]))
        best = sorted(logits, reverse=True)[: {"max": 1}.get(pooling, top_k or 2)]
        expected.append(1 / (1 + np.exp(-sum(best) / len(best))))
    np.testing.assert_allclose(ranker.score(QUERIES, TITLES), expected, atol=1e-5)
    assert ranker.windows and ranker.windows.windowed == 5
    assert encoder.truncated == 0
    monkeypatch.setattr("paddle_ranker.scoring.scorer.CHUNK", 3)  # which changes nothing
    np.testing.assert_allclose(ranker.score(QUERIES, TITLES), expected, atol=1e-5)
    with pytest.raises(ValueError, match="one process"):
        ranker.scorer.logits(ranker.scorer.encode(QUERIES, TITLES), 0, 2)


@parity
def test_pairs_that_fit_score_as_without_windows_and_others_do_not(folder: Path) -> None:
    plain, windowed = Ranker.load(folder), Ranker.load(folder, windows="max")
    without, with_windows = plain.score(QUERIES, TITLES), windowed.score(QUERIES, TITLES)
    lengths = windowed.row_encoder.encode(QUERIES, TITLES, truncate=False).lengths
    fits = lengths <= 20
    assert 0 < fits.sum() < len(LONG)
    np.testing.assert_allclose(with_windows[fits], without[fits], atol=1e-6)
    assert (with_windows >= without - 1e-6).all()  # the first window is what truncation keeps
    assert np.ptp(with_windows - without) > 1e-3
    assert plain.row_encoder.truncated == windowed.windows.windowed  # type: ignore[union-attr]
