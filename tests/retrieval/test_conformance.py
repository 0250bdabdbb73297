"""The same cases for every way to search an index folder, against products and BM25 worked out apart."""

from __future__ import annotations

import os
import random
import signal
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, Optional, cast

import numpy as np
import pytest

from paddle_ranker.array_types import Vectors
from paddle_ranker.errors import CheckpointError, DataError, RankerError, UsageError
from paddle_ranker.lexical.tokens import bigrams
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.index.ingestion import VectorsOf
from paddle_ranker.retrieval.snapshots.vector_search import search_method
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import FORMAT, IndexInfo, WordsInfo
from paddle_ranker.retrieval.values.filters import Filter
from paddle_ranker.retrieval.vectors.exact_search import StoredVectors
from paddle_ranker.retrieval.vectors.vector_settings import VectorsInfo
from tests.checkout import ONCE
from tests.retrieval.oracle import meets

pytestmark = pytest.mark.unit
SIZE = 8
ODD_IDS = ["a\tb", " ", "0", "00", "é" * 300, "水稻", "../x", "a\0b", "\n", "id with 'quotes\""]


def vector_of(text: str) -> list[float]:
    row = np.random.default_rng([ord(char) for char in text[:50]]).normal(size=SIZE)
    return list(row / np.linalg.norm(row))


def vectors_of(texts: Sequence[str]) -> Vectors:
    return np.array([vector_of(text) for text in texts], np.float32).reshape(-1, SIZE)


def documents_of(numbers: Sequence[int], text: str = "水稻病害{} {}") -> list[Document]:
    letters = "病害统计诊断护理"
    return [Document(f"d{n}", text.format(letters[n % 8], n), {"lang": "zh" if n % 2 else "en", "year": n % 9})
            for n in numbers]  # fmt: skip


@pytest.fixture(params=["exact", "hnsw", "hnsw_sq8", "ivf_sq8"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Optional[str]]:
    """Return a kind of search, and the address of vectors elsewhere; small segments get an index, too."""
    monkeypatch.setattr("paddle_ranker.retrieval.vectors.faiss_index.LEAST", 16)
    return request.param, None


def new_index(folder: Path, kind: tuple[str, Optional[str]] = ("exact", None), dtype: str = "float32") -> Collection:
    name, uri = kind
    if name in ("exact",):
        info = VectorsInfo("exact", SIZE, dtype)
    elif uri is not None:
        info = VectorsInfo(name, SIZE, dtype, uri=uri, collection=f"of_{uuid.uuid4().hex}")
    else:
        info = VectorsInfo("faiss", SIZE, dtype, name, hnsw_m=8, hnsw_ef=80)
    return Collection.create(folder, IndexInfo(WordsInfo("bigram"), info))


def best_of(documents: Sequence[Document], query: Vectors, k: int) -> list[str]:
    """Return the ids of the largest products, equal ones in the documents' order."""
    products = vectors_of([one.text for one in documents]) @ query
    return [documents[n].id for n in np.argsort(-products, kind="stable")[:k]]


def check(collection: Collection, kept: Sequence[Document], queries: Sequence[str], nprobe: Optional[int]) -> None:
    """Compare what is found, with and without a filter, with what the kept documents hold."""
    vectors = vectors_of(queries)
    for where in (None, Filter.parse(["lang=zh", "year>=3"]), Filter.parse(["year in 1, 7"])):
        allowed = [document for document in kept if where is None or meets(where, document.fields)]
        # Of one alone, most segments hold no candidate.
        for one, hits in zip(vectors, collection.snapshot().search("vectors", vectors, 1, where, nprobe=nprobe)):
            assert hits.ids == best_of(allowed, one, 1)
        for query, hits in zip(vectors, collection.snapshot().search("vectors", vectors, 5, where, nprobe=nprobe)):
            assert hits.ids == best_of(allowed, query, 5)
            products = [float(np.dot(vector_of(collection.snapshot().document(id).text), query)) for id in hits.ids]
            np.testing.assert_allclose(hits.scores, products, rtol=1e-4, atol=1e-6)


def test_every_kind_adds_replaces_removes_filters_and_opens_again(
    tmp_path: Path, kind: tuple[str, Optional[str]]
) -> None:
    folder, queries = tmp_path / "index", ["水稻", "老年人护理", "iPhone 15"]
    nprobe = 100 if kind[0] == "ivf_sq8" else None
    with new_index(folder, kind) as collection:
        assert collection.snapshot().search("vectors", vectors_of(queries), 5)[0].ids == []
        assert collection.snapshot().search("words", ["水"], 5)[0].ids == []
        first = documents_of(range(60))
        assert collection.writer.add(first, vectors_of) == (60, 0, 0, 0, 0, 0)
        check(collection, first, queries, nprobe)
        changed = documents_of(range(10, 30), "新的{} {}")
        odd = [Document(id, f"odd {number}") for number, id in enumerate(ODD_IDS)]
        assert collection.writer.add([*changed, *odd, *first[:10]], vectors_of) == (len(odd), 20, 10, 0, 30, 0)
        gone = [f"d{n}" for n in range(40, 60)]
        assert collection.writer.remove([*gone, "d40", "nobody"]) == 20
        kept = [*first[:10], *first[30:40], *changed, *odd]
        check(collection, kept, queries, nprobe)
    uri = kind[1] if kind[1] and "://" in kind[1] else None
    if uri is not None:
        with pytest.raises(UsageError, match=f"add --milvus_uri {uri}"):
            Collection.open(folder).snapshot().search("vectors", vectors_of(queries), 5)
    with Collection.open(folder, milvus_uri=uri) as again:
        check(again, kept, queries, nprobe)
        assert [again.snapshot().document(one.id).text for one in kept] == [one.text for one in kept]
        assert again.snapshot().document("d11").version == 2 and len(again) == len(kept) and again.snapshot().verify()
        assert ("exact" in search_method(again.info, "vectors")) == (kind[0] == "exact")
        with pytest.raises(KeyError):
            again.snapshot().document("d41")


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_small_types_find_the_same(tmp_path: Path, dtype: str) -> None:
    with new_index(tmp_path / "index", dtype=dtype) as collection:
        documents = documents_of(range(50))
        collection.writer.add(documents, vectors_of)
        stored = StoredVectors.of(vectors_of([one.text for one in documents]), dtype)
        for query, hits in zip(
            vectors_of(["水稻", "b"]), collection.snapshot().search("vectors", vectors_of(["水稻", "b"]), 50)
        ):
            products = stored.block(0, 50).astype(np.float64) @ query
            np.testing.assert_allclose(hits.scores, np.sort(products)[::-1], rtol=1e-5, atol=1e-6)
            assert abs(hits.scores[0] - float(np.dot(vector_of(documents[int(hits.ids[0][1:])].text), query))) < 0.02


def test_equal_scores_keep_the_order_of_the_documents(tmp_path: Path) -> None:
    with new_index(tmp_path / "index") as collection:
        same = [Document(f"s{n}", "一样的 text") for n in range(9)]
        collection.writer.add(same[:5], vectors_of)
        collection.writer.add(same[5:], vectors_of)
        for by, query in (("words", ["一样"]), ("vectors", vectors_of(["一样的 text"]))):
            assert collection.snapshot().search(by, query, 7)[0].ids == [f"s{n}" for n in range(7)]


def test_words_score_as_bm25s_does(tmp_path: Path) -> None:
    import bm25s

    with new_index(tmp_path / "index") as collection:
        documents = documents_of(range(200))
        for start in range(0, 200, 40):
            collection.writer.add(documents[start : start + 40], vectors_of)
        peer = bm25s.BM25(k1=1.2, b=0.75, method="lucene")
        peer.index([bigrams(one.text) for one in documents], show_progress=False)
        for query in ("水稻病害统 17", "护理 3", "计"):
            scores = peer.get_scores(bigrams(query))
            (hits,) = collection.snapshot().search("words", [query], 200)
            # Lucene leaves out the factor k1 + 1, which changes no order.
            theirs = {f"d{n}": score * 2.2 for n, score in enumerate(scores) if score > 0}
            assert dict(zip(hits.ids, hits.scores)) == pytest.approx(theirs, rel=1e-4)


def bad_documents(draw: random.Random) -> Iterator[tuple[list[Any], VectorsOf]]:
    """Yield what `add` must refuse: documents, and what makes their vectors."""
    for number in range(700):
        good = Document(f"g{number}", f"text {number}")
        bad: list[Any] = [
            Document("bad", ""), Document("", "x"), Document("bad", "a\ud800b"), Document("bad\udfff", "x"),
            Document("bad", "x", {"price": float("inf")}), Document("bad", "x", {"tags": {1, 2}}),
            Document("bad", cast(str, 7)), Document("bad", "x", {"\ud800": 1}), good,
        ]  # fmt: skip
        which = draw.randrange(len(bad) + 3)
        if which < len(bad):
            yield [good, bad[which]], vectors_of
        elif which == len(bad):
            yield [good], lambda texts: vectors_of(texts)[:, :-1]
        elif which == len(bad) + 1:
            yield [good], lambda texts: vectors_of(texts) * np.float32("nan")
        else:
            yield [good], lambda texts: vectors_of([*texts, "more"])


def test_malformed_documents_are_refused_by_name_or_stored_exactly(tmp_path: Path) -> None:
    folder, draw = tmp_path / "index", random.Random(5)
    with new_index(folder) as collection:
        collection.writer.add(documents_of(range(5)), vectors_of)
        before = collection.info, sorted(path.name for path in folder.iterdir())
        for documents, makes in bad_documents(draw):
            with pytest.raises(DataError, match=r"document|vectors of the shape"):
                collection.writer.add(documents, makes)
        assert before == (collection.info, sorted(path.name for path in folder.iterdir()))
        characters = "\0\t\n\r\v\u2028\ufeff\\\"'水a\U0001f600\u0301 "
        odd = [Document(f"o{n}{draw.choice(characters)}", "".join(draw.choices(characters, k=draw.randint(1, 40))),
                        {draw.choice(characters): draw.choice([None, True, 1 << 70, 0.1, "", [1, {"a": []}]])})
               for n in range(300)]  # fmt: skip
        odd.append(Document("long", "长" * (1 << 19) + "x" * (1 << 19)))
        collection.writer.add(odd, lambda texts: np.ones((len(texts), SIZE), np.float32))
    again = Collection.open(folder)
    assert [again.snapshot().document(one.id) for one in odd] == odd
    assert again.snapshot().search("words", ["长" * 2], 1)[0].ids == ["long"]


def test_damage_other_folders_and_a_second_writer_are_told(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    with new_index(folder) as collection:
        collection.writer.add(documents_of(range(5)), vectors_of)
        with pytest.raises(RankerError, match="another process is writing"):
            Collection.open(folder, write=True)
        with pytest.raises(UsageError, match=r"write=True"):
            Collection.open(folder).writer.add(documents_of([9]), vectors_of)
        with pytest.raises(UsageError, match="--ef 5"):
            collection.snapshot().search("vectors", vectors_of(["x"]), 5, ef=5)
        with pytest.raises(UsageError, match="only by words, vectors"):
            collection.snapshot().search("sound", ["x"], 5)
    with pytest.raises(RankerError, match="is an index already"):
        new_index(folder)
    with pytest.raises(CheckpointError, match="is no index"):
        Collection.open(tmp_path)
    text = (folder / "index.json").read_text(encoding="utf-8")
    for damage, says in (
        (text[:50], "damaged"),
        (text.replace(f'"format": {FORMAT}', '"format": 6'), "build it anew"),
        (text.replace('"b": 0.75', '"b": 1.5'), "damaged"),
        (text.replace("segment-", "../x-"), "damaged"),
        ("[]", "damaged"),
    ):
        (folder / "index.json").write_text(damage, encoding="utf-8")
        with pytest.raises(CheckpointError, match=says):
            Collection.open(folder)
    (folder / "index.json").write_text(text, encoding="utf-8")
    (documents,) = folder.glob("segment-*/documents.jsonl")
    documents.write_bytes(documents.read_bytes().replace(b"\xe7", b"\xe6", 1))
    with pytest.raises(CheckpointError, match="not as it was written"):
        Collection.open(folder).snapshot().verify()


def work(folder: Path, told: int, stop_at: int) -> NoReturn:
    """Build and add, telling what is confirmed, until this process kills itself at one of its steps to the disk."""
    steps = 0

    def counted(call: Any) -> Any:
        def step(*given: Any, **named: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == stop_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*given, **named)

        return step

    for name in ("fsync", "rename", "replace", "unlink", "open"):
        setattr(os, name, counted(getattr(os, name)))
    try:
        collection = new_index(folder) if not (folder / "index.json").exists() else Collection.open(folder, write=True)
        for number in range(6):
            collection.writer.add(documents_of(range(number * 4, number * 4 + 6)), vectors_of)
            if number % 2:
                collection.writer.remove([f"d{number * 4}"])
            os.write(told, bytes([number]))
        os.write(told, steps.to_bytes(4, "little"))
    finally:
        os._exit(0)


def until_killed(folder: Path, stop_at: int) -> bytes:
    """Return what a process told before it ended."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        work(folder, write, stop_at)
    os.close(write)
    with os.fdopen(read, "rb") as stream:
        told = stream.read()
    os.waitpid(child, 0)
    return told


@ONCE
def test_a_kill_at_any_step_loses_nothing_that_was_confirmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paddle_ranker.retrieval.index.merging.MOST_SEGMENTS", 2)
    steps = int.from_bytes(until_killed(tmp_path / "whole", 0)[-4:], "little")
    assert steps > 200
    draw = random.Random(11)
    for moment in sorted(draw.sample(range(1, steps), 10)):
        folder = tmp_path / str(moment)
        confirmed = len(until_killed(folder, moment))
        if not (folder / "index.json").exists():
            assert confirmed == 0
            continue
        with Collection.open(folder) as found:
            found.snapshot().verify()
            ids = {one.id for one in found.snapshot().documents()}
        states: list[set[str]] = [set()]  # after each step of the work, old and new
        for number in range(6):
            states.append(states[-1] | {f"d{n}" for n in range(number * 4, number * 4 + 6)})
            if number % 2:
                states.append(states[-1] - {f"d{number * 4}"})
        reached = confirmed + confirmed // 2
        assert ids in states[reached : reached + 3], moment
        with Collection.open(folder, write=True) as again:
            again.writer.add(documents_of([99]), vectors_of)
            assert {one.id for one in again.snapshot().documents()} == ids | {"d99"}
            left = {path.name for path in folder.iterdir()} - again.info.files() - {"index.json", "writer.lock"}
            assert left == set()
