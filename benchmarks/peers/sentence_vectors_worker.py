"""Vectors of texts by sentence-transformers: `python sentence_vectors_worker.py FOLDER TEXTS.json OUTPUTS.npz`.

This file imports nothing of this project, so that it runs in any environment with sentence-transformers.
"""

from __future__ import annotations

import json
import sys

import numpy as np


def main(folder: str, texts_file: str, outputs_file: str) -> None:
    """Write the vectors from the library's `encode`, in fp32 on the CPU, and the ids of the texts."""
    from sentence_transformers import SentenceTransformer

    with open(texts_file, encoding="utf-8") as stream:
        texts = json.load(stream)
    model = SentenceTransformer(folder, device="cpu")
    ids = model.tokenizer(texts, truncation=True, max_length=model.max_seq_length)["input_ids"]
    np.savez(outputs_file, vectors=model.encode(texts, show_progress_bar=False), ids=json.dumps(ids))


if __name__ == "__main__":
    main(*sys.argv[1:])
