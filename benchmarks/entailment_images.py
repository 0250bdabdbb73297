"""Time the ways from image files to the entailment network's input: images per second, and the images of an epoch.

python -m benchmarks.entailment_images [--images 400] [--vision_encoder efficientnet_lite0]

There are two kinds of files: the demo's pictures (PNG, about 160 x 120), and photographs (JPEG, 1200 x 800), which are
cut at random from scikit-learn's two sample images. The encoder's parameters are random, which does not change its
speed. All work is done in one thread.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.harness.report import format_table
from paddle_ranker import runtime
from paddle_ranker.options import Options, main_of, option

if TYPE_CHECKING:
    from multimodal_entailment.vision import VisionEncoder

_PHOTO, _SEED = (1200, 800), 7


@dataclass(frozen=True)
class ImageBenchmarkOptions(Options):
    images: int = option(400, help="files of each kind", minimum=8)
    size: int = option(128, help="width and height of the network's images in pixels", minimum=16)
    vision_encoder: str = option("efficientnet_lite0", help="frozen encoder whose features are cached")
    batch_size: int = option(32, help="images a batch", minimum=1)
    repetitions: int = option(3, help="number of timed passes over the files for each way, in turns", minimum=1)


def run(options: ImageBenchmarkOptions) -> None:
    runtime.prepare_command(1)
    from multimodal_entailment.vision import make_vision_encoder

    encoder = make_vision_encoder(options.vision_encoder)
    encoder.eval()
    print(f"{options.images} images of a kind, {options.size} x {options.size} pixels, {options.vision_encoder}")
    with tempfile.TemporaryDirectory() as name:
        for kind, make in (("demo pictures", _make_pictures), ("photographs", _make_photographs)):
            folder = Path(name) / kind.split()[0]
            folder.mkdir()
            paths = make(folder, options.images, _SEED)
            size = sum(path.stat().st_size for path in paths) / len(paths)
            print(f"\n{kind}, {size / 1000:.0f} kB each; median of {options.repetitions} passes\n")
            _print_ways(list(map(str, paths)), options, encoder, folder)


def _make_pictures(folder: Path, count: int, seed: int) -> list[Path]:
    from multimodal_entailment.demo_pictures import draw_picture
    from multimodal_entailment.demo_posts import demo_pairs
    from paddle_ranker.data.rows.dice import Dice

    dice, paths = Dice(seed, "benchmark"), []
    for number, pair in enumerate(islice(demo_pairs("train", seed), count)):
        paths.append(folder / f"{number}.png")
        draw_picture(dice, *pair.pictures[0]).save(paths[-1])
    return paths


def _make_photographs(folder: Path, count: int, seed: int) -> list[Path]:
    from PIL import Image
    from sklearn.datasets import load_sample_images

    random = np.random.default_rng(seed)
    photos, paths = [Image.fromarray(photo) for photo in load_sample_images().images], []
    for number in range(count):
        photo = photos[number % 2]
        width = int(random.integers(photo.width // 2, photo.width))
        height = width * _PHOTO[1] // _PHOTO[0]
        left, top = random.integers(0, photo.width - width + 1), random.integers(0, photo.height - height + 1)
        cut = photo.crop((int(left), int(top), int(left) + width, int(top) + height))
        paths.append(folder / f"{number}.jpg")
        cut.resize(_PHOTO, Image.Resampling.BICUBIC).save(paths[-1], quality=85)
    return paths


def _print_ways(names: Sequence[str], options: ImageBenchmarkOptions, encoder: VisionEncoder, folder: Path) -> None:
    """Time decoding alone, and each way from the files of an epoch's images to their features."""
    from multimodal_entailment.image_store import ImageStore
    from multimodal_entailment.images import load_image

    order = np.random.default_rng(_SEED).permutation(len(names))
    batches = [order[start : start + options.batch_size] for start in range(0, len(order), options.batch_size)]
    stores = {
        kind: ImageStore(names, options.size, cache_dir=folder / kind, encoder=frozen)
        for kind, frozen in (("pixels", None), ("features", encoder))
    }

    def decoded(batch: np.ndarray) -> np.ndarray:
        return np.stack([load_image(names[row], options.size) for row in batch]).transpose(0, 3, 1, 2)

    ways: dict[str, Callable[[], Iterable[object]]] = {
        "decode alone": lambda: map(decoded, batches),
        "no store: decode and encode each time": lambda: (_encode(encoder, decoded(batch)) for batch in batches),
        "pixels kept: encode each time": lambda: (_encode(encoder, stores["pixels"].take(b)[0]) for b in batches),
        "features kept": lambda: map(stores["features"].take, batches),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.repetitions):  # in turns, so that a busy moment affects all ways
        for name, way in ways.items():
            began = time.perf_counter()
            list(way())
            seconds[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    rows = [[name, f"{taken:.3f}", f"{len(names) / taken:,.0f}"] for name, taken in medians.items()]
    print(format_table(["all images", "seconds", "images/s"], rows))


def _encode(encoder: VisionEncoder, pixels: np.ndarray) -> np.ndarray:
    import paddle

    with paddle.no_grad():
        features: np.ndarray = encoder(encoder.normalise(pixels)).numpy()
    return features


main = main_of(run, ImageBenchmarkOptions, (__doc__ or "").split("\n")[0])


if __name__ == "__main__":
    raise SystemExit(main())
