"""Scripts of texts, by hand."""

from __future__ import annotations

import pytest

from paddle_ranker.lexical.tokens import have_spaces

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("texts", "is_spaced"),
    [
        (["水稻病害诊断", "BERT 模型的压缩方法研究"] * 10 + ["rice", "2023"], False),
        (["水稻病害诊断", "BERT 模型的压缩方法研究"] * 9 + ["rice"], True),
        (["Deep learning for rice 水稻", "a survey"], True),
        (["……", "", " "], False),
        (["ภาษาไทย", "한국어 문장"], False),
    ],
)
def test_some_words_with_spaces_between_them_suffice(texts: list[str], is_spaced: bool) -> None:
    assert have_spaces(iter(texts)) is is_spaced
