"""Start a training of any model, resume it, and report its result.

run = start_run(options)                       # device, processes, seed, the interrupted run to resume
model = ...                                    # from run.resumed.model if it exists, else from `load_encoder`
                                               # (a ranker: from `ranker_folder.start_ranker`)
start = Start(run, model, part_factors)
start.run.train(Task(model.network, examples, evaluate, save, metric="auc", identity=...))
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Generic, Optional, TypedDict, TypeVar, Union

import paddle

from paddle_ranker import runtime
from paddle_ranker.distributed import ProcessGroup, launched
from paddle_ranker.encoding.pair_encoder import LOST_CAPITALS, PairEncoder
from paddle_ranker.errors import UsageError
from paddle_ranker.training.checkpoints import require_free
from paddle_ranker.training.state import SavedState, find_state
from paddle_ranker.training.task import FitResult, Task
from paddle_ranker.training.trainer import fit
from paddle_ranker.training.training_options import TrainingOptions
from paddle_ranker.version import __version__


class Description(TypedDict):
    """Record of how a checkpoint was trained, for its info file: options and facts, measures, versions of packages."""

    training: dict[str, object]
    results: dict[str, object]
    versions: dict[str, str]


@dataclass(frozen=True)
class TrainingRun:
    """A training that has begun.

    options: the options
    processes: the processes that train together
    resumed: state of the interrupted training that this run continues; None: the run is new
    device: name of the device
    """

    options: TrainingOptions
    processes: ProcessGroup
    resumed: Optional[SavedState]
    device: str

    def report(self, line: str) -> None:
        """Print a line, only in the first process."""
        if self.processes.is_first:
            print(line, flush=True)

    def report_start(self, source: Union[str, Path], new_parts: Sequence[str], *tokens: PairEncoder) -> None:
        """Report the parts that the start model lacks; warn if a tokenizer maps words with capital letters to [UNK].

        source: folder or name of the start model
        new_parts: names of the parts that the start model lacks
        tokens: encoders whose tokenizers are checked
        """
        if new_parts:
            self.report(f"start from {source}; new: {', '.join(new_parts)}")
        if not self.resumed and any(encoder.loses_capitals for encoder in tokens):
            self.report(f"{source}: {LOST_CAPITALS.replace('MODEL', str(source))}")

    def describe(self, facts: Mapping[str, object], results: Mapping[str, object]) -> Description:
        """Return the record of the training (`training`, `results` and `versions`) for a checkpoint's info file.

        facts: entries of `training` in addition to the options, such as the loss's margin and the number of examples
        results: the evaluation's measures
        """
        recorded = {**self.options.recorded(), "device": self.device}
        return {"training": {**recorded, **facts}, "results": dict(results), "versions": versions()}

    def train(self, task: Task) -> FitResult:
        """Train, and print the result. A run is resumed only with the versions of packages that began it.

        Raises `UsageError` if there are fewer examples than processes, and the errors of `fit`.
        """
        if len(task.examples) < self.processes.size:
            raise UsageError(f"{len(task.examples)} training examples are too few for {self.processes.size} processes")
        task = replace(task, identity={**task.identity, "version of": versions()})
        result = fit(task, self.options, self.processes, self.resumed)
        ended = "trained" if result.finished else "stopped for now (--resume goes on) after"
        speed = f"{result.examples_per_second:.1f} examples/s" if result.examples_per_second else "all of them before"
        self.report(f"{ended} {result.steps} steps in {result.seconds:.0f} s, {speed}")
        if result.skipped:
            self.report(f"{result.skipped} of the {result.steps} steps were skipped: their gradients overflowed")
        metrics = ", ".join(f"{name} {value:.4f}" for name, value in result.best.items() if isinstance(value, float))
        best = "the last one, as none was evaluated yet"
        if result.best:
            best = f"step {result.best['step']} ({metrics}) -> {result.best_checkpoint}"
        self.report(f"best: {best}; last: {result.last_checkpoint}")
        return result


ModelT = TypeVar("ModelT")


@dataclass(frozen=True)
class Start(Generic[ModelT]):
    """A run that has begun, and its model.

    run: the run
    model: the model to train
    part_factors: factors of the learning rates of the model's parts, see `Task`
    """

    run: TrainingRun
    model: ModelT
    part_factors: dict[str, float]


def start_run(options: TrainingOptions) -> TrainingRun:
    """Select the device, join the other processes, seed everything, and find the run to resume (`options.resume`).

    Raises `RankerError` if `save_dir` cannot be written to, or if another training writes into it. Raises `UsageError`
    if there are several processes, and the device has a number.
    """
    if ":" in options.device and launched() > 1:
        raise UsageError(
            f"--device {options.device}: each of {launched()} processes takes a GPU of its own; name the GPUs by the "
            f"launcher's --gpus, and type --device {options.device.partition(':')[0]}"
        )
    device = runtime.select_device(options.device)
    processes = ProcessGroup()
    runtime.set_seed(options.seed)
    if processes.is_first:
        require_free(options.save_dir)  # a training whose result cannot be saved must not begin
    run = TrainingRun(options, processes, find_state(options.save_dir) if options.resume else None, device)
    if options.resume and not run.resumed:
        run.report(f"{options.save_dir} holds no run to resume: begin one")
    return run


def versions() -> dict[str, str]:
    """Return the versions of the packages on which a model depends, by package name."""
    return {
        "paddle_ranker": __version__,
        "paddlepaddle": paddle.__version__,
        "numpy": metadata.version("numpy"),
        "python": platform.python_version(),
    }
