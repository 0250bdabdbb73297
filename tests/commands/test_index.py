"""`paddle-ranker index`: files of every shape to an index and back, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from paddle_ranker.commands.index import main
from paddle_ranker.retrieval.collection import Collection
from paddle_ranker.retrieval.filters import Filter
from paddle_ranker.retrieval.manifest import IndexInfo, TowerCopy, VectorsInfo, WordsInfo

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def _there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def said(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    assert main(list(arguments)) == status
    shown = capsys.readouterr()
    return shown.err if status else shown.out


def test_a_second_run_takes_what_is_new(capsys: pytest.CaptureFixture[str]) -> None:
    Path("texts.txt").write_text("水稻病害\n护理\n水稻病害\n", encoding="utf-8")
    assert "2 new, 0 replaced, 0 as they were, 1 repeat a text" in said(
        capsys, "build", "--corpus", "texts.txt", "--output", "index", "--words", "bigram"
    )
    Path("texts.txt").write_text("水稻病害\n护理\n老年人\n", encoding="utf-8")
    assert "1 new, 0 replaced, 2 as they were" in said(
        capsys, "build", "--corpus", "texts.txt", "--output", "index", "--words", "bigram"
    )
    rows = [{"id": "2", "text": "护理学", "year": 2021}, {"id": "x", "title": "Iris versicolor", "tags": ["a"]}]
    Path("more.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert "1 new, 1 replaced, 0 as they were" in said(capsys, "add", "index", "--corpus", "more.jsonl")
    assert "removed 1 of 4 documents" in said(capsys, "remove", "index", "1")
    assert "has no documents 1, 7; nothing was removed" in said(capsys, "remove", "index", "1", "7", "x", status=1)
    with Collection.open("index") as collection:
        assert [one.id for one in collection.documents()] == ["3", "2", "x"]
        assert collection.document("2").fields == {"year": 2021} and collection.document("2").version == 2
        assert collection.document("x").text == "Iris versicolor"
        assert collection.search("words", ["护理"], 5, Filter.parse(["year>2020"]))[0].ids == ["2"]
    assert "3 documents in 2 segments" in said(capsys, "info", "index")
    assert "whole; 3 documents" in said(capsys, "check", "index", "--sample", "3")


def test_columns_become_fields(capsys: pytest.CaptureFixture[str]) -> None:
    Path("table.tsv").write_text("id\ttext\tlang\tyear\na\t水稻\tzh\t2001\nb\trice\ten\t\n", encoding="utf-8")
    said(capsys, "build", "--corpus", "table.tsv", "--output", "index")
    collection = Collection.open("index")
    assert collection.document("a").fields == {"lang": "zh", "year": "2001"}
    assert collection.document("b").fields == {"lang": "en"}
    for where, ids in (
        ("year>=2001", ["a"]),
        ("lang!=zh", ["b"]),
        ("lang in zh,en", ["a", "b"]),
        ("year!=1", ["a", "b"]),
    ):
        assert [one.id for one in collection.documents() if Filter.parse([where]).matches(one.fields)] == ids


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ('{"id": "b", "text": "a\\ud800"}', "line 2: the text holds a NUL or half of a surrogate pair"),
        ('{"id": "b", "text": "a\\u0000"}', "line 2: the text holds a NUL"),
        ('{"id": "b", "text": " "}', "line 2: the text is empty"),
        ('{"id": "b", "text": 7}', "line 2: text is a int, expected text"),
        ('{"id": "b"}', "line 2: no text"),
        ('{"id": "b", "text": "x"', "line 2: not JSON"),
        ('{"id": "a", "text": "x"}', "document 'a': there are two of this id"),
        ('{"id": "b", "text": "x", "price": NaN}', "document 'b': its fields cannot be stored"),
    ],
)
def test_a_bad_row_is_named_and_nothing_is_added(row: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("rows.jsonl").write_text(f'{{"id": "a", "text": "good"}}\n{row}\n', encoding="utf-8")
    line = ["build", "--corpus", "rows.jsonl", "--output", "index", "--words", "mixed"]
    assert says in said(capsys, *line, status=1)
    assert len(Collection.open("index")) == 0
    if "line 2" in says:
        assert "kept 1; skipped 1 (line 2" in said(capsys, *line, "--skip_bad_rows")
        assert [one.id for one in Collection.open("index").documents()] == ["a"]


def test_what_does_not_fit_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("texts.txt").write_text("水稻病害\n", encoding="utf-8")
    Path("other").mkdir()
    assert "choose from build, add" in said(capsys, "bild", status=2)
    assert "add --tower" in said(capsys, "build", "--corpus", "texts.txt", "--output", "i", "--words", "none", status=2)
    assert "is no index" in said(capsys, "add", "other", "--corpus", "texts.txt", status=1)
    Collection.create(
        "of_a_tower", IndexInfo(None, VectorsInfo("exact", 8), TowerCopy("tower", "0123456789abcdef"))
    ).close()
    shown = said(capsys, "add", "of_a_tower", "--corpus", "texts.txt", "--tower", "other", status=2)
    assert "was built with another tower (0123456789abcdef)" in shown
    Collection.create("of_words", IndexInfo(WordsInfo("jieba"), None)).close()
    shown = said(capsys, "build", "--corpus", "texts.txt", "--output", "of_words", "--words", "bigram", status=1)
    assert "was built otherwise" in shown
    shown = said(capsys, "build", "--corpus", "texts.txt", "--output", "n", "--searchers", "no_such", status=2)
    assert "no_such: choose from bm25" in shown
