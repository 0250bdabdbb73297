"""Train the pairwise ranker on triples (query, title, neg_title).

paddle-ranker train-pairwise --train mine.tsv --test dev.tsv --output checkpoint
paddle-ranker train-pairwise --train 'parts/*.tsv' --test dev.tsv --output checkpoint --resume
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from paddle_ranker import runtime
from paddle_ranker.options import option, redeclare
from paddle_ranker.training.losses.expression import RankingLoss
from paddle_ranker.training.losses.loss_registry import loss_help
from paddle_ranker.training.training_options import RankerTrainingOptions, training_main

if TYPE_CHECKING:
    from paddle_ranker.training.task import FitResult, OnEvaluation


@dataclass(frozen=True)
class TrainPairwiseOptions(RankerTrainingOptions):
    LISTWISE = False  # a triple's two titles are no list

    train_file: str = option(help="training triples: query, title, neg_title", name="train", files=True)
    test_file: str = option(
        help="labelled pairs to evaluate on during training: query, title, label", name="test", files=True
    )
    # On triples of another data set, this loss ranked better than margin_logit and ranknet: benchmarks/RESULTS.md.
    loss: str = redeclare(RankerTrainingOptions, "loss", "margin_probability", help=lambda: loss_help(listwise=False))


def train(options: TrainPairwiseOptions, on_evaluation: Optional[OnEvaluation] = None) -> FitResult:
    """Train with these options, write checkpoints to `options.save_dir`, and return the result.

    `on_evaluation` is called after each evaluation with the step and the measures; if it returns True, training stops.
    """
    runtime.prepare(options.cpu_threads)
    from ernie_matching.data import encode_triples
    from ernie_matching.model import PairwiseExamples
    from paddle_ranker.data.rows.records import RecordFile, Triple
    from paddle_ranker.training.ranker_training import open_evaluation, start_training, train_ranker

    start = start_training(options, "pairwise")
    model = start.model

    # Read the small file first, so that its errors show before the large file is read.
    evaluation = open_evaluation(start, options.test_file, options)
    source = RecordFile(options.train_file, Triple, options)
    memory, expression = options.data_memory_mb << 20, options.expression
    triples = encode_triples(
        source,
        model.row_encoder,
        Path(options.save_dir),
        memory,
        loss=expression,
        teacher_scores=options.teacher_scores,
    )
    if start.run.processes.is_first:
        print(f"{options.train_file}: {source.report()} triples; {options.test_file}: {evaluation.report} pairs")

    model.network.head.bias.stop_gradient = expression.shift_invariant
    loss = RankingLoss(expression, options.margin)
    examples = PairwiseExamples(triples, loss, options.rdrop_coef)
    facts = {"margin": loss.margin, "examples": len(examples)}
    files = {"train_file": options.train_file, "test_file": options.test_file}
    return train_ranker(start, examples, evaluation, options, files=files, facts=facts, on_evaluation=on_evaluation)


main = training_main(train, TrainPairwiseOptions, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
