"""Train an encoder on raw text as a masked language model, from nothing or on from an existing one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Optional

from paddle_ranker import runtime
from paddle_ranker.options import run_command
from pretraining.mlm_options import MLM_MAY_CHANGE, TrainMlmOptions

if TYPE_CHECKING:
    from paddle_ranker.training.trainer import FitResult


def train(options: TrainMlmOptions) -> FitResult:
    """Train as the options say; checkpoints go to `options.save_dir`, each an encoder folder. Return where it ended.

    `max_steps` and `max_minutes` are its budget. The figures are `loss` (nats a hidden token), `perplexity` and
    `accuracy` of the held-out text; the lowest loss makes the best checkpoint.
    """
    runtime.prepare_command(options.cpu_threads)
    from paddle_ranker.errors import UsageError
    from paddle_ranker.training.facts import say_result
    from paddle_ranker.training.trainer import fit
    from pretraining.examples import HeldOut, MaskedExamples, perplexity
    from pretraining.mlm_start import describe_data, make_masking, open_data, start_mlm

    start = start_mlm(options)
    network, processes = start.network, start.processes

    data = open_data(options, start.tokenizer)
    masking = make_masking(options, start.tokenizer)
    examples = MaskedExamples(data.train, masking)
    held_out = HeldOut(data.held_out, masking, options.batch_size)
    if len(examples) < processes.size:
        raise UsageError(f"{len(examples)} training sequences are too few for {processes.size} processes")
    if processes.is_first:
        print(describe_data(data, options, network), flush=True)

    files = {"train_files", "eval_files"}
    fixed = {name: value for name, value in asdict(options).items() if name not in MLM_MAY_CHANGE | files}
    result = fit(
        network,
        examples,
        options,
        save=lambda folder, results: start.save(folder, options, data.facts, results),
        evaluate=lambda: held_out.measure(network, processes),
        metric="loss",
        lower_is_better=True,
        part_factors=start.part_factors,
        processes=processes,
        identity={"options": fixed, "content": data.content},
        resumed=start.resumed,
        begin_epoch=examples.begin_epoch,
        describe=lambda figures: {**figures, "perplexity": perplexity(figures["loss"])},
    )
    if processes.is_first:
        say_result(result)
    return result


def run(options: TrainMlmOptions) -> None:
    """Train, and print where it ended."""
    train(options)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; return its exit status."""
    return run_command(run, TrainMlmOptions, argv, description=__doc__ or "")


if __name__ == "__main__":
    raise SystemExit(main())
