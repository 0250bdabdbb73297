"""Measure a model of vectors on pairs of texts with the same meaning: how often the second text is the nearest one.

paddle-ranker evaluate --model vectors --test pairs.tsv
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from paddle_ranker import runtime
from paddle_ranker.data.rows.records import Pair, read_records
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.options import main_of, option
from paddle_ranker.scoring.loading import open_model
from paddle_ranker.scoring.scorer import BatchRunner
from paddle_ranker.scoring.scoring_options import ScoringOptions
from tests.extensions.own_kind import VECTORS


@dataclass(frozen=True)
class EvaluateVectorsOptions(ScoringOptions):
    params_path: str = option(help="the model's folder", name="model", leads=True)
    test_file: str = option(help="pairs of texts that mean the same", name="test", files=True)


def evaluate(options: EvaluateVectorsOptions) -> None:
    runtime.prepare_command(options.cpu_threads)
    model = open_model(options.params_path, VECTORS, LoadOptions.of(options))
    pairs = read_records(options.test_file, Pair, options)
    runner = BatchRunner(model.engine, model.info.max_seq_length, options.batch_size)
    first, second = (
        runner.run(model.row_encoder.encode_single(texts))["vector"]
        for texts in ([pair.query for pair in pairs], [pair.title for pair in pairs])
    )
    nearest = (first @ second.T).argmax(axis=1) == np.arange(len(pairs))
    print(f"accuracy: {nearest.mean():.4f} ({len(pairs)} pairs)")


main = main_of(evaluate, EvaluateVectorsOptions, __doc__)
