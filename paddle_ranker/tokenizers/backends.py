"""Four ways from texts to ids, all with the same ids; they differ in speed and in what they need installed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.errors import DependencyError, UsageError
from paddle_ranker.tokenizers.folder import TokenizerFiles
from paddle_ranker.tokenizers.text_rules import WordSplitter
from paddle_ranker.tokenizers.wordpiece import MAX_WORD_CHARACTERS, WordPiece

# Ids of all texts, one after another, [total] int32; tokens of each text, [n] int64.
FlatIds = tuple[NDArray[np.int32], NDArray[np.int64]]


class Backend(Protocol):
    """Texts to ids, without special tokens; may be called from several threads at once."""

    def encode(self, texts: Sequence[str]) -> FlatIds: ...


class _WordCache(dict[str, bytes]):
    """Word -> its ids as int32 bytes, filled when a word is first seen."""

    # Chinese text uses some thousands of distinct words; ids and URLs could fill the memory of a long-lived server.
    _MOST_WORDS = 100_000

    def __init__(self, wordpiece: WordPiece) -> None:
        super().__init__()
        self._wordpiece = wordpiece

    def __missing__(self, word: str) -> bytes:
        ids = np.array(self._wordpiece.ids(word), dtype=np.int32).tobytes()
        if len(self) >= self._MOST_WORDS:
            self.clear()
        if len(word) <= MAX_WORD_CHARACTERS:
            self[word] = ids
        return ids


class CachedWords:
    """`builtin`: a table of characters and a cache of words, both dictionaries that the interpreter looks up in C."""

    def __init__(self, files: TokenizerFiles) -> None:
        self._normalize = WordSplitter(files.rules).normalize
        self._ids_of_word = _WordCache(
            WordPiece(files.token_to_id, files.token_to_id[files.special_tokens["unk_token"]])
        ).__getitem__

    def encode(self, texts: Sequence[str]) -> FlatIds:
        normalize, ids_of_word = self._normalize, self._ids_of_word
        rows = [b"".join(map(ids_of_word, normalize(text).split())) for text in texts]
        lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows)) // np.dtype(np.int32).itemsize
        return np.frombuffer(b"".join(rows), dtype=np.int32), lengths


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
        return _flatten([encoding.ids for encoding in encodings])


class PaddlePython:
    """`python`: PaddleNLP's own classes, the reference for every other backend."""

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
        return _flatten([self._ids(text) for text in texts])

    def _ids(self, text: str) -> list[int]:
        if self._do_lower_case:  # one character at a time, as PretrainedTokenizer.tokenize does first
            text = "".join(char.lower() for char in text)
        words = self._basic.tokenize(text)
        return [self._token_to_id[piece] for word in words for piece in self._wordpiece.tokenize(word)]


def _flatten(rows: Sequence[Sequence[int]]) -> FlatIds:
    lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    flat = np.fromiter((i for row in rows for i in row), dtype=np.int32, count=int(lengths.sum()))
    return flat, lengths


_BACKENDS: dict[str, Callable[[TokenizerFiles], Backend]] = {
    "builtin": CachedWords,
    "tokenizers": HuggingFace,
    "python": PaddlePython,
}
BACKENDS = ("auto", *_BACKENDS)


def make_backend(name: str, files: TokenizerFiles) -> tuple[str, Backend]:
    """Return the backend `name` ("auto": the fastest) with its own name.

    Raises `DependencyError` where its package is not installed, `UsageError` for an unknown name.
    """
    if name == "auto":  # the fastest of all in `python -m benchmarks.tokenizers`, and it needs nothing installed
        name = "builtin"
    if name not in _BACKENDS:
        raise UsageError(f"unknown tokenizer backend {name!r}: choose from {', '.join(BACKENDS)}")
    return name, _BACKENDS[name](files)
