"""The command that tunes trainings; importing this module registers it, and is fast."""

from __future__ import annotations

from paddle_ranker.commands.command_registry import COMMANDS, TRAIN, Command

COMMANDS.add(
    "tune", Command(f"{__package__}.tune", "search a training's hyperparameters, and judge the best", group=TRAIN)
)
