"""Kinds of models by name: how a folder of each is recognised, read, loaded, exported and fed.

The rankers are registered here; recipes and plugins register theirs from their side. Everything that opens, exports,
runs or serves a model asks its kind, and knows no other difference.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Optional, Protocol, Union

from paddle_ranker.encoding.blend import BlendedPairEncoder
from paddle_ranker.encoding.columns import Arrays
from paddle_ranker.encoding.pair_encoder import RowEncoder
from paddle_ranker.encoding.samples import sample_batches, timing_batches
from paddle_ranker.errors import CheckpointError
from paddle_ranker.metrics.calibration import Calibration
from paddle_ranker.model.config import EncoderConfig, make_pair_encoder, read_config
from paddle_ranker.model.info import BLEND, INFO_FILE, PUBLISHED_HEADS, RankerInfo, blend_weights
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.parameters import PARAMETERS_FILE, load_arrays
from paddle_ranker.model.signature import RANKER, Signature
from paddle_ranker.registry import Registry

_DEFAULTS = LoadOptions()
EXPORT = "python -m paddle_ranker export --params_path RANKER --output_path"


class ModelInfo(Protocol):
    """What a folder says of itself: a frozen dataclass. `export` is what its static model is, None where it is none."""

    @property
    def kind(self) -> str: ...

    @property
    def max_seq_length(self) -> Optional[int]: ...

    @property
    def calibration(self) -> Optional[Calibration]: ...

    @property
    def export(self) -> Optional[dict[str, Any]]: ...


class ModelKind(ABC):
    """A kind of model.

    Attributes: `name`; `prefix`, what the names of its static model's files begin with; `info_file`, which says in a
    folder what it is.
    """

    name: str
    prefix = "inference"
    info_file = INFO_FILE

    def read_info(self, folder: Path) -> Optional[Any]:
        """Return what the folder says of itself, a `ModelInfo`; None where it says nothing.

        Raises `CheckpointError` for a damaged one.
        """
        return RankerInfo.read(folder)

    def is_in(self, folder: Path) -> bool:
        """Return whether a folder says that it holds a model of this kind."""
        if not (folder / self.info_file).is_file():
            return False
        info = self.read_info(folder)
        return info is not None and info.kind == self.name

    @abstractmethod
    def signature(self, info: Any) -> Signature:
        """Return what a model takes and returns."""

    def configs(self, folder: Path, info: Any) -> tuple[EncoderConfig, ...]:
        """Return the shapes of the text encoders in it; raises `CheckpointError` where one is missing."""
        return (_read_config(folder),)

    def encoder(self, folder: Path, info: Any, options: LoadOptions) -> Any:
        """Return what turns rows into columns, without Paddle; raises `CheckpointError` where it does not fit."""
        return _pair_encoder(folder, options.max_seq_length or info.max_seq_length, options.tokenizer)

    @abstractmethod
    def load(self, source: Path, options: LoadOptions) -> Any:
        """Load a trained model: an object with the fields `network`, `pair_encoder` (see `encoder`) and `info`."""

    def scoring_network(self, parts: Any) -> tuple[Any, tuple[str, ...]]:
        """Return what runs a trained model as it is, and the names of what it returns, in order."""
        return parts.network, (self.signature(parts.info).read,)

    @abstractmethod
    def static_network(self, parts: Any) -> Any:
        """Return what is exported: a layer that takes and returns what the signature says, in that order."""

    def sample_inputs(self, parts: Any) -> Iterator[Arrays]:
        """Yield batches of many lengths, to see by that an exported model computes what the network does."""
        return sample_batches(parts.pair_encoder)

    def timing_inputs(self, folder: Path, info: Any, shapes: Sequence[tuple[int, int]]) -> Iterator[Arrays]:
        """Yield a batch for each (rows, tokens) of `shapes`, to time engines on: made-up texts of an exported model."""
        return timing_batches(self.encoder(folder, info, _DEFAULTS), shapes)

    @abstractmethod
    def write_descriptions(self, folder: Path, parts: Any) -> None:
        """Write the files that an exported model needs beside its graph: the tokenizer's, the encoder's shape."""

    @abstractmethod
    def write_info(self, folder: Path, parts: Any, info: Any) -> None:
        """Write `info_file`, and the card made from it."""


KINDS: Registry[ModelKind] = Registry("kind of model", recipes="paddle_ranker.recipes.kinds")


def kind_of(folder: Path) -> ModelKind:
    """Return the kind of the model in a folder; a folder that says nothing is a checkpoint of the published rankers."""
    found = _kind_in(folder)
    if found is None and any(folder.glob("*.json")):
        KINDS.load_plugins()
        found = _kind_in(folder)
    return found or KINDS["pairwise"]


def stated_kind(source: Path) -> Optional[str]:
    """Return the name of the kind of a model, a folder or a file in it, without loading it; None where nothing says.

    A folder says it in its `ModelKind.info_file`; a published checkpoint has the head of its kind. Raises
    `CheckpointError` for a damaged one.
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
        return None
    arrays = load_arrays(parameters)
    return next((kind for head, kind in PUBLISHED_HEADS.items() if head in arrays), None)


def _kind_in(folder: Path) -> Optional[ModelKind]:
    return next((kind for kind in KINDS.values() if kind.is_in(folder)), None)


class RankerKind(ModelKind):
    """A ranker of one network: pairs of texts in, one logit out."""

    def __init__(self, name: str, prefix: str):
        self.name, self.prefix = name, prefix

    def signature(self, info: RankerInfo) -> Signature:
        """Return what every ranker takes and returns."""
        return RANKER

    def load(self, source: Path, options: LoadOptions) -> Any:
        """Load a trained ranker, a `RankerParts`."""
        from paddle_ranker.model.folder import load_single

        return load_single(source, options)

    def static_network(self, parts: Any) -> Any:
        """Return the network with the probability, calibrated where the ranker is, beside the logit."""
        from paddle_ranker.model.network import ScoringNetwork

        return ScoringNetwork(parts.network, parts.info.calibration)

    def write_descriptions(self, folder: Path, parts: Any) -> None:
        """Write the encoder's shape and the tokenizer."""
        from paddle_ranker.model.config import write_config

        write_config(folder, parts.network.config)
        parts.pair_encoder.save(folder)

    def write_info(self, folder: Path, parts: Any, info: RankerInfo) -> None:
        """Write `ranker.json` and the card."""
        info.write(folder, parts.network.config)


class BlendKind(RankerKind):
    """Several rankers as one; each lies in a folder of its own in the blend's."""

    def configs(self, folder: Path, info: RankerInfo) -> tuple[EncoderConfig, ...]:
        """Return the shapes of the members' encoders."""
        blend_weights(folder, info)  # checks that the members' names are names
        assert info.blend is not None
        return tuple(_read_config(folder / name) for name in info.blend["members"])

    def encoder(self, folder: Path, info: RankerInfo, options: LoadOptions) -> RowEncoder:
        """Return the encoders of all members as one."""
        blend_weights(folder, info)
        assert info.blend is not None
        members = []
        for name in info.blend["members"]:
            member = RankerInfo.read(folder / name)
            if member is None:
                raise CheckpointError(f"{folder / name}: has no {INFO_FILE}; copy the folder again, or export it again")
            length = options.max_seq_length or member.max_seq_length
            members.append(_pair_encoder(folder / name, length, options.tokenizer))
        return BlendedPairEncoder(members)

    def load(self, source: Path, options: LoadOptions) -> Any:
        """Load a blend and its members."""
        from paddle_ranker.model.blend import load_blend

        return load_blend(source, options)

    def write_descriptions(self, folder: Path, parts: Any) -> None:
        """Write those of every member into a folder of its own."""
        for name, member in zip(parts.info.blend["members"], parts.members):
            (folder / name).mkdir()
            super().write_descriptions(folder / name, member)
            member.info.write(folder / name, member.network.config)


def load_ranker(source: Union[str, Path], options: LoadOptions = _DEFAULTS) -> Any:
    """Load a trained ranker or blend for scoring, a `RankerParts`; see `model.folder.load_single`."""
    source = Path(source)
    kind = KINDS[BLEND] if source.is_dir() and KINDS[BLEND].is_in(source) else KINDS["pairwise"]
    return kind.load(source, options)


for _kind in (
    RankerKind("pairwise", "inference.predict"),
    RankerKind("cross_encoder", "inference"),
    BlendKind(BLEND, "inference.predict"),
):
    KINDS.add(_kind.name, _kind)


def _read_config(folder: Path) -> EncoderConfig:
    config = read_config(folder)
    if config is None:
        raise CheckpointError(f"{folder}: has no config.json; copy the folder again, or export it again")
    return config


def _pair_encoder(folder: Path, max_seq_length: int, tokenizer: str) -> Any:
    try:
        return make_pair_encoder(folder, _read_config(folder), max_seq_length, tokenizer)
    except CheckpointError as error:
        if str(error).startswith(str(folder)):
            raise
        raise CheckpointError(f"{folder}: {error}") from error
