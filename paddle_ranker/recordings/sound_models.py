"""Convert published models of sounds (wav2vec 2.0, HuBERT) to towers, and back.

A tower's vector is the mean of the states of a sound's frames, `last_hidden_state`.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Optional

import numpy as np

from paddle_ranker.array_types import Array
from paddle_ranker.errors import CheckpointError, quoted
from paddle_ranker.model.families import require_config, write_config
from paddle_ranker.model.hugging_face.architectures import ACTIVATION_NAMES, WITHOUT_EFFECT, other_name
from paddle_ranker.model.hugging_face.weights import read_weights, write_weights
from paddle_ranker.model.parameters import PARAMETERS_FILE, load_arrays, save_arrays
from paddle_ranker.model.tower import TowerInfo
from paddle_ranker.recordings.sound_config import SoundConfig
from paddle_ranker.recordings.sound_encoder import SOUND, SoundEncoder
from paddle_ranker.storage.atomic import write_json
from paddle_ranker.storage.foreign_config import ForeignConfig
from paddle_ranker.storage.untrusted import UncheckedObject

Named = dict[str, Array]
_CONFIG, _HEAD = "config.json", "lm_head."
_WAV2VEC2, _HUBERT = "wav2vec2", "hubert"
_CLASS_NAMES = {_WAV2VEC2: "Wav2Vec2Model", _HUBERT: "HubertModel"}
_PREFIXES = ("wav2vec2.", "hubert.")
_ENCODER = "encoder."
# Theirs -> ours, as in `other_name`
_NAMES = {
    "feature_extractor.conv_layers.{}.conv": "embeddings.convolutions.{}.conv",
    "feature_extractor.conv_layers.{}.layer_norm": "embeddings.convolutions.{}.norm",
    "feature_projection.layer_norm": "embeddings.norm",
    "feature_projection.projection*": "embeddings.projection",
    "encoder.pos_conv_embed.conv": "embeddings.positions.conv",
    "encoder.layers.{}.feed_forward.intermediate_dense*": "encoder.layers.{}.linear1",
    "encoder.layers.{}.feed_forward.output_dense*": "encoder.layers.{}.linear2",
    "encoder.layers.{}.layer_norm": "encoder.layers.{}.norm1",
    "encoder.layers.{}.final_layer_norm": "encoder.layers.{}.norm2",
    **{f"encoder.layers.{{}}.attention.{part}_proj*": f"encoder.layers.{{}}.self_attn.{part}_proj"
       for part in ("q", "k", "v", "out")},
}  # fmt: skip
# Heads, and parts of pretraining, which no state depends on.
_BESIDE = (_HEAD, "masked_spec_embed", "quantizer.", "project_hid.", "project_q.", "projector.", "classifier.",
           "layer_weights", "tdnn.", "feature_extractor.layer_weights", "objective.")  # fmt: skip
_POSITIONS = "encoder.pos_conv_embed.conv."
_SPELLINGS = (("weight_g", "weight_v"), ("parametrizations.weight.original0", "parametrizations.weight.original1"))
_BATCH_NORM, _BATCH_EPSILON = "encoder.pos_conv_embed.batch_norm.", 1e-5
_UNCHANGED = 1 - _BATCH_EPSILON  # the variance by which a batch norm divides by 1
_SCALES = {f"{_ENCODER}embeddings.positions.scale": "weight", f"{_ENCODER}embeddings.positions.shift": "bias"}
_SAME = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "initializer_range",
    "layer_norm_eps", "conv_dim", "conv_kernel", "conv_stride", "conv_bias", "feat_extract_norm",
    "num_conv_pos_embeddings", "num_conv_pos_embedding_groups",
)  # fmt: skip
_OURS = {"hidden_dropout": "hidden_dropout_prob", "attention_dropout": "attention_probs_dropout_prob",
         "do_stable_layer_norm": "normalize_before"}  # fmt: skip
_OF_HUBERT = ("feat_proj_layer_norm", "conv_pos_batch_norm")
_TRAINING = """
activation_dropout feat_proj_dropout feat_quantizer_dropout final_dropout layerdrop apply_spec_augment mask_time_prob
mask_time_length mask_time_min_masks mask_feature_prob mask_feature_length mask_feature_min_masks mask_channel_length
mask_channel_min_space mask_channel_other mask_channel_prob mask_channel_selection mask_time_min_space mask_time_other
mask_time_selection num_codevectors_per_group num_codevector_groups contrastive_logits_temperature num_negatives
codevector_dim proj_codevector_dim diversity_loss_weight ctc_loss_reduction ctc_zero_infinity classifier_proj_size
tdnn_dim tdnn_kernel tdnn_dilation xvector_output_dim num_feat_extract_layers use_weighted_layer_sum vocab_size
hidden_dropout_prob attention_probs_dropout_prob feat_extract_dropout num_ctc_classes adapter_kernel_size
adapter_stride num_adapter_layers output_hidden_size freeze_feat_extract_train no_mask_channel_overlap
no_mask_time_overlap architectures auto_map pad_token_id conv_pos_batch_norm
"""


class PublishedSounds(NamedTuple):
    """Contents of a published model of sounds.

    config: the encoder's configuration
    encoder: the encoder's arrays under this toolkit's names
    head: weight, `[hidden, letters]`, and bias of the layer that spells speech; None if the model has none
    """

    config: SoundConfig
    encoder: Named
    head: Optional[tuple[Array, Array]]


def read_published(folder: Path) -> PublishedSounds:
    """Read a published model of sounds.

    Raises `CheckpointError` for unsupported settings, which it names, and for damaged files.
    """
    settings = ForeignConfig.read(folder / _CONFIG, (*WITHOUT_EFFECT, *_TRAINING.split()))
    config = _config(settings)
    settings.log_unknown()
    file, arrays = read_weights(folder)
    weight, bias = (arrays.get(f"{_HEAD}{part}") for part in ("weight", "bias"))
    try:
        encoder = _ours(config, arrays)
    except CheckpointError as error:
        raise CheckpointError(f"{folder / file}: {error}") from None
    return PublishedSounds(config, encoder, None if weight is None or bias is None else (weight.T, bias))


def bring_towers(folder: Path, source: Path, target: Path) -> None:
    """Write the tower of a published model of sounds, see `FileInput`; raises as `read_published` does."""
    config, encoder, _ = read_published(source)
    rows = SoundEncoder.read(source)
    save_arrays({_ENCODER + name: array for name, array in encoder.items()}, target / PARAMETERS_FILE)
    write_config(target, config)
    rows.save(target)
    TowerInfo(rows.max_length, config.hidden_size, normalize=False, reads=SOUND).write(target)


def _config(settings: ForeignConfig) -> SoundConfig:
    kind = settings.get("model_type")
    settings.require("add_adapter", False, remedy="take a model without an adapter behind its layers")
    settings.require("is_causal", False, remedy="take a model whose frames attend to all others")
    settings.require("adapter_attn_dim", remedy="take a model without an adapter for each language")
    values: UncheckedObject = {name: settings.get(name) for name in _SAME}
    values.update({ours: settings.get(theirs) for theirs, ours in _OURS.items()})
    values.update({name: settings.get(name) for name in _OF_HUBERT if kind == _HUBERT})
    for theirs, ours in (("hidden_act", "hidden_act"), ("feat_extract_activation", "conv_act")):
        activation = settings.get(theirs, "gelu")
        if activation not in ACTIVATION_NAMES:
            raise settings.error(
                f"{theirs} is {quoted(activation)}, which is not done here; known: {', '.join(ACTIVATION_NAMES)}"
            )
        values[ours] = ACTIVATION_NAMES[activation]
    try:
        config = SoundConfig.from_dict({**values, "model_type": kind})
    except CheckpointError as error:
        raise settings.error(str(error)) from None
    assert isinstance(config, SoundConfig)
    return config


def _names_of(config: SoundConfig) -> dict[str, str]:
    """Return this toolkit's names of an encoder's parameters, by the published names as in `other_name`."""
    return {**_NAMES, "encoder.layer_norm": "encoder.norm" if config.normalize_before else "embeddings.layer_norm"}


def _ours(config: SoundConfig, arrays: Named) -> Named:
    """Return the encoder's arrays under this toolkit's names; raises `CheckpointError` for an unknown parameter.

    arrays: the published arrays, heads included
    """
    theirs = {}
    for name, array in arrays.items():
        inner = name.split(".", 1)[1] if name.startswith(_PREFIXES) else name
        if not inner.startswith(_BESIDE):
            theirs[inner] = array
    ours, names = _of_positions(theirs), _names_of(config)
    for name, array in theirs.items():
        base, _, part = name.rpartition(".")
        our_name = other_name(base, names)
        if our_name is None:
            raise CheckpointError(f"the parameter {name} is unknown here; it may be another model's")
        ours[f"{our_name[0]}.{part}"] = array.T if our_name[1] and part == "weight" else array
    return {name: np.asarray(array, np.float32) for name, array in ours.items()}


def _of_positions(theirs: Named) -> Named:
    """Remove the arrays of the positional convolution from `theirs`; return them in this toolkit's form.

    Published models store the weight as directions and lengths (weight norm), or have a batch norm before the
    convolution. A plain weight stays in `theirs`.
    """
    ours: Named = {}
    for length, direction in _SPELLINGS:
        if _POSITIONS + length in theirs and _POSITIONS + direction in theirs:
            g, v = (np.asarray(theirs.pop(_POSITIONS + name), np.float32) for name in (length, direction))
            ours["embeddings.positions.conv.weight"] = g * v / np.sqrt((v * v).sum((0, 1), keepdims=True))
    if f"{_BATCH_NORM}running_var" in theirs:
        parts = ("weight", "bias", "running_mean", "running_var")
        weight, bias, mean, variance = (np.asarray(theirs.pop(_BATCH_NORM + part), np.float32) for part in parts)
        theirs.pop(f"{_BATCH_NORM}num_batches_tracked", None)
        scale = weight / np.sqrt(variance + _BATCH_EPSILON)
        ours.update({"embeddings.positions.scale": scale, "embeddings.positions.shift": bias - mean * scale})
    return ours


def write_published(source: Path, target: Path) -> str:
    """Write a tower of sounds into a folder for transformers; return the name of the class.

    Raises `CheckpointError` if the tower has an output layer, since transformers' classes have none.
    """
    info, config = TowerInfo.read(source), require_config(source)
    assert info is not None and isinstance(config, SoundConfig)
    if info.output_layer:
        raise CheckpointError(f"{source}: has an output layer, which transformers has no place for")
    by_ours = {ours: theirs for theirs, ours in _names_of(config).items()}
    theirs: Named = {}
    arrays = load_arrays(source / PARAMETERS_FILE)
    for ours, part in _SCALES.items():
        if ours in arrays:
            theirs[_BATCH_NORM + part] = arrays.pop(ours)
    for name, array in arrays.items():
        base, _, part = name[len(_ENCODER) :].rpartition(".")
        their_name = other_name(base, by_ours)
        assert their_name is not None, name
        array = array.T if their_name[1] and part == "weight" else array
        theirs[f"{their_name[0]}.{part}"] = np.ascontiguousarray(array, np.float32)
    if config.conv_pos_batch_norm:
        unchanged = np.zeros(config.hidden_size, np.float32)
        theirs[f"{_BATCH_NORM}running_mean"], theirs[f"{_BATCH_NORM}running_var"] = unchanged, unchanged + _UNCHANGED
    else:
        v = theirs.pop(f"{_POSITIONS}weight")
        length, direction = (_POSITIONS + name for name in _SPELLINGS[1])
        theirs.update({length: np.sqrt((v * v).sum((0, 1), keepdims=True)), direction: v})
    values: dict[str, object] = {name: getattr(config, name) for name in _SAME}
    values.update({theirs: getattr(config, ours) for theirs, ours in _OURS.items()})
    values.update({name: getattr(config, name) for name in _OF_HUBERT if config.model_type == _HUBERT})
    values.update(
        architectures=[_CLASS_NAMES[config.model_type]], model_type=config.model_type, torch_dtype="float32",
        hidden_act=config.hidden_act, feat_extract_activation=config.conv_act, mask_time_prob=0.0,
    )  # fmt: skip
    write_json(target / _CONFIG, values)
    write_weights(target, theirs)
    SoundEncoder.read(source).save(target)
    return _CLASS_NAMES[config.model_type]
