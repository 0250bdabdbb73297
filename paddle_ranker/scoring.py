"""What the commands that score with a trained ranker have in common."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Optional, TextIO

import numpy as np
from tqdm import tqdm

from paddle_ranker import runtime
from paddle_ranker.evaluation import EvaluationSet
from paddle_ranker.model_folder import RankerParts, load_ranker
from paddle_ranker.pair_encoder import PairEncoder
from paddle_ranker.ranker import RankedTitle
from paddle_ranker.records import Pair, RecordFile
from paddle_ranker.scorer import DygraphEngine, Scorer, chunks
from paddle_ranker.scoring_options import EvaluateOptions, PredictOptions, ScoringOptions


def load_for_scoring(source: str, options: ScoringOptions, expected_kind: Optional[str] = None) -> RankerParts:
    """Select the device and load the ranker as the options say; refuse one of another kind."""
    runtime.select_device(options.device)
    return load_ranker(
        source,
        model_name=options.model_name_or_path,
        max_seq_length=options.max_seq_length,
        tokenizer=options.tokenizer,
        expected_kind=expected_kind,
    )


def score_evaluation_file(
    options: EvaluateOptions, expected_kind: str
) -> tuple[RankerParts, EvaluationSet, np.ndarray]:
    """Return the ranker, the labelled pairs and their logits (`[n]` float64); say what was left out and cut.

    Raises `DataError` for a malformed file or one of one class only, `CheckpointError` for a ranker of another kind.
    """
    parts = load_for_scoring(options.init_from_ckpt, options, expected_kind)
    evaluation = EvaluationSet(
        options.test_file, parts.pair_encoder, options.batch_size, skip_bad_rows=options.skip_bad_rows
    )
    if evaluation.skipped:
        print(f"{options.test_file}: {evaluation.report}")
    say_truncated(parts.pair_encoder)
    return parts, evaluation, evaluation.logits(DygraphEngine(parts.network))


def print_figures(figures: dict[str, float]) -> None:
    """Print the AUC as the published scripts do, then every other figure, one a line."""
    print(f"eval_dev auc:{figures['auc']:.3f}")
    for name, value in figures.items():
        if name != "auc":
            print(f"{name}: {value:.4f}" if isinstance(value, float) else f"{name}: {value}")


def predict_pairs(options: PredictOptions, expected_kind: Optional[str] = None) -> Iterator[tuple[Pair, float]]:
    """Yield every pair of the input file with its probability, in order, in memory that does not grow with the file."""
    parts = load_for_scoring(options.params_path, options, expected_kind)
    scorer = Scorer(DygraphEngine(parts.network), parts.pair_encoder, options.batch_size)
    source = RecordFile(options.input_file, Pair, skip_bad_rows=options.skip_bad_rows)
    with tqdm(desc="score", unit="pair", disable=None) as progress:
        for part in chunks(source):
            probabilities = scorer.score([pair.query for pair in part], [pair.title for pair in part])
            progress.update(len(part))
            yield from zip(part, probabilities.tolist())
    if source.skipped:
        print(f"{options.input_file}: {source.report()}", file=sys.stderr)
    say_truncated(parts.pair_encoder, file=sys.stderr)


def say_truncated(pair_encoder: PairEncoder, file: Optional[TextIO] = None) -> None:
    """Say how many pairs were longer than the ranker's length, if any were."""
    if pair_encoder.truncated:
        print(
            f"{pair_encoder.truncated:,} pairs were cut to {pair_encoder.max_seq_length} tokens", file=file, flush=True
        )


def rank_by_query(
    options: PredictOptions, top_k: int, expected_kind: Optional[str] = None
) -> Iterator[tuple[str, list[RankedTitle]]]:
    """Yield every query of the input file with its best `top_k` titles, best first; ties as they stand in the file.

    The rows of a query need not stand together, so all queries are held until the file is read; of each only the best
    `top_k` titles are.
    """
    best: dict[str, list[RankedTitle]] = {}
    for index, (pair, probability) in enumerate(predict_pairs(options, expected_kind)):
        titles = best.setdefault(pair.query, [])
        titles.append(RankedTitle(index, pair.title, probability, pair.recall_score))
        if len(titles) >= 2 * top_k + 64:
            best[pair.query] = _best_first(titles)[:top_k]
    for query, titles in best.items():
        yield query, _best_first(titles)[:top_k]


def _best_first(titles: list[RankedTitle]) -> list[RankedTitle]:
    return sorted(titles, key=lambda title: -title.probability)  # stable: ties keep their order


def shown_probability(probability: float) -> float:
    """Return the probability with the digits that single precision has: 0.89284337, not 0.8928433656692505."""
    return float(str(np.float32(probability)))


def shown_pair(
    query: str,
    title: str,
    probability: float,
    recall_score: Optional[float],
    names: tuple[str, str] = ("query", "title"),
) -> dict[str, object]:
    """Return what prediction prints of a pair: its texts under `names`, its recall score if it has one, `pred_prob`."""
    recalled = {} if recall_score is None else {"recall_score": recall_score}
    return {names[0]: query, names[1]: title, **recalled, "pred_prob": shown_probability(probability)}
