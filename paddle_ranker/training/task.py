"""The interfaces between the training loop and a model, `Examples` and `Task`, and the result, `FitResult`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Optional, Protocol, Union

from paddle_ranker.array_types import Integers
from paddle_ranker.encoding.batching import Groups

if TYPE_CHECKING:
    from paddle import Tensor, nn

# Called in the first process after each evaluation with the step and the measures; returning True ends the training.
OnEvaluation = Callable[[int, dict[str, float]], Optional[bool]]

Means = Mapping[str, Union[float, "Tensor"]]  # further means beside a loss, by name; a tensor is read after the step


class Examples(Protocol):
    """Encoded training examples.

    Attributes:
        rows_each: number of pairs in one example.
        groups: groups of examples; all examples of a group must be in the same batch. None: there are no groups.
    """

    rows_each: int
    groups: Optional[Groups]

    def __len__(self) -> int: ...

    def lengths(self, indices: Integers) -> Integers:
        """Return, for each example in `indices`, the token count of its longest pair, `[m]`."""
        ...

    def weight(self, indices: Integers) -> float:
        """Return the weight that the mean loss of the examples `indices` has in a batch: usually their number."""
        ...

    def loss(self, network: nn.Layer, indices: Integers) -> tuple[Tensor, Means]:
        """Return the mean loss of the examples `indices`, and further means by name for the progress line."""
        ...


@dataclass(frozen=True)
class Task:
    """Definition of a training: a network, its examples, and how the network is evaluated and saved.

    network: the network, trained in place
    examples: the training examples
    evaluate: called without arguments; returns the metrics of the evaluation file, which are equal in every process.
        None: there is no evaluation
    save: called with a folder and the last evaluation's results; writes a checkpoint's files into the folder
    metric: the metric that decides which checkpoint is best: the one with its highest value, or with its lowest value
        if `lower_is_better`
    part_factors: factors of the learning rate, by a prefix of parameter names; a resumed run keeps the factors with
        which it began
    identity: JSON-ready values; a run can be resumed only with equal values
    begin_epoch: called with an epoch's number, from 1, before the epoch's first batch, and when a run is resumed within
        the epoch
    describe: called with the means of a batch; returns the means to show in a progress line, the loss first
    on_evaluation: called after each evaluation; the result may end the training, see `OnEvaluation`
    apart: prefixes of the names of parameters that `save` does not write into the checkpoint; the run's state stores
        these parameters
    """

    network: nn.Layer
    examples: Examples
    evaluate: Optional[Callable[[], dict[str, float]]]
    save: Callable[[Path, dict[str, float]], None]
    metric: str
    lower_is_better: bool = False
    part_factors: Mapping[str, float] = field(default_factory=dict)
    identity: Mapping[str, object] = field(default_factory=dict)
    begin_epoch: Callable[[int], None] = lambda epoch: None
    describe: Callable[[dict[str, float]], dict[str, float]] = dict
    on_evaluation: Optional[OnEvaluation] = None
    apart: tuple[str, ...] = ()


@dataclass(frozen=True)
class FitResult:
    """The result of a training.

    steps: number of steps
    finished: whether the training is complete; if not, it stopped after `max_minutes`, and `resume` continues it
    best, last: `step` and measures of the best and of the last evaluation
    best_checkpoint: the best checkpoint; if there was no evaluation yet, the last checkpoint
    last_checkpoint: the last checkpoint
    seconds, examples_per_second: time and speed of the training
    skipped: number of steps that changed nothing because their gradients overflowed in mixed precision
    """

    steps: int
    finished: bool
    best: dict[str, float]
    last: dict[str, float]
    best_checkpoint: Optional[Path]
    last_checkpoint: Optional[Path]
    seconds: float
    examples_per_second: float
    skipped: int = 0
