"""A table's first row: a header that is read by its names, or data, or refused; never one taken for another."""

from __future__ import annotations

import json
import random
from decimal import Decimal
from itertools import chain, permutations, product
from pathlib import Path
from typing import Any, Optional, Union

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from paddle_ranker.data.rows.formats import write_rows
from paddle_ranker.data.rows.header import COLUMN_NAMES, is_doubtful, read_header
from paddle_ranker.data.rows.records import (
    KINDS,
    LabeledPair,
    Line,
    Pair,
    Record,
    Text,
    TitleRow,
    Triple,
    open_as_one_of,
    read_records,
    role_of,
)
from paddle_ranker.data.rows.trec import is_run, read_qrels, read_queries, read_run, read_texts
from paddle_ranker.errors import DataError
from paddle_ranker.options import LabelOptions, RowOptions
from paddle_ranker.training.mining import JUDGED_KINDS

pytestmark = pytest.mark.unit


def decided(first_row: str, kind: type[Record], given: Optional[bool] = None) -> str:
    """Return the names of each column, "data" for no header, or "refused"."""
    cells = first_row.split(" | ")
    try:
        header = read_header(cells, role_of(kind, len(cells)), "f", given)
    except DataError as error:
        assert given or "--header false" in str(error)
        return "refused"
    return "data" if header is None else " ".join(f"{column}={cells[place]}" for column, place in header.places.items())


FIRST_ROWS: list[tuple[str, type[Record], str]] = [
    ("query | title | neg_title", Triple, "query=query title=title neg_title=neg_title"),
    ("Negative | Anchor | Positive", Triple, "query=Anchor title=Positive neg_title=Negative"),
    ("query | positive passage | negative-doc", Triple, "query=query title=positive passage neg_title=negative-doc"),
    ("查询 | 正例 | 负例", Triple, "query=查询 title=正例 neg_title=负例"),
    ("anchor | positive | distractor", Triple, "refused"),
    ("best laptop | best laptops", Pair, "data"),
    ("query | title | negativ", Triple, "refused"),
    ("query | document | label", Triple, "refused"),
    ("水稻 | 水稻病害 | 小麦", Triple, "data"),
    ("positive | 水稻病害 | 小麦", Triple, "data"),
    ("标题 | 怎么写标题 | 作文", Triple, "refused"),
    ("问题 | 文档 | 标签", LabeledPair, "query=问题 title=文档 label=标签"),
    ("sentence1 | sentence2 | label", LabeledPair, "query=sentence1 title=sentence2 label=label"),
    ("question | answer | relevance", LabeledPair, "query=question title=answer label=relevance"),
    ("句子1 | 句子2 | 相关性", LabeledPair, "query=句子1 title=句子2 label=相关性"),
    ("id | qid1 | qid2 | question1 | question2 | is_duplicate", LabeledPair,
     "query=question1 title=question2 label=is_duplicate"),
    ("user_query | product_name | relevance_score", LabeledPair, "refused"),
    ("index | question | sentence | label", LabeledPair, "query=question title=sentence label=label"),
    (" | query | title | label", LabeledPair, "query=query title=title label=label"),
    ('"query" | "title" | "label"', LabeledPair, 'query="query" title="title" label="label"'),
    ("query | title | label | position", LabeledPair, "query=query title=title label=label position=position"),
    ("query | title | lable", LabeledPair, "refused"),
    ("question | answer | 1", LabeledPair, "refused"),
    ("什么是 id | ID | 0", LabeledPair, "refused"),
    ("水稻 | 病害 | 1", LabeledPair, "data"),
    ("question | context", Pair, "query=question title=context"),
    ("query | text | score", Pair, "query=query title=text recall_score=score"),
    ("passage | query", Pair, "query=query title=passage"),
    ("query | title | url | date", Pair, "query=query title=title"),
    ("query | title | my_own.column", Pair, "query=query title=title"),
    ("query | title | 0.53", Pair, "refused"),
    ("query | 水稻病害", Pair, "refused"),
    ("水稻 | passage", Pair, "data"),
    ("passage | document", Pair, "refused"),
    ("text", Text, "text=text"),
    ("query", Text, "text=query"),
    ("句子", Line, "text=句子"),
    ("水稻", Text, "data"),
    ("what is a passage", Text, "data"),
    ("label", Text, "refused"),
    ("title", TitleRow, "title=title"),
    ("id | title", TitleRow, "title=title id=id"),
    ("docid | contents", Line, "text=contents"),
]  # fmt: skip


@pytest.mark.parametrize(("first_row", "kind", "expected"), FIRST_ROWS)
def test_a_first_row_is_a_header_or_data_or_refused(first_row: str, kind: type[Record], expected: str) -> None:
    assert decided(first_row, kind) == expected
    assert decided(first_row, kind, given=False) == "data"
    if expected not in ("data", "refused"):
        assert decided(first_row, kind, given=True) == expected


NAMES = [name for names in COLUMN_NAMES.values() for name in names]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(NAMES), min_size=1, max_size=6), st.sampled_from([*KINDS, Line]))
def test_a_header_of_known_names_is_never_data(names: list[str], kind: type[Record]) -> None:
    assert decided(" | ".join(names), kind) != "data"


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\t\n\r|\0"), min_size=1), min_size=1),
    st.sampled_from([*KINDS, Line]),
)
def test_a_row_of_data_is_never_a_header(cells: list[str], kind: type[Record]) -> None:
    assume(not {cell.strip(" \"'").lower().replace("-", "_") for cell in cells} & set(NAMES))
    assert decided(" | ".join(cells), kind) in ("data", "refused")


def test_every_layout_of_the_toolkit_is_read_in_any_order() -> None:
    for kind in (Triple, LabeledPair, Pair, Text, TitleRow):
        for layout in chain.from_iterable(permutations(one) for one in kind.layouts):
            assert decided(" | ".join(layout), kind) == " ".join(
                f"{column}={column}" for column in role_of(kind).columns if column in layout
            )


def file(folder: Path, content: str, name: str = "rows.tsv") -> str:
    (folder / name).write_text(content, encoding="utf-8")
    return str(folder / name)


LISTS = [
    {"query": "q", "pos": ["a", "b"], "neg": ["c", "d"], "pos_scores": [3, 2.5], "neg_scores": [1, -1], "prompt": "p"},
    {"query": "r", "pos": ["a"], "neg": []},
]


def test_lists_of_positives_and_negatives_are_rows_of_every_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = file(tmp_path, "".join(json.dumps(row) + "\n" for row in LISTS), "flag.jsonl")
    pairs = [
        LabeledPair("q", "a", 1, 3), LabeledPair("q", "b", 1, 2.5), LabeledPair("q", "c", 0, 1),
        LabeledPair("q", "d", 0, -1), LabeledPair("r", "a", 1),
    ]  # fmt: skip
    assert read_records(path, LabeledPair) == list(open_as_one_of(path, JUDGED_KINDS)) == pairs
    assert "not used: prompt" in capsys.readouterr().err
    triples = [Triple("q", "a", "c", 3, 1), Triple("q", "a", "d", 3, -1), Triple("q", "b", "c", 2.5, 1),
               Triple("q", "b", "d", 2.5, -1)]  # fmt: skip
    assert read_records(path, Triple, RowOptions(skip_bad_rows=True)) == triples
    for row, problem in (
        ({"query": "q", "pos": ["a"], "neg": []}, "line 1: empty lists, which hold no training triples"),
        ({"query": "q", "pos": ["a"], "neg": ["b"], "pos_scores": [1, 2]}, "2 numbers of teacher_score for 1 of title"),
        ({"query": "q", "pos": ["a", 3], "neg": ["b"]}, "title is a int"),
    ):
        with pytest.raises(DataError, match=problem):
            read_records(file(tmp_path, json.dumps(row), "bad.jsonl"), Triple)
    labelled = json.dumps({"query": "q", "docs": ["a", "b"], "labels": [2, 0]})  # sentence-transformers' lists
    assert read_records(file(tmp_path, labelled, "l.jsonl"), LabeledPair) == [
        LabeledPair("q", "a", 2), LabeledPair("q", "b", 0)
    ]  # fmt: skip
    with pytest.raises(DataError, match="title is a list"):
        read_records(path, Pair)


def test_title_and_text_of_a_document_are_one_text_whatever_its_id_is_called(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for id in ("id", "_id", "docid"):
        table = file(tmp_path, f"{id}\ttitle\ttext\n7\tT\tx\n8\t\ty\n")
        rows = [{id: "7", "title": "T", "text": "x"}, {id: "8", "title": "", "text": "y"}]
        lines = file(tmp_path, "".join(json.dumps(row) + "\n" for row in rows), f"{id}.jsonl")
        for path in (table, lines):
            assert [row.text for row in read_records(path, Line)] == ["T x", "y"]
            assert "title and text are one text" in capsys.readouterr().err


def test_what_was_decided_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for content, kind, said in (
        ("anchor\tpositive\tnegative\turl\na\tb\tc\td\n", Triple,
         "line 1 is the header: query (anchor), title (positive), neg_title (negative); not used: url"),
        ("a\tpassage\t1\n", LabeledPair, "line 1 is data, no header; the columns are query, title, label"),
            ('"a"\t"b"\n"c"\t"d"\n', Pair, "warning: every field is in quotes"),
        ("a\tb\nc \td\n", Pair, "the query of 1 rows begins or ends with a space"),
    ):  # fmt: skip
        source = open_as_one_of(file(tmp_path, content), (kind,))
        assert len(list(source)) == len(list(source)) >= 1
        assert capsys.readouterr().err.count(said) == 1


def test_the_option_decides(tmp_path: Path) -> None:
    path = file(tmp_path, "query\tpassage\na\tb\n")
    assert read_records(path, Pair, RowOptions(header=False)) == [Pair("query", "passage"), Pair("a", "b")]
    odd = file(tmp_path, "query\ttitle\t2024!\na\tb\tc\n")
    assert read_records(odd, Pair, RowOptions(header=True)) == [Pair("a", "b")]
    assert read_records(file(tmp_path, "a\tb\nc\td\n"), Pair, RowOptions(header=True)) == [
        Pair("c", "d")
    ]  # by position
    with pytest.raises(DataError, match="the header has a, b, c, d, but pairs to score need query"):
        read_records(file(tmp_path, "a\tb\tc\td\n1\t2\t3\t4\n"), Pair, RowOptions(header=True))
    write_rows(str(tmp_path / "a.parquet"), ("query", "title", "label"), [("q", "t", Decimal("1"))], header=True)
    assert read_records(tmp_path / "a.parquet", LabeledPair) == [LabeledPair("q", "t", 1.0)]


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        ('{"query": "q", "title": "t", "label": null}', LabeledPair, "line 1: the label is null"),
        ('{"query": "q", "title": "t", "label": true}', LabeledPair, "the label is true, expected a number"),
        ('{"query": "q", "title": "t", "label": "good"}', LabeledPair, "'good' is not a finite number"),
        ('"a"\t"b"\t"1"\n', LabeledPair, 'label "1" is in quotes'),
        ("a\tb\tc\t\n", Triple, "4 columns, expected 3 or 5: the line ends in a tab"),
        ("query\t水稻\n", Pair, "need title .* too; if it is data, put a line of the columns' names above it"),
        ("sep=;\nquery;title\n", Pair, "'sep=;' is for spreadsheets alone"),
        ('[\n  {"query": "q"}\n]', LabeledPair, "line 1: no title, label"),
        ("a\tb\tb\n", Triple, "the title and the neg_title are the same text"),
    ],
)
def test_messages_name_what_is_wrong(tmp_path: Path, content: str, kind: type[Record], message: str) -> None:
    path = file(tmp_path, content, "rows.jsonl" if content[0] in "[{" else "rows.tsv")
    with pytest.raises(DataError, match=message):
        read_records(path, kind)


@pytest.mark.parametrize("label", ["0.5", "nan", "null"])
def test_a_file_that_names_a_label_never_becomes_pairs_without(tmp_path: Path, label: str) -> None:
    for path in (
        file(tmp_path, f"query\ttitle\tlabel\nq\tt\t{label}\n"),
        file(tmp_path, f'{{"query": "q", "title": "t", "label": {label.replace("nan", "NaN")}}}', "rows.jsonl"),
    ):
        with pytest.raises(DataError, match="label"):
            list(open_as_one_of(path, JUDGED_KINDS))
    assert len(list(open_as_one_of(path, JUDGED_KINDS[2:], LabelOptions()))) == 1  # asked for as pairs


def test_ids_with_spaces_are_cells_where_there_are_tabs(tmp_path: Path) -> None:
    qrels = {"q 1": {"d 1": 1, "d": 0}}
    for content in ("query-id\tcorpus-id\tscore\nq 1\td 1\t1\nq 1\td\t0\n", "q 1\t0\td 1\t1\nq 1\t0\td\t0\n",
                    "docid\tqid\trelevance\nd 1\tq 1\t1\nd\tq 1\t0\n"):  # fmt: skip
        assert read_qrels(file(tmp_path, content)).qrels == qrels
    run = file(tmp_path, "q 1\tQ0\td 1\t1\t2\ta tag\nq 1\tQ0\td\t2\t1\ta tag\n")
    assert is_run(run) and read_run(run).run == {"q 1": {"d 1": 2.0, "d": 1.0}}
    with pytest.raises(DataError, match="line 1: 5 fields between tabs, expected query Q0 document rank score tag"):
        read_run(file(tmp_path, "q1\tQ0\td 1\t1\t0.5\n"))
    nan = file(tmp_path, "q Q0 d 1 nan tag\n")
    assert is_run(nan)
    with pytest.raises(DataError, match="line 1: the score 'nan' is not a finite number"):
        read_run(nan)


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        ("docid\tcontents\na\tx\n", {"a": "x"}),
        ("text\tid\nx\ta\n", {"a": "x"}),
        ("qid\tquestion\na\tx\n", {"a": "x"}),
        ("编号\t问题\na\tx\n", {"a": "x"}),
        ("_id\ttitle\ttext\na\tx\ty\n", {"a": "x y"}),
        ("a\tx\n", {"a": "x"}),
        ("query\nx\n", {"2": "x"}),
        ("x\ny\n", {"1": "x", "2": "y"}),
    ],
)
def test_texts_by_id_have_the_same_headers(tmp_path: Path, content: str, texts: dict[str, Any]) -> None:
    path = file(tmp_path, content)
    assert read_queries(path) == texts
    if "a" in texts:
        assert read_texts(path, {"a"}) == texts


UNKNOWN_NAMES = (
    "left\tright", "input\toutput", "查询语句\t文章标题", "keyword\tproduct", "first\tsecond", "原句\t目标句",
    "关键字\t网页", "utterance\treply", "claim\tevidence", "用户输入\t推荐内容", "FAQ问题\t标准答案", "lhs\trhs",
)  # fmt: skip
UNKNOWN_TRIPLES = (
    "q\td+\td-",
    "left\tright\twrong",
    "查询语句\t文章标题\t错误标题",
    "原句\t相似句\t不相似句",
    "ask\tyes\tno",
)
ENGLISH = [f"{color} {thing}\t{color.title()} {thing} with {extra}, size {size}"
           for size, (color, thing, extra) in enumerate(product(("red", "blue", "oak"), ("chair", "lamp", "mouse"),
                                                                ("a case", "two spare parts")))]  # fmt: skip
CHINESE = [f"{what}怎么{how}\t{what}{how}的详细步骤与注意事项"
           for what, how in product(("水稻", "小麦", "电脑"), ("种植", "保存", "运输"))]  # fmt: skip


def refuses(path: Union[str, Path], kind: type[Record]) -> bool:
    try:
        read_records(path, kind, LabelOptions())
    except DataError as error:
        assert "--header true" in str(error) and "--header false" in str(error)
        return True
    return False


@pytest.mark.parametrize("rows", [ENGLISH, CHINESE], ids=["English", "Chinese"])
@pytest.mark.parametrize("names", [*UNKNOWN_NAMES, *UNKNOWN_TRIPLES])
def test_a_header_of_unknown_names_is_asked_about(tmp_path: Path, rows: list[str], names: str) -> None:
    kind = Triple if names.count("\t") == 2 else Pair
    others = (
        [f"{row}\t{rows[place - 1].split(chr(9))[1]}" for place, row in enumerate(rows)] if kind is Triple else rows
    )
    for content in (others, others[:3], others[::-1]):
        path = file(tmp_path, "\n".join([names, *content]))
        assert refuses(path, kind)
        assert len(read_records(path, kind, RowOptions(header=True))) == len(content)
        assert len(read_records(path, kind, RowOptions(header=False))) == len(content) + 1
        assert not refuses(file(tmp_path, "\n".join(content)), kind)
        labelled = file(tmp_path, "\n".join([f"{names}\tmark", *(f"{row}\t1" for row in content)]))
        assert kind is Triple or refuses(labelled, LabeledPair)
    assert not refuses(file(tmp_path, names), kind)  # with a single row there is nothing to compare it with


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["qbqtc/train.tsv", "kuake_qtr/train.tsv", "simclue/train_pairwise.tsv"])
def test_headers_of_unknown_names_are_found_above_real_rows_and_rows_are_none(real_data: Path, name: str) -> None:
    """Detect 9 of 10 headers, and doubt at most 1 of 100 first rows: of each place in the file, and shuffled."""
    lines = (real_data / name).read_text(encoding="utf-8").splitlines()[1:]
    width = 3 if "simclue" in name else 2
    rows = [line.split("\t")[:width] for line in lines]
    headers = [names.split("\t") for names in (UNKNOWN_TRIPLES if width == 3 else UNKNOWN_NAMES)]
    draw = random.Random(0)
    for count in (5, 20):
        starts = [draw.randrange(len(rows) - count) for _ in range(1500)]
        samples = [rows[start : start + count + 1] for start in starts]
        samples += [draw.sample(rows, count + 1) for _ in range(1500)]
        doubted = sum(is_doubtful(first, others) for first, *others in samples)
        found = sum(is_doubtful(header, others) for _, *others in samples[::50] for header in headers)
        tried = len(samples[::50]) * len(headers)
        print(
            f"{name}, {count} rows: {doubted / len(samples):.2%} of rows doubted, {found / tried:.1%} of headers found"
        )
        assert doubted <= 0.01 * len(samples) and found >= 0.9 * tried
