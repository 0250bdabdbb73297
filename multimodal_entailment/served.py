"""Serve a model of pairs of posts: load it, warm it up, check its answers; requests share batches."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Optional

import numpy as np
from PIL import Image
from scipy.special import softmax

from multimodal_entailment.entailment_scorer import Entailment, GivenPosts
from multimodal_entailment.images import DecodedBytes, ImageError, ImageLimits, ImageTooLargeError
from multimodal_entailment.posts import Posts
from multimodal_entailment.serve_options import PostLimits
from paddle_ranker import runtime
from paddle_ranker.errors import CheckpointError
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.retrieval.work.turns import idle, watch
from paddle_ranker.serving.core.batcher import Batcher, BatchObserver
from paddle_ranker.serving.core.faults import OVERLOADED, TOO_LARGE, UNPROCESSABLE, Fault
from paddle_ranker.serving.core.jobs import no_texts
from paddle_ranker.serving.core.server_config import ServeConfig
from paddle_ranker.serving.core.threads import StoppableWork
from paddle_ranker.serving.slots.self_check import tolerance_of
from paddle_ranker.serving.slots.slots import ServedModel, Slot, computed

# Minimum number of requests whose images are decoded at the same time, so that small requests need not wait.
_LEAST_THREADS = 4
_TEXTS = ("a", "two words", "深度学习", "一段很长的话" * 40)


@dataclass(frozen=True)
class Post:
    """A pair of posts of a request.

    texts: None only if the model takes no texts
    images: the bytes of image one and image two; None: a missing image
    place: the position of the pair in the request, `pairs[3].`
    """

    texts: tuple[Optional[str], Optional[str]]
    images: tuple[Optional[bytes], Optional[bytes]]
    place: str


@dataclass(frozen=True)
class ServedEntailment(ServedModel):
    """A loaded model that answers requests."""

    model: Entailment


def _check(model: Entailment, folder: Path) -> None:
    """Raise `CheckpointError` if probabilities are not finite, or if those of a pair change with its batch."""
    colours = io.BytesIO()
    Image.effect_noise((64, 48), 80.0).convert("RGB").save(colours, "PNG")
    rows = np.arange(model.max_rows)
    texts = [_TEXTS[row % len(_TEXTS)] for row in rows]
    images = [[None if row % 3 == missing else colours.getvalue() for row in rows] for missing in (0, 1)]
    posts = model.encode_posts(GivenPosts((texts, texts[::-1]), (images[0], images[1])))
    together = model.compute(posts, rows)["logits"]
    logits = [model.compute(posts, rows[row : row + 1])["logits"] for row in range(min(len(rows), 12))]
    alone = np.concatenate(logits)
    if not (np.isfinite(together).all() and np.isfinite(alone).all()):
        raise CheckpointError(f"{folder}: the model gives probabilities that are not numbers; export it again")
    gap = float(np.abs(softmax(together[: len(alone)], axis=1) - softmax(alone, axis=1)).max())
    tolerance = tolerance_of(model.precision)
    if gap > tolerance:
        raise CheckpointError(
            f"{folder}: a pair's probabilities differ by {gap:.2g} between the pair alone and in a batch (allowed: "
            f"{tolerance:g}); run paddle-ranker doctor"
        )


class EntailmentSlot(Slot[ServedEntailment]):
    """Slot of the server for a model of pairs of posts; used in one event loop."""

    labels = Entailment.labels

    limits: PostLimits

    def __init__(self, config: ServeConfig, limits: PostLimits):
        folder = None if limits.entailment_model is None else Path(limits.entailment_model)
        super().__init__(limits, "model", folder)
        self._config = config
        # All models share it: during a reload there are two.
        decoded = DecodedBytes(limits.image_memory_mb * 1024 * 1024)
        self._images = ImageLimits(limits.image_bytes, limits.image_pixels, decoded)
        # The threads of rankings are not used: images take long, and many images would delay rankings.
        self._decoding = StoppableWork(
            max(_LEAST_THREADS, runtime.usable_cores()), name="posts", what="the images were decoded"
        )

    def load(self, observer: Optional[BatchObserver] = None) -> ServedEntailment:
        """Load the model, run batches through it, and check its answers.

        Raises as `Entailment.load` does, and `CheckpointError` if the answers are not numbers or depend on the other
        pairs of a batch.
        """
        limits = self.limits
        assert self.folder is not None
        folder = self.folder.resolve()  # once: a link may be moved while the model is opened
        model = Entailment.load(
            folder,
            LoadOptions(
                engine=limits.entailment_engine,
                precision=limits.entailment_precision,
                device=self._config.device,
                threads=self._config.cpu_threads,
            ),
            batch_size=self._config.batch_size,
            limits=self._images,
        )
        _check(model, folder)
        batcher = Batcher(
            model,
            no_texts,
            queue_rows=limits.queue_posts,
            max_wait_us=self._config.max_wait_us,
            observer=observer,
        )
        name = self._config.name_of("entailment", self.folder)
        return ServedEntailment(name, folder, batcher, time.time(), model)

    def describe(self) -> dict[str, object]:
        served = self.ready()
        info = served.model.info
        return {
            "model_id": served.name,
            "labels": list(self.labels),
            "max_input_length": info.max_seq_length,
            "vision": info.vision,
            "image_size": info.image_size,
            "loaded_at": served.loaded_at,
            "engine": served.model.engine,
            "batch_pairs": served.model.max_rows,
        }

    @property
    def decoding_pairs(self) -> int:
        """Return the number of pairs being decoded, before the queue, including pairs whose caller has left."""
        return self._decoding.under_way

    @property
    def reads_texts(self) -> bool:
        """Return True if the model takes texts. Raises as `name` does."""
        return self.ready().model.info.max_seq_length is not None

    async def probabilities(self, posts: Sequence[Post], *, deadline: Optional[float] = None) -> np.ndarray:
        """Return the probability of each class for each pair of posts, `[n, 3]` float64, in the order of `labels`.

        Args:
            deadline: the time by `time.monotonic()` after which nobody waits for the answer.

        Raises `Fault` if the request is over a limit or too late, an image cannot be decoded, or the server is
        overloaded or not ready. On cancellation or at the deadline, its pairs leave the queue, and no further
        image is decoded.
        """
        size, end = len(posts), self.deadline(deadline)
        waiting = self.queued_rows + self.decoding_pairs
        if waiting + size > self.limits.queue_posts:
            raise Fault(
                OVERLOADED,
                f"{waiting} pairs of posts wait, {size} more would be above {self.limits.queue_posts}",
                retry_after=1.0,
            )
        served = self.ready()
        encoded = await self._decoding.run(size, end, partial(_encoded, served.model, posts))
        job = await computed(served.batcher, size, end, columns=encoded)
        probabilities: np.ndarray = softmax(job.outputs["logits"].astype(np.float64), axis=1)
        return probabilities


def _encoded(model: Entailment, posts: Sequence[Post]) -> Posts:
    names = [f"{post.place}image_{number}" for number in (1, 2) for post in posts]
    texts = [post.texts[0] or "" for post in posts], [post.texts[1] or "" for post in posts]
    images = [post.images[0] for post in posts], [post.images[1] for post in posts]
    try:
        before_each = watch()
        with idle():  # other threads decode the images
            return model.encode_posts(GivenPosts(texts, images, names), before_each=before_each)
    except ImageError as error:
        kind = TOO_LARGE if isinstance(error, ImageTooLargeError) else UNPROCESSABLE
        raise Fault(kind, error.message, field=error.place) from error
