"""Measure the effect of each part of a ranker's recipe, from scratch or from pretrained weights, over seeds and folds.

python -m benchmarks.ablation --model nothing --seeds 1,2,3 --scores_dir FOLDER

Every row of the table shows one change to the training: the measures with and without the change, on the same folds of
queries and with the same seeds, and their paired difference with its 95% bootstrap interval over queries.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.quality import SHOWN, compare, print_comparison, report
from benchmarks.harness.report import format_table, write_report
from benchmarks.pretrained import LINEAR, FoldRunOptions, Systems
from paddle_ranker import runtime
from paddle_ranker.errors import UsageError
from paddle_ranker.options import main_of, option


@dataclass(frozen=True)
class Change:
    """A row of the ablation: two systems of `benchmarks.pretrained` that differ in one option."""

    what: str
    with_it: str
    without: str


_BLEND = "ranker_and_linear"
CHANGES = {
    "match": Change("match embeddings", "match", "plain"),
    "whole_queries": Change("cross-entropy + RankNet, whole queries a batch", "match_ranknet", "match"),
    "lexical": Change("lexical features at the head", "match_lexical", "match"),
    "both": Change("match embeddings and lexical features", "match_lexical", "plain"),
    "blend": Change("averaged with the linear model", _BLEND, "match"),
    "linear": Change("features at the head against the linear model alone", "match_lexical", LINEAR),
    "blend_linear": Change("the average against the linear model alone", _BLEND, LINEAR),
    "features": Change("the average against 24 features + logistic regression", _BLEND, "features"),
}


@dataclass(frozen=True)
class AblationOptions(FoldRunOptions):
    """Options of `python -m benchmarks.ablation`."""

    changes: str = option(",".join(CHANGES), help=f"comma-separated: {', '.join(CHANGES)}")


def run(options: AblationOptions) -> None:
    """Print the table of the systems, then the table of the changes."""
    chosen = options.changes.split(",")
    for name in chosen:
        if name not in CHANGES:
            raise UsageError(f"--changes {name}: choose from {', '.join(CHANGES)}")
    changes = [CHANGES[name] for name in chosen]
    seeds = options.begin()
    runtime.select_device("cpu")
    names = dict.fromkeys(name for change in changes for name in (change.without, change.with_it))
    with tempfile.TemporaryDirectory() as work:
        rows_of = Systems(options, Path(work))
        systems = {name: rows_of.run(name, seeds) for name in names}
    queries, labels = rows_of.harness.queries, rows_of.harness.labels

    head = (f"{options.data}, {options.protocol}, from {Path(options.model).name}: {len(queries):,} pairs of "
            f"{len(set(queries)):,} queries")  # fmt: skip
    reference = changes[-1].with_it
    measured = print_comparison(options, queries, labels, list(systems.values()), reference, head)
    measures = list(measured[reference])
    header, rows, facts = ["change", *(SHOWN.get(measure, measure) for measure in measures)], [], []
    for change in changes:
        two = [systems[change.with_it], systems[change.without]]
        found = compare(queries, labels, two, change.with_it, resamples=options.resamples)[change.without]
        gaps = [found[measure].difference for measure in measures]
        rows.append([change.what, *(f"{gap:+.3f}" for gap in gaps if gap)])
        facts.append({"change": change.what, "with": change.with_it, "without": change.without,
                      **{m: [gap.estimate, gap.low, gap.high] for m, gap in zip(measures, gaps) if gap}})  # fmt: skip
    print("", format_table(header, rows), sep="\n")
    more = {"pairs": len(queries), "reference": reference, "changes": facts}
    write_report(options.json, report(options, list(systems.values()), measured, [], **more))


main = main_of(run, AblationOptions, (__doc__ or "").split("\n")[0], prog="benchmarks.ablation")


if __name__ == "__main__":
    raise SystemExit(main())
