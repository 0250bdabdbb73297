"""Read pictures of any common kind; refuse damaged and huge files, and other data.

with opened_picture("photo.jpg") as image:  # in RGB
    ...
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Optional, Union

import numpy as np
from PIL import Image, features

from paddle_ranker.data.files.metering import DECODED, CallerLeft, DecodedBytes, SteppingFile, pause
from paddle_ranker.errors import RankerError, UsageError

# Formats that start other programs (EPS) and rare formats are left out: each is code that processes foreign bytes.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
_MOST_PIXELS = 178_956_970  # maximum number of pixels in Pillow
# Bytes per pixel that Pillow and its library hold while they decode. WEBP: two canvases of an animation, the frame's
# bytes and the image. TIFF: a strip and the image, with up to 16 bits per sample. AVIF and HEIF: as measured, with
# transparency and colours of full size. JPEG: see `_held_bytes`.
_BYTES_A_PIXEL = {"PNG": 4, "GIF": 4, "BMP": 8, "TIFF": 12, "WEBP": 16, "AVIF": 14, "HEIF": 13}
_RGB_BYTES = 8  # per pixel of a whole picture in RGB and on white
_LONGEST_SIDE = 65_535  # pixels; a row costs as much as some hundred pixels, and no format but PNG and TIFF has more
_MOST_SCANNED = 1 << 30  # pixels of all scans of a JPEG: each scan of a progressive JPEG goes over all pixels
_JPEGS = ("JPEG", "MPO")
_SCAN = b"\xff\xda"  # compressed data have no such bytes
_LONG_PIXELS = 1 << 21  # pixels from which decoding, which cannot be stopped between steps, takes longer than a turn
_WHITE = (255, 255, 255)
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"  # the last chunk, with its length and its checksum
# Bytes that end a whole file, within its last `_TAIL` bytes. Compressed data of a JPEG never have them.
_ENDS, _TAIL = {"JPEG": b"\xff\xd9", "PNG": _PNG_END}, 64
# Programs that convert pictures of kinds that are not read, by the files' first bytes
_CONVERTERS = (
    (rb"\xff\x0a|\0\0\0\x0cJXL ", "JPEG XL", "djxl IN.jxl OUT.png"),
    (rb"8BPS", "a PSD", "magick 'IN.psd[0]' OUT.png"),
)
# Kinds of phones, whose packages are optional: their names, the brands that a file states, and what converts them
_HEIF_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))
_PHONES = {
    "AVIF": ("AVIF", frozenset((b"avif", b"avis")), "avifdec IN.avif OUT.png"),
    "HEIF": ("HEIC", _HEIF_BRANDS, "heif-convert IN.heic OUT.png"),
}
PHONE_SUFFIXES = {"avif": "AVIF", "heic": "HEIF", "heif": "HEIF", "hif": "HEIF"}
PHONES_INSTALL = "pip install 'paddle-ranker[files]'"
_MOST_BRANDS = 1 << 10  # bytes
_SVG = re.compile(rb"\s*(?:<\?xml|<!--|<!DOCTYPE svg|<svg)")
_ORIENTATION = 0x0112  # a tag of EXIF
_PHOTOMETRIC, _TILE_WIDTH, _TILE_HEIGHT = 262, 322, 323  # tags of TIFF
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageError(RankerError):
    """An image is missing, damaged, of an unknown kind, or larger than the limits.

    Attributes:
        message: the problem.
        place: name of the image in messages (`line 17, image_1`), or None.
    """

    def __init__(self, message: str, place: Optional[str] = None):
        super().__init__(message if place is None else f"{place}: {message}")
        self.message, self.place = message, place

    def at(self, place: str) -> ImageError:
        """Return a copy of the error whose place is `place`."""
        return type(self)(self.message, place)


class ImageTooLargeError(ImageError):
    """An image is larger than the limits."""


@dataclass(frozen=True)
class ImageLimits:
    """Limits of images.

    max_bytes: maximum size of a file in bytes
    max_pixels: maximum pixels, as a file's header states them
    decoded: limit on the memory of all files that are decoded at a time; defaults to the limit that all contents share
    """

    max_bytes: int = 20_000_000
    max_pixels: int = 40_000_000
    decoded: DecodedBytes = DECODED

    def __post_init__(self) -> None:
        if self.max_bytes < 1 or not 1 <= self.max_pixels <= _MOST_PIXELS:
            raise UsageError(
                f"image limits of {self.max_bytes:,} bytes and {self.max_pixels:,} pixels: give at least 1 of each, "
                f"and at most {_MOST_PIXELS:,} pixels"
            )


_DEFAULT_LIMITS = ImageLimits()
Source = Union[str, Path, bytes]


@contextmanager
def opened_picture(source: Source, limits: ImageLimits = _DEFAULT_LIMITS) -> Iterator[Image.Image]:
    """Yield a picture, from its path or from its file's bytes, in RGB; its memory is reserved until the block ends.

    EXIF's orientation, or that of a HEIC's and an AVIF's properties, is applied, and transparency becomes white. Of an
    animation only the first frame is read. 16-bit pixels keep their upper 8 bits; Pillow's own conversion to RGB would
    make them white.

    Raises `ImageError` as `decoded` and `rgb` do.
    """
    with decoded(source, limits) as (image, name):
        yield upright(rgb(image, name), image)


def frame_count(path: Path) -> int:
    """Return the number of frames, or pages, in the file of a picture that has been read without an error."""
    with Image.open(path, formats=_formats(_first_bytes(path))) as image:
        return 1 if image.format == "MPO" else getattr(image, "n_frames", 1)  # MPO: one picture, and its preview


def require_picture(path: Union[str, Path], limits: ImageLimits = _DEFAULT_LIMITS) -> None:
    """Raise `ImageError` if a file is missing, too large, of an unknown kind or damaged.

    A complete JPEG is recognised by its last bytes, a PNG by its checksums; only other formats are decoded.
    """
    size = _file_size(Path(path), limits)
    if not size:
        raise ImageError(f"{path}: the file is empty")
    first = _first_bytes(Path(path))
    with _parsing(str(path), limits, first), Image.open(path, formats=_formats(first)) as image:
        (width, height), kind = image.size, image.format
        if kind == "PNG" and width * height <= limits.max_pixels:
            image.verify()
    if width * height > limits.max_pixels:
        raise _too_many_pixels(str(path), width, height, limits)
    end = _ENDS.get(str(kind))
    if end is None or end not in _last_bytes(Path(path)):
        with opened_picture(path, limits):
            pass


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(_MOST_BRANDS)


def phone_format(data: bytes) -> str:
    """Return AVIF or HEIF, Pillow's name of the format, if a file's first bytes say that it is one; else ""."""
    if data[4:8] != b"ftyp":
        return ""
    size = min(int.from_bytes(data[:4], "big"), _MOST_BRANDS)
    brands = {data[place : place + 4] for place in (8, *range(16, size, 4))}
    return next((kind for kind, (_, names, _) in _PHONES.items() if brands & names), "")


@cache
def reads_format(kind: str) -> bool:
    """Return whether AVIF or HEIF is read here: by Pillow, or by a plugin that is a package of its own."""
    if kind == "AVIF":
        return bool(features.check("avif"))
    try:
        from pillow_heif import register_heif_opener
    except (ImportError, OSError):
        return False
    register_heif_opener(thumbnails=False)
    return True


def _formats(data: bytes) -> tuple[str, ...]:
    """Return Pillow's names of the formats that a file of these first bytes may have."""
    kind = phone_format(data)
    return (kind,) if kind and reads_format(kind) else _FORMATS


def _last_bytes(path: Path) -> bytes:
    with path.open("rb") as stream:
        stream.seek(-min(_TAIL, stream.seek(0, io.SEEK_END)), io.SEEK_END)
        return stream.read()


@contextmanager
def decoded(
    source: Source, limits: ImageLimits = _DEFAULT_LIMITS, size: Optional[int] = None
) -> Iterator[tuple[Image.Image, str]]:
    """Yield (picture, name): a decoded picture as a Pillow image, and its name for messages.

    Waits while other pictures that are being decoded use all the memory of `limits.decoded`.

    size: longer side, in pixels, to which the caller will scale the picture; a JPEG may then be decoded at a reduced
        size, whose longer side is at least twice `size`. Defaults to the full size

    Raises `ImageError` if the data are no picture, and, before decoding, if the picture exceeds the limits. Truncated
    files are detected; other damage only in PNG, which has checksums.
    """
    name = "the image" if isinstance(source, bytes) else str(source)
    data = source if isinstance(source, bytes) else read_image(source, limits)
    if len(data) > limits.max_bytes:
        raise _too_many_bytes(name, len(data), limits)
    held, _ = _checked(name, data, size, limits)
    with limits.decoded.reserve(held), _opened(name, data, limits) as image:
        _draft(image, size)
        with pause() if image.width * image.height > _LONG_PIXELS else nullcontext():
            with _parsing(name, limits):
                image.load()
            yield image, name


def picture_format(data: bytes, limits: ImageLimits = _DEFAULT_LIMITS) -> str:
    """Return Pillow's name of the format of a picture; check its header and its end without decoding it.

    data: the bytes of a file

    Raises `ImageError` as `decoded` does, but finds less damage.
    """
    if len(data) > limits.max_bytes:
        raise _too_many_bytes("the image", len(data), limits)
    return _checked("the image", data, None, limits)[1]


@contextmanager
def _parsing(name: str, limits: ImageLimits, data: bytes = b"") -> Iterator[None]:
    """Convert Pillow's exceptions in the block to `ImageError`s about damage; the block may only parse a picture.

    name: the picture's name for messages
    data: the picture's bytes, for a message about data of another kind
    """
    try:
        yield
    except CallerLeft:
        raise
    except Image.UnidentifiedImageError:
        raise ImageError(f"{name}: {_unknown(data)}") from None
    except Image.DecompressionBombError:
        raise ImageTooLargeError(
            f"{name}: more than {limits.max_pixels:,} pixels, the limit; make it smaller"
        ) from None
    except Exception as error:  # Pillow's parsers raise exceptions of any type for damaged files.
        summary = " ".join(str(error).split())[:120] or type(error).__name__
        raise ImageError(f"{name}: damaged or cut short ({summary}); get it again") from error


def _unknown(data: bytes) -> str:
    """Return the message for bytes that are not an image of a known kind."""
    phones = phone_format(data)
    if phones:
        kind, _, program = _PHONES[phones]
        if reads_format(phones):
            return f"{kind}, damaged or cut short; get it again"
        return f"{kind}, which is not read here: {PHONES_INSTALL} reads it, or {program} converts it"
    for pattern, kind, program in _CONVERTERS:
        if re.match(pattern, data, re.S):
            return f"{kind}, which is not read here: {program} converts it"
    if _SVG.match(data) and b"<svg" in data:
        return "SVG, which is a drawing: rsvg-convert -w 512 IN.svg -o OUT.png makes a picture of it"
    return f"not an image of a known kind ({', '.join(_FORMATS)}); convert it"


def _opened(name: str, data: bytes, limits: ImageLimits) -> Image.Image:
    with _parsing(name, limits, data):
        return Image.open(SteppingFile(data), formats=_formats(data))


def read_image(path: Union[str, Path], limits: ImageLimits = _DEFAULT_LIMITS) -> bytes:
    """Return the bytes of an image file; raises `ImageError` if it is missing, not a file, empty or too large."""
    path = Path(path)
    try:
        _file_size(path, limits)
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        raise ImageError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if not data:
        raise ImageError(f"{path}: the file is empty")
    return data


def _file_size(path: Path, limits: ImageLimits) -> int:
    if not path.exists():
        raise ImageError(f"{path}: there is no such image; check the path and the image folder")
    if not path.is_file():  # reading a pipe would block
        raise ImageError(f"{path}: not a file")
    size = path.stat().st_size
    if size > limits.max_bytes:
        raise _too_many_bytes(str(path), size, limits)
    return size


def _too_many_pixels(name: str, width: int, height: int, limits: ImageLimits) -> ImageTooLargeError:
    return ImageTooLargeError(
        f"{name}: {width:,} x {height:,} pixels, more than the limit of {limits.max_pixels:,}; make it smaller"
    )


def _too_many_bytes(name: str, size: int, limits: ImageLimits) -> ImageError:
    return ImageTooLargeError(f"{name}: {size:,} bytes, more than the limit of {limits.max_bytes:,}; make it smaller")


def _checked(name: str, data: bytes, size: Optional[int], limits: ImageLimits) -> tuple[int, str]:
    """Check an image's header against the limits; return how many bytes of memory decoding takes, and the format.

    size: as in `decoded`

    Raises as `decoded` does.
    """
    with _opened(name, data, limits) as image:
        (width, height), most = image.size, limits.decoded.most
        if width * height > limits.max_pixels:
            raise _too_many_pixels(name, width, height, limits)
        if max(width, height) > _LONGEST_SIDE:
            longest = f"a side above {_LONGEST_SIDE:,} pixels"
            raise ImageTooLargeError(f"{name}: {width:,} x {height:,} pixels, {longest}; cut it into pictures")
        if image.format in _JPEGS and data.count(_SCAN) * width * height > _MOST_SCANNED:
            scans = f"{data.count(_SCAN):,} scans of {width:,} x {height:,} pixels"
            raise ImageTooLargeError(f"{name}: {scans}, more than are decoded; save it again, as a JPEG without scans")
        held = _held_bytes(image, size) + (_RGB_BYTES * width * height if size is None else 0)
        if held > most:
            raise ImageTooLargeError(
                f"{name}: {width:,} x {height:,} pixels of {image.format} take {held:,} bytes to decode, more than the "
                f"{most:,} of all images at a time; make it smaller"
            )
        with _parsing(name, limits):
            image.verify()  # Only PNG has checksums, which decoding would not verify.
        if image.format == "PNG" and _PNG_END not in data:
            raise ImageError(f"{name}: damaged or cut short (it has no end); get it again")
        return held, str(image.format)


def _held_bytes(image: Image.Image, size: Optional[int]) -> int:
    (width, height), bytes_a_pixel = image.size, _BYTES_A_PIXEL.get(str(image.format))
    if bytes_a_pixel is not None:
        # A TIFF is decoded by whole tiles, and a tile may be larger than the image.
        tags = getattr(image, "tag_v2", {})
        return bytes_a_pixel * max(width, tags.get(_TILE_WIDTH, 0)) * max(height, tags.get(_TILE_HEIGHT, 0))
    # the format is JPEG, possibly several in one file
    coefficients = 2 * len(image.getbands()) * width * height  # kept if the image comes in several scans
    _draft(image, size)
    return coefficients + 4 * image.width * image.height


def _draft(image: Image.Image, size: Optional[int]) -> None:
    """Let Pillow decode a JPEG at a half, a quarter or an eighth of its size, but at no less than twice `size`."""
    if size is None:
        return
    longest = max(image.size)
    image.draft(None, (max(1, 2 * size * image.width // longest), max(1, 2 * size * image.height // longest)))


def rgb(image: Image.Image, name: str, *, min_is_white: Optional[bool] = None) -> Image.Image:
    """Convert a picture to RGB, with white for transparency; `name` is its name for messages.

    min_is_white: whether 0 is white in 16-bit pixels; defaults to the picture's tags

    Raises `ImageError` for 32-bit pixels if it is unknown which value is white.
    """
    if min_is_white is None:
        min_is_white = min_is_white_in(image)
    if image.mode[0] in "IF":
        pixels = np.asarray(image)
        # Nothing states which 32-bit number is white.
        is_16_bits = image.mode.startswith("I;16") or not min_is_white
        if image.mode == "F" or not is_16_bits or pixels.min() < 0 or pixels.max() > 65_535:
            raise ImageError(f"{name}: pixels of 32 bits, whose white is unknown; convert it to 8 or 16 bits")
        grey = (pixels >> 8).astype(np.uint8)
        grey = ~grey if min_is_white else grey
        if "transparency" in image.info:  # the transparent shade
            grey[pixels == image.info["transparency"]] = 255
        return Image.fromarray(grey).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, (*_WHITE, 255))
        ground.alpha_composite(image)
        image = ground
    return image.convert("RGB")


def min_is_white_in(image: Image.Image) -> bool:
    """Return whether a TIFF's tags say that 0 is white. Pillow itself inverts such pictures of up to 8 bits."""
    return bool(getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF data do not matter: the pixels are good
        return 1


def upright(image: Image.Image, source: Image.Image) -> Image.Image:
    """Turn `image` upright by the EXIF orientation of `source`, the image from which it was converted."""
    turn = _TURNS.get(_orientation(source))
    return image if turn is None else image.transpose(turn)
