"""The registry of model kinds. A kind says how its models are recognised, read, loaded, exported and given inputs.

The rankers' kinds are registered here; recipes and plugins register theirs with `add_kind`. Code that opens, exports,
runs or serves a model calls the model's kind for everything that differs between kinds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Optional, TypeVar, Union, cast

from paddle_ranker.encoding.columns import Arrays
from paddle_ranker.encoding.pair_encoder import BlendedPairEncoder, PairEncoder, PairRowEncoder
from paddle_ranker.encoding.samples import sample_batches, timing_batches
from paddle_ranker.errors import CheckpointError
from paddle_ranker.model.config import EncoderConfig, read_config
from paddle_ranker.model.families import make_pair_encoder
from paddle_ranker.model.hugging_face.read import states_head
from paddle_ranker.model.info import BLEND, INFO_FILE, PUBLISHED_HEADS, RankerInfo, blend_of
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.opened import RANKER_SIGNATURE, ModelInfo, RowEncoder, Signature, TrainedModel
from paddle_ranker.model.parameters import PARAMETERS_FILE, load_arrays
from paddle_ranker.model.pretrained import find_model
from paddle_ranker.model.recognised import FOLDERS, FolderKind
from paddle_ranker.registry import Registry

if TYPE_CHECKING:
    from paddle import nn

_DEFAULTS = LoadOptions()
EXPORT = "paddle-ranker export --model RANKER --output"

InfoT = TypeVar("InfoT", bound=ModelInfo)
EncoderT = TypeVar("EncoderT", bound=RowEncoder)


class ModelKind(ABC, Generic[InfoT, EncoderT]):
    """A kind of model, generic in the types of its info (`InfoT`) and of its row encoder (`EncoderT`).

    Attributes:
        name: its key in `KINDS`, and the `kind` in its folders' info files.
        prefix: the file name prefix of its static models.
        info_file: the name of the JSON file that describes the model in a folder.
        what, use: what messages call a folder of this kind, and what to do with it (see `FolderKind`).
    """

    name: str
    prefix = "inference"
    info_file = INFO_FILE
    what = ""
    use = ""

    @abstractmethod
    def read_info(self, folder: Path) -> Optional[InfoT]:
        """Return the contents of the folder's info file; None if there is none.

        Raises `CheckpointError` if the file is damaged.
        """

    def is_in(self, folder: Path) -> bool:
        """Return whether a folder's info file states this kind."""
        if not (folder / self.info_file).is_file():
            return False
        info = self.read_info(folder)
        return info is not None and info.kind == self.name

    @abstractmethod
    def signature(self, info: InfoT) -> Signature:
        """Return the inputs and outputs of a model."""

    def configs(self, folder: Path, info: InfoT) -> tuple[EncoderConfig, ...]:
        """Return the configurations of the model's text encoders; raises `CheckpointError` if one is missing."""
        return (_read_config(folder),)

    @abstractmethod
    def row_encoder(self, folder: Path, info: InfoT, options: LoadOptions) -> EncoderT:
        """Return the encoder of rows, made without Paddle; raises `CheckpointError` if it does not fit the model."""

    @abstractmethod
    def load(self, source: Path, options: LoadOptions) -> TrainedModel[InfoT, EncoderT]:
        """Load a trained model from a folder or the parameter file in it."""

    def scoring_network(self, model: TrainedModel[InfoT, EncoderT]) -> tuple[nn.Layer, tuple[str, ...]]:
        """Return the layer that computes a trained model's outputs, and the names of the outputs, in order."""
        return model.network, model.signature.read

    def static_network(self, model: TrainedModel[InfoT, EncoderT]) -> nn.Layer:
        """Return the layer to export; it takes and returns the arrays of the signature, in their order."""
        return model.network

    @abstractmethod
    def sample_inputs(self, encoder: EncoderT, info: InfoT) -> Iterator[Arrays]:
        """Yield batches of many lengths, on which an exported model is compared with the network."""

    def timing_inputs(self, encoder: EncoderT, info: InfoT, shapes: Sequence[tuple[int, int]]) -> Iterator[Arrays]:
        """Yield batches to time engines on; if the kind can, one for each (rows, tokens a row) of `shapes`."""
        return self.sample_inputs(encoder, info)

    @abstractmethod
    def write_descriptions(self, folder: Path, model: TrainedModel[InfoT, EncoderT]) -> None:
        """Write the files that an exported model needs beside its graph: the tokenizer and the encoder's shape."""

    @abstractmethod
    def write_info(self, folder: Path, info: InfoT) -> None:
        """Write `info_file` and the model card made from it; `write_descriptions` comes first."""


# The static type of a kind that is looked up by name; `add_kind` says why that is safe.
AnyKind = ModelKind[ModelInfo, RowEncoder]

KINDS: Registry[AnyKind] = Registry("kind of model", recipes="kind")


def add_kind(kind: ModelKind[InfoT, EncoderT]) -> None:
    """Register a kind, so that all commands and the server can open its folders."""
    # A model's info and encoder come from its own kind and go back to that alone, whatever their types.
    KINDS.add(kind.name, cast(AnyKind, kind))
    if kind.what:
        FOLDERS.add(kind.name, FolderKind(kind.is_in, kind.what, kind.use))


def kind_of(folder: Path) -> AnyKind:
    """Return the kind of the model in a folder; `pairwise` if the folder states none, as published checkpoints do."""
    found = _kind_in(folder)
    if found is None and any(folder.glob("*.json")):
        KINDS.load_plugins()
        found = _kind_in(folder)
    return found or KINDS["pairwise"]


def is_ranker(folder: Path) -> bool:
    """Return whether a folder states the kind of a ranker, or states none, as published rankers and encoders do."""
    kind = kind_of(folder)
    info = kind.read_info(folder)
    return info is None or kind.signature(info) == RANKER_SIGNATURE


def stated_kind(source: Path) -> Optional[str]:
    """Return the kind's name of the model in a folder or parameter file without loading it; None if it is unknown.

    The `ModelKind.info_file` in the folder states it; a published checkpoint is known by its head's name, a folder of
    transformers with a head is a cross-encoder. Raises `CheckpointError` if a file is damaged.
    """
    folder = source.parent if source.is_file() else source
    found = _kind_in(folder)
    if found is None and any(folder.glob("*.json")):
        KINDS.load_plugins()
        found = _kind_in(folder)
    if found is not None:
        return found.name
    parameters = source if source.is_file() else folder / PARAMETERS_FILE
    if parameters.suffix != Path(PARAMETERS_FILE).suffix or not parameters.is_file():
        return "cross_encoder" if source.is_dir() and states_head(source) else None
    arrays = load_arrays(parameters)
    return next((kind for head, kind in PUBLISHED_HEADS.items() if head in arrays), None)


def _kind_in(folder: Path) -> Optional[AnyKind]:
    return next((kind for kind in KINDS.values() if kind.is_in(folder)), None)


PairEncoderT = TypeVar("PairEncoderT", bound=PairRowEncoder)


class _ScoresPairs(ModelKind[RankerInfo, PairEncoderT]):
    """What all rankers have in common: they take pairs of texts and return one logit a pair."""

    def __init__(self, name: str, prefix: str):
        self.name, self.prefix = name, prefix

    def read_info(self, folder: Path) -> Optional[RankerInfo]:
        """Read `ranker.json`."""
        return RankerInfo.read(folder)

    def signature(self, info: RankerInfo) -> Signature:
        """Return what every ranker takes and returns."""
        return RANKER_SIGNATURE

    def static_network(self, model: TrainedModel[RankerInfo, PairEncoderT]) -> nn.Layer:
        """Return a network that returns the probability, calibrated if the ranker is, and the logit."""
        from paddle_ranker.model.network import ScoringNetwork

        return ScoringNetwork(model.network, model.info.calibration)

    def sample_inputs(self, encoder: PairEncoderT, info: RankerInfo) -> Iterator[Arrays]:
        """Yield batches of made-up pairs, both short and truncated ones."""
        return sample_batches(encoder)

    def timing_inputs(
        self, encoder: PairEncoderT, info: RankerInfo, shapes: Sequence[tuple[int, int]]
    ) -> Iterator[Arrays]:
        """Yield a batch of made-up Chinese texts for each (pairs, tokens a pair) of `shapes`."""
        return timing_batches(encoder, shapes)

    def write_info(self, folder: Path, info: RankerInfo) -> None:
        """Write `ranker.json` and the card."""
        info.write(folder, self.configs(folder, info)[0])


class RankerKind(_ScoresPairs[PairEncoder]):
    """A ranker of one network."""

    def row_encoder(self, folder: Path, info: RankerInfo, options: LoadOptions) -> PairEncoder:
        """Return the ranker's pair encoder, with the `max_seq_length` of the options or else of the ranker."""
        length = options.max_seq_length or info.max_seq_length
        return _pair_encoder(folder, length, options.tokenizer, info.query_prompt)

    def load(self, source: Path, options: LoadOptions) -> TrainedModel[RankerInfo, PairEncoder]:
        """Load a trained ranker, a `RankerModel`."""
        from paddle_ranker.model.folder import load_single

        return load_single(source, options)

    def write_descriptions(self, folder: Path, model: TrainedModel[RankerInfo, PairEncoder]) -> None:
        """Write the encoder's shape and the tokenizer."""
        from paddle_ranker.model.folder import write_encoder

        write_encoder(folder, model.network, model.row_encoder)


class BlendKind(_ScoresPairs[BlendedPairEncoder]):
    """Several rankers combined into one; each member lies in a folder of its own inside the blend's folder."""

    def configs(self, folder: Path, info: RankerInfo) -> tuple[EncoderConfig, ...]:
        """Return the configurations of the members' encoders."""
        return tuple(_read_config(folder / name) for name in blend_of(folder, info).members)

    def row_encoder(self, folder: Path, info: RankerInfo, options: LoadOptions) -> BlendedPairEncoder:
        """Return one row encoder that combines those of all members."""
        members = []
        for name in blend_of(folder, info).members:
            member = RankerInfo.read(folder / name)
            if member is None:
                raise CheckpointError(f"{folder / name}: has no {INFO_FILE}; copy the folder again, or export it again")
            length = options.max_seq_length or member.max_seq_length
            members.append(_pair_encoder(folder / name, length, options.tokenizer, member.query_prompt))
        return BlendedPairEncoder(members)

    def load(self, source: Path, options: LoadOptions) -> TrainedModel[RankerInfo, BlendedPairEncoder]:
        """Load a blend and its members, a `BlendModel`."""
        from paddle_ranker.model.blend import load_blend

        return load_blend(source, options)

    def write_descriptions(self, folder: Path, model: TrainedModel[RankerInfo, BlendedPairEncoder]) -> None:
        """Write each member's description files into a folder of its own."""
        from paddle_ranker.model.blend import BlendModel, write_members

        assert isinstance(model, BlendModel)
        write_members(folder, model)


def load_trained(source: Union[str, Path], options: LoadOptions = _DEFAULTS) -> TrainedModel[ModelInfo, RowEncoder]:
    """Load a trained model, with its network, of the kind that its folder states.

    A name of the Hugging Face hub is found as `find_model` says. Raises what the kind's `load` raises:
    `CheckpointError` if the model cannot be loaded.
    """
    source = find_model(source)
    return kind_of(source.parent if source.is_file() else source).load(source, options)


TrainedRanker = TrainedModel[RankerInfo, PairRowEncoder]


def load_ranker(source: Union[str, Path], options: LoadOptions = _DEFAULTS) -> TrainedRanker:
    """Load a trained ranker or blend; raises `CheckpointError` for a folder of anything else."""
    source = find_model(source)
    if source.is_dir() and BLEND_KIND.is_in(source):
        return BLEND_KIND.load(source, options)
    return PAIRWISE.load(source, options)


PAIRWISE = RankerKind("pairwise", "inference.predict")
BLEND_KIND = BlendKind(BLEND, "inference.predict")
add_kind(PAIRWISE)
add_kind(RankerKind("cross_encoder", "inference"))
add_kind(BLEND_KIND)


def _read_config(folder: Path) -> EncoderConfig:
    config = read_config(folder)
    if config is None:
        raise CheckpointError(f"{folder}: has no config.json; copy the folder again, or export it again")
    return config


def _pair_encoder(folder: Path, max_seq_length: int, tokenizer: str, query_prompt: str) -> PairEncoder:
    try:
        return make_pair_encoder(folder, _read_config(folder), max_seq_length, tokenizer, query_prompt)
    except CheckpointError as error:
        if str(error).startswith(str(folder)):
            raise
        raise CheckpointError(f"{folder}: {error}") from error
