"""Sort all matching documents by the values of fields, page by page, over segments and shards.

keys = [SortKey("year", "number", descending=True)]
page = first_of_segment(segment, mask, keys, None, 10)
page = first_of_segment(segment, mask, keys, page[-1], 10)  # the next one
merge_sorted([page, page_of_another_segment], keys, 10)

Documents with equal values are ordered by the hash of the id, then by the id, as listings of documents are. So the
order of two documents depends on their values and ids alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Optional, Union

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.array_types import Booleans
from paddle_ranker.lexical.postings import text_hashes
from paddle_ranker.retrieval.stored.segments import Segment
from paddle_ranker.retrieval.values.listing import SortedDocument
from paddle_ranker.retrieval.values.typed_values import order_value
from paddle_ranker.retrieval.work.turns import check, checked

_AT_ONCE = 1 << 16  # rows of a segment that are ordered at a time
_MISSING = np.iinfo(np.int64).max  # key of a document without a value: it comes last in both directions


class SortKey(NamedTuple):
    """Field to sort by, and the type of its values."""

    field: str
    type: str
    descending: bool = False


def sort_keys(sort: Sequence[str], types: Union[Sequence[str], Callable[[str], str]]) -> list[SortKey]:
    """Return the sort keys of `sort`: names of fields, `-year` for the highest first.

    types: type of each field in `sort`, in order; or a function from a field's name to its type
    """
    names = [name.removeprefix("-") for name in sort]
    field_types = [types(name) for name in names] if callable(types) else types
    return [SortKey(name, type, text.startswith("-")) for name, type, text in zip(names, field_types, sort)]


def first_of_segment(
    segment: Segment, mask: Booleans, keys: Sequence[SortKey], after: Optional[SortedDocument], count: int
) -> list[SortedDocument]:
    """Return the first `count` matching documents of a segment in the order of `keys`.

    mask: which documents match, `[documents] bool`
    after: only documents that follow this one; None: from the first
    """
    hashes, rows = segment.arrays["id_hashes"]  # in the order of the hashes, which is that of equal values
    tables, bounds = [], list[int]()
    for number, key in enumerate(keys):
        values, sign = segment.typed_values(key.field, key.type), -1 if key.descending else 1
        table = np.where(values.ranks < 0, _MISSING, 2 * sign * values.ranks.astype(np.int64))
        tables.append((np.append(table, _MISSING), segment.codes_of(key.field)))  # the code -1 takes the last entry
        value = None if after is None else after.values[number]
        bounds.append(_MISSING if value is None else sign * values.doubled_rank(value))
    if after is not None:
        bounds.append(int(text_hashes([after.id])[0]))
    kept = [np.empty(0, np.int64) for _ in keys] + [np.empty(0, np.uint64), np.empty(0, np.int64)]
    # Without keys the rows are in order already: begin behind `after`, and end with the page.
    begin = 0 if keys or after is None else int(np.searchsorted(hashes, np.uint64(bounds[-1])))
    for start in range(begin, len(rows), _AT_ONCE):
        check()
        if not keys and len(kept[0]) >= count and hashes[start] > kept[0][-1]:
            break
        here = rows[start : start + _AT_ONCE].astype(np.int64)
        is_here = mask[here]
        here, id_hashes = here[is_here], hashes[start : start + _AT_ONCE][is_here]
        columns: list[NDArray[np.generic]] = [table[codes[here]] for table, codes in tables]
        columns += [id_hashes, here]
        if after is not None:
            is_behind, is_equal = _behind(columns, bounds)
            equal = np.flatnonzero(is_equal)  # equal but for the id: mostly the document `after` itself
            is_behind[equal] = [id > after.id for id in segment.ids(here[equal])]
            columns = _taken(columns, is_behind)
        if len(kept[0]) >= count:
            columns = _taken(columns, columns[0] <= kept[0][-1])
        kept = [np.concatenate(both) for both in zip(kept, columns)]
        order = np.lexsort(kept[-2::-1])
        if len(order) > count:  # also keep rows that equal the last one but for their ids, which are not read yet
            last = [column[order[count - 1]] for column in kept[:-1]]
            is_last = np.all([column[order] == value for column, value in zip(kept, last)], axis=0)
            order = order[: max(count, int(np.flatnonzero(is_last)[-1]) + 1)]
        kept = _taken(kept, order)
    documents = [
        SortedDocument(tuple(order_value(segment.value(key.field, key.type, row)) for key in keys), id)
        for row, id in checked(zip(kept[-1].tolist(), segment.ids(kept[-1])))
    ]
    return merge_sorted([documents], keys, count)


def merge_sorted(
    lists: Iterable[Sequence[SortedDocument]], keys: Sequence[SortKey], count: int
) -> list[SortedDocument]:
    """Merge sorted lists; return the first `count` documents of all lists."""
    first = list[SortedDocument]()
    for documents in checked(lists):
        first = _sorted([*first, *documents], keys)[:count]
    return first


def _sorted(documents: Sequence[SortedDocument], keys: Sequence[SortKey]) -> list[SortedDocument]:
    hashes = text_hashes(document.id for document in documents).tolist()
    by_hash = sorted((hashed, document.id, document) for hashed, document in zip(hashes, documents))
    ordered = [document for _, _, document in by_hash]
    for number, key in reversed([*enumerate(keys)]):
        check()
        orders = {document: value.order for document in ordered if (value := document.values[number]) is not None}
        with_value = [document for document in ordered if document in orders]
        with_value.sort(key=orders.__getitem__, reverse=key.descending)
        ordered = with_value + [document for document in ordered if document not in orders]
    return ordered


def _taken(columns: Sequence[NDArray[np.generic]], which: NDArray[np.generic]) -> list[NDArray[np.generic]]:
    return [column[which] for column in columns]


def _behind(columns: Sequence[NDArray[np.generic]], bounds: Sequence[int]) -> tuple[Booleans, Booleans]:
    """Return which rows sort after `bounds`, a value per column, and which rows equal it, `[rows] bool` each."""
    is_behind = np.zeros(len(columns[0]), bool)
    is_equal = np.ones(len(columns[0]), bool)
    for column, bound in zip(columns, bounds):
        limit = column.dtype.type(bound)
        is_behind |= is_equal & np.greater(column, limit)
        is_equal &= np.equal(column, limit)
    return is_behind, is_equal
