"""A score depends on its pair alone: alone, in any batch, in any order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_ranker import Ranker
from paddle_ranker.model.kinds import load_ranker
from paddle_ranker.scoring.engines.dygraph import DygraphEngine
from paddle_ranker.scoring.scorer import Scorer, chunks
from tests.engine_calls import logits_of
from tests.tiny import PAIRS, make_network, write_ranker

pytestmark = pytest.mark.parity
QUERIES, TITLES = [list(column) for column in zip(*PAIRS)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ranker(tmp_path_factory.mktemp("scorer") / "ranker")


@pytest.fixture(scope="module")
def ranker(folder: Path) -> Ranker:
    return Ranker.load(folder)


def test_alone_and_together(ranker: Ranker) -> None:
    together = ranker.score(QUERIES, TITLES)
    alone = [ranker.score([query], [title])[0] for query, title in PAIRS]
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert np.ptp(alone) > 0.1


@settings(max_examples=25, deadline=None)
@given(rows=st.lists(st.integers(0, len(PAIRS) - 1), min_size=1, max_size=80), batch_size=st.integers(1, 9))
def test_any_batch_and_any_order(folder: Path, rows: list[int], batch_size: int) -> None:
    parts = load_ranker(folder)
    reference = Scorer(DygraphEngine(parts.network), parts.pair_encoder, 32).score(QUERIES, TITLES)
    scorer = Scorer(DygraphEngine(parts.network), parts.pair_encoder, batch_size)
    scores = scorer.score([QUERIES[i] for i in rows], [TITLES[i] for i in rows])
    np.testing.assert_allclose(scores, reference[rows], atol=1e-5)


def test_ranking_is_best_first_and_keeps_the_given_order_of_ties(ranker: Ranker) -> None:
    titles = [*TITLES, TITLES[0]]  # one title twice: a tie
    ranked = ranker.rank("深度学习", titles)
    scores = ranker.score(["深度学习"] * len(titles), titles)
    assert [r.probability for r in ranked] == sorted(scores.tolist(), reverse=True)
    assert all(titles[r.index] == r.title for r in ranked)
    places = [r.index for r in ranked]
    assert places.index(0) + 1 == places.index(len(TITLES))
    assert ranker.rank("深度学习", titles, top_k=2) == ranked[:2]
    assert ranker.rank("深度学习", []) == []


def test_scoring_leaves_training_mode_as_it_was() -> None:
    network = make_network()
    for training in (True, False):
        network.train() if training else network.eval()
        logits_of(DygraphEngine(network), np.array([[1, 5, 2, 6, 2]]), np.array([[0, 0, 0, 1, 1]]))
        assert network.training is training


def test_dropout_is_off_when_scoring() -> None:
    network = make_network()
    network.train()
    ids, types = np.array([[1, 5, 2, 6, 2]]), np.array([[0, 0, 0, 1, 1]])
    first = logits_of(DygraphEngine(network), ids, types)
    assert all(logits_of(DygraphEngine(network), ids, types) == first for _ in range(5))


def test_chunks() -> None:
    assert list(chunks(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(chunks([], 2)) == []
