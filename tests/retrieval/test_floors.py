"""`nothing_close`: the floors that a build measures, and searches for nonsense, through all doors."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from paddle_ranker import Index
from paddle_ranker.commands import index, search
from paddle_ranker.retrieval.index.floors import is_nothing_close, measure_floors, queries_about, random_queries
from paddle_ranker.retrieval.index.shards import shard_folders
from paddle_ranker.retrieval.stages.search import SearchSettings
from paddle_ranker.retrieval.stages.search_engine import SearchEngine
from paddle_ranker.retrieval.stored.manifest import Floors, read_manifest
from tests.conftest import Call
from tests.elsewhere import elsewhere
from tests.tiny import write_tower

pytestmark = pytest.mark.unit
SYLLABLES = ("ba", "de", "fo", "gu", "ki", "lo", "me", "nu", "pa", "ri", "so", "ta", "vu", "zi")
VOCABULARY = [first + second + third for first in SYLLABLES for second in SYLLABLES for third in SYLLABLES[:5]]
FIRST = " ".join(VOCABULARY[n] for n in np.random.default_rng(0).choice(len(VOCABULARY), 8))
SOME = " ".join(FIRST.split()[:5])
CLOSE = (FIRST, " ".join(FIRST.split()[2:5]), f'"{" ".join(FIRST.split()[1:3])}"')
NONSENSE = ("xqzv wvkj", "how do giraffes sleep at night", f"{FIRST.split()[3]} qwerty uiop asdfgh")


def rows(count: int) -> list[dict[str, str]]:
    """Return documents of eight words each, of which the first one is `FIRST`."""
    drawn = [np.random.default_rng(n).choice(len(VOCABULARY), 8).tolist() for n in range(count)]
    return [{"id": f"d{n}", "text": " ".join(VOCABULARY[place] for place in own)} for n, own in enumerate(drawn)]


def build(folder: Path, count: int, *more: object) -> Path:
    corpus = folder.parent / "corpus.jsonl"
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows(count)), encoding="utf-8")
    given = ["build", "--corpus", corpus, "--output", folder, *more]
    assert index.main([str(one) for one in given]) == 0
    return folder


def is_said(folder: Path, query: str) -> bool:
    with Index(folder) as opened:
        hits = opened.search(query)
    assert hits.nothing_close == ("; nothing is close" in repr(hits).splitlines()[0])
    return hits.nothing_close


def test_a_search_for_nonsense_says_that_nothing_is_close(tmp_path: Path, call: Call) -> None:
    folder = build(tmp_path / "index", 300)
    assert [is_said(folder, query) for query in (*CLOSE, *NONSENSE)] == [False] * len(CLOSE) + [True] * len(NONSENSE)
    for query, is_close in ((CLOSE[0], True), (NONSENSE[2], False)):
        status, _, err = call(search.main, query, "--index", folder)
        assert status == 0 and ("nothing is close" in err) is not is_close
        status, printed, _ = call(search.main, query, "--index", folder, "--format", "json")
        found = json.loads(printed)
        assert found["results"] and found.get("nothing_close", False) is not is_close
    settings = SearchSettings(prefix=True)
    assert not SearchEngine.open(folder, settings).run([NONSENSE[0]])[0].nothing_close  # it may become a query yet


@pytest.mark.parametrize(
    ("query", "is_close"),
    [
        ("aurora lamp", True),
        ("aurora zzqx", True),  # the heaviest word alone counts if it is nearly half of the query
        ("aurora zzqx wvkj", False),  # but one word of more is in some document by chance
        ("aurora lamp zzqx wvkj qwerty uiop", True),  # long questions share no more with the document that answers them
        ("aurora lamp zzqx wvkj qwerty uiop asdf hjkl yxcv bnmq", False),
        ("the aurora of zzqx in lamps", True),
        ("aurora-lamp 18V", True),  # the text has 18 V and aurora lamp
        (f"{VOCABULARY[0]} {VOCABULARY[1]} zzqx", False),
    ],
)
def test_a_document_with_a_word_beside_the_heaviest_is_close(query: str, is_close: bool, tmp_path: Path) -> None:
    """Words of a single book stand together by chance: frequent ones do not make a document close."""
    words = VOCABULARY[:60]
    pages = [[words[place] for place in np.random.default_rng(n).integers(0, 60, 400)] for n in range(200)]
    texts = [*(" ".join(page) for page in pages), "aurora lamp 18 V " + " ".join(words[:40])]
    with Index.build([{"id": f"d{n}", "text": text} for n, text in enumerate(texts)], tmp_path / "index") as built:
        assert built.search(query).nothing_close is not is_close


@pytest.mark.parametrize(
    ("query", "is_close"),
    [
        ("aurora", True),  # a query of one word is about it, however long the text is
        ("aurora lamp", True),
        ("aurora lamp garden zzqx wvkj qwerty uiop asdf", False),  # a text of many pages has three of any words
        ("ruby lamb gander zzqx wvkj qwerty uiop asdf", True),  # as many words of a text of the usual length
    ],
)
def test_a_text_of_many_pages_is_not_close_for_words_it_has_once(query: str, is_close: bool, tmp_path: Path) -> None:
    words = VOCABULARY[:60]
    pages = [[words[place] for place in np.random.default_rng(n).integers(0, 60, 40)] for n in range(200)]
    texts = [" ".join(page) for page in pages]
    texts += [f"aurora {' '.join(texts)} lamp garden", f"ruby {texts[0]} lamb gander"]
    with Index.build([{"id": f"d{n}", "text": text} for n, text in enumerate(texts)], tmp_path / "index") as built:
        assert built.search(query).nothing_close is not is_close


@pytest.mark.parametrize(
    ("query", "by_words", "beside_unsure", "beside_sure"),
    [
        ("aurora lamp", True, True, True),
        ("aurora lamp zzqx", True, True, True),  # most of the query
        ("aurora lamp zzqx wvkj", True, True, False),
        ("aurora zzqx wvkj", False, False, False),
    ],
)
def test_words_say_more_against_a_tower_that_can_tell(
    query: str, by_words: bool, beside_unsure: bool, beside_sure: bool, tmp_path: Path
) -> None:
    """No cosine is above the floor 2, so that only words make a document close."""
    words = VOCABULARY[:60]
    texts = [" ".join(words[place] for place in np.random.default_rng(n).integers(0, 60, 40)) for n in range(200)]
    corpus, folder = tmp_path / "corpus.jsonl", tmp_path / "index"
    rows = [{"id": f"d{n}", "text": text} for n, text in enumerate([*texts, f"aurora lamp {texts[0]}"])]
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    write_tower(tmp_path / "tower")
    given = ["build", "--corpus", corpus, "--output", folder, "--tower", tmp_path / "tower", "--device", "cpu"]
    assert index.main([str(one) for one in given]) == 0
    manifest = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    said = []
    for by, telling in (("words", ["vectors"]), ("words,vectors", []), ("words,vectors", ["vectors"])):
        manifest["floors"] = {"documents": len(rows), "scores": {"vectors": 2.0}, "telling": telling}
        (folder / "index.json").write_text(json.dumps(manifest), encoding="utf-8")
        with SearchEngine.open(folder, SearchSettings(by=tuple(by.split(",")))) as opened:
            said.append(not opened.run([query])[0].nothing_close)
    assert said == [by_words, beside_unsure, beside_sure]


def test_characters_of_other_pairs_make_no_document_close(tmp_path: Path) -> None:
    """Each character is known, and in documents about other things, but hardly two of them beside each other."""
    texts = ["银行利率上调", "行人过马路", "感冒怎么治疗", "手机屏幕碎了"] * 30
    with Index.build([{"id": f"d{n}", "text": text} for n, text in enumerate(texts)], tmp_path / "index") as built:
        said = {query: built.search(query).nothing_close for query in ("利率上调", "感冒治疗", "上幕怎屏调冒人率了")}
    assert said == {"利率上调": False, "感冒治疗": False, "上幕怎屏调冒人率了": True}


def test_shards_here_and_elsewhere_say_what_one_folder_says(tmp_path: Path) -> None:
    write_tower(tmp_path / "tower")
    tower = ("--tower", tmp_path / "tower", "--device", "cpu")
    one, several = build(tmp_path / "one", 200, *tower), build(tmp_path / "several", 200, *tower, "--shards", 3)
    floors = [read_manifest(folder).floors for folder in (one, *shard_folders(several))]
    first = floors[0]
    assert first is not None and {*first.scores} == {"vectors"}
    for other in floors:
        assert other is not None and other.documents == 200 and other.telling == first.telling
        assert other.scores == pytest.approx(first.scores, abs=1e-6)
    with SearchEngine.open(one) as local, SearchEngine.open(several) as sharded:
        remote = [SearchEngine(one, SearchSettings()) for one in elsewhere(shard_folders(several))]
        every: list[SearchEngine[Any]] = [local, sharded, *remote]
        each = [searcher.run([*CLOSE, *NONSENSE]) for searcher in every]
        said = [[found.nothing_close for found in searches] for searches in each]
    assert all(one == said[0] for one in said) and any(said[0]) and not all(said[0])


class SureRanker:
    """A ranker to which every document has the same probability."""

    pair_encoder = row_encoder = None

    def __init__(self, probability: float, calibration: object):
        self._logit = np.log(probability / (1 - probability))
        self.info = SimpleNamespace(calibration=calibration)

    def scored(self, queries: Sequence[str], titles: Sequence[str]) -> Any:
        return np.full(len(titles), self._logit), {}


@pytest.mark.parametrize(
    ("query", "probability", "calibration", "is_close"),
    [
        (SOME, 0.09, "calibrated", False),
        (SOME, 0.11, "calibrated", True),
        (FIRST, 0.09, "calibrated", True),  # names a document
        (NONSENSE[2], 0.11, "calibrated", True),
        (SOME, 0.09, None, True),  # its floors decide
        (NONSENSE[2], 0.11, None, False),
    ],
)
def test_a_calibrated_rankers_probability_decides(
    query: str, probability: float, calibration: object, is_close: bool, tmp_path: Path
) -> None:
    with SearchEngine.open(build(tmp_path / "index", 300)) as opened:
        ranker: Any = SureRanker(probability, calibration)
        (found,) = SearchEngine(opened.collection, SearchSettings(), None, ranker).run([query])
        assert found.nothing_close is not is_close


def test_floors_are_measured_anew_when_documents_have_doubled(tmp_path: Path) -> None:
    assert read_manifest(build(tmp_path / "words", 100)).floors is None  # vectors alone have floors
    write_tower(tmp_path / "tower")
    folder = build(tmp_path / "index", 90, "--tower", tmp_path / "tower", "--device", "cpu")
    assert read_manifest(folder).floors is None and not is_said(folder, NONSENSE[0])  # too few documents to tell
    with Index(folder) as opened:
        for count, measured in ((190, 190), (300, 190), (380, 380)):
            opened.add(rows(count))
            floors = read_manifest(folder).floors
            assert floors is not None and floors.documents == measured


class ScoringSnapshot:
    """A collection in which queries of words of a single document have a score of their own."""

    def __init__(self, texts: Sequence[str], related: float):
        vectors = SimpleNamespace(tower="tower", reads_texts=True)
        schema = SimpleNamespace(model_text=lambda document: document)
        self.info = SimpleNamespace(count=len(texts), vector_fields={"vectors": vectors}, schema=schema, floors=None)
        self._texts, self._related = texts, related

    def sample(self, count: int, seed: int) -> list[tuple[str, None]]:
        return [(text, None) for text in self._texts]

    def tower(self, name: str) -> Any:
        return SimpleNamespace(query_vectors=lambda queries: np.array(queries, object))

    def search(self, name: str, queries: Any, top_k: int) -> list[Any]:
        words = [{*text.split()} for text in self._texts]
        known = [any({*query.split()} <= of_text for of_text in words) for query in queries]
        each = [self._related if is_known else len(query) % 10 / 20 for query, is_known in zip(queries, known)]
        return [SimpleNamespace(scores=[score]) for score in each]


@pytest.mark.parametrize(("related", "tells"), [(0.9, True), (0.3, False)])
def test_a_searcher_that_cannot_tell_says_nothing_for_itself(related: float, tells: bool) -> None:
    """The best scores of queries of random characters are up to 0.45."""
    snapshot: Any = ScoringSnapshot([row["text"] for row in rows(200)], related)
    floors = measure_floors(snapshot)
    assert 0.35 <= floors.scores["vectors"] <= 0.45 and ("vectors" in floors.telling) is tells
    assert is_nothing_close({"vectors": 0.0}, floors, by_words=False) is tells
    assert is_nothing_close({"vectors": 0.34}, floors, by_words=True)
    assert is_nothing_close({}, floors, by_words=True)
    assert is_nothing_close({"vectors": 0.46}, floors, by_words=True, found_by_words=True) is not tells
    for other in ({"vectors": 0.46}, {"vectors": 0.0, "pictures": 0.0}):
        assert not is_nothing_close(other, floors, by_words=True)
    assert not is_nothing_close({"vectors": 0.0, "pictures": 0.0}, floors, by_words=True, found_by_words=True)


@pytest.mark.parametrize("text", ["一二三四五六七八九十甲乙丙丁", "one two three four five six seven", ""])
def test_a_query_about_a_document_has_its_pieces_alone(text: str) -> None:
    queries = queries_about([text, "other words 别的"][: 2 if text else 1], 40, 1)
    assert len(queries) == 40 and (not text or {3, 7} <= {len(query.split()) for query in queries} <= {3, 4, 5, 6, 7})
    assert all(len({piece in text for piece in query.split()}) <= 1 for query in queries)


def test_random_queries_are_of_letters_and_of_ideographs() -> None:
    queries = random_queries(40, 1)
    assert {re.fullmatch("[a-z]{3,8}( [a-z]{3,8}){,3}|[一-龥]{3,8}", query) is not None for query in queries} == {True}
    assert sum(query[0] > "z" for query in queries) == 20 and len({*queries}) == 40


def test_floors_of_shards_are_the_highest() -> None:
    own = Floors(100, {"vectors": 0.5, "title": 0.8}, ("vectors", "title"))
    other = Floors(200, {"vectors": 0.4}, ("vectors",))
    assert Floors.merged([own, other]) == Floors(200, {"vectors": 0.5}, ("vectors",))
    assert Floors.merged([own, Floors(200, {"vectors": 0.7}, ())]) == Floors(200, {"vectors": 0.7}, ())
    assert Floors.merged([own, None]) is None
