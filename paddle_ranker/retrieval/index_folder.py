"""Files of an index folder: `index.json`, the segments that it names, and the writers' lock."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from paddle_ranker.errors import CheckpointError, RankerError
from paddle_ranker.retrieval.manifest import MANIFEST, IndexInfo, read_manifest, write_manifest
from paddle_ranker.retrieval.open_segments import Generation
from paddle_ranker.retrieval.segments import Segment
from paddle_ranker.storage.atomic import locked

_LOCK, _WAIT_SECONDS = "writer.lock", 0.01
WRITER_WAIT = 10.0  # seconds for which commands and notebooks wait for another process that writes to the index
Lock = ExitStack  # of the folders of an index


class IndexFolder:
    """Files of an index.

    Attributes:
        folder: the index folder.
        folders: folders that hold segments: `folder` itself, or each shard's.
    """

    def __init__(self, folder: Path, folders: Sequence[Path] = ()):
        self.folder, self.folders = folder, list(folders) or [folder]

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
        """Lock all `folders` for writing; see `take_lock`."""
        return take_lock(self.folders, until)

    def finish_change(self) -> None:
        """Finish a change that a killed writer began in several folders; does nothing for a single folder."""

    def delete(self, name: str) -> None:
        """Delete the file or folder of this name in each of `folders`."""
        for folder in self.folders:
            delete(folder / name)


def take_lock(folders: Sequence[Path], until: float = 0.0) -> Lock:
    """Lock folders for writing and return the lock.

    until: time on `time.monotonic()`'s clock up to which to wait for other writers
    """
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
