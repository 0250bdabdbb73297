"""Time the ways from image files to the entailment network's input: images per second, and the images of an epoch.

python -m benchmarks.entailment_images [--images 400] [--vision_encoder efficientnet_lite0] [--workers 2]

There are two kinds of files: the demo's pictures (PNG, about 160 x 120), and photographs (JPEG, 1200 x 800), which are
cut at random from scikit-learn's two sample images. The encoder's parameters are random, which does not change its
speed.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Callable

import numpy as np

from paddle_ranker import runtime
from paddle_ranker.options import Options, main_of, option

if TYPE_CHECKING:
    from multimodal_entailment.vision import VisionEncoder

_PHOTO = (1200, 800)
_CHUNK = 8  # images per task of a process


@dataclass(frozen=True)
class ImageBenchmarkOptions(Options):
    """Options of `python -m benchmarks.entailment_images`."""

    images: int = option(400, help="files of each kind", minimum=8)
    size: int = option(128, help="width and height of the network's images in pixels", minimum=16)
    workers: int = option(2, help="number of threads or processes of the ways that use several", minimum=2)
    vision_encoder: str = option("efficientnet_lite0", help="frozen encoder whose features are cached")
    batch_size: int = option(32, help="images a batch", minimum=1)
    repetitions: int = option(3, help="number of timed passes over the files for each way, in turns", minimum=1)
    seed: int = option(7, help="seed of the files", minimum=0)


def run(options: ImageBenchmarkOptions) -> None:
    """Print a table for each kind of file."""
    runtime.prepare_command(1)
    from multimodal_entailment.vision import make_vision_encoder

    encoder = make_vision_encoder(options.vision_encoder)
    encoder.eval()
    cores = len(os.sched_getaffinity(0))
    print(
        f"{options.images} images of a kind, {options.size} x {options.size} pixels, {options.vision_encoder}, "
        f"batches of {options.batch_size}, one thread of Paddle's on {cores} cores, median of {options.repetitions}"
    )
    with tempfile.TemporaryDirectory() as name:
        for kind, make in (("demo pictures", _make_pictures), ("photographs", _make_photographs)):
            folder = Path(name) / kind.split()[0]
            folder.mkdir()
            paths = make(folder, options.images, options.seed)
            size = sum(path.stat().st_size for path in paths) / len(paths)
            print(f"\n{kind}, {size / 1000:.0f} kB each")
            _print_rates(paths, options)
            _print_epochs(paths, options, encoder, folder)


def _make_pictures(folder: Path, count: int, seed: int) -> list[Path]:
    from multimodal_entailment.demo_pictures import draw_picture
    from multimodal_entailment.demo_posts import demo_pairs
    from paddle_ranker.data.demo.dice import Dice

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


def _print_rates(paths: Sequence[Path], options: ImageBenchmarkOptions) -> None:
    """Time decoding in one thread, in several threads, and in processes, which must send the pixels back."""
    from multimodal_entailment.images import load_image

    load = partial(load_image, size=options.size)

    def pooled(pool: Executor) -> Iterable[object]:
        return pool.map(load, paths, chunksize=_CHUNK)

    with ThreadPoolExecutor(options.workers) as threads, ProcessPoolExecutor(options.workers) as processes:
        _timed(pooled(processes))  # starts the processes
        ways: dict[str, Callable[[], Iterable[object]]] = {
            "decode, one thread": lambda: map(load, paths),
            f"decode, {options.workers} threads": partial(pooled, threads),
            f"decode, {options.workers} processes": partial(pooled, processes),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.repetitions):  # in turns, so that a busy moment affects all ways
            for name, way in ways.items():
                seconds[name].append(_timed(way()))
    print(f"  {'':46}{'images/s':>10}")
    for name, taken in seconds.items():
        rates = [len(paths) / one for one in taken]
        print(f"  {name:46}{statistics.median(rates):>10,.0f}  ({min(rates):,.0f} to {max(rates):,.0f})")


def _print_epochs(paths: Sequence[Path], options: ImageBenchmarkOptions, encoder: VisionEncoder, folder: Path) -> None:
    """Time the images of an epoch, from files to the features of every image, in shuffled batches."""
    from multimodal_entailment.image_store import ImageStore

    names = [str(path) for path in paths]
    order = np.random.default_rng(options.seed).permutation(len(paths))
    batches = [order[start : start + options.batch_size] for start in range(0, len(order), options.batch_size)]
    firsts: dict[str, list[float]] = {"pixels": [], "features": []}

    def store(kind: str, number: int) -> ImageStore:
        began = time.perf_counter()
        frozen = encoder if kind == "features" else None
        made = ImageStore(names, options.size, workers=options.workers, cache_dir=folder / f"{number}", encoder=frozen)
        firsts[kind].append(time.perf_counter() - began)
        return made

    pixels = [store("pixels", number) for number in range(options.repetitions)]
    features = [store("features", number) for number in range(options.repetitions)]
    rows = {
        "no store: decode and encode each time": [_without_store(names, batches, options, encoder) for _ in pixels],
        "pixels kept: encode each time": [
            _timed(_encode(encoder, one.take(batch)[0]) for batch in batches) for one in pixels
        ],
        "features kept": [_timed(one.take(batch) for batch in batches) for one in features],
    }
    added = {"pixels kept: encode each time": firsts["pixels"], "features kept": firsts["features"]}
    print(f"  {'the images of an epoch':46}{'seconds':>10}{'before the first':>18}")
    for name, taken in rows.items():
        before = f"{statistics.median(added[name]):>18.2f}" if name in added else f"{'-':>18}"
        print(f"  {name:46}{statistics.median(taken):>10.3f}{before}")


def _without_store(
    names: Sequence[str], batches: Sequence[np.ndarray], options: ImageBenchmarkOptions, encoder: VisionEncoder
) -> float:
    from multimodal_entailment.images import load_image

    load = partial(load_image, size=options.size)
    with ThreadPoolExecutor(options.workers) as threads:
        pixels = (np.stack(list(threads.map(load, [names[row] for row in batch]))) for batch in batches)
        return _timed(_encode(encoder, batch.transpose(0, 3, 1, 2)) for batch in pixels)


def _encode(encoder: VisionEncoder, pixels: np.ndarray) -> np.ndarray:
    import paddle

    with paddle.no_grad():
        features: np.ndarray = encoder(encoder.normalise(pixels)).numpy()
    return features


def _timed(work: Iterable[object]) -> float:
    """Return the seconds that it takes to iterate over all of `work`."""
    began = time.perf_counter()
    for _ in work:
        pass
    return time.perf_counter() - began


main = main_of(run, ImageBenchmarkOptions, (__doc__ or "").split("\n")[0])


if __name__ == "__main__":
    raise SystemExit(main())
