"""Tables: parts with the header repeated and the place of each cell, of every format that holds tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from paddle_ranker.data.files.file_readers import READERS, Part, Unread
from paddle_ranker.errors import DataError
from tests.data.test_documents import write_book

pytestmark = pytest.mark.unit

ROWS = [["Rome", "2.5"], ["Oslo", ""], ["Bern", "3"]]


def parts_of(path: Path) -> list[Part]:
    return [part for part in READERS["table"].read(path) if isinstance(part, Part)]


def cells_of(part: Part) -> list[tuple[str, int, int]]:
    return [(part.text[int(start) : int(end)], int(row), int(column)) for start, end, row, column in part.places]


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def html(*rows: str, before: str = "") -> str:
    return f"<html><title>Shop</title><body>{before}<table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def cell(place: str, text: str) -> str:
    return f'<c r="{place}" t="inlineStr"><is><t>{text}</t></is></c>'


def as_csv(path: Path) -> Path:
    return write(path / "a.csv", "city,unitPrice", *map(",".join, ROWS))


def as_bars_in_utf_16(path: Path) -> Path:
    (path / "a.csv").write_bytes("\n".join(map("|".join, [["city", "unitPrice"], *ROWS])).encode("utf-16"))
    return path / "a.csv"


def as_ragged(path: Path) -> Path:
    return write(path / "a.csv", "city,unitPrice", "Rome,2.5", "Oslo", "Bern,3")


def as_json(path: Path) -> Path:
    return write(
        path / "a.csv", *(json.dumps({"city": city, **({"unitPrice": float(n)} if n else {})}) for city, n in ROWS)
    )


def as_parquet(path: Path) -> Path:
    columns: dict[str, Any] = {"city": [row[0] for row in ROWS], "unitPrice": [2.5, None, 3.0]}
    parquet.write_table(pyarrow.table(columns), path / "a.parquet")
    return path / "a.parquet"


def as_html(path: Path) -> Path:
    rows = ["<th>city<th>unitPrice", *(f"<td>{city}</td><td><b>{price}</b></td>" for city, price in ROWS)]
    return write(path / "a.html", html(*rows).replace("<title>Shop</title>", ""))


@pytest.mark.parametrize("make", [as_csv, as_bars_in_utf_16, as_ragged, as_json, as_parquet, as_html])
def test_a_small_table_is_one_part_whatever_holds_it(tmp_path: Path, make: Any) -> None:
    (part,) = parts_of(make(tmp_path))
    assert part[:3] == (
        "",
        "city | unitPrice (unit Price)\nRome | 2.5\nOslo | \nBern | 3",
        {"first_row": 0, "last_row": 2},
    )
    assert cells_of(part)[:2] == [("city", -1, 0), ("unitPrice (unit Price)", -1, 1)]
    assert cells_of(part)[2:] == [("Rome", 0, 0), ("2.5", 0, 1), ("Oslo", 1, 0), ("Bern", 2, 0), ("3", 2, 1)]


def test_sheets_are_tables_with_merged_cells_repeated_and_the_values_of_formulas(tmp_path: Path) -> None:
    head = f'<row r="1">{cell("A1", "Item")}{cell("B1", "Sum")}</row>'
    formula = '<c r="B2"><f>1+2</f><v>3</v></c>'
    rows = f'{head}<row r="2">{cell("A2", "Shirt")}{formula}</row><row r="3"><c r="B3"><v>4</v></c></row>'
    report = f'<row r="1">{cell("A1", "Report of May")}</row>'
    ada = f'<row r="3">{cell("A3", "Ada")}<c r="B3"><v>36</v></c></row>'
    staff = f'<row r="2">{cell("A2", "Name")}{cell("B2", "Age")}</row>{ada}'
    path = tmp_path / "a.xlsx"
    write_book(
        path,
        {"Prices": rows, "Empty": "", "Staff": report + staff},
        ends='<mergeCells><mergeCell ref="A2:A3"/></mergeCells>',
    )
    assert [(part.name, part.text, part.fields["title"]) for part in parts_of(path)] == [
        ("Prices", "Prices\nItem | Sum\nShirt | 3\nShirt | 4", "Prices"),
        ("Staff", "Staff Report of May\nName | Age\nAda | 36", "Staff Report of May"),
    ]


def test_cells_of_html_that_span_are_repeated_and_captions_are_titles(tmp_path: Path) -> None:
    first = html("<th>Item<th colspan=2>Size", "<td rowspan=2>Shirt<td>S<td>M", "<td>L<td>XL", before="<h2>Prices</h2>")
    second = "<table><caption>Staff</caption><tr><td>Name<td>Age<tr><td>Ada &amp; Bob<td>36</table>"
    one, other = parts_of(write(tmp_path / "a.html", first + second))
    assert one[:2] == ("1", "Shop Prices\nItem | Size | Size\nShirt | S | M\nShirt | L | XL")
    assert other[:2] == ("2", "Shop Staff\nName | Age\nAda & Bob | 36")
    assert ("XL", 1, 2) in cells_of(one)


def test_a_long_table_is_a_summary_and_parts_with_the_header_repeated(tmp_path: Path) -> None:
    rows = [[str(number), f"{number / 2}", f"district {number % 40}"] for number in range(5000)]
    path = write(tmp_path / "a.csv", "id,unit_price,place", *map(",".join, rows))
    summary, *parts = parts_of(path)
    header = "id | unit_price (unit price) | place"
    assert summary.text.startswith(
        f"{header}\nid: 0 to 4999\nunit_price: 0.0 to 2499.5\nplace: district 0; district 1; "
    )
    assert summary.name == "" and summary.fields == {"first_row": 0, "last_row": 4999}
    assert cells_of(summary)[3 + 7] == ("district 7", 7, 2)
    assert all(part.text.startswith("id | unit_price | place\n") and len(part.text) <= 1200 for part in parts)
    assert [one for part in parts for one in cells_of(part) if one[1] >= 0] == [
        (text, number, column) for number, row in enumerate(rows) for column, text in enumerate(row)
    ]
    assert parts[1].name == f"{parts[1].fields['first_row']}-{parts[1].fields['last_row']}"
    assert parts[1].fields["first_row"] == int(str(parts[0].fields["last_row"])) + 1


def test_a_wide_table_is_cut_into_columns_too(tmp_path: Path) -> None:
    names = [f"measurement number {number}" for number in range(100)]
    path = write(
        tmp_path / "a.csv", ",".join(names), *(",".join(f"{row}.{n}" for n in range(100)) for row in range(20))
    )
    _, *parts = parts_of(path)
    assert all(len(part.text) <= 1200 for part in parts)
    assert len({part.name for part in parts}) == len(parts)
    assert sorted(one for part in parts for one in cells_of(part) if one[1] >= 0) == sorted(
        (f"{row}.{n}", row, n) for row in range(20) for n in range(100)
    )


def test_rows_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    lines = [f"Rome,{number}" for number in range(50)]
    path = write(tmp_path / "a.csv", "city,number", *lines, "Oslo,1,2", "Bern,3")
    *_, last = READERS["table"].read(path)
    assert last == Unread("", "1 of 52 rows, such as line 52: 3 columns, expected 2")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.csv", bytes(range(256)) * 8, "binary data"),
        ("a.parquet", b"PAR1" + bytes(100), "damaged Parquet"),
        ("a.xlsx", b"PK\x03\x04" + bytes(100), "damaged spreadsheet"),
    ],
)
def test_files_that_cannot_be_read_are_refused(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=message):
        parts_of(tmp_path / name)


def test_a_spreadsheet_is_refused_by_its_size_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paddle_ranker.data.files.archives.MOST_UNPACKED", 100)
    write_book(tmp_path / "a.xlsx", {"A": f'<row r="1">{cell("A1", "x")}</row>'})
    with pytest.raises(DataError, match="bytes unpacked, more than the limit"):
        parts_of(tmp_path / "a.xlsx")


def test_cells_of_html_span_no_more_than_a_thousand(tmp_path: Path) -> None:
    row = f"<td colspan=999999999>{'x' * 3}" * 30
    (summary, *_) = parts_of(write(tmp_path / "a.html", html("<th>a", row)))
    assert len(summary.text) < 1_000_000
