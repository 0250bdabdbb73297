"""Save and load a ranker's folder, which holds all that scoring, exporting and further training need.

| file | holds |
| --- | --- |
| `model_state.pdparams` | the parameters |
| `config.json` | the encoder's configuration |
| `vocab.txt`, `tokenizer_config.json`, `special_tokens_map.json` | the tokenizer |
| `ranker.json` | the kind of ranker, its length, its training and the results |
| `README.md` | the model card: the same facts for people |
| `similarity` | the tower of a ranker that adds the cosine of both texts |
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional, Union

import paddle

from paddle_ranker.encoding.pair_encoder import PairEncoder, never_match_ids
from paddle_ranker.errors import CheckpointError
from paddle_ranker.model.checkpoint_names import has_two_class_head
from paddle_ranker.model.encoder_loading import Checkpoint, encoder_of, read_checkpoint
from paddle_ranker.model.families import write_config
from paddle_ranker.model.info import BLEND, INFO_FILE, PUBLISHED_HEADS, RankerInfo
from paddle_ranker.model.load_options import DEFAULT_OPTIONS, LoadOptions
from paddle_ranker.model.model_kind import RANKER_SIGNATURE, TrainedModel
from paddle_ranker.model.network import RankerNetwork, load_heads
from paddle_ranker.model.parameters import PARAMETERS_FILE, save_arrays
from paddle_ranker.model.pretrained import find_model

PUBLISHED_MAX_SEQ_LENGTH = 128  # for checkpoints that state no length
_MATCH, _LEXICAL, _SIMILARITY = "match_embeddings.weight", "lexical.idf", "similarity_head.weight"


@dataclass(frozen=True)
class RankerModel(TrainedModel[RankerInfo, PairEncoder]):
    """Ranker of one network, opened in memory.

    new_parts: names of the parts that the checkpoint lacks and that are initialised
    folded_head: whether the checkpoint's head had two classes, which were folded into one logit
    dropped_calibration: whether the checkpoint was calibrated, and its calibration was dropped for a training
    """

    network: RankerNetwork
    new_parts: list[str] = field(default_factory=list)
    folded_head: bool = False
    dropped_calibration: bool = False


def save_ranker(folder: Path, network: RankerNetwork, row_encoder: PairEncoder, info: RankerInfo) -> None:
    """Write a ranker into an existing folder; call it inside `atomic.new_folder`."""
    save_arrays(network.own_state(), folder / PARAMETERS_FILE)
    write_encoder(folder, network, row_encoder)
    if network.similarity_head is not None:
        from paddle_ranker.model.similarity import SimilarityHead, save_similarity

        if isinstance(network.similarity_head, SimilarityHead):
            save_similarity(folder, network.similarity_head)
    info.write(folder, network.config)


def write_encoder(folder: Path, network: RankerNetwork, row_encoder: PairEncoder) -> None:
    """Write the tokenizer's files and the encoder's configuration into an existing folder."""
    row_encoder.save(folder)
    write_config(folder, network.config)


def load_single(source: Union[str, Path], options: LoadOptions = DEFAULT_OPTIONS) -> RankerModel:
    """Load a trained ranker of one network for scoring, from a folder (also of transformers) or a parameter file.

    Raises `CheckpointError` if a part that scores depend on is missing.
    """
    source = Path(source)
    checkpoint = read_checkpoint(source, options.model_name).for_label(options.positive_label)
    info = _described(checkpoint, _stated(source), options, checkpoint.stated_length)
    with_match, with_lexical, with_similarity = (name in checkpoint.arrays for name in (_MATCH, _LEXICAL, _SIMILARITY))
    info = dataclasses.replace(
        info, match_embeddings=with_match, lexical_features=with_lexical, similarity=with_similarity
    )
    return _assembled(checkpoint, info)


@dataclass(frozen=True)
class Fresh:
    """Parts to add, for a training, to a checkpoint that lacks them.

    kind: the kind of ranker to train
    match_embeddings: whether to add match embeddings; if False, the checkpoint must not have any
    lexical_features: whether to add lexical features; those of the checkpoint are always kept
    similarity: folder or name of a tower or encoder, whose cosine of both texts is added to the logit; "start": the
        encoder of the checkpoint; None: add no similarity, and keep that of the checkpoint
    stored_titles: number of lower layers, in which each text attends only to itself; 0: as in the checkpoint
    stored_width: width of the states after the lower layers; 0: as in the checkpoint, or else the encoder's width
    """

    kind: str
    match_embeddings: bool = True
    lexical_features: bool = False
    similarity: Optional[str] = None
    stored_titles: int = 0
    stored_width: int = 0


def start_ranker(source: Union[str, Path], fresh: Fresh, options: LoadOptions = DEFAULT_OPTIONS) -> RankerModel:
    """Load a ranker or a bare encoder to train it; missing heads and match embeddings are initialised.

    From a ranker of another kind, the encoder and the head are taken. A calibration is dropped, since training changes
    the logits that it was fitted to.

    Raises `CheckpointError` if the encoder is incomplete or does not fit its configuration, or `source` is a blend.
    """
    source = Path(source)
    stored = _stated(source)
    checkpoint = read_checkpoint(source, options.model_name).for_label(options.positive_label).with_new_words()
    info = _described(checkpoint, stored, options)
    started = dataclasses.replace(
        info,
        kind=fresh.kind,
        match_embeddings=checked_match_embeddings(checkpoint, fresh.match_embeddings),
        lexical_features=fresh.lexical_features or _LEXICAL in checkpoint.arrays,
        similarity=fresh.similarity is not None or _SIMILARITY in checkpoint.arrays,
        stored_titles=fresh.stored_titles or info.stored_titles,
        stored_width=_states_width(source, fresh, info, checkpoint.config.hidden_size),
        calibration=None,
    )
    tower = None
    if fresh.similarity is not None:
        tower = _similarity_tower(fresh.similarity, source, checkpoint)
    model = _assembled(checkpoint, started, allow_new=True, tower=tower)
    return dataclasses.replace(model, dropped_calibration=info.calibration is not None)


def _states_width(source: Path, fresh: Fresh, info: RankerInfo, size: int) -> int:
    """Return the new ranker's `stored_width`; raises `CheckpointError` if the checkpoint cannot get the wanted width.

    info: the checkpoint's info
    size: width of the encoder's states
    """
    width, current = fresh.stored_width, info.stored_width
    if width and not (fresh.stored_titles or info.stored_titles):
        raise CheckpointError(f"--stored_width {width}: the encoder is not split; give --stored_titles, too")
    if width >= size or current not in (0, width or current):
        raise CheckpointError(
            f"--stored_width {width}: a state of {source} has {current or size} numbers; leave it out"
        )
    return width or current


def _similarity_tower(wanted: str, source: Path, checkpoint: Checkpoint) -> Path:
    """Return the folder of the tower for a new similarity.

    wanted: `Fresh.similarity`
    source: the checkpoint's path

    Raises `CheckpointError` if the checkpoint already has a similarity, or is a ranker and `wanted` is `START`.
    """
    from paddle_ranker.model.similarity import START

    if _SIMILARITY in checkpoint.arrays:
        raise CheckpointError(f"{source}: has a similarity of both texts, which stays: leave out --similarity {wanted}")
    if wanted != START:
        return find_model(wanted)
    if "head.weight" in checkpoint.arrays:
        raise CheckpointError(
            f"--similarity {START}: {source} is a ranker, whose encoder no longer makes vectors of single texts: name "
            "a tower, or the encoder that the ranker was trained from"
        )
    return source


def _stated(source: Path) -> Optional[RankerInfo]:
    """Read the info file in a folder, or beside a parameter file; None if there is none.

    Raises `CheckpointError` for the folder of a blend.
    """
    info = RankerInfo.read(source.parent if source.is_file() else source)
    if info and info.kind == BLEND and source.is_dir():
        raise CheckpointError(f"{source}: a blend of rankers cannot be trained: train a member, and blend again")
    return info


def _described(
    checkpoint: Checkpoint, stored: Optional[RankerInfo], options: LoadOptions, length: Optional[int] = None
) -> RankerInfo:
    """Return the checkpoint's info: `stored`, or else that of a published checkpoint.

    stored: contents of the checkpoint's info file; None without the file
    length: maximum length of a pair in tokens if no info file states it; None: `PUBLISHED_MAX_SEQ_LENGTH`
    """
    published_kind = next((PUBLISHED_HEADS[name] for name in PUBLISHED_HEADS if name in checkpoint.unnamed), None)
    longest = min(length or PUBLISHED_MAX_SEQ_LENGTH, checkpoint.config.longest_pair)
    with_match = _MATCH in checkpoint.arrays
    info = stored or RankerInfo(published_kind or "pairwise", max_seq_length=longest, match_embeddings=with_match)
    if stored is None and checkpoint.ranker is not None:
        info = dataclasses.replace(checkpoint.ranker, max_seq_length=longest, match_embeddings=with_match)
    return dataclasses.replace(info, max_seq_length=options.max_seq_length or info.max_seq_length)


def _assembled(
    checkpoint: Checkpoint, info: RankerInfo, allow_new: bool = False, tower: Optional[Path] = None
) -> RankerModel:
    """Create a ranker from a checkpoint, with the parts that `info` states.

    allow_new: for training: initialise parts that the checkpoint lacks, and share no memory with its arrays
    tower: folder of the tower for a new similarity; None: the tower in the checkpoint's folder
    """
    with_match, with_lexical = info.match_embeddings, info.lexical_features
    if info.stored_width >= checkpoint.config.hidden_size:
        raise CheckpointError(
            f"{checkpoint.file.parent / INFO_FILE}: damaged (stored_width is {info.stored_width:,}, and a state has "
            f"{checkpoint.config.hidden_size:,} numbers); copy it again"
        )
    pair_encoder = checkpoint.pair_encoder(info.max_seq_length, info.query_prompt)
    try:
        never_match = never_match_ids(pair_encoder)
        spelling = pair_encoder.spelling() if with_match or with_lexical else None
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint.file}: {error}") from error
    lexical = None
    if with_lexical:
        from paddle_ranker.lexical.head import LexicalHead

        lexical = LexicalHead(checkpoint.config.vocab_size, never_match, spelling)
    encoder, new_parts = encoder_of(checkpoint, need_pooler=not (allow_new or info.pooling), share=not allow_new)
    new_parts = [] if info.pooling else new_parts  # the pooler is unused
    similarity = None
    if info.similarity:
        from paddle_ranker.model.similarity import SimilarityHead, load_similarity
        from paddle_ranker.model.tower_network import load_tower

        if tower is None:
            similarity = load_similarity(checkpoint.file.parent, pair_encoder)
        else:
            similarity = SimilarityHead(load_tower(tower, LoadOptions()), pair_encoder)
    compares = (never_match, spelling) if with_match else (None, None)
    # Parameters take no memory until `load_heads` has compared their shapes with those in the file.
    with paddle.LazyGuard():
        network = RankerNetwork(
            checkpoint.config, compares[0], lexical, encoder=encoder, spelling=compares[1], pooling=info.pooling,
            steps=info.steps, similarity=similarity, stored_width=info.stored_width,
        )  # fmt: skip
    try:
        encoder.split(info.stored_titles)
        new_parts = sorted([*new_parts, *load_heads(network, checkpoint.arrays, allow_new=allow_new)])
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint.file}: {error}") from error
    signature = RANKER_SIGNATURE.with_places(pair_encoder.place_size)
    return RankerModel(info, pair_encoder, signature, network, new_parts, has_two_class_head(checkpoint.unnamed))


def checked_match_embeddings(checkpoint: Checkpoint, wanted: bool) -> bool:
    """Return `wanted`: whether a ranker gets match embeddings.

    Raises `CheckpointError` if the checkpoint has match embeddings that are not wanted.
    """
    if _MATCH in checkpoint.arrays and not wanted:
        raise CheckpointError(
            f"{checkpoint.file}: has match embeddings, which cannot be left out of a trained ranker: drop "
            "--match_embeddings false, or start from another checkpoint"
        )
    return wanted


def with_lexical_features(model: RankerModel) -> RankerNetwork:
    """Return a ranker's network with a lexical head; a new head has empty tables, and adds nothing to the logit yet."""
    from paddle_ranker.lexical.head import LexicalHead

    old = model.network
    if old.lexical is not None:
        return old
    never_match = never_match_ids(model.row_encoder)
    spelling = model.row_encoder.spelling()
    lexical = LexicalHead(old.config.vocab_size, never_match, spelling)
    compares = None if old.never_match is None else spelling
    network = RankerNetwork(
        old.config, old.never_match, lexical, encoder=old.encoder, spelling=compares, pooling=model.info.pooling,
        steps=model.info.steps, similarity=old.similarity_head, stored_width=model.info.stored_width,
    )  # fmt: skip
    load_heads(network, {name: value.numpy() for name, value in old.state_dict().items()}, allow_new=True)
    return network
