"""Tokenizers of the `tokenizers` library: whatever `tokenizer.json` describes, Unigram, byte-level BPE or WordPiece."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Optional

import numpy as np

from paddle_ranker.encoding.tokenizers.base import FlatIds, PairTemplate, Spelling
from paddle_ranker.encoding.tokenizers.folder import CONFIG_FILE, SPECIAL_TOKENS_FILE, read_settings, token_text
from paddle_ranker.encoding.unicode.table import normalise
from paddle_ranker.errors import CheckpointError, DependencyError, brief
from paddle_ranker.storage.untrusted import UncheckedObject, read_file

if TYPE_CHECKING:
    from tokenizers import Encoding
    from tokenizers import Tokenizer as Library

TOKENIZER_FILE = "tokenizer.json"
MOST_BYTES = 256 * 1024 * 1024  # of tokenizer.json: vocabularies of 250,000 tokens take 17 million
# The tokens of a role in a folder that holds nothing but tokenizer.json; the first that the vocabulary has is taken.
_USUAL = {
    "unk_token": ("<unk>", "[UNK]"),
    "pad_token": ("<pad>", "[PAD]"),
    "mask_token": ("<mask>", "[MASK]"),
    "cls_token": ("<s>", "[CLS]"),
    "sep_token": ("</s>", "[SEP]"),
}
# A token of one byte, as SentencePiece has them for characters that it does not know; and the characters by which
# byte-level BPE writes bytes, as GPT-2 began it: https://github.com/openai/gpt-2/blob/master/src/encoder.py
_BYTE = re.compile("<0x([0-9A-Fa-f]{2})>")
_VISIBLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_BYTES = {chr(byte): byte for byte in _VISIBLE}
_BYTES.update((chr(0x100 + n), byte) for n, byte in enumerate(sorted({*range(0x100)}.difference(_VISIBLE))))
_UNDECODABLE = "\ufffd"  # in what the library says of tokens that are parts of characters
_PART = re.compile("[\udc80-\udcff]")  # a byte of a part of a character


@dataclass(frozen=True)
class LibraryFiles:
    """A folder's tokenizer of the `tokenizers` library; a `ModelTokenizer`.

    files: a dict from file name to content, `tokenizer.json` and what lies beside it, so that copies are byte-identical
    special_tokens: a dict from role to token
    settings: what tokenizer_config.json says
    """

    files: dict[str, bytes]
    special_tokens: dict[str, str]
    settings: UncheckedObject

    @classmethod
    def read(cls, folder: Path) -> LibraryFiles:
        """Read `tokenizer.json` and, where they exist, `tokenizer_config.json` and `special_tokens_map.json`.

        Raises `CheckpointError` if a file cannot be used, or the tokenizer has no padding token.
        """
        path = folder / TOKENIZER_FILE
        files = {TOKENIZER_FILE: read_file(path, MOST_BYTES)}
        settings: UncheckedObject = {}
        special: dict[str, str] = {}
        for name in (SPECIAL_TOKENS_FILE, CONFIG_FILE):
            if (folder / name).is_file():
                files[name] = read_file(folder / name)
                settings = read_settings(folder / name)
                named = [role for role in _USUAL if settings.get(role) is not None]
                special.update((role, token_text(settings[role], role, folder)) for role in named)
        found = cls(files, special, settings if CONFIG_FILE in files else {})
        try:
            library = found.library
        except DependencyError:
            raise
        except Exception as error:  # the library raises nothing more special
            raise CheckpointError(f"{path}: the tokenizers library cannot read it ({brief(str(error))})") from None
        for role, tokens in _USUAL.items():
            known = [
                token for token in (special.get(role), *tokens) if token and library.token_to_id(token) is not None
            ]
            if known:
                special[role] = known[0]
        if "pad_token" not in special:
            raise CheckpointError(f"{path}: has no padding token ({' or '.join(_USUAL['pad_token'])}); copy it again")
        return found

    @property
    def library(self) -> Library:
        """The library's tokenizer: without truncation and padding, and special tokens in texts are plain text."""
        return self._opened[0]

    @cached_property
    def _opened(self) -> tuple[Library, str]:
        """The library's tokenizer, and at which side it truncates."""
        try:
            from tokenizers import Tokenizer as Library
        except ImportError as error:
            raise DependencyError(f"{TOKENIZER_FILE} needs tokenizers ({error}): pip install tokenizers") from None
        # Its threads would come on top of the server's and the engine's; its warning of forks would be of no use.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        library = Library.from_buffer(self.files[TOKENIZER_FILE])
        stated = (library.truncation or {}).get("direction", "right")
        library.no_truncation()
        library.no_padding()
        library.encode_special_tokens = True
        return library, self.settings.get("truncation_side") or stated

    @cached_property
    def vocab_size(self) -> int:
        """Largest id + 1."""
        # A dict of all tokens takes as long to make as all the rest; it is needed where ids have gaps.
        count, added = self.library.get_vocab_size(with_added_tokens=False), self.library.get_added_tokens_decoder()
        is_known = self.library.id_to_token
        if count and is_known(count - 1) is not None and (count in added or is_known(count) is None):
            return max([count, *(number + 1 for number in added)])
        return max(self.token_to_id.values()) + 1

    @property
    def may_fall_short(self) -> bool:
        """Yes: `tokenizer.json` is whole or cannot be read, and some models have embeddings for later tokens."""
        return True

    @property
    def backend(self) -> str:
        """The library."""
        return "tokenizers"

    @cached_property
    def token_to_id(self) -> dict[str, int]:
        """A dict from token to id."""
        return self.library.get_vocab(with_added_tokens=True)

    def id_of(self, token: str) -> Optional[int]:
        """Return a token's id; None if the vocabulary lacks it."""
        return self.library.token_to_id(token)

    @property
    def gives_types(self) -> bool:
        """Whether the second text of a pair, and what is behind it, has the token type 1; all else has 0.

        Raises `CheckpointError` for any other types.
        """
        pair, alone = self.library.encode("a", "b"), self.library.encode("a")
        _around(pair, 2)
        second = pair.sequence_ids.index(1)
        usual = [0] * second + [1] * (len(pair.ids) - second)
        if any(alone.type_ids) or pair.type_ids not in (usual, [0] * len(usual)):
            raise CheckpointError(
                f"{TOKENIZER_FILE}: its post_processor gives the tokens of a pair the types {pair.type_ids}, of a text "
                f"{alone.type_ids}; only {usual}, and 0 of a text, is done here"
            )
        return any(pair.type_ids)

    def in_small_letters(self) -> LibraryFiles:
        """Return the same tokenizer, which makes capital letters small before all else."""
        from tokenizers import Tokenizer as Library
        from tokenizers import normalizers

        library = Library.from_buffer(self.files[TOKENIZER_FILE])
        known = [] if library.normalizer is None else [library.normalizer]
        library.normalizer = normalizers.Sequence([normalizers.Lowercase(), *known])
        return replace(self, files={**self.files, TOKENIZER_FILE: library.to_str().encode("utf-8")})

    def template(self) -> PairTemplate:
        """Return what the library's post-processor puts around two texts and around one."""
        before, between, after = _around(self.library.encode("a", "b"), 2)
        text_before, text_after = _around(self.library.encode("a"), 1)
        return PairTemplate(before, between, after, text_before, text_after, True, self._opened[1] == "left")

    def tokenizer(self) -> LibraryTokenizer:
        """Return what turns texts into ids."""
        unknown = self.library.token_to_id(self.special_tokens.get("unk_token", ""))
        return LibraryTokenizer(self.library, [number for number in self._special_ids if number != unknown], unknown)

    def _texts(self) -> list[str]:
        """Return what each token spells; "" for special tokens, and bytes of a part of a character `surrogateescape`d.

        Not kept: of 250,000 tokens they take 20 MB.
        """
        texts = self.library.decode_batch([[number] for number in range(self.vocab_size)], skip_special_tokens=False)
        for number, text in enumerate(texts):
            if _UNDECODABLE in text:
                texts[number] = _of_bytes(self.library.id_to_token(number), text)
        for number in self._special_ids:
            texts[number] = ""
        return texts

    @property
    def _special_ids(self) -> list[int]:
        ids = {self.library.token_to_id(token) for token in self.special_tokens.values()}
        return sorted(number for number in ids if number is not None)

    def words(self) -> Sequence[str]:
        """Return the texts of all tokens that spell whole characters."""
        inner = getattr(self.library.model, "continuing_subword_prefix", None) or ""  # of WordPiece
        words = (text.strip().removeprefix(inner) for text in self._texts())
        return [word for word in words if word and not _PART.search(word)]

    def spelling(self) -> Spelling:
        """Return what tokens spell, without the spaces around it, in normalised form and lower case."""
        texts = self._texts()
        spelled = [normalise(text.strip()) for text in texts]
        first: dict[str, int] = {}
        ids = np.fromiter((first.setdefault(text, number) for number, text in enumerate(spelled)), np.int64)
        blank = np.fromiter((not text for text in spelled), bool)
        ids[blank] = self.id_of(self.special_tokens["pad_token"])
        blank[self._special_ids] = False
        inside = np.fromiter(("\udc80" <= text[:1] <= "\udcbf" for text in texts), bool)
        return Spelling(ids, inside, blank)

    def write(self, folder: Path) -> None:
        """Write the files into `folder`, as they were read."""
        for name, content in self.files.items():
            (folder / name).write_bytes(content)


class LibraryTokenizer:
    """Texts to ids by the library; it lets other threads run meanwhile.

    Args:
        special: ids that no text gets. Unigram finds a special token that is typed in a text among its pieces, whatever
            the library is told; it becomes `unknown`.
    """

    def __init__(self, library: Library, special: Sequence[int] = (), unknown: Optional[int] = None):
        self._library, self._special, self._unknown = library, np.array(special, np.int32), unknown

    def encode(self, texts: Sequence[str], most: Optional[int] = None) -> FlatIds:
        """Return the ids of `texts`; `most` is of no use here."""
        # The library takes no halves of surrogate pairs, which JSON can hold.
        sound = [text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8") for text in texts]
        rows = [encoding.ids for encoding in self._library.encode_batch_fast(sound, add_special_tokens=False)]
        lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
        flat = np.fromiter((number for row in rows for number in row), np.int32, count=int(lengths.sum()))
        if self._unknown is not None:
            flat[np.isin(flat, self._special)] = self._unknown
        return flat, lengths


def _of_bytes(token: str, text: str) -> str:
    """Return what a token of bytes spells; `text`, as the library decodes it, if it is none."""
    byte = _BYTE.fullmatch(token)
    if byte is None and not all(char in _BYTES for char in token):
        return text
    content = bytes([int(byte[1], 16)] if byte else map(_BYTES.__getitem__, token))
    return content.decode("utf-8", "surrogateescape")


def _around(encoding: Encoding, texts: int) -> list[tuple[int, ...]]:
    """Return the special tokens before, between and after the texts of an encoding.

    Raises `CheckpointError` if the texts are not there once each, in their order.
    """
    order = [text for text, _ in groupby(text for text in encoding.sequence_ids if text is not None)]
    usual = list(range(texts))
    if order != usual:
        raise CheckpointError(
            f"{TOKENIZER_FILE}: its post_processor puts texts in the order {order}, only {usual} is done here"
        )
    found: list[list[int]] = [[] for _ in range(texts + 1)]
    place = 0
    for number, text in zip(encoding.ids, encoding.sequence_ids):
        if text is None:
            found[place].append(number)
        else:
            place = text + 1
    return [tuple(part) for part in found]
