"""Shards elsewhere, beside folders here: for tests of what all ways of opening an index agree on."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from paddle_ranker.recipes import GUESTS
from paddle_ranker.retrieval.snapshots.searchable import Searchable

HAS_ELSEWHERE = "scale" in GUESTS
_POOL = ThreadPoolExecutor(8)


def elsewhere(folders: Sequence[Path]) -> list[Searchable]:
    """Return one collection, of the folders as shards that are called in other threads; none without the guest."""
    if not HAS_ELSEWHERE:
        return []
    from paddle_ranker.scale.remote import RemoteCollection
    from paddle_ranker.scale.shard_service import ShardService

    def through(service: ShardService) -> Any:
        return lambda name, *args: _POOL.submit(service.call, name, *args)

    return [RemoteCollection([through(ShardService(folder)) for folder in folders])]
