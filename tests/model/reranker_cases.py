"""Tiny `CrossEncoder`s of sentence-transformers, and the logits that the library gives pairs: `rerankers.json`.

Weights follow from names. In an environment with sentence-transformers (they were of 6.2.0), this writes them anew:

    PYTHONPATH=. python tests/model/reranker_cases.py
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file

from tests.model.family_cases import SIZES_FILE, expected, weights

FILE = Path(__file__).with_name("rerankers.json")
SAID = expected(SIZES_FILE)["bert, small"]
SIZE = SAID["config"]["hidden_size"]
PAIRS = [("w1 w2", "w9 w1 w2 w11"), ("w7", "w8 w8"), ("find w3 w4 w5", "w3 w5 " * 60), ("w6 w60 " * 50, "w5")]
ST, TORCH = "sentence_transformers", "torch.nn.modules"
GELU, IDENTITY = f"{TORCH}.activation.GELU", f"{TORCH}.linear.Identity"
Step = tuple[str, dict[str, Any]]  # the class of a step, and its settings
FIND: dict[str, Any] = {"prompts": {"ask": "find ", "other": "w20 "}, "default_prompt_name": "ask"}


def dense(inputs: int, outputs: int, activation: str = IDENTITY, **more: Any) -> Step:
    return "Dense", {"in_features": inputs, "out_features": outputs, "activation_function": activation, **more}


def last(inputs: int, activation: str = IDENTITY) -> Step:
    return dense(inputs, 1, activation, module_output_name="scores")


def pooling(mode: Any) -> Step:
    return "Pooling", {"embedding_dimension": SIZE, "pooling_mode": mode}


# Name -> the steps behind the transformer, each its class and its settings, and config_sentence_transformers.json.
CASES: dict[str, tuple[list[Step], dict[str, Any]]] = {
    "head": ([], {}),
    "head, prompt": ([], FIND),
    "head, no default": ([], {**FIND, "default_prompt_name": None}),
    "mean": ([pooling("mean"), last(SIZE)], {}),
    "first, two layers, norm, prompt": (
        [pooling("cls"), dense(SIZE, 12, GELU, bias=False), ("LayerNorm", {"dimension": 12}), last(12)], FIND
    ),
    "max, tanh": ([pooling(["max"]), last(SIZE, f"{TORCH}.activation.Tanh")], {}),
    "normalize, dropout": ([pooling("mean"), ("Normalize", {}), ("Dropout", {"dropout": 0.1}), last(SIZE)], {}),
}  # fmt: skip


def write(folder: Path, case: str, **changes: Any) -> Path:
    """Write the folder of a case; `changes` are settings of config_sentence_transformers.json."""
    steps, settings = CASES[case]
    folder.mkdir()
    config = SAID["config"] if not steps else {**SAID["config"], "architectures": ["BertModel"]}
    _write(folder / "config.json", config)
    save_file(weights(SAID["shapes"]), folder / "model.safetensors", {"format": "pt"})
    words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]", *(f"w{number}" for number in range(85)), "find"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    _write(folder / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", "model_max_length": 64})
    task = "feature-extraction" if steps else "sequence-classification"
    write_steps(folder, steps, {"transformer_task": task}, **{"model_type": "CrossEncoder", **settings, **changes})
    return folder


def write_steps(folder: Path, steps: Sequence[Step], transformer: dict[str, Any], **settings: Any) -> None:
    """Make a transformers folder one of sentence-transformers.

    Args:
        transformer: goes into sentence_bert_config.json.
        settings: go into config_sentence_transformers.json.
    """
    names = [("", "base.modules.transformer.Transformer")]
    for number, (kind, values) in enumerate(steps, 1):
        inside = folder / f"{number}_{kind}"
        inside.mkdir()
        _write(inside / "config.json", values)
        shapes = {"linear.weight": [values["out_features"], values["in_features"]]} if kind == "Dense" else {}
        if kind == "Dense" and values.get("bias", True):
            shapes["linear.bias"] = [values["out_features"]]
        if kind == "LayerNorm":
            shapes = {"norm.weight": [values["dimension"]], "norm.bias": [values["dimension"]]}
        if shapes:
            save_file(weights(shapes), inside / "model.safetensors", {"format": "pt"})
        names.append((inside.name, f"models.{kind}"))
    modules = [{"idx": n, "name": str(n), "path": path, "type": f"{ST}.{kind}"} for n, (path, kind) in enumerate(names)]
    _write(folder / "modules.json", modules)
    _write(folder / "sentence_bert_config.json", transformer)
    _write(folder / "config_sentence_transformers.json", settings)


def _write(path: Path, values: object) -> None:
    path.write_text(json.dumps(values), encoding="utf-8")


def main() -> None:
    """Write the library's logits."""
    import torch
    from sentence_transformers import CrossEncoder

    said = {}
    for number, case in enumerate(CASES):
        with tempfile.TemporaryDirectory() as temporary:
            model = CrossEncoder(str(write(Path(temporary) / str(number), case)), device="cpu")
            logits = [model.predict([pair], activation_fn=torch.nn.Identity())[0] for pair in PAIRS]
        said[case] = [float(logit) for logit in logits]
    FILE.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
