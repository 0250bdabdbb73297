"""The parser and the help of a command, made from the dataclass of its options."""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import sys
import textwrap
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, NoReturn, Optional, TypeVar

from paddle_ranker.errors import UsageError, brief, listed, quoted, spelling_hint
from paddle_ranker.options.declare import (
    REQUIRED,
    Options,
    annotations_of,
    fields_of,
    help_of,
    is_asked_for,
    names_of,
    shown_name,
    value_type,
)

OptionsT = TypeVar("OptionsT", bound=Options)
_TRUE, _FALSE = {"true", "1", "yes", "on"}, {"false", "0", "no", "off"}
_EXAMPLE = re.compile(r"^\s*((?:paddle-ranker|python) .*)$", re.M)
_WIDTH = 100  # characters of a line of the description
_BEHIND = "\0"  # before a value that stands behind -- and begins with a minus sign, which argparse takes for an option


def parse_options(
    options_class: type[OptionsT], argv: Optional[Sequence[str]], prog: str, description: str
) -> OptionsT:
    """Parse `argv` (default: the process's own arguments) into `options_class`.

    Raises `UsageError` if the arguments are not valid. `--help` prints the help and exits with status 0.
    """
    parser = build_parser(options_class, prog, description)
    given = _join_minus(options_class, sys.argv[1:] if argv is None else argv)
    arguments = _end_files(options_class, _name_first(options_class, given))
    options = [field for field in fields_of(options_class) if not field.metadata["positional"]]
    names = ["--help", "-h", *(name for field in options for name in names_of(field))]
    # Otherwise the parser would only report the required option that the misspelled one left missing.
    if not {"--help", "-h"} & set(arguments):
        named = [text for text in takewhile(lambda text: text != "--", arguments) if text.startswith("--")]
        _refuse_unknown([text for text in named if text.partition("=")[0] not in names], names, prog)
    # Plain parsing would take an optional positional argument after an option for absent, so parse intermixed.
    namespace, unknown = parser.parse_known_intermixed_args(_without_end(arguments))
    _refuse_more(options_class, [text for text in unknown if _is_value(text)], prog)
    _refuse_unknown(unknown, names, prog, len(options) < len(fields_of(options_class)))
    values = vars(namespace)
    for name, value in values.items():
        if isinstance(value, list):
            values[name] = tuple(map(_unmarked, value)) or None
        else:
            values[name] = _unmarked(value)
    return options_class(**values)


def _join_minus(options_class: type[Options], arguments: Sequence[str]) -> list[str]:
    """Join options with values that begin with a minus sign, which argparse takes for options: `--sort=-year`."""
    annotations = annotations_of(options_class)
    with_value = (field for field in fields_of(options_class) if value_type(annotations[field.name]) is not bool)
    names = {name for field in with_value for name in names_of(field)}
    made: list[str] = []
    for text in arguments:
        is_value = text.startswith("-") and not text.startswith("--") and text not in ("-", "-h")
        if is_value and made and made[-1] in names and "--" not in made:
            made[-1] += f"={text}"
        else:
            made.append(text)
    return made


def _without_end(arguments: Sequence[str]) -> list[str]:
    """Return arguments without `--`, and with the values behind it marked that begin with a minus sign."""
    made = list(arguments)
    if "--" in made:
        end = made.index("--")
        made[end:] = [_BEHIND + text if text.startswith("-") else text for text in made[end + 1 :]]
    return made


def _unmarked(value: Any) -> Any:
    return value.removeprefix(_BEHIND) if isinstance(value, str) else value


def _refuse_unknown(unknown: Sequence[str], names: Sequence[str], prog: str, has_values: bool = False) -> None:
    for text in unknown[:1]:
        hint = spelling_hint(text.split("=")[0], names)
        if has_values and not hint and not text.startswith("--"):
            hint = "; a value that begins with a minus sign stands at the end, behind --"
        raise UsageError(f"unknown option {brief(text)}{hint}; see {prog} --help")


def _refuse_more(options_class: type[Options], more: Sequence[str], prog: str) -> None:
    """Raise `UsageError` for values that no option takes, such as the words of a query without quotes."""
    placed = [field for field in fields_of(options_class) if field.metadata["positional"] or field.metadata["leads"]]
    if len(placed) == 1:
        advice = f"{shown_name(placed[0])} is one value, so put quotes around all of its words"
    else:
        advice = "give the option to which it belongs, or leave it out"
    if more:
        raise UsageError(f"{listed(map(quoted, more))}: more values than are expected; {advice}; see {prog} --help")


def options_from(options_class: type[OptionsT], **values: Any) -> OptionsT:
    """Return the options for a call from Python; a key is any name of an option on the command line, without `--`.

    Raises `UsageError` as the command does: for an unknown name, a wrong value, or two different values of one option.
    """
    fields = {name[2:]: field for field in fields_of(options_class) for name in names_of(field)}
    chosen: dict[str, Any] = {}
    named: dict[str, str] = {}
    for name, value in values.items():
        if name not in fields:
            raise UsageError(f"unknown option {brief(name)}{spelling_hint(name, list(fields))}")
        field = fields[name].name
        if field in chosen and chosen[field] != value:
            raise UsageError(f"{named[field]} {chosen[field]} and {name} {value} are one option: give one value")
        chosen[field], named[field] = value, name
    return options_class(**chosen)


class _Parser(argparse.ArgumentParser):
    """argparse with one-line errors that suggest the nearest option."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


def _parse_bool(text: str) -> bool:
    lowered = text.lower()
    if lowered in _TRUE | _FALSE:
        return lowered in _TRUE
    raise argparse.ArgumentTypeError(f"{quoted(text)} is neither true nor false")


class _OneValue(argparse.Action):
    """Action of argparse that stores an option's value.

    joins: text that joins the values of a repeated option; None: the last value counts, unless the option has several
        values or was given under another name with another value
    """

    def __init__(self, option_strings: Sequence[str], dest: str, joins: Optional[str] = None, **declared: Any) -> None:
        super().__init__(option_strings, dest, **declared)
        self._joins = joins
        self._values: dict[Optional[str], Any] = {}

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: Optional[str] = None,
    ) -> None:
        """Store an option's value.

        Raises `UsageError` if `joins` is None and a repeated option with other values has several values, or was first
        given under another name.
        """
        for other, value in self._values.items():
            first, second = (" ".join(text) if isinstance(text, list) else text for text in (value, values))
            if self._joins is not None:
                values, self._values = f"{first}{self._joins}{second}", {}
            elif value == values:
                continue
            elif other != option_string:
                raise UsageError(f"{other} {first} and {option_string} {second} are one option: give one value")
            elif self.nargs == "+":
                raise UsageError(
                    f"{option_string} {first} and {option_string} {second}: give the option once, with all its values"
                )
        self._values[option_string] = values
        setattr(namespace, self.dest, values)


def build_parser(options_class: type[Options], prog: str, description: str) -> argparse.ArgumentParser:
    """Return the argparse parser of `options_class`, with an option or a positional argument for each field.

    The help shows required options, the command's own options, options shared by many commands, and at the end the
    examples: the lines of the `description` that are commands.
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
        names, declared = _argument_of(field, value_type(annotations[field.name]))
        groups["required" if is_asked_for(field) else "options"].add_argument(*names, **declared)
    groups["options"].add_argument("-h", "--help", action="help", help="show this help")
    return parser


def _name_first(options_class: type[Options], arguments: Sequence[str]) -> list[str]:
    """If the first argument is a value, insert before it the name of the option that is declared with `leads`."""
    leads = next((field for field in fields_of(options_class) if field.metadata["leads"]), None)
    if leads is None or not arguments or not _is_value(arguments[0]):
        return list(arguments)
    return [shown_name(leads), *arguments]


def _end_files(options_class: type[Options], arguments: Sequence[str]) -> list[str]:
    """Separate an option's files from positional arguments: `--test a.tsv b.tsv B` becomes `--test=a.tsv:b.tsv B`.

    argparse gives an option all values up to the next option, and has no way to limit them. Here the files of an option
    end at the first value that a positional argument claims: `compare A --test dev.tsv B` compares A with B. If
    required positional arguments follow, an option has only one file: `blend --train a.tsv RANKER DEV_FILE TARGET`.
    """
    fields, made = fields_of(options_class), list(arguments)
    of_files = {name for field in fields if field.metadata["files"] for name in names_of(field)}
    needed = sum(field.metadata["positional"] and field.default is REQUIRED for field in fields)
    claims = next((field.metadata["claims"] for field in fields if field.metadata["claims"]), lambda text: False)
    one_file = len(list(takewhile(_is_value, made))) < needed
    for place in reversed([place for place, text in enumerate(made) if text in of_files]):
        files = list(takewhile(_is_value, made[place + 1 :]))
        kept = next((count for count in range(1, len(files)) if one_file or claims(files[count])), len(files))
        if kept < len(files):
            made[place : place + 1 + kept] = [f"{made[place]}={os.pathsep.join(files[:kept])}"]
    return made


def _is_value(text: str) -> bool:
    return text == "-" or not text.startswith("-")


def _in_order(options_class: type[Options]) -> list[dataclasses.Field[Any]]:
    """Return the fields in the order of the help: required options, the command's own, shared options, `--debug`.

    Positional arguments stay in the order of the fields: an optional one may come before a required one.
    """
    return sorted(
        fields_of(options_class),
        key=lambda field: (
            field.default is not REQUIRED and not field.metadata["positional"],
            not (field.metadata["either"] or field.metadata["positional"]),
            field.name == "debug",
            field.metadata["shared"],
        ),
    )


def _usage(options_class: type[Options], prog: str) -> str:
    """Return the usage line: positional arguments, required options, `(A | B)` for alternatives, `[options]`."""
    parts, either = [], []
    for field in _in_order(options_class):
        required, shown = field.default is REQUIRED, shown_name(field)
        if field.metadata["positional"]:
            shown += " ..." if field.metadata["several"] or field.metadata["files"] else ""
        elif field.default is not False:
            shown += " FILE" if field.metadata["files"] else f" {shown[2:].upper()}"
        if field.metadata["either"]:
            either.append(shown)
        elif required or field.metadata["positional"]:
            parts.append(shown if required else f"[{shown}]")
    return " ".join([prog, *parts, *([f"({' | '.join(either)})"] if either else []), "[options]"])


def _argument_of(field: dataclasses.Field[Any], kind: Any) -> tuple[list[str], dict[str, Any]]:
    """Return the arguments of argparse's `add_argument` for one field: (names, keyword arguments)."""
    required, of_files = field.default is REQUIRED, field.metadata["files"]
    many = of_files or field.metadata["several"]
    read_as = str if kind is Path else kind  # `Path` would make one slash of the two in an address
    text = help_of(field).replace("%", "%%") + (" (one or more; patterns)" if of_files else "")
    if field.metadata["positional"]:
        nargs = ("+" if required else "*") if many else (None if required else "?")
        default = None if required else field.default
        declared = {"type": str if many else read_as, "nargs": nargs, "default": default, "metavar": shown_name(field)}
        return [field.name], {"help": text, **declared}
    if not required and field.default not in (None, (), "") and "(default:" not in text:
        text += f" (default: {str(field.default).replace('%', '%%')})"
    if kind is bool:  # `--flag` alone means true; `--flag false` works too
        declared = {"type": _parse_bool, "nargs": "?", "const": True, "metavar": "true|false"}
    elif many:
        declared = {"nargs": "+", "metavar": "FILE" if of_files else None}
    else:
        declared = {"type": read_as, "metavar": kind.__name__.upper()}
    if field.metadata["choices"]:
        declared["metavar"] = "{" + ",".join(map(str, field.metadata["choices"])) + "}"
    stored = {"action": _OneValue, "dest": field.name, "default": field.default, "required": required}
    stored["joins"] = field.metadata["joins"]
    return names_of(field), {"help": text, **stored, **declared}
