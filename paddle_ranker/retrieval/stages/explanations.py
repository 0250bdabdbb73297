"""Explain the scores of a search's documents: which searcher, feature or signal added how much, in which stage.

    explanation = Explanation(search, search.page.shown)
    explanation.signals(row, text, search.query.shared_words.highlights(text))
    # {"words": {"value": 2.1, "added": 0.4, "to": "fused", "terms": [...]}, "ranker": {...}}

`Index.search` and `/v1/search` answer with signals if `explain` is set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Optional

from paddle_ranker.array_types import Floats
from paddle_ranker.lexical.highlights import FoldedText, Highlight, level_of, occurrences_of
from paddle_ranker.retrieval.stages.fusion import TITLE, TITLE_MATCH, FusedList
from paddle_ranker.retrieval.stages.ranking import CandidateRanking
from paddle_ranker.retrieval.stages.results import Result
from paddle_ranker.retrieval.stages.search import FEATURES, Search
from paddle_ranker.retrieval.stored.manifest import WORDS
from paddle_ranker.retrieval.work.turns import checked

FUSED, RANKED, SORTED = "fused", "ranked", "sorted"  # stages to whose scores signals add
_MOST_TERMS = 32  # terms in the explanation of a document


class Explanation:
    """Explanation of the scores of some documents of a finished search.

    Args:
        search: the search.
        rows: the documents' rows.
    """

    def __init__(self, search: Search, rows: Sequence[int]):
        query, fused = search.query, search.fused
        self._query, self._fused, self._ranking = query, fused, search.ranking
        ids, collection = [fused.candidates.ids[row] for row in rows], search.collection
        has_words = WORDS in query.searchers and not query.is_browsing
        self._terms = collection.explain_words(query.words, ids, fused.fusion.fields) if has_words else {}
        self._stands_for = collection.words_given(query.words) if has_words and query.words.extras else {}
        self._parts = None if search.is_sorted else fused.fusion.parts(fused.candidates)
        self._shares = None if search.is_sorted else fused.fusion.shares(fused.candidates)

    def signals(self, row: int, text: str, highlights: Sequence[Highlight]) -> Optional[dict[str, dict[str, object]]]:
        """Return a document's signals by name, JSON-ready; None if the list is sorted and words are not searched.

        A signal is a dict: its `value`, the summand that it `added` to a score, and in `to` the stage of that score.
        The signal `words` also has `terms`, the best ones; and, if there are others, `more`, with their number and what
        they added together. The signal `match` has added nothing.

        text: the beginning of the document's text, in which terms are looked for
        highlights: parts of `text` with words of the query
        """
        terms = self._terms.get(self._fused.candidates.ids[row])
        folded = FoldedText(text, self._query.collection.info.schema.analyser)
        if self._parts is None or self._shares is None:
            if terms is None:
                return None
            # A sorted search has no scores, but words would have added these summands.
            value = sum(terms.values())
            return {WORDS: {"value": value, "added": 0.0, "to": SORTED, **_terms(terms, folded, self._stands_for)}}
        by_feature = self._fused.by_feature.get(row)
        of_searchers = self._parts[row] if by_feature is None else by_feature.searchers
        signals = _signals(self._fused, self._ranking, row, of_searchers, float(self._shares[row]))
        if terms is not None and WORDS in signals:
            signals[WORDS].update(_terms(terms, folded, self._stands_for))
        if row in self._ranking.logits:
            signals["match"] = {"value": max((highlight.level for highlight in highlights), default=0), "to": RANKED}
        return signals


def explained_results(search: Search) -> list[Result]:
    """Return the results of a search's page with their signals, best first."""
    explanation, highlights_of = Explanation(search, search.page.shown), search.query.shared_words.highlights
    return [
        replace(result, signals=explanation.signals(row, result.text, highlights_of(result.text)))
        for row, result in checked(zip(search.page.shown, search.results()))
    ]


def _signals(
    fused: FusedList, ranking: CandidateRanking, row: int, parts: Floats, share: float
) -> dict[str, dict[str, object]]:
    """Return a candidate's signals by name: value, summand, and whether the fused or the final score has the summand.

    row: the candidate's index
    parts: contribution of each searcher to the fused score, `[searchers]`
    share: the candidate's result of `Fusion.shares`
    """
    candidates = fused.candidates
    scored = zip(candidates.searchers, candidates.scores[row].tolist(), parts.tolist())
    signals: dict[str, dict[str, object]] = {
        name: {"value": score, "added": added, "to": FUSED}
        for (name, score, added), rank in zip(scored, candidates.ranks[row].tolist())
        if rank
    }
    if candidates.titles[row]:
        value, added = float(candidates.titles[row]), float(candidates.by_titles[row])
        signals[TITLE_MATCH] = {"value": value, "added": added, "to": WORDS}
    if candidates.titled[row]:
        signals[TITLE] = {"value": 1.0, "added": float(fused.by_whole_title[row]), "to": FUSED}
    if row in fused.by_feature:
        names = candidates.searchers
        of_others = {name: added for name, added in zip(names, parts.tolist()) if name not in signals}
        by_feature = fused.by_feature[row]
        every = {**by_feature.others, **of_others, "first": by_feature.first}
        signals[FEATURES] = {"value": len(every), "added": sum(every.values()), "to": FUSED, "parts": every}
    if row in ranking.logits:
        logit, weight = ranking.logits[row], fused.fusion.recall_weight
        signals["ranker"] = {"value": logit, "added": logit, "to": RANKED}
        if weight:
            signals["recall"] = {"value": share, "added": weight * share, "to": RANKED}
        if candidates.titled[row] and TITLE in ranking.added:
            signals[f"{TITLE}_{RANKED}"] = {"value": 1.0, "added": ranking.added[TITLE][row], "to": RANKED}
        for name, signal in fused.fusion.signals.items():
            summand = ranking.added[name][row]
            key = name if signal.is_field else f"{name}_{RANKED}"  # a searcher adds to the fused score, too
            signals[key] = {"value": summand / signal.weight if signal.weight else 0.0, "added": summand, "to": RANKED}
    return signals


def _terms(added: Mapping[str, float], folded: FoldedText, stands_for: Mapping[str, str]) -> dict[str, object]:
    """Return the terms that added most, as `terms`; and the number and sum of all others, if any, as `more`."""
    ordered = sorted(added.items(), key=lambda item: -item[1])
    terms = []
    for term, value in ordered[:_MOST_TERMS]:
        at = occurrences_of(term, folded)
        explained: dict[str, object] = {"term": term, "added": value, "level": level_of(term), "at": at}
        terms.append(explained | ({"for": stands_for[term]} if term in stands_for else {}))
    others = [value for _, value in ordered[_MOST_TERMS:]]
    return {"terms": terms, **({"more": {"terms": len(others), "added": sum(others)}} if others else {})}
