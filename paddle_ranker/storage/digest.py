"""Digests, by which a file or a folder is known again."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Union

from paddle_ranker.errors import RankerError
from paddle_ranker.options.files import paths_of

_DIGITS = 16


def content_digest(path: Union[str, Path]) -> str:
    """Return the first 16 digits of a file's SHA-256, of a folder's that of its files' names and digests.

    That of several files is one of their digests, in their order.

    Raises `RankerError` for a file that cannot be read.
    """
    paths, found = paths_of(path), hashlib.sha256()
    if len(paths) > 1:
        found.update("".join(f"{content_digest(one)}\n" for one in paths).encode())
        return found.hexdigest()[:_DIGITS]
    path = Path(path)
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.is_file():
                found.update(f"{file.relative_to(path)}\0{content_digest(file)}\n".encode())
        return found.hexdigest()[:_DIGITS]
    try:
        with open(path, "rb") as stream:
            while block := stream.read(1 << 20):
                found.update(block)
    except OSError as error:
        raise RankerError(f"{path}: cannot read it ({error.strerror})") from error
    return found.hexdigest()[:_DIGITS]
