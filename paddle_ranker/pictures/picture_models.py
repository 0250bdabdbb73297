"""Convert published models of pictures and texts (CLIP, Chinese CLIP, SigLIP, ViT) to towers, and back.

A published model is a single file. It becomes a tower of pictures, with a tower of texts in its subfolder `query`.

| ours | theirs |
| --- | --- |
| a picture's vector | `get_image_features`; for `vit`, the first token's state after the last norm |
| a text's vector | `get_text_features` |
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Optional

import numpy as np

from paddle_ranker.array_types import Array
from paddle_ranker.encoding.columns import PICTURE
from paddle_ranker.encoding.tokenizers.tokenizer_folder import read_tokenizer
from paddle_ranker.errors import CheckpointError, listed, quoted
from paddle_ranker.model.config import EncoderConfig
from paddle_ranker.model.families import FAMILIES, family_of, require_config, write_config
from paddle_ranker.model.hugging_face.architectures import (
    ACTIVATION_NAMES,
    WITHOUT_EFFECT,
    marked,
    other_name,
    to_ours,
    to_theirs,
)
from paddle_ranker.model.hugging_face.library_tokenizer import MODEL_FILE, MODULES_FILE
from paddle_ranker.model.hugging_face.tokenizer import write_tokenizer
from paddle_ranker.model.hugging_face.weights import read_weights, write_weights
from paddle_ranker.model.parameters import PARAMETERS_FILE, load_arrays, save_arrays
from paddle_ranker.model.tower import INFO_FILE, QUERY_FOLDER, TowerInfo
from paddle_ranker.pictures.picture_config import MODEL_TYPES, PictureConfig, PictureTextConfig
from paddle_ranker.pictures.picture_encoder import PictureEncoder
from paddle_ranker.pictures.vilt import VIT_LINEAR, VIT_NORMS
from paddle_ranker.storage.atomic import write_json
from paddle_ranker.storage.foreign_config import ForeignConfig
from paddle_ranker.storage.untrusted import Unchecked

if TYPE_CHECKING:
    from paddle_ranker.model.hugging_face.sentences import VectorSettings

Named = dict[str, Array]
CONFIG = "config.json"
_CLIP, _CHINESE, _SIGLIP, _VIT = "clip", "chinese_clip", "siglip", "vit"
_LINEAR = {
    "self_attn.q_proj": "self_attn.q_proj", "self_attn.k_proj": "self_attn.k_proj",
    "self_attn.v_proj": "self_attn.v_proj", "self_attn.out_proj": "self_attn.out_proj",
    "mlp.fc1": "linear1", "mlp.fc2": "linear2",
}  # fmt: skip
# Theirs -> ours, as in `other_name`
_LAYERS = {
    **{f"encoder.layers.{{}}.{theirs}*": f"encoder.layers.{{}}.{ours}" for theirs, ours in _LINEAR.items()},
    "encoder.layers.{}.layer_norm1": "encoder.layers.{}.norm1",
    "encoder.layers.{}.layer_norm2": "encoder.layers.{}.norm2",
}
_PICTURES = {
    "embeddings.class_embedding": "embeddings.class_embedding",
    "embeddings.patch_embedding": "embeddings.patch_embeddings",
    "embeddings.position_embedding": "embeddings.positions",
    "pre_layrnorm": "embeddings.layer_norm",
    "post_layernorm": "encoder.norm",
    "head.probe": "pooler.probe",
    **{f"head.attention.{part}_proj*": f"pooler.self_attn.{part}_proj" for part in "qkv"},
    "head.attention.out_proj*": "pooler.self_attn.out_proj",
    "head.layernorm": "pooler.norm",
    "head.mlp.fc1*": "pooler.linear1",
    "head.mlp.fc2*": "pooler.linear2",
    **_LAYERS,
}
_TEXTS = {
    "embeddings.token_embedding": "embeddings.word_embeddings",
    "embeddings.position_embedding": "embeddings.position_embeddings",
    "final_layer_norm": "encoder.norm",
    "head*": "pooler",
    **_LAYERS,
}
_OF_VIT = {
    "embeddings.cls_token": "embeddings.class_embedding",
    "embeddings.patch_embeddings.projection": "embeddings.patch_embeddings",
    "embeddings.position_embeddings": "embeddings.positions",
    "layernorm": "encoder.norm",
}
_OLD_VIT = {**_OF_VIT, **VIT_NORMS, **marked(VIT_LINEAR)}
_NEW_VIT = {
    **_OF_VIT,
    **{f"layers.{{}}.attention.{theirs}*": f"encoder.layers.{{}}.self_attn.{ours}"
       for theirs, ours in (("q_proj", "q_proj"), ("k_proj", "k_proj"), ("v_proj", "v_proj"), ("o_proj", "out_proj"))},
    "layers.{}.mlp.fc1*": "encoder.layers.{}.linear1",
    "layers.{}.mlp.fc2*": "encoder.layers.{}.linear2",
    "layers.{}.layernorm_before": "encoder.layers.{}.norm1",
    "layers.{}.layernorm_after": "encoder.layers.{}.norm2",
}  # fmt: skip
_UNNAMED = ("embeddings.class_embedding", "embeddings.positions", "pooler.probe")  # ours, without `.weight`
_OUTPUT, _ENCODER = "output_layer", "encoder."
_PROJECTIONS = {"vision_model.": "visual_projection.weight", "text_model.": "text_projection.weight"}
# Parts of names of arrays on which no vector depends.
_BESIDE = ("logit_scale", "logit_bias", "pooler.", "classifier.", "mask_token", "position_ids")
_IDLE = (
    "projection_dim", "initializer_factor", "logit_scale_init_value", "text_config_dict", "vision_config_dict",
    "dropout", "encoder_stride", "pooler_output_size", "pooler_act", "projection_size",
)  # fmt: skip
_KEYS = {
    "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
    "initializer_range": 0.02,
}  # fmt: skip


def bring_towers(folder: Path, source: Path, target: Path) -> None:
    """Write the towers of a published model of pictures into a new folder.

    folder: the model's folder
    source: the folder with the files: `folder`, or the first sentence-transformers step in it
    target: the new folder

    Raises `CheckpointError` for unsupported settings, which it names, and for damaged files.
    """
    normalize = _is_normalised(folder)
    settings = ForeignConfig.read(source / CONFIG, (*WITHOUT_EFFECT, *_IDLE, "architectures", "auto_map"))
    kind = settings.get("model_type")
    file, arrays = read_weights(source)
    try:
        pictures = settings if kind == _VIT else settings.inner("vision_config", (*WITHOUT_EFFECT, *_IDLE))
        config, rows = _picture_config(kind, pictures), PictureEncoder.read(source)
        side = config.image_size
        if (rows.height, rows.width) != (side, side):
            raise settings.error(
                f"its network reads pictures of {side} x {side} pixels, and preprocessor_config.json makes "
                f"{rows.width} x {rows.height}: make them equal"
            )
        named = _pictures_of(kind, arrays)
        info = TowerInfo(
            rows.max_length, _size(named, config), output_layer=f"{_OUTPUT}.weight" in named, normalize=normalize,
            reads=PICTURE, picture_size=(side, side), towers=1 if kind == _VIT else 2,
        )  # fmt: skip
        stated = None
        if (folder / MODULES_FILE).is_file():
            from paddle_ranker.model.hugging_face.sentences import read_vectors

            stated = read_vectors(folder, info.size)
        _write(target, named, config, info, stated)
        rows.save(target)
        if kind != _VIT:
            (target / QUERY_FOLDER).mkdir()
            _bring_texts(source, target / QUERY_FOLDER, settings, arrays, normalize, stated)
        settings.log_unknown()
    except CheckpointError as error:
        raise error if str(source) in str(error) else CheckpointError(f"{source / file}: {error}") from None


def _is_normalised(folder: Path) -> bool:
    """Return whether sentence-transformers' last step scales vectors to length 1.

    Raises `CheckpointError` if there are steps of another kind.
    """
    if not (folder / MODULES_FILE).is_file():
        return False
    from paddle_ranker.model.hugging_face.sentences import list_modules

    kinds = [kind for kind, _ in list_modules(folder)]
    if kinds[:1] not in (["CLIPModel"], ["Transformer"]) or kinds[1:] not in ([], ["Normalize"]):
        raise CheckpointError(
            f"{folder / MODULES_FILE}: its steps are {listed(kinds)}; a CLIPModel or a Transformer, then Normalize, "
            "are done here for pictures"
        )
    return len(kinds) == 2


def _write(
    folder: Path, named: Named, config: EncoderConfig, info: TowerInfo, stated: Optional[VectorSettings]
) -> None:
    """Write a tower; its vectors are cut, compared and, of texts, prompted as sentence-transformers' files state."""
    if stated is not None:
        is_cut, of_texts = stated.size < info.size, info.reads != PICTURE
        if is_cut and not info.normalize:
            name, identity = f"{_OUTPUT}.weight", np.eye(info.size, dtype=np.float32)
            named = {**named, name: named.get(name, identity)[:, : stated.size]}
            named[f"{_OUTPUT}.bias"] = np.zeros(stated.size, np.float32)
        info = dataclasses.replace(
            info,
            size=stated.size,
            similarity=stated.similarity,
            output_layer=f"{_OUTPUT}.weight" in named,
            normalize=info.normalize and not is_cut,
            cut_from=info.size if is_cut and info.normalize else 0,
            query_prompt=stated.query_prompt if of_texts else "",
            text_prompt=stated.text_prompt if of_texts else "",
        )
    save_arrays(named, folder / PARAMETERS_FILE)
    write_config(folder, config)
    info.write(folder)


def _size(named: Named, config: EncoderConfig) -> int:
    return named[f"{_OUTPUT}.weight"].shape[1] if f"{_OUTPUT}.weight" in named else config.hidden_size


def _shared(settings: ForeignConfig, activation: str, epsilon: float) -> dict[str, object]:
    if settings.place != "text_config.":  # in which transformers' classes decide
        settings.require("is_causal", False, remedy="take a model of pictures whose patches attend to all others")
    hidden_act = settings.get("hidden_act", activation)
    if hidden_act not in ("quick_gelu", *ACTIVATION_NAMES):
        raise settings.error(f"{settings.place}hidden_act is {quoted(hidden_act)}, which is not done here")
    values = {name: settings.get(name, default) for name, default in _KEYS.items()}
    dropout = {
        "hidden_dropout_prob": settings.get("hidden_dropout_prob", 0.0),
        "attention_probs_dropout_prob": settings.get(
            "attention_dropout", settings.get("attention_probs_dropout_prob", 0.0)
        ),
    }
    epsilon = settings.get("layer_norm_eps", epsilon)
    return {**values, **dropout, "hidden_act": ACTIVATION_NAMES.get(hidden_act, hidden_act), "layer_norm_eps": epsilon}


_EPSILONS = {_CLIP: 1e-5, _CHINESE: 1e-5, _SIGLIP: 1e-6, _VIT: 1e-12}
_SIZES_OF_TEXT = {"hidden_size": 512, "num_attention_heads": 8, "intermediate_size": 2048}


def _picture_config(kind: str, settings: ForeignConfig) -> PictureConfig:
    settings.require("num_channels", 3, remedy="take a model of pictures in RGB")
    if kind == _VIT:
        settings.require("qkv_bias", True, remedy="take a model whose attention has biases")
    if kind == _SIGLIP:
        settings.require("vision_use_head", True, remedy="take a model with a head")
    settings.ignore(["model_type", "qkv_bias", "vision_use_head"])
    config: PictureConfig = PictureConfig.from_dict({  # type: ignore[assignment]
        **_shared(settings, {_SIGLIP: "gelu_pytorch_tanh", _VIT: "gelu"}.get(kind, "quick_gelu"), _EPSILONS[kind]),
        "image_size": _side(settings, "image_size", 224),
        "patch_size": _side(settings, "patch_size", 32 if kind in (_CLIP, _CHINESE) else 16),
        "class_token": kind != _SIGLIP,
        "patch_bias": kind in (_SIGLIP, _VIT),
        "norm_before_layers": kind in (_CLIP, _CHINESE),
        "attention_head": kind == _SIGLIP,
        "model_type": {_SIGLIP: "siglip_vision_model", _VIT: _VIT}.get(kind, "clip_vision_model"),
    })  # fmt: skip
    return config


def _side(settings: ForeignConfig, name: str, default: int) -> Unchecked:
    """Return the side of squares, which some files state as height and width."""
    value = settings.get(name, default)
    return value[0] if isinstance(value, list) and len(value) == 2 and value[0] == value[1] else value


def _pictures_of(kind: str, arrays: Named) -> Named:
    if kind == _VIT:
        arrays = {name.removeprefix("vit."): array for name, array in arrays.items()}
        is_old = any(".attention.attention." in name for name in arrays)
        return _network_of(arrays, _OLD_VIT if is_old else _NEW_VIT, "")
    packed = "vision_model.head.attention.in_proj_"
    arrays = dict(arrays)
    for part in ("weight", "bias"):
        if f"{packed}{part}" in arrays:
            for name, array in zip("qkv", np.split(arrays.pop(f"{packed}{part}"), 3)):
                arrays[f"vision_model.head.attention.{name}_proj.{part}"] = array
    return _network_of(arrays, _PICTURES, "vision_model.")


def _network_of(arrays: Mapping[str, Array], names: Mapping[str, str], prefix: str) -> Named:
    """Return the arrays of one network under this toolkit's names; raises `CheckpointError` for an unknown parameter.

    names: this toolkit's names by the published ones
    prefix: beginning of the network's published names; arrays with other names are left out
    """
    ours: Named = {}
    for name, array in arrays.items():
        inner = name[len(prefix) :]
        if not name.startswith(prefix) or any(part in inner for part in _BESIDE):
            continue
        base, _, part = inner.rpartition(".")
        base, part = (inner, "") if part not in ("weight", "bias") else (base, part)
        our_name = other_name(base, names)
        if our_name is None:
            raise CheckpointError(f"the parameter {name} is unknown here; it may be another model's")
        if our_name[0] in _UNNAMED:
            ours[_ENCODER + our_name[0]] = array.reshape([1, -1, array.shape[-1]])
        else:
            ours[f"{_ENCODER}{our_name[0]}.{part}"] = array.T if our_name[1] and part == "weight" else array
    projection = arrays.get(_PROJECTIONS.get(prefix, ""))
    return {**ours, **_output(projection)}


def _output(projection: Optional[Array]) -> Named:
    if projection is None:
        return {}
    return {f"{_OUTPUT}.weight": projection.T, f"{_OUTPUT}.bias": np.zeros(projection.shape[0], np.float32)}


def _bring_texts(
    source: Path, target: Path, whole: ForeignConfig, arrays: Named, normalize: bool, stated: Optional[VectorSettings]
) -> None:
    kind = whole.get("model_type")
    settings = whole.inner("text_config", (*WITHOUT_EFFECT, *_IDLE))
    settings.ignore(["model_type"])
    pooling = "pooler"
    config: EncoderConfig
    if kind == _CHINESE:
        architecture = FAMILIES["bert"].architecture
        assert architecture is not None
        config = FAMILIES["bert"].config.from_dict({**architecture.read(settings), "model_type": "bert"})
        prefix, pooling = "text_model.", "first"
        inner = {name[len(prefix) :]: array for name, array in arrays.items() if name.startswith(prefix)}
        named, _ = to_ours({name: array for name, array in inner.items() if "pooler" not in name}, architecture.names)
        named = {_ENCODER + name: array for name, array in named.items()}
        named.update(_output(arrays.get(_PROJECTIONS[prefix])))
    else:
        is_siglip = kind == _SIGLIP
        end = settings.get("eos_token_id", 49407)
        vocabulary = settings.get("vocab_size", 32000 if is_siglip else 49408)
        shared = _shared(settings, "gelu_pytorch_tanh" if is_siglip else "quick_gelu", _EPSILONS[kind])
        sizes = {} if is_siglip else {name: settings.get(name, size) for name, size in _SIZES_OF_TEXT.items()}
        config = PictureTextConfig.from_dict({
            **shared,
            **sizes,
            "vocab_size": vocabulary,
            "max_position_embeddings": settings.get("max_position_embeddings", 64 if is_siglip else 77),
            "causal": not is_siglip,
            "eos_token_id": vocabulary - 1 if end == 2 else end,  # 2: of old folders, whose largest id ends a text
            "pad_token_id": settings.get("pad_token_id", 1),
            "model_type": f"{kind}_text_model",
        })  # fmt: skip
        named = _network_of(arrays, _TEXTS, "text_model.")
    family = family_of(config.model_type)
    family.bring_tokenizer(source, target)
    files = read_tokenizer(target)
    prompts = () if stated is None or kind != _SIGLIP else (stated.query_prompt, stated.text_prompt)
    marked = [prompt for prompt in prompts if any(token in prompt for token in files.markers)]
    if marked:  # SiglipTokenizer reads the text after it by other rules
        raise CheckpointError(
            f"{source / MODEL_FILE}: prompts has {quoted(marked[0])}, with a special token, which is not done here for "
            "SigLIP: remove it"
        )
    tokens = family.pair_encoder(files, config.longest_pair, config)
    config = dataclasses.replace(config, pad_token_id=tokens.pad_id)
    if (
        isinstance(config, PictureTextConfig)
        and config.causal
        and config.eos_token_id not in tokens.template.text_after
    ):
        raise whole.error(
            f"text_config.eos_token_id is {settings.get('eos_token_id')}, and the tokenizer ends texts with "
            f"{listed(tokens.template.text_after)}: they are of two models"
        )
    info = TowerInfo(
        config.longest_pair, _size(named, config), pooling=pooling, output_layer=f"{_OUTPUT}.weight" in named,
        normalize=normalize,
    )  # fmt: skip
    _write(target, named, config, info, stated)


# Model type of a published file, by the types of its tower of pictures and its tower of texts
_WRITTEN = {
    ("clip_vision_model", "clip_text_model"): _CLIP,
    ("clip_vision_model", "bert"): _CHINESE,
    ("siglip_vision_model", "siglip_text_model"): _SIGLIP,
    (_VIT, None): _VIT,
}
_CLASS_NAMES = {_CLIP: "CLIPModel", _CHINESE: "ChineseCLIPModel", _SIGLIP: "SiglipModel", _VIT: "ViTModel"}
_LEAST_ERROR = 1e-6  # maximum error of a bias that the last norm takes over, relative to the largest bias


def write_published(source: Path, target: Path) -> str:
    """Write a tower of pictures, and its tower of texts if any, for transformers; return the name of the class.

    target: existing folder for the files

    `get_image_features` and `get_text_features` then return the towers' vectors before these are scaled to length 1.
    Published projections have no bias: the bias of a tower's output layer is folded into the bias of the last norm.

    Raises `CheckpointError` for towers that no model type in `MODEL_TYPES` can hold.
    """
    info, queries = _require_info(source), source / QUERY_FOLDER
    config = require_config(source)
    of_texts = require_config(queries) if info.towers == 2 else None
    kind = _WRITTEN.get((config.model_type, None if of_texts is None else of_texts.model_type))
    parts = [(info, config), *([(_require_info(queries), of_texts)] if of_texts is not None else [])]
    projects = kind in (_CLIP, _CHINESE)
    for part, _ in parts:
        if kind is None or part.output_layer != projects or part.output_tanh or part.cut_from or part.query_prompt:
            raise CheckpointError(
                f"{source}: {' and '.join(config.model_type for _, config in parts)}, with these output layers and "
                f"prompts, are no model of transformers; {', '.join(MODEL_TYPES)} can be written"
            )
    assert isinstance(config, PictureConfig) and kind is not None
    arrays = _foldable(source, info, "encoder.encoder.norm")
    values: dict[str, object] = {"architectures": [_CLASS_NAMES[kind]], "model_type": kind, "torch_dtype": "float32"}
    if kind == _VIT:
        theirs = _theirs(arrays, _NEW_VIT, "")
        values.update(_written(config))
    else:
        assert of_texts is not None
        theirs = _theirs(arrays, _PICTURES, "vision_model.")
        theirs["logit_scale"] = np.array(np.log(100.0), np.float32)  # as in CLIP after its training
        values.update(vision_config=_written(config), projection_dim=info.size)
        theirs.update(_texts_written(queries, kind, of_texts, values))
        if kind == _SIGLIP:
            theirs["logit_bias"] = np.array([-10.0], np.float32)
            theirs["logit_scale"] = np.array([np.log(10.0)], np.float32)
            _pack(theirs)
        with_types = of_texts.type_vocab_size > 1
        write_tokenizer(read_tokenizer(queries), target, parts[1][0].max_seq_length, with_types=with_types)
    write_json(target / CONFIG, values)
    # NumPy's ascontiguousarray would give the logit scale a dimension.
    write_weights(target, {name: np.array(array, np.float32, order="C") for name, array in theirs.items()})
    PictureEncoder.read(source).save(target)
    return _CLASS_NAMES[kind]


def _require_info(folder: Path) -> TowerInfo:
    info = TowerInfo.read(folder)
    if info is None:
        raise CheckpointError(f"{folder}: has no {INFO_FILE}; copy the folder again")
    return info


def _foldable(folder: Path, info: TowerInfo, norm: str) -> Named:
    """Return a tower's arrays, with the output layer's bias folded into the bias of the norm before that layer.

    norm: name of the norm before the output layer

    Raises `CheckpointError` if no bias of the norm has the same effect.
    """
    arrays = load_arrays(folder / PARAMETERS_FILE)
    if not info.output_layer:
        return arrays
    weight, bias = arrays[f"{_OUTPUT}.weight"], arrays.pop(f"{_OUTPUT}.bias")
    moved = np.linalg.lstsq(weight.T.astype(np.float64), bias.astype(np.float64), rcond=None)[0]
    if np.abs(weight.T @ moved - bias).max() > _LEAST_ERROR * max(1.0, float(np.abs(bias).max())):
        raise CheckpointError(f"{folder}: its output layer has a bias, which models of transformers have no place for")
    return {**arrays, f"{norm}.bias": (arrays[f"{norm}.bias"] + moved).astype(np.float32)}


def _written(config: EncoderConfig) -> dict[str, object]:
    values: dict[str, object] = {name: getattr(config, name) for name in _KEYS}
    values.update(hidden_act=config.hidden_act, layer_norm_eps=config.layer_norm_eps)
    if config.model_type == _VIT:
        values.update(
            hidden_dropout_prob=config.hidden_dropout_prob,
            attention_probs_dropout_prob=config.attention_probs_dropout_prob,
        )
    else:
        values.update(attention_dropout=config.attention_probs_dropout_prob, model_type=config.model_type)
    if isinstance(config, PictureConfig):
        values.update(image_size=config.image_size, patch_size=config.patch_size, num_channels=3)
    else:
        values.update(
            {name: getattr(config, name) for name in ("vocab_size", "max_position_embeddings", "pad_token_id")}
        )
        if isinstance(config, PictureTextConfig) and config.causal:
            values["eos_token_id"] = config.eos_token_id
    return values


def _texts_written(folder: Path, kind: str, config: EncoderConfig, values: dict[str, object]) -> Named:
    """Return the arrays of a tower of texts under the published names, and add the tower's configuration to `values`.

    folder: the tower's folder
    kind: model type of the published model
    """
    info = _require_info(folder)
    if kind != _CHINESE:
        values["text_config"] = _written(config)
        return _theirs(_foldable(folder, info, "encoder.encoder.norm"), _TEXTS, "text_model.")
    architecture = FAMILIES["bert"].architecture
    assert architecture is not None
    if info.pooling != "first":
        raise CheckpointError(f"{folder}: pools by {info.pooling}, and chinese_clip takes the first token's state")
    values["text_config"] = {**architecture.written(config), "model_type": "chinese_clip_text_model"}
    last = f"encoder.encoder.layers.{config.num_hidden_layers - 1}.norm2"
    arrays = _foldable(folder, info, last)
    projection = arrays.pop(f"{_OUTPUT}.weight")
    inner = {name: array for name, array in arrays.items() if not name.startswith("encoder.pooler.")}
    named = {f"text_model.{name}": array for name, array in to_theirs(inner, architecture.names).items()}
    return {**named, _PROJECTIONS["text_model."]: projection.T}


def _theirs(arrays: Named, names: Mapping[str, str], prefix: str) -> Named:
    """Return the arrays of one network under the published names: the inverse of `_network_of`."""
    by_ours = {ours: theirs for theirs, ours in names.items()}
    theirs: Named = {}
    for name, array in arrays.items():
        inner = name[len(_ENCODER) :]
        base, part = (inner, "") if inner in _UNNAMED else inner.rpartition(".")[::2]
        if name == f"{_OUTPUT}.weight":
            theirs[_PROJECTIONS[prefix]] = array.T
            continue
        their_name = other_name(base, by_ours)
        assert their_name is not None, name
        if base == "embeddings.class_embedding" and prefix:
            array = array.reshape(-1)
        elif base == "embeddings.positions" and prefix:
            array, part = array[0], "weight"
        array = array.T if their_name[1] and part == "weight" else array
        theirs[f"{prefix}{their_name[0]}{f'.{part}' if part else ''}"] = array
    return theirs


def _pack(theirs: Named) -> None:
    """Join the three projections of SigLIP's attention head into one array, as in published files, in place."""
    head = "vision_model.head.attention."
    for part in ("weight", "bias"):
        theirs[f"{head}in_proj_{part}"] = np.concatenate([theirs.pop(f"{head}{name}_proj.{part}") for name in "qkv"])
