"""The command `search`: text, JSON and runs of the same results."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from paddle_ranker import Index
from paddle_ranker.commands import index, search
from paddle_ranker.data.rows.trec import read_run
from paddle_ranker.retrieval.stages.search_engine import SearchEngine
from tests.conftest import Call
from tests.tiny import write_ranker

pytestmark = pytest.mark.unit
ROWS = "id\ttext\tyear\na\t水稻病害诊断\t2020\nb\t水稻种植\t2021\nc\t深度学习\t2022\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search")
    (folder / "corpus.tsv").write_text(ROWS, encoding="utf-8")
    (folder / "queries.tsv").write_text("q7\t水稻\nq9\t学习水稻\n", encoding="utf-8")
    assert index.main(["build", "--corpus", str(folder / "corpus.tsv"), "--output", str(folder / "index")]) == 0
    return folder


def test_text_json_and_a_run_hold_the_same(folder: Path, tmp_path: Path, call: Call) -> None:
    wanted = {
        "q7": SearchEngine.open(folder / "index").search("水稻"),
        "q9": SearchEngine.open(folder / "index").search("学习水稻"),
    }
    files = ["--index", folder / "index", "--input", folder / "queries.tsv"]
    status, out, err = call(search.main, *files, "--output", tmp_path / "found.trec")
    assert status == 0 and "3 documents by words (BM25, " in err, err
    assert read_run(str(tmp_path / "found.trec")).run == {
        query: {one.id: one.score for one in results} for query, results in wanted.items()
    }
    call(search.main, *files, "--output", tmp_path / "found.trec.gz")
    assert gzip.decompress((tmp_path / "found.trec.gz").read_bytes()) == (tmp_path / "found.trec").read_bytes()
    call(search.main, *files, "--output", tmp_path / "found.jsonl", "--top_k", 1)
    call(search.main, *files, "--output", tmp_path / "found.jsonl.gz", "--top_k", 1)
    assert gzip.decompress((tmp_path / "found.jsonl.gz").read_bytes()) == (tmp_path / "found.jsonl").read_bytes()
    rows = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(row["id"], row["query"], [one["id"] for one in row["results"]]) for row in rows] == [
        ("q7", "水稻", [wanted["q7"][0].id]), ("q9", "学习水稻", [wanted["q9"][0].id])
    ]  # fmt: skip
    assert rows[0]["results"][0]["searchers"]["words"] == {"score": wanted["q7"][0].score, "rank": 1}
    status, out, _ = call(search.main, "学习水稻", "--index", folder / "index", "--explain", "--where", "year!=2021")
    first = wanted["q9"][0]
    assert status == 0 and out.splitlines()[:2] == [
        f"   1. {first.score:.4f}  {first.text}", f"      c: words {first.score:.4f}, rank 1; year=2022"
    ]  # fmt: skip
    assert "水稻种植" not in out


def test_several_folders_are_searched_as_one(folder: Path, tmp_path: Path, call: Call) -> None:
    rows, made = ROWS.splitlines(keepends=True), list[object]()
    for name, own in (("left", rows[:2]), ("right", [rows[0], *rows[2:]])):
        (tmp_path / f"{name}.tsv").write_text("".join(own), encoding="utf-8")
        build = ["build", "--corpus", tmp_path / f"{name}.tsv", "--output", tmp_path / name]
        assert call(index.main, *build, "--words", "standard")[0] == 0
        made += ["--index", tmp_path / name]
    status, out, err = call(search.main, "水稻种植", *made)
    assert status == 0 and f"{tmp_path / 'left'}, {tmp_path / 'right'}: 3 documents by words" in err, err
    assert out == call(search.main, "水稻种植", "--index", folder / "index")[1]


def test_queries_between_commas_are_read_with_the_separator(folder: Path, tmp_path: Path, call: Call) -> None:
    (tmp_path / "queries.csv").write_text('id,text\nq7,"水稻, ""种植"""\n', encoding="utf-8")
    ask = ["--index", folder / "index", "--input", tmp_path / "queries.csv", "--separator", ",", "--format", "json"]
    status, out, err = call(search.main, *ask)
    assert status == 0, err
    assert [(row["id"], row["query"]) for row in map(json.loads, out.splitlines())] == [("q7", '水稻, "种植"')]


def test_a_ranker_orders_and_its_run_keeps_that_order(folder: Path, tmp_path: Path, call: Call) -> None:
    write_ranker(tmp_path / "ranker", seed=3)
    ask = ["水稻种植学习", "--index", folder / "index", "--ranker", tmp_path / "ranker", "--device", "cpu"]
    status, out, err = call(search.main, *ask, "--format", "json", "--rank_top", 2)
    assert status == 0 and "the ranker orders the first 2" in err, err
    results = json.loads(out)["results"]
    probabilities = [one.get("probability") for one in results]
    assert probabilities[0] >= probabilities[1] and probabilities[2] is None
    _, out, _ = call(search.main, *ask, "--format", "trec", "--rank_top", 2)
    assert [line.split()[2:5] for line in out.splitlines()] == [
        [one["id"], str(rank), str(-float(rank))] for rank, one in enumerate(results, start=1)
    ]


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (["水稻", "--sort", "year"], ["a", "b"]),
        (["水稻", "--sort=-year"], ["b", "a"]),
        (["水稻", "--sort", "-year"], ["b", "a"]),
        (["", "--sort", "-year", "--top_k", "2"], ["c", "b"]),
        (["水稻", "--sort", "yeer"], "'-year' for the highest first"),
        (["水稻", "--sort", "year", "--fusion", "rrf"], "--fusion"),
        (["水稻", "--sort", "year", "--explain"], "--explain"),
        (["水稻", "--sort", "year", "--format", "trec"], "has scores"),
    ],
)
def test_fields_order_what_matches(given: list[str], found: object, folder: Path, call: Call) -> None:
    status, out, err = call(search.main, "--index", folder / "index", "--format", "json", *given)
    if isinstance(found, str):
        assert status == 2 and found in err, err
    else:
        assert status == 0 and [one["id"] for one in json.loads(out)["results"]] == found, err


@pytest.mark.parametrize(
    ("conditions", "said", "ids"),
    [
        (["year>=2020 AND year!=2021"], "2 of 3 documents meet it", ["a"]),
        (["year>=2020", "year!=2021"], "2 of 3 documents meet it", ["a"]),
        (["year > 2024"], "0 of 3 documents meet it", []),
    ],
)
def test_how_many_documents_meet_a_filter_is_said(
    folder: Path, call: Call, conditions: list[str], said: str, ids: list[str]
) -> None:
    where = [word for condition in conditions for word in ("--where", condition)]
    status, out, err = call(search.main, "水稻", "--index", folder / "index", *where, "--format", "json")
    assert status == 0 and said in err, err
    assert [one["id"] for one in json.loads(out)["results"]] == ids


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("brand=acme", "0 of 2 documents meet it; brand = acme (did you mean Acme?)\n"),
        ("brand in (Glbex, x) and price>1", "0 of 2 documents meet it; brand = Glbex (did you mean Globex?)\n"),
        ("brand=Acme and price=7", "0 of 2 documents meet it\n"),
        ("price=11", "0 of 2 documents meet it\n"),
    ],
)
def test_a_value_that_no_document_has_is_corrected(where: str, said: str, tmp_path: Path, call: Call) -> None:
    rows = [{"text": "mouse", "brand": "Acme", "price": 1}, {"text": "mouse", "brand": "Globex", "price": 2}]
    Index.build(rows, tmp_path / "index").close()
    status, _, err = call(search.main, "mouse", "--index", tmp_path / "index", "--where", where)
    assert status == 0 and said in err
