"""Average a ranker with the linear lexical model, or with another ranker, into one model folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from paddle_ranker import runtime
from paddle_ranker.encoding.tokenizers.backends import TokenizerOptions
from paddle_ranker.errors import DataError, RankerError, UsageError
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.options import RowOptions, option, run_command
from paddle_ranker.runtime import DeviceOptions
from paddle_ranker.scoring.options import BatchOptions

if TYPE_CHECKING:
    import numpy as np

    from paddle_ranker.data.records import LabeledPair
    from paddle_ranker.metrics.logistic import LinearModel
    from paddle_ranker.model.folder import RankerParts


@dataclass(frozen=True)
class BlendOptions(BatchOptions, TokenizerOptions, RowOptions, DeviceOptions):
    ranker: str = option(positional=True, help="the ranker: a model folder")
    dev_file: str = option(
        positional=True, help="labelled pairs that the weights are learned from (query, title, label)"
    )
    target: str = option(positional=True, help="folder to make; it must not exist")
    train_file: Optional[str] = option(
        None,
        help="what the linear lexical model learns from: labelled pairs, or triples; not DEV_FILE (needed without "
        "--other)",
    )
    other: Optional[str] = option(
        None,
        help="another ranker to average with, in place of the linear lexical model: a model folder",
        aliases=("--with",),
    )
    folds: int = option(5, help="parts of the queries; each is measured with weights learned from the rest", minimum=2)

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.train_file is None) == (self.other is None):
            raise UsageError(
                "say what to average with: --train_file FILE for the linear lexical model learned from it, or "
                "--with RANKER for another ranker"
            )


def blend(options: BlendOptions) -> list[str]:
    """Learn the weights, write the folder, and return lines that say what was measured.

    Raises `CheckpointError` for a ranker that cannot be read, `DataError` for files that cannot be learned from, and
    `RankerError` where the target is there already.
    """
    import numpy as np

    from paddle_ranker.data.records import LabeledPair, RecordFile
    from paddle_ranker.evaluation.evaluate import require_both_classes
    from paddle_ranker.metrics.logistic import fit_logistic, out_of_fold
    from paddle_ranker.model.blend import save_blend
    from paddle_ranker.model.folder import save_ranker
    from paddle_ranker.storage.atomic import make_folder, new_folder, remove_unfinished
    from paddle_ranker.storage.digest import content_digest

    target = Path(options.target)
    if target.exists() or target.is_symlink():
        raise RankerError(f"{target}: is there already; choose another TARGET, or remove it")
    runtime.select_device(options.device)
    parts = _member(options.ranker, options)
    source = RecordFile(options.dev_file, LabeledPair, skip_bad_rows=options.skip_bad_rows)
    dev = list(source)
    queries, labels = [pair.query for pair in dev], np.array([pair.label for pair in dev], dtype=np.float64)
    require_both_classes(options.dev_file, labels, "a blend")

    if options.train_file is not None:
        if content_digest(options.train_file) == content_digest(options.dev_file):
            raise DataError(
                f"{options.train_file}: is {options.dev_file} again, and a linear model looks better than it is on "
                "what it learned from: give another --train_file"
            )
        train = _training_pairs(options.train_file, options.skip_bad_rows)
        parts, linear = _learn_linear(parts, train)
        assert parts.network.lexical is not None
        encoded = parts.pair_encoder.encode(queries, [pair.title for pair in dev])
        features = parts.network.lexical.of_pairs(encoded, np.arange(len(dev)), standardise=True)
        names, second = ["ranker", "linear model"], linear.logits(features)
    else:
        assert options.other is not None
        other = _member(options.other, options)
        names, second = ["ranker", "other"], _logits(other, dev, options.batch_size)
    members = np.stack([_logits(parts, dev, options.batch_size), second], axis=1)

    unseen = out_of_fold(members, labels, queries, options.folds)
    weights = fit_logistic(members, labels)
    figures = [_figures(queries, labels, logits) for logits in (*members.T, unseen)]
    facts: dict[str, Any] = {
        "with": options.other or "linear lexical model",
        "train_file": options.train_file,
        "dev_file": options.dev_file,
        "weights": [float(weight) for weight in weights.weights],
        "bias": weights.bias,
        "alone": dict(zip(names, figures)),
    }
    results = {**figures[2], "measured": f"cross-validated over the queries of {Path(options.dev_file).name}"}
    remove_unfinished(make_folder(target.parent))
    with new_folder(target) as temporary:
        if options.train_file is not None:
            add_linear(parts, weights, linear)
            info = _blended_info(parts, facts, results)
            save_ranker(temporary, parts.network, parts.pair_encoder, info)
        else:
            save_blend(temporary, [parts, other], weights, facts, results)

    lines = [f"{options.dev_file}: {source.report()} pairs of {len(set(queries)):,} queries"]
    lines += _table([*names, "blend"], figures)
    lines.append(f"(the blend's figures are cross-validated: weights of the other queries, in {options.folds} parts)")
    first, then = weights.weights.tolist()
    lines.append(f"{target}: {first:.4g} * {names[0]} {then:+.4g} * {names[1]} {weights.bias:+.4g}")
    lines += [
        f"note: {name} counts below zero here: it adds nothing that helps"
        for name, weight in zip(names, (first, then))
        if weight < 0
    ]
    return lines


def _member(source: str, options: BlendOptions) -> RankerParts:
    from paddle_ranker.errors import CheckpointError
    from paddle_ranker.model.folder import BLEND
    from paddle_ranker.model.kinds import load_ranker

    parts = load_ranker(source, LoadOptions(tokenizer=options.tokenizer))
    if parts.info.kind == BLEND:
        raise CheckpointError(f"{source}: is a blend of rankers already: blend its members")
    return parts


def add_linear(parts: RankerParts, weights: LinearModel, linear: LinearModel) -> None:
    """Make the network compute weights[0] * logit + weights[1] * linear logit + bias, exactly, in place."""
    network, (own, added) = parts.network, weights.weights
    assert network.lexical is not None
    bias = own * network.head.bias.numpy().astype("float64") + added * linear.bias + weights.bias
    lexical = own * network.lexical.weight.numpy().astype("float64") + added * linear.weights
    network.head.weight.set_value((own * network.head.weight.numpy().astype("float64")).astype("float32"))
    network.head.bias.set_value(bias.astype("float32"))
    network.lexical.weight.set_value(lexical.astype("float32"))


def _learn_linear(parts: RankerParts, train: list[LabeledPair]) -> tuple[RankerParts, LinearModel]:
    """Return the ranker with lexical features at its head (its own ones stay), and a linear model on them."""
    import dataclasses

    import numpy as np

    from paddle_ranker.metrics.logistic import fit_logistic
    from paddle_ranker.model.folder import with_lexical_features

    encoder = parts.pair_encoder
    pairs = encoder.encode([pair.query for pair in train], [pair.title for pair in train])
    network = with_lexical_features(parts)
    assert network.lexical is not None
    if not network.lexical.has_learned:
        network.lexical.learn(pairs)
    features = network.lexical.of_pairs(pairs, np.arange(len(pairs)), standardise=True)
    linear = fit_logistic(features, np.array([pair.label for pair in train], dtype=np.float64))
    return dataclasses.replace(parts, network=network), linear


def _training_pairs(path: str, skip_bad_rows: bool) -> list[LabeledPair]:
    """Return labelled pairs, or those of triples: titles with the label 1, neg_titles with 0, each pair once."""
    from paddle_ranker.data.records import LabeledPair, Triple, read_records

    try:
        return read_records(path, LabeledPair, skip_bad_rows=skip_bad_rows)
    except DataError as not_labelled:
        try:
            triples = read_records(path, Triple, skip_bad_rows=skip_bad_rows)
        except DataError:
            raise not_labelled from None
    relevant = {(triple.query, triple.title): 1.0 for triple in triples}
    others = {(triple.query, triple.neg_title): 0.0 for triple in triples}
    return [LabeledPair(*texts, label) for texts, label in {**others, **relevant}.items()]


def _logits(parts: RankerParts, pairs: list[LabeledPair], batch_size: int) -> np.ndarray:
    """Return the ranker's logits before any calibration, `[n]` float64."""
    from paddle_ranker.scoring.engines.dygraph import DygraphEngine
    from paddle_ranker.scoring.scorer import Scorer

    scorer = Scorer(DygraphEngine(parts.network), parts.pair_encoder, batch_size)
    return scorer.logits(scorer.encode([pair.query for pair in pairs], [pair.title for pair in pairs]))


def _figures(queries: list[str], labels: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    from paddle_ranker.metrics.measures import HEADLINES, evaluate_ranking

    measured = evaluate_ranking(queries, labels, logits)
    return {name: measured[name] for name in HEADLINES if name in measured}


def _table(names: list[str], figures: list[dict[str, float]]) -> list[str]:
    width = max(map(len, names))
    columns = list(figures[0])
    lines = [f"{'':{width}}  " + "  ".join(f"{column:>8}" for column in columns)]
    for name, values in zip(names, figures):
        lines.append(f"{name:{width}}  " + "  ".join(f"{values[column]:8.4f}" for column in columns))
    return lines


def _blended_info(parts: RankerParts, facts: dict[str, Any], results: dict[str, Any]) -> Any:
    import dataclasses

    return dataclasses.replace(
        parts.info,
        lexical_features=True,
        calibration=None,  # it was of other logits; a blend's are those of a logistic regression
        training={**parts.info.training, "blend": facts},
        results=results,
    )


def run(options: BlendOptions) -> None:
    """Blend, and print what was measured."""
    runtime.prepare_command(options.cpu_threads)
    print(*blend(options), sep="\n")


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; return its exit status."""
    return run_command(run, BlendOptions, argv, description=__doc__ or "")
