"""Files of one option: one or several, by names or patterns.

Several files are one string, like the name of a single file: their names joined by `os.pathsep`. Messages and records
show this string; code that reads files calls `paths_of`.
"""

from __future__ import annotations

import difflib
import glob
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Union

from paddle_ranker.errors import DataError, UsageError

_PATTERN = frozenset("*?[")
_SHOWN = 3


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
            return os.pathsep.join(self.paths)
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

    This is the folder of the file, or of the first of several files. If `path` is a folder, it is `path` itself.
    """
    first = paths_of(path)[0]
    # A `Path` of a `ShownFile` would be what messages call it.
    return Path(first if os.path.isdir(first) else os.path.dirname(first))


def paths_of(name: Union[str, os.PathLike[str]]) -> tuple[str, ...]:
    """Return the paths of the files that `name` stands for: `name.paths` of `SeveralFiles`, otherwise `name` alone."""
    return name.paths if isinstance(name, SeveralFiles) else (os.fspath(name),)


def base_names(name: Union[str, os.PathLike[str]]) -> str:
    """Return the files' names without folders, joined by commas, for records that outlive the folders."""
    return ", ".join(os.path.basename(path) for path in paths_of(name))


def split_paths(paths: str) -> list[str]:
    """Split paths at `os.pathsep`; an existing path is not split, even if its name contains `os.pathsep`."""
    return [paths] if os.path.exists(paths) else paths.split(os.pathsep)


def join_files(paths: Sequence[str]) -> str:
    """Return the path of one file, or a `SeveralFiles` of several."""
    return paths[0] if len(paths) == 1 else SeveralFiles(paths)


def find_files(names: Iterable[Union[str, os.PathLike[str]]], option: str) -> list[str]:
    """Replace each pattern in `names` by the sorted names of the files that match it; keep all other names.

    Patterns use `*`, `?`, `[abc]`, and `**` for any folders. The name of an existing file is not taken for a pattern.
    A name may also be several names, joined by `os.pathsep`. Raises `UsageError`, which names `option`, if no file
    matches a pattern.
    """
    files = []
    for name in names:
        for path in paths_of(name):
            for part in _parts(path):
                files += _matches(part, option) if _is_pattern(part) else [part]
    return files


def _parts(path: str) -> list[str]:
    parts = path.split(os.pathsep)
    if len(parts) == 1 or os.path.exists(path) or not all(parts):
        return [path]
    # A missing file may have the separator in its name; the error should then show the name as it was typed.
    return parts if any(_is_pattern(part) or os.path.exists(part) for part in parts) else [path]


def _is_pattern(path: str) -> bool:
    return not _PATTERN.isdisjoint(path) and not os.path.exists(path)


def _matches(pattern: str, option: str) -> list[str]:
    paths = sorted(path for path in glob.glob(pattern, recursive=True) if not os.path.isdir(path))
    if not paths:
        raise UsageError(f"{option} {pattern}: no file matches; check the path")
    return paths


def require_file(path: str) -> None:
    """Raise `DataError` if a file does not exist; the message suggests the most similar name."""
    if not os.path.exists(path):
        raise DataError(f"{path}: no such file{_nearest(path)}")


def _nearest(path: str) -> str:
    folder, name = os.path.split(os.path.abspath(path))
    if not os.path.isdir(folder):
        return f" (nor is there a folder {folder})"
    close = difflib.get_close_matches(name, os.listdir(folder), n=1)
    return f"; did you mean {os.path.join(os.path.dirname(path), close[0])}?" if close else "; check the path"
