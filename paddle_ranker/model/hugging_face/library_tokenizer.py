"""Bring the tokenizer of a transformers folder as the `tokenizers` library reads it: `tokenizer.json`."""

from __future__ import annotations

from pathlib import Path

from paddle_ranker.encoding.tokenizers.folder import CONFIG_FILE, SPECIAL_TOKENS_FILE, VOCABULARY_FILE
from paddle_ranker.encoding.tokenizers.library import MOST_BYTES, TOKENIZER_FILE, LibraryFiles
from paddle_ranker.errors import CheckpointError
from paddle_ranker.model.hugging_face.tokenizer import bring_tokenizer
from paddle_ranker.storage.untrusted import read_file

SENTENCEPIECE_FILES = ("sentencepiece.bpe.model", "spm.model", "spiece.model")


def bring_library_tokenizer(source: Path, target: Path) -> None:
    """Write `source`'s tokenizer into the folder `target` as `read_tokenizer` reads it.

    That is `tokenizer.json` as it is, or made of a SentencePiece model; or `vocab.txt`, if there is nothing else.

    Raises `CheckpointError` if there is none of these, or it cannot be used.
    """
    has_library = (source / TOKENIZER_FILE).is_file()
    model = next((name for name in SENTENCEPIECE_FILES if (source / name).is_file()), None)
    if not has_library and model is None:
        if (source / VOCABULARY_FILE).is_file():
            bring_tokenizer(source, target)
            return
        raise CheckpointError(
            f"{source}: has no {TOKENIZER_FILE}, no {SENTENCEPIECE_FILES[0]} and no {VOCABULARY_FILE}; copy the folder "
            "again"
        )
    for name in (TOKENIZER_FILE, CONFIG_FILE, SPECIAL_TOKENS_FILE):
        if (source / name).is_file():
            (target / name).write_bytes(read_file(source / name, MOST_BYTES))
    if has_library:  # `read_tokenizer` checks it; reading a large one takes a second
        return
    from paddle_ranker.model.hugging_face.sentencepiece import tokenizer_of_sentencepiece

    assert model is not None
    tokenizer_of_sentencepiece(source / model).save(str(target / TOKENIZER_FILE))
    LibraryFiles.read(target)
