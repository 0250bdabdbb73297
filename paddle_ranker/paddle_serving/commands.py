"""The command for Paddle Serving's folders; importing this module registers it, and is fast."""

from __future__ import annotations

from paddle_ranker.commands.command_registry import COMMANDS, SERVE, Command
from paddle_ranker.model.role_names import EXPORTED

COMMANDS.add(
    "export-serving",
    Command(
        f"{__package__}.export_serving",
        "write an exported ranker as the two folders of Paddle Serving",
        group=SERVE,
        takes=(EXPORTED,),
    ),
)
