"""The checkpoints of one training run: `model_<step>` folders, and the pointers `last` and `best`.

A checkpoint gets its name only when it is complete and on the disk, and the pointers move after that. A kill at any
moment leaves checkpoints that load, and pointers that point to one.
"""

from __future__ import annotations

import fcntl
import re
import shutil
from pathlib import Path
from typing import Callable, Optional, Union

from paddle_ranker.atomic import make_folder, new_folder, point, remove_unfinished
from paddle_ranker.errors import RankerError

_POINTERS = ("best", "last")


class CheckpointKeeper:
    """Write a run's checkpoints into `save_dir`, keeping the best, the last and at most `keep` (0: all) scheduled ones.

    Checkpoints of an earlier run that are found there move to `<save_dir>/previous_<n>`: nothing is overwritten, and
    nothing else in the folder is touched.

    Raises `RankerError` where the folder cannot be written to, or another training is writing there.
    """

    def __init__(self, save_dir: Union[str, Path], keep: int = 0):
        self.folder = make_folder(save_dir)
        self.keep = keep
        self.last: Optional[Path] = None
        self.best: Optional[Path] = None
        self._scheduled: list[Path] = []
        self._written: list[Path] = []
        self._lock = (self.folder / ".lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise RankerError(f"{self.folder}: another training writes there; choose another --save_dir") from error
        remove_unfinished(self.folder)
        self.set_aside = self._set_aside_earlier_run()

    def close(self) -> None:
        """Let another training have the folder."""
        self._lock.close()

    def _set_aside_earlier_run(self) -> Optional[Path]:
        pointers = [path for path in map(self.folder.joinpath, _POINTERS) if path.is_symlink()]
        checkpoints = [
            path for path in self.folder.iterdir() if path.is_dir() and re.fullmatch(r"model_\d+", path.name)
        ]
        if not pointers and not checkpoints:
            return None
        number = 1
        while (self.folder / f"previous_{number}").exists():
            number += 1
        aside = self.folder / f"previous_{number}"
        aside.mkdir()
        # Pointers first: moved after their targets they would point nowhere for a moment.
        for path in pointers + checkpoints:
            path.rename(aside / path.name)
        return aside

    def save(self, step: int, write: Callable[[Path], None], *, scheduled: bool, best: bool = False) -> Path:
        """Write checkpoint `model_<step>` with `write(folder)`, move the pointers, and drop what need not stay.

        Saving the same step twice writes once. `scheduled` checkpoints stay (as many as `keep` says) even when they
        are neither the best nor the last.
        """
        target = self.folder / f"model_{step}"
        if target != self.last:
            with new_folder(target) as temporary:
                write(temporary)
            self._written.append(target)
            self.last = target
            point(self.folder / "last", target)
        if best:
            self.best = target
            point(self.folder / "best", target)
        if scheduled and target not in self._scheduled:
            self._scheduled.append(target)
        self._drop_superseded()
        return target

    def _drop_superseded(self) -> None:
        if self.keep:
            self._scheduled = self._scheduled[-self.keep :]
        kept = {self.last, self.best, *self._scheduled}
        for path in [path for path in self._written if path not in kept]:
            # Renamed first, so that a kill in the middle of deleting leaves no checkpoint with files missing.
            doomed = path.with_name(f".unfinished-0-{path.name}")
            path.rename(doomed)
            shutil.rmtree(doomed)
            self._written.remove(path)
