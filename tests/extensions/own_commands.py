"""A command of one's own, `train-vectors`, and what `evaluate` does with models of vectors."""

from __future__ import annotations

from paddle_ranker.commands.registry import COMMANDS, OF_KIND, Command

COMMANDS.add(
    "train-vectors",
    Command("tests.extensions.own_training", "train vectors on texts that mean the same", group="vectors"),
)
OF_KIND.add("evaluate vectors", "tests.extensions.own_evaluation")
