"""Write a large ranker's scores into training data, for a small one to learn from."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Optional

import numpy as np
from tqdm import tqdm

from paddle_ranker.data.formats import check_writable
from paddle_ranker.data.records import LabeledPair, Pair, Record, RecordFile, Triple, write_records
from paddle_ranker.errors import UsageError
from paddle_ranker.metrics.calibration import sigmoid
from paddle_ranker.options import option, run_command
from paddle_ranker.scoring.options import ScoringOptions
from paddle_ranker.training.mining import JUDGED_KINDS, open_as_one_of
from paddle_ranker.training.teachers import Teachers, split_paths

ROWS_AT_ONCE = 8192


@dataclass(frozen=True)
class DistillOptions(ScoringOptions):
    teacher: str = option(
        help=f"the trained ranker, a model folder; of several, {os.pathsep!r} between them, the mean of their logits",
        positional=True,
    )
    data_file: str = option(
        help=f"triples, labelled pairs, or pairs without labels; of several files, {os.pathsep!r} between them, one "
        "after the other",
        positional=True,
    )
    output_file: str = option(help="file to write: the rows with the teacher's logits", positional=True)
    relevant_from: float = option(
        0.5, help="pairs without a label get 1 from this probability of the teacher on, else 0", minimum=0, maximum=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if os.path.realpath(self.output_file) in map(os.path.realpath, split_paths(self.data_file)):
            raise UsageError("OUTPUT_FILE must be another file than DATA_FILE")


class Scoring:
    """Add the teacher's logits to records, and count what was seen on the way."""

    def __init__(self, teachers: Teachers, relevant_from: float) -> None:
        self._teachers, self._relevant_from = teachers, relevant_from
        self.triples = self.ordered = self.unlabelled = self.relevant = 0

    def add(self, records: Sequence[Record]) -> Iterator[Record]:
        """Yield the records with the teacher's logits: labelled pairs, or triples; those they had are replaced."""
        queries, titles = [], []
        for record in records:
            for title in _titles(record):
                queries.append(record.query)  # type: ignore[attr-defined]
                titles.append(title)
        logits = iter(_single(self._teachers.logits(queries, titles)))
        for record in records:
            if isinstance(record, Triple):
                own, other = next(logits), next(logits)
                self.triples += 1
                self.ordered += own > other
                yield replace(record, teacher_score=own, neg_teacher_score=other)
            elif isinstance(record, LabeledPair):
                yield replace(record, teacher_score=next(logits))
            elif isinstance(record, Pair):
                logit = next(logits)
                is_relevant = bool(sigmoid(logit) >= self._relevant_from)
                self.unlabelled += 1
                self.relevant += is_relevant
                yield LabeledPair(record.query, record.title, float(is_relevant), logit)

    def report(self) -> str:
        """Return lines on how the teacher agrees with the triples, and how many labels are its own."""
        lines = []
        if self.triples:
            lines.append(f"the teacher orders {self.ordered / self.triples:.1%} of the triples as they are")
        if self.unlabelled:
            lines.append(
                f"{self.unlabelled:,} pairs had no label: {self.relevant:,} got 1, the others 0, by the teacher's "
                f"probability ({self._relevant_from:g} and above)"
            )
        return "\n".join(lines)


def _titles(record: Record) -> tuple[str, ...]:
    if isinstance(record, Triple):
        return record.title, record.neg_title
    return (record.title,)  # type: ignore[attr-defined]


def _single(logits: Iterable[float]) -> list[float]:
    """Return the logits with the digits that single precision has: what a ranker computes, and shorter files."""
    return [float(str(np.float32(logit))) for logit in logits]


def open_data(options: DistillOptions) -> list[RecordFile[Record]]:
    """Return the data files; raises `UsageError` where some hold triples and others pairs."""
    sources = [
        open_as_one_of(path, JUDGED_KINDS, skip_bad_rows=options.skip_bad_rows)
        for path in split_paths(options.data_file)
    ]
    if len({source.kind is Triple for source in sources}) > 1:
        kinds = "; ".join(f"{source.path}: {source.kind.role}" for source in sources)
        raise UsageError(f"triples and pairs do not go into one file ({kinds}): score them one by one")
    return sources


def run(options: DistillOptions) -> None:
    """Score, write, and say what was written."""
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
    teachers.say_truncated()
    if scoring.report():
        print(scoring.report())
    what, loss = ("triples", "margin_mse") if scoring.triples else ("labelled pairs", "teacher_mse")
    command = "ernie_matching/train_pairwise.py" if scoring.triples else "cross_encoder/train_ce.py"
    by = "1 teacher" if len(teachers) == 1 else f"{len(teachers)} teachers, the mean of their logits"
    print(
        f"wrote {count:,} {what} with the scores of {by} to {options.output_file}; {command} --loss {loss} learns them"
    )


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command `distill`."""
    return run_command(run, DistillOptions, argv, description=__doc__ or "")


if __name__ == "__main__":
    raise SystemExit(main())
