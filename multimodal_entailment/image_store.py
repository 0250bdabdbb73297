"""Decode images once, or compute a frozen encoder's features once, and keep them in files for later epochs.

paths, names = images_of(pairs)
store = ImageStore(paths, 128, names=names)
pixels, present = store.take(np.array([0, 5]))
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Optional, TypeVar, Union

import numpy as np
import PIL

from multimodal_entailment.images import ImageError, ImageLimits, load_image, read_image
from paddle_ranker import runtime
from paddle_ranker.errors import CheckpointError, RankerError
from paddle_ranker.progress import Progress
from paddle_ranker.storage.atomic import cache_folder, made_once, new_folder, remove_unfinished
from paddle_ranker.storage.digest import json_digest
from paddle_ranker.storage.prefetch import chunks

if TYPE_CHECKING:
    from multimodal_entailment.vision import VisionEncoder

_FORMAT = 1
_PREFETCH = 64  # number of images that workers may compute before they are consumed
_ENCODED = 32  # number of images per batch of an encoder
_REASONS_SHOWN = 3
_ARRAY, _FACTS = "images.bin", "facts.json"
T = TypeVar("T")
R = TypeVar("R")


class ImageStore:
    """The images of a list of rows, as pixels or as features; equal images are stored once.

    Args:
        paths: the path of each row's image; None if the row has none.
        size: pixels per side.
        workers: number of threads that read and decode (Pillow releases the GIL); None: one per core.
        cache_dir: the folder of the files, for later runs as well (default: in the user's cache). The files' names
            depend on the content of the images, the size, the encoder's parameters, and TF32.
        encoder: a frozen encoder, whose features are stored instead of pixels.
        limits: the largest image that is decoded.
        skip_bad: treat a bad image as missing, and note it in `bad`; if False, raise `ImageError`.
        names: names of the rows for messages, such as `line 17, image_1`.

    Raises `ImageError`, naming the row, at the first image that does not exist, is damaged or is too large.
    """

    def __init__(
        self,
        paths: Sequence[Optional[str]],
        size: int,
        *,
        workers: Optional[int] = None,
        cache_dir: Optional[Union[str, Path]] = None,
        encoder: Optional[VisionEncoder] = None,
        limits: Optional[ImageLimits] = None,
        skip_bad: bool = False,
        names: Optional[Sequence[str]] = None,
    ):
        self.size = size
        self._paths = paths
        self._names = names or [f"row {row}" for row in range(len(paths))]
        self._workers = workers or len(os.sched_getaffinity(0))
        self._limits = limits or ImageLimits()
        self._skip_bad = skip_bad
        self.bad: dict[int, str] = {}  # from the row to the error of its image

        digests = self._digests()
        distinct = {digest: row for row, digest in reversed(list(enumerate(digests))) if digest is not None}
        order = sorted(distinct)
        folder = Path(cache_dir) if cache_dir is not None else cache_folder("images")
        self._array, undecoded = self._kept(folder, order, [distinct[digest] for digest in order], encoder)
        place = {digest: index for index, digest in enumerate(order)}
        self._rows = np.array([-1 if digest is None else place[digest] for digest in digests], np.int64)
        for row, digest in enumerate(digests):
            if digest in undecoded:
                self._refuse(row, f"{paths[row]}: {undecoded[digest]}")
                self._rows[row] = -1

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def distinct(self) -> int:
        """Return the number of different images."""
        return len(self._array)

    def take(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the images of the rows `indices` `[m]`, and whether each row has an image, `[m]` bool.

        Pixels are `[m, 3, size, size] uint8`, features `[m, regions, width] float32`; without an image they are 0.
        """
        rows = self._rows[indices]
        present = rows >= 0
        taken = np.zeros((len(rows), *self._array.shape[1:]), self._array.dtype)
        taken[present] = self._array[rows[present]]
        return taken, present

    def report(self) -> str:
        """Return a line on bad images, `2 images left out (line 17, image_1: ...)`; empty if there are none."""
        if not self.bad:
            return ""
        reasons = "; ".join(islice(self.bad.values(), _REASONS_SHOWN))
        return f"{len(self.bad):,} images left out ({reasons}{'; …' if len(self.bad) > _REASONS_SHOWN else ''})"

    def _refuse(self, row: int, problem: str) -> None:
        error = ImageError(problem, self._names[row])
        if not self._skip_bad:
            raise error
        self.bad[row] = str(error)

    def _digests(self) -> list[Optional[str]]:
        """Return a digest of each row's image file; None for a row without a good image."""

        def digest(path: str) -> Union[str, ImageError]:
            try:
                return hashlib.sha256(read_image(path, self._limits)).hexdigest()
            except ImageError as error:
                return error

        named = list(dict.fromkeys(path for path in self._paths if path is not None))
        by_path = dict(zip(named, self._parallel(digest, named)))
        digests: list[Optional[str]] = []
        for row, path in enumerate(self._paths):
            result = None if path is None else by_path[path]
            if isinstance(result, ImageError):
                self._refuse(row, str(result))
                result = None
            digests.append(result)
        return digests

    def _kept(
        self, folder: Path, order: list[str], rows: list[int], encoder: Optional[VisionEncoder]
    ) -> tuple[np.ndarray, dict[str, str]]:
        """Return the array of the images `order`, cached or new, and the errors of undecodable images."""
        kind = "pixels" if encoder is None else "features"
        key = [_FORMAT, order, self.size, PIL.__version__, self._limits.max_bytes, self._limits.max_pixels]
        if encoder is not None:
            key += [encoder.digest(), *(["tf32"] * runtime.uses_tf32())]
        target = folder / f"{kind}_{json_digest(*key)}"
        with made_once(target) as missing:
            if missing:
                remove_unfinished(folder)
                try:
                    with new_folder(target) as temporary:
                        self._write(temporary, order, rows, encoder)
                except OSError as error:
                    raise RankerError(
                        f"{target}: the images could not be kept there ({error.strerror or error}); make room, or "
                        "choose another --cache_dir"
                    ) from error
        return _open(target)

    def _write(self, folder: Path, order: list[str], rows: list[int], encoder: Optional[VisionEncoder]) -> None:
        def decode(row: int) -> Union[np.ndarray, ImageError]:
            path = self._paths[row]
            assert path is not None
            try:
                return load_image(path, self.size, self._limits).transpose(2, 0, 1)
            except ImageError as error:
                return error

        undecoded: dict[str, str] = {}
        shape = [3, self.size, self.size] if encoder is None else [encoder.regions(self.size), encoder.width]
        bar: Progress[None] = Progress(total=len(rows), desc="images", unit=" images", disable=not rows)
        with bar, (folder / _ARRAY).open("wb") as stream:
            for chunk in chunks(zip(order, rows, self._parallel(decode, rows)), _ENCODED):
                pixels = np.zeros((len(chunk), 3, self.size, self.size), np.uint8)
                for place, (digest, row, image) in enumerate(chunk):
                    if isinstance(image, ImageError):
                        undecoded[digest] = str(image).removeprefix(f"{self._paths[row]}: ")
                    else:
                        pixels[place] = image
                array = pixels if encoder is None else _encode(encoder, pixels)
                stream.write(array.tobytes())
                bar.update(len(chunk))
        dtype = "uint8" if encoder is None else "float32"
        facts = {"shape": [len(order), *shape], "dtype": dtype, "undecoded": undecoded}
        (folder / _FACTS).write_text(json.dumps(facts, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")

    def _parallel(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """Yield `function(item)` for each item in order; other threads compute some of them ahead."""
        with ThreadPoolExecutor(self._workers) if self._workers > 1 else nullcontext() as pool:
            if pool is None:
                yield from map(function, items)
                return
            waiting: deque[Future[R]] = deque()
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= _PREFETCH:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()


def _encode(encoder: VisionEncoder, pixels: np.ndarray) -> np.ndarray:
    import paddle

    training = encoder.training
    encoder.eval()
    with paddle.no_grad():
        features: np.ndarray = encoder(encoder.normalise(pixels)).astype("float32").numpy()
    if training:
        encoder.train()
    return features


def _open(folder: Path) -> tuple[np.ndarray, dict[str, str]]:
    try:
        facts: dict[str, Any] = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
        shape, dtype = tuple(facts["shape"]), np.dtype(facts["dtype"])
        path, size = folder / _ARRAY, int(np.prod(shape)) * dtype.itemsize
        if path.stat().st_size != size:
            raise ValueError(f"{_ARRAY} has {path.stat().st_size:,} bytes, expected {size:,}")
        array = np.memmap(path, dtype, "r", shape=shape) if size else np.zeros(shape, dtype)
        return array, dict(facts["undecoded"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder}: damaged ({error}); remove it, and it will be made again") from error
