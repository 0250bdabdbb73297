"""Train the pairwise ranker on triples (query, title, neg_title)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from paddle_ranker import runtime
from paddle_ranker.options import option, run_command
from paddle_ranker.training_options import RankerTrainingOptions


@dataclass(frozen=True)
class TrainPairwiseOptions(RankerTrainingOptions):
    train_file: str = option(help="training triples: query, title, neg_title")
    test_file: str = option(help="labelled pairs to evaluate on during training: query, title, label")
    # On triples of another data set this one ranked better than margin_logit and ranknet: README.md, "Figures".
    loss: str = option(
        "margin_probability",
        help="margin_logit and ranknet compare logits, margin_probability (the published one) probabilities; "
        "ranknet_bce also asks for high positives and low negatives",
        choices=("margin_logit", "margin_probability", "ranknet", "ranknet_bce"),
    )
    margin: Optional[float] = option(
        None, help="by how much a positive must be ahead (default: 0.2 on probabilities, 1 on logits)", minimum=0
    )


def train(options: TrainPairwiseOptions) -> None:
    """Train as the options say; checkpoints go to `options.save_dir`."""
    runtime.prepare_command(options.cpu_threads)
    from ernie_matching.data import encode_triples
    from ernie_matching.model import PairwiseExamples
    from paddle_ranker.evaluation import EvaluationSet
    from paddle_ranker.losses import PAIRWISE_LOSSES, SHIFT_INVARIANT, margin_for
    from paddle_ranker.ranker_training import start_training, train_ranker
    from paddle_ranker.records import RecordFile, Triple

    start = start_training(options, "pairwise")
    parts = start.parts

    # The small file first: what is wrong with it shows before the large one is read.
    evaluation = EvaluationSet(
        options.test_file, parts.pair_encoder, options.batch_size, skip_bad_rows=options.skip_bad_rows
    )
    source = RecordFile(options.train_file, Triple, skip_bad_rows=options.skip_bad_rows)
    triples = encode_triples(source, parts.pair_encoder, Path(options.save_dir), options.data_memory_mb << 20)
    if start.processes.is_first:
        print(f"{options.train_file}: {source.report()} triples; {options.test_file}: {evaluation.report} pairs")

    parts.network.head.bias.stop_gradient = options.loss in SHIFT_INVARIANT
    margin = margin_for(options.loss, options.margin)
    examples = PairwiseExamples(triples, PAIRWISE_LOSSES[options.loss], margin, parts.pair_encoder.pad_id)
    facts = {"margin": margin, "examples": len(triples)}
    files = {"train_file": options.train_file, "test_file": options.test_file}
    train_ranker(start, examples, evaluation, options, files=files, training_facts=facts)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; return its exit status."""
    return run_command(train, TrainPairwiseOptions, argv, description=__doc__ or "")


if __name__ == "__main__":
    raise SystemExit(main())
