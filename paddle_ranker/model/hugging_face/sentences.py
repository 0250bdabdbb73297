"""Read and write the settings of sentence-transformers folders: pooling, layers, length, prompts.

`modules.json` lists the steps in order, with a folder for each: Transformer, Pooling, Dense, Normalize. The maximum
length is in `sentence_bert_config.json`, prompts and similarity are in `config_sentence_transformers.json`. A separate
query tower is a sentence-transformers folder in the subfolder `query`.

A `CrossEncoder` is a transformers folder with a head, or has steps like a tower, of which the last returns a score.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Optional

import numpy as np

from paddle_ranker.array_types import Array
from paddle_ranker.errors import CheckpointError, listed, quoted
from paddle_ranker.model.config import EncoderConfig
from paddle_ranker.model.hugging_face.adapter_folders import find_encoder
from paddle_ranker.model.hugging_face.folder import (
    LOGIT_SCORE,
    activation_of,
    answers_pairs,
    read_encoder_config,
    read_foreign_config,
)
from paddle_ranker.model.hugging_face.library_tokenizer import (
    CROSS_ENCODER,
    LENGTH_FILE,
    MODEL_FILE,
    MODULES_FILE,
    SENTENCE_TRANSFORMER,
    model_type_of,
    stated_length,
)
from paddle_ranker.model.hugging_face.weights import read_weights, write_weights
from paddle_ranker.model.info import RankerInfo
from paddle_ranker.model.tower import QUERY_FOLDER, SIMILARITIES, TowerInfo
from paddle_ranker.notes import note_once
from paddle_ranker.storage.atomic import write_json
from paddle_ranker.storage.foreign_config import ForeignConfig
from paddle_ranker.storage.untrusted import Unchecked, read_json

SENTENCES_FILES = (MODULES_FILE, LENGTH_FILE, MODEL_FILE)
_POOLING = {"cls": "first", "mean": "mean", "max": "max", "lasttoken": "last"}
# Until sentence-transformers 5, each mode had a key.
_OLD_POOLING = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_PACKAGE = "sentence_transformers."
_DONE = "Transformer, Pooling, Dense and Normalize in this order"
_TORCH = "torch.nn.modules."
_ACTIVATIONS = {
    "Identity": "linear",
    "Tanh": "tanh",
    "ReLU": "relu",
    "GELU": "gelu",
    "SiLU": "silu",
    "Sigmoid": "sigmoid",
}


@dataclass(frozen=True)
class Dense:
    """Linear layer in a folder of sentence-transformers.

    folder: the layer's folder
    inputs, outputs: sizes of its input and output
    activation: name of the activation after the layer
    makes: name of its output, such as `sentence_embedding` or `scores`
    """

    folder: Path
    inputs: int
    outputs: int
    activation: str
    makes: str = "sentence_embedding"

    def arrays(self) -> tuple[Array, Array]:
        """Read the weight, `[inputs, outputs]`, and the bias, `[outputs]`, which defaults to zeros."""
        file, arrays = read_weights(self.folder)
        more = set(arrays) - {"linear.weight", "linear.bias"}
        if more:
            raise CheckpointError(f"{self.folder / file}: {listed(sorted(more))} are not done here")
        weight = arrays.get("linear.weight", np.zeros((0, 0), np.float32))
        bias = arrays.get("linear.bias", np.zeros(self.outputs, np.float32))
        if weight.shape != (self.outputs, self.inputs) or bias.shape != (self.outputs,):
            raise CheckpointError(
                f"{self.folder / file}: its layer is {list(weight.shape)}, config.json says {self.inputs} to "
                f"{self.outputs}; copy the folder again"
            )
        return np.ascontiguousarray(weight.T), bias


@dataclass(frozen=True)
class Sentences:
    """Settings of a tower in a sentence-transformers folder: its info and dense layers.

    pooler: the layer that equals the encoder's pooler: tanh over the first token's state, of unchanged width; or None
    layers: the other layers in order, all but the last without an activation; vectors are the first `info.size`
        dimensions of the last one's output
    """

    info: TowerInfo
    pooler: Optional[Dense]
    layers: tuple[Dense, ...]

    def output_layer(self) -> Optional[tuple[Array, Array]]:
        """Read the layers as one: its weight, `[inputs, outputs]`, and its bias; None without layers."""
        if not self.layers:
            return None
        weight, bias = self.layers[0].arrays()
        for layer in self.layers[1:]:
            then = layer.arrays()
            # The product is computed in float64, so that it rounds once.
            bias = (bias.astype(np.float64) @ then[0] + then[1]).astype(np.float32)
            weight = (weight.astype(np.float64) @ then[0]).astype(np.float32)
        return weight, bias


class VectorSettings(NamedTuple):
    """Settings of vectors: their size, how they are compared, and the prompts before queries and other texts."""

    size: int
    similarity: str
    query_prompt: str
    text_prompt: str


@dataclass(frozen=True)
class CrossEncoderSettings:
    """Settings of a `CrossEncoder`: a ranker's info, and the arrays of its head by name.

    has_head: whether steps of the folder are the head; if not, the transformer's files contain the head
    """

    info: RankerInfo
    arrays: dict[str, Array]
    has_head: bool


def is_sentences(folder: Path) -> bool:
    """Return whether a folder is a tower of sentence-transformers; reads small files only."""
    try:
        return "Pooling" in [kind for kind, _ in list_modules(folder)] and model_type_of(folder) == SENTENCE_TRANSFORMER
    except CheckpointError:
        return False


def stated_info(folder: Path) -> Optional[TowerInfo]:
    """Read the info of a tower of this toolkit or of sentence-transformers; None for other folders."""
    return TowerInfo.read(folder) or (read_sentences(folder).info if is_sentences(folder) else None)


def read_sentences(folder: Path) -> Sentences:
    """Read the settings of a tower; raises `CheckpointError` if a file is damaged, or a step is unsupported."""
    settings = _settings(folder, SENTENCE_TRANSFORMER)
    modules = [(kind, path) for kind, path in list_modules(folder) if kind != "Dropout"]
    kinds = [kind for kind, _ in modules]
    dense = [_dense(path) for kind, path in modules if kind == "Dense"]
    expected = ["Transformer", "Pooling", *["Dense"] * len(dense)]
    if kinds not in (expected, [*expected, "Normalize"]):
        raise CheckpointError(f"{folder / MODULES_FILE}: its steps are {listed(kinds)}; {_DONE} are done here")
    encoder = _encoder(folder)
    config = read_encoder_config(encoder / "config.json")
    width = config.hidden_size
    pooling, includes_prompt = pooling_of(modules[1][1])
    for layer in dense:
        if layer.makes != "sentence_embedding" or layer.activation not in ("linear", "tanh"):
            raise CheckpointError(
                f"{layer.folder}: a dense layer that makes {quoted(layer.makes)} (module_output_name), with the "
                f"activation_function {quoted(layer.activation)}, which is not done here in a tower"
            )
    is_pooler = [(layer.activation, layer.outputs) for layer in dense[:1]] == [("tanh", width)]
    pooler = dense.pop(0) if is_pooler and pooling == "first" and config.has_tanh_pooler else None
    for layer, inputs in zip(dense, (width, *(layer.outputs for layer in dense))):
        if layer.inputs != inputs:
            raise CheckpointError(f"{layer.folder}: in_features is {layer.inputs}, and the step before makes {inputs}")
    if any(layer.activation != "linear" for layer in dense[:-1]):
        raise CheckpointError(
            f"{folder / MODULES_FILE}: has {len(dense)} dense layers in a row, and an activation_function between them "
            "is not done here; without one they are one layer"
        )
    output = dense[-1] if dense else None
    similarity, (query, text) = _similarity(settings), _prompts(settings)
    full = output.outputs if output else width
    size = _size_of(settings, full)
    is_scaled, is_cut = kinds[-1] == "Normalize", size < full
    if (query or text) and not includes_prompt:
        raise CheckpointError(f"{modules[1][1]}: leaves prompts out of the pooling (include_prompt), not done here")
    if kinds[-1] == "Normalize":
        _require_of_vectors(ForeignConfig.read(modules[-1][1] / "config.json"))
    settings.log_unknown()
    info = TowerInfo(
        max_seq_length=stated_length(encoder),
        size=size,
        pooling="pooler" if pooler else pooling,
        output_layer=output is not None or (is_cut and not is_scaled),
        output_tanh=output is not None and output.activation == "tanh",
        normalize=is_scaled and not is_cut,
        cut_from=full if is_scaled and is_cut else 0,
        similarity=similarity,
        query_prompt=query,
        text_prompt=text,
        towers=2 if (folder / QUERY_FOLDER / MODULES_FILE).is_file() else 1,
    )
    return Sentences(info, pooler, tuple(dense))


def read_vectors(folder: Path, full: int) -> VectorSettings:
    """Read the settings of vectors; raises `CheckpointError` if the file is damaged, or a setting is unsupported.

    full: size of the vectors before they are cut
    """
    settings = _settings(folder, SENTENCE_TRANSFORMER)
    found = VectorSettings(_size_of(settings, full), _similarity(settings), *_prompts(settings))
    settings.log_unknown()
    return found


def _similarity(settings: ForeignConfig) -> str:
    similarity: str = settings.get("similarity_fn_name", "cosine")
    if similarity not in SIMILARITIES:
        raise settings.error(
            f"compares vectors by {quoted(similarity)} (similarity_fn_name); {' and '.join(SIMILARITIES)} are done"
        )
    return similarity


def _size_of(settings: ForeignConfig, full: int) -> int:
    """Return the size to which `truncate_dim` cuts vectors of the size `full`."""
    cut = settings.get("truncate_dim", full)
    if type(cut) is not int or cut < 1:
        raise settings.error(f"truncate_dim is {quoted(cut)}, expected a number of dimensions from 1 on")
    return min(cut, full)


def read_reranker(folder: Path) -> Optional[CrossEncoderSettings]:
    """Read the settings of a `CrossEncoder` that has steps in `modules.json`; None for other folders.

    Raises `CheckpointError` if a file is damaged, or a step is unsupported.
    """
    if not (folder / MODULES_FILE).is_file() or model_type_of(folder) != CROSS_ENCODER:
        return None
    settings = _settings(folder, CROSS_ENCODER)
    query = _default_prompt(settings)
    if activation_of(settings.get("activation_fn")) not in ("", "Sigmoid", "Identity"):
        settings.require(
            "activation_fn", f"{_TORCH}activation.Sigmoid", f"{_TORCH}linear.Identity",
            remedy="a probability is the sigmoid of the score here: take a model of such scores",
        )  # fmt: skip
    settings.log_unknown()
    modules = list_modules(folder)
    kinds = [kind for kind, _ in modules]
    encoder = _encoder(folder)
    info = RankerInfo("cross_encoder", stated_length(encoder), match_embeddings=False, query_prompt=query)
    answers = kinds == ["Transformer", LOGIT_SCORE] and answers_pairs(read_foreign_config(encoder / "config.json"))
    if kinds == ["Transformer"] or answers:
        return CrossEncoderSettings(info, {}, has_head=False)
    inner = [(kind, path) for kind, path in modules[2:] if kind != "Dropout"]
    layers = [_dense(path) if kind == "Dense" else path for kind, path in inner]
    last = layers.pop() if layers else None
    is_supported = all(kind in ("Dense", "LayerNorm", "Normalize") for kind, _ in inner)
    if kinds[:2] != ["Transformer", "Pooling"] or not is_supported or not isinstance(last, Dense):
        raise CheckpointError(
            f"{folder / MODULES_FILE}: is a reranker whose steps are {listed(kinds)}; Transformer, "
            "Pooling, then Dense, LayerNorm, Normalize and Dropout, and a Dense at the end are done here"
        )
    if (last.outputs, last.makes) != (1, "scores"):
        raise CheckpointError(
            f"{last.folder}: makes {last.outputs} numbers of a pair, called {quoted(last.makes)}; a reranker's one "
            "score ('scores') is done here"
        )
    pooling, includes_prompt = pooling_of(modules[1][1])
    if query and not includes_prompt:
        raise CheckpointError(f"{modules[1][1]}: leaves prompts out of the pooling (include_prompt), not done here")
    steps: list[tuple[str, int]] = []
    arrays: dict[str, Array] = {}
    for number, ((kind, path), layer) in enumerate(zip(inner, layers)):
        if isinstance(layer, Dense):
            if layer.makes != "sentence_embedding":
                raise CheckpointError(f"{path}: makes {quoted(layer.makes)}, which no later step reads")
            weights = layer.arrays()
            steps.append((layer.activation, layer.outputs))
        elif kind == "LayerNorm":
            config = ForeignConfig.read(path / "config.json")
            file, norm = read_weights(path)
            found = norm.get("norm.weight"), norm.get("norm.bias")
            if found[0] is None or found[1] is None or len(norm) != 2 or found[0].shape != found[1].shape:
                raise CheckpointError(f"{path / file}: holds no LayerNorm (norm.weight, norm.bias); copy it again")
            weights = found[0], found[1]
            config.require("dimension", weights[0].size, remedy="copy the folder again")
            steps.append(("norm", weights[0].size))
            config.log_unknown()
        else:
            _require_of_vectors(ForeignConfig.read(path / "config.json"))
            steps.append(("normalize", 0))
            continue
        arrays[f"steps.{number}.weight"], arrays[f"steps.{number}.bias"] = weights
    arrays["head.weight"], arrays["head.bias"] = last.arrays()
    steps.append((last.activation, 1))
    info = dataclasses.replace(info, pooling=pooling, steps=tuple(steps))
    return CrossEncoderSettings(info, arrays, has_head=True)


def stated_ranker(folder: Path) -> RankerInfo:
    """Read the info of a ranker of transformers or sentence-transformers, without its weights."""
    inner, reranker = _encoder(folder), read_reranker(folder)
    length = min(stated_length(inner), read_encoder_config(inner / "config.json").longest_pair)
    info = RankerInfo("cross_encoder", length, match_embeddings=False) if reranker is None else reranker.info
    return dataclasses.replace(info, max_seq_length=length)


def stated_prompt(folder: Path) -> str:
    """Return the prompt before the queries of a `CrossEncoder`; "" for other folders."""
    settings = ForeignConfig.read(folder / MODEL_FILE)
    return _default_prompt(settings) if settings.get("model_type") == CROSS_ENCODER else ""


def _default_prompt(settings: ForeignConfig) -> str:
    prompts, default = _prompts_in(settings), settings.get("default_prompt_name")
    if default is not None and default not in [*prompts]:
        raise settings.error(f"default_prompt_name is {quoted(default)}, which prompts lack: name one, or remove it")
    return "" if default is None else prompts[default]


def _require_of_vectors(config: ForeignConfig) -> None:
    """Raise `CheckpointError` unless a step's input and output are vectors of texts."""
    for name in ("module_input_name", "module_output_name"):
        config.require(name, "sentence_embedding", remedy="take a model whose steps make vectors of texts")
    config.log_unknown()


def _encoder(folder: Path) -> Path:
    encoder = find_encoder(folder)
    if encoder is None:
        raise CheckpointError(f"{folder}: has no model.safetensors and no pytorch_model.bin; copy the folder again")
    return encoder


def _settings(folder: Path, wanted: str) -> ForeignConfig:
    """Read the settings of a folder; raises `CheckpointError` unless they state the model type `wanted`."""
    settings = ForeignConfig.read(folder / MODEL_FILE, ("__version__", "requirements", "keep_in_fp32_modules"))
    model_type = settings.get("model_type", SENTENCE_TRANSFORMER)
    if settings.states_null("model_type"):
        raise settings.error(
            "model_type is null, of which the library makes a model without steps: name it, or remove it"
        )
    if model_type != wanted:
        is_reranker = model_type == CROSS_ENCODER
        use = "predict, evaluate, rank and serve --model take it" if is_reranker else f"{wanted} is done here"
        raise settings.error(f"it is a {model_type}, no {wanted} (model_type); {use}")
    return settings


def write_sentences(
    folder: Path, info: TowerInfo, config: EncoderConfig, dense: dict[str, tuple[Array, Array, bool]]
) -> None:
    """Write sentence-transformers' files into a transformers folder, so that sentence-transformers opens it as a tower.

    dense: linear layers in order, by folder name: the weight `[inputs, outputs]`, the bias, and whether tanh follows
    """
    mode = {"pooler": "cls", **{ours: theirs for theirs, ours in _POOLING.items()}}[info.pooling]
    steps = [("", "Transformer"), ("1_Pooling", "Pooling"), *((name, "Dense") for name in dense)]
    if info.normalize or info.cut_from:
        steps.append((f"{len(steps)}_Normalize", "Normalize"))
    for name, kind in steps[1:]:
        (folder / name).mkdir()
        if kind == "Pooling":
            modes = {key: mode == value for key, value in _OLD_POOLING.items()}
            write_json(folder / name / "config.json", {"word_embedding_dimension": config.hidden_size, **modes})
    for name, (weight, bias, tanh) in dense.items():
        sizes = {"in_features": weight.shape[0], "out_features": weight.shape[1], "bias": True}
        activation = "torch.nn.modules.activation.Tanh" if tanh else "torch.nn.modules.linear.Identity"
        write_json(folder / name / "config.json", {**sizes, "activation_function": activation})
        write_weights(folder / name, {"linear.weight": np.ascontiguousarray(weight.T), "linear.bias": bias})
    # All versions of sentence-transformers can import these class names.
    listed_steps = [
        {"idx": number, "name": str(number), "path": name, "type": f"sentence_transformers.models.{kind}"}
        for number, (name, kind) in enumerate(steps)
    ]
    write_json(folder / MODULES_FILE, listed_steps)
    write_json(folder / LENGTH_FILE, {"max_seq_length": info.max_seq_length, "do_lower_case": False})
    prompts = {"query": info.query_prompt, "document": info.text_prompt}
    write_json(
        folder / MODEL_FILE,
        {
            "prompts": prompts,
            "default_prompt_name": None,
            "similarity_fn_name": info.similarity,
            **({"truncate_dim": info.size} if info.cut_from else {}),
        },
    )


def write_prompt(folder: Path, query_prompt: str, max_seq_length: int, in_chat: bool) -> None:
    """Write the settings that make a transformers folder a `CrossEncoder` with a prompt before queries.

    in_chat: whether pairs are put into the folder's chat template, whose instruction is the prompt
    """
    step = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
    task = {"transformer_task": "sequence-classification", "module_output_name": "scores"}
    call = {"method": "forward", "method_output_name": "logits"}
    text = {"modality_config": {"text": call, **({"message": {**call, "format": "flat"}} if in_chat else {})}}
    prompts = {"prompts": {"query": query_prompt}, "default_prompt_name": "query"} if query_prompt else {}
    write_json(folder / MODULES_FILE, [step])
    write_json(folder / LENGTH_FILE, {**task, **text, "max_seq_length": max_seq_length})
    write_json(folder / MODEL_FILE, {"model_type": CROSS_ENCODER, **prompts})


def list_modules(folder: Path) -> list[tuple[str, Path]]:
    """Return the class name and the folder of each step, in order; empty without `modules.json`.

    Raises `CheckpointError` if the file is damaged, or names a path that is no subfolder of `folder`.
    """
    path = folder / MODULES_FILE
    if not path.is_file():
        return []
    modules, names = [], set[object]()
    try:
        for number, step in enumerate(read_json(path)):
            settings = ForeignConfig(path, step, ("idx",), f"{number}.")
            inside, (package, _, kind) = settings.get("path", ""), str(settings.get("type")).rpartition(".")
            # Forms such as "./1_Pooling" and "1_Pooling/" are legal; a folder outside of the model's is not.
            if not isinstance(inside, str) or inside.startswith("/") or ".." in Path(inside).parts:
                raise ValueError(f"the path {quoted(inside)} is not of a folder in that of the model")
            if package and not package.startswith(_PACKAGE):
                raise settings.error(
                    f"the type of step {number} is {quoted(settings.get('type'))}: its code came with the model, and "
                    "is not run here; take a model of the library's own steps"
                )
            name = settings.get("name", number)
            if (not isinstance(name, str) and name != number) or name in names:
                raise ValueError(f"the name {quoted(name)} is no text, or two steps have it")
            names.add(name)
            settings.require("kwargs", [], remedy="take a model whose steps need nothing of the caller")
            settings.log_unknown()
            modules.append((kind, folder / inside))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: damaged ({type(error).__name__}: {error}); copy it again") from error
    return modules


def pooling_of(folder: Path) -> tuple[str, bool]:
    """Return the name of the pooling, and whether it includes the states of the prompt's tokens."""
    config = ForeignConfig.read(folder / "config.json", ("word_embedding_dimension", "embedding_dimension"))
    old = {key: mode for key, mode in _OLD_POOLING.items() if config.get(key)}
    modes: Unchecked = config.get("pooling_mode", [*old.values()] or "mean")
    modes = [modes] if isinstance(modes, str) else modes
    if not isinstance(modes, list) or len(modes) != 1 or modes[0] not in [*_POOLING]:
        keys = "pooling_mode" if "pooling_mode" in config else listed([*old])
        raise config.error(f"pools by {quoted(modes)} ({keys}); one of {', '.join(_POOLING)} is done here")
    config.log_unknown()
    return _POOLING[modes[0]], config.flag("include_prompt", True)


def _dense(folder: Path) -> Dense:
    config = ForeignConfig.read(folder / "config.json", ("bias",))
    path = str(config.get("activation_function", f"{_TORCH}activation.Tanh"))
    # sentence-transformers also replaces a function that is not torch's by tanh.
    activation = _ACTIVATIONS.get(path.rpartition(".")[2]) if path.startswith("torch.") else "tanh"
    sizes: Unchecked = config.get("in_features"), config.get("out_features")
    makes = config.get("module_output_name", "sentence_embedding")
    for problem, is_so in (
        (f"the activation_function {quoted(path)}", activation is None),
        ("a residual (use_residual)", bool(config.get("use_residual"))),
        (f"sizes {quoted(sizes)}", not all(type(size) is int and 0 < size <= 1 << 20 for size in sizes)),
        (
            "tokens to read (module_input_name)",
            config.get("module_input_name", "sentence_embedding") != "sentence_embedding",
        ),
    ):
        if is_so:
            raise config.error(f"a dense layer with {problem}, which is not done here")
    config.log_unknown()
    return Dense(folder, sizes[0], sizes[1], str(activation), str(makes))


def _prompts(settings: ForeignConfig) -> tuple[str, str]:
    """Return the prompts before queries and before texts; log all other prompts, which are not used."""
    prompts, default = _prompts_in(settings), settings.get("default_prompt_name")
    unused = [name for name, prompt in prompts.items() if prompt and name not in ("query", "document")]
    if unused or default not in (None, "", "query", "document"):
        note_once(
            f"note: {settings.path}: its prompts {listed(unused or [default])} precede neither queries nor texts, as "
            "in the library's encode_query and encode_document; convert --to tower takes --query_prompt, --text_prompt"
        )
    return prompts.get("query", ""), prompts.get("document", "")


def _prompts_in(settings: ForeignConfig) -> dict[str, str]:
    prompts = settings.get("prompts", {})
    if not isinstance(prompts, dict) or not all(isinstance(text, (str, type(None))) for text in prompts.values()):
        raise settings.error(f"prompts is {quoted(prompts)}, expected texts by their names; copy it again")
    return {name: text or "" for name, text in prompts.items()}
