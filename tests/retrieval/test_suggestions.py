"""Suggestions while typing: which titles continue a text, in which order, while documents come and go."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from paddle_ranker.lexical.analyser import standard
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.stages import suggestions
from paddle_ranker.retrieval.stages.suggestions import LONGEST, Completions, TitleSuggestions
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import IndexInfo, WordsInfo
from paddle_ranker.retrieval.stored.schema import Field, Schema
from paddle_ranker.retrieval.stored.segments import Segment
from paddle_ranker.unicode.variants import LETTERS

pytestmark = pytest.mark.unit
TITLES = [
    "Docker and Kubernetes",
    "Kubernetes",
    "ＫＵＢＥ 入门",
    "《水稻》研究",
    "玉米与水稻",
    "vim-gtk3",
    ".NET core",
    "kub" * 80,
]


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("kube", ["ＫＵＢＥ 入门", "Kubernetes", "Docker and Kubernetes"]),  # beginnings first, then the shorter
        ("ＫUBERNETES", ["Kubernetes", "Docker and Kubernetes"]),
        ("and  kub", ["Docker and Kubernetes"]),
        ("docker k", []),
        ("ubernetes", []),
        ("水", ["《水稻》研究", "玉米与水稻"]),
        ("与水稻", ["玉米与水稻"]),
        ("gtk", ["vim-gtk3"]),
        (".n", [".NET core"]),
        ("net", [".NET core"]),
        ("\u200b", []),
        ("k" * (LONGEST + 1), []),
    ],
)
def test_what_continues_a_text(typed: str, expected: list[str]) -> None:
    assert [one.text for one in Completions(TITLES, standard.fold).find(typed, 8)] == expected


@pytest.mark.parametrize(
    ("typed", "title"),
    [
        *(("tieng", "Tiếng Việt"), ("viet", "Tiếng Việt"), ("lodz", "Łódź"), ("ежи", "ёжики"), ("oeuv", "l'œuvre")),
        *(("हिंद", "हिन्दी"), ("كتاب", "کتاب خانه"), ("ヒラ", "ひらがな"), ("צה", "צה״ל"), ("thor", "Þór")),
        *((typed, "서울 대학") for typed in ("ㅅ", "서", "서ㅇ", "서우", "서울", "서울 ㄷ", "서울 대하")),
        *(
            (typed, "값진 가나와")
            for typed in ("가", "갑", "값", "값ㅈ", "간", "가나", "가나오", "가나와", "값지", "진", "나와")
        ),
    ],
)
def test_other_spellings_and_syllables_under_way(typed: str, title: str) -> None:
    shown = [one.text for one in Completions(["Docker", title, "水稻"], standard.fold).find(typed, 8)]
    assert shown == [title]


def test_suggestions_keep_spellings_and_letters_apart() -> None:
    titles = ["résumé", "resume", "schön", "schon"]
    assert {one.text for one in Completions(titles, standard.fold).find("resu", 8)} == {*titles[:2]}
    german = Completions(titles, standard.fold, letters=LETTERS["german"])
    assert [one.text for one in german.find("schö", 8)] == ["schön"]


def test_texts_alike_but_for_case_are_one_however_many_there_are() -> None:
    def found(kept: Completions, typed: str = "ab") -> list[str]:
        return [one.text for one in kept.find(typed, 8)]

    titles = [
        "".join(char.upper() if n >> bit & 1 else char for bit, char in enumerate("ab cd ef")) for n in range(256)
    ]
    titles = [*dict.fromkeys(titles), "ab cd"]
    kept = Completions(titles, standard.fold, [*range(len(titles), 0, -1)])
    assert len(kept) == 3 + 2 and found(kept) == ["ab cd", "AB CD EF"] and found(kept, "ef") == ["AB CD EF"]
    shown, hidden = found(kept, "ab cd e"), np.zeros(len(titles), bool)
    for number in reversed(range(len(titles) - 1)):  # each time the best is removed, the next is shown
        assert shown == [titles[number]]
        hidden[number] = True
        shown = found(kept.without(hidden), "ab cd e")
    assert shown == [] and found(kept.without(hidden)) == ["ab cd"]


def test_the_best_of_many_are_those_of_a_look_at_every_title(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suggestions, "_BLOCK", 16)
    draw = random.Random(5)
    words = ["ab", "abc", "ba", "b", "cab"]
    titles = list({" ".join(draw.choices(words, k=draw.randint(1, 6))) for _ in range(3000)})
    removed = np.array([draw.random() < 0.5 for _ in titles])
    weights = [draw.randint(-3, 0) for _ in titles]
    clicked, kept = Completions(titles, standard.fold, weights, starts_first=False), Completions(titles, standard.fold)
    kept = kept.without(removed)
    for typed in [*words, "a", "b ab", "abc c", "ab ab ab ab ab ab", "cab ba"]:
        inside = [title.startswith(typed) for title in titles]
        found = [place for place, title in enumerate(titles) if f" {typed}" in f" {title}"]
        by_length = sorted((not inside[n], len(titles[n]), titles[n]) for n in found if not removed[n])
        assert [one.text for one in kept.find(typed, 12)] == [title for *_, title in by_length[:12]]
        by_weight = sorted((weights[n], titles[n]) for n in found)
        assert [one.text for one in clicked.find(typed, 12)] == [title for _, title in by_weight[:12]]


@pytest.mark.parametrize("schema", [Schema(), Schema((Field("name", "text", title=True),))], ids=["texts", "titles"])
def test_titles_follow_the_documents(schema: Schema, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def document(id: str, title: str) -> Document:
        return Document(id, title) if schema.title is None else Document(id, "a long text " * 30, {"name": title})

    titles, read = TitleSuggestions(), list[int]()  # documents of the segments that are read
    names = ["x, y", ", ", 'x", "y', "x\\", 'x", ', "X, Y"]  # titles that look like the JSON between titles
    with Collection.create(tmp_path / "index", IndexInfo(WordsInfo("standard"), None, schema=schema)) as collection:
        collection.writer.add([document(f"{n}", name) for n, name in enumerate(names)], merge=False)
        titles.follow(collection.snapshot())
        assert [one.folded for one in titles.find("x", 9)] == ["x\\", 'x",', "x, y", 'x", "y']
        assert [one.text for one in titles.find(",", 9)] == [", "]
        texts_of, own = Segment.each_value, suggestions._texts_of

        def counted(segment: Segment, field: str = "") -> Iterator[object]:
            read.append(len(segment))
            return texts_of(segment, field) if field else own(segment)

        monkeypatch.setattr(suggestions, "_texts_of", counted)
        monkeypatch.setattr(Segment, "each_value", counted)
        collection.writer.add([document("a", "Xy"), document("b", "xy")], merge=False)
        collection.writer.remove(["0", "3", "5"])
        assert len(titles.find("x", 9)) == 4  # as it was
        titles.follow(collection.snapshot())
        assert [one.folded for one in titles.find("x", 9)] == ["xy", 'x",', 'x", "y']
        assert read == [2]  # the new segment alone
        collection.writer.remove(["a", "b", "2", "4"])
        titles.follow(collection.snapshot())
        assert titles.find("x", 9) == []


def test_titles_of_more_documents_come_first(tmp_path: Path) -> None:
    schema = Schema((Field("name", "text", title=True),))
    names = ["rust", "rust in action", "rust atomics", "rust in action", "learning rust", "rust in action"]
    with Collection.create(tmp_path / "index", IndexInfo(WordsInfo("standard"), None, schema=schema)) as collection:
        collection.writer.add(Document(f"{n}", f"text {n}", {"name": name}) for n, name in enumerate(names))
        titles = TitleSuggestions()
        titles.follow(collection.snapshot())
    found = [one.text for one in titles.find("rust", 5)]
    assert found == ["rust in action", "rust", "rust atomics", "learning rust"]  # a beginning comes before all others


def test_a_family_of_titles_is_one_suggestion(tmp_path: Path) -> None:
    images = [
        f"linux-image-{version}-{machine}" for version in ("6.1", "6.5") for machine in ("arm", "ppc", "sh4", "x64")
    ]
    names = ["linux", "linux-base", "linuxinfo", *images]
    with Collection.create(tmp_path / "index", IndexInfo(WordsInfo("standard"), None)) as collection:
        collection.writer.add([Document(name, name) for name in names])
        titles = TitleSuggestions()
        titles.follow(collection.snapshot())
    for typed, wanted in (
        ("linux", ["linux", "linuxinfo", "linux-base", "linux-image-6.1", "linux-image-6.5"]),
        ("linux-image-6.1", [name for name in images if "6.1" in name]),  # the common beginning would say no more
        ("linux-image-6.1-a", ["linux-image-6.1-arm"]),
    ):
        assert [one.text for one in titles.find(typed, 5)] == wanted


def test_long_texts_are_no_titles(tmp_path: Path) -> None:
    with Collection.create(tmp_path / "index", IndexInfo(WordsInfo("standard"), None)) as collection:
        collection.writer.add([Document("a", "apple " * 30), Document("b", "apple")])
        titles = TitleSuggestions()
        titles.follow(collection.snapshot())
        assert titles.find("apple", 3) == []
        collection.writer.add([Document("c", "apples"), Document("d", "apple pie")])
        titles.follow(collection.snapshot())
        assert [one.text for one in titles.find("apple", 3)] == ["apple", "apples", "apple pie"]
