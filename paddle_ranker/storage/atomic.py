"""Write files and folders so that a reader, or a kill at any moment, finds the old or the new one, never a half.

What is no regular file (a device, a FIFO, `/dev/stdout`) is written to as it is: see `streams.py`. Files made or
fetched once are kept in `cache_folder`.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import resource
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Optional, Union

from paddle_ranker.errors import DataError, RankerError, is_full
from paddle_ranker.storage.streams import is_standard_output, is_stream, naming_the_file, open_stream

_ALMOST_NOTHING = 1 << 16  # bytes
UNFINISHED = ".unfinished-"  # how the names of temporary files and folders begin


def make_folder(folder: Union[str, Path]) -> Path:
    """Create a folder (and its parents) that can be written to; raises `RankerError` where that is not possible."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise RankerError(f"{folder}: cannot write there ({error.strerror}); choose another folder") from error
    return folder


def remove_unfinished(parent: Path) -> None:
    """Delete what killed processes left behind in `parent`; leave alone what a living process is writing."""
    for entry in parent.glob(f"{UNFINISHED}*"):
        process = entry.name[len(UNFINISHED) :].split("-")[0]
        if not (process.isdigit() and Path(f"/proc/{process}").exists() and int(process) != os.getpid()):
            _remove(entry)


@contextmanager
def new_folder(target: Path, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary folder that becomes `target` when the block ends well, and vanishes when it does not.

    Every file is synced to the disk before the rename. `target` must not exist, unless it may be replaced: then the old
    folder is there until the new one is complete, and is deleted after that. An error of a full disk names `target`.

    Raises `RankerError` where `target` is there already, or is no folder.
    """
    if replace:
        target = Path(os.path.realpath(target))
        if target.exists() and not target.is_dir():
            raise RankerError(f"{target}: is no folder; choose another name")
    temporary = Path(tempfile.mkdtemp(prefix=f"{UNFINISHED}{os.getpid()}-", dir=target.parent))
    try:
        with naming_the_file(target):
            yield temporary
        temporary.chmod(0o755)  # mkdtemp's folders are readable by their owner alone
        for path in [*temporary.rglob("*"), temporary]:
            _sync(path)
        if not target.exists():
            os.rename(temporary, target)
        elif not replace:
            raise RankerError(f"{target}: is there already")
        else:
            _exchange(temporary, target)
            shutil.rmtree(temporary, ignore_errors=True)
        _sync(target.parent)
    except BaseException as error:
        # Paddle's own code writes what it can, says nothing, and fails at what it reads.
        full = None if is_full(error) or not isinstance(error, Exception) else _full(temporary)
        shutil.rmtree(temporary, ignore_errors=True)
        if full is not None:
            raise OSError(full, os.strerror(full), str(target)) from error
        raise


def _full(folder: Path) -> Optional[int]:
    """Return EFBIG where a file has reached the limit on sizes, ENOSPC where the disk is full, else None."""
    most = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    if most != resource.RLIM_INFINITY and max(sizes, default=0) >= most:
        return errno.EFBIG
    return errno.ENOSPC if shutil.disk_usage(folder).free < _ALMOST_NOTHING else None


@contextmanager
def made_once(target: Path) -> Iterator[bool]:
    """Hold a lock beside `target`; yield whether it is still to be made. Of several processes one makes it.

    Where it was not made, and its folder holds nothing else, neither the lock nor the folder stays.
    """
    path = target.parent / f".{target.name}.lock"
    with locked(path, wait=True):
        try:
            yield not target.exists()
        finally:
            with suppress(OSError):
                if os.listdir(path.parent) == [path.name]:
                    path.unlink()
                    path.parent.rmdir()


def locked(path: Path, *, wait: bool) -> IO[str]:
    """Open a file and lock it until it is closed; its holder may remove it.

    Raises `BlockingIOError` where another has it and `wait` is not asked for, `RankerError` where it cannot be made.
    """
    while True:
        make_folder(path.parent)
        lock = path.open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(lock.fileno()), path.stat()):
                return lock
        except FileNotFoundError:
            pass
        except BaseException:
            lock.close()
            raise
        lock.close()  # it was removed before it was locked


@contextmanager
def new_file(target: Union[str, Path], mode: str = "w", **arguments: Any) -> Iterator[IO[Any]]:
    """Yield an open temporary file that replaces `target` when the block ends well.

    A symbolic link stays one: the file that it points to is replaced. Anything that exists and is no regular file is
    written to directly. An error of a full disk names `target`.

    Args:
        mode: `w`, text, UTF-8 where no `encoding` is given, or `wb`.
    """
    if mode == "w":
        arguments.setdefault("encoding", "utf-8")
    with naming_the_file(target):
        if is_stream(target):
            with open_stream(target, mode, **arguments) as stream:
                yield stream
            return
        real = Path(os.path.realpath(target))
        temporary = real.with_name(f"{UNFINISHED}{os.getpid()}-{real.name}")
        try:
            with open(temporary, mode, **arguments) as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, real)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def check_writable(path: Union[str, Path]) -> None:
    """Raise `DataError` for a path that cannot be written: commands check before long work."""
    if is_stream(path):
        if not (is_standard_output(path) or os.access(path, os.W_OK)):
            raise DataError(f"{path}: cannot be written to; name a file that can")
        return
    target = os.path.realpath(path)
    if os.path.isdir(target) or not os.access(os.path.dirname(target), os.W_OK):
        raise DataError(f"{path}: cannot be written there; name a file in a folder that exists and can be written to")


def point(link: Path, target: Path) -> None:
    """Make `link` a symbolic link to its sibling `target`, replacing an older link atomically."""
    temporary = link.with_name(f"{UNFINISHED}{os.getpid()}-{link.name}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target.name)
    os.replace(temporary, link)
    _sync(link.parent)


def _exchange(one: Path, other: Path) -> None:
    """Exchange the names of two folders: atomically where the system can, else in steps."""
    here, exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    if rename is not None and rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0:
        return
    aside = one.with_name(f"{one.name}-old")
    os.rename(other, aside)
    try:
        os.rename(one, other)
    except OSError:
        os.rename(aside, other)
        raise
    os.rename(aside, one)


def _remove(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        entry.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cache_folder(*parts: str) -> Path:
    """Return a folder of the user's cache: under `PADDLE_RANKER_CACHE`, else `XDG_CACHE_HOME`, else `~/.cache`."""
    own = os.environ.get("PADDLE_RANKER_CACHE")
    root = Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "paddle_ranker"
    return root.joinpath(*parts)
