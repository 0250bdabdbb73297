"""Results of a search: its documents with what is shown of them, as Python callers, commands and servers get them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional

from paddle_ranker.retrieval.stages.fusion import FusedList
from paddle_ranker.retrieval.stages.page import ListPage
from paddle_ranker.retrieval.stages.query import SearchedQuery
from paddle_ranker.retrieval.stages.ranking import CandidateRanking
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.schema import PLACES

if TYPE_CHECKING:
    from paddle_ranker.lexical.highlights import Highlight
    from paddle_ranker.lexical.passages import Span
    from paddle_ranker.retrieval.stored.places import PlaceInFile
    from paddle_ranker.scoring.table_answers import TableAnswer


@dataclass(frozen=True)
class SearcherScore:
    """Score of a document by one searcher, and the document's rank, from 1, in the searcher's list."""

    score: float
    rank: int


@dataclass(frozen=True)
class Result:
    """Document that a search returns.

    score: the fused score; with a single searcher, its score; 0 if the list is sorted by fields
    searchers: score and rank by each searcher that found the document, by its name
    title: the document's title, if the schema has a title field
    passage: start and end, in code points, of the part of the text that the ranker read. If no ranker read
        the text: of the passage whose vector was found, or else of the whole text
    logit, probability: the ranker's scores; None if the ranker did not score the document
    similar: ids of candidates that were left out, because their text is nearly the same as this document's
    place: the document's place in the file that it was read from: `{"page": 3, "boxes": [[x0, y0, x1, y1], ...]}`,
        `{"seconds": [[from, to], ...]}` or `{"cells": [[row, column], ...]}`. Boxes, seconds and cells show the query's
        words in the text, or else `passage`. None for a document that was not read from a file
    answer: cells of a table that answer the query, if the ranker names cells; `place` then has these cells
    signals: contribution of each searcher, feature and signal to the scores; only `explained_results` sets them
    """

    id: str
    text: str
    fields: Mapping[str, object]
    score: float
    searchers: Mapping[str, SearcherScore]
    title: Optional[str] = None
    passage: tuple[int, int] = (0, 0)
    logit: Optional[float] = None
    probability: Optional[float] = None
    similar: tuple[str, ...] = ()
    place: Optional[PlaceInFile] = None
    answer: Optional[TableAnswer] = None
    signals: Optional[Mapping[str, object]] = None


class HitDetails:
    """Details that are shown of a page's documents beside their texts, by row.

    Args:
        query: the query.
        fused, ranking: the candidates with their scores.
        page: the page that has the documents.
    """

    def __init__(self, query: SearchedQuery, fused: FusedList, ranking: CandidateRanking, page: ListPage):
        self._query, self._fused, self._ranking, self._page = query, fused, ranking, page
        self._schema = query.collection.info.schema

    def document(self, row: int) -> Document:
        return self._page.documents[self._fused.candidates.ids[row]]

    def span_of(self, row: int) -> Span:
        """Return `Result.passage` of a document."""
        document = self.document(row)
        return self._ranking.passages.get(row) or self._fused.spans.get(document.id, (0, len(document.text)))

    def place_in_file(self, row: int, highlights: Optional[Sequence[Highlight]] = None) -> Optional[PlaceInFile]:
        """Return `Result.place` of a document.

        highlights: parts of the document's text with words of the query; None: they are computed
        """
        document, schema = self.document(row), self._schema
        if schema.reader_of(document) is None:
            return None
        from paddle_ranker.retrieval.stored.places import MOST_PLACES, place_of

        if highlights is None:
            highlights = self._query.shared_words.highlights(document.text)
        spans = [(highlight.start, highlight.end) for highlight in highlights]
        piece = self._fused.pieces.get(document.id)
        if not spans and piece is None:
            span = self.span_of(row)
            spans = [span if span != (0, len(document.text)) else self._query.shared_words.passage(document.text, [])]
        in_file = place_of(document, schema, spans, piece)
        answer = self._ranking.answer(row)
        if in_file is None or answer is None or not answer.cells:
            return in_file
        return {**in_file, "cells": [[cell.row, cell.column] for cell in answer.cells[:MOST_PLACES]]}

    def result(self, row: int) -> Result:
        """Return a document as a result, without `signals`."""
        candidates, document = self._fused.candidates, self.document(row)
        by_searcher = zip(candidates.searchers, candidates.scores[row].tolist(), candidates.ranks[row].tolist())
        place_in_file = self.place_in_file(row)
        return Result(
            document.id,
            document.text,
            {name: value for name, value in document.fields.items() if place_in_file is None or name != PLACES},
            float(self._fused.scores[row]),
            {name: SearcherScore(score, rank) for name, score, rank in by_searcher if rank},
            self._schema.name_of(document),
            self.span_of(row),
            self._ranking.logits.get(row),
            self._ranking.probabilities.get(row),
            tuple(self._page.similar.get(row, ())),
            place_in_file,
            self._ranking.answer(row),
        )
