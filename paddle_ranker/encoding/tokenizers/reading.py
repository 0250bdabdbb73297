"""Read the tokenizer of a model folder, whichever kind it is."""

from __future__ import annotations

from pathlib import Path

from paddle_ranker.encoding.tokenizers.base import ModelTokenizer
from paddle_ranker.encoding.tokenizers.folder import (
    CONFIG_FILE,
    SPECIAL_TOKENS_FILE,
    VOCABULARY_FILE,
    TokenizerFiles,
)
from paddle_ranker.encoding.tokenizers.library import TOKENIZER_FILE, LibraryFiles

TOKENIZER_FILES = (VOCABULARY_FILE, TOKENIZER_FILE, CONFIG_FILE, SPECIAL_TOKENS_FILE)  # all that a folder may have


def read_tokenizer(folder: Path) -> ModelTokenizer:
    """Read a folder's `vocab.txt` as WordPiece; where it has none, its `tokenizer.json`, with the tokenizers library.

    Raises `CheckpointError` if there is neither, or what is there cannot be used.
    """
    if not (folder / VOCABULARY_FILE).is_file() and (folder / TOKENIZER_FILE).is_file():
        return LibraryFiles.read(folder)
    return TokenizerFiles.read(folder)
