"""Calibrate a ranker: make its scores probabilities.

paddle-ranker calibrate checkpoint/best dev.tsv --output calibrated
paddle-ranker calibrate checkpoint/best dev.tsv --index index      # for the documents that a search finds
"""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from paddle_ranker import runtime
from paddle_ranker.data.rows.records import LabeledPair
from paddle_ranker.encoding.pair_encoder import PairEncoder, shortest
from paddle_ranker.encoding.window_options import WINDOWS
from paddle_ranker.errors import CheckpointError, DataError, RankerError, UsageError
from paddle_ranker.metrics.ranking import RELEVANT
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.pretrained import find_model
from paddle_ranker.options import LabelOptions, given_of, main_of, option, refuse_given
from paddle_ranker.options.declare import FETCHED, FETCHED_FOLDER, shown_name
from paddle_ranker.options.input_files import base_names
from paddle_ranker.retrieval.stages.search_options import MilvusOptions
from paddle_ranker.retrieval.values.search_defaults import RANK_TOP
from paddle_ranker.scoring.scoring_options import RankerOptions
from paddle_ranker.storage.digest import content_digest
from paddle_ranker.training.mining import QUERIES_AT_ONCE, group_judgments, text_key

if TYPE_CHECKING:
    from paddle_ranker.array_types import Booleans, Floats
    from paddle_ranker.metrics.calibration import Calibration
    from paddle_ranker.metrics.calibration_fitting import JudgedCalibration
    from paddle_ranker.model.model_folder import TrainedRanker

LEAST_QUERIES, LEAST_PAIRS = 10, 10  # minimum queries; minimum pairs of each class
DEFAULT_METHOD = "platt"
# Fit to this many documents of each search, those that people may look at. A fit to all documents is one to the many
# irrelevant ones, and makes the probabilities of the first ten too low.
_READ = 20


@dataclass(frozen=True)
class CalibrateOptions(LabelOptions, RankerOptions, MilvusOptions):
    ranker: str = option(
        positional=True, help="the ranker: a model folder, or its model_state.pdparams", addresses=FETCHED_FOLDER
    )
    dev_file: Optional[str] = option(
        None,
        positional=True,
        files=True,
        either=True,
        help="labelled pairs that the ranker was not trained on: query, title, label (not with --remove)",
    )
    method: Optional[str] = option(
        None,
        help="temperature: scale the logit; platt: scale and shift it, as a ranker needs whose training only compared "
        f"titles (default: {DEFAULT_METHOD})",
        choices=("platt", "temperature"),
    )
    output: Optional[str] = option(None, help="new folder for the calibrated ranker (default: change RANKER in place)")
    remove: bool = option(False, help="remove the calibration instead", either=True)
    index: Optional[str] = option(
        None,
        help="calibrate for searches of this index folder: on what is found there for the file's queries",
        addresses=FETCHED,
    )
    unjudged: Optional[str] = option(
        None,
        help="documents that --index finds and that have no label: irrelevant (default), or left_out, for a file that "
        "labels few of a query's answers",
        choices=("irrelevant", "left_out"),
    )
    rank_top: Optional[int] = option(
        None, help=f"documents of each query that --index finds (default: {RANK_TOP}, as in searches)", minimum=1
    )
    folds: int = option(5, help="cross-validation folds of queries for the measures out of fold", minimum=2)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.remove:
            names = ("dev_file", "method", "folds", "index", "unjudged", "rank_top", *WINDOWS)
            for field in given_of(self, names):
                raise UsageError(f"--remove takes a calibration away: leave out {shown_name(field)}, or --remove")
        if self.index is None:
            refuse_given(
                self, ("unjudged", "rank_top", "milvus_uri"), "is about an index: add --index, or leave it out"
            )
        if not self.remove and not self.dev_file:
            raise UsageError("DEV_FILE is required: labelled pairs (query, title, label); only --remove works without")

    def look_up(self) -> None:
        find_model(self.ranker)


def calibrate(options: CalibrateOptions) -> None:
    """Fit a calibration, print its effect on the measures, and store it in the ranker's folder or a new folder."""
    runtime.prepare_command(options.cpu_threads)
    from paddle_ranker.model.model_folder import TRAINED_RANKER, load_model

    if options.output and (Path(options.output).exists() or Path(options.output).is_symlink()):
        raise RankerError(f"{options.output}: is there already; choose another --output, or remove it")
    runtime.select_device(options.device)
    parts = load_model(options.ranker, TRAINED_RANKER, LoadOptions.of(options))
    if not options.remove:
        print(f"calibrated: {store(options, parts, fit_to_file(options, parts))}")
        return
    if parts.info.calibration is None:
        print(f"{options.ranker}: has no calibration")
        if not options.output:
            return
    print(f"uncalibrated: {store(options, parts, None)}")


def fit_to_file(options: CalibrateOptions, parts: TrainedRanker) -> Calibration:
    """Score the dev file without calibration, fit a calibration, and print the measures before and after.

    Raises `DataError` if the file has labels of only one class, or too few queries or pairs, or if `fit_and_judge`
    raises it.
    """
    import numpy as np

    from paddle_ranker.encoding.windows import make_windows
    from paddle_ranker.evaluation.evaluation_set import EvaluationSet
    from paddle_ranker.metrics.calibration import FEW_QUERIES, SearchScores
    from paddle_ranker.metrics.calibration_fitting import figures_of, fit_and_judge
    from paddle_ranker.scoring.engines.dygraph import DygraphEngine
    from paddle_ranker.scoring.files import scored_with

    assert options.dev_file is not None
    encoder = parts.row_encoder
    shape = encoder.max_seq_length, options.windows, options.window_overlap, options.window_top_k
    windows = make_windows(*shape, encoder.members[0].template)
    searches = None if options.index is None else SearchedPairs(options, shortest(encoder) if windows is None else None)
    dev = EvaluationSet(options.dev_file, encoder, options.batch_size, rules=options, windows=windows, convert=searches)
    if searches is not None:
        print(searches.report)
    scored = dev.logits(DygraphEngine(parts.network))
    kept = np.ones(len(scored), bool)
    if searches is not None:
        kept = best_of_each(dev.queries, scored, _READ)
        kept &= np.array(searches.has_label) | (options.unjudged != "left_out")
    queries_of_pairs, labels, logits = (
        [query for query, is_kept in zip(dev.queries, kept) if is_kept],
        dev.labels[kept],
        scored[kept],
    )
    relevant, queries = int((labels >= RELEVANT).sum()), len(set(queries_of_pairs))
    of = dev.report if searches is None else f"the best {_READ} of each query: {len(queries_of_pairs):,}"
    print(f"{options.dev_file}: {of} pairs of {queries:,} queries, {relevant:,} relevant")
    _require_enough(options.dev_file, queries, relevant, len(labels) - relevant)
    method = options.method or DEFAULT_METHOD
    try:
        judged = fit_and_judge(method, queries_of_pairs, labels, logits, options.folds)
    except DataError as error:
        raise DataError(f"{options.dev_file}: {error}") from error
    _print_judged(judged, method, options.folds)
    if queries < FEW_QUERIES:
        _advise(options, queries)
    elif judged.change.high >= 0:
        print("warning: an improvement is not established: more labelled queries would tell", file=sys.stderr)
    fitted_on = {
        "file": base_names(options.dev_file),
        "digest": content_digest(options.dev_file),
        "pairs": len(labels),
        "queries": queries,
        "relevant": relevant,
        **({} if searches is None else {"index": Path(str(options.index)).resolve().name}),
        "scored": scored_with(encoder, windows),
    }
    calibration = dataclasses.replace(
        judged.calibration, fitted_on=fitted_on, figures=figures_of(judged, options.folds)
    )
    if searches is None:
        return calibration
    return dataclasses.replace(
        calibration, searched=SearchScores.of(dev.queries, calibration.apply(scored), searches.top)
    )


def best_of_each(queries: Sequence[str], logits: Floats, count: int) -> Booleans:
    """Return, for each pair, whether its logit is among the `count` highest of its query, `[n] bool`."""
    import numpy as np

    from paddle_ranker.metrics.ranking import number_queries

    numbers = number_queries(queries)
    order = np.lexsort((-logits, numbers))
    firsts = np.searchsorted(numbers[order], numbers[order])  # where each pair's query begins
    kept = np.zeros(len(order), bool)
    kept[order[np.arange(len(order)) - firsts < count]] = True
    return kept


class SearchedPairs:
    """Pairs that a search with a ranker would rank: the queries of labelled pairs with the documents found for each.

    If the title of a labelled pair equals a document's text, or its title and text, the document has the pair's label.
    Otherwise its label is 0.

    Args:
        reader: encoder that limits how much of a document is read; None: whole documents are read.

    Attributes:
        top: maximum number of documents of each query.
        has_label: for each pair, whether the file has a label for it.
        report: text that states the number of pairs.
    """

    def __init__(self, options: CalibrateOptions, reader: Optional[PairEncoder]):
        from paddle_ranker.retrieval.stages.search import SearchSettings
        from paddle_ranker.retrieval.stages.search_engine import SearchEngine

        assert options.index is not None
        self._folder, self._reader, self.top = options.index, reader, options.rank_top or RANK_TOP
        load = LoadOptions(device=options.device, threads=options.cpu_threads)
        settings = SearchSettings(milvus_uri=options.milvus_uri)
        self._engine = SearchEngine.open(options.index, settings, options=load, batch_size=options.batch_size)
        self.has_label, self.report = list[bool](), ""

    def __call__(self, records: Sequence[LabeledPair]) -> list[LabeledPair]:
        judged, pairs = group_judgments(records), list[LabeledPair]()
        schema = self._engine.collection.info.schema
        for start in range(0, len(judged), QUERIES_AT_ONCE):
            part = judged[start : start + QUERIES_AT_ONCE]
            for judged_query, search in zip(part, self._engine.run([query.query for query in part], self.top)):
                labels = dict[str, float]()
                for pair in judged_query.pairs:
                    key = text_key(pair.title)
                    labels[key] = max(labels.get(key, 0.0), pair.label)
                documents = [*search.page.documents.values()]
                for document, (_, read) in zip(documents, search.ranking.read(documents, self._reader)):
                    keys = (text_key(document.text), text_key(schema.model_text(document)))
                    label = next((labels[key] for key in keys if key in labels), None)
                    self.has_label.append(label is not None)
                    pairs.append(LabeledPair(judged_query.query, read, label or 0.0))
        documents_found = f"{len(pairs):,} documents found for {len(judged):,} queries"
        self.report = f"{self._folder}: {documents_found}, {sum(self.has_label):,} of them with a label"
        return pairs


def _require_enough(path: str, queries: int, relevant: int, others: int) -> None:
    if queries < LEAST_QUERIES or min(relevant, others) < LEAST_PAIRS:
        raise DataError(
            f"{path}: {queries:,} queries with {relevant:,} relevant and {others:,} other pairs are too few to "
            f"calibrate on: give at least {LEAST_QUERIES} queries and {LEAST_PAIRS} pairs of each class"
        )


def _print_judged(judged: JudgedCalibration, method: str, folds: int) -> None:
    shown = {
        "as_trained": "as trained",
        "fitted": f"{method}, on the pairs it was fitted to",
        "out_of_fold": f"{method}, out of fold ({folds} folds of queries)",
    }
    names = {name: shown.get(name, f"{name}, out of fold") for name in judged.measures}
    width = max(map(len, [*shown.values(), *names.values()]))
    print(f"{'':{width}}  calibration error   Brier score   cross-entropy")
    for name, row in judged.measures.items():
        error, brier, entropy = row["calibration_error"], row["brier"], row["cross_entropy"]
        print(f"{names[name]:{width}}  {error:17.4f}   {brier:11.4f}   {entropy:13.4f}")
    print("(expected calibration error: 15 bins of equal width over the probability of relevance)")
    print(f"calibration error out of fold: {judged.error:.4f} (95% over queries; that of other queries may be as high)")
    print(f"cross-entropy out of fold, less that as trained: {judged.change:+.4f} (95% over queries)")
    if judged.better:
        print(f"--method {judged.better} does better on these pairs, and the difference is established")
    print(f"{method}: probability = {judged.calibration}")


def _advise(options: CalibrateOptions, queries: int) -> None:
    """Print the advice not to use a calibration that was fitted to few queries."""
    from paddle_ranker.metrics.calibration import FEW_QUERIES

    back = "" if options.output else f" (paddle-ranker calibrate {options.ranker} --remove)"
    print(
        f"advice: leave the ranker as trained{back}: {queries:,} queries are too few to tell whether this calibration "
        f"helps on others; calibrate on {FEW_QUERIES} or more",
        file=sys.stderr,
    )


def store(options: CalibrateOptions, parts: TrainedRanker, calibration: Optional[Calibration]) -> Path:
    """Save the calibration in the ranker's folder; with `options.output`, save a calibrated copy of the ranker there.

    Returns the folder that has the calibration. With `calibration` None, the calibration is removed. Raises
    `CheckpointError` if the ranker's folder has no `ranker.json`, and `RankerError` if `options.output` exists.
    """
    from paddle_ranker.model.info import INFO_FILE, RankerInfo
    from paddle_ranker.model.ranker_folder import save_ranker
    from paddle_ranker.storage.atomic import UNFINISHED, make_folder, new_folder

    source = find_model(options.ranker)
    folder = source.parent if source.is_file() else source
    stored_info = RankerInfo.read(folder)
    info = dataclasses.replace(stored_info or parts.info, calibration=calibration)
    if options.output:
        target = Path(options.output)
        make_folder(target.parent)
        with new_folder(target) as temporary:
            if stored_info is None:  # Checkpoints of the published scripts are rewritten in the form of this toolkit.
                save_ranker(temporary, parts.network, parts.row_encoder.members[0], info)
            else:
                shutil.copytree(folder, temporary, dirs_exist_ok=True, ignore=shutil.ignore_patterns(f"{UNFINISHED}*"))
                info.write(temporary, parts.network.config)
        return target
    if stored_info is None:
        raise CheckpointError(
            f"{folder}: has no {INFO_FILE} to store a calibration in; make a new folder with --output"
        )
    info.write(folder, parts.network.config)
    return folder


main = main_of(calibrate, CalibrateOptions, __doc__)
