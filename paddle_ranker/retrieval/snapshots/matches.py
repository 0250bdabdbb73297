"""The documents of a snapshot that match a query: their number, their facets, and their order by fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Optional

import numpy as np

from paddle_ranker.array_types import Booleans
from paddle_ranker.retrieval.snapshots.open_segments import Generation
from paddle_ranker.retrieval.values.facets import Counts, Facets, FieldScale, Wanted, facets_of
from paddle_ranker.retrieval.values.filters import Filter
from paddle_ranker.retrieval.values.listing import SortedDocument
from paddle_ranker.retrieval.values.typed_values import TYPES
from paddle_ranker.retrieval.work.turns import checked

FACET_BYTES = 1 << 20  # values of a field are counted one by one if each segment has at most this many bytes of them


class Matches:
    """Documents of a generation that match a query.

    Args:
        now: the generation.
        masks: for each segment of the generation, which of its documents match, `[documents] bool`.
    """

    def __init__(self, now: Generation, masks: list[Booleans]):
        self._now, self._masks = now, masks

    def count(self, where: Optional[Filter]) -> int:
        """Return how many of the documents meet a filter; None counts all documents."""
        return sum(int(np.count_nonzero(mask)) for mask in self._meeting(where))

    def facets(self, wanted: Mapping[str, Optional[Filter]]) -> dict[str, dict[str, int]]:
        """Count the documents by the values of fields; a list counts for each of its items.

        Returns, by field, counts by value in JSON, the most frequent first. If a field has many numbers or dates, they
        are counted by ranges, ascending, each written as a condition that `Filter.of` takes. Raises `UsageError` for a
        field with too many other values.

        wanted: the fields; each has a filter that documents must meet to be counted, or None
        """
        typed = {name: Wanted(self._now.type_of(name), where) for name, where in wanted.items()}
        return facets_of(typed, lambda: [self.scales(typed)], lambda others: [self.values(others)])

    def scales(self, wanted: Facets) -> dict[str, FieldScale]:
        """Return the distributions of the numbers or dates that the documents have in fields; see `facets`."""
        return {
            name: self._now.scaled(name, type, self._meeting(where), FACET_BYTES)
            for name, (type, where) in wanted.items()
        }

    def values(self, wanted: Facets) -> dict[str, Counts]:
        """Count the values of fields; see `facets`."""
        by_field = dict[str, Counts]()
        for name, (type, where) in wanted.items():
            counts = by_field[name] = Counts()
            for part, mask in zip(self._now.parts, self._meeting(where)):
                counted = part.segment.value_counts(name, mask).tolist()
                for value, count in checked(zip(part.segment.values_of(name), counted)):
                    items = {item.key: item for item in TYPES[type].values(value)} if count else {}
                    counts.update(dict.fromkeys(items.values(), count))
        return by_field

    def first(
        self,
        sort: Sequence[str],
        count: int,
        after: Optional[SortedDocument] = None,
        where: Optional[Filter] = None,
        types: Sequence[str] = (),
    ) -> list[SortedDocument]:
        """Return the first `count` documents that meet a filter, in the order of fields.

        sort: the fields, `-year` for the highest first
        after: only documents that follow this one; None: from the first
        types: types of the fields in `sort`, on which several shards agree; empty: the types that fit this shard
        """
        from paddle_ranker.retrieval.snapshots.sorting import first_of_segment, merge_sorted, sort_keys

        keys = sort_keys(sort, types or self._now.type_of)
        pairs = zip(self._now.parts, self._meeting(where))
        return merge_sorted(
            [first_of_segment(part.segment, mask, keys, after, count) for part, mask in pairs], keys, count
        )

    def _meeting(self, where: Optional[Filter]) -> list[Booleans]:
        return [mask & allowed for mask, allowed in zip(self._masks, self._now.allowed(where) or self._masks)]
