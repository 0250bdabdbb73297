"""A score depends on its pair alone: alone, in any batch, in any order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_ranker import Ranker
from paddle_ranker.scoring.engines.dygraph import DygraphEngine
from paddle_ranker.scoring.scorer import Scorer, chunks
from tests.engine_calls import logits_of
from tests.tiny import PAIRS, QUERIES, TITLES, make_network, write_ranker

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def ranker(tmp_path_factory: pytest.TempPathFactory) -> Ranker:
    return Ranker.load(write_ranker(tmp_path_factory.mktemp("scorer") / "ranker"))


@settings(max_examples=25, deadline=None)
@given(rows=st.lists(st.integers(0, len(PAIRS) - 1), min_size=1, max_size=80), batch_size=st.integers(1, 9))
def test_alone_in_any_batch_and_in_any_order(ranker: Ranker, rows: list[int], batch_size: int) -> None:
    reference = np.array([ranker.score([query], [title])[0] for query, title in PAIRS])
    assert np.ptp(reference) > 0.1
    scorer = Scorer(ranker.scorer.engine, ranker.pair_encoder, batch_size)
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


def test_scoring_leaves_training_mode_as_it_was_and_knows_no_dropout() -> None:
    network = make_network()
    ids, types = np.array([[1, 5, 2, 6, 2]]), np.array([[0, 0, 0, 1, 1]])
    first = logits_of(DygraphEngine(network), ids, types)
    for training in (True, False) * 3:
        network.train() if training else network.eval()
        assert logits_of(DygraphEngine(network), ids, types) == first
        assert network.training is training


def test_chunks() -> None:
    assert list(chunks(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(chunks([], 2)) == []
