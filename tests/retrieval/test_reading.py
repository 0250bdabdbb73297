"""Mistyped words, homophones, completions, synonyms, phrases and exclusions of queries."""

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, current_thread
from time import sleep
from typing import Optional

import numpy as np
import pytest
from pypinyin import lazy_pinyin

from paddle_ranker.commands.index import main
from paddle_ranker.errors import DataError, UsageError
from paddle_ranker.lexical.analyser import analyser
from paddle_ranker.lexical.spelling import Vocabulary, homophones, lines_of, united
from paddle_ranker.retrieval import reading
from paddle_ranker.retrieval.collection import Collection
from paddle_ranker.retrieval.indexes import Document
from paddle_ranker.retrieval.manifest import IndexInfo, WordsInfo
from paddle_ranker.retrieval.reading import ParsedQuery, Synonyms, parse_query
from paddle_ranker.retrieval.schema import Schema, infer
from paddle_ranker.retrieval.search import Search, Searcher, SearchSettings

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
    collection.add([Document(id, text, {"name": f"{id}name"} if schema.fields else {}) for id, text in texts.items()])
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
    (found,) = Searcher(collection, SearchSettings()).run([query])
    assert [tuple(one)[:3] for one in found.words.corrected] == corrected
    assert [one.id for one in found.results()][:1] == ([first] if first else [])
    (literal,) = Searcher(collection, SearchSettings(literal=True)).run([query])
    assert literal.words.corrected == ()
    if any(by == "typing" for _, _, by in corrected):
        assert literal.total() == 0


def test_a_correction_counts_less_than_the_word(collection: Collection) -> None:
    (right,), (wrong,) = (Searcher(collection, SearchSettings()).search(one) for one in ("kubernetes", "kuberentes"))
    assert wrong.score == pytest.approx(0.7 * right.score)
    read = collection.read_words(parse_query("kuberentes dragon"))
    assert read.text == "kubernetes dragon"  # which a ranker reads
    assert collection.words_given(read) == {"kubernet": "kuberentes"}
    assert {*collection.explain_words(read, ["kube"])["kube"]} == {"kubernet"}


def test_a_ranker_reads_clear_corrections_alone(tmp_path: Path) -> None:
    texts = {"a": "cart", "b": "care", **{f"{n}": "docker" for n in range(3)}, "typo": "docket"}
    collection = make(tmp_path / "index", texts)
    for query, text, words in (
        ("carx docker", "carx docker", ("care", "cart")),
        ("dockez", "docker", ("docker", "docket")),
    ):
        read = collection.read_words(parse_query(query))
        assert (read.text, read.corrected[0].to) == (text, words)


def test_an_unfinished_word_is_completed(collection: Collection) -> None:
    settings = SearchSettings(prefix=True)
    for query, beginning, word in (("rolling dep", "dep", "deployments"), ("dokc", "dokc", "docker")):
        (found,) = Searcher(collection, settings).run([query])
        assert [(one.given, one.to) for one in found.words.corrected] == [(beginning, (word,))]
    assert Searcher(collection, settings).search("dep kubernetes")[0].id == "kube"  # only the last word
    assert not collection.read_words(parse_query("dep kubernetes"), prefix=True).corrected


def test_phrases_and_exclusions_restrict_every_searcher(collection: Collection) -> None:
    searcher = Searcher(collection, SearchSettings())
    for query, ids in (
        ("rolling update", {"kube", "dock"}),
        ('"rolling update"', {"kube"}),
        ('"Rolling   UPDATE"', {"kube"}),
        ('"rolling updat"', {"kube", "dock"}),  # which no document has
        ('"rolling update" "docker compose"', {"kube"}),
        ("rolling -docker", {"kube"}),
        ("rolling -dock", {"kube", "dock"}),  # another word
        ("rolling -deployment", {"dock"}),  # of the same stem
        ('rolling -"deployment of"', {"kube", "dock"}),
        ("苹果 -手机", {"repair"}),
        ('"苹果手机"', {"phone"}),
        ('-"a rolling update" rolling', {"dock"}),
    ):
        (found,) = searcher.run([query])
        assert {one.id for one in found.results()} == ids, query
        assert found.total() == len(ids), query
    both = searcher.search_many(['"rolling update"', "rolling"])
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
        read = collection.read_words(parse_query(query))
        assert (collection.better_spelled(read), read.corrected) == (better, ())


def test_literal_fields_and_older_indexes_correct_nothing(tmp_path: Path) -> None:
    rows = [Document("a", "sakura blossom", {"name": "Quince"})]
    declared = Schema(infer(rows).fields)
    for name, literal, corrected in (("some", False, 1), ("none", True, 0)):
        fields = tuple(
            type(one)(one.name, "text", literal=literal) if one.name == "name" else one for one in declared.fields
        )
        collection = Collection.create(tmp_path / name, IndexInfo(WordsInfo("standard"), None, schema=Schema(fields)))
        collection.add(rows)
        assert len(collection.read_words(parse_query("qunice")).corrected) == corrected
        assert len(collection.read_words(parse_query("blosom")).corrected) == 1
        collection.close()
        assert Collection.open(tmp_path / name).info.schema.fields == fields
    make(tmp_path / "older").close()
    (info,) = (tmp_path / "older").glob("segment-*/segment.json")
    facts = json.loads(info.read_text())
    del facts["crc32"]["words_spellings.npy"]  # as earlier versions wrote it
    info.write_text(json.dumps(facts))
    older = Collection.open(tmp_path / "older")
    assert not older.read_words(parse_query("kuberentes")).corrected
    assert Searcher(older, SearchSettings()).search("kubernetes")[0].id == "kube"
    (tmp_path / "one.jsonl").write_text('{"id": "more", "text": "one more"}\n', "utf-8")
    assert main(["build", "--corpus", str(tmp_path / "one.jsonl"), "--output", str(tmp_path / "older")]) == 0
    assert older.refresh() and older.read_words(parse_query("kuberentes")).text == "kubernetes"


def test_words_survive_merges_and_removals(tmp_path: Path) -> None:
    with make(tmp_path / "index") as collection:
        for n in range(10):
            collection.add([Document(f"more{n}", f"filler number {n}")])
        collection.add([Document("k8s", "minikube on laptops")])
        assert collection.read_words(parse_query("minkube")).corrected[0].to == ("minikube",)
        collection.merge(None)
        assert collection.read_words(parse_query("kuberentes minkube")).text == "kubernetes minikube"
        collection.remove(["k8s"])
        assert collection.read_words(parse_query("minkube")).corrected == ()


def test_synonyms_are_read_anew(tmp_path: Path, collection: Collection) -> None:
    file = tmp_path / "synonyms.txt"
    file.write_text("# of computers\n\nlaptop, 笔记本 => notebook computer\nmend, 维修\n", "utf-8")
    synonyms = Synonyms(file)
    searcher = Searcher(collection, SearchSettings(synonyms=synonyms))
    for query, first in (("laptop", "book"), ("便宜笔记本", "book"), ("mend", "repair")):
        (found,) = searcher.run([query])
        assert found.results()[0].id == first and found.words.synonyms
    assert not searcher.run(["computer"])[0].words.synonyms  # not the other way
    file.write_text("laptop => dragon\n", "utf-8")
    os.utime(file, ns=(1, 1))
    assert synonyms.reload() and not synonyms.reload()
    assert searcher.search("laptop")[0].id == "train"
    many = ", ".join(map(str, range(33)))
    for line in ("alone", "a => ", " => b", "a => b => c", "a,, b", f"a => {many}", many, "\0\n" * 600_000):
        file.write_text(f"{line}\n", "utf-8")
        with pytest.raises(DataError, match=r"line 1|1 MiB"):
            Synonyms(file)
        with pytest.raises(DataError, match=r"line 1|1 MiB"):
            synonyms.reload()
        assert searcher.search("laptop")[0].id == "train"  # what was right stays
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
    monkeypatch.setattr(reading, "_LOOK_SECONDS", 0.0)
    searcher = Searcher(collection, SearchSettings(synonyms=(synonyms := Synonyms(file))))

    def waiting(self: Synonyms) -> bool:
        reads.append(current_thread().name)
        return go_on.wait(60)

    monkeypatch.setattr(Synonyms, "reload", waiting)
    for _ in range(3):
        assert searcher.search("laptop")[0].id == "train"  # while a thread waits for the file
    assert reads == ["synonyms"] and not go_on.is_set()
    monkeypatch.undo()
    go_on.set()
    file.unlink()
    pipe.rename(file)
    while "regular file" not in caplog.text:  # a pipe that nobody writes to, in place of the file
        synonyms.of(analyser(""))
        sleep(0.01)
    assert searcher.search("laptop")[0].id == "train"


def test_a_vocabulary_finds_what_a_comparison_of_all_words_finds() -> None:
    generator = np.random.default_rng(0)
    words = {"".join(generator.choice(list("abcdeé"), size)) for size in generator.integers(2, 12, 3000)}
    vocabulary = Vocabulary.of(words)
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
            assert {*vocabulary.near(word, errors)} == wanted, word
    assert {*vocabulary.beginning("ab", 10_000)} == {word for word in words if word.startswith("ab")}
    assert [*Vocabulary(united([lines_of(["b", "a"]), lines_of([]), lines_of(["c", "a"])]))] == ["a", "b", "c"]
    assert not Vocabulary.of([]).near("word", 1) and not Vocabulary.of([]).beginning("w", 3)
    assert {"苹", "瓶"} <= {*homophones("平")} and "平" not in homophones("平") and homophones("a") == ""


def test_sounds_are_those_of_the_library() -> None:
    said = {chr(code): lazy_pinyin(chr(code), v_to_u=True)[0] for code in range(0x4E00, 0x9FA5, 37)}
    for character, sound in said.items():
        alike = homophones(character)
        assert all(lazy_pinyin(other, v_to_u=True)[0] == sound for other in alike[:5])
        assert {other for other, own in said.items() if own == sound} <= {*alike, character}


def test_a_search_that_reads_many_documents_keeps_no_other_waiting(collection: Collection) -> None:
    reached, done = threading.Event(), threading.Event()

    class Slow(Collection):
        def holding(self, query: ParsedQuery) -> Optional[ParsedQuery]:
            reached.set()
            assert done.wait(20)
            return None

    slow = Slow(collection.folder, collection._generation, None)
    one, other = (Search(own, "rolling", ["words"], SearchSettings()) for own in (slow, collection))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lambda: one.restricted)
        assert reached.wait(20)
        assert other.restricted is None and not waiting.done()
        done.set()
