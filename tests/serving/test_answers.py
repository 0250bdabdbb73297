"""Answers to searches of documents with fields: titles, totals, facets, sorting, groups, snippets, changes, lists."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paddle_ranker.lexical.postings import text_hashes
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import IndexInfo, WordsInfo
from paddle_ranker.retrieval.stored.schema import Field, Schema
from paddle_ranker.retrieval.values.filters import Filter
from tests.retrieval.oracle import meets
from tests.serving.test_search import Site

pytestmark = pytest.mark.unit
SCHEMA = Schema((Field("title", "text", 3.0, title=True), Field("year", "number"), Field("tags", "keyword", list=True)))
KINDS = ["zh", "en", "fr"]
RANGED = [  # numbers and dates of many values, fields of few, and some that are neither
    Document(
        f"r{n}",
        "水稻" if n % 3 else "护理",
        {
            "price": round(1.1**n / 7, 2),
            "size": 10 * (n % 90),
            "balance": n - 40,
            "day": f"{1990 + n % 30}-{1 + n % 12:02}-{1 + n % 28:02}"[: (10, 7, 4)[n % 3]],
            "at": f"2024-02-{1 + n % 20:02}T{n % 24:02}:30:00+08:00",
            "phone": f"{13000 + n % 50}",
            "marks": [n % 40, 3],
            "big": 2**60 + n % 20,
            "kind": KINDS[n % 3],
            "stars": n % 5,
            "new": n % 2 == 0,
            "row": n,
        },
    )
    for n in range(120)
]
DOCUMENTS = [
    Document(
        f"d{n:02}",
        f"水稻{'病害' if n % 2 else '种植'}" + "的研究" * (n % 5) + ("长" * 400 + "。水稻防治。" if n == 7 else ""),
        {"title": f"手册{n}", "year": 2000 + n % 6, "kind": KINDS[n % 3], "tags": ["a", "b"][: n % 3]},
    )
    for n in range(30)
] + [Document("other", "护理", {"title": "护理", "day": "2020-01-01"})]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("answers") / "index"
    with Collection.create(folder, IndexInfo(WordsInfo("standard"), None, schema=SCHEMA)) as collection:
        collection.writer.add(DOCUMENTS[:20])
        collection.writer.add([*DOCUMENTS[20:], Document("gone", "水稻", {"kind": "de"})], merge=False)
        collection.writer.remove(["gone"])
    made = Site(index=folder, writable=True)
    yield made
    made.close()


def ids(found: dict[str, Any]) -> list[str]:
    return [hit["id"] for hit in found["hits"]]


def test_a_hit_has_its_title_and_a_title_is_found(site: Site) -> None:
    (hit,) = site.search("手册7", top_k=1)["hits"]
    assert (hit["id"], hit["title"]) == ("d07", "手册7") and "read" not in hit


def test_total_and_facets_count_what_words_find(site: Site) -> None:
    where = {"kind": ["zh", "en"], "year": {"gte": 2002}}
    found = site.search("水稻", top_k=3, total=True, facets=["kind", "tags", "day"], where=where)
    rice = [one for one in DOCUMENTS if "水稻" in one.text]
    met = [one for one in rice if meets(Filter.of(where), one.fields)]
    assert found["total"] == len(met) and "total" not in site.search("水稻")
    kinds = Counter(one.fields["kind"] for one in rice if meets(Filter.of({"year": {"gte": 2002}}), one.fields))
    assert {one["value"]: one["count"] for one in found["facets"]["kind"]} == kinds  # without its own condition
    tags = Counter(tag for one in met for tag in one.fields["tags"])  # type: ignore[attr-defined]
    assert [(one["value"], one["count"]) for one in found["facets"]["tags"]] == tags.most_common()
    assert found["facets"]["day"] == []


def test_numbers_and_dates_are_counted_by_ranges_that_filter(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    schema = Schema((Field("size", "number"), Field("phone", "keyword")))
    with Collection.create(folder, IndexInfo(WordsInfo("standard"), None, schema=schema)) as collection:
        collection.writer.add(RANGED[:50])
        collection.writer.add(RANGED[50:], merge=False)
        collection.writer.remove(["r7", "r100"])
    here = Site(index=folder, writable=True)
    live = [one for one in RANGED if one.id not in ("r7", "r100")]
    rice = [one for one in live if "水稻" in one.text]
    ranged, names = {"price", "size", "balance", "day", "at", "row"}, list(RANGED[0].fields)
    for where in ({}, {"size": {"gte": 100}, "new": True}, {"kind": "zh", "stars": [1, 2, 3]}):
        found = here.search("水稻", total=True, facets=names, where=where)
        assert found["total"] == sum(meets(Filter.of(where), one.fields) for one in rice)
        assert here.search("水稻", total=True, where=where, by=["words"], top_k=1)["total"] == found["total"]
        for name, counted in found["facets"].items():
            others = {key: value for key, value in where.items() if key != name}
            among = [one for one in rice if meets(Filter.of(others), one.fields)]
            for one in counted:  # each value and range, put into a filter, meets as many documents
                met = Filter.of({name: one["value"]})
                assert sum(meets(met, document.fields) for document in among) == one["count"] > 0, (name, one)
            if name in ranged and not where:
                assert 2 <= len(counted) <= 10 and sum(one["count"] for one in counted) == len(among), name
            assert any("gte" in str(one["value"]) for one in counted) == (name in ranged) or where, name
    assert here.search("水稻", facets=["size"])["facets"]["size"][-1]["value"] == {"gte": 800, "lt": 900}
    described = here.ask("GET", "/v1/index").json()
    assert described["facets"] == sorted(set(names) - {"balance", "row"})  # which differ in every document, as ids do
    assert {name: one.get("min") for name, one in described["fields"].items() if "min" in one} == {
        "at": "2024-01-31", "balance": -40, "day": "1990-01-01", "price": 0.14, "row": 0, "size": 0, "stars": 0,
    }  # fmt: skip
    assert [described["fields"][name]["type"] for name in ("day", "marks", "phone")] == ["date", "integer", "string"]
    here.close()


def test_candidates_are_sorted_and_grouped_by_fields(site: Site) -> None:
    fields: dict[str, Any] = {one.id: one.fields for one in DOCUMENTS}
    by_score = ids(site.search("水稻 护理", top_k=100))
    found = ids(site.search("水稻 护理", top_k=100, sort=["-year", "kind"]))
    hashes = dict(zip(by_score, text_hashes(by_score).tolist()))
    wanted = sorted(by_score, key=lambda id: (-fields[id].get("year", 0), fields[id].get("kind", "zz"), hashes[id]))
    assert found == wanted and found[-1] == "other"
    grouped = ids(site.search("水稻 护理", top_k=100, group_by="kind", group_size=2))
    seen: Counter[object] = Counter()
    wanted = []
    for id in by_score:
        seen[fields[id].get("kind")] += 1
        if seen[fields[id].get("kind")] <= 2 or id == "other":
            wanted.append(id)
    assert grouped == wanted
    page = site.search("水稻 护理", top_k=2, offset=2, group_by="kind", group_size=2)
    assert ids(page) == wanted[2:4] and [hit["rank"] for hit in page["hits"]] == [3, 4]


def test_values_of_facets_are_looked_through(tmp_path: Path) -> None:
    makers = [f"Maker {n:03}" for n in range(150)] + ["Säge & Söhne", "ＳÄＧＥＮ"]
    schema = Schema((Field("maker", "keyword", facet=True), Field("price", "number"), Field("new", "boolean")))
    documents = [
        Document(f"m{n}", "saw", {"maker": maker, "price": n, "new": n % 2 == 0}) for n, maker in enumerate(makers)
    ]
    with Collection.create(tmp_path / "index", IndexInfo(WordsInfo("standard"), None, schema=schema)) as collection:
        collection.writer.add(documents)
    here, most = Site(index=tmp_path / "index"), 100
    assert here.ask("GET", "/v1/index").json()["limits"]["facet_values"] == most
    for query in ("saw", ""):
        asked: dict[str, Any] = {"query": query, "facets": ["maker", "new"], "top_k": 1}
        assert len(here.search(**asked)["facets"]["maker"]) == most
        for part, wanted in (("sage", makers[-2:]), ("ÄGE &", makers[-2:-1]), ("maker 14", makers[140:150]), ("?", [])):
            found = here.search(**asked, facet_values={"maker": part})["facets"]
            assert sorted(one["value"] for one in found["maker"]) == sorted(wanted), part
            assert len(found["new"]) == 2
        values = here.search(**asked, facet_values={"new": "TRU"})["facets"]["new"]
        assert values == [{"value": True, "count": 76}]
    for given, problem in (
        ({"facet_values": {"maker": "a"}}, "'maker' is not among facets"),
        ({"facets": ["price"], "facet_values": {"price": "1"}}, "'price' is counted by ranges"),
    ):
        refused = here.ask("POST", "/v1/search", {"query": "saw", **given})
        assert refused.status_code == 422 and problem in refused.text and refused.json()["field"] == "facet_values"
    by_address = here.ask("GET", '/v1/search?q=saw&facets=maker&facet_values={"maker":"sage"}').json()
    assert len(by_address["facets"]["maker"]) == 2
    here.close()


def test_long_values_are_left_out_where_nobody_shows_them(site: Site) -> None:
    fields = {"title": "手" * 400, "note": "长" * 301, "kind": "短" * 300, "tags": ["x" * 200, "y" * 200], "year": 2024}
    site.ask("POST", "/v1/documents", {"documents": [{"id": "long", "text": "龙" * 5000, "fields": fields}]})
    (hit,) = site.search("龙", field_size=300, snippet=180, top_k=1)["hits"]
    assert hit["title"] == "手" * 300 and hit["fields"] == {"kind": "短" * 300, "year": 2024}
    assert hit["snippet"]["of"] == 5000 and len(json.dumps(hit, ensure_ascii=False)) < 6000
    (whole,) = site.search("龙", top_k=1)["hits"]
    assert whole["fields"] == fields and whole["title"] == fields["title"]
    assert site.ask("DELETE", "/v1/documents", {"ids": ["long"]}).status_code == 200


def test_a_snippet_stands_for_the_text(site: Site) -> None:
    (hit,) = (hit for hit in site.search("水稻防治", snippet=20, where={"title": "手册7"})["hits"])
    snippet = hit["snippet"]
    text = next(one.text for one in DOCUMENTS if one.id == "d07")
    assert (
        "text" not in hit and snippet["text"] == text[snippet["start"] : snippet["end"]] and len(snippet["text"]) == 20
    )
    marked = [snippet["text"][one["start"] : one["end"]] for one in snippet["highlights"]]
    assert "水稻防治" in "".join(marked)
    both = site.search("水稻防治", snippet=20, fields=["text"], where={"title": "手册7"})["hits"][0]
    assert both["text"] == text and both["snippet"] == snippet


@pytest.mark.parametrize("how", [{}, {"sort": ["year"]}, {"group_by": "year", "group_size": 3}])
def test_a_cursor_goes_on_in_an_index_that_has_changed(tmp_path: Path, how: dict[str, Any]) -> None:
    folder = tmp_path / "index"
    with Collection.create(folder, IndexInfo(WordsInfo("standard"), None, schema=SCHEMA)) as collection:
        collection.writer.add(DOCUMENTS[:20])
    changing = Site(index=folder, writable=True)
    try:
        whole = ids(changing.search("水稻", top_k=20, **how))
        first = changing.search("水稻", top_k=5, cursor="", **how)
        for gone, shown in (
            ([], whole[5:10]),
            ([whole[0], whole[7]], [*whole[5:7], *whole[8:11]]),  # before and behind
            (whole[3:5], [*whole[5:7], *whole[8:11]]),  # those that were shown last
            (whole[1:3], [*whole[5:7], *whole[8:11]]),  # and all of the first page
        ):
            if gone:
                changing.ask("DELETE", "/v1/documents", {"ids": gone})
            assert ids(changing.search("水稻", top_k=5, cursor=first["cursor"], **how)) == shown
    finally:
        changing.close()


def test_a_cursor_of_something_else_is_refused(site: Site) -> None:
    cursor = site.search("水稻", top_k=5, cursor="")["cursor"]
    whole = ids(site.search("水稻", top_k=10))
    address = f"/v1/search?q=水稻&top_k=5&total=true&cursor={cursor}"
    assert ids(site.ask("GET", address).json()) == whole[5:]
    for asked in (
        {"query": "护理"}, {"top_k": 6}, {"offset": 5}, {"sort": ["year"]}, {"where": {"year": 2001}},
        {"cursor": cursor[:-4]}, {"cursor": "x" + cursor[1:]}, {"cursor": "水稻"}, {"cursor": "x"},
    ):  # fmt: skip
        answer = site.ask("POST", "/v1/search", {"query": "水稻", "top_k": 5, "cursor": cursor, **asked})
        assert (answer.status_code, answer.json()["field"]) == (422, "cursor"), asked
    assert site.search("护", cursor="")["cursor"] is None and site.search("没", cursor="")["cursor"] is None


@pytest.mark.parametrize(
    "asked, status, fragment",
    [
        ({"facets": ["none"]}, 422, "'none' is no field"),
        ({"sort": ["-none"]}, 422, "'none' is no field"),
        ({"group_by": "none"}, 422, "'none' is no field"),
        ({"sort": ["kind"] * 17}, 413, "at most 16"),
        ({"snippet": 0}, 422, "snippet"),
        ({"group_size": 0}, 422, "group_size"),
    ],
)
def test_what_cannot_be_answered_is_refused(site: Site, asked: dict[str, Any], status: int, fragment: str) -> None:
    answer = site.ask("POST", "/v1/search", {"query": "水稻", **asked})
    assert answer.status_code == status and fragment in answer.text


def test_documents_are_listed_page_by_page(site: Site) -> None:
    listed, after = [], ""
    while True:
        page = site.ask("GET", f"/v1/documents?limit=7{after}").json()["documents"]
        listed += page
        if len(page) < 7:
            break
        after = f"&after={page[-1]['id']}"
    found = [Document(one["id"], one["text"], one["fields"]) for one in listed]
    assert sorted(found, key=lambda one: one.id) == sorted(DOCUMENTS, key=lambda one: one.id)
    for where, status in (
        ("after=none", 200),
        ("limit=0", 422),
        ("limit=x", 422),
        ("limit=1&limit=2", 422),
        ("n=1", 422),
    ):
        assert site.ask("GET", f"/v1/documents?{where}").status_code == status, where


def test_fields_are_checked_changed_and_taken_away(site: Site) -> None:
    given = {"id": "new", "text": "甲乙", "title": "题", "fields": {"year": "2020"}}
    assert site.ask("POST", "/v1/documents", {"documents": [given]}).json()["added"] == 1
    changed = site.ask("PATCH", "/v1/documents", {"documents": [{"id": "new", "year": None, "kind": "zh"}]})
    assert changed.status_code == 200 and changed.json()["replaced"] == 1
    wanted = {"id": "new", "text": "甲乙", "fields": {"title": "题", "kind": "zh"}, "version": 2}
    assert site.ask("GET", "/v1/documents/new").json() == wanted
    for method, document, status, fragment in (
        ("POST", {**given, "year": "soon", "fields": {}}, 422, "year is 'soon', expected a number"),
        ("POST", {**given, "year": 1}, 422, "year twice"),
        ("POST", {**given, "fields": {"text": "x"}}, 422, "beside the fields"),
        ("PATCH", {"id": "new", "year": "soon"}, 422, "year is 'soon'"),
        ("PATCH", {"id": "none", "year": 1}, 404, "no document none"),
        ("PATCH", {"id": "new", "text": ""}, 422, "text"),
    ):
        answer = site.ask(method, "/v1/documents", {"documents": [document]})
        assert answer.status_code == status and fragment in answer.text, answer.text
    assert site.ask("GET", "/v1/documents/new").json() == wanted
    assert site.ask("DELETE", "/v1/documents", {"ids": ["new"]}).json()["removed"] == 1
