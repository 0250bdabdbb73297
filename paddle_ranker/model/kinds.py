"""Kinds of rankers and towers, and functions that find the kind of a model and load it.

Recipes and plugins register further kinds with `add_kind`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Optional, TypeVar, Union

from paddle_ranker.encoding.columns import Arrays
from paddle_ranker.encoding.pair_encoder import BlendedPairEncoder, PairEncoder, PairRowEncoder
from paddle_ranker.encoding.samples import sample_batches, timing_batches
from paddle_ranker.errors import CheckpointError
from paddle_ranker.model.config import EncoderConfig
from paddle_ranker.model.families import make_pair_encoder, require_config, write_config
from paddle_ranker.model.hugging_face.folder import states_head
from paddle_ranker.model.info import BLEND, INFO_FILE, PUBLISHED_HEADS, RankerInfo, blend_of
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.opened import KINDS as KINDS
from paddle_ranker.model.opened import (
    RANKER_SIGNATURE,
    AnyKind,
    ModelInfo,
    ModelKind,
    Part,
    RowEncoder,
    Signature,
    TrainedModel,
    add_kind,
    split_signatures,
)
from paddle_ranker.model.parameters import PARAMETERS_FILE, load_arrays
from paddle_ranker.model.pretrained import find_model
from paddle_ranker.model.tower import INFO_FILE as TOWER_FILE
from paddle_ranker.model.tower import KIND as TOWER
from paddle_ranker.model.tower import TextEncoder, TowerInfo, signature_of

if TYPE_CHECKING:
    from paddle import nn

_DEFAULTS = LoadOptions()
LOWER, UPPER = "lower", "upper"  # parts of a split ranker
EXPORT = "paddle-ranker export --model RANKER --output"


def kind_of(folder: Path) -> AnyKind:
    """Return the kind of the model in a folder; `pairwise` if the folder states none, as published checkpoints do."""
    found = _kind_in(folder)
    if found is None and any(folder.glob("*.json")):
        KINDS.load_plugins()
        found = _kind_in(folder)
    return found or KINDS["pairwise"]


def text_encoder(folder: Path) -> TextEncoder:
    """Return the encoder of a tower's texts, without its network; raises `CheckpointError` for another folder."""
    kind = TowerKind()
    info = kind.read_info(folder)
    if info is None:
        raise CheckpointError(f"{folder}: is no tower; copy the index again")
    return kind.row_encoder(folder, info, _DEFAULTS)


def is_ranker(folder: Path) -> bool:
    """Return whether a folder states the kind of a ranker, or states none, as published rankers and encoders do."""
    kind = kind_of(folder)
    info = kind.read_info(folder)
    return info is None or kind.signature(info) == RANKER_SIGNATURE


def stated_kind(source: Path) -> Optional[str]:
    """Return the name of the kind of the model in a folder or parameter file, or None if unknown; loads no model.

    The folder's info file states the kind. The name of its head reveals a published checkpoint's, and a folder of
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
    """Base of rankers' kinds: models that take pairs of texts and return one logit per pair."""

    info_file = INFO_FILE

    def __init__(self, name: str, prefix: str):
        self.name, self.prefix = name, prefix

    def read_info(self, folder: Path) -> Optional[RankerInfo]:
        """Read `ranker.json`."""
        return RankerInfo.read(folder)

    def signature(self, info: RankerInfo) -> Signature:
        """Return the signature shared by all rankers."""
        return RANKER_SIGNATURE

    def static_network(self, model: TrainedModel[RankerInfo, PairEncoderT]) -> nn.Layer:
        """Return a network that computes the probability, calibrated if the ranker is, and the logit."""
        from paddle_ranker.model.network import ScoringNetwork

        return ScoringNetwork(model.network, model.info.calibration)

    def sample_inputs(self, encoder: PairEncoderT, info: RankerInfo) -> Iterator[Arrays]:
        """Yield batches of made-up pairs, both short and truncated ones."""
        return sample_batches(encoder)

    def timing_inputs(
        self, encoder: PairEncoderT, info: RankerInfo, shapes: Sequence[tuple[int, int]]
    ) -> Iterator[Arrays]:
        """Yield a batch of made-up Chinese texts for each (pairs, tokens per pair) of `shapes`."""
        return timing_batches(encoder, shapes)

    def write_info(self, folder: Path, info: RankerInfo) -> None:
        """Write `ranker.json` and the card."""
        info.write(folder, self.configs(folder, info)[0])


class RankerKind(_ScoresPairs[PairEncoder]):
    """Rankers of one network."""

    def row_encoder(self, folder: Path, info: RankerInfo, options: LoadOptions) -> PairEncoder:
        """Create the pair encoder; `max_seq_length` is that of the options, or else of the ranker."""
        length = options.max_seq_length or info.max_seq_length
        return _pair_encoder(folder, length, options.tokenizer, info.query_prompt)

    def load(self, source: Path, options: LoadOptions) -> TrainedModel[RankerInfo, PairEncoder]:
        """Load a `RankerModel`."""
        from paddle_ranker.model.folder import load_single

        return load_single(source, options)

    def parts(self, model: TrainedModel[RankerInfo, PairEncoder]) -> tuple[Part, ...]:
        """Return the lower and the upper layers of a split ranker."""
        if not model.info.stored_titles:
            return ()
        from paddle_ranker.model.split import LowerLayers, UpperLayers, similarity_sizes

        network = model.network
        lower, upper = split_signatures(network.states_width, *similarity_sizes(network))
        return Part(LOWER, lower, lambda: LowerLayers(network)), Part(UPPER, upper, lambda: UpperLayers(network))

    def write_descriptions(self, folder: Path, model: TrainedModel[RankerInfo, PairEncoder]) -> None:
        """Write the encoder's configuration and the tokenizer."""
        from paddle_ranker.model.folder import write_encoder

        write_encoder(folder, model.network, model.row_encoder)


class BlendKind(_ScoresPairs[BlendedPairEncoder]):
    """Blends of rankers; each member has a folder inside the blend's folder."""

    def configs(self, folder: Path, info: RankerInfo) -> tuple[EncoderConfig, ...]:
        """Return the configurations of the members' encoders."""
        return tuple(require_config(folder / name) for name in blend_of(folder, info).members)

    def row_encoder(self, folder: Path, info: RankerInfo, options: LoadOptions) -> BlendedPairEncoder:
        """Create the row encoder that combines those of all members."""
        members = []
        for name in blend_of(folder, info).members:
            member = RankerInfo.read(folder / name)
            if member is None:
                raise CheckpointError(f"{folder / name}: has no {INFO_FILE}; copy the folder again, or export it again")
            length = options.max_seq_length or member.max_seq_length
            members.append(_pair_encoder(folder / name, length, options.tokenizer, member.query_prompt))
        return BlendedPairEncoder(members)

    def load(self, source: Path, options: LoadOptions) -> TrainedModel[RankerInfo, BlendedPairEncoder]:
        """Load a `BlendModel`."""
        from paddle_ranker.model.blend import load_blend

        return load_blend(source, options)

    def write_descriptions(self, folder: Path, model: TrainedModel[RankerInfo, BlendedPairEncoder]) -> None:
        """Write the description files of each member into its folder."""
        from paddle_ranker.model.blend import BlendModel, write_members

        assert isinstance(model, BlendModel)
        write_members(folder, model)


class TowerKind(ModelKind[TowerInfo, TextEncoder]):
    """Models that turn a text into a vector."""

    name, info_file, prefix = TOWER, TOWER_FILE, "inference.get_pooled_embedding"
    what = "a tower, which makes vectors of texts"
    use = "encode, predict and export take it as --model, index build and serve as --tower"

    def is_in(self, folder: Path) -> bool:
        """Return whether a folder has `tower.json`, or is a sentence-transformers model of texts."""
        from paddle_ranker.model.hugging_face.sentences import is_sentences

        return super().is_in(folder) or is_sentences(folder)

    def read_info(self, folder: Path) -> Optional[TowerInfo]:
        """Read `tower.json`, or the files that sentence-transformers writes in its place."""
        from paddle_ranker.model.hugging_face.sentences import stated_info

        return stated_info(folder)

    def signature(self, info: TowerInfo) -> Signature:
        """Return the signature: tokens as inputs, and one vector."""
        return signature_of(info)

    def configs(self, folder: Path, info: TowerInfo) -> tuple[EncoderConfig, ...]:
        """Return the encoder's configuration; raises `CheckpointError` if vectors would have another size."""
        config, width = require_config(folder), info.cut_from or info.size - info.lexical_size
        if not info.output_layer and width != config.hidden_size:
            raise CheckpointError(
                f"{folder / TOWER_FILE}: damaged (size is {width:,} without dimensions of words, and the encoder is "
                f"{config.hidden_size:,} wide); copy the folder again"
            )
        return (config,)

    def row_encoder(self, folder: Path, info: TowerInfo, options: LoadOptions) -> TextEncoder:
        """Return the encoder of texts; its `max_seq_length` is that of the options, or else of the tower."""
        length = options.max_seq_length or info.max_seq_length
        tokens = make_pair_encoder(folder, require_config(folder), length, options.tokenizer)
        return TextEncoder(tokens, info.query_prompt, info.text_prompt)

    def load(self, source: Path, options: LoadOptions) -> TrainedModel[TowerInfo, TextEncoder]:
        """Load a trained tower."""
        from paddle_ranker.model.tower_network import load_tower

        return load_tower(source, options)

    def sample_inputs(self, encoder: TextEncoder, info: TowerInfo) -> Iterator[Arrays]:
        """Yield batches of made-up texts, short and truncated ones."""
        return sample_batches(encoder.tokens)

    def write_descriptions(self, folder: Path, model: TrainedModel[TowerInfo, TextEncoder]) -> None:
        """Write the encoder's configuration and the tokenizer."""
        from paddle_ranker.model.tower_network import TowerModel

        assert isinstance(model, TowerModel)
        write_config(folder, model.network.config)
        model.row_encoder.save(folder)

    def write_info(self, folder: Path, info: TowerInfo) -> None:
        """Write `tower.json`."""
        info.write(folder)


def load_trained(source: Union[str, Path], options: LoadOptions = _DEFAULTS) -> TrainedModel[ModelInfo, RowEncoder]:
    """Load a trained model, with its network, of the kind that its folder states.

    `source` is a path or a name of the Hugging Face hub. Raises `CheckpointError` if the model cannot be loaded.
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
add_kind(TowerKind())


def _pair_encoder(folder: Path, max_seq_length: int, tokenizer: str, query_prompt: str) -> PairEncoder:
    try:
        return make_pair_encoder(folder, require_config(folder), max_seq_length, tokenizer, query_prompt)
    except CheckpointError as error:
        if str(error).startswith(str(folder)):
            raise
        raise CheckpointError(f"{folder}: {error}") from error
