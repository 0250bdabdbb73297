"""Measure the effect of each part of a ranker's recipe, from scratch or from pretrained weights, over seeds and folds.

python -m benchmarks.ablation --model nothing --seeds 1,2,3 --scores_dir FOLDER

Every row of the table shows one change to the training: the measures with and without the change, on the same folds of
queries and with the same seeds, and their paired difference with its 95% bootstrap interval over queries.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.quality import SHOWN, compare, print_comparison
from benchmarks.harness.report import format_table
from benchmarks.inputs import chosen
from benchmarks.pretrained import LINEAR, FoldRunOptions, Systems
from paddle_ranker import runtime
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
    changes: str = option(",".join(CHANGES), help=f"comma-separated: {', '.join(CHANGES)}")


def run(options: AblationOptions) -> None:
    changes = [CHANGES[name] for name in chosen("changes", options.changes, list(CHANGES))]
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
    header, rows = ["change", *(SHOWN[measure] for measure in measured[reference])], []
    for change in changes:
        two = [systems[change.with_it], systems[change.without]]
        found = compare(queries, labels, two, change.with_it, resamples=options.resamples)[change.without]
        rows.append([change.what, *(f"{one.difference:+.3f}" for one in found.values())])
    print("", format_table(header, rows), sep="\n")


main = main_of(run, AblationOptions, (__doc__ or "").split("\n")[0], prog="benchmarks.ablation")


if __name__ == "__main__":
    raise SystemExit(main())
