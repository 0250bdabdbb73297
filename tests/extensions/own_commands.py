"""A command of a plugin, `train-vectors`, and `evaluate` for models of vectors."""

from __future__ import annotations

from paddle_ranker.commands.command_registry import COMMANDS, OF_KIND, Command

COMMANDS.add(
    "train-vectors",
    Command("tests.extensions.own_training", "train vectors on texts that mean the same", group="vectors"),
)
OF_KIND.add("evaluate vectors", "tests.extensions.own_evaluation")
