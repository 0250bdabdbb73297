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
from typing import Callable, Optional, Union, cast

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from multimodal_entailment import kind  # noqa: F401  # registers the kind of model
from multimodal_entailment.data import PostPair, images_of
from multimodal_entailment.decoded import DecodedImages, Image
from multimodal_entailment.images import ImageLimits
from multimodal_entailment.info import LABELS, EntailmentInfo
from multimodal_entailment.posts import PostEncoder, Posts
from paddle_ranker import runtime
from paddle_ranker.encoding.batching import scoring_batches
from paddle_ranker.encoding.columns import Arrays, Columns
from paddle_ranker.errors import UsageError
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.scoring.loading import ScoringModel, open_model
from paddle_ranker.scoring.scorer import BatchRunner

_DEFAULTS = LoadOptions()
ScoringPosts = ScoringModel[EntailmentInfo, PostEncoder]


@dataclass(frozen=True)
class GivenPosts:
    """n pairs of posts as they come.

    texts: of the first posts, `[n]`; of the second
    images: likewise, files or their bytes; None: it is missing
    places: of the images of the first posts, then of the second, `[2 n]`, for messages; None: pairs are counted from 1

    Raises `UsageError` where they are not equally many.
    """

    texts: tuple[Sequence[str], Sequence[str]]
    images: tuple[Sequence[Optional[Image]], Sequence[Optional[Image]]]
    places: Optional[Sequence[str]] = None

    def __post_init__(self) -> None:
        counts = {len(values) for values in (*self.texts, *self.images)}
        if len(counts) > 1:
            raise UsageError(f"{sorted(counts)} texts and images: give two texts and two images (or None) a pair")

    def __len__(self) -> int:
        return len(self.texts[0])


class Entailment:
    """Say for pairs of posts whether the second follows from the first. Safe to call from several threads.

    Attributes: `labels`, the classes in the order of the probabilities; `info`, what the model is; `engine`, what
    computes, and its `precision`; `max_rows` pairs and `max_tokens` tokens are computed at once.
    """

    labels = LABELS

    def __init__(self, model: ScoringPosts, *, batch_size: int = 32, workers: int, limits: ImageLimits):
        self.info = model.info
        # Under this name answers have shown it since before there were others.
        self.engine = {"inference": "paddle_inference"}.get(model.engine.name, model.engine.name)
        self.precision = model.engine.precision
        self._texts = model.row_encoder.texts
        self._runner = BatchRunner(model.engine, self.info.max_seq_length or 1, batch_size)
        self._limits = limits
        self.max_rows, self.max_tokens = batch_size, self._runner.max_tokens  # images take memory, whatever the texts
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="images")

    @classmethod
    def load(
        cls,
        folder: Union[str, Path],
        options: LoadOptions = _DEFAULTS,
        *,
        batch_size: int = 32,
        workers: int = 0,
        limits: Optional[ImageLimits] = None,
    ) -> Entailment:
        """Load a model: a checkpoint's folder, run as it is, or an exported one, in any of the engines for it.

        Args:
            options: engine, precision, threads and so on.
            batch_size: pairs that are computed at once.
            workers: threads that decode images; 0: one a core.
            limits: of images that are decoded.

        Raises `CheckpointError` for a folder that is neither, or is damaged, and what `open_model` raises.
        """
        EntailmentInfo.read(Path(folder))  # another kind of model ends here
        runtime.prepare()
        model = cast(ScoringPosts, open_model(folder, options))
        return cls(
            model, batch_size=batch_size, workers=workers or runtime.usable_cores(), limits=limits or ImageLimits()
        )

    def predict(
        self,
        texts_1: Sequence[str],
        images_1: Sequence[Optional[Image]],
        texts_2: Sequence[str],
        images_2: Sequence[Optional[Image]],
    ) -> np.ndarray:
        """Return the probability of each class for each pair of posts, `[n, 3]` float64, in the order of `labels`.

        Images are files or their bytes; None is a missing one. What the model does not look at is not opened.

        Raises `ImageError`, naming the pair (from 1), for an image that cannot be decoded or is beyond the limits.
        """
        return self.probabilities(self._posts(GivenPosts((texts_1, texts_2), (images_1, images_2))))

    def predict_posts(self, pairs: Sequence[PostPair], skip_bad_images: bool = False) -> np.ndarray:
        """Return the same of pairs from a file, `[n, 3]` float64; messages name the lines.

        With `skip_bad_images` a broken image is a missing one, and one line on stderr says how many were.
        """
        paths, places = images_of(pairs)
        half = len(pairs)
        texts = [pair.text_1 for pair in pairs], [pair.text_2 for pair in pairs]
        posts = self._posts(GivenPosts(texts, (paths[:half], paths[half:]), places), skip_bad_images)
        probabilities = self.probabilities(posts)
        if isinstance(posts.images, DecodedImages) and posts.images.bad:
            bad = posts.images.bad
            print(f"{len(bad):,} images taken for missing ({bad[0]}{'; …' if len(bad) > 1 else ''})", file=sys.stderr)
        return probabilities

    def _posts(
        self, given: GivenPosts, skip_bad: bool = False, before_each: Optional[Callable[[], None]] = None
    ) -> Posts:
        encoder, images = self._texts, None
        if self.info.image_size is not None:
            both = [*given.images[0], *given.images[1]]
            images = DecodedImages(
                both, self.info.image_size, self._pool, self._limits, places=given.places, skip_bad=skip_bad,
                before_each=before_each,
            )  # fmt: skip
        texts = None if encoder is None else encoder.encode(*given.texts)
        return Posts(len(given), texts, images)

    def encode_posts(self, given: GivenPosts, before_each: Optional[Callable[[], None]] = None) -> Posts:
        """Encode texts and decode images, as `compute` takes them; errors as of `predict`.

        `before_each` is called before each image; where it raises, that ends the work.
        """
        return self._posts(given, before_each=before_each).held()

    def compute(self, posts: Columns, rows: NDArray[np.int64]) -> Arrays:
        """Return the `logits`, `[m, 3]`, of the pairs `rows` `[m]` of what was encoded, computed as one batch."""
        return self._runner.compute(posts, rows)

    def probabilities(self, posts: Posts) -> np.ndarray:
        """Return the same of pairs that are encoded already, `[n, 3]` float64."""
        logits = np.zeros((len(posts), len(LABELS)))
        for rows in scoring_batches(posts.lengths, self.max_tokens, self.max_rows):
            logits[rows] = self.compute(posts, rows)["logits"]
        probabilities: np.ndarray = softmax(logits, axis=1)
        return probabilities
