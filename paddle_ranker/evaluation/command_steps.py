"""Steps that the evaluation commands of all kinds of rankers share: score, measure, print, write the scores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from paddle_ranker.array_types import Floats
from paddle_ranker.data.rows.trec import write_qrels
from paddle_ranker.evaluation.comparison import Comparison, System, compare_systems
from paddle_ranker.evaluation.measuring_options import EvaluateOptions
from paddle_ranker.evaluation.pairs import MeasuredPairs
from paddle_ranker.evaluation.report.text import measured_json, systems_table
from paddle_ranker.evaluation.score_files import write_scores
from paddle_ranker.evaluation.systems import baseline_systems, read_measured_pairs, score_with_model
from paddle_ranker.options import json_text, note
from paddle_ranker.storage.atomic import check_writable
from paddle_ranker.storage.streams import output_free_for

if TYPE_CHECKING:
    from paddle_ranker.scoring.loading import ScoringRanker

Value = Union[int, float]


def score_measured_pairs(options: EvaluateOptions) -> tuple[ScoringRanker, MeasuredPairs, Floats]:
    """Return the ranker, the pairs, and the ranker's logits of the candidate pairs (`[candidates] float64`).

    Prints notes on ignored rows and truncated texts. Raises `DataError` if the file is malformed or its labels are all
    of one class, and `CheckpointError` if the ranker cannot be opened.
    """
    check_writable(options.scores_file, options.qrels_file)
    pairs = read_measured_pairs(options, {})
    for line in pairs.notes:
        note(line)
    ranker, logits = score_with_model(options.init_from_ckpt, options, pairs)
    return ranker, pairs, logits


def print_evaluation(
    options: EvaluateOptions, pairs: MeasuredPairs, logits: Floats, more: Mapping[str, Value]
) -> Comparison:
    """Print all measures with 95% intervals over queries, and the values in `more`; write the requested files."""
    name = Path(options.init_from_ckpt).resolve().name
    systems = [System(name, pairs.spread(logits), "model")]
    notes: list[str] = []
    if options.baselines:
        others, notes = baseline_systems(pairs, options)
        systems += others
    comparison = compare_systems(pairs, systems, ties=options.ties, resamples=options.resamples, seed=options.seed)
    for line in notes:
        note(line)
    if options.scores_file is not None:
        write_scores(options.scores_file, pairs, systems[0].scores, name)
    if options.qrels_file is not None:
        rows = zip(pairs.query_ids, pairs.document_ids, pairs.labels.tolist(), pairs.judged)
        write_qrels(
            options.qrels_file, ((query, document, label) for query, document, label, is_known in rows if is_known)
        )
    with output_free_for(options.scores_file, options.qrels_file):
        if options.format == "json":
            print(json_text(_as_json(comparison, name, more), indent=2))
        else:
            _print_text(comparison, name, more)
    return comparison


def _print_text(comparison: Comparison, name: str, more: Mapping[str, Value]) -> None:
    measures = comparison.measured[name]
    if "auc" in measures:
        print(f"eval_dev auc:{measures['auc'].interval.estimate:.3f}")  # as the published scripts print it
    for measure, measured in measures.items():
        print(f"{measure}: {measured.interval:.4f}")
    for label, value in {**comparison.counts, **more}.items():
        print(f"{label}: {value:.4f}" if isinstance(value, float) else f"{label}: {value}")
    if len(comparison.systems) > 1:
        print()
        print("\n".join(systems_table(comparison)))


def _as_json(comparison: Comparison, name: str, more: Mapping[str, Value]) -> dict[str, Any]:
    def of(system: str) -> dict[str, Any]:
        return {name: measured_json(measured) for name, measured in comparison.measured[system].items()}

    finite = {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in more.items()}
    return {
        "measures": of(name),
        **comparison.counts,
        **finite,
        "ties": comparison.ties,
        "baselines": {system.name: of(system.name) for system in comparison.others},
        "notes": comparison.pairs.notes,
    }
