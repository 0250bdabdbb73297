"""Train an encoder on raw text as a masked language model, from scratch or from an existing encoder.

paddle-ranker pretrain --train 'texts/*.txt' --tokenizer tokenizer --config nano --output checkpoint
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional

from paddle_ranker import runtime
from paddle_ranker.training.training_options import training_main
from pretraining.mlm_options import TrainMlmOptions

if TYPE_CHECKING:
    from paddle_ranker.training.task import FitResult, OnEvaluation


def train(options: TrainMlmOptions, on_evaluation: Optional[OnEvaluation] = None) -> FitResult:
    """Train as the options say, with checkpoints (encoder folders) in `options.save_dir`; return the result.

    `max_steps` and `max_minutes` limit the training. The metrics are `loss` (nats per masked token), `perplexity` and
    `accuracy` on the held-out text; the checkpoint with the lowest loss is the best.
    """
    runtime.prepare(options.cpu_threads)
    from paddle_ranker.training.task import Task
    from pretraining.examples import HeldOut, MaskedExamples, perplexity
    from pretraining.mlm_start import describe_data, make_masking, open_data, save_mlm, start_mlm

    start = start_mlm(options)
    run, model = start.run, start.model
    data = open_data(options, model.tokenizer)
    run.report(describe_data(data, options, model.network))

    masking = make_masking(options, model.tokenizer)
    examples = MaskedExamples(data.train, masking)
    held_out = HeldOut(data.held_out, masking, options.batch_size)
    task = Task(
        model.network,
        examples,
        evaluate=lambda: held_out.measure(model.network, run.processes),
        save=lambda folder, results: save_mlm(folder, model, run.describe(data.facts, results)),
        metric="loss",
        lower_is_better=True,
        part_factors=start.part_factors,
        identity={"options": options.identity(), "content": data.content},
        begin_epoch=examples.begin_epoch,
        describe=lambda means: {**means, "perplexity": perplexity(means["loss"])},
        on_evaluation=on_evaluation,
    )
    return run.train(task)


main = training_main(train, TrainMlmOptions, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
