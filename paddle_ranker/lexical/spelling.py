"""Find words of a collection that are similar to a mistyped word.

vocabulary = WordVocabulary(np.frombuffer("docker\nkubernetes\nvim".encode(), np.uint8))
[*chain(*vocabulary.near("kuberentes", 1))]    # ["kubernetes"], with one error
vocabulary.beginning("kube", 10)    # ["kubernetes"]
homophones("平")                 # 凭 坪 屏 平 瓶 苹 评 ...
"""

from __future__ import annotations

import json
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import OSA

from paddle_ranker.array_types import Booleans
from paddle_ranker.errors import DependencyError
from paddle_ranker.unicode.characters import is_han, is_name, without_accents
from paddle_ranker.unicode.variants import changing, common_form

LEAST_LETTERS, TWO_ERRORS = 4, 8  # least letters of a word that may have one error, or two
_LONGEST = 64
_BLOCK = 1 << 14  # words that are compared at a time, so that the arrays stay in the processor's cache
_NEWLINE = 10
_MARKED = 0x2000  # letters with accents have lower code points
_TONES = dict.fromkeys((0x300, 0x301, 0x304, 0x30C))  # combining marks of tones, which that of ü is not
_ONCE = np.uint64(0xFFFFFFFF00000000)  # mask of the upper half of a signature, see `_signs`


class WordVocabulary(Sequence[str]):
    """Distinct words, in the order of their UTF-8 bytes; thread-safe.

    Args:
        lines: the distinct words in the form of `lines_of`.
    """

    def __init__(self, lines: NDArray[np.uint8]):
        self._lines = lines
        self._ends = np.append(np.flatnonzero(lines == _NEWLINE), len(lines)) if len(lines) else np.empty(0, np.int64)
        self._starts = np.concatenate([[0], self._ends[:-1] + 1])[: len(self._ends)].astype(np.int64)
        text = lines.tobytes().decode("utf-8", "replace") + "\n"
        codes = np.frombuffer(text.encode("utf-32-le"), "<u4")
        begins = _begins(codes, len(self._ends))
        self._lengths = _lengths(codes, begins)
        is_word = ~np.bitwise_or.reduceat(is_name(codes), begins) if len(begins) else np.empty(0, bool)
        plain = _plain(codes)
        begins = _begins(plain, len(self._ends))
        lengths = np.where(is_word, _lengths(plain, begins), _LONGEST + 1)
        self._by_length = np.argsort(lengths, kind="stable").astype(np.int32)
        self._firsts = np.searchsorted(lengths[self._by_length], np.arange(_LONGEST + 2))  # words of each length
        self._signs = _signs(plain, begins)[self._by_length]

    @classmethod
    def of(cls, words: Iterable[str]) -> WordVocabulary:
        return cls(lines_of(words))

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> str:  # type: ignore[override]  # no slices
        return self._lines[self._starts[index] : self._ends[index]].tobytes().decode("utf-8", "replace")

    def near(self, word: str, errors: int, *, unfinished: bool = False) -> Iterator[list[str]]:
        """Yield, in lists, the known words other than `word` that differ from `word` by exactly `errors` errors.

        Errors are insertions, deletions, substitutions, and transpositions of neighbours (optimal string alignment).
        Accents are ignored. Nothing is yielded for a very long word.

        unfinished: compare `word` with the beginnings of longer words, too
        """
        if len(word) > _LONGEST:
            return
        typed, word = word, without_accents(word)
        sign = _signs(np.frombuffer(word.encode("utf-32-le"), "<u4"), np.zeros(1, np.int64))[0]
        least, most = max(0, len(word) - errors), _LONGEST if unfinished else len(word) + errors
        where = range(self._firsts[least], self._firsts[min(most, _LONGEST) + 1], _BLOCK)
        for start in where:
            matches = list[str]()
            part = slice(start, min(start + _BLOCK, where.stop))
            others = self._signs[part] ^ sign
            if unfinished:
                indices = np.flatnonzero(_few(others & sign & _ONCE, errors))
            elif errors:
                indices = np.flatnonzero(_few(others & _ONCE, 2 * errors))
                indices = indices[_few(others[indices] & ~_ONCE, 2 * errors)]
            else:
                indices = np.flatnonzero(others == 0)
            for index in self._by_length[part][indices].tolist():
                other = self[index]
                plain = without_accents(other)
                if unfinished:
                    ends = range(len(word) - errors, len(word) + errors + 1)
                    distance = min(OSA.distance(word, plain[:end], score_cutoff=errors) for end in ends)
                else:
                    distance = OSA.distance(word, plain, score_cutoff=errors)
                if distance == errors and other != typed:
                    matches.append(other)
            yield matches

    def __contains__(self, word: object) -> bool:
        index = bisect_left(self, word) if isinstance(word, str) else len(self)  # UTF-8 is in the order of code points
        return index < len(self) and self[index] == word

    def beginning(self, prefix: str, most: int) -> list[str]:
        """Return the words that begin with a prefix, the shortest first, at most `most`."""
        start, end = bisect_left(self, prefix), bisect_left(self, prefix + chr(sys.maxunicode))
        order = np.argsort(self._lengths[start:end], kind="stable")[:most]
        return [self[index] for index in (start + order).tolist()]


class SpellingVariants:
    """Words of a vocabulary whose `common_form` is another text, such as naïve, by this form; thread-safe.

    Args:
        lines: the distinct words in the form of `lines_of`.
    """

    def __init__(self, lines: NDArray[np.uint8]):
        pairs = sorted((common_form(word), word) for word in _changing_words(lines))
        self._forms, self._words = [form for form, _ in pairs], [word for _, word in pairs]

    def __len__(self) -> int:
        return len(self._words)

    def of(self, form: str) -> list[str]:
        """Return the words with this form."""
        return self._words[bisect_left(self._forms, form) : bisect_right(self._forms, form)]

    def beginning(self, prefix: str) -> list[str]:
        """Return the words whose form begins with a prefix."""
        end = bisect_left(self._forms, prefix + chr(sys.maxunicode))
        return self._words[bisect_left(self._forms, prefix) : end]


def _changing_words(lines: NDArray[np.uint8]) -> Iterator[str]:
    """Yield the words that `common_form` changes; words without its characters take no time."""
    if not len(lines) or int(lines.max()) < 0x80:
        return
    text = lines.tobytes().decode("utf-8", "replace")
    codes = np.frombuffer(text.encode("utf-32-le"), "<u4")
    ends = np.append(np.flatnonzero(codes == _NEWLINE), len(codes))
    changes = np.flatnonzero(_is_changing()[np.minimum(codes, len(_is_changing()) - 1)])
    for line in np.unique(np.searchsorted(ends, changes)).tolist():
        word = text[int(ends[line - 1]) + 1 if line else 0 : int(ends[line])]
        if common_form(word) != word:
            yield word


@lru_cache(maxsize=1)
def _is_changing() -> Booleans:
    """Return which code points `common_form` may change, `[code points] bool`, up to the last of them and one more."""
    codes = [*map(ord, changing())]
    mask = np.zeros(max(codes) + 2, bool)
    mask[codes] = True
    return mask


def lines_of(words: Iterable[str]) -> NDArray[np.uint8]:
    """Return the distinct words in UTF-8, sorted, with newlines between, `[bytes] uint8`."""
    return np.frombuffer("\n".join(sorted({*words}, key=str.encode)).encode("utf-8"), np.uint8)


def merged_lines(parts: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Merge arrays that `lines_of` returned into one array of the same form."""
    filled = [part for part in parts if len(part)]
    if len(filled) < 2:
        return filled[0] if filled else np.empty(0, np.uint8)
    return lines_of(word for part in filled for word in part.tobytes().decode("utf-8", "replace").split("\n"))


def most_errors(word: str) -> int:
    """Return the maximum number of errors that are corrected in a word of a query: 0, 1 or 2, by its length."""
    return 0 if not LEAST_LETTERS <= len(word) <= _LONGEST else 1 if len(word) < TWO_ERRORS else 2


def _begins(codes: NDArray[np.uint32], count: int) -> NDArray[np.int64]:
    """Return the starts of the first `count` lines in `codes`, `[count]`."""
    return np.concatenate([[0], np.flatnonzero(codes == _NEWLINE) + 1])[:count].astype(np.int64)


def _lengths(codes: NDArray[np.uint32], begins: NDArray[np.int64]) -> NDArray[np.int16]:
    return (np.diff(begins, append=len(codes)) - 1).astype(np.int16)


def _plain(codes: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return the code points of a text without accents."""
    plain = np.where(codes < _MARKED, _plain_codes()[np.minimum(codes, _MARKED - 1)], codes)
    return plain[plain > 0]


@lru_cache(maxsize=1)
def _plain_codes() -> NDArray[np.uint32]:
    return np.array([ord(without_accents(chr(code)) or "\0") for code in range(_MARKED)], np.uint32)


def _signs(codes: NDArray[np.uint32], begins: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return a 64-bit signature of each word; an error changes at most two bits of each half.

    The upper half has the bits of letters that occur, the lower half the bits of letters that occur an odd number of
    times. Letters other than a to z are hashed to a bit.
    """
    if not len(begins):
        return np.empty(0, np.uint64)
    hashed = (codes * np.uint32(0x9E3779B1)) >> np.uint32(27)
    letters = np.where((codes >= 97) & (codes <= 122), codes - np.uint32(97), hashed)
    bits = np.where(codes == _NEWLINE, np.uint64(0), np.uint64(1) << letters.astype(np.uint64))
    once = np.bitwise_or.reduceat(bits, begins)
    odd = np.bitwise_xor.reduceat(bits, begins)
    return once << np.uint64(32) | odd


def _few(bits: NDArray[np.uint64], most: int) -> Booleans:
    """Return which integers have at most `most` bits set, `[n] bool`."""
    for _ in range(most):
        bits = bits & (bits - (bits > 0))  # clear the lowest bit
    return bits == 0


@lru_cache(maxsize=1)
def _by_sound() -> tuple[dict[str, str], dict[str, str]]:
    """Return the sound of each Chinese character, without its tone, and the characters of each sound."""
    spec = find_spec("pypinyin")
    if spec is None or spec.origin is None:
        raise DependencyError("characters of the same sound need pypinyin: pip install pypinyin")
    # Importing pypinyin would also load its phrases: 45 MB and half a second.
    readings_of = json.loads(Path(spec.origin).with_name("pinyin_dict.json").read_text("utf-8"))
    sounds, characters = dict[str, str](), dict[str, list[str]]()
    for character, readings in ((chr(int(code)), readings) for code, readings in readings_of.items()):
        if is_han(character):
            # Only the first, usual reading counts, because people hardly type a character by an unusual reading.
            sound = sys.intern(normalize("NFD", readings.split(",")[0]).translate(_TONES))
            sounds[character] = sound
            characters.setdefault(sound, []).append(character)
    return sounds, {sound: "".join(same_sound) for sound, same_sound in characters.items()}


def homophones(character: str) -> str:
    """Return the other characters that sound like a Chinese character, tones aside."""
    sounds, characters = _by_sound()
    return characters.get(sounds.get(character, ""), "").replace(character, "")
