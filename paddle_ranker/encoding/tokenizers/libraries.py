"""Backends over other people's libraries: the reference, and the two fast ones, with the ids of the reference.

Both fast libraries split symbols unlike the reference, and carry Unicode tables of another version than Python's, so
they are handed words that are split already.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paddle_ranker.encoding.tokenizers.builtin import MAX_WORD_CHARACTERS, FlatIds, flatten
from paddle_ranker.encoding.tokenizers.folder import TokenizerFiles
from paddle_ranker.encoding.tokenizers.text_rules import WordSplitter
from paddle_ranker.errors import DependencyError


class HuggingFace:
    """`tokenizers`: our word splitting, then the WordPiece of Hugging Face's library."""

    def __init__(self, files: TokenizerFiles) -> None:
        try:
            from tokenizers import Tokenizer, models, pre_tokenizers
        except ImportError as error:
            raise DependencyError(
                f"the backend tokenizers needs its package ({error}): pip install tokenizers"
            ) from None
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

    def encode(self, texts: Sequence[str]) -> FlatIds:
        encodings = self._tokenizer.encode_batch_fast(list(map(self._normalize, texts)), add_special_tokens=False)
        return flatten([encoding.ids for encoding in encodings])


class PaddleFast:
    """`fast_tokenizer`: our word splitting, then the WordPiece of Paddle's library."""

    def __init__(self, files: TokenizerFiles) -> None:
        try:
            from fast_tokenizer import Tokenizer, models, normalizers, pretokenizers
        except ImportError as error:
            raise DependencyError(
                f"the backend fast_tokenizer needs its package ({error}): pip install fast-tokenizer-python "
                "(Python 3.10 or older)"
            ) from None
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

    def encode(self, texts: Sequence[str]) -> FlatIds:
        encodings = self._tokenizer.encode_batch(list(map(self._normalize, texts)), add_special_tokens=False)
        return flatten([encoding.ids for encoding in encodings])


class PaddlePython:
    """`python`: PaddleNLP's own classes, the reference for every other backend.

    They ask Python what a character is: those that Unicode's version there and the toolkit's do not both know differ.
    """

    def __init__(self, files: TokenizerFiles) -> None:
        try:
            from paddlenlp.transformers import BasicTokenizer, WordpieceTokenizer
        except ImportError as error:
            raise DependencyError(f"the backend python needs PaddleNLP ({error}): pip install paddlenlp") from None
        self._do_lower_case = files.rules.do_lower_case
        self._basic = BasicTokenizer(
            do_lower_case=files.rules.do_lower_case,
            strip_accents=files.rules.strip_accents,
            tokenize_chinese_chars=files.rules.tokenize_chinese_chars,
        )
        self._wordpiece = WordpieceTokenizer(files.token_to_id, files.special_tokens["unk_token"])
        self._token_to_id = files.token_to_id

    def encode(self, texts: Sequence[str]) -> FlatIds:
        return flatten([self._ids(text) for text in texts])

    def _ids(self, text: str) -> list[int]:
        if self._do_lower_case:  # one character at a time, as PretrainedTokenizer.tokenize does first
            text = "".join(char.lower() for char in text)
        words = self._basic.tokenize(text)
        return [self._token_to_id[piece] for word in words for piece in self._wordpiece.tokenize(word)]
