"""Adapters of peft over tiny models, each with one setting changed, and peft's answers in `adapter_cases.json`.

The file holds for each case the base's configuration and shapes, `adapter_config.json`, the shapes of the adapter's
arrays, the logits, and the changes: key, new value, and the logits then; null where the change changes nothing, or the
name of an error. Arrays follow from names, as in `family_cases`. Where transformers and peft are installed (5.24.0 and
0.21.2), this writes it anew:

    PYTHONPATH=. python tests/model/adapter_cases.py
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from tests.model.family_cases import changed_case, changed_config, short_inputs, weights

FILE = Path(__file__).with_suffix(".json")
CONFIG, ARRAYS = "adapter_config.json", "adapter_model.safetensors"
# Name -> model, whether the base is its encoder alone (without a head and a prefix), and peft's settings.
CASES: dict[str, tuple[str, bool, dict[str, Any]]] = {
    "lora": ("bert", False, {
        "r": 3, "lora_alpha": 7, "target_modules": ["query", "value", "output.dense"], "bias": "lora_only",
        "rank_pattern": {"layer.0.attention.self.query": 2}, "alpha_pattern": {".*value": 5},
        "task_type": "SEQ_CLS", "exclude_modules": ["layer.1.attention.self.value"],
    }),
    "dora": ("xlm-roberta", True, {
        "r": 2, "lora_alpha": 4, "use_dora": True, "target_modules": r".*layer\.\d+\.(attention|output).*(query|dense)",
        "task_type": "SEQ_CLS",
    }),
    "rslora": ("xlm-roberta", False, {
        "r": 4, "lora_alpha": 6, "use_rslora": True, "lora_bias": True, "layers_to_transform": [0],
        "layers_pattern": "layer", "target_modules": ["key", "dense"], "task_type": "SEQ_CLS", "bias": "all",
    }),
    "embeddings": ("bert", True, {
        "r": 2, "lora_alpha": 3, "use_dora": True, "target_modules": ["word_embeddings", "query"],
        "task_type": "SEQ_CLS",
    }),
    "all": ("bert", False, {"r": 2, "lora_alpha": 3, "target_modules": "all-linear", "task_type": "SEQ_CLS"}),
    "ia3": ("bert", False, {
        "target_modules": ["key", "value", "output.dense"], "feedforward_modules": ["output.dense"],
        "task_type": "SEQ_CLS",
    }),
}  # fmt: skip
_OTHERS: dict[str, list[Any]] = {
    "target_modules": [["query"], ["query", "key"], ".*query", ".*", "all-linear", "ALL-LINEAR", []],
    "exclude_modules": [["query"], ".*value", []],
    "feedforward_modules": [["value"], [], ".*dense"],
    "layers_to_transform": [[1], 0, [0, 1], []],
    "layers_pattern": ["layer", ["encoder.layer"], "blocks", []],
    "rank_pattern": [{"query": 2}, {"query": 9}, {}],
    "alpha_pattern": [{"query": 9}, {"self.(query|key)": 9}, {"dense": 9, "output.dense": 1}, {"ery": 9}, {}],
    "modules_to_save": [["classifier"], ["pooler"], ["nothing"], []],
    "init_lora_weights": [True, "gaussian", "pissa", "olora", "eva", "orthogonal", "loftq"],
    "bias": ["none", "all", "lora_only"],
    "lora_alpha": [1, 16, 0.5],
    "r": [1, 8],
    "task_type": ["FEATURE_EXTRACTION", "CAUSAL_LM"],
    "peft_type": ["LORA", "IA3", "LOHA", "LOKR", "ADALORA", "PROMPT_TUNING", "PREFIX_TUNING", "VERA", "NEW"],
    "layer_replication": [[[0, 2], [1, 2]]],
    "trainable_token_indices": [[1, 2]],
    "target_parameters": [["query.weight"]],
    "alora_invocation_tokens": [[5]],
}


def expected() -> dict[str, Any]:
    """Return peft's answers, by a case's name."""
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def write_base(folder: Path, case: str) -> tuple[Path, dict[str, Any]]:
    """Write a case's base as transformers would, without its tokenizer; also return its configuration."""
    model, is_encoder, _ = CASES[case]
    config, shapes = changed_case(model)
    if is_encoder:
        config = {**config, "architectures": [config["architectures"][0].replace("ForSequenceClassification", "Model")]}
        shapes = {name.partition(".")[2]: shape for name, shape in shapes.items() if not name.startswith("classifier")}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(weights(shapes), folder / "model.safetensors", {"format": "pt"})
    return folder, config


def write_adapter(folder: Path, base: str, config: dict[str, Any], shapes: dict[str, list[int]]) -> Path:
    """Write an adapter as peft would; DoRA's magnitudes and IA³'s factors are near 1."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(json.dumps({**config, "base_model_name_or_path": base}), encoding="utf-8")
    arrays = weights(shapes)
    for name, array in arrays.items():
        arrays[name] = np.abs(array) + 1 if name.endswith(("magnitude_vector", "ia3_l")) else array
    save_file(arrays, folder / ARRAYS, {"format": "pt"})
    return folder


def generated(config: dict[str, Any]) -> list[list[Any]]:
    """Return a change of each key of `adapter_config.json` to other values."""
    found: list[list[Any]] = []
    for name, value in sorted(config.items()):
        if name in ("base_model_name_or_path", "auto_mapping", "runtime_config", "revision"):
            continue
        found += [[name, other, None] for other in _OTHERS.get(name, []) if other != value]
        if isinstance(value, bool):
            found.append([name, not value, None])
        if value is not None and name not in ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "target_modules"):
            found.append([name, None, None])
    return [*found, ["peft_version", "9.9.9", None], ["a_key_of_tomorrow", 3, None]]


def main() -> None:
    """Write peft's answers."""
    import torch
    from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForSequenceClassification

    def model(base: Path) -> Any:
        torch.manual_seed(0)
        return AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, dtype=torch.float32)

    def logits(base: Path, adapter: Path, pad: int) -> list[float]:
        tuned = PeftModel.from_pretrained(model(base), adapter).eval()
        ids, types, mask = short_inputs(pad)
        found = []
        for row, length in enumerate(mask.sum(axis=1)):
            arrays = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
            given = {name: torch.from_numpy(array[row : row + 1, :length]) for name, array in arrays.items()}
            if tuned.config.type_vocab_size < 2:
                del given["token_type_ids"]
            with torch.no_grad():
                found += np.round(tuned(**given).logits.double().numpy().ravel(), 7).tolist()
        return found

    answers: dict[str, Any] = {}
    for case, (_, _, settings) in CASES.items():
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            base, own = write_base(folder / "base", case)
            kind = IA3Config if case == "ia3" else LoraConfig
            get_peft_model(model(base), kind(**settings)).save_pretrained(folder / "saved")
            config = json.loads((folder / "saved" / CONFIG).read_text(encoding="utf-8"))
            for key in ("target_modules", "feedforward_modules", "modules_to_save", "exclude_modules"):
                if isinstance(config.get(key), list):
                    config[key] = sorted(config[key])
            config["base_model_name_or_path"] = ""
            from safetensors.numpy import load_file

            shapes = {key: list(array.shape) for key, array in load_file(folder / "saved" / ARRAYS).items()}
            pad = own.get("pad_token_id", 0)
            plain = logits(base, write_adapter(folder / "adapter", str(base), config, shapes), pad)
            changes = generated(config)
            for change in changes:
                try:
                    changed = changed_config(config, *change[:2])
                    found = logits(base, write_adapter(folder / "adapter", str(base), changed, shapes), pad)
                    change[2] = None if np.allclose(found, plain, 0, 1e-6) else found
                except Exception as error:
                    change[2] = type(error).__name__
            answers[case] = {"config": config, "shapes": shapes, "logits": plain, "changes": changes}
            print(case, len(shapes), plain, len(changes), sum(change[2] is not None for change in changes))
    FILE.write_text(json.dumps(answers, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
