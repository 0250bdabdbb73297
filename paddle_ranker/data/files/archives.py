"""Open ZIP archives, and files that are such, that other people have made: no larger than their size allows."""

from __future__ import annotations

import zipfile
from typing import IO, Union

MOST_UNPACKED, _SMALL, _MOST_RATIO = 1 << 30, 1 << 26, 200  # bytes; a ratio of sheets of equal cells is 50
MOST_MEMBERS = 100_000


class TooLargeError(Exception):
    """An archive is far larger unpacked than packed; the message says by how much."""


def most_unpacked(size: int) -> int:
    """Return how many bytes an archive of `size` bytes may have unpacked."""
    return min(MOST_UNPACKED, max(_SMALL, _MOST_RATIO * size))


def open_archive(file: Union[str, IO[bytes]], size: int) -> zipfile.ZipFile:
    """Open an archive of `size` bytes, whose members are read up to the lengths that it states.

    Raises `TooLargeError` if these are more than `most_unpacked`, and `zipfile.BadZipFile`.
    """
    archive = zipfile.ZipFile(file)
    entries = archive.infolist()
    unpacked, most = sum(entry.file_size for entry in entries), most_unpacked(size)
    if unpacked > most:
        raise TooLargeError(f"{unpacked:,} bytes unpacked, more than the limit of {most:,}; save it in another format")
    if len(entries) > MOST_MEMBERS:
        raise TooLargeError(f"{len(entries):,} members, more than the limit of {MOST_MEMBERS:,}")
    return archive
