"""A folder with a file of each kind that is read in few lines of code: every file is found, or named."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from paddle_ranker.commands import index
from paddle_ranker.notebook import Index
from tests.conftest import Call
from tests.data.test_containers import archive
from tests.data.test_documents import _XLS

pytestmark = pytest.mark.unit
pytest.importorskip("av", reason="needs: pip install 'paddle-ranker[files]'")
pytest.importorskip("mammoth", reason="needs: pip install 'paddle-ranker[files]'")
pytest.importorskip("python_calamine", reason="needs: pip install 'paddle-ranker[excel]'")
odfdo = pytest.importorskip("odfdo", reason="needs: pip install 'paddle-ranker[files]'")

SRT = """1
00:00:01,000 --> 00:00:03,500
Die <i>Größe</i>
zählt

2
00:00:03,600 --> 00:00:05,000
{\\an8}sehr

3
01:00:00,000 --> 01:00:02,000
Ende
"""
VTT = """WEBVTT - a title

NOTE which nobody says

1
00:01.000 --> 00:03.500 align:start
<v Ann>Salt &amp; <b>vinegar</b></v>

00:04.000 --> 00:05.000
- yes
"""


def xml() -> bytes:
    feed = ElementTree.Element("feed", {"id": "7"})
    for name in ("Saw", "Drill"):
        entry = ElementTree.SubElement(feed, "entry")
        ElementTree.SubElement(entry, "name").text = name
        told = ElementTree.SubElement(entry, "told")
        told.text = "Needs H"
        ElementTree.SubElement(told, "sub").text = "2"
        told[0].tail = "O."
    return bytes(ElementTree.tostring(feed, "utf-16"))


def notebook() -> bytes:
    cells = [
        {"cell_type": "code", "source": "import numpy", "outputs": [{"text": "unsaid"}]},
        {"cell_type": "markdown", "source": ["## Results\n", "They *hold*."]},
        {"cell_type": "code", "source": ["plot(1)\n", "plot(2)"], "outputs": []},
    ]
    return json.dumps({"cells": cells, "nbformat": 4}).encode()


def ods(folder: Path) -> bytes:
    book = odfdo.Document("spreadsheet")
    book.body.clear()
    table = odfdo.Table("Prices", width=2, height=2)
    for place, value in {"A1": "item", "B1": "price", "A2": "tea", "B2": 3}.items():
        table.set_value(place, value)
    book.body.append(table)
    book.save(str(folder / "made.ods"))
    return (folder / "made.ods").read_bytes()


def test_every_kind_of_file_is_found_by_its_words_or_named(tmp_path: Path, call: Call) -> None:
    files = {
        "run.log": "10:00 Größe zählt\n".encode("cp1252"),
        "settings.yaml": b"colour: blue\n",
        "film.srt": SRT.encode("cp1252"),
        "talk.vtt": VTT.encode(),
        "feed.xml": xml(),
        "work.ipynb": notebook(),
        "prices.ods": ods(tmp_path),
        "old.xls": _XLS,
        "notes.txt.gz": gzip.compress(b"packed words"),
        "all.zip.gz": gzip.compress(archive({"in/feed.xml": "<a>deep</a>"})),
        "half.xml": b"<a>one<b>two</a>",
        "dump.sql.gz": gzip.compress(bytes(70 << 20)),
    }
    library, report = tmp_path / "library", tmp_path / "report.jsonl"
    library.mkdir()
    for name, data in files.items():
        (library / name).write_bytes(data)
    status, _, errors = call(
        index.main, "build", "--corpus", library, "--output", tmp_path / "index", "--report", report
    )
    assert status == 0, errors
    with Index(tmp_path / "index") as opened:
        found = {one.id: one for one in opened._collection.snapshot().documents()}
        texts = {id: str(one.text) for id, one in found.items()}
        assert "tea" in texts.pop("prices.ods") and texts.pop("old.xls")
        assert texts == {
            "run.log": "10:00 Größe zählt\n",
            "settings.yaml": "colour: blue\n",
            "film.srt#1": "Die Größe zählt sehr",
            "film.srt#3600": "Ende",
            "talk.vtt": "Salt & vinegar - yes",
            "feed.xml#1": "Saw\nNeeds H2O.\nDrill\nNeeds H2O.",
            "work.ipynb#1": "import numpy",
            "work.ipynb#2": "Results\nThey *hold*.\nplot(1)\nplot(2)",
            "notes.txt.gz/notes.txt": "packed words",
            "all.zip.gz/all.zip/in/feed.xml#1": "deep",
            "half.xml#1": "onetwo",
        }
        (hit,) = opened.search("sehr", top_k=1)
        assert hit.place == {"first_second": 1, "last_second": 5, "seconds": [[3.6, 5]]}
        assert found["work.ipynb#2"].fields["heading"] == "Results" and found["feed.xml#1"].fields["title"] == "feed"
    left = {row["where"]: row["reason"] for row in map(json.loads, report.read_text("utf-8").splitlines())}
    assert left.keys() == {"dump.sql.gz", "half.xml", "old.xls"} and "without their formats" in left["old.xls"]
    assert left["dump.sql.gz"] == "such files are not read (.sql.gz)"
    assert "damaged, and read in part: line 1" in left["half.xml"]


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.xml", b"nothing", "expected a text document"),
        ("a.xml", b"<!-- -->", "no XML"),
        ("a.ipynb", b'{"worksheets": []}', "jupyter nbconvert"),
        ("a.srt", b"1\n-->\n", "no subtitles"),
        ("a.txt.gz", b"\x1f\x8b nothing", "cannot be unpacked"),
    ],
)
def test_a_damaged_file_is_refused_by_name(name: str, data: bytes, says: str, tmp_path: Path, call: Call) -> None:
    (tmp_path / "library").mkdir()
    (tmp_path / "library" / name).write_bytes(data)
    status, _, errors = call(index.main, "build", "--corpus", tmp_path / "library", "--output", tmp_path / "index")
    assert status == 1 and f"{name}: " in errors and says in errors, errors
