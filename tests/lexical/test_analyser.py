"""Words of many scripts and spellings: found as they are written and by their parts, and highlighted where they are."""

from __future__ import annotations

import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paddle_ranker.lexical.analyser import _word, fold, runs, standard, weighed
from paddle_ranker.lexical.highlights import FoldedText, SharedWords, places_of
from paddle_ranker.lexical.tokens import query_weights
from paddle_ranker.retrieval.words import WordSearcher

pytestmark = pytest.mark.unit

# What a reader types, what a text has, and what texts have that come after it or are not found.
FOUND = [
    ("A股", "A股市场分析", "B股市场分析", "股票市场", "a market"),
    ("IT", "IT培训", "is it good", "培训"),
    ("it培训", "IT 培训", "is it good", "培训"),
    ("IT", "He works with IT", "it is good", "go with it"),
    ("OR", "a nurse of the OR", "this or that"),
    ("维生素A", "维生素A的作用", "维生素C的作用", "a vitamin"),
    ("维生素a", "维生素A的作用", "维生素C的作用"),
    ("稻", "水稻病害诊断", "小麦病害"),
    ("猫", "黑猫", "黑狗"),
    ("C++", "C++程序设计", "C#程序设计", "C程序设计"),
    ("C#", "C#程序设计", "C++程序设计", "C程序设计"),
    ("c", "C程序设计", "C++程序设计", "C#程序设计"),
    ("A*", "A*算法", "A算法"),
    (".NET", "学习.NET开发", "学习net开发", "学习internet"),
    ("ls", "用ls列出文件", "tools命令", "falls"),
    ("iPhone15Pro", "iPhone15Pro价格", "iPhone价格", "华为价格"),
    ("iphone 15", "iPhone15Pro价格", "iPhone14Pro价格"),
    ("25°C", "水温25℃", "水温25度", "水温30度"),
    ("25℃", "at 25 °C", "at 25 m"),
    ("COVID-19", "COVID‑19疫情", "covid fever"),
    ("covid19", "COVID-19 疫情", "疫情"),
    ("3.5mm", "3.5mm 耳机", "3mm 耳机", "5mm 耳机"),
    ("1000", "1,000 元", "100 元"),
    ("3.9", "python 3.9", "python 3 and 10"),
    ("utf8", "UTF-8 text", "UTF-16 text"),
    ("AT&T", "AT&T Inc", "at the inn"),
    ("vitamin", "Vitamins", "mineral"),
    ("istanbul", "İstanbul'da", "Ankara"),
    ("İstanbul", "ISTANBUL", "bul"),
    ("kadın", "KADIN", "kadi"),
    ("हिन्दी", "हिन्दी भाषा", "हनद भाषा"),
    ("العربية", "العَرَبِيَّة", "عرب"),
    ("می\u200cخواهم", "میخواهم", "خواهم"),
    ("strasse", "Die Straße", "Die Stadt"),
    ("ΟΔΟΣ", "οδός οδος", "οδη"),
    ("ไทย", "ภาษาไทยง่าย", "ภาษาลาว"),
    ("ガイド", "ｶﾞｲﾄﾞブック", "カイト"),
    ("한국어", "한국어를 배우다", "영어를 배우다"),
    ("software", "soft\u00adware", "hard ware"),
    ("zerowidth", "zero\u200bwidth\ufeff", "width"),
    ("file", "ﬁle", "fi le"),
    ("Ｎote１０", "note10", "note 9"),
    ("葛\U000e0100城", "葛城市", "葛市"),
    ("café", "cafe\u0301", "cafe"),
    ("eau", "l’eau", "leau"),
    ("dogs", "the dog's bone", "dogma"),
    ("Intel", "Intel™", "Inter"),
    ("1", "1️⃣", "2️⃣"),
    ("👍🏽", "👍🏽 好", "👍 好", "👎 好"),
    ("👍", "很好👍🏽", "很好👎🏽"),
    ("👨‍👩‍👧", "👨‍👩‍👧 家", "👨 家"),
    ("❤", "❤️", "💔"),
    ("€50", "nur €50", "nur 50", "nur €"),
    ("3D打印", "3D打印机", "打印机"),
    ("A/B测试", "A/B测试方法", "测试方法"),
    ("nodejs", "Node.js 教程", "java 教程"),
    ("中国人", "中\u200b国\u00ad人", "中 人"),
    ("שלום", "שָׁלוֹם", "של"),
    ("tiếng việt", "tie\u0302\u0301ng Vie\u0323\u0302t", "tieng"),
    ("2024-01-15", "于2024-01-15发布", "于2024-01-16发布"),
    ("မြန်မာ", "မြန်မာစာ", "စာ"),
    ("🇨🇳", "🇨🇳 加油", "🇨🇦 加油"),
    ("who", "the WHO报告", "what报告"),
    ("don't", "don’t stop", "do stop"),
    ("user@example.com", "mail user@example.com", "mail user example org"),
    ("Not", "In der Not", "In der Nacht"),
    ("vitamin A", "a vitamin A", "vitamin B"),
]


@pytest.mark.parametrize(("query", "first", "others"), [(query, first, others) for query, first, *others in FOUND])
@pytest.mark.parametrize("reverse", [False, True])
def test_what_has_the_words_comes_first_in_a_collection_of_all_languages(
    query: str, first: str, others: list[str], reverse: bool
) -> None:
    texts = [first, *others, "Is it as good as it was? A or B", "水 土 的", "the list of all"]
    texts = texts[::-1] if reverse else texts
    numbers, scores = WordSearcher.of_texts(texts, "standard").search(query, 9)
    assert len(numbers) and texts[numbers[0]] == first
    assert len(scores) == 1 or scores[0] > scores[1]
    assert SharedWords(query).highlights(first)


@pytest.mark.parametrize(
    ("query", "text"),
    [("ls", "tools"), ("稻", "麦"), ("c++", "#"), ("ab", "a b"), ("it", "its"), ("水田", "水 田麦")],
)
def test_what_is_not_a_word_of_the_text_is_no_pair_of_its_letters(query: str, text: str) -> None:
    assert not {token for token, weight in weighed(query) if weight == 1.0} & set(standard(text))


_WRITTEN = st.lists(
    st.one_of(
        st.sampled_from([text for row in FOUND for text in row]),
        st.text(max_size=4),
        st.sampled_from(list(" \t-.'’_/&@+#%*$,0129aAßİıﬁ㍿℃稻米ｶﾞ\u3099\u0301\u00ad\u200d\ufe0f\u093f\u1161\u11a8เ")),
    ),
    max_size=8,
).map("".join)
_PATIENTLY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # also on a busy machine


@_PATIENTLY
@given(_WRITTEN)
def test_folding_is_done_once_and_places_are_those_of_the_text(text: str) -> None:
    folded = fold(text)
    shown = FoldedText(text)
    assert shown.text == folded == fold(folded)
    spans = [shown.span(place, place + 1) for place in range(len(shown.text))]
    assert all(0 <= start < end <= len(text) for start, end in spans) and spans == sorted(spans)
    counted = {token: len(places) for token, places in shown.tokens.items()}
    assert {*counted} >= {*standard(text)}
    assert all(run.text == folded[run.start : run.start + len(run.text)] for run in runs(folded))


@_PATIENTLY
@given(_WRITTEN, _WRITTEN)
def test_every_word_that_counts_is_highlighted_and_nothing_else(query: str, text: str) -> None:
    shared, given = SharedWords(query), FoldedText(text)
    marked = shared.highlights(text)
    for token, weight in weighed(query):
        for start, end in places_of(token, given) if weight == 1.0 and token in standard(text) else ():
            assert any(one.start < end and start < one.end for one in marked), token
    asked = {token for part in (query, *(run.text for run in runs(fold(query)))) for token in FoldedText(part).tokens}
    for one in marked:
        assert asked & {*FoldedText(text[one.start : one.end]).tokens}


def test_ideographs_beside_others_and_stop_words_among_others_count_less() -> None:
    assert query_weights(standard, "A股市场") == {
        "a": 1, "a股": 1, "股": 0.8, "市": 0.8, "场": 0.8, "股市": 1, "市场": 1,
    }  # fmt: skip
    assert query_weights(standard, "history of it") == {"histori": 1, "of": 0.1, "it": 0.1}
    for query in ("it", "IT history", "it 培训", "to be or not to be"):
        assert set(dict(weighed(query)).values()) <= {1.0, 0.8}


@pytest.mark.parametrize("text", ["a" * 100_000, "a1" * 50_000, "x." * 50_000, "a'" * 50_000, "1,000" * 20_000,
                                  "稻\u0301" * 50_000, "́" * 100_000, "เ" * 100_000, "C++" * 30_000])  # fmt: skip
def test_no_text_takes_long(text: str) -> None:
    began, kept = time.process_time(), _word.cache_info().currsize
    standard(text)
    SharedWords(text).highlights(text)
    assert time.process_time() - began < 3 and _word.cache_info().currsize <= kept + 2
