"""Explain the scores of a search's documents: what each searcher, feature and signal added, and to which stage's score.

    explanation = Explanation(search, search.shown)
    explanation.signals(place, text, search.shared_words.highlights(text))
    # {"words": {"value": 2.1, "added": 0.4, "to": "fused", "terms": [...]}, "ranker": {...}}

`Index.search` and `/v1/search` answer so with `explain`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Optional

from paddle_ranker.array_types import Floats
from paddle_ranker.lexical.highlights import FoldedText, Highlight, level_of, places_of
from paddle_ranker.retrieval.fusion import TITLE, TITLE_MATCH
from paddle_ranker.retrieval.manifest import WORDS
from paddle_ranker.retrieval.search import FEATURES, Result, Search

FUSED, RANKED, SORTED = "fused", "ranked", "sorted"  # stages, whose scores signals add to
_MOST_TERMS = 32  # terms in the explanation of a document


class Explanation:
    """What added to the scores of some documents of a finished search.

    Args:
        found: the search.
        places: the documents' places.
    """

    def __init__(self, found: Search, places: Sequence[int]):
        self._found = found
        ids, collection = [found.candidates.ids[place] for place in places], found.collection
        has_words = WORDS in (found.searchers if found.sort else found.candidates.searchers)
        self._terms = collection.explain_words(found.words, ids, found.fusion.fields) if has_words else {}
        self._given = collection.words_given(found.words) if has_words and found.words.extras else {}
        self._parts = None if found.sort else found.fusion.parts(found.candidates)
        self._shares = None if found.sort else found.fusion.shares(found.candidates)

    def signals(self, place: int, text: str, highlights: Sequence[Highlight]) -> Optional[dict[str, dict[str, object]]]:
        """Return a document's signals by name, JSON-ready; None if it was sorted and has no word of the query.

        A signal has its `value`, what it `added`, and `to` which stage's score; `words` has the `terms`, too.

        text: the beginning of the document's text, in which terms are looked for
        highlights: parts of `text` with words of the query
        """
        found, id = self._found, self._found.candidates.ids[place]
        terms = self._terms.get(id)
        folded = FoldedText(text, found.collection.info.schema.analyser)
        if self._parts is None or self._shares is None:
            if terms is None:
                return None
            # In a sorted search, the words' part of a score that does not count.
            own = _terms(terms, folded, self._given)
            return {WORDS: {"value": sum(terms.values()), "added": 0.0, "to": SORTED, "terms": own}}
        by_feature = found.by_feature.get(place)
        of_searchers = self._parts[place] if by_feature is None else by_feature.searchers
        signals = _signals(found, place, of_searchers, float(self._shares[place]))
        if terms is not None and WORDS in signals:
            signals[WORDS]["terms"] = _terms(terms, folded, self._given)
        if place in found.logits:
            signals["match"] = {"value": max((highlight.level for highlight in highlights), default=0), "to": RANKED}
        return signals


def explained_results(found: Search) -> list[Result]:
    """Return the results of a search's page with their signals, best first."""
    explanation, highlights_of = Explanation(found, found.shown), found.shared_words.highlights
    return [
        replace(one, signals=explanation.signals(place, one.text, highlights_of(one.text)))
        for place, one in zip(found.shown, found.results())
    ]


def _signals(found: Search, place: int, parts: Floats, share: float) -> dict[str, dict[str, object]]:
    """Return, by searcher or signal, its value for a candidate and its summand of the fused or the final score.

    place: the candidate's index
    parts: contribution of each searcher to the fused score, `[searchers]`
    share: the candidate's result of `Fusion.shares`
    """
    said = zip(found.candidates.searchers, found.candidates.scores[place].tolist(), parts.tolist())
    signals: dict[str, dict[str, object]] = {
        name: {"value": score, "added": added, "to": FUSED}
        for (name, score, added), rank in zip(said, found.candidates.ranks[place].tolist())
        if rank
    }
    if found.candidates.titles[place]:
        value, added = float(found.candidates.titles[place]), float(found.candidates.by_titles[place])
        signals[TITLE_MATCH] = {"value": value, "added": added, "to": WORDS}
    if found.candidates.titled[place]:
        signals[TITLE] = {"value": 1.0, "added": float(found.by_whole_title[place]), "to": FUSED}
    if place in found.by_feature:
        names = found.candidates.searchers
        of_others = {name: added for name, added in zip(names, parts.tolist()) if name not in signals}
        by_feature = found.by_feature[place]
        every = {**by_feature.others, **of_others, "first": by_feature.first}
        signals[FEATURES] = {"value": len(every), "added": sum(every.values()), "to": FUSED, "parts": every}
    if place in found.logits:
        logit, weight = found.logits[place], found.fusion.recall_weight
        signals["ranker"] = {"value": logit, "added": logit, "to": RANKED}
        if weight:
            signals["recall"] = {"value": share, "added": weight * share, "to": RANKED}
        if found.candidates.titled[place] and TITLE in found.added:
            signals[f"{TITLE}_{RANKED}"] = {"value": 1.0, "added": found.added[TITLE][place], "to": RANKED}
        for name, signal in found.fusion.signals.items():
            own = found.added[name][place]
            key = name if signal.is_field else f"{name}_{RANKED}"  # a searcher adds to the fused score, too
            signals[key] = {"value": own / signal.weight if signal.weight else 0.0, "added": own, "to": RANKED}
    return signals


def _terms(added: Mapping[str, float], folded: FoldedText, given: Mapping[str, str]) -> list[dict[str, object]]:
    best = sorted(added.items(), key=lambda one: -one[1])[:_MOST_TERMS]
    return [
        {"term": term, "added": value, "level": level_of(term), "at": places_of(term, folded)}
        | ({"for": given[term]} if term in given else {})
        for term, value in best
    ]
