"""The systems that are compared: models, score files, and baselines.

The baselines are BM25 of words and of bigrams, and a linear model on lexical features.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Optional, TextIO

import numpy as np

from paddle_ranker.array_types import Floats
from paddle_ranker.data.rows.records import LabeledPair, read_records
from paddle_ranker.data.rows.trec import Scores, read_qrels, read_run
from paddle_ranker.errors import DataError
from paddle_ranker.evaluation.comparison import System
from paddle_ranker.evaluation.measuring_options import BaselineOptions, MeasuringOptions
from paddle_ranker.evaluation.pairs import MeasuredPairs, judged_runs, read_labelled, require_both_classes
from paddle_ranker.evaluation.score_files import read_scores
from paddle_ranker.lexical.bm25 import BM25
from paddle_ranker.lexical.features import LexicalLogistic
from paddle_ranker.metrics.logistic import folds_of
from paddle_ranker.metrics.ranking import RELEVANT, number_queries
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.storage.digest import content_digest, warn_of_same_data

if TYPE_CHECKING:
    from paddle_ranker.scoring.loading import ScoringRanker

BM25_WORDS, BM25_BIGRAMS, LINEAR = "BM25 (words)", "BM25 (bigrams)", "linear (lexical)"
FOLDS = 5


def read_measured_pairs(options: MeasuringOptions, runs: Mapping[str, Scores]) -> MeasuredPairs:
    """Read the pairs from the options' files: a labelled file, or qrels with texts and a run of candidates.

    runs: the runs to be measured, by name

    With qrels, the candidates are the documents of `--candidates`; without this option, those of the first run;
    without runs, the judged documents. Raises `DataError` if a file cannot be read, or if all labels of a labelled
    file are of one class.
    """
    if options.test_file is not None:
        labelled = read_labelled(options.test_file, options)
        require_both_classes(options.test_file, labelled.labels, "AUC")
        return labelled
    assert options.qrels is not None
    judged = read_qrels(options.qrels, options)
    candidates, notes = next(iter(runs.values()), None), judged.notes
    if options.candidates is not None:
        run = read_run(options.candidates, skip_bad_rows=options.skip_bad_rows)
        candidates, notes = run.run, notes + run.notes
    pairs = judged_runs(
        options.qrels,
        judged.qrels,
        runs,
        candidates=candidates,
        queries_file=options.queries,
        documents_file=options.documents,
        rules=options,
    )
    pairs.notes.extend(notes)
    return pairs


def score_with_model(source: str, options: MeasuringOptions, pairs: MeasuredPairs) -> tuple[ScoringRanker, Floats]:
    """Open a ranker and score the candidates; return the ranker and the logits, `[candidates] float64`.

    Raises `CheckpointError` if the ranker cannot be opened, and `DataError` if the pairs have no texts.
    """
    from paddle_ranker.model.model_folder import RANKER
    from paddle_ranker.scoring.files import scorer_for
    from paddle_ranker.scoring.loading import open_model

    queries, titles = pairs.texts(source)
    ranker = open_model(source, RANKER, LoadOptions.of(options))
    scorer = scorer_for(ranker, options, options.test_file)
    logits = scorer.logits(scorer.encode(queries, titles))
    return ranker, logits


def named_systems(
    paths: Mapping[str, str], options: MeasuringOptions, pairs: MeasuredPairs
) -> tuple[list[System], list[str]]:
    """Score the pairs with each named system; return the systems, and notes on their score files.

    paths: for each system, by name, the path of a model (see `is_model`) or of a file of scores
    """
    systems, notes = [], []
    for name, path in paths.items():
        facts = {"from": path, "sha256": content_digest(path)}
        if is_model(path):
            ranker, logits = score_with_model(path, options, pairs)
            facts.update(kind=ranker.info.kind, max_seq_length=str(ranker.info.max_seq_length))
            systems.append(System(name, pairs.spread(logits), "model", facts))
        else:
            scores, notes_on_file = read_scores(path, pairs, skip_bad_rows=options.skip_bad_rows)
            notes += notes_on_file
            systems.append(System(name, scores, "scores", facts))
    return systems, notes


def messages(options: MeasuringOptions) -> TextIO:
    """Return the stream for notes: standard error if the measures are printed as JSON, else standard output."""
    return sys.stderr if options.format == "json" else sys.stdout


def baseline_systems(pairs: MeasuredPairs, options: BaselineOptions) -> tuple[list[System], list[str]]:
    """Return the baselines (BM25 of words, BM25 of bigrams, linear model), and notes on why some are missing."""
    if pairs.titles is None:
        return [], ["no baselines: BM25 and the linear model need texts (--queries and --documents)"]
    queries, titles = pairs.texts("a baseline")
    labels = pairs.labels[pairs.candidates]
    train: Optional[Sequence[LabeledPair]] = None
    learned = "the measured titles"
    if options.train_file is not None:
        warn_of_same_data(options, "train_file", "test_file")
        train = read_records(options.train_file, LabeledPair, options)
        learned = f"{options.train_file} (sha256 {content_digest(options.train_file)})"
    collection = titles if train is None else [pair.title for pair in train]
    systems = [
        System(name, pairs.spread(bm25(tokenizer, queries, titles, collection)), "baseline", {"idf from": learned})
        for name, tokenizer in ((BM25_WORDS, "jieba"), (BM25_BIGRAMS, "bigram"))
    ]
    try:
        scores = linear(queries, titles, labels, train)
    except DataError as error:
        return systems, [f"no {LINEAR} baseline: {error}"]
    taught = "the labels of the other four fifths of the queries" if train is None else learned
    return [*systems, System(LINEAR, pairs.spread(scores), "baseline", {"learned from": taught})], []


def bm25(tokenizer: str, queries: Sequence[str], titles: Sequence[str], collection: Sequence[str]) -> Floats:
    """Return BM25's scores of the pairs, `[n] float64`; idf and mean length are those of the texts in `collection`."""
    baseline = BM25(tokenizer)
    baseline.fit([], collection)
    return baseline.score(queries, titles)


def linear(
    queries: Sequence[str], titles: Sequence[str], labels: Floats, train: Optional[Sequence[LabeledPair]] = None
) -> Floats:
    """Return scores by a logistic regression on lexical features, `[n] float64`.

    The model learns from `train`. Without `train`, each fifth of the queries is scored by a model fitted to the labels
    of the other four fifths, so a query's labels do not affect its scores. This raises `DataError` if there is only one
    query, or if the labels of four fifths are all of one class.
    """
    if train is not None:
        model = LexicalLogistic()
        model.fit([pair.query for pair in train], [pair.title for pair in train], [pair.label for pair in train])
        return model.score(queries, titles)
    numbers = number_queries(queries)
    count = int(numbers.max()) + 1
    if count < 2:
        raise DataError("one query only: the linear model needs others to learn from (--train)")
    folds = folds_of(count, FOLDS)[numbers]
    for fold in np.unique(folds):
        if len(set(labels[folds != fold] >= RELEVANT)) < 2:
            raise DataError("too few queries with titles of both kinds: the linear model needs --train")
    return LexicalLogistic().cross_fit(queries, titles, labels, folds)


def is_model(path: str) -> bool:
    """Return whether a path is a model's folder or parameter file, not a file of scores."""
    from paddle_ranker.model.model_folder import identify

    return os.path.isdir(path) or (os.path.isfile(path) and identify(Path(path)).form != "")


def data_facts(options: BaselineOptions) -> dict[str, str]:
    """Return the data files of a comparison for its report: a dict from option name to path and digest."""
    named = ("test_file", "qrels", "queries", "documents", "candidates", "train_file")
    paths = {name: getattr(options, name) for name in named}
    return {name: f"{path} (sha256 {content_digest(path)})" for name, path in paths.items() if path is not None}
