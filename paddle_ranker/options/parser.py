"""The parser and the help of a command, made from the dataclass of its options."""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import sys
import textwrap
from collections.abc import Sequence
from typing import Any, NoReturn, Optional, TypeVar

from paddle_ranker.errors import UsageError, did_you_mean
from paddle_ranker.options.declare import (
    REQUIRED,
    Options,
    annotations_of,
    fields_of,
    help_of,
    names_of,
    shown_name,
    value_type,
)

OptionsT = TypeVar("OptionsT", bound=Options)
_TRUE, _FALSE = {"true", "1", "yes", "on"}, {"false", "0", "no", "off"}
_EXAMPLE = re.compile(r"^\s*((?:paddle-ranker|python) .*)$", re.M)
_WIDTH = 100  # of the text above and below the options


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


class _Parser(argparse.ArgumentParser):
    """argparse with one-line errors that suggest the nearest option."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


def _parse_bool(text: str) -> bool:
    lowered = text.lower()
    if lowered in _TRUE | _FALSE:
        return lowered in _TRUE
    raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")


def build_parser(
    options_class: type[Options], prog: str, description: str, *, side_by_side: bool = True
) -> argparse.ArgumentParser:
    """Return the argparse parser of `options_class`: one `--name`, or one argument in order, for each of its fields.

    In the help stand what is required, the command's own options, those shared by many, and at the end the examples:
    the lines of the `description` that are commands. Without `side_by_side` an option takes one file or pattern.
    """
    about = textwrap.fill(" ".join(description.partition("\n\n")[0].split()), _WIDTH)
    examples = "\n".join(f"  {line}" for line in _EXAMPLE.findall(description))
    parser = _Parser(
        prog=prog,
        description=about,
        epilog=f"examples:\n{examples}" if examples else None,
        allow_abbrev=False,
        usage=_usage(options_class, prog).replace("%", "%%"),
        add_help=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    annotations = annotations_of(options_class)
    groups = {title: parser.add_argument_group(title) for title in ("required", "options")}
    for field in _in_order(options_class):
        group = groups["required" if field.default is REQUIRED else "options"]
        _add_argument(group, field, value_type(annotations[field.name]), side_by_side)
    groups["options"].add_argument("-h", "--help", action="help", help="show this help")
    return parser


def set_claimed_apart(options_class: type[Options], arguments: Sequence[str]) -> list[str]:
    """Return the arguments so that an option's files end before what an argument without a name claims.

    `compare A --test dev.tsv B` has always compared A with B; `compare A B --test dev.tsv more.tsv` has two test files.
    """
    claims = next((field.metadata["claims"] for field in fields_of(options_class) if field.metadata["claims"]), None)
    of_files = {name for field in fields_of(options_class) if field.metadata["files"] for name in names_of(field)}
    made: list[str] = []
    rest = list(arguments)
    while rest:
        made.append(rest.pop(0))
        if claims is None or made[-1] not in of_files:
            continue
        count = next((place for place, text in enumerate(rest) if _is_option(text)), len(rest))
        kept = next((place for place in range(1, count) if claims(rest[place])), count)
        if kept < count:
            made[-1] += "=" + os.pathsep.join(rest[:kept])
            del rest[:kept]
    return made


def takes_side_by_side(options_class: type[Options], arguments: Sequence[str]) -> bool:
    """Return whether an option takes all the files that follow it: `--test a.tsv b.tsv`.

    Not where arguments without a name must follow: `blend --train a.tsv RANKER DEV_FILE TARGET`.
    """
    needed = sum(field.metadata["positional"] and field.default is REQUIRED for field in fields_of(options_class))
    leading = next((place for place, text in enumerate(arguments) if _is_option(text)), len(arguments))
    return leading >= needed


def _is_option(text: str) -> bool:
    return text.startswith("-") and text != "-"


def _in_order(options_class: type[Options]) -> list[dataclasses.Field[Any]]:
    """Return the fields as the help shows them: what is required, the command's own, what many share, `--debug`."""
    return sorted(
        fields_of(options_class),
        key=lambda field: (field.default is not REQUIRED, field.name == "debug", field.metadata["shared"]),
    )


def _usage(options_class: type[Options], prog: str) -> str:
    """Return the line that shows what a command needs, without its many options."""
    parts = []
    for field in _in_order(options_class):
        required, many = field.default is REQUIRED, field.metadata["several"] or field.metadata["files"]
        if field.metadata["positional"]:
            shown = shown_name(field) + (" ..." if many else "")
            parts.append(shown if required else f"[{shown}]")
        elif required:
            parts.append(f"{shown_name(field)} {'FILE' if field.metadata['files'] else shown_name(field)[2:].upper()}")
    return " ".join([prog, *parts, "[options]"])


def _add_argument(group: argparse._ArgumentGroup, field: dataclasses.Field[Any], kind: Any, side_by_side: bool) -> None:
    """Add the argument of one field."""
    required, of_files = field.default is REQUIRED, field.metadata["files"]
    text = help_of(field).replace("%", "%%") + (" (one or more; patterns)" if of_files else "")
    choices = list(map(str, field.metadata["choices"]))
    if field.metadata["positional"]:
        many: dict[str, Any] = {"type": str, "nargs": "+"} if field.metadata["several"] or of_files else {"type": kind}
        if not required:
            many.update(nargs="*" if of_files else "?", default=field.default)
        group.add_argument(field.name, help=text, metavar=shown_name(field), **many)
        return
    if not required and field.default not in (None, ()):
        text += f" (default: {str(field.default).replace('%', '%%')})"
    arguments: dict[str, Any] = {"dest": field.name, "help": text, "default": field.default, "required": required}
    if kind is bool:  # `--flag` alone means true; `--flag false` works too
        arguments.update(type=_parse_bool, nargs="?", const=True, metavar="true|false")
    elif of_files:
        arguments.update(type=str, nargs="+" if side_by_side else None, metavar="FILE")
    elif field.metadata["several"]:
        arguments.update(type=str, nargs="+")
    else:
        arguments.update(type=kind, metavar=kind.__name__.upper())
    if choices:
        arguments["metavar"] = "{" + ",".join(choices) + "}"
    names = names_of(field)
    action = group.add_argument(*names, **arguments)
    if len(names) > 1:  # two names of one option with different values are an error, not "the last wins"
        action.__class__ = _OneValue


class _OneValue(argparse._StoreAction):
    def __call__(self, parser, namespace, values, option_string=None):  # type: ignore[no-untyped-def]
        given = namespace.__dict__.setdefault("_given", {}).setdefault(self.dest, {})
        for other, value in given.items():
            if other != option_string and value != values:
                first, second = (" ".join(one) if isinstance(one, list) else one for one in (value, values))
                raise UsageError(f"{other} {first} and {option_string} {second} are one option: give one value")
        given[option_string] = values
        setattr(namespace, self.dest, values)
