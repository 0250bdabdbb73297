"""Hangul as it is typed on a Korean keyboard (Dubeolsik), key by key.

typed("간")    # ㄱㅏㄴ, which is also the beginning of typed("가나")
typed("와")    # ㅗㅏ with ㅇ before it: the beginning is typed("오")
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

# Keys of initials, vowels and finals, in Unicode's order. A letter that is typed with Shift, such as ㄲ, is one key.
_INITIALS = [*"ㄱㄲㄴㄷㄸㄹㅁㅂㅃㅅㅆㅇㅈㅉㅊㅋㅌㅍㅎ"]
_VOWELS = [*"ㅏㅐㅑㅒㅓㅔㅕㅖㅗ", "ㅗㅏ", "ㅗㅐ", "ㅗㅣ", *"ㅛㅜ", "ㅜㅓ", "ㅜㅔ", "ㅜㅣ", *"ㅠㅡ", "ㅡㅣ", "ㅣ"]
_FINALS = [
    *("", "ㄱ", "ㄲ", "ㄱㅅ", "ㄴ", "ㄴㅈ", "ㄴㅎ", "ㄷ", "ㄹ", "ㄹㄱ", "ㄹㅁ", "ㄹㅂ", "ㄹㅅ", "ㄹㅌ", "ㄹㅍ", "ㄹㅎ"),
    *("ㅁ", "ㅂ", "ㅂㅅ", *"ㅅㅆㅇㅈㅊㅋㅌㅍㅎ"),
]
_FIRST, _COUNT = 0xAC00, 11_172  # the syllables
_ALONE = ((0x1100, _INITIALS), (0x1161, _VOWELS), (0x11A7, _FINALS))  # letters that stand alone in a folded text


def typed(folded: str) -> str:
    """Return a folded text with the keys of each hangul syllable in its place."""
    return folded if folded.isascii() else folded.translate(_keys())


def longer_syllables(unit: str) -> list[str]:
    """Return the syllables on the way to which a syllable or an initial is typed, such as 울 for 우."""
    keys = typed(unit)
    if keys == unit:
        return []
    return [
        chr(code) for code, others in _keys().items() if code >= _FIRST and others.startswith(keys) and others != keys
    ]


def key_counts(codes: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """Return the number of characters that `typed` makes of each character, `[n]`."""
    counts: NDArray[np.uint8] = _key_counts()[np.minimum(codes, _FIRST + _COUNT)]
    return counts


@lru_cache(maxsize=1)
def _keys() -> dict[int, str]:
    syllables = (a + b + c for a in _INITIALS for b in _VOWELS for c in _FINALS)
    alone = {first + n: keys for first, all_keys in _ALONE for n, keys in enumerate(all_keys) if keys}
    return {**alone, **dict(enumerate(syllables, start=_FIRST))}


@lru_cache(maxsize=1)
def _key_counts() -> NDArray[np.uint8]:
    counts = np.ones(_FIRST + _COUNT + 1, np.uint8)
    for code, keys in _keys().items():
        counts[code] = len(keys)
    return counts
