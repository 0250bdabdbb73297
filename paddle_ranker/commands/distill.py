"""Write a large ranker's scores into training data, for a small one to learn from.

paddle-ranker distill checkpoint/best mine.tsv scored.tsv
paddle-ranker distill --teacher_url http://127.0.0.1:8600/rerank mine.tsv scored.tsv
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Optional

from paddle_ranker.data.rows.records import LabeledPair, Pair, Record, RecordFile, Triple, open_as_one_of, write_records
from paddle_ranker.errors import UsageError, brief
from paddle_ranker.options import LabelOptions, main_of, note, option, refuse_given
from paddle_ranker.options.declare import FETCHED_FOLDER, fields_of
from paddle_ranker.options.input_files import paths_of
from paddle_ranker.progress import Progress
from paddle_ranker.scoring.scoring_options import ScoringOptions
from paddle_ranker.serving.clients.teacher_options import TeacherOptions
from paddle_ranker.storage.atomic import check_writable
from paddle_ranker.storage.streams import output_free_for
from paddle_ranker.training.mining import JUDGED_KINDS
from paddle_ranker.training.teachers import Scoring, Teacher, Teachers

ROWS_AT_ONCE = 8192
_KEPT = ("query", "title", "neg_title", "label", "teacher_score", "neg_teacher_score")  # or replaced, in the output


@dataclass(frozen=True)
class DistillOptions(TeacherOptions, LabelOptions, ScoringOptions):
    teacher: Optional[str] = option(
        None,
        help=f"the trained ranker, its folder or name; of several, {os.pathsep!r} between them, the mean of their "
        "logits; none with --teacher_url",
        positional=True,
        addresses=FETCHED_FOLDER,
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
        if (self.teacher is None) == (self.teacher_url is None):
            teachers = "no teacher" if self.teacher is None else f"{brief(self.teacher or '')} and --teacher_url"
            raise UsageError(
                f"{teachers}: give TEACHER DATA_FILE OUTPUT_FILE, or --teacher_url URL DATA_FILE OUTPUT_FILE (of "
                f"several data files, {os.pathsep} between them)"
            )
        if self.teacher_url is not None:
            _refuse_local(self)
        others = {"DATA_FILE": paths_of(self.data_file), "--teacher_answers": filter(None, [self.teacher_answers])}
        for name, paths in others.items():
            if os.path.realpath(self.output_file) in map(os.path.realpath, paths):
                raise UsageError(f"OUTPUT_FILE must be another file than {name}")


def _refuse_local(options: DistillOptions) -> None:
    """Raise `UsageError` if an option about a model folder is given: with `--teacher_url`, it would have no effect."""
    of_rows = {field.name for field in fields_of(LabelOptions)}
    of_folders = (field.name for field in fields_of(ScoringOptions) if field.name not in of_rows)
    refuse_given(options, of_folders, "is about a model folder; with --teacher_url the server decides that")


def open_data(options: DistillOptions) -> list[RecordFile[Record]]:
    """Open the data files; raises `UsageError` if some files hold triples and other files hold pairs."""
    sources = [open_as_one_of(path, JUDGED_KINDS, options) for path in paths_of(options.data_file)]
    if len({source.kind is Triple for source in sources}) > 1:
        kinds = "; ".join(f"{source.path}: {source.kind.role}" for source in sources)
        raise UsageError(f"triples and pairs do not go into one file ({kinds}): score them one by one")
    return sources


def run(options: DistillOptions) -> None:
    """Score the records with the teacher, write them with the logits, and print the counts and the path."""
    with output_free_for(options.output_file):
        _run(options)


@contextmanager
def _open_teacher(options: DistillOptions) -> Iterator[Teacher]:
    if options.teacher is not None:
        yield Teachers(options.teacher, options)
        return
    from paddle_ranker.serving.clients.teacher import HttpTeacher

    with HttpTeacher(options) as teacher:
        yield teacher


def _run(options: DistillOptions) -> None:
    check_writable(options.output_file)
    sources = open_data(options)
    if not any(source.kind is Pair for source in sources):
        why = f"makes labels of pairs that have none, and {options.data_file} has none"
        refuse_given(options, ["relevant_from"], why)
    with _open_teacher(options) as teacher:
        scoring = Scoring(teacher, options.relevant_from)
        count = _score(scoring, sources, options)
        for source in sources:
            print(f"{source.path}: {source.report()} {source.kind.role}")
            lacking = source.beside(*_KEPT, *(("position",) if _have_positions(sources) else ()))
            if lacking:
                note(f"note: {options.output_file}: lacks {lacking} of {source.path}; join them by query and title")
        teacher.report()
    if scoring.report():
        print(scoring.report())
    what, loss = ("triples", "margin_mse") if scoring.triples else ("labelled pairs", "teacher_mse")
    command = "train-pairwise" if scoring.triples else "train-ce"
    by = "1 teacher" if len(teacher) == 1 else f"{len(teacher)} teachers, the mean of their logits"
    print(
        f"wrote {count:,} {what} with the scores of {by} to {options.output_file}; "
        f"paddle-ranker {command} --loss {loss} learns them"
    )


def _have_positions(sources: Sequence[RecordFile[Record]]) -> bool:
    """Return whether all files hold labelled pairs with positions; the first row of each file must have been read."""
    return all(source.kind is LabeledPair and "position" in source.columns for source in sources)


def _score(scoring: Scoring, sources: Sequence[RecordFile[Record]], options: DistillOptions) -> int:
    """Write the records with the teacher's logits; return their number."""
    from paddle_ranker.storage.prefetch import chunks

    has_positions = _have_positions(sources)
    # A teacher over HTTP shows its own progress, pair by pair.
    with Progress(desc="score", unit="row", disable=options.teacher_url is not None) as progress:

        def rows() -> Iterator[Record]:
            for source in sources:
                for part in chunks(source, ROWS_AT_ONCE):
                    for record in scoring.add(part):
                        if isinstance(record, LabeledPair) and not has_positions:
                            record = replace(record, position=None)
                        yield record
                    progress.update(len(part))

        return write_records(options.output_file, rows())


main = main_of(run, DistillOptions, __doc__)
