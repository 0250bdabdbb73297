"""What a request may ask for, and how much work may wait."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Of the server; `/info` shows them.

    request_bytes: of a body, once unpacked, or of a message
    pairs: of a request
    characters: of a text
    queue_pairs: that wait for the engine, over all requests
    connections: open at a time, on all protocols
    header_bytes: of an HTTP request's head
    deadline_seconds: a request that names no deadline has this one
    """

    request_bytes: int = 16 * 1024 * 1024
    pairs: int = 1000
    characters: int = 100_000
    queue_pairs: int = 8192
    connections: int = 2048
    header_bytes: int = 64 * 1024
    deadline_seconds: float = 30.0
