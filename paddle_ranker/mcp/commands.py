"""The command for assistants; importing this module registers it, and is fast."""

from __future__ import annotations

from paddle_ranker.commands.command_registry import COMMANDS, SERVE, Command
from paddle_ranker.model.role_names import RANKER

COMMANDS.add(
    "mcp",
    Command(
        f"{__package__}.stdio",
        "let an assistant on this machine search an index (Model Context Protocol)",
        group=SERVE,
        takes=(RANKER,),
    ),
)
