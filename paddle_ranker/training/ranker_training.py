"""Train a ranker, pairwise or cross-encoder: load the start, train, evaluate and save."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Optional

import numpy as np
import paddle

from paddle_ranker.array_types import Array
from paddle_ranker.data.rows.overlap import warn_of_overlap
from paddle_ranker.encoding.columns import EncodedPairs, pair_keys
from paddle_ranker.errors import DataError, UsageError
from paddle_ranker.evaluation.evaluation_set import EvaluationSet
from paddle_ranker.lexical.head import learn_heads
from paddle_ranker.metrics.measures import MEASURES
from paddle_ranker.metrics.ranking import Scored
from paddle_ranker.model.hugging_face.folder import head_has_bias
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.model_folder import ANY_TOWER, ENCODER, identify
from paddle_ranker.model.network import APART, RankerNetwork
from paddle_ranker.model.networks.dropout import Dropout
from paddle_ranker.model.networks.lora import add_adapters
from paddle_ranker.model.pretrained import find_model, resolve_model
from paddle_ranker.model.ranker_folder import Fresh, RankerModel, save_ranker, start_ranker
from paddle_ranker.model.similarity import START
from paddle_ranker.scoring.engines.dygraph import DygraphEngine
from paddle_ranker.storage.digest import content_digest, warn_of_same_data
from paddle_ranker.training.examples import RankingExamples
from paddle_ranker.training.run import Start, start_run
from paddle_ranker.training.task import FitResult, OnEvaluation, Task
from paddle_ranker.training.training_options import RankerTrainingOptions

_NARROW = ("narrow.down", "narrow.up")
_SAMPLE, _AT_ONCE = 1000, 32  # pairs from whose states the first weights of `_NARROW` are computed; in a batch
FOLDED_HEAD_FACTOR = 2.0  # the head's two opposite rows became one, which moves half as far in a step


def start_training(options: RankerTrainingOptions, kind: str) -> Start[RankerModel]:
    """Prepare the process, and load the model to start from: a ranker, an encoder, or an interrupted run's model.

    kind: the kind of ranker to train
    """
    run = start_run(options)
    if run.resumed:
        source, name = run.resumed.model, None
    elif options.init_from_ckpt:
        source, name = find_model(options.init_from_ckpt), options.model_name_or_path
    else:
        source, name = resolve_model(options.model_name_or_path), None
    identify(source).require_parameters(ENCODER)
    similarity = None if run.resumed else options.similarity
    if similarity is not None and similarity != START:
        identify(find_model(similarity)).require_parameters(ANY_TOWER)
    model = start_ranker(
        source,
        Fresh(
            kind,
            match_embeddings=options.match_embeddings,
            lexical_features=options.lexical_features,
            similarity=similarity,
            stored_titles=options.stored_titles,
            stored_width=options.stored_width,
        ),
        LoadOptions(
            model_name=name,
            max_seq_length=options.max_seq_length,
            positive_label=None if run.resumed else options.positive_label,
        ),
    )
    if options.rdrop_coef and not any(
        isinstance(layer, Dropout) and layer.probability for layer in model.network.encoder.sublayers()
    ):
        raise UsageError(f"--rdrop_coef compares passes with different dropout, and {source} has none: leave it out")
    model.network.encoder.gradient_checkpointing = options.gradient_checkpointing
    if options.lora_rank:
        add_adapters(model.network.encoder, options.lora_rank)
    if not head_has_bias(model.network.encoder.config):
        model.network.head.bias.stop_gradient = True  # so that transformers has a place for the whole head
    run.report_start(source, model.new_parts, model.row_encoder)
    if model.dropped_calibration:
        run.report(f"the calibration of {source} is left out: calibrate what comes out of the training")
    return Start(run, model, _part_factors(model, options))


def _part_factors(model: RankerModel, options: RankerTrainingOptions) -> dict[str, float]:
    factors = dict.fromkeys(model.new_parts, options.new_parts_factor)
    for part in _NARROW:
        factors.pop(part, None)  # principal components are their first weights
    if "head" in factors:
        for part in ("lexical", "similarity_head"):
            factors.pop(part, None)  # a logistic regression sets its first weights
    if model.folded_head:
        factors["head"] = FOLDED_HEAD_FACTOR
    if options.head_learning_rate is not None:
        factors["head"] = options.head_learning_rate / options.learning_rate
    return factors


def open_evaluation(start: Start[RankerModel], test_file: str, options: RankerTrainingOptions) -> EvaluationSet:
    """Read and encode the file to evaluate on during training; leave out pairs with several labels.

    Raises `DataError` if `options.metric` cannot be measured on the file.
    """
    evaluation = EvaluationSet(test_file, start.model.row_encoder, options.batch_size, rules=options, one_label=True)
    if not MEASURES[options.metric].applies(Scored(evaluation.queries, evaluation.labels, evaluation.labels)):
        one_title = len(set(evaluation.queries)) == len(evaluation.queries)
        why = "it has one title a query" if one_title else "no query has titles of different labels"
        raise DataError(f"{test_file}: the evaluation file gives no {options.metric} ({why}): choose --metric auc")
    return evaluation


def train_ranker(
    start: Start[RankerModel],
    examples: RankingExamples,
    evaluation: EvaluationSet,
    options: RankerTrainingOptions,
    *,
    files: dict[str, str],
    facts: Mapping[str, object],
    on_evaluation: Optional[OnEvaluation] = None,
) -> FitResult:
    """Train, evaluate regularly, keep the checkpoint that is best by `options.metric`, and print the result.

    files: paths of the data files by option name; a run can be resumed only if the files' contents are unchanged
    facts: further values to record in `ranker.json`, such as the loss's margin and the number of examples
    on_evaluation: see `Task`
    """
    run, model = start.run, start.model
    if run.processes.is_first:
        warn_of_same_data(options, *files)
        warn_of_overlap("pairs", pair_keys(examples.pairs), pair_keys(evaluation.pairs))
    new_heads = [
        head for head in (model.network.lexical, model.network.similarity_head) if head and not head.has_learned
    ]
    if new_heads:
        learn_heads(new_heads, examples.pairs, examples.pair_labels if "head" in model.new_parts else None)
    if model.network.narrow is not None and _NARROW[0] in model.new_parts:
        model.network.narrow.fit(_lower_states(model.network, examples.pairs))
    engine = DygraphEngine(model.network)

    def save(folder: Path, results: dict[str, float]) -> None:
        info = dataclasses.replace(model.info, **run.describe(facts, results))
        save_ranker(folder, model.network, model.row_encoder, info)

    # The checkpoint decides the default length.
    identity_options = {**options.identity(), "max_seq_length": model.info.max_seq_length}
    identity = {"options": identity_options, "content": {name: content_digest(path) for name, path in files.items()}}
    task = Task(
        model.network,
        examples,
        lambda: evaluation.measure(engine, run.processes),
        save,
        options.metric,
        lower_is_better=not MEASURES[options.metric].higher_is_better,
        part_factors=start.part_factors,
        identity=identity,
        on_evaluation=on_evaluation,
        apart=APART,
    )
    return run.train(task)


@paddle.no_grad()
def _lower_states(network: RankerNetwork, pairs: EncodedPairs) -> Array:
    """Return the lower layers' states of `_SAMPLE` evenly spaced pairs, `[tokens, hidden]` float32."""
    rows = np.unique(np.linspace(0, len(pairs) - 1, min(_SAMPLE, len(pairs))).astype(np.int64))
    was_training, parts = network.training, []
    network.eval()
    for start in range(0, len(rows), _AT_ONCE):
        batch = pairs.pad(rows[start : start + _AT_ONCE])
        states = network.encoder.apart(*map(paddle.to_tensor, batch.values())).numpy()
        parts.append(states[batch["input_ids"] != network.config.pad_token_id])
    if was_training:
        network.train()
    return np.concatenate(parts)
