"""The training loop. It reads top to bottom: batch, loss, gradients, step, progress, evaluation, checkpoint."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from typing import Optional

import numpy as np
import paddle
from tqdm import tqdm

from paddle_ranker.distributed import ProcessGroup
from paddle_ranker.encoding.batching import PACKING, BatchPlan, count_batches, mean_fill, training_batches
from paddle_ranker.errors import RankerError, is_interrupt
from paddle_ranker.interrupts import Interrupted, StopRequest
from paddle_ranker.training.checkpoints import RunFolder
from paddle_ranker.training.log import Clock
from paddle_ranker.training.optimizer import gradient_norm, gradients_of, make_optimizer, scale_gradients
from paddle_ranker.training.options import TrainingOptions
from paddle_ranker.training.precision import Precision
from paddle_ranker.training.state import Progress, SavedState, check_identity, refuse_differences, write_state
from paddle_ranker.training.task import FitResult, Task


def fit(
    task: Task, options: TrainingOptions, processes: ProcessGroup, resumed: Optional[SavedState] = None
) -> FitResult:
    """Train as the options say.

    Args:
        processes: those that train together; alone, a group of one.
        resumed: the state to go on from; None begins anew.

    Raises:
        RankerError: the loss is NaN or infinite (with the step, the rows and the last good checkpoint); every step was
            skipped; what is to be resumed was started otherwise.
        KeyboardInterrupt: at the first Ctrl-C or SIGTERM, as `Interrupted`, after the step has ended and is saved; at
            the second at once. With the last checkpoint in its message.
    """
    with StopRequest().awaited() as stop:
        trainer = _Trainer(task, options, processes, resumed, stop)
        try:
            return trainer.train()
        except BaseException as interrupt:
            if isinstance(interrupt, Interrupted) or not is_interrupt(interrupt):
                raise
            raise trainer.interrupted(trainer.done.step + 1) from interrupt
        finally:
            trainer.close()


class _Trainer:
    """A training in its process; the arguments are those of `fit`, and `stop`. Attribute: `done`, where it stands."""

    def __init__(
        self,
        task: Task,
        options: TrainingOptions,
        processes: ProcessGroup,
        resumed: Optional[SavedState],
        stop: StopRequest,
    ) -> None:
        self.task, self.options, self.processes = task, options, processes
        self.stop, self._all_stop = stop, False
        parts = processes.size * options.gradient_accumulation_steps
        grouped = task.examples.groups is not None
        # As it began: runs of before groups were packed as now do not say how they were.
        packing = int(resumed.identity.get("packing", 1)) if resumed else PACKING
        self.plan = BatchPlan(options.batch_size, parts, options.max_tokens, options.seed, packing)
        self.total_steps = self._count_steps()
        self.part_factors = dict(resumed.part_factors if resumed else task.part_factors)
        self.optimizer, self.schedule = make_optimizer(
            task.network,
            learning_rate=options.learning_rate,
            part_factors=self.part_factors,
            layer_decay=options.layer_lr_decay,
            weight_decay=options.weight_decay,
            warmup_proportion=options.warmup_proportion,
            schedule=options.schedule,
            total_steps=self.total_steps,
        )
        self.precision = Precision(
            task.network, use_amp=options.use_amp, dtype=options.amp_dtype, scale_loss=options.scale_loss
        )
        self.identity = {**task.identity, "total_steps": self.total_steps, "processes": processes.size}
        if grouped and packing > 1:
            self.identity["packing"] = packing
        self.done, self.is_stopped = Progress(), False
        if resumed:
            if not options.force_resume:
                refuse_differences(resumed, check_identity(resumed, self.identity))
            resumed.restore(task.network, self.optimizer, self.schedule)
            self.done = resumed.progress
            self.precision.restore(self.done.precision)
        processes.wait()  # until all have loaded what they start from: it may lie in save_dir
        processes.broadcast(task.network)
        self.folder = RunFolder(options, resumed) if processes.is_first else None
        if self.folder and self.precision.report:
            self.folder.log.report(self.precision.report)
        if self.folder and grouped:
            self.folder.log.report(self._describe_batches())
        self.clock = Clock(self.done.step, self.done.seconds)
        hidden = None if self.folder else True
        self.bar = tqdm(total=self.total_steps, initial=self.done.step, desc="train", unit="step", disable=hidden)

    def train(self) -> FitResult:
        """Train until the steps are done, the options say stop, or something goes wrong; return where it ended."""
        task, options, done, examples_before = self.task, self.options, self.done, self.done.examples
        task.network.train()
        for epoch, number, batch in self._batches():
            means = self._backward(batch)
            learning_rate, norm, scale = self._step(batch, means["loss"])
            done.step, done.epoch, done.batches = done.step + 1, epoch, number
            done.examples += sum(map(len, batch))
            self.bar.update()

            if self.folder and done.step % options.logging_steps == 0:
                more = {"learning_rate": learning_rate, "gradient_norm": norm, "loss_scale": scale,
                        "examples": done.examples, "seconds": self.clock.seconds()}  # fmt: skip
                speed = self.clock.rate(done.step)
                self.folder.log.step(done.step, epoch, number, shown=task.describe(means), more=more, speed=speed)

            final = done.step >= self.total_steps
            improved = (final or done.step % options.eval_step == 0) and self._evaluate()
            done.finished = final or self.is_stopped or 0 < options.early_stopping <= done.without_improvement
            if done.finished and self.precision.skipped == done.step:
                raise RankerError(self._nothing_learned())
            # Without an evaluation of its own: a run in several pieces ends as one in a single piece.
            out_of_time = options.max_minutes > 0 and self.processes.any(
                self.clock.seconds_here() >= 60 * options.max_minutes
            )
            interrupted = self._is_interrupted()
            stop, scheduled = done.finished or out_of_time or interrupted, done.step % options.save_step == 0
            if stop or scheduled or improved:
                self._save(scheduled)
            if interrupted and not done.finished:
                self._await_the_save()
                raise self.interrupted(done.step)
            if stop:
                break
            if scheduled or improved:
                self.processes.wait()  # while the first one writes a checkpoint, which may take a slow disk minutes
        return FitResult(
            steps=done.step,
            finished=done.finished,
            best=done.best,
            last=done.last,
            best_checkpoint=self.folder.keeper.best if self.folder else None,
            last_checkpoint=self.folder.keeper.last if self.folder else None,
            seconds=self.clock.seconds(),
            examples_per_second=(done.examples - examples_before) / max(self.clock.training_seconds(), 1e-9),
            skipped=self.precision.skipped,
        )

    def interrupted(self, step: int) -> KeyboardInterrupt:
        """Return what says that the training was interrupted at a step, and where it can go on from."""
        place = f"at step {step} of {self.total_steps}"
        last_good = f"; {self.folder.last_good}" if self.folder else ""
        can_go_on = self.folder is None or self.folder.keeper.last is not None
        return (Interrupted if can_go_on else KeyboardInterrupt)(place + last_good)

    def _is_interrupted(self) -> bool:
        """Return whether a signal came, to any of the processes: the same answer in all of them."""
        return self._all_stop or (self.processes.size == 1 and self.stop.asked)

    def _await_the_save(self) -> None:
        """Wait for the first process to have saved: the launcher ends all of them when one has ended."""
        with nullcontext() if self.processes.is_first else suppress(RankerError):  # the first may be gone already
            self.processes.wait()

    def close(self) -> None:
        """Finish the log, and take what the training put into the network out of it."""
        self.bar.close()
        self.precision.close()
        if self.folder:
            self.folder.close()

    def _count_steps(self) -> int:
        steps = 0
        for epoch in range(1, self.options.epochs + 1):
            steps += count_batches(self.task.examples, self.plan, epoch)
            if 0 < self.options.max_steps <= steps:
                return self.options.max_steps
        return steps

    def _describe_batches(self) -> str:
        examples, queries = mean_fill(self.task.examples, self.plan)
        return (
            f"a batch holds {examples:.1f} examples of {queries:.1f} queries on average, of {self.plan.batch_size} "
            "at the most: the titles of a query stay together"
        )

    def _batches(self) -> Iterator[tuple[int, int, list[np.ndarray]]]:
        """Yield (epoch, batch in the epoch, the batch's parts), counted from 1, after those that are done."""
        if self.done.finished or self.done.step >= self.total_steps:
            return
        skip = self.done.batches
        for epoch in range(self.done.epoch, self.options.epochs + 1):
            self.task.begin_epoch(epoch)
            for number, batch in enumerate(training_batches(self.task.examples, self.plan, epoch, skip), skip + 1):
                yield epoch, number, batch
            skip = 0

    def _backward(self, batch: list[np.ndarray]) -> dict[str, float]:
        """Compute the gradients of the batch's mean loss, times the loss scale; return that loss and further means.

        Each process computes its parts of the batch one after another; the gradients of all parts are summed.
        """
        examples, network, processes, step = self.task.examples, self.task.network, self.processes, self.done.step + 1
        whole = sum(examples.weight(part) for part in batch if len(part))
        sums, names = np.zeros(_MOST_MEANS + 1), ["loss"]
        for place in range(processes.rank, len(batch), processes.size):
            part = batch[place]
            if not len(part):
                continue
            # Dropout follows from the seed, the step and the part alone: not from what was drawn before, and not from
            # which process computes the part.
            paddle.seed(int(np.random.SeedSequence([self.options.seed, step, place]).generate_state(1)[0]))
            with self.precision.forward():
                loss, means = examples.loss(network, part)
            share = examples.weight(part) / whole
            (loss * (share * self.precision.scale)).backward()
            names = ["loss", *means]
            sums[: len(names)] += share * np.array([float(loss), *means.values()])
        processes.sum_gradients(network)
        sums[-1] = self.stop.asked  # so that all processes stop after the same step, at no cost
        sums = processes.sum(sums)
        self._all_stop = bool(sums[-1])
        return dict(zip(names, sums.tolist()))

    def _step(self, batch: list[np.ndarray], loss: float) -> tuple[float, float, float]:
        """Make the optimizer's step with the gradients; return the learning rate, the gradient's norm, the loss scale.

        Raises `RankerError` where the loss or the gradient is NaN or infinite.
        """
        if not math.isfinite(loss):
            raise RankerError(self._not_finite("loss", loss, batch))
        gradients, scale = gradients_of(self.task.network), self.precision.scale
        norm, most = gradient_norm(gradients) / scale, self.options.max_grad_norm
        if self.precision.update(norm):
            scale_gradients(gradients, (min(1.0, most / norm) if most and norm else 1.0) / scale)
            self.optimizer.step()
        elif self.precision.diverged:
            raise RankerError(self._not_finite("gradient's norm", norm, batch))
        learning_rate = self.schedule.get_lr()
        self.schedule.step()
        self.optimizer.clear_grad()
        return learning_rate, norm, scale

    def _evaluate(self) -> bool:
        """Evaluate; return whether it is the best evaluation so far."""
        done, metric, sign = self.done, self.task.metric, -1.0 if self.task.lower_is_better else 1.0
        with self.clock.paused():
            done.last = {"step": done.step, **self.task.evaluate()}
        improved = sign * done.last[metric] > (sign * done.best[metric] if done.best else -math.inf)
        done.best = done.last if improved else done.best
        done.without_improvement = 0 if improved else done.without_improvement + 1
        if self.folder:
            self.folder.log.evaluation(done.step, metric, done.last, lower_is_better=self.task.lower_is_better)
        if self.task.on_evaluation is not None:
            measures = {name: value for name, value in done.last.items() if name != "step"}
            with self.clock.paused():
                asked = bool(self.folder and self.task.on_evaluation(done.step, measures))
            self.is_stopped = self.processes.any(asked)
        return improved

    def _save(self, scheduled: bool) -> None:
        """Write a checkpoint and its state, in the first process."""
        if not self.folder:
            return
        task, done = self.task, self.done
        with self.clock.paused():
            done.seconds, done.precision = self.clock.seconds(), self.precision.state()
            self.folder.checkpoint(
                done,
                lambda path: task.save(path, done.last),
                lambda path: write_state(path, task.network, self.optimizer, done, self.identity, self.part_factors),
                scheduled=scheduled,
            )

    def _nothing_learned(self) -> str:
        return (
            f"all {self.done.step} steps were skipped, and the model is what it was: gradients overflowed at every "
            f"loss scale from {self.options.scale_loss:g} down to {2.0 * self.precision.scale:g}; try a lower "
            "--scale_loss, --amp_dtype bfloat16, or more steps: the scale halves at each"
        )

    def _not_finite(self, what: str, value: float, batch: list[np.ndarray]) -> str:
        records = sorted(int(index) + 1 for part in batch for index in part)
        rows = ", ".join(map(str, records[:8])) + (", ..." if len(records) > 8 else "")
        last_good = f" {self.folder.last_good};" if self.folder else ""
        return (
            f"the {what} is {value} at step {self.done.step + 1} (training records {rows});{last_good} "
            "try a lower --learning_rate, or --warmup_proportion 0.1"
        )


_MOST_MEANS = 8  # room for so many: processes whose part of a batch is empty do not know how many there are
