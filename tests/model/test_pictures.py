"""Published models of pictures and texts: vectors equal to transformers'."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest

from paddle_ranker.encoding.picture_encoder import PICTURE_FILE, PictureEncoder
from paddle_ranker.errors import CheckpointError
from paddle_ranker.retrieval.text_vectors import Tower
from tests.model.picture_cases import CASES, FILE, PIXEL_SETTINGS, SIZES, TEXTS, crc, odd_files, pictures, write

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
    (tmp_path / PICTURE_FILE).write_text(json.dumps(PIXEL_SETTINGS[number]))
    encoder = PictureEncoder.read(tmp_path)
    found = {name: crc(encoder.encode([data]).pixels[0]) for name, data in odd_files().items()}
    assert len(found) == 40
    assert found == EXPECTED["pixels"][number]
    encoder.save(tmp_path)
    assert PictureEncoder.read(tmp_path) == encoder


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"do_pad": True}, "do_pad is True"),
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
    (tmp_path / PICTURE_FILE).write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match=problem):
        PictureEncoder.read(tmp_path)
