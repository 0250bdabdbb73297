"""Pictures in documents: built, checked, searched by texts and pictures, served; bad files are refused or skipped."""

from __future__ import annotations

import base64
import errno
import io
import json
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from paddle_ranker import Index
from paddle_ranker.commands.evaluate_recall import EvaluateRecallOptions, evaluate
from paddle_ranker.commands.index import main as index
from paddle_ranker.commands.search import main as search
from paddle_ranker.errors import DataError, UsageError
from paddle_ranker.evaluation.comparison import Measured
from paddle_ranker.retrieval.index.content_staging import StagedFiles
from paddle_ranker.retrieval.stages.search import SearchSettings
from paddle_ranker.retrieval.stages.search_engine import SearchEngine
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.schema import Field, Schema
from paddle_ranker.retrieval.vectors.text_vectors import Tower, normalised
from tests.pictures.test_pictures import published
from tests.serving.test_search import Site

pytestmark = pytest.mark.parity
COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200), "grey": (120, 120, 120)}


def picture(colour: tuple[int, ...], kind: str = "PNG", size: tuple[int, int] = (40, 30), **how: Any) -> bytes:
    """Return a file of a picture of one colour with a gradient."""
    pixels = np.broadcast_to(np.asarray(colour, np.uint8), (size[1], size[0], 3)).copy()
    pixels[:, :, 0] += np.linspace(0, 50, size[0], dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **how)
    return stream.getvalue()


def bomb() -> bytes:
    """Return a PNG of a few bytes whose header states 30,000 x 30,000 pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def data_url(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


BAD: dict[str, tuple[bytes, str]] = {
    "cut.png": (picture((1, 2, 3))[:-20], "damaged"),
    "cut.jpg": (picture((1, 2, 3), "JPEG", (400, 300))[:600], "damaged"),
    "text.png": (b"no picture", "not an image of a known kind"),
    "bomb.png": (bomb(), "40,000,000 pixels"),
    "drawing.svg": (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "rsvg-convert"),
    "photo.heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "heif-convert|damaged"),
    "empty.png": (b"", "not an image of a known kind|empty"),
}
GOOD = {
    "one": picture((0, 9, 180), size=(1, 1)),
    "thin": picture((30, 9, 150), size=(1, 5000)),
    "wide": picture((60, 9, 120), size=(3000, 10)),
    "animated": picture((90, 9, 90), "GIF", save_all=True, append_images=[Image.new("RGB", (40, 30))]),
    "jpeg": picture((120, 9, 60), "JPEG"),
    "webp": picture((150, 9, 30), "WEBP"),
    "tiff": picture((180, 9, 0), "TIFF"),
}


def corpus(folder: Path, files: dict[str, bytes]) -> Path:
    """Write files and a corpus that names them."""
    (folder / "files").mkdir(parents=True, exist_ok=True)
    rows = list[dict[str, str]]()
    for name, data in files.items():
        (folder / "files" / name).write_bytes(data)
        rows.append({"id": name, "text": f"picture {name}", "photo": f"files/{name}"})
    path = folder / "corpus.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def built(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Build an index of four colours with a random CLIP, and with a tower of pictures alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    clip, vit = (published(name, tmp_path / name) for name in ("clip", "vit"))
    path = corpus(tmp_path, {name: picture(colour) for name, colour in COLOURS.items()})
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({**row, "again": row["photo"]}) + "\n" for row in rows), encoding="utf-8")
    build = ["build", "--corpus", str(path), "--output", str(tmp_path / "index")]
    build += ["--field", "photo:picture,again:picture", "--field_tower", f"photo={clip},again={vit}"]
    assert index(build) == 0, capsys.readouterr().err
    capsys.readouterr()
    return tmp_path / "index"


def test_pictures_are_found_by_texts_and_by_pictures(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = Tower.open(built.parent / "clip")
    stored = clip.encode_pictures([picture(colour) for colour in COLOURS.values()])
    asked = clip.query_vectors(["a photo of a cat"])
    cosines = (stored @ asked.T)[:, 0] / np.linalg.norm(stored, axis=1) / np.linalg.norm(asked)
    with SearchEngine.open(built, SearchSettings(("photo",))) as by_photo:
        found = by_photo.search("a photo of a cat", 4)
        assert [one.id for one in found] == [[*COLOURS][place] for place in np.argsort(-cosines)]
        np.testing.assert_allclose([one.score for one in found], np.sort(cosines)[::-1], atol=1e-5)
    with SearchEngine.open(built, SearchSettings()) as engine:
        # The tower of pictures alone is asked by pictures alone.
        assert {*engine.search("picture", 1)[0].searchers} == {"words", "photo"}
        found = engine.search("", 2, like=picture(COLOURS["blue"], "BMP"))
        assert found[0].id == "blue" and {*found[0].searchers} == {"photo", "again"}
        assert found[0].searchers["again"].score == pytest.approx(1.0, abs=1e-5)
        assert [one.id for one in engine.search("", 1, like="grey", where="photo!=null")] != ["grey"]
        with pytest.raises(UsageError, match="read no texts"):
            SearchEngine(engine.collection, SearchSettings(("again",))).search("a text", 1)
    file = built.parent / "like.webp"
    file.write_bytes(picture(COLOURS["green"], "WEBP", lossless=True))
    assert search(["--index", str(built), "--like", str(file), "--format", "json", "--top_k", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["id"] == "green"
    build = ["build", "--corpus", str(built.parent / "corpus.jsonl"), "--output", str(built.parent / "other")]
    assert index([*build, "--tower", str(built.parent / "clip")]) == 2
    assert "reads pictures: --field NAME:picture" in capsys.readouterr().err


def test_a_query_that_is_too_long_for_a_clip_is_told(built: Path) -> None:
    clip, long = Tower.open(built.parent / "clip"), "a photo of a cat, " * 40
    with Index(built) as opened:
        assert not opened.search("a photo of a cat").query_read_by
        hits = opened.search(long)
        (read,) = hits.query_read_by.values()
        assert [*hits.query_read_by] == ["photo"] and f"photo reads {read} characters" in repr(hits)
    vectors = clip.query_vectors([long, long[:read]])
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)
    tokens = clip._queries.encoder.tokens  # type: ignore[union-attr]
    most = tokens.max_seq_length - 2  # beside the tokens of start and end
    assert tokens.count_tokens(long[:read]) <= most < tokens.count_tokens(long[: read + 1])


def test_bad_pictures_are_refused_by_id_and_field_or_skipped(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = Site(index=built, writable=True)
    try:
        for name, (data, problem) in BAD.items():
            path = corpus(tmp_path / "bad", {"good.png": picture((7, 7, 7)), name: data})
            assert index(["add", str(built), "--corpus", str(path)]) == 1, name
            said = capsys.readouterr().err
            assert f"line 2: document '{name}': photo is" in said, said
            assert any(one in said for one in problem.split("|")), said
            for body in ({"id": name, "text": "a", "photo": data_url(data)}, {"id": name, "text": "a", "photo": name}):
                refused = site.ask("POST", "/v1/documents", {"documents": [body]})
                assert refused.status_code == 422 and "photo" in refused.text and name in refused.text, refused.text
            refused = site.ask("POST", "/v1/search", {"like": {"picture": data_url(data)}})
            assert refused.status_code == 422 and "like.picture" in refused.text, refused.text
        path = corpus(tmp_path / "all", {**{name: data for name, (data, _) in BAD.items()}, **GOOD})
        assert index(["add", str(built), "--corpus", str(path), "--skip_bad_rows"]) == 0
        said = capsys.readouterr().out
        assert f"kept {len(GOOD)}; skipped {len(BAD)} (" in said and f"{len(GOOD)} new" in said, said
        assert "not read: 1 (animated: only the first of its 2 frames or pages is read)" in said, said
        hits = site.search("", like={"picture": data_url(GOOD["thin"])}, by=["photo"], top_k=20)["hits"]
        assert hits[0]["id"] == "thin" and {*GOOD} < {hit["id"] for hit in hits}
        assert hits[0]["contents"]["photo"][0]["media_type"] == "image/png"
        changed = {"documents": [{"id": "one", "photo": data_url(picture(COLOURS["red"]))}]}
        assert site.ask("PATCH", "/v1/documents", changed).status_code == 200
        again = site.search("", like={"id": "one"}, by=["photo"], top_k=1)["hits"]
        assert again[0]["id"] == "red" and again[0]["stages"]["photo"]["score"] == pytest.approx(1.0, abs=1e-5)
    finally:
        site.close()


def test_a_batch_changes_no_vector(built: Path) -> None:
    files = [*GOOD.values(), *(picture(colour) for colour in COLOURS.values())]
    with SearchEngine.open(built, SearchSettings(("photo",)), write=True) as engine:
        engine.add([Document(f"b{n}", "text", {"photo": data}) for n, data in enumerate(files)])
        for n, data in enumerate(files):
            engine.add([Document(f"s{n}", "text", {"photo": data})])
        for n in range(len(files)):
            scores = {one.id: one.score for one in engine.search("", 99, like=f"b{n}")}
            assert scores[f"s{n}"] == pytest.approx(1.0, abs=1e-6)


def test_words_of_texts_correct_no_query_of_pictures(built: Path) -> None:
    stored, tower = [picture(colour) for colour in COLOURS.values()], Tower.open(built.parent / "clip")
    cosines = normalised(tower.encode_pictures(stored)) @ normalised(tower.query_vectors(["a poodle"])).T
    with SearchEngine.open(built, SearchSettings(), write=True) as engine:
        engine.add([Document(f"n{number}", "noodle soup") for number in range(30)])
        found = engine.run(["a poodle"], 9)[0]
        assert [(one.given, one.to) for one in found.query.words.corrected] == [("poodle", ("noodle",))]
        by_photo = found.fused.candidates.scores[:, found.fused.candidates.searchers.index("photo")]
        scores = dict(zip(found.fused.candidates.ids, by_photo.tolist()))
        np.testing.assert_allclose([scores[name] for name in COLOURS], cosines[:, 0], atol=1e-5)
    with SearchEngine.open(built, SearchSettings(("photo",))) as engine:
        assert engine.run(["a poodle"], 9)[0].query.words.corrected == ()


def titles_of(kind: str, names: list[str]) -> list[str]:
    """Return the titles of documents whose pictures have these names: all right, half of them, none, or of a camera."""
    if kind == "camera":
        return [f"IMG_{number:04}.jpg" for number in range(len(names))]
    wrong = [*names[1:], names[0]]
    return [(other if kind == "wrong" or (kind == "half" and number % 2) else name) or "none"
            for number, (name, other) in enumerate(zip(names, wrong))]  # fmt: skip


@pytest.mark.parametrize("kind", ["right", "half", "camera", "wrong"])
def test_titles_lower_no_ndcg_of_pictures_unless_all_are_wrong_and_no_weights_learned(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rng, queries = np.random.default_rng(0), [f"thing{number}" for number in range(64)]
    tower = Tower.open(published("clip", tmp_path / "clip"))
    files = [picture(tuple(colour)) for colour in rng.integers(0, 200, (len(queries), 3)).tolist()]
    cosines = tower.query_vectors(queries) @ normalised(tower.encode_pictures(files)).T
    answers = [int(row[rng.integers(8)]) for row in np.argsort(-cosines)]  # one of the first eight pictures, at random
    names = [" ".join(query for query, answer in zip(queries, answers) if answer == n) for n in range(len(files))]
    (tmp_path / "files").mkdir()
    titles = titles_of(kind, names)
    rows = list[dict[str, str]]()
    for number, (file, title) in enumerate(zip(files, titles)):
        (tmp_path / "files" / f"{number}.png").write_bytes(file)
        rows.append({"id": f"d{number}", "title": title, "photo": f"files/{number}.png"})
    (tmp_path / "corpus.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    for half in (0, 1):
        numbers = range(half, len(queries), 2)
        (tmp_path / f"queries{half}").write_text("".join(f"q{number}\t{queries[number]}\n" for number in numbers))
        (tmp_path / f"qrels{half}").write_text("".join(f"q{number} 0 d{answers[number]} 1\n" for number in numbers))
    build = ["build", "--corpus", str(tmp_path / "corpus.jsonl"), "--output", str(tmp_path / "index")]
    assert index([*build, "--field", "photo:picture", "--field_tower", f"photo={tmp_path / 'clip'}"]) == 0

    def compare(half: int, **settings: Any) -> dict[str, Measured]:
        judged = {name: str(tmp_path / name) + str(half) for name in ("queries", "qrels")}
        options = EvaluateRecallOptions(index=str(tmp_path / "index"), baselines=False, **{**judged, **settings})
        return {name: measures["ndcg@10"] for name, measures in evaluate(options).measured.items()}

    weights = str(tmp_path / "weights.json")
    equal, learned = compare(1, learn_weights=weights), compare(0, fusion=weights)
    assert 0.3 < equal["photo"].interval.estimate < 0.9
    # "better": pictures alone are, beyond the interval of the paired difference.
    assert (equal["photo"].verdict == "better") == (kind == "wrong")
    assert learned["photo"].verdict != "better"


def test_a_full_disk_is_no_error_of_the_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    schema = Schema((Field("photo", "picture"),))
    with StagedFiles(tmp_path) as files:
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):  # a server answers 503, and not 422
            files.keep(Document("a", "a", {"photo": picture((1, 2, 3))}), schema)
        with pytest.raises(DataError, match="expected a picture"):
            files.keep(Document("a", "a", {"photo": tmp_path / "missing.png"}), schema)
