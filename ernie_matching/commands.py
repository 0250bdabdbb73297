"""The pairwise ranker's commands; importing this module registers them, and is fast."""

from __future__ import annotations

from paddle_ranker.commands.command_registry import COMMANDS, OF_KIND, SCORE, TRAIN, Command
from paddle_ranker.model.role_names import ENCODER, RANKER

COMMANDS.add(
    "train-pairwise",
    Command(
        f"{__package__}.train_pairwise",
        "train the pairwise ranker on triples",
        "TrainPairwiseOptions",
        TRAIN,
        (ENCODER,),
    ),
)
COMMANDS.add(
    "predict-fast",
    Command(
        f"{__package__}.predict_pairwise_fast",
        "predict with the fast tokenizer, which every command uses",
        group=SCORE,
        takes=(RANKER,),
    ),
)
OF_KIND.add("evaluate pairwise", f"{__package__}.evaluate")
OF_KIND.add("predict pairwise", f"{__package__}.predict_pairwise")
