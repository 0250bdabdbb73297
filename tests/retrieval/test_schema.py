"""Fields of documents: schemas as they are inferred, declared and checked; BM25F against its formula in NumPy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from paddle_ranker.commands.index import main
from paddle_ranker.data.rows.records import DocumentRow
from paddle_ranker.errors import CheckpointError, DataError, UsageError
from paddle_ranker.lexical.tokens import tokenizer_named
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.stages.fusion import Fusion
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import IndexInfo, WordsInfo
from paddle_ranker.retrieval.stored.schema import FIELD_TYPES, Field, FieldType, Schema
from paddle_ranker.retrieval.stored.schema_inference import infer_schema
from paddle_ranker.retrieval.values.filters import Filter
from paddle_ranker.retrieval.vectors.vector_settings import VectorsInfo
from tests.serving.test_search import Site

pytestmark = pytest.mark.unit
TITLE = Field("title", "text", 3.0, title=True)
SCHEMA = Schema((TITLE, Field("year", "number")))
DOCUMENTS = [
    Document("a", "稻田 养鱼 病害", {"title": "水稻"}),
    Document("b", "水稻 水稻 病害 防治 手册 防治"),
    Document("c", "防治", {"title": "水稻 病害 防治", "year": 2020}),
    Document("d", "老年人 护理", {"title": "手册", "year": 2021}),
    Document("e", "水稻", {"title": "水稻"}),
]


def bm25f(query: str, documents: list[Document], schema: Schema, k1: float = 1.2, b: float = 0.75) -> dict[str, float]:
    """Return the scores of Robertson, Zaragoza and Taylor (2004), each field repeated weight times, Lucene's rarity."""
    tokenize = tokenizer_named("bigram")
    texts = [[tokenize(" ".join(own)) for own in schema.searched(document)] for document in documents]
    lengths = np.array([[len(tokens) for tokens in row] for row in texts], float) @ np.array(schema.weights)
    scores = np.zeros(len(documents))
    for token in set(tokenize(query)):
        counts = np.array([[tokens.count(token) for tokens in row] for row in texts], float)
        held = int((counts.sum(axis=1) > 0).sum())
        if held:
            rarity = np.log(1 + (len(documents) - held + 0.5) / (held + 0.5))
            frequency = counts @ np.array(schema.weights) / (1 - b + b * lengths / lengths.mean())
            scores += rarity * frequency * (k1 + 1) / (frequency + k1)
    return {one.id: score for one, score in zip(documents, scores.tolist()) if score > 0}


def searched(collection: Collection, query: str) -> dict[str, float]:
    (hits,) = collection.snapshot().search("words", [query], 10)
    return dict(zip(hits.ids, hits.scores.tolist()))


@pytest.mark.parametrize("schema", [SCHEMA, Schema()], ids=["title and text", "text alone"])
def test_scores_are_those_of_the_formula_however_the_collection_is_divided(tmp_path: Path, schema: Schema) -> None:
    info = IndexInfo(WordsInfo("bigram"), None, schema=schema)
    with Collection.create(tmp_path / "one", info) as whole, Collection.create(tmp_path / "two", info) as parts:
        whole.writer.add(DOCUMENTS)
        for document in [*DOCUMENTS, Document("x", "水稻病害"), Document("y", "手册")]:
            parts.writer.add([document], merge=False)
        parts.writer.remove(["x", "y"])
        for query in ("水稻病害", "防治手册", "护理"):
            wanted = bm25f(query, DOCUMENTS, schema)
            assert wanted and searched(whole, query) == pytest.approx(wanted, abs=1e-9)
            assert searched(parts, query) == pytest.approx(wanted, abs=1e-9)
        while len(parts.info.segments) > 1:
            before = searched(parts, "水稻病害")
            parts.writer.add([Document(f"new{len(parts)}", "稻")], merge=True)
            parts.writer.remove([f"new{len(parts) - 1}"])
            assert searched(parts, "水稻病害") == pytest.approx(before, abs=1e-9)
            if parts.info.generation > 60:
                break
        assert searched(parts, "水稻病害") == pytest.approx(bm25f("水稻病害", DOCUMENTS, schema), abs=1e-9)


def test_labels_and_units_stay_with_a_field() -> None:
    declared = "price:number:label=Price today:unit=€"
    field = Field.parse(declared)
    assert (field.label, field.unit, str(field)) == ("Price today", "€", declared)
    with pytest.raises(UsageError, match="'unit=' is no option"):
        Field.parse("price:number:unit=")


def test_a_word_is_the_token_that_each_field_has_for_it_and_saturates_once(tmp_path: Path) -> None:
    fields = ("title:text:weight=3:title:analyser=accents", "note:text:analyser=jieba")
    schema = Schema(tuple(map(Field.parse, fields)))
    jieba = dict(zip((field.name for field in schema.words), schema.tokenizers("standard")))["note"]
    documents = [
        Document("folded", "un café noir", {"title": "Cafe"}),
        Document("text", "un café, deux cafés", {"title": "Thé"}),
        Document("other", "the cafe", {"title": "Bar"}),
        Document("note", "bar", {"title": "Bar", "note": "老年人护理学"}),
    ]
    info = IndexInfo(WordsInfo("standard"), None, schema=schema)
    with Collection.create(tmp_path / "index", info) as collection:
        for document in documents:
            collection.writer.add([document], merge=False)
        found = searched(collection, "Café")
        assert {*found} == {"folded", "text"}  # in a text without the option cafe is another word
        lengths, mean = {"folded": 3 * 1 + 3, "text": 3 * 1 + 4}, 3 * 1 + 9 / 4 + len(jieba("老年人护理学")) / 4
        rarity = np.log(1 + (4 - 2 + 0.5) / (2 + 0.5))
        for id, counts in (("folded", (1, 1)), ("text", (0, 1))):
            frequency = (3 * counts[0] + counts[1]) / (0.25 + 0.75 * lengths[id] / mean)
            assert found[id] == pytest.approx(rarity * frequency * 2.2 / (frequency + 1.2), abs=1e-9)
        assert {*searched(collection, "cafe")} == {"folded", "other"}
        assert collection.snapshot().explain_words("Café", ["folded"]) == {
            "folded": {"café": pytest.approx(found["folded"])}
        }
        assert {*searched(collection, "护理")} == {"note"} and "护理" in collection.snapshot().word_weights("护理")
        assert collection.snapshot().matching("bar").count(None) == 2
        collection.writer.merge(None)
        assert searched(collection, "Café") == pytest.approx(found, abs=1e-9)
    with Collection.open(tmp_path / "index") as collection:
        assert collection.info.schema == schema and searched(collection, "Café") == pytest.approx(found, abs=1e-9)


def test_one_text_under_two_titles_is_two_documents_with_vectors_of_their_own(tmp_path: Path) -> None:
    read: list[str] = []

    def vectors_of(texts: object) -> np.ndarray:
        read.extend(texts)  # type: ignore[arg-type]
        return np.array([[len(text), 1.0] for text in texts], np.float32)  # type: ignore[attr-defined]

    info = IndexInfo(WordsInfo("bigram"), VectorsInfo("exact", 2), schema=SCHEMA)
    with Collection.create(tmp_path / "index", info) as collection:
        rows = [DocumentRow("水稻", fields={"title": name}) for name in ("手册", "词典大全", "手册")]
        added = collection.writer.add_rows(rows, vectors_of)
        assert (added.new, added.repeated) == (2, 1) and read == ["手册 水稻", "词典大全 水稻"]
        assert collection.writer.add_rows(rows[:2], vectors_of).unchanged == 2 and len(read) == 2


def test_a_template_says_what_towers_and_rankers_read() -> None:
    schema = Schema((TITLE, Field("brand", "keyword")), "{brand}: {title} {text}")
    document = Document("a", "正文", {"title": "题", "brand": "甲"})
    assert (schema.model_text(document), schema.model_text(document, "段")) == ("甲: 题 正文", "甲: 题 段")
    assert SCHEMA.model_text(Document("a", "题", {"title": "题"})) == "题"  # a title alone is not read twice
    assert Schema().model_text(document) == "正文"


def test_fields_are_inferred_by_all_their_values() -> None:
    long = "A description of many words, long enough to be searched."
    rows = [
        DocumentRow("t", fields={"name": "git", "about": long, "year": "2020", "day": "2020-01-02", "ok": "true",
                                 "tags": ["a", "b"], "mixed": 1, "short": "zh", "nested": {"a": 1}}),
        DocumentRow("u", fields={"name": "vim", "about": long, "year": 7.5, "day": "2021", "ok": False,
                                 "tags": [], "mixed": "one", "short": None, "empty": ""}),
    ]  # fmt: skip
    found = {str(one) for one in infer_schema(rows, (Field("short", "stored"),)).fields}
    assert found == {
        "name:text:weight=5:title", "about:text", "year:number", "day:date", "ok:boolean", "tags:keyword:list",
        "mixed:stored", "short:stored", "nested.a:number",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("values", "field", "note"),
    [
        (["1000", "2000", "+1000", "-3", " 5 ", ".5", "2e6"], "number", ""),
        (["2020.0", "2020", "7.00", "+7"], "number", ""),  # as pandas writes them
        (["1.10", "1.1", "2"], "keyword", "x stays text: 1.10 (document 1) and 1.1 (document 2) would be one number"),
        (["1e3", "1000.0"], "keyword", "x stays text: 1e3 (document 1) and 1000 (document 2) would be one number"),
        (["1.10", "1.2", "1.10"], "number", ""),
        ([1.1, "1.10"], "number", ""),
        (["007", "1"], "keyword", ""),
        (["+4915123456789", "+4915123456780"], "keyword", ""),
        (["1", "2", "many"], "keyword", "x stays text: 1 of 3 values are no numbers, such as many (document 3)"),
        ([1, 2, "x"], "stored", "x stays as it is: 1 of 3 values are no numbers, such as x (document 3)"),
        (["2024-01-02", "2024-02", "3.4.24"], "keyword", "1 of 3 values are no dates, such as 3.4.24 (document 3)"),
        (["true", "false", "TRUE", "?"], "keyword", "1 of 4 values are no truth values, such as ? (document 4)"),
        (["a", "b", "1"], "keyword", ""),
        (["1", "2", "n/a"], "number", "x: 1 of 3 values stands for none (n/a)"),
    ],
)
def test_the_type_of_a_field_is_that_which_reads_all_values_and_exceptions_are_named(
    values: list[object], field: str, note: str
) -> None:
    notes: list[str] = []
    (found,) = infer_schema((DocumentRow("t", None, {"x": value}) for value in values), note=notes.append).fields
    assert str(found) == f"x:{field}"
    assert [note in said for said in notes] == [True] * bool(note)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ([f"{n:05}" for n in range(30)], "code:text:literal"),
        ([f"INV-{n}/B" for n in range(30)], "code:text:literal"),
        ([f"INV-{n}/B" for n in range(28)] + ["INV-1/B", "INV-2/B"], "code:text:literal"),
        ([f"INV-{n % 20}/B" for n in range(30)], "code:keyword"),  # repeated, as names of makers are
        ([f"INV-{n}" for n in range(10)], "code:keyword"),  # few
        ([f"No. {n}" for n in range(30)], "code:keyword"),
        ([f"https://shop.example/{n}.jpg" for n in range(30)], "code:keyword"),
        ([[f"a{n}", f"b{n}"] for n in range(30)], "code:keyword:list"),
    ],
)
def test_a_field_of_different_codes_is_searched(values: list[object], field: str, tmp_path: Path) -> None:
    rows = [DocumentRow("thing", fields={"code": value}) for value in values]
    (found,) = infer_schema(rows).fields
    assert str(found) == field
    documents = [Document(f"d{n}", "thing", row.fields) for n, row in enumerate(rows)]
    with Collection.create(
        tmp_path / "index", IndexInfo(WordsInfo("standard"), None, schema=Schema((found,)))
    ) as collection:
        collection.writer.add(documents)
        snapshot, value = collection.snapshot(), values[7] if isinstance(values[7], str) else ""
        if value:
            assert snapshot.search("words", [value], 1)[0].ids == ["d7"]
            assert snapshot.matching(None).count(Filter.parse([f'code="{value}"'])) == values.count(value)


@pytest.mark.parametrize(("characters", "weight"), [(0, 1.0), (160, 1.0), (240, 5.0), (900, 5.0)])
def test_a_field_that_is_short_beside_the_texts_is_a_summary_and_weighs_as_a_title(
    characters: int, weight: float
) -> None:
    summary = "A description of many words, long enough to be searched."
    rows = [DocumentRow("x" * characters, fields={"name": "git", "summary": summary})] * 3
    (field,) = [one for one in infer_schema(rows).fields if one.name == "summary"]
    assert field.is_searched and field.weight == weight


@pytest.mark.parametrize(
    "text, fragment",
    [
        ("title", "expected NAME:TYPE"),
        ("price:nummer", "(did you mean number?)"),
        ("title:words", "type of text, keyword"),
        ("new:boolean:weight=2", "no option of a boolean field"),
        ("title:text:weight=-1", "no option of a text field"),
        ("title:text:title:list", "is one text; leave out list"),
        ("text:text:list", "is one text; leave out list"),
        ("title:text:analyser=klingon", "joined by +"),
        ("new:boolean:analyser=accents", "no option of a boolean field"),
        ("year:number:title", "no option of a number field"),
        ("text:text:weight=0", "no option of a text field"),
        ("id:text", "id and text are what every document has"),
        ("a:text,a:text", "given twice"),
        ("a:text:title,b:text:title", "name one"),
    ],
)
def test_a_field_that_cannot_be_is_refused(text: str, fragment: str) -> None:
    with pytest.raises(UsageError, match=fragment):
        Schema(tuple(map(Field.parse, text.split(","))))


@pytest.mark.parametrize("template", ["{title}", "{other} {text}"])
def test_a_template_that_cannot_be_is_refused(template: str) -> None:
    with pytest.raises(UsageError, match="--template"):
        Schema((TITLE,), template)


def test_a_value_that_does_not_fit_is_refused_by_document_and_field(tmp_path: Path) -> None:
    with Collection.create(tmp_path / "index", IndexInfo(WordsInfo("bigram"), None, schema=SCHEMA)) as collection:
        with pytest.raises(DataError, match="'bad': year is 'soon', expected a number"):
            collection.writer.add([Document("good", "稻", {"year": "2020"}), Document("bad", "稻", {"year": "soon"})])
        assert len(collection) == 0
        collection.writer.add([Document("good", "稻", {"year": None, "other": ["free", 1]})])


def test_a_build_infers_shows_and_keeps_the_schema(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus, index = tmp_path / "corpus.tsv", tmp_path / "index"
    corpus.write_text(
        "id\ttitle\ttext\tyear\n1\tgit\tversion control with vim\t2005\n2\tvim\teditor beside git git\t1991\n"
    )
    assert main(["build", "--corpus", str(corpus), "--output", str(index)]) == 0
    assert "title:text:weight=5:title" in capsys.readouterr().out
    with Collection.open(index) as collection:
        assert [collection.snapshot().search("words", [name], 1)[0].ids for name in ("git", "vim")] == [["1"], ["2"]]
        assert collection.snapshot().document("1") == Document(
            "1", "version control with vim", {"title": "git", "year": 2005}
        )
        assert collection.snapshot().matching(None).count(Filter.parse(["year<2000"])) == 1
    assert main(["build", "--corpus", str(corpus), "--output", str(index), "--field", "year:keyword"]) == 1
    more = tmp_path / "more.jsonl"
    more.write_text('{"id": "3", "title": "nginx", "text": "server", "year": "soon"}\n')
    assert main(["add", str(index), "--corpus", str(more)]) == 1
    assert "year is 'soon'" in capsys.readouterr().err
    assert main(["info", str(index)]) == 0 and "year:number" in capsys.readouterr().out


def test_a_schema_is_as_safe_to_open_as_the_rest_of_a_folder(tmp_path: Path) -> None:
    with Collection.create(tmp_path / "index", IndexInfo(WordsInfo("bigram"), None, schema=SCHEMA)) as collection:
        collection.writer.add(DOCUMENTS)
    manifest = tmp_path / "index" / "index.json"
    whole = json.loads(manifest.read_text())
    fields = whole["schema"]["fields"]
    changes: list[dict[str, object]] = [{"weight": "3"}, {"weight": 0}, {"type": "none"}, {"name": 7}, {"title": 1}]
    changes += [{"extra": 1}, {"analyser": 1}, {"analyser": "klingon"}, {"analyser": "accents"}]
    for change in changes:
        whole["schema"]["fields"] = [{**fields[0], **change}, *fields[1:]]
        manifest.write_text(json.dumps(whole))
        with pytest.raises(CheckpointError, match="damaged"):
            Collection.open(tmp_path / "index")


def test_a_type_of_fields_plugs_in_from_outside(tmp_path: Path) -> None:
    FIELD_TYPES.add("colour", FieldType(lambda value: str(value).startswith("#"), "a colour, #rrggbb"))
    try:
        schema = Schema((Field.parse("paint:colour:list"),))
        with Collection.create(tmp_path / "index", IndexInfo(WordsInfo("bigram"), None, schema=schema)) as collection:
            with pytest.raises(DataError, match="paint is 'red', expected a colour"):
                collection.writer.add([Document("a", "稻", {"paint": ["#fff", "red"]})])
            collection.writer.add([Document("a", "稻", {"paint": ["#fff", "#000"]})])
            assert collection.snapshot().matching(None).count(Filter.of({"paint": "#000"})) == 1
    finally:
        FIELD_TYPES.remove("colour")


def test_a_server_searches_and_marks_by_analysers_and_learned_weights(tmp_path: Path) -> None:
    schema = Schema((Field.parse("title:text:weight=3:title"), Field.parse("text:text:analyser=accents+french")))
    documents = [
        Document("title", "un noir et un blanc", {"title": "chevaux"}),
        Document("text", "Les élèves et leurs chevaux", {"title": "Cours"}),
    ]
    with Collection.create(tmp_path / "index", IndexInfo(WordsInfo("standard"), None, schema=schema)) as collection:
        collection.writer.add(documents)
    Fusion(title=0.0, fields={"title": 0.1, "text": 8.0}).write(tmp_path / "weights.json", {})
    for options, wanted in (({}, ["title", "text"]), ({"fusion": str(tmp_path / "weights.json")}, ["text", "title"])):
        site = Site(index=tmp_path / "index", **options)
        try:
            for more in ({}, {"fusion": "weighted"}):
                assert [hit["id"] for hit in site.search("chevaux", **more)["hits"]] == wanted
            (hit,) = site.search("eleve", explain=True)["hits"]
            assert [hit["text"][one["start"] : one["end"]] for one in hit["highlights"]] == ["élèves"]
            (term,) = hit["signals"]["words"]["terms"]
            assert term["at"] == [[4, 10]] and term["added"] == pytest.approx(hit["stages"]["words"]["score"])
        finally:
            site.close()


def test_words_of_columns_and_ids_are_found(tmp_path: Path) -> None:
    names = ("maker:keyword", "at:keyword", "code:text:literal", "price:number", "day:date", "size:number:weight=0")
    schema = Schema(tuple(map(Field.parse, names)))
    rows = [
        ("00031", "Bosch", "21:16", "27:38", 206.8, "2025-11-03", 71),
        ("00032", "Makita", "16:21", "38:27", 99, "2024-01-02", 72),
    ]
    documents = [Document(row[0], "saw", dict(zip((name.split(":")[0] for name in names), row[1:]))) for row in rows]
    others = [Document(f"k{n}", "21 16 21 16 27 38 27 38", {"at": "6", "code": "20"}) for n in range(9)]
    info = IndexInfo(WordsInfo("standard"), None, schema=schema)
    with Collection.create(tmp_path / "index", info) as collection:
        collection.writer.add(documents)
        snapshot = collection.snapshot()
        for query in ("bosch", "206.8", "206.80", "206,80", "2025-11-03", "00031"):
            assert snapshot.search("words", [query], 5, titles=True)[0].ids == ["00031"], query
        assert snapshot.search("words", ["71"], 5)[0].ids == []
        collection.writer.add(others)
        # The document that has the whole query comes first, although others have its words more often.
        for query in ("21:16", "27:38", "206,80", "00031"):
            (hits,) = collection.snapshot().search("words", [query], 5, titles=True)
            assert hits.titles is not None and [hits.ids[row] for row in np.flatnonzero(hits.titles == 1)] == ["00031"]


def test_addresses_are_shown_and_neither_searched_nor_counted(tmp_path: Path) -> None:
    from paddle_ranker.serving.http.search_routes import _fields

    good = ("https://a.example/x?y=1#z", "HTTP://[::1]:80", "https://例子.example/图.png")
    bad = (
        "a.example",
        "//a.example",
        "javascript:alert(1)",
        "https://",
        "https://user:pw@a.example/",
        "https://a b/",
        7,
    )
    for kind in ("url", "picture-url"):
        field = Field.parse(f"at:{kind}")
        assert str(field) == f"at:{kind}" and not field.is_searched
        assert not any(map(field.problem, (*good, None)))
        assert all("expected the address" in field.problem(one) or "an address" in field.problem(one) for one in bad)
    schema = Schema(
        (TITLE, Field.parse("shop:url"), Field.parse("image:picture-url:list"), Field.parse("kind:keyword"))
    )
    documents = [
        Document(str(n), f"saw {n}", {"shop": f"https://s.example/{n % 2}", "image": [good[0]], "kind": f"k{n % 2}"})
        for n in range(8)
    ]
    with Collection.create(tmp_path / "index", IndexInfo(WordsInfo("bigram"), None, schema=schema)) as collection:
        collection.writer.add(documents)
        found = _fields(collection.snapshot())
        assert found["fields"]["shop"] == {"type": "url"} and found["facets"] == ["kind"]
        assert found["fields"]["image"] == {"type": "picture-url", "list": True}
        with pytest.raises(DataError, match="shop is 'saw'"):
            collection.writer.add([Document("x", "saw", {"shop": "saw"})])
