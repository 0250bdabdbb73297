"""What a model takes and returns: arrays by name, with their types and shapes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional


@dataclass(frozen=True)
class ArraySpec:
    """One input or output; None in `shape` is a dimension that differs from batch to batch, the first always is.

    tolerance: of an output: by how much an exported model may be off the network, of a value beyond 1 as a share of it
        (float32 has no more digits). A logit that is 4e-5 off moves its probability by 1e-5 at the most.
    """

    name: str
    dtype: str
    shape: tuple[Optional[int], ...]
    tolerance: float = 4e-5


@dataclass(frozen=True)
class Signature:
    """The inputs and the outputs of a model, in the order in which its network takes and returns them.

    `read` are the outputs that are asked of an engine; the others are for users of the static model.
    """

    inputs: tuple[ArraySpec, ...]
    outputs: tuple[ArraySpec, ...]
    read: tuple[str, ...]

    @property
    def input_names(self) -> tuple[str, ...]:
        """The names of the inputs, in order."""
        return tuple(spec.name for spec in self.inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of the outputs, in order."""
        return tuple(spec.name for spec in self.outputs)


TOKENS = (ArraySpec("input_ids", "int64", (None, None)), ArraySpec("token_type_ids", "int64", (None, None)))

LOGIT = "logit"

# A ranker returns the probability, calibrated where it is, and the logit as the network has it.
RANKER = Signature(
    TOKENS,
    (ArraySpec("predict", "float32", (None, 1), tolerance=1e-5), ArraySpec(LOGIT, "float32", (None, 1))),
    read=(LOGIT,),
)
