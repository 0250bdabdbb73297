"""Run a folder in transformers or sentence-transformers: `python transformers_worker.py FOLDER INPUTS.npz OUTPUTS.npz`.

This file imports nothing of this project, so that it runs in any environment with torch and transformers.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np


def main(folder: str, inputs_file: str, outputs_file: str) -> None:
    """Write the outputs for the inputs, and the ids of their texts.

    The inputs are `texts`, for which sentence-transformers returns vectors, or ids with the `pairs` that they encode,
    for which transformers returns an encoder's hidden states or a ranker's logits.
    """
    inputs = np.load(inputs_file)
    values, ids = _vectors(folder, json.loads(str(inputs["texts"]))) if "texts" in inputs else _outputs(folder, inputs)
    np.savez(outputs_file, values=values, ids=json.dumps(ids))


def _vectors(folder: str, texts: list[str]) -> tuple[np.ndarray, Any]:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(folder, device="cpu")
    ids = model.tokenizer(texts, truncation=True, max_length=model.max_seq_length)["input_ids"]
    return model.encode(texts, show_progress_bar=False), ids


def _outputs(folder: str, inputs: Any) -> tuple[np.ndarray, Any]:
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer

    is_ranker = "ForSequenceClassification" in (AutoConfig.from_pretrained(folder).architectures or [""])[0]
    model_class = AutoModelForSequenceClassification if is_ranker else AutoModel
    model = model_class.from_pretrained(folder, dtype=torch.float32).eval()
    names = ("input_ids", "token_type_ids", "attention_mask")
    with torch.no_grad():
        output = model(**{name: torch.from_numpy(inputs[name]) for name in names})
    pairs = json.loads(str(inputs["pairs"]))
    encoded = AutoTokenizer.from_pretrained(folder)([query for query, _ in pairs], [title for _, title in pairs])
    values = output.logits[:, 0] if is_ranker else output.last_hidden_state
    return values.numpy(), [encoded["input_ids"], encoded["token_type_ids"]]


if __name__ == "__main__":
    main(*sys.argv[1:])
