"""HEIC and AVIF are read as other pictures are, turned as their properties say, within the same bounds."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Union

import numpy as np
import pytest
from PIL import Image

from paddle_ranker.data.files import pictures
from paddle_ranker.data.files.pictures import (
    ImageError,
    ImageLimits,
    ImageTooLargeError,
    opened_picture,
    require_picture,
)
from paddle_ranker.retrieval.stored.schema import Field, Schema

pytestmark = pytest.mark.unit
KINDS = ("HEIF", "AVIF")
LIMITS = ImageLimits()
SHADES = Image.fromarray(np.tile(np.arange(64, dtype=np.uint8)[:, None, None] * 4, (1, 40, 3)))


def written(kind: str, orientation: int = 1) -> bytes:
    if not pictures.reads_format(kind):
        pytest.skip("needs: pip install 'paddle-ranker[files]'")
    stream, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    SHADES.save(stream, kind, exif=exif.tobytes(), quality=95)
    return stream.getvalue()


def read(data: Union[bytes, Path], limits: ImageLimits = LIMITS) -> np.ndarray[Any, Any]:
    with opened_picture(data, limits) as image:
        return np.asarray(image).astype(int)


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_is_turned_as_its_properties_say(kind: str) -> None:
    """The writers turn EXIF's orientation into the properties `irot` and `imir`; a PNG's is applied by itself."""
    for orientation in range(1, 9):
        stream, exif = io.BytesIO(), Image.Exif()
        exif[0x0112] = orientation
        SHADES.save(stream, "PNG", exif=exif.tobytes())
        found, wanted = read(written(kind, orientation)), read(stream.getvalue())
        assert found.shape == wanted.shape and np.abs(found - wanted).max() <= 3, orientation


@pytest.mark.parametrize("kind", KINDS)
def test_the_brands_tell_the_kind_and_the_bounds_are_those_of_all_pictures(kind: str, tmp_path: Path) -> None:
    data = written(kind)
    general = data[:8] + b"mif1" + data[12:]  # the kind stands among the compatible brands alone
    assert np.array_equal(read(general), read(data))
    with pytest.raises(ImageTooLargeError, match="40 x 64 pixels"):
        read(data, ImageLimits(max_pixels=40 * 64 - 1))
    for size in (40, len(data) // 2, len(data) - 20):
        path = tmp_path / "cut"
        path.write_bytes(data[:size])
        for problem in (read, require_picture):
            with pytest.raises(ImageError, match="damaged"):
                problem(path)


@pytest.mark.parametrize(("kind", "brand"), [("HEIC", b"heic"), ("AVIF", b"avif")])
def test_without_the_package_a_message_names_it_and_folders_do_not_take_the_files(
    kind: str, brand: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "reads_format", lambda name: False)
    with pytest.raises(ImageError, match=rf"{kind}, which is not read here: pip install 'paddle-ranker\[files\]'"):
        read(b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1" + brand)
    taken = Schema((Field("photo", "picture"),)).file_fields.by_suffix
    assert "jpg" in taken and not {"heic", "heif", "hif", "avif"} & {*taken}
