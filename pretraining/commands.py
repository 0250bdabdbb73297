"""The commands of pretraining; importing this module registers them, and is fast."""

from __future__ import annotations

from paddle_ranker.commands.command_registry import COMMANDS, ENCODERS, Command
from paddle_ranker.model.role_names import MASKED_LM, WORD_PIECE_ENCODER

COMMANDS.add(
    "pretrain",
    Command(
        f"{__package__}.train_mlm",
        "train an encoder on raw text, as a masked language model",
        "TrainMlmOptions",
        ENCODERS,
        (WORD_PIECE_ENCODER,),
    ),
)
for _name, _help in {
    "train-tokenizer": "train a WordPiece vocabulary on text files",
    "fill-mask": "fill the masks of sentences with a pretrained encoder",
    "scaling-law": "fit power laws to a ladder of encoders, within a budget",
}.items():
    COMMANDS.add(
        _name,
        Command(
            f"{__package__}.{_name.replace('-', '_')}",
            _help,
            group=ENCODERS,
            takes=(MASKED_LM,) * (_name == "fill-mask"),
        ),
    )
