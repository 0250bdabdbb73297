"""Run a folder in transformers: `python transformers_worker.py FOLDER INPUTS.npz OUTPUTS.npz`.

This file imports nothing of this project, so that it runs in any environment with torch and transformers.
"""

from __future__ import annotations

import json
import sys

import numpy as np


def main(folder: str, inputs_file: str, outputs_file: str) -> None:
    """Write a bare encoder's hidden states or a ranker's logits, and the ids of the pairs' texts."""
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer

    inputs = np.load(inputs_file)
    is_ranker = "ForSequenceClassification" in (AutoConfig.from_pretrained(folder).architectures or [""])[0]
    model_class = AutoModelForSequenceClassification if is_ranker else AutoModel
    model = model_class.from_pretrained(folder, dtype=torch.float32).eval()
    names = ("input_ids", "token_type_ids", "attention_mask")
    with torch.no_grad():
        output = model(**{name: torch.from_numpy(inputs[name]) for name in names})
    tokenizer = AutoTokenizer.from_pretrained(folder)
    pairs = json.loads(str(inputs["pairs"]))
    encoded = tokenizer([query for query, _ in pairs], [title for _, title in pairs])
    np.savez(
        outputs_file,
        values=(output.logits[:, 0] if is_ranker else output.last_hidden_state).numpy(),
        ids=json.dumps([encoded["input_ids"], encoded["token_type_ids"]]),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
