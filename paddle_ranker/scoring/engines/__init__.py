"""What computes a model's outputs: the network itself, or its exported graph in one of several runtimes."""

from __future__ import annotations

from paddle_ranker.scoring.engines.base import Engine
from paddle_ranker.scoring.engines.opening import ENGINES, EngineKind, exported_engines, open_engine

__all__ = ["ENGINES", "Engine", "EngineKind", "exported_engines", "open_engine"]
