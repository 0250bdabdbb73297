"""Read and write what a sentence-transformers folder says of its vectors: pooling, dense layer, length, prompts.

`modules.json` lists the steps in order, each with a folder of its own: Transformer, Pooling, Dense, Normalize. The
longest text is in `sentence_bert_config.json`, prompts and similarity are in `config_sentence_transformers.json`. Where
queries have a tower of their own, it is a folder of the library's, too, in the other's folder `query`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np

from paddle_ranker.encoding.columns import Array
from paddle_ranker.encoding.tokenizers.folder import CONFIG_FILE
from paddle_ranker.errors import CheckpointError, listed, quoted
from paddle_ranker.model.config import EncoderConfig
from paddle_ranker.model.hugging_face.read import find_encoder, read_configuration, read_encoder_config
from paddle_ranker.model.hugging_face.weights import read_weights, write_weights
from paddle_ranker.model.tower import QUERY_FOLDER, SIMILARITIES, TowerInfo
from paddle_ranker.storage.untrusted import Unchecked, UncheckedObject, read_json

MODULES_FILE = "modules.json"
LENGTH_FILE = "sentence_bert_config.json"
MODEL_FILE = "config_sentence_transformers.json"
SENTENCES_FILES = (MODULES_FILE, LENGTH_FILE, MODEL_FILE)
_POOLING = {"cls": "first", "mean": "mean", "max": "max"}
# Until sentence-transformers 5 each mode had a key of its own.
_OLD_POOLING = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_TEXT_PROMPTS = ("document", "passage", "corpus")  # the first there is precedes texts of the collection
_ACTIVATIONS = {"Identity": False, "Tanh": True}  # whether it is a tanh
_FALLBACK_LENGTH = 512  # tokenizers write an astronomical number where they know no length


@dataclass(frozen=True)
class Dense:
    """A linear layer of a folder: its folder's name, its sizes, and whether its tanh is taken."""

    folder: Path
    inputs: int
    outputs: int
    tanh: bool

    def arrays(self) -> tuple[Array, Array]:
        """Return the weight, `[inputs, outputs]`, and the bias, `[outputs]`; zeros if it has none."""
        file, arrays = read_weights(self.folder)
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
    """What a sentence-transformers folder says: a tower's info, and its dense layers.

    pooler: the layer that takes the place of the encoder's pooler, where the first token's state goes through one and
        the family's pooler is no other
    output_layer: the layer after that; the vectors are the first numbers of what it makes, `info.size` of them
    lowers: whether texts are put in small letters before they are tokenized
    """

    info: TowerInfo
    pooler: Optional[Dense]
    output_layer: Optional[Dense]
    lowers: bool


def is_sentences(folder: Path) -> bool:
    """Return whether a folder is of sentence-transformers and makes vectors of texts; nothing large is read."""
    try:
        return "Pooling" in [kind for kind, _ in list_modules(folder)]
    except CheckpointError:
        return False


def stated_info(folder: Path) -> Optional[TowerInfo]:
    """Return what a tower's folder, or one of sentence-transformers, says of its vectors; None for any other folder."""
    return TowerInfo.read(folder) or (read_sentences(folder).info if is_sentences(folder) else None)


def read_sentences(folder: Path) -> Sentences:
    """Read what a folder says of its vectors.

    Raises `CheckpointError` if a file is damaged, or a step is none of those that are done here.
    """
    modules = list_modules(folder)
    kinds = [kind for kind, _ in modules]
    dense = [_dense(path) for kind, path in modules if kind == "Dense"]
    expected = ["Transformer", "Pooling", *["Dense"] * len(dense)]
    if kinds not in (expected, [*expected, "Normalize"]):
        raise CheckpointError(
            f"{folder / MODULES_FILE}: its steps are {listed(kinds)}; Transformer, Pooling, Dense and Normalize in "
            "this order are done here"
        )
    encoder = find_encoder(folder)
    if encoder is None:
        raise CheckpointError(f"{folder}: has no model.safetensors and no pytorch_model.bin; copy the folder again")
    config = read_encoder_config(encoder / "config.json")
    width = config.hidden_size
    pooling = _pooling(modules[1][1])
    may_be_pooler = pooling == "first" and config.has_tanh_pooler
    pooler = dense.pop(0) if may_be_pooler and dense and dense[0].tanh and dense[0].outputs == width else None
    if len(dense) > 1:
        raise CheckpointError(f"{folder / MODULES_FILE}: has {len(dense)} dense layers in a row; one is done here")
    output = dense[0] if dense else None
    settings = _optional(folder / MODEL_FILE)
    similarity = settings.get("similarity_fn_name") or "cosine"
    if similarity not in SIMILARITIES:
        raise CheckpointError(
            f"{folder / MODEL_FILE}: compares vectors by {quoted(similarity)}; {' and '.join(SIMILARITIES)} are done"
        )
    query, text = _prompts(settings)
    full, cut = output.outputs if output else width, settings.get("truncate_dim")
    size = cut if isinstance(cut, int) and 0 < cut < full else full
    is_scaled, is_cut = kinds[-1] == "Normalize", size < full
    if (query or text) and _optional(modules[1][1] / "config.json").get("include_prompt") is False:
        raise CheckpointError(f"{modules[1][1]}: leaves prompts out of the pooling (include_prompt), not done here")
    info = TowerInfo(
        max_seq_length=_length(folder, encoder),
        size=size,
        pooling="pooler" if pooler else pooling,
        output_layer=output is not None or (is_cut and not is_scaled),
        output_tanh=output is not None and output.tanh,
        normalize=is_scaled and not is_cut,
        cut_from=full if is_scaled and is_cut else 0,
        similarity=similarity,
        query_prompt=query,
        text_prompt=text,
        towers=2 if (folder / QUERY_FOLDER / MODULES_FILE).is_file() else 1,
    )
    return Sentences(info, pooler, output, _stated(folder, encoder).get("do_lower_case") is True)


def stated_length(folder: Path) -> int:
    """Return the longest text that a transformers folder states, in tokens, 512 if it states none."""
    stated = _optional(folder / CONFIG_FILE).get("model_max_length")
    length = int(stated) if isinstance(stated, (int, float)) and 5 <= stated < 1e6 else _FALLBACK_LENGTH
    own = _optional(folder / LENGTH_FILE).get("max_seq_length")  # of sentence-transformers
    return own if type(own) is int and 5 <= own <= length else length


def write_sentences(
    folder: Path, info: TowerInfo, config: EncoderConfig, dense: dict[str, tuple[Array, Array, bool]]
) -> None:
    """Write all that makes a transformers folder one of sentence-transformers.

    Args:
        dense: by the name of its folder, each layer's weight `[inputs, outputs]`, its bias, and whether its tanh is
            taken, in their order.
    """
    mode = {"pooler": "cls", "first": "cls"}.get(info.pooling, info.pooling)
    steps = [("", "Transformer"), ("1_Pooling", "Pooling"), *((name, "Dense") for name in dense)]
    if info.normalize or info.cut_from:
        steps.append((f"{len(steps)}_Normalize", "Normalize"))
    for name, kind in steps[1:]:
        (folder / name).mkdir()
        if kind == "Pooling":
            modes = {key: mode == value for key, value in _OLD_POOLING.items()}
            _write(folder / name / "config.json", {"word_embedding_dimension": config.hidden_size, **modes})
    for name, (weight, bias, tanh) in dense.items():
        sizes = {"in_features": weight.shape[0], "out_features": weight.shape[1], "bias": True}
        activation = "torch.nn.modules.activation.Tanh" if tanh else "torch.nn.modules.linear.Identity"
        _write(folder / name / "config.json", {**sizes, "activation_function": activation})
        write_weights(folder / name, {"linear.weight": np.ascontiguousarray(weight.T), "linear.bias": bias})
    # The names that all versions of the library import.
    listed_steps = [
        {"idx": number, "name": str(number), "path": name, "type": f"sentence_transformers.models.{kind}"}
        for number, (name, kind) in enumerate(steps)
    ]
    _write(folder / MODULES_FILE, listed_steps)
    _write(folder / LENGTH_FILE, {"max_seq_length": info.max_seq_length, "do_lower_case": False})
    prompts = {"query": info.query_prompt, "document": info.text_prompt}
    _write(
        folder / MODEL_FILE,
        {
            "prompts": prompts,
            "default_prompt_name": None,
            "similarity_fn_name": info.similarity,
            **({"truncate_dim": info.size} if info.cut_from else {}),
        },
    )


def _write(path: Path, values: object) -> None:
    path.write_text(json.dumps(values, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def list_modules(folder: Path) -> list[tuple[str, Path]]:
    """Return each step's class name and folder, in their order; none if there is no `modules.json`.

    Raises `CheckpointError` if the file is damaged, or names other places than folders beside it.
    """
    path = folder / MODULES_FILE
    if not path.is_file():
        return []
    found = []
    try:
        for step in read_json(path):
            inside, kind = step["path"], str(step["type"]).rpartition(".")[2]
            if not isinstance(inside, str) or (inside and Path(inside).name != inside):
                raise ValueError(f"the path {quoted(inside)} is not of a folder beside it")
            found.append((kind, folder / inside))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: damaged ({type(error).__name__}: {error}); copy it again") from error
    return found


def _optional(path: Path) -> UncheckedObject:
    return read_configuration(path) if path.is_file() else {}


def _pooling(folder: Path) -> str:
    values = read_configuration(folder / "config.json")
    modes: Unchecked = values.get("pooling_mode") or [mode for key, mode in _OLD_POOLING.items() if values.get(key)]
    modes = [modes] if isinstance(modes, str) else modes
    if not isinstance(modes, list) or len(modes) != 1 or modes[0] not in _POOLING:
        raise CheckpointError(
            f"{folder / 'config.json'}: pools by {quoted(modes)}; one of {', '.join(_POOLING)} is done here"
        )
    return _POOLING[modes[0]]


def _dense(folder: Path) -> Dense:
    values = read_configuration(folder / "config.json")
    activation = str(values.get("activation_function", "Tanh")).rpartition(".")[2]
    sizes: Unchecked = values.get("in_features"), values.get("out_features")
    for problem, is_so in (
        (f"the activation {quoted(activation)}", activation not in _ACTIVATIONS),
        ("a residual", bool(values.get("use_residual"))),
        (f"sizes {quoted(sizes)}", not all(type(size) is int and 0 < size <= 1 << 20 for size in sizes)),
        ("tokens to read", values.get("module_input_name", "sentence_embedding") != "sentence_embedding"),
    ):
        if is_so:
            raise CheckpointError(f"{folder / 'config.json'}: a dense layer with {problem}, which is not done here")
    return Dense(folder, sizes[0], sizes[1], _ACTIVATIONS[activation])


def _stated(folder: Path, encoder: Path) -> UncheckedObject:
    """Return what a folder says of the texts that its encoder takes."""
    return _optional(encoder / LENGTH_FILE) or _optional(folder / LENGTH_FILE)


def _length(folder: Path, encoder: Path) -> int:
    stated = _stated(folder, encoder).get("max_seq_length")
    return stated if type(stated) is int and stated >= 5 else stated_length(encoder)


def _prompts(settings: UncheckedObject) -> tuple[str, str]:
    """Return what precedes queries, and what precedes other texts.

    As in the library's `encode_query` and `encode_document`, the default precedes neither where one of them is named.
    """
    prompts = settings.get("prompts") or {}
    is_named = any(name in prompts for name in ("query", *_TEXT_PROMPTS))
    default = "" if is_named else prompts.get(settings.get("default_prompt_name") or "") or ""
    text = next((prompts[name] for name in _TEXT_PROMPTS if prompts.get(name)), default)
    return str(prompts.get("query") or default), str(text)
