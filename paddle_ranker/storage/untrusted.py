"""Read files in untrusted folders: only regular files of limited size.

Reading a pipe could block forever, a device such as /dev/zero never ends, and a sparse file can have any size.

Links in a folder that the user names, such as a model, a run or an index, are followed: Hugging Face's cache contains
links (`snapshots/*/config.json` to `../../blobs/*`), and so do runs (`best`). Files that an index names must be inside
its folder, see `inside`. Models that an index copied must have no links, see `folder_without_links`.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import stat
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.errors import CheckpointError, brief, quoted

TEXT_BYTES = 32 * 1024 * 1024  # maximum size of a vocabulary or description; the largest models have a few megabytes
T = TypeVar("T")
Unchecked = Any  # a value from an untrusted file, whose type has not been checked
UncheckedObject = dict[str, Any]  # a JSON object from an untrusted file


def memory_bytes() -> int:
    """Return the machine's memory in bytes; files of models may not be larger."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def check_file(path: Path, most: int) -> int:
    """Return a file's size in bytes.

    Raises `CheckpointError` if it is not a regular file, or larger than `most` bytes; `OSError` if it does not exist.
    """
    return _check(path, os.stat(path), most)


def read_file(path: Path, most: int = TEXT_BYTES) -> bytes:
    """Return a file's bytes; raises as `check_file` does."""
    with open_file(path, most) as stream:
        return stream.read(os.fstat(stream.fileno()).st_size)


def open_file(path: Path, most: int) -> IO[bytes]:
    """Open a file for reading; raises as `check_file` does."""
    check_file(path, most)  # before opening: opening a device can have effects
    stream = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    try:
        _check(path, os.fstat(stream.fileno()), most)  # again, since the path may name another file by now
    except BaseException:
        stream.close()
        raise
    return stream


def inside(folder: Path, name: str) -> Path:
    """Return the path of the file or folder `name` in `folder`, to read or to write.

    Raises `CheckpointError` if the path or a link leads out of `folder`.
    """
    if os.path.basename(name) != name or name in ("", ".", "..") or "\0" in name:
        raise CheckpointError(f"{folder}: names {quoted(name)}, expected the name of a file in it; copy it again")
    path = folder / name
    if Path(os.path.realpath(folder)) not in Path(os.path.realpath(path)).parents:
        raise CheckpointError(f"{path}: is a link out of its folder; put the file itself there")
    return path


def folder_without_links(folder: Path, name: str) -> Path:
    """Return the path of the folder `name` in `folder`; it may contain only files and folders, as copied models do.

    Raises `CheckpointError` for a link, pipe or device at any depth: code that reads the folder would follow it.
    """
    path = inside(folder, name)
    for parent, folders, files in os.walk(path):
        for entry in (*folders, *files):
            kind = os.lstat(os.path.join(parent, entry)).st_mode
            if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
                problem = "is a link, pipe or device; put the file itself there"
                raise CheckpointError(f"{os.path.join(parent, entry)}: {problem}")
    return path


def read_header(read: Callable[[], T]) -> T:
    """Return what `read` does with the header of a `.npy` file, a Python literal; read it again after a `SystemError`.

    CPython counts the depth of the literals of all threads together, and confuses threads that parse at the same time:
    github.com/python/cpython/issues/106905, of Python 3.11 and 3.12.
    """
    for _ in range(20):
        try:
            return read()
        except SystemError:
            continue
    return read()


def open_array(path: Path, mapped_from: int) -> NDArray[np.generic]:
    """Open a `.npy` file of numbers; map it into memory if it is larger than `mapped_from` bytes, else read it.

    Raises `CheckpointError` for other contents or a wrong size, and as `check_file` does.
    """
    with open_file(path, sys.maxsize) as stream:
        held = os.fstat(stream.fileno()).st_size
        try:
            shape, is_fortran, kind = read_header(partial(_array_header, stream))
            if kind.kind not in "biuf" or stream.tell() + math.prod(shape) * kind.itemsize != held:
                raise ValueError(f"states {kind} {list(shape)} and has {held:,} bytes")
        except Exception as error:  # the header is a Python literal, whose parser raises many types
            raise CheckpointError(f"{path}: damaged ({brief(str(error))}); copy the folder again") from error
        order: Literal["C", "F"] = "F" if is_fortran else "C"
        if held > mapped_from:
            return np.memmap(stream, kind, "r", stream.tell(), shape, order)
        return np.frombuffer(stream.read(), kind).reshape(shape, order=order)


def _array_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    stream.seek(0)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    shape, is_fortran, kind = readers[np.lib.format.read_magic(stream)](stream)
    return shape, is_fortran, kind


def map_file(path: Path, most: int) -> mmap.mmap:
    """Map a file's bytes into memory; raises as `check_file` does, and `ValueError` for an empty file.

    Processes that map a file share its pages; writes stay private to a process. While it is mapped, the file must not
    be overwritten, but it may be replaced by a new file.
    """
    with open_file(path, most) as stream:
        mapped = mmap.mmap(stream.fileno(), os.fstat(stream.fileno()).st_size, access=mmap.ACCESS_COPY)
    mapped.madvise(mmap.MADV_WILLNEED)  # read ahead in the background
    return mapped


def release_pages(mapped: mmap.mmap, start: int, stop: int) -> None:
    """Free the memory of bytes `start` to `stop` of a mapped, unchanged file; the next access reads them again."""
    first, last = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE, stop // mmap.PAGESIZE * mmap.PAGESIZE
    if last > first:
        mapped.madvise(mmap.MADV_DONTNEED, first, last - first)


def read_json(path: Path) -> Unchecked:
    """Parse a JSON file; raises as `read_file` does, and `ValueError` for invalid JSON."""
    try:
        return json.loads(read_file(path))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_versioned(path: Path, expected: int) -> UncheckedObject:
    """Return the JSON object in a file that states a `format_version`.

    Raises `CheckpointError` if the file is damaged, or has another version than `expected`.
    """
    try:
        values: UncheckedObject = read_json(path)
        version = values["format_version"]
        if type(version) is not int:
            raise ValueError(f"format_version is {quoted(version)}, expected a whole number")
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: damaged ({type(error).__name__}: {error})") from error
    if version != expected:
        remedy = "update the toolkit" if version > expected else "make the folder anew"
        raise CheckpointError(f"{path}: format version {version}, and this toolkit reads version {expected}: {remedy}")
    return values


def _check(path: Path, status: os.stat_result, most: int) -> int:
    if not stat.S_ISREG(status.st_mode):
        raise CheckpointError(f"{path}: is no regular file but a folder, pipe or device; copy its folder again")
    if status.st_size > most:
        raise CheckpointError(
            f"{path}: has {status.st_size:,} bytes, more than the {most:,} that are read; it is no such file of a "
            "model that runs here"
        )
    return status.st_size
