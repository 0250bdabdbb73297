"""Start of a tower's training: from an encoder, a tower, or an interrupted run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Optional

from paddle_ranker.encoding.columns import EncodedTexts
from paddle_ranker.errors import UsageError
from paddle_ranker.model.encoders import Checkpoint
from paddle_ranker.model.hugging_face.sentences import is_sentences
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.pretrained import resolve_model
from paddle_ranker.model.tower import QUERY_FOLDER, TowerInfo
from paddle_ranker.model.tower_network import TowerModel, load_tower, query_tower_of, start_tower
from paddle_ranker.model.tower_sources import read_tower
from paddle_ranker.options import note
from paddle_ranker.training.run import Start, start_run
from recall.model import LearnedScale
from recall.options import TowerTrainingOptions

_MAX_SEQ_LENGTH = 128
TRAINING_POOLING = "training_pooling"  # key in the training's record in `tower.json`; older files have SimCSE's option


@dataclass(frozen=True)
class TowerStart(Start[TowerModel]):
    """Start of a tower's training; `queries` is the separate tower of queries, if any."""

    queries: Optional[TowerModel] = None


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
        load = LoadOptions(tokenizer=options.tokenizer)
        model, queries = load_tower(run.resumed.model, load), query_tower_of(run.resumed.model, load)
        factors: dict[str, float] = {}
        before = model.info.training
    else:
        source = options.init_from_ckpt or options.model_name_or_path
        checkpoint, stated = _read(source, options, dropout)
        info = tower_info(options, checkpoint, stated, lexical_size)
        model, new_parts = start_tower(checkpoint, info, options.tokenizer)
        queries = None
        if info.towers == 2:
            inner = checkpoint.file.parent / QUERY_FOLDER
            start = options.query_model or (str(inner) if inner.is_dir() else source)
            of_queries = checkpoint if start == source else _read(start, options, dropout)[0]
            queries, new_in_queries = start_tower(of_queries, info, options.tokenizer)
            new_parts += [f"query_tower.{part}" for part in new_in_queries]
        run.report_start(source, new_parts, model.row_encoder.tokens)
        factors = dict.fromkeys([*new_parts, "learned_scale"], options.new_parts_factor)
        before = stated.training
    in_training = _pooling_in_training(model.info.pooling, before) if without_pooler else None
    if in_training is not None:
        model, queries = _without_pooler(model), None if queries is None else _without_pooler(queries)
    for tower in (model, queries):
        if tower is not None:
            tower.network.encoder.gradient_checkpointing = options.gradient_checkpointing
            tower.network.training_pooling = in_training
            tower.network.train()
    model.network.query_tower = None if queries is None else queries.network
    model.network.learned_scale = LearnedScale(options.scale) if options.learned_scale else None
    return TowerStart(run, model, factors, queries)


def tower_info(
    options: TowerTrainingOptions, checkpoint: Checkpoint, stated: TowerInfo, lexical_size: Optional[int] = None
) -> TowerInfo:
    """Return the info of the tower to train: as the options state it, else as `stated`."""
    given: dict[str, Any] = {
        "max_seq_length": options.max_seq_length, "pooling": options.asked_pooling,
        "query_prompt": options.query_prompt, "text_prompt": options.text_prompt, "towers": options.towers,
        "nested_sizes": options.nested and tuple(options.nested),
    }  # fmt: skip
    # Vectors that are compared by their cosine have length 1, so that a plain product compares them.
    is_scaled = stated.normalize or stated.similarity == "cosine"
    given["normalize"] = is_scaled if options.normalize is None else options.normalize
    given["similarity"] = "cosine" if given["normalize"] else "dot"
    size, before = stated.size - stated.lexical_size, stated.lexical_size
    if options.output_emb_size is not None:
        is_stated = stated.output_layer and options.output_emb_size == size
        size = options.output_emb_size or checkpoint.config.hidden_size
        given.update(output_layer=options.output_emb_size > 0, output_tanh=is_stated and stated.output_tanh, cut_from=0)
    lexical_size = before if lexical_size is None else lexical_size
    given.update(size=size + lexical_size, lexical_size=lexical_size)
    if lexical_size and before not in (0, lexical_size):
        raise UsageError(f"--lexical_size {lexical_size}: the checkpoint's is {before}; leave it out, or give 0")
    if lexical_size and stated.cut_from and options.output_emb_size is None:
        raise UsageError(
            f"--lexical_size {lexical_size}: the vectors are cut (truncate_dim); give --output_emb_size too"
        )
    if lexical_size and not given["normalize"]:
        raise UsageError(f"--lexical_size {lexical_size} is a share of vectors that are 1 long: give --normalize true")
    info = replace(stated, **{name: value for name, value in given.items() if value is not None})
    if max(info.nested_sizes, default=0) >= size:
        raise UsageError(f"--nested_sizes: give lengths below that of the vectors, {size}")
    return replace(info, training={}, results={}, versions={}, export=None)


def learn_words(start: TowerStart, titles: EncodedTexts) -> None:
    """Learn the token weights of new lexical parts: rare tokens in titles weigh more."""
    for tower in (start.model, start.queries):
        if tower is not None and tower.network.lexical_part is not None:
            tower.network.lexical_part.learn(titles[number] for number in range(len(titles)))


def _read(source: str, options: TowerTrainingOptions, dropout: Optional[float]) -> tuple[Checkpoint, TowerInfo]:
    """Read a model's files; return their contents, and the info of the tower in them.

    If an encoder's folder states no pooling, the tower is that of the published scripts: the pooler's output (without a
    trained pooler the mean of the states), scaled to length 1, for at most 128 tokens.
    """
    folder = resolve_model(source)
    model_name = options.model_name_or_path if options.init_from_ckpt else None
    load = LoadOptions(model_name=model_name, tokenizer=options.tokenizer)
    place = folder.parent if folder.is_file() else folder
    states = TowerInfo.read(place) is not None or is_sentences(place)
    if not states:
        load = replace(load, pooling=options.asked_pooling or "pooler")
    checkpoint, stated = read_tower(folder, load)
    if not states:
        if options.asked_pooling is None and not checkpoint.has_trained_pooler:
            note(f"note: {folder} has no trained pooler: vectors are the mean of the tokens' states; see --pooling")
            stated = replace(stated, pooling="mean")
        length = min(_MAX_SEQ_LENGTH, stated.max_seq_length)
        stated = replace(stated, max_seq_length=length, similarity="cosine")
    if dropout is not None:
        config = replace(checkpoint.config, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
        checkpoint = replace(checkpoint, config=config)
    return checkpoint, stated


def _pooling_in_training(pooling: str, before: Mapping[str, object]) -> Optional[str]:
    """Return the pooling to use in training only, "pooler" or None; `before` records the earlier training."""
    if pooling == "first" and not before.get(TRAINING_POOLING, "infer_with_fc_pooler" in before):
        return None  # the first token's state made its vectors from the start
    return "pooler" if pooling in ("pooler", "first") else None


def _without_pooler(model: TowerModel) -> TowerModel:
    model.network.pooling = "first"
    return replace(model, info=replace(model.info, pooling="first"))
