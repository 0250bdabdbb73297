"""Stems and the language of texts, by hand."""

from __future__ import annotations

import pytest

from paddle_ranker.lexical.tokens import detect_language, stems
from paddle_ranker.retrieval.words import WordSearcher

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        # Snowball's own examples for English.
        ("consign CONSIGNED consigning consignment", ["consign"] * 4),
        ("knack knackeries knavish knightly", ["knack", "knackeri", "knavish", "knight"]),
        ("The dog's bones, and THEIR owners’ houses", ["dog", "bone", "owner", "hous"]),
        ("use of the BERT模型训练 in 3 steps", ["use", "bert", "模型", "型训", "训练", "3", "step"]),
        ("稻 Ｒｉｃｅ_paddies", ["稻", "rice", "paddi"]),
        ("To be, or not to be", ["to", "be", "or", "not", "to", "be"]),
        ("'--' …", []),
        ("", []),
    ],
)
def test_stems_are_snowball_s_without_stop_words_and_chinese_is_in_bigrams(text: str, wanted: list[str]) -> None:
    assert stems(text) == wanted


def test_words_of_another_form_are_found_in_a_mixed_collection() -> None:
    words = WordSearcher.of_texts(["Training of rankers", "水稻病害诊断", "A ranked list", "训练排序模型"], "stem")
    found = [words.search(query, 4)[0].tolist() for query in ("trained ranker", "病害的诊断", "the")]
    assert found == [[0], [1], []]


@pytest.mark.parametrize(
    ("texts", "language", "share"),
    [
        (["水稻病害诊断", "BERT 模型的压缩方法研究"] * 10 + ["rice", "2023"], "zh", 1 / 21),
        (["水稻病害诊断", "BERT 模型的压缩方法研究"] * 9 + ["rice"], "en", 1 / 19),
        (["Deep learning for rice 水稻", "a survey"], "en", 1.0),
        (["……", "", " "], "zh", 0.0),
    ],
)
def test_the_language_is_that_of_the_texts(texts: list[str], language: str, share: float) -> None:
    assert detect_language(iter(texts)) == (language, pytest.approx(share))
