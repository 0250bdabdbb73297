"""WordPiece tokenizer in Python, and the base of tokenizers that split texts into words.

It is fast since `str.translate` replaces characters, and a dict caches the ids of words.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Optional

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.encoding.tokenizers.interface import FlatIds, Lengths, Tokenizes
from paddle_ranker.encoding.tokenizers.text_rules import CJK_RANGES, TextRules, WordSplitter
from paddle_ranker.unicode.character_kinds import unicode_table
from paddle_ranker.unicode.characters import in_brackets

_ID_BYTES = np.dtype(np.int32).itemsize
_ALONE = in_brackets(CJK_RANGES)
_WORD = re.compile(rf"\s*(?:[{_ALONE}]|[^\s{_ALONE}]+)")  # its tokens do not depend on other words
_SOME_WORDS = 64  # words looked up at a time if not all are needed
NO_TOKEN = re.compile(r"((?!))")  # matches nothing


def pattern_of(tokens: Collection[str]) -> re.Pattern[str]:
    """Return the pattern of the special tokens in a text: the first token, and of several there the longest."""
    longest_first = sorted(filter(None, tokens), key=len, reverse=True)
    return re.compile(f"({'|'.join(map(re.escape, longest_first))})") if longest_first else NO_TOKEN


class _WordCache(dict[str, bytes]):
    """Cache from a word to the bytes of its int32 ids."""

    # Chinese text has some thousands of distinct words; ids and URLs could fill the memory of a long-lived server.
    _MOST_WORDS = 100_000

    def __init__(self, ids: Callable[[str], list[int]]) -> None:
        super().__init__()
        self._ids = ids

    def __missing__(self, word: str) -> bytes:
        ids = np.array(self._ids(word), dtype=np.int32).tobytes()
        if len(self) >= self._MOST_WORDS:
            self.clear()
        if len(word) <= MAX_WORD_CHARACTERS:
            self[word] = ids
        return ids


class WordTokenizer(ABC):
    """Base of encoders that split a text into words, and look up the ids of each word. Thread-safe.

    ids: returns the ids of a word
    markers: ids of special tokens, which prompts may hold
    in_texts: special tokens that texts may hold, too
    added: ids of further tokens, which are found in every text, also inside words, before words are split
    lowers: whether tokens in `added` are found whatever the case of the text
    """

    def __init__(
        self,
        ids: Callable[[str], list[int]],
        markers: Mapping[str, int],
        in_texts: Collection[str],
        added: Mapping[str, int],
        lowers: bool,
    ) -> None:
        self._ids_of_word = _WordCache(ids).__getitem__
        if lowers:
            added = {lowered(token): number for token, number in added.items()}
        tokens = {**markers, **added}
        self._markers = {token: np.array(number, np.int32).tobytes() for token, number in tokens.items()}
        self._in_prompts, self._in_texts = pattern_of(tokens), pattern_of({*in_texts, *added})
        # As PaddleNLP does it, special tokens keep their case, and the rest of a text loses it before tokens are found.
        self._keep_case = pattern_of(markers) if added and lowers else None

    @abstractmethod
    def _words(self, text: str) -> list[str]:
        """Split a text into words."""

    def _split(self, text: str, tokens: re.Pattern[str]) -> list[str]:
        """Split a text at tokens, which are every second part."""
        if self._keep_case is not None:
            parts = self._keep_case.split(text)
            text = "".join(part if number % 2 else lowered(part) for number, part in enumerate(parts))
        return tokens.split(text)

    def after(self, prompt: str) -> TokenizerAfterPrompt:
        *marked, rest = self._split(prompt, self._in_prompts)
        return TokenizerAfterPrompt(self, np.frombuffer(self._marked(marked), np.int32), rest)

    def encode(self, texts: Sequence[str], most: Optional[int] = None) -> FlatIds:
        rows = self._rows(texts, most)
        lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows)) // _ID_BYTES
        return np.frombuffer(b"".join(rows), dtype=np.int32), lengths

    def _marked(self, parts: Sequence[str]) -> bytes:
        """Return the ids, as bytes of int32, of a text that is split at its special tokens, which are among `parts`."""
        return b"".join(
            self._markers[part] if number % 2 else b"".join(map(self._ids_of_word, self._words(part.strip())))
            for number, part in enumerate(parts)
        )

    def _rows(self, texts: Sequence[str], most: Optional[int]) -> list[bytes]:
        """Return the ids of each text as bytes of int32."""
        if self._in_texts is not NO_TOKEN:
            return [self._marked(self._split(text, self._in_texts)) for text in texts]
        ids_of_word = self._ids_of_word
        return [
            b"".join(map(ids_of_word, words))
            if most is None or len(words) <= _SOME_WORDS
            else self._first_ids(words, most * _ID_BYTES)
            for words in map(self._words, texts)
        ]

    def _first_ids(self, words: Sequence[str], size: int) -> bytes:
        """Return the ids of the first words as bytes of int32: at least `size` bytes, or the ids of all words."""
        ids = b""
        for start in range(0, len(words), _SOME_WORDS):
            ids += b"".join(map(self._ids_of_word, words[start : start + _SOME_WORDS]))
            if len(ids) >= size:
                break
        return ids

    def ends(self, texts: Sequence[str]) -> list[Lengths]:
        if self._in_texts is NO_TOKEN:
            return self._ends_of_words(texts)
        return [*map(self._ends_of_marked, texts)]

    @abstractmethod
    def _ends_of_words(self, texts: Sequence[str]) -> list[Lengths]:
        """Return the end of each token of texts without the tokens that `_split` finds; see `Tokenizes.ends`."""

    def _ends_of_marked(self, text: str) -> Lengths:
        parts = self._split(text, self._in_texts)
        stops = np.cumsum([*map(len, parts)], dtype=np.int64)
        plain = self._ends_of_words(parts[::2])
        ends = [
            stops[number : number + 1] if number % 2 else plain[number // 2] + (stops[number] - len(part))
            for number, part in enumerate(parts)
        ]
        if int(stops[-1]) == len(text):
            return np.concatenate(ends)
        # Lowercasing has made characters longer.
        widths = np.cumsum([len(lowered(char)) for char in text], dtype=np.int64)
        return np.minimum(np.searchsorted(widths, np.concatenate(ends)) + 1, len(text))


class Tokenizer(WordTokenizer):
    """WordPiece encoder of texts as ids, without special tokens. Thread-safe.

    rules: rules for splitting texts into words
    token_to_id: ids by token
    unk_id: id of unknown words
    markers, in_texts, added: as in `WordTokenizer`
    """

    def __init__(
        self,
        rules: TextRules,
        token_to_id: Mapping[str, int],
        unk_id: int,
        markers: Mapping[str, int] = MappingProxyType({}),
        in_texts: Collection[str] = (),
        added: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        super().__init__(WordPiece(token_to_id, unk_id).ids, markers, in_texts, added, rules.do_lower_case)
        self._normalize = WordSplitter(rules).normalize

    def _words(self, text: str) -> list[str]:
        return self._normalize(text).split()

    def _ends_of_words(self, texts: Sequence[str]) -> list[Lengths]:
        """Divide a word evenly among its tokens."""
        words_of_texts = [_WORD.findall(text) for text in texts]
        distinct = list(dict.fromkeys(word for words in words_of_texts for word in words))
        tokens_of, ends = dict(zip(distinct, self.encode(distinct)[1].tolist())), []
        for words in words_of_texts:
            counts = np.fromiter(map(tokens_of.__getitem__, words), np.int64, len(words))
            stops = np.cumsum(np.fromiter(map(len, words), np.int64, len(words)))
            lengths = np.fromiter(map(len, map(str.lstrip, words)), np.int64, len(words))
            number = np.arange(1, counts.sum() + 1) - np.repeat(np.cumsum(counts) - counts, counts)  # in its word
            shares = np.repeat(lengths, counts) * number // np.repeat(counts, counts)
            ends.append(np.repeat(stops - lengths, counts) + shares)
        return ends


class TokenizerAfterPrompt:
    """Encoder of texts after a prompt.

    before: ids of the prompt up to its last special token, after which words do not depend on them, `[tokens] int32`
    rest: the rest of the prompt
    """

    def __init__(self, tokenizer: WordTokenizer, before: NDArray[np.int32], rest: str) -> None:
        self._tokenizer, self._before, self._rest = tokenizer, before, rest

    def after(self, prompt: str) -> Tokenizes:
        return self._tokenizer.after(prompt)

    def encode(self, texts: Sequence[str], most: Optional[int] = None) -> FlatIds:
        flat, lengths = self._tokenizer.encode([self._rest + text for text in texts] if self._rest else texts, most)
        if len(self._before):
            places = np.repeat(np.cumsum(lengths) - lengths, len(self._before))
            flat = np.insert(flat, places, np.tile(self._before, len(lengths)))
        return flat, lengths + len(self._before)

    def ends(self, texts: Sequence[str]) -> list[Lengths]:
        return self._tokenizer.ends(texts)


def lowered(text: str) -> str:
    """Lowercase a text character by character, as PaddleNLP does."""
    return "".join(map(unicode_table().lower, text))


MAX_WORD_CHARACTERS = 100
CONTINUATION = "##"
_NO_TOKEN = -1


class WordPiece:
    """Greedy longest-match-first WordPiece over `token_to_id` (https://arxiv.org/abs/1609.08144, BERT's inference)."""

    def __init__(self, token_to_id: Mapping[str, int], unk_id: int) -> None:
        self._initial = _with_beginnings({token: i for token, i in token_to_id.items() if not _continues(token)})
        continued = {token[len(CONTINUATION) :]: i for token, i in token_to_id.items() if _continues(token)}
        self._continued = _with_beginnings(continued)
        self._unk_id = unk_id

    def ids(self, word: str) -> list[int]:
        """Return the ids of a word's pieces; [UNK] if pieces cannot form it or it exceeds 100 characters."""
        if len(word) > MAX_WORD_CHARACTERS:
            return [self._unk_id]
        ids: list[int] = []
        start, pieces = 0, self._initial
        while start < len(word):
            longest, stop = _NO_TOKEN, start
            for end in range(start + 1, len(word) + 1):  # stops where no token continues, mostly after a few characters
                piece_id = pieces.get(word[start:end])
                if piece_id is None:
                    break
                if piece_id != _NO_TOKEN:
                    longest, stop = piece_id, end
            if longest == _NO_TOKEN:
                return [self._unk_id]
            ids.append(longest)
            start, pieces = stop, self._continued
        return ids


def _continues(token: str) -> bool:
    return token.startswith(CONTINUATION)


def _with_beginnings(token_to_id: Mapping[str, int]) -> dict[str, int]:
    """Return a copy of `token_to_id` with the prefixes of all tokens; a prefix that is no token has `_NO_TOKEN`."""
    beginnings = (token[:end] for token in token_to_id for end in range(1, len(token)))
    return {**dict.fromkeys(beginnings, _NO_TOKEN), **token_to_id}
