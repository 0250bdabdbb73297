"""What a file says about queries: which titles answer them, and which are no news; files of several roles are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Optional

from paddle_ranker.data.records import LabeledPair, Pair, Record, RecordFile, Text, TitleRow, Triple
from paddle_ranker.errors import DataError
from paddle_ranker.lexical.tokens import letters, normalise

JUDGED_KINDS: tuple[type[Record], ...] = (LabeledPair, Triple, Pair)
TITLE_KINDS: tuple[type[Record], ...] = (Triple, LabeledPair, TitleRow, Text)


def text_key(text: str) -> str:
    """Return what two texts share that are the same to a reader: letters and digits, full-width and case folded."""
    return letters(text) or normalise(text).strip()


@dataclass
class JudgedQuery:
    """A query, its judged titles as they stand in the file, and the keys of those that are not certainly negative."""

    query: str
    pairs: list[LabeledPair] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)  # of all judged titles
    answers: set[str] = field(default_factory=set)  # of the titles graded above 0

    def add(self, pair: LabeledPair) -> None:
        """Add a judged title."""
        self.pairs.append(pair)
        self.keys.add(text_key(pair.title))
        if pair.label > 0:
            self.answers.add(text_key(pair.title))

    def positives(self, least: float) -> list[LabeledPair]:
        """Return the distinct pairs graded `least` or above, in order; of one text the first."""
        found: dict[str, LabeledPair] = {}
        for pair in self.pairs:
            if pair.label >= least:
                found.setdefault(text_key(pair.title), pair)
        return list(found.values())


def open_as_one_of(path: str, kinds: Sequence[type[Record]], *, skip_bad_rows: bool = False) -> RecordFile[Record]:
    """Return the file as the first of `kinds` that its first row can be; raises `DataError` where there is none."""
    problem: Optional[DataError] = None
    for kind in kinds:
        source: RecordFile[Record] = RecordFile(path, kind, skip_bad_rows=skip_bad_rows)
        try:
            next(iter(source))
        except DataError as error:
            problem = error
        else:
            return source
    assert problem is not None
    raise problem


def judged_pairs(records: Iterable[Record]) -> Iterator[LabeledPair]:
    """Yield labelled pairs of labelled pairs, of triples (1 and 0), or of pairs, which all count as 1."""
    for record in records:
        if isinstance(record, LabeledPair):
            yield LabeledPair(record.query, record.title, record.label)
        elif isinstance(record, Triple):
            yield LabeledPair(record.query, record.title, 1.0)
            yield LabeledPair(record.query, record.neg_title, 0.0)
        elif isinstance(record, Pair):
            yield LabeledPair(record.query, record.title, 1.0)


def group_judgments(pairs: Iterable[LabeledPair]) -> list[JudgedQuery]:
    """Return the queries in the order in which they first occur; spellings of one `text_key` are one query."""
    groups: dict[str, JudgedQuery] = {}
    for pair in pairs:
        groups.setdefault(text_key(pair.query), JudgedQuery(pair.query)).add(pair)
    return list(groups.values())


def titles_of(records: Iterable[Record]) -> Iterator[str]:
    """Yield every title (or text) of records of any kind."""
    for record in records:
        for name in ("title", "neg_title", "text"):
            title = getattr(record, name, None)
            if title is not None:
                yield title
