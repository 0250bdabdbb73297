"""Floors of vector searchers: the scores that their best documents reach for queries without an answer.

A search reports that no document is close to the query if no vector searcher is above its floor, and no document has
the query's important words.

The floor is what the searcher's best documents reach for queries of random letters and characters, in all but 5%. A
searcher cannot tell if it gives no more to many queries of words of a single document: then searches by it alone say
nothing, and beside words its floor counts only for queries of which no document has a word, such as those in another
language. `python -m benchmarks.defaults` prints how often.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from paddle_ranker.lexical.analyser import pieces
from paddle_ranker.retrieval.stored.manifest import Floors, IndexInfo
from paddle_ranker.unicode.characters import UNIT, UNSPACED, fold

if TYPE_CHECKING:
    from paddle_ranker.retrieval.snapshots.snapshot import LocalSnapshot

FEWEST = 100  # with fewer documents, chance cannot be distinguished from an answer
_QUERIES, _QUANTILE, _SEED = 100, 0.95, 1000
_TELLING = 0.75  # least share of queries about a document that a searcher which can tell has above its floor
_AT_ONCE = 20  # queries between two steps of the progress bar
_PIECES = 3, 7  # least and most pieces of a query about a document
_LETTERS, _WORDS = (3, 8), (1, 4)  # least and most random letters of a word, words of a query
_IDEOGRAPHS, _FIRST, _LAST = (3, 8), 0x4E00, 0x9FA5  # least and most random ideographs of a query, and from which
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
    from paddle_ranker.progress import Progress

    schema = index.info.schema
    texts = [schema.model_text(document) for document, _ in index.sample(_QUERIES, _SEED)]
    queries = [*random_queries(_QUERIES, _SEED), *queries_about(texts, _QUERIES, _SEED)]
    floors, telling = dict[str, float](), list[str]()
    fields = _measured_fields(index.info)
    progress: Progress[None] = Progress(desc="floors", unit="query", total=len(queries) * len(fields))
    for name in fields:
        vectors, best = index.tower(name).query_vectors(queries), list[float]()
        for start in range(0, len(queries), _AT_ONCE):
            hits = index.search(name, vectors[start : start + _AT_ONCE], 1)
            best += [max(query_hits.scores, default=0.0) for query_hits in hits]
            progress.update(len(hits))
        floors[name] = float(np.quantile(best[:_QUERIES], _QUANTILE))
        if np.mean(np.array(best[_QUERIES:]) > floors[name]) >= _TELLING:
            telling.append(name)
    progress.close()
    return Floors(index.info.count, floors, tuple(telling))


def random_queries(count: int, seed: int) -> list[str]:
    """Return `count` queries of random characters: words of Latin letters, and as many of ideographs."""
    drawn, made = np.random.default_rng(seed), list[str]()

    def characters(sizes: tuple[int, int], first: int, last: int) -> str:
        number = int(drawn.integers(*sizes, endpoint=True))
        return "".join(map(chr, drawn.integers(first, last, number, endpoint=True).tolist()))

    for number in range(count):
        words = int(drawn.integers(*_WORDS, endpoint=True))
        made.append(
            characters(_IDEOGRAPHS, _FIRST, _LAST)
            if number % 2
            else " ".join(characters(_LETTERS, ord("a"), ord("z")) for _ in range(words))
        )
    return made


def queries_about(texts: Sequence[str], count: int, seed: int) -> list[str]:
    """Return `count` queries, each joined from pieces of one text.

    A piece is a word, or some characters of a script without spaces.
    """
    drawn, made = np.random.default_rng(seed), list[str]()
    for number in drawn.integers(len(texts), size=count).tolist():
        pieces_of_query = int(drawn.integers(*_PIECES, endpoint=True))
        made.append(" ".join(filter(None, (_piece(texts[number], drawn) for _ in range(pieces_of_query)))))
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


def is_nothing_close(best: Mapping[str, float], floors: Floors, by_words: bool, found_by_words: bool = False) -> bool:
    """Return whether no vector searcher's best score is above the searcher's floor; False if a floor is missing.

    best: best score by vector searcher
    by_words: whether words are searched, too; otherwise False if none of the searchers can tell
    found_by_words: whether documents have a word of the query; searchers that cannot tell then have no say beside words
    """
    if any(name not in floors.scores for name in best):
        return False
    if best and not by_words and not floors.can_tell(best):
        return False
    asked = {name: score for name, score in best.items() if name in floors.telling or not found_by_words}
    return all(score <= floors.scores[name] for name, score in asked.items())
