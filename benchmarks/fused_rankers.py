"""Measure the gain of learned features over the fused list, on QBQTC's train queries by cross-validation.

    python -m benchmarks.fused_rankers --work_dir WORK --tower M3E

The index holds the 16,020 titles of train and dev; its tower is not trained on them. In each fold, weights are learned
from the first 50 documents of the other folds' fused lists, and order the lists of this fold's queries:

| row | what orders |
| --- | --- |
| learned features | features and learner of `paddle-ranker improve` |
| ranks and scores; texts | the same learner on the features of searchers and fusion alone; of the texts alone |
| judged alone | without the documents that nobody judged, which otherwise count as not relevant, with a weight of 0.3 |
| pointwise | logistic regression of the judged documents, relevant or not |
| with 24 lexical | the 24 lexical features as further columns |
| boosted trees; mean with boosted trees | HistGradientBoostingRegressor; its mean with learned features |

Intervals are of paired differences from the fused list.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional

import numpy as np

from benchmarks.recall import build_index, qbqtc, write_set
from paddle_ranker import runtime
from paddle_ranker.array_types import Floats, Integers
from paddle_ranker.data.rows.trec import Scores, in_order
from paddle_ranker.evaluation.report.text import verdicts
from paddle_ranker.evaluation.retrieval import JudgedQueries, compare_runs, comparison_lines, feature_lists
from paddle_ranker.lexical.features import LIST_FEATURES, LexicalFeatures
from paddle_ranker.metrics.logistic import fit_logistic, folds_of
from paddle_ranker.metrics.ranking import standardise, standardised
from paddle_ranker.options import Options, main_of, option
from paddle_ranker.retrieval.stages.fusion import FEATURE_DEPTH
from paddle_ranker.retrieval.stages.search_engine import SearchEngine
from paddle_ranker.retrieval.stages.weight_learning import JudgedList, learn_features

FUSED, FEATURES = "fused", "learned features"
Model = Callable[[Floats], Floats]  # from features, `[documents, features]`, to scores, `[documents]`
Learner = Callable[[Sequence[JudgedList]], Model]


@dataclass(frozen=True)
class FusedRankersOptions(Options):
    work_dir: str = option(help="folder for the titles and their index, which are kept for the next run")
    tower: str = option(help="tower that makes the vectors, or any encoder")
    folds: int = option(5, help="folds of the queries", minimum=2)
    data_dir: Optional[str] = option(None, help="folder of the real data (default: PADDLE_RANKER_REAL_DATA)")
    cpu_threads: int = option(0, help="threads; 0: one a core", minimum=0)


def pairwise(lists: Sequence[JudgedList]) -> Model:
    """Learn as `improve` does."""
    names = [str(column) for column in range(lists[0].inputs.shape[1])]
    weights = np.array([*learn_features(lists, names).values()])
    return lambda inputs: inputs @ weights


def judged_alone(lists: Sequence[JudgedList]) -> Model:
    """Learn as `improve` does, from the judged documents alone."""
    return pairwise([_judged_of(one) for one in lists])


def pointwise(lists: Sequence[JudgedList]) -> Model:
    """Learn whether a judged document is relevant, by logistic regression."""
    each = [_judged_of(one) for one in lists]
    model = fit_logistic(np.concatenate([one.inputs for one in each]), np.concatenate([one.labels for one in each]))
    return model.logits


def boosted(lists: Sequence[JudgedList]) -> Model:
    """Learn the labels by boosted trees; a document that nobody judged weighs 0.3."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    model = HistGradientBoostingRegressor(
        learning_rate=0.05, max_iter=150, max_leaf_nodes=8, min_samples_leaf=100, l2_regularization=10, random_state=0
    )
    trust = np.concatenate([np.ones(len(one.labels)) if one.judged is None else one.judged for one in lists])
    weights = np.where(trust, 1.0, 0.3)
    model.fit(np.concatenate([one.inputs for one in lists]), np.concatenate([one.labels for one in lists]), weights)
    return lambda inputs: np.asarray(model.predict(inputs), np.float64)


def mean_with_boosted(lists: Sequence[JudgedList]) -> Model:
    """Learn by `pairwise` and by `boosted`, and average the standardised scores."""
    first, second = pairwise(lists), boosted(lists)
    return lambda inputs: standardised(first(inputs)) + standardised(second(inputs))


def _judged_of(one: JudgedList) -> JudgedList:
    assert one.judged is not None
    ids = [id for id, is_judged in zip(one.ids, one.judged) if is_judged]
    return JudgedList(one.query, ids, one.inputs[one.judged], one.labels[one.judged])


def _with_columns(one: JudgedList, columns: Floats) -> JudgedList:
    return replace(one, inputs=np.hstack([one.inputs, standardise(columns, np.float64).values]))


def run_of(lists: Sequence[JudgedList], learn: Learner, fold_of: Integers) -> Scores:
    """Return a run in which a model that learned from the other folds orders each list."""
    run: Scores = {}
    for fold in np.unique(fold_of):
        score = learn([one for one, own in zip(lists, fold_of) if own != fold])
        for one in (one for one, own in zip(lists, fold_of) if own == fold):
            run[one.query] = in_order(one.ids[place] for place in np.argsort(-score(one.inputs), kind="stable"))
    return run


def run(options: FusedRankersOptions) -> None:
    """Print the table of all rows."""
    runtime.prepare_command(options.cpu_threads)
    work = Path(options.work_dir)
    folder, built = work / "qbqtc_train", work / f"qbqtc_train-{Path(options.tower).resolve().name}"
    made = qbqtc(options.data_dir, "train")
    write_set(made, folder)
    if not built.exists():
        build_index(folder, built, options.tower, options.cpu_threads)
    judged = JudgedQueries("qbqtc/train.tsv", made.queries, made.qrels)
    with SearchEngine.open(built) as engine:
        lists, names = feature_lists(engine, judged, engine.settings.fusion)
        texts = {document.id: document.text for document in engine.collection.snapshot().documents()}
    lexical, fold_of = LexicalFeatures(), folds_of(len(lists), options.folds)
    lexical.fit([*texts.values()])
    of_pairs = [
        lexical.transform([judged.queries[one.query]] * len(one.ids), [texts[id] for id in one.ids]) for one in lists
    ]
    recall = len(names) - len(LIST_FEATURES)  # features of the searchers and the fusion
    rows: dict[str, tuple[Sequence[JudgedList], Learner]] = {
        FEATURES: (lists, pairwise),
        "ranks and scores": ([replace(one, inputs=one.inputs[:, :recall]) for one in lists], pairwise),
        "texts": ([replace(one, inputs=one.inputs[:, recall:]) for one in lists], pairwise),
        "judged alone": (lists, judged_alone),
        "pointwise": (lists, pointwise),
        "with 24 lexical": ([*map(_with_columns, lists, of_pairs)], pairwise),
        "boosted trees": (lists, boosted),
        "mean with boosted trees": (lists, mean_with_boosted),
    }
    runs = {FUSED: {one.query: in_order(one.ids) for one in lists}}
    runs.update((name, run_of(own, learn, fold_of)) for name, (own, learn) in rows.items())
    comparison = compare_runs(judged, runs, FEATURE_DEPTH)
    print(f"{len(lists):,} queries, {len(made.documents):,} titles, {len(names)} features")
    print("\n".join([*verdicts(comparison), *comparison_lines(comparison)]))


main = main_of(run, FusedRankersOptions, __doc__, prog="benchmarks.fused_rankers")


if __name__ == "__main__":
    raise SystemExit(main())
