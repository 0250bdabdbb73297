"""The files of an index folder: its `index.json`, the segments that this names, and the lock of who writes."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from paddle_ranker.errors import RankerError
from paddle_ranker.retrieval.content_files import ContentFiles
from paddle_ranker.retrieval.manifest import MANIFEST, IndexInfo, read_manifest, write_manifest
from paddle_ranker.retrieval.open_segments import Generation, open_generation
from paddle_ranker.retrieval.segments import Segment
from paddle_ranker.storage.atomic import locked

_LOCK, _WAIT_SECONDS = "writer.lock", 0.01
Lock = ExitStack  # of the folders of an index


class IndexFolder:
    """The files of an index.

    Attributes: `folder`; `folders`, those that hold segments: itself, or one of each shard.
    """

    def __init__(self, folder: Path, folders: Sequence[Path] = ()):
        self.folder, self.folders = folder, list(folders) or [folder]

    @property
    def files(self) -> ContentFiles:
        """The files that documents of any folder have in fields."""
        return ContentFiles(*self.folders)

    def read_info(self) -> IndexInfo:
        """Read index.json."""
        return read_manifest(self.folder)

    def write_info(self, info: IndexInfo) -> None:
        """Replace index.json in one step."""
        write_manifest(self.folder, info)

    def open_generation(self, opened: dict[str, Segment]) -> Generation:
        """Open the segments that index.json names now; `opened`: those by name that are open already."""
        return open_generation(self.folder, opened)

    def stamp(self) -> tuple[int, ...]:
        """Return numbers about the file index.json of each folder, which differ once it is replaced."""
        stats = [os.stat(folder / MANIFEST) for folder in self.folders]
        return tuple(number for stat in stats for number in (stat.st_ino, stat.st_mtime_ns, stat.st_size))

    def lock(self, until: float = 0.0) -> Lock:
        """Return the locks of a writer, see `take_lock`."""
        return take_lock(self.folders, until)

    def finish_change(self) -> None:
        """Finish a change that a killed writer has begun: of one folder, there is none."""

    def delete(self, name: str) -> None:
        """Delete a file or folder of this name, in whatever folder it is."""
        for folder in self.folders:
            delete(folder / name)


def take_lock(folders: Sequence[Path], until: float = 0.0) -> Lock:
    """Return the locks of writers; `until`: time on `time.monotonic()`'s clock up to which they are waited for."""
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
    """Delete a file or a folder if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
