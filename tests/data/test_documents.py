"""Documents from tables as programs write them: every row is there, with its id, title, text and fields."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
import os
import tempfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Optional, Union
from xml.sax.saxutils import escape
from zipfile import ZipFile

import pytest

from paddle_ranker.commands.index import main as index
from paddle_ranker.data.files.cell_formats import Spellings, is_no_value
from paddle_ranker.data.files.html_text import text_of_html
from paddle_ranker.data.rows.documents import DocumentFile
from paddle_ranker.data.rows.records import DocumentRow
from paddle_ranker.errors import DataError, RankerError, UsageError
from paddle_ranker.notebook import Index
from paddle_ranker.options import DocumentOptions
from paddle_ranker.options.input_files import join_files

pytestmark = pytest.mark.unit

ROWS = 60
THINGS = ("Quiet mouse", "Café au lait", "Bürostuhl", "USB hub, 7 ports", 'Desk "Nordic" 120 cm')


def name(number: int) -> str:
    return f"{THINGS[number % len(THINGS)]} {number}"


def text(number: int) -> str:
    between = "\n" if number % 7 == 0 else " "
    return f"A good thing for the office, quiet and cheap.{between}It is product {number}; ask for it."


def written(rows: Iterable[Iterable[object]], encoding: str = "utf-8", **style: Any) -> bytes:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, **style).writerows(rows)
    return buffer.getvalue().encode(encoding)


def german(number: float) -> str:
    return f"{number:,.2f}".translate(str.maketrans(",.", ".,")) + " €"


NUMBERS = range(ROWS)
# By writer: the file's name and bytes, and the fifth document
WRITERS: dict[str, tuple[str, bytes, DocumentRow]] = {
    "Excel, German": (
        "a.csv",
        written(
            [["Name", "Preis", "Datum", "Lagernd"],
             *([name(n), german(n * 300.5), f"{n % 28 + 1:02}.04.2024", "nein" if n % 2 else "ja"] for n in NUMBERS)],
            "cp1252", delimiter=";",
        ),
        DocumentRow(name(4), None, {"Preis": 1202.0, "Datum": "2024-04-05", "Lagernd": True}),
    ),
    "Excel, UTF-8 with a mark": (
        "a.csv",
        written([["sku", "product name", "price"], *([f"{n:05}", name(n), n * 1.5] for n in NUMBERS)], "utf-8-sig"),
        DocumentRow(name(4), "00004", {"price": "6.0"}),
    ),
    "Excel, Unicode text": (
        "a.txt",
        written([["Artikel", "Beschreibung"], *([name(n), text(n)] for n in NUMBERS)], "utf-16", delimiter="\t"),
        DocumentRow(text(4), None, {"Artikel": name(4)}),
    ),
    "Excel, Chinese": (
        "a.csv",
        written(
            [["商品名称", "商品描述", "价格"],
             *([f"无线鼠标{n}号", f"安静的无线鼠标，适合办公{n}", n] for n in NUMBERS)],
            "gbk",
        ),
        DocumentRow("安静的无线鼠标，适合办公4", None, {"商品名称": "无线鼠标4号", "价格": "4"}),
    ),
    "Excel, with its separator": (
        "a.csv",
        b"sep=;\r\n" + written([["id", "text"], *([n, text(n)] for n in NUMBERS)], delimiter=";"),
        DocumentRow(text(4), "4", {}),
    ),
    "pandas": (
        "a.csv",
        written([["", "name", "year"], *([n, name(n), "2020.0"] for n in NUMBERS)], lineterminator="\n"),
        DocumentRow(name(4), "4", {"year": "2020.0"}),
    ),
    "pandas, records": (
        "a.json",
        json.dumps([{"name": name(n), "text": text(n), "year": 2020.0} for n in NUMBERS]).encode(),
        DocumentRow(text(4), None, {"name": name(4), "year": 2020.0}),
    ),
    "Elasticsearch, a dump": (
        "a.json",
        "".join(
            json.dumps({"_index": "p", "_id": f"x{n}", "_source": {"name": name(n), "body": text(n)}}) + "\n"
            for n in NUMBERS
        ).encode(),
        DocumentRow(text(4), "x4", {"name": name(4)}),
    ),
    "Elasticsearch, a bulk": (
        "a.ndjson",
        "".join(
            json.dumps({"index": {"_index": "p", "_id": f"x{n}"}}) + "\n" + json.dumps({"body": text(n)}) + "\n"
            for n in NUMBERS
        ).encode(),
        DocumentRow(text(4), "x4", {}),
    ),
    "Elasticsearch, an answer": (
        "a.json",
        json.dumps({"hits": {"hits": [{"_id": f"x{n}", "_source": {"body": text(n)}} for n in NUMBERS]}}).encode(),
        DocumentRow(text(4), "x4", {}),
    ),
    "Kaggle": (
        "a.csv.gz",
        gzip.compress(
            written([["PassengerId", "Survived", "Name"], *([n, n % 2, f"Braund, Mr. {name(n)}"] for n in NUMBERS)])
        ),
        DocumentRow(f"Braund, Mr. {name(4)}", "4", {"Survived": "0"}),
    ),
    "Google Sheets": (
        "a.csv",
        written([["Frage", "Antwort"], *([f"{name(n)}?", text(n)] for n in NUMBERS)]),
        DocumentRow(text(4), None, {"Frage": f"{name(4)}?"}),
    ),
    "WordPress": (
        "a.csv",
        written(
            [["ID", "Name", "Description", "Tags", "Regular price"],
             *([n, name(n), text(n), "sale, eco" if n % 2 else "eco", n] for n in NUMBERS)],
            quoting=csv.QUOTE_ALL,
        ),
        DocumentRow(text(4), "4", {"Name": name(4), "Tags": ["eco"], "Regular price": "4"}),
    ),
    "WooCommerce": (
        "a.csv",
        written(
            [["SKU", "Name", "Description"],
             *([f"{n:05}", name(n), f"<p>For <b>desks</b> &amp; {text(n)}</p>\\n<ul><li>one</li><li>two</li></ul>"]
               for n in NUMBERS)],
            "utf-8-sig",
        ),
        DocumentRow(f"For desks & {' '.join(text(4).split())}\none\ntwo", "00004", {"Name": name(4)}),
    ),
    "Postgres, a dump": (
        "a.txt",
        "".join(
            "\t".join([str(n), name(n), text(n).replace("\n", "\\n"), "\\N" if n % 2 else "5"]) + "\n" for n in NUMBERS
        ).encode(),
        DocumentRow(text(4), "4", {"column_2": name(4), "column_4": "5"}),
    ),
    "a program, with bars": (
        "a.csv",
        written([["title", "body"], *([name(n), text(n)] for n in NUMBERS)], delimiter="|"),
        DocumentRow(text(4), None, {"title": name(4)}),
    ),
    "one column": ("a.csv", written([["text"], *([text(n)] for n in NUMBERS)]), DocumentRow(text(4), None, {})),
    "an editor, lines": (
        "a.txt",
        "".join(f"{name(n)}, as {'many, ' * (n % 3)}people say.\n\n" for n in NUMBERS).encode(),
        DocumentRow(f"{name(4)}, as many, people say.", None, {}),
    ),
}  # fmt: skip


def documents(path: Path, **options: Union[str, bool, None]) -> list[DocumentRow]:
    return list(DocumentFile(path, DocumentOptions(**options)))  # type: ignore[arg-type]


@pytest.mark.parametrize("writer", WRITERS)
def test_every_row_of_a_table_is_a_document(writer: str, tmp_path: Path) -> None:
    file, content, fifth = WRITERS[writer]
    (tmp_path / file).write_bytes(content)
    found = documents(tmp_path / file)
    assert len(found) == ROWS and found[4] == fifth


def write_sheets(path: Path, rows: list[list[object]], others: list[str]) -> None:
    """Write a spreadsheet of one sheet with rows, and empty ones."""

    def cell(value: object) -> str:
        return f"<c><v>{value}</v></c>" if isinstance(value, float) else f'<c t="str"><v>{escape(str(value))}</v></c>'

    content = "".join(f"<row>{''.join(map(cell, row))}</row>" for row in rows)
    write_book(path, {"first": content, **dict.fromkeys(others, "")})


def write_book(path: Path, sheets: Mapping[str, str], ends: str = "") -> None:
    """Write a spreadsheet as Excel does but for styles.

    sheets: rows by the names of sheets, in XML
    ends: XML below the rows of the first sheet
    """
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    documents = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006"
    contents = {
        "[Content_Types].xml": f'<Types xmlns="{package}/content-types"><Default Extension="xml" '
        'ContentType="application/xml"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{package}/relationships"><Relationship Id="r" '
        f'Type="{documents}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{documents}"><sheets>'
        + "".join(f'<sheet name="{name}" sheetId="{n}" r:id="r{n}"/>' for n, name in enumerate(sheets, start=1))
        + "</sheets></workbook>",
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{package}/relationships">'
        + "".join(
            f'<Relationship Id="r{n}" Type="{documents}/worksheet" Target="worksheets/sheet{n}.xml"/>'
            for n in range(1, len(sheets) + 1)
        )
        + "</Relationships>",
    }
    for number, rows in enumerate(sheets.values(), start=1):
        data = f"<sheetData>{rows}</sheetData>{ends if number == 1 else ''}"
        contents[f"xl/worksheets/sheet{number}.xml"] = f'<worksheet xmlns="{main}">{data}</worksheet>'
    with ZipFile(path, "w") as archive:
        for file, content in contents.items():
            archive.writestr(file, content)


def write_merged(path: Path, rows: list[list[object]], merged: int) -> None:
    """Write a spreadsheet whose row number `merged` has the empty cells behind each text merged with it."""

    def cell(row: int, place: int, value: object) -> str:
        kind = "" if isinstance(value, (int, float)) else ' t="str"'
        return f'<c r="{chr(65 + place)}{row}"{kind}><v>{escape(str(value))}</v></c>' if value != "" else ""

    content = "".join(
        f'<row r="{number}">{"".join(cell(number, place, value) for place, value in enumerate(row))}</row>'
        for number, row in enumerate(rows, start=1)
    )
    starts = [place for place, value in enumerate(rows[merged]) if value != ""] + [len(rows[merged])]
    areas = [
        f'<mergeCell ref="{chr(65 + start)}{merged + 1}:{chr(64 + end)}{merged + 1}"/>'
        for start, end in zip(starts, starts[1:])
    ]
    write_book(path, {"first": content}, f"<mergeCells>{''.join(areas)}</mergeCells>")


def test_a_spreadsheet_is_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[list[object]] = [["sku", "name", "price"], *([f"a-{n}", name(n), n + 0.5] for n in NUMBERS)]
    write_sheets(tmp_path / "a.xlsx", rows, ["more"])
    found = documents(tmp_path / "a.xlsx")
    assert len(found) == ROWS and found[4] == DocumentRow(name(4), "a-4", {"price": "4.5"})
    assert capsys.readouterr().err.count("not read: more") == 1
    table = DocumentFile(tmp_path / "a.xlsx", DocumentOptions(), keeps_left_out=True)
    assert len([*table]) == ROWS and [(what, item.where) for what, item in table.left_out] == [
        ("read in part", str(tmp_path / "a.xlsx"))
    ]
    content = (tmp_path / "a.xlsx").read_bytes()
    (tmp_path / "a.xlsx").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="a damaged spreadsheet"):
        documents(tmp_path / "a.xlsx")


_XLS = zlib.decompress(
    base64.b85decode(
        "c-rk)O=uHA6#i!OpEhk$Q=t_~C>XWYL-pdNMg^ObrS+nSpqplekTfZq<WLV<tvL#UC&f#l7cW&W{!kBk^B`38AP7RD$DRZQ4{g>rZ#Om792(G~"
        "GT$<9-n^M_=k31v+1b}Ck?O+3{u+M55x7vd0`NB31f@Wu5C+v-mQ)+LpOU5UPa)u^Kzcn`4!!cp7|M9ppy7f01xer|rE{3Ucp-1Zwh_nK2VF=X"
        "Mo9|XB}*6j*sC6vQ!IC|yw5G4u{_F_8!ShuZB?AbN@9HIurrF!XoFnW1$p1c%z4k25%l7v9K}~|3cIZb$IOhL`#UQJ+?`ki#Vu*%4O7om5v2ew"
        ";;R({zBFd)^O&-4uU&xb-!|KQE$p{6H!uh50uS&CLRfXl8V@dJ%wlN`Nf}&DWG`mR)I6_G8y;ZB%uE?%)DMhw0F&j6QHo6$%0=6DFa(U{^inKq"
        "%%%#unGVXOo2Pns(^L=f6zC+GMmOsbo(N%D%-8OHeseN4kvPwmIbPoFO<=e58y2og29dkC#<d}bn6aPbHNNXE*85pT>G>#+PxLy<*gUtn&b4vs"
        "=Mdv<Vo#I4m-Nc&<dcEQr^G(emy)$h(WQ5Z1q{-rlqSBs<}oaW#hu#{PZNz?I19!HmVLi09)2zC_-;8nT{qSdWHrLlF3GneHcFcFt|VKuU<+ou"
        "oc4m*^1WTwWJ$7@J8ZVrf~_&z<FM_>cpbLJ?6};fwH`c@O=;2lfgltV6ciK`6ciK`T0-!Lto_;U=A(ywFz`A5b=E1>)o+sj7N=04t3(IW6Ub9;"
        "Vz#aEvlAZCxR=->r}4i~;xzScB8wFJk!^eY(!owNKhKtl;omof+U>vIj-P+H|L<jn(+~"
    )
)  # a sheet of xlwt: sku, name, price


def test_a_spreadsheet_of_an_old_excel_is_a_table(tmp_path: Path) -> None:
    (tmp_path / "a.xls").write_bytes(_XLS)
    assert documents(tmp_path / "a.xls") == [
        DocumentRow("Quiet mouse", "a-1", {"price": "7.5"}),
        DocumentRow("Flat keyboard", "a-2", {"price": "9"}),
    ]


def test_an_object_is_no_text_whatever_its_name(tmp_path: Path) -> None:
    rows = [{"id": n, "headline": name(n), "content": {"lang": "en"}} for n in NUMBERS]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    assert documents(tmp_path / "a.json")[4] == DocumentRow(name(4), "4", {"content": {"lang": "en"}})


def test_texts_of_a_single_column_may_have_any_separator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = [f"A good thing {n}" if n != 9 else "one, two;\tthree" for n in NUMBERS]
    (tmp_path / "a.txt").write_text("\n".join(["title", '"A quiet, good mouse"', *texts]), encoding="utf-8")
    assert [one.text for one in documents(tmp_path / "a.txt")] == ["A quiet, good mouse", *texts]
    assert "a table of one column; --id_column none" in capsys.readouterr().err


def test_lines_in_place_of_a_table_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.csv").write_text("name;price\nA good thing;1\nAnother;2;3\n")
    assert len(documents(tmp_path / "a.csv")) == 3
    assert "each line is a document" in capsys.readouterr().err


def test_columns_are_chosen_by_option_and_the_choice_is_printed_as_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(written([["Nr", "Product Name", "Blurb"], *([n, name(n), text(n)] for n in NUMBERS)]))
    chosen = "--id_column Nr --title_column 'Product Name' --text_column Blurb"
    found = documents(path)
    assert chosen in capsys.readouterr().err
    assert found == documents(path, id_column="Nr", title_column="Product Name", text_column="Blurb")
    assert found[4] == DocumentRow(text(4), "4", {"Product Name": name(4)})
    other = documents(path, id_column="none", title_column="none", text_column="Product Name")
    assert other[4] == DocumentRow(name(4), None, {"Nr": "4", "Blurb": text(4)})
    with pytest.raises(UsageError, match=r"has Nr, Product Name, Blurb \(did you mean Product Name\?\)"):
        documents(path, text_column="product_name")


def test_a_row_without_text_is_a_document_and_one_of_another_width_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows: list[list[object]] = [["id", "name", "text"], *([n, name(n), text(n)] for n in NUMBERS)]
    path.write_bytes(written([*rows, [ROWS, "only a name", ""], [ROWS + 1, "", ""]]))
    assert [one.text for one in documents(path)[-2:]] == ["only a name", str(ROWS + 1)]
    path.write_bytes(written([*rows, [ROWS, "x"]]))
    with pytest.raises(DataError, match=r"line \d+: 2 columns, expected 3"):
        documents(path)


def test_a_row_of_a_spreadsheet_without_text_is_a_document(tmp_path: Path) -> None:
    rows: list[list[object]] = [["name", "text", "price"], *([name(n), text(n), n + 0.5] for n in NUMBERS)]
    write_sheets(tmp_path / "a.xlsx", [*rows, ["", "", 7.5]], [])
    assert documents(tmp_path / "a.xlsx")[-1] == DocumentRow("7.5", None, {"price": "7.5"})


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ("<p>one</p><p>two<br/>three</p>", "one\ntwo\nthree"),
        ("a &lt;b&gt; &amp; c &#8211; d", "a <b> & c – d"),
        ("<style>p {}</style><script>x()</script>kept <!-- not this -->", "kept"),
        ("<p>Lines\\nof\nWooCommerce</p>", "Lines of WooCommerce"),
    ],
)
def test_html_becomes_its_text(cell: str, text: str) -> None:
    assert text_of_html(cell) == text


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_a_column_is_html_if_most_of_its_values_are(
    share: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A page about HTML shows tags in some of its texts."""
    texts = [f"<p>{text(n)}</p>" if n < share * ROWS else f"{text(n)} 1 < 2" for n in NUMBERS]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"id": str(n), "text": one}) + "\n" for n, one in enumerate(texts)))
    is_html = share > 0.5
    assert ("</p>" in documents(path)[0].text) is not is_html
    assert documents(path)[-1].text == (" ".join(texts[-1].split()) if is_html else texts[-1])
    assert ("HTML" in capsys.readouterr().err) is is_html


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["1.299,00 €", "89,90 €"], [1299.0, 89.9]),
        (["$1,299.00", "$5"], [1299.0, 5]),
        (["1 234,5", "7"], [1234.5, 7]),
        (["12 %", "3 %"], [12, 3]),
        (["￥59.00", "￥1,200.50"], [59.0, 1200.5]),
        (["990 Ft", "1 200 Ft"], [990, 1200]),
        (["$1.50", "N/A", "-"], [1.5]),
        (["ja", "nein", "n.a."], [True, False]),
        (["['a', 'b']", "['c']", "[]"], [["a", "b"], ["c"], []]),
        (['["a", "b"]', '["c, d"]'], [["a", "b"], ["c, d"]]),
        (["{a,b}", '{"c, d",NULL}', "{}"], [["a", "b"], ["c, d"], []]),
        (['{"a": 1}', "{'a': 1}", "{a,b}"], None),
        (["NT$788", "NT$1,200"], [788, 1200]),
        (["\\5,308", "\\900"], [5308, 900]),
        (["5 kg", "3 g"], None),
        (["00001", "00002"], None),
        (["1.2.3", "4.5.6"], None),
        (["12", "unknown"], None),
        (["30.04.2024", "01.02.2024"], ["2024-04-30", "2024-02-01"]),
        (["03/14/2024", "01/02/2024"], ["2024-03-14", "2024-01-02"]),
        (["03/04/2024 10:22", "13/04/2024 00:00"], ["2024-04-03T10:22:00", "2024-04-13T00:00:00"]),
        (["03/04/2024"], None),
        (["2024年3月1日"], ["2024-03-01"]),
        (["ja", "Nein"], [True, False]),
        (["是", "否"], [True, False]),
        (["yes", "no", "maybe"], None),
        (["sale, eco", "eco", "sale"], [["sale", "eco"], ["eco"], ["sale"]]),
        (["Braund, Mr. A", "Smith, Mr. B"], None),
        (["Late, and open.", "Great!", "Late, and open.", "Late, and open."], None),
        (['{"a": 1, "b": 2}'] * 3, None),
    ],
)
def test_a_column_has_one_spelling_or_stays_as_it_is(cells: list[str], values: Optional[list[object]]) -> None:
    spellings = Spellings()
    for cell in cells:
        spellings.add(cell)
    chosen = spellings.chosen()
    there = [cell for cell in cells if not is_no_value(cell)]
    assert (None if chosen is None else [chosen.read(cell) for cell in there]) == values


@pytest.mark.parametrize(
    ("cells", "unit"),
    [
        (["206,80 €", "1.299,00 €"], "€"), (["$1.50", "$2"], "$"), (["12 %", "3.5 %"], "%"), (["1 kg", "20 kg"], "kg"),
        (["￥10", "¥20"], "¥"), (["1,5", "2,5"], ""), (["ja", "nein"], ""), (["a|b", "a|b"], ""),
    ],
)  # fmt: skip
def test_a_column_s_spelling_has_the_unit_of_all_its_numbers(cells: list[str], unit: str) -> None:
    spellings = Spellings()
    for cell in cells:
        spellings.add(cell)
    chosen = spellings.chosen()
    assert chosen is not None and chosen.unit == unit


def test_files_that_differ_in_the_unit_alone_have_one_spelling(tmp_path: Path) -> None:
    for name, cells in {"a": ("1,50 €", "2,50 €"), "b": ("3,50 $", "4,50 $"), "c": ("5,50 €", "6,50 €")}.items():
        (tmp_path / f"{name}.csv").write_text(
            "title;price\n" + "".join(f"saw {cell};{cell}\n" for cell in cells), "utf-8"
        )
    for names, unit in (("ab", ""), ("ac", "€"), ("a", "€")):
        rows = DocumentFile(join_files([str(tmp_path / f"{name}.csv") for name in names]), DocumentOptions())
        assert len({row.fields["price"] for row in rows}) == 2 * len(names)
        assert (rows.spellings["price"].format, rows.spellings["price"].unit) == ("1.234,5", unit)


def test_what_other_columns_say_decides_doubts() -> None:
    for cells, values in ((["03/04/2024"], ["2024-04-03"]), (["1.299"], [1299]), (["1.1", "1.10"], None)):
        spellings = Spellings()
        for cell in cells:
            spellings.add(cell)
        chosen = spellings.chosen(decimal_comma=True)
        assert (chosen and [chosen.read(cell) for cell in cells]) == values


def test_dates_with_points_say_that_points_are_between_thousands(tmp_path: Path) -> None:
    rows: list[list[object]] = [[name(n), f"{n + 1}.{n:03}", f"{n % 28 + 1:02}.01.1990"] for n in range(40)]
    rows.insert(0, ["Ort", "Einwohner", "Seit"])
    (tmp_path / "a.csv").write_bytes(written(rows, delimiter=";"))
    assert documents(tmp_path / "a.csv")[4].fields == {"Einwohner": 5004, "Seit": "1990-01-05"}


def test_what_stays_as_it_is_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.csv"
    head: list[object] = ["id", "text", "weight", "Notes", "Notes"]
    rows: list[list[object]] = [[n, text(n), "unknown" if n == 3 else n, "", "x"] for n in NUMBERS]
    path.write_bytes(written([head, *rows]))
    assert len(documents(path)) == len(documents(path)) == ROWS
    said = capsys.readouterr().err
    assert said.count("weight stays text: 1 of 60 values are no numbers, such as unknown") == 1
    path.write_bytes(written([[n, name(n), text(n)] for n in NUMBERS]))
    documents(path)
    assert "the first row is a document (--header true" in capsys.readouterr().err
    path.write_text("CREATE TABLE a (b text);\nCOPY a (b) FROM stdin;\nx\n\\.\n")
    with pytest.raises(DataError, match="SQL, expected a table"):
        documents(path)


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (["1000", "+1000", ".5", "2000"], ""),
        (
            ["2024-12-01", "2024-12-02", "03.12.2024"],
            "its dates are written in several ways, such as 2024-12-01 (line 2), 03.12.2024 (line 4)",
        ),
        (
            ["13/02/2024", "02/13/2024"],
            "its dates are written in several ways, such as 13/02/2024 (line 2), 02/13/2024",
        ),
        (
            ["1 May 2024", "2024-05-01", "May 3, 2024"],
            "its dates are written in several ways, such as 1 May 2024 (line 2)",
        ),
        (["2024-12-01", "soon", "2024-12-03"], "1 of 3 values are no dates, such as soon (line 3)"),
        (["1,50 €", "auf Anfrage", "2,00 €"], "1 of 3 values are no numbers, such as auf Anfrage (line 3)"),
        (["1,50 €", "$ 2.00"], "its numbers are written in several ways, such as 1,50 € (line 2), $ 2.00 (line 3)"),
        (["yes", "no", "maybe"], "1 of 3 values are no truth values, such as maybe (line 4)"),
        (
            ["yes", "ja", "no", "nein"],
            "its truth values are written in several ways, such as yes (line 2), ja (line 3)",
        ),
        (["1.2.3.4", "1.2.3.5"], ""),
        (["red", "blue", "1"], ""),
    ],
)
@pytest.mark.parametrize("file", ["a.csv", "a.xlsx"])
def test_values_that_look_like_a_type_and_are_kept_as_texts_are_named(
    cells: list[str], said: str, file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: list[list[object]] = [["id", "text", "x"], *([n, text(n + 1), cell] for n, cell in enumerate(cells))]
    if file == "a.csv":
        (tmp_path / file).write_bytes(written(rows))
    else:
        write_sheets(tmp_path / file, rows, [])
    found = documents(tmp_path / file)
    assert [row.fields["x"] for row in found] == cells
    error = capsys.readouterr().err
    assert said in error if said else "stays text" not in error


@pytest.mark.parametrize("file", ["a.jsonl", "a.parquet"])
@pytest.mark.parametrize(
    ("values", "said"),
    [
        (["01.12.2024", "24.12.2024"], "with --field x:date:format=%d.%m.%Y, '01.12.2024' is \"2024-12-01\""),
        (["2024/12/01", "2024/12/24"], "with --field x:date:format=%Y/%m/%d, '2024/12/01' is \"2024-12-01\""),
        (["0,50", "1.200,50"], "with --field x:number:format=1.234,5, '0,50' is 0.5"),
        (["03/04/2024", "05/06/2024"], "for no value tells whether days or months come first"),
        (["2024-12-01", "24/12/2024"], "its dates are written in several ways, such as 2024-12-01 (line 1)"),
        (["0,50", "1,50", "many"], "1 of 3 values are no numbers, such as many (line 3)"),
        (["2024-12-01", "2024-12-24"], ""),
        (["1.299", "2.5"], ""),
        (["yes", "no"], ""),
        (["red, blue", "blue"], ""),
    ],
)
def test_texts_of_typed_rows_that_could_have_an_order_are_named(
    values: list[str], said: str, file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"id": str(number), "text": text(number), "x": value} for number, value in enumerate(values)]
    if file == "a.jsonl":
        (tmp_path / file).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pytest.importorskip("pyarrow").Table.from_pylist(rows), tmp_path / file)
    assert [row.fields["x"] for row in documents(tmp_path / file)] == values
    error = capsys.readouterr().err
    assert ("x stays text" in error and said in error) if said else "stays text" not in error


def test_prices_with_a_comma_are_numbers_in_a_spreadsheet_too(tmp_path: Path) -> None:
    rows: list[list[object]] = [["id", "text", "Preis"], *([n, text(n), f"{n},50 €"] for n in range(9))]
    write_sheets(tmp_path / "a.xlsx", rows, [])
    assert [row.fields["Preis"] for row in documents(tmp_path / "a.xlsx")] == [n + 0.5 for n in range(9)]


@pytest.mark.parametrize("above", [[["Report of 2024"], []], [["Report of 2024", "", ""], ["by", "", ""]]])
@pytest.mark.parametrize("file", ["a.csv", "a.xlsx"])
def test_rows_above_a_header_are_left_out_and_counted(
    above: list[list[object]], file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: list[list[object]] = [["sku", "name", "price"], *([f"a-{n}", name(n), n + 0.5] for n in range(12))]
    if file == "a.csv":
        (tmp_path / file).write_bytes(written([*above, *rows]))
    else:
        write_sheets(tmp_path / file, [*above, *rows], [])
    found = documents(tmp_path / file)
    assert len(found) == 12 and found[4] == DocumentRow(name(4), "a-4", {"price": "4.5"})
    assert "above the header left out" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may be somebody else for a while")
def test_folders_that_may_not_be_read_are_named() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name, mode in (("shut", 0o700), ("listed", 0o744)):
            (root / name).mkdir()
            (root / name / "a.md").write_text("hidden from others")
            (root / name).chmod(mode)
        (root / "b.md").write_text("open")
        root.chmod(0o755)
        rows = DocumentFile(root, DocumentOptions())
        assert len([*rows]) == 3  # and imports what the next loop needs
        os.seteuid(65534)
        try:
            assert [row.id for row in rows] == ["b.md"]
            said = rows.report()
            with pytest.raises(DataError, match=r"shut: no documents; not read: 1 .*Permission denied; change its"):
                [*DocumentFile(root / "shut", DocumentOptions())]
        finally:
            os.seteuid(0)
        assert "not read: 2" in said and "shut: Permission denied; change its permissions" in said
        assert "listed/a.md: Permission denied" in said


def test_rows_of_one_id_are_named_with_their_places(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = ('<c t="str"><v>{}</v></c>' * 2).format
    head, first = f"<row>{cells('id', 'text')}</row>", "".join(f"<row>{cells(n, text(n))}</row>" for n in range(3))
    write_book(tmp_path / "a.xlsx", {"one": head + first, "two": f"{head}<row>{cells(1, text(9))}</row>"})
    (tmp_path / "b.csv").write_bytes(written([["id", "text"], *([n % 4, name(n)] for n in range(9))]))
    (tmp_path / "c.jsonl").write_text('{"id": "3", "text": "once"}\n')
    listed = str(tmp_path / "left.tsv")
    for files, more, says, where in (
        ("a.xlsx", ["--sheet", "all"], "'1': there are two of this id (P/a.xlsx, sheet 'one', row 3; P/a.xlsx, sheet "
         "'two', row 2); give", ["sheet 'two', row 2"]),
        ("b.csv", [], "'0': there are 3 of this id (P/b.csv, line 2; P/b.csv, line 6; P/b.csv, line 10), and several "
         "each of '1', '2', '3'; give", [f"line {line}" for line in (6, 10, 7, 8, 9)]),
        ("c.jsonl c.jsonl", [], "'3': there are two of this id (P/c.jsonl, line 1; P/c.jsonl, line 1); give",
         ["P/c.jsonl, line 1"]),
    ):  # fmt: skip
        paths = [str(tmp_path / file) for file in files.split()]
        build = ["build", "--corpus", *paths, "--output", str(tmp_path / "index"), "--report", listed, *more]
        assert index(build) == index([*build, "--shards", "2"]) == 1
        for error in capsys.readouterr().err.split("error: ")[1:]:
            assert says.replace("P/", f"{tmp_path}/") in error and "or let --id_column none number them\n" in error
        rows = [line.split("\t") for line in Path(listed).read_text().splitlines()[1:]]
        assert [row[1] for row in rows] == [place.replace("P/", f"{tmp_path}/") for place in where]
    opened = Index.build([{"id": "a", "text": "one"}], str(tmp_path / "other"))
    with opened, pytest.raises(DataError, match=r"two of this id \(rows, line 1; rows, line 2\)"):
        opened.add([{"id": "b", "text": "one"}, {"id": "b", "text": "two"}])


GROUPED = ["2024 Umsatz", "2024 Gewinn", "2025 Umsatz", "2025 Gewinn"]
NUMBERED = [["Nord Filiale am Markt", 10, 2, 12, 3], ["Haus an der Ecke", 20, 4, 22, 5]]
WORDED = [["Nord Filiale am Markt", "gut", "rot", "matt", "blau"], ["Haus an der Ecke", "matt", "blau", "gut", "rot"]]
REPEATED = ["Umsatz", "Gewinn", "Umsatz", "Gewinn"]


@pytest.mark.parametrize("file", ["a.csv", "a.xlsx", "merged.xlsx"])
@pytest.mark.parametrize(
    ("head", "rows", "names"),
    [
        ([["", "2024", "", "2025", ""], ["Region", *REPEATED]], NUMBERED, GROUPED),
        ([["", "2024", "", "2025", ""], ["Region", *REPEATED]], NUMBERED[:1], GROUPED),
        ([["", "2024", "", "2025", ""], ["Region", *REPEATED]], WORDED, GROUPED),
        ([["Bericht", *[""] * 4], ["", "2024", "", "2025", ""], ["Region", *REPEATED]], NUMBERED, GROUPED),
        ([["Region", "2024", "", "2025", ""], ["", *REPEATED]], NUMBERED, GROUPED),
        ([["Region", "2024", "", "2025", ""], ["Region", *REPEATED]], WORDED, GROUPED),
        ([["2024", "", "", "2025", ""], ["Region", *REPEATED]], NUMBERED, GROUPED),
        ([["Bericht", *[""] * 4], ["Region", "a", "b", "c", "d"]], NUMBERED, ["a", "b", "c", "d"]),
    ],
)
def test_groups_above_names_tell_columns_of_one_name_apart(
    head: list[list[object]], rows: list[list[object]], names: list[str], file: str, tmp_path: Path
) -> None:
    if file == "a.csv":
        (tmp_path / file).write_bytes(written([*head, *rows]))
    elif file == "a.xlsx":
        write_sheets(tmp_path / file, [*head, *rows], [])
    else:
        write_merged(tmp_path / file, [*head, *rows], 1 if head[0][0] == "Bericht" else 0)
    found = [*DocumentFile(tmp_path / file, DocumentOptions(header=True))]
    assert len(found) == len(rows) and [*found[0].fields] == names


def test_columns_behind_merged_groups_are_in_none(tmp_path: Path) -> None:
    head = [["", "2024", "2024", "2025", "2025", "", ""], ["Region", *REPEATED, "Aktiv", "PLZ"]]
    (tmp_path / "a.csv").write_bytes(written([*head, *([*row, "ja", 50667] for row in NUMBERED)]))
    found = [*DocumentFile(tmp_path / "a.csv", DocumentOptions(header=True))]
    assert [*found[0].fields] == [*GROUPED, "Aktiv", "PLZ"]


def test_a_first_row_of_values_that_repeat_is_no_header_below_names(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(written([["Artikel", "Farbe", "", "Ort", ""], *WORDED]))
    assert [*documents(tmp_path / "a.csv", header=True)[0].fields] == ["Farbe", "column_3", "Ort", "column_5"]


def test_a_few_cells_in_quotes_are_read_as_such(tmp_path: Path) -> None:
    for content, texts in (
        ('id,text\n1,a; b\n2,"two\nlines, so"\n3,x;y\n', ["a; b", "two\nlines, so", "x;y"]),
        ('id,text\n1,"say ""hi"""\n2,5" pipe\n3,so\n', ['say "hi"', '5" pipe', "so"]),
        ('id\ttext\n1\t"big" saw\n2\t"so\n', ['"big" saw', '"so']),
    ):
        (tmp_path / "a.csv").write_text(content)
        assert [row.text for row in documents(tmp_path / "a.csv")] == texts


def test_a_header_that_is_narrower_than_its_rows_is_no_title_of_a_report(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(written([["id", "name", "price"], *([n, name(n), n + 0.5, "x"] for n in range(12))]))
    with pytest.raises(DataError, match="line 2: 4 columns, expected 3"):
        documents(path)


def test_utf_16_is_among_the_facts_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_bytes(WRITERS["Excel, Unicode text"][1])
    documents(tmp_path / "a.txt")
    assert "a.txt: text in UTF-16; a table" in capsys.readouterr().err


def test_a_doubtful_header_is_asked_about(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(written([["apple", "pear"], ["grape", "plum"], ["peach", "lemon"], ["melon", "fig"]]))
    with pytest.raises(RankerError, match="--header true or --header false"):
        documents(path)


def test_a_told_separator_and_header_make_a_table_of_rows_that_differ(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a;b;c\n1;2;3\n4;5\n6;7;8\n")
    told = DocumentFile(str(tmp_path / "t.csv"), DocumentOptions(separator=";", header=True))
    with pytest.raises(DataError, match="line 3: 2 columns, expected 3"):
        list(told)


ROWS_IN = [{"id": f"x{n}", "name": name(n), "text": text(n)} for n in range(1, 4)]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize(
    ("content", "path"),
    [
        ({"data": ROWS_IN}, "data"),
        ({"status": "ok", "items": ROWS_IN, "total": 90, "next": None, "num": 3}, "items"),
        ({"@odata.context": "https://example.org", "value": ROWS_IN, "tags": ["a"]}, "value"),
        ({"meta": {"page": 1}, "result": {"items": ROWS_IN}}, "result.items"),
        ({"took": 3, "hits": {"hits": [{"_id": row["id"], "_source": row} for row in ROWS_IN]}}, "hits.hits"),
        ({"data": ROWS_IN, "included": ROWS_IN}, ""),  # which of both is not said
        ({"id": "p1", "parts": ROWS_IN}, ""),  # a document with parts
        ({"sku": "p1", "variants": ROWS_IN}, ""),
        ({"title": "A", "chapters": ROWS_IN}, ""),
        ({"data": ["a", "b"]}, ""),
    ],
)
def test_an_object_around_the_rows_is_no_document(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: dict[str, Any], path: str, indent: Optional[int]
) -> None:
    (tmp_path / "a.json").write_text(json.dumps(content, indent=indent), "utf-8")
    found, said = documents(tmp_path / "a.json"), capsys.readouterr().err
    if path:
        assert [(row.id, row.text) for row in found] == [(row["id"], row["text"]) for row in ROWS_IN]
        assert f'its 3 rows are the list "{path}"' in said.replace("'", '"')
    else:
        assert len(found) == 1 and "rows are the list" not in said
    (tmp_path / "b.jsonl").write_text(json.dumps(content), "utf-8")
    in_lines = documents(tmp_path / "b.jsonl")
    assert len(in_lines) == (3 if path == "hits.hits" else 1)
