"""Page of a search's list: documents are cut off and grouped, near duplicates left out, and the next page begins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Optional, Union

import numpy as np

from paddle_ranker.lexical.postings import Hashes, text_hashes
from paddle_ranker.retrieval.snapshots.searchable import Snapshot
from paddle_ranker.retrieval.stages.fusion import FusedList
from paddle_ranker.retrieval.stages.ranking import CandidateRanking
from paddle_ranker.retrieval.values.bounds import MOST_SHOWN
from paddle_ranker.retrieval.values.listing import CONTENT, Listing, Position, SortedDocument, SortedPosition
from paddle_ranker.retrieval.work.turns import check, reserve


class ListPage:
    """Page of a list. Making it chooses the documents that are shown, and reads them.

    Args:
        collection: the snapshot that is searched.
        fused, ranking: the list's candidates, and their order.
        listing: which documents are shown.
        sorted_documents: the candidates with their keys if fields order the list, else None.

    Attributes:
        cut: number of documents below `min_probability`, which are left out.
        order: rows of the list without these and without the rest of each group, best first.
        offset: number of documents on the pages before.
        shown: rows of the documents that are shown.
        documents: the documents that are shown, by id; `dropped` adds those that it returns.
        similar: ids of documents left out as near duplicates, by row of the document that is shown in their place.
    """

    def __init__(
        self,
        collection: Snapshot,
        fused: FusedList,
        ranking: CandidateRanking,
        listing: Listing,
        sorted_documents: Optional[Sequence[SortedDocument]] = None,
    ):
        self._collection, self._fused, self._ranking, self._listing = collection, fused, ranking, listing
        self._sorted, self._ids, after = sorted_documents, fused.candidates.ids, listing.after
        self.similar: dict[int, list[str]] = {}
        order = [row for row in ranking.order if not self.is_cut(row)]
        self.cut = len(fused.order) - len(order)
        before = set[int]()
        if isinstance(after, Position):  # shown documents come first, so that they stay the first of their groups
            is_shown = np.isin(self._hashes(order), after.hashes)
            before = {row for row, is_so in zip(order, is_shown.tolist()) if is_so}
            order = [*filter(before.__contains__, order), *(row for row in order if row not in before)]
        self.order = order if listing.group_by is None else self._grouped(order, listing.group_by)
        self._begins = self.offset = listing.offset  # `_begins`: index in `order` of the first document that is shown
        if isinstance(after, SortedPosition):
            self._begins, self.offset = 0, after.shown
        elif after is not None:
            self._begins, self.offset = sum(row in before for row in self.order), len(after.hashes)
        self.shown = self.order[self._begins : self._begins + listing.top_k]
        self.documents = collection.documents_of([self._ids[row] for row in self.shown])

    def is_cut(self, row: int) -> bool:
        """Return whether a candidate's probability is below `min_probability`; False if the candidate is not ranked."""
        return self._ranking.probabilities.get(row, 1.0) < self._listing.min_probability

    def dropped(self) -> dict[int, int]:
        """Return the documents that the ranker has removed from the first page: rank after ranking, by row.

        The ranker moved such a document behind the page, or gave it a probability below `min_probability`. The
        documents are added to `documents`. Documents that grouping leaves out do not count. The result is empty for a
        later page, for a list that is not ranked, and for a list that is sorted by fields.
        """
        top_k, after = self._listing.top_k, self._listing.after
        if not self._ranking.logits or self.offset or after is not None or self._sorted is not None:
            return {}
        ended = {row: rank for rank, row in enumerate(self._ranking.order, start=1) if self.is_cut(row)}
        ended.update((row, rank) for rank, row in enumerate(self.order, start=1) if rank > top_k)
        ranks = {row: ended[row] for row in self._fused.order[:top_k] if row in ended}
        self.documents.update(self._collection.documents_of([self._ids[row] for row in ranks]))
        return ranks

    def position(self) -> Union[Position, SortedPosition, None]:
        """Return the position at which the next page begins; None if this page is the last."""
        if not self.shown or self._begins + len(self.shown) >= len(self.order):
            return None
        if self._sorted is not None and self._listing.group_by is None:
            return SortedPosition(self.offset + len(self.shown), self._sorted[self.shown[-1]])
        after, is_ranked = self._listing.after, bool(self._ranking.logits)
        if not isinstance(after, Position):
            return Position(is_ranked, self._hashes(self.order[: self._begins + len(self.shown)]).tobytes())
        before = after.hashes
        if len(before) > MOST_SHOWN:
            before = before[np.isin(before, self._hashes(self._fused.order))]
        return Position(is_ranked, before.tobytes() + self._hashes(self.shown).tobytes())

    def _hashes(self, rows: Sequence[int]) -> Hashes:
        return text_hashes([self._ids[row] for row in rows])

    def _grouped(self, order: Sequence[int], field: str) -> list[int]:
        """Return the rows of the first `group_size` documents of each group, in order.

        A document without a value of the field is a group by itself. If `field` means groups of nearly equal texts,
        `similar` gets the ids of the documents that are left out.

        order: rows of the documents
        """
        are_texts = field == CONTENT and CONTENT not in self._collection.fields
        keys: Sequence[object]
        if are_texts:
            leaders = self._leaders(order)
            keys = leaders
        else:
            values_of_documents = self._collection.values(field, [self._ids[row] for row in order])
            value_keys = (tuple(value.key for value in values) for values in values_of_documents)
            keys = [key or row for row, key in zip(order, value_keys)]  # no number is equal to a tuple
        seen, kept = Counter[object](), list[int]()
        for number, (row, key) in enumerate(zip(order, keys)):
            seen[key] += 1
            if seen[key] <= self._listing.group_size:
                kept.append(row)
            elif are_texts:
                self.similar.setdefault(leaders[number], []).append(self._ids[row])
        return kept

    def _leaders(self, order: Sequence[int]) -> list[int]:
        """Return, for each document in `order`, the row of the first document in `order` with nearly the same text.

        order: rows of the documents
        """
        from paddle_ranker.retrieval.stages.near_duplicates import Sketches, leaders, sketches_of

        check()
        rank = {row: number for number, row in enumerate(order)}
        sketches, with_text = list[Sketches](), list[int]()
        for documents in self._ranking.documents_at(order):
            texts = {row: document.text for row, document in documents.items() if document.text.strip()}
            with_text += texts
            sketches.append(sketches_of([*texts.values()]))
        if not with_text:
            return [*order]
        reserve(sum(sketch.nbytes for sketch in sketches))
        by_rank = sorted(range(len(with_text)), key=lambda index: rank[with_text[index]])
        first = leaders(np.concatenate(sketches)[by_rank])
        leader_of = {with_text[index]: with_text[by_rank[number]] for index, number in zip(by_rank, first)}
        return [leader_of.get(row, row) for row in order]
