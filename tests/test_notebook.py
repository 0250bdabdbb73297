"""`Index`: the program of docs/python.md on a data frame, lists of rows, texts and documents."""

from __future__ import annotations

import pickle
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

import paddle_ranker
from paddle_ranker import Index
from paddle_ranker.errors import UsageError
from paddle_ranker.retrieval.stored.candidate_indexes import Document

pytestmark = pytest.mark.unit
NAMES = ("Quiet mouse", "Loud keyboard", "Office chair")
ROWS = [
    {
        "sku": f"a{n}",
        "name": f"{NAMES[n % 3]} {n}",
        "description": f"A good\nthing for the office, it is number {n} of many.",
        "price": np.float64(n * 3.5),
        "brand": "Acme" if n < 15 else "Globex",
        "since": date(2024, 1, 1 + n % 28),
    }
    for n in range(30)
]


@pytest.fixture(params=["rows", "pandas"])
def index(request: pytest.FixtureRequest, tmp_path: Path) -> Index:
    rows = ROWS if request.param == "rows" else pandas.DataFrame(ROWS)
    return Index.build(rows, tmp_path / "index", title="name", text="description")


def test_a_search_says_what_the_command_says(index: Index) -> None:
    hits = index.search("quiet mouse", where={"price": {"lt": 50}}, by="words", facets=["brand"])
    # A price that is longer as text (10.5 beside 21) makes a document longer: a3 and a9 stand behind a6 and a12.
    assert [hit.id for hit in hits] == ["a0", "a12", "a6", "a3", "a9"] and hits.total == 5
    assert hits.facets == {"brand": {"Acme": 5}} and "Quiet mouse 12 | A good thing" in repr(hits)
    assert hits == index.search("quiet mouse", where="price<50")
    frame = pandas.DataFrame(hits)
    assert list(frame.id) == [hit.id for hit in hits] and frame.title[1] == "Quiet mouse 12"
    assert "<td>Quiet mouse 12</td>" in hits._repr_html_()
    assert index.search("quiet moues").corrected == {"moues": ("mouse",)}
    assert not index.search("quiet moues", literal=True, where="brand=Globex").corrected
    several = index.search(["quiet mouse", "chair"], top_k=2, offset=1, sort=["-price"])
    assert [[hit.id for hit in one] for one in several] == [["a24", "a21"], ["a26", "a23"]]
    with pytest.raises(UsageError, match="vectors"):
        index.search("mouse", by=["vectors"])


def test_an_index_is_changed_and_measured(index: Index) -> None:
    with index:
        report = index.evaluate({"quiet mouse 12": ["a12"], "chair 5": {"a5": 1, "a2": 0}}).report()
        assert "BM25 (words)" in report and "ndcg@10" in report.lower()
        added = index.add(
            [{**ROWS[0], "price": 1.5}, {"sku": "new", "name": "Fan", "description": "It blows, quietly."}]
        )
        assert (added.new, added.replaced) == (1, 1) and len(index) == 31
        assert [hit.id for hit in index.search("fan")] == ["new"] and index.remove(["new"]) == 1
        assert [hit.fields["price"] for hit in index.search("mouse 0", where="price=1.5")] == [1.5]
        index.sync(ROWS[:3])
        assert len(index) == 3 and len(Index(index.folder)) == 3
        with pytest.raises(UsageError, match="has no documents nobody"):
            index.evaluate({"mouse": ["nobody"]})
        wrong: list[tuple[Any, str]] = [
            ([0], "expected text"), ({0: 1}, "expected text"), ("a0", "expected several"),
            ({"a0": 0.5}, "0.5, expected a whole"), ({"a0": float("nan")}, "nan, expected a whole"),
        ]  # fmt: skip
        for judged, problem in wrong:
            with pytest.raises(UsageError, match=problem):
                index.evaluate({"mouse": judged})
        alike = [index.evaluate({"mouse": {"a0": label}}, baselines=False) for label in ("1", 1.0, True, np.int64(1))]
        assert len({one.report() for one in alike}) == 1


def test_a_title_that_is_named_is_searched_whatever_its_name(tmp_path: Path) -> None:
    frame = pandas.DataFrame(ROWS).rename(columns={"name": "Product Name"})
    index = Index.build(frame.set_index("sku"), tmp_path / "index", title="Product Name", text="description")
    first = index.search("quiet mouse 12")[0]
    assert (first.id, first.title) == ("a12", "Quiet mouse 12")  # a named index of pandas is a column


def test_texts_and_documents_are_rows_too(tmp_path: Path) -> None:
    texts = Index.build(["水稻病害诊断", "老年人护理"], tmp_path / "texts")
    assert [hit.text for hit in texts.search("水稻")] == ["水稻病害诊断"]
    documents = Index.build([Document("x", "水稻病害", {"year": 2020})], tmp_path / "documents")
    assert documents.search("水稻", where="year=2020")[0].id == "x"
    for rows, message in (
        ([7], "rows, row 1: 7: expected a data frame, mappings, texts or Documents"),
        (["a", None], "rows, row 2: None: expected a data frame"),
        (None, "expected several rows"),
        ({"id": "1", "text": "a"}, "expected several rows"),
        (b"a text", "expected several rows"),
        ([{"id": b"1", "text": "a"}], "row 1: its id is bytes, expected text"),
        ([{"id": "1", "text": b"a"}], "row 1: its text is bytes"),
        ([{"id": "1", "title": b"t", "text": "a"}], "row 1: its title is bytes"),
        ([Document("x", b"a", {})], "row 1: its text is bytes"),  # type: ignore[arg-type]
    ):
        with pytest.raises(UsageError, match=message):
            Index.build(rows, tmp_path / "none")
        for change in (texts.add, texts.sync):
            with pytest.raises(UsageError, match=message):
                change(rows)
    assert not (tmp_path / "none").exists() and len(texts) == 2
    with pytest.raises(UsageError, match="row 1: its name is bytes"):
        Index.build([{"sku": "1", "name": b"t", "text": "a"}], tmp_path / "none", title="name")
    with pytest.raises(TypeError, match="not list"):  # the arguments' order mistaken
        Index.build(tmp_path / "none", ["a text", "another"])  # type: ignore[arg-type]


def test_the_package_lists_what_it_is_for_and_searches_without_paddle(tmp_path: Path) -> None:
    assert dir(paddle_ranker) == ["Index", "RankedTitle", "Ranker", "__version__", "evaluate", "train"]
    program = (
        "import sys; from paddle_ranker import Index; index = Index.build(['a text', 'others'], sys.argv[1]); "
        "assert len(index.search('text')) == 1 and 'paddle' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "index")], check=True, capture_output=True)


def test_an_index_is_pickled_as_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Index.build(["red shoes", "a blue car"], "index")
    with Index("index", device="cpu", batch_size=3) as index:
        pickled, found = pickle.dumps(index), [hit.id for hit in index.search("shoes")]
    monkeypatch.chdir("/")
    with pickle.loads(pickled) as again:  # noqa: S301
        assert [hit.id for hit in again.search("shoes")] == found != []
        assert (again._options.device, again._batch_size) == ("cpu", 3)
    assert len(pickled) < 1000


def test_no_judgments_are_an_error(tmp_path: Path) -> None:
    built = Index.build(ROWS[:2], tmp_path / "index")
    with built, pytest.raises(UsageError, match="judgments: there are none; give relevant documents by query"):
        built.evaluate({})
