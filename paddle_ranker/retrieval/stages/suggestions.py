"""Suggestions while somebody types: titles that begin with the typed text, or that have a word that begins with it.

Other spellings count as the typed one: `tieng` finds "Tiếng", and 서우, on the way to 서울, finds 서울.

completions = Completions(["Docker and Kubernetes", "Kubernetes"], standard.fold)
[suggestion.text for suggestion in completions.find("KUB", 8)]  # ["Kubernetes", "Docker and Kubernetes"]

titles = TitleSuggestions()
titles.follow(collection)  # builds what is new, in the calling thread
titles.prefer(collection, {"doc-7": 12})  # documents by their clicks: their titles come first
titles.find("kub", 8)  # in any thread, also during `follow`
"""

from __future__ import annotations

import copy
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import NamedTuple, Optional, TypeVar

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.array_types import Booleans, Integers
from paddle_ranker.data.rows.field_paths import value_at
from paddle_ranker.lexical.analyser import analyser
from paddle_ranker.lexical.postings import Hashes, text_hashes
from paddle_ranker.progress import Progress
from paddle_ranker.retrieval.snapshots.snapshot import LocalSnapshot
from paddle_ranker.retrieval.stored.schema import TEXT, Field
from paddle_ranker.retrieval.stored.segments import Segment
from paddle_ranker.retrieval.work.turns import checked
from paddle_ranker.unicode.characters import word_starts
from paddle_ranker.unicode.hangul_keys import key_counts
from paddle_ranker.unicode.hangul_keys import typed as typed_keys
from paddle_ranker.unicode.variants import common_form

T = TypeVar("T")
LONGEST = 200  # characters of a suggestion; longer texts are not suggested
SHORT = 80  # mean characters of texts that are suggested in a collection without titles
_SAMPLE, _LONG_LINE = 64, 4000  # documents for this mean; a document with more bytes is not read, and counts as long
_AT_ONCE, _REST = 500, 0.0005  # texts that are read at once; seconds that other threads get after them
_MOST_STARTS = 32  # words of a text by which it is found
_BLOCK = 1024  # entries that share a minimum
_FAMILY, _FAMILIES = 4, 16  # least titles of a family; titles that are read per suggestion
_ENDING = re.compile(r"[\s\-_.:/]+[^\s\-_.:/]+$")  # the last word of a title
_MOST_DOCUMENTS = 1 << 20  # documents of a title that count for its weight
_CLICKED = 1 << 30  # ranks titles with clicks above all others
_KEY = 8  # bytes that are compared at a time
_NEVER = np.iinfo(np.int32).max  # priority of an entry that is not found


class Suggestion(NamedTuple):
    """Text that continues the typed text; suggestions are sorted by `is_inside`, `weight` and `folded`.

    is_inside: whether the typed text is the beginning of a later word of the text, and not of the text; with
        `starts_first=False` always False
    weight: weight of the text; the lowest weight is the best
    folded: the text without case, width and repeated spaces
    text: the text as it is shown
    """

    is_inside: bool
    weight: int
    folded: str
    text: str


class Completions:
    """Index of texts by the beginnings of their words, with 10 bytes per word.

    Texts that are equal when folded count as one text, shown in the spelling of the best text. Each word is an entry;
    entries are sorted by the text from this word to the end, so the entries that continue a typed text form a range.
    The best priority of each block of entries leads to the best entries of a range.

    Args:
        texts: distinct texts; those of more than `LONGEST` characters are never found.
        fold: folds a text, so that texts that should count as equal become equal.
        letters: letters of the texts' language that are no variants of others, see `LETTERS`
        weights: weights of the texts, `[texts]`; the smallest is the best (default: their lengths). Texts of equal
            weight are in alphabetical order.
        starts_first: rank texts that begin as typed above all others.
    """

    def __init__(
        self,
        texts: Sequence[str],
        fold: Callable[[str], str],
        weights: Optional[Sequence[int]] = None,
        *,
        starts_first: bool = True,
        letters: str = "",
    ):
        self._fold, self._letters, self._count = fold, letters, max(1, len(texts))
        parts = [_Part(part, fold, letters) for part in _rested(texts)] or [_Part([], fold, letters)]
        self._folded = b"".join([*(part.folded for part in parts), bytes(_KEY)])
        self._shown = b"".join(part.shown for part in parts)
        self._starts = _cumulated([part.folded_sizes for part in parts])
        self._shown_starts = _cumulated([part.shown_sizes for part in parts])
        owners = np.repeat(np.arange(len(texts), dtype=np.int32), np.concatenate([part.counts for part in parts]))
        offsets = np.concatenate([part.offsets for part in parts]).astype(np.uint16)
        is_inside = np.concatenate([part.is_inside for part in parts])
        lengths = np.concatenate([part.lengths for part in parts])
        self._weights = np.asarray(lengths if weights is None else weights, np.int32)
        self._first = _first_alike(np.concatenate([part.hashes for part in parts]))
        del parts
        is_first = self._first[owners] == owners
        owners, offsets, is_inside = owners[is_first], offsets[is_first], is_inside[is_first]
        order = _sorted_suffixes(self._folded, self._starts[owners] + offsets)
        owners, self._offsets, is_inside = owners[order], offsets[order], is_inside[order]
        del order, offsets
        alphabetical, firsts = np.zeros(len(texts), np.int64), owners[self._offsets == 0]
        alphabetical[firsts] = np.arange(len(firsts))
        self._order = np.lexsort((alphabetical[self._first], self._weights)).astype(np.int32)  # texts, best first
        # For each entry, the first of its equal texts. Entries inside texts rank below all entries at beginnings.
        self._entries = owners
        self._behind = is_inside * np.int32(self._count if starts_first else 0)
        self._prioritise(np.zeros(len(texts), bool))

    def without(self, texts: Booleans) -> Completions:
        """Return completions without the texts in a mask, `[texts] bool`; the copy shares this object's arrays."""
        copied = copy.copy(self)
        copied._prioritise(texts)
        return copied

    def _prioritise(self, hidden: Booleans) -> None:
        """Set each entry's priority: the rank of its best text that is not hidden."""
        ranks = np.full(len(hidden), _NEVER, np.int32)
        shown = np.flatnonzero(~hidden[self._order]).astype(np.int32)
        np.minimum.at(ranks, self._first[self._order[shown]], shown)
        self._priorities = np.full(-(-len(self) // _BLOCK) * _BLOCK, _NEVER, np.int32)
        priorities = ranks[self._entries]
        self._priorities[: len(self)] = np.where(priorities < _NEVER, priorities + self._behind, _NEVER)
        self._minima: NDArray[np.int32] = self._priorities.reshape(-1, _BLOCK).min(axis=1)

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self._offsets)

    def find(self, typed: str, count: int) -> list[Suggestion]:
        """Return up to `count` texts that continue the typed text, best first, each once."""
        key = (
            _bytes(typed_keys(common_form(_spaced(self._fold(typed)), self._letters))) if len(typed) <= LONGEST else b""
        )
        if not key:
            return []
        first, end = self._count_before(key), self._count_before(key + b"\xff")
        wanted = count
        while True:
            suggestions: dict[str, Suggestion] = {}
            for priority in checked(self._best(first, end, wanted).tolist()):
                suggestion = self._suggestion(priority)
                suggestions.setdefault(suggestion.folded, suggestion)
            if len(suggestions) >= count or wanted >= end - first:
                return [*suggestions.values()][:count]
            wanted *= 4  # several words of a text may continue the typed text

    def _suggestion(self, priority: int) -> Suggestion:
        number = int(self._order[priority % self._count])
        text = str(self._shown[slice(*self._shown_starts[number : number + 2].tolist())], "utf-8", "replace")
        is_inside, weight = priority >= self._count, int(self._weights[number])
        return Suggestion(is_inside, weight, self._fold(_spaced(text)), text)

    def _count_before(self, key: bytes) -> int:
        """Return how many entries sort before a key, by bisection."""
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            start = int(self._starts[self._entries[middle]]) + int(self._offsets[middle])
            if self._folded[start : start + len(key)] < key:
                low = middle + 1
            else:
                high = middle
        return low

    def _best(self, first: int, end: int, count: int) -> NDArray[np.int32]:
        """Return the `count` smallest priorities of the entries from `first` up to `end`, ascending."""
        low, high = -(-first // _BLOCK), end // _BLOCK  # blocks that are whole in the range
        if low >= high:
            values = self._priorities[first:end]
        else:
            minima = self._minima[low:high]
            blocks = np.argpartition(minima, count - 1)[:count] if len(minima) > count else np.arange(len(minima))
            inner = self._priorities.reshape(-1, _BLOCK)[low + blocks].ravel()
            values = np.concatenate(
                [self._priorities[first : low * _BLOCK], self._priorities[high * _BLOCK : end], inner]
            )
        if len(values) > count:
            values = np.partition(values, count - 1)[:count]
        values = np.sort(values)
        return values[values < _NEVER]


class _Part:
    """Some of the texts, as shown and as folded (with a newline after each), and their entries.

    Attributes:
        lengths: length of each text, in characters.
        hashes: hash of each folded text.
        shown, folded: bytes of all texts, as shown and in the form in which they are compared with what is typed.
        shown_sizes, folded_sizes: number of bytes of each text.
        counts: number of entries of each text.
        offsets: for each entry, number of bytes of the folded text before it.
        is_inside: for each entry, whether it is a later word than the first.
    """

    def __init__(self, texts: Sequence[str], fold: Callable[[str], str], letters: str):
        shown = [text if len(text) <= LONGEST else "" for text in texts]
        exact = fold("".join([f"{_spaced(text)}\n" for text in shown]))
        folded = common_form(exact, letters)
        codes = np.frombuffer(folded.encode("utf-32-le", "surrogatepass"), "<u4")
        ends = np.flatnonzero(codes == ord("\n"))
        begins = np.append(0, ends + 1)[:-1]
        self.shown, self.folded = b"".join(map(_bytes, shown)), _bytes(typed_keys(folded))
        self.lengths = np.array([len(text) for text in shown], np.int32)
        self.shown_sizes = np.array([len(_bytes(text)) for text in shown], np.int64)
        sizes = 1 + (codes > 0x7F) + (codes > 0x7FF) + (codes > 0xFFFF)
        if not folded.isascii():
            sizes = sizes * key_counts(codes)
        byte_ends = np.cumsum(sizes)
        self.folded_sizes = np.diff(byte_ends[ends], prepend=0)
        self.hashes = text_hashes(str(_bytes(exact), "utf-8", "replace").split("\n")[:-1])
        is_start = word_starts(folded)
        words = np.flatnonzero(is_start)
        first = begins.copy()
        first[np.searchsorted(begins, words[::-1], "right") - 1] = words[::-1]
        is_start[begins] = True
        is_start[ends] = False
        entries = np.flatnonzero(is_start)
        owners = np.searchsorted(begins, entries, "right") - 1
        entries = entries[np.arange(len(owners)) - np.searchsorted(owners, owners) < _MOST_STARTS]
        owners = np.searchsorted(begins, entries, "right") - 1
        before = np.append(0, byte_ends)
        self.counts = np.bincount(owners, minlength=len(texts))
        self.offsets, self.is_inside = before[entries] - before[begins[owners]], entries > first[owners]


class _Titles:
    """The titles of a segment.

    Attributes:
        codes: index of each document's title, `[documents]`; -1 for none.
        completions: completions by the titles of live documents.
    """

    def __init__(self, segment: Segment, field: Field):
        if field.name == TEXT:
            numbers: dict[str, int] = {}
            texts: Progress[str] = Progress(_texts_of(segment), desc="suggestions", unit="text", total=len(segment))
            codes = (numbers.setdefault(text, len(numbers)) if text else -1 for text in texts)
            self.codes, titles = np.fromiter(codes, np.int32, len(segment)), [*numbers]
        else:
            self.codes = segment.codes_of(field.name)
            values = chain.from_iterable(_pausing(segment.each_value(field.name)))
            titles = [*map(str, Progress(values, desc="suggestions", unit="title"))]
        documents = np.minimum(np.bincount(self.codes[self.codes >= 0], minlength=len(titles)), _MOST_DOCUMENTS)
        weights = np.array([*map(len, titles)], np.int64) - (LONGEST + 1) * documents
        self._all = self.completions = _completions(titles, field, weights.tolist())
        self._count, self._live = len(titles), np.ones(len(self.codes), bool)

    def follow(self, live: Booleans) -> None:
        """Restrict the completions to titles of live documents, which the mask `live` tells, `[documents] bool`."""
        if not np.array_equal(live, self._live):
            has_live = np.bincount(self.codes[live] + 1, minlength=self._count + 1)[1:] > 0
            self.completions = self._all if has_live.all() else self._all.without(~has_live)
            self._live = live


class TitleSuggestions:
    """Suggestions from the titles of a collection, or from short texts without titles, as of the last `follow`.

    Titles that begin as typed come first, then titles with a later word that begins as typed. Among both, titles with
    more clicks come first, then titles of more documents, then shorter titles.
    """

    def __init__(self) -> None:
        self._by_segment: dict[str, _Titles] = {}  # by segment
        self._searched: list[Completions] = []
        self._preferred: list[Completions] = []

    def follow(self, now: LocalSnapshot) -> None:
        """Take the titles of a snapshot's documents; only new segments are read. One thread may call this at a time.

        Raises `CheckpointError` for a damaged segment.
        """
        field, by_segment = suggested_field(now), dict[str, _Titles]()
        for part in now.parts if field is not None else ():
            assert field is not None
            with part.segment.reading():
                titles = self._by_segment.get(part.segment.name) or _Titles(part.segment, field)
            titles.follow(part.mask)
            by_segment[part.segment.name] = titles
        self._by_segment, self._searched = by_segment, [titles.completions for titles in by_segment.values()]

    def prefer(self, now: LocalSnapshot, clicks: Mapping[str, int]) -> None:
        """Rank the titles of documents with clicks above all other titles.

        clicks: number of clicks by the document's id
        """
        field, counts = suggested_field(now), Counter[str]()
        for id, document in now.each([*clicks]) if field is not None else ():
            assert field is not None
            title = document.text if field.name == TEXT else value_at(document.fields, field.name)
            if isinstance(title, str):
                counts[title] += clicks[id]
        weights = [-_CLICKED - min(count, _CLICKED - 1) for count in counts.values()]
        self._preferred = [] if field is None else [_completions([*counts], field, weights)]

    def find(self, typed: str, count: int) -> list[Suggestion]:
        """Return up to `count` titles that continue the typed text, best first, each once.

        Titles that differ only in their last word are one suggestion, see `_without_variants`.
        """
        parts = [*self._preferred, *self._searched]
        most = _FAMILIES * count
        suggestions = sorted(suggestion for part in checked(parts) for suggestion in part.find(typed, most))
        distinct = {suggestion.folded: suggestion for suggestion in reversed(suggestions)}
        kept = [suggestion for suggestion in suggestions if distinct[suggestion.folded] is suggestion]
        return _without_variants(kept, typed)[:count]


def _without_variants(suggestions: Sequence[Suggestion], typed: str) -> list[Suggestion]:
    """Replace each family of suggestions by the beginning that its texts share, such as `linux-image-6.1`.

    A family has at least `_FAMILY` texts that differ only in their last word, such as `linux-image-6.1-amd64`. Its
    beginning must be longer than the typed text, and may belong to a larger family.
    """
    while True:
        beginnings = [_ENDING.sub("", suggestion.text) for suggestion in suggestions]
        sizes = Counter(beginnings)
        kept: dict[str, Suggestion] = {}
        for suggestion, beginning in checked(zip(suggestions, beginnings)):
            is_family = sizes[beginning] >= _FAMILY and len(beginning) > len(typed.strip())
            text = beginning if is_family else suggestion.text
            kept.setdefault(text, suggestion._replace(text=text))
        if len(kept) == len(suggestions):
            return [*kept.values()]
        suggestions = [*kept.values()]


def suggested_field(now: LocalSnapshot) -> Optional[Field]:
    """Return the field whose values are suggested: the title, else the text if texts are short, else None."""
    schema = now.info.schema
    if schema.title is not None:
        return schema.field(schema.title)
    rows = [(part.segment, row) for part in now.parts for row in np.flatnonzero(part.mask)[:_SAMPLE].tolist()]
    sample = rows[:: -(-len(rows) // _SAMPLE) or 1]
    lengths = [_length_of(segment, row) for segment, row in sample]
    return schema.field(TEXT) if sum(lengths) <= SHORT * len(lengths) else None


def _length_of(segment: Segment, row: int) -> int:
    size = segment.document_bytes([row])
    return size if size > _LONG_LINE else len(segment.document(row).text)


def _texts_of(segment: Segment) -> Iterator[str]:
    """Yield the text of each document; "" for a long text."""
    stored = segment.blob("documents.jsonl")
    for first in _pausing(range(0, len(segment), _AT_ONCE)):
        ends = segment.arrays["offsets"][first : first + _AT_ONCE + 1].tolist()
        lines = [bytes(stored[a:b]) if b - a <= _LONG_LINE else b"{}" for a, b in zip(ends, ends[1:])]
        yield from (row.get(TEXT, "") for row in json.loads(b"[%b]" % b",".join(lines)))


def _rested(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield slices of the items; between two slices, let other threads compute."""
    return _pausing(items[start : start + _AT_ONCE] for start in range(0, len(items), _AT_ONCE))


def _pausing(items: Iterable[T]) -> Iterator[T]:
    for item in items:
        yield item
        time.sleep(_REST)


def _completions(titles: Sequence[str], field: Field, weights: Sequence[int]) -> Completions:
    by = analyser(field.analyser)
    return Completions(titles, by.fold, weights, letters=by.letters)


def _spaced(text: str) -> str:
    return " ".join(text.split())


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _cumulated(sizes: Sequence[Integers]) -> Integers:
    return np.cumsum(np.concatenate([[0], *sizes]), dtype=np.int64)


def _first_alike(hashes: Hashes) -> NDArray[np.int32]:
    """Return, for each hash, the index of the first hash that equals it, `[texts]`."""
    _, firsts, groups = np.unique(hashes, return_index=True, return_inverse=True)
    first: NDArray[np.int32] = firsts.astype(np.int32)[groups.ravel()]
    return first


def _sorted_suffixes(text: bytes, starts: Integers) -> Integers:
    """Return the order of suffixes of a text, sorted by their bytes, `_KEY` bytes at a time.

    Suffixes that are equal up to the size of the longest suggestion are in any order.

    text: the text, with `_KEY` further bytes at its end
    starts: positions where the suffixes begin
    """
    windows: NDArray[np.uint64] = np.ndarray((len(text) - _KEY + 1,), ">u8", text, 0, (1,))
    keys = windows[starts].astype(np.uint64)
    order = np.argsort(keys, kind="stable")
    if not len(order):
        return order
    keys, tied, group = keys[order], np.arange(len(order)), np.zeros(len(order), np.int64)
    for depth in range(_KEY, 4 * LONGEST + _KEY, _KEY):
        is_same = (keys[1:] == keys[:-1]) & (group[1:] == group[:-1])
        is_tied = np.append(is_same, False) | np.append(False, is_same)
        group, tied = np.cumsum(np.append(True, ~is_same).astype(np.int64))[is_tied], tied[is_tied]
        if not len(tied):
            break
        rows = order[tied]
        keys = windows[np.minimum(starts[rows] + depth, len(windows) - 1)].astype(np.uint64)
        sorted_rows = np.lexsort((keys, group))
        order[tied], keys = rows[sorted_rows], keys[sorted_rows]
    return order
