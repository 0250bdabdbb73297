"""Names of older programs: a `Retriever` is a `Searcher`."""

from __future__ import annotations

from paddle_ranker.retrieval.search import Found as Found
from paddle_ranker.retrieval.search import Result as Result
from paddle_ranker.retrieval.search import Searcher as Retriever
from paddle_ranker.retrieval.search import SearchSettings as SearchSettings

__all__ = ["Found", "Result", "Retriever", "SearchSettings"]
