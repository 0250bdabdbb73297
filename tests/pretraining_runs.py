"""A tiny corpus, and trainings of a masked language model on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from paddle_ranker.encoding.tokenizers.tokenizer_folder import TokenizerFiles
from paddle_ranker.storage.digest import content_digest
from pretraining.corpus import Corpus
from pretraining.token_store import TokenStore, tokenised
from tests.tiny import HAN, write_tokenizer

SHAPE = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
}


def write_corpus(folder: Path, documents: int = 60) -> Path:
    """Write `corpus.txt`, `eval.txt`, `tokenizer/` and `shape.json` into a folder; return it."""
    random = np.random.RandomState(0)
    lines = ["".join(random.choice(HAN[:8], random.randint(4, 40))) + " abc de" for _ in range(documents)]
    (folder / "corpus.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "eval.txt").write_text("\n".join(line[::-1] for line in lines[:9]) + "\n", encoding="utf-8")
    write_tokenizer(folder / "tokenizer")
    (folder / "shape.json").write_text(json.dumps(SHAPE), encoding="utf-8")
    return folder


def typed(save_dir: object, *more: object, **changes: object) -> list[str]:
    """Return the options of a short training, for a folder of `write_corpus`; later options override."""
    values: dict[str, Any] = {
        "train_files": "corpus.txt",
        "eval_files": "eval.txt",
        "tokenizer": "tokenizer",
        "config": "shape.json",
        "save_dir": save_dir,
        "max_seq_length": 32,
        "batch_size": 4,
        "gradient_accumulation_steps": 2,
        "epochs": 3,
        "learning_rate": 1e-3,
        "eval_step": 4,
        "save_step": 3,
        "keep": 2,
        "logging_steps": 1,
        "device": "cpu",
        "cpu_threads": 1,
        **changes,
    }
    if "--init_from" in more:
        del values["config"]  # an encoder has its own shape
    return [*(str(part) for name, value in values.items() for part in (f"--{name}", value)), *map(str, more)]


def store_of(folder: Path, text: str, *, whole_words: bool = False, documents: str = "lines") -> TokenStore:
    """Return the token store of a text, as of a file."""
    write_tokenizer(folder)
    path = folder / "text.txt"
    path.write_text(text, encoding="utf-8")
    files = TokenizerFiles.read(folder)
    corpus = Corpus([str(path)], documents)
    return tokenised(corpus, [content_digest(path)], files, folder / "cache", whole_words)
