"""Parameters of a list of results, and the position after which the next page begins."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Optional, Union

import numpy as np

from paddle_ranker.errors import refuse_text
from paddle_ranker.lexical.postings import Hashes
from paddle_ranker.retrieval.values.filters import Filter
from paddle_ranker.retrieval.values.search_defaults import TOP_K
from paddle_ranker.retrieval.values.typed_values import Value, is_value
from paddle_ranker.storage.untrusted import Unchecked

CONTENT = "content"  # `group_by` this name groups near duplicates, unless the index has a field of this name

_SORTED = 2  # first byte of a packed `SortedPosition`


class Position(NamedTuple):
    """Position after a page of a list: the documents that the pages so far have shown.

    The next page has the best documents that no page has shown. So each document is shown once, even if documents and
    scores change between pages.

    is_ranked: whether the ranker ordered the first documents of the list
    shown: hashes of the shown documents' ids, 8 bytes each, see `text_hashes`
    """

    is_ranked: bool
    shown: bytes

    def packed(self) -> bytes:
        """Return the position as bytes, for `unpack_position`."""
        return bytes([self.is_ranked]) + self.shown

    @classmethod
    def unpacked(cls, packed: bytes) -> Position:
        """Convert the bytes of `packed` back to the position; raises `ValueError` for other bytes."""
        if len(packed) % 8 != 1 or packed[0] > 1:
            raise ValueError("no position in a list")
        return cls(bool(packed[0]), packed[1:])

    @property
    def hashes(self) -> Hashes:
        """The hashes of the shown documents' ids, `[n] uint64`."""
        return np.frombuffer(self.shown, "<u8")

    def fits(self, sort: Optional[Sequence[str]], group_by: Optional[str]) -> bool:
        """Return whether this can be a position in a list.

        sort: fields by which the list is sorted, [] for the documents' own order; None: it is ordered by score
        group_by: field by which the list is grouped
        """
        return sort is None or group_by is not None


class SortedDocument(NamedTuple):
    """Document of a sorted list, with the key by which it is sorted.

    values: for each sort key, the document's value, or the first item of its list; None without a value
    id: the document's id
    """

    values: tuple[Optional[Value], ...]
    id: str


class SortedPosition(NamedTuple):
    """Position after a page of a list that is sorted by fields.

    The next page begins after the last document's values and id, so a document that keeps its values is shown once.

    shown: number of documents on the pages so far
    last: the last document on the pages so far
    """

    shown: int
    last: SortedDocument

    def packed(self) -> bytes:
        values = [None if value is None else [value.kind, value.of, value.unit] for value in self.last.values]
        return bytes([_SORTED]) + json.dumps([self.shown, self.last.id, values], ensure_ascii=False).encode()

    @classmethod
    def unpacked(cls, packed: bytes) -> SortedPosition:
        parts: Unchecked = json.loads(packed[1:])
        try:
            count, id, values = parts
            typed = tuple(None if value is None else Value(*value) for value in values)
            is_whole = type(count) is int and count > 0 and isinstance(id, str)
        except TypeError as error:
            raise ValueError("no position in a list") from error
        if not is_whole or not all(value is None or is_value(value) for value in typed):
            raise ValueError("no position in a list")
        return cls(count, SortedDocument(typed, id))

    def fits(self, sort: Optional[Sequence[str]], group_by: Optional[str]) -> bool:
        return sort is not None and len(sort) == len(self.last.values) and group_by is None


def unpack_position(packed: bytes) -> Union[Position, SortedPosition]:
    """Convert the bytes of a position's `packed` back to the position; raises `ValueError` for other bytes."""
    return (SortedPosition if packed[:1] == bytes([_SORTED]) else Position).unpacked(packed)


@dataclass(frozen=True)
class Listing:
    """Order of a search's list, and the part of the list that is shown.

    top_k: number of documents that are shown
    offset: number of documents that are skipped before
    after: position after the previous page, in place of `offset`
    where: filter that the documents must meet
    min_probability: documents to which the ranker gives a lower probability are left out
    sort: fields by which all matching documents are ordered, `-year` for the highest first; empty: by score, or, of a
        query without words, as `Search.sort` says. Matching documents are those of `Search.total`; if words are not
        searched, all documents that meet the filter. Sorted documents are not scored
    group_by: field by whose values candidates are grouped; `content`, unless a field has this name, groups nearly equal
        texts; None: no groups. With `sort`, the candidates are the first `depth` documents
    group_size: number of documents of each group that are shown
    """

    top_k: int = TOP_K
    offset: int = 0
    after: Union[Position, SortedPosition, None] = None
    where: Optional[Filter] = None
    min_probability: float = 0.0
    sort: Sequence[str] = ()
    group_by: Optional[str] = None
    group_size: int = 1

    def __post_init__(self) -> None:
        refuse_text(self.sort, "sort")
