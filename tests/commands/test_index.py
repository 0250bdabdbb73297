"""`paddle-ranker index`: files of every shape to an index and back, and what is refused."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from paddle_ranker.__main__ import main as command
from paddle_ranker.array_types import Vectors
from paddle_ranker.commands.index import main
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.snapshots.snapshot import LocalSnapshot
from paddle_ranker.retrieval.stored.candidate_indexes import Document, Hits
from paddle_ranker.retrieval.stored.manifest import IndexInfo, TowerCopy, WordsInfo
from paddle_ranker.retrieval.values.filters import Filter
from paddle_ranker.retrieval.vectors.text_vectors import Tower
from paddle_ranker.retrieval.vectors.vector_settings import VectorsInfo
from tests.data.test_documents import write_book
from tests.tiny import write_index, write_tower

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def _there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def said(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    assert main(list(arguments)) == status
    shown = capsys.readouterr()
    return shown.err if status else shown.out


def test_a_command_waits_for_who_writes_a_moment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("texts.txt").write_text("水稻病害\n护理\n", encoding="utf-8")
    said(capsys, "build", "--corpus", "texts.txt", "--output", "index", "--words", "bigram")
    with Collection.open("index", write=True) as writing:
        clock = SimpleNamespace(monotonic=time.monotonic, sleep=lambda _: writing.close())
        monkeypatch.setattr("paddle_ranker.retrieval.index.index_folder.time", clock)
        assert "removed 1 of 2 documents" in said(capsys, "remove", "index", "1")


def test_a_second_run_takes_what_is_new(capsys: pytest.CaptureFixture[str]) -> None:
    Path("texts.txt").write_text("水稻病害\n护理\n水稻病害\n", encoding="utf-8")
    assert "2 new, 0 replaced, 0 as they were, 1 repeat a document" in said(
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
        assert [one.id for one in collection.snapshot().documents()] == ["3", "2", "x"]
        document = collection.snapshot().document("2")
        assert document.fields == {"year": 2021} and document.version == 2
        assert collection.snapshot().document("x").text == "Iris versicolor"
        assert collection.snapshot().search("words", ["护理"], 5, Filter.parse(["year>2020"]))[0].ids == ["2"]
    assert "3 documents in 2 segments" in said(capsys, "info", "index")
    assert "whole; 3 documents" in said(capsys, "check", "index", "--sample", "3")


def test_what_a_corpus_has_no_more_is_said_and_removed_if_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    build = ("build", "--corpus", "texts.txt", "--output", "index", "--words", "bigram")
    Path("texts.txt").write_text("水稻病害\n护理\n老年人\n", encoding="utf-8")
    assert "no more" not in said(capsys, *build)
    Path("texts.txt").write_text("护理\n教育\n", encoding="utf-8")
    assert "texts.txt: 2 documents in the index and not in it; --sync removes them" in said(capsys, *build)
    assert "texts.txt: 2 documents removed" in said(capsys, *build, "--sync")
    assert [one.text for one in Collection.open("index").snapshot().documents()] == ["护理", "教育"]
    assert "leave one of both out" in said(capsys, *build, "--sync", "--skip_bad_rows", status=2)


def test_equal_vectors_are_found_whichever_comes_first(capsys: pytest.CaptureFixture[str]) -> None:
    def vectors_of(texts: Sequence[str]) -> Vectors:
        return np.repeat(np.array([[0.6, 0.8]], np.float32), len(texts), axis=0)

    with Collection.create("index", IndexInfo(None, VectorsInfo("exact", 2))) as collection:
        collection.writer.add([Document(str(number), f"text {number}") for number in range(30)], vectors_of)
    found = LocalSnapshot.search_exactly

    def backwards(self: LocalSnapshot, vectors: Vectors, top_k: int, where: object) -> list[Hits]:
        return [Hits(hits.ids[:-11:-1], hits.scores[:10]) for hits in found(self, vectors, 30)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalSnapshot, "search_exactly", backwards)
        assert "recall@10 against exact search 1.0000" in said(capsys, "check", "index")


def test_columns_become_fields(capsys: pytest.CaptureFixture[str]) -> None:
    Path("table.tsv").write_text("id\ttext\tlang\tyear\na\t水稻\tzh\t2001\nb\trice\ten\t\n", encoding="utf-8")
    said(capsys, "build", "--corpus", "table.tsv", "--output", "index")
    collection = Collection.open("index")
    assert collection.snapshot().document("a").fields == {"lang": "zh", "year": 2001}
    assert collection.snapshot().document("b").fields == {"lang": "en"}
    for where, ids in (
        ("year>=2001", ["a"]),
        ("lang!=zh", ["b"]),
        ("lang in zh,en", ["a", "b"]),
        ("year!=1", ["a", "b"]),
    ):
        (allowed,) = collection.snapshot().generation.allowed(Filter.parse([where])) or []
        assert [one.id for one, is_allowed in zip(collection.snapshot().documents(), allowed) if is_allowed] == ids


def test_a_table_as_pandas_writes_it_is_of_numbers_dates_and_truth_values(capsys: pytest.CaptureFixture[str]) -> None:
    Path("table.csv").write_text(
        "id,text,year,price,posted,active,zip\na,rice,2020.0,0.50,2024-03-02 00:00:00,True,01234\n"
        "b,rice,NaN,5,2024-03-02,False,20095\nc,rice,2020,N/A,2024-03-05 10:00:00+05:30,TRUE,10115\n"
    )
    Path("table.jsonl").write_text('{"id": "d", "text": "rice", "year": NaN, "price": "5.0"}\n')
    assert main(["build", "--corpus", "table.csv", "--separator", ",", "--output", "index"]) == 0
    printed = capsys.readouterr()
    for field in ("year:number", "price:number", "posted:date", "active:boolean", "zip:keyword"):
        assert field in printed.out
    for missing in ("year: 1 of 3 values stands for none (NaN)", "price: 1 of 3 values stands for none (N/A)"):
        assert missing in printed.out + printed.err
    assert main(["add", "index", "--corpus", "table.jsonl"]) == 0
    collection = Collection.open("index")
    for where, ids in (
        ("year=2020", ["a", "c"]), ("year=null", ["b", "d"]), ("price=0.5", ["a"]), ("price=5", ["b", "d"]),
        ("posted=2024-03-02", ["a", "b"]), ("posted=2024-03", ["a", "b", "c"]), ("posted!=2024-03", ["d"]),
        ("posted=2024-03-05T04:30Z", ["c"]), ("active=true", ["a", "c"]), ("zip=01234", ["a"]), ("zip=1234", []),
    ):  # fmt: skip
        (hits,) = collection.snapshot().search("words", ["rice"], 9, Filter.parse([where]))
        assert sorted(hits.ids) == ids, where


@pytest.mark.parametrize(
    ("table", "documents"),
    [
        ("text\tlang\n水稻\tzh\n", {"1": ("水稻", {"lang": "zh"})}),
        ("title\tpublication date\n水稻\t2001\n", {"1": ("水稻", {"publication date": 2001})}),
        ("url\ttitle\tlang\nu\t水稻\tzh\n", {"1": ("水稻", {"url": "u", "lang": "zh"})}),
        ("id\t文本\t标签\t查询\na\t水稻\t农业\tq\n", {"a": ("水稻", {"标签": "农业", "查询": "q"})}),
        ('{"id": "a", "标题": "水稻", "标签": ["农业"]}\n', {"a": ("水稻", {"标签": ["农业"]})}),
        ("textbook\tlang\n水稻\tzh\n", {"1": ("水稻", {"lang": "zh"})}),
    ],
)
def test_a_header_may_name_a_text_and_columns_of_the_user_s_own(
    table: str, documents: object, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("table.tsv").write_text(table, encoding="utf-8")
    said(capsys, "build", "--corpus", "table.tsv", "--output", "index")
    assert {one.id: (one.text, one.fields) for one in Collection.open("index").snapshot().documents()} == documents


def test_rows_with_and_without_an_id_are_the_same_documents_in_a_second_run(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"text": "护理"}, {"id": "a", "text": "水稻"}, {"text": "水稻"}, {"id": "1", "text": "教育"}]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    build = ("build", "--corpus", "rows.jsonl", "--output", "index", "--words", "bigram")
    assert "3 new, 0 replaced, 0 as they were, 1 repeat a document" in said(capsys, *build)
    assert "0 new, 0 replaced, 3 as they were, 1 repeat a document" in said(capsys, *build)
    found = {one.id: one.text for one in Collection.open("index").snapshot().documents()}
    assert found == {"2": "护理", "a": "水稻", "1": "教育"}


def test_texts_without_ids_get_the_next_free_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["水稻", "护理", "教育", "法律"]
    for count in (2, 3, 4):  # each time one that is new
        Path("texts.txt").write_text("\n".join(texts[:count]) + "\n", encoding="utf-8")
        said(capsys, "build", "--corpus", "texts.txt", "--output", "index")
    assert {one.text: one.id for one in Collection.open("index").snapshot().documents()} == dict(zip(texts, "1234"))
    # a document that its own row changes is not the one of its old text
    Path("rows.jsonl").write_text('{"text": "水稻"}\n{"id": "1", "text": "水稻病害"}\n', encoding="utf-8")
    assert "1 new, 1 replaced" in said(capsys, "add", "index", "--corpus", "rows.jsonl")
    found = {one.id: one.text for one in Collection.open("index").snapshot().documents()}
    assert (found["1"], found["5"]) == ("水稻病害", "水稻")


def test_documents_without_ids_that_differ_in_a_field_are_two(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"text": "水稻", "year": 2020}, {"text": "水稻", "year": 2021}, {"text": "水稻"}, {"text": "水稻"}]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for report in ("3 new, 0 replaced, 0 as they were, 1 repeat", "0 new, 0 replaced, 3 as they were, 1 repeat"):
        assert report in said(capsys, "build", "--corpus", "rows.jsonl", "--output", "index")


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ('{"id": "b", "text": "a\\ud800"}', "line 2: the text holds a NUL or half of a surrogate pair"),
        ('{"id": "b", "text": "a\\u0000"}', "line 2: the text holds a NUL"),
        ('{"text": " "}', "line 2: the text is empty"),
        ('{"id": "b", "text": {"de": 7}}', "line 2: text is a dict, expected text"),
        ('{"text": null}', "line 2: no text"),
        ('{"id": "b", "text": "x"', "line 2: not JSON"),
        ('{"id": "a", "text": "x"}', "document 'a': there are two of this id (rows.jsonl, line 1; rows.jsonl, line 2)"),
        ('{"id": "b", "text": "x", "price": Infinity}', "line 2: a field holds an infinite number"),
    ],
)
def test_a_bad_row_is_named_and_nothing_is_added(row: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("rows.jsonl").write_text(f'{{"id": "a", "text": "good"}}\n{row}\n', encoding="utf-8")
    line = ["build", "--corpus", "rows.jsonl", "--output", "index", "--words", "bigram"]
    assert says in said(capsys, *line, status=1)
    assert not Path("index").exists() or not len(Collection.open("index"))
    if says.startswith("line 2"):
        assert "kept 1; skipped 1 (line 2" in said(capsys, *line, "--skip_bad_rows")
        assert [one.id for one in Collection.open("index").snapshot().documents()] == ["a"]


def test_an_index_is_no_corpus(capsys: pytest.CaptureFixture[str]) -> None:
    Path("texts.txt").write_text("one\ntwo\n", encoding="utf-8")
    said(capsys, "build", "--corpus", "texts.txt", "--output", "index")
    line = ["build", "--corpus", "index", "--output", "other"]
    assert "index: an index, expected documents" in said(capsys, *line, status=1)


def test_more_fields_than_an_index_has_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    Path("wide.csv").write_text(f"text,{','.join(map('c{}'.format, range(1200)))}\na text{',v' * 1200}\n")
    line = ["build", "--corpus", "wide.csv", "--output", "index"]
    assert "wide.csv: has 1,200 fields, above the limit of 1,000; leave columns out" in said(capsys, *line, status=1)


def test_a_build_that_added_nothing_binds_the_next_one_to_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    Path("rows.jsonl").write_text('{"id": "a", "text": "水稻"}\n{}\n', encoding="utf-8")
    build = ("build", "--corpus", "rows.jsonl", "--output", "index")
    assert "line 2: no text" in said(capsys, *build, "--words", "bigram", status=1)
    assert "1 documents" in said(capsys, *build, "--words", "jieba", "--searchers", "random", "--skip_bad_rows")
    assert "was built otherwise" in said(capsys, *build, "--words", "bigram", "--skip_bad_rows", status=1)
    assert Collection.open("index").info.searchers == ("words", "random")


def test_many_texts_on_a_cpu_are_better_encoded_by_an_exported_tower(capsys: pytest.CaptureFixture[str]) -> None:
    write_tower(Path("tower"))
    export = "paddle-ranker export --model tower --output exported --onnx"
    for count, is_said in ((499, False), (500, True)):
        Path("texts.txt").write_text("".join(f"水稻 {n}\n" for n in range(count)), encoding="utf-8")
        build = ["build", "--corpus", "texts.txt", "--output", f"index{count}", "--tower", "tower", "--device", "cpu"]
        assert main(build) == 0
        assert capsys.readouterr().err.count(export) == is_said
        assert main(build) == 0 and export not in capsys.readouterr().err  # the tower is in the index
    assert command(export.split()[1:-1]) == 0
    assert main([*build[:4], "index", "--tower", "exported", "--device", "cpu"]) == 0
    assert "export --model" not in capsys.readouterr().err


def test_passages_and_their_overlap_are_those_that_were_built(capsys: pytest.CaptureFixture[str]) -> None:
    Path("rows.jsonl").write_text(json.dumps({"id": "a", "title": "水", "text": "水稻病害。" * 20}), encoding="utf-8")
    write_tower(Path("tower"))
    build = ("build", "--corpus", "rows.jsonl", "--output", "index", "--tower", "tower", "--passage_tokens", "20")
    assert "is above half of" in said(capsys, *build, "--passage_overlap", "11", status=2)
    said(capsys, *build, "--passage_overlap", "5", "--device", "cpu")
    assert "passages: of at most 20 tokens, of which 5 repeated" in said(capsys, "info", "index")
    shown = said(capsys, *build, "--passage_overlap", "6", "--device", "cpu", status=1)
    assert "built otherwise, --passage_overlap 5, not 6" in shown
    (hits,) = Collection.open("index").snapshot().search("vectors", np.ones((1, 8), np.float32), 1)
    assert hits.passages is not None and hits.passages[0] is not None
    start, end = hits.passages[0]
    assert start % 15 == 0 and end == min(start + 20, 100)


def test_what_does_not_fit_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("texts.txt").write_text("水稻病害\n", encoding="utf-8")
    Path("other").mkdir()
    assert "choose from build, add" in said(capsys, "bild", status=2)
    assert "add --tower" in said(capsys, "build", "--corpus", "texts.txt", "--output", "i", "--words", "none", status=2)
    assert "is no index" in said(capsys, "add", "other", "--corpus", "texts.txt", status=1)
    of_a_tower = IndexInfo(None, VectorsInfo("exact", 8), TowerCopy("tower", "0123456789abcdef"), generation=1)
    Collection.create("of_a_tower", of_a_tower).close()
    shown = said(capsys, "add", "of_a_tower", "--corpus", "texts.txt", "--tower", "other", status=2)
    assert "was built with another tower (0123456789abcdef)" in shown
    assert "of_a_tower/tower: is missing" in said(capsys, "check", "of_a_tower", status=1)
    Collection.create("of_words", IndexInfo(WordsInfo("jieba"), None, generation=1)).close()
    shown = said(capsys, "build", "--corpus", "texts.txt", "--output", "of_words", "--words", "bigram", status=1)
    assert "was built otherwise" in shown
    assert "--ef 9: is about vectors" in said(capsys, "check", "of_words", "--ef", "9", status=2)
    for option, value in (("--searchers", "bm25"), ("--tower", "other")):
        shown = said(capsys, "build", "--corpus", "texts.txt", "--output", "of_words", option, value, status=1)
        assert "was built otherwise" in shown
    build = ("build", "--corpus", "texts.txt", "--output", "of_a_tower", "--tower", "other")
    for option, value in (("--method", "faiss"), ("--dtype", "int8")):
        assert f"{option} {'exact' if value == 'faiss' else 'float32'}, not {value}" in said(
            capsys, *build, option, value, status=1
        )
    assert "add --tower" in said(capsys, *build[:5], "--method", "faiss", status=2)
    assert "is about --method faiss" in said(capsys, *build, "--hnsw_m", "8", status=2)
    shown = said(capsys, "build", "--corpus", "texts.txt", "--output", "n", "--searchers", "no_such", status=2)
    assert "no_such: choose from bm25" in shown


def test_a_check_with_queries_computes_with_as_many_threads_as_are_given(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_index(tmp_path / "index", write_tower(tmp_path / "tower"), [Document("a", "水稻病害")])
    Path("queries.txt").write_text("水稻\n", encoding="utf-8")
    opened, open_tower = list[LoadOptions](), Tower.open

    def noted(source: Path, options: LoadOptions, **more: Any) -> Tower:
        opened.append(options)
        return open_tower(source, options, **more)

    monkeypatch.setattr(Tower, "open", noted)
    said(capsys, "check", "index", "--queries", "queries.txt", "--cpu_threads", "2", "--device", "cpu")
    assert [(options.threads, options.device) for options in opened] == [(2, "cpu")]


def test_an_empty_table_is_said_to_be_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.csv").touch()
    assert main(["build", "--corpus", str(tmp_path / "a.csv"), "--output", str(tmp_path / "index")]) == 1
    assert capsys.readouterr().err.endswith("a.csv: no documents; expected texts\n")
    (tmp_path / "a.csv").write_text("id,name,price\n", encoding="utf-8")
    cells = "".join(f'<c t="inlineStr"><is><t>{name}</t></is></c>' for name in ("id", "name", "price"))
    write_book(tmp_path / "a.xlsx", {"Sheet": f"<row>{cells}</row>"})
    for name in ("a.csv", "a.xlsx"):
        assert main(["build", "--corpus", str(tmp_path / name), "--output", str(tmp_path / "index")]) == 1
        assert capsys.readouterr().err.endswith(f"{name}: a header and no rows; expected rows below it\n")
    (tmp_path / "in").mkdir()
    for found, content in (("an empty folder", ""), ("a.jsonl: such files are not read (.jsonl); --corpus FILE", "{}")):
        if content:
            (tmp_path / "in" / "a.jsonl").write_text(content)
        assert main(["build", "--corpus", str(tmp_path / "in"), "--output", str(tmp_path / "index")]) == 1
        error = capsys.readouterr().err
        assert found in error and "expected files that are read: .avi, " in error and " .txt, " in error
