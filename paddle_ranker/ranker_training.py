"""What training a ranker of either kind has around the loop: where it starts, what it saves, what it says."""

from __future__ import annotations

import platform
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import paddle

from paddle_ranker import __version__, runtime
from paddle_ranker.atomic import make_folder
from paddle_ranker.distributed import ProcessGroup
from paddle_ranker.errors import UsageError
from paddle_ranker.evaluation import EvaluationSet
from paddle_ranker.model_folder import RankerInfo, RankerParts, save_ranker, start_ranker
from paddle_ranker.pretrained import resolve_model
from paddle_ranker.scorer import DygraphEngine
from paddle_ranker.scoring import say_truncated
from paddle_ranker.trainer import Examples, FitResult, fit
from paddle_ranker.training_options import RankerTrainingOptions


def start_training(options: RankerTrainingOptions, kind: str) -> tuple[RankerParts, ProcessGroup]:
    """Select the device, seed everything, and load the ranker or encoder to start from."""
    runtime.select_device(options.device)
    make_folder(options.save_dir)  # what cannot be saved need not be trained
    processes = ProcessGroup()
    runtime.set_seed(options.seed)
    if options.init_from_ckpt:
        source, name = Path(options.init_from_ckpt), options.model_name_or_path
    else:
        source, name = resolve_model(options.model_name_or_path), None
    parts = start_ranker(
        source,
        kind,
        model_name=name,
        max_seq_length=options.max_seq_length,
        match_embeddings=options.match_embeddings,
        tokenizer=options.tokenizer,
        same_kind=options.init_from_ckpt is not None,
    )
    if processes.is_first and parts.new_parts:
        print(f"start from {source}; new: {', '.join(parts.new_parts)}", flush=True)
    return parts, processes


def train_ranker(
    parts: RankerParts,
    examples: Examples,
    evaluation: EvaluationSet,
    options: RankerTrainingOptions,
    processes: ProcessGroup,
    *,
    training_facts: dict[str, Any],
) -> FitResult:
    """Train, evaluate as it goes, keep the best checkpoint by AUC, and say where it ended.

    Args:
        training_facts: what belongs into `ranker.json` beside the options (the loss's margin, the number of examples).
    """
    if len(examples.lengths) < processes.size:
        raise UsageError(f"{len(examples.lengths)} training examples are too few for {processes.size} processes")
    if processes.is_first:
        say_truncated(parts.pair_encoder)

    def save(folder: Path, results: dict[str, Any]) -> None:
        info = RankerInfo(
            kind=parts.info.kind,
            max_seq_length=parts.info.max_seq_length,
            match_embeddings=parts.info.match_embeddings,
            training={**_told(options), **training_facts},
            results=results,
            versions=versions(),
        )
        save_ranker(folder, parts.network, parts.pair_encoder, info)

    result = fit(
        parts.network,
        examples,
        options,
        save=save,
        evaluate=lambda: evaluation.measure(DygraphEngine(parts.network)),
        metric="auc",
        new_parts=parts.new_parts,
        processes=processes,
    )
    if processes.is_first:
        figures = ", ".join(f"{name} {value:.4f}" for name, value in result.best.items() if isinstance(value, float))
        print(f"trained {result.steps} steps in {result.seconds:.0f} s, {result.examples_per_second:.1f} examples/s")
        print(f"best: step {result.best['step']} ({figures}) -> {result.best_checkpoint}; "
              f"last: {result.last_checkpoint}", flush=True)  # fmt: skip
    return result


def versions() -> dict[str, str]:
    """Return the versions a model depends on."""
    return {
        "paddle_ranker": __version__,
        "paddlepaddle": paddle.__version__,
        "numpy": metadata.version("numpy"),
        "python": platform.python_version(),
    }


_UNTOLD = {"debug", "save_dir", "logging_steps"}


def _told(options: RankerTrainingOptions) -> dict[str, Any]:
    return {name: value for name, value in asdict(options).items() if name not in _UNTOLD}
