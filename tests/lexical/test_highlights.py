"""Highlights and passages: levels against the rankers' levels, places against the text."""

from __future__ import annotations

import random

import paddle
import pytest

from paddle_ranker.lexical.highlights import PASSAGE, FoldedText, Highlight, SharedWords, level_of, places_of
from paddle_ranker.model.match import match_levels

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
        ("iPhone 价格", "ＩＰＨＯＮＥ15与iphone：价格", [("iphone", 1), ("价格", 2)]),
        ("the price of iPhone", "the iPhone price list of phones", [("iPhone", 1), ("price", 1)]),
        ("machine learning", "Machine  Learning machines", [("Machine  Learning", 2)]),
        ("机", "手机", [("机", 1)]),
        ("e\u0301te", "l'e\u0301te\u0301, e\u0301te", [("e\u0301te", 1)]),
        ("a.b*c[", "a.b*c[ axb", [("b", 1), ("c", 1)]),
        ("café", "un cafe\u0301 noir, Cafe", [("cafe\u0301", 1)]),
        ("cafe\u0301", "un café", [("café", 1)]),
        (
            "한국어 ガイド",
            "\u1112\u1161\u11ab\u1100\u116e\u11a8\u110b\u1165의 カ\u3099イト\u3099",
            [("\u1112\u1161\u11ab\u1100\u116e\u11a8\u110b\u1165", 3), ("カ\u3099イト\u3099", 3)],
        ),
        ("q\u0301 x\u0323\u0301", "q\u0301 x\u0301\u0323", [("q\u0301 x\u0301\u0323", 2)]),
        ("👨‍👩‍👧手机", "👨‍👩‍👧的手机🇨🇳", [("手机", 2)]),
        ("!?", "!?", []),
        ("", "", []),
    ],
)
def test_parts_of_a_text_that_the_query_has_too(query: str, text: str, wanted: list[tuple[str, int]]) -> None:
    assert [(text[one.start : one.end], one.level) for one in SharedWords(query).highlights(text)] == wanted


def test_folding_keeps_every_place() -> None:
    text = "İstanbul ﬁn Ⅳ ㍿ ＡＢ"
    folded = FoldedText(text).text
    assert len(folded) == len(text) and folded.endswith("ab")
    text = "a e\u0301\ufb2c"  # three characters in Unicode's composed form
    given = FoldedText(text)
    assert [given.span(place, place + 1) for place in range(3)] == [(0, 1), (1, 2), (2, 4)]
    assert all(0 <= start <= end <= 5 for start, end in (given.span(n, n + 1) for n in range(len(given.text))))


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


def test_where_tokens_of_a_query_are() -> None:
    text = FoldedText("Running runs 跑步run；prune")
    assert places_of("run", text) == [(0, 3), (8, 11), (15, 18)]
    assert places_of("跑步", text) == [(13, 15)] and places_of("走", text) == []
    assert places_of("café", FoldedText("e\u0301 cafe\u0301")) == [(3, 8)]
    assert [level_of(term) for term in ("手机", "苹果手机", "run", "机")] == [2, 3, 1, 1]


def test_thousands_of_marks_are_not_sorted_at_once() -> None:
    """Sorting all of them would take Python seconds, in which no other thread runs."""
    text = FoldedText("x" + "\u0301\u0316" * 3000 + "b")
    assert len(text.text) == 6002 and "\u0301\u0316" in text.text and text.span(6001, 6002) == (6001, 6002)


def test_of_a_long_query_the_beginning_counts() -> None:
    """Long words that are nearly in a text are compared with it at each of its places."""
    assert not SharedWords("a" * 1000 + "苹果手机").highlights("苹果手机")
    assert SharedWords("a" * 990 + "苹果手机").highlights("苹果手机")
