"""The tokenizer by other people's libraries: PaddleNLP's classes, which say what its ids are, and two fast libraries.

The fast ones split symbols unlike PaddleNLP, and carry Unicode tables of another version than Python's, so they are
handed words that are split already. Each raises `ImportError` where its package is not installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

import numpy as np

from paddle_ranker.encoding.tokenizers.builtin import MAX_WORD_CHARACTERS, FlatIds
from paddle_ranker.encoding.tokenizers.text_rules import WordSplitter
from paddle_ranker.encoding.tokenizers.tokenizer_folder import TokenizerFiles


class HuggingFace:
    """Our word splitting, then the WordPiece of Hugging Face's tokenizers."""

    def __init__(self, files: TokenizerFiles) -> None:
        from tokenizers import Tokenizer, models, pre_tokenizers

        self._normalize = WordSplitter(files.rules).normalize
        wordpiece: Any = models.WordPiece
        self._tokenizer = Tokenizer(
            wordpiece(
                files.token_to_id,
                unk_token=files.special_tokens["unk_token"],
                max_input_chars_per_word=MAX_WORD_CHARACTERS,
            )
        )
        self._tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()

    def encode(self, texts: Sequence[str], most: Optional[int] = None) -> FlatIds:
        encodings = self._tokenizer.encode_batch_fast(list(map(self._normalize, texts)), add_special_tokens=False)
        return _flatten([encoding.ids for encoding in encodings])


class PaddleFast:
    """Our word splitting, then the WordPiece of Paddle's FastTokenizer."""

    def __init__(self, files: TokenizerFiles) -> None:
        from fast_tokenizer import Tokenizer, models, normalizers, pretokenizers

        self._normalize = WordSplitter(files.rules).normalize
        self._tokenizer = Tokenizer(
            models.WordPiece(
                files.token_to_id,
                unk_token=files.special_tokens["unk_token"],
                max_input_chars_per_word=MAX_WORD_CHARACTERS,
            )
        )
        # Without a normalizer, or with truncation in its initial state, the library returns no ids at all.
        self._tokenizer.normalizer = normalizers.SequenceNormalizer([])
        self._tokenizer.disable_truncation()
        self._tokenizer.disable_padding()
        self._tokenizer.pretokenizer = pretokenizers.WhitespacePreTokenizer()

    def encode(self, texts: Sequence[str], most: Optional[int] = None) -> FlatIds:
        encodings = self._tokenizer.encode_batch(list(map(self._normalize, texts)), add_special_tokens=False)
        return _flatten([encoding.ids for encoding in encodings])


class PaddlePython:
    """PaddleNLP's own classes, the reference for all.

    They ask Python what a character is: those that Unicode's version there and the toolkit's do not both know differ.
    """

    def __init__(self, files: TokenizerFiles) -> None:
        from paddlenlp.transformers import BasicTokenizer, WordpieceTokenizer

        self._do_lower_case = files.rules.do_lower_case
        self._basic = BasicTokenizer(
            do_lower_case=files.rules.do_lower_case,
            strip_accents=files.rules.strip_accents,
            tokenize_chinese_chars=files.rules.tokenize_chinese_chars,
        )
        self._wordpiece = WordpieceTokenizer(files.token_to_id, files.special_tokens["unk_token"])
        self._token_to_id = files.token_to_id

    def encode(self, texts: Sequence[str], most: Optional[int] = None) -> FlatIds:
        return _flatten([self._ids(text) for text in texts])

    def _ids(self, text: str) -> list[int]:
        if self._do_lower_case:  # one character at a time, as PretrainedTokenizer.tokenize does first
            text = "".join(char.lower() for char in text)
        words = self._basic.tokenize(text)
        return [self._token_to_id[piece] for word in words for piece in self._wordpiece.tokenize(word)]


TOKENIZERS: dict[str, Any] = {
    "builtin": TokenizerFiles.tokenizer, "tokenizers": HuggingFace, "fast_tokenizer": PaddleFast, "python": PaddlePython
}  # fmt: skip


def _flatten(rows: Sequence[Sequence[int]]) -> FlatIds:
    """Join the ids of each text."""
    lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    flat = np.fromiter((i for row in rows for i in row), dtype=np.int32, count=int(lengths.sum()))
    return flat, lengths
