"""What a request may ask for, and how much work may wait."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paddle_ranker.errors import UsageError
from paddle_ranker.serving.core.faults import INVALID, TOO_LARGE, Fault


@dataclass(frozen=True)
class Limits:
    """Of the server; `/info` shows them.

    request_bytes: of a body, once unpacked, or of a message
    pairs: of a request
    characters: of a text
    queue_pairs: that wait for the engine, over all requests
    posts: pairs of posts of a request
    queue_posts: pairs of posts that wait, over all requests, with their images decoded
    image_bytes, image_pixels: of an image, as it came and as its header says
    connections: open at a time, on all protocols
    header_bytes: of an HTTP request's head
    deadline_seconds: a request that names no deadline has this one
    """

    request_bytes: int = 16 * 1024 * 1024
    pairs: int = 1000
    characters: int = 100_000
    queue_pairs: int = 8192
    posts: int = 64
    queue_posts: int = 512
    image_bytes: int = 8 * 1024 * 1024
    image_pixels: int = 40_000_000
    connections: int = 2048
    header_bytes: int = 64 * 1024
    deadline_seconds: float = 30.0

    def __post_init__(self) -> None:
        if self.queue_pairs < self.pairs:
            raise UsageError(
                f"--queue_pairs {self.queue_pairs}: a request may have {self.pairs} pairs, and could never wait"
            )
        if self.queue_posts < self.posts:
            raise UsageError(
                f"--queue_posts {self.queue_posts}: a request may have {self.posts} pairs, and could never wait"
            )

    def check_pairs(self, count: int, field: str) -> None:
        """Raise `Fault` where a request's `field` holds no pairs, or too many."""
        _check_count(count, self.pairs, field)

    def check_posts(self, count: int, field: str) -> None:
        """Raise `Fault` where a request's `field` holds no pairs of posts, or too many."""
        _check_count(count, self.posts, field)

    def check_texts(self, texts: Sequence[object], field: str) -> None:
        """Raise `Fault`, which names `field[3]`, for one that is no text or too long."""
        previous = object()  # none of them
        for place, text in enumerate(texts):
            if text is not previous:  # one query stands beside all of its titles
                self.check_text(text, f"{field}[{place}]")
                previous = text

    def check_text(self, text: object, field: str) -> None:
        """Raise `Fault` where `text` is none, or too long."""
        if not isinstance(text, str):
            raise Fault(INVALID, f"is {type(text).__name__}, expected a text", field=field)
        if len(text) > self.characters:
            problem = f"has {len(text):,} characters, at most {self.characters:,} are allowed"
            raise Fault(TOO_LARGE, problem, field=field)


def _check_count(count: int, most: int, field: str) -> None:
    if not count:
        raise Fault(INVALID, "holds nothing to score", field=field)
    if count > most:
        raise Fault(TOO_LARGE, f"holds {count:,}, at most {most:,} are allowed", field=field)
