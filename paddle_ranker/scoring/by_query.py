"""Rank the titles of each query of a file, by one ranker or by a cascade of two."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np

from paddle_ranker.data.rows.records import Pair
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.model_folder import RANKER, identify
from paddle_ranker.scoring.cascade import chosen, parse_cascade, rerank_probabilities
from paddle_ranker.scoring.files import CutOff, score_pairs, scorer_for
from paddle_ranker.scoring.loading import open_model
from paddle_ranker.scoring.ranker import RankedTitle, with_answers
from paddle_ranker.scoring.scoring_options import BY_STORE, TITLES, RankingOptions, ScoringOptions
from paddle_ranker.scoring.table_answers import names_cells
from paddle_ranker.storage.prefetch import CHUNK, chunks

OptionsT = TypeVar("OptionsT", bound=ScoringOptions)


def rank_by_query(options: RankingOptions, top_k: int) -> Iterator[tuple[str, list[RankedTitle]]]:
    """Yield every query of the input file with its best `top_k` titles, best first; ties keep the file's order.

    Titles below `options.min_probability` are omitted, so a query may have no titles. The rows of a query need not be
    adjacent, so all queries are in memory until the file is read, with at most 2 * `top_k` + 64 titles each. With
    `options.store`, titles with stored states are scored from these states. With `options.cascade`, a small ranker
    scores all titles, and the ranker `options.params_path` only the best titles of each query.
    """
    if options.cascade is not None:
        yield from _cascade_by_query(options, top_k)
        return
    cut = CutOff(options.min_probability)
    if options.store is not None:
        yield from best_by_query(BY_STORE[TITLES](options, options.store), top_k, cut)
        return
    loaded = open_model(options.params_path, RANKER, LoadOptions.of(options))
    answers = scorer_for(loaded, options) if names_cells(loaded.engine) else None
    for query, titles in best_by_query(score_pairs(loaded, options), top_k, cut):
        if answers is not None and titles:  # outputs of all titles of a file would be too large to keep
            outputs = answers.run(answers.encode([query] * len(titles), [title.title for title in titles]))
            titles = with_answers(answers, query, titles, outputs)
        yield query, titles


def best_by_query(
    scored: Iterable[tuple[Pair, float]], top_k: int, cut: CutOff
) -> Iterator[tuple[str, list[RankedTitle]]]:
    """Yield every query of scored pairs with its best titles, as `rank_by_query` does."""
    best: dict[str, list[RankedTitle]] = {}
    for index, (pair, probability) in enumerate(scored):
        titles = best.setdefault(pair.query, [])
        if not cut.keeps(probability):
            continue
        titles.append(RankedTitle(index, pair.title, probability, pair.recall_score))
        if len(titles) >= 2 * top_k + 64:
            best[pair.query] = _best_first(titles)[:top_k]
    cut.report()
    for query, titles in best.items():
        yield query, _best_first(titles)[:top_k]


def _best_first(titles: list[RankedTitle]) -> list[RankedTitle]:
    return sorted(titles, key=lambda title: -title.probability)  # stable: ties keep their order


def _cascade_by_query(options: RankingOptions, top_k: int) -> Iterator[tuple[str, list[RankedTitle]]]:
    """Yield queries with their best titles as `rank_by_query` does, ranked by the cascade `options.cascade`.

    Memory holds, for each query, the titles that either stage needs.
    """
    assert options.cascade is not None
    source, depth = parse_cascade(options.cascade)
    # Open the large ranker first, so that its errors come before the small ranker has scored the file.
    ranker = open_model(options.params_path, RANKER, LoadOptions.of(options))
    scorer = scorer_for(ranker, options)
    first_stage = dataclasses.replace(
        options_of_small(options, source), params_path=source, cascade=None, min_probability=None
    )
    cut = CutOff(options.min_probability)
    ranked_by_small = rank_by_query(first_stage, max(top_k, depth))
    in_order = ((query, sorted(titles, key=lambda title: title.index)) for query, titles in ranked_by_small)
    for part in chunks(in_order, max(1, CHUNK // depth)):
        smalls = [np.array([title.probability for title in titles]) for _, titles in part]
        bests = [chosen(small, depth) for small in smalls]
        pairs = [(query, titles[place].title) for (query, titles), best in zip(part, bests) for place in best]
        scores = scorer.score([query for query, _ in pairs], [title for _, title in pairs])
        larges = np.split(scores, np.cumsum([len(best) for best in bests])[:-1])
        for (query, titles), small, best, large in zip(part, smalls, bests, larges):
            order, probabilities = rerank_probabilities(small, best, large)
            ranked = [
                dataclasses.replace(titles[place], probability=float(probability))
                for place, probability in list(zip(order, probabilities))[:top_k]
            ]
            yield query, [title for title in ranked if cut.keeps(title.probability)]
    cut.report()


def options_of_small(options: OptionsT, source: str) -> OptionsT:
    """Return the options to load the small ranker at `source`, without engine and precision if it is not exported."""
    options = dataclasses.replace(options, model_name_or_path=None)
    if identify(Path(source)).is_exported:
        return options
    return dataclasses.replace(options, engine=None, precision="fp32", tensorrt=False)
