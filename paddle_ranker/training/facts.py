"""What a training tells of itself: how it ended, with which options, and on which versions."""

from __future__ import annotations

import platform
from dataclasses import asdict
from importlib import metadata
from typing import Any

import paddle

from paddle_ranker import __version__
from paddle_ranker.training.options import TrainingOptions
from paddle_ranker.training.trainer import FitResult

_UNTOLD = {"debug", "save_dir", "logging_steps", "resume", "force_resume", "log_dir"}


def say_result(result: FitResult) -> None:
    """Print where a training ended, and its checkpoints."""
    figures = ", ".join(f"{name} {value:.4f}" for name, value in result.best.items() if isinstance(value, float))
    ended = "trained" if result.finished else "stopped for now (--resume goes on) after"
    print(f"{ended} {result.steps} steps in {result.seconds:.0f} s, {result.examples_per_second:.1f} examples/s")
    best = f"best: step {result.best['step']} ({figures}) -> {result.best_checkpoint}; " if result.best else ""
    print(f"{best}last: {result.last_checkpoint}", flush=True)


def versions() -> dict[str, str]:
    """Return the versions a model depends on."""
    return {
        "paddle_ranker": __version__,
        "paddlepaddle": paddle.__version__,
        "numpy": metadata.version("numpy"),
        "python": platform.python_version(),
    }


def told_options(options: TrainingOptions) -> dict[str, Any]:
    """Return the options that belong to what was trained, and not to the machine or the moment."""
    return {name: value for name, value in asdict(options).items() if name not in _UNTOLD}
