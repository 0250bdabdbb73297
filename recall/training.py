"""The common part of both tower trainings: measure Recall@k against a corpus, save, and train."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Optional

import numpy as np
from tqdm import tqdm

from paddle_ranker.distributed import ProcessGroup
from paddle_ranker.encoding.columns import EncodedTexts
from paddle_ranker.evaluation.recall import RecallSet, is_answer, open_pairs
from paddle_ranker.metrics.measures import recall_at, reciprocal_rank_at
from paddle_ranker.model.tower_network import APART, save_query_tower, save_tower
from paddle_ranker.retrieval.vectors import Tower, Vectors, nearest, normalised
from paddle_ranker.scoring.engines.dygraph import DygraphEngine
from paddle_ranker.storage.digest import content_digest
from paddle_ranker.training.task import FitResult, OnEvaluation, Task
from recall.model import InBatchExamples
from recall.options import TowerTrainingOptions
from recall.results import corpus_texts, write_results
from recall.start import TowerStart

_CUTS = (1, 5, 10, 20, 50)


class RecallEvaluation:
    """Evaluation set of queries with their answers, and a corpus to search; all texts are encoded once.

    Raises `DataError` for a bad row of a file.
    """

    def __init__(self, start: TowerStart, options: TowerTrainingOptions):
        assert options.similar_text_pair is not None
        corpus = corpus_texts(options.corpus_file, options) if options.corpus_file else []
        rows = list(open_pairs(options.similar_text_pair, options))
        titles = [row.title for row in rows]  # titles that do not answer are searched as well
        self._set = RecallSet(((row.query, row.title) for row in rows if is_answer(row)), [*corpus, *titles])
        self._options, self._info = options, start.model.info
        model, queries = start.model, start.queries
        self._texts = model.row_encoder.encode(self._set.corpus)
        self._queries = (queries or model).row_encoder.encode_queries(self._set.queries)
        self.report = f"{len(self._set.queries):,} queries, {len(self._set.corpus):,} texts to search"
        if corpus and not {*corpus} & {*titles}:
            start.run.report(f"{options.corpus_file}: holds no title of {options.similar_text_pair}; is it their file?")
        towers = [
            Tower(DygraphEngine(part.network, part.signature), part.row_encoder, options.batch_size)
            for part in (model, queries or model)
        ]
        self._tower, self._query_tower = towers

    def measure(self, processes: ProcessGroup) -> dict[str, float]:
        """Return Recall@k and MRR@10, also of nested sizes (`recall@10/64`); the processes share the encoding."""
        began = time.monotonic()
        texts = _shared(self._tower, self._texts, processes)
        queries = _shared(self._query_tower, self._queries, processes)
        found, cosines = nearest(texts, queries, self._options.recall_num)
        ranking = self._set.ranking(found)
        cuts = [cut for cut in _CUTS if cut <= self._options.recall_num]
        measures = {f"recall@{cut}": float(recall_at(ranking, cut).mean()) for cut in cuts}
        measures["mrr@10"] = float(reciprocal_rank_at(ranking, 10).mean())
        for size in self._info.nested_sizes:
            cut = [
                normalised(array[:, :size]) if self._info.normalize else array[:, :size] for array in (texts, queries)
            ]
            numbers, _ = nearest(cut[0], cut[1], 10)
            measures[f"recall@10/{size}"] = float(recall_at(self._set.ranking(numbers), 10).mean())
        if processes.is_first:
            self._write(found, cosines)
            line = " ".join(f"recall@{cut}={100 * measures[f'recall@{cut}']:.3f}" for cut in cuts)
            tqdm.write(f"{line} ({self.report}, {time.monotonic() - began:.1f} s)")
        return measures

    def _write(self, found: np.ndarray, cosines: Vectors) -> None:
        if self._options.results_path is None:
            return
        folder, name = self._options.results_path
        os.makedirs(folder, exist_ok=True)
        corpus = self._set.corpus
        rows = (
            (query, corpus[number], round(cosine, 6))
            for query, numbers, row in zip(self._set.queries, found.tolist(), cosines.tolist())
            for number, cosine in zip(numbers, row)
        )
        write_results(os.path.join(folder, name), rows)


def _shared(tower: Tower, columns: EncodedTexts, processes: ProcessGroup) -> Vectors:
    """Return the vectors of all rows; each process computes a share of them."""
    if processes.size == 1:
        return tower.compute(columns)
    own = np.arange(processes.rank, len(columns), processes.size)
    computed = tower.compute(columns.take(own))
    size = int(processes.sum(np.array([float(computed.shape[1]) if processes.is_first else 0.0]))[0])
    vectors = np.zeros((len(columns), size), np.float32)
    if len(own):
        vectors[own] = computed
    return processes.sum(vectors)


def open_evaluation(start: TowerStart, options: TowerTrainingOptions) -> Optional[RecallEvaluation]:
    """Return the evaluation set, or None."""
    return RecallEvaluation(start, options) if options.evaluates else None


def train_tower(
    start: TowerStart,
    examples: InBatchExamples,
    evaluation: Optional[RecallEvaluation],
    options: TowerTrainingOptions,
    facts: Mapping[str, object],
    on_evaluation: Optional[OnEvaluation] = None,
) -> FitResult:
    """Train, evaluate regularly, keep the best checkpoint by `options.metric`, and print the result.

    Args:
        facts: further values to record in `tower.json`.
        on_evaluation: see `Task`.
    """
    run, model, processes = start.run, start.model, start.run.processes
    options.note_unused()
    if options.parts * processes.size > 1:
        run.report(f"each device computes a batch in {options.parts} parts of {options.part_size} examples")

    def save(folder: Path, results: dict[str, float]) -> None:
        info = replace(model.info, **run.describe({"examples": len(examples), **facts}, results))
        save_tower(folder, model, info)
        if start.queries is not None:
            save_query_tower(folder, start.queries, info)

    stated = {name: getattr(model.info, name) for name in ("max_seq_length", "size", "pooling", "normalize", "towers")}
    task = Task(
        model.network,
        examples,
        None if evaluation is None else lambda: evaluation.measure(processes),
        save,
        metric=options.metric,
        part_factors=start.part_factors,
        identity={
            "options": {**options.identity(), **stated},
            "content": {name: content_digest(path) for name, path in options.compared.items()},
        },
        begin_epoch=examples.begin_epoch,
        on_evaluation=on_evaluation,
        apart=APART,
    )
    result = run.train(task)
    if examples.without_negatives and examples.settings.terms.in_batch:
        run.report(
            f"in {examples.without_negatives:,} of {examples.batches:,} batches no query had a negative, so they "
            "taught nothing: take a larger --batch_size, or data with negatives"
        )
    return result
