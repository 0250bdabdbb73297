"""An inverted index of a part of a collection: which documents hold a token, how often, and how long they are.

The arrays hold counts alone, no weight that depends on the rest of the collection: BM25's scores are worked out when a
query comes, with the statistics of all parts. So they do not depend on how a collection was split over parts.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.lexical.tokens import Tokenizer

Codes = NDArray[np.uint32]
Hashes = NDArray[np.uint64]


def text_hash(text: str) -> int:
    """Return 64 bits that stand for a text."""
    return int.from_bytes(blake2b(text.encode("utf-8"), digest_size=8).digest(), "little")


def text_hashes(texts: Iterable[str]) -> Hashes:
    """Return 64 bits for each text, `[n] uint64`."""
    return np.frombuffer(b"".join(blake2b(t.encode("utf-8"), digest_size=8).digest() for t in texts), "<u8")


class TermPostings(NamedTuple):
    """The documents that hold a token, `[found] int32`, ascending, and for each the row of `pairs`, `[found]`."""

    documents: NDArray[np.int32]
    codes: NDArray[np.unsignedinteger]


@dataclass(frozen=True)
class Postings:
    """The tokens of some documents.

    terms: `[terms] uint64`, hashes of the distinct tokens, ascending
    starts: `[terms + 1] int64`, where the postings of each begin
    documents: `[postings] int32`, the documents that hold it, ascending
    codes: `[postings]`, for each the row of `pairs`
    pairs: `[pairs, 2] int32`, how often a token occurs in a document, and how many tokens the document has
    lengths: `[documents] int32`, how many tokens each document has
    """

    terms: Hashes
    starts: NDArray[np.int64]
    documents: NDArray[np.int32]
    codes: NDArray[np.unsignedinteger]
    pairs: NDArray[np.int32]
    lengths: NDArray[np.int32]

    NAMES = ("terms", "starts", "documents", "codes", "pairs", "lengths")

    @classmethod
    def of(cls, texts: Iterable[str], tokenize: Tokenizer) -> Postings:
        """Count the tokens of texts."""
        numbers: dict[str, int] = {}
        tokens, lengths = array("q"), array("i")
        for text in texts:
            found = tokenize(text)
            lengths.append(len(found))
            tokens.extend([numbers.setdefault(token, len(numbers)) for token in found])
        length = np.array(lengths, np.int32)
        hashes = text_hashes(numbers)
        order = np.argsort(hashes)
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        document = np.repeat(np.arange(len(length)), length)
        count = max(1, len(length))
        keys, times = np.unique(place[np.array(tokens, np.int64)] * count + document, return_counts=True)
        documents = (keys % count).astype(np.int32)
        pairs, codes = np.unique(times.astype(np.int64) << 32 | length[documents], return_inverse=True)
        starts = np.zeros(len(order) + 1, np.int64)
        np.cumsum(np.bincount(keys // count, minlength=len(order)), out=starts[1:])
        return cls(hashes[order], starts, documents, small(codes, len(pairs)), unpacked(pairs), length)

    @classmethod
    def read(cls, arrays: dict[str, NDArray[np.generic]]) -> Postings:
        """Return postings of arrays that `arrays` named."""
        return cls(**{name: arrays[name] for name in cls.NAMES})  # type: ignore[arg-type]

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the arrays by name."""
        return {name: getattr(self, name) for name in self.NAMES}

    def of_term(self, term: int) -> TermPostings:
        """Return the postings of the token with this hash, none if no document holds it."""
        at = int(np.searchsorted(self.terms, np.uint64(term)))
        if at == len(self.terms) or int(self.terms[at]) != term:
            return TermPostings(self.documents[:0], self.codes[:0])
        part = slice(int(self.starts[at]), int(self.starts[at + 1]))
        return TermPostings(self.documents[part], self.codes[part])


def small(codes: NDArray[np.int64], size: int) -> NDArray[np.unsignedinteger]:
    """Return codes below `size` in as few bytes as hold them."""
    return codes.astype(np.uint8 if size <= 1 << 8 else np.uint16 if size <= 1 << 16 else np.uint32)


def unpacked(pairs: NDArray[np.int64]) -> NDArray[np.int32]:
    """Return (count, length) of the upper and the lower 32 bits, `[n, 2]`."""
    return np.stack([pairs >> 32, pairs & 0xFFFFFFFF], axis=1).astype(np.int32)
