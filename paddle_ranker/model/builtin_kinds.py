"""Kinds of rankers and towers that this package has.

Recipes and plugins register further kinds with `add_kind`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Optional, TypeVar

from paddle_ranker.array_types import Arrays
from paddle_ranker.encoding.columns import TEXT
from paddle_ranker.encoding.pair_encoder import BlendedPairEncoder, PairEncoder, PairRowEncoder
from paddle_ranker.encoding.samples import sample_batches, timing_batches
from paddle_ranker.errors import CheckpointError
from paddle_ranker.model.config import EncoderConfig
from paddle_ranker.model.families import require_config, write_config
from paddle_ranker.model.info import BLEND, INFO_FILE, RankerInfo, blend_of
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.model_kind import (
    CLIENT,
    EXPORTED,
    LOGIT,
    OPERATION_LOGITS,
    RANKER_SIGNATURE,
    SERVER,
    TOKEN_LOGITS,
    TRANSFORMERS,
    ModelKind,
    ModelPart,
    Signature,
    TrainedModel,
    add_kind,
)
from paddle_ranker.model.model_kind import KINDS as KINDS
from paddle_ranker.model.tower import FILE_INPUTS, RowsOfTower, TextEncoder, TowerInfo, signature_of
from paddle_ranker.model.tower import INFO_FILE as TOWER_FILE
from paddle_ranker.model.tower import KIND as TOWER
from paddle_ranker.registry import Registry

if TYPE_CHECKING:
    from paddle import nn

_SCORE = "prediction, evaluation, rank, compare and serve take it"
# Layers of rankers that are exported beside the whole graph: of a ranker, in order; none if it has no such layers.
RANKER_PARTS: Registry[Callable[[TrainedModel[RankerInfo, PairEncoder]], tuple[ModelPart, ...]]] = Registry(
    "part of rankers", recipes="kind"
)


PairEncoderT = TypeVar("PairEncoderT", bound=PairRowEncoder)


class _ScoresPairs(ModelKind[RankerInfo, PairEncoderT]):
    """Base of rankers' kinds: models that take pairs of texts and return one logit per pair."""

    info_file, is_ranker = INFO_FILE, True
    what, use = "a trained ranker", f"{_SCORE}, and export"

    def __init__(self, name: str, prefix: str):
        self.name, self.prefix = name, prefix

    def describe(self, form: str) -> tuple[str, str]:
        return _RANKERS.get(form, (self.what, self.use))

    def read_info(self, folder: Path) -> Optional[RankerInfo]:
        return RankerInfo.read(folder)

    def signature(self, info: RankerInfo) -> Signature:
        return RANKER_SIGNATURE

    def scoring_network(self, model: TrainedModel[RankerInfo, PairEncoderT]) -> tuple[nn.Layer, tuple[str, ...]]:
        """Return the network and its outputs' names.

        If the ranker answers questions by naming cells of a table, it also returns logits of tokens and of operations.
        """
        from paddle_ranker.model.network import AnsweringNetwork

        if not any(config.names_cells for config in model.network.configs):
            return super().scoring_network(model)
        return AnsweringNetwork(model.network), (LOGIT, TOKEN_LOGITS, OPERATION_LOGITS)

    def static_network(self, model: TrainedModel[RankerInfo, PairEncoderT]) -> nn.Layer:
        """Return a network that computes the probability, calibrated if the ranker is, and the uncalibrated logit."""
        from paddle_ranker.model.network import ScoringNetwork

        return ScoringNetwork(model.network, model.info.calibration)

    def sample_inputs(self, encoder: PairEncoderT, info: RankerInfo) -> Iterator[Arrays]:
        return sample_batches(encoder)

    def timing_inputs(
        self, encoder: PairEncoderT, info: RankerInfo, shapes: Sequence[tuple[int, int]]
    ) -> Iterator[Arrays]:
        return timing_batches(encoder, shapes)

    def write_info(self, folder: Path, info: RankerInfo) -> None:
        info.write(folder, self.configs(folder, info)[0])


class RankerKind(_ScoresPairs[PairEncoder]):
    """Rankers of one network."""

    has_encoder = True

    def row_encoder(self, folder: Path, info: RankerInfo, options: LoadOptions) -> PairEncoder:
        """Create the pair encoder; `options.max_seq_length`, if set, replaces the ranker's maximum length."""
        from paddle_ranker.model.hugging_face.folder import folder_pair_encoder

        length = options.max_seq_length or info.max_seq_length
        return folder_pair_encoder(folder, length, info.query_prompt)

    def load(self, source: Path, options: LoadOptions) -> TrainedModel[RankerInfo, PairEncoder]:
        from paddle_ranker.model.ranker_folder import load_single

        return load_single(source, options)

    def parts(self, model: TrainedModel[RankerInfo, PairEncoder]) -> tuple[ModelPart, ...]:
        RANKER_PARTS.load_plugins()
        return tuple(part for parts_of in RANKER_PARTS.values() for part in parts_of(model))

    def write_descriptions(self, folder: Path, model: TrainedModel[RankerInfo, PairEncoder]) -> None:
        from paddle_ranker.model.ranker_folder import write_encoder

        write_encoder(folder, model.network, model.row_encoder)


class CrossEncoderKind(RankerKind):
    """Cross-encoders, including those of transformers and sentence-transformers."""

    def is_in_transformers(self, folder: Path) -> bool:
        """Return whether a folder is a ranker of transformers or sentence-transformers, with one or two classes."""
        from paddle_ranker.model.hugging_face.folder import states_head
        from paddle_ranker.model.hugging_face.sentences import is_sentences

        return states_head(folder) and not is_sentences(folder)

    def read_info(self, folder: Path) -> Optional[RankerInfo]:
        """Read `ranker.json`; if it is missing, read transformers' files. Return None if they describe no ranker."""
        from paddle_ranker.model.hugging_face.sentences import stated_ranker

        info = super().read_info(folder)
        return stated_ranker(folder) if info is None and self.is_in_transformers(folder) else info


class BlendKind(_ScoresPairs[BlendedPairEncoder]):
    """Blends of rankers; each member has a folder inside the blend's folder."""

    what = "a blend of rankers"

    def configs(self, folder: Path, info: RankerInfo) -> tuple[EncoderConfig, ...]:
        return tuple(require_config(folder / name) for name in blend_of(folder, info)["members"])

    def row_encoder(self, folder: Path, info: RankerInfo, options: LoadOptions) -> BlendedPairEncoder:
        from paddle_ranker.model.hugging_face.folder import folder_pair_encoder

        members = []
        for name in blend_of(folder, info)["members"]:
            member = RankerInfo.read(folder / name)
            if member is None:
                raise CheckpointError(f"{folder / name}: has no {INFO_FILE}; copy the folder again, or export it again")
            length = options.max_seq_length or member.max_seq_length
            members.append(folder_pair_encoder(folder / name, length, member.query_prompt))
        return BlendedPairEncoder(members)

    def load(self, source: Path, options: LoadOptions) -> TrainedModel[RankerInfo, BlendedPairEncoder]:
        from paddle_ranker.model.blend import load_blend

        return load_blend(source, options)

    def write_descriptions(self, folder: Path, model: TrainedModel[RankerInfo, BlendedPairEncoder]) -> None:
        from paddle_ranker.model.blend import BlendModel, write_members

        assert isinstance(model, BlendModel)
        write_members(folder, model)


class TowerKind(ModelKind[TowerInfo, RowsOfTower]):
    """Models that turn a text, a picture or a sound into a vector."""

    name, info_file, prefix, has_encoder = TOWER, TOWER_FILE, "inference.get_pooled_embedding", True
    what = "a tower, which makes vectors of texts, pictures or sounds"
    use = "encode, predict and export take it as --model, index build and serve as --tower"

    def is_in_transformers(self, folder: Path) -> bool:
        """Return whether a folder is a sentence-transformers model of texts."""
        from paddle_ranker.model.hugging_face.sentences import is_sentences

        return is_sentences(folder)

    def read_info(self, folder: Path) -> Optional[TowerInfo]:
        """Read `tower.json`; if it is missing, read sentence-transformers' files. Return None if there are none."""
        from paddle_ranker.model.hugging_face.sentences import stated_info

        return stated_info(folder)

    def signature(self, info: TowerInfo) -> Signature:
        return signature_of(info)

    def configs(self, folder: Path, info: TowerInfo) -> tuple[EncoderConfig, ...]:
        """Return the encoder's configuration.

        Raises `CheckpointError` if the tower has no output layer, and its size does not fit the encoder's width.
        """
        from paddle_ranker.model.hugging_face.folder import encoder_config

        config, width = encoder_config(folder), info.cut_from or info.size - info.lexical_size
        if not info.output_layer and width != config.hidden_size:
            raise CheckpointError(
                f"{folder / TOWER_FILE}: damaged (size is {width:,} without dimensions of words, and the encoder is "
                f"{config.hidden_size:,} wide); copy the folder again"
            )
        return (config,)

    def row_encoder(self, folder: Path, info: TowerInfo, options: LoadOptions) -> RowsOfTower:
        """Create the encoder of a tower's inputs: texts, pictures or sounds.

        `options.max_seq_length`, if set, replaces the tower's maximum length of texts.
        """
        from paddle_ranker.model.hugging_face.folder import folder_pair_encoder

        if info.reads != TEXT:
            return FILE_INPUTS[info.reads].rows(folder)
        length = options.max_seq_length or info.max_seq_length
        tokens = folder_pair_encoder(folder, length)
        return TextEncoder(tokens, info.query_prompt, info.text_prompt, info.titled)

    def load(self, source: Path, options: LoadOptions) -> TrainedModel[TowerInfo, RowsOfTower]:
        from paddle_ranker.model.tower_network import load_tower

        return load_tower(source, options)

    def sample_inputs(self, encoder: RowsOfTower, info: TowerInfo) -> Iterator[Arrays]:
        if isinstance(encoder, TextEncoder):
            return sample_batches(encoder.tokens, alone=not encoder.titled)
        return (rows.pad(range(len(rows))) for rows in encoder.samples())

    def write_descriptions(self, folder: Path, model: TrainedModel[TowerInfo, RowsOfTower]) -> None:
        from paddle_ranker.model.tower_network import TowerModel

        assert isinstance(model, TowerModel)
        write_config(folder, model.network.config)
        model.row_encoder.save(folder)

    def write_info(self, folder: Path, info: TowerInfo) -> None:
        info.write(folder)


# `what` and `use` of a ranker's folder, by each form other than `TRAINED`
_RANKERS = {
    TRANSFORMERS: (
        "a ranker of Hugging Face's transformers",
        f"training takes it as --model FOLDER; {_SCORE}, and export; for all else, convert it: "
        "paddle-ranker convert FOLDER TARGET",
    ),
    EXPORTED: (
        "an exported ranker",
        f"{_SCORE}, and quantize; to train or to export, give the folder that it was exported from",
    ),
    SERVER: (
        "a server's folder of Paddle Serving",
        "serve, prediction and evaluation take it; else give the folder that it was made from",
    ),
    CLIENT: ("a client's folder of Paddle Serving", "the tutorial's clients take it"),
}
add_kind(RankerKind("pairwise", "inference.predict"))
add_kind(CrossEncoderKind("cross_encoder", "inference"))
add_kind(BlendKind(BLEND, "inference.predict"))
add_kind(TowerKind())
