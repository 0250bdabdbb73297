"""Write to streams: devices, FIFOs, and a process's open files, such as `/dev/stdout`.

A stream cannot be replaced by a new file, so output is written to it directly. The path `-` means standard output;
`./-` is a file of that name.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Any, Optional, Union

from paddle_ranker.errors import is_full

_STANDARD_OUTPUT = "-"
_MOST_LINKS = 40  # maximum symbolic links followed in a row, as in Linux


def is_stream(path: Union[str, Path]) -> bool:
    """Return whether `path` is a device, FIFO or socket, or names an open file of a process."""
    if _open_file(path) is not None:
        return True
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def is_standard_output(path: Union[str, Path]) -> bool:
    """Return whether `path` names this process's standard output, as `-` and `/dev/stdout` do."""
    return _open_file(path) == (os.getpid(), 1)


def output_free_for(*paths: Optional[str]) -> AbstractContextManager[object]:
    """Return a context in which `print` writes to standard error, if one of `paths` is standard output."""
    if any(path is not None and is_standard_output(path) for path in paths):
        return contextlib.redirect_stdout(sys.stderr)
    return contextlib.nullcontext()


def open_stream(path: Union[str, Path], mode: str, **arguments: Any) -> IO[Any]:
    """Open a stream (see `is_stream`) for writing, in mode `w` or `wb`, without truncating it."""
    open_file = _open_file(path)
    if open_file is not None and open_file[0] == os.getpid():
        # Duplicate the open file to keep its position; opening the path again would overwrite from the beginning.
        if sys.__stdout__ is not None:
            sys.__stdout__.flush()
        descriptor = os.dup(open_file[1])
    else:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND if open_file else os.O_WRONLY)
    binary = io.BufferedWriter(_Counting(descriptor))
    return binary if mode == "wb" else io.TextIOWrapper(binary, **arguments)


@contextmanager
def naming_the_file(path: Union[str, Path]) -> Iterator[None]:
    """Add `path` to an `OSError` of the `with` block, if the error has no file name and means that space ran out.

    Space ran out if the disk or the quota is full, or the file has the largest size that is allowed.
    """
    try:
        yield
    except OSError as error:
        if is_full(error) and error.filename is None:
            error.filename = str(path)
        raise


class _Counting(io.RawIOBase):
    """Unseekable file that counts the bytes written, since writers of Parquet and PDF ask for their position."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._written = descriptor, 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        count = os.write(self._descriptor, data)
        self._written += count
        return count

    def tell(self) -> int:
        return self._written

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()


def _open_file(path: Union[str, Path]) -> Optional[tuple[int, int]]:
    """Return (process id, descriptor) if `path` names an open file, as `/dev/stdout` and `/dev/fd/3` do, else None."""
    name = os.fspath(path)
    if name == _STANDARD_OUTPUT:
        return os.getpid(), 1
    for _ in range(_MOST_LINKS):
        folder, last = os.path.split(os.path.abspath(name))
        folder = os.path.realpath(folder)
        match = re.fullmatch(r"/proc/(?:self|thread-self|(\d+))(?:/task/\d+)?/fd/(\d+)", f"{folder}/{last}")
        if match:
            return int(match[1] or os.getpid()), int(match[2])
        try:
            name = os.path.join(folder, os.readlink(os.path.join(folder, last)))
        except OSError:
            return None
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fspath(path))
