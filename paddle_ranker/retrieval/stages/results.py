"""Results of a search: its documents, as Python callers and commands get them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional

if TYPE_CHECKING:
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
