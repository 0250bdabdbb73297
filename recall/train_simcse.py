"""Train a tower on texts alone (SimCSE): each text answers itself, encoded twice with different dropout.

paddle-ranker train-simcse --train texts.txt --model starter --output checkpoint
paddle-ranker train-simcse --train texts.txt --test dev.tsv --corpus texts.txt --dropout 0.2 --batch_size 64
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional

from paddle_ranker import runtime
from paddle_ranker.errors import UsageError
from paddle_ranker.options import option, redeclare
from paddle_ranker.training.training_options import training_main
from recall.options import TowerTrainingOptions

if TYPE_CHECKING:
    from paddle_ranker.training.task import FitResult, OnEvaluation


@dataclass(frozen=True)
class TrainSimcseOptions(TowerTrainingOptions):
    train_set_file: str = redeclare(TowerTrainingOptions, "train_set_file", help="training texts, one per line")
    margin: float = option(0.0, help="margin, subtracted from the cosine of a text and itself", minimum=0, maximum=2)
    scale: float = redeclare(TowerTrainingOptions, "scale", 20.0)
    dropout: float = option(0.1, help="dropout of the encoder, which makes the two vectors of a text differ",
                            above=0, below=1)  # fmt: skip
    dup_rate: float = option(
        0.0, help="repeat random tokens of one of a text's two copies, at most this share of them (ESimCSE); 0: none",
        minimum=0, maximum=1,
    )  # fmt: skip
    infer_with_fc_pooler: bool = option(
        False, help="keep the pooler after the training; otherwise only the training uses it, and then the first "
        "token's state is the vector",
    )  # fmt: skip
    epochs: int = redeclare(TowerTrainingOptions, "epochs", 1)
    eval_step: int = redeclare(TowerTrainingOptions, "eval_step", 100)

    @property
    def asked_pooling(self) -> Optional[str]:
        return self.pooling or ("pooler" if self.infer_with_fc_pooler else None)

    @property
    def without_pooler(self) -> bool:
        """Return True if the pooler is for training alone."""
        return not self.infer_with_fc_pooler and self.pooling in (None, "pooler")


def train(options: TrainSimcseOptions, on_evaluation: Optional[OnEvaluation] = None) -> FitResult:
    """Train as the options say, with checkpoints in `options.save_dir`; return the result."""
    runtime.prepare(options.cpu_threads)
    from paddle_ranker.data.rows.records import Text
    from paddle_ranker.model.tower import TextEncoder
    from recall.data import encode_pairs
    from recall.model import InBatchExamples, LossSettings
    from recall.results import corpus_texts
    from recall.training import TRAINING_POOLING, open_evaluation, start_tower_training, train_tower

    start = start_tower_training(options, dropout=options.dropout, without_pooler=options.without_pooler)
    run, model, queries = start.run, start.model, start.queries
    if any(not isinstance(tower.row_encoder, TextEncoder) for tower in (model, queries or model)):
        raise UsageError(
            f"--model {options.model_name_or_path}: reads pictures, and SimCSE learns from texts alone: give a tower "
            "or an encoder of texts, or train names with pictures by train-batch-neg"
        )
    if options.dup_rate and (queries or model).texts.titled:
        raise UsageError(f"--dup_rate: {options.model_name_or_path} reads texts after titles: leave the option out")

    evaluation = open_evaluation(start, options)
    texts = map(Text, corpus_texts(options.train_set_file, options))
    query_encoder = queries.row_encoder if queries else None
    pairs = encode_pairs(texts, model.row_encoder, options.train_set_file, query_encoder)
    if evaluation is not None:
        evaluation.compare(pairs)
    test = f"; {options.similar_text_pair}: {evaluation.report}" if evaluation else "; no evaluation"
    run.report(f"{options.train_set_file}: {len(pairs):,} different texts{test}")

    nested = options.nested or dict.fromkeys(model.info.nested_sizes, 1.0)
    settings = LossSettings(options.scale, options.margin, nested=nested)
    examples = InBatchExamples(
        pairs.within(options),
        settings,
        options.seed,
        repeated=options.dup_rate,
        longest=(queries or model).info.max_seq_length,
    )
    facts = {TRAINING_POOLING: model.network.training_pooling}
    return train_tower(start, examples, evaluation, options, facts, on_evaluation)


main = training_main(train, TrainSimcseOptions, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
