"""Index folders: what is found against BM25 and products worked out apart, whatever the order of adds and removals."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np
import pytest

from paddle_ranker.array_types import Vectors
from paddle_ranker.errors import CheckpointError, DataError, UsageError
from paddle_ranker.lexical.bm25 import BM25
from paddle_ranker.lexical.tokens import bigrams
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.index.index_folder import IndexFolder
from paddle_ranker.retrieval.index.merging import merge_segments
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import IndexInfo, WordsInfo, read_manifest
from paddle_ranker.retrieval.values.filters import Filter
from paddle_ranker.retrieval.vectors.vector_settings import VectorsInfo
from tests.retrieval.oracle import meets

pytestmark = pytest.mark.unit
SIZE = 8


def text_of(number: int) -> str:
    draw = random.Random(number)
    return "".join(draw.choice("水稻病害诊断老人护理") for _ in range(draw.randint(1, 12))) + f" {number % 7}"


def documents_of(numbers: Sequence[int]) -> list[Document]:
    return [Document(f"d{n}", text_of(n), {"lang": "zh" if n % 3 else "en", "year": 2000 + n % 25}) for n in numbers]


def vectors_of(texts: Sequence[str]) -> Vectors:
    rows = [np.random.default_rng(sum(map(ord, text))).normal(size=SIZE) for text in texts]
    return np.array([row / np.linalg.norm(row) for row in rows], np.float32).reshape(-1, SIZE)


def new_index(folder: Path) -> Collection:
    return Collection.create(folder, IndexInfo(WordsInfo("bigram"), VectorsInfo("exact", SIZE)))


def expected(documents: Sequence[Document], query: str, k: int, by: str) -> tuple[list[str], list[float]]:
    """Work the answer out from all documents, in their order."""
    if by == "words":
        formula = BM25("bigram", normalised=False)
        formula.statistics = type(formula.statistics)(bigrams(one.text) for one in documents)
        scores = formula.score([query] * len(documents), [one.text for one in documents])
    else:
        scores = (vectors_of([one.text for one in documents]) @ vectors_of([query])[0]).astype(float)
    order = [n for n in np.argsort(-np.round(scores, 5), kind="stable") if by == "vectors" or scores[n] > 0][:k]
    return [documents[n].id for n in order], [float(scores[n]) for n in order]


@pytest.mark.parametrize("where", [None, "lang=zh"])
@pytest.mark.parametrize("most", [2, 100])
def test_adds_replacements_and_removals_leave_what_one_build_would(
    tmp_path: Path, where: Optional[str], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paddle_ranker.retrieval.index.merging.MOST_SEGMENTS", most)  # merged often, and never
    monkeypatch.setattr("paddle_ranker.retrieval.index.ingestion.AT_ONCE", 15 if most == 2 else 100)
    collection, draw = new_index(tmp_path / "index"), random.Random(3)
    kept: dict[str, Document] = {}
    for step in range(6):
        some = documents_of(draw.sample(range(200), 25))
        if step % 3 == 2:
            gone = [one.id for one in some]
            assert collection.writer.remove(gone) == sum(kept.pop(id, None) is not None for id in gone)
            continue
        changed = [Document(one.id, one.text + "改" * step, one.fields) for one in some]
        added = collection.writer.add(changed, vectors_of)
        assert (added.new, added.replaced) == (25 - sum(one.id in kept for one in some), 25 - added.new)
        for one in changed:
            kept.pop(one.id, None)
            kept[one.id] = one
    collection.close()
    again = Collection.open(tmp_path / "index")
    documents = list(kept.values())
    assert len(again.info.segments) <= most and again.snapshot().verify()[0] > 10
    assert len(again) == len(documents) and [one.id for one in again.snapshot().documents()] == list(kept)
    filters = Filter.parse([where]) if where else None
    for query in map(text_of, range(500, 520)):
        for by in ("words", "vectors"):
            given = [query] if by == "words" else vectors_of([query])
            (hits,) = again.snapshot().search(by, given, 7, filters)
            ids, scores = expected(documents, query, len(documents), by)
            pairs = [(i, s) for i, s in zip(ids, scores) if filters is None or meets(filters, kept[i].fields)][:7]
            assert hits.ids == [i for i, _ in pairs]
            np.testing.assert_allclose(hits.scores, [s for _, s in pairs], rtol=1e-5)


def test_a_truth_value_in_the_place_of_a_number_is_a_change(tmp_path: Path) -> None:
    with new_index(tmp_path / "index") as collection:
        collection.writer.add([Document("a", "水稻", {"flag": 1, "more": {"x": [0, 1.5]}})], vectors_of)
        assert collection.writer.add([Document("a", "水稻", {"more": {"x": [0, 1.5]}, "flag": 1})]).unchanged == 1
        for flag, inner, where in ((True, 0, "flag=true"), (True, False, "flag=true"), (1, False, "flag=1")):
            changed = Document("a", "水稻", {"flag": flag, "more": {"x": [inner, 1.5]}})
            assert collection.writer.add([changed]).replaced == 1
            assert repr(collection.snapshot().document("a").fields) == repr(changed.fields)
            assert collection.snapshot().search("words", ["水稻"], 1, Filter.parse([where]))[0].ids == ["a"]


def test_what_an_unfinished_addition_has_encoded_is_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paddle_ranker.retrieval.index.ingestion.AT_ONCE", 10)
    folder, documents, encoded = tmp_path / "index", documents_of(range(45)), 0

    def counting(texts: Sequence[str]) -> Vectors:
        nonlocal encoded
        encoded += len(texts)
        if encoded == 30:
            raise KeyboardInterrupt
        return vectors_of(texts)

    with new_index(folder) as collection, pytest.raises(KeyboardInterrupt):
        collection.writer.add(documents, counting)
    with Collection.open(folder, write=True) as collection:
        assert len(collection) == 0 and encoded == 30
        encoded = 100
        collection.writer.add(documents, counting)
        assert encoded == 100 + 45 - 20  # two parts of ten were done
        assert [one.id for one in collection.snapshot().documents()] == [one.id for one in documents]
        assert collection.snapshot().search("vectors", vectors_of([documents[3].text]), 1)[0].scores[
            0
        ] == pytest.approx(1.0)
        assert {path.name for path in folder.iterdir()} - collection.info.files() == {"index.json", "writer.lock"}


def test_a_killed_addition_keeps_the_vectors_of_the_last_seconds_at_least(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Encoding is slow: all is one chunk, and not half of it is done."""
    monkeypatch.setattr("paddle_ranker.retrieval.index.ingestion._FIRST_PIECE", 10)
    clock, encoded = 0.0, list[str]()
    monkeypatch.setattr("paddle_ranker.retrieval.index.ingestion.time.monotonic", lambda: clock)

    def slowly(texts: Sequence[str]) -> Vectors:
        nonlocal clock
        clock += len(texts)  # a text a second
        encoded.extend(texts)
        if len(encoded) == 60:
            raise KeyboardInterrupt
        return vectors_of(texts)

    documents = documents_of(range(100))
    with new_index(tmp_path / "index") as collection, pytest.raises(KeyboardInterrupt):
        collection.writer.add(documents, slowly)
    with Collection.open(tmp_path / "index", write=True) as collection:
        collection.writer.add(documents, slowly)
        assert len(encoded) <= 60 + 100 - 40 and [one.id for one in collection.snapshot().documents()] == [
            f"d{n}" for n in range(100)
        ]
        assert {path.name for path in collection.folder.iterdir()} - collection.info.files() == {
            "index.json",
            "writer.lock",
        }


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ({"size": {}}, "no operator"), ({"size": {"near": 1}}, "'near' is no operator"),
        ({"size": {"in": "ab"}}, "in takes"),
        ({"size": {"eq": [1]}}, "in takes several"), ({"size": {"gte": None}}, "a text or a number"),
        ({"size": float("nan")}, "nan"),
        ({"size": {"lt": True}}, "a text or a number"),
        ({"siez": 1}, "'siez' is no field of these documents, which have "),
        ({"size": {"gt": "abc"}}, "'size' holds numbers, which > 'abc' cannot compare"),
        ({"size": "abc"}, "cannot compare"),
        ({"size": {"ne": "abc"}}, "cannot compare"), ({"size": [1, "abc"]}, "cannot compare"),
        ({"flag": 1}, "truth values"),
        ({"title": {"gt": 5}}, "'title' holds texts"), ({"day": {"gte": "soon"}}, "'day' holds dates"),
        ({"more": "a"}, "did you mean more.a"),
        ("size > abc", "cannot compare"), ("size=1 or size=2", "and joins conditions"),
        ("size", "expected FIELD=VALUE"),
        ('title="a" b', "quote the value"), ("title=>a", "quote the value"), ("title=a and", "expected FIELD=VALUE"),
    ],
)  # fmt: skip
def test_a_filter_that_cannot_be_meant_is_refused(tmp_path: Path, where: Any, says: str) -> None:
    fields = {"size": 7, "title": "a", "day": "2024-03-01", "flag": True, "more": {"a": 1}}
    with new_index(tmp_path / "index") as collection:
        collection.writer.add(
            [Document("a", "水稻", {**fields, "publication date": "2024-05-06"}), Document("b", "水稻", {"size": 8.5})],
            vectors_of,
        )
        with pytest.raises(UsageError, match=re.escape(says)):
            found = Filter.parse([where]) if isinstance(where, str) else Filter.of(where)
            collection.snapshot().search("words", ["水稻"], 5, found)
        for held, ids in (("publication date>=2024", ["a"]), ("'publication date'=null", ["b"]), ("day!=null", ["a"])):
            assert collection.snapshot().search("words", ["水稻"], 5, Filter.parse([held]))[0].ids == ids


def test_a_segment_that_lacks_a_file_is_not_opened_without_it(tmp_path: Path) -> None:
    info = IndexInfo(WordsInfo("bigram"), VectorsInfo("exact", SIZE, "int8"))
    with Collection.create(tmp_path / "index", info) as collection:
        collection.writer.add(documents_of(range(9)), vectors_of)
    (segment,) = (tmp_path / "index").glob("segment-*")
    for path in sorted(segment.iterdir()):
        whole = path.read_bytes()
        path.unlink()
        with pytest.raises(CheckpointError, match=rf"{segment.name}/{path.name} is missing"):
            Collection.open(tmp_path / "index")
        if path.name not in ("segment.json", "fields.jsonl"):
            path.write_bytes(whole[:-1])
            with pytest.raises(CheckpointError, match="damaged"):
                Collection.open(tmp_path / "index")
        path.write_bytes(whole)
    assert len(Collection.open(tmp_path / "index")) == 9


def test_who_opens_an_index_while_its_segments_are_deleted_opens_what_is_there_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with new_index(tmp_path / "index") as collection:
        collection.writer.add(documents_of(range(9)), vectors_of)
        before, (segment,) = collection.info, (tmp_path / "index").glob("segment-*")
        kept = {path.name: path.read_bytes() for path in segment.iterdir() if not path.name.startswith("words_")}
        collection.writer.remove([f"d{number}" for number in range(9)])
        collection.writer.add(documents_of([11]), vectors_of)
    segment.mkdir()  # half deleted
    for name, data in kept.items():
        (segment / name).write_bytes(data)
    read = iter([before])
    monkeypatch.setattr(
        "paddle_ranker.retrieval.index.index_folder.read_manifest",
        lambda folder: next(read, None) or read_manifest(folder),
    )
    assert [one.id for one in IndexFolder(tmp_path / "index").open_generation({}).documents()] == ["d11"]


def test_a_segment_that_goes_while_those_after_it_are_merged_takes_no_other_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Removals, and additions, go on while segments are merged."""
    many, few, last = documents_of(range(100)), documents_of(range(100, 108)), documents_of([200])

    def beside(*given: Any) -> None:
        merge_segments(*given)
        assert index.writer.remove([one.id for one in many]) == 100
        index.writer.add(last, vectors_of, merge=False)

    monkeypatch.setattr("paddle_ranker.retrieval.index.collection_writer.merge_segments", beside)
    with new_index(tmp_path / "index") as index:
        index.writer.add(many, vectors_of)
        for one in few:
            index.writer.add([one], vectors_of, merge=False)
        index.writer.merge()
        assert len(index.info.segments) == 2
    with Collection.open(tmp_path / "index") as index:
        assert list(index.snapshot().documents()) == [*few, *last] and index.snapshot().verify()


def test_an_index_is_whole_for_who_reads_it_while_another_one_merges_it(tmp_path: Path) -> None:
    with new_index(tmp_path / "index") as writing:
        writing.writer.add(documents_of(range(100)), vectors_of)
        for one in documents_of(range(100, 108)):
            writing.writer.add([one], vectors_of, merge=False)
        with Collection.open(tmp_path / "index") as reading:
            before = reading.snapshot()
            writing.writer.merge()
            with pytest.raises(CheckpointError, match="missing"):
                before.verify()
            assert reading.verify() == writing.verify()
            documents, *_ = (tmp_path / "index").glob("segment-*/documents.jsonl")
            documents.write_bytes(bytes(documents.stat().st_size))
            with pytest.raises(CheckpointError, match="not as it was written"):
                reading.verify()


@pytest.mark.parametrize("at_once", [100, 3])
def test_documents_have_so_many_fields_together(tmp_path: Path, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each field takes its bytes of every document, whether that has it or not."""
    monkeypatch.setattr("paddle_ranker.retrieval.index.ingestion.AT_ONCE", at_once)
    collection = new_index(tmp_path / "index")
    first = [Document(f"a{n}", text_of(n), {f"f{n}-{place}": place for place in range(100)}) for n in range(9)]
    collection.writer.add(first, vectors_of)
    over = [Document(f"b{n}", text_of(n), {f"g{n}-{place}": place for place in range(20)}) for n in range(9)]
    new = [name for document in over for name in document.fields]  # they are like those of the index
    with pytest.raises(DataError, match="document 'b5': with it, all have 1,020 fields together, above 1,000"):
        collection.writer.add(over, vectors_of, new_fields=new)
    assert len(collection) == 9 and len(collection.fields) == 900
    collection.writer.add([*over[:5], Document("c", "c", first[0].fields)], vectors_of, new_fields=new)
    assert len(collection) == 15 and len(collection.fields) == 1000
