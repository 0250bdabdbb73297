"""How models behind URLs are asked; `paddle_ranker.retrieval.index.model_urls` finds it here when a URL is given."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from paddle_ranker.retrieval.index.model_urls import (
    HTTP,
    MODEL_SERVICES,
    ModelService,
    ModelUrl,
    TowerSettings,
    UrlRanker,
)

if TYPE_CHECKING:
    from paddle_ranker.retrieval.stored.schema import FieldTower


def _describe_tower(url: ModelUrl, settings: TowerSettings, folder: Path) -> int:
    from paddle_ranker.remote_models.tower import describe_tower

    return describe_tower(url, settings, folder)


def _open_tower(url: ModelUrl, folder: Path, batch_size: int) -> FieldTower:
    from paddle_ranker.remote_models.tower import UrlTower

    return UrlTower.open(url, folder, batch_size)


def _differing(folder: Path, settings: TowerSettings) -> dict[str, tuple[str, str]]:
    from paddle_ranker.remote_models.tower import differing

    return differing(folder, settings)


def _open_ranker(url: ModelUrl, batch_size: int) -> UrlRanker:
    from paddle_ranker.remote_models.ranker import HttpRanker

    return HttpRanker(url, batch_size)


MODEL_SERVICES.add(HTTP, ModelService(_describe_tower, _open_tower, _differing, _open_ranker))
