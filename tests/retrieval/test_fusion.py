"""Fusion against sums worked out one document at a time."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from paddle_ranker.errors import DataError, UsageError
from paddle_ranker.retrieval.stages.fusion import Candidates, Fusion, Signal, parse_fusion
from paddle_ranker.retrieval.stored.candidate_indexes import Hits
from paddle_ranker.retrieval.values.typed_values import NUMBER, Value

pytestmark = pytest.mark.unit


def hits(**scores: float) -> Hits:
    return Hits(list(scores), np.array(list(scores.values())))


FOUND = {"words": hits(a=9.0, b=5.0, c=1.0), "vectors": hits(c=0.9, d=0.8, a=0.4)}


def fused(fusion: Fusion, found: dict[str, Hits], top_k: int = 10) -> list[tuple[str, float]]:
    candidates = Candidates.of(found)
    order, scores = fusion.best(candidates, top_k)
    return [(candidates.ids[number], float(score)) for number, score in zip(order, scores)]


def assert_alike(found: list[tuple[str, float]], wanted: list[tuple[str, float]]) -> None:
    assert [id for id, _ in found] == [id for id, _ in wanted]
    assert [score for _, score in found] == pytest.approx([score for _, score in wanted])


def test_candidates_keep_each_searcher_s_score_and_rank() -> None:
    candidates = Candidates.of(FOUND)
    assert candidates.searchers == ("words", "vectors") and candidates.ids == ["a", "b", "c", "d"]
    assert candidates.ranks.tolist() == [[1, 3], [2, 0], [3, 1], [0, 2]]
    np.testing.assert_array_equal(candidates.scores, np.array([[9, 0.4], [5, np.nan], [1, 0.9], [np.nan, 0.8]]))
    np.testing.assert_allclose(candidates.normalised, np.array([[1, 0], [0.5, 0], [0, 1], [0, 0.8]]))


def test_reciprocal_ranks_are_those_of_the_paper() -> None:
    wanted = [("a", 1 / 61 + 1 / 63), ("c", 1 / 63 + 1 / 61), ("b", 1 / 62), ("d", 1 / 62)]
    assert_alike(fused(Fusion("rrf"), FOUND), wanted)
    assert_alike(fused(Fusion("rrf"), FOUND, 1), wanted[:1])
    wanted = [("c", 1 / 63 + 2 / 61), ("a", 1 / 61 + 2 / 63), ("d", 2 / 62), ("b", 1 / 62)]
    assert_alike(fused(Fusion("rrf", {"vectors": 2.0}), FOUND), wanted)


def test_equal_scores_are_in_the_order_of_the_ids_and_one_searcher_keeps_its_scores() -> None:
    assert_alike(fused(Fusion("rrf"), {"words": hits(z=9.0, y=5.0), "vectors": hits(a=0.9, b=0.8)}),
                 [("a", 1 / 61), ("z", 1 / 61), ("b", 1 / 62), ("y", 1 / 62)])  # fmt: skip
    assert fused(Fusion("rrf"), {"words": hits(z=1.0, a=1.0)}) == [("a", 1.0), ("z", 1.0)]
    assert fused(Fusion("rrf"), {"words": hits(a=9.0, b=5.0)}) == [("a", 9.0), ("b", 5.0)]


def test_weighted_scores_are_each_searcher_s_between_its_lowest_and_its_highest() -> None:
    weighted = Fusion("weighted", {"words": 1.0, "vectors": 0.5})
    assert_alike(fused(weighted, FOUND), [("a", 1.0), ("b", 0.5), ("c", 0.5), ("d", 0.4)])
    alike = {"words": hits(a=2.0, b=2.0), "vectors": hits()}
    assert_alike(fused(weighted, alike), [("a", 1.0), ("b", 1.0)])
    assert fused(weighted, {"words": hits(), "vectors": hits()}) == []


def test_a_share_is_one_for_what_all_have_first() -> None:
    both = Candidates.of({"words": hits(a=9.0, b=5.0), "vectors": hits(a=0.9)})
    for fusion in (Fusion("rrf"), Fusion("rrf", {"words": 3.0}), Fusion("weighted", {"vectors": 0.2})):
        shares = fusion.shares(both)
        assert shares[0] == pytest.approx(1.0) and 0 <= shares[1] < 1
    assert Fusion("rrf").shares(Candidates.of({"words": hits(a=9.0, b=5.0)})).tolist() == [1.0, 0.0]


def test_a_thousand_of_two_searchers_are_fused_as_a_loop_fuses_them() -> None:
    random = np.random.default_rng(0)
    found = {
        name: Hits([str(number) for number in random.permutation(1500)[:1000]], -np.sort(-random.random(1000)))
        for name in ("words", "vectors")
    }
    sums: dict[str, float] = {}
    for one in found.values():
        for rank, id in enumerate(one.ids, start=1):
            sums[id] = sums.get(id, 0.0) + 1 / (60 + rank)
    ranked = fused(Fusion("rrf"), found, 5000)
    assert dict(ranked) == pytest.approx(sums)
    assert [score for _, score in ranked] == sorted((score for _, score in ranked), reverse=True)


def test_weights_are_written_and_read(tmp_path: Path) -> None:
    path = tmp_path / "weights.json"
    fusion = Fusion("weighted", {"words": 0.3, "vectors": 0.7}, recall_weight=1.5)
    fusion.write(path, {"queries": 69})
    assert Fusion.read(path) == parse_fusion(str(path)) == fusion
    assert json.loads(path.read_text(encoding="utf-8"))["learned"] == {"queries": 69}
    more = Fusion(signals={"words": Signal(0.5), "clicks": Signal(-0.2, True, True, 2.0, 1.5)})
    more.write(path, {})
    assert Fusion.read(path) == more
    values: list[tuple[Value, ...]] = [(), (Value(NUMBER, math.e**5 - 1),)]
    added = more.added(Candidates.of({"words": hits(a=9.0, b=5.0)}), [1, 0], lambda name, ids: values)
    assert {name: values.tolist() for name, values in added.items()} == {"words": [0.0, 0.5], "clicks": [0.0, -0.4]}
    assert parse_fusion("weighted", "words=1, vectors=2") == Fusion("weighted", {"words": 1.0, "vectors": 2.0})
    with pytest.raises(UsageError, match="has weights of its own"):
        parse_fusion(str(path), "words=1")


@pytest.mark.parametrize("content", ["", "{}", "[" * 100_000, '{"format": 1, "method": "sum", "weights": {}}', "\0"])
def test_any_other_file_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "weights.json").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=r"weights\.json: not a file of learned weights"):
        Fusion.read(tmp_path / "weights.json")


@pytest.mark.parametrize(
    ("name", "weights", "said"),
    [
        ("rff", "", "--fusion rff: choose from rrf, weighted"),
        ("rrf", "words:1", "expected searchers and numbers"),
        ("rrf", "words=nan", "finite numbers"),
        ("rrf", "words=1e308,vectors=1", "up to 1000"),
    ],
)
def test_wrong_weights_are_named(name: str, weights: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_fusion(name, weights)


def test_a_searcher_may_have_no_weight_but_not_all_of_them() -> None:
    by_vectors = fused(parse_fusion("rrf", "words=0"), FOUND)
    assert_alike(by_vectors, [("c", 1 / 61), ("d", 1 / 62), ("a", 1 / 63), ("b", 0.0)])
    with pytest.raises(UsageError, match="give one that is not 0"):
        parse_fusion("rrf", "words=0,vectors=0").scores(Candidates.of(FOUND))
    with pytest.raises(UsageError, match="weights of titles: the search is by words, vectors"):
        Fusion("rrf", {"titles": 1.0}).scores(Candidates.of(FOUND))
