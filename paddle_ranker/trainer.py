"""The training loop. It reads top to bottom: batch, loss, gradients, step, progress, evaluation, checkpoint."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional, Protocol

import numpy as np
import paddle
from paddle import Tensor, nn
from tqdm import tqdm

from paddle_ranker.batching import training_batches
from paddle_ranker.checkpoints import CheckpointKeeper
from paddle_ranker.distributed import ProcessGroup
from paddle_ranker.errors import RankerError
from paddle_ranker.schedule import make_optimizer
from paddle_ranker.training_options import TrainingOptions


class Examples(Protocol):
    """The training examples, encoded."""

    @property
    def lengths(self) -> np.ndarray:
        """`[n]` tokens that each example costs."""
        ...

    def loss(self, network: nn.Layer, indices: np.ndarray) -> tuple[Tensor, dict[str, float]]:
        """Return the mean loss over the examples `indices`, and further figures for the progress line."""
        ...


@dataclass(frozen=True)
class FitResult:
    """Where a training ended: its steps, the best and the last evaluation, and its checkpoints."""

    steps: int
    best: dict[str, float]
    last: dict[str, float]
    best_checkpoint: Optional[Path]
    last_checkpoint: Optional[Path]
    seconds: float
    examples_per_second: float


def fit(
    network: nn.Layer,
    examples: Examples,
    options: TrainingOptions,
    *,
    save: Callable[[Path, dict[str, Any]], None],
    evaluate: Callable[[], dict[str, float]],
    metric: str,
    new_parts: list[str],
    processes: ProcessGroup,
) -> FitResult:
    """Train `network` in place.

    Args:
        examples: what to train on.
        save: writes a checkpoint's files into a folder, given the results so far.
        evaluate: returns the figures of the evaluation file.
        metric: the figure whose highest value makes the best checkpoint.
        new_parts: prefixes of parameters that start from nothing, for their learning rate.
        processes: the processes that train together; alone, a group of one.

    Raises:
        RankerError: the loss is not a number, with the step, the rows and the last good checkpoint.
        KeyboardInterrupt: passed on, with the last checkpoint in its message.
    """
    processes.wait()  # until all have loaded what they start from: it may lie in save_dir
    keeper = CheckpointKeeper(options.save_dir, options.keep) if processes.is_first else None
    if keeper and keeper.set_aside:
        _say(f"checkpoints of an earlier run moved to {keeper.set_aside}")
    total_steps = _total_steps(examples, options, processes)
    optimizer, schedule = make_optimizer(
        network,
        learning_rate=options.learning_rate,
        new_parts=new_parts,
        new_parts_factor=options.new_parts_factor,
        weight_decay=options.weight_decay,
        warmup_proportion=options.warmup_proportion,
        total_steps=total_steps,
        max_grad_norm=options.max_grad_norm,
    )
    processes.broadcast(network)
    network.train()
    best: dict[str, float] = {}
    last: dict[str, float] = {}
    seen, started, clock = 0, time.perf_counter(), _Clock()
    progress = tqdm(total=total_steps, desc="train", unit="step", disable=None if processes.is_first else True)
    step = 0
    try:
        for step, epoch, number, indices in _schedule_of_batches(examples, options, processes, total_steps):
            # Dropout follows from the seed and the step alone, not from what was drawn before.
            paddle.seed(_step_seed(options.seed, step, processes.rank))
            share = indices[processes.rank :: processes.size]
            loss, figures = processes.backward(network, lambda part: examples.loss(network, part), share, len(indices))
            if not math.isfinite(loss):
                raise RankerError(_not_finite(loss, step, indices, keeper))
            optimizer.step()
            schedule.step()
            optimizer.clear_grad()
            seen += len(indices)
            progress.update()
            if step % options.logging_steps == 0 and processes.is_first:
                shown = "".join(f", {name}: {value:.5f}" for name, value in {"loss": loss, **figures}.items())
                speed = f"speed: {clock.rate(step):.2f} step/s"
                _say(f"global step {step}, epoch: {epoch}, batch: {number}{shown}, {speed}")
            final = step == total_steps
            scheduled = step % options.save_step == 0
            if processes.is_first and keeper and (final or scheduled or step % options.eval_step == 0):
                with clock.paused():
                    if final or step % options.eval_step == 0:
                        last = {"step": step, **evaluate()}
                        _say(f"eval_dev {metric}:{last[metric]:.3f}")
                    improved = bool(last) and last["step"] == step and last[metric] > best.get(metric, -math.inf)
                    best = last if improved else best
                    if final or scheduled or improved:
                        _save(keeper, step, save, last, scheduled, improved)
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(f"at step {step} of {total_steps}; {_last_good(keeper)}") from interrupt
    finally:
        progress.close()
        if keeper:
            keeper.close()
    seconds = time.perf_counter() - started
    return FitResult(
        steps=step,
        best=best,
        last=last,
        best_checkpoint=keeper.best if keeper else None,
        last_checkpoint=keeper.last if keeper else None,
        seconds=seconds,
        examples_per_second=seen / max(clock.elapsed(), 1e-9),
    )


def _say(line: str) -> None:
    """Print a line above the progress bar, at once even into a pipe or a file."""
    tqdm.write(line)
    sys.stdout.flush()


def _epoch_batches(
    examples: Examples, options: TrainingOptions, processes: ProcessGroup, epoch: int
) -> list[np.ndarray]:
    # Formed for all processes together and split afterwards, so that every process pads to similar lengths.
    return training_batches(examples.lengths, options.batch_size * processes.size, options.seed, epoch)


def _total_steps(examples: Examples, options: TrainingOptions, processes: ProcessGroup) -> int:
    steps = options.epochs * len(_epoch_batches(examples, options, processes, 1))
    return min(steps, options.max_steps) if options.max_steps else steps


def _schedule_of_batches(
    examples: Examples, options: TrainingOptions, processes: ProcessGroup, total_steps: int
) -> Iterator[tuple[int, int, int, np.ndarray]]:
    """Yield (global step, epoch, batch in the epoch, indices), all from 1, until `total_steps`."""
    step = 0
    for epoch in range(1, options.epochs + 1):
        for number, indices in enumerate(_epoch_batches(examples, options, processes, epoch), 1):
            step += 1
            yield step, epoch, number, indices
            if step == total_steps:
                return


def _save(
    keeper: CheckpointKeeper,
    step: int,
    save: Callable[[Path, dict[str, Any]], None],
    results: dict[str, float],
    scheduled: bool,
    best: bool,
) -> None:
    try:
        keeper.save(step, lambda folder: save(folder, results), scheduled=scheduled, best=best)
    except OSError as error:  # a full disk, most of all
        raise RankerError(
            f"{keeper.folder}: the checkpoint of step {step} could not be written ({error.strerror or error}); "
            f"{_last_good(keeper)}; make room, or choose another --save_dir"
        ) from error


def _step_seed(seed: int, step: int, rank: int) -> int:
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0])


def _not_finite(loss: float, step: int, indices: np.ndarray, keeper: Optional[CheckpointKeeper]) -> str:
    rows = ", ".join(str(i + 1) for i in sorted(indices)[:8]) + (", ..." if len(indices) > 8 else "")
    return (
        f"the loss is {loss} at step {step} (training records {rows}); {_last_good(keeper)}; "
        "try a lower --learning_rate, or --warmup_proportion 0.1"
    )


def _last_good(keeper: Optional[CheckpointKeeper]) -> str:
    return f"the last good checkpoint is {keeper.last}" if keeper and keeper.last else "there is no checkpoint yet"


class _Clock:
    """Steps a second between two progress lines, evaluation and saving left out."""

    def __init__(self) -> None:
        self._start = self._mark = time.perf_counter()
        self._mark_step = 0
        self._paused = 0.0
        self._paused_in_all = 0.0

    def rate(self, step: int) -> float:
        now = time.perf_counter()
        rate = (step - self._mark_step) / max(now - self._mark - self._paused, 1e-9)
        self._mark, self._mark_step, self._paused = now, step, 0.0
        return rate

    def elapsed(self) -> float:
        return time.perf_counter() - self._start - self._paused_in_all

    def paused(self) -> _Pause:
        return _Pause(self)


class _Pause:
    def __init__(self, clock: _Clock):
        self.clock = clock

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        pause = time.perf_counter() - self.start
        self.clock._paused += pause
        self.clock._paused_in_all += pause
