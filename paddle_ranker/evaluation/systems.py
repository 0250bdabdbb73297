"""Where the scores that are compared come from: models, score files, baselines."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Optional, TextIO

from paddle_ranker.data.records import LabeledPair, read_records
from paddle_ranker.data.trec import Scores, read_qrels, read_run
from paddle_ranker.errors import DataError, RankerError
from paddle_ranker.evaluation.baselines import bm25, linear
from paddle_ranker.evaluation.comparison import System
from paddle_ranker.evaluation.options import MeasuringOptions
from paddle_ranker.evaluation.pairs import MeasuredPairs, judged_runs, read_labelled
from paddle_ranker.metrics.ranking import Floats

if TYPE_CHECKING:
    from paddle_ranker.scoring.loading import LoadedRanker

BM25_WORDS, BM25_BIGRAMS, LINEAR = "BM25 (words)", "BM25 (bigrams)", "linear (lexical)"
_DIGITS = 16


def read_measured_pairs(options: MeasuringOptions, runs: Mapping[str, Scores]) -> MeasuredPairs:
    """Read what the options name: a labelled file, or qrels, the texts and the candidates of the models.

    Args:
        runs: by name, the runs that will be measured; the first one's documents are the candidates by default.
    """
    if options.test_file is not None:
        return read_labelled(options.test_file, skip_bad_rows=options.skip_bad_rows)
    assert options.qrels is not None
    judged = read_qrels(options.qrels, skip_bad_rows=options.skip_bad_rows)
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
        skip_bad_rows=options.skip_bad_rows,
    )
    pairs.notes.extend(notes)
    return pairs


def score_with_model(
    source: str, options: MeasuringOptions, pairs: MeasuredPairs, expected_kind: Optional[str] = None
) -> tuple[LoadedRanker, Floats]:
    """Return a ranker and its logits of the candidates (`[candidates] float64`); say what was cut.

    Raises `CheckpointError` for a ranker of another kind, `DataError` where there are no texts.
    """
    from paddle_ranker.scoring.files import load_for_scoring, say_truncated, scorer_for

    queries, titles = pairs.texts(source)
    parts = load_for_scoring(source, options, expected_kind)
    scorer = scorer_for(parts, options)
    logits = scorer.logits(scorer.encode(queries, titles))
    say_truncated(parts.pair_encoder, scorer.windows, file=messages(options))
    return parts, logits


def messages(options: MeasuringOptions) -> TextIO:
    """Return where to say what is no figure: beside the figures as text, elsewhere when those are JSON."""
    return sys.stderr if options.format == "json" else sys.stdout


def baseline_systems(pairs: MeasuredPairs, options: MeasuringOptions) -> tuple[list[System], list[str]]:
    """Return BM25 of words and of bigrams and the linear model, and why one of them is left out, if one is."""
    if pairs.titles is None:
        return [], ["no baselines: BM25 and the linear model need texts (--queries and --documents)"]
    queries, titles = pairs.texts("a baseline")
    labels = pairs.labels[pairs.candidates]
    train: Optional[Sequence[LabeledPair]] = None
    learned = "the measured titles"
    if options.train_file is not None:
        train = read_records(options.train_file, LabeledPair, skip_bad_rows=options.skip_bad_rows)
        learned = f"{options.train_file} (sha256 {digest(options.train_file)})"
    collection = titles if train is None else [pair.title for pair in train]
    systems = [
        System(name, pairs.spread(bm25(tokenizer, queries, titles, collection)), "baseline", {"rarity from": learned})
        for name, tokenizer in ((BM25_WORDS, "jieba"), (BM25_BIGRAMS, "bigram"))
    ]
    try:
        logits = linear(queries, titles, labels, train)
    except DataError as error:
        return systems, [f"no {LINEAR} baseline: {error}"]
    taught = "the labels of the other four fifths of the queries" if train is None else learned
    return [*systems, System(LINEAR, pairs.spread(logits), "baseline", {"learned from": taught})], []


def is_model(path: str) -> bool:
    """Say whether a path is a model's: a folder, or a parameter file."""
    return os.path.isdir(path) or path.endswith((".pdparams", ".pdiparams"))


def digest(path: str) -> str:
    """Return the first 16 digits of a file's SHA-256, of a folder's that of its files' names and digests."""
    found = hashlib.sha256()
    if os.path.isdir(path):
        for file in sorted(Path(path).rglob("*")):
            if file.is_file():
                found.update(f"{file.relative_to(path)}\0{digest(str(file))}\n".encode())
        return found.hexdigest()[:_DIGITS]
    try:
        with open(path, "rb") as stream:
            while block := stream.read(1 << 20):
                found.update(block)
    except OSError as error:
        raise RankerError(f"{path}: cannot read it ({error.strerror})") from error
    return found.hexdigest()[:_DIGITS]


def data_facts(options: MeasuringOptions) -> dict[str, str]:
    """Return the data files that a comparison is made of, with their digests, for a report."""
    named = ("test_file", "qrels", "queries", "documents", "candidates", "train_file")
    paths = {name: getattr(options, name) for name in named}
    return {name: f"{path} (sha256 {digest(path)})" for name, path in paths.items() if path is not None}
