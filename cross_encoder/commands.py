"""The cross-encoder's commands: importing the module registers them, and imports nothing large."""

from __future__ import annotations

from paddle_ranker.commands.registry import BY_KIND, COMMANDS, Command

KIND = "cross_encoder"

COMMANDS.add(
    "train-ce", Command(f"{__package__}.train_ce", "train the cross-encoder on labelled pairs", "TrainCeOptions")
)
BY_KIND["evaluate"].add(KIND, f"{__package__}.evaluate")
BY_KIND["predict"].add(KIND, f"{__package__}.predict")
