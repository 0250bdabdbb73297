"""Mistyped words, homophones, completions, synonyms, phrases and exclusions of queries."""

import os
import random
import re
import threading
import unicodedata
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from threading import Event, current_thread
from time import sleep
from typing import Any, Optional

import numpy as np
import pytest
from pypinyin import lazy_pinyin

from paddle_ranker import Index
from paddle_ranker.errors import DataError, UsageError
from paddle_ranker.lexical.analyser import Phrase, analyser
from paddle_ranker.lexical.spelling import WordVocabulary, homophones, lines_of, merged_lines
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.index.shards import open_shards
from paddle_ranker.retrieval.snapshots.searchable import Searchable
from paddle_ranker.retrieval.snapshots.snapshot import LocalSnapshot
from paddle_ranker.retrieval.stages.search import Search, SearchSettings
from paddle_ranker.retrieval.stages.search_engine import SearchEngine
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import IndexInfo, WordsInfo
from paddle_ranker.retrieval.stored.schema import TEXT, Field, Schema
from paddle_ranker.retrieval.stored.schema_inference import infer_schema
from paddle_ranker.retrieval.stored.segments import Segment
from paddle_ranker.retrieval.words.query_parsing import ParsedQuery, _parts, parse_query
from paddle_ranker.retrieval.words.synonyms import Synonyms
from paddle_ranker.retrieval.work.turns import Abandoned, Caller
from tests.checkout import ONCE
from tests.elsewhere import elsewhere

pytestmark = pytest.mark.unit

TEXTS = {
    "kube": "Kubernetes does a rolling update of deployments",
    "dock": "Docker compose files, updated by rolling dice",
    "phone": "苹果手机最新报价",
    "tablet": "平板电脑价格",
    "repair": "苹果电脑维修",
    "train": "How to train a dragon: trainings",
    "vim": "vim is an editor",
    "book": "A notebook computer, model X200",
}


def make(folder: Path, texts: dict[str, str] = TEXTS, schema: Schema = Schema()) -> Collection:  # noqa: B008
    collection = Collection.create(folder, IndexInfo(WordsInfo("standard"), None, schema=schema))
    collection.writer.add(
        [Document(id, text, {"name": f"{id}name"} if schema.fields else {}) for id, text in texts.items()]
    )
    return collection


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    return make(tmp_path_factory.mktemp("reading") / "index")


@pytest.mark.parametrize(
    ("text", "words", "phrases", "excluded"),
    [
        ("rolling update", "rolling update", (), ()),
        ('my "rolling  update" plan', "my rolling update plan", ("rolling  update",), ()),
        ('找"苹果手机"价格', "找 苹果手机 价格", ("苹果手机",), ()),
        ("学历“鄙视链”", "学历“鄙视链”", (), ()),
        ('jaguar -car -"big cat"', "jaguar", (), ("car", "big cat")),
        ("手机 -苹果", "手机", (), ("苹果",)),
        ("state-of-the-art", "state-of-the-art", (), ()),
        ("ls -l", "ls -l", (), ()),
        ("git --amend -2 5 - 3", "git --amend -2 5 - 3", (), ()),
        ('27" and 32" monitors', '27" and 32" monitors', (), ()),
        ('an "open quote', 'an "open quote', (), ()),
        ('""', '""', (), ()),
        ('-"" "  " x "y z" -q1', '-"" " x y z"', ("x",), ("q1",)),
        ("鬼滅の刃 -無限列車編-", "鬼滅の刃 -無限列車編-", (), ()),
        ("Fate -The Movie Part One- review", "Fate -The Movie Part One- review", (), ()),
        ("（劇場版 -無限列車編-） -感想", "（劇場版 -無限列車編-）", (), ("感想",)),
        ("jaguar -car -The Movie-, new", "jaguar -The Movie-, new", (), ("car",)),
        ('jaguar -car "pre- and post"', "jaguar pre- and post", ("pre- and post",), ("car",)),
        ("a film ～無限列車編～ －無限列車編－", "a film ～無限列車編～ －無限列車編－", (), ()),
        ("手机 -苹果-三星", "手机", (), ("苹果-三星",)),
        ("+rolling +update -car", "rolling update", ("+rolling", "+update"), ("car",)),
        ('手机 +苹果 +"big cat"', "手机 苹果 big cat", ("+苹果", "big cat"), ()),
        ('"+hot" +1', "+hot +1", ("hot",), ()),
        ("c++ +1 + a +b ++x a+b", "c++ +1 + a +b ++x a+b", (), ()),
    ],
)
def test_a_query_has_phrases_and_exclusions(
    text: str, words: str, phrases: tuple[str, ...], excluded: tuple[str, ...]
) -> None:
    found = parse_query(text)
    assert (found.text, found.phrases, found.excluded) == (words, phrases, excluded)


def test_a_query_of_exclusions_alone_is_refused() -> None:
    with pytest.raises(UsageError, match="only what must not be there"):
        parse_query("-car")
    with pytest.raises(UsageError, match="more than the 16"):
        parse_query('"many" ' * 17)


def test_a_query_is_bounded_wherever_it_comes_in(collection: Collection) -> None:
    for literal in (False, True):
        assert parse_query("x" * 1000, literal=literal) == ParsedQuery("x" * 1000)
        assert parse_query("x" * 1001, literal=literal) == ParsedQuery("x" * 1000, read=1000)
    for end in ('"', "x"):  # which is in, and is not
        phrase, excluded = f'a "{"水" * 996}{end}', f'a -"{"水" * 995}{end}'
        assert len(parse_query(phrase).phrases) == len(parse_query(excluded).excluded) == int(end == '"')
        if end == "x":
            for query in (f'{phrase}"', f'{excluded}"', f"a -{'水' * 998}"):
                with pytest.raises(UsageError, match="does not end within the 1,000"):
                    parse_query(query)
                with pytest.raises(UsageError, match="does not end within the 1,000"):
                    SearchEngine(collection, SearchSettings()).run([query])
    assert parse_query(f"a -{'水' * 997} and more").excluded == ("水" * 997,)
    assert parse_query(f'a "{"x" * 5000}').phrases == ()  # a quote that nothing closes


@pytest.mark.parametrize(
    "unit",
    [
        '"',
        '"x',
        ' "',
        ' -"',
        " -a",
        " -a-",
        "-",
        ' -"" ',
        " +a",
        '""',
        '"a" ',
        "a-b",
        " -",
        '-"a',
        "x",
        "水",
        "́",
        "1,000,",
    ],
)
def test_each_sign_of_a_query_is_looked_at_once(unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = []

    class Counted(str):
        """Text whose searches for a quote are counted by the characters that they pass."""

        def find(self, sub: str, start: Any = 0, end: Any = None) -> int:
            found = super().find(sub, start, end)
            looked.append((found if found >= 0 else len(self)) - start)
            return found

    monkeypatch.setattr("paddle_ranker.retrieval.words.query_parsing.MOST_PARTS", 10**9)
    for size in (2000, 4000):
        looked.clear()
        text = Counted(unit * size)
        _parts(text, text)
        assert sum(looked) <= 4 * len(text), unit


@pytest.mark.parametrize(
    ("query", "corrected", "first"),
    [
        ("kuberentes", [("kuberentes", ("kubernetes",), "typing")], "kube"),  # a transposition
        ("dockr", [("dockr", ("docker",), "typing")], "dock"),  # a letter is missing
        ("depploymants", [("depploymants", ("deployments",), "typing")], "kube"),  # two errors in a long word
        ("ubernetes", [("ubernetes", ("kubernetes",), "typing")], "kube"),  # the first letter
        ("vimeditor", [("vimeditor", ("vim editor",), "typing")], "vim"),
        ("trainigns", [("trainigns", ("trainings",), "typing")], "train"),  # by the word, not by its stem
        ("平果手机", [("平果", ("苹果",), "sound")], "phone"),
        ("苹果收机", [("果收机", ("果手机",), "sound")], "phone"),
        ("苹果手机", [], "phone"),
        ("vmi", [], None),  # a short word
        ("vimx201", [], None),  # a name with digits
        ('"kuberentes"', [], None),
    ],
)
def test_mistyped_words_are_found(
    collection: Collection, query: str, corrected: list[tuple[str, tuple[str, ...], str]], first: str
) -> None:
    (found,) = SearchEngine(collection, SearchSettings()).run([query])
    assert [tuple(one)[:3] for one in found.query.words.corrected] == corrected
    assert [one.id for one in found.results()][:1] == ([first] if first else [])
    (literal,) = SearchEngine(collection, SearchSettings(literal=True)).run([query])
    assert literal.query.words.corrected == ()
    if any(by == "typing" for _, _, by in corrected):
        assert literal.total() == 0


def test_a_character_that_many_texts_have_is_no_error(tmp_path: Path) -> None:
    """忆里 is in a single text; 苹果 is in more than a fiftieth as many as 平."""
    texts = ["回忆里的歌", *(f"一个公里 {n}" for n in range(80)), *["平安出行"] * 20, "苹果园", "苹果树"]
    with Index.build([{"id": f"d{n}", "text": text} for n, text in enumerate(texts)], tmp_path / "index") as built:
        corrected = {query: dict(built.search(query).corrected) for query in ("一里路", "平果")}
    assert corrected == {"一里路": {}, "平果": {"平果": ("苹果",)}}


def test_a_correction_counts_less_than_the_word(collection: Collection) -> None:
    (right,), (wrong,) = (
        SearchEngine(collection, SearchSettings()).search(one) for one in ("kubernetes", "kuberentes")
    )
    assert wrong.score == pytest.approx(0.7 * right.score)
    read = collection.snapshot().rewrite_query(parse_query("kuberentes dragon"))
    assert read.text == "kubernetes dragon"  # which a ranker reads
    assert collection.snapshot().words_given(read) == {"kubernet": "kuberentes"}
    assert {*collection.snapshot().explain_words(read, ["kube"])["kube"]} == {"kubernet"}


def test_a_ranker_reads_clear_corrections_alone(tmp_path: Path) -> None:
    texts = {"a": "cart", "b": "care", **{f"{n}": "docker" for n in range(3)}, "typo": "docket"}
    collection = make(tmp_path / "index", texts)
    for query, text, words in (
        ("carx docker", "carx docker", ("care", "cart")),
        ("dockez", "docker", ("docker", "docket")),
    ):
        read = collection.snapshot().rewrite_query(parse_query(query))
        assert (read.text, read.corrected[0].to) == (text, words)


def test_an_unfinished_word_is_completed(collection: Collection) -> None:
    settings = SearchSettings(prefix=True)
    for query, beginning, word in (("rolling dep", "dep", "deployments"), ("dokc", "dokc", "docker")):
        (found,) = SearchEngine(collection, settings).run([query])
        assert [(one.given, one.to) for one in found.query.words.corrected] == [(beginning, (word,))]
    assert SearchEngine(collection, settings).search("dep kubernetes")[0].id == "kube"  # only the last word
    assert not collection.snapshot().rewrite_query(parse_query("dep kubernetes"), prefix=True).corrected


def test_completions_count_as_one_word_below_the_typed_word(tmp_path: Path) -> None:
    """While somebody types, what has the typed words stays first, in the order of the finished query."""
    texts = {
        "gimp": "photo editor",
        "photoflow": "an editor of photo and image",
        "tags": "photo tags",
        "config": "editorconfig-doc editorconfig editorpane editorial",
        **{f"doc-{n}": f"doc number {n}" for n in range(20)},
    }
    collection = make(tmp_path / "index", texts)
    (finished,) = SearchEngine(collection, SearchSettings()).run(["photo editor"])
    first = [result.id for result in finished.results()]
    for query, kept in (("photo editor", first), ("photo edito", [])):
        (typed,) = SearchEngine(collection, SearchSettings(prefix=True)).run([query])
        ids = [result.id for result in typed.results()]
        assert ids[: len(kept)] == kept and {*ids} == {*first, "config"}, "nothing with doc alone"
        assert typed.total() == len(ids)
        marked = [typed.query.shared_words.highlights(text) for text in ("a doc", "of editorconfig-doc")]
        assert [[(one.start, one.end) for one in of_text] for of_text in marked] == [[], [(3, 19)]]
    now = collection.snapshot()
    read = now.rewrite_query(parse_query("photo editor"), prefix=True)
    assert "editorconfig-doc" in read.corrected[0].to
    explained = now.explain_words(read, ["config", "gimp"])
    assert len(explained["config"]) == 1, "a document counts for one completion alone"
    weights = now.word_weights(read)
    assert {*weights} == {"photo", "editor", "editorconfigdoc", "editorconfig", "editorpan", "editori"}
    assert all(weights[token] <= weights["editor"] / 2 for token in {*weights} - {"photo", "editor"})


def test_a_completed_syllable_counts_with_the_one_before_it(tmp_path: Path) -> None:
    collection = make(tmp_path / "index", {"city": "서울 시장", "apart": "울산 서점", "other": "부산 시장"})
    (typed,) = SearchEngine(collection, SearchSettings(prefix=True)).run(["서우"])
    assert typed.query.words.corrected[0].by == "prefix"
    assert [result.id for result in typed.results()] == ["city", "apart"]
    assert "서울" in collection.snapshot().explain_words(typed.query.words, ["city"])["city"]


def test_phrases_and_exclusions_restrict_every_searcher(collection: Collection) -> None:
    engine = SearchEngine(collection, SearchSettings())
    for query, ids in (
        ("rolling update", {"kube", "dock"}),
        ('"rolling update"', {"kube"}),
        ('"Rolling   UPDATE"', {"kube"}),
        ('"rolling updat"', {"kube", "dock"}),  # which no document has
        ('"rolling update" "docker compose"', {"kube"}),
        ("+rolling +update", {"kube", "dock"}),  # by their stems
        ("rolling +updating", {"kube", "dock"}),
        ('rolling "updated"', {"dock"}),  # as it is written
        ("rolling +deployment", {"kube"}),
        ("+苹果 +电脑", {"repair"}),
        ("rolling +nowhere", {"kube", "dock"}),  # which no document has
        ("rolling +deploymnet", {"kube"}),  # by its correction
        ("+roling +update +dokcer", {"dock"}),
        ("+平果 +电脑", {"repair"}),
        ("rolling -docker", {"kube"}),
        ("rolling -dock", {"kube", "dock"}),  # another word
        ("rolling -deployment", {"dock"}),  # of the same stem
        ('rolling -"deployment of"', {"kube", "dock"}),
        ("苹果 -手机", {"repair"}),
        ('"苹果手机"', {"phone"}),
        ('-"a rolling update" rolling', {"dock"}),
    ):
        (found,) = engine.run([query])
        assert {one.id for one in found.results()} == ids, query
        assert found.total() == len(ids), query
    both = engine.search_many(['"rolling update"', "rolling"])
    assert [len(one) for one in both] == [1, 2]  # each query has its own restriction


def test_rare_words_are_asked_about(tmp_path: Path) -> None:
    texts = {f"{n}": "docker image 苹果手机" for n in range(100)} | {"typo": "doker 平果"}
    collection = make(tmp_path / "index", texts)
    for query, better in (
        ("doker", "docker"),
        ("平果", "苹果"),
        ("平果手机", "苹果手机"),
        ("docker", None),
        ("image 苹果", None),
    ):
        read = collection.snapshot().rewrite_query(parse_query(query))
        assert (collection.snapshot().did_you_mean(read), read.corrected) == (better, ())


def test_an_accent_is_no_error(tmp_path: Path) -> None:
    many = {f"case{n}": "a case in court" for n in range(30)}
    texts = {
        "coffee": "the café",
        "cv": "my résumé",
        "over": "über alles",
        "hedgehog": "ёжик",
        "plain": "naive",
        **many,
    }
    collection = make(tmp_path / "index", texts)
    for query, to, first in (
        ("cafe", "café", "coffee"),
        ("ＣＡＦＥ", "café", "coffee"),
        ("resume", "résumé", "cv"),
        ("uber", "über", "over"),
        ("ежик", "ёжик", "hedgehog"),
        ("naïve", "naive", "plain"),
    ):
        (found,) = SearchEngine(collection, SearchSettings()).run([query])
        assert [(one.to, one.is_clear) for one in found.query.words.corrected] == [((to,), True)], query
        (right,) = SearchEngine(collection, SearchSettings()).run([to])
        assert [(one.id, one.score) for one in found.results()] == [(one.id, one.score) for one in right.results()]
        assert found.results()[0].id == first
    collection.writer.add([Document(f"more{n}", "cafe") for n in range(2)])
    assert (
        collection.snapshot().did_you_mean(collection.snapshot().rewrite_query(parse_query("cafe"))) is None
    )  # not case
    (found,) = SearchEngine(collection, SearchSettings(prefix=True)).run(["my resum"])
    assert found.results()[0].id == "cv"


def test_two_words_may_be_one(tmp_path: Path) -> None:
    texts = {"game": "basketball rules", "bull": "a bull", "ink": "print basket", "copter": "helicopter"}
    texts |= {f"data{n}": "database" for n in range(100)} | {"apart": "the data base"}
    collection = make(tmp_path / "index", texts)
    for query, given, to, first in (
        ("basket ball", "basket ball", "basketball", "ink"),  # one of the words is known
        ("basket  ball rules", "basket ball", "basketball", "game"),
        ("heli copter", "heli copter", "helicopter", "copter"),
        ("heli copterr", "copterr", None, None),
    ):
        (found,) = SearchEngine(collection, SearchSettings()).run([query])
        joined = [(one.given, one.to) for one in found.query.words.corrected if " " in one.given]
        assert joined == ([] if to is None else [(given, (to,))]), query
        if to is not None:
            assert to in found.query.words.text and found.results()[0].id == first, query
    assert collection.snapshot().rewrite_query(parse_query("basket, ball")).corrected[0].to != ("basketball",)
    assert collection.snapshot().rewrite_query(parse_query('"basket ball"')).corrected == ()
    assert (
        collection.snapshot().did_you_mean(collection.snapshot().rewrite_query(parse_query("data base"))) == "database"
    )


def test_names_are_completed(tmp_path: Path) -> None:
    texts = {"phone": "iPhone15Pro case", "net": "Wi-Fi 6", "year": "in 2024", "mail": "e-mail", "flu": "COVID-19"}
    texts |= {"code": "C++ book", "node": "node.js", "dot": ".NET", "both": "R&D", "digest": "a1-b2-c3-d4-e5-f6-g7"}
    collection = make(tmp_path / "index", texts)
    for query, to, first in (
        ("iphone15p", "iphone15pro", "phone"),
        ("wi-f", "wi-fi", "net"),
        ("wi-", "wi-fi", "net"),
        ("20", "2024", "year"),
        ("e-mai", "e-mail", "mail"),
        ("covid-1", "covid-19", "flu"),
        ("covid-", "covid-19", "flu"),
        ("c+", "c++", "code"),
        ("node.", "node.js", "node"),
        ("r&", "r&d", "both"),
        (".n", ".net", "dot"),
    ):
        (found,) = SearchEngine(collection, SearchSettings(prefix=True)).run([f"some {query}"])
        assert [(one.given, one.to, one.by) for one in found.query.words.corrected if one.by == "prefix"] == [
            (query, (to,), "prefix")
        ]
        assert found.results()[0].id == first, query
    assert (
        collection.snapshot().rewrite_query(parse_query("covid18")).corrected == ()
    )  # names are completed, and not corrected


@ONCE
def test_corrections_are_of_live_words_however_they_are_stored(tmp_path: Path) -> None:
    """One folder, one of many segments, two shards and shards elsewhere find the same."""
    removed = {"gone0": "kubernatiz", "gone1": "zebrq", "gone2": "zebrafish", "gone3": "smal"}
    removed |= {"gone4": "zebraed", "gone5": "a zebraed kubelets"}  # whose stems are live
    dead = {word for text in removed.values() for word in text.split()}
    texts = {"a": "kubernetes", "b": "xubernites", "c": "zebras kube", "d": "kubernetes kubelet", "e": "small"}
    texts |= {f"{n}": f"kub{chr(97 + n // 26)}{chr(97 + n % 26)}{'x' * (n % 5)}" for n in range(200)} | removed
    one = make(tmp_path / "one", texts)
    many, shards = make(tmp_path / "many", {}), [make(tmp_path / f"shard{n}", {}) for n in range(2)]
    for n, (id, text) in enumerate(texts.items()):
        many.writer.add([Document(id, text)])
        shards[n % 2].writer.add([Document(id, text)])
    for each in (one, many, *shards):
        each.writer.remove([*removed])
        each.close()
    folders = [tmp_path / f"shard{n}" for n in range(2)]
    every: list[Searchable] = [Collection.open(tmp_path / "one"), Collection.open(tmp_path / "many")]
    every += [open_shards(folders), *elsewhere(folders)]
    queries = ["kubernatis", "zebr", "smalx", "kubernatiz", "xubernetes", "zebrq", "kubrenetes", "kubaa", "zebrad"]
    for query in queries:
        read = [each.snapshot().rewrite_query(parse_query(query)) for each in every]
        assert all(own == read[0] for own in read), read
        assert {word for own in read[0].corrected for word in own.to}.isdisjoint(dead)
    assert [one.to for one in every[0].snapshot().rewrite_query(parse_query("zebrad")).corrected] == [("zebras",)]
    assert every[0].snapshot().rewrite_query(parse_query("kubernatis")).text == "kubernetes"
    for beginning in ("ku", "kub", "kube", "zebr", "sm"):
        read = [each.snapshot().rewrite_query(parse_query(beginning), prefix=True) for each in every]
        assert all(own == read[0] for own in read) and read[0].corrected, beginning
        assert {word for own in read[0].corrected for word in own.to}.isdisjoint(dead)


SIGNS = ["-", "/", ".", "&", "_", "@", "+", "++", "#", "%", "$", ",", "'", "(", ":", " ", "  ", "​", ""]
PIECES = [
    "a",
    "b",
    "covid",
    "19",
    "1",
    "000",
    "2,000",
    "3.14",
    "don't",
    "l'eau",
    "rock'n'roll",
    "é",
    "é",
    "ẍ",
    "R",
    "D",
]
PIECES += [
    "The",
    "of",
    "Å",
    "ß",
    "İ",
    "手",
    "机",
    "无限",
    "か",
    "゙",
    "กิ",
    "น",
    "ແມ",
    "ວ",
    "ឆ្ម",
    "ា",
    "의",
    "학",
    "की",
    "́",
]


@ONCE
def test_phrases_are_found_where_their_text_stands(tmp_path: Path) -> None:
    """Phrases and exclusions find what a reading of all texts finds, whatever stands beside them."""
    draw = random.Random(7)

    def text() -> str:
        if draw.random() < 0.2:
            return "".join(draw.choice("ab1--.") for _ in range(draw.randint(8, 90)))
        return "".join(draw.choice(PIECES) + draw.choice(SIGNS) for _ in range(draw.randint(2, 12)))

    texts = {f"{n}": text() for n in range(400)}
    in_word = r"[^\W_฀-໿ក-៿぀-ヿ㐀-鿿가-힯]"
    for options in ("", "accents", "jieba", "french"):
        own = analyser(options)
        schema = Schema((Field(TEXT, TEXT, analyser=options),)) if options else Schema()
        collection = Collection.create(
            tmp_path / (options or "none"), IndexInfo(WordsInfo("standard"), None, schema=schema)
        )
        collection.writer.add([Document(id, one) for id, one in texts.items()])
        folded = {id: own.fold(one) for id, one in texts.items()}
        phrases = 0
        while phrases < 300:
            whole = draw.choice(list(texts.values()))
            start = draw.randrange(len(whole))
            phrase = whole[start : start + draw.randint(1, 12)].lstrip("+")
            parts = own.fold(phrase).split()
            if not parts or unicodedata.combining(parts[0][0]) or unicodedata.category(parts[0][0]).startswith("M"):
                continue
            before = f"(?<!{in_word})" if re.match(in_word, parts[0]) else ""
            base = "".join(char for char in parts[-1] if unicodedata.category(char)[0] != "M")[-1:]
            after = f"(?!{in_word})" if re.match(in_word, base) else ""
            pattern = re.compile(before + r"\s+".join(map(re.escape, parts)) + after)
            wanted = set[str]()
            for id, one in folded.items():
                for match in pattern.finditer(one):  # a mark goes on with its character, as a letter does with a word
                    marks = one[: match.start()].rstrip(
                        "".join(c for c in set(one) if unicodedata.category(c)[0] == "M")
                    )
                    is_inside = before and marks != one[: match.start()] and re.match(in_word, marks[-1:])
                    goes_on = unicodedata.category(one[match.end() : match.end() + 1] or " ")[0] == "M"
                    if not is_inside and not (goes_on and unicodedata.category(parts[-1][-1])[0] in "LMN"):
                        wanted.add(id)
            generation = collection.snapshot().generation
            found = collection.snapshot().phrase_filter(ParsedQuery("", (phrase,)))
            kept = generation.kept(ParsedQuery("", (phrase,)))[0]
            assert {id for id, has in zip(texts, kept) if has} == wanted, (options, phrase)
            assert (found is not None) == bool(wanted)
            left = generation.kept(ParsedQuery("", (), (phrase,)))[0]
            excluded = {id for id, has in zip(texts, left) if not has}
            is_word = own.fold(phrase).strip().isalpha() or Phrase(own.fold(phrase), own.language or "english").joined
            assert excluded >= wanted and (excluded == wanted or is_word), (options, phrase)
            phrases += 1


@pytest.mark.parametrize(
    ("phrase", "text"),
    [
        ("COVID-19", "post-COVID-19 care"),
        ("R&D", "R&D/marketing"),
        ("2020-12", "on 2020-12-31"),
        ("example.com", "see example.com/docs"),
        ("1,000", "1,000,000 people"),
        ("node.js", "the node.js-based server"),
        ("don", "don't"),
        ("รถไฟ", "สถานีรถไฟกลาง"),
        ("ແມວ", "ເດັກແມວນ້ອຍ"),
        ("ឆ្មា", "ឆ្មាតូច"),
        ("手机", "苹果手机壳"),
    ],
)
def test_a_name_inside_a_longer_one_is_found_and_excluded(tmp_path: Path, phrase: str, text: str) -> None:
    collection = make(tmp_path / "index", {"has": f"{text} word", "other": "word alone"})
    engine = SearchEngine(collection, SearchSettings())
    for query, ids in ((f'word "{phrase}"', {"has"}), (f'word -"{phrase}"', {"other"})):
        (found,) = engine.run([query])
        assert {one.id for one in found.results()} == ids and not found.query.unfound, query


@pytest.mark.parametrize(
    ("word", "alike", "others"),
    [
        ("T-shirt", "T-shirts|a t-SHIRT|tshirt|Tshirts|T shirts|re-T-shirts|T-shirt-like", "shirts|t, a shirt|shirt t"),
        ("T-shirts", "T-shirt|tshirt|T shirt", "shirt|a T"),
        ("e-mail", "e-mails|email|emailed|E mail", "mail|mailing e"),
        ("don't", "dont|Don't", "do|done"),
        ("node.js", "node.js|nodejs|Node JS", "node|js|a js node"),
        ("well-known", "well-known|wellknown|well known", "known well|known"),
        ("state-of-the-art", "state-of-the-art|State of the Art|states-of-the-arts", "state of art|the art of state"),
        ("C++", "c++|C++17", "c|C#"),
        ("R&D", "R&D|r&d/marketing", "d|r"),
        ("covid-19", "COVID-19|covid19|post-covid-19|Covid 19", "covid|covid 20"),
        ("shirt", "shirts|T-shirts", "tshirt"),
        ("水稻-rice", "水稻-rice", "水稻|rice"),
    ],
)
def test_a_word_excludes_and_requires_what_a_search_for_it_finds(
    word: str, alike: str, others: str, tmp_path: Path
) -> None:
    with_word, without = ([f"sale {text} sale" for text in texts.split("|")] for texts in (alike, others))
    collection = make(tmp_path / "index", dict(enumerate_texts(with_word, "has") + enumerate_texts(without, "not")))
    engine = SearchEngine(collection, SearchSettings())
    for query, kind, texts in ((f"sale -{word}", "not", without), (f"sale +{word}", "has", with_word)):
        (found,) = engine.run([query])
        assert {one.id for one in found.results()} == {f"{kind}{n}" for n in range(len(texts))}, query
    assert {one.id for one in engine.search(word)} >= {f"has{n}" for n in range(len(with_word))}


def enumerate_texts(texts: list[str], kind: str) -> list[tuple[str, str]]:
    return [(f"{kind}{number}", text) for number, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("phrases", "excluded", "found", "ids", "read"),
    [
        (("水",), (), 1, "0134", 0),  # tokens decide
        (("水稻",), (), 1, "013", 0),
        (("水", "稻种"), ("的",), 2, "01", 0),
        (("水稻种",), (), 1, "01", 3),  # three have both pairs of characters
        (("水稻种", "种x水", "水稻"), (), 2, "01", 3),
        (("b a", "a b"), (), 2, "5", 2),  # no document is read again for a second phrase
        (("a b", "b c", "b a"), (), 2, "5", 2),
        ((), ("a b", "b a", "水"), 0, "2", 2),
    ],
)
def test_phrases_read_a_document_once_if_tokens_do_not_decide(
    tmp_path: Path,
    phrases: tuple[str, ...],
    excluded: tuple[str, ...],
    found: int,
    ids: str,
    read: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts = ["水稻种", "水稻种 种", "稻", "水稻的 稻种", "水", "b a b x", "a b"]
    collection, rows = make(tmp_path / "index", {f"{n}": text for n, text in enumerate(texts)}), list[int]()
    document = Segment.document

    def reading(segment: Segment, row: int) -> Document:
        rows.append(row)
        return document(segment, row)

    monkeypatch.setattr(Segment, "document", reading)
    generation = collection.snapshot().generation
    names = generation.found_phrases(phrases)
    (has,) = generation.kept(ParsedQuery("", tuple(names), excluded))
    assert "".join(f"{row}" for row in np.flatnonzero(has)) == ids and len(names) == found
    assert len({*rows}) == read and len(rows) <= read * (1 + (found < len(phrases)))


@pytest.mark.parametrize("query", [ParsedQuery("", ("a a a",)), ParsedQuery("", (), ("a a a",))])
def test_a_search_for_a_phrase_stops_within_a_document(
    tmp_path: Path, query: ParsedQuery, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection, caller, looked = make(tmp_path / "index", {f"{n}": "xa a a " * 100 for n in range(3)}), Caller(), []
    matches = Phrase.matches

    def until_left(own: Phrase, folded: str) -> Iterator[bool]:
        for stands in matches(own, folded):
            looked.append(stands)
            if len(looked) == 7:
                caller.leave()
            yield stands

    monkeypatch.setattr(Phrase, "matches", until_left)
    with pytest.raises(Abandoned):
        caller.run(lambda: collection.snapshot().generation.kept(query))
    assert looked == [False] * 7


def test_literal_fields_correct_nothing(tmp_path: Path) -> None:
    rows = [Document("a", "sakura blossom", {"name": "Quince"})]
    declared = Schema(infer_schema(rows).fields)
    for name, literal, corrected in (("some", False, 1), ("none", True, 0)):
        fields = tuple(
            type(one)(one.name, "text", literal=literal) if one.name == "name" else one for one in declared.fields
        )
        collection = Collection.create(tmp_path / name, IndexInfo(WordsInfo("standard"), None, schema=Schema(fields)))
        collection.writer.add(rows)
        assert len(collection.snapshot().rewrite_query(parse_query("qunice")).corrected) == corrected
        assert len(collection.snapshot().rewrite_query(parse_query("blosom")).corrected) == 1
        collection.close()
        assert Collection.open(tmp_path / name).info.schema.fields == fields


def test_words_survive_merges_and_removals(tmp_path: Path) -> None:
    with make(tmp_path / "index") as collection:
        for n in range(10):
            collection.writer.add([Document(f"more{n}", f"filler number {n}")])
        collection.writer.add([Document("k8s", "minikube on laptops")])
        assert collection.snapshot().rewrite_query(parse_query("minkube")).corrected[0].to == ("minikube",)
        collection.writer.merge(None)
        assert collection.snapshot().rewrite_query(parse_query("kuberentes minkube")).text == "kubernetes minikube"
        collection.writer.remove(["k8s"])
        assert collection.snapshot().rewrite_query(parse_query("minkube")).corrected == ()


def test_synonyms_are_read_anew(tmp_path: Path, collection: Collection) -> None:
    file = tmp_path / "synonyms.txt"
    file.write_text("# of computers\n\nlaptop, 笔记本 => notebook computer\nmend, 维修\n", "utf-8")
    synonyms = Synonyms(file)
    engine = SearchEngine(collection, SearchSettings(synonyms=synonyms))
    for query, first in (("laptop", "book"), ("便宜笔记本", "book"), ("mend", "repair")):
        (found,) = engine.run([query])
        assert found.results()[0].id == first and found.query.words.synonyms
    assert not engine.run(["computer"])[0].query.words.synonyms  # not the other way
    file.write_text("laptop => dragon\n", "utf-8")
    os.utime(file, ns=(1, 1))
    assert synonyms.reload() and not synonyms.reload()
    assert engine.search("laptop")[0].id == "train"
    many = ", ".join(map(str, range(33)))
    for line in ("alone", "a => ", " => b", "a => b => c", "a,, b", f"a => {many}", many, "\0\n" * 600_000):
        file.write_text(f"{line}\n", "utf-8")
        with pytest.raises(DataError, match=r"line 1|1 MiB"):
            Synonyms(file)
        with pytest.raises(DataError, match=r"line 1|1 MiB"):
            synonyms.reload()
        assert engine.search("laptop")[0].id == "train"  # what was right stays
    file.write_text("".join(f"a => {n}\n" for n in range(33)), "utf-8")
    with pytest.raises(DataError, match="line 33 gives 'a' more than 32 synonyms"):
        Synonyms(file)


def test_no_search_waits_for_the_synonyms(
    tmp_path: Path, collection: Collection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file, pipe, go_on, reads = tmp_path / "synonyms.txt", tmp_path / "pipe", Event(), list[str]()
    os.mkfifo(pipe)
    with pytest.raises(DataError, match="regular file"):
        Synonyms(pipe)
    file.write_text("laptop => dragon\n", "utf-8")
    monkeypatch.setattr("paddle_ranker.retrieval.words.synonyms._LOOK_SECONDS", 0.0)
    engine = SearchEngine(collection, SearchSettings(synonyms=(synonyms := Synonyms(file))))

    def waiting(self: Synonyms) -> bool:
        reads.append(current_thread().name)
        return go_on.wait(60)

    monkeypatch.setattr(Synonyms, "reload", waiting)
    for _ in range(3):
        assert engine.search("laptop")[0].id == "train"  # while a thread waits for the file
    assert reads == ["synonyms"] and not go_on.is_set()
    monkeypatch.undo()
    go_on.set()
    file.unlink()
    pipe.rename(file)
    while "regular file" not in caplog.text:  # a pipe that nobody writes to, in place of the file
        synonyms.of(analyser(""))
        sleep(0.01)
    assert engine.search("laptop")[0].id == "train"


def test_a_vocabulary_finds_what_a_comparison_of_all_words_finds() -> None:
    generator = np.random.default_rng(0)
    words = {"".join(generator.choice(list("abcdeé"), size)) for size in generator.integers(2, 12, 3000)}
    vocabulary = WordVocabulary.of(words)
    assert [*vocabulary] == sorted(words, key=str.encode)

    def distance(one: str, other: str) -> int:  # optimal string alignment, by its recurrence
        table = np.zeros((len(one) + 1, len(other) + 1), int)
        table[:, 0], table[0] = np.arange(len(one) + 1), np.arange(len(other) + 1)
        for i in range(1, len(one) + 1):
            for j in range(1, len(other) + 1):
                cost = int(one[i - 1] != other[j - 1])
                table[i, j] = min(table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + cost)
                if i > 1 and j > 1 and one[i - 1] == other[j - 2] and one[i - 2] == other[j - 1]:
                    table[i, j] = min(table[i, j], table[i - 2, j - 2] + 1)
        return int(table[-1, -1])

    plain = {word: word.replace("é", "e") for word in words}
    for word in [*generator.choice(sorted(words), 6), "abcd", "abcdeabcd", "abc"]:
        distances = {other: distance(word.replace("é", "e"), own) for other, own in plain.items() if other != word}
        for errors in range(3):
            wanted = {other for other, own in distances.items() if own == errors}
            assert {*chain(*vocabulary.near(word, errors))} == wanted, word
    assert {*vocabulary.beginning("ab", 10_000)} == {word for word in words if word.startswith("ab")}
    assert [*WordVocabulary(merged_lines([lines_of(["b", "a"]), lines_of([]), lines_of(["c", "a"])]))] == [
        "a",
        "b",
        "c",
    ]
    assert not [*WordVocabulary.of([]).near("word", 1)] and not WordVocabulary.of([]).beginning("w", 3)
    assert {"苹", "瓶"} <= {*homophones("平")} and "平" not in homophones("平") and homophones("a") == ""


def test_sounds_are_those_of_the_library() -> None:
    said = {chr(code): lazy_pinyin(chr(code), v_to_u=True)[0] for code in range(0x4E00, 0x9FA5, 37)}
    for character, sound in said.items():
        alike = homophones(character)
        assert all(lazy_pinyin(other, v_to_u=True)[0] == sound for other in alike[:5])
        assert {other for other, own in said.items() if own == sound} <= {*alike, character}


def test_a_search_that_reads_many_documents_keeps_no_other_waiting(collection: Collection) -> None:
    reached, done = threading.Event(), threading.Event()

    class Slow(LocalSnapshot):
        def phrase_filter(self, query: ParsedQuery) -> Optional[ParsedQuery]:
            reached.set()
            assert done.wait(20)
            return None

    now = collection.snapshot()
    slow = Slow(now.generation, collection.folders, now.models, None)
    one, other = (Search(own, "rolling", ["words"], SearchSettings()) for own in (slow, now))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lambda: one.query.phrase_filter)
        assert reached.wait(20)
        assert other.query.phrase_filter is None and not waiting.done()
        done.set()
