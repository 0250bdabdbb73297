"""What training a ranker of either kind has around the loop: where it starts, what it saves, what it says."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional, Protocol

import numpy as np

from paddle_ranker.distributed import ProcessGroup
from paddle_ranker.encoding.columns import EncodedPairs
from paddle_ranker.errors import DataError, UsageError
from paddle_ranker.evaluation.evaluate import EvaluationSet
from paddle_ranker.metrics.measures import MEASURES
from paddle_ranker.model.folder import RankerInfo, RankerParts, save_ranker, start_ranker
from paddle_ranker.model.pretrained import resolve_model
from paddle_ranker.scoring.engines.dygraph import DygraphEngine
from paddle_ranker.scoring.files import say_truncated
from paddle_ranker.training.facts import say_result, told_options, versions
from paddle_ranker.training.options import MAY_CHANGE, RankerTrainingOptions
from paddle_ranker.training.start import start_run
from paddle_ranker.training.state import SavedState, content_digest
from paddle_ranker.training.trainer import Examples, FitResult, fit

FOLDED_HEAD_FACTOR = 2.0  # two opposite rows become one, which moves half as far a step


@dataclass(frozen=True)
class Start:
    """What a training begins with.

    `part_factors` are the learning rates of parts, times the peak; `resumed` is the state of an earlier run that this
    one goes on with.
    """

    parts: RankerParts
    processes: ProcessGroup
    part_factors: dict[str, float]
    resumed: Optional[SavedState]


def start_training(options: RankerTrainingOptions, kind: str) -> Start:
    """Select the device, seed everything, and load the ranker, the encoder or the interrupted run to start from."""
    processes, resumed = start_run(options)
    if resumed:
        source, name = resumed.model, None
    elif options.init_from_ckpt:
        source, name = Path(options.init_from_ckpt), options.model_name_or_path
    else:
        source, name = resolve_model(options.model_name_or_path), None
    parts = start_ranker(
        source,
        kind,
        model_name=name,
        max_seq_length=options.max_seq_length,
        match_embeddings=options.match_embeddings,
        lexical_features=options.lexical_features,
        tokenizer=options.tokenizer,
        same_kind=bool(resumed or options.init_from_ckpt),
    )
    parts.network.encoder.gradient_checkpointing = options.gradient_checkpointing
    if processes.is_first:
        if options.resume and not resumed:
            print(f"{options.save_dir} holds no run to resume: begin one", flush=True)
        if parts.new_parts:
            print(f"start from {source}; new: {', '.join(parts.new_parts)}", flush=True)
        if parts.dropped_calibration:
            print(f"the calibration of {source} is left out: calibrate what comes out of the training", flush=True)
    return Start(parts, processes, resumed.part_factors if resumed else _part_factors(parts, options), resumed)


def _part_factors(parts: RankerParts, options: RankerTrainingOptions) -> dict[str, float]:
    factors = dict.fromkeys(parts.new_parts, options.new_parts_factor)
    if "head" in factors:
        factors.pop("lexical", None)  # it starts from a logistic regression, not from nothing
    if parts.folded_head:
        factors["head"] = FOLDED_HEAD_FACTOR
    if options.head_learning_rate is not None:
        factors["head"] = options.head_learning_rate / options.learning_rate
    return factors


class RankerExamples(Examples, Protocol):
    """Examples made of pairs of texts. Attribute: `pairs`, all of them, encoded."""

    pairs: EncodedPairs

    def pair_labels(self, indices: np.ndarray) -> np.ndarray:
        """Return the labels of the pairs `indices`, both `[m]`; 1 and above is relevant."""
        ...


def open_evaluation(start: Start, test_file: str, options: RankerTrainingOptions) -> EvaluationSet:
    """Return the file to evaluate on during training, encoded; pairs with several labels are left out of it."""
    return EvaluationSet(
        test_file, start.parts.pair_encoder, options.batch_size, skip_bad_rows=options.skip_bad_rows, one_label=True
    )


def train_ranker(
    start: Start,
    examples: RankerExamples,
    evaluation: EvaluationSet,
    options: RankerTrainingOptions,
    *,
    files: dict[str, str],
    training_facts: dict[str, Any],
) -> FitResult:
    """Train, evaluate as it goes, keep the best checkpoint by `options.metric`, and say where it ended.

    Args:
        files: the training and the evaluation file, by the names of their options: a resumed run needs the same.
        training_facts: what belongs into `ranker.json` beside the options (the loss's margin, the number of examples).
    """
    parts, processes = start.parts, start.processes
    if len(examples) < processes.size:
        raise UsageError(f"{len(examples)} training examples are too few for {processes.size} processes")
    if processes.is_first:
        say_truncated(parts.pair_encoder)
    lexical = parts.network.lexical
    if lexical is not None and not lexical.has_learned:
        new_head = "head" in parts.new_parts
        lexical.learn(examples.pairs, parts.pair_encoder.pad_id, examples.pair_labels if new_head else None)
    engine = DygraphEngine(parts.network)

    def evaluate() -> dict[str, float]:
        figures = evaluation.measure(engine, processes)
        if options.metric not in figures:
            raise DataError(
                f"the evaluation file gives no {options.metric} (it has one title a query): choose --metric auc"
            )
        return figures

    def save(folder: Path, results: dict[str, Any]) -> None:
        info = RankerInfo(
            kind=parts.info.kind,
            max_seq_length=parts.info.max_seq_length,
            match_embeddings=parts.info.match_embeddings,
            lexical_features=parts.info.lexical_features,
            training={**told_options(options), **training_facts},
            results=results,
            versions=versions(),
        )
        save_ranker(folder, parts.network, parts.pair_encoder, info)

    fixed = {name: value for name, value in asdict(options).items() if name not in {*MAY_CHANGE, *files}}
    fixed["max_seq_length"] = parts.info.max_seq_length  # a default that the checkpoint decides
    result = fit(
        parts.network,
        examples,
        options,
        save=save,
        evaluate=evaluate,
        metric=options.metric,
        lower_is_better=not MEASURES[options.metric].higher_is_better,
        part_factors=start.part_factors,
        processes=processes,
        identity={"options": fixed, "content": {name: content_digest(path) for name, path in files.items()}},
        resumed=start.resumed,
    )
    if processes.is_first:
        say_result(result)
    return result
