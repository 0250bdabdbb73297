"""Measure a ranker on a file of labelled pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Optional, Union

import numpy as np

from paddle_ranker.data.rows.records import LabeledPair, RecordFile
from paddle_ranker.distributed import ProcessGroup
from paddle_ranker.encoding.pair_encoder import PairRowEncoder
from paddle_ranker.encoding.windows import Windows
from paddle_ranker.evaluation.pairs import read_without_contradictions, require_both_classes
from paddle_ranker.metrics.calibration import Calibration, sigmoid
from paddle_ranker.metrics.calibration_fitting import cross_entropies
from paddle_ranker.metrics.measures import evaluate_ranking
from paddle_ranker.metrics.ranking import RELEVANT, number_queries
from paddle_ranker.options import RowOptions
from paddle_ranker.options.input_files import folder_of
from paddle_ranker.scoring.engines.engine import Engine
from paddle_ranker.scoring.scorer import Scorer

_BLOCK = 256


class EvaluationSet:
    """A labelled file that is read and encoded once, so that models can be measured on it repeatedly.

    Attributes:
        queries, labels: the query and the label of each row.
        report: text that states how many rows were read and skipped.
        skipped: number of rows that were skipped.
    """

    def __init__(
        self,
        path: Union[str, Path],
        pair_encoder: PairRowEncoder,
        batch_size: int,
        *,
        rules: Optional[RowOptions] = None,
        windows: Optional[Windows] = None,
        one_label: bool = False,
        convert: Optional[Callable[[Sequence[LabeledPair]], Sequence[LabeledPair]]] = None,
    ):
        """Read and encode the file; raises `DataError` if its labels are all of one class.

        one_label: whether to ignore pairs with several labels, and count them in `report`. The evaluate commands raise
            an error for such pairs. A training ignores them, as it does when it begins
        convert: called with the file's pairs; returns the pairs to measure on instead
        """
        source = RecordFile(path, LabeledPair, rules)
        records, left_out = read_without_contradictions(source, skip=True) if one_label else (list(source), "")
        self.report = "; ".join(filter(None, (source.report(), left_out)))
        self.skipped = source.skipped + source.kept - len(records)
        records = records if convert is None else [*convert(records)]
        self.queries = [record.query for record in records]
        self.labels = np.array([record.label for record in records], dtype=np.float64)
        require_both_classes(path, self.labels, "AUC")
        self._windows = windows
        titles = [record.title for record in records]
        pair_encoder.set_title_folder(folder_of(path))
        self.pairs = pair_encoder.encode(self.queries, titles, truncate=windows is None)
        self._pair_encoder = pair_encoder
        self._batch_size = batch_size

    def logits(
        self, engine: Engine, processes: Optional[ProcessGroup] = None, calibration: Optional[Calibration] = None
    ) -> np.ndarray:
        """Return the logits of all rows, `[n]` float64.

        processes: processes that share the work: each computes some rows, and every process returns all logits
        """
        scorer = Scorer(engine, self._pair_encoder, self._batch_size, calibration=calibration, windows=self._windows)
        if processes is None:
            return scorer.logits(self.pairs)
        # The batches are dealt out to the processes. Rows of other processes are 0, so the sum is each row's logit.
        return processes.sum(scorer.logits(self.pairs, processes.rank, processes.size))

    def measure(self, engine: Engine, processes: Optional[ProcessGroup] = None) -> dict[str, float]:
        """Return the measures of `evaluate_ranking`: `auc` and, if a query has several titles, measures per query.

        processes: as in `logits`
        """
        # Logits give the same order as probabilities, but do not tie where a probability rounds to 1.
        return evaluate_ranking(self.queries, self.labels, self.logits(engine, processes))


def classification_metrics(labels: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    """Return the `accuracy` and the mean binary `cross_entropy` of logits, by these names.

    labels, logits: `[n]` each; a pair is relevant if its label is at least 1

    A pair is predicted relevant if its probability is above 0.5. The cross-entropy of a pair with logit l is
    log(1 + exp(l)) - y l, where y is 1 for a relevant pair, else 0.
    """
    return {
        "accuracy": float(((logits > 0) == (labels >= RELEVANT)).mean()),
        "cross_entropy": float(cross_entropies(labels, logits).mean()),
    }


def mean_margin_loss(
    queries: list[str], labels: np.ndarray, logits: np.ndarray, margin: float, *, probabilities: bool
) -> float:
    """Return the mean of max(0, margin - (s+ - s-)) over all pairs of titles of one query with different labels.

    s+ is the score of the title with the higher label, s- the score of the other title.

    queries, labels, logits: `[n]` each
    probabilities: whether a score s is sigmoid(logit), as in the published pairwise ranker, instead of the logit

    Returns NaN if no query has titles with different labels.
    """
    scores = sigmoid(logits) if probabilities else logits
    numbers = number_queries(queries)
    order = np.argsort(numbers, kind="stable")
    bounds = np.flatnonzero(np.diff(numbers[order])) + 1
    total, count = 0.0, 0
    for rows in np.split(order, bounds):
        for start in range(0, len(rows), _BLOCK):  # a matrix of all title pairs of a query may not fit in memory
            block = rows[start : start + _BLOCK]
            higher = labels[block][:, None] > labels[rows][None, :]
            violation = np.maximum(0.0, margin - (scores[block][:, None] - scores[rows][None, :]))
            total += float(violation[higher].sum())
            count += int(higher.sum())
    return total / count if count else float("nan")
