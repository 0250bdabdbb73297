"""Files of an index folder: `index.json`, the segments that it names, and the writers' lock."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Optional

from paddle_ranker.errors import CheckpointError, RankerError
from paddle_ranker.retrieval.snapshots.open_segments import Generation
from paddle_ranker.retrieval.stored.manifest import MANIFEST, IndexInfo, read_manifest, write_manifest
from paddle_ranker.retrieval.stored.segments import Segment

_LOCK, _WAIT_SECONDS = "writer.lock", 0.01
WRITER_WAIT = 10.0  # seconds for which commands and notebooks wait for another process that writes to the index
Lock = ExitStack  # of the folders of an index


class IndexFolder:
    """Files of an index.

    Links in the paths are followed once, here. A link that moves later, or another folder that takes the place of this
    one, is never read from or written to: `require_same` compares device and inode before each change.

    Attributes:
        folder: the index folder.
        folders: folders that hold segments: `folder` itself, or each shard's.
    """

    def __init__(self, folder: Path, folders: Sequence[Path] = ()):
        self.folder = without_links(folder)
        self.folders = [without_links(path) for path in folders] or [self.folder]
        self._opened = {path: _identity(path) for path in (self.folder, *self.folders)}

    @property
    def is_same(self) -> bool:
        """Whether the folders are those that were opened; True for folders that were missing then."""
        return all(opened in (None, _identity(path)) for path, opened in self._opened.items())

    def require_same(self) -> None:
        """Raise `RankerError` if a folder has been moved, or deleted, since it was opened."""
        if not self.is_same:
            raise RankerError(f"{self.folder}: was moved since it was opened, and is not changed; open the index again")

    def read_info(self) -> IndexInfo:
        return read_manifest(self.folder)

    def write_info(self, info: IndexInfo) -> None:
        """Replace index.json atomically."""
        write_manifest(self.folder, info)

    def open_generation(self, opened: dict[str, Segment]) -> Generation:
        """Open the segments that index.json names; start again if a writer meanwhile replaces it and deletes files.

        opened: segments that are open already, by name
        """
        while True:
            info = self.read_info()
            try:
                return Generation(self.folders, info, opened)
            except FileNotFoundError as error:
                if self.read_info().generation == info.generation:
                    missing = os.path.relpath(str(error.filename), self.folder)
                    raise CheckpointError(f"{self.folder}: {missing} is missing; copy the index again") from error

    def stamp(self) -> tuple[int, ...]:
        """Return inode, time and size of each folder's index.json, which differ once the file is replaced."""
        stats = [os.stat(folder / MANIFEST) for folder in self.folders]
        return tuple(number for stat in stats for number in (stat.st_ino, stat.st_mtime_ns, stat.st_size))

    def lock(self, until: float = 0.0) -> Lock:
        """Lock all `folders` for writing; see `take_lock` and `require_same`."""
        self.require_same()
        with ExitStack() as held:
            held.enter_context(take_lock(self.folders, until))
            self.require_same()
            self._opened = {path: opened or _identity(path) for path, opened in self._opened.items()}
            return held.pop_all()

    def finish_change(self) -> None:
        """Finish a change that a killed writer began in several folders; does nothing for a single folder."""

    def delete(self, name: str) -> None:
        """Delete the file or folder of this name in each of `folders`."""
        for folder in self.folders:
            delete(folder / name)


def without_links(folder: Path) -> Path:
    """Return the path of the folder to which links in a path lead; a path without links stays as it is."""
    real = os.path.realpath(folder)
    return folder if real == os.path.abspath(folder) else Path(real)


def _identity(folder: Path) -> Optional[tuple[int, int]]:
    """Return device and inode of a folder; None if it is missing."""
    try:
        found = os.stat(folder)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


def take_lock(folders: Sequence[Path], until: float = 0.0) -> Lock:
    """Lock folders for writing and return the lock.

    until: time on `time.monotonic()`'s clock up to which to wait for other writers
    """
    from paddle_ranker.storage.atomic import locked

    with ExitStack() as held:
        for folder in folders:
            while True:
                try:
                    held.enter_context(locked(folder / _LOCK, wait=False))
                    break
                except BlockingIOError:
                    if time.monotonic() >= until:
                        raise RankerError(f"{folder}: another process is writing to it; wait for its end") from None
                time.sleep(_WAIT_SECONDS)
        return held.pop_all()


def delete(path: Path) -> None:
    """Delete a file or a folder if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
