"""Ranking of a search's first candidates: the texts that a ranker must score, and the order by its scores."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Optional

import numpy as np

from paddle_ranker.array_types import Floats
from paddle_ranker.errors import refuse_text
from paddle_ranker.retrieval.stages.fusion import FEATURE_DEPTH, TITLE, FusedList, ListFeatures, by_score
from paddle_ranker.retrieval.stages.query import SearchedQuery
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.work.turns import checked, reserve

if TYPE_CHECKING:
    from paddle_ranker.encoding.pair_encoder import PairEncoder
    from paddle_ranker.lexical.passages import Span
    from paddle_ranker.retrieval.stages.ranker_texts import TokenCounter
    from paddle_ranker.scoring.table_answers import TableAnswer

_READ_AT_ONCE = 32  # documents that are in memory while a ranker's texts are made


class CandidateRanking:
    """The candidates of a query as a ranker reads them, and its scores of the first ones.

    Args:
        query: the query.
        fused: the candidates.

    Attributes:
        passages: spans of the texts that `to_rank` returned, by row.
        whole: ids of documents that the ranker reads whole, by index of the document's text in the result of `to_rank`.
        logits, probabilities: the ranker's scores, by row; empty until `rank`.
        is_calibrated: whether `probabilities` are calibrated.
        added: by signal: its summand of each ranked document's score, by row; set by `rank`.
        order: rows, best first; those of `fused` until `rank` orders the first ones.
        answer_of: called with the index of a text in the result of `to_rank`; returns the cells of this table that
            answer the query, None for another text. The attribute is None if the ranker names no cells.
    """

    def __init__(self, query: SearchedQuery, fused: FusedList):
        self.query, self._fused = query, fused
        self.passages: dict[int, Span] = {}
        self.whole: dict[int, str] = {}
        self.logits, self.probabilities = dict[int, float](), dict[int, float]()
        self.added, self.is_calibrated = dict[str, dict[int, float]](), False
        self.answer_of: Optional[Callable[[int], Optional[TableAnswer]]] = None
        self._answers: dict[int, Optional[TableAnswer]] = {}  # by row, for `answer`
        self._scored_as: dict[int, int] = {}  # by row of a ranked document: index of its text in `to_rank`
        self._ranked: list[int] = []  # rows that `rank` has ordered

    @property
    def order(self) -> list[int]:
        return [*self._ranked, *self._fused.order[len(self._ranked) :]]

    def documents_at(self, rows: Sequence[int]) -> Iterator[dict[int, Document]]:
        """Yield the documents of the candidates at `rows`, a few at a time, by row, in any order."""
        row_of = {self._fused.candidates.ids[row]: row for row in rows}
        documents = self.query.collection.each([*row_of])
        while batch := {row_of[id]: document for id, document in islice(documents, _READ_AT_ONCE)}:
            yield batch

    def read(self, documents: Sequence[Document], encoder: Optional[TokenCounter] = None) -> list[tuple[Span, str]]:
        """Cut documents for a ranker by `texts_for_ranker`, to the passages that the search has found."""
        refuse_text(documents, "documents", Document)
        from paddle_ranker.retrieval.stages.ranker_texts import texts_for_ranker

        return texts_for_ranker(self.query, documents, encoder, self._fused.spans)

    def list_features(self) -> tuple[list[int], ListFeatures]:
        """Return the rows of the first documents of the fused list, best first, and their features.

        Features of texts are computed from the part of each text that a ranker of 128 tokens would read.
        """
        from paddle_ranker.lexical.features import list_features
        from paddle_ranker.retrieval.stages.ranker_texts import EstimatedTokens

        query, fused = self.query, self._fused
        top, texts = fused.order[:FEATURE_DEPTH], dict[int, str]()
        for documents in self.documents_at(top):
            texts.update(zip(documents, (text for _, text in self.read([*documents.values()], EstimatedTokens()))))
        tokenize = query.collection.info.schema.analyser
        weights = query.word_weights or dict.fromkeys(tokenize(query.model_text), 1.0)
        of_texts = list_features(query.model_text, weights, checked([texts.get(row, "") for row in top]), tokenize)
        return top, ListFeatures.of(fused.candidates, top, fused.scores[top], of_texts)

    def to_rank(self, count: int, encoder: Optional[PairEncoder] = None) -> list[str]:
        """Cut the first `count` documents with `read`; return the distinct texts that the ranker must score."""
        top, texts, whole = self._fused.order[:count], dict[int, str](), list[int]()
        for documents in self.documents_at(top):
            for (row, document), (span, text) in zip(documents.items(), self.read([*documents.values()], encoder)):
                self.passages[row], texts[row] = span, text
                if span == (0, len(document.text)):
                    whole.append(row)
        reserve(sum(map(sys.getsizeof, texts.values())))
        # Equal texts are scored once: in two batches their logits would differ in the last digits, and not be ties.
        numbers = {text: number for number, text in enumerate(dict.fromkeys(texts[row] for row in top))}
        self._scored_as = {row: numbers[texts[row]] for row in top}
        self.whole = {numbers[texts[row]]: self._fused.candidates.ids[row] for row in whole}
        return list(numbers)

    def rank(self, logits: Floats, probabilities: Floats, *, is_calibrated: bool = False) -> None:
        """Order the documents of `to_rank` by the sum of logit, weighted share, signals and title bonus.

        `Fusion.shares`, `Fusion.added` and `Fusion.titles_share` give the summands. Equal sums are ordered by id.

        logits, probabilities: the ranker's scores of the texts that `to_rank` returned, `[texts]`
        is_calibrated: whether the probabilities are calibrated
        """
        self.is_calibrated = is_calibrated
        fusion, candidates, top = self._fused.fusion, self._fused.candidates, [*self._scored_as]
        numbers = [*self._scored_as.values()]
        logits, probabilities = logits[numbers], probabilities[numbers]
        weight = fusion.recall_weight
        shares = fusion.shares(candidates)[top] if weight else np.zeros(len(top))
        added = fusion.added(candidates, top, self.query.collection.values)
        self.added = {name: dict(zip(top, values.tolist())) for name, values in added.items()}
        scores = logits + weight * shares + sum(added.values())
        titled = candidates.titled[top]
        if titled.any():
            title_scores = fusion.titles_share(titled, scores)
            scores, self.added[TITLE] = scores + title_scores, dict(zip(top, title_scores.tolist()))
        self._ranked = [top[number] for number in by_score(scores, [candidates.ids[row] for row in top])]
        self.logits = dict(zip(top, logits.tolist()))
        self.probabilities = dict(zip(top, probabilities.tolist()))

    def answer(self, row: int) -> Optional[TableAnswer]:
        """Return the cells of a table that answer the query; None unless a ranker that names cells scored the table."""
        if self.answer_of is None or row not in self.logits:
            return None
        if row not in self._answers:
            self._answers[row] = self.answer_of(self._scored_as[row])
        return self._answers[row]
