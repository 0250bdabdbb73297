"""What people do wrong with their own tables, and what the commands and `Index` say to it."""

from __future__ import annotations

import csv
import shlex
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
from paddle_ranker.errors import DataError, RankerError, UsageError, misspelt

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
        patched.setattr("paddle_ranker.retrieval.index.collection_writer.CollectionWriter.add_rows", killed)
        main([*BUILD])
    assert Path("index", "index.json").exists()
    with monkeypatch.context() as patched:
        patched.setattr("paddle_ranker.retrieval.index.collection_writer.CollectionWriter.add_rows", killed)
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
        ({"where": "Datum<03/04/2024"}, "cannot compare; compare as in Datum<2024-12-31"),
        ({"where": "Price=cheap"}, "holds numbers, which = 'cheap' cannot compare; compare as in Price=5"),
        ({"where": "Lagernd=perhaps"}, "compare as in Lagernd=true"),
        ({"where": "weight>5"}, "compare with = or in; or build the index with --field weight:number"),
        ({"where": "weight>=2024-12"}, "or build the index with --field weight:date"),
        ({"where": {"weight": {"lt": "2024-12-01"}}}, "build the index with --field weight:date"),
        ({"where": "weight<03.12.2024"}, "build the index with --field weight:date"),
        ({"where": "weight<5,50 €"}, "build the index with --field weight:number"),
        ({"where": "weight>'M'"}, "build the index with --field weight:number, or :date"),
        ({"where": {"Product Name": {"gte": "M"}}}, "holds texts, which >= 'M' cannot compare; texts have no order"),
        ({"where": "product_name=x"}, "(did you mean Product Name?)"),
        ({"where": {"Price": {"less": 5}}}, "'less' is no operator"),
        ({"facets": ["product_name"]}, "facets: 'product_name' is no field of these documents"),
        ({"facets": "prize"}, "(did you mean Price?)"),
        ({"sort": "-prize"}, "(did you mean Price?); sort by 'Price', or by '-Price' for the highest first"),
        ({"sort": {"Price": "desc"}}, "sort: is {'Price': 'desc'}, expected names of fields; sort by '"),
        ({"sort": 3}, "sort: is 3, expected names of fields; sort by '"),
        ({"wher": "Price<5"}, "Index.search: unknown argument wher (did you mean where?); it takes query, like, top_k"),
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


def test_a_misspelt_field_is_asked_about_and_another_one_is_new(
    index: Index, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("product_name", "Proudct Name"):
        assert main([*BUILD[:-1], "declared", "--field", f"{name}:text"]) == 2
        said = capsys.readouterr().err
        assert f"--field {name}: no document has this field (did you mean Product Name?)" in said
    both = "Prise:number,Price:number:format=1.234,5"
    assert main([*BUILD[:-1], "declared", "--field", both, "--field", "Colour:keyword"]) == 0
    assert "--field Colour: no document has this field" in capsys.readouterr().err
    new = {"Nr": "X1", "Product Name": "Lamp", "Blurb": "A lamp.", "Prise": 3.5}
    with pytest.raises(
        DataError, match=r"'Prise', which the index lacks \(did you mean Price\?\); .* name it in new_fields$"
    ):
        index.add([new])
    write([new], "new.csv")
    assert main(["add", "index", "--corpus", "new.csv"]) == 1
    assert capsys.readouterr().err.endswith("if it is a field of its own, --new_fields Prise\n")
    assert main([*BUILD[:2], "new.csv", *BUILD[3:-1], "index"]) == 1
    assert capsys.readouterr().err.endswith("if it is a field of its own, index add --new_fields Prise\n")
    assert main(["add", "index", "--corpus", "new.csv", "--new_fields", "Prise"]) == 0
    assert index.add([{**new, "Nr": "X2", "Price": 2, "Priec": 1}]).new == 1  # both are there: another field
    assert index.add([{**new, "Nr": "X3", "Brand": "A"}]).new == 1


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("sice", "size"), ("Weigth", "weight"), ("product.prcie", "product.price"), ("sku", ""),
        ("translations.fr", ""), ("price2", ""), ("prices", "price"), ("colour", ""),
    ],
)  # fmt: skip
def test_a_name_is_misspelt_if_few_of_its_letters_differ(name: str, meant: str) -> None:
    names = ["size", "weight", "product.price", "price", "price1", "sku1", "translations.de"]
    assert misspelt(name, names) == meant


def test_messages_about_rows_of_a_program_name_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    frame = pandas.DataFrame([{**row(number), "size": {"width": number}} for number in range(40)])
    frame = frame.rename(columns={"Blurb": "Words"})  # the columns of other tests are said once
    index = Index.build(frame, "frame")
    index.add(frame[:3].assign(Nr=[91, 92, 93], Words="Something else"))
    said = capsys.readouterr()
    assert "rows: --id_column Nr --title_column 'Product Name'" in said.err and "rows: kept 40" in said.out
    assert "size.width:number" in said.out
    assert "/" not in (said.out + said.err).replace("ja/nein", "")
    with pytest.raises(RankerError, match=r"^rows, line 2: "):
        Index.build([{"text": "a"}, {"text": {"a": 1}}], "other")


def test_a_search_without_results_says_what_to_try(index: Index, capsys: pytest.CaptureFixture[str]) -> None:
    assert search(["--index", "index", "zebra", "--where", "Price<9"]) == 0
    said = capsys.readouterr()
    assert "no document has a word of 'zebra' and meets --where: try other words, leave out --where" in said.err
    assert not said.out


def test_a_field_or_a_direction_alone_may_be_a_text(index: Index) -> None:
    hits = index.search("quiet", sort="-Price", facets="Lagernd", top_k=2)
    assert [hit.id for hit in hits] == ["39", "38"] and hits.facets == {"Lagernd": {True: 20, False: 20}}


def typed(number: int, **others: object) -> dict[str, object]:
    return {
        "Nr": number,
        "Name": f"Quiet mouse {number}",
        "Blurb": f"A mouse for the office, number {number}.",
        **others,
    }


@pytest.mark.parametrize(
    ("cells", "options", "where"),
    [
        (["03/04/2024", "05/06/2024"], "date:format=%d/%m/%Y", ["2024-04-03", "2024-06-05"]),
        (["03/04/2024", "05/06/2024"], "date:format=%m/%d/%Y", ["2024-03-04", "2024-05-06"]),
        (["03/04/2024, 10:30", "2024-06-05"], "date:format=%d/%m/%Y, %H:%M", ["2024-04-03T10:30", "2024-06-05"]),
        (["1.299", "2.450"], "number:format=1.234,5", ["1299", "2450"]),
        (["1.299", "2.450"], "number", ["1.299", "2.45"]),
        (["1,299", "2,450"], "number:format=1.234,5", ["1.299", "2.45"]),
        (["1,299", "2,450"], "number:format=1,234.5", ["1299", "2450"]),
        (["1,299", "2,450"], "keyword", ["'1,299'", "'2,450'"]),
        (["si", "no"], "boolean:format=si/no", ["true", "false"]),
        (["a,b", "c"], "keyword:list:format=,", ["b", "c"]),
        (["a|b", "c"], "keyword:list:format=|", ["a", "c"]),
    ],
)
def test_a_field_is_read_by_the_format_that_is_asked_for(cells: list[str], options: str, where: list[str]) -> None:
    rows = [typed(number, Value=cell, Other="x") for number, cell in enumerate(cells)]
    write(rows)
    declared = f"Value:{options},Other:keyword"
    made = {
        "table": Index.build("table.csv", "table", field=declared),
        "rows": Index.build(rows, "rows", field=declared),
    }
    for name, index in made.items():
        assert [[hit.id for hit in index.search("mouse", where=f"Value={one}")] for one in where] == [["0"], ["1"]], (
            name
        )
        index.add([typed(7, Value=cells[0], Other="y")])
        assert {hit.id for hit in index.search("mouse", where=f"Value={where[0]}")} == {"0", "7"}
    schema = made["table"]._collection.info.schema
    assert ",".join(map(str, schema.fields[-2:])) == "Other:keyword," + declared.partition(",Other")[0]
    assert main([*BUILD[:3], "--output", "again", "--field", ",".join(map(str, schema.fields))]) == 0
    assert Index("again")._collection.info.schema == schema


@pytest.mark.parametrize(
    ("field", "says"),
    [
        ("Value:date:format=%d-%m-%y", "the format is '%d-%m-%y', expected '%d.%m.%Y', '%d.%m.%y', '%d/%m/%Y'"),
        ("Value:number:format=%d/%m/%Y", "expected '1,234.5', '1.234,5'"),
        ("Value:keyword:format=;", "expected none: such values are kept as they are"),
        ("Value:number:format=", "the format is '', expected"),
        ("Value:date:format=%m/%d/%Y", "line 3: Value is '31/04/2024', expected a date written as %m/%d/%Y"),
    ],
)
def test_a_format_that_does_not_fit_is_refused(field: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    write([typed(0, Value="03/04/2024"), typed(1, Value="31/04/2024"), typed(2, Value="N/A")])
    assert main([*BUILD, "--field", field])
    assert says in capsys.readouterr().err and not Path("index").exists()
    if "line" in says:
        assert main([*BUILD, "--field", field, "--skip_bad_rows"]) == 0
        assert len(Index("index")) == 2


def test_the_printed_choice_is_the_option_that_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    tags = ("sale, eco", "eco", "sale", "new, sale")
    rows = [
        typed(n, Price=f"{n + 1}.300,50 €", Day=f"{n % 28 + 1}/04/2024", Tags=tags[n % 4], New="ja") for n in range(40)
    ]
    write(rows)
    assert main([*BUILD, "--id_column", "Nr"]) == 0
    said = capsys.readouterr()
    options = [line.split(": --field ")[1].partition(": ")[0] for line in said.err.splitlines() if ": --field " in line]
    price = "Price:number:unit=€:format=1.234,5"
    asked = [f"'{price}'", "'Tags:keyword:list:format=, '", "Day:date:format=%d/%m/%Y", "New:boolean:format=ja/nein"]
    assert sorted(options) == asked
    assert f"{price}  1300.5" in said.out
    again = [argument for option in options for argument in ("--field", *shlex.split(option))]
    assert main([*BUILD, *again]) == 0  # they are those of the index that is there
    assert main([*BUILD[:-1], "again", *again]) == 0
    assert Index("again")._collection.info.schema == Index("index")._collection.info.schema
    write([typed(90, Price="1.500 €", Day="01/02/2024", Tags="new, blue", New="ja")], "more.csv")
    assert main(["add", "index", "--corpus", "more.csv"]) == 0  # its own values say neither month nor thousands
    where = "Price=1500 and Day=2024-02-01 and Tags=blue and New=true"
    assert [hit.id for hit in Index("index").search("mouse", where=where)] == ["90"]
    write([typed(91, Price="89.90", Day="01/02/2024", Tags="new", New="ja")], "more.csv")
    assert main(["add", "index", "--corpus", "more.csv"]) == 1
    assert "Price is '89.90', expected a number written as 1.234,5" in capsys.readouterr().err


def test_a_format_is_kept_if_all_files_have_it(tmp_path: Path) -> None:
    tags = ("sale, eco", "eco", "sale", "new, sale")
    for number, day in enumerate(("{}.04.2024", "{}/04/2024")):
        rows = [typed(100 * number + n, Day=day.format(n % 28 + 1), Tags=tags[n % 4]) for n in range(40)]
        write(rows, f"part{number}.csv")
    index = Index.build("part*.csv", "index", id="Nr")
    found = {one.name: one.format for one in index._collection.info.schema.fields}
    assert found["Tags"] == ", " and found["Day"] == ""
    assert len(index.search("mouse", where="Day=2024-04-05 and Tags=sale", top_k=100)) == 4


def test_a_doubtful_column_is_said_with_the_options_that_settle_it(capsys: pytest.CaptureFixture[str]) -> None:
    write([typed(n, Weight=f"1.{n}00", Day=f"0{n}/04/2024") for n in range(1, 10)])
    assert main([*BUILD]) == 0
    said = capsys.readouterr().err
    day, weight = "--field Day:date:format=", "--field Weight:number:format=1.234,5"
    assert (
        f"Day stays text, for no value tells whether days or months come first: {day}%d/%m/%Y or {day}%m/%d/%Y" in said
    )
    assert f"Weight: points are before decimals; if they are between thousands, {weight}" in said
