"""A trained entailment model in a few lines of Python: texts and images in, probabilities out.

model = Entailment.load("checkpoint/best")
model.predict(["a text"], ["one.jpg"], ["another text"], [None])
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Optional, Protocol, Union

import numpy as np
from scipy.special import softmax

from multimodal_entailment.data import LABELS, PostPair, images_of
from multimodal_entailment.decoded import DecodedImages, Image
from multimodal_entailment.encoded_posts import EncodedPosts, unread_texts
from multimodal_entailment.images import ImageLimits
from paddle_ranker import runtime
from paddle_ranker.errors import UsageError

if TYPE_CHECKING:
    from multimodal_entailment.examples import Batch, Posts
    from multimodal_entailment.folder import EntailmentInfo, EntailmentParts
    from paddle_ranker.encoding.columns import EncodedPairs
    from paddle_ranker.encoding.pair_encoder import PairEncoder
    from paddle_ranker.export.static_model import StaticModel


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


class _Engine(Protocol):
    """What computes logits of a batch, `[batch, classes]`."""

    name: str

    def logits(self, batch: Batch) -> np.ndarray: ...


class _Dygraph:
    """The network as it is."""

    name = "dygraph"

    def __init__(self, parts: EntailmentParts):
        self._network = parts.network
        self._network.eval()

    def logits(self, batch: Batch) -> np.ndarray:
        import paddle

        from multimodal_entailment.examples import logits_of

        with paddle.no_grad():
            logits: np.ndarray = logits_of(self._network, batch).numpy()
            return logits


class _Static:
    """The exported model; one call at a time."""

    name = "paddle_inference"

    def __init__(self, model: StaticModel):
        self._model, self._lock = model, threading.Lock()

    def logits(self, batch: Batch) -> np.ndarray:
        from multimodal_entailment.static import arrays_of

        with self._lock:
            return self._model.outputs(*arrays_of(batch))[1]


class Entailment:
    """Say for pairs of posts whether the second follows from the first. Safe to call from several threads.

    Attributes: `labels`, the classes in the order of the probabilities; `info`, what the model is; `engine`, what
    computes: dygraph or paddle_inference; `max_rows` pairs and `max_tokens` tokens are computed at once.
    """

    labels = LABELS

    def __init__(
        self,
        info: EntailmentInfo,
        engine: _Engine,
        pair_encoder: Optional[PairEncoder],
        *,
        batch_size: int,
        workers: int,
        limits: ImageLimits,
    ):
        self.info, self.engine, self._pair_encoder = info, engine.name, pair_encoder
        self._engine, self._limits = engine, limits
        self.max_rows, self.max_tokens = batch_size, batch_size * (info.max_seq_length or 1)
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="images")

    @classmethod
    def load(
        cls,
        folder: Union[str, Path],
        *,
        batch_size: int = 32,
        workers: int = 0,
        threads: int = 0,
        limits: Optional[ImageLimits] = None,
    ) -> Entailment:
        """Load a model: a checkpoint's folder, run as it is, or an exported one, run by Paddle Inference on the CPU.

        Args:
            batch_size: pairs that are computed at once.
            workers: threads that decode images; 0: one a core.
            threads: of a matrix product of Paddle Inference; 0: one a core.
            limits: of images that are decoded.

        Raises `CheckpointError` for a folder that is neither, or is damaged.
        """
        runtime.prepare()
        from multimodal_entailment.folder import EntailmentInfo, load_entailment, load_pair_encoder
        from multimodal_entailment.static import open_static

        folder = Path(folder)
        info = EntailmentInfo.read(folder)
        if info.export:
            pair_encoder = load_pair_encoder(folder, info) if info.max_seq_length else None
            engine: _Engine = _Static(open_static(folder, info, runtime.thread_count(threads)))
        else:
            parts = load_entailment(folder)
            pair_encoder, engine = parts.pair_encoder, _Dygraph(parts)
        return cls(
            info,
            engine,
            pair_encoder,
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

    def _posts(self, given: GivenPosts, skip_bad: bool = False) -> Posts:
        from multimodal_entailment.examples import Posts

        encoder, images = self._pair_encoder, None
        if self.info.image_size is not None:
            both = [*given.images[0], *given.images[1]]
            images = DecodedImages(
                both, self.info.image_size, self._pool, self._limits, places=given.places, skip_bad=skip_bad
            )
        texts = None if encoder is None else encoder.encode(*given.texts)
        return Posts(len(given), texts, 0 if encoder is None else encoder.pad_id, images)

    def encode(self, texts_1: Sequence[str], texts_2: Sequence[str]) -> EncodedPosts:
        """Encode pairs of posts without images."""
        nothing = [None] * len(texts_1)
        return self.encode_posts(GivenPosts((texts_1, texts_2), (nothing, nothing)))

    def encode_posts(self, given: GivenPosts) -> EncodedPosts:
        """Encode texts and decode images, as `logits_of` takes them; errors as of `predict`."""
        posts = self._posts(given)
        texts = unread_texts(len(posts)) if posts.texts is None else posts.texts
        if posts.images is None:
            return EncodedPosts.of(texts, None, None)
        pixels, present = posts.images.take(np.arange(2 * len(posts)))
        both = pixels.reshape(2, len(posts), *pixels.shape[1:]).swapaxes(0, 1)
        return EncodedPosts.of(texts, both, present.reshape(2, -1).T)

    def logits_of(self, pairs: EncodedPairs, rows: np.ndarray) -> np.ndarray:
        """Return the logits of the pairs `rows` `[m]` of what was encoded, `[m, 3]`, computed as one batch."""
        from multimodal_entailment.examples import Batch

        assert isinstance(pairs, EncodedPosts)
        ids = types = images = present = None
        if self._pair_encoder is not None:
            ids, types = pairs.pad(rows, self._pair_encoder.pad_id)
        if pairs.images is not None and pairs.present is not None:
            first_then_second = pairs.images[rows].swapaxes(0, 1)
            images = first_then_second.reshape(-1, *first_then_second.shape[2:])
            present = pairs.present[rows].astype(np.float32)
        return self._engine.logits(Batch(ids, types, images, present))

    def probabilities(self, posts: Posts) -> np.ndarray:
        """Return the same of pairs that are encoded already, `[n, 3]` float64."""
        logits = np.zeros((len(posts), len(LABELS)))
        for indices in posts.scoring_batches(self.max_rows):
            logits[indices] = self._engine.logits(posts.batch(indices))
        probabilities: np.ndarray = softmax(logits, axis=1)
        return probabilities
