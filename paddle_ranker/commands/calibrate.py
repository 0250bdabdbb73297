"""Make a ranker's scores probabilities that can be believed: `python -m paddle_ranker calibrate RANKER DEV_FILE`."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from paddle_ranker import runtime
from paddle_ranker.errors import CheckpointError, DataError, RankerError, UsageError
from paddle_ranker.options import option, run_command
from paddle_ranker.scoring.options import RankerOptions

if TYPE_CHECKING:
    from paddle_ranker.metrics.calibration import Calibration
    from paddle_ranker.metrics.intervals import Interval
    from paddle_ranker.metrics.ranking import Floats
    from paddle_ranker.model.folder import RankerParts

LEAST_QUERIES, LEAST_PAIRS = 10, 10  # pairs of either class
FEW_QUERIES = 100
DEFAULT_METHOD = "platt"


@dataclass(frozen=True)
class CalibrateOptions(RankerOptions):
    """Options of `calibrate`."""

    ranker: str = option(positional=True, help="the ranker: a model folder, or its model_state.pdparams")
    dev_file: Optional[str] = option(
        None, positional=True, help="labelled pairs that it was not trained on: query, title, label (not with --remove)"
    )
    method: Optional[str] = option(
        None,
        help="temperature: the logit is scaled; platt: scaled and shifted, which a ranker needs whose training only "
        f"compared titles (default: {DEFAULT_METHOD})",
        choices=("platt", "temperature"),
    )
    output: Optional[str] = option(None, help="new folder for the calibrated ranker (default: RANKER's own is changed)")
    remove: bool = option(False, help="take a calibration away instead")
    folds: int = option(5, help="folds of queries for the figures out of fold", minimum=2)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.remove and (self.dev_file or self.method):
            raise UsageError("--remove takes a calibration away: leave out DEV_FILE and --method, or --remove")
        if not self.remove and not self.dev_file:
            raise UsageError("DEV_FILE is required: labelled pairs (query, title, label); --remove does without")


def calibrate(options: CalibrateOptions) -> None:
    """Fit, print the figures before and after, and store the calibration in the ranker's folder or a new one."""
    runtime.prepare_command(options.cpu_threads)
    from paddle_ranker.model.folder import load_ranker

    if options.output and (Path(options.output).exists() or Path(options.output).is_symlink()):
        raise RankerError(f"{options.output}: is there already; choose another --output, or remove it")
    runtime.select_device(options.device)
    parts = load_ranker(
        options.ranker,
        model_name=options.model_name_or_path,
        max_seq_length=options.max_seq_length,
        tokenizer=options.tokenizer,
    )
    if options.remove:
        if parts.info.calibration is None:
            print(f"{options.ranker}: has no calibration")
            if not options.output:
                return
        print(f"uncalibrated: {store(options, parts, None)}")
        return
    calibration = fit_and_tell(options, parts)
    print(f"calibrated: {store(options, parts, calibration)}")


def fit_and_tell(options: CalibrateOptions, parts: RankerParts) -> Calibration:
    """Score the dev file without any calibration, fit one, and print what it changes.

    Raises `DataError` for a file of one class, one with too few queries or pairs, and what `calibration.fit` refuses.
    """
    from paddle_ranker.encoding.windows import make_windows
    from paddle_ranker.evaluation.evaluate import EvaluationSet
    from paddle_ranker.metrics import calibration as fitting
    from paddle_ranker.metrics.ranking import RELEVANT
    from paddle_ranker.scoring.engines.dygraph import DygraphEngine
    from paddle_ranker.scoring.files import say_truncated, scored_with
    from paddle_ranker.storage.digest import content_digest

    assert options.dev_file is not None
    pair_encoder = parts.pair_encoder
    windows = make_windows(
        pair_encoder.max_seq_length, options.windows, options.window_overlap, options.window_top_k
    )  # fmt: skip
    dev = EvaluationSet(
        options.dev_file, pair_encoder, options.batch_size, skip_bad_rows=options.skip_bad_rows, windows=windows
    )
    relevant, queries = int((dev.labels >= RELEVANT).sum()), len(set(dev.queries))
    print(f"{options.dev_file}: {dev.report} pairs of {queries:,} queries, {relevant:,} relevant")
    _require_enough(options.dev_file, queries, relevant, len(dev.labels) - relevant)
    logits = dev.logits(DygraphEngine(parts.network))
    say_truncated(pair_encoder, windows)

    method = options.method or DEFAULT_METHOD
    other = next(name for name in fitting.METHODS if name != method)
    rows = {"as_trained": logits}
    try:
        fitted = fitting.fit(method, dev.labels, logits)
        rows["fitted"] = fitted.apply(logits)
        rows["out_of_fold"] = fitting.fit_out_of_fold(method, dev.queries, dev.labels, logits, options.folds)
    except DataError as error:
        raise DataError(f"{options.dev_file}: {error}") from error
    figures: dict[str, Any] = {name: fitting.calibration_figures(dev.labels, row) for name, row in rows.items()}
    try:
        rows[other] = fitting.fit_out_of_fold(other, dev.queries, dev.labels, logits, options.folds)
        figures[other] = fitting.calibration_figures(dev.labels, rows[other])
    except DataError:
        pass  # the method that was not asked for need not fit
    change = _change(dev.queries, dev.labels, rows["out_of_fold"], logits)
    _print_figures(figures, method, other, options.folds)
    _print_evidence(change, queries)
    if other in rows and _change(dev.queries, dev.labels, rows[other], rows["out_of_fold"]).high < 0:
        print(f"--method {other} does better on these pairs, and the difference is established")
    print(f"{method}: probability = {fitted}")
    return dataclasses.replace(
        fitted,
        fitted_on={
            "file": Path(options.dev_file).name,
            "digest": content_digest(options.dev_file),
            "pairs": len(dev.labels),
            "queries": queries,
            "relevant": relevant,
            "scored": scored_with(pair_encoder, windows),
        },
        figures={**{name: figures[name] for name in ("as_trained", "fitted", "out_of_fold")}, "folds": options.folds},
    )


def _require_enough(path: str, queries: int, relevant: int, others: int) -> None:
    if queries < LEAST_QUERIES or min(relevant, others) < LEAST_PAIRS:
        raise DataError(
            f"{path}: {queries:,} queries with {relevant:,} relevant and {others:,} other pairs are too few to "
            f"calibrate on: give at least {LEAST_QUERIES} queries and {LEAST_PAIRS} pairs of each class"
        )


def _change(queries: Sequence[str], labels: Floats, logits: Floats, baseline: Floats) -> Interval:
    """Return the change of the mean cross-entropy from `baseline` to `logits`, with its interval over queries."""
    import numpy as np

    from paddle_ranker.metrics.calibration import cross_entropies
    from paddle_ranker.metrics.intervals import bootstrap_interval, ratio_of
    from paddle_ranker.metrics.ranking import add_by_query, number_queries

    numbers = number_queries(queries)
    count = int(numbers.max()) + 1
    gaps = cross_entropies(labels, logits) - cross_entropies(labels, baseline)
    per_query = add_by_query(numbers, gaps, count), add_by_query(numbers, np.ones(len(gaps)), count)
    return bootstrap_interval(ratio_of(*per_query), count)


def _print_figures(figures: dict[str, Any], method: str, other: str, folds: int) -> None:
    names = {
        "as_trained": "as trained",
        "fitted": f"{method}, on the pairs it was fitted to",
        "out_of_fold": f"{method}, out of fold ({folds} folds of queries)",
        other: f"{other}, out of fold",
    }
    width = max(map(len, names.values()))
    print(f"{'':{width}}  calibration error   Brier score   cross-entropy")
    for name, row in figures.items():
        error, brier, entropy = row["calibration_error"], row["brier"], row["cross_entropy"]
        print(f"{names[name]:{width}}  {error:17.4f}   {brier:11.4f}   {entropy:13.4f}")
    print("(expected calibration error: 15 bins of equal width over the probability of relevance)")


def _print_evidence(change: Interval, queries: int) -> None:
    interval = f"{change.estimate:+.4f} [{change.low:+.4f}, {change.high:+.4f}] (95% over queries)"
    print(f"cross-entropy out of fold, less that as trained: {interval}")
    if change.high >= 0:
        print("warning: an improvement is not established: more labelled queries would tell", file=sys.stderr)
    elif queries < FEW_QUERIES:
        print(f"warning: {queries:,} queries are few: the figures would move with others", file=sys.stderr)


def store(options: CalibrateOptions, parts: RankerParts, calibration: Optional[Calibration]) -> Path:
    """Write the ranker's facts with `calibration` into its folder, or all of it into `options.output`; return which.

    Raises `CheckpointError` where the folder to be changed has no `ranker.json`, `RankerError` where the new one is
    there already.
    """
    from paddle_ranker.model.folder import INFO_FILE, RankerInfo, save_ranker
    from paddle_ranker.storage.atomic import UNFINISHED, make_folder, new_folder

    source = Path(options.ranker)
    folder = source.parent if source.is_file() else source
    own = RankerInfo.read(folder)
    info = dataclasses.replace(own or parts.info, calibration=calibration)
    if options.output:
        target = Path(options.output)
        make_folder(target.parent)
        with new_folder(target) as temporary:
            if own is None:  # a checkpoint of the published scripts: in our own form
                save_ranker(temporary, parts.network, parts.pair_encoder, info)
            else:
                shutil.copytree(folder, temporary, dirs_exist_ok=True, ignore=shutil.ignore_patterns(f"{UNFINISHED}*"))
                info.write(temporary, parts.network.config)
        return target
    if own is None:
        raise CheckpointError(
            f"{folder}: has no {INFO_FILE} to store a calibration in; make a new folder with --output"
        )
    info.write(folder, parts.network.config)
    return folder


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; return its exit status."""
    return run_command(calibrate, CalibrateOptions, argv, description=(__doc__ or "").split(":")[0] + ".")
