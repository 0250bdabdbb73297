"""Folders of sentence-transformers with one setting changed, and what the library computes then.

Each key of each file that the library reads beside those of transformers is changed: `modules.json` (also steps that
are added, left out, in another order, or of other classes), the settings of each step, `sentence_bert_config.json`,
`config_sentence_transformers.json`, and what the library keeps in `config.json`. `sentence_changes.json` holds for each
kind the answer without a change, and to each of `changes`: null where the change changes nothing, or the name of an
error. An answer is the name of the function that compares vectors or shows scores, and a few sums of the vectors of
queries and documents, or of the logits of pairs. Where sentence-transformers is installed (it was 6.2.0), this writes
them anew:

    PYTHONPATH=. python tests/model/sentence_changes.py [KIND ...]
"""

from __future__ import annotations

import copy
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import numpy as np
from safetensors.numpy import save_file

from tests.model import decoder_cases
from tests.model.content_changes import ABSENT, summed
from tests.model.family_cases import changed_case, weights
from tests.model.reranker_cases import FIND, GELU, IDENTITY, TORCH, Step, dense, last, write_steps
from tests.model.tokenizer_changes import with_change

FILE = Path(__file__).with_suffix(".json")
MODULES, LENGTHS, SETTINGS, CONFIG = (
    "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json", "config.json"
)  # fmt: skip
WIDTH, OTHER = 16, "other"
TEXTS = ["w1 w2", "W3 w4 W5", "", "find w7 w8", "w9 w5 " * 60, "w5"]
PAIRS = [("w1 w2", "w9 w1 W2 w11"), ("w7", "w8 w8"), ("find w3 w4", "w3 w5 " * 60), ("w6 w60 " * 50, "w5")]
TANH, RELU = f"{TORCH}.activation.Tanh", f"{TORCH}.activation.ReLU"
NORMALIZE: Step = ("Normalize", {})
E5: dict[str, Any] = {"prompts": {"query": "find ", "document": "w20 ", "other": "w30 "}, "similarity_fn_name": "dot"}
_STATES = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
_NEW = {"transformer_task": "feature-extraction", "modality_config": _STATES, "module_output_name": "token_embeddings"}
_OLD_MODES = ("cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
_OLD = {f"pooling_mode_{mode}": mode == "mean_tokens" for mode in _OLD_MODES}
_CHAT = {"method": "forward", "method_output_name": "logits"}
Change = tuple[str, list[Any], Any]  # file, path of keys (empty: the whole file), new value
# Name -> the steps behind the transformer, sentence_bert_config.json, and config_sentence_transformers.json.
KINDS: dict[str, tuple[list[Step], dict[str, Any], dict[str, Any]]] = {
    "mean": (
        [("Pooling", {"word_embedding_dimension": WIDTH, **_OLD}), NORMALIZE],
        {"max_seq_length": 32, "do_lower_case": False}, {},
    ),
    "dense": (
        [("Pooling", {"embedding_dimension": WIDTH, "pooling_mode": "cls", "include_prompt": True}),
         dense(WIDTH, 7, TANH, bias=True)], _NEW, {"model_type": "SentenceTransformer", **E5},
    ),
    "folder": ([("Pooling", {"embedding_dimension": WIDTH, "pooling_mode": "max"})], {}, {"truncate_dim": 9}),
    "layers": (
        [("Pooling", {"embedding_dimension": WIDTH, "pooling_mode": ["mean"]}), dense(WIDTH, 24, IDENTITY, bias=False),
         dense(24, WIDTH, IDENTITY), NORMALIZE], {}, {},
    ),
    "reranker": (
        [], {"transformer_task": "sequence-classification", "module_output_name": "scores",
             "modality_config": {"text": _CHAT}}, {"model_type": "CrossEncoder", **FIND},
    ),
    "reranker, steps": (
        [("Pooling", {"embedding_dimension": WIDTH, "pooling_mode": "cls"}), dense(WIDTH, 12, GELU, bias=False),
         ("LayerNorm", {"dimension": 12}), ("Dropout", {"dropout": 0.1}), last(12)], _NEW,
        {"model_type": "CrossEncoder", "activation_fn": f"{TORCH}.activation.Sigmoid", **FIND},
    ),
    "reranker, plain": ([], {}, {}),
    "answers": (
        [("LogitScore", {"true_token_id": 257, "false_token_id": 258})],
        {"transformer_task": "text-generation", "module_output_name": "causal_logits",
         "modality_config": {"text": _CHAT, "message": {**_CHAT, "format": "flat"}}},
        {"model_type": "CrossEncoder"},
    ),
}  # fmt: skip


def is_reranker(kind: str) -> bool:
    return kind.startswith(("reranker", "answers"))


def pairs_of(kind: str) -> list[tuple[str, str]]:
    return decoder_cases.PAIRS[:3] if kind == "answers" else PAIRS


def write_folder(folder: Path, kind: str) -> Path:
    """Write the folder of a kind, with the folders of further steps, which its `modules.json` does not name."""
    steps, lengths, settings = KINDS[kind]
    if kind == "answers":
        decoder_cases.write_folder(folder, "reranker")
        changed(folder, (CONFIG, ["torch_dtype"], "float32"))
        (folder / "chat_template.jinja").write_text(decoder_cases.CHAT, encoding="utf-8")
    else:
        _write_bert(folder, "" if kind == "mean" else kind)
    write_steps(folder, steps, lengths, **settings)
    if kind == "reranker, plain":
        for name in (MODULES, LENGTHS, SETTINGS):
            (folder / name).unlink()
        return folder
    if kind == "answers":
        modules = read(folder / MODULES)
        modules[1]["type"] = _type_of("LogitScore")
        _write(folder / MODULES, modules)
        return folder
    if kind == "folder":
        modules = read(folder / MODULES)
        modules[0]["path"] = "0_Transformer"
        _write(folder / MODULES, modules)
        (folder / LENGTHS).unlink()
        _write_bert(folder / modules[0]["path"], kind)
        for name in ("model.safetensors", CONFIG, "vocab.txt", "tokenizer_config.json"):
            (folder / name).unlink()
    _write_bert(folder / OTHER, OTHER)
    for name, (values, shapes) in SPARE.items():
        inside = folder / name
        inside.mkdir()
        _write(inside / CONFIG, values)
        if shapes:
            save_file(weights(shapes), inside / "model.safetensors", {"format": "pt"})
    _write(folder / "Router" / "router_config.json", _router(folder))
    return folder


def _write_bert(folder: Path, name: str) -> None:
    """Write a small BERT; the weights follow from the name."""
    folder.mkdir(parents=True, exist_ok=True)
    config, shapes = changed_case("bert")
    if not name.startswith("reranker"):
        config = {**config, "architectures": ["BertModel"]}
    if name == "reranker, plain":
        config = {**config, "sentence_transformers": {"activation_fn": IDENTITY, "version": "4.1.0"}}
    _write(folder / CONFIG, config)
    arrays = weights(shapes)
    arrays = {key: (-array if name == OTHER else array) for key, array in arrays.items()}
    save_file(arrays, folder / "model.safetensors", {"format": "pt"})
    words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]", *(f"w{number}" for number in range(85)), "find"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    settings = {"tokenizer_class": "BertTokenizer", "model_max_length": 64, "do_lower_case": False}
    _write(folder / "tokenizer_config.json", settings)


# Settings and parameters of steps by their folders.
_LINEAR = {"linear.weight": [WIDTH, WIDTH], "linear.bias": [WIDTH]}
SPARE: dict[str, tuple[dict[str, Any], dict[str, list[int]]]] = {
    "Dense": (dense(WIDTH, WIDTH, TANH)[1], _LINEAR),
    "Linear": (dense(WIDTH, WIDTH)[1], _LINEAR),
    "Scores": (last(WIDTH)[1], {"linear.weight": [1, WIDTH], "linear.bias": [1]}),
    "LayerNorm": ({"dimension": WIDTH}, {"norm.weight": [WIDTH], "norm.bias": [WIDTH]}),
    "Dropout": ({"dropout": 0.3}, {}),
    "Normalize": ({}, {}),
    "Pooling": ({"word_embedding_dimension": WIDTH, "pooling_mode_mean_tokens": True}, {}),
    "WordWeights": (
        {"vocab": [f"w{n}" for n in range(96)], "word_weights": {"w7": 2.0}, "unknown_word_weight": 1},
        {"emb_layer.weight": [96, 1]},
    ),
    "WeightedLayerPooling": (
        {"word_embedding_dimension": WIDTH, "layer_start": 1, "num_hidden_layers": 2}, {"layer_weights": [2]}
    ),
    "BoW": ({"vocab": [f"w{n}" for n in range(16)], "word_weights": {}, "unknown_word_weight": 1}, {}),
    "CNN": ({}, {}),
    "LSTM": ({}, {}),
    "WordEmbeddings": ({}, {}),
    "StaticEmbedding": ({}, {}),
    "Router": ({}, {}),
    "MultiVectorMask": ({}, {}),
    "SpladePooling": ({"pooling_strategy": "max"}, {}),
    "LogitScore": ({"true_token_id": 1}, {}),
}  # fmt: skip
_CLASSES = {"Linear": "Dense", "Scores": "Dense"}  # of folders that have another name than their step


def _router(folder: Path) -> dict[str, Any]:
    """Return the settings of a step that computes queries by one encoder, and documents by another."""
    names = {"query_0_BoW": "BoW", "document_0_BoW": "BoW"}
    for name in names:
        shutil.copytree(folder / "BoW", folder / "Router" / name)
    types = {name: _type_of(kind) for name, kind in names.items()}
    structure = {"query": ["query_0_BoW"], "document": ["document_0_BoW"]}
    return {"types": types, "structure": structure, "parameters": {"default_route": None, "allow_empty_key": True}}


def changed(folder: Path, change: Change) -> Path:
    """Change a folder's file."""
    file, keys, value = change
    _write(folder / file, with_change(read(folder / file), keys, value))
    return folder


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _write(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values), encoding="utf-8")


_FUNCTIONS = [
    *(f"{TORCH}.activation.{name}" for name in ("Tanh", "ReLU", "GELU", "SiLU", "Sigmoid", "Mish", "Softmax", "ELU")),
    IDENTITY, "sentence_transformers.util.identity", "own.Sigmoid", "torch.tanh", "torch.nn.Tanh", "Tanh", 3,
]  # fmt: skip


def _both(old: str, new: str, values: list[Any]) -> dict[str, list[Any]]:
    """Return the same values for the older and the newer name of a key."""
    return {old: values, new: values}


_FEATURES = ["sentence_embedding", "token_embeddings", "scores", "other"]
# Other values of keys, by the class of the step or the name of the file.
_VALUES: dict[str, dict[str, list[Any]]] = {
    "Pooling": {
        "pooling_mode": ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken",
                         ["cls"], ["lasttoken"], ["mean", "max"], ["cls", "cls"], [], "own", 3],
        **{f"pooling_mode_{mode}": [True, False, 1, "true"] for mode in _OLD_MODES}, "include_prompt": [True, False, 0],
        "word_embedding_dimension": [8, "16"], "embedding_dimension": [8, "16"], "pooling_mode_own": [True],
    },
    "Dense": {
        "in_features": [8, "16"], "out_features": [3, 1], "bias": [True, False], "activation_function": _FUNCTIONS,
        "module_input_name": _FEATURES, "module_output_name": _FEATURES, "use_residual": [True, False],
    },
    "LayerNorm": {"dimension": [8]},
    "Dropout": {"dropout": [0.9]},
    "Normalize": {"module_input_name": _FEATURES, "module_output_name": _FEATURES},
    "LogitScore": {"true_token_id": [3, 258, -1, 5000, "yes"], "false_token_id": [3, 257, -1, 5000],
                   "module_input_name": ["causal_logits", "logits"]},
    LENGTHS: {
        "max_seq_length": [2, 3, 4, 5, 16, 600, 1e9, "16", 16.0, True, 0, -1], "do_lower_case": [True, False, 1, "no"],
        **_both("model_args", "model_kwargs", [
            {}, {"attn_implementation": "eager"}, {"add_pooling_layer": False}, {"trust_remote_code": True},
            {"subfolder": OTHER}, {"variant": "fp16"}, {"low_cpu_mem_usage": True}, {"hidden_act": "relu"}, 3,
            {"torch_dtype": "float32"}, {"dtype": "auto"}, {"cache_dir": "none"}, {"local_files_only": True},
        ]),
        **_both("tokenizer_args", "processor_kwargs", [
            {}, {"model_max_length": 8}, {"do_lower_case": True}, {"use_fast": True}, {"padding_side": "left"},
            {"truncation_side": "left"}, {"cls_token": "[MASK]"}, {"trust_remote_code": True}, {"subfolder": OTHER},
        ]),
        **_both("config_args", "config_kwargs", [
            {}, {"hidden_act": "relu"}, {"use_cache": False}, {"num_hidden_layers": 1}, {"output_hidden_states": True},
            {"trust_remote_code": True}, {"num_labels": 2}, {"layer_norm_eps": 0.1},
        ]),
        "processing_kwargs": [{}, {"text": {"max_length": 8}}, {"common": {"return_tensors": "pt"}},
                              {"text": {"padding": "max_length"}}, {"text": {"add_special_tokens": False}}, {"own": {}},
                              {"chat_template": {"add_generation_prompt": True}}],
        "transformer_task": ["feature-extraction", "sequence-classification", "text-generation", "fill-mask",
                             "any-to-any", "retrieval", "own", 3],
        "modality_config": [{}, _STATES, {"text": {"method": "forward", "method_output_name": "pooler_output"}},
                            {"text": {"method": "forward", "method_output_name": ["hidden_states", 0]}},
                            {"text": {"method": "own", "method_output_name": "last_hidden_state"}}, {"text": {}},
                            {"image": _STATES["text"]}, {**_STATES, "image": _STATES["text"]}, {"own": _STATES["text"]},
                            {"text": _CHAT}, {**_STATES, "message": {**_STATES["text"], "format": "flat"}}],
        "module_output_name": [*_FEATURES, "causal_logits"], "unpad_inputs": [True, False], "query_length": [8],
        "document_length": [8], "query_expansion": [{"strategy": "fixed"}, True], "tokenizer_name_or_path": ["none"],
        "max_length": [8], "pooling_mode": ["max"], "trust_remote_code": [True],
    },
    SETTINGS: {
        "prompts": [{}, {"query": "find "}, {"document": "w20 "}, {"passage": "w20 "}, {"corpus": "w20 "},
                    {"query": None, "document": None}, {"query": "", "document": ""}, {"query": 3}, [], "find ",
                    {"query": "find"}, {"query": "FIND  "}, {"query": " w9\n", "document": "w7\t"}, {"Query": "w9 "},
                    {"query": "[MASK] ", "document": "w4 [SEP] "}, {"query": "w9 " * 90}, {"query": "w9 " * 20},
                    {"ask": "w9 ", "other": ""}, {"ask": None}],
        "default_prompt_name": ["query", "document", "ask", "other", "none", "", 3],
        "similarity_fn_name": ["cosine", "dot", "euclidean", "manhattan", "maxsim", "cos_sim", "COSINE", "", 3],
        "truncate_dim": [1, 3, 7, 15, 16, 17, 100, 0, -1, -3, "3", 3.0, True, False],
        "model_type": ["SentenceTransformer", "CrossEncoder", "SparseEncoder", "MultiVectorEncoder", "Own", "", 3],
        "__version__": [{"sentence_transformers": "2.0.0"}, {"sentence_transformers": "99.0"}, {}],
        "requirements": [{}, {"transformers": ">=4"}], "activation_fn": _FUNCTIONS, "keep_in_fp32_modules": [[], ["x"]],
        "max_seq_length": [8], "pooling_mode": ["max"], "precision": ["int8"], "normalize_embeddings": [True],
    },
    CONFIG: {
        "sentence_transformers": [*({"activation_fn": name} for name in _FUNCTIONS), {}, {"version": "9"}, 3,
                                  {"activation_fn": None}, {"own": 1}],
        "sbert_ce_default_activation_function": _FUNCTIONS,
    },
    MODULES: {
        "idx": [7, "a"], "name": ["1", "", "own", 1], "kwargs": [[], ["task"], {}, "task"],
        "path": ["", "none", OTHER, "./1_Pooling", "1_Pooling/", "1_Pooling", "a/b", "../b", "/tmp", ".", 3],
    },
}  # fmt: skip
_ROOMS = {
    "Transformer": ("base", "transformer"), "Dense": ("base", "dense"), "Normalize": ("base", "normalize"),
    "Router": ("base", "router"), "LogitScore": ("cross_encoder", "logit_score"),
    "MultiVectorMask": ("multi_vector_encoder", "multi_vector_mask"),
    "SpladePooling": ("sparse_encoder", "splade_pooling"),
}  # fmt: skip


def _type_of(name: str) -> str:
    room, file = _ROOMS.get(name, ("sentence_transformer", ""))
    return f"sentence_transformers.{room}.modules.{file + '.' if file else ''}{name}"


def _spellings(name: str) -> list[str]:
    """Return names of a step's class: of old and new versions of the library, of other code, and wrong ones."""
    return [
        f"sentence_transformers.models.{name}", f"sentence_transformers.models.{name}.{name}", _type_of(name),
        f"sentence_transformers.base.modules.{name}", f"sentence_transformers.sentence_transformer.modules.{name}",
        f"modeling_own.{name}", name, f"torch.nn.{name}", f"sentence_transformers.models.My{name}",
        f"sentence_transformers.own.{name}",
    ]  # fmt: skip


def changes(folder: Path, kind: str) -> list[Change]:
    """Return the changes of a kind's folder that give a file another content, each content once."""
    found: dict[str, Change] = {}
    for file, keys, value in _all_changes(folder, kind):
        values = with_change(copy.deepcopy(read(folder / file)), keys, value)
        if values != read(folder / file):
            found.setdefault(json.dumps([file, values]), (file, keys, value))
    return [*found.values()]


def _all_changes(folder: Path, kind: str) -> Iterator[Change]:
    modules = read(folder / MODULES)
    modules = modules if isinstance(modules, list) else []
    for number, step in enumerate(modules):
        name = step["type"].rpartition(".")[2]
        values = {**_VALUES[MODULES], "type": [*_spellings(name), *map(_type_of, {**SPARE, "Asym": None})]}
        yield from ((MODULES, [number, key], value) for key, value in _each(values, step))
        inside = f"{step['path']}/" if step["path"] else ""
        if number:
            yield from ((f"{inside}{CONFIG}", [key], value) for key, value in _each(
                _VALUES[name], read(folder / inside / CONFIG)))  # fmt: skip
    for number in range(len(modules)):
        yield MODULES, [], [step for place, step in enumerate(modules) if place != number]
        if number:
            yield MODULES, [], [*modules[: number - 1], modules[number], modules[number - 1], *modules[number + 1 :]]
    for name in SPARE if modules and kind != "answers" else ():
        more = {"idx": 9, "name": "9", "path": name, "type": _type_of(_CLASSES.get(name, name))}
        for number in range(len(modules) + 1):
            yield MODULES, [], [*modules[:number], more, *modules[number:]]
            yield MODULES, [], [*modules[:number], more, *modules[number + 1 :]]
    inside = f"{modules[0]['path']}/" if modules and modules[0]["path"] else ""
    for file, within in ((LENGTHS, inside), (SETTINGS, ""), (CONFIG, inside)):
        if file != CONFIG or kind in ("reranker", "reranker, plain"):
            values = read(folder / within / file)
            if file == CONFIG:  # other tests change the keys of transformers
                values = {key: value for key, value in values.items() if key in _VALUES[CONFIG]}
            yield from ((within + file, [key], value) for key, value in _each(_VALUES[file], values))
    for name in ("roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet", "own"):
        yield f"{inside}sentence_{name}_config.json", [], {"max_seq_length": 8, "do_lower_case": True}
    if modules:
        old: dict[str, Any] = {"max_seq_length": 8, "do_lower_case": True}
        yield f"{inside}{LENGTHS}", [], old
        yield LENGTHS, [], old
        yield f"{inside}{LENGTHS}", [], {**old, **_NEW, "module_output_name": "sentence_embedding"}
        yield f"{inside}{LENGTHS}", [], {
            **_NEW, "module_output_name": "sentence_embedding",
            "modality_config": {"text": {"method": "forward", "method_output_name": "pooler_output"}},
        }  # fmt: skip
        for name, prompts in (("ask", {"ask": "w9 "}), ("query", {"query": "w9 "}), ("document", {"document": "w9 "})):
            yield SETTINGS, [], {**read(folder / SETTINGS), "prompts": prompts, "default_prompt_name": name}
        yield SETTINGS, [], {**read(folder / SETTINGS), "prompts": {}, "default_prompt_name": "query"}
    if len(modules) > 1 and "Pooling" in modules[1]["type"]:
        pooling = f"{modules[1]['path']}/{CONFIG}"
        for one in _OLD_MODES:
            for two in _OLD_MODES:
                yield pooling, [], {f"pooling_mode_{mode}": mode in (one, two) for mode in _OLD_MODES} | {
                    "word_embedding_dimension": WIDTH}  # fmt: skip
        yield pooling, [], {"word_embedding_dimension": WIDTH}
        yield pooling, [], {}


def _each(values: dict[str, list[Any]], stated: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Return each key with its other values, and with null, or without it where it is stated."""
    for key, others in {**values, **{name: [] for name in stated if name not in values}, "unheard_of": [1]}.items():
        for value in (*others, None, *([ABSENT] if key in stated else [])):
            if key not in stated or value is None or value != stated[key] or type(value) is not type(stated[key]):
                yield key, value


def answer_of(folder: Path, kind: str) -> list[Any]:
    """Return the library's answer; raise its error, or `ValueError` if its vectors or scores are no such thing."""
    import torch
    from sentence_transformers import CrossEncoder, SentenceTransformer

    if is_reranker(kind):
        model = CrossEncoder(str(folder), device="cpu", local_files_only=True)
        shown = type(model.activation_fn).__name__
        identity = torch.nn.Identity()
        logits = [np.asarray(model.predict([pair], activation_fn=identity)).ravel() for pair in pairs_of(kind)]
        if any(logit.shape != (1,) for logit in logits):
            raise ValueError("no score")
        return [shown, *summed(logits)]
    tower = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    found = [encode([text])[0] for encode in (tower.encode_query, tower.encode_document) for text in TEXTS]
    if any(vector.ndim != 1 or not len(vector) for vector in found):
        raise ValueError("no vector")
    return [str(tower.similarity_fn_name), *summed(found)]


def main(kinds: Optional[list[str]] = None) -> None:
    """Write the library's answers for some kinds, by default all."""
    import logging
    import warnings

    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.simplefilter("ignore")
    logging.disable()
    answers = read(FILE)
    for kind in kinds or KINDS:
        with tempfile.TemporaryDirectory() as temporary:
            plain = write_folder(Path(temporary) / "plain", kind)
            wanted, found = answer_of(plain, kind), list[Any]()
            for change in changes(plain, kind):
                folder = Path(temporary) / "changed"
                shutil.rmtree(folder, ignore_errors=True)
                changed(Path(shutil.copytree(plain, folder)), change)
                answer: Any
                try:
                    answer = answer_of(folder, kind)
                except BaseException as error:
                    answer = type(error).__name__
                is_same = isinstance(answer, list) and answer[0] == wanted[0] and np.allclose(
                    answer[1:], wanted[1:], 0, 2e-6)  # fmt: skip
                found.append(None if is_same else answer)
        answers[kind] = {"plain": wanted, "answers": found}
        print(kind, len(found), sum(isinstance(one, list) for one in found), found.count(None), flush=True)
        FILE.write_text(json.dumps(answers, sort_keys=True, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
