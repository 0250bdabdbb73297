"""Measure whether a ranker learns more from mined negatives than from random ones, on QBQTC.

python -m benchmarks.mining
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from benchmarks.harness.runs import Run
from benchmarks.small_rankers import FoldsOptions, Harness, Recipe, run_systems
from paddle_ranker.data.records import LabeledPair, read_records, write_records
from paddle_ranker.metrics.ranking import RELEVANT
from paddle_ranker.options import option, run_command

REFERENCE = "mined"


@dataclass(frozen=True)
class MiningOptions(FoldsOptions):
    """Options of `python -m benchmarks.mining`."""

    negatives: int = option(2, help="negatives of each positive", minimum=1)
    loss: str = option("ranknet_bce", help="loss of all rankers")
    guard: str = option("--max_score_ratio=0.95", help="options of mine that mined_again has beside its ranker")


class Mining:
    """The rows of the table: one ranker, the same positives, and negatives from different places."""

    def __init__(self, options: MiningOptions) -> None:
        self.options = options

    def random(self, harness: Harness) -> Run:
        """Titles at random."""
        return self._train("random", harness, self._mine("random", harness, "--method", "random"))

    def mined(self, harness: Harness) -> Run:
        """Titles that BM25 ranks from 1 to 50."""
        return self._train("mined", harness, self._mine("mined", harness))

    def mined_top(self, harness: Harness) -> Run:
        """The titles that BM25 ranks best."""
        return self._train("mined_top", harness, self._mine("mined_top", harness, "--sample", "top"))

    def mined_again(self, harness: Harness) -> Run:
        """Titles of a ranker's order, guarded by its scores; the ranker is that of `mined`."""
        self.mined(harness)
        ranker = str(harness.ranker("mined"))
        scoring = ("--ranker", ranker, "--device", "cpu", "--cpu_threads", str(self.options.threads))
        file = self._mine("mined_again", harness, *scoring, *self.options.guard.split())
        return self._train("mined_again", harness, file)

    def judged(self, harness: Harness) -> Run:
        """The titles that people judged irrelevant: what mining stands in for."""
        return self._train("judged", harness, harness.learn)

    def _mine(self, name: str, harness: Harness, *arguments: str) -> Path:
        from paddle_ranker.commands.mine import main as mine

        positives = harness.folder / "positives.tsv"
        pairs = read_records(harness.learn, LabeledPair)
        write_records(positives, (pair for pair in pairs if pair.label >= RELEVANT))
        return harness.file(
            f"{name}.tsv", mine, "--queries", str(positives), "--corpus", str(harness.learn), "--output_file", "{out}",
            "--format", "pairs", "--negatives", str(self.options.negatives), "--seed", str(harness.seed),
            *self.options.mine_options.split(), *arguments,
        )  # fmt: skip

    def _train(self, name: str, harness: Harness, file: Path) -> Run:
        o = self.options
        return harness.train(
            name, file, Recipe(o.layers, o.hidden_size, o.learning_rate, o.epochs, (f"--loss={o.loss}",))
        )


def run(options: MiningOptions) -> None:
    """Print the measures of rankers that differ in their negatives alone."""
    rows = Mining(options)
    names = ("random", REFERENCE, "mined_top", "mined_again", "judged")
    head = f"mining: ranker {options.layers} x {options.hidden_size}, {options.negatives} negatives of each positive"
    run_systems(options, {name: getattr(rows, name) for name in names}, REFERENCE, head)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; return its exit status."""
    return run_command(run, MiningOptions, argv, (__doc__ or "").split("\n")[0], prog="benchmarks.mining")


if __name__ == "__main__":
    raise SystemExit(main())
