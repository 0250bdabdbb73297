"""Compare rankers, score files and baselines on the same queries, with intervals and significance tests.

paddle-ranker compare checkpoint/best other/best bm25.trec --test dev.tsv --report report.html
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from paddle_ranker import runtime
from paddle_ranker.errors import DataError, UsageError, spelling_hint
from paddle_ranker.evaluation.measuring_options import BaselineOptions
from paddle_ranker.metrics.measures import FEWEST_PERMUTATIONS, MEASURES
from paddle_ranker.options import json_text, main_of, note, option, refuse_given
from paddle_ranker.options.input_files import require_file
from paddle_ranker.scoring.scoring_options import OF_MODEL

if TYPE_CHECKING:
    from paddle_ranker.evaluation.comparison import Comparison
    from paddle_ranker.evaluation.pairs import MeasuredPairs

PICTURES = (".png", ".svg", ".pdf")
_ONE = "one system only: name another to compare it with, or leave --baselines on"


def _is_system(argument: str) -> bool:
    """Return whether `argument` names a system to compare; if not, it is one more file of the option before it."""
    if not os.path.isfile(argument):
        return os.path.exists(argument) or bool(_named(argument)[0])
    from paddle_ranker.evaluation.score_files import has_scores
    from paddle_ranker.evaluation.systems import is_model

    return is_model(argument) or has_scores(argument)


@dataclass(frozen=True)
class CompareOptions(BaselineOptions):
    systems: tuple[str, ...] = option(
        help="systems to compare: model folders, TREC runs, files with a score a row (jsonl, tsv); name=PATH names one",
        positional=True,
        several=True,
        claims=_is_system,
    )
    reference: str = option("first", help="system with which the others are compared: first, best, or a name")
    measure: str = option(
        "ndcg@10", help="measure for the best system, for wins and losses, and for the pictures", choices=MEASURES
    )
    permutations: int = option(10_000, help="number of draws of a randomisation test", minimum=FEWEST_PERMUTATIONS)
    report: Optional[str] = option(None, help="write a report that opens offline: one .html file")
    plot: Optional[str] = option(None, help="write a plot of the intervals and differences: .png, .svg or .pdf")
    per_query: Optional[str] = option(None, help="write every query's win or loss: .tsv, .jsonl or .parquet")

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.systems) == 1 and not self.baselines:
            raise UsageError(_ONE)
        if self.plot is not None and not self.plot.lower().endswith(PICTURES):
            raise UsageError(f"--plot {self.plot}: a picture's name ends in {', '.join(PICTURES)}")


def run(options: CompareOptions) -> None:
    """Score, measure and compare the systems; print the table and write the requested files."""
    from paddle_ranker.data.rows.trec import is_run, read_run
    from paddle_ranker.evaluation.comparison import compare_systems
    from paddle_ranker.evaluation.systems import baseline_systems, is_model, named_systems, read_measured_pairs
    from paddle_ranker.model.model_folder import RANKER, identify
    from paddle_ranker.model.paddlenlp_names import published_models
    from paddle_ranker.model.pretrained import find_model
    from paddle_ranker.storage.atomic import check_writable
    from paddle_ranker.storage.streams import output_free_for

    named = {name: str(find_model(path)) for name, path in name_systems(options.systems).items()}
    for system in named.values():  # before the first of them is scored
        hint = "" if Path(system).exists() else spelling_hint(system, published_models())
        if hint:
            raise DataError(f"{system}: no such file, and no such model{hint}")
        require_file(system)
        if is_model(system):
            identify(Path(system)).require(RANKER)
    has_model = any(map(is_model, named.values()))
    if not has_model:
        refuse_given(options, OF_MODEL, "is about how a ranker scores: compare a ranker, or leave it out")
    check_writable(options.report, options.plot, options.per_query)
    runs = {
        path: read_run(path, skip_bad_rows=options.skip_bad_rows).run
        for path in named.values()
        if options.qrels is not None and not is_model(path) and is_run(path)
    }
    pairs = read_measured_pairs(options, runs)
    if has_model:
        runtime.prepare_command(options.cpu_threads)
    systems, notes = named_systems(named, options, pairs)
    if options.baselines:
        baselines, baseline_notes = baseline_systems(pairs, options)
        systems, notes = systems + baselines, notes + baseline_notes
    if len(systems) < 2:
        raise UsageError(_ONE)
    comparison = compare_systems(
        pairs,
        systems,
        reference=None if options.reference == "first" else options.reference,
        measure=options.measure,
        ties=options.ties,
        resamples=options.resamples,
        permutations=options.permutations,
        seed=options.seed,
    )
    pairs.notes.extend(notes)
    measure = options.measure if options.measure in comparison.measures else comparison.measures[0]
    # The files come first: a reader of the output, such as `head`, may close it early.
    _write_files(options, comparison, measure)
    with output_free_for(options.report, options.plot, options.per_query):
        _print(options, pairs, comparison, measure)


def _print(options: CompareOptions, pairs: MeasuredPairs, comparison: Comparison, measure: str) -> None:
    from paddle_ranker.evaluation.report.text import comparison_json, systems_table, verdicts
    from paddle_ranker.evaluation.systems import messages

    for line in pairs.notes:
        note(line)
    if options.format == "json":
        print(json_text(comparison_json(comparison), indent=2))
    else:
        counts = comparison.counts
        print(f"{pairs.source}: {counts['pairs']:,} judged pairs of {counts['queries']:,} queries")
        print("\n".join([*verdicts(comparison, measure), *systems_table(comparison)]))
    for path in (options.per_query, options.plot, options.report):
        if path is not None:
            print(path, file=messages(options))


def _write_files(options: CompareOptions, comparison: Comparison, measure: str) -> None:
    from paddle_ranker.evaluation.report.comparison_page import write_report
    from paddle_ranker.evaluation.report.per_query import write_per_query
    from paddle_ranker.evaluation.report.plots import write_plot
    from paddle_ranker.evaluation.systems import data_facts

    if options.per_query is not None:
        write_per_query(options.per_query, comparison, by_query_measure(comparison, measure))
    if options.plot is not None:
        write_plot(options.plot, comparison, measure)
    if options.report is not None:
        write_report(options.report, comparison, measure, data_facts(options))


def by_query_measure(comparison: Comparison, measure: str) -> str:
    """Return `measure` if it has values per query, else nDCG@10; AUC, for example, has no values per query.

    Raises `UsageError` if no measure has values per query, because each query has only one title.
    """
    by_query = comparison.by_query[comparison.reference]
    if measure in by_query:
        return measure
    if not by_query:
        raise UsageError("--per_query: each query has one title, so no measure has values by query")
    return "ndcg@10"


def name_systems(arguments: Sequence[str]) -> dict[str, str]:
    """Return a dict from each system's name to its path.

    In `name=PATH`, the name is given. Otherwise the name is the last part of the path or, if two paths end alike, the
    part in which the paths differ. Raises `UsageError` if two systems have the same name or the same path.
    """
    from paddle_ranker.commands.curve import names_of

    names: list[Optional[str]] = []
    paths = []
    for argument in arguments:
        name, path = _named(argument)
        names.append(name)
        paths.append(path)
    unnamed = [path for path, name in zip(paths, names) if name is None]
    for path in unnamed:
        if unnamed.count(path) > 1:
            raise UsageError(f"{path} is named twice: name different systems")
    last = [os.path.basename(os.path.abspath(path)) for path in unnamed]
    short = iter(last if len(set(last)) == len(last) else names_of([Path(path) for path in unnamed]))
    path_of: dict[str, str] = {}
    for chosen, path in zip(names, paths):
        name = chosen or next(short)
        if name in path_of:
            raise UsageError(f"two systems are named {name}: give them different names, as in mine={path}")
        path_of[name] = path
    return path_of


def _named(argument: str) -> tuple[Optional[str], str]:
    """Split `name=PATH` into name and path; the name is None if `argument` is a path alone."""
    name, separator, path = argument.partition("=")
    is_named = bool(separator and name and path) and os.sep not in name and not os.path.exists(argument)
    return (name, path) if is_named else (None, argument)


main = main_of(run, CompareOptions, __doc__)
