"""Train a model that predicts if a post (text and image) follows from another post, contradicts it, or neither.

paddle-ranker train-entailment --train posts.csv --model starter --output checkpoint
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from multimodal_entailment.options import TrainEntailmentOptions
from paddle_ranker import runtime
from paddle_ranker.training.training_options import training_main

if TYPE_CHECKING:
    from paddle_ranker.training.task import FitResult, OnEvaluation


def train(options: TrainEntailmentOptions, on_evaluation: Optional[OnEvaluation] = None) -> FitResult:
    """Train as the options say, with checkpoints in `options.save_dir`; return the result.

    The metrics are `loss` (nats), `accuracy` and `macro_f1` of the validation pairs.
    """
    runtime.prepare(options.cpu_threads)
    import numpy as np

    from multimodal_entailment.examples import ClassLoss, HeldOutPosts, PostExamples, class_weights
    from multimodal_entailment.folder import save_entailment
    from multimodal_entailment.info import LABELS
    from multimodal_entailment.measures import labels_of
    from multimodal_entailment.start import describe_data, make_posts, open_data, start_entailment
    from paddle_ranker.training.task import Task

    data = open_data(options)
    split, labels = data.split, labels_of(data.split.train)
    weights = class_weights(options.class_weights, np.bincount(labels, minlength=len(LABELS)).tolist())

    start = start_entailment(options)
    model, run = start.model, start.run
    train_posts, validation_posts = (make_posts(pairs, model, options) for pairs in (split.train, split.validation))
    run.report(describe_data(split))
    held_out = HeldOutPosts(validation_posts, labels_of(split.validation), options.batch_size)
    facts = {**data.facts(), "weights_of_classes": weights.tolist()}

    def save(folder: Path, results: dict[str, float]) -> None:
        save_entailment(folder, model, dataclasses.replace(model.info, **run.describe(facts, results)))

    task = Task(
        model.network,
        PostExamples(train_posts, labels, ClassLoss(weights, options.gamma)),
        evaluate=lambda: held_out.measure(model.network, run.processes),
        save=save,
        metric=options.metric,
        lower_is_better=options.metric == "loss",
        part_factors=start.part_factors,
        identity={"options": options.identity(), "content": data.content},
        on_evaluation=on_evaluation,
    )
    return run.train(task)


main = training_main(train, TrainEntailmentOptions, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
