"""The commands of pretraining: importing the module registers them, and imports nothing large."""

from __future__ import annotations

from paddle_ranker.commands.registry import COMMANDS, Command

COMMANDS.add(
    "pretrain",
    Command(f"{__package__}.train_mlm", "train an encoder on raw text, as a masked language model", "TrainMlmOptions"),
)
COMMANDS.add("train-tokenizer", Command(f"{__package__}.train_tokenizer", "train a WordPiece vocabulary on text files"))
COMMANDS.add("fill-mask", Command(f"{__package__}.fill_mask", "fill the masks of sentences with a pretrained encoder"))
COMMANDS.add(
    "scaling-law", Command(f"{__package__}.scaling_law", "fit power laws to a ladder of encoders, within a budget")
)
