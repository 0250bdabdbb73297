"""Train a tower on pairs (query, title): the titles of the other pairs of a batch are the negatives.

paddle-ranker train-batch-neg --train pairs.tsv --model starter --output checkpoint
paddle-ranker train-batch-neg --train mined.tsv --test dev.tsv --corpus texts.tsv --batch_size 4096 --micro_batch 32
paddle-ranker train-batch-neg --train scored.tsv --test dev.tsv --loss in_batch+0.1*margin_mse
paddle-ranker train-batch-neg --train pairs.tsv --corpus texts.tsv --refresh_negatives 1 --init_from_ckpt tower/best
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional

from paddle_ranker import runtime
from paddle_ranker.errors import UsageError
from paddle_ranker.options import option, redeclare, refuse_given
from paddle_ranker.training.training_options import training_main
from recall.loss import TowerLoss, parse_tower_loss, tower_loss_help
from recall.options import TaughtTowerOptions, TowerTrainingOptions

if TYPE_CHECKING:
    from paddle_ranker.training.task import FitResult, OnEvaluation


@dataclass(frozen=True)
class TrainBatchNegOptions(TaughtTowerOptions):
    train_set_file: str = redeclare(
        TowerTrainingOptions,
        "train_set_file",
        help="training pairs: query, title; or triples: query, title, neg_title, possibly several per pair; or "
        "labelled pairs: query, title, label; triples and labelled pairs may have a teacher's scores",
    )
    margin: float = option(
        0.3, help="margin, subtracted from the cosine of a query and its title", minimum=0, maximum=2
    )
    loss: str = option("in_batch", help=tower_loss_help)
    negatives: int = option(
        4, help="maximum number of a pair's negatives in a batch; if there are more, each epoch draws anew", minimum=1
    )
    refresh_negatives: int = option(
        0,
        help="let the tower mine negatives itself before every n-th epoch, from the titles of --train and the texts of "
        "--corpus (ANCE); not before the first epoch, unless --init_from_ckpt is given; 0: never",
        minimum=0,
    )
    group_by_query: Optional[bool] = option(
        None,
        help="put all examples of a query into one part of a batch, where each text is computed once (default: true "
        "for labelled pairs, else false)",
    )
    freeze_pictures: bool = option(
        False, help="train what follows the network of pictures alone, whose states are computed once and cached"
    )
    lexical_size: Optional[int] = option(
        None,
        help="length of a lexical part added to the vectors: a text's words, weighted by idf in training titles; "
        "512 works well (default: the checkpoint's, else 0)",
        minimum=0,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.terms.of_batch:
            refuse_given(self, ["margin"], f"is about losses over the batch, and --loss {self.loss} has none")
        if not self.terms.scaled:
            refuse_given(self, ["scale", "learned_scale"], f"changes nothing in --loss {self.loss}: leave it out")
        if self.refresh_negatives:
            refuse_given(
                self, ["max_tokens", "freeze_pictures"], "and --refresh_negatives do not go together: leave one out"
            )
            if not any(map(self.refreshes_before, range(1, self.epochs + 1))):
                raise UsageError(
                    f"--refresh_negatives {self.refresh_negatives}: no epoch of --epochs {self.epochs} would be left; "
                    "give more epochs, or begin with a tower by --init_from_ckpt"
                )
            if self.terms.of_teacher and not (self.teacher or self.teacher_url):
                raise UsageError(
                    f"--refresh_negatives finds titles without a teacher's score, from which --loss {self.loss} "
                    "learns: add --teacher or --teacher_url"
                )
        if not self.terms.of_teacher:
            refuse_given(self, ["teacher_scores"], f"is about a teacher, from which --loss {self.loss} does not learn")
        if (self.teacher or self.teacher_url) and not self.terms.of_teacher:
            raise UsageError(f"--loss {self.loss} learns from no teacher: add one, as in --loss in_batch+margin_mse")

    @property
    def of_evaluations(self) -> Sequence[str]:
        return [name for name in super().of_evaluations if not (self.refresh_negatives and name == "corpus_file")]

    def refreshes_before(self, epoch: int) -> bool:
        """Return whether the tower mines negatives before an epoch, which counts from 1."""
        is_trained = epoch > 1 or self.init_from_ckpt is not None
        return bool(self.refresh_negatives) and is_trained and (epoch - 1) % self.refresh_negatives == 0

    @property
    def terms(self) -> TowerLoss:
        return parse_tower_loss(self.loss)


def train(options: TrainBatchNegOptions, on_evaluation: Optional[OnEvaluation] = None) -> FitResult:
    """Train as the options say, with checkpoints in `options.save_dir`; return the result."""
    runtime.prepare(options.cpu_threads)
    from paddle_ranker.data.rows.records import LabeledPair
    from paddle_ranker.model.tower_network import LEXICAL
    from recall.data import PictureCheck, encode_pairs, open_rows
    from recall.model import InBatchExamples, LossSettings
    from recall.refresh import RefreshedNegatives
    from recall.results import corpus_texts
    from recall.teacher import with_file_logits, with_teacher
    from recall.training import freeze_pictures, learn_words, open_evaluation, start_tower_training, train_tower

    start = start_tower_training(options, lexical_size=options.lexical_size)
    run, model, queries = start.run, start.model, start.queries

    # Read the small files first, so that their errors show before the large file is read.
    evaluation = open_evaluation(start, options)
    source = open_rows(options.train_set_file, options)
    source.check = PictureCheck((queries or model).row_encoder, model.row_encoder, options.train_set_file)
    query_encoder = queries.row_encoder if queries else None
    corpus = corpus_texts(options.corpus_file, options) if options.refresh_negatives and options.corpus_file else ()
    pairs = encode_pairs(source, model.row_encoder, options.train_set_file, query_encoder, corpus)
    if not (options.refresh_negatives and (options.terms.of_batch or options.refreshes_before(1))):
        options.terms.require_negatives(pairs.negatives.most if pairs.negatives else 0)
    if options.freeze_pictures:
        pairs = freeze_pictures(start, pairs, options)
    if LEXICAL in start.part_factors:
        learn_words(start, pairs.titles)
    if options.terms.of_teacher:
        pairs = with_file_logits(pairs, options)
    pairs = with_teacher(pairs, options, run)
    if evaluation is not None:
        evaluation.compare(pairs)
    test = f"; {options.similar_text_pair}: {evaluation.report}" if evaluation else "; no evaluation"
    dropped = pairs.negatives.known_answers if pairs.negatives else 0
    left_out = f", without {dropped:,} negatives that other rows call answers of the query" if dropped else ""
    run.report(f"{options.train_set_file}: {source.report()}: {len(pairs):,} pairs to learn{left_out}{test}")

    nested = options.nested or dict.fromkeys(model.info.nested_sizes, 1.0)
    settings = LossSettings(options.scale, options.margin, options.terms, nested, options.negatives)
    by_query = source.kind is LabeledPair if options.group_by_query is None else options.group_by_query
    examples = InBatchExamples(pairs.within(options), settings, options.seed, by_query)
    facts = {"negatives": examples.rows_each - 2, "group_by_query": by_query}
    begin_epoch = RefreshedNegatives(start, examples, options).begin_epoch if options.refresh_negatives else None
    return train_tower(start, examples, evaluation, options, facts, on_evaluation, begin_epoch)


main = training_main(train, TrainBatchNegOptions, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
