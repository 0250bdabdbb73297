"""The language of texts, by hand."""

from __future__ import annotations

import pytest

from paddle_ranker.lexical.tokens import detect_language

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("texts", "language", "share"),
    [
        (["水稻病害诊断", "BERT 模型的压缩方法研究"] * 10 + ["rice", "2023"], "zh", 1 / 21),
        (["水稻病害诊断", "BERT 模型的压缩方法研究"] * 9 + ["rice"], "en", 1 / 19),
        (["Deep learning for rice 水稻", "a survey"], "en", 1.0),
        (["……", "", " "], "zh", 0.0),
        (["ภาษาไทย", "한국어 문장"], "zh", 0.0),
    ],
)
def test_the_language_is_that_of_the_texts(texts: list[str], language: str, share: float) -> None:
    assert detect_language(iter(texts)) == (language, pytest.approx(share))
