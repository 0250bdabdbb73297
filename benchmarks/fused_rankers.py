"""Measure what rankers add to the fused list: every train query of QBQTC, by what has not seen it.

    python -m benchmarks.fused_rankers --work_dir WORK --tower M3E

The index holds the 16,020 titles of train and dev; its tower is not trained on them. In each fold, rankers learn from
the judged titles among the first `--depth` of the other folds' fused lists, and order the lists of this fold's queries:

| row | ranker |
| --- | --- |
| recall | logistic regression on ranks and scores of the fusion and of each searcher |
| lexical | the 24 lexical features |
| recall and lexical | both |

Titles that nobody judged count as not relevant. Intervals are of paired differences from the fused list.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np

from benchmarks.recall import qbqtc
from paddle_ranker import runtime
from paddle_ranker.array_types import Floats
from paddle_ranker.commands import index
from paddle_ranker.data.beir import CORPUS, write_beir
from paddle_ranker.data.trec import Scores, in_order
from paddle_ranker.errors import DataError
from paddle_ranker.evaluation.report.text import verdicts
from paddle_ranker.evaluation.retrieval import JudgedQueries, compare_runs, comparison_lines
from paddle_ranker.lexical.features import FEATURES, LexicalFeatures
from paddle_ranker.metrics.logistic import fit_logistic, folds_of
from paddle_ranker.options import Options, main_of, option
from paddle_ranker.retrieval.search import Searcher

FUSED = "fused"
_TOP = 100  # documents of a run


@dataclass(frozen=True)
class FusedRankersOptions(Options):
    work_dir: str = option(help="folder for the titles and their index, which are kept for the next run")
    tower: str = option(help="tower that makes the vectors, or any encoder")
    depth: int = option(50, help="documents of each fused list that are ranked", minimum=10)
    folds: int = option(5, help="folds of the queries", minimum=2)
    data_dir: Optional[str] = option(None, help="folder of the real data (default: PADDLE_RANKER_REAL_DATA)")
    cpu_threads: int = option(0, help="threads; 0: one a core", minimum=0)


@dataclass(frozen=True)
class FusedList:
    """The first documents of a query's fused list.

    ids, titles: of the documents, all that were found; the other attributes have the first `--depth` of them
    recall, lexical: features, `[documents, features]`
    labels: 0 for a document that nobody judged
    judged: whether somebody judged the document
    """

    query: str
    ids: list[str]
    titles: list[str]
    recall: Floats
    lexical: Floats
    labels: Floats
    judged: Floats


def fused_lists(options: FusedRankersOptions, judged: JudgedQueries, folder: Path) -> list[FusedList]:
    """Search the index for each query."""
    features, lists = LexicalFeatures(), list[FusedList]()
    with Searcher.open(folder) as searcher:
        texts = {one.id: one.text for one in searcher.collection.snapshot().documents()}
        features.fit([*texts.values()])
        found = searcher.run([*judged.queries.values()], _TOP)
        for (query, text), candidates in zip(judged.queries.items(), [search.candidates for search in found]):
            order, scores = searcher.settings.fusion.best(candidates, _TOP)
            ids, rows = [candidates.ids[row] for row in order], order[: options.depth]
            ranks = np.column_stack([np.arange(1, len(rows) + 1), candidates.ranks[rows]])
            ranks = np.where(ranks > 0, ranks, _TOP + 1)
            raw = np.column_stack([scores[: len(rows)], candidates.scores[rows], candidates.normalised[rows]])
            recall = np.column_stack([np.log(ranks), np.where(np.isnan(raw), np.nanmin(raw, axis=0), raw)])
            titles, labels = [texts[id] for id in ids], judged.qrels[query]
            lexical = features.transform([text] * len(rows), titles[: len(rows)])
            given = [labels.get(id) for id in ids[: len(rows)]]
            own = np.array([label or 0 for label in given], np.float64)
            is_judged = np.array([label is not None for label in given])
            lists.append(FusedList(query, ids, titles, recall, lexical, own, is_judged))
    return lists


def order_by(scores: Floats, one: FusedList) -> dict[str, float]:
    """Return a query's run: the ranked documents by their scores, then the others as they are fused."""
    first = [one.ids[place] for place in np.argsort(-scores, kind="stable")]
    return in_order([*first, *one.ids[len(scores) :]])


def run(options: FusedRankersOptions) -> None:
    """Print the table of all rankers."""
    runtime.prepare_command(options.cpu_threads)
    work = Path(options.work_dir)
    folder, built = work / "qbqtc_train", work / f"qbqtc_train-{Path(options.tower).resolve().name}"
    made = qbqtc(options.data_dir, "train")
    if not folder.exists():
        write_beir(folder, ((id, text, {}) for id, text in made.documents.items()), made.queries, {"test": made.qrels})
    if not built.exists():
        given = ["--corpus", str(folder / CORPUS), "--output", str(built), "--tower", options.tower]
        if index.main(["build", *given, "--cpu_threads", str(options.cpu_threads)]):
            raise DataError(f"{built}: the index could not be built")
    judged = JudgedQueries("qbqtc/train.tsv", made.queries, made.qrels)
    lists = fused_lists(options, judged, built)
    fold_of = folds_of(len(lists), options.folds)
    runs: dict[str, Scores] = {FUSED: {}}
    kinds = {"recall": ("recall",), "lexical": ("lexical",), "recall and lexical": ("recall", "lexical")}
    for fold in range(options.folds):
        measured = [one for one, own in zip(lists, fold_of) if own == fold]
        learning = [one for one, own in zip(lists, fold_of) if own != fold]
        runs[FUSED].update((one.query, in_order(one.ids)) for one in measured)
        for name, parts in kinds.items():
            rows = np.concatenate([np.hstack([getattr(one, part) for part in parts])[one.judged] for one in learning])
            model = fit_logistic(rows, np.concatenate([one.labels[one.judged] for one in learning]))
            for one in measured:
                scores = model.logits(np.hstack([getattr(one, part) for part in parts]))
                runs.setdefault(name, {})[one.query] = order_by(scores, one)
    known = [*runs[FUSED]]
    own = JudgedQueries(judged.source, {id: made.queries[id] for id in known}, {id: made.qrels[id] for id in known})
    comparison = compare_runs(own, runs, _TOP)
    print(f"{len(known):,} queries, {len(made.documents):,} titles, {len(FEATURES)} lexical features")
    print("\n".join([*verdicts(comparison), *comparison_lines(comparison)]))


main = main_of(run, FusedRankersOptions, __doc__, prog="benchmarks.fused_rankers")


if __name__ == "__main__":
    raise SystemExit(main())
