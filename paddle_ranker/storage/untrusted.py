"""Read files in untrusted folders: only regular files of bounded size.

Reading a pipe could block for ever, a device such as /dev/zero never ends, and a sparse file can have any size.
"""

from __future__ import annotations

import json
import mmap
import os
import stat
from pathlib import Path
from typing import Any

from paddle_ranker.errors import CheckpointError

TEXT_BYTES = 32 * 1024 * 1024  # most bytes of a vocabulary or description; the largest models have a few megabytes


Unchecked = Any  # a value from an untrusted file, whose type has not been checked
UncheckedObject = dict[str, Any]  # a JSON object from an untrusted file


def memory_bytes() -> int:
    """Return the machine's memory in bytes: a model in a larger file cannot run here."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def check_file(path: Path, most: int) -> int:
    """Return a file's size in bytes.

    Raises `CheckpointError` if it is no regular file or larger than `most`, `OSError` if it does not exist.
    """
    return _check(path, os.stat(path), most)


def read_file(path: Path, most: int = TEXT_BYTES) -> bytes:
    """Return a file's bytes; raises as `check_file` does."""
    check_file(path, most)  # before opening: opening a device can have effects
    # Checked again once open: the path may name another file by now.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
        return stream.read(_check(path, os.fstat(stream.fileno()), most))


def map_file(path: Path, most: int) -> mmap.mmap:
    """Map a file's bytes into memory; raises as `check_file` does, and `ValueError` for an empty file.

    Processes that map one file share its pages. What is written to them stays in the process. The bytes are those of
    the file while it is not overwritten: it must be replaced by another of its name instead.
    """
    check_file(path, most)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mapped = mmap.mmap(descriptor, _check(path, os.fstat(descriptor), most), access=mmap.ACCESS_COPY)
    finally:
        os.close(descriptor)
    mapped.madvise(mmap.MADV_WILLNEED)  # the disk is read while other things are done
    return mapped


def read_json(path: Path) -> Unchecked:
    """Parse a JSON file; raises as `read_file` does, and `ValueError` for invalid JSON."""
    try:
        return json.loads(read_file(path))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_versioned(path: Path, newest: int) -> UncheckedObject:
    """Return the JSON object of a file that says its `format_version`.

    Raises `CheckpointError` if the file is damaged, or of a later version than `newest`.
    """
    try:
        values: UncheckedObject = read_json(path)
        version = int(values["format_version"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: damaged ({type(error).__name__}: {error})") from error
    if version > newest:
        raise CheckpointError(
            f"{path}: format version {version} is newer than this toolkit's {newest}: update the toolkit"
        )
    return values


def _check(path: Path, found: os.stat_result, most: int) -> int:
    if not stat.S_ISREG(found.st_mode):
        raise CheckpointError(f"{path}: is no regular file but a folder, pipe or device; copy the model's folder again")
    if found.st_size > most:
        raise CheckpointError(
            f"{path}: has {found.st_size:,} bytes, more than the {most:,} that are read; it is no such file of a model "
            "that runs here"
        )
    return found.st_size
