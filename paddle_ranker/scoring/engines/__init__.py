"""What computes a ranker's logits: the network itself, or its exported graph in one of several runtimes."""

from __future__ import annotations

from paddle_ranker.scoring.engines.base import Engine
from paddle_ranker.scoring.engines.opening import ENGINES, EXPORTED, open_engine

__all__ = ["ENGINES", "EXPORTED", "Engine", "open_engine"]
