"""Measure the gain of a small ranker that learns from a large ranker's scores, on QBQTC.

python -m benchmarks.distillation
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.runs import Run
from benchmarks.mining import FoldsOptions, Recipe, SmallRankers, run_systems
from paddle_ranker.data.rows.records import LabeledPair, read_records, write_records
from paddle_ranker.options import main_of, option

REFERENCE = "student_taught_mined"
LABELS, TEACHER = "ranknet_bce", "teacher_mse"  # losses of rankers that learn from labels, and from the teacher
MINED = 2  # titles to mine for each positive; the teacher scores them, and they have no labels


@dataclass(frozen=True)
class DistillationOptions(FoldsOptions):
    teacher_layers: int = option(2, help="layers of the teacher", minimum=1)
    teacher_hidden_size: int = option(128, help="its width", minimum=8)


class Distillation:
    """The rows of the table; each method trains a ranker in the folder of a fold, after making the files it lacks."""

    def __init__(self, options: DistillationOptions) -> None:
        self.options = options

    def teacher(self, rankers: SmallRankers) -> Run:
        """Train the large ranker on labels."""
        o = self.options
        more = (f"--loss={LABELS}", "--lexical_features=true")
        recipe = Recipe(o.teacher_layers, o.teacher_hidden_size, 5e-4, o.epochs, more)
        return rankers.train("teacher", rankers.learn, recipe)

    def student(self, rankers: SmallRankers) -> Run:
        """Train the small ranker on the same labels."""
        return rankers.train("student", rankers.learn, self._recipe(LABELS))

    def student_tenth(self, rankers: SmallRankers) -> Run:
        """Train the small ranker on the labels of a tenth of the queries, for about as many steps."""
        rows = read_records(rankers.learn, LabeledPair)
        queries = sorted({pair.query for pair in rows})
        few = set(random.Random(rankers.seed).sample(queries, max(len(queries) // 10, 1)))
        tenth = rankers.folder / "tenth.tsv"
        write_records(tenth, (pair for pair in rows if pair.query in few))
        return rankers.train("student_tenth", tenth, self._recipe(LABELS, 10))

    def student_taught(self, rankers: SmallRankers) -> Run:
        """Train the small ranker on the teacher's scores of the same pairs, without their labels."""
        taught = self._scored(rankers, "taught.tsv", str(rankers.learn))
        return rankers.train("student_taught", taught, self._recipe(TEACHER))

    def student_taught_mined(self, rankers: SmallRankers) -> Run:
        """Train the small ranker on the teacher's scores of the same pairs and of mined pairs without labels."""
        from paddle_ranker.commands.mine import main as mine

        mined = rankers.file(
            "mined.tsv", mine, "--queries", str(rankers.learn), "--output_file", "{out}", "--format", "pairs",
            "--negatives", str(MINED), "--seed", str(rankers.seed),
            *self.options.mine_options.split(),
        )  # fmt: skip
        taught = self._scored(rankers, "taught_mined.tsv", str(mined))
        return rankers.train("student_taught_mined", taught, self._recipe(TEACHER))

    def _recipe(self, loss: str, times: int = 1) -> Recipe:
        o = self.options
        return Recipe(o.layers, o.hidden_size, 1e-3, times * o.epochs, (f"--loss={loss}",))

    def _scored(self, rankers: SmallRankers, name: str, data: str) -> Path:
        from paddle_ranker.commands.distill import main as distill

        self.teacher(rankers)
        teacher, threads = str(rankers.ranker("teacher")), str(self.options.threads)
        return rankers.file(name, distill, teacher, data, "{out}", "--device", "cpu", "--cpu_threads", threads)


def run(options: DistillationOptions) -> None:
    """Print the measures of the teacher, of the student alone, and of the students that learn from the teacher."""
    rows = Distillation(options)
    systems = {
        name: getattr(rows, name) for name in ("teacher", "student", "student_tenth", "student_taught", REFERENCE)
    }
    head = (
        f"distillation: teacher {options.teacher_layers} x {options.teacher_hidden_size}, with lexical features; "
        f"student {options.layers} x {options.hidden_size}"
    )
    run_systems(options, systems, REFERENCE, head)


main = main_of(run, DistillationOptions, (__doc__ or "").split("\n")[0], prog="benchmarks.distillation")


if __name__ == "__main__":
    raise SystemExit(main())
