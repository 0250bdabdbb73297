"""Searched fields whose values are lists of texts: through files, Python, HTTP and shards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paddle_ranker.commands.index import main
from paddle_ranker.errors import DataError
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.index.shards import open_shards
from paddle_ranker.retrieval.snapshots.searchable import Searchable
from paddle_ranker.retrieval.stages.search import SearchSettings
from paddle_ranker.retrieval.stages.search_engine import SearchEngine
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import IndexInfo, WordsInfo
from paddle_ranker.retrieval.stored.schema import Field, Schema
from paddle_ranker.retrieval.values.filters import Filter
from tests.elsewhere import elsewhere
from tests.serving.test_search import Site

pytestmark = pytest.mark.unit
FIELDS = "title:text:weight=3:title", "authors:text:list:weight=2"
SCHEMA = Schema(tuple(map(Field.parse, FIELDS)), "{title} by {authors}: {text}")
INFO = IndexInfo(WordsInfo("standard"), None, schema=SCHEMA)
DOCUMENTS = [
    Document("two", "On words", {"title": "One", "authors": ["Ada Grace", "Hopper Lovelace"]}),
    Document("one", "On words", {"title": "Two", "authors": ["Ada Lovelace", None, ""]}),
    Document("text", "On words", {"title": "Three", "authors": "Grace Hopper"}),
    Document("none", "On words", {"title": "Four", "authors": []}),
    Document("han", "On words", {"title": "Five", "authors": ["王小", "明月"]}),
]
FOUND: dict[str, set[str]] = {
    "lovelace": {"two", "one"},
    '"ada lovelace"': {"one"},
    '"grace hopper"': {"text"},  # and not from one item to the next
    "words -lovelace": {"text", "none", "han"},
    'words -"grace hopper"': {"two", "one", "none", "han"},
    '"王小"': {"han"},
    '"小明"': set(),
    "hopperr": {"two", "text"},  # is corrected
}


def finds(engine: SearchEngine[Any]) -> dict[str, set[str]]:
    return {query: {one.id for one in engine.search(query, 10)} for query in FOUND}


def answers(wanted: dict[str, set[str]]) -> dict[str, set[str]]:
    """Return what is found: a phrase that no document has is no condition, its words are searched."""
    return {query: ids or {"han"} for query, ids in wanted.items()}


def built(folder: Path) -> Path:
    with Collection.create(folder, INFO) as collection:
        for document in DOCUMENTS:
            collection.writer.add([document], merge=False)
    return folder


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(index=built(tmp_path / "served"), writable=True)
    yield made
    made.close()


def test_items_are_searched_in_every_collection(tmp_path: Path) -> None:
    rows = [{"id": row.id, "text": row.text, **row.fields} for row in DOCUMENTS]
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    fields = ",".join(FIELDS)
    assert main(["build", "--corpus", str(corpus), "--output", str(tmp_path / "file"), "--field", fields]) == 0
    parts = [tmp_path / "part-0", tmp_path / "part-1"]
    for folder, own in zip(parts, (DOCUMENTS[:2], DOCUMENTS[2:])):
        with Collection.create(folder, INFO) as collection:
            collection.writer.add(own)
    collections: list[Searchable] = [
        Collection.open(built(tmp_path / "python")), Collection.open(tmp_path / "file"), open_shards(parts),
        *elsewhere(parts),
    ]  # fmt: skip
    for place, one in enumerate(collections):
        assert finds(SearchEngine(one, SearchSettings())) == answers(FOUND), place
    scores = [
        [(hit.id, hit.score) for hit in SearchEngine(one, SearchSettings()).search("ada lovelace", 9)]
        for one in collections
    ]
    assert all(one == scores[0] for one in scores)
    with Collection.open(tmp_path / "python", write=True) as collection:
        collection.writer.merge(None)
        assert finds(SearchEngine(collection, SearchSettings())) == answers(FOUND)
        assert collection.snapshot().matching(None).count(Filter.of({"authors": "Ada Grace"})) == 1


def test_cells_of_a_table_that_are_lists_are_searched_item_by_item(tmp_path: Path) -> None:
    corpus, cells = tmp_path / "corpus.csv", ["Ada Grace; Jean Hopper", "Ada Grace", "Jean Hopper; Ada Grace"]
    rows = [f'r{number},"Words on a page, number {number}",{cells[number % 3]}' for number in range(12)]
    corpus.write_text("\n".join(["id,text,authors", *rows, ""]))
    options = ["--corpus", str(corpus), "--output", str(tmp_path / "index"), "--field", FIELDS[1]]
    assert main(["build", *options]) == 0
    with SearchEngine.open(tmp_path / "index") as engine:
        assert engine.collection.snapshot().document("r0").fields == {"authors": ["Ada Grace", "Jean Hopper"]}
        found = {one.id for one in engine.search('"jean hopper"', 20)}
        assert found == {f"r{number}" for number in range(12) if number % 3 != 1}
        (search,) = engine.run(['"grace jean"'], 20)
        assert search.query.unfound == ["grace jean"]


def test_what_is_not_a_text_is_refused_by_document_and_field(tmp_path: Path, site: Site) -> None:
    with Collection.create(tmp_path / "index", INFO) as collection:
        with pytest.raises(DataError, match="'bad': authors is 7, expected text"):
            collection.writer.add([Document("bad", "t", {"authors": ["Ada", 7]})])
        with pytest.raises(DataError, match="'bad': title is"):
            collection.writer.add([Document("bad", "t", {"title": ["One", "Two"]})])
    refused = site.ask("POST", "/v1/documents", {"documents": [{"id": "x", "text": "t", "fields": {"authors": [{}]}}]})
    assert refused.status_code == 422 and "authors" in refused.text


def test_a_server_adds_changes_and_shows_lists(site: Site) -> None:
    def found(query: str, **asked: Any) -> dict[str, Any]:
        return {hit["id"]: hit for hit in site.search(query, **asked)["hits"]}

    assert {query: {*found(query)} for query in FOUND} == answers(FOUND)
    hit = found('"ada lovelace"', explain=True)["one"]
    assert hit["fields"]["authors"] == ["Ada Lovelace", None, ""] and hit["title"] == "Two"
    assert {one["term"] for one in hit["signals"]["words"]["terms"]} == {"ada", "lovelac"}
    added = {"id": "new", "text": "t", "fields": {"title": "New", "authors": ["Barbara Liskov", "Jean Sammet"]}}
    assert site.ask("POST", "/v1/documents", {"documents": [added]}).json()["added"] == 1
    assert {*found('"jean sammet"')} == {"new"} and found('"liskov jean"').keys() == {"new"}
    assert site.search('"liskov jean"')["unfound"] == ["liskov jean"]
    change = {"id": "new", "fields": {"authors": ["Liskov Jean"]}}
    assert site.ask("PATCH", "/v1/documents", {"documents": [change]}).status_code == 200
    assert "unfound" not in site.search('"liskov jean"') and site.search('"jean sammet"')["unfound"]
    assert site.search("words", facets=["authors"])["facets"]["authors"][0] == {"value": "Ada Grace", "count": 1}
    assert site.ask("GET", "/v1/suggest?q=tw").json()["suggestions"][0]["text"] == "Two"


def test_towers_and_rankers_read_a_list_as_one_text() -> None:
    assert SCHEMA.model_text(DOCUMENTS[0]) == "One by Ada Grace, Hopper Lovelace: On words"
