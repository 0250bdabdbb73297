"""Temporary folders that the next start removes if their process was killed; a lock shows that it is alive."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Optional

from paddle_ranker.errors import RankerError
from paddle_ranker.storage.atomic import locked

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
        self._lock: Optional[IO[str]] = locked(made / _LOCK, wait=True)
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
            self._lock.close()
            self._lock = None


def remove_abandoned() -> None:
    """Remove this user's temporary folders of dead processes."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError, RankerError):  # the folder is locked, another user's, or gone meanwhile
            found = folder.lstat()
            if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and (folder / _LOCK).exists():
                with locked(folder / _LOCK, wait=False):  # `BlockingIOError`: its process lives
                    shutil.rmtree(folder, ignore_errors=True)
