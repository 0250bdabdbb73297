"""Files of one option: one or several, by names or patterns.

Several files are one string, like the name of a single file: their names joined by `os.pathsep`. Messages and records
show this string; code that reads files calls `paths_of`.
"""

from __future__ import annotations

import difflib
import fcntl
import glob
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Optional, Union

from paddle_ranker.addresses import scheme_of
from paddle_ranker.errors import DataError, UsageError, is_full

_PATTERN = frozenset("*?[")
_SHOWN = 3
_SEPARATOR = re.compile(f"{re.escape(os.pathsep)}(?!//)")  # but not that of s3://
_DESCRIPTOR = re.compile(r"/proc/(?:self|\d+)/fd/(\d+)|/dev/fd/(\d+)|/dev/(stdin)")


class SeveralFiles(str):
    """The paths of several files as one string, joined by `os.pathsep`; `paths` is the tuple of the paths.

    For messages, `str()` of more than three paths is the first path and the number of further paths.
    """

    paths: tuple[str, ...]

    def __new__(cls, paths: Sequence[str]) -> SeveralFiles:
        made = super().__new__(cls, os.pathsep.join(paths))
        made.paths = tuple(paths)
        return made

    def __str__(self) -> str:
        if len(self.paths) <= _SHOWN:
            return os.pathsep.join(map(str, self.paths))
        return f"{self.paths[0]} and {len(self.paths) - 1} more"

    def __getnewargs__(self) -> tuple[tuple[str, ...]]:  # type: ignore[override]
        return (self.paths,)


class ShownFile(str):
    """The path of a file, such as a temporary file of rows, which messages call `shown` instead."""

    shown: str

    def __new__(cls, path: str, shown: str) -> ShownFile:
        made = super().__new__(cls, path)
        made.shown = shown
        return made

    def __str__(self) -> str:
        return self.shown


def folder_of(path: Union[str, os.PathLike[str]]) -> Path:
    """Return the folder to which paths in the rows of `path` are relative.

    This is the folder of the file, or of the first of several files; of a pipe, the working folder. If `path` is a
    folder, it is `path` itself.
    """
    first = paths_of(path)[0]
    if _DESCRIPTOR.fullmatch(first):
        return Path()
    # A `Path` of a `ShownFile` would be what messages call it.
    return Path(first if os.path.isdir(first) else os.path.dirname(first))


def paths_of(name: Union[str, os.PathLike[str]]) -> tuple[str, ...]:
    """Return the paths of the files that `name` stands for: `name.paths` of `SeveralFiles`, otherwise `name` alone."""
    return name.paths if isinstance(name, SeveralFiles) else (os.fspath(name),)


def base_names(name: Union[str, os.PathLike[str]]) -> str:
    """Return the files' names without folders, joined by commas, for records that outlive the folders."""
    return ", ".join(os.path.basename(path) for path in paths_of(name))


def split_paths(paths: str) -> list[str]:
    """Split paths and addresses at `os.pathsep`; an existing path is not split, even if its name contains it."""
    return [paths] if os.path.exists(paths) else _SEPARATOR.split(paths)


def join_files(paths: Sequence[str]) -> str:
    """Return the path of one file, or a `SeveralFiles` of several."""
    return paths[0] if len(paths) == 1 else SeveralFiles(paths)


def find_files(names: Iterable[Union[str, os.PathLike[str]]], option: str) -> list[str]:
    """Replace each pattern in `names` by the sorted names of the files that match it; keep all other names.

    Patterns use `*`, `?`, `[abc]`, and `**` for any folders. The name of an existing file is not taken for a pattern.
    A name may also be several names, joined by `os.pathsep`. Addresses, such as s3://bucket/name, stay as they are.
    Raises `UsageError`, which names `option`, if no file matches a pattern.
    """
    files = []
    for name in names:
        for path in paths_of(name):
            for part in _parts(path):
                is_address = scheme_of(part) is not None
                files += _matches(part, option) if _is_pattern(part) and not is_address else [part]
    return files


def _parts(path: str) -> list[str]:
    parts = _SEPARATOR.split(path)
    if len(parts) == 1 or os.path.exists(path) or not all(parts):
        return [path]
    # A missing file may have the separator in its name; the error should then show the name as it was typed.
    is_split = any(_is_pattern(part) or os.path.exists(part) or scheme_of(part) for part in parts)
    return parts if is_split else [path]


def _is_pattern(path: str) -> bool:
    return not _PATTERN.isdisjoint(path) and not os.path.exists(path)


def _matches(pattern: str, option: str) -> list[str]:
    paths = sorted(path for path in glob.glob(pattern, recursive=True) if not os.path.isdir(path))
    if not paths:
        raise UsageError(f"{option} {pattern}: no file matches; check the path")
    return paths


def require_file(path: str) -> None:
    """Raise `DataError` if a file does not exist; the message suggests the most similar name."""
    require_files([path])


def require_files(paths: Iterable[str]) -> None:
    """Raise `DataError` if files do not exist; the message suggests the most similar name of each."""
    missing = [f"{path}: no such file{_nearest(path)}" for path in paths if not os.path.exists(path)]
    if missing:
        raise DataError("; ".join(missing))


def _nearest(path: str) -> str:
    folder, name = os.path.split(os.path.abspath(path))
    if not os.path.isdir(folder):
        return f" (nor is there a folder {folder})"
    close = difflib.get_close_matches(name, os.listdir(folder), n=1)
    return f"; did you mean {os.path.join(os.path.dirname(path), close[0])}?" if close else "; check the path"


@contextmanager
def reread_pipes(arguments: Sequence[str]) -> Iterator[None]:
    """Let the pipes among a command's arguments be opened any number of times in the block, as files can.

    A pipe is an open file of this process: `<(cut -f2 pairs.tsv)`, which the shell calls `/dev/fd/63`, or `/dev/stdin`.
    Its content is copied to a temporary file, which takes over the pipe's descriptor: Linux opens `/dev/fd/63` anew
    from the start of that file. So commands need not know how often a file is opened. Raises `DataError` if several
    processes would share a pipe.
    """
    by_others = any(argument.partition("=")[0] == "--ray" for argument in arguments)
    with ExitStack() as stack:
        for argument in arguments:
            for path in argument.partition("=")[2].split(os.pathsep) + argument.split(os.pathsep):
                descriptor = _pipe_descriptor(path)
                if descriptor is not None:
                    if by_others:
                        require_no_pipe(path, "--ray")
                    with os.fdopen(os.dup(descriptor), "rb") as pipe, _copied(pipe, path, stack).open("rb") as copy:
                        os.dup2(copy.fileno(), descriptor)
        yield


def require_no_pipe(path: str, option: str) -> None:
    """Raise `UsageError`, which names `option`, if `path` is a pipe, which other machines cannot read."""
    if _pipe_descriptor(path) is not None or (os.path.exists(path) and stat.S_ISFIFO(os.stat(path).st_mode)):
        raise UsageError(f"{option}: {path} is a pipe, which the machines of a cluster cannot read; write it to a file")


def copied_fifo(path: str, stack: ExitStack) -> str:
    """Return the path of a copy of a named pipe, which `stack` deletes; return the path of anything else unchanged."""
    if not os.path.exists(path) or not stat.S_ISFIFO(os.stat(path).st_mode):
        return path
    with open(path, "rb") as pipe:
        return ShownFile(str(_copied(pipe, path, stack)), path)


def _pipe_descriptor(path: str) -> Optional[int]:
    """Return the descriptor of a pipe, terminal or socket to read that `path` names, such as 63 of `/dev/fd/63`."""
    match = _DESCRIPTOR.fullmatch(path)
    descriptor = 0 if match is None or match[3] else int(match[1] or match[2])
    try:
        mode = os.fstat(descriptor).st_mode
        is_written = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY
    except (OSError, OverflowError):
        return None
    is_stream = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(descriptor)
    return descriptor if match is not None and is_stream and not is_written else None


def _copied(pipe: IO[bytes], path: str, stack: ExitStack) -> Path:
    """Copy a pipe to a temporary file of the same name, which `stack` deletes."""
    processes = int(os.environ.get("PADDLE_TRAINERS_NUM", "1"))
    if processes > 1:
        raise DataError(f"{path}: a pipe, which {processes} processes cannot all read; write it to a file")
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="paddle_ranker_"))
    copy = Path(folder, os.path.basename(path))
    try:
        with copy.open("wb") as stream:
            shutil.copyfileobj(pipe, stream, 1 << 20)
    except OSError as error:
        if is_full(error):
            error.filename = folder
        raise
    return copy
