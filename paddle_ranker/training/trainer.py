"""The training loop. It reads top to bottom: batch, loss, gradients, step, progress, evaluation, checkpoint."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional, Protocol

import numpy as np
import paddle
from paddle import Tensor, nn
from tqdm import tqdm

from paddle_ranker.distributed import ProcessGroup
from paddle_ranker.encoding.batching import BatchPlan, Groups, count_batches, training_batches
from paddle_ranker.errors import RankerError, is_interrupt
from paddle_ranker.training.clock import Clock
from paddle_ranker.training.optimizer import gradient_norm, gradients_of, make_optimizer, scale_gradients
from paddle_ranker.training.options import TrainingOptions
from paddle_ranker.training.precision import Precision
from paddle_ranker.training.run_folder import RunFolder
from paddle_ranker.training.state import Progress, SavedState, check_identity, refuse_differences, write_state


class Examples(Protocol):
    """The training examples, encoded.

    Attributes: `rows_each`, the pairs that one example puts into a batch; `groups`, the examples that must stay
    together in a batch, if any must.
    """

    rows_each: int
    groups: Optional[Groups]

    def __len__(self) -> int: ...

    def lengths(self, indices: np.ndarray) -> np.ndarray:
        """Return the tokens of the longest pair of each of the examples `indices`, both `[m]`."""
        ...

    def weight(self, indices: np.ndarray) -> float:
        """Return what the mean of the loss over the examples `indices` is taken over: their number, mostly."""
        ...

    def loss(self, network: nn.Layer, indices: np.ndarray) -> tuple[Tensor, dict[str, float]]:
        """Return the mean loss over the examples `indices`, and further means for the progress line."""
        ...


@dataclass(frozen=True)
class FitResult:
    """Where a training ended: its steps, the best and the last evaluation, and its checkpoints."""

    steps: int
    finished: bool
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
    part_factors: Mapping[str, float],
    processes: ProcessGroup,
    identity: Optional[dict[str, Any]] = None,
    resumed: Optional[SavedState] = None,
    lower_is_better: bool = False,
    begin_epoch: Optional[Callable[[int], None]] = None,
    describe: Callable[[dict[str, float]], dict[str, float]] = dict,
) -> FitResult:
    """Train `network` in place.

    Args:
        examples: what to train on.
        save: writes a checkpoint's files into a folder, given the results so far.
        evaluate: returns the figures of the evaluation file, the same in every process.
        metric: the figure whose highest value, or with `lower_is_better` lowest, makes the best checkpoint.
        part_factors: learning rates of parts, times the peak, by prefix of their parameters' names.
        processes: the processes that train together; alone, a group of one.
        identity: what a resumed run must have in common with this one, as JSON holds it.
        resumed: the state to go on from; None begins anew.
        begin_epoch: told each epoch, from 1, before its first batch, and the one that a resumed run goes on in.
        describe: returns what a progress line shows of a batch's means, the loss first.

    Raises:
        RankerError: the loss is not a number (with the step, the rows and the last good checkpoint); what is to be
            resumed was started otherwise.
        KeyboardInterrupt: passed on, with the last checkpoint in its message.
    """
    plan = BatchPlan(
        options.batch_size, processes.size * options.gradient_accumulation_steps, options.max_tokens, options.seed
    )
    total_steps = _total_steps(examples, options, plan)
    optimizer, schedule = make_optimizer(
        network,
        learning_rate=options.learning_rate,
        part_factors=part_factors,
        layer_decay=options.layer_lr_decay,
        weight_decay=options.weight_decay,
        warmup_proportion=options.warmup_proportion,
        schedule=options.schedule,
        total_steps=total_steps,
    )
    precision = Precision(network, use_amp=options.use_amp, dtype=options.amp_dtype, scale_loss=options.scale_loss)
    identity = {**(identity or {}), "total_steps": total_steps, "processes": processes.size}
    done = Progress()
    if resumed:
        if not options.force_resume:
            refuse_differences(resumed, check_identity(resumed, identity))
        resumed.restore(network, optimizer, schedule)
        done = resumed.progress
        precision.restore(done.precision)
    processes.wait()  # until all have loaded what they start from: it may lie in save_dir
    processes.broadcast(network)
    run = RunFolder(options, resumed) if processes.is_first else None
    if run and precision.told:
        run.log.say(precision.told)
    network.train()
    clock, examples_before = Clock(done.step, done.seconds), done.examples
    sign = -1.0 if lower_is_better else 1.0
    stop = done.finished or done.step >= total_steps
    bar = tqdm(total=total_steps, initial=done.step, desc="train", unit="step", disable=None if run else True)
    try:
        for epoch, number, batch in () if stop else _batches(examples, options, plan, done, begin_epoch):
            step = done.step + 1
            figures = _backward(network, examples, batch, step, options.seed, precision, processes)
            if not math.isfinite(figures["loss"]):
                raise RankerError(_not_finite("loss", figures["loss"], step, batch, run))
            gradients, scale = gradients_of(network), precision.scale
            norm = gradient_norm(gradients) / scale
            if precision.update(norm):
                clipped = min(1.0, options.max_grad_norm / norm) if options.max_grad_norm and norm else 1.0
                scale_gradients(gradients, clipped / scale)
                optimizer.step()
            elif precision.hopeless:
                raise RankerError(_not_finite("gradient's norm", norm, step, batch, run))
            rate = schedule.get_lr()
            schedule.step()
            optimizer.clear_grad()
            done.step, done.epoch, done.batches = step, epoch, number
            done.examples += sum(map(len, batch))
            bar.update()

            if run and step % options.logging_steps == 0:
                told = {"learning_rate": rate, "gradient_norm": norm, "loss_scale": scale,
                        "examples": done.examples, "seconds": clock.seconds()}  # fmt: skip
                run.log.step(step, epoch, number, shown=describe(figures), told=told, speed=clock.rate(step))

            final, improved = step >= total_steps, False
            if final or step % options.eval_step == 0:
                with clock.paused():
                    done.last = {"step": step, **evaluate()}
                improved = sign * done.last[metric] > (sign * done.best[metric] if done.best else -math.inf)
                done.best = done.last if improved else done.best
                done.without_improvement = 0 if improved else done.without_improvement + 1
                if run:
                    run.log.evaluation(step, metric, done.last, lower_is_better=lower_is_better)
            done.finished = final or 0 < options.early_stopping <= done.without_improvement
            # Without an evaluation of its own: a run in several pieces ends as one in a single piece.
            out_of_time = options.max_minutes > 0 and processes.any(clock.seconds_here() >= 60 * options.max_minutes)
            stop = done.finished or out_of_time
            scheduled = step % options.save_step == 0
            if run and (stop or scheduled or improved):
                with clock.paused():
                    done.seconds, done.precision = clock.seconds(), precision.state()
                    run.checkpoint(
                        done,
                        lambda folder: save(folder, done.last),
                        lambda folder: write_state(folder, network, optimizer, done, identity, dict(part_factors)),
                        scheduled=scheduled,
                    )
            if stop:
                break
            if scheduled or improved:
                processes.wait()  # while the first one writes a checkpoint, which may take a slow disk minutes
    except BaseException as interrupt:
        if not is_interrupt(interrupt):
            raise
        place = f"at step {done.step + 1} of {total_steps}"
        raise KeyboardInterrupt(f"{place}; {run.last_good}" if run else place) from interrupt
    finally:
        bar.close()
        precision.close()
        if run:
            run.close()
    return FitResult(
        steps=done.step,
        finished=done.finished,
        best=done.best,
        last=done.last,
        best_checkpoint=run.keeper.best if run else None,
        last_checkpoint=run.keeper.last if run else None,
        seconds=clock.seconds(),
        examples_per_second=(done.examples - examples_before) / max(clock.training_seconds(), 1e-9),
    )


def _total_steps(examples: Examples, options: TrainingOptions, plan: BatchPlan) -> int:
    steps = 0
    for epoch in range(1, options.epochs + 1):
        steps += count_batches(examples, plan, epoch)
        if 0 < options.max_steps <= steps:
            return options.max_steps
    return steps


def _batches(
    examples: Examples,
    options: TrainingOptions,
    plan: BatchPlan,
    done: Progress,
    begin_epoch: Optional[Callable[[int], None]],
) -> Iterator[tuple[int, int, list[np.ndarray]]]:
    """Yield (epoch, batch in the epoch, the batch's parts), epochs and batches from 1, after those that are done."""
    skip = done.batches
    for epoch in range(done.epoch, options.epochs + 1):
        if begin_epoch:
            begin_epoch(epoch)
        for number, batch in enumerate(training_batches(examples, plan, epoch, skip), skip + 1):
            yield epoch, number, batch
        skip = 0


_FIGURES = 8  # room for so many: processes whose part of a batch is empty do not know how many there are


def _backward(
    network: nn.Layer,
    examples: Examples,
    batch: list[np.ndarray],
    step: int,
    seed: int,
    precision: Precision,
    processes: ProcessGroup,
) -> dict[str, float]:
    """Compute the gradients of the mean loss over the whole batch, times the loss scale; return that loss and figures.

    Each process computes its parts of the batch one after another; the gradients of all parts are summed.
    """
    whole = sum(examples.weight(part) for part in batch if len(part))
    sums, names = np.zeros(_FIGURES), ["loss"]
    for place in range(processes.rank, len(batch), processes.size):
        part = batch[place]
        if not len(part):
            continue
        # Dropout follows from the seed, the step and the part alone: not from what was drawn before, and not from
        # which process computes the part.
        paddle.seed(int(np.random.SeedSequence([seed, step, place]).generate_state(1)[0]))
        with precision.forward():
            loss, figures = examples.loss(network, part)
        share = examples.weight(part) / whole
        (loss * (share * precision.scale)).backward()
        names = ["loss", *figures]
        sums[: len(names)] += share * np.array([float(loss), *figures.values()])
    processes.sum_gradients(network)
    return dict(zip(names, processes.sum(sums).tolist()))


def _not_finite(what: str, value: float, step: int, batch: list[np.ndarray], run: Optional[RunFolder]) -> str:
    records = sorted(int(index) + 1 for part in batch for index in part)
    rows = ", ".join(map(str, records[:8])) + (", ..." if len(records) > 8 else "")
    last_good = f" {run.last_good};" if run else ""
    return (
        f"the {what} is {value} at step {step} (training records {rows});{last_good} "
        "try a lower --learning_rate, or --warmup_proportion 0.1"
    )
