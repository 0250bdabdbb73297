"""An option of a command as a field of a dataclass: how it is declared, and how its value is checked."""

from __future__ import annotations

import dataclasses
import operator
import os
import re
import stat
import typing
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Callable, Optional, Union, cast

from paddle_ranker.addresses import is_url, scheme_of
from paddle_ranker.errors import UsageError, brief, quoted, spelling_hint
from paddle_ranker.libraries import AUTO_DEVICE
from paddle_ranker.options.input_files import (
    copied_fifo,
    find_files,
    join_files,
    paths_of,
    require_files,
    require_no_pipe,
    split_paths,
)
from paddle_ranker.registry import Registry
from paddle_ranker.stores import SCHEMES, fetched, matching

REQUIRED: Any = object()
TAB = "tab"  # the default separator of a text file's columns
DEVICE_HELP = "device: cpu, gpu, xpu or npu; auto: a GPU if there is one, else the CPU"
# NaN fails each of these comparisons.
_BOUNDS: dict[str, tuple[Callable[[float, float], bool], str]] = {
    "minimum": (operator.ge, "at least"),
    "maximum": (operator.le, "at most"),
    "above": (operator.gt, "above"),
    "below": (operator.lt, "below"),
}
# What an option makes of an address, such as s3://bucket/name. A path that is not declared otherwise refuses it.
REFUSED, ANY_TEXT, FETCHED, FETCHED_FOLDER, TAKEN = "refused", "any_text", "fetched", "fetched_folder", "taken"
FOLDER_OR_URL = "folder_or_url"
# What commands do on a cluster if `--ray` is given, by the command's name; called with what the command has prepared.
ON_CLUSTER: Registry[Callable[..., Any]] = Registry("command on a cluster", recipes="commands")
_FLAGS = ("positional", "leads", "several", "files", "shared", "either")
_CLUSTER = re.compile(r"local|auto|(\[[^][\s/]+\]|[^:\s/]+):[0-9]+")
_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def option(
    default: Any = REQUIRED,
    *,
    help: Union[str, Callable[[], str]],
    name: Optional[str] = None,
    choices: Collection[Any] = (),
    aliases: Sequence[str] = (),
    **more: Any,
) -> Any:
    """Declare one option of a command.

    `name`, without `--`, is shown instead of the field's name; the field's name stays an alias. `aliases` are further
    names, such as those of the published tutorial. Since a registry may grow, `choices` are read when they are needed,
    and so is a `help` that is a function. `more` takes inclusive bounds (`minimum`, `maximum`), exclusive bounds
    (`above`, `below`), and these settings:

    positional: the option is given without its name, in the order of the fields: `convert SOURCE TARGET`. It is
        optional if it has a default
    leads: the option may be given without its name as the very first argument: `export RANKER --onnx`
    several: the option takes one or more values, and the field is a `tuple[str, ...]`: `compare A B C`, `--sizes A B C`
    joins: text that joins the values of an option that is given twice, as in `--where A --where B`. Without `joins`,
        the last value counts, and an option with `several` must not be given twice
    files: the option takes names or patterns of files to read, see `input_files.py`. The field is a tuple, or one
        string
    claims: function of a positional argument, called with each value that follows an option's files. It returns True
        if the value is the positional argument, False if the value is one more file
    shared: many commands have this option; the help shows it below a command's own options
    either: the command requires at least one of the options with this flag. The help shows these options among the
        required ones, and the options class checks that one is given
    addresses: what becomes of an address, such as `s3://bucket/name`, in a text or path: REFUSED (the default);
        ANY_TEXT, the value is text, or an address of something else than a file; FETCHED, a copy of the file or folder
        is made once, and the field is its path (the default with `files`); FETCHED_FOLDER, the same for a model, whose
        other files are beside a file; FOLDER_OR_URL, likewise, and the URL of a service stays text; TAKEN, the command
        itself reads or writes there
    """
    flags = {flag: bool(more.pop(flag, False)) for flag in _FLAGS}
    claims, joins = more.pop("claims", None), more.pop("joins", None)
    addresses = more.pop("addresses", FETCHED if flags["files"] else REFUSED)
    unknown = set(more) - set(_BOUNDS)
    if unknown:
        keywords = ", ".join([*_FLAGS, "claims", "joins", "addresses", *_BOUNDS])
        raise TypeError(f"option() has no {', '.join(sorted(unknown))}: there are {keywords}")
    metadata = {"help": help, "name": name, "choices": choices, "aliases": tuple(aliases), "bounds": more, **flags}
    metadata.update(claims=claims, joins=joins, addresses=addresses)
    return dataclasses.field(default=default, metadata=metadata)


def redeclare(options_class: type[Options], name: str, default: Any = REQUIRED, **changes: Any) -> Any:
    """Declare an inherited option again, with another `default`, or with `changes` to its `help` and `aliases`."""
    (field,) = (field for field in dataclasses.fields(options_class) if field.name == name)
    default = field.default if default is REQUIRED else default
    return dataclasses.field(default=default, metadata={**field.metadata, **changes})


@dataclass(frozen=True)
class Options:
    """Options of every command."""

    debug: bool = option(False, help="show the traceback of an error")

    def __post_init__(self) -> None:
        annotations = annotations_of(type(self))
        for field in fields_of(type(self)):
            value = getattr(self, field.name)
            if value is REQUIRED:
                raise UsageError(f"{shown_name(field)} is required: {help_of(field)}")
            if value is not field.default:
                _refuse_addresses(field, value)
                value = _typed(field, annotations[field.name], value)
                object.__setattr__(self, field.name, value)
            _check(field, value)
        for field in fields_of(type(self)):
            value = getattr(self, field.name)
            if (local := _fetched(field, value)) != value:
                object.__setattr__(self, field.name, _typed(field, annotations[field.name], local))

    def look_up(self) -> None:
        """Find the models that the options name, and fetch those that are on a hub.

        It is called before any other work, and before Paddle is imported. Subclasses whose options name models override
        it; this method does nothing. Raises the errors of `model.pretrained.find_model`.
        """


def fields_of(options_class: type[Options]) -> list[dataclasses.Field[Any]]:
    """Return the dataclass fields that are options; a field that is not an option is set by the program."""
    return [field for field in dataclasses.fields(options_class) if "help" in field.metadata]


def given_of(options: Options, names: Iterable[str]) -> list[dataclasses.Field[Any]]:
    """Return the fields among `names` whose value in `options` is not the default."""
    fields = {field.name: field for field in fields_of(type(options))}
    return [fields[name] for name in names if getattr(options, name) != fields[name].default]


def refuse_given(options: Options, names: Iterable[str], why: str) -> None:
    """Raise `UsageError` if an option among `names` is not at its default; the message names it and says `why`."""
    for field in given_of(options, names):
        raise UsageError(f"{shown_name(field)} {why}")


def annotations_of(options_class: type[Options]) -> Mapping[str, Any]:
    return _types(cast(Any, options_class))  # mypy takes a dataclass's class for unhashable


@cache
def _types(options_class: Any) -> Mapping[str, Any]:
    return typing.get_type_hints(options_class)


def names_of(field: dataclasses.Field[Any]) -> list[str]:
    """Return the names of an option on the command line; messages show the first one."""
    field_name = f"--{field.name}"
    chosen = [f"--{field.metadata['name']}"] if field.metadata["name"] else []
    return list(dict.fromkeys([*chosen, field_name, *field.metadata["aliases"]]))


def is_asked_for(field: dataclasses.Field[Any]) -> bool:
    """Return whether an option is required, or is one of several options of which a command requires one."""
    return field.default is REQUIRED or bool(field.metadata["either"])


def shown_name(field: dataclasses.Field[Any]) -> str:
    """Return the name of an option in messages."""
    return field.name.upper() if field.metadata["positional"] else names_of(field)[0]


def _typed(field: dataclasses.Field[Any], annotation: Any, value: Any) -> Any:
    """Convert a value to its field's type, and patterns to file names; raises `UsageError` if that is not possible."""
    kind, name = value_type(annotation), shown_name(field)
    if value is None and kind is not annotation:  # the type is Optional[T]
        return None
    is_tuple = typing.get_origin(kind) is tuple
    if field.metadata["files"]:
        paths = value if isinstance(value, (list, tuple)) else (value,)
        if not paths and field.default == ():
            return ()
        if not paths or not all(isinstance(path, (str, os.PathLike)) for path in paths):
            raise UsageError(f"{name} {quoted(value)}: expected the name of a file, or several")
        files = find_files(paths, name)
        return tuple(files) if is_tuple else join_files(files)
    if is_tuple:
        if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
            raise UsageError(f"{name} {quoted(value)}: expected several values, as in [{quoted(value)}]")
        return tuple(value)
    is_bool = isinstance(value, bool)
    if kind is str and isinstance(value, os.PathLike):
        return os.fspath(value)
    if kind is Path and isinstance(value, str):
        return value if scheme_of(value) else Path(value)  # a `Path` of an address is none
    if kind is float and not is_bool and isinstance(value, Real):
        return float(value)
    if kind is int and not is_bool and isinstance(value, Integral):
        return int(value)
    if kind in _KINDS and (not isinstance(value, kind) or is_bool != (kind is bool)):
        raise UsageError(f"{name} {quoted(value)}: expected {_KINDS[kind]}")
    return value


def _texts_in(field: dataclasses.Field[Any], value: Any) -> list[str]:
    """Return the texts in a value with an address: one, or those of an option with `several`, `joins` or `files`."""
    values = value if isinstance(value, (list, tuple)) else [value]
    texts = [text for one in values if isinstance(one, (str, os.PathLike)) for text in paths_of(one)]
    if field.metadata["addresses"] == ANY_TEXT or not any("://" in text for text in texts):
        return []
    joins = field.metadata["joins"] or os.pathsep
    if field.metadata["addresses"] == FOLDER_OR_URL and all(map(is_url, texts)):
        return []
    return [part for text in texts for part in (split_paths(text) if joins == os.pathsep else text.split(joins))]


def _refuse_addresses(field: dataclasses.Field[Any], value: Any) -> None:
    """Raise `UsageError` for an address in an option that takes none, or none with its scheme."""
    for text in _texts_in(field, value):
        if (scheme := scheme_of(text)) is None:
            continue
        how = f"{shown_name(field)} {brief(text)}: "
        if scheme not in SCHEMES:
            raise UsageError(f"{how}{scheme}:// is not known here; there are {', '.join(SCHEMES)}, and paths")
        if field.metadata["addresses"] == REFUSED:
            raise UsageError(f"{how}takes no address; name a path of this machine, and copy from or to it")


def _fetched(field: dataclasses.Field[Any], value: Any) -> Any:
    """Return the value with a path of this machine for each address, if the field's addresses are to be fetched."""
    how, texts = field.metadata["addresses"], _texts_in(field, value)
    if how not in (FETCHED, FETCHED_FOLDER, FOLDER_OR_URL) or not any(map(scheme_of, texts)):
        return value
    paths = list[str]()
    for text in texts:
        if scheme_of(text) is None:
            paths.append(text)
            continue
        if not (found := matching(text)):
            raise UsageError(f"{shown_name(field)} {text}: no file matches; check the address")
        paths += [fetched(address, beside=how != FETCHED) for address in found]
    return tuple(paths) if isinstance(value, tuple) else join_files(paths)


def input_files(options: Options) -> Iterator[tuple[dataclasses.Field[Any], str]]:
    """Yield (field, path) for each file that the options name for reading, except standard input."""
    for field in fields_of(type(options)):
        value = getattr(options, field.name) if field.metadata["files"] else None
        for name in value if isinstance(value, tuple) else (value,):
            for path in () if name in (None, "-") else paths_of(name):
                yield field, path


def require_inputs(options: Options, stack: ExitStack) -> None:
    """Raise `DataError` if an input file does not exist; called before a model is loaded or a file is read.

    Raises `UsageError` if another option names an input file, too, since its output would take the place of the input.
    Named pipes are replaced by copies, which can be opened several times; `stack` deletes them. With `--ray`, pipes are
    refused: other machines cannot read them, and a job that goes on later cannot read them again.
    """
    require_files(path for _, path in input_files(options))
    for field, path in input_files(options):
        if isinstance(options, RayOptions) and options.ray is not None:
            require_no_pipe(path, shown_name(field))
    _require_apart(options)
    for field in {field.name: field for field, _ in input_files(options)}.values():
        value = getattr(options, field.name)
        copies = tuple(copied_fifo(path, stack) for path in (value if isinstance(value, tuple) else paths_of(value)))
        object.__setattr__(options, field.name, copies if isinstance(value, tuple) else join_files(copies))


def _require_apart(options: Options) -> None:
    read, inputs = dict[tuple[int, int], str](), set[str]()
    for field, path in input_files(options):
        inputs.add(field.name)
        if (identity := _identity_of(path)) is not None:
            read[identity] = shown_name(field)
    for field in fields_of(type(options)):
        value = getattr(options, field.name)
        of = _identity_of(value) if field.name not in inputs and isinstance(value, (str, Path)) else None
        if of in read:
            raise UsageError(
                f"{shown_name(field)} {value}: is the file of {read[of]}, which would be overwritten; name another"
            )


def _identity_of(path: Union[str, Path]) -> Optional[tuple[int, int]]:
    """Return device and inode of a file; None for folders, pipes, and values that are no paths."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None


def help_of(field: dataclasses.Field[Any]) -> str:
    """Return the help text of an option."""
    text = field.metadata["help"]
    return str(text() if callable(text) else text)


def _check(field: dataclasses.Field[Any], value: Any) -> None:
    if value is None:
        return
    choices = field.metadata["choices"]
    if len(choices) and value not in choices:
        hint = spelling_hint(str(value), [str(choice) for choice in choices])
        raise UsageError(f"{shown_name(field)} {brief(str(value))}: choose from {', '.join(map(str, choices))}{hint}")
    for name, bound in field.metadata["bounds"].items():
        holds, words = _BOUNDS[name]
        if not holds(value, bound):
            raise UsageError(f"{shown_name(field)} {value}: must be {words} {bound}")


def value_type(annotation: Any) -> Any:
    """Return T of `Optional[T]`, and any other type unchanged."""
    if typing.get_origin(annotation) is Union:  # the type is Optional[T]
        return next(arg for arg in typing.get_args(annotation) if arg is not type(None))
    return annotation


@dataclass(frozen=True)
class ThreadOptions(Options):
    """Options of every command that computes on a CPU."""

    cpu_threads: int = option(0, help="threads of a matrix product on a CPU; 0: one per core", minimum=0, shared=True)


@dataclass(frozen=True)
class DeviceOptions(ThreadOptions):
    """Options of every command that computes on a device of the user's choice."""

    device: str = option(AUTO_DEVICE, help=DEVICE_HELP, shared=True)


@dataclass(frozen=True)
class RowOptions(Options):
    """Options of every command that reads rows."""

    skip_bad_rows: bool = option(
        False, help="leave out malformed rows and count them, instead of stopping", shared=True
    )
    separator: str = option(
        TAB,
        help="separator of the columns of text files: tab, or a character such as a comma, which turns quoting on",
        shared=True,
    )
    header: Optional[bool] = option(
        None,
        help="whether the first row of text files names their columns (default: it does if it holds names of columns)",
        shared=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.separator != TAB and (len(self.separator) != 1 or self.separator in '"\r\n\0'):
            raise UsageError(f"--separator {quoted(self.separator)}: give tab, or one character, as in --separator ,")


@dataclass(frozen=True)
class DocumentOptions(RowOptions):
    """Options of every command that reads documents with fields."""

    id_column: Optional[str] = option(
        None,
        help="column of the ids; none: documents get numbers (default: by names and values, which is printed)",
        addresses=ANY_TEXT,
    )
    title_column: Optional[str] = option(
        None, help="column of the titles; none: there is none (default: as for ids)", addresses=ANY_TEXT
    )
    text_column: Optional[str] = option(
        None, help="column of the texts; none: a document's title is its text (default: as for ids)", addresses=ANY_TEXT
    )
    sheet: Optional[str] = option(None, help="sheet of a spreadsheet, by name, or all (default: the first)")


def require_ray_device(device: str) -> None:
    """Raise `UsageError` unless `--device` is cpu, gpu or auto; the index of a GPU is chosen by Ray."""
    if device not in ("cpu", "gpu", AUTO_DEVICE):
        raise UsageError(f"--device {device}: with --ray it is cpu, gpu or auto, and Ray chooses which one")


def require_cluster(address: str, name: str = "--ray") -> None:
    """Raise `UsageError` unless `address`, of the option or variable `name`, has the form of a cluster's address."""
    if not _CLUSTER.fullmatch(address):
        raise UsageError(
            f"{name} {quoted(address)}: expected local, auto, or HOST:PORT, as ray start prints it on the head"
        )


@dataclass(frozen=True)
class ClusterOptions(Options):
    """Options of every command that joins a cluster."""

    ray_open: bool = option(
        False,
        help="with --ray: join a cluster that asks for no token, so that whoever reaches it runs code there, too",
        shared=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if (address := getattr(self, "ray", None)) is not None:
            require_cluster(address)
        if self.ray_open and address in (None, "local"):
            raise UsageError("--ray_open: is about a cluster that runs; add --ray auto or HOST:PORT, or leave it out")


@dataclass(frozen=True)
class RayOptions(ClusterOptions):
    """Options of every command that can share its work among the machines of a cluster."""

    ray: Optional[str] = option(
        None,
        help="share the work on a cluster of Ray: local, of this machine and for this command; auto or HOST:PORT, "
        "one that runs",
        shared=True,
        addresses=ANY_TEXT,
    )
    actors: Optional[int] = option(
        None,
        help="with --ray: processes that share the work, each with --cpu_threads threads (default: as many as there "
        "are cores or GPUs for)",
        minimum=1,
        shared=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.actors is not None and self.ray is None:
            raise UsageError(f"--actors {self.actors}: is about a cluster; add --ray, or leave it out")
        if self.ray is not None:
            ON_CLUSTER.load_plugins()
            if not len(ON_CLUSTER):
                raise UsageError(f"--ray {quoted(self.ray)}: this installation has no cluster of Ray; leave it out")
            require_ray_device(getattr(self, "device", AUTO_DEVICE))


@dataclass(frozen=True)
class LabelOptions(RowOptions):
    """Options of every command that reads labels."""

    fractional_labels: bool = option(
        False,
        help="accept fractions as graded labels; without it they are refused, since they are often scores",
        shared=True,
    )
