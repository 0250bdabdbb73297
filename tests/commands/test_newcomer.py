"""What people do wrong with their own tables, and what the commands and `Index` say to it."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

from paddle_ranker import Index
from paddle_ranker.commands.index import main
from paddle_ranker.commands.search import main as search
from paddle_ranker.errors import RankerError, UsageError

pytestmark = pytest.mark.unit
COLUMNS = ("Nr", "Product Name", "Blurb", "Price", "Datum", "Lagernd", "weight")


def row(number: int, **others: object) -> dict[str, object]:
    values: dict[str, object] = {
        "Nr": number,
        "Product Name": f"Quiet mouse {number}",
        "Blurb": f"A quiet mouse for the office, good and cheap; it is number {number} of many.",
        "Price": f"{number},50 €",
        "Datum": f"{number % 28 + 1:02}.04.2024",
        "Lagernd": "nein" if number % 2 else "ja",
        "weight": "unknown" if number == 3 else number,
    }
    return {**values, **others}


def write(rows: Sequence[Mapping[str, object]], file: str = "table.csv") -> None:
    with Path(file).open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), delimiter=";")
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(autouse=True)
def _there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write([row(number) for number in range(40)])


@pytest.fixture
def index() -> Index:
    return Index.build("table.csv", "index")


BUILD = ("build", "--corpus", "table.csv", "--output", "index")


@pytest.mark.parametrize("failing", [{"Nr": 7, "Blurb": "Another"}, {"Nr": 70, "weight": "x"}, {"more": "x"}])
def test_nothing_remains_of_a_first_build_that_fails(failing: dict[str, object], tmp_path: Path) -> None:
    good = [row(number) for number in range(40) if number != 3]
    write(good)
    if "more" in failing:  # a row of another width, seen while the table is looked at; the others fail later
        Path("table.csv").write_text(Path("table.csv").read_text() + "40;too few\n")
    else:
        write([*good, row(9, **failing)])
    declared = ("--id_column", "Nr", "--field", "weight:number")
    assert main([*BUILD, *declared]) == 1
    assert not Path("index").exists()
    Path("index").mkdir()
    Path("index", "mine.txt").write_text("kept")
    assert main([*BUILD, *declared]) == 1
    assert [path.name for path in Path("index").iterdir()] == ["mine.txt"]
    write(good)
    assert main([*BUILD, *declared]) == 0
    assert len(Index("index")) == 39 and "weight:number" in map(str, Index("index")._collection.info.schema.fields)


def test_a_first_build_that_was_killed_is_gone_on_with_or_made_anew(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("paddle_ranker.retrieval.writer.CollectionWriter.add_rows", killed)
        main([*BUILD])
    assert Path("index", "index.json").exists()
    with monkeypatch.context() as patched:
        patched.setattr("paddle_ranker.retrieval.writer.CollectionWriter.add_rows", killed)
        main([*BUILD])
    assert "going on with the build that was begun there" in capsys.readouterr().err
    write([row(number, colour="red") for number in range(40)])
    assert main([*BUILD]) == 0
    assert "going on" not in capsys.readouterr().err and "colour" in Index("index")._collection.fields


def test_another_table_is_not_mixed_in_silently(index: Index, capsys: pytest.CaptureFixture[str]) -> None:
    write([{"staff": f"s-{n}", "full name": f"Ann Smith {n}", "hired": 2000 + n} for n in range(20)], "people.csv")
    write([{"Nr": 90 + n, "Product Name": f"Loud fan {n}", "Colour": "red"} for n in range(9)], "fans.csv")
    for line in (["add", "index", "--corpus", "people.csv"], [*BUILD[:2], "people.csv", *BUILD[3:], "--sync"]):
        assert main(line) == 2
        said = capsys.readouterr().err
        assert "people.csv: has the columns " in said and "index has Nr, Product Name, Blurb" in said
    with pytest.raises(UsageError, match="build another index of it"):
        index.add(pandas.read_csv("people.csv", sep=";"))
    assert len(Index("index")) == 40 and main(["add", "index", "--corpus", "fans.csv"]) == 0
    said = capsys.readouterr().err
    assert "lacks Blurb, Datum, Lagernd, Price, weight and has Colour, which are stored and not searched" in said
    assert main(["add", "index", "--corpus", "people.csv", "--id_column", "staff"]) == 0


@pytest.mark.parametrize(
    ("where", "count"),
    [
        ({"Price": {"lt": np.float32(3)}}, 3),
        ({"Price": np.int64(2)}, 0),
        ({"Price": {"in": np.array([2.5, 3.5])}}, 2),
        ({"Price": (2.5, 3.5)}, 2),
        ({"Lagernd": np.bool_(True), "Price": {"lt": 4}}, 2),
        ({"Datum": date(2024, 4, 5)}, 2),
        ({"Datum": {"gte": datetime(2024, 4, 28)}}, 1),
        ({"Datum": {"gte": pandas.Timestamp("2024-04-27")}}, 2),
        ({"Datum": {"gte": np.datetime64("2024-04-27")}}, 2),
        ({"Datum": {"gte": np.datetime64("2024-04-27T00:00:00", "ns")}}, 2),
        ({"Product Name": "Quiet mouse 4"}, 1),
        ("Product Name=Quiet mouse 4", 1),
        ("weight>\"5\"", 5),
    ],
)  # fmt: skip
def test_a_filter_takes_values_of_other_libraries(where: Any, count: int, index: Index) -> None:
    assert len(index.search("quiet", where=where, top_k=50)) == count


@pytest.mark.parametrize(
    ("search", "says"),
    [
        ({"where": "Lagernd=ja"}, "holds truth values, which = 'ja' cannot compare; write true"),
        ({"where": {"Datum": {"lt": "30.04.2024"}}}, "dates, which < '30.04.2024' cannot compare; write 2024-04-30"),
        ({"where": "Price<1.299,00 €"}, "write 1299.0"),
        ({"where": "Datum<03/04/2024"}, "cannot compare; correct the filter"),
        ({"where": "weight>5"}, "compare letter by letter with 5; build the index with --field weight:number"),
        ({"where": "product_name=x"}, "(did you mean Product Name?)"),
        ({"where": {"Price": {"less": 5}}}, "'less' is no operator"),
        ({"facets": ["product_name"]}, "facets: 'product_name' is no field of these documents"),
        ({"facets": "prize"}, "(did you mean Price?)"),
        ({"sort": "-prize"}, "(did you mean Price?)"),
        ({"group_by": "weigth"}, "(did you mean weight?)"),
        ({"by": "word"}, "(did you mean words?)"),
    ],
)  # fmt: skip
def test_an_unknown_name_and_a_value_that_is_none_are_refused_with_what_may_be_meant(
    search: dict[str, Any], says: str, index: Index
) -> None:
    with pytest.raises(RankerError) as refused:
        index.search("quiet", **search)
    assert says in str(refused.value)


def test_a_declared_field_that_no_document_has_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*BUILD, "--field", "product_name:text"]) == 0
    assert "--field product_name: no document has this field (did you mean Product Name?)" in capsys.readouterr().err


def test_messages_about_rows_of_a_program_name_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    frame = pandas.DataFrame([{**row(number), "size": {"width": number}} for number in range(40)])
    index = Index.build(frame, "frame")
    index.add(frame[:3].assign(Nr=[91, 92, 93], Blurb="Something else"))
    said = capsys.readouterr()
    assert "rows: --id_column Nr --title_column 'Product Name'" in said.err and "rows: kept 40" in said.out
    assert "size: holds objects" in said.err and "such as size_width" in said.err
    assert "/" not in (said.out + said.err).replace("ja/nein", "")
    with pytest.raises(RankerError, match=r"^rows, line 2: "):
        Index.build([{"text": "a"}, {"year": 3}], "other")


def test_a_search_without_results_says_what_to_try(index: Index, capsys: pytest.CaptureFixture[str]) -> None:
    assert search(["--index", "index", "zebra", "--where", "Price<9"]) == 0
    said = capsys.readouterr()
    assert "no document has a word of 'zebra' and meets --where: try other words, leave out --where" in said.err
    assert not said.out


def test_a_field_or_a_direction_alone_may_be_a_text(index: Index) -> None:
    hits = index.search("quiet", sort="-Price", facets="Lagernd", top_k=2)
    assert [hit.id for hit in hits] == ["39", "38"] and hits.facets == {"Lagernd": {True: 20, False: 20}}
