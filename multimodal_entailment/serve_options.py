"""Options of `paddle-ranker serve` for a model of pairs of posts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from paddle_ranker.options import option
from paddle_ranker.options.declare import FETCHED_FOLDER
from paddle_ranker.scoring.engines.engine_registry import ENGINES
from paddle_ranker.scoring.engines.precisions import PRECISIONS
from paddle_ranker.serving.core.limits import Limits, check_count, check_queue

LIMITS = ("posts", "queue_posts", "image_bytes", "image_pixels", "image_memory_mb")


@dataclass(frozen=True)
class PostLimits(Limits):
    """Options of a served model of pairs of posts; its limits are added to those of all requests."""

    entailment_model: Optional[str] = option(
        None,
        either=True,
        help="model for pairs of posts, trained or exported, which answers POST /v1/entailment",
        addresses=FETCHED_FOLDER,
    )
    entailment_engine: Optional[str] = option(None, help="engine of this model; see --engine", choices=ENGINES)
    entailment_precision: str = option(
        "fp32",
        help="precision of its matrix products; other than fp32 needs an exported model, or a GPU",
        choices=PRECISIONS,
    )
    posts: int = option(64, help="maximum number of pairs of posts per request", minimum=1, shared=True)
    queue_posts: int = option(
        512, help="maximum number of waiting pairs of posts in each worker", minimum=1, shared=True
    )
    image_bytes: int = option(8 * 1024 * 1024, help="maximum size of an image file in bytes", minimum=1, shared=True)
    image_pixels: int = option(
        40_000_000, help="maximum number of pixels of an image, by its header", minimum=1, shared=True
    )
    image_memory_mb: int = option(
        512, help="memory in MB for images that are decoded at the same time, in each worker", minimum=1, shared=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_queue("queue_posts", self.queue_posts, self.posts)

    def check_posts(self, count: int, field: str) -> None:
        """Raise `Fault` if a request's `field` holds no pairs of posts, or too many."""
        check_count(count, self.posts, field)
