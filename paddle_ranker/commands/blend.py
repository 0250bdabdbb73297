"""Average a ranker with the linear lexical model, or with another ranker, into one model folder.

paddle-ranker blend checkpoint/best dev.tsv blended --train mine.tsv
paddle-ranker blend checkpoint/best dev.tsv blended --with other/best
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, Union

from paddle_ranker import runtime
from paddle_ranker.encoding.options import TokenizerOptions
from paddle_ranker.errors import DataError, RankerError, UsageError
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.pretrained import find_model
from paddle_ranker.options import DeviceOptions, LabelOptions, main_of, option
from paddle_ranker.options.files import base_names
from paddle_ranker.scoring.options import BatchOptions
from paddle_ranker.storage.digest import content_digest

if TYPE_CHECKING:
    from paddle_ranker.metrics.logistic import LinearModel
    from paddle_ranker.model.folder import RankerModel
    from paddle_ranker.training.blend import Average, Learned, Measured


@dataclass(frozen=True)
class BlendOptions(BatchOptions, TokenizerOptions, LabelOptions, DeviceOptions):
    ranker: str = option(positional=True, help="the ranker: a model folder")
    dev_file: str = option(
        positional=True, files=True, help="labelled pairs to learn the weights from: query, title, label"
    )
    target: str = option(positional=True, help="folder to make; it must not exist")
    train_file: Optional[str] = option(
        None,
        help="training data of the linear lexical model: labelled pairs or triples; not DEV_FILE (required without "
        "--with)",
        name="train",
        files=True,
        either=True,
    )
    other: Optional[str] = option(
        None,
        help="another ranker to average with, in place of the linear lexical model: a model folder",
        name="with",
        either=True,
    )
    folds: int = option(5, help="folds of queries; each is measured with weights learned from the others", minimum=2)

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.train_file is None) == (self.other is None):
            raise UsageError(
                "say what to average with: --train FILE for the linear lexical model learned from it, or "
                "--with RANKER for another ranker"
            )

    def look_up(self) -> None:
        """Find the rankers."""
        for ranker in filter(None, (self.ranker, self.other)):
            find_model(ranker)


def blend(options: BlendOptions) -> list[str]:
    """Learn the weights, write the folder, and return lines: the measures, the weights, and whether to use the blend.

    Raises `CheckpointError` for a ranker that cannot be read, `DataError` for files that are of no use for
    learning, and `RankerError` if the target exists already.
    """
    import numpy as np

    from paddle_ranker.data.records import LabeledPair, RecordFile
    from paddle_ranker.evaluation.pairs import require_both_classes
    from paddle_ranker.training.blend import learn_average, learn_linear, logits_of, training_pairs

    target = Path(options.target)
    if target.exists() or target.is_symlink():
        raise RankerError(f"{target}: is there already; choose another TARGET, or remove it")
    runtime.select_device(options.device)
    parts = _member(options.ranker, options)
    source = RecordFile(options.dev_file, LabeledPair, options)
    dev = list(source)
    queries, labels = [pair.query for pair in dev], np.array([pair.label for pair in dev], dtype=np.float64)
    require_both_classes(options.dev_file, labels, "a blend")
    if options.train_file is not None:
        if content_digest(options.train_file) == content_digest(options.dev_file):
            raise DataError(
                f"{options.train_file}: has the same content as {options.dev_file}, and a linear model looks better "
                "than it is on its training data: give another --train"
            )
        learned = learn_linear(parts, training_pairs(options.train_file, options))
        added: Union[Learned, RankerModel] = learned
        parts, names, second = learned.parts, ["ranker", "linear model"], learned.logits(dev)
    else:
        assert options.other is not None
        added = other = _member(options.other, options)
        names, second = ["ranker", "other ranker"], logits_of(other, dev, options.batch_size)
    members = np.stack([logits_of(parts, dev, options.batch_size), second], axis=1)
    average = learn_average(members, labels, queries, options.folds)
    _write(options, parts, added, average, names)
    count = len(set(queries))
    return [
        f"{options.dev_file}: {source.report()} pairs of {count:,} queries",
        *_table(names, average),
        f"(95% over draws of {count:,} queries. The blend is cross-validated: each query is scored with weights of the "
        f"other queries, in {options.folds} parts)",
        *_weights_in_words(target, names, average.weights),
        average.says(count),
        _advice(options, names, average),
    ]


def _member(source: str, options: BlendOptions) -> RankerModel:
    from paddle_ranker.errors import CheckpointError
    from paddle_ranker.model.folder import RankerModel
    from paddle_ranker.model.kinds import load_ranker

    model = load_ranker(source, LoadOptions(tokenizer=options.tokenizer))
    if not isinstance(model, RankerModel):
        raise CheckpointError(f"{source}: is a blend of rankers already: blend its members")
    return model


def _write(
    options: BlendOptions,
    parts: RankerModel,
    added: Union[Learned, RankerModel],
    average: Average,
    names: Sequence[str],
) -> None:
    """Write the folder: one network with the linear model in it, or both rankers."""
    from paddle_ranker.model.blend import save_blend
    from paddle_ranker.model.folder import RankerModel, save_ranker
    from paddle_ranker.storage.atomic import make_folder, new_folder, remove_unfinished
    from paddle_ranker.training.blend import add_linear

    target, weights = Path(options.target), average.weights
    facts: dict[str, Any] = {
        "with": options.other or "linear lexical model",
        "train_file": options.train_file,
        "dev_file": options.dev_file,
        "weights": weights.weights.tolist(),
        "bias": weights.bias,
        "pull_to_equal": average.pull if math.isfinite(average.pull) else "equal",
        "equal_weights": _values(average.equal),
        "alone": {name: _values(measured) for name, measured in zip(names, average.alone)},
    }
    measured = f"cross-validated over the queries of {base_names(options.dev_file)}"
    results = {**_values(average.blend), "measured": measured}
    remove_unfinished(make_folder(target.parent))
    with new_folder(target) as temporary:
        if isinstance(added, RankerModel):
            save_blend(temporary, [parts, added], weights, facts, results)
            return
        add_linear(parts, weights, added.linear)
        info = dataclasses.replace(
            parts.info,
            lexical_features=True,
            calibration=None,  # The old one fits other logits, and those of a blend come from a logistic regression.
            training={**parts.info.training, "blend": facts},
            results=results,
        )
        save_ranker(temporary, parts.network, parts.row_encoder, info)


def _values(measured: Measured) -> dict[str, float]:
    return {name: found.estimate for name, found in measured.items()}


def _table(names: Sequence[str], average: Average) -> list[str]:
    """Return a line for each member, for equal weights and for the blend: measures, and by how much the blend leads."""
    measured = dict(zip([*names, "equal weights", "blend"], [*average.alone, average.equal, average.blend]))
    ahead = dict(zip([*names, "equal weights"], [*average.ahead, average.better]))
    rows = [["", *average.blend, *(f"blend ahead, {measure}" for measure in average.blend)]]
    for name, found in measured.items():
        differences = [f"{gap:+.4f}" for gap in ahead.get(name, {}).values()]
        rows.append([name, *(f"{value:.4f}" for value in found.values()), *differences])
    widths = [max(map(len, column)) for column in zip_longest(*rows, fillvalue="")]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def _advice(options: BlendOptions, names: Sequence[str], average: Average) -> str:
    """Return a line of advice: the blend, or the member that it is not ahead of, if that member has a folder."""
    rivals, folders = average.rivals(), (options.ranker, options.other)
    if not rivals:
        return "advice: the blend, which is ahead of either alone on these queries"
    number = next((number for number in rivals if folders[number]), rivals[0])
    gaps = ", ".join(f"{measure} {gap:+.4f}" for measure, gap in average.ahead[number].items())
    unsure = f"that the blend is better than the {names[number]} alone is not established ({gaps})"
    if folders[number]:
        return f"advice: {folders[number]} alone: {unsure}"
    return f"advice: the blend, as no folder holds the {names[number]} alone: {unsure}"


def _weights_in_words(target: Path, names: Sequence[str], weights: LinearModel) -> list[str]:
    first, then = weights.weights.tolist()
    return [
        f"{target}: {first:.4g} * {names[0]} {then:+.4g} * {names[1]} {weights.bias:+.4g}",
        *(
            f"note: {name} counts below zero here: it adds nothing that helps"
            for name, weight in zip(names, (first, then))
            if weight < 0
        ),
    ]


def run(options: BlendOptions) -> None:
    """Blend, and print the measures and the advice."""
    runtime.prepare_command(options.cpu_threads)
    print(*blend(options), sep="\n")


main = main_of(run, BlendOptions, __doc__)
