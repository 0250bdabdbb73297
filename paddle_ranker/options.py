"""Make a command's parser, help and checks from one frozen dataclass.

    @dataclass(frozen=True)
    class EvaluateOptions(Options):
        test_file: str = option(help="file to evaluate on")
        batch_size: int = option(32, help="pairs a batch", minimum=1)

    def main(argv: Optional[Sequence[str]] = None) -> int:
        return run_command(evaluate, EvaluateOptions, argv, description="Evaluate a ranker.")

An option without a default is required. `Options.__post_init__` checks types, ranges and choices and finds the files
that patterns stand for, so that a caller from Python meets the same errors as one from the command line.

One idea has one name in all commands: `--train`, `--test`, `--input`, `--model`, `--output`. A field that is called
otherwise, as the published tutorial calls it, declares that as its `name`; its own stays as an alias.
"""

from __future__ import annotations

import os
import stat
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable, Optional, TypeVar, Union

from paddle_ranker.errors import RankerError, UsageError, did_you_mean, error_on_its_way, is_full, one_line
from paddle_ranker.interrupts import Interrupted, Interrupts, is_first_process, resume_line
from paddle_ranker.option_fields import Options, fields_of, names_of, require_inputs
from paddle_ranker.option_fields import option as option
from paddle_ranker.option_fields import redeclare as redeclare
from paddle_ranker.option_parser import build_parser, set_claimed_apart, takes_side_by_side
from paddle_ranker.registry import load_named_plugins

TAB = "tab"  # what stands between the columns of a text file where nothing else is said
AUTO_DEVICE = "auto"  # a GPU where there is one, else the CPU: `runtime.find_device`
DEVICE_HELP = "auto: a GPU where there is one, else the CPU; or cpu, gpu, xpu, npu"


@dataclass(frozen=True)
class ThreadOptions(Options):
    """What every command accepts that computes on a CPU."""

    cpu_threads: int = option(0, help="threads of a matrix product on a CPU; 0: one a core", minimum=0, shared=True)


@dataclass(frozen=True)
class DeviceOptions(ThreadOptions):
    """What every command accepts that computes on a device of the user's choice."""

    device: str = option(AUTO_DEVICE, help=DEVICE_HELP, shared=True)


@dataclass(frozen=True)
class RowOptions(Options):
    """What every command accepts that reads rows."""

    skip_bad_rows: bool = option(
        False, help="leave out malformed rows and count them, instead of stopping", shared=True
    )
    separator: str = option(
        TAB,
        help="between the columns of text files: tab, or one character, such as a comma, which turns quoting on",
        shared=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.separator != TAB and (len(self.separator) != 1 or self.separator in '"\r\n\0'):
            raise UsageError(f"--separator {self.separator!r}: give tab, or one character, as in --separator ,")


@dataclass(frozen=True)
class LabelOptions(RowOptions):
    """What every command accepts that reads labels."""

    fractional_labels: bool = option(
        False, help="take fractions for graded labels; they are refused otherwise: scores are no labels", shared=True
    )


OptionsT = TypeVar("OptionsT", bound=Options)


def parse_options(
    options_class: type[OptionsT], argv: Optional[Sequence[str]], prog: str, description: str
) -> OptionsT:
    """Parse `argv` (default: the process's own arguments) into `options_class`.

    Raises `UsageError` for anything that is not understood. `--help` prints and exits with 0.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    side_by_side = takes_side_by_side(options_class, arguments)
    parser = build_parser(options_class, prog, description, side_by_side=side_by_side)
    if side_by_side:
        arguments = set_claimed_apart(options_class, arguments)
    # Intermixed: else one that may be left out is, where an option stands between it and the one before.
    namespace, unknown = parser.parse_known_intermixed_args(arguments)
    if unknown:
        known = [name for action in parser._actions for name in action.option_strings]
        raise UsageError(
            f"unknown option {unknown[0]}{did_you_mean(unknown[0].split('=')[0], known)}; see {prog} --help"
        )
    values = vars(namespace)
    values.pop("_given", None)
    for name, value in values.items():
        if isinstance(value, list):
            values[name] = tuple(value) or None
    return options_class(**values)


def options_from(options_class: type[OptionsT], **values: Any) -> OptionsT:
    """Return the options of a call from Python, by any of the names that the command line has for each.

    Raises `UsageError` as the command does: for an unknown name, one option under two names, a wrong value.
    """
    fields = {name[2:]: field for field in fields_of(options_class) for name in names_of(field)}
    given: dict[str, Any] = {}
    named: dict[str, str] = {}
    for name, value in values.items():
        if name not in fields:
            raise UsageError(f"unknown option {name}{did_you_mean(name, list(fields))}")
        field = fields[name].name
        if field in given and given[field] != value:
            raise UsageError(f"{named[field]} {given[field]} and {name} {value} are one option: give one value")
        given[field], named[field] = value, name
    return options_class(**given)


def run_command(
    run: Callable[[OptionsT], Optional[int]],
    options_class: Union[type[OptionsT], Callable[[], type[OptionsT]]],
    argv: Optional[Sequence[str]],
    description: str,
    prog: Optional[str] = None,
) -> int:
    """Parse the options, call `run` with them, and turn every error into one line and an exit status.

    0: done; 1: failed; 2: wrong usage; 130: interrupted. `--debug` shows the traceback as well. `options_class` may be
    a function that returns the class, where plugins add options.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    prog = prog or os.path.basename(sys.argv[0])
    with Interrupts().taken() as interrupts:
        debug = "--debug" in arguments
        try:
            load_named_plugins()
            found = options_class if isinstance(options_class, type) else options_class()
            options: Any = parse_options(found, arguments, prog, description)
            debug = options.debug
            require_inputs(options)
            status = run(options) or 0
            sys.stdout.flush()  # what goes wrong with the last of the output is an error like any other
            return status
        except BrokenPipeError:  # the reader (`head`) has enough
            _forget_unwritten_output()
            return 0
        except KeyboardInterrupt as interrupt:
            if debug:
                traceback.print_exc()
            error = error_on_its_way(interrupt)
            return _report(prog, error) if error else _report_interrupt(prog, arguments, interrupt)
        except Exception as error:
            if isinstance(error, OSError):
                _forget_unwritten_output()
                if is_full(error) and error.filename is None and _output_can_be_full():
                    error.filename = "standard output"
            if debug:
                traceback.print_exc()
            # What an interruption broke, or what library code made of it, is no error.
            return _report_interrupt(prog, arguments, error) if interrupts.received else _report(prog, error)


def _report(prog: str, error: Exception) -> int:
    print(f"{prog}: error: {one_line(error)}", file=sys.stderr)
    return error.exit_status if isinstance(error, RankerError) else 1


def _report_interrupt(prog: str, arguments: Sequence[str], interrupt: BaseException) -> int:
    where = str(interrupt) if isinstance(interrupt, KeyboardInterrupt) else ""
    print(f"{prog}: interrupted{f' ({where})' if where else ''}", file=sys.stderr)
    if isinstance(interrupt, Interrupted) and is_first_process():
        print(f"to go on: {resume_line(prog, arguments)}", file=sys.stderr)
    return 130


def _forget_unwritten_output() -> None:
    """Keep Python from trying once more, at its exit, to write what could not be written."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _output_can_be_full() -> bool:
    """Return whether standard output is a file or a device: all else that is written names its file in an error."""
    try:
        mode = os.fstat(sys.stdout.fileno()).st_mode
        return stat.S_ISREG(mode) or (stat.S_ISCHR(mode) and not sys.stdout.isatty())
    except (OSError, ValueError):
        return False
