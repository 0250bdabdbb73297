"""Options of `paddle-ranker serve` for a model of pairs of posts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from paddle_ranker.options import option
from paddle_ranker.scoring.engines.precisions import PRECISIONS
from paddle_ranker.scoring.engines.registry import ENGINES
from paddle_ranker.serving.core.limits import Limits, check_count, check_queue

LIMITS = ("posts", "queue_posts", "image_bytes", "image_pixels", "image_memory_mb")


@dataclass(frozen=True)
class PostLimits(Limits):
    """The options of the served model, and the limits of its requests beside those of all requests."""

    entailment_model: Optional[str] = option(
        None, either=True, help="a model of pairs of posts, trained or exported: it answers POST /v1/entailment"
    )
    entailment_engine: Optional[str] = option(
        None, help="what computes it, as --engine has it for the ranker", choices=ENGINES
    )
    entailment_precision: str = option(
        "fp32", help="precision of its matrix products; other than fp32 needs an exported model", choices=PRECISIONS
    )
    posts: int = option(64, help="pairs of posts of a request", minimum=1, shared=True)
    queue_posts: int = option(512, help="pairs of posts that wait in each worker", minimum=1, shared=True)
    image_bytes: int = option(8 * 1024 * 1024, help="bytes of an image, as it comes", minimum=1, shared=True)
    image_pixels: int = option(40_000_000, help="pixels of an image, as its header says", minimum=1, shared=True)
    image_memory_mb: int = option(
        512, help="megabytes of all images that are decoded at a time, in each worker", minimum=1, shared=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_queue("queue_posts", self.queue_posts, self.posts)

    def check_posts(self, count: int, field: str) -> None:
        """Raise `Fault` if a request's `field` holds no pairs of posts, or too many."""
        check_count(count, self.posts, field)
