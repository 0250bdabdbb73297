"""Lexical baselines and BM25's index: values worked out by hand, and the baselines' quality on real data."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from benchmarks.harness.runs import Baseline
from paddle_ranker.data.rows.records import LabeledPair, read_records
from paddle_ranker.errors import DataError, UsageError
from paddle_ranker.lexical.bm25 import BM25
from paddle_ranker.lexical.features import (
    FEATURES,
    LIST_FEATURES,
    LexicalFeatures,
    LexicalLogistic,
    list_features,
    longest_shared_run,
)
from paddle_ranker.lexical.tokens import bigrams, words
from paddle_ranker.metrics.measures import evaluate_ranking

pytestmark = pytest.mark.unit


def test_tokens() -> None:
    assert bigrams("Ｎote 1０，中文") == ["no", "ot", "te", "e1", "10", "0中", "中文"]
    assert bigrams("中") == ["中"]
    assert bigrams("，。") == []
    assert words("深度学习，DEEP！") == ["深度", "学习", "deep"]
    with pytest.raises(UsageError, match="choose from standard, jieba, bigram"):
        BM25("trigram")
    shared = {("abcd", "xbcdy"): 3, ("abcd", "abcd"): 4, ("abab", "babab"): 4, ("a", "b"): 0, ("", "a"): 0}
    assert {pair: longest_shared_run(*pair) for pair in shared} == shared


@pytest.mark.parametrize("titles", [["中文", "中文字中文", "英语"], ["中文", "中文字中文", "英语", "中文"]])
def test_bm25_worked_out_by_hand(titles: list[str]) -> None:
    """Titles count once each: 1, 4 and 1 bigrams, 2 on average."""
    bm25, normalised = BM25("bigram", normalised=False), BM25("bigram")
    with pytest.raises(DataError, match="call fit"):
        bm25.score(["中文"], ["英语"])
    bm25.fit([], titles)
    normalised.fit([], titles)
    rarity = math.log(1 + (3 - 2 + 0.5) / (2 + 0.5))  # 中文 is in two of three titles
    unseen = math.log(1 + 3.5 / 0.5)
    length = 1.2 * (0.25 + 0.75 * 4 / 2)
    expected = rarity * 2 * 2.2 / (2 + length)
    assert bm25.score(["中文", "中文", "日语"], ["中文字中文", "英语", "中文"]) == pytest.approx([expected, 0.0, 0.0])
    assert bm25.score(["法语"], ["法语"]) == pytest.approx([unseen * 2.2 / (1 + 1.2 * (0.25 + 0.75 / 2))])
    itself = rarity * 2.2 / (1 + 1.2 * (0.25 + 0.75 / 2))
    assert normalised.score(["中文"], ["中文字中文"]) == pytest.approx([expected / itself])
    assert normalised.score(["中文", "，"], ["中文", "，"]).tolist() == [1.0, 0.0]


def test_features_worked_out_by_hand() -> None:
    features = LexicalFeatures()
    features.fit(["北京天气", "上海天气"])
    rows = features.transform(["北京天气 3 abc", "北京"], ["哪里？上海天气：5 def abc", "上海"])
    assert rows.shape == (2, 24) and rows.dtype == np.float64
    found, nothing = (dict(zip(FEATURES, row)) for row in rows)
    common, rare, unseen = math.log(1 + 0.5 / 2.5), math.log(1 + 1.5 / 1.5), math.log(1 + 2.5 / 0.5)
    # Words: 北京 天气 3 abc against 哪里 上海 天气 5 def abc
    assert found["coverage_words"] == pytest.approx((common + unseen) / (rare + common + 2 * unseen))
    assert found["title_matched"] == pytest.approx((common + unseen) / (common + rare + 4 * unseen))
    assert found["jaccard_words"] == pytest.approx(2 / 8)
    assert found["rarest_missing_word"] == pytest.approx(unseen)
    # Letters: 北京天气3abc against 哪里上海天气5defabc; shared bigrams 天气 (place 4) and ab, bc (10, 11) of 12
    assert found["longest_run"] == 3 / 8 and found["whole_query"] == 0
    assert (found["first_match"], found["last_match"]) == pytest.approx((4 / 12, 11 / 12))
    assert found["match_span"] == pytest.approx(9 / 8)
    assert found["jaccard_bigrams"] == pytest.approx(3 / (7 + 12 - 3))
    assert (found["query_length"], found["title_length"]) == pytest.approx((math.log(9), math.log(14)))
    assert [found[name] for name in FEATURES[18:]] == [1, 1, 0, 1, 1, 1]
    zeros = [name for name in FEATURES if nothing[name] == 0]
    assert zeros == [
        *FEATURES[:8], "jaccard_words", "jaccard_bigrams", "match_span", "title_matched", *FEATURES[18:]
    ]  # fmt: skip
    assert nothing["first_match"] == nothing["last_match"] == 1


@pytest.mark.parametrize("make", [BM25, LexicalLogistic])
def test_a_score_depends_on_its_pair_alone(make: type[Baseline]) -> None:
    queries = ["北京天气", "上海天气", "北京地铁", "上海地铁"] * 5
    titles = ["北京天气预报", "北京地铁线路", "北京地铁图", "上海天气"] * 5
    labels = [1.0, 0.0, 1.0, 0.0] * 5
    baseline = make()
    baseline.fit(queries, titles, labels)
    together = baseline.score(queries, titles)
    assert together.dtype == np.float64 and together.shape == (20,)
    assert baseline.score(queries[:1], titles[:1]) == pytest.approx(together[:1], rel=1e-12)
    assert baseline.score(queries[::-1], titles[::-1]) == pytest.approx(together[::-1], rel=1e-12)
    assert min(together[[0, 2]]) > max(together[[1, 3]])


def test_any_text_has_finite_features_and_one_class_teaches_nothing() -> None:
    features = LexicalFeatures()
    features.fit(["中文"])
    texts = ["", " ", "，。？", "😀", "a" * 3000, "１２.5", "\u2028"]
    pairs = [(query, title) for query in texts for title in texts]
    assert np.isfinite(features.transform(*zip(*pairs))).all()
    assert features.transform([], []).shape == (0, 24)
    for label, which in ((0.0, "0"), (1.0, "2")):
        with pytest.raises(DataError, match=f"{which} of the 2 pairs"):
            LexicalLogistic().fit(["a", "b"], ["a", "b"], [label] * 2)


def test_scores_of_different_folds_are_on_one_scale() -> None:
    queries = [f"{first}{second}" for first in "北上广深" for second in "京海州圳天地" for _ in range(2)]
    titles = [query if row % 2 else f"论{query[0]}" for row, query in enumerate(queries)]
    random = np.random.default_rng(1)
    labels = (random.random(48) < np.repeat([0.1, 0.9], 24) * (0.5 + np.arange(48) % 2)).astype(float)
    folds = np.arange(48) // 24  # of one fold few titles are relevant, of the other many
    scores = LexicalLogistic().cross_fit(queries, titles, labels, folds)
    features = LexicalFeatures()
    features.fit(titles)
    inputs = features.transform(queries, titles)
    inputs = inputs[:, inputs.std(axis=0) > 0]
    for fold in (0, 1):
        others = folds != fold
        mean, deviation = inputs[others].mean(axis=0), inputs[others].std(axis=0)
        spread = (inputs - mean) / np.where(deviation > 0, deviation, 1.0)
        logits = LogisticRegression(max_iter=1000).fit(spread[others], labels[others]).decision_function(spread)
        expected = (logits - logits.mean()) / logits.std()
        np.testing.assert_allclose(scores[folds == fold], expected[folds == fold], atol=1e-3)


@pytest.mark.real_data
@pytest.mark.slow
@pytest.mark.parametrize(
    "make, auc, ndcg",
    [(lambda: BM25("jieba"), 0.757, 0.850), (lambda: BM25("bigram"), 0.744, 0.858), (LexicalLogistic, 0.799, 0.874)],
    ids=["bm25-words", "bm25-bigrams", "24-features"],
)
def test_quality_on_real_data_stays(real_data: Path, make: Callable[[], Baseline], auc: float, ndcg: float) -> None:
    train, dev = (
        list(zip(*((pair.query, pair.title, pair.label) for pair in read_records(real_data / name, LabeledPair))))
        for name in ("qbqtc/train.tsv", "qbqtc/dev.tsv")
    )
    baseline = make()
    baseline.fit(*train)
    queries, titles, labels = dev
    found = evaluate_ranking(queries, labels, baseline.score(queries, titles))
    assert (found["auc"], found["ndcg@10"]) == pytest.approx((auc, ndcg), abs=0.003)


def test_the_features_of_a_list_are_those_counted_by_hand() -> None:
    weights = {"red": 1.0, "shoe": 2.0, "12": 1.0}
    found = list_features("red shoe 12", weights, ["12 red boots: why?", "red shoe 12"], str.split)
    assert found.shape == (2, len(LIST_FEATURES))
    first, second = (dict(zip(LIST_FEATURES, row)) for row in found.tolist())
    assert first == pytest.approx({
        "coverage": 0.5, "coverage_pairs": 0.5, "coverage_letters": 1, "longest_run": 3 / 9, "whole_query": 0,
        "text_length": np.log(14), "first_match": 0, "last_match": 1 / 4, "match_span": 1 / 3, "rarest_missing": 2,
        "numbers_missing": 0, "numbers_extra": 0, "latin_missing": 1, "latin_extra": 2, "text_asks": 1,
        "text_breaks": 1, "likeness": 2 / 5, "likeness_first": 2 / 5,
    })  # fmt: skip
    assert second["coverage"] == second["whole_query"] == 1 and second["rarest_missing"] == 0
    columns = list_features("红鞋红1A", {}, ["鞋子 a", "红", "Ａ１红鞋", ""], list).T
    assert columns[LIST_FEATURES.index("coverage_letters")].tolist() == [2 / 4, 1 / 4, 1, 0]
    assert list_features("red", {}, ["", "a"], str.split).shape == (2, len(LIST_FEATURES))
    assert list_features("red", {}, [], str.split).shape == (0, len(LIST_FEATURES))
