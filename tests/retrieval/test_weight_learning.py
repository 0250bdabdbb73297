"""Weights that are learned: found where they are planted, and never measured on their own queries."""

from __future__ import annotations

import numpy as np
import pytest

from paddle_ranker.array_types import Floats
from paddle_ranker.errors import DataError
from paddle_ranker.metrics.calibration import sigmoid
from paddle_ranker.metrics.logistic import PENALTY
from paddle_ranker.retrieval.stages.weight_learning import (
    JudgedList,
    learn_features,
    learn_recall_weight,
    learn_weights,
)

pytestmark = pytest.mark.unit


def lists_of(queries: int, weights: tuple[float, float], seed: int = 0, noise: float = 0.1) -> list[JudgedList]:
    """Return lists whose relevant documents are those of the largest weighted sums, almost."""
    random = np.random.default_rng(seed)
    found = []
    for query in range(queries):
        inputs: Floats = random.random((20, 2))
        sums = inputs @ np.array(weights) + noise * random.normal(size=20)
        labels = (sums > np.sort(sums)[-5]).astype(float)
        found.append(JudgedList(f"q{query}", [f"d{number}" for number in range(20)], inputs, labels))
    return found


def test_weights_are_those_that_the_labels_follow() -> None:
    learned = learn_weights(lists_of(40, (1.0, 3.0)), ("words", "vectors"), 2)
    assert sum(learned.weights.values()) == pytest.approx(1.0) and not learned.is_equal
    assert learned.weights["vectors"] / learned.weights["words"] == pytest.approx(3.0, rel=0.3)


def test_few_queries_keep_equal_weights() -> None:
    learned = learn_weights(lists_of(4, (1.0, 1.1), noise=0.5), ("words", "vectors"))
    assert learned.is_equal
    assert learned.weights == {"words": pytest.approx(0.5), "vectors": pytest.approx(0.5)}


def test_a_single_searcher_has_all_the_weight() -> None:
    lists = [JudgedList(str(n), ["a", "b"], np.array([[1.0], [0.0]]), np.array([1.0, 0.0])) for n in range(3)]
    learned = learn_weights(lists, ("words",), 2)
    assert learned.weights == {"words": 1.0} and learned.held_out["0"] == {"a": 1.0, "b": 0.0}


def test_what_is_learned_is_what_makes_the_logarithms_of_ranks_least() -> None:
    lists = lists_of(30, (1.0, 2.0), noise=0.5)
    least, best = np.inf, 0.0
    for share in np.linspace(0, 1, 21):
        logarithms = []
        for one in lists:
            order = np.argsort(-(one.inputs @ [share, 1 - share]), kind="stable")
            logarithms.append(np.log(1 + np.flatnonzero(one.labels[order])).mean())
        if np.mean(logarithms) < least:
            least, best = float(np.mean(logarithms)), float(share)
    found = learn_weights(lists, ("words", "vectors")).weights["words"]
    assert best <= found <= 0.5  # towards equal weights, as far as the queries cannot tell
    assert best == pytest.approx(1 / 3, abs=0.1)


def test_scores_are_by_weights_of_other_queries() -> None:
    lists = lists_of(20, (1.0, 3.0))
    turned = [*lists]
    turned[7] = JudgedList("q7", lists[7].ids, lists[7].inputs, 1 - lists[7].labels)
    before, after = (learn_weights(some, ("words", "vectors"), 2).held_out["q7"] for some in (lists, turned))
    assert sorted(before, key=lambda id: before[id]) == sorted(after, key=lambda id: after[id])
    assert set(before) == set(lists[7].ids)


def test_recall_counts_as_much_as_the_labels_say() -> None:
    learned = learn_recall_weight(lists_of(80, (2.0, 1.0)))
    assert learned.weights["logit"] == 1.0 and learned.weights["recall"] == pytest.approx(0.5, rel=0.35)
    with pytest.raises(DataError, match="do not tell relevant candidates"):
        learn_recall_weight(lists_of(80, (-2.0, 1.0)))


def test_neither_share_nor_weight_has_seen_a_held_out_query() -> None:
    fused = lists_of(20, (1.0, 3.0))
    logits = np.random.default_rng(1).normal(size=(20, 20)) + [one.labels for one in fused]
    ranked = [
        JudgedList(one.query, one.ids, np.column_stack([of_query, one.inputs[:, 0], one.inputs]), one.labels)
        for one, of_query in zip(fused, logits)
    ]
    turned = [*fused]
    turned[7] = JudgedList("q7", fused[7].ids, fused[7].inputs, 1 - fused[7].labels)
    before, after = (learn_recall_weight(ranked, 2, some).held_out["q7"] for some in (fused, turned))
    assert before == after
    assert learn_recall_weight(ranked, 2, fused).weights != learn_recall_weight(ranked, 2, turned).weights
    assert before != learn_recall_weight(ranked, 2).held_out["q7"]


def test_signals_count_where_the_labels_follow_them_alone() -> None:
    lists = lists_of(60, (2.0, 1.0), noise=0.3)
    random = np.random.default_rng(9)
    planted, chance = [], []
    for one in lists:
        more, noise = random.random((2, 20, 1))
        labels = (one.inputs @ [2.0, 1.0] + more[:, 0] > 2.3).astype(float)
        planted.append(JudgedList(one.query, one.ids, np.hstack([one.inputs, more, noise]), labels))
        chance.append(JudgedList(one.query, one.ids, np.hstack([one.inputs, more, noise]), one.labels))
    found = learn_recall_weight(planted, 2, signals={"more": 2, "noise": 3}).weights
    assert found["more"] == pytest.approx(0.5, rel=0.3) and found["noise"] == 0.0
    assert learn_recall_weight(planted, 2, signals={"more": 2}, recall=False).weights["recall"] == 0.0
    none = learn_recall_weight(chance, 2, signals={"more": 2, "noise": 3})
    assert none.weights["more"] == none.weights["noise"] == 0.0
    assert none.held_out == learn_recall_weight(chance, 2).held_out


def test_weights_of_features_make_the_loss_of_a_query_s_pairs_least() -> None:
    ids, inputs = ["a", "b", "c"], np.array([[0.0], [1.0], [-1.0]])
    judged = JudgedList("q", ids, inputs, np.array([1.0, 0.0, 0.0]), judged=np.array([True, True, False]))
    nothing = JudgedList("n", ids, inputs, np.zeros(3))  # has no pair to learn from
    (weight,) = learn_features([judged, nothing], ["own"]).values()
    # Of (a, b), which weighs 1, the gap is -weight; of (a, c), which nobody judged, it is weight.
    slope = (sigmoid(np.array(weight)) - 0.3 * sigmoid(np.array(-weight))) / 1.3 + PENALTY * weight
    assert weight < 0 and abs(float(slope)) < 1e-5
    graded = JudgedList("q", ids, np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]), np.array([2.0, 1.0, 0.0]))
    first, second = learn_features([graded], ["first", "second"]).values()
    assert first > second > 0
    with pytest.raises(DataError, match="documents with different labels"):
        learn_features([nothing], ["own"])


def test_noise_keeps_equal_weights_in_nineteen_of_twenty_trials() -> None:
    for queries, inputs in ((20, 2), (40, 3)):
        unequal = 0
        for trial in range(40):
            random = np.random.default_rng(trial)
            lists = [
                JudgedList(
                    f"q{query}", list("abcdefghij"), random.random((10, inputs)), (random.random(10) < 0.2) * 1.0
                )
                for query in range(queries)
            ]
            unequal += not learn_weights(lists, ("a", "b", "c")[:inputs], 2).is_equal
        assert unequal <= 2


def test_what_cannot_be_learned_is_said() -> None:
    with pytest.raises(DataError, match="one query only"):
        learn_weights(lists_of(1, (1.0, 1.0)), ("words", "vectors"))
    with pytest.raises(DataError, match="no candidates"):
        learn_weights([], ("words", "vectors"))
