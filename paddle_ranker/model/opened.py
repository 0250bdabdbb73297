"""What a model is when it is open: what its folder says of it, what encodes its rows, what it takes and returns.

`TrainedModel` has a network beside that, to train or to export; `paddle_ranker.scoring.loading.ScoringModel` an engine.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Generic, Optional, Protocol, TypedDict, TypeVar, Union

from paddle_ranker.metrics.calibration import Calibration

if TYPE_CHECKING:
    from paddle import nn


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


class Check(TypedDict):
    """A pair and the probability that it had at the export, to see by that files belong together."""

    input_ids: list[int]
    token_type_ids: list[int]
    probability: float


class ExportFacts(TypedDict, total=False):
    """What a folder says of its static model.

    prefix: what the names of its files begin with
    format: of the graph's file: json of Paddle 3, pdmodel of Paddle 2.6
    paddle: the version that wrote it
    inputs, outputs: their names, in order
    parity: by engine, the largest differences from the network by output, over so many rows in so many batches
    files: their sizes in bytes
    int8: what quantizing has measured; None: there is no int8 file
    aliases: what clients of Paddle Serving may call inputs and outputs, by their names
    """

    prefix: str
    format: str
    paddle: str
    inputs: list[str]
    outputs: list[str]
    parity: dict[str, dict[str, float]]
    files: dict[str, int]
    checks: list[Check]
    int8: Optional[dict[str, object]]
    aliases: dict[str, str]


class ModelInfo(Protocol):
    """What a folder says of its model: a frozen dataclass.

    Attributes: `kind`, a name in `KINDS`; `max_seq_length`, None for models that do not look at texts; `calibration`,
    of a ranker's logits; `export`, what its static model is, None where there is none.
    """

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[object]]]

    @property
    def kind(self) -> str: ...

    @property
    def max_seq_length(self) -> Optional[int]: ...

    @property
    def calibration(self) -> Optional[Calibration]: ...

    @property
    def export(self) -> Optional[ExportFacts]: ...


class RowEncoder(Protocol):
    """What turns a model's rows into columns, and is saved with it.

    How it is called is the kind's business: rankers have a `PairRowEncoder`; other kinds have their own.
    """

    def save(self, folder: Union[str, os.PathLike[str]]) -> None:
        """Write the tokenizer's files into `folder`."""
        ...


InfoT = TypeVar("InfoT", bound=ModelInfo, covariant=True)
EncoderT = TypeVar("EncoderT", bound=RowEncoder, covariant=True)


AnyInfo = TypeVar("AnyInfo", bound=ModelInfo)


def with_export(info: AnyInfo, facts: Optional[ExportFacts]) -> AnyInfo:
    """Return what a folder says of itself with other facts of its static model."""
    return dataclasses.replace(info, export=facts)


@dataclass(frozen=True)
class Model(Generic[InfoT, EncoderT]):
    """A model, opened.

    info: what its folder says of it
    row_encoder: turns its rows into columns
    signature: the arrays that it takes and returns
    """

    info: InfoT
    row_encoder: EncoderT
    signature: Signature


@dataclass(frozen=True)
class TrainedModel(Model[InfoT, EncoderT]):
    """A model with its network, to train or to export."""

    network: nn.Layer
