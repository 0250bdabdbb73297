"""Passages of long texts: cut at ends of sentences, or around the words of a query.

cut_passages(text, encoder.token_ends([text])[0], tokens=128)  # [(0, 505), (505, 1012), ...]
start, end = best_span(text, {"稻瘟": 7.1, "防治": 4.0}, size=120)
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Optional

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.array_types import Integers
from paddle_ranker.lexical.analyser import Analyser, standard
from paddle_ranker.lexical.highlights import FoldedText
from paddle_ranker.unicode.characters import UNIT, UNSPACED, code_points, fold, shape_of

Span = tuple[int, int]

_LOOKED_AT = 50_000  # code points of a text that `best_span` reads
_MOST_TERMS = 64  # terms of a query that are looked for, the heaviest ones
_SENTENCE_END = re.compile(r"[。！？!?；;\n]|\.(?=\s)")
_IN_WORDS = np.array([chr(code).isalnum() for code in range(128)])
_SPACE = re.compile(r"\s+")
_LETTERS_A_TOKEN = 4  # letters per token in scripts with spaces; other scripts have about one character per token


def characters_for(text: str, tokens: int) -> int:
    """Estimate the number of code points that make `tokens` tokens, by the script of the text's beginning."""
    shape = shape_of(fold(text[:500]))
    dense = (shape.count(UNIT) + shape.count(UNSPACED)) / max(1, len(shape))
    return round(tokens * (_LETTERS_A_TOKEN - (_LETTERS_A_TOKEN - 1) * dense))


def estimated_ends(texts: Sequence[str]) -> list[Integers]:
    """Estimate the ends of each text's tokens by its script; the result is like that of `PairEncoder.token_ends`."""
    sizes = [max(1, characters_for(text, 1)) for text in texts]
    return [np.minimum(np.arange(size, len(text) + size, size), len(text)) for size, text in zip(sizes, texts)]


def cut_passages(
    text: str, ends: Integers, tokens: int, overlap: int = 0, count: Optional[Callable[[str], int]] = None
) -> list[Span]:
    """Return the starts and ends, in code points, of passages of at most `tokens` tokens that cover a text.

    A passage ends with a sentence if a sentence ends in its last two thirds, else between words. Without overlap, the
    last two passages are about equally long. Only a passage of a single code point may have more tokens.

    ends: end of each token in the text, in code points, `[tokens]`
    overlap: maximum number of tokens at a passage's end that the next passage repeats, in whole sentences or words
    count: called with a part of the text; returns its number of tokens when it is tokenized alone. None: count the
        tokens of the whole text that end in the part
    """

    def counted(start: int, end: int) -> int:
        return after(end) - after(start) if count is None else count(text[start:end])

    def after(position: int) -> int:
        return int(np.searchsorted(ends, position, "right"))

    spans, start, end = list[Span](), 0, 0  # start of this passage, and end of the last passage
    breaks = [[match.end() for match in pattern.finditer(text)] for pattern in (_SENTENCE_END, _SPACE)]
    # Most code points of a tried passage, which keeps the work linear if parts of a token have many tokens.
    width = len(text)
    while (left := len(ends) - after(start)) > tokens or width < len(text) or counted(start, len(text)) > tokens:
        first, stop, excess = after(start), min(start + width, len(text)) + 1, 1
        size = min(tokens if overlap or 2 * left > 3 * tokens else -(-3 * left // 5), left)
        width *= 2
        while excess > 0 and stop > start + 1:
            if size > 0:
                limit = min(int(ends[first + size - 1]), stop - 1)
                stop = _last(breaks, max(int(ends[first + size // 3]), end), limit) or limit
            else:
                stop = start + (stop - start) // 2
                width = 2 * (stop - start)
            excess = counted(start, stop) - tokens
            size = after(stop) - first - excess
        if stop <= end:  # the overlap leaves no room for more
            start = end
            continue
        spans.append((start, stop))
        start, end = stop, stop
        if end == len(text):
            return spans
        if overlap:
            first, least = after(end), spans[-1][0] + 1
            least = max(least, int(ends[first - overlap - 1]) if first > overlap else 0)
            while (start := _first(breaks, least, end)) and counted(start, end) > overlap:
                least = start + 1
            start = start or end
    return [*spans, (start, len(text))]


def _last(breaks: Sequence[Sequence[int]], least: int, most: int) -> int:
    """Find the first list with a position above `least` and up to `most`; return its last such position, else 0."""
    last = (positions[bisect_right(positions, most) - 1] for positions in breaks if bisect_right(positions, most))
    return next((position for position in last if position > least), 0)


def _first(breaks: Sequence[Sequence[int]], least: int, before: int) -> int:
    """Find the first list with a position from `least` to below `before`; return its first such position, else 0."""
    starts = ((positions, bisect_left(positions, least)) for positions in breaks)
    first = (positions[number] for positions, number in starts if number < len(positions))
    return next((position for position in first if position < before), 0)


def best_span(text: str, weights: Mapping[str, float], size: int, analyser: Analyser = standard) -> Span:
    """Return the start and end of the span of about `size` code points whose words have the highest total weight.

    The span begins with a sentence if a sentence begins nearby. If the text has none of the words, the span is the
    beginning of the text.

    weights: weight of each folded word or stem; a word counts once, however often a span has it
    analyser: analyser of the words, which folds the text, too
    """
    if len(text) <= size:
        return 0, len(text)
    folded_text = FoldedText(text, analyser, _LOOKED_AT)
    folded = folded_text.text
    terms = [term for term in sorted(weights, key=lambda term: -weights[term])[:_MOST_TERMS] if term]
    codes = code_points(folded)
    positions = [_positions(folded, codes, term, len(folded) // size) for term in terms]
    if not any(map(len, positions)):
        return 0, size
    first = _heaviest(terms, positions, weights, len(folded), 0.8 * size)
    start, _ = folded_text.span(first, first + 1)
    before = max(0, start - size // 5)
    ends = [match.end() for match in _SENTENCE_END.finditer(text, before, start)]
    start = min(ends[0] if ends else before if before == 0 else start, max(0, len(text) - size))
    while start < len(text) and text[start].isspace():
        start += 1
    return start, min(len(text), start + size)


def _heaviest(
    terms: Sequence[str], positions: Sequence[Integers], weights: Mapping[str, float], length: int, size: float
) -> int:
    """Return the start of the first span of `size` code points whose terms, each counted once, weigh most.

    positions: positions of each term, `[n]`, ascending
    """
    candidates, sizes = np.concatenate(positions), [*map(len, positions)]
    gains = np.repeat([weights[term] for term in terms], sizes)
    after = np.concatenate([np.append(0, starts[:-1] + 1)[: len(starts)] for starts in positions])
    first = candidates + np.repeat([len(term) - int(size) for term in terms], sizes)
    first = np.minimum(np.maximum(after, first), candidates)
    gained = np.bincount(first, gains, length + 1) - np.bincount(candidates + 1, gains, length + 1)
    totals = np.cumsum(gained)[candidates]
    return int(candidates[totals >= totals.max() * (1 - 1e-9)].min())


def _positions(text: str, codes: NDArray[np.uint32], term: str, most: int) -> Integers:
    """Return the positions of a term in a folded text, ascending, without positions inside an ASCII word.

    codes: code points of the text
    most: a term with more occurrences, such as "the", gets no positions, because it does not distinguish spans
    """
    if not 0 < text.count(term) <= most:
        return np.zeros(0, np.int64)
    starts = np.flatnonzero(codes[: len(text) - len(term) + 1] == ord(term[0]))
    for offset, character in enumerate(term[1:], 1):
        starts = starts[codes[starts + offset] == ord(character)]
    before = codes[starts - 1]
    inside = (before < len(_IN_WORDS)) & _IN_WORDS[np.minimum(before, len(_IN_WORDS) - 1)] & (starts > 0)
    return starts[~inside]
