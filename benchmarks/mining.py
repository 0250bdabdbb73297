"""Measure whether a ranker learns more from mined negatives than from random ones, on QBQTC.

python -m benchmarks.mining
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.harness.quality import print_comparison
from benchmarks.harness.runs import (
    Harness,
    QualityOptions,
    Run,
    Split,
    score_file,
    small_starter,
    train_cross_encoder,
)
from benchmarks.inputs import chosen
from paddle_ranker.data.rows.records import LabeledPair, read_records, write_records
from paddle_ranker.errors import RankerError
from paddle_ranker.metrics.ranking import RELEVANT
from paddle_ranker.options import main_of, option

REFERENCE = "mined"


@dataclass(frozen=True)
class FoldsOptions(QualityOptions):
    """Options shared with `benchmarks.distillation`."""

    folds: int = option(
        3,
        help="number of folds of QBQTC's train queries; each fold is measured by runs that have not seen it",
        minimum=2,
    )
    systems: str = option("all", help="comma-separated rows of the table")
    layers: int = option(1, help="layers of the measured ranker (the student)", minimum=1)
    hidden_size: int = option(64, help="its width", minimum=8)
    epochs: int = option(2, help="epochs", minimum=1)
    max_seq_length: int = option(64, help="longest pair in tokens", minimum=16)
    max_steps: int = option(0, help="maximum number of steps per training; 0: all steps of the epochs", minimum=0)
    mine_options: str = option("", help="further options of every mining except the random one, as one argument")


@dataclass(frozen=True)
class Recipe:
    """The shape of an encoder with random weights, and its training; `more` are further options of train_ce.py."""

    layers: int
    hidden_size: int
    learning_rate: float
    epochs: int
    more: tuple[str, ...] = ()


class SmallRankers:
    """Folder with the files and small rankers of a split and seed; each is made once, on first use."""

    def __init__(self, folder: Path, split: Split, held_out: Sequence[LabeledPair], options: FoldsOptions, seed: int):
        self.folder, self.seed, self._options = folder, seed, options
        self.learn, self.held_out = folder / "learn.tsv", folder / "held_out.tsv"
        write_records(self.learn, split.pairs)
        write_records(self.held_out, held_out)
        self._runs: dict[str, Run] = {}

    def train(self, name: str, file: Path, recipe: Recipe) -> Run:
        """Train the ranker `name` on `file`; return its last checkpoint's logits of held-out pairs, and the seconds.

        Its word-piece vocabulary is trained on the texts of the split's training pairs.
        """
        if name not in self._runs:
            self._runs[name] = self._train(name, file, recipe)
        return self._runs[name]

    def _train(self, name: str, file: Path, recipe: Recipe) -> Run:
        length, target = self._options.max_seq_length, self.folder / f"{name}_starter"
        starter = small_starter(self.learn, target, recipe.layers, recipe.hidden_size, length, self.seed)
        values = {
            "max_seq_length": length,
            "learning_rate": recipe.learning_rate,
            "epochs": recipe.epochs,
            "max_steps": self._options.max_steps,
            "seed": self.seed,
            "skip_bad_rows": "true",
            "new_parts_factor": 1,
            "weight_decay": 0.01,
        }
        seconds = train_cross_encoder(file, self.held_out, starter, self.folder / name, values, *recipe.more)
        return score_file(self.ranker(name), self.held_out), seconds

    def ranker(self, name: str) -> Path:
        return self.folder / name / "last"

    def file(self, name: str, command: Callable[[Sequence[str]], int], *arguments: str) -> Path:
        """Return the path of the file `name`, made by `command` on first use; `{out}` in its arguments is the path.

        Raises `RankerError` if the command fails.
        """
        path = self.folder / name
        if not path.exists() and command([argument.replace("{out}", str(path)) for argument in arguments]):
            raise RankerError(f"{name} could not be made: see above")
        return path


def run_systems(
    options: FoldsOptions, systems: Mapping[str, Callable[[SmallRankers], Run]], reference: str, head: str
) -> None:
    """Train every system on every fold and seed, and print a table with the differences from `reference`.

    `head` is printed above the table.
    """
    names = chosen("systems", options.systems, list(systems), reference)
    seeds = options.begin()
    harness = Harness(options, "qbqtc", "cv", options.folds)
    made: dict[tuple[str, int], SmallRankers] = {}
    with tempfile.TemporaryDirectory() as work:

        def train(name: str, split: Split, seed: int) -> Run:
            if (split.name, seed) not in made:  # a system may use the files of another system
                folder = Path(work) / str(len(made))
                folder.mkdir()
                made[split.name, seed] = SmallRankers(folder, split, harness.of(split), options, seed)
            return systems[name](made[split.name, seed])

        facts = {**options.facts(), "benchmark": head}
        done = [harness.run(name, seeds, {**facts, "system": name}, partial(train, name)) for name in names]
    count = len(set(harness.queries))
    head += f"; measured on {len(harness.measured):,} pairs of {count:,} queries, each by runs that have not seen it"
    print_comparison(options, harness.queries, harness.labels, done, reference, head)


@dataclass(frozen=True)
class MiningOptions(FoldsOptions):
    negatives: int = option(2, help="number of negatives per positive", minimum=1)
    guard: str = option("--max_score_ratio=0.95", help="options of mine for mined_again, besides its ranker")


class Mining:
    """The rows of the table; each method trains the same ranker on the same positives, with different negatives."""

    def __init__(self, options: MiningOptions) -> None:
        self.options = options

    def random(self, rankers: SmallRankers) -> Run:
        """Train with random titles as negatives."""
        return self._train("random", rankers, self._mine("random", rankers, "--method", "random"))

    def mined(self, rankers: SmallRankers) -> Run:
        """Train with titles that BM25 ranks from 1 to 50 as negatives."""
        return self._train("mined", rankers, self._mine("mined", rankers))

    def mined_top(self, rankers: SmallRankers) -> Run:
        """Train with the titles that BM25 ranks best as negatives."""
        return self._train("mined_top", rankers, self._mine("mined_top", rankers, "--sample", "top"))

    def mined_again(self, rankers: SmallRankers) -> Run:
        """Train with negatives mined with the ranker of `mined`; options of `guard` exclude titles with high scores."""
        self.mined(rankers)
        ranker = str(rankers.ranker("mined"))
        scoring = ("--ranker", ranker, "--device", "cpu", "--cpu_threads", str(self.options.threads))
        file = self._mine("mined_again", rankers, *scoring, *self.options.guard.split())
        return self._train("mined_again", rankers, file)

    def judged(self, rankers: SmallRankers) -> Run:
        """Train with titles that people judged irrelevant as negatives; mined negatives are their substitute."""
        return self._train("judged", rankers, rankers.learn)

    def _mine(self, name: str, rankers: SmallRankers, *arguments: str) -> Path:
        from paddle_ranker.commands.mine import main as mine

        positives = rankers.folder / "positives.tsv"
        pairs = read_records(rankers.learn, LabeledPair)
        write_records(positives, (pair for pair in pairs if pair.label >= RELEVANT))
        return rankers.file(
            f"{name}.tsv", mine, "--queries", str(positives), "--corpus", str(rankers.learn), "--output_file", "{out}",
            "--format", "pairs", "--negatives", str(self.options.negatives), "--seed", str(rankers.seed),
            *(() if name == "random" else self.options.mine_options.split()), *arguments,
        )  # fmt: skip

    def _train(self, name: str, rankers: SmallRankers, file: Path) -> Run:
        o = self.options
        recipe = Recipe(o.layers, o.hidden_size, 1e-3, o.epochs, ("--loss=ranknet_bce",))
        return rankers.train(name, file, recipe)


def run(options: MiningOptions) -> None:
    rows = Mining(options)
    names = ("random", REFERENCE, "mined_top", "mined_again", "judged")
    head = f"mining: ranker {options.layers} x {options.hidden_size}, {options.negatives} negatives of each positive"
    run_systems(options, {name: getattr(rows, name) for name in names}, REFERENCE, head)


main = main_of(run, MiningOptions, (__doc__ or "").split("\n")[0], prog="benchmarks.mining")


if __name__ == "__main__":
    raise SystemExit(main())
