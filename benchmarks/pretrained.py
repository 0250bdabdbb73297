"""Measure rankers that start from pretrained weights, beside sentence-transformers' CrossEncoder from the same weights.

python -m benchmarks.pretrained --model FOLDER --protocol cv --seeds 1,2,3 --peer_python PATH --scores_dir FOLDER

The weights are m3e-small's (`python -m benchmarks.convert_real` fetches them), converted for this toolkit and as they
are for the peer. Ours train through `cross_encoder/train_ce.py`; the peer in a process of `--peer_python`, which has
sentence-transformers. All train on the same rows of the same folds. A run takes minutes to tens of them: with
`--scores_dir` a stopped benchmark goes on where it was.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from benchmarks.fold_runs import SYSTEMS, FoldRunOptions, Harness, parse_systems
from benchmarks.harness.figures import write_report
from benchmarks.harness.quality import print_comparison, report
from benchmarks.inputs import parse_numbers
from paddle_ranker import runtime
from paddle_ranker.errors import UsageError
from paddle_ranker.options import option, run_command


@dataclass(frozen=True)
class PretrainedOptions(FoldRunOptions):
    """Options of `python -m benchmarks.pretrained`."""

    systems: str = option(
        "bm25_words,features,peer_2_epochs,plain_2_epochs,match_ranknet_lexical",
        help=f"comma-separated: {', '.join(SYSTEMS)}",
    )
    reference: Optional[str] = option(None, help="system the others are compared to (default: the last)")


def run(options: PretrainedOptions) -> None:
    """Print the table of all systems."""
    names = parse_systems(options.systems)
    reference = options.reference or names[-1]
    if reference not in names:
        raise UsageError(f"--reference {reference}: is not among the systems {', '.join(names)}")
    seeds = parse_numbers(options.seeds, "seeds")
    runtime.prepare_command(options.threads)
    runtime.select_device("cpu")
    with tempfile.TemporaryDirectory() as work:
        harness = Harness(options, Path(work))
        systems = [harness.run(name, seeds) for name in names]
    queries, labels = [pair.query for pair in harness.measured], [pair.label for pair in harness.measured]
    head = f"{options.data}, {options.protocol}: {len(queries):,} pairs of {len(set(queries)):,} queries"
    figures = print_comparison(options, queries, labels, systems, reference, head)
    write_report(options.json, report(options, systems, figures, [], pairs=len(queries), reference=reference))


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; return its exit status."""
    return run_command(run, PretrainedOptions, argv, (__doc__ or "").split("\n")[0], prog="benchmarks.pretrained")


if __name__ == "__main__":
    raise SystemExit(main())
