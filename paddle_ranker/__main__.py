"""Run a command of the toolkit: `paddle-ranker doctor`, or `python -m paddle_ranker doctor`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Optional

from paddle_ranker.interrupts import SCRIPT, Interrupts, interrupt_line, is_server, take_signals_of_server
from paddle_ranker.version import __version__

USAGE = """\
usage: paddle-ranker COMMAND [options]
       paddle-ranker help COMMAND   show the options of a command, as COMMAND --help does
       paddle-ranker --version"""
VERSION = f"paddle-ranker {__version__}"


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command that `argv` (default: the process's own arguments) names; return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    of_server = is_server(arguments)
    with Interrupts(of_server=of_server).taken() as interrupts:
        try:
            if of_server:
                take_signals_of_server()
            return _run(arguments)
        except KeyboardInterrupt as interrupt:
            name = sys.argv[0] if sys.argv[0].startswith(f"{SCRIPT} ") else SCRIPT
            print(interrupt_line(name, str(interrupt)), file=sys.stderr)
            return interrupts.status


def _run(arguments: list[str]) -> int:
    """Run the command that the first argument names; without arguments, or for `--help`, print the list of commands."""
    # Imported here, so that Ctrl-C during these imports is reported in a line.
    from paddle_ranker.commands.command_registry import COMMANDS, list_commands
    from paddle_ranker.errors import DependencyError, quoted, spelling_hint
    from paddle_ranker.notes import reader_may_leave

    try:
        if arguments[:1] == ["help"]:
            arguments = [*arguments[1:2], "--help"]
        if not arguments or arguments[0] in ("-h", "--help", "help", "--version"):
            with reader_may_leave():
                print(VERSION if arguments[:1] == ["--version"] else f"{USAGE}\n\n{list_commands()}", flush=True)
            return 0
        name = arguments[0]
        is_known = name in COMMANDS
    except DependencyError as error:
        print(f"paddle-ranker: error: {error}", file=sys.stderr)
        return error.exit_status
    if not is_known:
        hint = spelling_hint(name, list(COMMANDS)) or f" (choose from {', '.join(COMMANDS)})"
        print(f"paddle-ranker: error: unknown command {quoted(name)}{hint}; see paddle-ranker --help", file=sys.stderr)
        return 2
    sys.argv[0] = f"paddle-ranker {arguments[0]}"  # the name that the command's own help and errors show
    status: int = COMMANDS[name].load().main(arguments[1:])
    return status


if __name__ == "__main__":
    sys.exit(main())
