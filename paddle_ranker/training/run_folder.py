"""What a training run leaves in its `save_dir`."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Optional

from paddle_ranker.errors import RankerError
from paddle_ranker.training.checkpoints import CheckpointKeeper
from paddle_ranker.training.log import TrainingLog
from paddle_ranker.training.options import TrainingOptions
from paddle_ranker.training.state import Progress, SavedState


class RunFolder:
    """What a run leaves in `save_dir`: checkpoints, states to resume from, and the log."""

    def __init__(self, options: TrainingOptions, resumed: Optional[SavedState]):
        self.keeper = CheckpointKeeper(options.save_dir, options.keep)
        try:
            if resumed:
                done = resumed.progress
                self.keeper.resume(done.step, int(done.best["step"]) if done.best else None, done.scheduled)
            else:
                self.keeper.start()
            self.log = TrainingLog(
                self.keeper.folder, log_dir=options.log_dir, resumed_step=resumed.progress.step if resumed else None
            )
        except BaseException:
            self.keeper.close()
            raise
        if self.keeper.set_aside:
            self.log.say(f"checkpoints of an earlier run moved to {self.keeper.set_aside}")
        if resumed:
            self.log.say(f"resume after step {resumed.progress.step}, from {resumed.model}")

    def checkpoint(
        self,
        done: Progress,
        write: Callable[[Path], None],
        write_state: Callable[[Path], None],
        *,
        scheduled: bool,
    ) -> None:
        """Save the step that is done; raises `RankerError` where that cannot be written."""
        best = int(done.best["step"]) if done.best else None
        done.scheduled = self.keeper.scheduled_with(done.step) if scheduled else self.keeper.scheduled
        try:
            self.keeper.save(done.step, write, write_state, scheduled=done.scheduled, best_step=best)
        except OSError as error:  # a full disk, most of all
            raise RankerError(
                f"{self.keeper.folder}: the checkpoint of step {done.step} could not be written "
                f"({error.strerror or error}); {self.last_good}; make room, or choose another --save_dir"
            ) from error

    @property
    def last_good(self) -> str:
        """Where a run that fails can go on from, in words."""
        last = self.keeper.last
        return f"the last good checkpoint is {last}" if last else "there is no checkpoint yet"

    def close(self) -> None:
        """Finish the log, and let another training have the folder."""
        self.log.close()
        self.keeper.close()
