"""A query that is a number, a date or an id, as some file or page writes it, finds first what has just this."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

from paddle_ranker import Index
from paddle_ranker.data.files.cell_formats import readings, spelling_of
from paddle_ranker.retrieval.stored.segments import id_key
from tests.data.test_documents import write_book
from tests.data.test_spreadsheets import with_styles

pytestmark = pytest.mark.unit


class Row(NamedTuple):
    id: str
    name: str
    price: float
    day: date


# Prices and days that share their digits with many others, so that words alone order them otherwise.
ROWS = [
    Row(f"K{n}", f"saw of steel {'abcdefgh'[n % 8]}", round((6170.5 + 911.37 * n) % 9000 + 0.05 * (n % 7), 2),
        date(2024, 1, 1) + timedelta(days=n * 37 % 365))
    for n in range(120)
]  # fmt: skip
MONTHS = {
    "de": [
        "Januar",
        "Februar",
        "März",
        "April",
        "Mai",
        "Juni",
        "Juli",
        "August",
        "September",
        "Oktober",
        "November",
        "Dezember",
    ],
    "fr": ["janv.", "févr.", "mars", "avr.", "mai", "juin", "juil.", "août", "sept.", "oct.", "nov.", "déc."],
    "es": ["ene", "feb", "mar", "abr", "may", "jun", "jul", "ago", "sept", "oct", "nov", "dic"],
}


def point(price: float) -> str:
    return f"{price:,.2f}"


def comma(price: float, thousands: str = ".") -> str:
    return point(price).translate(str.maketrans(",.", f"{thousands},"))


PRICES: dict[str, Callable[[float], str]] = {
    "1.234,50": comma,
    "1.234,50 €": lambda price: f"{comma(price)}\u00a0€",
    "1 234,50": lambda price: comma(price, "\u202f"),
    "1,234.50": point,
    "$1,234.50": lambda price: f"${point(price)}",
    "1’234.50": lambda price: point(price).replace(",", "’"),
    "1234.5": repr,
}
DAYS: dict[str, Callable[[date], str]] = {
    "31.12.2024": lambda day: f"{day:%d.%m.%Y}",
    "12/31/2024": lambda day: f"{day:%m/%d/%Y}",
    "2024-12-31": date.isoformat,
    "Dec 31, 2024": lambda day: f"{day:%b} {day.day}, {day.year}",
    "2024年12月31日": lambda day: f"{day.year}年{day.month}月{day.day}日",
    "31. Dezember 2024": lambda day: f"{day.day}. {MONTHS['de'][day.month - 1]} {day.year}",
    "31 déc. 2024": lambda day: f"{day.day} {MONTHS['fr'][day.month - 1]} {day.year}",
    "31 dic 2024": lambda day: f"{day.day} {MONTHS['es'][day.month - 1]} {day.year}",
}
FILES = ("german.csv", "american.csv", "book.xlsx", "typed.json")


def write(path: Path) -> None:
    """Write ROWS in the way that the file's name says."""
    if path.suffix == ".json":
        rows = [{"id": row.id, "name": row.name, "price": row.price, "day": row.day.isoformat()} for row in ROWS]
        path.write_text(json.dumps(rows))
    elif path.suffix == ".xlsx":
        cells = [
            f'<row r="{n}"><c r="A{n}" t="inlineStr"><is><t>{row.id}</t></is></c><c r="B{n}" t="inlineStr"><is><t>'
            f'{row.name}</t></is></c><c r="C{n}" s="1"><v>{row.price}</v></c><c r="D{n}" s="2"><v>'
            f"{(row.day - date(1899, 12, 30)).days}</v></c></row>"
            for n, row in enumerate(ROWS, start=2)
        ]
        head = "".join(
            f'<c r="{c}1" t="inlineStr"><is><t>{t}</t></is></c>' for c, t in zip("ABCD", ("id", "name", "price", "day"))
        )
        write_book(path, {"s": f'<row r="1">{head}</row>{"".join(cells)}'})
        with_styles(path, ["#,##0.00\\ &quot;€&quot;", "DD.MM.YYYY"])
    else:
        price, day = (
            (PRICES["1.234,50 €"], DAYS["31.12.2024"]) if path.stem == "german" else (point, DAYS["12/31/2024"])
        )
        lines = [f"{row.id};{row.name};{price(row.price)};{day(row.day)}" for row in ROWS]
        path.write_text("\n".join(["id;name;price;day", *lines]), "utf-8")


@pytest.fixture(scope="module", params=FILES)
def index(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Index:
    folder = tmp_path_factory.mktemp("named")
    write(folder / request.param)
    return Index.build(folder / request.param, folder / "index")


@pytest.mark.parametrize("way", [*PRICES, *DAYS])
def test_a_value_in_any_spelling_finds_first_what_has_it(index: Index, way: str) -> None:
    for row in [row for row in ROWS if row.day.day > 12][::8]:  # no day that may be a month
        query = PRICES[way](row.price) if way in PRICES else DAYS[way](row.day)
        having = {one.id for one in ROWS if (one.price == row.price if way in PRICES else one.day == row.day)}
        hits = index.search(query, top_k=10)
        assert {hit.id for hit in hits[: len(having)]} == having, query
        assert hits.total is not None and hits.total >= len(having) and not hits.nothing_close


@pytest.mark.parametrize("query", ["K117", "k117", "K 117", "K-117", " k_117 ", "ｋ１１７"])
def test_an_id_is_found_however_it_is_typed_and_counted(index: Index, query: str) -> None:
    hits = index.search(query, facets=["day"])
    assert [hit.id for hit in hits] == ["K117"] and hits.total == 1
    assert [*hits.facets["day"].items()] == [(ROWS[117].day.isoformat(), 1)]
    assert not index.search(query, where={"price": {"lt": 0}})


@pytest.mark.parametrize(
    ("text", "kind", "format", "read"),
    [
        ("1.234", "number", "", [1.234, 1234]),
        ("1.234", "number", "1.234,5", [1234, 1.234]),
        ("-$5.00", "number", "", [-5.0]),
        ("-5,5 kg", "number", "", [-5.5]),
        ("007", "number", "", []),
        ("1e999", "number", "", []),
        ("a 5", "number", "", []),
        ("02/01/2024", "date", "", ["2024-01-02", "2024-02-01"]),
        ("02/01/2024", "date", "%m/%d/%Y", ["2024-02-01", "2024-01-02"]),
        ("Dec 31, 2024, 2:30\u202fPM", "date", "", ["2024-12-31T14:30"]),
        ("31.12.2024, 14:30 UTC", "date", "", ["2024-12-31T14:30Z"]),
        ("31 déc. 2024 à 14:30", "date", "", ["2024-12-31T14:30"]),
        ("31 de diciembre de 2024", "date", "", ["2024-12-31"]),
        ("Dezember 2024", "date", "", ["2024-12"]),
        ("marathon 2024", "date", "", []),
        ("2024", "date", "", []),
        ("20:06", "keyword", "", ["20:06"]),
        ("Bosch", "keyword", "", []),
    ],
)
def test_what_a_text_may_stand_for(text: str, kind: str, format: str, read: list[object]) -> None:
    assert readings(text, kind, spelling_of(kind, format) if format else None) == read


@pytest.mark.parametrize(
    ("id", "key"),
    [("AB-0117/X5", "ab0117x5"), ("00-031", "00 031"), ("libc6-dev", "libc6dev"), ("a b", "a b"), ("--", "--")],
)
def test_keys_of_ids(id: str, key: str) -> None:
    assert id_key(id) == key


def test_an_id_as_typed_comes_before_its_like(tmp_path: Path) -> None:
    rows = [{"id": id, "text": "something else"} for id in ("libfoo1", "libfoo-1", "libfoo_1")]
    with Index.build(rows, tmp_path / "index") as built:
        for row in rows:
            assert [hit.id for hit in built.search(row["id"])] == [row["id"]]
        assert len(built.search("LIBFOO 1")) == 3
