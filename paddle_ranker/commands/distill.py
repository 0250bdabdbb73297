"""Write a large ranker's scores into training data, for a small one to learn from.

paddle-ranker distill checkpoint/best mine.tsv scored.tsv
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Optional

from tqdm import tqdm

from paddle_ranker.data.records import Record, RecordFile, Triple, write_records
from paddle_ranker.errors import UsageError
from paddle_ranker.options import LabelOptions, option, run_command
from paddle_ranker.options.files import paths_of
from paddle_ranker.scoring.options import ScoringOptions
from paddle_ranker.storage.atomic import check_writable
from paddle_ranker.storage.streams import output_free_for
from paddle_ranker.training.mining import JUDGED_KINDS, open_as_one_of
from paddle_ranker.training.teachers import Scoring, Teachers

ROWS_AT_ONCE = 8192


@dataclass(frozen=True)
class DistillOptions(LabelOptions, ScoringOptions):
    teacher: str = option(
        help=f"the trained ranker, a model folder; of several, {os.pathsep!r} between them, the mean of their logits",
        positional=True,
    )
    data_file: str = option(
        help=f"triples, labelled pairs, or pairs without labels; of several files, {os.pathsep!r} between them, one "
        "after the other",
        positional=True,
        files=True,
    )
    output_file: str = option(help="file to write: the rows with the teacher's logits", positional=True)
    relevant_from: float = option(
        0.5, help="pairs without a label get 1 from this probability of the teacher on, else 0", minimum=0, maximum=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if os.path.realpath(self.output_file) in map(os.path.realpath, paths_of(self.data_file)):
            raise UsageError("OUTPUT_FILE must be another file than DATA_FILE")


def open_data(options: DistillOptions) -> list[RecordFile[Record]]:
    """Return the data files; raises `UsageError` if some hold triples and others pairs."""
    sources = [open_as_one_of(path, JUDGED_KINDS, options) for path in paths_of(options.data_file)]
    if len({source.kind is Triple for source in sources}) > 1:
        kinds = "; ".join(f"{source.path}: {source.kind.role}" for source in sources)
        raise UsageError(f"triples and pairs do not go into one file ({kinds}): score them one by one")
    return sources


def run(options: DistillOptions) -> None:
    """Score, write, and print what was written."""
    with output_free_for(options.output_file):
        _run(options)


def _run(options: DistillOptions) -> None:
    check_writable(options.output_file)
    sources = open_data(options)
    teachers = Teachers(options.teacher, options)
    scoring = Scoring(teachers, options.relevant_from)

    def rows(progress: tqdm[None]) -> Iterator[Record]:
        from paddle_ranker.scoring.scorer import chunks

        for source in sources:
            for part in chunks(source, ROWS_AT_ONCE):
                yield from scoring.add(part)
                progress.update(len(part))

    with tqdm(desc="score", unit="row", disable=None) as progress:
        count = write_records(options.output_file, rows(progress))
    for source in sources:
        print(f"{source.path}: {source.report()} {source.kind.role}")
    teachers.report_truncated()
    if scoring.report():
        print(scoring.report())
    what, loss = ("triples", "margin_mse") if scoring.triples else ("labelled pairs", "teacher_mse")
    command = "train-pairwise" if scoring.triples else "train-ce"
    by = "1 teacher" if len(teachers) == 1 else f"{len(teachers)} teachers, the mean of their logits"
    print(
        f"wrote {count:,} {what} with the scores of {by} to {options.output_file}; "
        f"paddle-ranker {command} --loss {loss} learns them"
    )


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command `distill`."""
    return run_command(run, DistillOptions, argv, description=__doc__ or "")


if __name__ == "__main__":
    raise SystemExit(main())
