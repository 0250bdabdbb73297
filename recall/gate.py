"""Gate of a tower in 8-bit integers: Recall@10 of an exact search by its vectors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Optional, cast

import numpy as np

from paddle_ranker.data.records import LabeledPair, Pair, RecordFile
from paddle_ranker.encoding.batching import most_tokens, scoring_batches
from paddle_ranker.encoding.columns import EncodedTexts
from paddle_ranker.errors import DataError, RankerError
from paddle_ranker.evaluation.recall import RecallSet
from paddle_ranker.export.gates import Quality, QuantizeOptions, file_facts
from paddle_ranker.metrics.intervals import bootstrap_interval, mean_of
from paddle_ranker.metrics.measures import recall_at
from paddle_ranker.metrics.ranking import RELEVANT, Floats
from paddle_ranker.model.exported import Exported, ExportedFolder
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.tower import QUERY_FOLDER, TextEncoder, TowerInfo
from paddle_ranker.retrieval.vectors import Tower, Vectors, nearest
from paddle_ranker.scoring.engines.base import Engine

_MEASURE, _CUT = "recall@10", 10


class TowerGate:
    """The gate for towers: Recall@10 of the queries of `--test`; the collection is the titles of both files.

    Raises `DataError` if a file cannot be used to calibrate or to measure.
    """

    rows, outputs, draws = "text", "vectors", "queries"

    def __init__(self, folder: ExportedFolder, options: QuantizeOptions):
        how = LoadOptions(max_seq_length=options.max_seq_length, tokenizer=options.tokenizer)
        self._encoder = cast(Exported[TowerInfo, TextEncoder], folder).row_encoder(how)
        self._batch_size = options.batch_size
        self._queries: Optional[Tower] = None
        if cast(Exported[TowerInfo, TextEncoder], folder).info.towers == 2:
            self._queries = Tower.open(folder.folder / QUERY_FOLDER, how, options.batch_size)
        pairs = list(RecordFile(options.calibration_file, Pair, options))
        self._set = RecallSet(_right_pairs(options), [row.title for row in pairs])
        drawn = np.random.default_rng(options.seed).permutation(len(pairs))[: options.calibration_pairs].tolist()
        columns = EncodedTexts.concat(
            [
                self._encoder.encode([pairs[row].title for row in drawn]),
                *([self._encoder.encode_queries([pairs[row].query for row in drawn])] if not self._queries else []),
            ]
        )
        max_tokens = most_tokens(options.batch_size, self._encoder.tokens.max_seq_length)
        self.calibration = [columns.pad(rows) for rows in scoring_batches(columns.lengths, max_tokens, max_tokens)]
        self.facts: dict[str, object] = {
            "calibration": file_facts(options.calibration_file, len(drawn)),
            "evaluation": {
                **file_facts(options.eval_file, sum(map(len, self._set.answers))),
                "queries": len(self._set.queries),
                "texts": len(self._set.corpus),
            },
            "max_seq_length": self._encoder.tokens.max_seq_length,
        }
        self._before: dict[str, tuple[Floats, Vectors]] = {}

    def judge(self, fp32: Engine, int8: Engine) -> list[Quality]:
        """Return Recall@10 in fp32 and in int8."""
        if not self._before:
            self._before[_MEASURE] = self._recall(fp32)
        (before, exact), (after, rounded) = self._before[_MEASURE], self._recall(int8)
        if not np.isfinite(rounded).all():
            raise RankerError(f"{int8.name}: its int8 vectors are not numbers; report it with the output of doctor")
        difference = bootstrap_interval(mean_of(after - before), len(before))
        moved = float(np.sqrt(np.square(rounded - exact).mean()) / exact.std())
        return [Quality(int8.name, _MEASURE, float(before.mean()), float(after.mean()), difference, moved)]

    def _recall(self, engine: Engine) -> tuple[Floats, Vectors]:
        """Return each query's recall, `[queries]`, and the vectors of the texts."""
        tower = Tower(engine, self._encoder, self._batch_size, self._queries)
        texts = tower.vectors(self._set.corpus)
        found, _ = nearest(texts, tower.query_vectors(self._set.queries), _CUT)
        return recall_at(self._set.ranking(found), _CUT), texts


def _right_pairs(options: QuantizeOptions) -> Iterator[tuple[str, str]]:
    """Yield the pairs of `--test` that belong together; with labels, those labelled 1 or more."""
    labelled = RecordFile(options.eval_file, LabeledPair, options)
    try:
        next(iter(labelled), None)
    except DataError:
        yield from ((row.query, row.title) for row in RecordFile(options.eval_file, Pair, options))
    else:
        yield from ((row.query, row.title) for row in labelled if row.label >= RELEVANT)
