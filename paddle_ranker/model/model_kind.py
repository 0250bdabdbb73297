"""Opened models, and the registry of their kinds.

A `Model` has the contents of its info file, a row encoder, and the signature of its inputs and outputs. `TrainedModel`
adds a network, to train or to export; `paddle_ranker.scoring.loading.ScoringModel` adds an engine. Code that opens,
exports, runs or serves a model asks its `ModelKind` for everything that differs between kinds.
"""

from __future__ import annotations

import dataclasses
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Generic, NamedTuple, Optional, Protocol, TypedDict, TypeVar, Union, cast

from paddle_ranker.array_types import Arrays
from paddle_ranker.metrics.calibration import Calibration
from paddle_ranker.model.config import EncoderConfig
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.registry import Registry
from paddle_ranker.storage.declared import Count, WidthOrNone

if TYPE_CHECKING:
    from paddle import nn

# How a folder holds a model: Paddle's parameters, transformers' files, a static model, or the folders that Paddle
# Serving's server and clients read.
TRAINED, TRANSFORMERS, EXPORTED, SERVER, CLIENT = "trained", "transformers", "exported", "server", "client"


@dataclass(frozen=True)
class ArraySpec:
    """Input or output of a model. Dimensions that differ between batches, such as the first, are None in `shape`.

    tolerance: maximum difference between an exported model's output and the network's: absolute for values up to 1,
        relative above (float32 has no more digits). An error of 4e-5 in a logit is at most 1e-5 in its probability.
    may_round: whether an exported model may exceed the tolerance if rounding to float32 causes as large an error in the
        network's own result
    length: name of a variable second dimension; arrays that share this name have equal lengths
    least: smallest second dimension of an input that every network accepts; for the input `lengths`, smallest value
    """

    name: str
    dtype: str
    shape: tuple[Optional[int], ...]
    tolerance: float = 4e-5
    may_round: bool = False
    length: str = "length"
    least: int = 1


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs of a model, in the order of its network.

    `read` names the outputs that engines return; all other outputs are for users of the static model. `texts` is how
    many texts a row may have that are each as long as a pair may be.
    """

    inputs: tuple[ArraySpec, ...]
    outputs: tuple[ArraySpec, ...]
    read: tuple[str, ...]
    texts: int = 1

    @property
    def is_rankers(self) -> bool:
        """Whether this is the signature of rankers, which return a probability and a logit."""
        return self.outputs == RANKER_SIGNATURE.outputs

    def with_places(self, size: int) -> Signature:
        """Return a copy for tokens whose places have `size` numbers each; 0: tokens have no places.

        With places, `token_type_ids` is `[batch, length, 1 + size]`: a token's type, then the numbers of its place.
        """
        types = ArraySpec("token_type_ids", "int64", (None, None, 1 + size)) if size else TOKENS[1]
        return dataclasses.replace(self, inputs=tuple(types if spec == TOKENS[1] else spec for spec in self.inputs))

    @property
    def input_names(self) -> tuple[str, ...]:
        return tuple(spec.name for spec in self.inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        return tuple(spec.name for spec in self.outputs)


TOKENS = (ArraySpec("input_ids", "int64", (None, None)), ArraySpec("token_type_ids", "int64", (None, None)))

LOGIT = "logit"
# Further outputs of rankers that answer questions of tables: of tokens, `[batch, length]`, and of operations
TOKEN_LOGITS, OPERATION_LOGITS = "token_logits", "operation_logits"

# A ranker's graph returns the probability, calibrated if the ranker is, and the logit before calibration. Engines
# return only this logit; `Scorer` calibrates it.
RANKER_SIGNATURE = Signature(
    TOKENS,
    (
        ArraySpec("predict", "float32", (None, 1), tolerance=1e-5),
        ArraySpec(LOGIT, "float32", (None, 1), may_round=True),
    ),
    read=(LOGIT,),
)


class ModelPart(NamedTuple):
    """Part of a model, some of its layers, that is also exported separately.

    name: middle of its files' names, `PREFIX.NAME.*`
    signature: inputs and outputs of the part
    make: called without arguments; returns the part as a layer
    facts: facts of the part, for the entry `export` of the folder's info file
    """

    name: str
    signature: Signature
    make: Callable[[], nn.Layer]
    facts: Optional[ExportFacts] = None


class Check(TypedDict):
    """Tokenized pair with its probability at the export.

    Scoring the pair again shows whether the files of a folder belong together.

    `token_type_ids` is flattened: the type of each token; if tokens have places, each type is followed by the numbers
    of the token's place.
    """

    input_ids: list[Count]
    token_type_ids: list[Count]
    probability: float


class ExportFacts(TypedDict, total=False):
    """Facts of a static model, the entry `export` of a folder's info file.

    prefix: prefix of the files' names
    format: format of the graph's file: json (Paddle 3) or pdmodel (Paddle 2.6), or onnx of another program
    paddle: the Paddle version that wrote the files; missing for onnx
    inputs, outputs: names of the inputs and of the outputs, in order
    parity: by engine, the result of `export.parity.Parity.to_dict`
    files: size in bytes of each file, by its name
    descriptions: digest of each file of the tokenizer and of other settings of inputs, by its path in the folder
    checks: some pairs, with their probabilities
    int8: measures of the int8 file; None without such a file
    ranker: digest of everything that a split ranker's stored titles depend on
    similarity: sizes of the arrays of a split ranker's similarity
    aliases: names for clients of Paddle Serving, by the name of an input or output
    """

    prefix: str
    format: str
    paddle: str
    inputs: list[str]
    outputs: list[str]
    parity: dict[str, dict[str, float]]
    files: dict[str, Count]
    descriptions: dict[str, str]
    checks: list[Check]
    int8: Optional[dict[str, object]]
    ranker: str
    similarity: tuple[WidthOrNone, WidthOrNone]
    aliases: dict[str, str]


class ModelInfo(Protocol):
    """Contents of a model's info file: a frozen dataclass.

    Attributes:
        kind: a name in `KINDS`.
        max_seq_length: maximum length in tokens; None for models without text input.
        calibration: calibration of a ranker's logits, or None.
        export: facts of the static model, or None.
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
    """Encoder of a model's inputs (texts, pairs, pictures) into rows of columns; saved with the model.

    The encoding method depends on the kind of model; rankers have a `PairRowEncoder`.
    """

    def save(self, folder: Union[str, os.PathLike[str]]) -> None:
        """Write the encoder's files into `folder`: a tokenizer's, or the settings of pictures or sounds."""
        ...


InfoT = TypeVar("InfoT", bound=ModelInfo, covariant=True)
EncoderT = TypeVar("EncoderT", bound=RowEncoder, covariant=True)
KindInfo = TypeVar("KindInfo", bound=ModelInfo)
KindEncoder = TypeVar("KindEncoder", bound=RowEncoder)


def with_export(info: KindInfo, facts: Optional[ExportFacts]) -> KindInfo:
    """Return a copy of `info` whose `export` is `facts`."""
    return dataclasses.replace(info, export=facts)


@dataclass(frozen=True)
class Model(Generic[InfoT, EncoderT]):
    """Opened model.

    info: contents of the folder's info file
    row_encoder: encodes rows as columns
    signature: the arrays that the model takes and returns
    """

    info: InfoT
    row_encoder: EncoderT
    signature: Signature


@dataclass(frozen=True)
class TrainedModel(Model[InfoT, EncoderT]):
    """Model with its network, to train or to export."""

    network: nn.Layer


class ModelKind(ABC, Generic[KindInfo, KindEncoder]):
    """Kind of model, generic in the types of its info (`KindInfo`) and of its row encoder (`KindEncoder`).

    Attributes:
        name: key in `KINDS`, and the `kind` in info files.
        prefix: prefix of the names of a static model's files.
        info_file: the name of the JSON file that describes the model in a folder.
        what: the name of a folder of this kind in messages, after "is": "a tower, which makes vectors of texts".
        use: what to do with such a folder, or which commands take it; FOLDER stands for its path.
        has_encoder: whether a training can start from the text encoder in such a model.
        is_ranker: whether the models score pairs. Such models have the outputs of `RANKER_SIGNATURE`, a `RankerInfo`
            and a `PairRowEncoder`.
    """

    name: str
    info_file: str
    prefix = "inference"
    what = ""
    use = ""
    has_encoder = is_ranker = False

    def describe(self, form: str) -> tuple[str, str]:
        """Return `what` and `use` of a folder that holds a model of this kind in `form` (such as `TRAINED`)."""
        return self.what, self.use

    @abstractmethod
    def read_info(self, folder: Path) -> Optional[KindInfo]:
        """Read the folder's info file; None if there is none. Raises `CheckpointError` if it is damaged."""

    def is_in(self, folder: Path) -> bool:
        """Return whether a folder's info file states this kind."""
        if not (folder / self.info_file).is_file():
            return False
        info = self.read_info(folder)
        return info is not None and info.kind == self.name

    def is_in_transformers(self, folder: Path) -> bool:
        """Return whether a folder of transformers or sentence-transformers, without an info file, is of this kind."""
        return False

    @abstractmethod
    def signature(self, info: KindInfo) -> Signature:
        """Return the inputs and outputs of a model."""

    def configs(self, folder: Path, info: KindInfo) -> tuple[EncoderConfig, ...]:
        """Return the configurations of the model's text encoders; raises `CheckpointError` if one is missing."""
        from paddle_ranker.model.hugging_face.folder import encoder_config

        return (encoder_config(folder),)

    @abstractmethod
    def row_encoder(self, folder: Path, info: KindInfo, options: LoadOptions) -> KindEncoder:
        """Create the encoder of rows, without Paddle; raises `CheckpointError` if it does not fit the model."""

    @abstractmethod
    def load(self, source: Path, options: LoadOptions) -> TrainedModel[KindInfo, KindEncoder]:
        """Load a trained model from a folder or the parameter file in it."""

    def scoring_network(self, model: TrainedModel[KindInfo, KindEncoder]) -> tuple[nn.Layer, tuple[str, ...]]:
        """Return the layer that scores with a trained model, and the names of its outputs, in order."""
        return model.network, model.signature.read

    def static_network(self, model: TrainedModel[KindInfo, KindEncoder]) -> nn.Layer:
        """Return the layer to export; it takes and returns the arrays of the signature, in their order."""
        return model.network

    def parts(self, model: TrainedModel[KindInfo, KindEncoder]) -> tuple[ModelPart, ...]:
        """Return the layers to export separately, in addition to `static_network`, in order; by default none.

        A part takes inputs of the model and outputs of the parts before it.
        """
        return ()

    @abstractmethod
    def sample_inputs(self, encoder: KindEncoder, info: KindInfo) -> Iterator[Arrays]:
        """Yield batches of inputs of many lengths, to compare an exported model with the network."""

    def timing_inputs(
        self, encoder: KindEncoder, info: KindInfo, shapes: Sequence[tuple[int, int]]
    ) -> Iterator[Arrays]:
        """Yield batches for timing engines; if possible, one for each (rows, tokens per row) of `shapes`."""
        return self.sample_inputs(encoder, info)

    @abstractmethod
    def write_descriptions(self, folder: Path, model: TrainedModel[KindInfo, KindEncoder]) -> None:
        """Write the files that an exported model needs beside its graph: tokenizer and encoder configuration."""

    @abstractmethod
    def write_info(self, folder: Path, info: KindInfo) -> None:
        """Write `info_file`, and a ranker's model card, into a folder that has the files of `write_descriptions`."""


# The static type of kinds that are looked up by name; `add_kind` explains why it is safe.
AnyKind = ModelKind[ModelInfo, RowEncoder]

KINDS: Registry[AnyKind] = Registry("kind of model", recipes="kind")


def add_kind(kind: ModelKind[KindInfo, KindEncoder]) -> None:
    """Register a kind, so that all commands and the server can open its folders."""
    # The info and the encoder that a kind receives are always those that it returned before.
    KINDS.add(kind.name, cast(AnyKind, kind))
