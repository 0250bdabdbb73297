"""Vectors of texts by sentence-transformers: `python sentence_vectors_worker.py FOLDER TEXTS.json VECTORS.npy`.

This file imports nothing of this project, so that it runs in any environment with sentence-transformers.
"""

from __future__ import annotations

import json
import sys

import numpy as np


def main(folder: str, texts_file: str, vectors_file: str) -> None:
    """Write what the library's `encode` returns, in fp32 on the CPU."""
    from sentence_transformers import SentenceTransformer

    with open(texts_file, encoding="utf-8") as stream:
        texts = json.load(stream)
    np.save(vectors_file, SentenceTransformer(folder, device="cpu").encode(texts, show_progress_bar=False))


if __name__ == "__main__":
    main(*sys.argv[1:])
