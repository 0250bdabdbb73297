"""What a model is when it is open: what its folder says of it, what encodes its rows, what it takes and returns.

`TrainedModel` has a network beside that, to train or to export; `paddle_ranker.scoring.loading.ScoringModel` an engine.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Generic, Optional, Protocol, TypedDict, TypeVar, Union

from paddle_ranker.metrics.calibration import Calibration
from paddle_ranker.model.signature import Signature

if TYPE_CHECKING:
    from paddle import nn


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
