"""Each kind of content in 300 documents: built, built again, killed and resumed, added to, synchronised, served."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, Optional

import numpy as np
import pytest
from PIL import Image

from paddle_ranker.commands.index import main as index
from paddle_ranker.notebook import Index
from paddle_ranker.recordings.speech import MODEL_VARIABLE
from paddle_ranker.retrieval.index import collection_writer
from tests.pictures.test_pictures import published as published_pictures
from tests.recordings.test_sounds import published as published_sounds
from tests.recordings.test_sounds import wav
from tests.serving.test_search import Site

pytestmark = pytest.mark.slow
COUNT, MORE = 300, 3  # floors are measured from 100 documents on


def picture(number: int) -> bytes:
    """Return a picture whose colours say its number."""
    stream = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (2, 2, 3), np.uint8)
    Image.fromarray(pixels).resize((16, 16), Image.Resampling.NEAREST).save(stream, "PNG")
    return stream.getvalue()


def recording(number: int) -> bytes:
    """Return a tenth of a second of noise."""
    return wav(0.1 * np.random.default_rng(number).standard_normal(1600).clip(-3, 3))


def film(number: int) -> bytes:
    """Return a film of two frames."""
    pytest.importorskip("av", reason="needs: pip install 'paddle-ranker[film]'")
    from tests.recordings.test_film import make

    colour = np.random.default_rng(number).integers(0, 200, 3).tolist()
    return make([(colour[0], colour[1], colour[2])], "avi", seconds=0.2, size=(32, 32))


def pdf(number: int) -> bytes:
    """Return a PDF of one line."""
    pytest.importorskip("pypdfium2", reason="needs: pip install 'paddle-ranker[pdf]'")
    from tests.pages.test_pdf import pdf_of, shown

    with TemporaryDirectory() as folder:
        return pdf_of(Path(folder, "a.pdf"), shown((72, 700, f"manual number{number}"))).read_bytes()


class Kind(NamedTuple):
    """Kind of content.

    make: returns the file of a number
    suffix: suffix of the files
    tower: returns the folder of a tower as published; None: there are no towers for the kind
    """

    make: Callable[[int], bytes]
    suffix: str
    tower: Optional[Callable[[Path], Path]] = None


def _clip(folder: Path) -> Path:
    return published_pictures("clip", folder)


def _vit(folder: Path) -> Path:
    return published_pictures("vit", folder)


def _hubert(folder: Path) -> Path:
    return published_sounds("hubert", folder)


KINDS = {
    "picture": Kind(picture, "png", _clip),
    "picture of pictures": Kind(picture, "png", _vit),
    "recording": Kind(recording, "wav", _hubert),
    "film": Kind(film, "avi", _clip),
    "film of pictures": Kind(film, "avi", _vit),
    "table": Kind(lambda number: f"name,price\nlamp{number},{number}\n".encode(), "csv"),
    "pdf": Kind(pdf, "pdf"),
}
CASES = [
    (name, with_tower) for name, kind in KINDS.items() for with_tower in (False, True) if kind.tower or not with_tower
]


@pytest.mark.parametrize("name, with_tower", [case for case in CASES if case[1] or " of " not in case[0]])
def test_every_kind_is_built_added_to_resumed_and_served(
    name: str, with_tower: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    kind, field = KINDS[name], name.partition(" ")[0]
    if field == "recording":
        pytest.importorskip("av", reason="needs: pip install 'paddle-ranker[sound]'")
        monkeypatch.setenv(MODEL_VARIABLE, str(published_sounds("wav2vec2", tmp_path / "speech")))
    files, folder = tmp_path / "files", tmp_path / "index"
    files.mkdir()
    for number in range(COUNT):
        (files / f"file{number}.{kind.suffix}").write_bytes(kind.make(number))
    line = ["build", "--corpus", str(files), "--output", str(folder), "--field", f"content:{field}"]
    if with_tower:
        assert kind.tower is not None
        line += ["--field_tower", f"content={kind.tower(tmp_path / 'tower')}"]

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    def done(*more: str) -> str:
        capsys.readouterr()
        assert index([*line, *more]) == 0, capsys.readouterr()
        return capsys.readouterr().out

    with monkeypatch.context() as patch:
        patch.setattr(collection_writer.CollectionWriter, "measure_floors", killed)  # of which all documents are there
        assert index(line) != 0
    assert f"{COUNT:,} as they were" in done()
    assert f"{COUNT:,} as they were" in done(), "the same line once more"
    for number in range(COUNT, COUNT + MORE):
        (files / f"file{number}.{kind.suffix}").write_bytes(kind.make(number))
    capsys.readouterr()
    assert index(["add", "--corpus", str(files), "--index", str(folder)]) == 0
    assert f"{MORE} new" in capsys.readouterr().out
    (files / f"file0.{kind.suffix}").unlink()
    assert "1 documents removed" in done("--sync")

    last = f"file{COUNT + MORE - 1}.{kind.suffix}"
    example, named = (files / last).read_bytes(), f"file{COUNT + MORE - 1}"
    with Index(folder) as opened:
        assert len(opened) == COUNT + MORE - 1
        assert last in opened.search(named, top_k=1)[0].id or field in ("table", "pdf")
        if with_tower:
            assert opened.search(like=example, top_k=1)[0].id == last
        assert opened.add([{"id": "new", "text": "new", "content": files / last}]).new == 1
    site = Site(index=folder)
    try:
        assert site.search(named if field not in ("table", "pdf") else "manual lamp", top_k=2)["hits"]
        if with_tower:
            like = {field: "data:;base64," + base64.b64encode(example).decode()}
            assert {hit["id"] for hit in site.search("", like=like, top_k=2)["hits"]} == {last, "new"}
    finally:
        site.close()
    assert json.loads((folder / "index.json").read_text())["segments"]
