"""Highlights and passages: levels against the rankers' levels, places against the text."""

from __future__ import annotations

import random

import paddle
import pytest

from paddle_ranker.lexical.highlights import PASSAGE, FoldedText, Highlight, SharedWords, level_of, occurrences_of
from paddle_ranker.model.match_levels import match_levels

pytestmark = pytest.mark.unit


def test_levels_are_those_of_the_rankers_match_embeddings() -> None:
    draw = random.Random(1)
    for _ in range(200):
        query, text = ("".join(draw.choices("水稻病害诊断", k=draw.randint(2, 6))) for _ in range(2))
        ids = paddle.to_tensor([[ord(char) for char in query + text]])
        types = paddle.to_tensor([[0] * len(query) + [1] * len(text)])
        wanted = match_levels(ids, types, []).numpy()[0, len(query) :].tolist()
        found = [0] * len(text)
        for one in SharedWords(query).highlights(text):
            found[one.start : one.end] = [one.level] * (one.end - one.start)
        assert found == [level if level > 1 else 0 for level in wanted]  # a single shared character does not count


@pytest.mark.parametrize(
    ("query", "text", "wanted"),
    [
        ("苹果手机价格", "二手苹果手机，价格", [("苹果手机", 3), ("价格", 2)]),
        ("iPhone 价格", "ＩＰＨＯＮＥ15与iphone：价格", [("ＩＰＨＯＮＥ", 1), ("iphone", 1), ("价格", 2)]),
        ("the price of iPhone", "the iPhone price list of phones", [("iPhone", 1), ("price", 1)]),
        ("machine learning", "Machine  Learning machines", [("Machine  Learning", 2), ("machines", 1)]),
        ("机", "手机", [("机", 1)]),
        ("e\u0301te", "l'e\u0301te\u0301, e\u0301te", [("e\u0301te", 1)]),
        ("a.b*c[", "a.b*c[ axb", [("a.b", 1), ("c", 1)]),
        ("file ガイド re-ranking", "ﬁle ｶﾞｲﾄﾞ rerank", [("ﬁle ｶﾞｲﾄﾞ rerank", 3)]),
        ("trained on A股", "Training: A股", [("Training", 1), ("A股", 2)]),
        ("software", "a soft\u00adware", [("soft\u00adware", 1)]),
        ("café", "un cafe\u0301 noir, Cafe", [("cafe\u0301", 1)]),
        ("cafe\u0301", "un café", [("café", 1)]),
        (
            "한국어 ガイド",
            "\u1112\u1161\u11ab\u1100\u116e\u11a8\u110b\u1165의 カ\u3099イト\u3099",
            [("\u1112\u1161\u11ab\u1100\u116e\u11a8\u110b\u1165", 3), ("カ\u3099イト\u3099", 3)],
        ),
        ("q\u0301 x\u0323\u0301", "q\u0301 x\u0301\u0323", [("q\u0301 x\u0301\u0323", 2)]),
        ("👨‍👩‍👧手机", "👨‍👩‍👧的手机🇨🇳", [("👨‍👩‍👧", 3), ("手机", 2)]),
        ("!?", "!?", []),
        ("", "", []),
    ],
)
def test_parts_of_a_text_that_the_query_has_too(query: str, text: str, wanted: list[tuple[str, int]]) -> None:
    assert [(text[one.start : one.end], one.level) for one in SharedWords(query).highlights(text)] == wanted


def test_a_folded_text_knows_where_its_characters_were() -> None:
    given = FoldedText("İstanbul ﬁn Ⅳ ㍿\u00ad ＡＢ e\u0301")
    assert given.text == "istanbul fin iv 株式会社 ab é"
    assert [given.span(*one) for one in ((0, 8), (9, 11), (13, 15), (16, 20), (21, 23), (24, 25))] == [
        (0, 8), (9, 10), (12, 13), (14, 16), (17, 19), (20, 22),
    ]  # fmt: skip


def test_the_passage_has_most_of_what_is_shared() -> None:
    shared = SharedWords("苹果手机价格")
    assert shared.passage("苹果手机", shared.highlights("苹果手机")) == (0, 4)
    text = "苹果" + "。" * 500 + "手机的价格，苹果手机价格" + "。" * 400
    start, end = shared.passage(text, shared.highlights(text))
    assert end - start == PASSAGE and "手机的价格，苹果手机价格" in text[start:end]
    ends = "。" * 500 + "苹果手机价格"
    assert shared.passage(ends, shared.highlights(ends)) == (len(ends) - PASSAGE, len(ends))
    assert shared.passage("。" * 500, []) == (0, PASSAGE)


def test_long_texts_cost_no_more_than_their_beginning() -> None:
    shared = SharedWords("苹果 " * 10_000)
    text = "苹果。" * 100_000
    found = shared.highlights(text)
    assert len(found) == 100 and found[:2] == [Highlight(0, 2, 2), Highlight(3, 5, 2)]
    assert shared.highlights("。" * 30_000 + "苹果") == []
    # Long words of a query that are nearly in a text are compared with it at each of its places.
    assert not SharedWords("a" * 1000 + "苹果手机").highlights("苹果手机")
    assert SharedWords("a" * 990 + "苹果手机").highlights("苹果手机")
    # To sort thousands of marks would take Python seconds, in which no other thread runs.
    marks = FoldedText("x" + "\u0301\u0316" * 3000 + "b")
    assert len(marks.text) == 32 and marks.span(31, 32) == (6001, 6002)


def test_where_tokens_of_a_query_are() -> None:
    text = FoldedText("Running runs 跑步run；prune")
    assert occurrences_of("run", text) == [(0, 7), (8, 12), (15, 18)]
    assert occurrences_of("跑步", text) == [(13, 15)] and occurrences_of("走", text) == []
    assert occurrences_of("café", FoldedText("e\u0301 cafe\u0301")) == [(3, 8)]
    assert [level_of(term) for term in ("手机", "苹果手机", "run", "机")] == [2, 3, 1, 1]
