"""Explanations of words: the best are listed, the others are counted, and all of them add up to the score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.stages.explanations import explained_results
from paddle_ranker.retrieval.stages.fusion import TITLE_MATCH
from paddle_ranker.retrieval.stages.search import SearchSettings
from paddle_ranker.retrieval.stages.search_engine import SearchEngine
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import IndexInfo, WordsInfo

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("count", [1, 32, 33, 50])
@pytest.mark.parametrize("sort", [(), ("year",)])
def test_terms_beyond_the_most_are_counted_and_summed(count: int, sort: tuple[str, ...], tmp_path: Path) -> None:
    words = [f"z{chr(98 + number // 10)}{chr(98 + number % 10)}" for number in range(count)]
    with Collection.create(tmp_path / "index", IndexInfo(WordsInfo("standard"), None)) as collection:
        texts = [" ".join(words), *(" ".join(words[number:]) for number in range(count))]
        collection.writer.add([Document(f"d{n}", text, {"year": n}) for n, text in enumerate(texts)])
        (search,) = SearchEngine(collection, SearchSettings()).run([" ".join(words)], sort=sort)
        for result in explained_results(search):
            assert result.signals is not None
            by_words: Any = result.signals["words"]
            had = len(result.text.split())
            assert len(by_words["terms"]) == min(had, 32)
            more = by_words.get("more", {"terms": 0, "added": 0.0})
            assert more["terms"] == max(had - 32, 0) and ("more" in by_words) == (had > 32)
            by_title: Any = result.signals.get(TITLE_MATCH, {"added": 0.0})  # a part of the score by words, too
            added = sum(term["added"] for term in by_words["terms"]) + more["added"] + by_title["added"]
            assert added == pytest.approx(by_words["value"])
