"""Published models of pictures and texts: vectors equal to transformers'."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
from safetensors.numpy import load_file, save_file

from paddle_ranker.commands.convert import main as convert
from paddle_ranker.errors import CheckpointError
from paddle_ranker.model.hugging_face.library_tokenizer import MODEL_FILE
from paddle_ranker.model.hugging_face.published_towers import as_towers
from paddle_ranker.model.parameters import PARAMETERS_FILE, load_arrays, save_arrays
from paddle_ranker.model.tower import TowerInfo
from paddle_ranker.pictures.picture_encoder import PictureEncoder
from paddle_ranker.retrieval.vectors.text_vectors import Tower
from paddle_ranker.storage.foreign_config import PREPROCESSOR_FILE
from tests.pictures.picture_cases import (
    CASES,
    FILE,
    PIXEL_SETTINGS,
    SENTENCES,
    SIZES,
    TEXTS,
    crc,
    odd_files,
    pictures,
    write,
    write_steps,
)

PILLOW = int(PIL.__version__.partition(".")[0])
pytestmark = pytest.mark.parity
EXPECTED: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def published(name: str, folder: Path) -> Path:
    """Return a new folder of a case."""
    folder.mkdir(exist_ok=True)
    write(folder, name, EXPECTED[name]["shapes"])
    return folder


@pytest.mark.parametrize("name", CASES)
def test_vectors_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    tower = Tower.open(published(name, tmp_path / name))
    # Pillow 11 scales tall pictures in another order: a few pixels differ by 1.
    rows = [row for row, (width, height) in enumerate(SIZES) if PILLOW > 11 or width >= height]
    vectors, expected = tower.encode_pictures(pictures())[rows], np.array(EXPECTED[name]["pictures"])[rows]
    np.testing.assert_allclose(vectors, expected, rtol=1e-5, atol=1e-5)
    if "texts" in EXPECTED[name]:
        np.testing.assert_allclose(tower.query_vectors(TEXTS), EXPECTED[name]["texts"], rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(PILLOW < 12, reason="needs Pillow 12, which transformers' pixels were computed with")
@pytest.mark.parametrize("number", range(len(PIXEL_SETTINGS)))
def test_pixels_are_those_of_the_processors(number: int, tmp_path: Path) -> None:
    (tmp_path / PREPROCESSOR_FILE).write_text(json.dumps(PIXEL_SETTINGS[number]))
    encoder = PictureEncoder.read(tmp_path)
    found = {name: crc(encoder.encode([data]).pixels[0]) for name, data in odd_files().items()}
    assert len(found) == 40
    assert found == EXPECTED["pixels"][number]
    encoder.save(tmp_path)
    assert PictureEncoder.read(tmp_path) == encoder


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"do_pad": True, "pad_size": {"height": 300, "width": 300}}, "pad_size is"),
        ({"size": {"longest_edge": 224}}, "size is"),
        ({"resample": 9}, "resample is 9"),
        ({"image_processor_type": "ConvNextImageProcessor"}, "ConvNextImageProcessor"),
        ({"crop_pct_of_side": 0.9}, "crop_pct_of_side: unknown"),
        ({"do_center_crop": False}, "neither size nor crop_size"),
        ({"image_std": [0.0, 1, 1]}, "divided by 0"),
        ({"image_mean": [0.1, 0.2]}, "image_mean is"),
    ],
)
def test_other_settings_are_refused_by_name(settings: dict[str, Any], problem: str, tmp_path: Path) -> None:
    (tmp_path / PREPROCESSOR_FILE).write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match=problem):
        PictureEncoder.read(tmp_path)


@pytest.mark.parametrize("name", ["clip", "chinese_clip", "siglip", "vit"])
def test_convert_brings_and_takes_them(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target, back = published(name, tmp_path / name), tmp_path / "tower", tmp_path / "back"
    assert convert([str(source), str(target)]) == 0
    capsys.readouterr()
    towers = [target, target / "query"] if name != "vit" else [target]
    for tower in towers:  # a training gives output layers a bias
        arrays = {key: np.asarray(array) for key, array in load_arrays(tower / PARAMETERS_FILE).items()}
        if "output_layer.bias" in arrays:
            arrays["output_layer.bias"] = np.linspace(-1, 1, arrays["output_layer.bias"].size, dtype=np.float32)
            save_arrays(arrays, tower / PARAMETERS_FILE)
    assert convert([str(target), str(back), "--to", "hf"]) == 0, capsys.readouterr().err
    ours, theirs = Tower.open(target), Tower.open(back)
    np.testing.assert_allclose(theirs.encode_pictures(pictures()), ours.encode_pictures(pictures()), atol=2e-5)
    if name != "vit":
        np.testing.assert_allclose(theirs.query_vectors(TEXTS), ours.query_vectors(TEXTS), atol=2e-5)
    stated = json.loads((back / "config.json").read_text())["model_type"]
    assert stated == CASES[name]["model_type"]
    written = {key: list(array.shape) for key, array in load_file(back / "model.safetensors").items()}
    shapes = {key: shape for key, shape in EXPECTED[name]["shapes"].items() if "pooler" not in key}
    assert written == shapes


def test_towers_that_transformers_has_no_place_for_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published("clip", tmp_path / "clip")
    assert convert([str(tmp_path / "clip"), str(tmp_path / "tower")]) == 0
    stated = json.loads((tmp_path / "tower" / "query" / "tower.json").read_text())
    (tmp_path / "tower" / "query" / "tower.json").write_text(json.dumps({**stated, "query_prompt": "a photo of "}))
    for arguments, problem in (
        (["--to", "hf"], "are no model of transformers"),
        (["--to", "sentence-transformers"], "--to hf"),
        (["--to", "tower", "--text_prompt", "a"], "--text_prompt"),
    ):
        assert convert([str(tmp_path / "tower"), str(tmp_path / "back"), *arguments]) != 0
        assert problem in capsys.readouterr().err


@pytest.mark.parametrize("path", ["", "0_CLIPModel"])
@pytest.mark.parametrize("normalizes", [False, True])
def test_sentence_transformers_hold_a_clip_in_two_ways(path: str, normalizes: bool, tmp_path: Path) -> None:
    whole = Tower.open(published("clip", tmp_path / "whole")).encode_pictures(pictures())
    folder = tmp_path / "held"
    folder.mkdir()
    published("clip", folder / path)
    steps = [("CLIPModel" if path else "Transformer", path)] + [("Normalize", "1_Normalize")] * normalizes
    write_steps(folder, steps)
    expected = whole / np.linalg.norm(whole, axis=1, keepdims=True) if normalizes else whole
    np.testing.assert_allclose(Tower.open(folder).encode_pictures(pictures()), expected, atol=1e-6)
    write_steps(folder, [*steps, ("Pooling", "2_Pooling")])
    with pytest.raises(CheckpointError, match="Pooling"):
        Tower.open(folder)


@pytest.mark.parametrize("normalizes", [False, True])
@pytest.mark.parametrize("name", ["clip", "siglip", "vit"])
def test_the_settings_of_sentence_transformers_are_honoured(name: str, normalizes: bool, tmp_path: Path) -> None:
    """Vectors are cut and texts get a prompt as by the library; pictures have no prompt there."""
    whole = Tower.open(published(name, tmp_path / "whole"))
    folder = published(name, tmp_path / "held")
    write_steps(folder, [("Transformer", "")] + [("Normalize", "1_Normalize")] * normalizes)
    (folder / MODEL_FILE).write_text(json.dumps(SENTENCES))
    held = Tower.open(folder)

    def cut(vectors: np.ndarray) -> np.ndarray:
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True) if normalizes else vectors)[:, :7]

    np.testing.assert_allclose(held.encode_pictures(pictures()), cut(whole.encode_pictures(pictures())), atol=1e-6)
    if name == "clip":
        said = EXPECTED["sentences"][normalizes]
        rows = [row for row, (width, height) in enumerate(SIZES) if PILLOW > 11 or width >= height]
        found = held.encode_pictures(pictures())[rows]
        np.testing.assert_allclose(found, np.array(said["pictures"])[rows], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(held.query_vectors(TEXTS), said["texts"], rtol=1e-5, atol=1e-5)
    info = TowerInfo.read(as_towers(folder))
    assert info is not None and (info.similarity, info.size) == ("dot", 7)
    if name != "vit":
        prompted = whole.query_vectors([f"a photo of {text}" for text in TEXTS])
        np.testing.assert_allclose(held.query_vectors(TEXTS), cut(prompted), atol=1e-6)
    for other, problem in (
        ({"similarity_fn_name": "euclidean"}, "compares vectors by"),
        ({"prompts": 3}, "prompts is"),
    ):
        (folder / MODEL_FILE).write_text(json.dumps({**SENTENCES, **other}))
        with pytest.raises(CheckpointError, match=problem):
            Tower.open(folder)


def test_a_vit_with_the_hubs_names_is_the_same(tmp_path: Path) -> None:
    folder = published("vit", tmp_path / "vit")
    expected = Tower.open(folder).encode_pictures(pictures())
    arrays = load_file(folder / "model.safetensors")
    assert any(name.startswith("layers.0.attention.q_proj") for name in arrays)
    old = {
        "attention.q_proj": "attention.attention.query", "attention.k_proj": "attention.attention.key",
        "attention.v_proj": "attention.attention.value", "attention.o_proj": "attention.output.dense",
        "mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense",
    }  # fmt: skip
    renamed = {}
    for name, array in arrays.items():
        for new, former in old.items():
            name = name.replace(new, former)
        renamed[
            f"vit.encoder.{name.replace('layers.', 'layer.', 1)}" if name.startswith("layers.") else f"vit.{name}"
        ] = array
    save_file(renamed, folder / "model.safetensors")
    np.testing.assert_array_equal(Tower.open(folder).encode_pictures(pictures()), expected)
