"""The commands for clusters; importing this module registers them, and is fast."""

from __future__ import annotations

import importlib
from typing import Any

from paddle_ranker.commands.command_registry import COMMANDS, SERVE, Command
from paddle_ranker.options.declare import ON_CLUSTER

COMMANDS.add(
    "deploy",
    Command(
        f"{__package__}.deploy",
        "serve models by replicas on a Ray cluster, or write the configuration for Kubernetes",
        group=SERVE,
    ),
)


def _add(command: str, module: str, function: str) -> None:
    def call(*args: Any) -> Any:
        return getattr(importlib.import_module(f"{__package__}.{module}"), function)(*args)

    ON_CLUSTER.add(command, call)


_add("predict", "offline", "predict")
_add("encode", "offline", "encode")
_add("mine", "mining", "mine")
_add("index build", "indexing", "building_shards")
