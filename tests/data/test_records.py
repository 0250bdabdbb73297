"""Records: every format and role is read right, and everything else is an error that says what was found where."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from paddle_ranker.data.rows.records import (
    LabeledPair,
    Pair,
    Record,
    RecordFile,
    Text,
    TitleRow,
    Triple,
    open_as_one_of,
    read_records,
    write_records,
)
from paddle_ranker.errors import DataError, UsageError
from paddle_ranker.evaluation.measuring_options import BaselineOptions
from paddle_ranker.options import LabelOptions, RowOptions
from paddle_ranker.options.input_files import SeveralFiles
from paddle_ranker.storage.digest import content_digest, warn_of_same_data
from paddle_ranker.training.mining import JUDGED_KINDS

pytestmark = pytest.mark.unit


GRADED = LabelOptions(fractional_labels=True)


def file(folder: Path, content: Any, name: str = "rows.tsv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


@pytest.mark.parametrize(
    "content, kind, expected",
    [
        ("query\ttitle\tneg_title\na\tb\tc\n", Triple, [Triple("a", "b", "c")]),
        ("a\tb\tc\nd\te\tf", Triple, [Triple("a", "b", "c"), Triple("d", "e", "f")]),
        ("neg_title\tquery\ttitle\nc\ta\tb\n", Triple, [Triple("a", "b", "c")]),
        ("a\tb\t2.0\r\nc\td\t0\r\n", LabeledPair, [LabeledPair("a", "b", 2.0), LabeledPair("c", "d", 0.0)]),
        ("\ufeffQuery\tTitle\tLabel\na\tb\t1\n", LabeledPair, [LabeledPair("a", "b", 1.0)]),
        ('{"查询": "a", "标题": "b", "标签": 1}\n', LabeledPair, [LabeledPair("a", "b", 1.0)]),
        (
            '{"Query": "a", "Title": "b", "LABEL": 1, "Teacher_Score": 2}',
            LabeledPair,
            [LabeledPair("a", "b", 1.0, 2.0)],
        ),
        ("文本\nx\n", Text, [Text("x")]),
        ("\ufeffa\tb\n", Pair, [Pair("a", "b")]),
        ("a\tb\n".encode("utf-16"), Pair, [Pair("a", "b")]),
        ("a\tb\t0.5\n", Pair, [Pair("a", "b", 0.5)]),
        ("query\ttitle\tsource\tlabel\na\tb\tweb\t1\n", Pair, [Pair("a", "b")]),
        ("query\ttitle\trecall_score\na\tb\t-3\n", Pair, [Pair("a", "b", -3.0)]),
        ("a\tb\t1\t-2.5\n", LabeledPair, [LabeledPair("a", "b", 1.0, -2.5)]),
        ("teacher_score\tquery\ttitle\tlabel\n3\ta\tb\t1\n", LabeledPair, [LabeledPair("a", "b", 1.0, 3.0)]),
        ("a\tb\tc\t1.5\t-1\n", Triple, [Triple("a", "b", "c", 1.5, -1.0)]),
        ("query\ttitle\tneg_title\tneg_teacher_score\na\tb\tc\t4\n", Triple, [Triple("a", "b", "c", None, 4.0)]),
        ("x\ny\n", Text, [Text("x"), Text("y")]),
        ("x\n", TitleRow, [TitleRow("x")]),
        ("7\tx\n", TitleRow, [TitleRow("x", "7")]),
        ('NA\t"quoted, title;"\tnull\n', Triple, [Triple("NA", '"quoted, title;"', "null")]),
        ("a\tb\n\n\n", Pair, [Pair("a", "b")]),
    ],
)
def test_columns_go_by_name_or_by_position(
    tmp_path: Path, content: str, kind: type[Record], expected: list[Record]
) -> None:
    assert read_records(file(tmp_path, content), kind) == expected


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\r"])
def test_only_a_newline_ends_a_row(tmp_path: Path, separator: str) -> None:
    path = file(tmp_path, f"query\ttitle\na{separator}b\tc{separator}d\n")
    assert read_records(path, Pair) == [Pair(f"a{separator}b", f"c{separator}d")]


@pytest.mark.parametrize("name", ["a.tsv", "a.csv", "a.jsonl", "a.parquet", "a.tsv.gz", "a.jsonl.gz"])
def test_each_format_gives_back_what_was_written(tmp_path: Path, name: str) -> None:
    pairs = [LabeledPair("词 NA", '他说"好",行', 2.0), LabeledPair("q", "\u2028\ufefft", 3.0)]
    assert write_records(tmp_path / name, pairs) == 2
    assert read_records(tmp_path / name, LabeledPair) == pairs
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_formats_are_told_by_content(tmp_path: Path) -> None:
    write_records(tmp_path / "a.parquet", [Pair("a", "b")])
    parquet = (tmp_path / "a.parquet").read_bytes()
    for content in (parquet, b'{"text_a": "a", "title": "b", "more": 1}\n', b"a\tb\n"):
        assert read_records(file(tmp_path, content, "rows.txt"), Pair) == [Pair("a", "b")]
        assert read_records(file(tmp_path, gzip.compress(content), "rows.txt"), Pair) == [Pair("a", "b")]


def test_tab_separated_text_is_byte_for_byte_as_stated(tmp_path: Path) -> None:
    triples = "query\ttitle\tneg_title\tteacher_score\tneg_teacher_score\na\tb\tc\t1\t0.5\n"
    cases: list[tuple[list[Record], str]] = [
        ([LabeledPair("a", "b", 2.0), LabeledPair("c", "d", 0.5)], "query\ttitle\tlabel\na\tb\t2\nc\td\t0.5\n"),
        ([LabeledPair("a", "b", 1.0, -2.5)], "query\ttitle\tlabel\tteacher_score\na\tb\t1\t-2.5\n"),
        ([LabeledPair("a", "b", 1.0, position=4)], "query\ttitle\tlabel\tposition\na\tb\t1\t4\n"),
        ([Triple("a", "b", "c", 1.0, 0.5)], triples),
        ([TitleRow("t", "7")], "id\ttitle\n7\tt\n"),
    ]
    for records, written in cases:
        write_records(tmp_path / "a.tsv", records)
        assert (tmp_path / "a.tsv").read_bytes() == written.encode()
        assert read_records(tmp_path / "a.tsv", type(records[0]), GRADED) == records


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\t\n\r"), min_size=1).filter(
    lambda text: bool(text.strip())
)


@settings(max_examples=60, deadline=None)
@example(rows=[("0", "0", "0")], name="t.jsonl")  # named columns may hold numbers
@given(rows=st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=5), name=st.sampled_from(["t", "t.jsonl"]))
def test_any_text_survives(tmp_path_factory: Any, rows: list[tuple[str, str, str]], name: str) -> None:
    path = tmp_path_factory.getbasetemp() / f"any_{name}"
    triples = [Triple(query, title, f"{neg_title}-") for query, title, neg_title in rows if f"{neg_title}-" != title]
    assume(triples)
    write_records(path, triples)
    assert read_records(path, Triple) == triples


@pytest.mark.parametrize(
    "content, kind, message",
    [
        (b"", Triple, "the file is empty; expected training triples"),
        ("query\ttitle\n", Pair, "a header and no rows"),
        ("a\tb\tc\nd\te\n", Triple, "line 2: 2 columns, expected 3"),
        ("a,b,c\n", Triple, "line 1: 1 column, expected 3 or 5 (query, title, neg_title), separated by tabs"),
        ("a\tb\tc\td\n", Pair, "line 1: 4 columns, expected 2 or 3"),
        ("a\tb\nc\td\t0.5\n", Pair, "line 2: 3 columns, expected 2"),
        ("query\ttitle\na\tb\tc\n", Pair, "line 2: 3 columns, expected 2"),
        ("query\ttitle\tlabel\na\tb\t1\n", Triple, "looks like a file of labelled pairs"),
        ("query\ttitle\tnegatif\na\tb\tc\n", Triple, "the header has query, title, negatif, but"),
        ("query\ttext_a\ttitle\na\tb\tc\n", Pair, "names the column query more than once"),
        ("a\tb\t1\nc\td\t0\n", Triple, "the third column holds numbers where training triples have neg_title"),
        ("a\tb\tc\n", LabeledPair, "line 1: label 'c' is not a finite number; this looks like a file of training"),
        ("a\tb\t1\nc\td\tnan\n", LabeledPair, "line 2: label 'nan' is not a finite number"),
        ("a\tb\t1\t0.5\nc\td\t0\t\n", LabeledPair, "line 2: the teacher_score is empty"),
        ("a\tb\t1\t0.5\nc\td\t0\n", LabeledPair, "line 2: 3 columns, expected 4"),
        ("a\tb\tinf\n", LabeledPair, "label 'inf' is not a finite number"),
        ("a\tb\t1\t0.5\nc\td\t0\t1e39\n", LabeledPair, "line 2: teacher_score '1e39' is out of range"),
        ("a\tb\t1\nc\td\t-3\n", LabeledPair, "line 2: the label -3 is not from 0 to 1,000"),
        ("a\tb\t1e300\n", LabeledPair, "line 1: the label 1e+300 is not from 0 to 1,000"),
        ("a\tb\t1_0\n", LabeledPair, "label '1_0' is not a finite number"),
        ("a\tb\t\n", LabeledPair, "the label is empty"),
        ("a\t\tc\n", Triple, "line 1: the title is empty"),
        ("a\tb\n \u3000\tb\n", Pair, "line 2: the query is empty"),
        ("a\té\nc\t".encode() + b"\xb0\xa1\n", Pair, "line 2: byte 0xb0 at position 3 is not UTF-8, unlike most lines"),
        (b"a\tb\0\n", Pair, "line 1: a NUL byte"),
        (b"PK\x03\x04more", Pair, "a zip archive"),
        (b"PAR1 and no more", Pair, "damaged Parquet data"),
        (gzip.compress(b"a\tb\n" * 9999, mtime=0)[:-20], Pair, "damaged or cut short"),
    ],
)
def test_bad_files_are_errors_that_say_what_and_where(
    tmp_path: Path, content: Any, kind: type[Record], message: str
) -> None:
    path = file(tmp_path, content)
    with pytest.raises(DataError) as caught:
        read_records(path, kind)
    said = str(caught.value)
    assert message in said and said.startswith(str(path)) and "\n" not in said


@pytest.mark.parametrize(
    "content",
    [
        '[\n {"query": "a",\n  "title": "b"}, {"query": "c", "title": "d"}]\n',
        '{\n  "query": "a", "title": "b"\n}\n{\n"query": "c", "title": "d"}',
        '[{"query": "a", "title": "b"}, {"query": "c", "title": "d"}]',
    ],
)
def test_json_may_go_over_several_lines(tmp_path: Path, content: str) -> None:
    path = file(tmp_path, content, "rows.json")
    assert read_records(path, Pair) == [Pair("a", "b"), Pair("c", "d")]
    with pytest.raises(DataError, match=r"object [23] is not JSON"):
        read_records(file(tmp_path, content.rstrip("]} \n") + ', {"query', "rows.json"), Pair)


@pytest.mark.parametrize(
    "line, message",
    [
        ("{", "line 2: not JSON"),
        ("[1]", "line 2: a JSON list, expected an object"),
        ("[" * 100_000, "line 2: not JSON"),
        ('{"query": "a"}', "line 2: no title, only query"),
        ('{"query": "a", "title": null}', "line 2: the title is null"),
        ('{"query": 7, "title": "b"}', "line 2: query is a int, expected text"),
        ('{"query": "a", "title": "b", "recall_score": true}', "line 2: the recall_score is true, expected a number"),
        ('{"query": "a", "title": "b", "recall_score": NaN}', "recall_score nan is not a finite number"),
        ('{"query": "a", "title": "b", "recall_score": -1e39}', r"recall_score -1e\+39 is out of range"),
        ('{"query": "a", "title": "\\ud800"}', "line 2: the title holds a NUL or half of a surrogate pair"),
        ('{"query": "a", "title": "x\\u0000"}', "line 2: the title holds a NUL"),
    ],
)
def test_bad_json_lines_are_errors(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_records(file(tmp_path, f'{{"query": "a", "title": "b"}}\n{line}\n', "rows.jsonl"), Pair)


def test_a_missing_file_suggests_the_closest_name(tmp_path: Path) -> None:
    file(tmp_path, "a\tb\n", "train_pairwise.csv")
    with pytest.raises(DataError, match=r"no such file; did you mean .*train_pairwise\.csv"):
        read_records(tmp_path / "train_pairwize.csv", Pair)
    with pytest.raises(DataError, match="nor is there a folder"):
        read_records(tmp_path / "missing" / "a.csv", Pair)
    with pytest.raises(DataError, match="a folder, expected a file"):
        read_records(tmp_path, Pair)


def test_skipped_rows_are_counted_with_their_reasons(tmp_path: Path) -> None:
    path = file(tmp_path, b"query\ttitle\tneg_title\na\tb\tc\nd\te\n\ng\t\xff\ti\nj\tk\t \nl\tm\t\xe6\x97\xa9\n")
    rows = RecordFile(path, Triple, skip_bad_rows=True)
    for _ in range(2):  # a second loop counts anew
        assert list(rows) == [Triple("a", "b", "c"), Triple("l", "m", "早")]
        assert (rows.kept, rows.skipped) == (2, 3)
        assert rows.report().startswith("kept 2; skipped 3 (line 3: 2 columns, expected 3; line 5: byte 0xff")
    with pytest.raises(DataError, match="kept 0; skipped 2"):
        read_records(file(tmp_path, "a\nb\n"), Triple, RowOptions(skip_bad_rows=True))
    first = next(iter(RecordFile(file(tmp_path, "a\tb\nbad\n"), Pair)))
    assert first == Pair("a", "b")  # rows are streamed: the bad second one was not reached


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = file(tmp_path, "old")
    cases: list[tuple[list[Record], str]] = [
        ([Pair("a", "b"), Pair("c\td", "e")], "a tab or a line end inside a field"),
        ([Pair("a", "b"), Pair("a", "b", 0.5)], "record 2 has other columns than the first"),
        ([Pair("a", "b"), Text("a")], "record 2 has other columns than the first"),
        ([], "no records"),
    ]
    for records, message in cases:
        with pytest.raises(DataError, match=message):
            write_records(path, records)
    with pytest.raises(DataError, match="cannot be written there"):
        write_records(tmp_path / "missing" / "a.tsv", [Text("a")])
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.real_data
@pytest.mark.parametrize(
    "name, kind, rows",
    [
        ("qbqtc/train.tsv", LabeledPair, 14_992),
        ("kuake_qtr/train.tsv", LabeledPair, 15_648),
        ("simclue/train_pairwise.tsv", Triple, 10_000),
        ("csl/papers.jsonl", TitleRow, 1_000),
        ("corpus/zh_sci.txt", Text, 19_595),
    ],
)
def test_real_files_are_read_whole(real_data: Path, name: str, kind: type[Record], rows: int) -> None:
    assert len(read_records(real_data / name, kind)) == rows


def test_several_files_are_read_one_after_the_other_and_their_lines_named(tmp_path: Path) -> None:
    first = file(tmp_path, "query\ttitle\tlabel\nq\tt\t1\n", "a.tsv")
    second = file(tmp_path, "p\tu\t0\np\t\t0\np\tw\tx\n", "b.tsv")  # without a header
    both = SeveralFiles([str(first), str(second)])
    source = RecordFile(both, LabeledPair, skip_bad_rows=True)
    for _ in range(2):
        assert list(source) == [LabeledPair("q", "t", 1.0), LabeledPair("p", "u", 0.0)]
        assert (source.kept, source.skipped, source.line) == (2, 2, f"1 of {second}")
        assert source.report().startswith(f"kept 2; skipped 2 ({second}, line 2: the title is empty; {second}, line 3:")
    with pytest.raises(DataError, match=rf"{second}, line 2: the title is empty"):
        list(RecordFile(both, LabeledPair))
    with pytest.raises(DataError, match=r"a\.tsv: the header has .* looks like a file of labelled pairs"):
        read_records(both, Triple)
    assert content_digest(both) not in (content_digest(first), content_digest(SeveralFiles([*both.paths[::-1]])))


RECALLED = "农业\t水稻\t0.93\n农业\t小麦\t1.0\n法律\t宪法\t0.41\n法律\t刑法\t0.87\n"


@pytest.mark.parametrize("skip", [False, True])
def test_recall_scores_are_no_labels(tmp_path: Path, skip: bool) -> None:
    path = file(tmp_path, RECALLED)
    with pytest.raises(DataError, match=r"line 1: the label 0\.93 is a fraction.* 3 of the 4 rows.*recall scores"):
        read_records(path, LabeledPair, LabelOptions(skip_bad_rows=skip))
    assert [pair.label for pair in read_records(path, LabeledPair, GRADED)] == [0.93, 1.0, 0.41, 0.87]
    assert [pair.recall_score for pair in read_records(path, Pair)] == [0.93, 1.0, 0.41, 0.87]


@pytest.mark.parametrize("name", ["few.tsv", "few.jsonl", "few.parquet", "few.tsv.gz"])
def test_a_fraction_among_labels_is_named_in_every_format(tmp_path: Path, name: str) -> None:
    labels = (1.0, 0.0, 2.0, 0.5, 1000.0)
    write_records(tmp_path / name, [LabeledPair("q", f"t{row}", label) for row, label in enumerate(labels)])
    refusal = r"the label 0\.5 is a fraction, .* \(1 of the 2 rows looked at from there on hold one\)\. Give a file"
    with pytest.raises(DataError, match=refusal):
        read_records(tmp_path / name, LabeledPair)
    assert [pair.label for pair in read_records(tmp_path / name, LabeledPair, GRADED)] == list(labels)
    for cell in ("-0.5", "1000.5"):  # these are no labels, fractions or not
        with pytest.raises(DataError, match="is not from 0 to 1,000"):
            read_records(file(tmp_path, f"a\tb\t{cell}\n"), LabeledPair, GRADED)


def test_a_bad_row_that_is_skipped_does_not_decide_the_role_of_all(tmp_path: Path) -> None:
    pairs = "".join(f"农业{number}\t水稻{number}\n" for number in range(30))
    labelled = "".join(f"农业{number}\t水稻{number}\t{number % 2}\n" for number in range(30))
    for rows, kind in (
        (f"{pairs}农业\t水稻\t1\n{pairs}农业\t水\t稻\n", Pair),
        (f"农业\t水稻\tx\n{labelled}", LabeledPair),
    ):
        source = open_as_one_of(str(file(tmp_path, rows)), JUDGED_KINDS, RowOptions(skip_bad_rows=True))
        assert source.kind is kind and len(list(source)) == rows.count("\n") - (2 if kind is Pair else 1)
    source = open_as_one_of(str(file(tmp_path, "a\tb\t1\nc\nd\n")), JUDGED_KINDS, RowOptions(skip_bad_rows=True))
    assert source.kind is LabeledPair and len(list(source)) == 1


@pytest.mark.parametrize("number", ["nan", "0.25", "-3", "1e300", "inf"])
def test_numbers_that_are_no_labels_are_no_titles_either(tmp_path: Path, number: str) -> None:
    path = file(tmp_path, f"农业\t水稻\t{number}\n")
    with pytest.raises(DataError, match="label") as refused:
        open_as_one_of(str(path), JUDGED_KINDS)
    assert "training triples" not in str(refused.value)


def test_a_comma_separated_file_says_so_and_is_read(tmp_path: Path) -> None:
    text = 'query,title,label\r\n农业,"水稻, ""杂交""",1\r\n\r\n"法\n律",宪法,0\r\n'
    path = file(tmp_path, text)
    with pytest.raises(DataError, match=r"line 1: 1 column, expected 3 .*by tabs; with --separator , it has 3: type"):
        read_records(path, LabeledPair)
    comma = LabelOptions(separator=",")
    found = RecordFile(path, LabeledPair, LabelOptions(separator=","))
    assert list(found) == [LabeledPair("农业", '水稻, "杂交"', 1.0), LabeledPair("法\n律", "宪法", 0.0)]
    assert found.skipped == 0 and found.line == 4  # where the row begins
    for bad, reason in (
        ('a,b,1\n"c,d,1\n', "line 2: a quote that is never closed"),
        ("a,é,1\nc,".encode() + b"\xff,0\n", "line 2: byte 0xff at position 3"),
        ("a\tb\t1\n", r"separated by ','; with --separator tab it has 3"),
        ("a,b,0.5\n", "the label 0.5 is a fraction"),
    ):
        with pytest.raises(DataError, match=reason):
            read_records(file(tmp_path, bad), LabeledPair, comma)


def test_separators(tmp_path: Path) -> None:
    for separator, row in ((";", "ab;c\n"), ("tab", 'a"b\tc\n')):
        assert len(read_records(file(tmp_path, row), Pair, RowOptions(separator=separator))) == 1
    for separator in (",,", '"', ""):
        with pytest.raises(UsageError, match="--separator"):
            RowOptions(separator=separator)
    long = "水稻, " * 60_000  # a cell with quotes may be long
    path = file(tmp_path, f'text\n"{long}"\nb\n', "long.csv")
    assert [row.text for row in read_records(path, Text, RowOptions(separator=","))] == [long, "b"]


@pytest.mark.parametrize("name", ["random.parquet", "random.gz", "random.tsv.gz", "random.tsv"])
def test_random_bytes_are_not_taken_for_a_text(tmp_path: Path, name: str) -> None:
    what = {"random.parquet": "its name says Parquet", "random.tsv": "binary data"}.get(name, "its name says gzip")
    with pytest.raises(DataError, match=what) as refused:
        read_records(file(tmp_path, np.random.RandomState(0).bytes(4096).replace(b"\n", b"x"), name), LabeledPair)
    assert "GBK" not in str(refused.value)


_GBK_ROWS = [LabeledPair(f"第{number}种水稻病害的诊断方法", "北方的农业与水稻种植技术", 1.0) for number in range(20)]
_WESTERN_ROWS = [
    LabeledPair(f"plain words {number}", "L'été était déjà très chaud à Paris, même la nuit", 0.0)
    for number in range(20)
]
_RUSSIAN = ("Цена товара указана без налога", "Новый склад находится рядом с вокзалом")
_OTHERS = (
    ("euc_jp", "EUC-JP", ("日本の農業について", "稲の病気の診断方法です")),
    ("cp1251", "Windows-1251", _RUSSIAN),
    ("koi8_r", "KOI8-R", _RUSSIAN),
    ("cp866", "DOS code page 866", _RUSSIAN),
    ("cp1253", "Windows-1253", ("Η τιμή δεν περιλαμβάνει φόρο", "Το νέο κατάστημα βρίσκεται στην Αθήνα")),
    ("cp1254", "Windows-1254", ("Ürünün fiyatına vergi dahil değildir", "Yeni mağaza istasyonun yanında açıldı")),
    ("cp1255", "Windows-1255", ("מחיר המוצר אינו כולל מס", "החנות החדשה נמצאת ליד התחנה המרכזית")),
    ("cp1256", "Windows-1256", ("سعر المنتج لا يشمل الضريبة", "يقع المتجر الجديد بالقرب من المحطة")),
    ("cp874", "Windows-874", ("ราคาสินค้าไม่รวมภาษี", "ร้านใหม่อยู่ที่กรุงเทพใกล้สถานีรถไฟ")),
    ("cp1252", "Windows-1252", ("Verð vörunnar er án skatts", "Ný verslun er í Reykjavík við höfnina og þar")),
)


@pytest.mark.parametrize(
    ("encoding", "rows", "name"),
    [
        ("gbk", _GBK_ROWS, "GBK"),
        ("gb18030", [*_GBK_ROWS, LabeledPair("𠮷野家", "㐂", 0.0)], "GBK"),
        ("big5", [LabeledPair("臺灣的農業與水稻種植技術", "北部地區的水稻病害", 1.0)] * 9, "Big5"),
        ("cp932", [LabeledPair("日本の農業について", "稲の病気の診断方法です", 1.0)] * 9, "Shift JIS"),
        ("cp1252", [LabeledPair("ascii", "alone", 0.0)] * 2000 + _WESTERN_ROWS, "Windows-1252"),
        *((encoding, [LabeledPair(*texts, 0.0)] * 3, name) for encoding, name, texts in _OTHERS),
        ("utf-16", _GBK_ROWS, ""),
    ],
)
@pytest.mark.parametrize("form", ["tsv", "gz", "jsonl", "json", ","])
def test_other_encodings_are_read_from_every_format(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], encoding: str, rows: list[LabeledPair], name: str, form: str
) -> None:
    """The line "联通" is valid UTF-8 in GBK's bytes by accident, so single lines do not decide."""
    rows = [LabeledPair("联通", "联通", 0.0), *rows] if encoding in ("gbk", "gb18030") else rows
    separator = "," if form == "," else "\t"
    cells = [{"query": row.query, "title": row.title, "label": row.label} for row in rows]
    text = "".join(f'{row.query}{separator}"{row.title}"{separator}{row.label:g}\n' for row in rows)
    text = text if form == "," else text.replace('"', "")
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in cells) if form == "jsonl" else text
    text = json.dumps(cells, ensure_ascii=False) if form == "json" else text
    content = text.encode(encoding)
    path = file(tmp_path, gzip.compress(content) if form == "gz" else content, f"rows.{form}")
    rules = LabelOptions(separator=separator if form == "," else "tab", header=False)
    for _ in range(2):
        if (encoding, form) == ("cp1252", "json"):  # one line, whose first bytes are ASCII alone
            continue
        assert read_records(path, LabeledPair, rules) == rows
    said = capsys.readouterr().err
    assert said.count(f"text in {name}") == (0 if not name or (encoding, form) == ("cp1252", "json") else 1)


def test_a_line_that_the_encoding_of_the_file_cannot_hold_is_bad(tmp_path: Path) -> None:
    lines = "".join(f"{row.query}\t{row.title}\t1\n" for row in _GBK_ROWS).encode("gbk")
    path = file(tmp_path, lines + b"a\t\xff\xff\t1\n")
    with pytest.raises(DataError, match="line 21: byte 0xff at position 3 is not GBK, unlike most lines"):
        read_records(path, LabeledPair)


@pytest.mark.parametrize(
    "content",
    ["a\tb\n\n   \nc\td\n\n\n", 'query,title\n\na,b\n   \n"c",d\n',
     '{"query": "a", "title": "b"}\n\n \t \n{"query": "c", "title": "d"}\n'],
)  # fmt: skip
def test_blank_lines_are_left_out_as_pandas_does_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    rules = RowOptions(separator="," if "," in content and "{" not in content else "tab")
    path = file(tmp_path, content)
    for _ in range(2):
        assert read_records(path, Pair, rules) == [Pair("a", "b"), Pair("c", "d")]
    assert capsys.readouterr().err.count(f"{path}: left out 2 blank lines, the first of them line 2\n") == 1


def test_data_that_is_named_twice_is_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, copy, other = (file(tmp_path, f"a\tb\t{name == 'other':d}\n", name) for name in ("one", "copy", "other"))
    os.link(one, tmp_path / "link")
    for again, how in ((one, "the same file"), (tmp_path / "link", "the same file"), (copy, "the same content")):
        warn_of_same_data(BaselineOptions(train_file=str(one), test_file=str(again)), "train_file", "test_file")
        assert f"warning: --test {again} is --train {one} ({how})" in capsys.readouterr().err
    warn_of_same_data(BaselineOptions(train_file=str(one), test_file=str(other)), "train_file", "test_file", "qrels")
    assert capsys.readouterr().err == ""


TEXT_ROWS = "how do rice diseases spread\trice blast and its spread\n水稻病害的诊断\t水稻病害诊断方法综述\n"


@pytest.mark.parametrize(
    "header",
    ["q\td", "s1\ts2", "a\tb", "src\ttgt", "用户问题\t标准问题", "Q\tD", "user question\tbest answer", "sent1\tref"],
)
def test_a_first_row_that_may_be_a_header_is_asked_about(tmp_path: Path, header: str) -> None:
    path = file(tmp_path, f"{header}\n{TEXT_ROWS}")
    with pytest.raises(
        DataError, match=r"line 1: .* may name the columns, or be data: put a line of these names above"
    ):
        list(RecordFile(path, Pair))
    with pytest.raises(DataError, match=r"--header true if it names them, .* query, title, or --header false if"):
        list(RecordFile(path, Pair, RowOptions()))
    assert len(list(RecordFile(path, Pair, RowOptions(header=False)))) == 3
    if header != "sent1\tref":  # the first is a known name, and the second is to be named, too
        assert len(list(RecordFile(path, Pair, RowOptions(header=True)))) == 2
    path.write_text(f"{header.upper()}\t1\n{TEXT_ROWS.replace(chr(10), chr(9) + '0' + chr(10))}", encoding="utf-8")
    assert len(list(RecordFile(path, LabeledPair, RowOptions()))) == 3  # a label is no name


@pytest.mark.parametrize(
    "rows",
    [
        "a\tb\nc\td\n" + TEXT_ROWS,  # other rows are words, too
        "nike\tshoes\n" + TEXT_ROWS, "sun\tthe sun is a star\n" + TEXT_ROWS, "水稻\t病害\n" + TEXT_ROWS,
        "如何才能解决这个问题\t解决问题\n" + TEXT_ROWS, "iphone 15\tcase\n" + TEXT_ROWS, "a\ta\n" + TEXT_ROWS, "q\td\n",
    ],
)  # fmt: skip
def test_rows_of_short_words_are_data(tmp_path: Path, rows: str) -> None:
    assert len(list(RecordFile(file(tmp_path, rows), Pair))) == rows.count("\n")
