"""Highlight a search result: find the words that it shares with the query, and the passage with most of them.

shared = SharedWords("苹果手机价格")
shared.highlights("二手苹果手机")    # [Highlight(start=2, end=6, level=3)]
shared.passage(text)               # (320, 520), of a long text
"""

from __future__ import annotations

import re
import sys
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import islice
from typing import NamedTuple, Optional

import numpy as np

from paddle_ranker.lexical.analyser import (
    ENGLISH,
    Analyser,
    CharacterRun,
    Token,
    occurrences,
    pieces,
    standard,
    word_of,
)
from paddle_ranker.unicode.character_kinds import MARK, OTHER, unicode_table
from paddle_ranker.unicode.characters import code_points, fold, fold_signs, is_whole

LEVELS = 3  # of highlights: 1 for a shared word, 2 for two words in a row, 3 for three; as in match embeddings
PASSAGE = 200  # code points of the passage of a long text
_MOST_WORDS, _QUERY = 128, 1000  # words and code points of a query that are read
_MOST_HIGHLIGHTS, _MOST_OCCURRENCES = 100, 20  # highlights of a text; occurrences of a token in a text
_LOOKED_AT = 20_000  # code points of a text that are searched
_LETTER = "[^\\W_]"
_BETWEEN = " \t\n\r-._'/&@+"  # characters that may separate the words of an n-gram


_KINDS = np.zeros(sys.maxunicode + 1, np.uint8)  # by code point, see `_kinds_of`; 0 until the character occurs
_FOLDED = np.zeros(sys.maxunicode + 1, np.uint32)  # by code point of class c: the character to which it folds
_JOINING = re.compile("[\u1160-\u11ff\uff9e\uff9f\uffc2-\uffdc]")  # voice marks, vowels and finals, see `_kinds_of`
_CLUSTERS = re.compile("[cx]m+|x|m+")  # characters that may fold to more or fewer characters


class Highlight(NamedTuple):
    """Part of a text, in code points, that shares words with the query.

    level: length in words of the shared n-gram, 1 to 3
    """

    start: int
    end: int
    level: int


class FoldedText:
    """Folded text, with the position of each of its characters in the original text.

    Args:
        most: maximum number of code points that are folded; the rest of the text is left out.

    Attributes:
        text: the folded text.
    """

    def __init__(self, text: str, analyser: Analyser = standard, most: int = _LOOKED_AT):
        text, fold = text[:most], analyser.fold
        self._analyser = analyser
        self._spans: Optional[list[tuple[int, int]]] = None
        if text.isascii():
            self.text = fold(text)
            return
        kinds = _kinds_of(text)
        if not kinds.strip("c"):  # `fold` takes ten times as long
            folded = _FOLDED.take(code_points(text)).tobytes().decode("utf-32-le", "surrogatepass")
            self.text = fold_signs(folded.translate(analyser.table) if analyser.table else folded)
            return
        parts, spans, read = list[str](), list[tuple[int, int]](), 0
        for match in _CLUSTERS.finditer(kinds):
            start, end = match.span()
            parts += [fold(text[read:start]), fold(text[start:end])]
            spans += [*zip(range(read, start), range(read + 1, start + 1)), *[(start, end)] * len(parts[-1])]
            read = end
        parts.append(fold(text[read:]))
        spans += zip(range(read, len(text)), range(read + 1, len(text) + 1))
        self.text, self._spans = fold_signs("".join(parts)), spans

    @cached_property
    def tokens(self) -> dict[str, list[tuple[int, int]]]:
        """Starts and ends in `text` of each of the analyser's tokens, without tokens that are ideographs alone."""
        spans: dict[str, list[tuple[int, int]]] = {}
        before: Optional[Token] = None
        for run in self._analyser.runs(self.text):
            if run.kind == "i" and "m" not in run.shape:
                end = run.start + len(run.text)
                words = [Token(run.text[0], run.start, run.start + 1), Token(run.text[-1], end - 1, end)]
                tokens = list[Token]()
            else:
                words = run.words()
                tokens = [*words, *([] if run.is_word else self._analyser.groups(run))]
            if run.pair and before is not None:
                tokens.append(Token(run.pair, before.start, words[0].end))
            for token in tokens:
                spans.setdefault(token.text, []).append((token.start, token.end))
            before = words[-1]
        return spans

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Return the start and end, in the original text, of a non-empty part of `text`."""
        return (start, end) if self._spans is None else (self._spans[start][0], self._spans[end - 1][1])


def _kinds_of(text: str) -> str:
    """Return one letter per character, which says how the character folds: c, x or m.

    A character of kind c folds to one character, one of kind x to several. One of kind m may fold to one character
    together with the character before: marks, ignored characters, voice marks of half-width kana, vowels and finals
    of hangul.
    """
    kinds = _KINDS.take(code_points(text))
    if not kinds.all():
        for char in set(text):
            joins = unicode_table().kind(char) in (MARK, OTHER) or _JOINING.match(char)
            folded = fold(char)
            _FOLDED[ord(char)] = ord(folded) if len(folded) == 1 else 0
            _KINDS[ord(char)] = ord("m" if joins or not folded else "c" if len(folded) == 1 else "x")
        kinds = _KINDS.take(code_points(text))
    return kinds.tobytes().decode("ascii")


class SharedWords:
    """Finder of a query's words in texts. In Chinese, words are single characters.

    Args:
        query: the query; only the first 128 words of its first 1,000 code points count.
        analyser: analyser of the texts.
        phrases: texts that are highlighted wherever they occur as a whole.
    """

    def __init__(self, query: str, analyser: Analyser = standard, phrases: Sequence[str] = ()):
        query, self._analyser = query[:_QUERY], analyser
        patterns = [
            r"\s+".join(map(re.escape, words)) for phrase in phrases if (words := analyser.fold(phrase).split())
        ]
        self._phrases = re.compile("|".join(sorted(patterns, key=len, reverse=True))) if patterns else None
        runs = list(analyser.runs(analyser.fold(query)))
        readings = [[word.text for run in runs for word in _read(run, None, longest)][:_MOST_WORDS]
                    for longest in (True, False)]  # fmt: skip
        self._query_words = {word.text for run in runs[:_MOST_WORDS] for word in run.words()[:_MOST_WORDS]}
        self._grams = [{tuple(words[i : i + n]) for words in readings for i in range(len(words) - n + 1)}
                       for n in range(1, LEVELS + 1)]  # fmt: skip
        self._seen: dict[str, Sequence[Token]] = {}  # cache: words of the query in each word of a text
        # Single characters and words such as "the" are not highlighted alone, unless the query has no other words.
        self._weak = self._query_words.difference(token for token, weight in analyser.weighed(query) if weight >= 1.0)

    def highlights(self, text: str) -> list[Highlight]:
        """Return the parts of a text that the query shares, in order; only the first 20,000 code points are read."""
        if not self._query_words and self._phrases is None:
            return []
        folded = FoldedText(text, self._analyser)
        words = list(self._words(folded.text))
        highlights: list[Highlight] = []
        for word, level in zip(words, self._levels(folded.text, words)):
            if level == 1 and word.text in self._weak:
                continue
            last = highlights[-1] if highlights else None
            if last is not None and last.level == level > 1 and not folded.text[last.end : word.start].strip(_BETWEEN):
                highlights[-1] = Highlight(last.start, word.end, level)
            elif len(highlights) < _MOST_HIGHLIGHTS:
                highlights.append(Highlight(word.start, word.end, level))
            else:
                break
        if self._phrases is not None:
            highlights = self._with_phrases(folded.text, highlights)
        return [Highlight(*folded.span(highlight.start, highlight.end), highlight.level) for highlight in highlights]

    def _with_phrases(self, text: str, highlights: Sequence[Highlight]) -> list[Highlight]:
        """Add highlights of phrases in a folded text; a phrase replaces highlights that it overlaps."""
        assert self._phrases is not None
        whole = list[Highlight]()
        for match in islice(self._phrases.finditer(text), _MOST_HIGHLIGHTS):
            start, end = match.span()
            if is_whole(text, start, end):
                whole.append(Highlight(start, end, level_of(match[0], self._analyser)))
        ends, kept = [highlight.end for highlight in whole], list[Highlight]()
        for highlight in highlights:
            index = bisect_right(ends, highlight.start)
            if index == len(whole) or whole[index].start >= highlight.end:
                kept.append(highlight)
        return sorted([*kept, *whole])[:_MOST_HIGHLIGHTS]

    def _words(self, text: str) -> Iterator[Token]:
        """Yield the words of a folded text that the query also has."""
        query_words, read, language = self._query_words, self._seen, self._analyser.language or ENGLISH
        for start, piece, shape in pieces(text):
            if shape[0] in "it" and "m" not in shape:
                if not query_words.isdisjoint(piece):
                    yield from [Token(char, n, n + 1) for n, char in enumerate(piece, start) if char in query_words]
                continue
            tokens = read.get(piece)
            if tokens is None:
                if shape[0] not in "it" and query_words.isdisjoint(word_of(piece, shape, language).texts):
                    tokens = read[piece] = ()  # as of most words
                else:
                    run = CharacterRun(shape[0], piece, 0, shape, language)
                    tokens = read[piece] = [*_read(run, query_words, True)]
            for word in tokens:
                yield Token(word.text, start + word.start, start + word.end)

    def _levels(self, text: str, words: Sequence[Token]) -> list[int]:
        """Return, for each word, the length in words of the longest shared n-gram that contains it.

        Only spaces and hyphens may separate the words of an n-gram.
        """
        texts, (_, pairs, triples) = [word.text for word in words], self._grams
        gaps = [text[word.end : after.start] for word, after in zip(words, words[1:])]
        two = [not gap.strip(_BETWEEN) and pair in pairs for gap, pair in zip(gaps, zip(texts, texts[1:]))]
        three = [first and second and triple in triples
                 for first, second, triple in zip(two, two[1:], zip(texts, texts[1:], texts[2:]))]  # fmt: skip
        levels = [1] * len(words)
        for n, shared in ((2, two), (3, three)):
            for i, is_shared in enumerate(shared):
                if is_shared:
                    levels[i : i + n] = [n] * n
        return levels

    def passage(self, text: str, highlights: Sequence[Highlight], size: int = PASSAGE) -> tuple[int, int]:
        """Return the start and end of the passage with the most shared words; a short text is one passage.

        size: length of the passage in code points
        """
        if len(text) <= size:
            return 0, len(text)
        best, start, weight, first = 0, 0, 0, 0
        for highlight in highlights:
            weight += _weight(highlight)
            while highlight.end - highlights[first].start > size and highlights[first] is not highlight:
                weight -= _weight(highlights[first])
                first += 1
            if weight > best:
                best, start = weight, highlights[first].start
        start = min(start, len(text) - size)
        return start, start + size


def occurrences_of(term: str, text: FoldedText) -> list[tuple[int, int]]:
    """Return the start and end, in code points, of the first 20 occurrences of a token in a text.

    term: a token of any tokenizer; for a stem, the words with this stem are its occurrences
    """
    if all(shape == "i" * len(piece) for _, piece, shape in pieces(term)):
        # An ideograph with a mark is another token.
        whole = (span for span in occurrences(text.text, term) if is_whole(text.text, *span))
        spans = [*islice(whole, _MOST_OCCURRENCES)]
    elif (tokens := text.tokens.get(term)) is not None:
        spans = tokens
    else:  # a token of another tokenizer
        beginning = f"(?<!{_LETTER})" if term.isascii() else ""
        matches = re.finditer(beginning + re.escape(term), text.text)
        spans = [match.span() for match in islice(matches, _MOST_OCCURRENCES)]
    return [text.span(*span) for span in spans[:_MOST_OCCURRENCES]]


def level_of(term: str, analyser: Analyser = standard) -> int:
    """Return the match level, 1 to 3, of a single token of a query: its number of Chinese characters, else 1."""
    return min(LEVELS, max(1, sum(1 if run.is_word else len(run.units()) for run in analyser.runs(term))))


def _read(run: CharacterRun, vocabulary: Optional[set[str]], longest: bool) -> Iterator[Token]:
    """Yield the known words of a run, in order.

    vocabulary: the known words; None: all words are known
    longest: whether to yield the longest of overlapping words, or else the shortest
    """
    if vocabulary is not None and run.is_word and vocabulary.isdisjoint(run.word.texts):
        return
    words = [word for word in run.words() if vocabulary is None or word.text in vocabulary]
    if not run.is_word or len(words) < 2:
        yield from words
        return
    kept, is_taken = list[Token](), bytearray(len(run.text))
    for word in sorted(words, key=lambda token: token.end - token.start, reverse=longest):
        part = slice(word.start - run.start, word.end - run.start)
        if not any(is_taken[part]):
            kept.append(word)
            is_taken[part] = b"\1" * (word.end - word.start)
    yield from sorted(kept, key=lambda token: token.start)


def _weight(highlight: Highlight) -> int:
    return (highlight.end - highlight.start) * highlight.level * highlight.level
