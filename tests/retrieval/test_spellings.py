"""Words in other spellings: found beside the exact spelling, which comes first, and highlighted where they stand."""

from __future__ import annotations

from pathlib import Path

import pytest

from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.stages.search import Search, SearchSettings
from paddle_ranker.retrieval.stages.search_engine import SearchEngine
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import IndexInfo, WordsInfo
from paddle_ranker.retrieval.stored.schema import Field, Schema

pytestmark = pytest.mark.unit

# Spellings of one word.
SPELLINGS = [
    ("naive", "naïve"),
    ("coeur", "cœur"),
    ("oeuvre", "œuvre"),
    ("aesop", "Æsop"),
    ("thor", "Þór"),
    ("smorrebrod", "smørrebrød"),
    ("lodz", "Łódź"),
    ("tieng", "tiếng"),
    ("kasa", "ƙasa"),
    ("Hawai'i", "Hawaiʻi"),
    ("ежи", "ёжи"),
    ("αθηνα", "Αθήνα"),
    ("كتاب", "کتاب"),
    ("علي", "علی"),
    ("مدرسه", "مدرسة"),
    ("احمد", "أحمد"),
    ("हिंदी", "हिन्दी"),
    ("चांद", "चाँद"),
    ("फिल्म", "फ़िल्म"),
    ("संबंध", "सम्बन्ध"),
    ("ગુજરાંતી", "ગુજરાન્તી"),
    ("అందం", "అన్దం"),
    ("അവൻ", "അവന്\u200d"),
    ("ひらがな", "ヒラガナ"),
    ("らーめん", "ラーメン"),
    ("צהל", "צה״ל"),
    ('צה"ל', "צה״ל"),
]
NONE = ["case file", "水稻病害", "another text"]


def make(folder: Path, texts: list[str], analyser: str = "") -> Collection:
    schema = Schema((Field.parse(f"text:text:analyser={analyser}"),)) if analyser else Schema()
    collection = Collection.create(folder, IndexInfo(WordsInfo("standard"), None, schema=schema))
    collection.writer.add([Document(text, text) for text in [*texts, *NONE]])
    return collection


def searched(collection: Collection, query: str, prefix: bool = False) -> Search:
    return SearchEngine(collection, SearchSettings(prefix=prefix)).run([query])[0]


def found(collection: Collection, query: str, prefix: bool = False) -> list[str]:
    return [result.id for result in searched(collection, query, prefix).results()]


@pytest.mark.parametrize("pair", SPELLINGS)
def test_spellings_find_each_other(tmp_path: Path, pair: tuple[str, str]) -> None:
    both = make(tmp_path / "both", [*pair])
    for word, other in (pair, pair[::-1]):
        assert {*found(both, word)} == {*pair}
        search = searched(make(tmp_path / word, [other]), word)
        assert [result.id for result in search.results()] == [other]
        start, end, _ = search.query.shared_words.highlights(f"xyz {other} xyz")[0]
        assert (start, end) in ((4, 4 + len(other)), (4, 4 + len(other.rstrip("\u200d"))))


@pytest.mark.parametrize("pair", [pair for pair in SPELLINGS if "'" not in pair[0] and "צ" not in pair[0]])
def test_the_exact_spelling_comes_first(tmp_path: Path, pair: tuple[str, str]) -> None:
    texts = [f"{word} {n}" for n in range(3) for word in pair]
    collection = make(tmp_path / "index", texts)
    for word, other in (pair, pair[::-1]):
        assert [id.rpartition(" ")[0] for id in found(collection, word)] == [word] * 3 + [other] * 3
        assert not searched(collection, word).query.words.corrected, "a word that documents have is no error"


@pytest.mark.parametrize(("words", "exact_first"), [(8, True), (12, True), (24, False)])
def test_the_exact_spelling_stays_first_in_a_text_half_as_long_again(
    tmp_path: Path, words: int, exact_first: bool
) -> None:
    others = [" ".join(f"{letter}{n}" for n in range(8)) for letter in "abcdefghijklmnopqrstuvwxyz"]
    for word, other in (("naive", "naïve"), ("naïve", "naive")):
        exact, folded = (
            f"{one} " + " ".join(f"z{n}" for n in range(size - 1)) for one, size in ((word, words), (other, 8))
        )
        collection = make(tmp_path / word, [exact, folded, *others])
        assert found(collection, word) == ([exact, folded] if exact_first else [folded, exact])


@pytest.mark.parametrize(
    ("analyser", "pairs", "others"),
    [
        ("german", [("naive", "naïve"), ("cafe", "café")], [("schon", "schön"), ("Bar", "Bär")]),
        ("icelandic", [("naive", "naïve")], [("thor", "þór"), ("sidur", "siður"), ("vist", "víst")]),
        ("turkish", [("hala", "hâlâ")], [("ol", "öl"), ("sok", "şok"), ("kac", "kaç")]),
        ("danish", [("allee", "allée")], [("ol", "øl"), ("hare", "håre"), ("laese", "læse")]),
        ("", [("schon", "schön"), ("thor", "þór"), ("laese", "læse"), ("kac", "kaç")], []),
    ],
)
def test_letters_of_a_language_stay(
    tmp_path: Path, analyser: str, pairs: list[tuple[str, str]], others: list[tuple[str, str]]
) -> None:
    collection = make(tmp_path / "index", [word for pair in [*pairs, *others] for word in pair], analyser)
    for word, other in [*pairs, *((b, a) for a, b in pairs)]:
        assert found(collection, word) == [word, other]
    for word, other in [*others, *((b, a) for a, b in others)]:
        search = searched(collection, word)
        assert not search.query.words.synonyms and not search.query.words.corrected
        # Snowball's stems of German have no umlauts, so that Häuser finds Haus.
        assert [result.id for result in search.results()][: 9 if analyser != "german" else 1] == [word], other


def test_parts_of_words_and_of_queries(tmp_path: Path) -> None:
    texts = ["l’œuvre d’art", "cœur-volant", "l'oeuvre noire", "naïve bayes", "naive bayes", "data_naïve"]
    collection = make(tmp_path / "index", texts)
    for query, ids in (
        ("oeuvre", {texts[0], texts[2]}),
        ("l'oeuvre", {texts[0], texts[2]}),
        ("œuvre", {texts[0], texts[2]}),
        ("coeur", {texts[1]}),
        ("coeur-volant", {texts[1]}),
        ("naive bayes", {texts[3], texts[4], texts[5]}),
    ):
        assert {*found(collection, query)} == ids, query
    assert found(collection, "naive bayes")[:2] == ["naive bayes", "naïve bayes"]
    assert found(collection, '"naive bayes"') == ["naive bayes"], "quotes are exact"
    search = searched(collection, "naive")
    assert [(one.given, one.to) for one in search.query.words.synonyms] == [("naive", ("naïve",))]
    assert not searched(collection, "case file 水稻").query.words.synonyms
    literal = SearchEngine(collection, SearchSettings(literal=True)).run(["naive"])[0]
    assert [result.id for result in literal.results()] == ["naive bayes"]
    collection.writer.remove(["naïve bayes", "l’œuvre d’art"])
    assert {*found(collection, "naive")} == {texts[4], texts[5]} and found(collection, "oeuvre") == [texts[2]]


def test_beginnings_in_other_spellings(tmp_path: Path) -> None:
    texts = ["Tiếng Việt", "œuvres choisies", "Łódź", "हिन्दी भाषा", "Ærø"]
    collection = make(tmp_path / "index", texts)
    for query, text in (("tie", 0), ("tieng vi", 0), ("oeu", 1), ("lod", 2), ("हिंद", 3), ("aer", 4)):
        assert found(collection, query, prefix=True) == [texts[text]], query
