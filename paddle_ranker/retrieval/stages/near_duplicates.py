"""Find nearly equal texts, such as descriptions of a program's variants.

leaders(sketches_of(texts))    # [0, 1, 0]: the third text is nearly the first
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.array_types import Booleans
from paddle_ranker.retrieval.work.turns import check
from paddle_ranker.unicode.characters import fold

RESEMBLANCE = 0.8  # least resemblance of near duplicates
CHARACTERS = 2000  # texts are compared by beginnings of this length
_SHINGLE, _BINS, _LANES = 5, 256, 8
_EMPTY = np.uint16(0xFFFF)
_WORDS = re.compile(r"\w+")  # only drops punctuation: the terms of an analyser would be no sequence of characters
_MULTIPLIER, _MIXER = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xFF51AFD7ED558CCD)  # of splitmix64 and MurmurHash3

Sketches = NDArray[np.uint16]


def sketches_of(texts: Sequence[str]) -> Sketches:
    """Return the sketches of at most 256 texts, none of them empty: `[texts, 256] uint16`.

    A text counts as the set of its shingles (Broder 1997): all sequences of five characters, without case and
    punctuation. Their hashes fall into 256 bins, and each bin keeps its smallest hash (one permutation hashing; Li,
    Owen and Zhang 2012).
    """
    cut = [text[:CHARACTERS] for text in texts]
    words = [(" ".join(_WORDS.findall(fold(text))) or text).ljust(_SHINGLE) for text in cut]
    codes = np.frombuffer("".join(words).encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint64)
    rows = np.repeat(np.arange(len(words), dtype=np.uint32), [len(text) for text in words])
    hashes = np.zeros(max(0, len(codes) - _SHINGLE + 1), np.uint64)
    for offset in range(_SHINGLE):
        hashes = (hashes ^ codes[offset : offset + len(hashes)]) * _MULTIPLIER
        hashes ^= hashes >> np.uint64(29)
    is_within = rows[: len(hashes)] == rows[_SHINGLE - 1 :]
    values = (hashes * _MIXER >> np.uint64(40)).astype(np.uint32)  # 8 bits: the bin; 16 bits: the hash to keep
    keys = np.sort((rows[: len(hashes)] << 24 | values)[is_within])[::-1]
    sketches = np.full((len(words), _BINS), _EMPTY)
    sketches.reshape(-1)[keys >> 16] = keys & 0xFFFF  # a bin's smallest hash comes last, and stays
    return sketches


def leaders(sketches: Sketches) -> list[int]:
    """Return, for each text, the index of the first text that it nearly equals, or its own index if there is none.

    A text is compared only with leaders: texts that nearly equal no earlier text. So a chain of small differences is no
    group. The resemblance of two texts is the share of their shingles that both have. It is estimated by the share of
    equal bins among the bins that are not empty in both texts; the standard error is at most 0.03.
    """
    kept, numbers, leading = np.empty_like(sketches), list[int](), list[int]()
    for number, sketch in enumerate(sketches):
        check()
        others = kept[: len(numbers)]
        alike = _counts(others == sketch)  # with bins that are empty in both
        near = np.flatnonzero(alike >= RESEMBLANCE * _BINS)
        empty = _counts((others[near] & sketch) == _EMPTY)
        near = near[alike[near] - empty >= RESEMBLANCE * (_BINS - empty)]
        if len(near):
            leading.append(numbers[near[0]])
        else:
            kept[len(numbers)] = sketch
            numbers.append(number)
            leading.append(number)
    return leading


def _counts(marks: Booleans) -> NDArray[np.int64]:
    """Count the true values in each row of `[n, 256] bool`, eight at a time, which is faster than `count_nonzero`."""
    lanes = marks.view(np.uint64).sum(axis=1)  # at most 32 in each of eight bytes
    counts: NDArray[np.int64] = lanes.view(np.uint8).reshape(len(marks), _LANES).sum(axis=1, dtype=np.int64)
    return counts
