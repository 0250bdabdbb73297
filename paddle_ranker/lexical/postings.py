"""Inverted index of a part of a collection: the documents with each token, its frequencies, and documents' lengths.

The arrays have no weights, which would depend on the rest of the collection. Each query computes BM25's scores with the
statistics of all parts, so that scores do not depend on how a collection is divided into parts.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from typing import NamedTuple, Optional

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.array_types import Booleans, Integers
from paddle_ranker.lexical.analyser import Analyser
from paddle_ranker.lexical.spelling import SpellingVariants, WordVocabulary, lines_of, merged_lines
from paddle_ranker.lexical.tokens import Tokenizer

Hashes = NDArray[np.uint64]
_AT_ONCE = 1 << 22  # postings that are merged at a time


def text_hashes(texts: Iterable[str]) -> Hashes:
    """Return the 64-bit hash of each text, `[n] uint64`."""
    return np.frombuffer(b"".join(blake2b(t.encode("utf-8"), digest_size=8).digest() for t in texts), "<u8")


class TermPostings(NamedTuple):
    """Documents that have a token.

    documents: row numbers of the documents, `[found] int32`, ascending
    codes: for each document, the row of `Postings.pairs` with its frequencies and lengths, `[found]`
    """

    documents: NDArray[np.int32]
    codes: NDArray[np.unsignedinteger]


@dataclass(frozen=True)
class Postings:
    """Inverted index of the tokens of some documents.

    terms: `[terms] uint64`, hashes of the distinct tokens, ascending
    starts: `[terms + 1] int64`, start of each token's postings in `documents` and `codes`
    documents: `[postings] int32`, the documents that have the token, ascending
    codes: `[postings]`, for each entry of `documents`, the row of `pairs` with its frequencies and lengths
    pairs: `[pairs, 2 * fields] int32`: for each field, the token's frequency, and the field's length in tokens
    lengths: `[documents] int32`, number of tokens of each document; with several fields `[documents, fields]`
    spellings: `[bytes] uint8`, words as written, see `WordVocabulary`
    """

    terms: Hashes
    starts: NDArray[np.int64]
    documents: NDArray[np.int32]
    codes: NDArray[np.unsignedinteger]
    pairs: NDArray[np.int32]
    lengths: NDArray[np.int32]
    spellings: NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))

    NAMES = ("terms", "starts", "documents", "codes", "pairs", "lengths", "spellings")

    @classmethod
    def of(cls, texts: Iterable[str], tokenize: Tokenizer) -> Postings:
        """Count the tokens of documents with a single field."""
        return cls.of_fields([texts], [tokenize])

    @classmethod
    def of_fields(
        cls, fields: Sequence[Iterable[str]], tokenizers: Sequence[Tokenizer], literal: Sequence[bool] = ()
    ) -> Postings:
        """Count the tokens of documents.

        fields: for each field, the text of each document
        literal: for each field, whether its words are left out of `spellings`, so that no query is corrected to them
        """
        numbers: dict[str, int] = {}
        spellings, counted = set[str](), []
        for texts, tokenize, is_literal in zip(fields, tokenizers, literal or [False] * len(tokenizers)):
            counted.append(_tokens_of(texts, tokenize, numbers, None if is_literal else spellings))
        hashes = text_hashes(numbers)
        order = np.argsort(hashes)
        index = np.empty(len(order), np.int64)
        index[order] = np.arange(len(order))
        count = max(1, len(counted[0][2]))
        occurrences = []
        for tokens, sizes, _ in counted:
            document = np.repeat(np.arange(len(sizes)), sizes)
            occurrences.append(np.unique(index[tokens] * count + document, return_counts=True))
        keys = occurrences[0][0]
        if len(occurrences) > 1:
            keys = np.unique(np.concatenate([field_keys for field_keys, _ in occurrences]))
        documents = (keys % count).astype(np.int32)
        codes, pairs = np.zeros(len(keys), np.int64), np.zeros((1, 0), np.int32)
        for (field_keys, times), (_, _, length) in zip(occurrences, counted):
            occurs, all_times = np.searchsorted(keys, field_keys), np.zeros(len(keys), np.int64)
            all_times[occurs] = times
            distinct, of_field = np.unique(all_times << 32 | length[documents], return_inverse=True)
            both, codes = np.unique(codes * len(distinct) + of_field, return_inverse=True)
            pairs = np.hstack([pairs[both // len(distinct)], _unpacked(distinct)[both % len(distinct)]])
        starts = np.zeros(len(order) + 1, np.int64)
        np.cumsum(np.bincount(keys // count, minlength=len(order)), out=starts[1:])
        lengths = counted[0][2] if len(counted) == 1 else np.stack([length for _, _, length in counted], axis=1)
        words = lines_of(spellings)
        return cls(hashes[order], starts, documents, smallest_unsigned(codes, len(pairs)), pairs, lengths, words)

    @classmethod
    def read(cls, arrays: dict[str, NDArray[np.generic]]) -> Postings:
        """Make postings from arrays by name, the result of the method `arrays`."""
        return cls(**{name: arrays[name] for name in cls.NAMES if name in arrays})  # type: ignore[arg-type]

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        return {name: getattr(self, name) for name in self.NAMES}

    @cached_property
    def vocabulary(self) -> WordVocabulary:
        """The words as written, to look up mistyped words."""
        return WordVocabulary(self.spellings)

    @cached_property
    def variants(self) -> SpellingVariants:
        """The words as written whose spelling has variants, to look up words in other spellings."""
        return SpellingVariants(self.spellings)

    def counts(self, terms: Hashes) -> NDArray[np.int64]:
        """Return the number of documents with each token, `[n]`.

        terms: hashes of the tokens, by `text_hashes`
        """
        starts, ends = self._ranges(terms)
        return ends - starts

    def of_terms(self, terms: Hashes) -> list[TermPostings]:
        """Return the postings of each token, which are empty for a token of no document; `terms` as in `counts`."""
        starts, ends = self._ranges(terms)
        parts = map(slice, starts.tolist(), ends.tolist())
        return [TermPostings(self.documents[part], self.codes[part]) for part in parts]

    def _ranges(self, terms: Hashes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the start and end of each term's postings, `[n]` each; both are equal for an unknown term."""
        if not len(self.terms):
            return np.zeros(len(terms), np.int64), np.zeros(len(terms), np.int64)
        at = np.minimum(self.terms.searchsorted(terms), len(self.terms) - 1)
        return self.starts[at], np.where(self.terms[at] == terms, self.starts[at + 1], self.starts[at])


def _tokens_of(
    texts: Iterable[str], tokenize: Tokenizer, numbers: dict[str, int], seen: Optional[set[str]]
) -> tuple[Integers, NDArray[np.int32], NDArray[np.int32]]:
    """Return the ids of the terms of all texts in order, `[terms]`; per text, the number of terms, and of tokens.

    The terms of a text are its tokens and further terms for phrases, see `Analyser.phrase_terms`.

    numbers: ids of terms, from 0 on; new terms are added
    seen: set to which words are added, see `Analyser.tokens`; None: words are not collected
    """
    terms, sizes, lengths = array("q"), array("i"), array("i")
    for text in texts:
        parts = list[str]()
        tokens = tokenize.tokens(text, seen, parts) if isinstance(tokenize, Analyser) else tokenize(text)
        lengths.append(len(tokens))
        tokens = [*tokens, *parts] if parts else tokens
        sizes.append(len(tokens))
        terms.extend([numbers.setdefault(term, len(numbers)) for term in tokens])
    return np.array(terms, np.int64), np.array(sizes, np.int32), np.array(lengths, np.int32)


def smallest_unsigned(codes: NDArray[np.int64], size: int) -> NDArray[np.unsignedinteger]:
    """Convert codes below `size` to the smallest unsigned type that holds them."""
    return codes.astype(np.uint8 if size <= 1 << 8 else np.uint16 if size <= 1 << 16 else np.uint32)


def _unpacked(pairs: NDArray[np.int64]) -> NDArray[np.int32]:
    """Split each of `pairs` into its upper 32 bits, a count, and its lower 32 bits, a length; return `[n, 2]`."""
    return np.stack([pairs >> 32, pairs & 0xFFFFFFFF], axis=1).astype(np.int32)


class Merging:
    """Merger of several inverted indexes into one, in bounded memory.

    The attributes are those of the merged `Postings`, apart from the large arrays, which `fill` writes.

    Args:
        parts: the indexes, each with a mask of the documents to keep, `[documents] bool`, or None for all documents.
    """

    def __init__(self, parts: Sequence[tuple[Postings, Optional[Booleans]]]):
        self._parts = parts
        self._rows = new_rows([(len(postings.lengths), mask) for postings, mask in parts])
        terms = np.unique(np.concatenate([postings.terms for postings, _ in parts]))
        counts = np.zeros(len(terms), np.int64)
        used = [np.zeros(len(postings.pairs), bool) for postings, _ in parts]
        for number, indices, _, codes in self._blocks(terms):
            counts += np.bincount(indices, minlength=len(terms))
            used[number][codes] = True
        self._terms = terms
        self.terms, kept = terms[counts > 0], counts[counts > 0]
        self.starts = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)
        self.lengths = np.concatenate(
            [postings.lengths if mask is None else postings.lengths[mask] for postings, mask in parts]
        )
        self.pairs, self._codes = _merged_pairs([postings.pairs for postings, _ in parts], used)
        self.spellings = merged_lines([postings.spellings for postings, _ in parts])
        self.code_type = smallest_unsigned(np.zeros(1, np.int64), len(self.pairs)).dtype

    def fill(self, documents: NDArray[np.int32], codes: NDArray[np.unsignedinteger]) -> None:
        """Write the postings into arrays of length `starts[-1]`; `codes` must have the type `code_type`."""
        next_index = np.zeros(len(self._terms), np.int64)
        next_index[np.searchsorted(self._terms, self.terms)] = self.starts[:-1]
        for number, indices, rows, old in self._blocks(self._terms):
            first = np.flatnonzero(np.diff(indices, prepend=-1))
            count = np.diff(np.append(first, len(indices)))
            into: Integers = next_index[indices] + np.arange(len(indices)) - np.repeat(first, count)
            documents[into] = rows
            codes[into] = self._codes[number][old]
            next_index[indices[first]] += count

    def _blocks(self, terms: Hashes) -> Iterator[tuple[int, Integers, Integers, NDArray[np.unsignedinteger]]]:
        """Yield the postings of kept documents in blocks: the index of the part, and three arrays, `[postings]` each.

        The arrays are: index of the token in `terms`, row of the document in the merged index, code in the part.
        """
        for number, (postings, mask) in enumerate(self._parts):
            index = np.searchsorted(terms, postings.terms)
            first = 0
            while first < len(index):
                begin = int(postings.starts[first])
                after = int(np.searchsorted(postings.starts, begin + _AT_ONCE, "right")) - 1
                stop = min(len(index), max(first + 1, after))
                part = slice(begin, int(postings.starts[stop]))
                indices = np.repeat(index[first:stop], np.diff(postings.starts[first : stop + 1]))
                documents, codes = self._rows[number][postings.documents[part]], np.asarray(postings.codes[part])
                if mask is not None:
                    kept = documents >= 0
                    indices, documents, codes = indices[kept], documents[kept], codes[kept]
                yield number, indices, documents, codes
                first = stop


def _merged_pairs(
    parts: Sequence[NDArray[np.int32]], used: Sequence[Booleans]
) -> tuple[NDArray[np.int32], list[Integers]]:
    """Return the distinct used pairs of all parts, ascending, `[n, 2 * fields]`; and new rows of pairs, per part.

    The new row of a pair is its row in the first array, or 0 if the pair is not used.

    parts: `Postings.pairs` of each part
    used: for each part, which pairs are used, `[pairs] bool`
    """
    used_pairs = np.ascontiguousarray(np.concatenate([pairs[is_used] for pairs, is_used in zip(parts, used)]))
    distinct, rows = np.unique(used_pairs, axis=0, return_inverse=True)
    codes, first = [], 0
    for is_used in used:
        new, count = np.zeros(len(is_used), np.int64), int(np.count_nonzero(is_used))
        new[is_used] = rows.ravel()[first : first + count]
        codes.append(new)
        first += count
    return distinct, codes


def new_rows(parts: Sequence[tuple[int, Optional[Booleans]]]) -> list[Integers]:
    """Return, for each part of a merger, the new row of each of its documents; -1 for documents that are left out.

    parts: number of documents of each part, and a mask of the documents to keep, `[documents] bool`, or None for all
    """
    rows, first = [], 0
    for count, mask in parts:
        kept = np.ones(count, bool) if mask is None else mask
        rows.append(np.where(kept, np.cumsum(kept) - 1 + first, -1))
        first += int(np.count_nonzero(kept))
    return rows
