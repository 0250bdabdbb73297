"""Options of `paddle-ranker serve` for a tower; kept apart from its slot, which takes long to import."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from paddle_ranker.options import option
from paddle_ranker.options.declare import FOLDER_OR_URL
from paddle_ranker.scoring.engines.engine_registry import ENGINES
from paddle_ranker.scoring.engines.precisions import PRECISIONS
from paddle_ranker.serving.core.limits import Limits, check_queue

TOWER_SLOT = "tower"  # name of the tower's slot
LIMITS = ("texts", "queue_texts")


@dataclass(frozen=True)
class TowerSlotOptions(Limits):
    """Options of `paddle-ranker serve` for a tower, with limits of its requests in addition to `Limits`."""

    tower: Optional[Path] = option(  # noqa: RUF009
        None,
        either=True,
        help="a tower, trained or exported, or any encoder by its folder or name: it answers POST /v1/embeddings and "
        "/embed with vectors; with --index, the URL of the tower with which that was built, http://HOST/v1#MODEL",
        addresses=FOLDER_OR_URL,
    )
    tower_engine: Optional[str] = option(None, help="engine of the tower (default: --engine's)", choices=ENGINES)
    tower_precision: Optional[str] = option(
        None, help="precision of the tower's matrix products (default: --precision's)", choices=PRECISIONS
    )
    texts: int = option(2048, help="most texts of a request for vectors", minimum=1, shared=True)
    queue_texts: int = option(8192, help="most texts that wait for each worker's tower", minimum=1, shared=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_queue("queue_texts", self.queue_texts, self.texts)
