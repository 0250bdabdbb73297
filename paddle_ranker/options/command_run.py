"""Run a command, from its arguments to an exit status."""

from __future__ import annotations

import codecs
import io
import os
import re
import stat
import sys
import traceback
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any, Callable, Optional, Union

from paddle_ranker.addresses import with_addresses
from paddle_ranker.errors import (
    PADDLE_IS_MISSING,
    DependencyError,
    RankerError,
    error_on_its_way,
    is_full,
    one_line,
)
from paddle_ranker.interrupts import STATUS, Interrupted, Interrupts, interrupt_line, is_first_process, resume_line
from paddle_ranker.libraries import ensure_home, switch_off_telemetry
from paddle_ranker.notes import counting, forget_unwritten, note, note_counts, reader_may_leave
from paddle_ranker.options.declare import Options, given_of, require_inputs, shown_name
from paddle_ranker.options.input_files import reread_pipes
from paddle_ranker.options.parser import OptionsT, parse_options
from paddle_ranker.registry import load_named_plugins

_BYTES = "bytes_of_names"  # how standard error shows what its encoding lacks: `_escaped`


def run_command(
    run: Callable[[OptionsT], object],
    options_class: Union[type[OptionsT], Callable[[], type[OptionsT]]],
    argv: Optional[Sequence[str]],
    description: str,
    prog: Optional[str] = None,
    *,
    ends_with_reader: bool = False,
) -> int:
    """Parse the options, call `run` with them, and turn every error into one line and an exit status.

    The exit status is 0 for success, 1 for failure, 2 for wrong usage and 130 for an interruption. `--debug` also shows
    the traceback.

    run: runs the command; if it returns a whole number, this is the exit status
    options_class: the options class; if plugins add options, a function that returns the class
    ends_with_reader: whether the command ends, with status 0, if the reader of its output leaves (`| head`). This suits
        commands that print a line per row. Other commands finish their work, but their later output is lost
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    _escape_unprintable()
    prog = prog or os.path.basename(sys.argv[0])
    switch_off_telemetry()
    ensure_home()
    with Interrupts(prog).taken() as interrupts, reader_may_leave(out=not ends_with_reader), ExitStack() as stack:
        debug = "--debug" in arguments
        try:
            load_named_plugins()
            options_type = options_class if isinstance(options_class, type) else options_class()
            stack.enter_context(reread_pipes(arguments))
            options: Any = parse_options(options_type, arguments, prog, description)
            debug = options.debug
            require_inputs(options, stack)
            options.look_up()
            with counting() as counted:
                result = run(options)
            note_counts(sum((Counter(source.counts()) for source in counted), Counter()))
            sys.stdout.flush()  # an error in writing the last of the output is an error like any other
            return result if isinstance(result, int) else 0
        except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
            forget_unwritten(sys.stdout)
            return 0
        except SystemExit:  # raised by --help
            forget_unwritten(sys.stdout)
            raise
        except KeyboardInterrupt as interrupt:
            if debug:
                traceback.print_exc()
            error = error_on_its_way(interrupt)
            return _report(prog, error) if error else _report_interrupt(prog, arguments, interrupt)
        except Exception as error:
            if isinstance(error, OSError):
                forget_unwritten(sys.stdout)
                if is_full(error) and error.filename is None and _output_can_be_full():
                    error.filename = "standard output"
            if debug:
                traceback.print_exc()
            # After an interruption, an exception that it caused in other code is not an error.
            if interrupts.received:
                return _report_interrupt(prog, arguments, error)
            return _report(prog, error)


def main_of(
    run: Callable[[OptionsT], object],
    options_class: Union[type[OptionsT], Callable[[], type[OptionsT]]],
    description: Optional[str],
    *,
    prog: Optional[str] = None,
    ends_with_reader: bool = False,
) -> Callable[..., int]:
    """Return a command's `main(argv=None)`, which passes `argv` and the arguments of this function to `run_command`."""

    def main(argv: Optional[Sequence[str]] = None) -> int:
        return run_command(run, options_class, argv, description or "", prog=prog, ends_with_reader=ends_with_reader)

    return main


def _report(prog: str, error: Exception) -> int:
    if isinstance(error, ModuleNotFoundError) and str(error.name).partition(".")[0] == "paddle":
        error = DependencyError(PADDLE_IS_MISSING)
    print(f"{prog}: error: {with_addresses(one_line(error))}", file=sys.stderr)
    return error.exit_status if isinstance(error, RankerError) else 1


def _report_interrupt(prog: str, arguments: Sequence[str], interrupt: BaseException) -> int:
    where = str(interrupt) if isinstance(interrupt, KeyboardInterrupt) else ""
    print(interrupt_line(prog, where), file=sys.stderr)
    if isinstance(interrupt, Interrupted) and is_first_process():
        print(f"to go on: {resume_line(prog, arguments)}", file=sys.stderr)
    return STATUS


def _output_can_be_full() -> bool:
    """Return whether writing to standard output can fail because a disk is full: it is a file, or a device file.

    Terminals and pipes are never full.
    """
    try:
        mode = os.fstat(sys.stdout.fileno()).st_mode
        return stat.S_ISREG(mode) or (stat.S_ISCHR(mode) and not sys.stdout.isatty())
    except (OSError, ValueError):
        return False


def _escape_unprintable() -> None:
    """Make `print` escape characters that the encoding of standard output lacks, as Python does on standard error.

    Otherwise a command would end at the first Chinese title if a terminal or PYTHONIOENCODING is limited to ASCII.
    Standard error shows the bytes of a file's name that is not UTF-8.
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")
    codecs.register_error(_BYTES, _escaped)
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors=_BYTES)


def _escaped(error: UnicodeError) -> tuple[Union[str, bytes], int]:
    r"""Escape what an encoding lacks; a byte of a file's name that is not UTF-8 becomes `\xe9`, as in shells' `$''`."""
    text, end = codecs.backslashreplace_errors(error)
    return re.sub(r"\\udc([89a-f][0-9a-f])", r"\\x\1", str(text)), end


def note_without_effect(options: Options, names: Iterable[str], why: str) -> None:
    """Print a note that names the given options among `names`, which have no effect, and says why."""
    given = given_of(options, names)
    if given:
        note(f"note: {', '.join(map(shown_name, given))}: without effect here; {why}")
