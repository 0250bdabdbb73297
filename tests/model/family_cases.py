"""Random models of transformers, and its answers: `families.json` of tiny ones, `family_sizes.json` of larger ones.

Weights and inputs follow from names and seeds alone; configurations, names, shapes and logits are those of the library,
which is not needed to run the tests. Where it is installed, this writes them anew (they were by transformers 5.23.0;
parameters of equal layers stand in them once, with the numbers of the layers):

    PYTHONPATH=. python tests/model/family_cases.py
"""

from __future__ import annotations

import json
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).with_name("families.json")
SIZES_FILE = Path(__file__).with_name("family_sizes.json")
LENGTHS = (512, 3, 40, 130)  # ragged; the longest is all that most of them take
WORDS, SPECIAL = 90, 5
_SHAPE = {
    "vocab_size": 96,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}
_RELATIVE = {"relative_attention": True, "type_vocab_size": 0, "position_biased_input": False}
_MODERN = {"pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2}
_DISTIL = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24}
# Name -> transformers' class, and what its configuration says.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "xlm-roberta": ("XLMRoberta", {"max_position_embeddings": 514, "type_vocab_size": 1, "pad_token_id": 1}),
    "roberta": (
        "Roberta",
        {"max_position_embeddings": 514, "type_vocab_size": 1, "hidden_act": "gelu_new", "num_labels": 2},
    ),
    "mpnet": ("MPNet", {"max_position_embeddings": 514, "pad_token_id": 1}),
    "distilbert": ("DistilBert", {**_DISTIL, "num_labels": 2}),
    "electra": ("Electra", {"embedding_size": 8}),
    "electra, wide": ("Electra", {"embedding_size": 16, "num_labels": 2}),
    "modernbert": (
        "ModernBert",
        {**_MODERN, "num_hidden_layers": 4, "local_attention": 16, "classifier_pooling": "mean"},
    ),
    "modernbert, biases": (
        "ModernBert",
        {
            **_MODERN,
            "norm_bias": True,
            "attention_bias": True,
            "mlp_bias": True,
            "classifier_bias": True,
            "num_labels": 2,
        },
    ),
    "deberta-v3": (
        "DebertaV2",
        {
            **_RELATIVE,
            "position_buckets": 32,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "pos_att_type": ["p2c", "c2p"],
        },
    ),
    "deberta-v2": (
        "DebertaV2",
        {
            "relative_attention": True,
            "max_relative_positions": 64,
            "pos_att_type": "c2p|p2c",
            "type_vocab_size": 2,
            "conv_kernel_size": 3,
            "conv_act": "gelu",
        },
    ),
}


_SIZES = {
    "small": {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 160},
    "deep": {"hidden_size": 96, "num_hidden_layers": 12, "num_attention_heads": 6, "intermediate_size": 224},
    "wide": {"hidden_size": 768, "num_hidden_layers": 2, "num_attention_heads": 12, "intermediate_size": 1536},
}
_SIZED = {
    "bert": ("Bert", {"type_vocab_size": 2, "pad_token_id": 0}),
    "xlm-roberta": CASES["xlm-roberta"],
    "electra": ("Electra", {"embedding_size": 48}),
    "modernbert": ("ModernBert", {**_MODERN, "local_attention": 64, "classifier_pooling": "cls"}),
    "deberta-v3": CASES["deberta-v3"],
    "deberta-v2": CASES["deberta-v2"],
}
SIZED_CASES = {
    f"{name}, {size}": (classes, {**changes, **shape, "num_labels": 1})
    for name, (classes, changes) in _SIZED.items()
    for size, shape in _SIZES.items()
}


def expected(file: Path = FILE) -> dict[str, Any]:
    """Return what the library said: by a case's name, `config`, `shapes` and `logits`, `[rows, labels]`."""
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    for case in found.values():
        case["shapes"] = {
            name.replace("{}", str(layer)): shape
            for name, (shape, layers) in case["shapes"].items()
            for layer in layers or [0]
        }
    return found


def _folded(shapes: dict[str, list[int]]) -> dict[str, tuple[list[int], list[int]]]:
    """Return the shape of each name without the number of its layer, and these numbers."""
    found: dict[str, tuple[list[int], list[int]]] = {}
    for name, shape in shapes.items():
        number = re.search(r"(?<=\.)\d+(?=\.)", name)
        pattern = name if number is None else name[: number.start()] + "{}" + name[number.end() :]
        found.setdefault(pattern, (shape, []))[1].extend([] if number is None else [int(number.group())])
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


def main() -> None:
    """Write both files by the library."""
    _write(FILE, CASES)
    _write(SIZES_FILE, SIZED_CASES)


def _write(file: Path, cases: dict[str, tuple[str, dict[str, Any]]]) -> None:
    import torch
    import transformers

    answers = {}
    for name, (classes, changes) in cases.items():
        config = getattr(transformers, f"{classes}Config")(**{**_SHAPE, "num_labels": 1, **changes})
        model = getattr(transformers, f"{classes}ForSequenceClassification")(config).eval()
        shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
        state = {key: torch.from_numpy(array) for key, array in weights(shapes).items()}
        model.load_state_dict(state)
        ids, types, mask = (torch.from_numpy(array) for array in inputs(config.pad_token_id))
        arguments = {"input_ids": ids, "attention_mask": mask}
        if getattr(config, "type_vocab_size", 0) > 1:
            arguments["token_type_ids"] = types
        with torch.no_grad():
            logits = model(**arguments).logits.double().tolist()
        stated = {**config.to_diff_dict(), "architectures": [type(model).__name__]}
        answers[name] = {"config": stated, "shapes": _folded(shapes), "logits": logits}
    file.write_text(json.dumps(answers, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
