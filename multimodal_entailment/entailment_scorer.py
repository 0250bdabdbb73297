"""A trained entailment model in a few lines of Python: texts and images in, probabilities out.

model = Entailment.load("checkpoint/best")
model.predict(["a text"], ["one.jpg"], ["another text"], [None])
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional, Union

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from multimodal_entailment import kind  # noqa: F401  # registers the kind of model
from multimodal_entailment.data import PostPair, images_of
from multimodal_entailment.images import ImageError, ImageLimits, load_image
from multimodal_entailment.info import ENTAILMENT, LABELS, EntailmentInfo
from multimodal_entailment.posts import PostEncoder, Posts
from paddle_ranker import runtime
from paddle_ranker.array_types import Arrays
from paddle_ranker.encoding.batching import scoring_batches
from paddle_ranker.encoding.columns import Columns, EncodedPairs
from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.errors import UsageError
from paddle_ranker.model.load_options import DEFAULT_OPTIONS, LoadOptions
from paddle_ranker.scoring.loading import ScoringModel, open_model
from paddle_ranker.scoring.scorer import BatchRunner

Image = Union[str, Path, bytes]  # a file, or the bytes of a file


class DecodedImages:
    """The images of n pairs of posts: image one of every pair, then image two of every pair.

    Args:
        images: 2n images; None is a missing image.
        size: pixels per side.
        pool: the threads that read and decode.
        limits: the largest image that is decoded.
        names: the name of each image for messages (default: `pair 3, image_1`).
        skip_bad: treat a broken image as missing, and note it in `bad`; if False, raise `ImageError`.
        before_each: called in the pool before each image; if it raises, no further image is decoded.
    """

    def __init__(
        self,
        images: Sequence[Optional[Image]],
        size: int,
        pool: ThreadPoolExecutor,
        limits: ImageLimits,
        *,
        names: Optional[Sequence[str]] = None,
        skip_bad: bool = False,
        before_each: Optional[Callable[[], None]] = None,
    ):
        self._images, self._size, self._pool, self._limits = images, size, pool, limits
        self._names, self._skip_bad = names, skip_bad
        self._before_each = before_each
        self.bad: list[str] = []

    def take(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pixels = np.zeros((len(indices), 3, self._size, self._size), np.uint8)
        present = np.zeros(len(indices), bool)
        for place, (index, decoded) in enumerate(zip(indices, self._pool.map(self._decode, indices.tolist()))):
            if isinstance(decoded, ImageError):
                error = decoded.at(self._place(int(index)))
                if not self._skip_bad:
                    raise error
                self.bad.append(str(error))
            elif decoded is not None:
                pixels[place], present[place] = decoded, True
        return pixels, present

    def _decode(self, index: int) -> Union[np.ndarray, ImageError, None]:
        image = self._images[index]
        if image is None:
            return None
        if self._before_each is not None:
            self._before_each()
        try:
            return load_image(image, self._size, self._limits).transpose(2, 0, 1)
        except ImageError as error:
            return error

    def _place(self, index: int) -> str:
        if self._names is not None:
            return self._names[index]
        second, pair = divmod(index, len(self._images) // 2)
        return f"pair {pair + 1}, image_{second + 1}"


# Most pairs of a batch with images: on a CPU, 256 are a third slower (the small encoder, 128 pixels).
_MOST_WITH_IMAGES = 32
_TEXTS_AT_ONCE = 8  # number of posts of a request whose texts, possibly long, are encoded at once
ScoringPosts = ScoringModel[EntailmentInfo, PostEncoder]


@dataclass(frozen=True)
class GivenPosts:
    """Texts and images of n pairs of posts, not yet encoded.

    texts: the texts of the first posts and of the second posts, `[n]` each
    images: the images of the first posts and of the second posts, files or their bytes; None: a missing image
    names: for messages, names of the first posts' images, then of the second posts', `[2 n]`; None: `pair 3, image_1`

    Raises `UsageError` if the numbers of texts and images differ.
    """

    texts: tuple[Sequence[str], Sequence[str]]
    images: tuple[Sequence[Optional[Image]], Sequence[Optional[Image]]]
    names: Optional[Sequence[str]] = None

    def __post_init__(self) -> None:
        counts = {len(values) for values in (*self.texts, *self.images)}
        if len(counts) > 1:
            raise UsageError(f"{sorted(counts)} texts and images: give two texts and two images (or None) per pair")

    def __len__(self) -> int:
        return len(self.texts[0])


class Entailment:
    """A model for pairs of posts: does the second follow from the first? Thread-safe.

    Attributes:
        labels: the classes, in the order of the probabilities.
        info: contents of the model's info file.
        engine, precision: names of the engine and of its precision.
        max_rows, max_tokens: maximum numbers of pairs and of tokens in a batch.
    """

    labels = LABELS

    def __init__(self, model: ScoringPosts, *, batch_size: int = 256, workers: int, limits: ImageLimits):
        self.info = model.info
        if self.info.image_size is not None:
            batch_size = min(batch_size, _MOST_WITH_IMAGES)
        # Answers showed this engine under this name before there were others.
        self.engine = {"inference": "paddle_inference"}.get(model.engine.name, model.engine.name)
        self.precision = model.engine.precision
        self._texts = model.row_encoder.texts
        self._runner = BatchRunner(model.engine, self.info.max_seq_length or 1, batch_size)
        self._limits = limits
        # The memory of images does not depend on the texts.
        self.max_rows, self.max_tokens = batch_size, self._runner.max_tokens
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="images")

    @classmethod
    def load(
        cls,
        folder: Union[str, Path],
        options: LoadOptions = DEFAULT_OPTIONS,
        *,
        batch_size: int = 256,
        workers: int = 0,
        limits: Optional[ImageLimits] = None,
    ) -> Entailment:
        """Load a model from a checkpoint's folder or from an exported one, for any engine that runs it.

        Args:
            options: engine, precision, threads and so on.
            batch_size: most pairs per batch; a model with images takes at most 32.
            workers: number of threads that decode images; 0: one per core.
            limits: the largest image that is decoded.

        Raises `CheckpointError` if the folder is neither or is damaged, and every error of `open_model`.
        """
        runtime.prepare()
        return cls(
            open_model(folder, ENTAILMENT, options),
            batch_size=batch_size,
            workers=workers or runtime.usable_cores(),
            limits=limits or ImageLimits(),
        )

    def predict(
        self,
        texts_1: Sequence[str],
        images_1: Sequence[Optional[Image]],
        texts_2: Sequence[str],
        images_2: Sequence[Optional[Image]],
    ) -> np.ndarray:
        """Return the probability of each class for each pair of posts, `[n, 3]` float64, in the order of `labels`.

        Images are files or their bytes; None is a missing image. A model without images does not open them.

        Raises `ImageError`, naming the pair (from 1), if an image cannot be decoded or exceeds the limits.
        """
        return self.probabilities(self._posts(GivenPosts((texts_1, texts_2), (images_1, images_2))))

    def predict_posts(self, pairs: Sequence[PostPair], skip_bad_images: bool = False) -> np.ndarray:
        """Return the probabilities of pairs from a file, as `predict` does; messages name the lines.

        With `skip_bad_images`, a broken image counts as missing, and one line on stderr has their number.
        """
        paths, names = images_of(pairs)
        half = len(pairs)
        texts = [pair.text_1 for pair in pairs], [pair.text_2 for pair in pairs]
        posts = self._posts(GivenPosts(texts, (paths[:half], paths[half:]), names), skip_bad_images)
        probabilities = self.probabilities(posts)
        if isinstance(posts.images, DecodedImages) and posts.images.bad:
            bad = posts.images.bad
            print(f"{len(bad):,} images treated as missing ({bad[0]}{'; …' if len(bad) > 1 else ''})", file=sys.stderr)
        return probabilities

    def _posts(
        self, pairs: GivenPosts, skip_bad: bool = False, before_each: Optional[Callable[[], None]] = None
    ) -> Posts:
        encoder, images = self._texts, None
        if self.info.image_size is not None:
            both = [*pairs.images[0], *pairs.images[1]]
            images = DecodedImages(
                both, self.info.image_size, self._pool, self._limits, names=pairs.names, skip_bad=skip_bad,
                before_each=before_each,
            )  # fmt: skip
        texts = None if encoder is None else _encoded(encoder, pairs.texts, before_each)
        return Posts(len(pairs), texts, images)

    def encode_posts(self, pairs: GivenPosts, before_each: Optional[Callable[[], None]] = None) -> Posts:
        """Encode texts and decode images for `compute`; raises as `predict` does.

        `before_each` is called before each image, and from time to time between texts; if it raises, the work ends.
        """
        return self._posts(pairs, before_each=before_each).held()

    def compute(self, posts: Columns, rows: NDArray[np.int64]) -> Arrays:
        """Return `logits`, `[m, 3]`, of the pairs `rows` `[m]` of `posts`, computed as one batch."""
        return self._runner.compute(posts, rows)

    def probabilities(self, posts: Posts) -> np.ndarray:
        """Return the probabilities of encoded pairs, `[n, 3]` float64, in the order of `labels`."""
        logits = np.zeros((len(posts), len(LABELS)))
        for rows in scoring_batches(posts.lengths, self.max_tokens, self.max_rows):
            logits[rows] = self.compute(posts, rows)["logits"]
        probabilities: np.ndarray = softmax(logits, axis=1)
        return probabilities


def _encoded(
    encoder: PairEncoder, texts: tuple[Sequence[str], Sequence[str]], before_each: Optional[Callable[[], None]]
) -> EncodedPairs:
    if before_each is None or len(texts[0]) <= _TEXTS_AT_ONCE:
        return encoder.encode(*texts)
    parts: list[EncodedPairs] = []
    for first in range(0, len(texts[0]), _TEXTS_AT_ONCE):
        before_each()
        parts.append(encoder.encode(*(side[first : first + _TEXTS_AT_ONCE] for side in texts)))
    return EncodedPairs.concat(parts)
