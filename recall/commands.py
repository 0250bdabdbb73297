"""The recall stage's commands; importing this module registers them, and is fast."""

from __future__ import annotations

from paddle_ranker.commands.command_registry import COMMANDS, OF_KIND, SCORE, TRAIN, Command
from paddle_ranker.model.role_names import ENCODER, TOWER, TRAINED_TOWER

COMMANDS.add(
    "train-batch-neg",
    Command(
        f"{__package__}.train_batch_neg",
        "train a tower on pairs, with in-batch negatives",
        "TrainBatchNegOptions",
        TRAIN,
        (ENCODER, TRAINED_TOWER),
    ),
)
COMMANDS.add(
    "train-simcse",
    Command(
        f"{__package__}.train_simcse", "train a tower on texts alone (SimCSE)", "TrainSimcseOptions", TRAIN, (ENCODER,)
    ),
)
COMMANDS.add(
    "encode",
    Command(
        f"{__package__}.inference", "encode the texts of a file of any size as vectors", group=SCORE, takes=(TOWER,)
    ),
)
OF_KIND.add("predict tower", f"{__package__}.predict")
OF_KIND.add("export tower", f"{__package__}.export_model")
