"""Interfaces between a training and what is trained: `Examples`, `Task`; and its result, `FitResult`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Optional, Protocol

from paddle_ranker.encoding.batching import Groups
from paddle_ranker.metrics.ranking import Integers

if TYPE_CHECKING:
    from paddle import Tensor, nn

# Called in the first process with the step and the measures of each evaluation; a true answer ends the training there.
OnEvaluation = Callable[[int, dict[str, float]], Optional[bool]]


class Examples(Protocol):
    """The training examples, encoded.

    Attributes: `rows_each`, the pairs that one example puts into a batch; `groups`, the examples that must stay
    together in a batch, if any must.
    """

    rows_each: int
    groups: Optional[Groups]

    def __len__(self) -> int: ...

    def lengths(self, indices: Integers) -> Integers:
        """Return the tokens of the longest pair of each of the examples `indices`, both `[m]`."""
        ...

    def weight(self, indices: Integers) -> float:
        """Return how much the mean loss of the examples `indices` weighs in a batch: their number, mostly."""
        ...

    def loss(self, network: nn.Layer, indices: Integers) -> tuple[Tensor, dict[str, float]]:
        """Return the mean loss over the examples `indices`, and further means for the progress line."""
        ...


@dataclass(frozen=True)
class Task:
    """What is trained: a network, its examples, and how it is measured and saved.

    network: trained in place
    evaluate: returns the metrics of the evaluation file, the same in every process
    save: writes a checkpoint's files into a folder, given the results so far
    metric: the one whose highest value, or with `lower_is_better` lowest, makes the best checkpoint
    part_factors: learning rates of parts, times the maximum, by prefix of their parameters' names; of a resumed run
        those that it began with
    identity: what a resumed run must have in common with this one, as JSON holds it
    begin_epoch: called with each epoch, from 1, before its first batch, and with the one a resumed run goes on in
    describe: returns what a progress line shows of a batch's means, the loss first
    on_evaluation: called after each evaluation, and may end the training
    """

    network: nn.Layer
    examples: Examples
    evaluate: Callable[[], dict[str, float]]
    save: Callable[[Path, dict[str, float]], None]
    metric: str
    lower_is_better: bool = False
    part_factors: Mapping[str, float] = field(default_factory=dict)
    identity: Mapping[str, object] = field(default_factory=dict)
    begin_epoch: Callable[[int], None] = lambda epoch: None
    describe: Callable[[dict[str, float]], dict[str, float]] = dict
    on_evaluation: Optional[OnEvaluation] = None


@dataclass(frozen=True)
class FitResult:
    """Where a training ended: its steps, the best and the last evaluation (`step` and measures), and its checkpoints.

    `finished`: it is done; False: it ran out of `max_minutes`, and `resume` goes on.
    `skipped`: those of its steps that changed nothing, because their gradients overflowed in mixed precision.
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
