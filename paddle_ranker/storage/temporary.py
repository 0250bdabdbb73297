"""Temporary folders that the next start removes if their process was killed; a lock shows that it is alive."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Optional

PREFIX = "paddle_ranker_"
_LOCK = ".paddle_ranker.lock"
_UNNAMED = "new_paddle_ranker_"  # prefix until the folder is locked, since unlocked folders with PREFIX are removed


class TemporaryFolder:
    """New folder in the system's temporary folder, private to the user; `cleanup` or leaving `with` removes it.

    Creating it first removes abandoned folders of dead processes. A lock identifies them, since process ids are reused.
    Forked processes share a folder, which is abandoned when all are dead.

    Attributes: `name`, the folder's path.
    """

    def __init__(self) -> None:
        remove_abandoned()
        made = Path(tempfile.mkdtemp(prefix=_UNNAMED))  # mode 0700
        self._lock: Optional[int] = os.open(made / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        named = made.with_name(PREFIX + made.name[len(_UNNAMED) :])
        made.rename(named)
        self.name = str(named)

    def __enter__(self) -> str:
        return self.name

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.cleanup()

    def cleanup(self) -> None:
        """Remove the folder and its contents."""
        if self._lock is not None:
            shutil.rmtree(self.name, ignore_errors=True)
            os.close(self._lock)
            self._lock = None


def remove_abandoned() -> None:
    """Remove this user's temporary folders of dead processes."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):  # the folder is locked, another user's, or gone meanwhile
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                continue
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # `BlockingIOError`: its process lives
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
