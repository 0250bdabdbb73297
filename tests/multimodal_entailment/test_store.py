"""A store returns the images' contents, decoded once, with missing, equal, changed and damaged images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from multimodal_entailment import image_store
from multimodal_entailment.image_store import ImageStore
from multimodal_entailment.images import ImageError, ImageLimits, load_image
from paddle_ranker.errors import CheckpointError

pytestmark = pytest.mark.unit
SIZE = 16


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make five different images, the last of which is not square; return the folder."""
    random = np.random.default_rng(0)
    for number, shape in enumerate([(20, 20, 3)] * 4 + [(10, 30, 3)]):
        Image.fromarray(random.integers(0, 255, shape, np.uint8)).save(tmp_path / f"{number}.png")
    return tmp_path


def pixels_of(path: Path) -> np.ndarray:
    return load_image(path, SIZE).transpose(2, 0, 1)


@pytest.mark.parametrize("workers", [1, 3])
def test_rows_get_their_own_images(folder: Path, workers: int) -> None:
    (folder / "copy.png").write_bytes((folder / "0.png").read_bytes())  # equal files are one image
    names = [4, None, 0, 3, 0, None, 1, "copy"]
    paths = [None if name is None else str(folder / f"{name}.png") for name in names]
    store = ImageStore(paths, SIZE, workers=workers, cache_dir=folder / "cache")
    pixels, present = store.take(np.array([6, 1, 0, 2, 7]))
    assert pixels.dtype == np.uint8 and pixels.shape == (5, 3, SIZE, SIZE)
    assert present.tolist() == [True, False, True, True, True]
    for row, name in zip(pixels, [1, None, 4, 0, 0]):
        assert (row == (0 if name is None else pixels_of(folder / f"{name}.png"))).all()
    assert len(store) == 8 and store.distinct == 4 and store.report() == ""


def counted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    decoded: list[Any] = []

    def load(source: Any, size: int, limits: ImageLimits) -> np.ndarray:
        decoded.append(source)
        return load_image(source, size, limits)

    monkeypatch.setattr(image_store, "load_image", load)
    return decoded


def test_decoded_once_until_content_size_or_limits_change(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded, cache = counted(monkeypatch), folder / "cache"
    paths: list[Any] = [str(folder / f"{n}.png") for n in (0, 1, 0, 1)]
    for _ in range(2):
        ImageStore(paths, SIZE, cache_dir=cache)
        ImageStore([*paths[::-1], None], SIZE, cache_dir=cache)  # the same images in another order
        assert len(decoded) == 2
    ImageStore(paths, SIZE + 1, cache_dir=cache)
    assert len(decoded) == 4
    (folder / "1.png").write_bytes((folder / "2.png").read_bytes())
    pixels, _ = ImageStore(paths, SIZE, cache_dir=cache).take(np.array([1]))
    assert len(decoded) == 6 and (pixels[0] == pixels_of(folder / "2.png")).all()
    ImageStore(paths, SIZE, cache_dir=cache, limits=ImageLimits(max_pixels=1000))
    assert len(decoded) == 8


def test_bad_images_name_their_row_or_are_counted(folder: Path) -> None:
    data = (folder / "3.png").read_bytes()
    (folder / "short.png").write_bytes(data[: len(data) // 2])
    paths = [str(folder / name) for name in ("0.png", "short.png", "none.png", "4.png", "short.png")]
    names = [f"line {row}, image_1" for row in (2, 3, 4, 6, 7)]
    for _ in range(2):  # the second time, the cache knows the undecodable image
        with pytest.raises(ImageError, match=r"^line 4, image_1: .*none\.png: there is no such image"):
            ImageStore(paths, SIZE, cache_dir=folder / "cache", names=names)
        with pytest.raises(ImageError, match=r"^line 3, image_1: .*short\.png: damaged or cut short"):
            ImageStore(paths[:2], SIZE, cache_dir=folder / "cache", names=names[:2])
    for _ in range(2):
        store = ImageStore(paths, SIZE, cache_dir=folder / "cache", names=names, skip_bad=True)
        pixels, present = store.take(np.arange(5))
        assert present.tolist() == [True, False, False, True, False]
        assert not pixels[~present].any() and (pixels[3] == pixels_of(folder / "4.png")).all()
        assert sorted(store.bad) == [1, 2, 4]
        assert store.report().startswith("3 images left out (line 4, image_1: ")


def test_no_images_at_all(tmp_path: Path, encoder: Any) -> None:
    pixels, present = ImageStore([None, None], SIZE, cache_dir=tmp_path).take(np.array([1]))
    assert pixels.shape == (1, 3, SIZE, SIZE) and not pixels.any() and not present.any()
    features, present = ImageStore([None], 32, cache_dir=tmp_path, encoder=encoder).take(np.array([0]))
    assert features.shape == (1, encoder.regions(32), encoder.width) and not present.any()


def test_a_damaged_cache_says_so(folder: Path) -> None:
    paths = [str(folder / "0.png")]
    ImageStore(paths, SIZE, cache_dir=folder / "cache")
    file = next((folder / "cache").rglob("images.bin"))
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="767 bytes, expected 768"):
        ImageStore(paths, SIZE, cache_dir=folder / "cache")


def test_a_killed_write_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*unused: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(image_store, "load_image", stop)
        ImageStore([str(folder / "0.png")], SIZE, cache_dir=folder / "cache", workers=1)
    assert [path for path in folder.glob("cache/*") if path.is_dir()] == []
    ImageStore([str(folder / "0.png")], SIZE, cache_dir=folder / "cache")
    assert [path for path in folder.glob("cache/*") if path.is_dir()] != []


@pytest.fixture
def encoder() -> Any:
    import paddle

    from multimodal_entailment.vision import make_vision_encoder

    paddle.seed(3)
    return make_vision_encoder("small")


@pytest.mark.parity
def test_features_are_those_of_the_encoder(folder: Path, encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import paddle

    monkeypatch.setattr(image_store, "_ENCODED", 2)
    paths: list[Any] = [str(folder / f"{n}.png") for n in range(5)]
    encoder.train()
    store = ImageStore([*paths, None], 32, cache_dir=folder / "cache", encoder=encoder)
    assert encoder.training
    features, present = store.take(np.array([5, 4, 0]))
    assert features.dtype == np.float32 and features.shape == (3, encoder.regions(32), encoder.width)
    assert present.tolist() == [False, True, True] and not features[0].any()
    encoder.eval()
    for row, name in ((1, 4), (2, 0)):
        pixels = load_image(paths[name], 32).transpose(2, 0, 1)[None]
        with paddle.no_grad():
            expected = encoder(encoder.normalise(pixels)).numpy()[0]
        np.testing.assert_allclose(features[row], expected, atol=1e-5)


def test_other_parameters_and_tf32_are_another_cache(
    folder: Path, encoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = counted(monkeypatch)
    paths: list[Any] = [str(folder / "0.png")]
    first = ImageStore(paths, 32, cache_dir=folder / "cache", encoder=encoder).take(np.array([0]))[0]
    ImageStore(paths, 32, cache_dir=folder / "cache", encoder=encoder)
    assert len(decoded) == 1
    parameter = encoder.parameters()[0]
    parameter.set_value(parameter * 1.5 + 0.1)
    second = ImageStore(paths, 32, cache_dir=folder / "cache", encoder=encoder).take(np.array([0]))[0]
    assert len(decoded) == 2 and np.abs(first - second).max() > 1e-3
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    ImageStore(paths, 32, cache_dir=folder / "cache", encoder=encoder)
    assert len(decoded) == 3
