"""An opened model: the contents of its info file, its row encoder, and the signature of its inputs and outputs.

`TrainedModel` adds a network, to train or to export; `paddle_ranker.scoring.loading.ScoringModel` adds an engine.
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
    """One input or output. None in `shape` is a dimension that differs between batches; the first is always None.

    tolerance: how far an exported model's output may differ from the network's: absolute for values up to 1, relative
        above (float32 has no more digits). A logit that is 4e-5 off moves its probability by at most 1e-5.
    may_round: whether an exported model's output may be further off where the network's own float32 is, too
    """

    name: str
    dtype: str
    shape: tuple[Optional[int], ...]
    tolerance: float = 4e-5
    may_round: bool = False


@dataclass(frozen=True)
class Signature:
    """The inputs and the outputs of a model, in the order in which its network takes and returns them.

    `read` names the outputs that engines are asked for; the others are for users of the static model.
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

# A ranker's graph returns the probability, calibrated if the ranker is, and the logit before calibration. Engines are
# asked for this logit alone; `Scorer` calibrates it.
RANKER_SIGNATURE = Signature(
    TOKENS,
    (
        ArraySpec("predict", "float32", (None, 1), tolerance=1e-5),
        ArraySpec(LOGIT, "float32", (None, 1), may_round=True),
    ),
    read=(LOGIT,),
)


class Check(TypedDict):
    """A tokenized pair and its probability at the export, to check later that a folder's files belong together."""

    input_ids: list[int]
    token_type_ids: list[int]
    probability: float


class ExportFacts(TypedDict, total=False):
    """What a folder's info file says of its static model.

    prefix: the prefix of its files' names
    format: of the graph's file: json (Paddle 3) or pdmodel (Paddle 2.6)
    paddle: the Paddle version that wrote it
    inputs, outputs: their names, in order
    parity: a dict from engine to what `export.parity.Parity.to_dict` returns
    files: a dict from file name to size in bytes
    checks: some pairs and their probabilities
    int8: what quantizing has measured; None: there is no int8 file
    aliases: a dict from the name of an input or output to what clients of Paddle Serving call it
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
    """The contents of a model's info file: a frozen dataclass.

    Attributes: `kind`, a name in `KINDS`; `max_seq_length`, None for models without text input; `calibration` of a
    ranker's logits, None if it has none; `export`, the facts of its static model, None if there is none.
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
    """What encodes a model's rows as columns, and is saved with the model.

    Its encoding method depends on the kind of model: rankers have a `PairRowEncoder`; other kinds have their own.
    """

    def save(self, folder: Union[str, os.PathLike[str]]) -> None:
        """Write the tokenizer's files into `folder`."""
        ...


InfoT = TypeVar("InfoT", bound=ModelInfo, covariant=True)
EncoderT = TypeVar("EncoderT", bound=RowEncoder, covariant=True)


AnyInfo = TypeVar("AnyInfo", bound=ModelInfo)


def with_export(info: AnyInfo, facts: Optional[ExportFacts]) -> AnyInfo:
    """Return a copy of `info` whose `export` is `facts`."""
    return dataclasses.replace(info, export=facts)


@dataclass(frozen=True)
class Model(Generic[InfoT, EncoderT]):
    """An opened model.

    info: the contents of its folder's info file
    row_encoder: encodes its rows as columns
    signature: the arrays that it takes and returns
    """

    info: InfoT
    row_encoder: EncoderT
    signature: Signature


@dataclass(frozen=True)
class TrainedModel(Model[InfoT, EncoderT]):
    """A model with its network, to train or to export."""

    network: nn.Layer
