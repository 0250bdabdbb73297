"""A ranker's folder: everything that scoring, exporting and further training need, and nothing else.

| file | holds |
| --- | --- |
| `model_state.pdparams` | the parameters |
| `config.json` | the encoder's shape |
| `vocab.txt`, `tokenizer_config.json`, `special_tokens_map.json` | the tokenizer |
| `ranker.json` | what kind of ranker it is, its length, how it was trained and with what result |
| `README.md` | the same for people |
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Union

from paddle_ranker.encoding.pair_encoder import RowEncoder, never_match_ids
from paddle_ranker.errors import CheckpointError
from paddle_ranker.lexical.head import LexicalHead
from paddle_ranker.model.config import EncoderConfig, config_by_name, make_pair_encoder, read_config, write_config
from paddle_ranker.model.info import BLEND, PUBLISHED_HEADS, require_kind
from paddle_ranker.model.info import INFO_FILE as INFO_FILE
from paddle_ranker.model.info import RankerInfo as RankerInfo
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.network import RankerNetwork, has_two_class_head, load_parameters, name_parameters
from paddle_ranker.model.parameters import PARAMETERS_FILE, count, load_arrays, save_arrays
from paddle_ranker.model.recognised import RANKER_WANTED, headless_refusal, require_parameters

DEFAULTS = LoadOptions()
TO_TRAIN = "a ranker or an encoder to train"
PUBLISHED_MAX_SEQ_LENGTH = 128  # of checkpoints that do not say


@dataclass(frozen=True)
class RankerParts:
    """A ranker in memory.

    `new_parts` are the parameters that were not in the checkpoint and start from nothing; `folded_head` says that the
    head was one of two classes there; `dropped_calibration`, that training starts from a calibrated ranker, whose
    calibration is not `info`'s any more.
    """

    network: RankerNetwork
    pair_encoder: Any  # of a blend a `RowEncoder`, else a `PairEncoder`
    info: RankerInfo
    new_parts: list[str]
    folded_head: bool = False
    dropped_calibration: bool = False
    members: tuple[RankerParts, ...] = ()  # of a blend


def save_ranker(folder: Path, network: RankerNetwork, pair_encoder: RowEncoder, info: RankerInfo) -> None:
    """Write a ranker into an existing folder; wrap it in `atomic.new_folder`."""
    save_arrays(network.state_dict(), folder / PARAMETERS_FILE)
    pair_encoder.save(folder)
    write_config(folder, network.config)
    info.write(folder, network.config)


def load_single(source: Union[str, Path], options: LoadOptions = DEFAULTS) -> RankerParts:
    """Load a trained ranker of one network for scoring: a model folder, or the `model_state.pdparams` in it.

    Raises `CheckpointError` where anything the score depends on is missing; there is no random head here.
    """
    return _load(source, options)


@dataclass(frozen=True)
class Fresh:
    """What a training starts from nothing where the checkpoint has none.

    kind: what is trained
    match_embeddings: False: they are left out, and must not be in the checkpoint
    lexical_features: they are added where the checkpoint has none; those that it has stay
    """

    kind: str
    match_embeddings: bool = True
    lexical_features: bool = False


def start_ranker(source: Union[str, Path], fresh: Fresh, options: LoadOptions = DEFAULTS) -> RankerParts:
    """Load a ranker or a bare encoder to train it; missing heads and match embeddings start from nothing.

    With `options.expected_kind` a ranker of another kind is refused; without, its encoder and head are where to start.
    A calibration is dropped: training moves the logits that it was fitted to.

    Raises `CheckpointError` where the encoder is incomplete or does not fit its configuration, or it is a blend.
    """
    return _load(source, options, fresh)


def _load(source: Union[str, Path], options: LoadOptions, fresh: Optional[Fresh] = None) -> RankerParts:
    source = Path(source)
    info = RankerInfo.read(source.parent if source.is_file() else source)
    if info and info.kind == BLEND and source.is_dir():
        raise CheckpointError(f"{source}: a blend of rankers cannot be trained: train a member, and blend again")
    kind = fresh.kind if fresh else None
    folder, parameters = _locate(source, RANKER_WANTED if fresh is None else TO_TRAIN)
    config = read_config(folder)
    if info:
        require_kind(folder, info.kind, options.expected_kind)
    if config is None:
        if options.model_name is None:
            raise CheckpointError(f"{folder}: has no config.json; say which model it is with --model_name_or_path")
        config = _named_config(options.model_name)
    arrays = load_arrays(parameters)
    published_kind = next((PUBLISHED_HEADS[name] for name in PUBLISHED_HEADS if name in arrays), None)
    if published_kind and not info:
        require_kind(parameters, published_kind, options.expected_kind)
    try:
        config.require_fits(*count(arrays))
        named = name_parameters(arrays)
    except CheckpointError as error:
        raise CheckpointError(f"{parameters}: {error}") from error
    if fresh is None and info is None and "head.weight" not in named:
        raise headless_refusal(folder)
    try:
        has_match = "match_embeddings.weight" in named
        with_lexical = (fresh is not None and fresh.lexical_features) or "lexical.idf" in named
        with_match = has_match or (fresh is not None and fresh.match_embeddings)
        if has_match and fresh is not None and not fresh.match_embeddings:
            raise CheckpointError(
                "has match embeddings, which cannot be left out of a trained ranker: drop "
                "--match_embeddings false, or start from another checkpoint"
            )
        info = info or RankerInfo(
            kind=kind or published_kind or "pairwise",
            max_seq_length=min(PUBLISHED_MAX_SEQ_LENGTH, config.longest_pair),
            match_embeddings=with_match,
        )
        info = dataclasses.replace(
            info,
            kind=kind or info.kind,
            match_embeddings=with_match,
            lexical_features=with_lexical,
            max_seq_length=options.max_seq_length or info.max_seq_length,
        )
        pair_encoder = make_pair_encoder(folder, config, info.max_seq_length, options.tokenizer)
        never_match = never_match_ids(pair_encoder)
        lexical = LexicalHead(config.vocab_size, never_match) if with_lexical else None
        network = RankerNetwork(config, never_match if with_match else None, lexical)
        new_parts = load_parameters(network, named, allow_new=kind is not None)
    except CheckpointError as error:
        raise CheckpointError(f"{parameters}: {error}") from error
    is_calibrated = info.calibration is not None
    if kind is not None and is_calibrated:
        info = dataclasses.replace(info, calibration=None)
    return RankerParts(
        network, pair_encoder, info, new_parts, has_two_class_head(arrays), kind is not None and is_calibrated
    )


def with_lexical_features(parts: RankerParts) -> RankerNetwork:
    """Return the network of a ranker with lexical features at its head; new ones have no tables, and add nothing."""
    old = parts.network
    if old.lexical is not None:
        return old
    never_match = never_match_ids(parts.pair_encoder)
    network = RankerNetwork(old.config, old.never_match, LexicalHead(old.config.vocab_size, never_match))
    load_parameters(network, {name: value.numpy() for name, value in old.state_dict().items()}, allow_new=True)
    return network


def _locate(source: Path, wanted: str) -> tuple[Path, Path]:
    """Return the folder and the parameter file of a folder or file that a user gave; `wanted` is for messages."""
    if source.is_file():
        if source.suffix != ".pdparams" and not _begins_as_parameters(source):
            raise CheckpointError(f"{source}: is not a parameter file; give a model folder, or its {PARAMETERS_FILE}")
        return source.parent, source
    if not source.is_dir():
        raise CheckpointError(f"{source}: there is no such model folder or parameter file")
    require_parameters(source, wanted)
    return source, source / PARAMETERS_FILE


def _begins_as_parameters(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(1) == b"\x80"  # of every pickle since protocol 2


def _named_config(model_name: str) -> EncoderConfig:
    """Return the configuration of a local folder or of a name that PaddleNLP knows."""
    config = read_config(Path(model_name)) if Path(model_name).is_dir() else None
    return config or config_by_name(model_name)
