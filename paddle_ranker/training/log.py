"""Log a training: progress lines, `metrics.jsonl`, an experiment tracker, and at the end a picture of the curves.

Each line of `metrics.jsonl` is a progress line or an evaluation:

    {"step": 10, "epoch": 1, "batch": 10, "loss": 0.0727, "learning_rate": 2e-05, "steps_per_second": 15.4, "time": ...}
    {"step": 200, "metric": "auc", "evaluation": {"auc": 0.791, "ndcg@10": 0.84}, "time": ...}

`time` is in seconds since 1970; NaN and infinities are null. What a tracker shows and the picture are made from these
lines alone. A log that cannot be written does not stop a training of days: the failure is reported once.
"""

from __future__ import annotations

import errno
import json
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Optional, cast

from tqdm import tqdm

from paddle_ranker.errors import RankerError
from paddle_ranker.storage.atomic import new_file
from paddle_ranker.training import learning_curve
from paddle_ranker.training.learning_curve import METRICS_FILE, PICTURE_FILE, MetricsLine, metric_lines, read_metrics
from paddle_ranker.training.trackers import Tracker


class TrainingLog:
    """The log of one training, written by its first process.

    A new run empties `<save_dir>/metrics.jsonl`. A resumed run keeps the lines up to the step from which it resumes,
    and drops all later lines, since their steps are repeated. Then it appends.

    A resumed run is a new run of the tracker, which first gets the kept lines: its curves are then complete, and no
    step occurs twice.

    Args:
        save_dir: an existing folder.
        tracker: a run that has begun in an experiment tracker; None: there is none.
        resumed_step: the step of the checkpoint that the training resumes from; None: a new run.

    Raises:
        RankerError: a file cannot be opened for writing.
    """

    def __init__(self, save_dir: Path, *, tracker: Optional[Tracker], resumed_step: Optional[int]):
        self.metrics = Path(save_dir) / METRICS_FILE
        self.picture = Path(save_dir) / PICTURE_FILE
        self._warned: set[str] = set()
        self._closed = False
        self._tracker, self._tracked_step = tracker, 0
        try:
            _keep_lines(self.metrics, resumed_step)
            self._lines = _LineFile(self.metrics)
        except OSError as error:
            raise RankerError(
                f"{self.metrics}: cannot write there ({error.strerror}); make room, or choose another --output"
            ) from error
        for record in read_metrics(self.metrics) if tracker else ():
            self._track(record["step"], _tagged(record), record.get("time", 0))

    def report(self, line: str) -> None:
        """Print a line above the progress bar, and flush the output: the line shows at once in a pipe or a file."""
        tqdm.write(line)
        sys.stdout.flush()

    def step(
        self, step: int, epoch: int, batch: int, *, shown: dict[str, float], more: dict[str, float], speed: float
    ) -> None:
        """Print one progress line and record it.

        step, epoch, batch: numbers from 1; a batch is numbered within its epoch
        shown: averages to print and record, by name, the loss first
        more: metrics that are recorded but not printed (`learning_rate`, `gradient_norm`, ...)
        speed: steps per second since the previous line
        """
        means = "".join(f", {name}: {value:.5f}" for name, value in shown.items())
        self.report(f"global step {step}, epoch: {epoch}, batch: {batch}{means}, speed: {speed:.2f} step/s")
        place = {"step": step, "epoch": epoch, "batch": batch}
        self._record({**place, **_plain({**shown, **more, "steps_per_second": speed})})

    def evaluation(self, step: int, metric: str, metrics: dict[str, float], *, lower_is_better: bool = False) -> None:
        """Print the metric that decides which checkpoint is best, and record all metrics.

        metric: the deciding metric's name; its highest value is the best, or its lowest value if `lower_is_better`
        metrics: values of all metrics by name; the key `step` is ignored
        """
        self.report(f"eval_dev {metric}:{metrics[metric]:.3f}")
        others = {name: value for name, value in metrics.items() if name != "step"}
        direction = {"lower_is_better": True} if lower_is_better else {}
        self._record({"step": step, "metric": metric, **direction, "evaluation": _plain(others)})

    def close(self, best: Optional[dict[str, float]] = None, finished: bool = True) -> None:
        """Close the files and draw `<save_dir>/learning_curve.png`; idempotent. Errors are reported, not raised.

        best: `step` and measures of the best evaluation, which the tracker gets as `best/auc` and so on
        finished: whether the training ended without an error
        """
        if self._closed:
            return
        self._closed = True
        self._lines.close()
        if best:  # at the last step, since some trackers refuse an earlier one
            numbers = ((f"best/{name}", value) for name, value in _plain(best).items() if value is not None)
            self._track(self._tracked_step, numbers, time.time())
        try:
            if self._tracker:
                self._tracker.close(finished)
        except Exception as error:
            self._warn("the run of --log_to", error)
        try:
            learning_curve.draw_learning_curve(self.metrics, self.picture)
        except Exception as error:  # the training itself is done and saved
            self._warn(str(self.picture), error)

    def _record(self, values: dict[str, object]) -> None:
        record = cast(MetricsLine, {**values, "time": round(time.time(), 3)})
        try:
            self._lines.append(json.dumps(record, ensure_ascii=False, allow_nan=False))
        except OSError as error:
            self._warn(str(self.metrics), error)
        self._track(record["step"], _tagged(record), record["time"])

    def _track(self, step: int, values: Iterable[tuple[str, float]], seconds: float) -> None:
        """Add values to the tracker; after an error it gets no more, as a server that is gone may cost minutes each."""
        try:
            if self._tracker:
                self._tracker.add(step, dict(values), seconds)
                self._tracked_step = step
        except Exception as error:  # each library has its own
            self._tracker = None
            self._warn("the run of --log_to", error)

    def _warn(self, what: str, error: Exception) -> None:
        if what not in self._warned:
            self._warned.add(what)
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
            tqdm.write(
                f"warning: {what} could not be written ({reason}); the training is not affected", file=sys.stderr
            )


def _keep_lines(path: Path, resumed_step: Optional[int]) -> None:
    """Rewrite `path` atomically: keep its lines up to `resumed_step`, or no lines if `resumed_step` is None."""
    with new_file(path, "wb") as stream:
        if resumed_step is not None and path.exists():
            stream.writelines(line for line, record in metric_lines(path) if record["step"] <= resumed_step)


def _plain(metrics: dict[str, float]) -> dict[str, Optional[float]]:
    """Convert metrics for JSON: NumPy's numbers to Python's, NaN and infinities to None."""
    plain = {name: value.item() if hasattr(value, "item") else value for name, value in metrics.items()}
    return {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in plain.items()}


class _LineFile:
    """A file to which complete lines are appended; each line is visible at once to a reader such as `tail -f`."""

    def __init__(self, path: Path):
        # Unbuffered: after a failure, no buffer holds text that would appear later in the middle of another line.
        self._stream = path.open("ab", buffering=0)
        self._size = self._stream.tell()

    def append(self, line: str) -> None:
        """Append a line; if it cannot be written completely, restore the file and raise `OSError`."""
        data = (line + "\n").encode()
        try:
            if self._stream.write(data) != len(data):  # the disk was full in the middle
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            with suppress(OSError):
                self._stream.truncate(self._size)
            raise
        self._size += len(data)

    def close(self) -> None:
        self._stream.close()


def _tagged(record: MetricsLine) -> Iterator[tuple[str, float]]:
    if "evaluation" in record:
        yield from ((f"dev/{name}", value) for name, value in record["evaluation"].items() if value is not None)
        return
    for name, value in record.items():
        if name not in ("step", "batch", "time") and isinstance(value, (int, float)):
            yield "train/speed" if name == "steps_per_second" else f"train/{name}", value


class Clock:
    """Clock of a run: measures the run's seconds, and its steps per second without pauses.

    The time of evaluations and of saving is a pause.
    """

    def __init__(self, step: int, seconds_before: float) -> None:
        self._start = self._mark = time.perf_counter()
        self._mark_step, self._before = step, seconds_before
        self._paused = self._paused_in_all = 0.0

    def rate(self, step: int) -> float:
        """Return the steps per second since the last call, without pauses; `step` is the number of steps done."""
        now = time.perf_counter()
        rate = (step - self._mark_step) / max(now - self._mark - self._paused, 1e-9)
        self._mark, self._mark_step, self._paused = now, step, 0.0
        return rate

    def seconds_here(self) -> float:
        """Return the seconds since this process began to train."""
        return time.perf_counter() - self._start

    def seconds(self) -> float:
        """Return the seconds of the run, including the time before the run was interrupted and resumed."""
        return self._before + self.seconds_here()

    def training_seconds(self) -> float:
        """Return the seconds that this process has trained, without pauses."""
        return self.seconds_here() - self._paused_in_all

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Exclude the time of the block from `rate` and `training_seconds`."""
        start = time.perf_counter()
        yield
        pause = time.perf_counter() - start
        self._paused += pause
        self._paused_in_all += pause
