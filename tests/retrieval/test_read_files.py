"""Files that are read when they are added: folders and manifests, parts as documents, places in hits, the cache."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paddle_ranker.commands.index import main as index
from paddle_ranker.commands.search import main as search
from paddle_ranker.data.files.file_readers import READERS
from paddle_ranker.notebook import Index
from paddle_ranker.registry import VARIABLE
from paddle_ranker.retrieval.stored.places import pack_places, unpack_places
from paddle_ranker.retrieval.stored.schema import FIELD_TYPES
from paddle_ranker.serving.http import contents
from tests.checkout import ONCE
from tests.serving.test_search import Site, ask_app

pytestmark = pytest.mark.parity
PLUGIN = "tests.retrieval.made_reader"


@pytest.fixture(autouse=True)
def reader(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    (tmp_path / "readings").mkdir()
    monkeypatch.setenv(VARIABLE, PLUGIN)
    monkeypatch.setenv("MADE_READINGS", str(tmp_path / "readings"))
    monkeypatch.setenv("PADDLE_RANKER_CACHE", str(tmp_path / "cache"))
    READERS.load_plugins()
    yield None


def readings(tmp_path: Path) -> int:
    return len([*(tmp_path / "readings").iterdir()])


def pages(*texts: str) -> bytes:
    return b"PAGES\n" + "\f".join(texts).encode()


def folder_of(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = root / "corpus" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root / "corpus"


MANUALS = {
    "manuals/washing_machine.pages": pages("Safety first", "", "The warranty lasts two years", "!unread"),
    "notes/lamp.txt": "Die Lampe leuchtet warm.".encode("cp1252"),
    "notes/about.md": b"# Warranty of lamps\n\nNone.",
    "notes/empty.txt": b" \n",
    "letter.key": b"PK\x03\x04",
    ".hidden/secret.txt": b"warranty",
}


def built(tmp_path: Path, corpus: Path, *more: str, out: str = "index") -> tuple[int, Path]:
    return index(["build", "--corpus", str(corpus), "--output", str(tmp_path / out), *more]), tmp_path / out


def test_a_folder_becomes_parts_and_texts_and_says_what_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, folder = built(tmp_path, folder_of(tmp_path, MANUALS))
    said = capsys.readouterr()
    assert status == 0, said.err
    assert "not read: 5 (" in said.out and "4 new" in said.out, said.out
    with Index(folder) as opened:
        (hit,) = opened.search("warranty years", top_k=1)
        assert hit.id == "manuals/washing_machine.pages#3" and hit.title == "washing machine"
        assert hit.text == "The warranty lasts two years"
        assert hit.place == {"page": 3, "boxes": [[0.01, 0.5, 0.02, 0.6], [0.04, 0.5, 0.05, 0.6]]}
        assert hit.fields["page"] == 3 and hit.fields["file"] == "manuals/washing_machine.pages"
        assert "places" not in hit.fields
        assert {one.id for one in opened.search("warranty")} == {hit.id, "notes/about.md"}
        assert [one.id for one in opened.search("warranty", where="page=3")] == [hit.id]
        assert opened.search("lampe")[0].place is None
    assert search(["--index", str(folder), "warranty years", "--top_k", "1"]) == 0
    assert "washing machine | page 3 | The warranty" in capsys.readouterr().out
    assert search(["--index", str(folder), "warranty years", "--format", "json", "--top_k", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["place"] == hit.place
    assert index(["check", str(folder)]) == 0 and "whole; 4 documents" in capsys.readouterr().out
    (content,) = (folder / "contents").iterdir()
    content.write_bytes(b"other")
    assert index(["check", str(folder)]) == 1 and "is not as it was written" in capsys.readouterr().err
    folder.rename(tmp_path / "corpus" / "inside")
    assert built(tmp_path, tmp_path / "corpus", out="again")[0] == 0
    assert "not read: 6 (.hidden: hidden; inside: an index; letter.key" in capsys.readouterr().out
    status, _ = built(tmp_path, tmp_path / "corpus", "--id_column", "x", out="other")
    assert status == 2 and "is read file by file" in capsys.readouterr().err


def test_a_manifest_reads_its_files_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = folder_of(tmp_path, MANUALS)
    rows = [
        {"id": "w", "title": "Washer", "lang": "en", "manual": "manuals/washing_machine.pages", "text": "about it"},
        {"id": "t", "title": "A text alone", "text": "a lamp"},
    ]
    manifest = corpus / "rows.jsonl"
    manifest.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    status, folder = built(tmp_path, manifest, "--field", "manual:pages")
    assert status == 0, capsys.readouterr().err
    with Index(folder) as opened:
        assert {one.id for one in opened.search("washer safety lamp about")} == {"w#1", "w#3", "t"}
        hit = opened.search("warranty", where={"lang": "en"})[0]
        assert (hit.id, hit.title, hit.fields["text_"]) == ("w#3", "Washer", "about it")
        assert hit.place is not None and hit.place["boxes"] == [[0.01, 0.5, 0.02, 0.6]]
        data = pages("Other words", "And more of the warranty")
        row = {"id": "n", "manual": "data:application/pages;base64," + base64.b64encode(data).decode()}
        assert opened.add([row]).new == 2
        assert opened.search("other")[0].id == "n#1"
        assert opened.sync(str(manifest)).absent == 2
    assert readings(tmp_path) == 2
    other = corpus / "again.csv"
    other.write_text("id;manual\nx;manuals/washing_machine.pages\n")
    assert built(tmp_path, other, "--field", "manual:pages", out="again")[0] == 0
    assert readings(tmp_path) == 2


def test_a_damaged_file_or_a_dead_process_costs_its_own_row_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = {"b.pages": pages("one", "!bad"), "d.pages": pages("one", "!die"), "w.pages": b"no pages"}
    bad |= {"s.pages": pages("one", "!spin"), "t.pages": pages("one", "!spin"), "m.pages": pages("one", "!grow")}
    good = {f"g{n:02}.pages": pages(f"number{n} one", f"number{n} two") for n in range(40)}
    corpus = folder_of(tmp_path, {**bad, **good})
    for name, problem in (("b.pages", "page 2 is bad"), ("d.pages", "status -9"), ("w.pages", "begin with PAGES"),
                          ("s.pages", "too much processor time"), ("m.pages", "too much memory")):  # fmt: skip
        alone = folder_of(tmp_path / name, {name: bad[name], "good.pages": pages("good")})
        assert built(tmp_path, alone, out=name)[0] == 1
        said = capsys.readouterr().err
        assert f"/{name}: pages" in said and problem in said and "skip_bad_rows" in said, said
        assert not (tmp_path / name / "index.json").exists()
    status, folder = built(tmp_path, corpus, "--skip_bad_rows")
    said = capsys.readouterr()
    assert status == 0, said.err
    assert "kept 40; skipped 6 (" in said.out and "80 new" in said.out, said.out
    with Index(folder) as opened:
        snapshot = opened._collection.snapshot()
        assert [one.id for one in snapshot.documents()] == [f"{name}#{part}" for name in good for part in (1, 2)]
    before = readings(tmp_path)
    assert built(tmp_path, corpus, "--skip_bad_rows", out="second")[0] == 0
    assert readings(tmp_path) == before + 4  # those that cannot be read, again; two of them are the same file
    (kept,) = (tmp_path / "cache" / "readings" / "pages").glob(f"{sha256(good['g07.pages']).hexdigest()}-*")
    kept.write_bytes(kept.read_bytes()[:-9])
    assert built(tmp_path, corpus, "--skip_bad_rows", out="third")[0] == 1
    assert f"{kept}: damaged" in capsys.readouterr().err


def test_a_missing_package_costs_the_files_that_need_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MADE_LACKS", "tape")
    corpus = folder_of(
        tmp_path,
        {"a.txt": b"a text", **{f"t{n}.tape": b"tape" for n in range(4)}, "m.pages": pages("!lacks"), "n.pages": b"no"},
    )
    rows = [{"id": "a", "text": "a text"}, *({"id": f"t{n}", "tape": f"t{n}.tape"} for n in range(4))]
    rows += [{"id": name, "pages": f"{name}.pages"} for name in "mn"]
    (corpus / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    more = ("--field", "tape:tape,pages:pages")
    assert built(tmp_path, corpus / "rows.jsonl", *more)[0] == 1
    said = capsys.readouterr().err
    assert "line 2: document 't0': tape: needs tape: pip install tape (4 such)" in said, said
    assert "6 rows cannot be read" in said and "'m': pages: needs magic: pip install magic; correct them, or" in said
    status, _ = built(tmp_path, corpus / "rows.jsonl", *more, "--skip_bad_rows")
    said = capsys.readouterr()
    assert status == 0 and "kept 1; skipped 6 (line 2: document 't0': tape: needs tape: pip install tape (4 such)" in (
        said.out
    ), said
    assert "document 'm': pages: needs magic: pip install magic" in said.out and "; …" not in said.out, said.out


def test_an_interrupted_build_ends_its_processes_and_the_next_one_goes_on(tmp_path: Path) -> None:
    good = {f"g{n:02}.pages": pages(f"number{n} one") for n in range(5)}
    corpus = folder_of(tmp_path, {**good, "z.pages": pages("!wait")})
    command = [sys.executable, "-m", "paddle_ranker", "index", "build", "--corpus", str(corpus)]
    process = subprocess.Popen([*command, "--output", str(tmp_path / "index")], stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while readings(tmp_path) < 6 and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.3)  # the others are done
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted" in said, said
    for one in (tmp_path / "readings").iterdir():
        with pytest.raises(ProcessLookupError):
            os.kill(int(one.name.rpartition("-")[2]), 0)
    (tmp_path / "readings" / "go").touch()
    before = readings(tmp_path)
    assert built(tmp_path, corpus)[0] == 0
    assert readings(tmp_path) == before + 1


def test_a_part_without_words_is_a_document_if_it_has_a_vector(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = folder_of(tmp_path, {"a.pages": pages("one", "", "three")})
    (tmp_path / "tower").mkdir()
    (tmp_path / "tower" / "weights").write_bytes(b"weights")
    status, folder = built(
        tmp_path, corpus, "--field", "pages:pages", "--field_tower", f"pages={tmp_path / 'tower'}", "--shards", "2"
    )
    said = capsys.readouterr()
    assert status == 0 and "not read: 1 (a.pages#2: no words)" in said.out and "3 documents" in said.out, said
    with Index(folder) as opened:
        (hit,) = [one for one in opened.search(like="a.pages#1") if one.id == "a.pages#2"]
        assert (hit.text, hit.place) == ("a", {"page": 2})


def test_a_file_with_fewer_parts_loses_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = folder_of(tmp_path, {"a.pages": pages("one", "two", "three"), "b.pages": pages("four")})
    assert built(tmp_path, corpus)[0] == 0
    (corpus / "a.pages").write_bytes(pages("one", "zwei"))
    capsys.readouterr()
    assert index(["add", str(tmp_path / "index"), "--corpus", str(corpus)]) == 0
    said = capsys.readouterr().out
    assert "0 new, 2 replaced, 1 as they were, 1 removed" in said, said
    assert built(tmp_path, corpus)[0] == 0 and "3 as they were" in capsys.readouterr().out
    monkeypatch.setenv("MADE_VERSION", "2")
    before = readings(tmp_path)
    assert built(tmp_path, corpus)[0] == 0 and readings(tmp_path) == before + 2
    with Index(tmp_path / "index") as opened:
        assert [len(opened.search(one)) for one in ("one", "two", "three", "zwei", "four")] == [1, 0, 0, 1, 1]


def test_shards_and_python_read_files_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {f"g{n:02}.pages": pages(f"number{n} one", "!unread", f"number{n} two") for n in range(6)}
    status, folder = built(tmp_path, folder_of(tmp_path, files), "--shards", "2")
    said = capsys.readouterr()
    assert (
        status == 0 and "12 documents in 2 shards" in said.out and "not read: 6 (g00.pages#2: it says so" in said.out
    ), said
    with Index(folder) as opened:
        (hit,) = opened.search("number3 two", where="page=3", top_k=1)
        assert hit.id == "g03.pages#3" and hit.place is not None and hit.place["page"] == 3
    rows = [{"id": "a", "pages": tmp_path / "corpus" / "g00.pages"}, {"pages": pages("bytes")}, {"text": "alone"}]
    with Index.build(rows, tmp_path / "python", field="pages:pages") as opened:
        assert len(opened) == 4 and opened.search("number0 two")[0].id == "a#3"
        assert opened.search("bytes")[0].id.endswith(".pages#1")
        assert opened.add([{"id": "a", "pages": tmp_path / "corpus" / "g01.pages"}]).replaced == 2
    with Index.build(tmp_path / "corpus", tmp_path / "whole") as opened:
        assert len(opened) == 12


def test_the_server_serves_places_and_refuses_new_files_by_name(tmp_path: Path) -> None:
    status, folder = built(tmp_path, folder_of(tmp_path, MANUALS))
    assert status == 0
    site = Site(index=folder, writable=True)
    try:
        (hit,) = site.search("warranty years", top_k=1)["hits"]
        assert hit["place"] == {"page": 3, "boxes": [[0.01, 0.5, 0.02, 0.6], [0.04, 0.5, 0.05, 0.6]]}
        assert "places" not in hit["fields"] and hit["contents"]["pages"][0]["media_type"] == "application/pages"
        assert "places" not in site.ask("GET", "/v1/index").json()["fields"]
        (short,) = site.search("warranty years", top_k=1, fields=["page"])["hits"]
        assert short["place"] == hit["place"] and short["fields"] == {"page": 3}
        body = {"id": "n", "text": "a", "pages": "data:;base64," + base64.b64encode(pages("a")).decode()}
        refused = site.ask("POST", "/v1/documents", {"documents": [body]})
        assert refused.status_code == 422 and "index add" in refused.text, refused.text
        changed = {"documents": [{"id": hit["id"], "lang": "en"}]}
        assert site.ask("PATCH", "/v1/documents", changed).status_code == 200
        (again,) = site.search("warranty years", top_k=1)["hits"]
        assert again["place"] == hit["place"] and again["fields"]["lang"] == "en"
        refused = site.ask("PATCH", "/v1/documents", {"documents": [{"id": hit["id"], "places": "6:abc"}]})
        assert refused.status_code == 422 and "places is '6:abc'" in refused.text, refused.text
        changed = {"documents": [{"id": hit["id"], "text": "Of another warranty"}]}
        assert site.ask("PATCH", "/v1/documents", changed).status_code == 200
        (other,) = site.search("another", top_k=1)["hits"]
        assert other["id"] == hit["id"] and other["place"] == {"page": 3}
    finally:
        site.close()


def test_a_pdf_is_found_by_page_and_its_page_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("pypdfium2", reason="pip install 'paddle-ranker[pdf]'")
    from PIL import Image

    from tests.pages.test_pdf import pdf_of, shown

    corpus = folder_of(tmp_path, {"tape.wav": b"RIFF" + bytes(60)})
    pdf_of(corpus / "manual.pdf", shown((60, 700, "Safety first")), shown((60, 60, "Two years of warranty")))
    (corpus / "rows.jsonl").write_text('{"id": "m", "pdf": "manual.pdf"}\n{"id": "t", "tape": "tape.wav"}\n')
    status, folder = built(tmp_path, corpus / "rows.jsonl", "--field", "pdf:pdf,tape:tape")
    assert status == 0
    site = Site(index=folder)
    try:
        (hit,) = site.search("warranty", top_k=1)["hits"]
        assert (hit["id"], hit["title"], hit["place"]["page"]) == ("m#2", "manual", 2)
        ((left, top, right, bottom),) = hit["place"]["boxes"]
        assert 0.1 < left < right < 0.4 and 0.9 < top < bottom < 0.95
        address = hit["contents"]["pdf"][0]["url"]
        drawn = site.ask("GET", f"{address}/pages/2")
        assert drawn.headers["content-type"] == "image/jpeg" and "immutable" in drawn.headers["cache-control"]
        with Image.open(io.BytesIO(drawn.content)) as picture:
            width, height = picture.size
            assert width * height <= 1 << 22 and width / height == pytest.approx(600 / 800, abs=0.01)
            box = picture.convert("L").crop((*map(int, (left * width, top * height, right * width, bottom * height)),))
            assert min(box.tobytes()) < 64  # ink is in the box
        for wrong in (
            f"{address}/pages/3",
            f"{address}/pages/0",
            f"{address}/pages/x",
            "/v1/contents/none.pdf/pages/1",
        ):
            assert site.ask("GET", wrong).status_code == 404, wrong
        sound = site.search("hello", top_k=1)["hits"][0]["contents"]["tape"][0]["url"]
        assert site.ask("GET", f"{sound}/pages/1").status_code == 404
        part = site.ask("GET", sound, range="bytes=0-3")
        assert part.status_code == 206 and part.content == b"RIFF"
    finally:
        site.close()


DRAWING = """
import os, pathlib, time
from paddle_ranker.pages import pdf

as_before = pdf.page_picture

def page_picture(path, page, *limits):
    with open(pathlib.Path(__file__).parent / "drawn", "a") as drawn:
        drawn.write(f"{page}\\n")
    if page == 2:
        os.kill(os.getpid(), 9)
    while page == 3:
        time.sleep(0.1)
    return as_before(path, page, *limits)

pdf.page_picture = page_picture
"""


@ONCE
def test_a_page_that_kills_or_holds_what_draws_it_ends_no_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pypdfium2", reason="pip install 'paddle-ranker[pdf]'")
    from tests.pages.test_pdf import pdf_of, shown

    corpus = folder_of(tmp_path, {"a.txt": b"nothing"})
    pdf_of(corpus / "good.pdf", shown((60, 700, "Good")))
    pdf_of(corpus / "manual.pdf", *(shown((60, 700, f"Page {word}")) for word in ("one", "two", "three")))
    status, folder = built(tmp_path, corpus)
    assert status == 0
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "sitecustomize.py").write_text(DRAWING)
    monkeypatch.syspath_prepend(str(tmp_path / "made"))  # of the process that draws, too
    monkeypatch.setattr(contents, "_PAGE_SECONDS", 5.0)
    site = Site(index=folder)
    try:
        address = site.search("page", top_k=1)["hits"][0]["contents"]["pdf"][0]["url"]
        for page, status in ((1, 200), (2, 404), (1, 200), (3, 404), (1, 200)):
            drawn = site.ask("GET", f"{address}/pages/{page}")
            assert drawn.status_code == status, drawn.text
            assert status == 200 or "ended with status -9; there may be too little memory or time" in drawn.text
        began = time.monotonic()  # pages 2 and 3 are remembered
        for page in (2, 3):
            assert site.ask("GET", f"{address}/pages/{page}").status_code == 404
        assert time.monotonic() - began < 2
        assert (tmp_path / "made" / "drawn").read_text().split() == ["1", "2", "1", "3", "1"]
    finally:
        site.close()


SECONDS = """
from paddle_ranker.data.files.file_readers import READERS

reader = READERS["pdf"]
READERS.remove("pdf")
READERS.add("pdf", reader._replace(seconds=2.0, memory=1 << 28))
"""


def form(content: str, names: str = "") -> str:
    return (
        f"<< /Subtype /Form /BBox [0 0 600 800] /Resources << /Font << /F 3 0 R >> /XObject << {names} >> >> "
        f"/Length {len(content)} >>\nstream\n{content}\nendstream"
    )


@ONCE
def test_pdfs_that_cost_more_than_their_size_are_refused_and_a_build_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pypdfium2", reason="pip install 'paddle-ranker[pdf]'")
    from tests.pages.test_pdf import pdf_of, shown

    corpus, text = folder_of(tmp_path, {"a.txt": b"nothing"}), shown((60, 700, "text"))
    nested = [form("/N Do " * 10, f"/N {5 + level} 0 R") for level in range(11)] + [form(text)]
    bombs = {
        "itself.pdf": (["/P Do"], (form("/P Do " * 100, "/P 4 0 R"),)),
        "nested.pdf": (["/P Do"], tuple(nested)),
        "shared.pdf": ([text] + ["/P Do"] * 50, tuple(nested)),
    }
    for name, (contents_of_pages, objects) in bombs.items():
        pdf_of(corpus / name, *contents_of_pages, objects=objects)
        assert (corpus / name).stat().st_size < 20_000
    pdf_of(corpus / "good.pdf", shown((60, 700, "Good words")))
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "sitecustomize.py").write_text(SECONDS)
    monkeypatch.syspath_prepend(str(tmp_path / "made"))
    began = time.monotonic()
    status, _ = built(tmp_path, corpus, "--skip_bad_rows")
    said = capsys.readouterr()
    assert status == 0 and "2 new" in said.out, said
    limits = said.out.count("takes too much processor time") + said.out.count("too little memory or time")
    assert "skipped 3 (" in said.out and limits == 3, said.out
    assert all(name in said.out for name in bombs), said.out
    assert time.monotonic() - began < 60


@ONCE
def test_pages_that_take_long_hold_only_their_own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pypdfium2", reason="pip install 'paddle-ranker[pdf]'")
    from tests.pages.test_pdf import pdf_of, shown

    corpus = folder_of(tmp_path, {"a.txt": b"nothing"})
    pdf_of(corpus / "good.pdf", shown((60, 700, "Good")))
    pdf_of(corpus / "bad.pdf", *(shown((60, 700, f"Bad {number}")) for number in range(6)))
    status, folder = built(tmp_path, corpus)
    assert status == 0
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "sitecustomize.py").write_text(DRAWING.replace("page == 3", "page >= 3"))
    monkeypatch.syspath_prepend(str(tmp_path / "made"))
    monkeypatch.setattr(contents, "_PAGE_SECONDS", 5.0)
    site = Site(index=folder)
    try:
        good, bad = (site.search(word, top_k=1)["hits"][0]["contents"]["pdf"][0]["url"] for word in ("good", "bad"))
        assert site.ask("GET", f"{good}/pages/1").status_code == 200

        async def drawn() -> list[float]:
            pages = [f"{bad}/pages/{3 + number % 2}" for number in range(10)]
            waiting = [asyncio.ensure_future(ask_app(site.app, "GET", page)) for page in pages]
            await asyncio.sleep(0.5)
            seconds = list[float]()
            for _ in range(5):
                began = time.monotonic()
                assert (await ask_app(site.app, "GET", f"{good}/pages/1")).status_code == 200
                seconds.append(time.monotonic() - began)
            assert not any(call.done() for call in waiting)
            assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {404}
            return seconds

        seconds = site.loop.run_until_complete(drawn())
        assert sorted(seconds)[2] < 1, seconds  # the first may wait for a process to start
    finally:
        site.close()


def test_a_folder_of_tables_and_texts_names_rows_and_cells(tmp_path: Path) -> None:
    corpus = folder_of(tmp_path, {"cities.tsv": b"city\tpeople\nOslo\t7\nBergen\t3\n", "a.txt": b"Bergen by sea"})
    assert built(tmp_path, corpus)[0] == 0
    with Index(tmp_path / "index") as opened:
        places = {hit.id: hit.place for hit in opened.search("bergen")}
        assert places == {"cities.tsv": {"first_row": 0, "last_row": 1, "cells": [[1, 0]]}, "a.txt": None}


def test_places_are_packed_and_found_within_bounds() -> None:
    random = np.random.default_rng(0)
    starts = np.sort(random.choice(100_000, 5000, replace=False))
    places = [(int(one), int(one) + 1, *random.random(4).round(4)) for one in starts]
    ranges, numbers = unpack_places(pack_places(places))
    assert ranges.tolist() == [list(one[:2]) for one in places]
    np.testing.assert_allclose(numbers / 10_000, [one[2:] for one in places], atol=1e-9)
    for text in ("", "6:", "6:abc", "x" * 99, pack_places(places)[:-9], "7:" + pack_places(places)[2:]):
        with pytest.raises((ValueError, IndexError)):
            unpack_places(text)


def test_every_type_of_file_is_told_by_its_first_bytes() -> None:
    table = FIELD_TYPES["table"].suffix_of
    assert [table(one) for one in (b"a,b\n1,2\n", "ä;b".encode("utf-16"), b"PK\x03\x04", b"PAR1", b"\n<TABLE>")] == [
        "csv", "csv", "xlsx", "parquet", "html",
    ]  # fmt: skip
    recording = FIELD_TYPES["recording"].suffix_of
    assert [recording(one) for one in (b"RIFF....WAVEfmt", b"fLaC", b"OggS", b"ID3\x04", b"\xff\xfb\x90")] == [
        "wav", "flac", "ogg", "mp3", "mp3",
    ]  # fmt: skip
    assert FIELD_TYPES["pdf"].suffix_of(b"\n\n%PDF-1.7") == "pdf"
    document, times = FIELD_TYPES["document"].suffix_of, "1\n0:01 --> 0:02\n"
    assert [document(one) for one in (b"\n<?xml ?>", "<a/>".encode("utf-16"), b'{"cells"')] == ["xml", "xml", "ipynb"]
    subtitles = FIELD_TYPES["subtitles"].suffix_of
    assert [subtitles(one) for one in (b"WEBVTT\n", times.encode(), times.encode("utf-16"))] == ["vtt", "srt", "srt"]
    for name in ("pdf", "recording", "scan", "table", "document", "subtitles"):
        for data in (b"", b"\0\1\2\3"):
            with pytest.raises(ValueError):
                FIELD_TYPES[name].suffix_of(data)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("manual.pages", pages("Safety first", "The warranty lasts two years")),
        ("prices.html", b"<h1>Prices</h1><p>The warranty lasts two years<table><tr><td>Lamp<tr><td>9</table>"),
        ("about.md", b"# About\n\nThe warranty lasts two years"),
    ],
)
def test_a_file_alone_is_read_as_in_a_folder(
    tmp_path: Path, name: str, data: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of(tmp_path, {name: data})
    found = []
    for corpus, out in ((folder, "of_folder"), (folder / name, "of_file")):
        status, index_folder = built(tmp_path, corpus, out=out)
        assert status == 0
        with Index(index_folder) as opened:
            found.append([(hit.id, hit.text, hit.place) for hit in opened.search("warranty")])
        assert index(["add", str(index_folder), "--corpus", str(corpus)]) == 0
        assert "0 new, 0 replaced" in capsys.readouterr().out
    assert found[0] == found[1] and "two years" in found[0][0][1]


def test_files_of_several_folders_keep_their_names_apart(tmp_path: Path) -> None:
    words = {"a": "first", "b": "second", "c": "third"}
    corpus = folder_of(tmp_path, {f"{name}/x.pages": pages(word) for name, word in words.items()})
    paths = [str(corpus / name) for name in ("a", "b", "c/x.pages")]
    folder = tmp_path / "index"
    assert index(["build", "--corpus", *paths, "--output", str(folder)]) == 0
    with Index(folder) as opened:
        hits = [hit for word in words.values() for hit in opened.search(word)]
    assert [hit.id for hit in hits] == [f"{corpus}/{name}/x.pages#1" for name in "abc"]


def damaged(corpus: Path) -> dict[str, str]:
    """Write files that cannot be read, beside one that can; return what is said of each."""
    os.mkfifo(corpus / "pipe.txt")
    (corpus / "loop.txt").symlink_to("loop.txt")
    Path(os.fsdecode(os.fsencode(corpus) + b"/caf\xe9.txt")).write_text("x")
    return {
        "nul.txt": "a NUL byte",
        "binary.txt": "binary data",
        "manual.txt": "a PDF, expected text; name it .pdf",
        "page.txt": "a web page, expected text; name it .html",
        "letter.txt": "a formatted text",
        "caf\\xe9.txt": "its name is not UTF-8; rename it",
        "broken.pages": "does not begin with PAGES",
        "pipe.txt": "no file, but a pipe",
        "loop.txt": "a link",
        "empty.txt": "it is empty",
        "letter.key": "such files are not read (.key)",
    }


BAD_FILES = {
    "good.txt": b"The warranty lasts two years",
    "nul.txt": b"a\0b",
    "binary.txt": bytes(range(256)) * 10,
    "manual.txt": b"%PDF-1.4 and so on",
    "page.txt": b"\n<!DOCTYPE html><p>x",
    "letter.txt": b"{\\rtf1 x}",
    "broken.pages": b"nothing",
    "empty.txt": b"",
    "letter.key": b"PK",
}


@pytest.mark.parametrize("shards", [(), ("--shards", "2")])
def test_a_list_names_every_file_that_is_left_out(
    tmp_path: Path, shards: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = folder_of(tmp_path, BAD_FILES)
    reasons = damaged(corpus)
    listed = tmp_path / "left.jsonl"
    assert built(tmp_path, corpus, *shards, "--skip_bad_rows", "--report", str(listed))[0] == 0
    rows = [json.loads(line) for line in listed.read_text().splitlines()]
    found = {row["where"] or "broken.pages": row["reason"] for row in rows}  # a shard's file is named by its document
    assert found.keys() == reasons.keys()
    assert all(reason in found[name] for name, reason in reasons.items())
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"{listed}: lists 7 skipped, 4 not read (rows, files and parts of files)" and len(reasons) == 11, (
        last
    )


def test_one_error_names_all_bad_files_and_the_list_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = {name: data for name, data in BAD_FILES.items() if name.endswith((".txt", ".pages"))}
    late = {"a.txt": b"good", "b.pages": b"no", "c.pages": pages("one", "!bad"), "d.txt": b"good"}
    listed = tmp_path / "left.tsv"
    for name, files, more, count in (
        ("folder", {**bad, **late}, [], 8),
        ("read", late, [], 2),  # bad files that are met when their words are read
        ("shards", late, ["--shards", "2"], 2),
        ("many", {f"{n:03}.txt": b"a\0b" for n in range(400)}, [], 400),
    ):
        corpus = folder_of(tmp_path / name, files)
        status, folder = built(tmp_path, corpus, "--report", str(listed), *more, out=f"{name}.index")
        error = capsys.readouterr().err
        rows = [line.split("\t") for line in listed.read_text().splitlines()[1:]]
        refused = [row for row in rows if row[0] == "refused"]
        assert status == 1 and len(refused) == count and all(reason for *_, reason in rows), rows
        assert f" {count} " in error and "--skip_bad_rows" in error and len(error) < 900, error
        assert count > 9 or all(where in error and (where or reason[:40] in error) for _, where, reason in refused)
        assert not (folder / "index.json").exists() and not (folder / "shards.json").exists(), name
        listed.unlink()
    assert re.search(r"000\.txt: a NUL byte.*, 0\d\d\.txt and \d+ more; correct them", error)
    files = {"a.csv": b"id,text\n1,two years\n", "b.xlsx": b"PK\x03\x04bad", "c.gz": b"\x1f\x8bno", "d.jsonl": b"[\n"}
    paths = [str(folder_of(tmp_path / "several", files) / name) for name in files]
    assert index(["build", "--corpus", *paths, "--output", str(tmp_path / "i"), "--report", str(listed)]) == 1
    error = capsys.readouterr().err
    assert all(path in error for path in paths[1:]) and "3 files cannot be read" in error, error
    assert len(listed.read_text().splitlines()) == 4
    listed.unlink()
    assert built(tmp_path, Path(paths[0]), out="there")[0] == 0
    assert index(["add", str(tmp_path / "there"), "--corpus", *paths[1:3], "--report", str(listed)]) == 1
    assert [line.split("\t")[1] for line in listed.read_text().splitlines()[1:]] == paths[1:3]


@pytest.mark.parametrize("name", ["nul.txt", "binary.txt", "manual.txt", "broken.pages"])
def test_a_bad_file_is_named_and_stops_a_build_unless_it_may_be_left_out(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = folder_of(tmp_path, {"good.txt": BAD_FILES["good.txt"], name: BAD_FILES[name]})
    assert built(tmp_path, corpus)[0] == 1
    error = capsys.readouterr().err
    assert f"{corpus}/{name}: " in error and "line" not in error and "--skip_bad_rows" in error
    assert built(tmp_path, corpus, "--skip_bad_rows")[0] == 0
    assert f"skipped 1 ({name}: " in capsys.readouterr().out


def test_one_bad_file_of_several_is_left_out_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = folder_of(
        tmp_path, {"a.csv": b"id,text\n1,two years\n", "b.xlsx": b"PK\x03\x04bad", "c.gz": b"\x1f\x8bno"}
    )
    paths = [str(corpus / name) for name in ("b.xlsx", "a.csv", "c.gz")]
    assert index(["build", "--corpus", *paths, "--output", str(tmp_path / "i")]) == 1
    assert "b.xlsx" in capsys.readouterr().err
    assert index(["build", "--corpus", *paths, "--output", str(tmp_path / "i"), "--skip_bad_rows"]) == 0
    assert "kept 1; skipped 2" in capsys.readouterr().out


@pytest.mark.parametrize("is_there", [False, True])
def test_what_reads_the_words_in_pictures_is_said(
    is_there: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    monkeypatch.setattr("paddle_ranker.pages.contents.find_spec", lambda name: is_there)
    corpus = folder_of(tmp_path, {"page.png": b"", "a.txt": b"a text"})
    Image.new("RGB", (9, 9)).save(corpus / "page.png")
    assert built(tmp_path, corpus)[0] == 0
    said = capsys.readouterr().err
    assert "--field scan:scan reads the words in them" in said
    assert ("pip install 'paddle-ranker[ocr]'" in said) != is_there
    assert built(tmp_path, corpus, "--field", "picture:picture", out="declared")[0] == 0
    assert "scan:scan" not in capsys.readouterr().err


def test_files_of_a_kind_that_is_not_read_are_counted_with_what_converts_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paddle_ranker.data.files.pictures.reads_format", lambda kind: False)
    names = [f"IMG_{n}.HEIC" for n in range(12)] + ["a.doc", "b.doc", "c.m4a"]
    corpus = folder_of(tmp_path, {**dict.fromkeys(names, b"\0\0\0\x18ftypheic"), "a.txt": b"a lamp"})
    assert built(tmp_path, corpus)[0] == 0
    said = capsys.readouterr().out
    assert (
        "not read: 15 (IMG_0.HEIC: such files are not read (.heic); pip install 'paddle-ranker[files]' reads them, or "
        "heif-convert IN.heic OUT.png converts them (12 such)" in said
    )
    converts = "libreoffice --headless --convert-to docx IN.doc converts them (2 such)"
    assert f"a.doc: such files are not read (.doc); {converts}; c.m4a: such files are not read (.m4a); ffmpeg" in said
