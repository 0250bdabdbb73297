"""The commands for pairs of posts; importing this module registers them, and is fast."""

from __future__ import annotations

from paddle_ranker.commands.command_registry import COMMANDS, DATA, ENCODERS, OF_KIND, TRAIN, Command
from paddle_ranker.model.role_names import ENCODER

COMMANDS.add(
    "train-entailment",
    Command(
        f"{__package__}.train",
        "train a model that compares posts with images",
        "TrainEntailmentOptions",
        TRAIN,
        (ENCODER,),
    ),
)
COMMANDS.add(
    "make-demo-posts",
    Command(f"{__package__}.make_demo_posts", "make demo posts, texts with pictures", group=DATA),
)
COMMANDS.add(
    "convert-image-weights",
    Command(f"{__package__}.convert_image_weights", "bring an image network's parameters from PyTorch", group=ENCODERS),
)
OF_KIND.add("evaluate entailment", f"{__package__}.evaluate")
OF_KIND.add("predict entailment", f"{__package__}.predict")
OF_KIND.add("export entailment", f"{__package__}.export_model")
