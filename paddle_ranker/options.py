"""Make a command's parser, help and checks from one frozen dataclass.

    @dataclass(frozen=True)
    class EvaluateOptions(Options):
        test_file: str = option(help="file to evaluate on")
        batch_size: int = option(32, help="pairs a batch", minimum=1)

    def main(argv: Optional[Sequence[str]] = None) -> int:
        return run_command(evaluate, EvaluateOptions, argv, description="Evaluate a ranker.")

An option without a default is required. `Options.__post_init__` checks ranges and choices, so that a caller from
Python meets the same errors as one from the command line.
"""

from __future__ import annotations

import argparse
import dataclasses
import operator
import os
import signal
import stat
import sys
import threading
import traceback
import typing
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Callable, NoReturn, Optional, TypeVar, Union

from paddle_ranker.errors import RankerError, UsageError, did_you_mean, error_on_its_way, is_full, one_line
from paddle_ranker.registry import load_named_plugins

REQUIRED: Any = object()
AUTO_DEVICE = "auto"  # a GPU where there is one, else the CPU: `runtime.find_device`
DEVICE_HELP = "auto: a GPU where there is one, else the CPU; or cpu, gpu, xpu, npu"
# So that NaN holds none of them.
_BOUNDS: dict[str, tuple[Callable[[float, float], bool], str]] = {
    "minimum": (operator.ge, "at least"),
    "maximum": (operator.le, "at most"),
    "above": (operator.gt, "above"),
    "below": (operator.lt, "below"),
}
_TRUE, _FALSE = {"true", "1", "yes", "on"}, {"false", "0", "no", "off"}


def option(
    default: Any = REQUIRED,
    *,
    help: Union[str, Callable[[], str]],
    choices: Collection[Any] = (),
    aliases: Sequence[str] = (),
    positional: bool = False,
    several: bool = False,
    shared: bool = False,
    **bounds: float,
) -> Any:
    """Declare one option of a command; bounds are inclusive (`minimum`, `maximum`) or exclusive (`above`, `below`).

    A `positional` one is given without its name, in the order of the fields: `convert SOURCE TARGET`. With a default it
    may be left out. `choices`, and a `help` that is a function, are read when they are needed: a registry may grow.
    Of `several` values there are one or more, side by side, and the field is a `tuple[str, ...]`: `compare A B C`,
    `--files A B C`. Those `shared` by many commands stand below a command's own in its help.
    """
    unknown = set(bounds) - set(_BOUNDS)
    if unknown:
        raise TypeError(f"option() has no bound {', '.join(sorted(unknown))}: there are {', '.join(_BOUNDS)}")
    return dataclasses.field(
        default=default,
        metadata={
            "help": help,
            "choices": choices,
            "bounds": bounds,
            "aliases": tuple(aliases),
            "positional": positional,
            "several": several,
            "shared": shared,
        },
    )


def redeclare(options_class: type[Options], name: str, default: Any = REQUIRED, **changes: Any) -> Any:
    """Declare an inherited option anew, with another default, `help` or `aliases`; the rest of it stays."""
    (field,) = (field for field in dataclasses.fields(options_class) if field.name == name)
    default = field.default if default is REQUIRED else default
    return dataclasses.field(default=default, metadata={**field.metadata, **changes})


@dataclass(frozen=True)
class Options:
    """What every command accepts."""

    debug: bool = option(False, help="show the traceback of an error")

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is REQUIRED:
                raise UsageError(f"{_shown_name(field)} is required: {_help(field)}")
            _check(field, value)


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


def _shown_name(field: dataclasses.Field[Any]) -> str:
    return field.name.upper() if field.metadata.get("positional") else f"--{field.name}"


def _help(field: dataclasses.Field[Any]) -> str:
    text = field.metadata["help"]
    return str(text() if callable(text) else text)


def _check(field: dataclasses.Field[Any], value: Any) -> None:
    if value is None or "bounds" not in field.metadata:
        return
    choices = field.metadata["choices"]
    if len(choices) and value not in choices:
        hint = did_you_mean(str(value), [str(choice) for choice in choices])
        raise UsageError(f"{_shown_name(field)} {value}: choose from {', '.join(map(str, choices))}{hint}")
    for name, bound in field.metadata["bounds"].items():
        holds, words = _BOUNDS[name]
        if not holds(value, bound):
            raise UsageError(f"{_shown_name(field)} {value}: must be {words} {bound}")


class _Parser(argparse.ArgumentParser):
    """argparse with one-line errors that suggest the nearest option."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


def _parse_bool(text: str) -> bool:
    lowered = text.lower()
    if lowered in _TRUE | _FALSE:
        return lowered in _TRUE
    raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")


def _value_type(annotation: Any) -> Any:
    if typing.get_origin(annotation) is Union:  # Optional[T]
        return next(arg for arg in typing.get_args(annotation) if arg is not type(None))
    return annotation


def build_parser(options_class: type[Options], prog: str, description: str) -> argparse.ArgumentParser:
    """Return the argparse parser of `options_class`: one `--name`, or one argument in order, for each of its fields."""
    parser = _Parser(prog=prog, description=description, allow_abbrev=False)
    annotations = typing.get_type_hints(options_class)
    fields = [field for field in dataclasses.fields(options_class) if "help" in field.metadata]  # others have no option
    for field in sorted(fields, key=lambda f: (f.name == "debug", f.metadata["shared"])):
        kind = _value_type(annotations[field.name])
        text = _help(field).replace("%", "%%")
        required = field.default is REQUIRED
        if field.metadata["positional"]:
            many: dict[str, Any] = {"type": str, "nargs": "+"} if field.metadata["several"] else {"type": kind}
            if not required:
                many.update(nargs="?", default=field.default)
            parser.add_argument(field.name, help=text, metavar=_shown_name(field), **many)
            continue
        if not required and field.default not in (None, ()):
            text += f" (default: {field.default})"
        arguments: dict[str, Any] = {"dest": field.name, "help": text, "default": field.default, "required": required}
        if kind is bool:  # `--flag` alone means true; `--flag false` works too
            arguments.update(type=_parse_bool, nargs="?", const=True, metavar="true|false")
        elif field.metadata["several"]:
            arguments.update(type=str, nargs="+")
        else:
            arguments.update(type=kind, metavar=kind.__name__.upper())
        names = [f"--{field.name}", *field.metadata["aliases"]]
        action = parser.add_argument(*names, **arguments)
        if len(names) > 1:  # two names of one option with different values are an error, not "the last wins"
            action.__class__ = _OneValue
    return parser


class _OneValue(argparse._StoreAction):
    def __call__(self, parser, namespace, values, option_string=None):  # type: ignore[no-untyped-def]
        given = namespace.__dict__.setdefault("_given", {}).setdefault(self.dest, {})
        for other, value in given.items():
            if other != option_string and value != values:
                raise UsageError(f"{other} {value} and {option_string} {values} are one option: give one value")
        given[option_string] = values
        setattr(namespace, self.dest, values)


OptionsT = TypeVar("OptionsT", bound=Options)


def parse_options(
    options_class: type[OptionsT], argv: Optional[Sequence[str]], prog: str, description: str
) -> OptionsT:
    """Parse `argv` (default: the process's own arguments) into `options_class`.

    Raises `UsageError` for anything that is not understood. `--help` prints and exits with 0.
    """
    parser = build_parser(options_class, prog, description)
    # Intermixed: else one that may be left out is, where an option stands between it and the one before.
    namespace, unknown = parser.parse_known_intermixed_args(argv)
    if unknown:
        known = [name for action in parser._actions for name in action.option_strings]
        raise UsageError(
            f"unknown option {unknown[0]}{did_you_mean(unknown[0].split('=')[0], known)}; see {prog} --help"
        )
    values = vars(namespace)
    values.pop("_given", None)
    for name, value in values.items():
        if isinstance(value, list):
            values[name] = tuple(value)
    return options_class(**values)


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
    debug = "--debug" in arguments
    try:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, _raise_interrupt)
        load_named_plugins()
        found = options_class if isinstance(options_class, type) else options_class()
        options: Any = parse_options(found, arguments, prog, description)
        debug = options.debug
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
        if error:
            print(f"{prog}: error: {one_line(error)}", file=sys.stderr)
            return error.exit_status
        print(f"{prog}: interrupted{f' ({interrupt})' if str(interrupt) else ''}", file=sys.stderr)
        return 130
    except Exception as error:
        if isinstance(error, OSError):
            _forget_unwritten_output()
            if is_full(error) and error.filename is None and _output_can_be_full():
                error.filename = "standard output"
        if debug:
            traceback.print_exc()
        print(f"{prog}: error: {one_line(error)}", file=sys.stderr)
        return error.exit_status if isinstance(error, RankerError) else 1


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


def _raise_interrupt(signum: int, frame: Any) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a launcher sends it thrice, and what is being cleaned up would stop
    raise KeyboardInterrupt("SIGTERM")
