"""Bring the tokenizer of a transformers folder as the `tokenizers` library reads it: `tokenizer.json`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from paddle_ranker.encoding.tokenizers.folder import (
    CONFIG_FILE,
    SPECIAL_TOKENS_FILE,
    VOCABULARY_FILE,
    read_settings,
    token_text,
)
from paddle_ranker.encoding.tokenizers.library import MOST_BYTES, TOKENIZER_FILE, LibraryFiles
from paddle_ranker.errors import CheckpointError, DependencyError, brief
from paddle_ranker.model.hugging_face.sentencepiece import XLM_ROBERTA, Reserved, tokenizer_of_sentencepiece
from paddle_ranker.model.hugging_face.tokenizer import bring_tokenizer
from paddle_ranker.storage.untrusted import UncheckedObject, read_file, read_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SENTENCEPIECE_FILES = ("sentencepiece.bpe.model", "spm.model", "spiece.model")
PIECES_FILE, MERGES_FILE = "vocab.json", "merges.txt"  # of byte-level BPE


def has_no_library_file(folder: Path) -> bool:
    """Return whether a folder's tokenizer is in another file than those that `read_tokenizer` reads."""
    others = any((folder / name).is_file() for name in (*SENTENCEPIECE_FILES, MERGES_FILE))
    return others and not any((folder / name).is_file() for name in (VOCABULARY_FILE, TOKENIZER_FILE))


def needs_library(folder: Path) -> bool:
    """Return whether the library alone does what the tokenizer of a BERT does.

    That is so if it has no word pieces (multilingual MiniLM's and e5-small's are XLM-RoBERTa's), or finds tokens of its
    own in texts before they are split into words.
    """
    described = read_settings(folder / TOKENIZER_FILE, "copy it again")
    added = described.get("added_tokens") or []
    if any(isinstance(token, dict) and token.get("special") is False for token in added):
        return True
    if (folder / VOCABULARY_FILE).is_file() or not described:
        return has_no_library_file(folder)
    model = described.get("model")
    kind = model.get("type") if isinstance(model, dict) else None
    return kind in ("Unigram", "BPE", "WordLevel")


def bring_library_tokenizer(source: Path, target: Path, reserved: Reserved = XLM_ROBERTA) -> None:
    """Write `source`'s tokenizer into the folder `target` as `read_tokenizer` reads it.

    That is `tokenizer.json` as it is, or made of a SentencePiece model, or of `vocab.json` and `merges.txt`; or
    `vocab.txt`, if there is nothing else. `reserved` is that of `tokenizer_of_sentencepiece`.

    Raises `CheckpointError` if there is none of these, or it cannot be used.
    """
    has_library, has_merges = ((source / name).is_file() for name in (TOKENIZER_FILE, MERGES_FILE))
    model = next((name for name in SENTENCEPIECE_FILES if (source / name).is_file()), None)
    if not has_library and model is None and not has_merges:
        if (source / VOCABULARY_FILE).is_file():
            bring_tokenizer(source, target)
            return
        raise CheckpointError(
            f"{source}: has no {TOKENIZER_FILE}, no {SENTENCEPIECE_FILES[0]}, no {MERGES_FILE} and no "
            f"{VOCABULARY_FILE}; copy the folder again"
        )
    for name in (TOKENIZER_FILE, CONFIG_FILE, SPECIAL_TOKENS_FILE):
        if (source / name).is_file():
            (target / name).write_bytes(read_file(source / name, MOST_BYTES))
    if has_library:  # `read_tokenizer` checks it; reading a large one takes a second
        return
    settings = {**read_settings(source / SPECIAL_TOKENS_FILE), **read_settings(source / CONFIG_FILE)}
    if model is not None:
        library = tokenizer_of_sentencepiece(source / model, settings, reserved)
    else:
        library = _tokenizer_of_merges(source, settings)
    library.save(str(target / TOKENIZER_FILE))
    LibraryFiles.read(target)


def _tokenizer_of_merges(folder: Path, settings: UncheckedObject) -> Tokenizer:
    """Return RoBERTa's tokenizer of `vocab.json` and `merges.txt`: byte-level BPE, `<s> query </s></s> title </s>`."""
    try:
        from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
    except ImportError as error:
        raise DependencyError(f"{MERGES_FILE} needs tokenizers ({error}): pip install tokenizers") from None
    try:
        pieces = read_json(folder / PIECES_FILE)
        lines = read_file(folder / MERGES_FILE, MOST_BYTES).decode("utf-8").split("\n")
        pairs = [tuple(line.rstrip("\r").split(" ")) for line in lines if line and not line.startswith("#version")]
        library = Tokenizer(models.BPE(pieces, pairs, continuing_subword_prefix="", end_of_word_suffix=""))
    except Exception as error:  # the library raises nothing more special
        what = f"not the {PIECES_FILE} and {MERGES_FILE} of a tokenizer"
        raise CheckpointError(f"{folder}: {what} ({brief(str(error))}); copy them again") from None
    special = {
        role: token_text(settings.get(role) or token, role, folder)
        for role, token in zip(
            ("cls_token", "sep_token", "pad_token", "unk_token", "mask_token"),
            ("<s>", "</s>", "<pad>", "<unk>", "<mask>"),
        )
    }
    ends = [(special[role], library.token_to_id(special[role])) for role in ("sep_token", "cls_token")]
    missing = [token for token, number in ends if number is None]
    if missing:
        raise CheckpointError(f"{folder / PIECES_FILE}: has no {missing[0]}: it is another model's; copy it again")
    begins_with_space = settings.get("add_prefix_space") is True
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=begins_with_space)
    library.decoder = decoders.ByteLevel()
    library.post_processor = processors.RobertaProcessing(*ends, add_prefix_space=begins_with_space)
    known = [token for token in special.values() if library.token_to_id(token) is not None]
    library.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in known])
    return library
