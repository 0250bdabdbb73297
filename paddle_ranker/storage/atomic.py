"""Write files and folders atomically: readers see the old or the new content, never a part, even after a kill.

Devices, FIFOs and `/dev/stdout` are written to directly, see `streams.py`. `cache_folder` holds files that are created
or fetched once.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import resource
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Optional, Union

from paddle_ranker.addresses import called
from paddle_ranker.errors import DataError, RankerError, is_full
from paddle_ranker.libraries import cache_folder as cache_folder
from paddle_ranker.storage.streams import is_standard_output, is_stream, naming_the_file, open_stream

_ALMOST_NOTHING = 1 << 16  # bytes; a disk with less free space counts as full
UNFINISHED = ".unfinished-"  # prefix of temporary files and folders


def write_json(path: Path, value: object) -> None:
    """Write a JSON file, not atomically: for a folder that nobody reads yet, such as that of `new_folder`."""
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def make_folder(folder: Union[str, Path]) -> Path:
    """Create a folder and its parents if missing; raises `RankerError` if it cannot be created or written to."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise RankerError(f"{folder}: cannot write there ({error.strerror}); choose another folder") from error
    return folder


def remove_unfinished(parent: Path) -> None:
    """Delete unfinished files and folders in `parent`, except those of other living processes."""
    for entry in parent.glob(f"{UNFINISHED}*"):
        process = entry.name[len(UNFINISHED) :].split("-")[0]
        if not (process.isdigit() and Path(f"/proc/{process}").exists() and int(process) != os.getpid()):
            _remove(entry)


@contextmanager
def new_folder(target: Path, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary folder that becomes `target` if the block succeeds, and is deleted if it raises.

    Files are synced to the disk before the rename. With `replace`, an existing folder `target` stays until the new
    folder is complete, and is then deleted. The error of a full disk names `target`.

    Raises `RankerError` if `target` exists, unless it is a folder and `replace` is set.
    """
    if replace:
        target = Path(os.path.realpath(target))
        if target.exists() and not target.is_dir():
            raise RankerError(f"{target}: is no folder; choose another name")
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f"{UNFINISHED}{os.getpid()}-", dir=target.parent))
    except OSError as error:
        error.filename = str(target)
        raise
    try:
        with naming_the_file(target), called(temporary, target):
            yield temporary
        temporary.chmod(0o755)  # mkdtemp's folders are readable by their owner alone
        for path in [*temporary.rglob("*"), temporary]:
            sync(path)
        if not target.exists():
            os.rename(temporary, target)
        elif not replace:
            raise RankerError(f"{target}: is there already")
        else:
            _exchange(temporary, target)
            shutil.rmtree(temporary, ignore_errors=True)
        sync(target.parent)
    except BaseException as error:
        # On a full disk, Paddle silently truncates files, and fails later when it reads them.
        full = None if is_full(error) or not isinstance(error, Exception) else _full(temporary)
        shutil.rmtree(temporary, ignore_errors=True)
        if full is not None:
            raise OSError(full, os.strerror(full), str(target)) from error
        raise


def _full(folder: Path) -> Optional[int]:
    """Return an error number if `folder` is full, else None.

    The number is EFBIG if a file has the largest size that the process may write, ENOSPC if the disk is full.
    """
    most = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    if most != resource.RLIM_INFINITY and max(sizes, default=0) >= most:
        return errno.EFBIG
    return errno.ENOSPC if shutil.disk_usage(folder).free < _ALMOST_NOTHING else None


@contextmanager
def made_once(target: Path) -> Iterator[bool]:
    """Hold a lock beside `target` during the block; yield True if the block must create `target`, which is missing.

    Afterwards, if the folder around `target` contains nothing but the lock, the lock and the folder are removed.
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
    """Create the file `path` if missing, and return it open and locked; closing it releases the lock.

    Whoever holds the lock may delete the file. Raises `BlockingIOError` if another process holds the lock and `wait` is
    False, `RankerError` if the folder cannot be written to or `path` is no regular file.
    """
    while True:
        make_folder(path.parent)
        flags = os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC  # a pipe would block
        try:
            lock = os.fdopen(os.open(path, flags, 0o666), "w")
        except OSError as error:
            raise RankerError(f"{path}: is no file to lock ({error.strerror}); delete it") from error
        if not stat.S_ISREG(os.fstat(lock.fileno()).st_mode):
            lock.close()
            raise RankerError(f"{path}: is a pipe or device, no file to lock; delete it")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(lock.fileno()), path.stat()):
                return lock
        except FileNotFoundError:
            pass
        except BaseException:
            lock.close()
            raise
        lock.close()  # the file was deleted before it was locked: try again


@contextmanager
def new_file(target: Union[str, Path], mode: str = "w", **arguments: Any) -> Iterator[IO[Any]]:
    """Yield an open temporary file that replaces `target` if the block succeeds.

    If `target` is a symbolic link, its destination is replaced. Streams (see `streams.is_stream`) are written to
    directly. The error of a full disk names `target`.

    mode: `w` for text, in UTF-8 unless `encoding` is given, or `wb`
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
            with called(temporary, target), open(temporary, mode, **arguments) as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, real)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def make_private_file(path: Path, text: str) -> None:
    """Make a file that only its user can read; where another process has made it meanwhile, that one stays."""
    descriptor, made = tempfile.mkstemp(prefix=UNFINISHED, dir=path.parent)  # readable by its user alone
    try:
        with open(descriptor, "w", encoding="ascii") as stream:
            stream.write(text)
        with suppress(FileExistsError):
            os.link(made, path)
    finally:
        os.unlink(made)


def link_or_copy(source: Union[str, Path], target: Union[str, Path]) -> None:
    """Make `target` a hard link to the file `source`, or a copy of it if the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def check_writable(*paths: Union[str, Path, None]) -> None:
    """Raise `DataError` if one of the paths, other than None, cannot be written to; call it before long work."""
    for path in paths:
        if path is None:
            continue
        if is_stream(path):
            if not (is_standard_output(path) or os.access(path, os.W_OK)):
                raise DataError(f"{path}: cannot be written to; name a file that can")
            continue
        target = os.path.realpath(path)
        if os.path.isdir(target) or not os.access(os.path.dirname(target), os.W_OK):
            raise DataError(
                f"{path}: cannot be written there; name a file in a folder that exists and can be written to"
            )


def point(link: Path, target: Path) -> None:
    """Make `link` a relative symbolic link to `target`, atomically replacing an older link.

    A folder in the link's place, as left by `cp -rL`, is replaced and deleted.
    """
    temporary = link.with_name(f"{UNFINISHED}{os.getpid()}-{link.name}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(os.path.relpath(target, link.parent))
    if link.is_dir() and not link.is_symlink():
        _exchange(temporary, link)
        shutil.rmtree(temporary)
    else:
        os.replace(temporary, link)
    sync(link.parent)


def _exchange(first: Path, second: Path) -> None:
    """Exchange the names of two folders or links, atomically if supported, else by three renames."""
    here, exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    if rename is not None and rename(here, os.fsencode(first), here, os.fsencode(second), exchange) == 0:
        return
    aside = first.with_name(f"{first.name}-old")
    os.rename(second, aside)
    try:
        os.rename(first, second)
    except OSError:
        os.rename(aside, second)
        raise
    os.rename(aside, first)


def _remove(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        entry.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
