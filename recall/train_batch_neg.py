"""Train a tower on pairs (query, title): the titles of the other pairs of a batch are the negatives.

paddle-ranker train-batch-neg --train pairs.tsv --model starter --output checkpoint
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Optional, Union

from paddle_ranker import runtime
from paddle_ranker.encoding.options import TokenizerOptions
from paddle_ranker.options import RowOptions, option, redeclare, run_command
from paddle_ranker.training.options import TrainingOptions

if TYPE_CHECKING:
    from paddle_ranker.training.task import FitResult, OnEvaluation


@dataclass(frozen=True)
class TrainBatchNegOptions(TokenizerOptions, RowOptions, TrainingOptions):
    train_set_file: str = option(
        help="training pairs: query, title; or triples: query, title, neg_title", name="train", files=True
    )
    similar_text_pair: str = option(
        help="pairs to evaluate on during training: query, title", name="test", files=True,
        aliases=("--similar_text_pair_file",),
    )  # fmt: skip
    corpus_file: Optional[str] = option(
        None, help="texts to search during evaluations (default: the titles of the pairs)", files=True
    )
    model_name_or_path: str = option(
        "ernie-3.0-medium-zh", help="where to start: a PaddleNLP model name, or a local model folder", name="model"
    )
    init_from_ckpt: Optional[str] = option(None, help="go on from a checkpoint: a folder, or its model_state.pdparams")
    max_seq_length: Optional[int] = option(
        None, help="longest text in tokens (default: the checkpoint's, else 128)", minimum=5
    )
    output_emb_size: Optional[int] = option(
        None, help="length of the vectors, by a linear layer (default: the encoder's width)", minimum=1
    )
    pooling: str = option("pooler", help="how a vector comes from the states", choices=("pooler", "first", "mean"))
    margin: float = option(0.3, help="taken off the cosine of a query and its own title", minimum=0, maximum=2)
    scale: float = option(30.0, help="cosines are multiplied by it", above=0)
    recall_num: int = option(50, help="results of each query in evaluations", minimum=1)
    metric: str = option("recall@10", help="the measure whose best value makes the best checkpoint",
                         choices=("recall@1", "recall@5", "recall@10", "recall@20", "recall@50", "mrr@10"))  # fmt: skip
    learning_rate: float = redeclare(TrainingOptions, "learning_rate", 1e-5)
    epochs: int = redeclare(TrainingOptions, "epochs", 10)


def train(options: TrainBatchNegOptions, on_evaluation: Optional[OnEvaluation] = None) -> FitResult:
    """Train as the options say, with checkpoints in `options.save_dir`; return the result."""
    runtime.prepare(options.cpu_threads)
    from paddle_ranker.data.records import Pair, RecordFile, Text, Triple, read_records
    from paddle_ranker.evaluation.recall import RecallSet
    from paddle_ranker.model.tower_network import save_tower
    from paddle_ranker.retrieval.vectors import Tower, nearest
    from paddle_ranker.scoring.engines.dygraph import DygraphEngine
    from paddle_ranker.storage.digest import content_digest
    from paddle_ranker.training.task import Task
    from recall.data import encode_pairs
    from recall.model import InBatchExamples
    from recall.start import has_negatives, start_tower_training

    start = start_tower_training(options)
    run, model = start.run, start.model

    # Read the small files first, so that their errors show before the large file is read.
    corpus = [row.text for row in read_records(options.corpus_file, Text, options)] if options.corpus_file else []
    wanted = RecallSet(
        ((row.query, row.title) for row in read_records(options.similar_text_pair, Pair, options)), corpus
    )
    kind: type[Union[Pair, Triple]] = Triple if has_negatives(options) else Pair
    source = RecordFile(options.train_set_file, kind, options)
    pairs = encode_pairs(source, model.row_encoder, options.train_set_file)
    run.report(
        f"{options.train_set_file}: {source.report()} pairs; {options.similar_text_pair}: {len(wanted.queries)} "
        f"queries, {len(wanted.corpus)} texts to search"
    )
    queries, texts = model.row_encoder.encode_queries(wanted.queries), model.row_encoder.encode(wanted.corpus)
    tower = Tower(DygraphEngine(model.network, model.signature), model.row_encoder, options.batch_size)

    def evaluate() -> dict[str, float]:
        found, _ = nearest(tower.compute(texts), tower.compute(queries), options.recall_num)
        measures = {name: float(values.mean()) for name, values in wanted.recall(found).items()}
        return {**measures, "mrr@10": float(wanted.reciprocal_rank(found).mean())}

    def save(folder: Path, results: dict[str, float]) -> None:
        facts = {"examples": len(pairs)}
        save_tower(folder, model, dataclasses.replace(model.info, **run.describe(facts, results)))

    files = {"train_set_file": options.train_set_file, "similar_text_pair": options.similar_text_pair}
    task = Task(
        model.network,
        InBatchExamples(pairs, options.scale, options.margin),
        evaluate,
        save,
        metric=options.metric,
        part_factors=start.part_factors,
        identity={
            "options": {**options.identity(), "max_seq_length": model.info.max_seq_length},
            "content": {name: content_digest(path) for name, path in files.items()},
        },
        on_evaluation=on_evaluation,
    )
    return run.train(task)


def run(options: TrainBatchNegOptions) -> None:
    """Run the training command."""
    runtime.prepare_command(options.cpu_threads)
    train(options)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; return its exit status."""
    return run_command(run, TrainBatchNegOptions, argv, description=__doc__ or "")


if __name__ == "__main__":
    raise SystemExit(main())
