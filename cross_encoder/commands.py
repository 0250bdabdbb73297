"""The cross-encoder's commands; importing this module registers them, and is fast."""

from __future__ import annotations

from paddle_ranker.commands.command_registry import COMMANDS, OF_KIND, TRAIN, Command
from paddle_ranker.model.role_names import ENCODER

COMMANDS.add(
    "train-ce",
    Command(
        f"{__package__}.train_ce", "train the cross-encoder on labelled pairs", "TrainCeOptions", TRAIN, (ENCODER,)
    ),
)
OF_KIND.add("evaluate cross_encoder", f"{__package__}.evaluate")
OF_KIND.add("predict cross_encoder", f"{__package__}.predict")
