"""The command `store`; importing this module registers it, and is fast."""

from __future__ import annotations

from paddle_ranker.commands.command_registry import COMMANDS, SCORE, Command

COMMANDS.add(
    "store",
    Command(
        f"{__package__}.store", "compute titles once, for a ranker that was trained with --stored_titles", group=SCORE
    ),
)
