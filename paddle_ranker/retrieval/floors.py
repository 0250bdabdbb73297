"""Floors of vector searchers: the scores that their best documents reach for queries without an answer.

A search reports that no document is close to the query if no vector searcher is above its floor, and no document has
the query's important words.

Floors are measured with synthetic queries, of pieces of unrelated documents. The searcher's best document for each
query has a score; the floor is their 30th percentile. Short questions of people reach no more than the higher half
of these scores, since the pieces are the collection's own words; queries from elsewhere stay below it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from paddle_ranker.lexical.analyser import pieces
from paddle_ranker.progress import Progress
from paddle_ranker.retrieval.manifest import Floors, IndexInfo
from paddle_ranker.retrieval.snapshot import LocalSnapshot
from paddle_ranker.unicode.characters import UNIT, UNSPACED, fold

FEWEST = 100  # with fewer documents, chance cannot be distinguished from an answer
_QUERIES, _QUANTILE, _SEED = 200, 0.3, 1000
_AT_ONCE = 20  # queries between two steps of the progress bar
_PIECES = 3, 7  # least and most pieces of a query, each from another document
_UNSPACED_PIECE = 2  # characters of a piece in a script without spaces
_GROWTH = 2  # floors are measured again when the index has this many times the documents


def need_measuring(info: IndexInfo) -> bool:
    """Return whether floors are missing, or were measured before the index doubled.

    Returns False for few documents, and for an index without towers that read texts.
    """
    if info.count < FEWEST or not _measured_fields(info):
        return False
    return info.floors is None or info.count >= _GROWTH * info.floors.documents


def _measured_fields(info: IndexInfo) -> list[str]:
    return [name for name, field in info.vector_fields.items() if field.tower is not None and field.reads_texts]


def measure_floors(index: LocalSnapshot) -> Floors:
    """Search for synthetic queries, and return the floors of the vector fields whose towers read texts."""
    schema = index.info.schema
    texts = [schema.model_text(document) for document, _ in index.sample(_QUERIES * _PIECES[1], _SEED)]
    queries, floors = unrelated_queries(texts, _QUERIES, _SEED), dict[str, float]()
    fields = _measured_fields(index.info)
    progress: Progress[None] = Progress(desc="floors", unit="query", total=len(queries) * len(fields))
    for name in fields:
        vectors, best = index.tower(name).query_vectors(queries), list[float]()
        for start in range(0, len(queries), _AT_ONCE):
            hits = index.search(name, vectors[start : start + _AT_ONCE], 1)
            best += [max(query_hits.scores, default=0.0) for query_hits in hits]
            progress.update(len(hits))
        floors[name] = float(np.quantile(best, _QUANTILE))
    progress.close()
    return Floors(index.info.count, floors)


def unrelated_queries(texts: Sequence[str], count: int, seed: int) -> list[str]:
    """Return `count` synthetic queries, each joined from pieces of different texts.

    A piece is a word, or some characters of a script without spaces.
    """
    drawn, made = np.random.default_rng(seed), list[str]()
    for _ in range(count):
        number = int(drawn.integers(*_PIECES, endpoint=True))
        chosen = drawn.choice(len(texts), min(number, len(texts)), replace=False)
        made.append(" ".join(filter(None, (_piece(texts[number], drawn) for number in chosen.tolist()))))
    return made


def _piece(text: str, drawn: np.random.Generator) -> str:
    runs = [(run, shape) for _, run, shape in pieces(fold(text))]
    if not runs:
        return ""
    sizes = np.array([len(run) for run, _ in runs])
    run, shape = runs[int(drawn.choice(len(runs), p=sizes / sizes.sum()))]
    if shape[0] not in (UNIT, UNSPACED):
        return run
    start = int(drawn.integers(max(1, len(run) - _UNSPACED_PIECE + 1)))
    return run[start : start + _UNSPACED_PIECE]


def is_nothing_close(best: Mapping[str, float], floors: Floors) -> bool:
    """Return whether no vector searcher's best score is above the searcher's floor; False if a floor is missing.

    best: best score by vector searcher
    """
    return all(name in floors.scores and score <= floors.scores[name] for name, score in best.items())
