"""Average a ranker with others, with towers' cosines, BM25 and the linear lexical model, in one model folder.

paddle-ranker blend checkpoint/best dev.tsv blended --train mine.tsv
paddle-ranker blend checkpoint/best dev.tsv blended --with other/best tower bm25
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from paddle_ranker import runtime
from paddle_ranker.errors import DataError, RankerError, UsageError
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.pretrained import find_model
from paddle_ranker.options import DeviceOptions, LabelOptions, main_of, option
from paddle_ranker.options.declare import FETCHED_FOLDER
from paddle_ranker.options.input_files import base_names, paths_of
from paddle_ranker.scoring.scoring_options import BatchOptions
from paddle_ranker.storage.digest import content_digest

if TYPE_CHECKING:
    from paddle_ranker.array_types import Floats
    from paddle_ranker.data.rows.records import LabeledPair
    from paddle_ranker.metrics.calibration import Calibration
    from paddle_ranker.metrics.calibration_fitting import JudgedCalibration
    from paddle_ranker.metrics.logistic import LinearModel
    from paddle_ranker.model.ranker_folder import RankerModel
    from paddle_ranker.training.average import Average, Measured

LINEAR, _BM25 = "linear model", "bm25"


@dataclass(frozen=True)
class BlendOptions(BatchOptions, LabelOptions, DeviceOptions):
    ranker: str = option(positional=True, help="the ranker: a model folder", addresses=FETCHED_FOLDER)
    dev_file: str = option(
        positional=True, files=True, help="labelled pairs to learn the weights from: query, title, label"
    )
    target: str = option(positional=True, help="folder to make; it must not exist")
    train_file: Optional[str] = option(
        None,
        help="add the linear lexical model, learned from these labelled pairs or triples; not DEV_FILE",
        name="train",
        files=True,
        either=True,
    )
    other: tuple[str, ...] = option(
        (),
        help=f"models to average with: folders of rankers, folders of towers for their cosine, or {_BM25}",
        name="with",
        several=True,
        either=True,
        addresses=FETCHED_FOLDER,
    )
    folds: int = option(5, help="folds of queries; each is measured with weights learned from the others", minimum=2)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.train_file is None and not self.other:
            raise UsageError(
                "say what to average with: --with RANKER for other rankers, towers or bm25, --train FILE for the "
                "linear lexical model learned from it, or both"
            )
        models = [self.ranker, *self.other]
        paths = [os.path.realpath(model) for model in models]  # best may be a link, or have a slash at its end
        twice = [model for place, model in enumerate(models) if paths[place] in paths[:place]]
        if twice:
            raise UsageError(f"{twice[0]}: is given twice, and a member counts once: leave one out")

    def look_up(self) -> None:
        for model in self.folders:
            find_model(model)

    @property
    def folders(self) -> list[str]:
        """The folders or names of the members that are models, `ranker` first."""
        return [self.ranker, *(model for model in self.other if model != _BM25)]


@dataclass(frozen=True)
class Members:
    """Members of a blend.

    models: members that have a model folder, in order
    linear: members that are linear models of the first model's lexical features, by name
    """

    models: list[RankerModel]
    linear: dict[str, LinearModel]


def blend(options: BlendOptions) -> list[str]:
    """Learn the weights and write the folder; return lines with the measures, the weights, and each member's worth.

    Raises `CheckpointError` if a model cannot be read, `DataError` if the weights cannot be learned from the files,
    and `RankerError` if the target exists already.
    """
    import numpy as np

    from paddle_ranker.data.rows.records import LabeledPair, RecordFile
    from paddle_ranker.evaluation.pairs import require_both_classes
    from paddle_ranker.metrics.calibration_fitting import fit_and_judge
    from paddle_ranker.training.average import learn_average, lexical_logits, logits_of

    target = Path(options.target)
    if target.exists() or target.is_symlink():
        raise RankerError(f"{target}: is there already; choose another TARGET, or remove it")
    runtime.select_device(options.device)
    models = [_ranker(options.ranker), *(_member(source) for source in options.folders[1:])]
    source = RecordFile(options.dev_file, LabeledPair, options)
    dev = list(source)
    queries, labels = [pair.query for pair in dev], np.array([pair.label for pair in dev], dtype=np.float64)
    require_both_classes(options.dev_file, labels, "a blend")
    members = _with_linear(options, models, dev)
    first = logits_of(members.models[0], dev, options.batch_size)
    others = [logits_of(model, dev, options.batch_size) for model in members.models[1:]]
    linear = [lexical_logits(members.models[0], model, dev) for model in members.linear.values()]
    names = [*options.folders, *members.linear]
    average = learn_average(np.stack([first, *others, *linear], axis=1), labels, queries, options.folds)
    try:
        judged, why_not = fit_and_judge("platt", queries, labels, average.logits, options.folds), ""
    except DataError as error:
        judged, why_not = None, str(error)
    fitted = None if judged is None else _calibration(options, judged, queries, labels, models)
    _write(options, members, average, names, fitted)
    count = len(set(queries))
    return [
        f"{options.dev_file}: {source.report()} pairs of {count:,} queries",
        *_table(names, average),
        f"(95% over draws of {count:,} queries. The blend is cross-validated: each query is scored with weights of the "
        f"other queries, in {options.folds} parts)",
        *_weights_in_words(target, names, average.weights),
        f"calibrated on these queries: probability = {fitted}" if fitted else f"note: not calibrated: {why_not}",
        average.verdict(count),
        _advice(options, names, average),
    ]


def _ranker(source: str) -> RankerModel:
    from paddle_ranker.model.model_folder import MEMBER, load_model
    from paddle_ranker.model.ranker_folder import RankerModel

    model = load_model(source, MEMBER, LoadOptions())
    assert isinstance(model, RankerModel)
    return model


def _member(source: str) -> RankerModel:
    from paddle_ranker.model.blend import member_of_tower
    from paddle_ranker.model.model_folder import TOWER, identify
    from paddle_ranker.model.tower_network import TowerModel

    folder_type = identify(find_model(source))
    if not TOWER.fits(folder_type):
        return _ranker(source)
    tower = folder_type.load(TOWER, LoadOptions())
    assert isinstance(tower, TowerModel)
    return member_of_tower(tower, folder_type.path)


def _with_linear(options: BlendOptions, models: list[RankerModel], held_out: Sequence[LabeledPair]) -> Members:
    """Return `models` and the linear models that the options ask for, as members of the blend.

    Linear models use lexical features of the first ranker; if it has none, they are added. Raises `DataError` if the
    linear models cannot be learned from the files.
    """
    from paddle_ranker.data.rows.overlap import warn_of_overlap
    from paddle_ranker.training.average import bm25, learn_linear, training_pairs, with_features

    train: list[LabeledPair] = []
    linear: dict[str, LinearModel] = {}
    if options.train_file is not None:
        dev = {content_digest(path): path for path in paths_of(options.dev_file)}
        for path in paths_of(options.train_file):
            if same := dev.get(content_digest(path)):
                raise DataError(
                    f"{path}: has the same content as {same}, and a linear model looks better than it is on its "
                    "training data: give another --train"
                )
        train = training_pairs(options.train_file, options)
        keys = ([(pair.query, pair.title) for pair in part] for part in (train, held_out))
        warn_of_overlap("pairs", *keys)
    if _BM25 in options.other or options.train_file is not None:
        models = [with_features(models[0], train), *models[1:]]
    if _BM25 in options.other:
        linear[_BM25] = bm25()
    if options.train_file is not None:
        linear[LINEAR] = learn_linear(models[0], train)
    return Members(models, linear)


def _calibration(
    options: BlendOptions,
    judged: JudgedCalibration,
    queries: Sequence[str],
    labels: Floats,
    models: Sequence[RankerModel],
) -> Calibration:
    """Return the blend's calibration, with facts about the data that it was fitted on."""
    from paddle_ranker.encoding.pair_encoder import BlendedPairEncoder
    from paddle_ranker.metrics.calibration_fitting import figures_of
    from paddle_ranker.metrics.ranking import RELEVANT
    from paddle_ranker.scoring.files import scored_with

    encoders = [model.row_encoder for model in models]
    encoder = encoders[0] if len(encoders) == 1 else BlendedPairEncoder(encoders)

    fitted_on = {
        "file": base_names(options.dev_file),
        "digest": content_digest(options.dev_file),
        "pairs": len(labels),
        "queries": len(set(queries)),
        "relevant": int((labels >= RELEVANT).sum()),
        "scored": scored_with(encoder, None),
    }
    return dataclasses.replace(judged.calibration, fitted_on=fitted_on, figures=figures_of(judged, options.folds))


def _write(
    options: BlendOptions, members: Members, average: Average, names: Sequence[str], calibration: Optional[Calibration]
) -> None:
    """Write the blend's folder.

    Linear models are added to the first ranker's network. If no other model is left, the folder is that of a single
    ranker; otherwise it holds all models.
    """
    from paddle_ranker.metrics.logistic import LinearModel
    from paddle_ranker.model.blend import save_blend
    from paddle_ranker.model.ranker_folder import save_ranker
    from paddle_ranker.storage.atomic import make_folder, new_folder, remove_unfinished
    from paddle_ranker.training.average import add_linear

    target, weights, count = Path(options.target), average.weights, len(members.models)
    facts: dict[str, Any] = {
        "with": list(names[1:]),
        "train_file": options.train_file,
        "dev_file": options.dev_file,
        "weights": weights.weights.tolist(),
        "bias": weights.bias,
        "pull_to_equal": average.pull if math.isfinite(average.pull) else "equal",
        "equal_weights": _values(average.equal),
        "alone": {name: _values(measured) for name, measured in zip(names, average.alone)},
        "without": {name: _values(measured) for name, measured in zip(names, average.without)},
    }
    results = {
        **_values(average.blend),
        "measured": f"cross-validated over the queries of {base_names(options.dev_file)}",
    }
    first, kept_weights, bias = members.models[0], weights.weights[:count].copy(), weights.bias
    if members.linear:
        add_linear(
            first,
            kept_weights[0],
            list(zip(weights.weights[count:], members.linear.values())),
            bias if count == 1 else 0.0,
        )
        kept_weights[0] = 1.0
        # The old calibration fits other logits.
        first = dataclasses.replace(
            first, info=dataclasses.replace(first.info, lexical_features=True, calibration=None)
        )
    remove_unfinished(make_folder(target.parent))
    with new_folder(target) as temporary:
        if count > 1:
            save_blend(
                temporary, [first, *members.models[1:]], LinearModel(kept_weights, bias), facts, results, calibration
            )
            return
        training = {**first.info.training, "blend": facts}
        info = dataclasses.replace(first.info, calibration=calibration, training=training, results=results)
        save_ranker(temporary, first.network, first.row_encoder, info)


def _values(measured: Measured) -> dict[str, float]:
    return {name: measure.estimate for name, measure in measured.items()}


def _table(names: Sequence[str], average: Average) -> list[str]:
    """Return the lines of a table: each member, equal weights, the blend, and the blend without each member.

    Each line has the measures, and by how much the blend's measures are higher.
    """
    rows = [*zip(names, average.alone, average.ahead), ("equal weights", average.equal, average.better)]
    rows.append(("blend", average.blend, {}))
    if len(names) > 2:
        rows += zip([f"without {name}" for name in names], average.without, average.worth)
    table = [["", *average.blend, *(f"blend ahead, {measure}" for measure in average.blend)]]
    for name, measured, ahead in rows:
        differences = [f"{gap:+.4f}" for gap in ahead.values()]
        table.append([name, *(f"{value:.4f}" for value in measured.values()), *differences])
    widths = [max(map(len, column)) for column in zip_longest(*table, fillvalue="")]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in table]


def _advice(options: BlendOptions, names: Sequence[str], average: Average) -> str:
    """Return a line that advises to use the blend, or to leave out a member whose worth is not established."""
    idle = average.idle()
    if not idle:
        return "advice: the blend: each member makes it better on these queries"
    least = idle[0]
    gaps = ", ".join(f"{measure} {gap:+.4f}" for measure, gap in average.worth[least].items())
    if len(names) > 2:
        more = f" (nor is that of {', '.join(names[number] for number in idle[1:])}, as long as it is there)"
        return (
            f"advice: blend again without {names[least]}: its worth is not established ({gaps})"
            f"{more if len(idle) > 1 else ''}"
        )
    rest = names[1 - least]
    unsure = f"that the blend is better than {rest} alone is not established ({gaps})"
    if rest in options.folders:
        return f"advice: {rest} alone: {unsure}"
    return f"advice: the blend, as no folder holds the {rest} alone: {unsure}"


def _weights_in_words(target: Path, names: Sequence[str], weights: LinearModel) -> list[str]:
    terms = " ".join(f"{weight:+.4g} * {name}" for name, weight in zip(names, weights.weights))
    unused = [name for name, weight in zip(names, weights.weights) if weight == 0]
    return [
        f"{target}: {terms.lstrip('+')} {weights.bias:+.4g}",
        *(f"note: {name} has no weight: the others are better without it" for name in unused),
    ]


def run(options: BlendOptions) -> None:
    runtime.prepare_command(options.cpu_threads)
    print(*blend(options), sep="\n")


main = main_of(run, BlendOptions, __doc__)
