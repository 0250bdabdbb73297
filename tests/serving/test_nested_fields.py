"""Nested fields, rows without texts and misspelt names, through files, Python and HTTP: each finds the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from paddle_ranker import Index
from paddle_ranker.commands.index import main
from paddle_ranker.errors import UsageError
from paddle_ranker.retrieval.stored.schema import Field
from tests.serving.test_search import Site

pytestmark = pytest.mark.unit
ROWS: list[dict[str, Any]] = [
    {"id": "a", "product": {"name": "Drill", "maker": {"name": "Bosch"}, "price": 89.9},
     "variants": [{"color": "red", "cm": 4}, {"color": "blue", "cm": 6}], "metadata": {"by": {"name": "Ann"}}},
    {"id": "b", "product": {"name": "Saw", "maker": {"name": "Makita"}, "price": 129.5},
     "variants": [{"color": "green", "cm": 9}], "metadata": {"by": {"name": "Ben"}}},
    {"id": "c", "text": "Screws of all sizes", "product": None, "variants": [], "metadata": {"by": None}},
]  # fmt: skip
BRANDS = "product.maker.name:text+facet"


def by_command(rows: list[dict[str, Any]], folder: Path) -> Path:
    (folder / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    build = ["build", "--corpus", str(folder / "rows.json"), "--output", str(folder / "index"), "--field", BRANDS]
    assert main(build) == 0
    return folder / "index"


def by_parquet(rows: list[dict[str, Any]], folder: Path) -> Path:
    rows = [{**row, "text": row.get("text")} for row in rows]  # the first row names the columns
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "rows.parquet")
    Index.build(folder / "rows.parquet", folder / "index", field=BRANDS).close()
    return folder / "index"


def by_http(rows: list[dict[str, Any]], folder: Path) -> Path:
    Index.build(rows[2:], folder / "index", field=f"{BRANDS},product.price:number").close()
    site = Site(index=folder / "index", writable=True)
    assert site.ask("POST", "/v1/documents", {"documents": rows}).status_code == 200
    site.close()
    return folder / "index"


@pytest.fixture(params=[by_command, by_parquet, by_http])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    build: Callable[[list[dict[str, Any]], Path], Path] = request.param
    made = Site(index=build(ROWS, tmp_path), writable=True)
    yield made
    made.close()


def test_parts_of_objects_are_searched_filtered_counted_and_changed(site: Site) -> None:
    for query, where, wanted in (
        ("makita", {}, ["b"]),
        ("drill", {"product.price": {"lt": 100}, "variants.color": "blue", "by.name": "Ann"}, ["a"]),
        ("drill saw", {"variants.cm": {"gt": 6}}, ["b"]),
        ("drill saw screws", {"product.name": None}, ["c"]),
    ):
        assert [hit["id"] for hit in site.search(query, where=where)["hits"]] == wanted, query
    found = site.search("drill saw", facets=["product.maker.name"], sort=["-product.price"], fields=["product.price"])
    assert [hit["fields"] for hit in found["hits"]] == [{"product.price": 129.5}, {"product.price": 89.9}]
    assert {one["value"] for one in found["facets"]["product.maker.name"]} == {"Bosch", "Makita"}
    (hit,) = site.search("drill", fields=["product", "variants"])["hits"]
    assert hit["fields"] == {"product": ROWS[0]["product"], "variants": ROWS[0]["variants"]}
    assert "product.maker.name" in site.ask("GET", "/v1/index").json()["facets"]
    site.ask("PATCH", "/v1/documents", {"documents": [{"id": "a", "fields": {"product.price": 7}}]})
    assert site.ask("GET", "/v1/documents/a").json()["fields"]["product"] == {**ROWS[0]["product"], "price": 7}
    assert [hit["id"] for hit in site.search("drill", where={"product.price": 7})["hits"]] == ["a"]


def test_a_misspelt_part_is_asked_about_over_http(site: Site) -> None:
    request = {"documents": [{"id": "d", "product": {"naem": "Lamp"}}]}
    answer = site.ask("POST", "/v1/documents", request)
    assert answer.status_code == 422 and "did you mean product.name?" in answer.json()["error"]
    assert site.ask("POST", "/v1/documents", {**request, "new_fields": ["product.naem"]}).status_code == 200
    assert [hit["id"] for hit in site.search("lamp")["hits"]] == ["d"]


def test_a_row_of_empty_cells_is_left_out_and_one_without_text_is_not(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("Brand;Article;Price\nBosch;Saw;9,90 €\nMakita;;\n;;\n ; ;\n", encoding="utf-8")
    with Index.build(tmp_path / "a.csv", tmp_path / "index", field="Brand:text+facet") as index:
        texts = [document.text for document in index._collection.snapshot().documents()]
        assert texts == ["Bosch Saw 9,90 €", "Makita"]
    rows = [{"id": 1, "text": 5}, {"id": 2, "text": ["one", "two"]}, {"id": 3, "n": {"a": 7}, "text": " "}, {"id": 4}]
    with Index.build(rows, tmp_path / "more") as index:
        texts = [document.text for document in index._collection.snapshot().documents()]
        assert texts == ["5", "one\ntwo", "7", "4"]


def test_a_format_of_a_part_reads_it_and_a_template_has_it(tmp_path: Path) -> None:
    rows = [{"text": "Lamp", "price": {"eur": "1.299,00 €"}, "tags": ["x", {"deep": "y"}]}, {"text": "Saw"}]
    declared = "price.eur:number:format=1.234,5"
    with Index.build(rows, tmp_path / "index", field=declared, template="{price.eur} {text}") as index:
        (hit,) = index.search("lamp", where="price.eur=1299 and tags=x and tags.deep=y")
        schema, document = index._collection.info.schema, next(index._collection.snapshot().documents())
        assert hit.fields["price"] == {"eur": 1299.0} and schema.model_text(document) == "1299 Lamp"


@pytest.mark.parametrize("declared", ["a:number+facet", "a:text+keyword", "a:text+facet+facet", "a:facet"])
def test_only_a_text_is_a_facet_by_its_declaration(declared: str) -> None:
    assert str(Field.parse("a:text+facet:weight=2")) == "a:text+facet:weight=2"
    with pytest.raises(UsageError, match="expected NAME:"):
        Field.parse(declared)
