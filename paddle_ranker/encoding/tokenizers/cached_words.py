"""The default backend: two dictionaries that the interpreter looks up in C, of characters and of words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from paddle_ranker.encoding.tokenizers.flat_ids import FlatIds
from paddle_ranker.encoding.tokenizers.folder import TokenizerFiles
from paddle_ranker.encoding.tokenizers.text_rules import WordSplitter
from paddle_ranker.encoding.tokenizers.wordpiece import MAX_WORD_CHARACTERS, WordPiece


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
