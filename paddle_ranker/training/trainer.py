"""The training loop. It reads top to bottom: batch, loss, gradients, step, progress, evaluation, checkpoint.

The last part of the file is the optimizer: AdamW, each part's learning rate, its schedule, and the gradient's norm.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext, suppress
from enum import Enum, auto
from typing import Callable, NamedTuple, Optional, Union

import numpy as np
import paddle
from paddle import Tensor, nn
from tqdm import tqdm

from paddle_ranker.array_types import Integers
from paddle_ranker.distributed import ProcessGroup, buckets
from paddle_ranker.encoding.batching import BatchPlan, count_batches, mean_fill, training_batches
from paddle_ranker.errors import RankerError, is_interrupt
from paddle_ranker.interrupts import Interrupted, StopRequest
from paddle_ranker.training.checkpoints import RunFolder
from paddle_ranker.training.log import Clock
from paddle_ranker.training.precision import Precision
from paddle_ranker.training.state import (
    RunProgress,
    SavedState,
    flatten,
    require_identity,
    write_state,
)
from paddle_ranker.training.task import FitResult, Means, Task
from paddle_ranker.training.training_options import TrainingOptions
from paddle_ranker.training.whole_batch import WholeBatchExamples, backward

# Maximum number of means beside the loss. It is fixed, since a process whose part of a batch is empty does not know how
# many there are.
MOST_MEANS = 8


def fit(
    task: Task, options: TrainingOptions, processes: ProcessGroup, resumed: Optional[SavedState] = None
) -> FitResult:
    """Train as the options say.

    Args:
        processes: the processes that train together; a single process is a group of one.
        resumed: the state to resume from; None: begin a new run.

    Raises:
        RankerError: the loss or a gradient is NaN or infinite (the message names the step, the rows and the last good
            checkpoint); every step was skipped; or the run to resume was started with different options or data.
        KeyboardInterrupt: after the first Ctrl-C or SIGTERM, the step is finished and saved, and `Interrupted` is
            raised. After a second signal, the error comes at once. The message names the last checkpoint.
    """
    # Closed after `awaited`, so that a signal ends the drawing of the curve.
    with ExitStack() as closing, StopRequest().awaited() as stop:
        trainer = _Trainer(task, options, processes, resumed, stop)
        closing.push(trainer.close)
        try:
            return trainer.train()
        except BaseException as interrupt:
            if isinstance(interrupt, Interrupted) or not is_interrupt(interrupt):
                raise
            raise trainer.interrupted(trainer.done.step + 1) from interrupt


class _Stop(Enum):
    """Reason to stop after a step; see `finishes` for the reasons after which the training is complete.

    After any other reason, `--resume` continues the training. A diverged training raises an error instead.
    """

    STEPS_DONE = auto()  # all steps of the epochs or of --max_steps
    NO_IMPROVEMENT = auto()  # --early_stopping
    OBSERVER = auto()  # `Task.on_evaluation` asked for it
    INTERRUPTED = auto()  # by a signal to any of the processes
    OUT_OF_TIME = auto()  # --max_minutes

    @property
    def finishes(self) -> bool:
        """Return True if the training is complete, so that nothing is left to resume."""
        return self in (_Stop.STEPS_DONE, _Stop.NO_IMPROVEMENT, _Stop.OBSERVER)


def _number(value: Union[float, Tensor]) -> float:
    """Return a mean as a number; NumPy 2.4 and later refuse `float` of a tensor of shape `[1]`, as some losses are."""
    return value if isinstance(value, (int, float)) else float(value.item())


class _AfterStep(NamedTuple):
    """Actions after a step.

    save: whether to write a checkpoint
    scheduled: whether the options schedule a checkpoint for this step
    stop: reason to stop; None: continue
    """

    save: bool
    scheduled: bool
    stop: Optional[_Stop]


class _Gradients(NamedTuple):
    """Gradients of a step.

    all: the gradients
    square: the square of their norm, which a GPU may still be computing; None: there are no gradients
    """

    all: list[Tensor]
    square: Optional[Tensor]

    @classmethod
    def of(cls, network: nn.Layer) -> _Gradients:
        gradients = gradients_of(network)
        return cls(gradients, squared_norm(gradients) if gradients else None)

    def norm(self) -> float:
        """Return the Euclidean norm of all gradients as one vector; block until a GPU has computed it."""
        return 0.0 if self.square is None else math.sqrt(self.square.item())


class _Trainer:
    """The training in one process; the arguments are those of `fit`.

    Attributes:
        done: the progress of the run.
    """

    def __init__(
        self,
        task: Task,
        options: TrainingOptions,
        processes: ProcessGroup,
        resumed: Optional[SavedState],
        stop: StopRequest,
    ) -> None:
        self.task, self.options, self.processes = task, options, processes
        self._stop_request = stop
        self._signal_in_any_process = False
        self._observer_stops = False
        parts = processes.size * options.parts
        self.plan = BatchPlan(options.part_size, parts, options.max_tokens, options.seed)
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
        self.done = RunProgress()
        processes.wait()  # until all are here, after minutes of encoding perhaps
        processes.require_equal({"the step to resume": resumed.progress.step if resumed else 0})
        processes.require_equal(
            {**flatten(self.identity), "eval_step": options.eval_step, "save_step": options.save_step}
        )
        if resumed:
            if not options.force_resume:
                require_identity(resumed, self.identity)
            resumed.restore(task.network, self.optimizer, self.schedule)
            self.done = resumed.progress
            self.precision.restore(self.done.precision)
        processes.wait()  # until all have loaded their first parameters, which may lie in save_dir
        processes.broadcast(task.network)
        self.folder = RunFolder(options, resumed) if processes.is_first else None
        if self.folder and self.precision.report:
            self.folder.log.report(self.precision.report)
        if self.folder and task.examples.groups is not None:
            self.folder.log.report(self._describe_batches())
        self.clock = Clock(self.done.step, self.done.seconds)
        hidden = None if self.folder else True
        self.bar = tqdm(total=self.total_steps, initial=self.done.step, desc="train", unit="step", disable=hidden)

    def train(self) -> FitResult:
        """Train until there is a reason to stop (see `_Stop`); return the result."""
        done = self.done
        examples_before = done.examples
        self.task.network.train()
        for epoch, number, batch in self._batches():
            means, gradients = self._backward(batch)
            rates = self._update(batch, means["loss"], gradients)
            done.step += 1
            done.epoch = epoch
            done.batches = number
            done.examples += sum(map(len, batch))
            self.bar.update()
            if self.folder and done.step % self.options.logging_steps == 0:
                more = {**rates, "examples": done.examples, "seconds": self.clock.seconds()}
                speed = self.clock.rate(done.step)
                shown = self.task.describe(means)
                self.folder.log.step(done.step, epoch, number, shown=shown, more=more, speed=speed)

            after = self._after_step()
            if after.save:
                self._save(after.scheduled)
            if after.stop is _Stop.INTERRUPTED:
                self._await_the_save()
                raise self.interrupted(done.step)
            if after.stop:
                break
            if after.save:
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

    def _batches(self) -> Iterator[tuple[int, int, list[Integers]]]:
        """Yield each batch that is left as (epoch, index within the epoch, parts); both numbers count from 1."""
        if self.done.finished or self.done.step >= self.total_steps:
            return
        skip = self.done.batches
        for epoch in range(self.done.epoch, self.options.epochs + 1):
            self.task.begin_epoch(epoch)
            for number, batch in enumerate(training_batches(self.task.examples, self.plan, epoch, skip), skip + 1):
                yield epoch, number, batch
            skip = 0

    def _backward(self, batch: list[Integers]) -> tuple[dict[str, float], _Gradients]:
        """Compute the gradients of the batch's mean loss, times the loss scale; return (means by name, gradients).

        Each process computes its parts of the batch one after another. The gradients and the means, such as the loss,
        are summed over all parts and processes. With them, the processes sum whether a signal has arrived, so that all
        processes stop after the same step. Values are read at the end, since a GPU would otherwise wait for the host
        after each part.
        """
        examples, network = self.task.examples, self.task.network
        names, losses = ["loss"], list[tuple[float, Tensor, Means]]()
        sums = np.zeros(2 + MOST_MEANS)  # how many processes had a signal; the loss; further means

        if isinstance(examples, WholeBatchExamples):
            loss_and_means = backward(examples, network, batch, self.processes, self.precision, self._seed)
            losses.append((1.0 / self.processes.size, *loss_and_means))
        else:
            whole = sum(examples.weight(part) for part in batch if len(part))
            for place in range(self.processes.rank, len(batch), self.processes.size):
                part = batch[place]
                if not len(part):
                    continue
                self._seed(place)
                with self.precision.forward():
                    loss, means = examples.loss(network, part)
                share = examples.weight(part) / whole
                (loss * (share * self.precision.scale)).backward()
                losses.append((share, loss.detach(), means))
        self.processes.sum_gradients(network)
        gradients = _Gradients.of(network)
        with self.processes.together():
            for share, loss, means in losses:
                if len(means) > MOST_MEANS:
                    raise ValueError(
                        f"{len(means)} means beside the loss ({', '.join(means)}): at most {MOST_MEANS} fit"
                    )
                names[1:] = means
                sums[1 : 1 + len(names)] += share * np.array([_number(value) for value in (loss, *means.values())])
        sums[0] = self._stop_request.must_stop
        sums = self.processes.sum(sums)
        self._signal_in_any_process = bool(sums[0])
        return dict(zip(names, sums[1:].tolist())), gradients

    def _seed(self, part: int) -> None:
        """Seed dropout for a part of the next batch, independently of earlier draws and of the process."""
        sequence = np.random.SeedSequence([self.options.seed, self.done.step + 1, part])
        paddle.seed(int(sequence.generate_state(1)[0]))

    def _update(self, batch: list[Integers], loss: float, gradients: _Gradients) -> dict[str, float]:
        """Make the optimizer's step with the gradients; return the learning rate, gradient norm and loss scale by name.

        batch: indices of the examples of each part, for the error's message
        loss: the batch's loss

        The step is skipped if gradients overflow in mixed precision. Raises `RankerError` if the loss is not finite, or
        if a gradient is not finite and the loss scale cannot be the cause.
        """
        if not math.isfinite(loss):
            raise RankerError(self._not_finite("loss", loss, batch))
        scale, most = self.precision.scale, self.options.max_grad_norm
        norm = gradients.norm() / scale
        if self.precision.update(norm):
            scale_gradients(gradients.all, (min(1.0, most / norm) if most and norm else 1.0) / scale)
            self.optimizer.step()
        elif self.precision.diverged:
            raise RankerError(self._not_finite("gradient's norm", norm, batch))
        learning_rate = self.schedule.get_lr()
        self.schedule.step()
        self.optimizer.clear_grad(set_to_zero=False)  # zeros would be written, and added to
        return {"learning_rate": learning_rate, "gradient_norm": norm, "loss_scale": scale}

    def _after_step(self) -> _AfterStep:
        """Evaluate if an evaluation is due; return the actions after this step, which are equal in every process."""
        step = self.done.step
        is_due = step >= self.total_steps or step % self.options.eval_step == 0
        evaluate = self.task.evaluate
        is_best = is_due and evaluate is not None and self._evaluate(evaluate)
        stop = self._why_stop()
        self.done.finished = stop is not None and stop.finishes
        if self.done.finished and self.precision.skipped == step:
            raise RankerError(self._only_overflows())
        # Stopping causes no extra evaluation, so that an interrupted and resumed run equals an uninterrupted one.
        scheduled = step % self.options.save_step == 0
        return _AfterStep(save=scheduled or is_best or stop is not None, scheduled=scheduled, stop=stop)

    def _why_stop(self) -> Optional[_Stop]:
        done, options, clock = self.done, self.options, self.clock
        if done.step >= self.total_steps:
            return _Stop.STEPS_DONE
        if 0 < options.early_stopping <= done.without_improvement:
            return _Stop.NO_IMPROVEMENT
        if self._observer_stops:
            return _Stop.OBSERVER
        # A signal to one of several processes counts once all of them know of it.
        if self._stop_request.must_stop if self.processes.size == 1 else self._signal_in_any_process:
            return _Stop.INTERRUPTED
        if options.max_minutes > 0 and self.processes.any(clock.seconds_here() >= 60 * options.max_minutes):
            return _Stop.OUT_OF_TIME
        return None

    def _evaluate(self, evaluate: Callable[[], dict[str, float]]) -> bool:
        """Evaluate; return whether this evaluation is the best one so far."""
        done, metric, sign = self.done, self.task.metric, -1.0 if self.task.lower_is_better else 1.0
        with self.clock.paused():
            done.last = {"step": done.step, **evaluate()}
        improved = sign * done.last[metric] > (sign * done.best[metric] if done.best else -math.inf)
        done.best = done.last if improved else done.best
        done.without_improvement = 0 if improved else done.without_improvement + 1
        if self.folder:
            self.folder.log.evaluation(done.step, metric, done.last, lower_is_better=self.task.lower_is_better)
        if self.task.on_evaluation is not None:
            measures = {name: value for name, value in done.last.items() if name != "step"}
            with self.clock.paused():
                stops = bool(self.folder and self.task.on_evaluation(done.step, measures))
            self._observer_stops = self.processes.any(stops)
        return improved

    def _save(self, scheduled: bool) -> None:
        """Write a checkpoint and its state, in the first process only."""
        if not self.folder:
            return
        task, done = self.task, self.done
        with self.clock.paused():
            done.seconds, done.precision = self.clock.seconds(), self.precision.state()
            self.folder.checkpoint(
                done,
                lambda path: task.save(path, done.last),
                lambda path: write_state(
                    path, task.network, self.optimizer, done, self.identity, self.part_factors, task.apart
                ),
                scheduled=scheduled,
            )

    def _await_the_save(self) -> None:
        """Wait until the first process has saved; if this process exited, the launcher would end the first one, too."""
        with nullcontext() if self.processes.is_first else suppress(RankerError):  # the first may be gone already
            self.processes.wait()

    def interrupted(self, step: int) -> KeyboardInterrupt:
        """Return the exception for an interruption at a step; its message has the last good checkpoint."""
        place = f"at step {step} of {self.total_steps}"
        last_good = f"; {self.folder.last_good}" if self.folder else ""
        can_go_on = self.folder is None or self.folder.keeper.last is not None
        return (Interrupted if can_go_on else KeyboardInterrupt)(place + last_good)

    def close(self, *raised: object) -> None:
        """Close the log, and remove the hooks that the training added to the network.

        raised: the exception that ends the training, as `__exit__` gets it. After an interruption, another signal ends
            no more than the log; after an error it is raised, see `error_on_its_way`
        """
        self.bar.close()
        self.precision.close()
        if self.folder:
            is_interrupted = any(isinstance(item, KeyboardInterrupt) for item in raised)
            with suppress(KeyboardInterrupt) if is_interrupted else nullcontext():
                self.folder.close(self.done.best, finished=not any(raised))

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

    def _only_overflows(self) -> str:
        return (
            f"all {self.done.step} steps were skipped, and the model is what it was: gradients overflowed at every "
            f"loss scale from {self.options.scale_loss:g} down to {2.0 * self.precision.scale:g}; try a lower "
            "--scale_loss, --amp_dtype bfloat16, or more steps: the scale halves at each"
        )

    def _not_finite(self, what: str, value: float, batch: list[Integers]) -> str:
        records = sorted(int(index) + 1 for part in batch for index in part)
        rows = ", ".join(map(str, records[:8])) + (", ..." if len(records) > 8 else "")
        last_good = f" {self.folder.last_good};" if self.folder else ""
        is_half = self.options.use_amp and self.precision.dtype == "float16"
        half = "--amp_dtype bfloat16, whose range is that of float32, " if is_half else ""
        return (
            f"the {what} is {value} at step {self.done.step + 1} (training records {rows});{last_good} try "
            f"{half}a lower --learning_rate, or --warmup_proportion 0.1"
        )


def linear(done: float) -> float:
    """Return the factor of the learning rate, which falls linearly from 1 to 0 as `done` goes from 0 to 1."""
    return 1.0 - done


def cosine(done: float) -> float:
    """Return the factor of the learning rate, which falls from 1 to 0 along half a cosine as `done` goes from 0 to 1.

    The source is Loshchilov and Hutter, 2017; there are no restarts.
    """
    return 0.5 * (1.0 + math.cos(math.pi * done))


def constant(done: float) -> float:
    return 1.0


SCHEDULES: dict[str, Callable[[float], float]] = {"linear": linear, "cosine": cosine, "constant": constant}


def rate_factor(step: int, total_steps: int, warmup_proportion: float, decay: Callable[[float], float]) -> float:
    """Return the factor of the learning rate at a step: it rises from 0 to 1 over the warm-up, then follows `decay`.

    warmup_proportion: share of `total_steps` that is warm-up
    decay: called with the share, from 0 to 1, that is done of the steps after the warm-up; returns the factor
    """
    warmup = int(warmup_proportion * total_steps)
    if step < warmup:
        return step / warmup
    return decay(min(1.0, (step - warmup) / max(1, total_steps - warmup)))


_LAYER = re.compile(r"encoder\.layers\.(\d+)\.")


def layer_factor(name: str, layers: int, layer_decay: float) -> float:
    """Return the factor of a parameter's learning rate: `layer_decay` to the power of its distance from the head.

    name: the parameter's name
    layers: number of the encoder's layers

    The distance is 1 for the encoder's last layer, `layers` + 1 for the embeddings, and 0 for parameters outside the
    encoder's stack (Clark et al., 2020, ELECTRA).
    """
    match = _LAYER.search(name)
    if match:
        return float(layer_decay ** (layers - int(match.group(1))))
    return float(layer_decay ** (layers + 1)) if "embeddings." in name and "match_embeddings." not in name else 1.0


def make_optimizer(
    network: nn.Layer,
    *,
    learning_rate: float,
    part_factors: Mapping[str, float],
    layer_decay: float,
    weight_decay: float,
    warmup_proportion: float,
    schedule: str,
    total_steps: int,
) -> tuple[paddle.optimizer.AdamW, paddle.optimizer.lr.LambdaDecay]:
    """Return AdamW over the network's trainable parameters, and its learning rate schedule.

    learning_rate: the maximum learning rate
    part_factors: factors of the learning rate, by a prefix of parameter names
    layer_decay: see `layer_factor`; 1 is no decay. Parameters of `part_factors` have no layer decay
    weight_decay: weight decay of matrices; biases and LayerNorm have none
    warmup_proportion: see `rate_factor`
    schedule: a name in `SCHEDULES`
    total_steps: number of steps of the training
    """
    decay = SCHEDULES[schedule]
    rates = paddle.optimizer.lr.LambdaDecay(
        learning_rate, lambda step: rate_factor(step, total_steps, warmup_proportion, decay)
    )
    trained = [(name, p) for name, p in network.named_parameters() if not p.stop_gradient]
    depths = [int(match.group(1)) for name, _ in trained if (match := _LAYER.search(name))]
    groups: dict[float, list[Tensor]] = {}
    for name, parameter in trained:
        prefix = next((part for part in part_factors if name.startswith(f"{part}.")), None)
        factor = layer_factor(name, max(depths, default=-1) + 1, layer_decay)
        groups.setdefault(factor if prefix is None else part_factors[prefix], []).append(parameter)
    decayed = {p.name for _, p in trained if p.ndim > 1}
    optimizer = paddle.optimizer.AdamW(
        learning_rate=rates,
        parameters=[{"params": members, "learning_rate": factor} for factor, members in groups.items()],
        weight_decay=weight_decay,
        apply_decay_param_fun=lambda name: name in decayed,
    )
    return optimizer, rates


def gradients_of(network: nn.Layer) -> list[Tensor]:
    """Return the gradients of the trainable parameters after a backward pass."""
    return [p.grad for p in network.parameters() if not p.stop_gradient and p.grad is not None]


@paddle.no_grad()
def squared_norm(gradients: Sequence[Tensor]) -> Tensor:
    """Return the square of the Euclidean norm of all gradients as one vector, `[1]`.

    Paddle's optimizer is not used for this, since it would clip each parameter group by the group's norm. On a CPU, the
    product of a row and a column is about forty times as fast as `paddle.linalg.norm`. On a GPU, each operation has a
    fixed cost, so gradients are concatenated first.
    """
    vectors = [gradient.reshape([-1]) for gradient in gradients]
    if paddle.device.get_device() != "cpu":
        return paddle.add_n([paddle.concat(bucket).square().sum().reshape([1]) for bucket in buckets(vectors)])
    return paddle.add_n([paddle.matmul(vector.unsqueeze(0), vector.unsqueeze(1)).reshape([1]) for vector in vectors])


@paddle.no_grad()
def scale_gradients(gradients: Sequence[Tensor], factor: float) -> None:
    if factor != 1.0:
        for gradient in gradients:
            gradient.scale_(factor)
