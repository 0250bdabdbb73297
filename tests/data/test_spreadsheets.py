"""Spreadsheets as a person sees them, and workbooks that would take far more memory than they hold."""

from __future__ import annotations

import base64
import io
import resource
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Optional
from zipfile import ZIP_DEFLATED, ZipFile

import pytest

from paddle_ranker.data.files.file_readers import READERS, Part, Unread
from paddle_ranker.data.files.number_formats import shown_number
from paddle_ranker.data.files.spreadsheets import TooLargeError, _check_binary, sheets_of
from paddle_ranker.data.rows.documents import DocumentFile, head_of
from paddle_ranker.errors import DataError, UsageError
from paddle_ranker.options import DocumentOptions
from paddle_ranker.retrieval.values.typed_values import NUMBER, TYPES, Value
from tests.data.test_documents import write_book

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("value", "code", "shown"),
    [
        (90887, "0000000", "0090887"),
        (7, "00", "07"),
        (-7, "000", "-007"),
        (0.153, "0.0%", "15.3%"),
        (-0.5, "0%", "-50%"),
        (0.999, "0%", "100%"),
        (0, "0%", "0%"),
        (0.0188078, "mm:ss", "27:05"),
        (1.1284722, "[h]:mm", "27:05"),
        (0.5, "[mm]:ss", "720:00"),
        (0.60416667, "h:mm AM/PM", "2:30 PM"),
        (0.0, "h:mm AM/PM", "12:00 AM"),
        (0.000012, "mm:ss.0", "00:01.0"),
        (206.8, '#,##0.00 "€"', "206.80 €"),
        (206.8, "#,##0.00\\ [$€-407]", "206.80 €"),
        (1234.5, '"€"#,##0.00', "€1,234.50"),
        (-206.8, '"$"#,##0.00;[Red]-"$"#,##0.00', "-$206.80"),
        (-3, "_($* #,##0.00_);_($* (#,##0.00)", "$(3.00)"),
        (1500000, '0.0,,"M"', "1.5M"),
        (12, '0 "kg"', "12 kg"),
        (2.345, '0.00" m"', "2.35 m"),
        (1.5, '#.###" m"', "1.5 m"),
        (5551234567, "(000) 000-0000", "(555) 123-4567"),
        (123456789, "000-00-0000", "123-45-6789"),
        (1, '"yes";;"no"', "yes"),
        (0, '"yes";;"no"', "no"),
        (12345.5, "General", None),
        (12345.5, "#,##0.00", None),
        (1234, "#\\ ##0", None),
        (-3, "0.00_);(0.00)", None),
        (45000, "dd/mm/yyyy", None),
        (45000.5, "yyyy-mm-dd h:mm", None),
        (45000, "mmm", None),
        (0.5, "# ?/?", None),
        (1234567, "0.00E+00", None),
        (2, "0;0;;@", None),
        (3, '[>100]0 "x";0', None),
        (1e300, '0 "x"', None),
        (5, '"' * 300, None),
        (5, "\\", None),
        (5, "[", None),
    ],
)
def test_a_number_is_shown_by_its_format(value: float, code: str, shown: Optional[str]) -> None:
    """By hand, as Excel shows them in English."""
    assert shown_number(value, code) == shown


def cell(place: str, text: str) -> str:
    return f'<c r="{place}" t="inlineStr"><is><t>{text}</t></is></c>'


def table_row(number: int, *texts: str) -> str:
    cells = "".join(cell(f"{letter}{number}", text) for letter, text in zip("ABCD", texts))
    return f'<row r="{number}">{cells}</row>'


def parts(path: Path) -> tuple[list[str], list[str]]:
    found = [*READERS["table"].read(path)]
    return [one.text for one in found if isinstance(one, Part)], [
        one.reason for one in found if isinstance(one, Unread)
    ]


def with_styles(path: Path, codes: list[str]) -> None:
    """Add styles to a workbook: style n has the format `codes[n - 1]`."""
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    formats = "".join(f'<numFmt numFmtId="{200 + n}" formatCode="{code}"/>' for n, code in enumerate(codes))
    styles = "".join(f'<xf numFmtId="{200 + n}"/>' for n in range(len(codes)))
    with ZipFile(path, "a") as archive:
        content = f'<numFmts>{formats}</numFmts><cellStyleXfs><xf numFmtId="9"/></cellStyleXfs>'
        content += f'<cellXfs><xf numFmtId="0"/>{styles}</cellXfs>'
        archive.writestr("xl/styles.xml", f'<styleSheet xmlns="{main}">{content}</styleSheet>')


def test_cells_are_found_as_they_are_shown(tmp_path: Path) -> None:
    head = table_row(1, "name", "zip", "share", "time")
    ada = f'{cell("A2", "Ada")}<c r="B2" s="1"><v>90887</v></c><c r="C2" s="2"><v>0.153</v></c>'
    write_book(tmp_path / "a.xlsx", {"s": f'{head}<row r="2">{ada}<c r="D2" s="3"><v>1.1284722</v></c></row>'})
    with_styles(tmp_path / "a.xlsx", ["0000000", "0.0%", "[h]:mm"])
    assert parts(tmp_path / "a.xlsx") == (["s\nname | zip | share | time\nAda | 0090887 | 15.3% | 27:05"], [])
    (found,) = DocumentFile(tmp_path / "a.xlsx", DocumentOptions())
    assert found.fields == {"zip": "0090887", "share": 15.3, "time": "27:05"}


def test_formulas_without_a_value_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = f'<row r="1">{cell("A1", "name")}{cell("B1", "sum")}</row>'
    rows += f'<row r="2">{cell("A2", "Ada")}<c r="B2"><f>1+2</f></c></row>'
    rows += f'<row r="3">{cell("A3", "Bob")}<c r="B3"><f>3+4</f><v>7</v></c></row>'
    rows += f'<row r="4">{cell("A4", "Eve")}<c r="B4" t="str"><f>""</f><v></v></c></row>'
    write_book(tmp_path / "a.xlsx", {"s": rows})
    said = "1 formulas have no stored value, such as B2 (=1+2); open and save the file in a spreadsheet program"
    assert parts(tmp_path / "a.xlsx")[1] == [said]
    assert len([*DocumentFile(tmp_path / "a.xlsx", DocumentOptions())]) == 3
    assert said in capsys.readouterr().err


def test_errors_of_formulas_are_named_and_no_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    errors = ("#DIV/0!", "#N/A", "#REF!", "#VALUE!", "#NAME?", "#NUM!", "#NULL!", "#SPILL!", "#GETTING_DATA")
    head = f'<row r="1">{cell("A1", "name")}{cell("B1", "sum")}</row>'
    rows = [f'<row r="2">{cell("A2", "Ada")}<c r="B2"><v>7</v></c></row>']
    rows += [
        f'<row r="{n}">{cell(f"A{n}", "Bob")}<c r="B{n}" t="e"><f>1/0</f><v>{error}</v></c></row>'
        for n, error in enumerate(errors, start=3)
    ]
    write_book(tmp_path / "a.xlsx", {"s": head + "".join(rows)})
    said = "9 cells hold errors and count as empty, such as B3 (#DIV/0!)"
    assert parts(tmp_path / "a.xlsx")[1] == [said]
    other = ("#WERT!", "#ÜBERLAUF!", "#ДЕЛ/0!", "Err:502", "#ERROR!")
    (tmp_path / "a.csv").write_text("name,sum\nAda,7\n" + "".join(f"Bob,{error}\n" for error in (*errors, *other)))
    for name, count in (("a.xlsx", 10), ("a.csv", 15)):
        found = [document.fields for document in DocumentFile(tmp_path / name, DocumentOptions())]
        assert len(found) == count
        values = [TYPES["number"].read(fields.get("sum")) for fields in found]
        assert values == [Value(NUMBER, 7)] + [None] * (count - 1)
    assert said in capsys.readouterr().err


SHEETS = {
    "Prices": table_row(1, "id", "text") + table_row(2, "1", "a b"),
    "Empty": "",
    "More": table_row(1, "id", "size") + table_row(2, "2", "L"),
}


@pytest.mark.parametrize(
    ("sheet", "ids", "said"),
    [
        (None, ["1"], "its first sheet is read, 'Prices'; not read: Empty, More (--sheet NAME, or all)"),
        ("More", ["2"], ""),
        ("all", ["1", "2"], ""),
    ],
)
def test_a_sheet_is_chosen_by_name(
    sheet: Optional[str], ids: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_book(tmp_path / "a.xlsx", SHEETS)
    rules = DocumentOptions(sheet=sheet, id_column="id")
    found = [*DocumentFile(tmp_path / "a.xlsx", rules)]
    assert [row.id for row in found] == ids
    error = capsys.readouterr().err
    assert said in error and ("sheet is read" in error) is bool(said)
    names = ["Prices", "More"] if sheet == "all" else []
    assert [row.fields["sheet"] for row in found if "sheet" in row.fields] == names


def test_a_sheet_that_is_not_there_is_refused(tmp_path: Path) -> None:
    write_book(tmp_path / "a.xlsx", SHEETS)
    (tmp_path / "a.csv").write_text("id,text\n1,a\n")
    with pytest.raises(UsageError, match=r"has the sheets Prices, Empty, More \(did you mean More\?\)"):
        [*DocumentFile(tmp_path / "a.xlsx", DocumentOptions(sheet="Mor"))]
    with pytest.raises(UsageError, match="is about spreadsheets"):
        [*DocumentFile(tmp_path / "a.csv", DocumentOptions(sheet="all"))]


TITLE = ["Report of May", "Report of May", "Report of May"]  # as a merged cell is read


@pytest.mark.parametrize(
    ("rows", "above", "names"),
    [
        ([["a", "b", "c"], ["1", "2", "3"]], 0, ["a", "b", "c"]),
        ([TITLE, ["a", "b", "c"], ["x", "2", "3"], ["y", "5", "6"]], 1, ["a", "b", "c"]),
        ([["Report", "", "", "", ""], ["by", "me", "", "", ""], list("abcde"), *[list("12345")] * 4], 2, list("abcde")),
        ([["Report", "", "", ""], ["", "", "a", "b"], ["", "", "x", "1"], ["", "", "y", "2"]], 1, ["", "", "a", "b"]),
        ([["a", "", "c"], ["1", "2", "3"], ["4", "5", "6"]], 0, ["a", "", "c"]),
        (
            [
                ["Region", "2023", "2023", "2024", "2024"],
                ["Region", "Q1", "Q2", "Q1", "Q2"],
                ["N", *"1234"],
                ["S", *"5678"],
            ],
            0,
            ["Region", "2023 Q1", "2023 Q2", "2024 Q1", "2024 Q2"],
        ),
        (
            [TITLE, ["", "Size", ""], ["Name", "cm", "in"], ["x", "1", "2"], ["y", "3", "4"], ["z", "5", "6"]],
            1,
            ["Name", "Size cm", "Size in"],
        ),
        (
            [["name", "", "city"], ["Ada", "Lovelace", "London"], ["Bob", "Y", "Rome"], ["C", "Z", "Oslo"]],
            0,
            ["name", "", "city"],
        ),
        ([["text"], ["a"], ["b"]], 0, ["text"]),
    ],
)
def test_the_head_of_a_table_is_found(rows: list[list[str]], above: int, names: list[str]) -> None:
    found = head_of(rows)
    assert (found.above, found.names(rows)) == (above, names)


def test_rows_above_a_header_are_documents_if_there_is_none(tmp_path: Path) -> None:
    rows = [TITLE, ["item", "kind", "price"], *([f"tea {n}", "green", f"{n}"] for n in range(9))]
    content = "".join(table_row(number, *row) for number, row in enumerate(rows, start=1))
    write_book(tmp_path / "a.xlsx", {"s": content}, ends='<mergeCells><mergeCell ref="A1:C1"/></mergeCells>')
    assert len([*DocumentFile(tmp_path / "a.xlsx", DocumentOptions())]) == 9
    found = [*DocumentFile(tmp_path / "a.xlsx", DocumentOptions(header=False))]
    assert len(found) == 11 and "Report of May" in found[0].text


def test_lines_above_the_header_of_a_csv_are_its_title(tmp_path: Path) -> None:
    lines = ["Sales of May", "by region", "", "region,units,price", *(f"North {n},{n},{n}.5" for n in range(9))]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    assert parts(tmp_path / "a.csv")[0][0].startswith(
        "Sales of May by region\nregion | units | price\nNorth 0 | 0 | 0.5"
    )


def zipped(path: Path, files: dict[str, str]) -> None:
    with ZipFile(path, "w", ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def ods(rows: str) -> dict[str, str]:
    names = 'xmlns:office="urn:o" xmlns:table="urn:t" xmlns:text="urn:x"'
    body = f'<office:spreadsheet><table:table table:name="s">{rows}</table:table></office:spreadsheet>'
    return {
        "mimetype": "application/vnd.oasis.opendocument.spreadsheet",
        "content.xml": f"<office:document-content {names}><office:body>{body}</office:body></office:document-content>",
    }


FILLED = 'office:value-type="float" office:value='


def make(path: Path, name: str) -> Path:
    far = {"sparse": "GZ200000", "to the last cell": "XFD1048576"}.get(name)
    if far is not None:
        write_book(path / "a.xlsx", {"s": f'<row r="1">{cell("A1", "x")}</row><row>{cell(far, "y")}</row>'})
    elif name == "a long cell":
        write_book(path / "b.xlsx", {"s": f'<row r="1">{cell("A1", "x" * (40 << 20))}</row>'})
        with ZipFile(path / "b.xlsx") as archive:
            zipped(path / "a.xlsx", {entry: archive.read(entry).decode() for entry in archive.namelist()})
    elif name == "much unpacked":
        write_book(path / "a.xlsx", {"s": ""})
        with ZipFile(path / "a.xlsx", "a", ZIP_DEFLATED) as archive:
            archive.writestr("xl/sharedStrings.xml", " " * (100 << 20))
    elif name == "a size that lies":
        make(path, "a long cell")
        with ZipFile(path / "a.xlsx") as archive:
            size = archive.getinfo("xl/worksheets/sheet1.xml").file_size
        data = (path / "a.xlsx").read_bytes().replace(struct.pack("<I", size), struct.pack("<I", 1000))
        (path / "a.xlsx").write_bytes(data)
    elif name == "entities":
        write_book(path / "a.xlsx", {"s": ""})
        with ZipFile(path / "a.xlsx", "a") as archive:
            nested = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 9))
            archive.writestr("xl/sharedStrings.xml", f'<!DOCTYPE s [<!ENTITY e0 "x">{nested}]><s>&e8;</s>')
    elif name == "merged areas":
        rows = "".join(f"<row>{cell(f'CV{n + 1}', 'x')}</row>" for n in range(2000))
        ends = "".join('<mergeCell ref="A1:CV2000"/>' for _ in range(2000))
        write_book(path / "a.xlsx", {"s": rows}, ends=f"<mergeCells>{ends}</mergeCells>")
    elif name == "repeated rows":
        many = 'table:number-rows-repeated="1000000"><table:table-cell table:number-columns-repeated="16000" '
        zipped(path / "a.ods", ods(f'<table:table-row {many}{FILLED}"1"/></table:table-row>'))
    elif name == "empty rows":
        one = f'<table:table-row><table:table-cell {FILLED}"1"/></table:table-row>'
        empty = '<table:table-row table:number-rows-repeated="1000000"><table:table-cell/></table:table-row>'
        before = '<table:table-cell table:number-columns-repeated="16000"/>'
        zipped(path / "a.ods", ods(f"{one}{empty}{one.replace('<table:table-cell', before + '<table:table-cell', 1)}"))
    return next(path.glob("a.*"))


BOMBS = {
    "sparse": "2 cells in an area of 41,600,000",
    "to the last cell": "2 cells in an area of 17,179,869,184",
    "a long cell": "a cell of more than 1,048,576 characters",
    "much unpacked": "unpacked, more than the limit of",
    "a size that lies": "longer than it is said to be",
    "entities": "a document type",
    "merged areas": "",
    "repeated rows": "more than 134,217,728 cells",
    "empty rows": "2 cells in an area of 16,",
}
_READ = """
import resource, sys
from pathlib import Path
from paddle_ranker.data.rows.table import read
from paddle_ranker.errors import DataError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    print(sum(1 for _ in read(Path(sys.argv[1]))), "parts")
except DataError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


@pytest.mark.parametrize("name", BOMBS)
def test_no_workbook_takes_more_than_it_holds(name: str, tmp_path: Path) -> None:
    path, began = make(tmp_path, name), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", _READ, str(path)], capture_output=True, text=True, check=True, timeout=120
    )
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    said, megabytes = done.stdout.rsplit("\n", 2)[0], int(done.stdout.split()[-1])
    assert any(part in said for part in BOMBS[name].split("|")) if BOMBS[name] else "parts" in said, said
    assert megabytes < 300
    assert now.ru_utime - began.ru_utime < 20


def test_the_area_of_a_binary_workbook_is_checked() -> None:
    def record(kind: int, content: bytes) -> bytes:
        return bytes([kind, len(content)]) + content

    def row(number: int, *columns: int) -> bytes:
        cells = b"".join(record(5, struct.pack("<IId", column, 0, 1.5)) for column in columns)
        return record(0, struct.pack("<I", number) + bytes(13)) + cells

    _check_binary(row(0, 0, 1, 2) + row(1, 0))
    with pytest.raises(TooLargeError, match="3 cells in an area of 17,179,869,184"):
        _check_binary(row(0, 0, 1) + row(1048575, 16383))


def test_a_large_and_filled_workbook_is_no_bomb(tmp_path: Path) -> None:
    """100,000 rows with two notes far away take some seconds."""
    rows = "".join(
        f'<row r="{n}">{cell(f"A{n}", f"tea {n}")}<c r="B{n}"><v>{n}</v></c></row>' for n in range(1, 100_001)
    )
    write_book(tmp_path / "a.xlsx", {"s": rows + f'<row r="100001">{cell("BZ100001", "note")}</row>'})
    began = time.process_time()
    with open(tmp_path / "a.xlsx", "rb") as stream:
        (sheet,) = sheets_of("a.xlsx", stream)
        assert len(sheet.read()[0]) == 100_001
    assert time.process_time() - began < 30


def test_a_damaged_workbook_is_refused_by_name(tmp_path: Path) -> None:
    write_book(tmp_path / "a.xlsx", SHEETS)
    data = (tmp_path / "a.xlsx").read_bytes()
    for cut in range(4, len(data), 97):
        with pytest.raises(DataError, match="a damaged"):
            sheets_of("a.xlsx", io.BytesIO(data[:cut]))


# A workbook of Excel 97, in zlib and base64: name, number; lamp, 90887 shown as 0090887
XLS = (
    "eNrtWD1oFEEU/ma9y/2QXPbOSyARziNgNDGFYpMm2ShoKsNpo4igd2YLSW4TFi200GhynUIgVcQmkBRpojb+oIV2FkJEC0EQ7rS0EhQsklvfvJ2V"
    "S6KQAxOIzLfMN2/evJl5uzNvdmffLifLc4/aK1iHfuxC1YuhoUYnKMWCggmq9zwpBnmUkqexoxCL0kQ2hPG86U1EzqGc7woMPAy9IgY+UzqPcQyN"
    "OXZ2G3GMfcgL6UMfscB90iTQxl6lmC8x72Z+wJYvmAdYc5e5j2zL4hyWraHuXrWKzxodXJeA7PcJt/nImsNowWu5im9OC982jKPu5fzoDqvIhBox"
    "D5rQQduxXb+8IMuHfJSRppmexw8vC3wPQvplVuu3Vy9A+p9r9ZG/6KM0g+v1M0YImIB3kSOkJHfnkL8QcivYS1s4OJHOyRdtim3narFgu1QezRfH"
    "43I/5/g318R/E8dFI/EwmllOcnSY5MPK4rd3Jws56wJrJnjP998M+6Qv8HBLtqDGCa4xfnM380Hm29zrHpbbmdO0dCnvzLUo4cQk20xxbSeNc4Tx"
    "3tpfIx8gufT11NNM6YvVRfLSYOV6eumDNYcOehbD1F5ek+gRPeLerMQzK8iF2kU+Mbdt2FGihql899TrrxmriLOYZPZL8ukIZS/+YC/YXvZ4w4iz"
    "Pylk7oTRb6TwmB/PQM07Ng4NDQ0NDQ0NDQ2NrYNQX+fqmEAf3/4ZIKL+66xSqurfJP8tTmOMrit0rjwOh3IX1+paP60Ii6Avsck2wf9CiTM0uosR"
    "FNiPkbrXL53hRO39bLqh+e9CqN7xq/X4ucXj/wIWY8pG"
)


def test_a_binary_workbook_says_what_is_lost_and_what_keeps_it() -> None:
    (sheet,) = sheets_of("a.xls", io.BytesIO(zlib.decompress(base64.b64decode(XLS))))
    rows, unread = sheet.read()
    assert [texts for _, texts in rows] == [["name", "number"], ["lamp", "90887"]]
    assert "read without their formats" in unread and "libreoffice --headless --convert-to xlsx FILE" in unread


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600)),
        ("a.xls", b"\x09\x08\x10\x00\x00\x06\x05\x00" + bytes(100)),
        ("a.xls", b"\x09\x04\x06\x00\x00\x00\x10\x00" + bytes(100)),
        (
            "a.xls",
            b'<?xml version="1.0"?>\n<?mso-application?>\n<Workbook></Workbook>',
        ),
        ("a.xlsb", b"PK\x03\x04" + bytes(26) + b"xl/workbook.bin" + bytes(100)),
        ("a.xlsx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600)),  # as of a protected workbook
    ],
)
def test_other_spreadsheets_say_what_converts_them(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a.* spreadsheet.*libreoffice --headless --convert-to xlsx FILE"):
        list(DocumentFile(path, DocumentOptions()))
