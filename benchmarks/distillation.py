"""Measure the gain of a small ranker that learns from a large ranker's scores, on QBQTC.

python -m benchmarks.distillation
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.runs import Run
from benchmarks.mining import FoldsOptions, Recipe, SmallRankers, run_systems
from paddle_ranker.data.records import LabeledPair, read_records, write_records
from paddle_ranker.options import main_of, option

REFERENCE = "student_taught_mined"


@dataclass(frozen=True)
class DistillationOptions(FoldsOptions):
    """Options of `python -m benchmarks.distillation`."""

    teacher_layers: int = option(2, help="layers of the teacher", minimum=1)
    teacher_hidden_size: int = option(128, help="its width", minimum=8)
    teacher_learning_rate: float = option(5e-4, help="the maximum of its learning rate", above=0)
    teacher_options: str = option("--lexical_features=true", help="further options of its training, as one argument")
    label_loss: str = option("ranknet_bce", help="loss of the teacher, and of the student without a teacher")
    teacher_loss: str = option("teacher_mse", help="loss of the students that learn from the teacher")
    negatives: int = option(
        2,
        help="number of titles to mine for each positive; the teacher scores them, and they have no labels",
        minimum=1,
    )


class Distillation:
    """The rows of the table; each method trains a ranker in the folder of a fold, after making the files it lacks."""

    def __init__(self, options: DistillationOptions) -> None:
        self.options = options

    def teacher(self, rankers: SmallRankers) -> Run:
        """Train the large ranker on labels."""
        o = self.options
        more = (f"--loss={o.label_loss}", *o.teacher_options.split())
        recipe = Recipe(o.teacher_layers, o.teacher_hidden_size, o.teacher_learning_rate, o.epochs, more)
        return rankers.train("teacher", rankers.learn, recipe)

    def student(self, rankers: SmallRankers) -> Run:
        """Train the small ranker on the same labels."""
        return rankers.train("student", rankers.learn, self._recipe(self.options.label_loss))

    def student_longer(self, rankers: SmallRankers) -> Run:
        """Train the small ranker on the same labels for twice as many epochs, to measure the gain from more steps."""
        return rankers.train("student_longer", rankers.learn, self._recipe(self.options.label_loss, 2))

    def student_tenth(self, rankers: SmallRankers) -> Run:
        """Train the small ranker on the labels of a tenth of the queries, for about as many steps."""
        rows = read_records(rankers.learn, LabeledPair)
        queries = sorted({pair.query for pair in rows})
        few = set(random.Random(rankers.seed).sample(queries, max(len(queries) // 10, 1)))
        tenth = rankers.folder / "tenth.tsv"
        write_records(tenth, (pair for pair in rows if pair.query in few))
        return rankers.train("student_tenth", tenth, self._recipe(self.options.label_loss, 10))

    def student_taught(self, rankers: SmallRankers) -> Run:
        """Train the small ranker on the teacher's scores of the same pairs, without their labels."""
        taught = self._scored(rankers, "taught.tsv", str(rankers.learn))
        return rankers.train("student_taught", taught, self._recipe(self.options.teacher_loss))

    def student_taught_mined(self, rankers: SmallRankers) -> Run:
        """Train the small ranker on the teacher's scores of the same pairs and of mined pairs without labels."""
        from paddle_ranker.commands.mine import main as mine

        mined = rankers.file(
            "mined.tsv", mine, "--queries", str(rankers.learn), "--output_file", "{out}", "--format", "pairs",
            "--negatives", str(self.options.negatives), "--seed", str(rankers.seed),
            *self.options.mine_options.split(),
        )  # fmt: skip
        taught = self._scored(rankers, "taught_mined.tsv", str(mined))
        return rankers.train("student_taught_mined", taught, self._recipe(self.options.teacher_loss))

    def _recipe(self, loss: str, times: int = 1) -> Recipe:
        o = self.options
        return Recipe(o.layers, o.hidden_size, o.learning_rate, times * o.epochs, (f"--loss={loss}",))

    def _scored(self, rankers: SmallRankers, name: str, data: str) -> Path:
        from paddle_ranker.commands.distill import main as distill

        self.teacher(rankers)
        teacher, threads = str(rankers.ranker("teacher")), str(self.options.threads)
        return rankers.file(name, distill, teacher, data, "{out}", "--device", "cpu", "--cpu_threads", threads)


def run(options: DistillationOptions) -> None:
    """Print the measures of the teacher, of the student alone, and of the students that learn from the teacher."""
    rows = Distillation(options)
    systems = {
        name: getattr(rows, name)
        for name in ("teacher", "student", "student_longer", "student_tenth", "student_taught", REFERENCE)
    }
    head = (
        f"distillation: teacher {options.teacher_layers} x {options.teacher_hidden_size} "
        f"({options.teacher_options or 'plain'}), student {options.layers} x {options.hidden_size}"
    )
    run_systems(options, systems, REFERENCE, head)


main = main_of(run, DistillationOptions, (__doc__ or "").split("\n")[0], prog="benchmarks.distillation")


if __name__ == "__main__":
    raise SystemExit(main())
