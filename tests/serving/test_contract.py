"""One search for all callers: Python, the commands `search`, `evaluate-recall` and `mine`, and the server.

All are called with their defaults over an index with fields, passages and equal documents: the same documents in the
same order, with the same scores, equal ones by id.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional

import numpy as np
import pytest

from cross_encoder import train_ce
from paddle_ranker.commands import evaluate_recall, judgments, mine, search
from paddle_ranker.data.rows.trec import read_run
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.index.towers import copy_tower
from paddle_ranker.retrieval.stages.results import Result
from paddle_ranker.retrieval.stages.search_engine import SearchEngine
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import IndexInfo, WordsInfo
from paddle_ranker.retrieval.stored.schema import Field, Schema
from paddle_ranker.retrieval.vectors.vector_settings import VectorsInfo
from paddle_ranker.serving.slots.ranker_slot import RankerSlot
from paddle_ranker.storage.untrusted import read_json
from paddle_ranker.stored_titles.document_states import copy_ranker
from tests.conftest import Call
from tests.serving.test_search import Site
from tests.stored_titles.test_title_states import split_ranker
from tests.tiny import write_encoder, write_ranker, write_tower

pytestmark = pytest.mark.parity
SCHEMA = Schema((Field("title", "text", 3.0, title=True), Field("year", "number")), passage_tokens=24)
WORDS = ["深度学习", "水稻病害", "老年人护理", "语言文化", "经济增长", "教育法律"]
QUERIES = {"q1": "水稻病害研究", "q2": "老年人的教育"}
TOP_K = 100


def text_of(number: int) -> str:
    draw = np.random.default_rng(number)
    return "".join(f"{''.join(draw.choice(WORDS, 2))}的研究{number}。" for _ in range(1 + number % 6))


# Every third document has the text and the title of another one.
DOCUMENTS = [
    Document(f"d{n * 37 % 180:03}", text_of(n % 120), {"title": f"{WORDS[n % 6]}{n % 120}", "year": 2000 + n % 9})
    for n in range(180)
]


def write_index(base: Path, ranker: Optional[Path] = None) -> Path:
    """Write an index; one with the states of a split ranker has no passages."""
    copied = copy_tower(write_tower(base / "tower"), base / "index")
    states = None if ranker is None else copy_ranker(ranker, base / "index", "float16")
    schema = SCHEMA if ranker is None else replace(SCHEMA, passage_tokens=0)
    info = IndexInfo(WordsInfo("standard"), VectorsInfo("exact", copied.size), copied.copy, schema=schema)
    with Collection.create(base / "index", replace(info, states=states)) as collection:
        collection.writer.add(DOCUMENTS[:50])
        collection.writer.add(DOCUMENTS[50:], merge=False)
    return base / "index"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_index(tmp_path_factory.mktemp("contract"))


@pytest.fixture(scope="module", params=["fused", "ranked", "ranked by states"])
def ranker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Optional[Path]:
    folder = tmp_path_factory.mktemp("ranker") / "ranker"
    if request.param == "ranked by states":
        return split_ranker(folder)
    return write_ranker(folder) if request.param == "ranked" else None


@pytest.fixture(scope="module")
def index(plain: Path, ranker: Optional[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    is_split = ranker is not None and read_json(ranker / "ranker.json")["stored_titles"]
    return write_index(tmp_path_factory.mktemp("states"), ranker) if is_split else plain


def found(index: Path, ranker: Optional[Path]) -> dict[str, list[Result]]:
    """Return what `SearchEngine.search` finds for each query."""
    with SearchEngine.open(index, ranker=ranker) as engine:
        return {id: engine.search(query, TOP_K) for id, query in QUERIES.items()}


@pytest.fixture(scope="module")
def wanted(index: Path, ranker: Optional[Path]) -> dict[str, list[Result]]:
    """Return what all callers must find, after checks of its order."""
    wanted, ties = found(index, ranker), 0
    for results in wanted.values():
        assert [one.logit is not None for one in results] == [ranker is not None] * 50 + [False] * (len(results) - 50)
        for part in (results[:50], results[50:]) if ranker is not None else (results,):
            keys = [(-(one.score if one.logit is None else one.logit), one.id) for one in part]
            assert keys == sorted(keys)
            ties += sum(a[0] == b[0] for a, b in zip(keys, keys[1:]))
    assert ties > 5
    return wanted


def close(value: Optional[float]) -> Any:
    return None if value is None else pytest.approx(value, abs=1e-5)


def test_python_has_one_search(index: Path, wanted: dict[str, list[Result]], ranker: Optional[Path]) -> None:
    with SearchEngine.open(index, ranker=ranker) as engine:
        assert [one.id for one in engine.search(QUERIES["q1"])] == [one.id for one in wanted["q1"][:10]]


# Each query is searched by itself: beside others its vector may differ in the last digit, and so may near-ties.
@pytest.mark.parametrize("id", QUERIES)
def test_the_command_search(
    index: Path, ranker: Optional[Path], wanted: dict[str, list[Result]], id: str, call: Call
) -> None:
    more = [] if ranker is None else ["--ranker", ranker]
    status, out, err = call(search.main, "--index", index, QUERIES[id], "--format", "json", *more)
    assert status == 0, err
    (row,) = map(json.loads, out.splitlines())
    assert [one["id"] for one in row["results"]] == [one.id for one in wanted[id]]
    assert [(one["score"], one.get("logit")) for one in row["results"]] == [
        (close(one.score), close(one.logit)) for one in wanted[id]
    ]


@pytest.mark.parametrize("id", QUERIES)
def test_evaluate_recall(
    index: Path, ranker: Optional[Path], wanted: dict[str, list[Result]], id: str, tmp_path: Path, call: Call
) -> None:
    (tmp_path / "queries.tsv").write_text(f"{id}\t{QUERIES[id]}\n", encoding="utf-8")
    (tmp_path / "qrels.txt").write_text(f"{id} 0 d000 1\n", encoding="utf-8")
    asked = ["--queries", tmp_path / "queries.tsv", "--qrels", tmp_path / "qrels.txt", "--baselines", "false"]
    more = [] if ranker is None else ["--ranker", ranker]
    status, _, err = call(
        evaluate_recall.main, "--index", index, *asked, *more, "--runs_folder", tmp_path / "runs", "--resamples", "100"
    )
    assert status == 0, err
    (path,) = (tmp_path / "runs").glob("*ranker.trec" if ranker is not None else "hybrid.trec")
    run = read_run(str(path)).run[id]
    assert sorted(run, key=lambda one: (-run[one], one)) == [one.id for one in wanted[id]]
    if ranker is None:
        assert run == {one.id: close(one.score) for one in wanted[id]}


def test_the_server(index: Path, ranker: Optional[Path], wanted: dict[str, list[Result]]) -> None:
    site = Site(index=index, **({} if ranker is None else {"model": ranker}))
    try:
        by_states = {"used": True} if "states" in str(index) else None
        assert site.ask("GET", "/v1/index").json().get("states") == by_states
        for id, query in QUERIES.items():
            answer = site.search(query, top_k=TOP_K)
            assert [hit["id"] for hit in site.search(query)["hits"]] == [one.id for one in wanted[id][:10]]
            assert [hit["id"] for hit in answer["hits"]] == [one.id for one in wanted[id]]
            for hit, one in zip(answer["hits"], wanted[id]):
                stages = hit["stages"]
                assert (hit["text"], hit["fields"], hit["title"]) == (one.text, one.fields, one.title)
                assert (stages["fused"]["score"], hit.get("logit")) == (close(one.score), close(one.logit))
                assert (hit.get("probability"), "ranked" in stages) == (close(one.probability), one.logit is not None)
                assert {name: (stages[name]["rank"], stages[name]["score"]) for name in one.searchers} == {
                    name: (said.rank, close(said.score)) for name, said in one.searchers.items()
                }
                if one.logit is not None:
                    assert hit["read"] == dict(zip(("start", "end"), one.passage))
    finally:
        site.close()


@pytest.mark.parametrize("id", QUERIES)
def test_mine(plain: Path, id: str, tmp_path: Path, call: Call) -> None:
    results = found(plain, None)[id]  # a ranker of mine judges candidates
    (tmp_path / "judged.tsv").write_text(f"{QUERIES[id]}\t{results[0].text}\t1\n", encoding="utf-8")
    status, _, err = call(
        mine.main, "--queries", tmp_path / "judged.tsv", "--index", plain, "--output", tmp_path / "mined.tsv",
        "--sample", "top", "--rank_to", "50", "--negatives", "50",
    )  # fmt: skip
    assert status == 0, err
    _, *lines = (tmp_path / "mined.tsv").read_text(encoding="utf-8").splitlines()
    mined = [line.split("\t")[2].split()[0] for line in lines]
    titles = dict.fromkeys(str(one.title) for one in results if one.title != results[0].title)
    others = [one for one in mined if one != results[0].title]
    assert others == [*titles][: len(others)] and len(others) > 25


def test_vectors_are_searched_by_the_corrected_query_and_words_alone_while_typing(plain: Path) -> None:
    site = Site(index=plain)

    def found(query: str, **asked: Any) -> list[str]:
        return [hit["id"] for hit in site.search(query, top_k=TOP_K, **asked)["hits"]]

    try:
        answer = site.search("水稻病孩", by=["vectors"])
        assert [(one["from"], one["to"]) for one in answer["corrected"]] == [("病孩", ["病害"])]
        assert found("水稻病孩", by=["vectors"]) == found("水稻病害", by=["vectors"])
        assert found("水稻病孩", by=["vectors"]) != found("水稻病孩", by=["vectors"], literal=True)
        assert found("水稻", prefix=True) == found("水稻", prefix=True, by=["words"]) != found("水稻")
    finally:
        site.close()


def test_training_rows_are_the_pairs_that_the_ranker_read(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Titles, passages, template, fields and corrections: all as a search gave them to the ranker."""
    schema = replace(SCHEMA, template="{title} ({year}): {text}")
    tower, encoder = (
        copy_tower(write_tower(tmp_path / "tower"), tmp_path / "index"),
        write_encoder(tmp_path / "encoder"),
    )
    info = IndexInfo(WordsInfo("standard"), VectorsInfo("exact", tower.size), tower.copy, schema=schema)
    long = "".join(f"{word}的历史。" for word in WORDS * 20)
    with Collection.create(tmp_path / "index", info) as collection:
        others = [Document(f"k{n}", f"Kubernetes {n} {text_of(n)}", {"title": f"cluster {n}"}) for n in range(9)]
        collection.writer.add([*DOCUMENTS[:60], *others, Document("long", long, {"title": "全史", "year": 1999})])
    read = list[tuple[str, str]]()
    score_pairs = RankerSlot.score_pairs

    def noted(slot: RankerSlot, queries: Any, titles: Any, **more: Any) -> Any:
        read.extend(zip(queries, titles))
        return score_pairs(slot, queries, titles, **more)

    monkeypatch.setattr(RankerSlot, "score_pairs", noted)
    ranker, log = write_ranker(tmp_path / "ranker"), tmp_path / "log"
    site, shown = Site(index=tmp_path / "index", model=ranker, search_log=log), Counter[str]()
    try:
        for query in ("水稻病害研究", "kuberentes", "全史"):
            answer = site.search(query, top_k=50)
            shown[query] = len(answer["hits"])
            for hit in answer["hits"][:2]:
                said = {"search_id": answer["search_id"], "query": query, "id": hit["id"], "event": "click"}
                assert site.ask("POST", "/v1/feedback", said).status_code == 200
    finally:
        site.close()
    out = tmp_path / "judgments"
    status, _, err = call(
        judgments.main, "--log", log, "--index", tmp_path / "index", "--output", out, "--dev_share", 0.5
    )
    assert status == 0, err
    texts = [(out / f"{name}.jsonl").read_text(encoding="utf-8") for name in ("train", "dev")]
    rows = [json.loads(line) for text in texts for line in text.splitlines()]
    assert len(rows) == sum(shown.values()) > 100
    assert {(row["query"], row["title"]) for row in rows} == set(read)
    assert any(query == "kubernetes" for query, _ in read) and any(
        title.startswith("全史 (1999): ") for _, title in read
    )
    assert all(texts) and all(len(title) < len(long) / 4 for _, title in read)
    status, _, err = call(
        train_ce.main, "--train", out / "train.jsonl", "--test", out / "dev.jsonl", "--model", encoder,
        "--output", tmp_path / "again", "--fractional_labels", "true", "--loss", "click_softmax", "--epochs", 1,
        "--device", "cpu",
    )  # fmt: skip
    assert status == 0, err
    with SearchEngine.open(tmp_path / "index", ranker=tmp_path / "again" / "last") as engine:
        assert engine.search("kuberentes")[0].logit is not None
