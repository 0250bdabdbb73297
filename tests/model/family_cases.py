"""Small random models of transformers, and its answers: `families.json`.

Weights and inputs follow from names and seeds alone; configurations, names, shapes and logits are those of the library,
which is not needed to run the tests. Where it is installed, this writes them anew (they were by transformers 5.23.0):

    PYTHONPATH=. python tests/model/family_cases.py
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).with_name("families.json")
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
# Name -> transformers' class, and what its configuration says.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "xlm-roberta": ("XLMRoberta", {"max_position_embeddings": 514, "type_vocab_size": 1, "pad_token_id": 1}),
    "roberta": (
        "Roberta",
        {"max_position_embeddings": 514, "type_vocab_size": 1, "hidden_act": "gelu_new", "num_labels": 2},
    ),
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


def expected() -> dict[str, Any]:
    """Return what the library said: by a case's name, `config`, `shapes` and `logits`, `[rows, labels]`."""
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def weights(shapes: dict[str, list[int]]) -> dict[str, np.ndarray]:
    """Return random weights by name; norms are near 1."""
    found = {}
    for name, shape in shapes.items():
        draw = np.random.RandomState(zlib.crc32(name.encode("utf-8")))
        values = (0.3 * draw.standard_normal(shape)).astype(np.float32)
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
    """Write `families.json` by the library."""
    import torch
    import transformers

    answers = {}
    for name, (classes, changes) in CASES.items():
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
        answers[name] = {"config": stated, "shapes": shapes, "logits": logits}
    FILE.write_text(json.dumps(answers, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
