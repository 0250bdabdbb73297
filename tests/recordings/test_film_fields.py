"""Films in documents: found by words, pictures and films, with their seconds; bad films are refused or skipped."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paddle_ranker.commands.index import main as index
from paddle_ranker.commands.search import main as search
from paddle_ranker.retrieval.stages.search import SearchSettings
from paddle_ranker.retrieval.stages.search_engine import SearchEngine
from paddle_ranker.retrieval.vectors.text_vectors import Tower
from tests.pictures.test_picture_fields import picture
from tests.pictures.test_pictures import published
from tests.recordings.test_film import BLUE, CODECS, GREEN, GREY, RED, bad_films, make
from tests.serving.test_search import Site

pytestmark = pytest.mark.parity
av = pytest.importorskip("av", reason="needs: pip install 'paddle-ranker[film]'")
COLOURS = {"red": RED, "green": GREEN, "blue": BLUE, "grey": GREY}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build an index of a folder of films and a picture with a random CLIP."""
    folder = tmp_path_factory.mktemp("films")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        (folder / "files").mkdir()
        for number, kind in enumerate(CODECS):
            colours = [*COLOURS.values()]
            data = make(colours[number % 4 :] + colours[: number % 4], kind)
            (folder / "files" / f"{kind}_film.{'mp4' if kind == 'mkv' else kind}").write_bytes(data)
        (folder / "files" / "photo.png").write_bytes(picture(RED))
        clip = published("clip", folder / "clip")
        build = ["build", "--corpus", str(folder / "files"), "--output", str(folder / "index")]
        towers = ["--field_tower", f"film={clip},picture={clip}"]
        assert index([*build, "--field", "film:film,picture:picture", *towers]) == 0
    return folder / "index"


def found_by(built: Path, capsys: pytest.CaptureFixture[str], *query: str) -> dict[str, Any]:
    capsys.readouterr()
    assert search(["--index", str(built), *query, "--format", "json"]) == 0
    return {one["id"]: one for one in json.loads(capsys.readouterr().out)["results"]}


def test_films_are_found_by_pictures_and_name_the_seconds(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, (name, colour) in enumerate(COLOURS.items()):
        pixels = np.broadcast_to(np.asarray(colour, np.uint8), (48, 64, 3)).copy()
        pixels[:, :32] //= 2
        like = built.parent / f"{name}.png"
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.to_image().save(like)
        found = found_by(built, capsys, "--like", str(like), "--by", "film")
        assert len(found) == len(CODECS)
        for place, kind in enumerate(CODECS):
            (hit,) = (one for id, one in found.items() if id.startswith(f"{kind}_film"))
            start = 2 * ((number - place) % 4)
            assert hit["place"] == {"first_second": 0, "last_second": 8, "seconds": [[start, start + 2]]}, hit
    assert "photo.png" in found_by(built, capsys, "--like", str(built.parent / "red.png"))
    with SearchEngine.open(built, SearchSettings()) as engine:
        for one in engine.search("", 9, like=make((BLUE,), "webm")):
            start = 2 * ((2 - [*CODECS].index(one.id.partition("_")[0])) % 4)
            assert {*one.searchers} == {"film"}
            assert one.place == {"first_second": 0, "last_second": 8, "seconds": [[start, start + 2]]}
        assert engine.search("webm film", 1)[0].id == "webm_film.webm"


def test_films_are_found_by_words(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = found_by(built, capsys, "a photo of a cat", "--by", "film")
    clip = Tower.open(built.parent / "clip", for_search=True)
    frames = clip.encode_pictures([*av_frames(built.parent / "files" / "mov_film.mov")])
    cosines = (frames @ clip.query_vectors(["a photo of a cat"]).T)[:, 0]
    best = int(cosines.argmax())
    assert found["mov_film.mov"]["place"]["seconds"] == [[2 * best, 2 * best + 2]]
    assert found["mov_film.mov"]["score"] == pytest.approx(cosines.max(), abs=1e-5)


def av_frames(path: Path) -> list[Any]:
    """Return the frames at each second second."""
    with av.open(str(path)) as container:
        return [one.to_ndarray(format="rgb24") for one in container.decode(video=0)][::20]


def url(data: bytes) -> str:
    return "data:video/mp4;base64," + base64.b64encode(data).decode()


def test_a_server_finds_films_by_pictures_and_by_films(built: Path) -> None:
    site = Site(index=built)
    try:
        assert site.ask("GET", "/v1/index").json()["like"] == ["id", "film", "picture"]
        png = "data:image/png;base64," + base64.b64encode(picture(BLUE)).decode()
        hits = site.search("", like={"picture": png}, by=["film"])["hits"]
        assert {one["place"]["seconds"][0][1] for one in hits} <= {2, 4, 6, 8} and len(hits) == len(CODECS)
        hit = next(one for one in hits if one["id"] == "webm_film.webm")
        assert hit["contents"]["film"][0]["media_type"] == "video/webm"
        part = site.ask("GET", hit["contents"]["film"][0]["url"], range="bytes=4-9")
        assert part.status_code == 206 and len(part.content) == 6
        (hit,) = site.search("", like={"film": url(make((GREEN,), "avi"))}, top_k=1)["hits"]
        assert hit["stages"]["film"]["score"] == pytest.approx(1, abs=0.01)
        for name, (data, problem) in bad_films().items():
            refused = site.ask("POST", "/v1/search", {"like": {"film": url(data)}})
            assert refused.status_code == 422, name
            assert any(one in refused.text for one in problem.split("|")), (name, refused.text)
    finally:
        site.close()


def test_bad_films_are_refused_by_id_and_field_or_skipped(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bad, rows = bad_films(), list[dict[str, str]]()
    long = make((RED, GREEN, BLUE, GREY), "mp4", movflags="faststart")
    good = {
        "one.mkv": make((RED,), "mkv", "ffv1", 0.1, size=(1, 1)),
        "wrong.mp4": make((RED,), "avi"),
        "half.mp4": long[: long.index(b"mdat") + (len(long) - long.index(b"mdat")) // 2],
    }
    for name, data in {**{name: data for name, (data, _) in bad.items()}, **good}.items():
        (tmp_path / name).write_bytes(data)
        rows.append({"id": name, "film": name})
    path = tmp_path / "rows.jsonl"
    build = ["build", "--corpus", str(path), "--field", "film:film"]
    build += ["--field_tower", f"film={built.parent / 'clip'}"]
    for name, (_, problem) in bad.items():
        path.write_text(json.dumps({"id": name, "film": name}) + "\n")
        assert index([*build, "--output", str(tmp_path / f"index-{name}")]) == 1, name
        said = capsys.readouterr().err
        assert f"document '{name}': film" in said and any(one in said for one in problem.split("|")), said
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert index([*build, "--output", str(tmp_path / "index"), "--skip_bad_rows"]) == 0
    said = capsys.readouterr().out
    assert f"kept {len(good)}; skipped {len(bad)} (" in said, said
    assert "not read: 1 (half.mp4: from second" in said and f"{len(good)} documents" in said, said
