"""Make training triples of graded pairs: each title against lower-graded titles of the same query.

paddle-ranker make-triples --input graded.tsv --output triples.tsv --dev_file dev.tsv
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Optional

from paddle_ranker.data.rows.records import LabeledPair, RecordFile, Triple, write_records
from paddle_ranker.errors import DataError, UsageError
from paddle_ranker.options import LabelOptions, main_of, note, option
from paddle_ranker.options.input_files import paths_of
from paddle_ranker.storage.atomic import check_writable
from paddle_ranker.storage.streams import output_free_for

DEV_SHARE = 0.1
_OPTIONAL = ("teacher_score", "position")
Groups = dict[str, list[LabeledPair]]


@dataclass(frozen=True)
class MakeTriplesOptions(LabelOptions):
    input_file: str = option(help="graded pairs: query, title, label", name="input", files=True)
    output_file: str = option(help="file to write the triples to: query, title, neg_title", name="output")
    per_positive: int = option(4, help="maximum number of triples in which a title is the better title", minimum=1)
    seed: int = option(1000, help="random seed of the lower-graded titles and of the held-out queries", minimum=0)
    dev_file: Optional[str] = option(None, help="file to write the graded pairs of held-out queries to (default: none)")
    dev_share: Optional[float] = option(
        None, help=f"share of the queries to hold out (default: {DEV_SHARE} with --dev_file)", above=0, below=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dev_share is not None and self.dev_file is None:
            raise UsageError("--dev_share needs --dev_file: where should the pairs of held-out queries go?")
        files = (*paths_of(self.input_file), self.output_file, self.dev_file)
        paths = [os.path.realpath(path) for path in files if path]
        if len(set(paths)) < len(paths):
            raise UsageError("--input, --output and --dev_file must be different files")


def group_by_query(pairs: Iterable[LabeledPair]) -> Groups:
    """Group pairs by query; queries and pairs keep the order of the file."""
    groups: Groups = {}
    for pair in pairs:
        groups.setdefault(pair.query, []).append(pair)
    return groups


def make_triples(pairs: Sequence[LabeledPair], per_positive: int, seed: int) -> Iterator[Triple]:
    """Yield up to `per_positive` triples for each title of a query; their negatives are titles with lower labels.

    Negatives are drawn without replacement. The draw depends only on the seed and on `pairs`, the pairs of one query.
    A title that occurs with two labels is never paired with itself. The teacher's logits in a triple are from the first
    row of each title.
    """
    # A string seeds Python's generator through SHA-512: the same everywhere, which hash() is not.
    generator = random.Random(f"{seed}\t{pairs[0].query}") if pairs else random.Random(seed)
    distinct: dict[tuple[str, float], LabeledPair] = {}
    for pair in pairs:
        distinct.setdefault((pair.title, pair.label), pair)
    for better in distinct.values():
        lower: dict[str, LabeledPair] = {}
        for pair in pairs:
            if pair.label < better.label and pair.title != better.title:
                lower.setdefault(pair.title, pair)
        for worse in generator.sample(list(lower.values()), min(per_positive, len(lower))):
            yield Triple(better.query, better.title, worse.title, better.teacher_score, worse.teacher_score)


def without_gaps(groups: Groups) -> tuple[Groups, set[str]]:
    """Empty the columns that are empty in some pairs; return the pairs, and the names of these columns."""
    pairs = [pair for group in groups.values() for pair in group]
    gaps = {name for name in _OPTIONAL if len({getattr(pair, name) is None for pair in pairs}) > 1}
    for name in gaps:
        emptied: dict[str, Any] = {name: None}
        groups = {query: [replace(pair, **emptied) for pair in group] for query, group in groups.items()}
    return groups, gaps


def hold_out(queries: Sequence[str], share: float, seed: int) -> set[str]:
    """Draw a share of the queries at random: at least one query, never all. Raises `DataError` for fewer than two."""
    if len(queries) < 2:
        raise DataError(f"{len(queries)} query: holding some out needs at least 2")
    count = min(max(round(share * len(queries)), 1), len(queries) - 1)
    return set(random.Random(seed).sample(sorted(queries), count))


def run(options: MakeTriplesOptions) -> None:
    """Read graded pairs, write triples (and the pairs of held-out queries), and print how many were written."""
    with output_free_for(options.output_file, options.dev_file):
        _run(options)


def _run(options: MakeTriplesOptions) -> None:
    check_writable(options.output_file, options.dev_file)
    graded = RecordFile(options.input_file, LabeledPair, options)
    groups, gaps = without_gaps(group_by_query(graded))
    if graded.skipped:
        print(f"{options.input_file}: {graded.report()}")
    held_out: set[str] = set()
    if options.dev_file is not None:
        held_out = hold_out(list(groups), options.dev_share or DEV_SHARE, options.seed)
    triples: list[Triple] = []
    used = 0
    for query, pairs in groups.items():
        if query not in held_out:
            before = len(triples)
            triples.extend(make_triples(pairs, options.per_positive, options.seed))
            used += len(triples) > before
    if not triples:
        raise DataError(f"{options.input_file}: no query has titles with different labels, so there are no triples")
    write_records(options.output_file, triples)
    _note_left_out(options, graded, gaps)
    print(f"wrote {len(triples):,} triples to {options.output_file} (queries: {used:,})")
    if used < len(groups) - len(held_out):
        print(
            f"queries without any triple, since all of their titles have one label: "
            f"{len(groups) - len(held_out) - used:,}"
        )
    if options.dev_file is not None:
        rows = write_records(
            options.dev_file, (pair for query in groups if query in held_out for pair in groups[query])
        )
        print(f"wrote {rows:,} graded pairs to {options.dev_file} (queries held out: {len(held_out):,})")


def _note_left_out(options: MakeTriplesOptions, graded: RecordFile[LabeledPair], gaps: set[str]) -> None:
    """Print a note that names the columns of the input that triples lack, and the commands that use such columns."""
    kept = {"query", "title", "label", "teacher_score"} - gaps
    lacking = graded.beside(*kept)
    if lacking:
        note(
            f"note: {options.output_file}: lacks {lacking} of {options.input_file}; triples hold a teacher's scores "
            "where every row has one, as paddle-ranker distill makes them; train-ce takes graded pairs as they are"
        )


main = main_of(run, MakeTriplesOptions, __doc__)
