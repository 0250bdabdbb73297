"""Random models of transformers, and its answers.

`families.json` has tiny ones, `family_sizes.json` larger ones, `config_cases.json` tiny ones with one key of the
configuration changed: keys of transformers' configuration classes, of older versions of it, and others that people's
files have. Weights and inputs follow from names and seeds alone; configurations, names, shapes and logits are those of
the library, which is not needed to run the tests. Where it is installed, this computes the answers of the files anew
(they were by transformers 5.23.0; parameters of equal layers stand in them once, with the numbers of the layers):

    PYTHONPATH=. python tests/model/family_cases.py
"""

from __future__ import annotations

import json
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

FILE, SIZES_FILE, CONFIGS_FILE = (
    Path(__file__).with_name(f"{name}.json") for name in ("families", "family_sizes", "config_cases")
)
LENGTHS = (512, 3, 41, 131)  # ragged and odd; the longest is all that most of them take
WORDS, SPECIAL = 90, 5
BOXED = ("layoutlm", "lilt")
ABSENT = "absent"  # the key is left out


def expected(file: Path = FILE) -> dict[str, Any]:
    """Return the library's answers: by a case's name, `config`, `shapes` and `logits`, `[rows, labels]`."""
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    for case in found.values():
        case["shapes"] = {
            name.replace("{}", str(layer)): shape
            for name, (shape, layers) in case["shapes"].items()
            for layer in layers or [0]
        }
    return found


CASES, SIZED_CASES = list(expected()), list(expected(SIZES_FILE))


def changed_case(name: str) -> tuple[dict[str, Any], dict[str, list[int]]]:
    """Return the configuration and the shapes of the model whose keys `config_cases.json` changes."""
    known = expected()
    if name in known:
        return known[name]["config"], known[name]["shapes"]
    config = {**known["xlm-roberta"]["config"], "model_type": name}
    config["architectures"] = [f"{name.title()}ForSequenceClassification"]
    theirs = known["xlm-roberta"]["shapes"]
    if name == "camembert":
        return config, theirs
    config.update(pad_token_id=0, type_vocab_size=2)
    shapes = {key.replace("roberta.", f"{name}."): shape for key, shape in theirs.items() if "classifier" not in key}
    shapes[f"{name}.embeddings.token_type_embeddings.weight"] = [2, 16]
    pooler = {f"{name}.pooler.dense.weight": [16, 16], f"{name}.pooler.dense.bias": [16]}
    return config, {**shapes, **pooler, "classifier.weight": [1, 16], "classifier.bias": [1]}


def changed_config(config: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """Return the configuration with another value of a key, or without it."""
    kept = {name: other for name, other in config.items() if name != key}
    return kept if value == ABSENT else {**kept, key: value}


_ROTARY: list[Any] = [
    {"rope_type": "default"}, {"type": "default"}, {"rope_type": "default", "rope_theta": 100.0}, {"rope_theta": 100.0},
    {"type": "linear", "factor": 2.0}, {"rope_type": "linear", "factor": 2.0}, {"rope_type": "default", "factor": 2.0},
    {"rope_type": "dynamic", "factor": 2.0}, {},
]  # fmt: skip


def generated(config: dict[str, Any]) -> list[list[Any]]:
    """Return a change of each key of the library's configuration class to other values of its type; null, too."""
    from transformers import CONFIG_MAPPING

    kind = CONFIG_MAPPING[config["model_type"]]
    hints = {name: str(hint) for base in kind.__mro__ for name, hint in vars(base).get("__annotations__", {}).items()}
    found: list[list[Any]] = []
    for name, value in sorted({**kind().to_dict(), **config}.items()):
        if name.startswith(("_", "transformers")) or name == "model_type":
            continue
        if name.startswith("rope_"):
            kinds = [{part: one} for part in ("full_attention", "sliding_attention") for one in _ROTARY]
            for key in ("rope_parameters", "rope_scaling"):
                found += [[key, other, None] for other in (*_ROTARY, *kinds)]
        elif isinstance(value, bool):
            found.append([name, not value, None])
        elif isinstance(value, (int, float)):
            found.append([name, value + 1 if isinstance(value, int) else value + 0.25, None])
        elif isinstance(value, list) and value:
            found += [[name, value[::-1], None], [name, value[:-1], None]]
        if "None" in hints.get(name, "None"):
            found.append([name, None, None])
        if name in config:
            found.append([name, ABSENT, None])
    return found


def weights(shapes: dict[str, list[int]]) -> dict[str, np.ndarray]:
    """Return random weights by name; norms are near 1, and of wide matrices the numbers are smaller."""
    found = {}
    for name, shape in shapes.items():
        draw = np.random.RandomState(zlib.crc32(name.encode("utf-8")))
        scale = 0.3 if len(shape) < 2 or shape[-1] < 48 else 1.2 / shape[-1] ** 0.5
        values = (scale * draw.standard_normal(shape)).astype(np.float32)
        found[name] = values + 1 if len(shape) == 1 and name.endswith("weight") else values
    return found


def inputs(pad_id: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return padded ids, token types and 1 for tokens, `[rows, longest]` int64 each."""
    draw = np.random.RandomState(0)
    ids = np.full((len(LENGTHS), max(LENGTHS)), pad_id, np.int64)
    types = np.zeros_like(ids)
    for row, length in enumerate(LENGTHS):
        ids[row, :length] = draw.randint(SPECIAL, WORDS, length)
        types[row, length // 2 : length] = 1
    return ids, types, (np.arange(max(LENGTHS)) < np.array(LENGTHS)[:, None]).astype(np.int64)


def with_boxes(types: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return types of tokens with random boxes, `[rows, longest, 5]`; those of padding are 0."""
    corners = np.sort(np.random.RandomState(1).randint(0, 1001, (*types.shape, 2, 2)), axis=2)
    boxes = corners.reshape(*types.shape, 4) * mask[:, :, None]
    return np.concatenate([types[:, :, None], boxes], axis=2)


def short_inputs(pad_id: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return two short rows of `inputs`."""
    ids, types, mask = (array[1:3, :9] for array in inputs(pad_id))
    return ids, (np.arange(9) > 2) * mask * types.max(), mask


def main() -> None:
    """Write the answers of the library into the three files."""
    for file in (FILE, SIZES_FILE):
        answers = json.loads(file.read_text(encoding="utf-8"))
        for name, case in expected(file).items():
            answers[name]["logits"] = _logits(case["config"], case["shapes"], inputs)
        file.write_text(json.dumps(answers, sort_keys=True) + "\n", encoding="utf-8")
    answers = json.loads(CONFIGS_FILE.read_text(encoding="utf-8"))
    for name in sorted({*answers, *(name for name in expected() if "," not in name)}):
        config, shapes = changed_case(name)
        answer = answers.setdefault(name, {"keys": [], "changes": []})
        known = [change[:2] for change in answer["changes"]]
        answer["changes"] += [change for change in generated(config) if change[:2] not in known]
        plain = answer["logits"] = np.round(_logits(config, shapes, short_inputs), 7).tolist()
        for change in answer["changes"]:
            try:
                logits = np.round(_logits(changed_config(config, *change[:2]), shapes, short_inputs), 7)
                same = logits.shape == np.shape(plain) and np.allclose(logits, plain, 0, 1e-6)
                change[2] = None if same else logits.tolist()
            except Exception as error:
                change[2] = type(error).__name__
    CONFIGS_FILE.write_text(json.dumps(answers, sort_keys=True) + "\n", encoding="utf-8")


def _logits(config: dict[str, Any], shapes: dict[str, list[int]], rows: Any) -> Any:
    """Return the library's logits; raise what it raises, or `ValueError` if the weights do not fit."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForSequenceClassification

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        state = {key: torch.from_numpy(array) for key, array in weights(shapes).items()}
        save_file(state, folder / "model.safetensors", {"format": "pt"})
        model, said = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
        )
    if said["missing_keys"] or said["mismatched_keys"]:
        raise ValueError("misfit")
    ids, types, mask = rows(config.get("pad_token_id", 0) or 0)
    found = []
    for row, length in enumerate(mask.sum(axis=1)):  # alone, since its batch changes what BigBird computes
        if hasattr(model.base_model, "set_attention_type"):  # the last row may have changed it
            model.base_model.set_attention_type(model.config.attention_type)
        arrays = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        if config["model_type"] in BOXED:
            arrays["bbox"] = with_boxes(types, mask)[:, :, 1:]
        given = {name: torch.from_numpy(array[row : row + 1, :length]) for name, array in arrays.items()}
        if getattr(model.config, "type_vocab_size", 0) < 2:
            del given["token_type_ids"]
        with torch.no_grad():
            answer = model.eval()(**given)
        found += (answer[0] if isinstance(answer, tuple) else answer.logits).double().tolist()
    return found


if __name__ == "__main__":
    main()
