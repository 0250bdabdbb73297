"""Write a training's `save_dir`: `model_<step>`, `state_<step>` to resume from, the links `best` and `last`, the log.

A checkpoint gets its name only when it is complete and on the disk. Its state is written next, and the links move last.
So a kill at any moment leaves checkpoints that load, links to an existing checkpoint, and a state to resume from.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import IO, Callable, Optional, Union

from paddle_ranker.errors import RankerError
from paddle_ranker.storage.atomic import locked, make_folder, new_folder, point, remove_unfinished
from paddle_ranker.training.learning_curve import METRICS_FILE, PICTURE_FILE
from paddle_ranker.training.log import TrainingLog
from paddle_ranker.training.state import RunProgress, SavedState
from paddle_ranker.training.trackers import open_tracker
from paddle_ranker.training.training_options import TrainingOptions

_POINTERS = ("best", "last")
_OF_A_RUN = re.compile(r"(model|state)_(\d+)")
_LOCK = ".lock"
_RUN_FILES = (METRICS_FILE, PICTURE_FILE)


def require_free(save_dir: Union[str, Path]) -> None:
    """Raise `RankerError` if another training writes into a folder, or if the folder cannot be written to.

    Two trainings in one folder could move each other's files. A missing folder is created; if it is still empty when
    the process ends, it is removed.
    """
    folder = Path(save_dir)
    if not folder.exists():
        atexit.register(_remove_empty, folder.absolute())
    _unlock(folder, _locked(folder))


def _locked(folder: Path) -> IO[str]:
    try:
        return locked(folder / _LOCK, wait=False)
    except BlockingIOError as error:
        raise RankerError(f"{folder}: another training writes there; choose another --output") from error


def _unlock(folder: Path, lock: IO[str]) -> None:
    """Release a folder's lock; if the lock file is the only file in the folder, remove it."""
    with lock, suppress(OSError):
        if os.listdir(folder) == [_LOCK]:
            (folder / _LOCK).unlink()


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


class CheckpointKeeper:
    """Writer of a run's checkpoints in `save_dir`.

    It keeps the best checkpoint, the last one, and the last `keep` scheduled checkpoints (0: all). A checkpoint is
    scheduled if the options request it at regular steps. `start` begins a new run, and moves the files of an earlier
    run to `<save_dir>/previous_<n>`, so that nothing is overwritten; all other files in the folder stay unchanged.
    `resume` continues the earlier run instead.

    Raises `RankerError` if the folder cannot be written to, or another training is writing there.
    """

    def __init__(self, save_dir: Union[str, Path], keep: int = 0):
        self.folder = make_folder(save_dir)
        self.keep = keep
        self.last: Optional[Path] = None
        self.best: Optional[Path] = None
        self.stateless: Optional[Path] = None  # a checkpoint whose state could not be written
        self.set_aside: Optional[Path] = None
        self.scheduled: list[int] = []
        self._lock = _locked(self.folder)
        remove_unfinished(self.folder)

    def close(self) -> None:
        """Release the folder's lock, so that another training may write there."""
        _unlock(self.folder, self._lock)

    def scheduled_with(self, step: int) -> list[int]:
        """Return the steps of the scheduled checkpoints to keep after a scheduled checkpoint at `step` is saved."""
        return [*self.scheduled, step][-self.keep if self.keep else 0 :]

    def start(self) -> None:
        """Begin a new run: move an earlier run to `previous_<n>`, or remove its log if that run has no checkpoints."""
        # They are folders instead of links if a copy of `save_dir` followed the links.
        pointers = [path for path in map(self.folder.joinpath, _POINTERS) if os.path.lexists(path)]
        files = [path for path in map(self.folder.joinpath, _RUN_FILES) if path.exists()]
        folders = self._folders()
        if not pointers and not folders:
            for path in files:  # the run was killed before its first checkpoint
                path.unlink()
            return
        number = 1
        while (self.folder / f"previous_{number}").exists():
            number += 1
        aside = self.folder / f"previous_{number}"
        aside.mkdir()
        # Pointers first: moved after their targets they would point nowhere for a moment.
        for path in pointers + folders + files:
            path.rename(aside / path.name)
        self.set_aside = aside

    def resume(self, step: int, best_step: Optional[int], scheduled: list[int]) -> None:
        """Continue the run from the state of `step`; keep the checkpoints of `step`, `best_step` and `scheduled` only.

        best_step: step of the best checkpoint; None without one
        scheduled: steps of the scheduled checkpoints
        """
        self.scheduled = list(scheduled)
        self._move_pointers(step, best_step)
        self._drop_superseded()

    def save(
        self,
        step: int,
        write: Callable[[Path], None],
        write_state: Callable[[Path], None],
        *,
        scheduled: list[int],
        best_step: Optional[int] = None,
    ) -> Path:
        """Write the checkpoint `model_<step>` and its state, move the links, and remove checkpoints not to be kept.

        write: called with a folder; writes the model's files into the folder
        write_state: called with a folder; writes the state's files into the folder
        scheduled: steps whose checkpoints are kept even if they are neither the best nor the last checkpoint
        best_step: the step of the best checkpoint so far, which may be `step`; None: no checkpoint was evaluated, and
            the link `best` points to the last checkpoint

        Returns the checkpoint's path.
        """
        self.scheduled = list(scheduled)
        target = self.folder / f"model_{step}"
        with new_folder(target) as temporary:
            write(temporary)
        self.stateless = target
        with new_folder(self.folder / f"state_{step}") as temporary:
            write_state(temporary)
        self.stateless = None
        self._move_pointers(step, best_step)
        self._drop_superseded()
        return target

    def _move_pointers(self, step: int, best_step: Optional[int]) -> None:
        """Point the link `last` to the checkpoint of `step`, and `best` to that of `best_step` (None: of `step`)."""
        self.last = self.folder / f"model_{step}"
        self.best = self.last if best_step is None else self.folder / f"model_{best_step}"
        point(self.folder / "last", self.last)
        point(self.folder / "best", self.best)

    def _drop_superseded(self) -> None:
        assert self.last
        last_state = self.folder / self.last.name.replace("model", "state")
        kept = {self.last, self.best, last_state, *(self.folder / f"model_{step}" for step in self.scheduled)}
        # States first: a state is of no use without its model.
        for path in sorted(set(self._folders()) - kept, key=lambda path: path.name, reverse=True):
            # Renamed first, so that a kill in the middle of deleting leaves no checkpoint with files missing.
            doomed = path.with_name(f".unfinished-0-{path.name}")
            path.rename(doomed)
            shutil.rmtree(doomed)

    def _folders(self) -> list[Path]:
        return [path for path in self.folder.iterdir() if path.is_dir() and _OF_A_RUN.fullmatch(path.name)]


class RunFolder:
    """A run's `save_dir`: checkpoints, the state to resume from, and the log."""

    def __init__(self, options: TrainingOptions, resumed: Optional[SavedState]):
        self.keeper = CheckpointKeeper(options.save_dir, options.keep)
        try:
            if resumed:
                done = resumed.progress
                self.keeper.resume(done.step, int(done.best["step"]) if done.best else None, done.scheduled)
            else:
                self.keeper.start()
            resumed_step = resumed.progress.step if resumed else None
            tracker = None
            if (name := options.log_to) is not None:
                folder = Path(options.log_dir) if options.log_dir else self.keeper.folder / name
                tracker = open_tracker(name, folder, options.save_dir, options.recorded())
            self.log = TrainingLog(self.keeper.folder, tracker=tracker, resumed_step=resumed_step)
        except BaseException:
            self.keeper.close()
            raise
        if self.keeper.set_aside:
            self.log.report(f"checkpoints of an earlier run moved to {self.keeper.set_aside}")
        if resumed:
            self.log.report(f"resume after step {resumed.progress.step}, from {resumed.model}")

    def checkpoint(
        self,
        done: RunProgress,
        write: Callable[[Path], None],
        write_state: Callable[[Path], None],
        *,
        scheduled: bool,
    ) -> None:
        """Save the checkpoint of the last step; raises `RankerError` if it cannot be written.

        done: the progress of the run
        write, write_state: as in `CheckpointKeeper.save`
        scheduled: whether the checkpoint is a scheduled one
        """
        best = int(done.best["step"]) if done.best else None
        done.scheduled = self.keeper.scheduled_with(done.step) if scheduled else self.keeper.scheduled
        try:
            self.keeper.save(done.step, write, write_state, scheduled=done.scheduled, best_step=best)
        except OSError as error:  # most often the disk is full
            raise RankerError(
                f"{self.keeper.folder}: the checkpoint of step {done.step} could not be written "
                f"({error.strerror or error}); {self.last_good}; make room, or choose another --output"
            ) from error

    @property
    def last_good(self) -> str:
        """Return a phrase for errors that names the last checkpoint, from which a failed run can be resumed.

        If there is no checkpoint yet, the phrase says so. A checkpoint without its state is named, too.
        """
        last, stateless = self.keeper.last, self.keeper.stateless
        known = f"the last good checkpoint is {last}" if last else "there is no checkpoint to resume from"
        return f"{known}; {stateless} is whole, without its state" if stateless else known

    def close(self, best: Optional[dict[str, float]] = None, finished: bool = True) -> None:
        """Close the log and unlock the folder.

        best: `step` and measures of the best evaluation, which are the best checkpoint's
        finished: whether the training ended without an error
        """
        try:
            self.log.close(best, finished)
        finally:
            self.keeper.close()
