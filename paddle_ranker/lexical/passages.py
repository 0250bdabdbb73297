"""Passages of long texts: cut at ends of sentences, or where words of a query stand close together.

cut(text, tokens=128)  # [(0, 120), (120, 251), ...]
start, end = best_span(text, {"稻瘟": 7.1, "防治": 4.0}, size=120)
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping

_LOOKED_AT = 50_000  # code points of a text
_MOST_TERMS = 64  # of a query, the weightiest
_SENTENCE_END = re.compile(r"[。！？!?；;\n]|\.(?=\s)")
_DENSE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")  # scripts of about a token a character
_LETTERS_A_TOKEN = 4  # of alphabets


def characters_for(text: str, tokens: int) -> int:
    """Return about how many code points of a text make so many tokens, judged by its beginning."""
    beginning = text[:500]
    dense = len(_DENSE.findall(beginning)) / max(1, len(beginning))
    return round(tokens * (_LETTERS_A_TOKEN - (_LETTERS_A_TOKEN - 1) * dense))


def cut(text: str, tokens: int) -> list[tuple[int, int]]:
    """Return the start and end, in code points, of passages of about so many tokens that make up a text.

    A passage ends with a sentence if one ends in its last two thirds, else between words. A text that is no more than a
    fifth longer is one passage.
    """
    size, spans, start = max(1, characters_for(text, tokens)), list[tuple[int, int]](), 0
    ends = [match.end() for match in _SENTENCE_END.finditer(text)] if len(text) > 1.2 * size else []
    while len(text) - start > 1.2 * size:
        place = bisect_right(ends, start + size) - 1
        end = ends[place] if place >= 0 and ends[place] > start + size // 3 else 0
        if not end:
            gap = max(
                text.rfind(" ", start + size // 3, start + size), text.rfind("\n", start + size // 3, start + size)
            )
            end = gap + 1 if gap > 0 else start + size
        spans.append((start, end))
        start = end
    return [*spans, (start, len(text))]


def best_span(text: str, weights: Mapping[str, float], size: int) -> tuple[int, int]:
    """Return the start and end, in code points, of about `size` of a text with the most of some words.

    weights: of words in lower case, stems as well; a span counts each once. It begins with a sentence, if one begins
    near; without any of the words it is the beginning of the text.
    """
    if len(text) <= size:
        return 0, len(text)
    lowered = text[:_LOOKED_AT].lower()
    if len(lowered) != min(len(text), _LOOKED_AT):  # a character whose small form is two
        lowered = text[:_LOOKED_AT]
    terms = sorted(weights, key=lambda term: -weights[term])[:_MOST_TERMS]
    if not terms:
        return 0, size
    literals = sorted(map(re.escape, terms), key=len, reverse=True)
    found = [
        (match.start(), match.end(), match[0])
        for match in re.finditer(rf"(?<![a-z0-9])(?:{'|'.join(literals)})", lowered)
    ]
    best, total, first, start = 0.0, 0.0, 0, 0
    inside: dict[str, int] = {}
    for begin, end, term in found:
        inside[term] = inside.get(term, 0) + 1
        total += weights[term] * (inside[term] == 1)
        while end - found[first][0] > 0.8 * size and found[first][0] < begin:
            gone = found[first][2]
            inside[gone] -= 1
            total -= weights[gone] * (inside[gone] == 0)
            first += 1
        if total > best * (1 + 1e-9):
            best, start = total, found[first][0]
    before = max(0, start - size // 5)
    ends = [match.end() for match in _SENTENCE_END.finditer(text, before, start)]
    start = min(ends[0] if ends else before if before == 0 else start, max(0, len(text) - size))
    while start < len(text) and text[start].isspace():
        start += 1
    return start, min(len(text), start + size)
