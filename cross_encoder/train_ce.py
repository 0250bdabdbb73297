"""Train the cross-encoder on labelled pairs (query, title, label).

paddle-ranker train-ce --train pairs.tsv --test dev.tsv --output checkpoint
paddle-ranker train-ce --train 'parts/*.tsv' --test dev.tsv --output checkpoint --resume
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from paddle_ranker import runtime
from paddle_ranker.errors import UsageError
from paddle_ranker.options import option, redeclare
from paddle_ranker.training.losses.expression import RankingLoss
from paddle_ranker.training.training_options import RankerTrainingOptions, training_main

if TYPE_CHECKING:
    from paddle_ranker.encoding.pair_encoder import PairEncoder
    from paddle_ranker.training.task import FitResult, OnEvaluation


@dataclass(frozen=True)
class TrainCeOptions(RankerTrainingOptions):
    train_set: str = option(
        help="training pairs: query, title, label (relevant from 1 on)",
        name="train",
        aliases=("--train_file",),
        files=True,
    )
    test_file: str = option(
        help="labelled pairs to evaluate on during training: query, title, label", name="test", files=True
    )
    model_name_or_path: str = redeclare(RankerTrainingOptions, "model_name_or_path", "rocketqa-base-cross-encoder")
    max_seq_length: Optional[int] = redeclare(RankerTrainingOptions, "max_seq_length", aliases=("--max_seq_len",))
    eval_step: int = redeclare(RankerTrainingOptions, "eval_step", 100, aliases=("--valid_steps",))
    save_step: int = redeclare(RankerTrainingOptions, "save_step", 100, aliases=("--save_steps",))
    group_by_query: Optional[bool] = option(
        None,
        help="put all titles of a query into one batch (default: true for losses that compare titles and so need it, "
        "else false; rankers of pictures put all texts of a picture into one batch)",
    )
    position_tower: bool = option(
        False,
        help="learn the effect of the column position separately, if labels are clicks; the ranker is saved without it",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.expression.compares_titles and self.group_by_query is False:
            raise UsageError(f"--loss {self.loss} compares the titles of one query: it needs --group_by_query true")

    @property
    def groups(self) -> bool:
        """Return True if all titles of a query are put into one batch."""
        return self.expression.compares_titles if self.group_by_query is None else self.group_by_query


def _group_by(options: TrainCeOptions, pair_encoder: PairEncoder) -> Optional[str]:
    """Return the column whose equal values share a batch: the query, the title, or None.

    If titles are pictures, the texts of a picture share a batch. The part of their gradients that depends on the
    picture alone then cancels between a right and a wrong text; in random batches it would hide the rest.
    """
    from paddle_ranker.data.files.placed_text import PICTURES

    if options.groups:
        return "query"
    return "title" if pair_encoder.places == PICTURES and options.group_by_query is None else None


def train(options: TrainCeOptions, on_evaluation: Optional[OnEvaluation] = None) -> FitResult:
    """Train with these options, write checkpoints to `options.save_dir`, and return the result.

    `on_evaluation` is called after each evaluation with the step and the measures; if it returns True, training stops.
    """
    runtime.prepare(options.cpu_threads)
    from cross_encoder.data import encode_labels, left_out
    from cross_encoder.model import TOWER_RATE, LabeledExamples, PositionTower
    from paddle_ranker.data.rows.records import LabeledPair, RecordFile
    from paddle_ranker.training.ranker_training import open_evaluation, start_training, train_ranker

    start = start_training(options, "cross_encoder")
    model = start.model

    # Read the small file first, so that its errors show before the large file is read.
    evaluation = open_evaluation(start, options.test_file, options)
    source = RecordFile(options.train_set, LabeledPair, options)
    data = encode_labels(
        source,
        model.row_encoder,
        Path(options.save_dir),
        options.data_memory_mb << 20,
        group_by=_group_by(options, model.row_encoder),
        with_positions=options.position_tower,
        loss=options.expression,
        teacher_scores=options.teacher_scores,
    )
    uncompared = left_out(options.train_set, data, options.expression)
    if start.run.processes.is_first:
        print(f"{options.train_set}: {source.report()} pairs; {options.test_file}: {evaluation.report} pairs")
        for line in uncompared:
            print(f"{options.train_set}: {line}")

    model.network.head.bias.stop_gradient = options.expression.shift_invariant
    if options.position_tower:
        model.network.position_tower = PositionTower()
        start.part_factors["position_tower"] = TOWER_RATE / options.learning_rate
    loss = RankingLoss(options.expression, options.margin, data.highest_label)
    examples = LabeledExamples(data, loss, options.rdrop_coef)
    facts = {"group_by_query": options.groups, "margin": loss.margin, "examples": len(examples)}
    files = {"train_set": options.train_set, "test_file": options.test_file}
    return train_ranker(start, examples, evaluation, options, files=files, facts=facts, on_evaluation=on_evaluation)


main = training_main(train, TrainCeOptions, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
