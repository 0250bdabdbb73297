"""Recordings in documents: their words and vectors, found by sounds; bad sounds are refused."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from paddle_ranker.__main__ import main
from paddle_ranker.commands.index import main as index
from paddle_ranker.commands.search import main as search
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.recordings.speech import MODEL_VARIABLE
from paddle_ranker.recordings.towers import encode_sounds
from paddle_ranker.retrieval.stages.search import SearchSettings
from paddle_ranker.retrieval.stages.search_engine import SearchEngine
from paddle_ranker.retrieval.vectors.text_vectors import Tower
from paddle_ranker.scoring.engines.engine_registry import is_installed
from tests.checkout import ONCE
from tests.pictures.test_pictures import published as published_pictures
from tests.recordings.test_sounds import published, wav
from tests.serving.test_search import Site

pytestmark = pytest.mark.parity
pytest.importorskip("soundfile", reason="needs: pip install 'paddle-ranker[sound]'")
pytest.importorskip("soxr", reason="needs: pip install 'paddle-ranker[sound]'")
HAS_ONNX = not paddle.__version__.startswith("2.") and is_installed("onnx")
SECONDS = {"low": 2.0, "middle": 1.0, "high": 3.0, "long": 35.0}
HERTZ = {"low": 200, "middle": 900, "high": 3000, "long": 1500}


def tone(name: str, seconds: float, rate: int = 16_000) -> Any:
    """Return the samples of a tone, with a little noise."""
    places = np.arange(int(seconds * rate)) / rate
    noise = np.random.default_rng(0).standard_normal(len(places))
    return 0.3 * np.sin(2 * np.pi * HERTZ[name] * places) + 0.001 * noise


def sound(name: str, rate: int = 16_000, channels: int = 1) -> bytes:
    """Return a file of a tone."""
    samples = tone(name, SECONDS[name], rate)
    return wav(np.stack([samples] * channels, 1) if channels > 1 else samples, rate)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build an index of a folder of sounds with a random wav2vec2, which also spells what is said."""
    folder = tmp_path_factory.mktemp("sounds")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setenv(MODEL_VARIABLE, str(published("wav2vec2", folder / "model")))
        (folder / "files").mkdir()
        for name in SECONDS:
            (folder / "files" / f"{name}.wav").write_bytes(sound(name))
        (folder / "files" / "cut.wav").write_bytes(sound("high")[:-40_000])
        build = ["build", "--corpus", str(folder / "files"), "--output", str(folder / "index")]
        tower = published("hubert", folder / "tower")
        assert index([*build, "--field", "sound:recording", "--field_tower", f"sound={tower}"]) == 0
    return folder / "index"


def test_sounds_are_found_by_sounds(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with SearchEngine.open(built, SearchSettings()) as engine:
        for name in SECONDS:
            found = engine.search("", 2, like=sound(name, 48_000, 2))
            assert found[0].id == f"{name}.wav" and {*found[0].searchers} == {"sound"}
            assert found[0].searchers["sound"].score == pytest.approx(1.0, abs=0.01)
        assert {one.id for one in engine.search("", 9, like="low.wav")} == {
            f"{name}.wav" for name in (*SECONDS, "cut") if name != "low"
        }
    assert search(["--index", str(built), "--like", str(built.parent / "files" / "low.wav"), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["id"] == "low.wav"


def test_a_server_finds_by_sounds_and_refuses_others(built: Path) -> None:
    def like(data: bytes) -> dict[str, str]:
        return {"recording": "data:audio/wav;base64," + base64.b64encode(data).decode()}

    site = Site(index=built)
    try:
        hits = site.search("", like=like(sound("middle", 8_000)), top_k=1)["hits"]
        assert hits[0]["id"] == "middle.wav" and hits[0]["contents"]["sound"][0]["media_type"] == "audio/wav"
        for data, problem in (
            (b"", "it is empty"),
            (b"no sound at all", "expected a recording"),
            (wav(np.zeros(0)), "has no samples"),
            (sound("low")[:40], "no recording, or is damaged"),
        ):
            refused = site.ask("POST", "/v1/search", {"like": like(data)})
            assert refused.status_code == 422 and problem in refused.text, refused.text
    finally:
        site.close()


def test_the_vector_of_a_long_sound_is_the_mean_of_its_pieces(built: Path) -> None:
    tower = Tower.open(built.parent / "tower")
    rng = np.random.default_rng(0)
    samples = (0.1 * rng.standard_normal(70 * 16_000)).astype(np.float32)
    pieces = encode_sounds(tower, np.split(samples, [30 * 16_000, 60 * 16_000]))
    mean = (pieces * np.array([[3], [3], [1]])).sum(0) / 7
    whole = encode_sounds(tower, [samples])[0]
    assert whole @ mean / np.linalg.norm(whole) / np.linalg.norm(mean) == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(encode_sounds(tower, [wav(samples)])[0], whole, atol=1e-3)


@ONCE
def test_a_hit_by_a_sound_names_its_seconds(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv(MODEL_VARIABLE, str(built.parent / "model"))
    names, rate = ("low", "high", "middle", "long"), 16_000
    samples = np.concatenate([np.tile(tone(name, 1), 10) for name in names])  # ten seconds of each
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "song.wav").write_bytes(wav(samples, rate))
    (tmp_path / "files" / "day.wav").write_bytes(wav(np.tile(samples, 10), rate))  # 400 seconds, in two parts
    build = ["build", "--corpus", str(tmp_path / "files"), "--output", str(tmp_path / "index")]
    assert index([*build, "--field", "sound:recording", "--field_tower", f"sound={built.parent / 'tower'}"]) == 0
    like = tmp_path / "like.wav"
    for number, name in enumerate(names):
        like.write_bytes(wav(tone(name, 3, 48_000), 48_000))
        capsys.readouterr()
        assert search(["--index", str(tmp_path / "index"), "--like", str(like), "--format", "json"]) == 0
        found = {one["id"]: one["place"] for one in json.loads(capsys.readouterr().out)["results"]}
        assert found["song.wav"]["seconds"] == [[10 * number, 10 * number + 10]]
        assert len(found) == 3
        for id, place in found.items():
            ((start, end),) = place["seconds"]
            assert place["first_second"] <= start < end <= place["last_second"] and end - start <= 10.01
            # Pieces of the long recording begin where they may; the middle of the best one lies in the tone.
            assert 10 * number <= (start + end) / 2 % 40 <= 10 * number + 10, id
    tower = Tower.open(built.parent / "tower")
    with SearchEngine.open(tmp_path / "index", SearchSettings()) as engine:
        segment = engine.collection.snapshot().generation.parts[0].segment
        vectors = segment.vectors["sound"]
        assert vectors.passages is not None and len(vectors) == 4 + 27 + 14
        song = [one.id for one in engine.collection.snapshot().documents()].index("song.wav")
        pieces = encode_sounds(tower, [*samples.astype(np.float32).reshape(4, -1)])
        pieces /= np.linalg.norm(pieces, axis=1, keepdims=True)
        np.testing.assert_allclose(vectors.stored.rows(vectors.rows(song)), pieces, atol=2e-3)


@pytest.mark.parametrize(
    ("field", "tower", "problem"),
    [
        ("sound:recording", "vit", "a tower of pictures, and the field has sounds"),
        ("sound:picture", "tower", "a tower of sounds, and the field has pictures"),
        ("sound:table", "tower", "no tower reads fields of the type table"),
    ],
)
def test_a_tower_of_other_files_is_refused(
    field: str, tower: str, problem: str, built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = published_pictures("vit", tmp_path / "vit") if tower == "vit" else built.parent / "tower"
    build = ["build", "--corpus", str(built.parent / "files"), "--output", str(tmp_path / "index")]
    assert index([*build, "--field", field, "--field_tower", f"sound={folder}"]) == 2
    assert problem in capsys.readouterr().err
    assert index([*build, "--tower", str(built.parent / "tower")]) == 2
    assert "reads sounds: --field NAME:recording" in capsys.readouterr().err


@pytest.mark.thorough(keep=1)
@pytest.mark.parametrize("name", ["wav2vec2", "wav2vec2_large"])
def test_exported_towers_of_sounds_have_equal_vectors(
    name: str, built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder, files = published(name, tmp_path / name), built.parent / "files"
    export = ["export", "--model", str(folder), "--output", str(tmp_path / "out")]
    assert main([*export, *(["--onnx"] if HAS_ONNX else [])]) == 0, capsys.readouterr().err
    paths = [str(files / f"{one}.wav") for one in ("low", "middle", "high")]
    expected = Tower.open(folder).vectors(paths)
    for engine in ("inference", *(("onnx", "openvino") if HAS_ONNX else ())):
        if engine != "openvino" or is_installed("openvino"):
            exported = Tower.open(tmp_path / "out", LoadOptions(engine=engine))
            np.testing.assert_allclose(exported.vectors(paths), expected, atol=1e-5)
    rows = files.parent / "pairs.tsv"
    rows.write_text("".join(f"files/{one}.wav\tfiles/{one}.wav\n" for one in ("low", "middle", "high")))
    if HAS_ONNX:
        gate = ["--calibration_file", str(rows), "--test", str(rows), "--max_loss", "1", "--seconds", "0.1"]
        assert main(["quantize", "--model", str(tmp_path / "out"), *gate]) == 0, capsys.readouterr().err
    train = ["train-batch-neg", "--epochs", "1", "--batch_size", "3", "--device", "cpu", "--cpu_threads", "1"]
    assert main([*train, "--train", str(rows), "--model", str(folder), "--output", str(tmp_path / "run")]) == 0
    assert not np.allclose(Tower.open(tmp_path / "run" / "last").vectors(paths), expected, atol=1e-3)
