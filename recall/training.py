"""The common part of both tower trainings: where a tower starts, Recall@k against a corpus, saving, training."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Optional

import numpy as np
from tqdm import tqdm

from paddle_ranker.array_types import Array, Vectors
from paddle_ranker.data.rows.overlap import warn_of_overlap
from paddle_ranker.distributed import ProcessGroup
from paddle_ranker.encoding.columns import PICTURE, TEXT, Columns, EncodedTexts
from paddle_ranker.errors import UsageError
from paddle_ranker.evaluation.recall import RecallSet, label_of, open_pairs
from paddle_ranker.metrics.measures import recall_at, reciprocal_rank_at
from paddle_ranker.metrics.ranking import RELEVANT
from paddle_ranker.model.encoder_loading import Checkpoint
from paddle_ranker.model.hugging_face.sentences import is_sentences
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.model_folder import ANY_TOWER, identify
from paddle_ranker.model.networks.lora import add_adapters
from paddle_ranker.model.pretrained import resolve_model
from paddle_ranker.model.tower import QUERY_FOLDER, RowsOfTower, TextEncoder, TowerInfo
from paddle_ranker.model.tower_network import (
    APART,
    TowerModel,
    load_tower,
    query_tower_of,
    read_tower,
    save_query_tower,
    save_tower,
    start_tower,
)
from paddle_ranker.options import note
from paddle_ranker.retrieval.vectors.text_vectors import Tower, nearest, normalised
from paddle_ranker.scoring.engines.dygraph import DygraphEngine
from paddle_ranker.storage.digest import content_digest
from paddle_ranker.training.run import Start, start_run
from paddle_ranker.training.task import FitResult, OnEvaluation, Task
from recall.data import PictureCheck, TextPairs, encode_rows
from recall.model import InBatchExamples, LearnedScale
from recall.options import TowerTrainingOptions
from recall.results import corpus_texts, write_results

_MAX_SEQ_LENGTH = 128
TRAINING_POOLING = "training_pooling"  # key in the training's record in `tower.json`


@dataclass(frozen=True)
class TowerStart(Start[TowerModel]):
    """Start of a tower's training; `queries` is the separate tower of queries, if any."""

    queries: Optional[TowerModel] = None


def freeze_pictures(start: TowerStart, pairs: TextPairs, options: TowerTrainingOptions) -> TextPairs:
    """Freeze the encoders of pictures, and return the pairs with these encoders' states in place of pictures.

    The states are kept in memory or, beyond the options' limit, in a file. Raises `UsageError` if no pictures are read,
    or if nothing is left to train.
    """
    model, queries = start.model, start.queries or start.model
    if PICTURE not in (model.row_encoder.reads, queries.row_encoder.reads):
        raise UsageError("--freeze_pictures: this tower reads no pictures: leave it out")
    from paddle_ranker.pictures.frozen import freeze

    def frozen(tower: TowerModel, rows: Columns) -> Columns:
        if tower.row_encoder.reads != PICTURE:
            return rows
        return freeze(tower, rows, options.batch_size, Path(options.save_dir), options.data_memory_mb << 20)

    titles = frozen(model, pairs.titles)
    of_queries = titles if pairs.queries is pairs.titles else frozen(queries, pairs.queries)
    if all(parameter.stop_gradient for parameter in model.network.parameters()):
        raise UsageError("--freeze_pictures: nothing is left to train: give --output_emb_size, or leave it out")
    return replace(pairs, titles=titles, queries=of_queries)


def start_tower_training(
    options: TowerTrainingOptions,
    *,
    dropout: Optional[float] = None,
    without_pooler: bool = False,
    lexical_size: Optional[int] = None,
) -> TowerStart:
    """Select the device, seed everything, and load the encoder, the tower or the interrupted run to start from.

    Args:
        dropout: replaces the dropout of the encoder's configuration.
        lexical_size: length of the lexical part of a vector; None: the checkpoint's.
        without_pooler: a tower whose pooling is `pooler` uses the pooler in training only, and afterwards the first
            token's state; such a tower continues in the same way.
    """
    run = start_run(options)
    if run.resumed:
        load = LoadOptions()
        model, queries = load_tower(run.resumed.model, load), query_tower_of(run.resumed.model, load)
        factors: dict[str, float] = {}
        before = model.info.training
    else:
        source = options.init_from_ckpt or options.model_name_or_path
        checkpoint, start_info = _read(source, options, dropout)
        info = tower_info(options, checkpoint, start_info, lexical_size)
        model, new_parts = start_tower(checkpoint, info)
        queries = None
        if info.towers == 2:
            inner = checkpoint.file.parent / QUERY_FOLDER
            start = options.query_model or (str(inner) if inner.is_dir() else source)
            of_queries, their = (checkpoint, start_info) if start == source else _read(start, options, dropout)
            queries, new_in_queries = start_tower(of_queries, _info_of_queries(options, info, of_queries, their))
            new_parts += [f"query_tower.{part}" for part in new_in_queries]
        run.report_start(source, new_parts, *[part.tokens for part in _texts_of(model, queries)])
        _refuse_unused(options, model.row_encoder, (queries or model).row_encoder)
        factors = dict.fromkeys([*new_parts, "learned_scale"], options.new_parts_factor)
        before = start_info.training
    in_training = _pooling_in_training(model.info.pooling, before) if without_pooler else None
    if in_training is not None:
        model, queries = _without_pooler(model), None if queries is None else _without_pooler(queries)
    for tower in (model, queries):
        if tower is not None:
            tower.network.encoder.gradient_checkpointing = options.gradient_checkpointing
            if options.lora_rank:
                if not isinstance(tower.row_encoder, TextEncoder):
                    raise UsageError(f"--lora_rank {options.lora_rank}: adapters are for texts: leave it out")
                add_adapters(tower.network.encoder, options.lora_rank)
            tower.network.training_pooling = in_training
            tower.network.train()
    model.network.query_tower = None if queries is None else queries.network
    model.network.learned_scale = LearnedScale(options.scale) if options.learned_scale else None
    return TowerStart(run, model, factors, queries)


def towers_in_training(start: TowerStart, batch_size: int) -> tuple[Tower, Tower]:
    """Return the networks in training as a tower of titles, which knows its queries' tower, and a tower of queries."""

    def opened(part: TowerModel, queries: Optional[Tower] = None) -> Tower:
        return Tower(DygraphEngine(part.network, part.signature), part.row_encoder, batch_size, queries)

    queries = None if start.queries is None else opened(start.queries)
    tower = opened(start.model, queries)
    return tower, queries or tower


def _refuse_unused(options: TowerTrainingOptions, titles: RowsOfTower, queries: RowsOfTower) -> None:
    """Raise `UsageError` for options about texts where the tower reads files instead."""
    reads_titles, reads_queries = isinstance(titles, TextEncoder), isinstance(queries, TextEncoder)
    reads_texts = reads_titles or reads_queries
    for name, is_used in (
        ("max_seq_length", reads_texts),
        ("pooling", reads_texts),
        ("query_prompt", reads_queries),
        ("text_prompt", reads_titles),
        ("teacher", reads_titles and reads_queries),
        ("teacher_url", reads_titles and reads_queries),
    ):
        if not is_used and getattr(options, name, None) is not None:
            raise UsageError(f"--{name} is about texts, where this tower reads {titles.reads}s: leave it out")


def _texts_of(*towers: Optional[TowerModel]) -> list[TextEncoder]:
    """Return the encoders of the towers that read texts."""
    encoders = [tower.row_encoder for tower in towers if tower is not None]
    return [encoder for encoder in encoders if isinstance(encoder, TextEncoder)]


def tower_info(
    options: TowerTrainingOptions, checkpoint: Checkpoint, start: TowerInfo, lexical_size: Optional[int] = None
) -> TowerInfo:
    """Return the info of the tower to train; what the options leave open is taken from `start`."""
    changes: dict[str, Any] = {
        "max_seq_length": options.max_seq_length, "pooling": options.asked_pooling,
        "query_prompt": options.query_prompt, "text_prompt": options.text_prompt, "towers": options.towers,
        "nested_sizes": options.nested and tuple(options.nested),
    }  # fmt: skip
    if start.reads != TEXT:
        changes.update(dict.fromkeys(("max_seq_length", "pooling", "query_prompt", "text_prompt")))
    # Vectors that are compared by their cosine have length 1, so that a plain product compares them.
    is_scaled = start.normalize or start.similarity == "cosine"
    changes["normalize"] = is_scaled if options.normalize is None else options.normalize
    changes["similarity"] = "cosine" if changes["normalize"] else "dot"
    size, before = start.size - start.lexical_size, start.lexical_size
    if options.output_emb_size is not None:
        is_stated = start.output_layer and options.output_emb_size == size
        size = options.output_emb_size or checkpoint.config.hidden_size
        changes.update(
            output_layer=options.output_emb_size > 0, output_tanh=is_stated and start.output_tanh, cut_from=0
        )
    lexical_size = before if lexical_size is None else lexical_size
    changes.update(size=size + lexical_size, lexical_size=lexical_size)
    if lexical_size and before not in (0, lexical_size):
        raise UsageError(f"--lexical_size {lexical_size}: the checkpoint's is {before}; leave it out, or give 0")
    if lexical_size and start.cut_from and options.output_emb_size is None:
        raise UsageError(
            f"--lexical_size {lexical_size}: the vectors are cut (truncate_dim); give --output_emb_size too"
        )
    if lexical_size and not changes["normalize"]:
        raise UsageError(f"--lexical_size {lexical_size} is a share of vectors that are 1 long: give --normalize true")
    if max(changes["nested_sizes"] or start.nested_sizes, default=0) >= size:
        raise UsageError(f"--nested_sizes: give lengths below that of the vectors, {size}")
    info = replace(start, **{name: value for name, value in changes.items() if value is not None})
    return replace(info, training={}, results={}, versions={}, export=None)


def _info_of_queries(
    options: TowerTrainingOptions, info: TowerInfo, checkpoint: Checkpoint, start: TowerInfo
) -> TowerInfo:
    """Return the info of the queries' tower: that of the titles' tower, with other settings for another kind of input.

    Raises `UsageError` if vectors of queries and titles would have different lengths.
    """
    if info.reads == start.reads == TEXT:
        return replace(info, towers=1)
    query_info = tower_info(options, checkpoint, start)
    if query_info.size != info.size:
        raise UsageError(
            f"vectors of queries have {query_info.size} numbers, of titles {info.size}: give --output_emb_size"
        )
    return replace(
        query_info, towers=1, normalize=info.normalize, similarity=info.similarity, nested_sizes=info.nested_sizes
    )


def learn_words(start: TowerStart, titles: Columns) -> None:
    """Learn the token weights of new lexical parts: rare tokens in titles weigh more."""
    assert isinstance(titles, EncodedTexts)
    for tower in (start.model, start.queries):
        if tower is not None and tower.network.lexical_part is not None:
            tower.network.lexical_part.learn(titles[number] for number in range(len(titles)))


def _read(source: str, options: TowerTrainingOptions, dropout: Optional[float]) -> tuple[Checkpoint, TowerInfo]:
    """Read a model's files; return their contents, and the info of the tower that they hold.

    If an encoder's folder states no pooling, the tower is that of the published scripts: the pooler's output (without a
    trained pooler the mean of the states), scaled to length 1, for at most 128 tokens.
    """
    folder = resolve_model(source)
    model_name = options.model_name_or_path if options.init_from_ckpt else None
    load = LoadOptions(model_name=model_name)
    place = folder.parent if folder.is_file() else folder
    states = TowerInfo.read(place) is not None or is_sentences(place)
    if not states:
        load = replace(load, pooling=options.asked_pooling or "pooler")
    identify(folder).require_parameters(ANY_TOWER)
    checkpoint, info = read_tower(folder, load)
    if not states:
        if options.asked_pooling is None and not checkpoint.has_trained_pooler:
            note(f"note: {folder} has no trained pooler: vectors are the mean of the tokens' states; see --pooling")
            info = replace(info, pooling="mean")
        length = min(_MAX_SEQ_LENGTH, info.max_seq_length)
        info = replace(info, max_seq_length=length, similarity="cosine", titled=False)
    if dropout is not None:
        config = replace(checkpoint.config, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
        checkpoint = replace(checkpoint, config=config)
    return checkpoint, info


def _pooling_in_training(pooling: str, before: Mapping[str, object]) -> Optional[str]:
    """Return "pooler" if the pooler is used in training only, else None; `before` records the earlier training."""
    if pooling == "first" and not before.get(TRAINING_POOLING):
        return None  # the first token's state made its vectors from the start
    return "pooler" if pooling in ("pooler", "first") else None


def _without_pooler(model: TowerModel) -> TowerModel:
    model.network.pooling = "first"
    return replace(model, info=replace(model.info, pooling="first"))


_CUTS = (1, 5, 10, 20, 50)


class RecallEvaluation:
    """Evaluation set of queries with their answers, and a corpus to search; all texts are encoded once.

    Raises `DataError` for a bad row of a file.
    """

    def __init__(self, start: TowerStart, options: TowerTrainingOptions):
        assert options.similar_text_pair is not None
        model, queries, file = start.model, start.queries, options.similar_text_pair
        check = PictureCheck((queries or model).row_encoder, model.row_encoder, file)
        corpus = corpus_texts(options.corpus_file, options, check) if options.corpus_file else []
        source = open_pairs(file, options)
        source.check = check
        rows = list(source)
        skipped = f", {source.report()}" if source.skipped else ""
        self._answers = [(row.query, row.title) for row in rows if label_of(row) >= RELEVANT]
        titles = [row.title for row in rows]  # titles that do not answer are searched as well
        self._set = RecallSet(self._answers, [*corpus, *titles])
        self._options, self._info = options, start.model.info
        self._texts = encode_rows(model.row_encoder, self._set.corpus, file)
        self._queries = encode_rows((queries or model).row_encoder, self._set.queries, file, queries=True)
        self.report = f"{len(self._set.queries):,} queries, {len(self._set.corpus):,} texts to search{skipped}"
        if corpus and not {*corpus} & {*titles}:
            start.run.report(f"{options.corpus_file}: holds no title of {options.similar_text_pair}; is it their file?")
        self._tower, self._query_tower = towers_in_training(start, options.batch_size)

    def compare(self, pairs: TextPairs) -> None:
        """Warn if pairs of the evaluation are also training pairs.

        In a training on texts alone, warn if queries of the evaluation are training texts.
        """
        queries, titles = pairs.texts
        numbers = zip(pairs.query_of.tolist(), pairs.title_of.tolist())
        learned = {(queries[query], titles[title]) for query, title in numbers}
        if all(query == title for query, title in learned):
            warn_of_overlap("queries", {query for query, _ in learned}, self._set.queries)
        else:
            warn_of_overlap("pairs", learned, self._answers)

    def measure(self, processes: ProcessGroup) -> dict[str, float]:
        """Return Recall@k and MRR@10, also of nested sizes (`recall@10/64`); the processes share the encoding."""
        began = time.monotonic()
        texts = _shared(self._tower, self._texts, processes)
        queries = _shared(self._query_tower, self._queries, processes)
        results, cosines = nearest(texts, queries, self._options.recall_num)
        ranking = self._set.ranking(results)
        cuts = [cut for cut in _CUTS if cut <= self._options.recall_num]
        measures = {f"recall@{cut}": float(recall_at(ranking, cut).mean()) for cut in cuts}
        measures["mrr@10"] = float(reciprocal_rank_at(ranking, 10).mean())
        for size in self._info.nested_sizes:
            cut = [
                normalised(array[:, :size]) if self._info.normalize else array[:, :size] for array in (texts, queries)
            ]
            numbers, _ = nearest(cut[0], cut[1], 10)
            measures[f"recall@10/{size}"] = float(recall_at(self._set.ranking(numbers), 10).mean())
        if processes.is_first:
            self._write(results, cosines)
            line = " ".join(f"recall@{cut}={100 * measures[f'recall@{cut}']:.3f}" for cut in cuts)
            tqdm.write(f"{line} ({self.report}, {time.monotonic() - began:.1f} s)")
        return measures

    def _write(self, results: Array, cosines: Vectors) -> None:
        if self._options.results_path is None:
            return
        folder, name = self._options.results_path
        os.makedirs(folder, exist_ok=True)
        corpus = self._set.corpus
        rows = (
            (query, corpus[number], round(cosine, 6))
            for query, numbers, row in zip(self._set.queries, results.tolist(), cosines.tolist())
            for number, cosine in zip(numbers, row)
        )
        write_results(os.path.join(folder, name), rows)


def _shared(tower: Tower, columns: Columns, processes: ProcessGroup) -> Vectors:
    """Return the vectors of all rows; each process computes a share of them."""
    if processes.size == 1:
        return tower.compute(columns)
    rows = np.arange(processes.rank, len(columns), processes.size)
    computed = tower.compute(columns.take(rows))
    size = int(processes.sum(np.array([float(computed.shape[1]) if processes.is_first else 0.0]))[0])
    vectors = np.zeros((len(columns), size), np.float32)
    if len(rows):
        vectors[rows] = computed
    return processes.sum(vectors)


def open_evaluation(start: TowerStart, options: TowerTrainingOptions) -> Optional[RecallEvaluation]:
    """Return the evaluation set, or None."""
    return RecallEvaluation(start, options) if options.evaluates else None


def train_tower(
    start: TowerStart,
    examples: InBatchExamples,
    evaluation: Optional[RecallEvaluation],
    options: TowerTrainingOptions,
    facts: Mapping[str, object],
    on_evaluation: Optional[OnEvaluation] = None,
    begin_epoch: Optional[Callable[[int], None]] = None,
) -> FitResult:
    """Train, evaluate regularly, keep the best checkpoint by `options.metric`, and print the result.

    Args:
        facts: further values to record in `tower.json`.
        on_evaluation: see `Task`.
        begin_epoch: see `Task`; the default draws the examples' negatives.
    """
    run, model, processes = start.run, start.model, start.run.processes
    options.note_unused()
    if options.parts * processes.size > 1:
        run.report(f"each device computes a batch in {options.parts} parts of {options.part_size} examples")

    def save(folder: Path, results: dict[str, float]) -> None:
        info = replace(model.info, **run.describe({"examples": len(examples), **facts}, results))
        save_tower(folder, model, info)
        if start.queries is not None:
            save_query_tower(folder, start.queries, info)

    shape = {name: getattr(model.info, name) for name in ("max_seq_length", "size", "pooling", "normalize", "towers")}
    task = Task(
        model.network,
        examples,
        None if evaluation is None else lambda: evaluation.measure(processes),
        save,
        metric=options.metric,
        part_factors=start.part_factors,
        identity={
            "options": {**options.identity(), **shape},
            "content": {name: content_digest(path) for name, path in options.compared.items()},
        },
        begin_epoch=begin_epoch or examples.begin_epoch,
        on_evaluation=on_evaluation,
        apart=APART,
    )
    result = run.train(task)
    if examples.without_negatives and examples.settings.terms.of_batch:
        run.report(
            f"in {examples.without_negatives:,} of {examples.batches:,} batches no query had a negative, so they "
            "taught nothing: take a larger --batch_size, or data with negatives"
        )
    return result
