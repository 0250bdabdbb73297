"""Train a model that says whether a post (text and image) follows from another one, contradicts it, or neither."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Optional

from multimodal_entailment.options import ENTAILMENT_MAY_CHANGE, TrainEntailmentOptions
from paddle_ranker import runtime
from paddle_ranker.options import run_command

if TYPE_CHECKING:
    from paddle_ranker.training.trainer import FitResult


def train(options: TrainEntailmentOptions) -> FitResult:
    """Train as the options say; checkpoints go to `options.save_dir`. Return where it ended.

    The figures are `loss` (nats), `accuracy` and `macro_f1` of the validation pairs.
    """
    runtime.prepare_command(options.cpu_threads)
    import numpy as np

    from multimodal_entailment.data import LABELS
    from multimodal_entailment.examples import HeldOut, PostExamples
    from multimodal_entailment.losses import ClassLoss, class_weights
    from multimodal_entailment.start import describe_data, labels_of, make_posts, open_data, start_entailment
    from paddle_ranker.errors import UsageError
    from paddle_ranker.scoring.files import say_truncated
    from paddle_ranker.training.facts import say_result
    from paddle_ranker.training.trainer import fit

    data = open_data(options)
    split, labels = data.split, labels_of(data.split.train)
    weights = class_weights(options.class_weights, np.bincount(labels, minlength=len(LABELS)).tolist())

    start = start_entailment(options)
    parts, processes = start.parts, start.processes
    if len(split.train) < processes.size:
        raise UsageError(f"{len(split.train)} training pairs are too few for {processes.size} processes")
    train_posts, validation_posts = (make_posts(pairs, parts, options) for pairs in (split.train, split.validation))
    if processes.is_first:
        print(describe_data(split), flush=True)
        if parts.pair_encoder is not None:
            say_truncated(parts.pair_encoder)

    examples = PostExamples(train_posts, labels, ClassLoss(weights, options.gamma))
    held_out = HeldOut(validation_posts, labels_of(split.validation), options.batch_size)
    facts = {**data.facts(), "weights_of_classes": weights.tolist()}
    files = {"train_file", "validation_file"}
    fixed = {name: value for name, value in asdict(options).items() if name not in ENTAILMENT_MAY_CHANGE | files}
    result = fit(
        parts.network,
        examples,
        options,
        save=lambda folder, results: start.save(folder, options, facts, results),
        evaluate=lambda: held_out.measure(parts.network, processes),
        metric=options.metric,
        lower_is_better=options.metric == "loss",
        part_factors=start.part_factors,
        processes=processes,
        identity={"options": fixed, "content": data.content},
        resumed=start.resumed,
    )
    if processes.is_first:
        say_result(result)
    return result


def run(options: TrainEntailmentOptions) -> None:
    """Train, and print where it ended."""
    train(options)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; return its exit status."""
    return run_command(run, TrainEntailmentOptions, argv, description=__doc__ or "")


if __name__ == "__main__":
    raise SystemExit(main())
