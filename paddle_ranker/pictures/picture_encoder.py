"""Encode pictures as columns of pixels by `preprocessor_config.json`; the pixels equal those of transformers.

encoder = PictureEncoder.read("clip-vit-base-patch32")
columns = encoder.encode(["photo.jpg", png_bytes])
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np
from numpy.typing import DTypeLike
from PIL import Image

from paddle_ranker.array_types import Array, Arrays, Integers
from paddle_ranker.data.files.metering import CALLER
from paddle_ranker.data.files.pictures import ImageError, ImageLimits, Source, opened_picture
from paddle_ranker.encoding.columns import PICTURE, Columns, FileEncoder, Indices
from paddle_ranker.errors import RankerError, quoted
from paddle_ranker.pictures.picture_config import IDLE
from paddle_ranker.runtime import usable_cores
from paddle_ranker.storage.atomic import write_json
from paddle_ranker.storage.foreign_config import PREPROCESSOR_FILE, ForeignConfig, read_preprocessor
from paddle_ranker.storage.untrusted import UncheckedObject

PIXELS = "pixels"  # name of the model's input
_LARGEST_SIDE = 4096
_LARGEST_SCALED = 1 << 24  # maximum pixels of a scaled picture; beyond, only the cropped part is computed
_AT_ONCE = 256  # pictures that are decoded at a time for the cache
_PIXELS_A_TOKEN = 256  # a picture costs as much as a text of a token for each patch of 16 x 16 pixels
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_RESAMPLES = (0, 1, 2, 3, 4, 5)
# Defaults by the start of the processor's class in transformers.
_CLASSES: dict[str, UncheckedObject] = {
    "CLIP": {"resample": 3, "size": {"shortest_edge": 224}, "do_center_crop": True, "moments": _CLIP},
    "ChineseCLIP": {"resample": 3, "size": {"shortest_edge": 224}, "do_center_crop": True, "moments": _CLIP},
    "Siglip": {"resample": 3, "size": {"height": 224, "width": 224}, "do_center_crop": False, "moments": _HALF},
    "ViT": {"resample": 2, "size": {"height": 224, "width": 224}, "do_center_crop": False, "moments": _HALF},
}
_CLASS_OF = {"chinese_clip": "ChineseCLIP", "siglip": "Siglip", "vit": "ViT"}  # by model_type, if none is stated


@dataclass(frozen=True)
class EncodedPictures(Columns):
    """Pictures: `pixels` [n, 3, height, width] uint8."""

    pixels: Array

    def __len__(self) -> int:
        return len(self.pixels)

    def lengths_of(self, indices: Indices) -> Integers:
        return np.full(len(indices), _cost(*self.pixels.shape[2:]))

    def take(self, indices: Indices) -> EncodedPictures:
        return EncodedPictures(self.pixels[np.asarray(indices, np.int64)])

    def pad(self, indices: Indices) -> Arrays:
        """Return the pixels of the pictures at `indices` by input name; all pictures have the same size."""
        return {PIXELS: np.ascontiguousarray(self.pixels[np.asarray(indices, np.int64)])}

    @classmethod
    def concat(cls, parts: Sequence[EncodedPictures]) -> EncodedPictures:
        return cls(np.concatenate([part.pixels for part in parts]))


class PictureCache:
    """Cache of an array for each picture, in memory or in a temporary file that vanishes with the process.

    count: number of pictures
    shape: shape of a picture's array: its pixels, or a frozen network's output for them
    dtype: type of the array's numbers
    folder: folder of the file
    max_bytes: size beyond which the cache is a file

    Raises `RankerError` if the folder cannot hold the file.
    """

    def __init__(self, count: int, shape: tuple[int, ...], dtype: DTypeLike, folder: Path, max_bytes: int):
        self.is_there = np.zeros(count, bool)
        nbytes = count * int(np.prod(shape)) * np.dtype(dtype).itemsize
        if nbytes <= max_bytes:
            self.values: Array = np.zeros((count, *shape), dtype)
            return
        with tempfile.TemporaryFile(dir=folder) as file:
            try:
                os.posix_fallocate(file.fileno(), 0, max(1, nbytes))
            except OSError as error:
                raise RankerError(
                    f"{folder}: {nbytes / 2**20:.0f} MB of pictures could not be kept there "
                    f"({error.strerror or error}); make room, or choose another --output"
                ) from error
            self.values = np.memmap(file, dtype, "r+", shape=(count, *shape))


@dataclass(frozen=True)
class PictureFiles(Columns):
    """Pictures in files, decoded when their pixels are requested; with a cache, each file is decoded once.

    paths: paths of the files
    encoder: encoder that decodes the files
    rows: index of each row's picture in `paths` and in the cache
    cache: pixels of decoded pictures; None turns caching off
    """

    paths: Sequence[str]
    encoder: PictureEncoder
    rows: Integers
    cache: Optional[PictureCache] = None

    def __len__(self) -> int:
        return len(self.rows)

    def lengths_of(self, indices: Indices) -> Integers:
        return np.full(len(indices), self.encoder.max_length)

    def take(self, indices: Indices) -> PictureFiles:
        return replace(self, rows=self.rows[np.asarray(indices, np.int64)])

    def pad(self, indices: Indices) -> Arrays:
        """Return the pixels of the pictures at `indices` by input name; raises as `PictureEncoder.encode` does."""
        rows = self.rows[np.asarray(indices, np.int64)]
        if self.cache is None:
            return {PIXELS: self._decoded(rows)}
        missing = np.unique(rows[~self.cache.is_there[rows]])
        for start in range(0, len(missing), _AT_ONCE):
            chunk = missing[start : start + _AT_ONCE]
            self.cache.values[chunk], self.cache.is_there[chunk] = self._decoded(chunk), True
        return {PIXELS: np.array(self.cache.values[rows])}

    def _decoded(self, rows: Integers) -> Array:
        return self.encoder.encode([self.paths[row] for row in rows]).pixels

    @classmethod
    def concat(cls, parts: Sequence[PictureFiles]) -> PictureFiles:
        """Join `parts`, whose paths must be the same list, in order."""
        return replace(parts[0], rows=np.concatenate([part.rows for part in parts]))

    def can_join(self, other: Columns) -> bool:
        """Return whether both objects have the same list of paths."""
        return isinstance(other, PictureFiles) and self.paths is other.paths

    def cached(self, folder: Path, max_bytes: int) -> PictureFiles:
        """Return these pictures with a cache of pixels: in memory or, beyond `max_bytes`, in a file in `folder`."""
        shape = (3, self.encoder.height, self.encoder.width)
        return replace(self, cache=PictureCache(len(self.paths), shape, np.uint8, folder, max_bytes))


@dataclass(frozen=True)
class PictureEncoder(FileEncoder):
    """Encoder of pictures as pixels for a tower; the network normalises the pixels.

    height, width: height and width of the pixels
    size: (height, width) to which pictures are scaled, or the length of the shorter side; None turns scaling off
    resample: Pillow's filter: 0 nearest, 1 Lanczos, 2 bilinear, 3 bicubic, 4 box, 5 Hamming
    crops: whether only the centre of the scaled picture is used
    factor: factor by which the network multiplies pixel values before it normalises them
    mean, std: mean and deviation of each channel, by which the network normalises the values
    limits: limits of the pictures
    folder: folder that relative paths start from
    """

    height: int
    width: int
    size: Union[tuple[int, int], int, None]
    resample: int = 3
    crops: bool = False
    factor: float = 1 / 255
    mean: tuple[float, ...] = _HALF[0]
    std: tuple[float, ...] = _HALF[1]
    limits: ImageLimits = field(default_factory=ImageLimits, compare=False)
    folder: Path = field(default=Path(), compare=False)

    @classmethod
    def of_squares(cls, side: int) -> PictureEncoder:
        """Create the encoder of a new tower: pictures are scaled to squares of `side` pixels, and not cropped."""
        return cls(side, side, (side, side))

    @classmethod
    def read(cls, folder: Path) -> PictureEncoder:
        """Read a folder's `preprocessor_config.json`, or the part of `processor_config.json` about pictures.

        Raises `CheckpointError`, which names the setting, if one is not supported.
        """
        settings = read_preprocessor(folder, "image_processor", "how pictures are scaled", IDLE)
        model_type = ForeignConfig.read(folder / "config.json").get("model_type")
        usual = _CLASS_OF.get(str(model_type), "CLIP") + "ImageProcessor"
        name = str(settings.get("image_processor_type", settings.get("feature_extractor_type", usual)))
        classes = [start for start in _CLASSES if name.startswith((f"{start}Image", f"{start}Feature"))]
        if not classes:
            raise settings.error(f"image_processor_type is {quoted(name)}; {', '.join(_CLASSES)} are done here")
        defaults = _CLASSES[classes[0]]
        is_square = settings.get("default_to_square", classes[0] == "ViT")
        size = _size(settings, "size", defaults["size"], is_square) if settings.flag("do_resize", True) else None
        crops = settings.flag("do_center_crop", defaults["do_center_crop"])
        crop = _size(settings, "crop_size", {"height": 224, "width": 224}, True) if crops else size
        if not isinstance(crop, tuple):
            raise settings.error("neither size nor crop_size says the height and the width of the pixels")
        resample = settings.get("resample", defaults["resample"])
        if resample not in _RESAMPLES:
            raise settings.error(f"resample is {quoted(resample)}; one of {_RESAMPLES} is done here")
        factor = float(settings.get("rescale_factor", 1 / 255)) if settings.flag("do_rescale", True) else 1.0
        moments = tuple(_channels(settings, key, default) for key, default in
                        zip(("image_mean", "image_std"), defaults["moments"]))  # fmt: skip
        mean, std = moments if settings.flag("do_normalize", True) else ((0.0,) * 3, (1.0,) * 3)
        remedy = "take a model whose pictures are only scaled and cropped"
        for key in ("do_thumbnail", "do_align_long_axis", "do_reduce_labels", "do_flip_channel_order"):
            settings.require(key, False, remedy=remedy)
        if settings.flag("do_pad", False):  # without a size to that of the largest, and all have one size
            settings.require("pad_size", remedy=remedy)
        settings.ignore(["crop_size", "size", "crop_pct", "pad_size", "rescale_factor", "image_mean", "image_std"])
        if settings.unknown:
            raise settings.error(
                f"{', '.join(settings.unknown)}: unknown here, and may change the pixels; remove it if not"
            )
        return cls(*crop, size, resample, crops, factor, mean, std)

    def encode(self, pictures: Sequence[Union[Source, Array]]) -> EncodedPictures:
        """Decode and scale pictures: paths, bytes of files, or RGB pixels [height, width, 3] uint8.

        Raises `ImageError` for the first picture that is damaged, too large or no picture, with its path or index.
        """
        pixels = np.empty((len(pictures), 3, self.height, self.width), np.uint8)
        is_alone = len(pictures) == 1 or CALLER.get() is not None  # a caller has a turn for a single thread
        with nullcontext() if is_alone else ThreadPoolExecutor(usable_cores()) as pool:
            encoded = (map if pool is None else pool.map)(self._encoded, range(len(pictures)), pictures)
            for number, picture in enumerate(encoded):
                pixels[number] = picture
        return EncodedPictures(pixels)

    def encode_each(self, pictures: Iterable[Array]) -> EncodedPictures:
        """Scale a stream of pictures, given as RGB pixels; a single unscaled picture is in memory at a time."""
        pixels = [self.scaled(picture) for picture in pictures]
        return EncodedPictures(np.reshape(np.array(pixels, np.uint8), (-1, 3, self.height, self.width)))

    def files(self, paths: Sequence[str]) -> PictureFiles:
        """Return columns of the pictures in files; a file is decoded when its pixels are requested."""
        return PictureFiles(paths, self, np.arange(len(paths)))

    reads, truncated = PICTURE, 0  # texts may be cut, pictures are not

    def in_folder(self, folder: Path) -> PictureEncoder:
        """Return the encoder for paths that are relative to `folder`."""
        return replace(self, folder=folder)

    @property
    def max_length(self) -> int:
        """Cost of a picture as a number of tokens."""
        return _cost(self.height, self.width)

    def _encoded(self, number: int, picture: Union[Source, Array]) -> Array:
        if not isinstance(picture, np.ndarray):
            picture = picture if isinstance(picture, bytes) else self.folder / picture
            try:
                with opened_picture(picture, self.limits) as image:
                    return self._scaled(image)
            except ImageError as error:
                raise error if not isinstance(picture, bytes) else error.at(f"picture {number}") from None
        return self.scaled(picture)

    def scaled(self, picture: Array) -> Array:
        """Return the pixels, [3, height, width] uint8, of a picture in RGB, [height, width, 3] uint8."""
        return self._scaled(Image.fromarray(picture))

    def _scaled(self, image: Image.Image) -> Array:
        size = self.size
        if isinstance(size, int):
            short, long = sorted(image.size)
            longer = int(size * long / short)
            size = (longer, size) if image.width <= image.height else (size, longer)
        height, width = size or (image.height, image.width)
        top, left = (height - self.height) // 2, (width - self.width) // 2
        resample = Image.Resampling(self.resample)
        if size is not None and height * width <= _LARGEST_SCALED:
            image = image.resize((width, height), resample)
        elif size is not None:
            kept_height, kept_width = min(self.height, height), min(self.width, width)
            across, down = image.width / width, image.height / height
            first, start = max(left, 0), max(top, 0)
            box = (first * across, start * down, (first + kept_width) * across, (start + kept_height) * down)
            image = image.resize((kept_width, kept_height), resample, box)
            top, left = min(top, 0), min(left, 0)
        if (top, left) != (0, 0) or image.size != (self.width, self.height):
            image = _cropped(image, self.height, self.width, top, left)
        return np.asarray(image).transpose(2, 0, 1)

    def samples(self) -> Iterator[EncodedPictures]:
        """Yield batches of noise, as `FileEncoder.samples` does."""
        rng = np.random.default_rng(0)
        for rows in (1, 2, 5):
            yield EncodedPictures(rng.integers(0, 256, (rows, 3, self.height, self.width), np.uint8))

    def save(self, folder: Union[str, os.PathLike[str]]) -> None:
        """Write `preprocessor_config.json` into `folder`, as transformers reads it."""
        size = self.size
        values = {
            "image_processor_type": "CLIPImageProcessor",
            "do_resize": size is not None,
            "size": {"shortest_edge": size} if isinstance(size, int) else size and dict(zip(_SIDES, size)),
            "resample": self.resample,
            "do_center_crop": self.crops,
            "crop_size": {"height": self.height, "width": self.width},
            "do_rescale": True,
            "rescale_factor": self.factor,
            "do_normalize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
            "do_convert_rgb": True,
        }
        values = {name: value for name, value in values.items() if value is not None}
        write_json(Path(folder) / PREPROCESSOR_FILE, values)


_SIDES = ("height", "width")


def _cost(height: int, width: int) -> int:
    """Return the cost of a picture's pixels as a number of tokens."""
    return max(1, height * width // _PIXELS_A_TOKEN)


def _cropped(image: Image.Image, height: int, width: int, top: int, left: int) -> Image.Image:
    """Crop a picture as transformers' `center_crop` does; pixels outside the picture are black.

    height, width: size of the result
    top, left: position of the result's top left corner in the picture
    """
    over = max(0, -(-(height - image.height) // 2)), max(0, -(-(width - image.width) // 2))
    canvas = Image.new("RGB", (max(width, image.width), max(height, image.height)))
    canvas.paste(image, (over[1], over[0]))
    top, left = max(0, top + over[0]), max(0, left + over[1])
    return canvas.crop((left, top, left + width, top + height))


def _size(settings: ForeignConfig, name: str, default: Any, is_square: bool) -> Union[tuple[int, int], int]:
    value = settings.get(name, default)
    if isinstance(value, dict):
        sides = value.get("shortest_edge") if set(value) == {"shortest_edge"} else tuple(map(value.get, _SIDES))
        is_known = set(value) in ({"shortest_edge"}, {*_SIDES})
    else:
        sides = (value, value) if is_square and not isinstance(value, (list, tuple)) else value
        sides, is_known = tuple(sides) if isinstance(sides, list) else sides, True
    numbers: tuple[Any, ...] = sides if isinstance(sides, tuple) else (sides,)
    if not is_known or not all(type(side) is int and 0 < side <= _LARGEST_SIDE for side in numbers):
        raise settings.error(f"{name} is {quoted(value)}; shortest_edge, or height and width, are done here")
    return numbers if len(numbers) == 2 else numbers[0]


def _channels(settings: ForeignConfig, name: str, default: tuple[float, ...]) -> tuple[float, ...]:
    value: Any = settings.get(name, default)
    values = (
        (value,) * 3 if isinstance(value, (int, float)) else tuple(value) if isinstance(value, (list, tuple)) else ()
    )
    if len(values) != 3 or not all(type(number) in (int, float) for number in values):
        raise settings.error(f"{name} is {quoted(value)}; one number, or one of each channel, is done here")
    if name == "image_std" and 0 in values:
        raise settings.error(f"{name} is {quoted(value)}; pixels cannot be divided by 0")
    return tuple(map(float, values))
