"""Words of many scripts and spellings: found as they are written and by their parts, and highlighted where they are."""

from __future__ import annotations

import gc
import json
import random
import sys
import time
from collections.abc import Callable
from functools import cache, lru_cache
from itertools import islice
from pathlib import Path
from typing import Optional

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from paddle_ranker.commands import index, search
from paddle_ranker.errors import DependencyError, UsageError
from paddle_ranker.lexical import analyser as analysis
from paddle_ranker.lexical.analyser import NAME, SINGLE, Analyser, _word, analyser, standard
from paddle_ranker.lexical.highlights import FoldedText, SharedWords, occurrences_of
from paddle_ranker.lexical.passages import best_span
from paddle_ranker.lexical.tokens import query_weights
from paddle_ranker.retrieval.words.word_search import WordSearcher
from paddle_ranker.unicode.characters import fold
from tests.conftest import Call

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
    assert not {token for token, weight in standard.weighed(query) if weight >= 1.0} & set(standard(text))


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
@example("a nurse of the OR\u3099", "")
@example("A股市场分析\u093a", "accents+jieba+french")
@given(_WRITTEN, st.sampled_from(["", "accents", "accents+jieba+french"]))
def test_folding_is_done_once_and_places_are_those_of_the_text(text: str, options: str) -> None:
    standard = analyser(options)
    folded = standard.fold(text)
    shown = FoldedText(text, standard)
    assert shown.text == folded == standard.fold(folded)
    spans = [shown.span(place, place + 1) for place in range(len(shown.text))]
    assert all(0 <= start < end <= len(text) for start, end in spans) and spans == sorted(spans)
    assert all(occurrences_of(token, shown) for token in standard(text))
    assert all(run.text == folded[run.start : run.start + len(run.text)] for run in standard.runs(folded))


@_PATIENTLY
@example("A股", "A股A股\u093f")
@given(_WRITTEN, _WRITTEN)
def test_every_word_that_counts_is_highlighted_and_nothing_else(query: str, text: str) -> None:
    shared, given = SharedWords(query), FoldedText(text)
    marked = shared.highlights(text)
    for token, weight in standard.weighed(query):
        for start, end in occurrences_of(token, given) if weight >= 1.0 and token in standard(text) else ():
            assert any(one.start < end and start < one.end for one in marked), token
    asked = {token for part in (query, *(run.text for run in standard.runs(fold(query)))) for token in tokens_of(part)}
    for one in marked:
        assert asked & tokens_of(text[one.start : one.end])


def tokens_of(text: str) -> set[str]:
    return {*standard(text), *(word.text for run in standard.runs(fold(text)) for word in run.words())}


# A query that is a name, what has it in much text, and shorter texts that have most of its parts.
NAMES = [
    (
        "维生素A",
        "本文综述了维生素A在人体内的代谢、生理作用与缺乏症状的研究进展",
        "维生素",
        "维生素C的维A酸",
        "a 维生素",
    ),
    ("A股", "本文分析了A股市场的历史演变、交易制度和投资者结构并与国外市场比较", "B股", "股", "A级股票", "股市 A"),
    ("IT培训", "某公司在全国各地的中心提供IT培训以及网络、数据库和编程课程", "ITIL培训", "培训 it", "HIT培训", "培训"),
    ("稻", "我国南方丘陵地区耕地质量与稻谷产量的关系研究", "小麦", "水田"),
    ("C++", "An introduction to the design of programs in C++ for students of engineering", "C", "C#", "Objective-C"),
    ("C#", "An introduction to the design of programs in C# for students of engineering", "C", "C++", "Objective-C"),
    ("Objective-C", "A book on the design of programs in Objective-C for students", "C objective", "C++", "C#"),
    (".NET", "An introduction to the design of programs on .NET for students", "net", "internet", "dot net"),
    ("ls", "List the files of a folder and those below it with the command ls", "lsof", "als", "tools"),
    ("lsof", "List the files that a process has opened with the command lsof", "ls", "als of", "ls of"),
    (
        "iPhone15Pro",
        "新款iPhone15Pro手机的拍照、续航与性能和上一代产品的全面对比",
        "iPhone 15",
        "15 Pro",
        "iPhone14Pro",
    ),
    ("PM2.5", "我国南方城市大气PM2.5浓度的时空分布及其影响因素研究", "PM10", "2.5 微米", "PM 2", "5 PM"),
    ("X射线", "双能X射线骨密度测定在老年人骨质疏松诊断中的应用研究", "射线", "γ射线", "X 光线"),
    ("node.js", "An introduction to the design of web applications with Node.js for all", "node", "js", "Vue.js"),
]


@pytest.mark.parametrize(("query", "first", "others"), [(query, first, others) for query, first, *others in NAMES])
def test_what_has_a_name_in_a_long_text_comes_before_short_texts_with_parts_of_it(
    query: str, first: str, others: list[str], tmp_path: Path, call: Call
) -> None:
    texts = [*others, first, "Is it as good as it was? A or B", "水 土 的", "the list of all", "股市 分析", "生物 素食"]
    (tmp_path / "texts.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    status, _, err = call(index.main, "build", "--corpus", tmp_path / "texts.txt", "--output", tmp_path / "index")
    assert status == 0, err
    status, out, err = call(search.main, "--index", tmp_path / "index", query, "--by", "words", "--format", "json")
    assert status == 0, err
    assert json.loads(out)["results"][0]["text"] == first


# Options, what a reader types, what a text has, and what it is called there; None: it is not found.
FOLDED = [
    ("accents", "elève", "Un élève à l'école", "élève"),
    ("accents", "Łódź", "z Lodz do Gdańska", "Lodz"),
    ("accents", "ωμεγα", "το ωμέγα", "ωμέγα"),
    ("accents", "q\u0301", "a q here", "q"),
    ("accents", "ガイド", "カイト", None),
    ("accents", "кои", "кой", None),
    ("", "eleve", "Un élève", None),
    ("simplified", "头发护理", "頭髮護理", "頭髮護理"),
    ("simplified", "頭髮", "护理头发", "头发"),
    ("", "头发", "頭髮", None),
    ("french", "cheval", "les chevaux", "chevaux"),
    ("german+accents", "Hauser", "Die Häuser", "Häuser"),
    ("russian", "книга", "много книг", "книг"),
    ("jieba", "护理", "老年人护理", "护理"),
    ("jieba", "护", "老年人护理", "护"),
    ("accents+simplified+jieba", "Éa護理", "老年人护理eas", "护理"),
]


@pytest.mark.parametrize(("options", "query", "text", "marked"), FOLDED)
def test_options_fold_words_and_mark_them_where_they_are(
    options: str, query: str, text: str, marked: Optional[str]
) -> None:
    if "simplified" in options:
        pytest.importorskip("opencc", reason="needs OpenCC (pip install opencc)")
    own = analyser(options)
    found = {token for token, weight in own.weighed(query) if weight >= 1.0} & {*own(text)}
    highlights = [text[one.start : one.end] for one in SharedWords(query, own).highlights(text)]
    assert (bool(found), highlights) == (marked is not None, [marked] if marked else [])
    for token in found:
        assert occurrences_of(token, FoldedText(text, own))


def test_the_part_that_a_ranker_reads_has_the_folded_words() -> None:
    text = "Un début. " * 30 + "Un élève est là. " + "Une fin. " * 30
    start, end = best_span(text, {"eleve": 1.0}, 40, analyser("accents"))
    assert "élève" in text[start:end] and best_span(text, {"eleve": 1.0}, 40) == (0, 40)


@pytest.mark.parametrize(
    ("query", "written", "around"),
    [
        ("abc engine", "ＡＢＣ ＥＮＧＩＮＥ", "中文。"),  # full width
        ("ガイド", "ｶﾞｲﾄﾞ", "日本。"),  # half-width kana: two characters fold to one
        ("가", "ﾡￂ", "서울。"),  # half-width hangul
        ("office", "oﬃce", "Straße. "),  # ligatures: one character folds to three
        ("élève", "e\u0301le\u0300ve", "ça y va. "),  # letters with combining marks
        ("straße", "STRASSE", "Ｘ ｙ. "),
    ],
)
def test_the_best_part_of_a_text_is_where_its_words_are_written(query: str, written: str, around: str) -> None:
    before = around * (1200 // len(around))
    text = f"{before}{written} {around * 200}"
    weights = dict.fromkeys(standard(query), 1.0)
    start, end = best_span(text, weights, 100)
    assert start <= len(before) < len(before) + len(written) <= end and end - start == 100
    assert best_span(before + around * 200, weights, 100) == (0, 100)


def test_stop_words_of_a_language_are_left_out_of_its_texts_and_count_little() -> None:
    french = analyser("french+accents")
    assert french("Les élèves de la ville") == ["elev", "vill"]
    assert query_weights(french, "élèves de la ville") == {"elev": 1, "vill": 1, "de": 0.1, "la": 0.1}
    assert french("de 稻 la")[:2] == ["de", "稻"] and french("de la") == ["de", "la"]
    assert analyser("german")("der Hund und die Häuser") == ["hund", "haus"]


def test_jieba_words_take_the_place_of_pairs() -> None:
    assert analyser("jieba")("深度学习A股") == [*"深度学习", "深度", "学习", "a", "习a", "股", "a股"]
    assert analyser("jieba")("한국어ガ") == [*"한국어ガ", "한국", "국어", "어ガ"]


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for options in ("accent", "french+german", "accents+accents"):
        with pytest.raises(UsageError, match=r"expected some of accents.*joined by \+"):
            analyser(options)
    monkeypatch.setitem(sys.modules, "opencc", None)
    analysis._simplified.cache_clear()
    with pytest.raises(DependencyError, match="pip install opencc"):
        Analyser(simplified=True)("頭髮")


def test_the_stemmer_gets_no_long_words(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []

    def stemmed(word: str, language: str = "") -> str:
        given.append(word)
        return word

    monkeypatch.setattr(analysis, "stem_of", stemmed)
    monkeypatch.setattr(analysis, "_word", lru_cache(_word.__wrapped__))
    text = " ".join(["ay" * 5000, "ay" * 32, "ay" * 33, "l'" + "ay" * 50, "ay-" + "ay" * 5000, "runs"])
    for tokenize in (standard, analyser("french")):
        given.clear()
        query_weights(tokenize, text)
        tokenize(text)
        SharedWords(text).highlights(text)
        assert "runs" in given and max(map(len, given)) == 64


def test_ideographs_beside_others_and_stop_words_among_others_count_less() -> None:
    assert query_weights(standard, "A股市场 分析") == {
        "a": 1, "a股": 1, "股": 0.8, "市": 0.8, "场": 0.8, "股市": 1, "市场": 1,
        "分": 0.8, "析": 0.8, "分析": 1,
    }  # fmt: skip
    assert query_weights(standard, "history of it") == {"histori": 1, "of": 0.1, "it": 0.1}
    assert query_weights(standard, "A股") == {"a": 1, "a股": NAME, "股": 1}
    for query in ("it", "IT history", "it 培训", "to be or not to be"):
        assert set(dict(standard.weighed(query)).values()) <= {NAME, 1.0, 0.8}


@pytest.mark.parametrize("text", ["a" * 100_000, "a1" * 50_000, "x." * 50_000, "a'" * 50_000, "1,000" * 20_000,
                                  f"1{',000' * 25_000}0", "abc-" * 25_000,
                                  "稻\u0301" * 50_000, "́" * 100_000, "เ" * 100_000, "C++" * 30_000])  # fmt: skip
def test_no_text_takes_long(text: str) -> None:
    began, kept = time.process_time(), _word.cache_info().currsize
    standard(text)
    SharedWords(text).highlights(text)
    assert time.process_time() - began < 3 and _word.cache_info().currsize <= kept + 3


def _several(kind: str, joiner: str) -> Callable[[int], str]:
    """Return a function that makes a text of at most so many characters, of distinct parts."""

    @cache
    def whole() -> str:  # made when a test asks, not in each process that collects tests
        draw = random.Random(kind)
        words = ("".join(draw.choice(kind) for _ in range(draw.randint(3, 7))) for _ in iter(int, 1))
        return joiner.join(islice(words, 20_000))

    return lambda size: whole()[:size]


@pytest.mark.parametrize(
    "text_of",
    [
        *(_several("abcdefghijklmnop", joiner) for joiner in ("_", "-", ".", "'", "/", "", " ", "中")),
        *(_several(kind, "") for kind in ("กขคงจ้ิาเ", "हिंदीन्दक", "字词句篇", "a1b2c3", "0123456789", "é\u0301ö")),
        *(_several("0123456789", joiner) for joiner in (",", "_", ".")),
    ],
)
def test_time_is_linear(text_of: Callable[[int], str]) -> None:
    def seconds(size: int) -> float:
        text = text_of(size)
        gc.disable()  # it walks over all that earlier tests left, once in so many tokens
        try:
            start = time.thread_time()
            standard.tokens(text, set(), [])
            return time.thread_time() - start
        finally:
            gc.enable()

    for _ in range(5):  # other work on the machine may disturb a measurement
        once, twice, four = (min(seconds(size) for _ in range(3)) for size in (15_000, 30_000, 60_000))
        if twice <= 2.3 * once + 0.002 and four <= 2.3 * twice + 0.002:
            return
    pytest.fail(f"{once:.3f}, {twice:.3f}, {four:.3f} s for a text, twice and four times its length")


@pytest.mark.parametrize(
    ("text", "word"),
    [("วิธีจับงูในบ้าน", "งู"), ("ข้าวผัดปูราคาถูก", "ปู"), ("ရေသန့်ဘူး", "ရေ"), ("ງູໃຫຍ່ໃນສວນ", "ງູ"), ("លក់ដីធ្លី", "ដី"), ("ꦱꦏꦶꦁꦧꦸꦏꦸ", "ꦧꦸ")],
)
def test_units_of_scripts_without_spaces_are_tokens(text: str, word: str) -> None:
    assert {*standard(word)} == {word} <= {*standard(text)}
    assert [weight for token, weight in standard.weighed(text) if token == word] == [SINGLE]
    assert [[*group] for group in standard.phrase_terms(word)] == [[word]]
