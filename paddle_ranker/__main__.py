"""Run a command of the toolkit: `python -m paddle_ranker doctor`, or `paddle-ranker doctor` where it is installed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Optional

from paddle_ranker.commands.registry import COMMANDS, OTHER_NAMES
from paddle_ranker.errors import DependencyError, did_you_mean


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command that `argv` (default: the process's own arguments) names; return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        name = sys.argv[0] if sys.argv[0].startswith("paddle-ranker ") else "paddle-ranker"
        print(f"{name}: interrupted", file=sys.stderr)
        return 130


def _run(arguments: list[str]) -> int:
    try:
        if not arguments or arguments[0] in ("-h", "--help"):
            COMMANDS.load_plugins()  # those of recipes and of other packages
            print(_help())
            return 0
        name = OTHER_NAMES.get(arguments[0], arguments[0])
        is_known = name in COMMANDS
    except DependencyError as error:
        print(f"paddle-ranker: error: {error}", file=sys.stderr)
        return error.exit_status
    if not is_known:
        hint = did_you_mean(name, list(COMMANDS)) or f" (choose from {', '.join(COMMANDS)})"
        print(f"paddle-ranker: error: unknown command {name!r}{hint}; see paddle-ranker --help", file=sys.stderr)
        return 2
    sys.argv[0] = f"paddle-ranker {arguments[0]}"  # the name that the command's own help and errors show
    status: int = COMMANDS[name].load().main(arguments[1:])
    return status


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}} {command.help}" for name, command in COMMANDS.items()]
    return "\n".join(["usage: paddle-ranker COMMAND [options]   (COMMAND --help shows its options)", "", *lines])


if __name__ == "__main__":
    sys.exit(main())
