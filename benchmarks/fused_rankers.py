"""Measure what rankers add to the fused list: every train query of QBQTC, by what has not seen it.

    python -m benchmarks.fused_rankers --work_dir WORK --tower M3E
    python -m benchmarks.fused_rankers --work_dir WORK --tower M3E --encoder M3E --measured_folds 1 --max_steps 400

The index holds the 16,020 titles of train and dev; its tower is not trained on them. In each fold, rankers learn from
the judged titles among the first `--depth` of the other folds' fused lists, and order the lists of this fold's queries:

| row | ranker |
| --- | --- |
| recall | logistic regression on ranks and scores of the fusion and of each searcher |
| lexical | the 24 lexical features |
| recall and lexical | both |
| encoder | with `--encoder`: a cross-encoder with `--similarity start`, trained on the other folds' judged titles |
| encoder, recall and lexical | its logit beside both, weighted by other queries of this fold, which it has not seen |

Titles that nobody judged count as not relevant. Intervals are of paired differences from the fused list.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np

from benchmarks.inputs import real_data_file
from benchmarks.recall import qbqtc
from paddle_ranker import runtime
from paddle_ranker.array_types import Floats
from paddle_ranker.commands import index
from paddle_ranker.data.beir import CORPUS, write_beir
from paddle_ranker.data.records import LabeledPair, read_records, write_records
from paddle_ranker.data.trec import Scores, in_order
from paddle_ranker.errors import DataError
from paddle_ranker.evaluation.report.text import verdicts
from paddle_ranker.evaluation.retrieval import JudgedQueries, compare_runs, comparison_lines
from paddle_ranker.lexical.features import FEATURES, LexicalFeatures
from paddle_ranker.metrics.logistic import fit_logistic, folds_of, out_of_fold
from paddle_ranker.options import Options, main_of, option, options_from
from paddle_ranker.retrieval.search import Searcher

FUSED = "fused"
_TOP = 100  # documents of a run


@dataclass(frozen=True)
class FusedRankersOptions(Options):
    work_dir: str = option(help="folder for the titles and their index, which are kept for the next run")
    tower: str = option(help="tower that makes the vectors, or any encoder")
    encoder: Optional[str] = option(None, help="encoder from which a cross-encoder is trained in each fold")
    depth: int = option(50, help="documents of each fused list that are ranked", minimum=10)
    folds: int = option(5, help="folds of the queries", minimum=2)
    measured_folds: int = option(0, help="measure the first folds alone; 0: all", minimum=0)
    max_steps: int = option(0, help="steps of each training of the cross-encoder; 0: an epoch", minimum=0)
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


def encoder_logits(
    options: FusedRankersOptions, judged: JudgedQueries, learning: set[str], measured: Sequence[FusedList]
) -> list[Floats]:
    """Train a cross-encoder on the judged titles of the learning queries; return its logits of the measured lists."""
    from paddle_ranker.commands.command_registry import COMMANDS
    from paddle_ranker.scoring.ranker import Ranker

    texts = {judged.queries[query] for query in learning}
    rows = read_records(real_data_file(options.data_dir, "qbqtc/train.tsv"), LabeledPair)
    with tempfile.TemporaryDirectory() as name:
        write_records(Path(name) / "train.tsv", [row for row in rows if row.query in texts])
        write_records(Path(name) / "test.tsv", [row for row in rows if row.query not in texts])
        module = COMMANDS["train-ce"].load()
        given = {"train": f"{name}/train.tsv", "test": f"{name}/test.tsv", "model": options.encoder, "epochs": 1}
        network = {"similarity": "start", "lexical_features": True, "max_seq_length": 64, "loss": "ranknet_bce"}
        steps = {"batch_size": 32, "learning_rate": 5e-5, "max_steps": options.max_steps, "eval_step": 10**9}
        where = {"output": f"{name}/run", "device": "cpu", "cpu_threads": options.cpu_threads}
        module.train(options_from(module.TrainCeOptions, **given, **network, **steps, **where))
        ranker = Ranker.load(f"{name}/run/last", threads=options.cpu_threads)
        queries = [judged.queries[one.query] for one in measured for _ in one.labels]
        titles = [title for one in measured for title in one.titles[: len(one.labels)]]
        logits = np.asarray(ranker.score(queries, titles, logits=True), np.float64)
    return np.split(logits, np.cumsum([len(one.labels) for one in measured])[:-1])


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
    for fold in range(options.measured_folds or options.folds):
        measured = [one for one, own in zip(lists, fold_of) if own == fold]
        learning = [one for one, own in zip(lists, fold_of) if own != fold]
        runs[FUSED].update((one.query, in_order(one.ids)) for one in measured)
        for name, parts in kinds.items():
            rows = np.concatenate([np.hstack([getattr(one, part) for part in parts])[one.judged] for one in learning])
            model = fit_logistic(rows, np.concatenate([one.labels[one.judged] for one in learning]))
            for one in measured:
                scores = model.logits(np.hstack([getattr(one, part) for part in parts]))
                runs.setdefault(name, {})[one.query] = order_by(scores, one)
        if options.encoder is None:
            continue
        logits = encoder_logits(options, judged, {one.query for one in learning}, measured)
        inputs = np.concatenate([np.column_stack([of, one.recall, one.lexical]) for of, one in zip(logits, measured)])
        queries = [one.query for one in measured for _ in one.labels]
        both = out_of_fold(inputs, np.concatenate([one.labels for one in measured]), queries, options.folds)
        for name, parts_of in (("encoder", np.concatenate(logits)), ("encoder, recall and lexical", both)):
            split = np.split(parts_of, np.cumsum([len(one.labels) for one in measured])[:-1])
            runs.setdefault(name, {}).update((one.query, order_by(of, one)) for of, one in zip(split, measured))
    known = [*runs[FUSED]]
    own = JudgedQueries(judged.source, {id: made.queries[id] for id in known}, {id: made.qrels[id] for id in known})
    comparison = compare_runs(own, runs, _TOP)
    print(f"{len(known):,} queries, {len(made.documents):,} titles, {len(FEATURES)} lexical features")
    print("\n".join([*verdicts(comparison), *comparison_lines(comparison)]))


main = main_of(run, FusedRankersOptions, __doc__, prog="benchmarks.fused_rankers")


if __name__ == "__main__":
    raise SystemExit(main())
