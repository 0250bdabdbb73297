"""Digests of files and folders, and a warning if two options name the same data."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Optional, Union

from paddle_ranker.errors import RankerError
from paddle_ranker.stores import stream_sha256

if TYPE_CHECKING:
    from paddle_ranker.options import Options

_DIGITS = 16


def content_digest(path: Union[str, Path]) -> str:
    """Return a digest of the content of a file, a folder or several files: 16 hexadecimal digits of SHA-256.

    A folder's digest depends on the names and digests of its files. The digest of several files depends on the digests
    of all, in order. Raises `RankerError` for an unreadable file.
    """
    from paddle_ranker.options.input_files import paths_of

    paths, digest = paths_of(path), hashlib.sha256()
    if len(paths) > 1:
        digest.update("".join(f"{content_digest(file)}\n" for file in paths).encode())
        return digest.hexdigest()[:_DIGITS]
    path = Path(path)
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.is_file():
                digest.update(f"{file.relative_to(path)}\0{content_digest(file)}\n".encode())
        return digest.hexdigest()[:_DIGITS]
    try:
        return file_sha256(path)[:_DIGITS]
    except OSError as error:
        raise RankerError(f"{path}: cannot read it ({error.strerror})") from error


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits; raises `OSError` for an unreadable file."""
    with path.open("rb") as stream:
        return stream_sha256(stream)


def bytes_sha256(content: bytes) -> str:
    """Return the SHA-256 of bytes in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def json_digest(*values: object) -> str:
    """Return a digest of JSON values, 16 hexadecimal digits, as a name for a result that depends on the values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:_DIGITS]


def warn_of_same_data(options: Options, *names: str) -> None:
    """Print a warning for each pair of the options `names` that name the same file, or files of equal content."""
    from paddle_ranker.options.declare import input_files, shown_name

    compared = [(field, path) for field, path in input_files(options) if field.name in names]
    files = [(shown_name(field), path) for field, path in sorted(compared, key=lambda item: names.index(item[0].name))]
    for (name, first), (other_name, second) in combinations(files, 2):
        how = _shared(first, second) if name != other_name else None
        if how is not None:
            print(
                f"warning: {other_name} {second} is {name} {first} ({how}): what is measured on what was learned from "
                "says nothing about new queries",
                file=sys.stderr,
            )


def _shared(first: str, second: str) -> Optional[str]:
    if not (os.path.exists(first) and os.path.exists(second)):
        return None
    if os.path.samefile(first, second):
        return "the same file"
    is_same_size = (
        os.path.isfile(first) and os.path.isfile(second) and os.path.getsize(first) == os.path.getsize(second)
    )
    return "the same content" if is_same_size and content_digest(first) == content_digest(second) else None
