"""The registry of experiment trackers, `--log_to NAME`, which show the runs of many trainings beside each other.

Needs no Paddle. A guest or a plugin adds trackers; `metrics.jsonl` has all that they get, and is read back from there.
"""

from __future__ import annotations

import importlib.util
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Protocol

from paddle_ranker.errors import DependencyError, RankerError, one_line
from paddle_ranker.registry import Registry
from paddle_ranker.version import __version__


class Tracker(Protocol):
    """One run in an experiment tracker."""

    def add(self, step: int, values: Mapping[str, float], time: float) -> None:
        """Add values of a step by name (`train/loss`, `dev/auc`); `time` is in seconds since 1970."""
        ...

    def close(self, finished: bool) -> None:
        """End the run; `finished` is False if an error or an interruption ended the training."""
        ...


@dataclass(frozen=True)
class TrackerKind:
    """A kind of tracker.

    open: called with the folder for its files, the run's name, and the run's options and commit; begins a run
    library: the module that it imports
    install: arguments of `pip install` for the library
    """

    open: Callable[[Path, str, Mapping[str, object]], Tracker]
    library: str
    install: str


TRACKERS: Registry[TrackerKind] = Registry("experiment tracker", "--log_to", recipes="trackers")


def tracker_help() -> str:
    TRACKERS.load_plugins()
    return f"experiment tracker that also gets the run: {', '.join(TRACKERS) or 'none here'}"


def require_tracker(name: str) -> None:
    """Raise `UsageError` if there is no tracker `name`, and `DependencyError` if its library is not installed."""
    kind = TRACKERS[name]
    if importlib.util.find_spec(kind.library) is None:
        raise DependencyError(f"--log_to {name} needs the package {kind.library}: pip install {kind.install}")


def open_tracker(name: str, folder: Path, run: str, options: Mapping[str, object]) -> Tracker:
    """Begin a run; raises `RankerError` if the tracker cannot.

    folder: the folder for the tracker's files, made if it is missing
    run: the run's name
    options: the run's options; the commit of the working directory and this package's version are added
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return TRACKERS[name].open(folder, run, {**options, "commit": _commit(), "paddle_ranker": __version__})
    except Exception as error:  # each library has its own
        raise RankerError(f"--log_to {name}: cannot begin a run in {folder} ({one_line(error)})") from error


def _commit() -> Optional[str]:
    """Return the commit of the working directory, with `-dirty` if files differ from it; None outside of git."""
    with suppress(OSError, subprocess.SubprocessError):
        line = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(line, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
    return None
