"""Images of every kind become the right pixels; damaged and huge images are refused before they cost anything."""

from __future__ import annotations

import contextlib
import io
import struct
import threading
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from multimodal_entailment.images import DecodedBytes, ImageError, ImageLimits, ImageTooLargeError, load_image
from paddle_ranker.errors import UsageError
from tests.started import SECONDS, until

pytestmark = pytest.mark.unit
RED, BLUE = (255, 0, 0), (0, 0, 255)


def encoded(image: Image.Image, kind: str = "PNG", **arguments: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **arguments)
    return stream.getvalue()


def two_halves(left: tuple[int, int, int] = RED, right: tuple[int, int, int] = BLUE) -> Image.Image:
    image = Image.new("RGB", (64, 64), left)
    image.paste(right, (32, 0, 64, 64))
    return image


def close(pixel: np.ndarray, colour: tuple[int, int, int], by: int = 12) -> bool:
    return bool(np.abs(pixel.astype(int) - colour).max() <= by)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_each_kind_keeps_its_colours_and_sides(kind: str) -> None:
    pixels = load_image(encoded(two_halves(), kind), 32)
    assert pixels.shape == (32, 32, 3) and pixels.dtype == np.uint8
    assert close(pixels[16, 4], RED) and close(pixels[16, 28], BLUE)


def test_the_whole_picture_is_kept_between_white_bars() -> None:
    wide = Image.new("RGB", (200, 100), RED)
    wide.paste(BLUE, (190, 0, 200, 100))
    pixels = load_image(encoded(wide), 40)
    assert close(pixels[4, 20], (255, 255, 255), 0) and close(pixels[36, 20], (255, 255, 255), 0)
    assert close(pixels[20, 2], RED) and close(pixels[20, 39], BLUE, 40)  # its edge was not cropped


# The side at which a viewer shows red, for an image that is red on the left, by EXIF's orientation.
_SHOWN = {1: "left", 2: "right", 3: "right", 4: "left", 5: "top", 6: "top", 7: "bottom", 8: "bottom"}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_turns_the_image(kind: str) -> None:
    for orientation, side in _SHOWN.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        pixels = load_image(encoded(two_halves(), kind, exif=exif), 32)
        places = {"left": pixels[16, 4], "right": pixels[16, 28], "top": pixels[4, 16], "bottom": pixels[28, 16]}
        assert [name for name, pixel in places.items() if close(pixel, RED)] == [side]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_does_not_cost_the_image() -> None:
    data = encoded(two_halves(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert close(load_image(data, 32)[16, 4], RED)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_lies_on_white(mode: str) -> None:
    image = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (16, 0, 32, 32))
    pixels = load_image(encoded(image.convert(mode)), 32)
    assert close(pixels[16, 4], (255, 255, 255)) and close(pixels[16, 28], (0, 0, 0))


@pytest.mark.parametrize("mode", ["L", "1", "CMYK", "I;16"])
def test_grey_cmyk_and_16_bits(mode: str) -> None:
    grey = np.tile(np.repeat([0, 255], 16).astype(np.uint8), (32, 1))
    if mode == "I;16":
        data = encoded(Image.fromarray(grey.astype(np.uint16) * 257))
    else:
        data = encoded(Image.fromarray(grey).convert(mode), "TIFF")
    pixels = load_image(data, 32)
    assert close(pixels[16, 4], (0, 0, 0)) and close(pixels[16, 28], (255, 255, 255))


def test_the_transparent_shade_of_16_bits_is_white() -> None:
    shades = np.tile(np.repeat(np.array([0x1234, 0x1235], np.uint16), 4), (8, 1))
    pixels = load_image(encoded(Image.fromarray(shades), transparency=0x1234), 8)
    assert close(pixels[4, 1], (255, 255, 255)) and close(pixels[4, 7], (0x12, 0x12, 0x12))


def test_pixels_of_32_bits_are_refused() -> None:
    data = encoded(Image.fromarray(np.full((8, 8), 0.5, np.float32)), "TIFF")
    with pytest.raises(ImageError, match="32 bits"):
        load_image(data, 8)


@pytest.mark.parametrize("kind", ["GIF", "MPO"])
def test_of_an_animation_and_a_phones_several_pictures_the_first_counts(kind: str) -> None:
    data = encoded(Image.new("RGB", (8, 8), RED), kind, save_all=True, append_images=[Image.new("RGB", (8, 8), BLUE)])
    assert close(load_image(data, 8)[4, 4], RED)


@pytest.mark.parametrize("size", [(1200, 800), (800, 1200), (3000, 100)])
def test_a_large_jpeg_is_the_same_as_decoded_whole(size: tuple[int, int]) -> None:
    random = np.random.default_rng(2)
    coarse = Image.fromarray(random.integers(0, 255, (12, 12, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    jpeg = encoded(coarse, "JPEG", quality=95)
    whole = Image.open(io.BytesIO(jpeg))
    whole.load()
    assert np.abs(load_image(jpeg, 64).astype(int) - load_image(encoded(whole), 64)).mean() < 2.5


@pytest.mark.filterwarnings("ignore")  # Pillow warns about most of these images
def test_random_damage_is_an_error_or_an_image() -> None:
    random = np.random.default_rng(1)
    for kind in ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"):
        good = encoded(two_halves(), kind)
        for _ in range(40):
            data = bytearray(good)
            for place in random.integers(0, len(data), 8):
                data[place] = random.integers(256)
            with contextlib.suppress(ImageError):
                assert load_image(bytes(data), 16).shape == (16, 16, 3)


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [7_000, 100_000])  # beyond this project's limit; beyond Pillow's
def test_a_bomb_is_refused_by_its_header(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("it was decoded"))
    with pytest.raises(ImageError, match=r"more than the limit of 40,000,000|more than 40,000,000"):
        load_image(png_header(side, side), 32)


def test_the_limits_are_the_callers() -> None:
    data = encoded(Image.new("RGB", (10, 10)))
    load_image(data, 8, ImageLimits(max_pixels=100))
    with pytest.raises(ImageError, match="10 x 10 pixels, more than the limit of 99"):
        load_image(data, 8, ImageLimits(max_pixels=99))
    with pytest.raises(ImageError, match=r"bytes, more than the limit of 9;"):
        load_image(data, 8, ImageLimits(max_bytes=9))
    with pytest.raises(UsageError):
        ImageLimits(max_pixels=10**9)


@pytest.mark.parametrize("content", [b"", b"<html>", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"])
def test_no_image(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "post.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"post\.jpg: (not an image of a known kind|the file is empty)"):
        load_image(path, 8)


def test_missing_folder_and_file(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="there is no such image"):
        load_image(tmp_path / "none.png", 8)
    with pytest.raises(ImageError, match="not a file"):
        load_image(tmp_path, 8)
    path = tmp_path / "large.png"
    path.write_bytes(encoded(two_halves()))
    with pytest.raises(ImageError, match=r"large\.png: .* more than the limit of 20"):
        load_image(path, 8, ImageLimits(max_bytes=20))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_what_is_cut_short_anywhere_is_refused_or_has_all_its_pixels(kind: str) -> None:
    random = np.random.RandomState(0)
    whole = encoded(Image.fromarray(random.randint(0, 256, (20, 30, 3)).astype(np.uint8)), kind)
    shown, refused = load_image(whole, 32), 0
    ends = sorted({*range(1, len(whole), max(1, len(whole) // 100)), *range(len(whole) - 25, len(whole))})
    for end in ends:
        try:
            pixels = load_image(whole[:end], 32)
        except ImageError:
            refused += 1
        else:
            assert kind != "PNG" and (pixels == shown).all(), end
    assert refused >= len(ends) - 4  # a GIF's last two bytes mark the end, and a TIFF's may be padding


def test_images_that_are_decoded_at_a_time_share_their_memory() -> None:
    limits = ImageLimits(decoded=DecodedBytes(4 * 64 * 64))
    data, found = encoded(two_halves()), []
    waiting = threading.Thread(target=lambda: found.append(load_image(data, 8, limits)), daemon=True)
    with limits.decoded.reserve(1):
        waiting.start()
        until(lambda: bool(limits.decoded._waiting))
        assert not found
    waiting.join(SECONDS)
    assert len(found) == 1 and not limits.decoded._held


@pytest.mark.parametrize("kind, each", [("PNG", 4), ("WEBP", 16), ("TIFF", 12), ("GIF", 4), ("BMP", 8)])
def test_what_takes_more_memory_than_all_may_have_is_refused(kind: str, each: int) -> None:
    data = encoded(two_halves(), kind)
    load_image(data, 8, ImageLimits(decoded=DecodedBytes(64 * 64 * each)))
    with pytest.raises(ImageTooLargeError, match=f"64 x 64 pixels of {kind} take {64 * 64 * each:,} bytes to decode"):
        load_image(data, 8, ImageLimits(decoded=DecodedBytes(64 * 64 * each - 1)))
    few = DecodedBytes(64 * 64 * each)
    with pytest.raises(ImageError, match="cut short"):
        load_image(data[:-60], 8, ImageLimits(decoded=few))
    assert not few._held


def test_a_tile_larger_than_its_image_counts() -> None:
    tags = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 277: 1, 322: 4096, 323: 4096, 324: 8, 325: 64}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    data = struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<H", len(tags)) + entries + b"\0" * 4
    with pytest.raises(ImageTooLargeError, match="201,326,592 bytes"):  # 12 bytes per pixel of the tile
        load_image(data, 8, ImageLimits(decoded=DecodedBytes(100_000_000)))


@pytest.mark.parametrize("size", [(3000, 10), (10, 3000), (3000, 1), (1, 1)])
def test_a_long_and_narrow_jpeg_is_decoded(size: tuple[int, int]) -> None:
    found = load_image(encoded(Image.new("RGB", size, (200, 30, 40)), "JPEG"), 64)
    middle = (31, 32) if size[0] > size[1] else (32, 31)
    assert found.shape == (64, 64, 3) and close(found[middle], (200, 30, 40))


def test_a_16_bit_tiff_whose_minimum_is_white_is_inverted() -> None:
    shades = np.full((40, 40), 0x2000, np.uint16)
    stream = io.BytesIO()
    Image.fromarray(shades).save(stream, "TIFF", tiffinfo={262: 0})
    assert load_image(stream.getvalue(), 32)[16, 16].tolist() == [255 - 0x20] * 3
    stream = io.BytesIO()
    Image.fromarray(shades).save(stream, "TIFF")
    assert load_image(stream.getvalue(), 32)[16, 16].tolist() == [0x20] * 3
