"""Roles of data files: the columns of each, by name and by position, and how a header is recognised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Optional

from paddle_ranker.data.formats import Row

COLUMNS = (
    "id", "query", "title", "neg_title", "label", "recall_score", "teacher_score", "neg_teacher_score", "text"
)  # fmt: skip
OTHER_NAMES = {"text_a": "query", "text_b": "title"}
NUMBERS = ("label", "recall_score", "teacher_score", "neg_teacher_score")


@dataclass(frozen=True)
class Record:
    """One row. `layouts` are the columns by position: those of a file without a header, one tuple for each width."""

    role: ClassVar[str]
    layouts: ClassVar[tuple[tuple[str, ...], ...]]


@dataclass(frozen=True)
class Triple(Record):
    """A query, a title that answers it, and one that answers it less; a teacher's logits of both, where it has them."""

    role = "training triples"
    layouts = (
        ("query", "title", "neg_title"),
        ("query", "title", "neg_title", "teacher_score", "neg_teacher_score"),
    )
    query: str
    title: str
    neg_title: str
    teacher_score: Optional[float] = None
    neg_teacher_score: Optional[float] = None


@dataclass(frozen=True)
class LabeledPair(Record):
    """A query, a title, and how relevant it is: 0 is not at all, higher is more; a teacher's logit, where it has it."""

    role = "labelled pairs"
    layouts = (("query", "title", "label"), ("query", "title", "label", "teacher_score"))
    query: str
    title: str
    label: float
    teacher_score: Optional[float] = None


@dataclass(frozen=True)
class Pair(Record):
    """A query and a title to score; the score of the recall stage is carried through."""

    role = "pairs to score"
    layouts = (("query", "title"), ("query", "title", "recall_score"))
    query: str
    title: str
    recall_score: Optional[float] = None


@dataclass(frozen=True)
class Text(Record):
    """One text of a corpus."""

    role = "texts"
    layouts = (("text",),)
    text: str


@dataclass(frozen=True)
class TitleRow(Record):
    """A title of a collection, with its number or name where the file has one."""

    role = "titles"
    layouts = (("title",), ("id", "title"))
    title: str
    id: Optional[str] = None


KINDS: tuple[type[Record], ...] = (Triple, LabeledPair, Pair, TitleRow, Text)


def header_of(row: Row) -> Optional[list[str]]:
    """Return the column names of a header, or None for a row of data.

    A header is made of known column names; two of them are enough, so that a misnamed column is found.
    """
    if not isinstance(row, list):
        return None
    names = [OTHER_NAMES.get(cell.strip().lower(), cell.strip().lower()) for cell in row]
    known = [name for name in names if name in COLUMNS]
    return names if len(known) == len(names) or len(set(known)) >= 2 else None


def expected_columns(kind: type[Record]) -> str:
    return f"{kind.role} ({' or '.join(', '.join(layout) for layout in kind.layouts)})"


def looks_like(columns: Sequence[str], expected: type[Record]) -> str:
    for kind in KINDS:
        if kind is not expected and set(kind.layouts[0]) <= set(columns):
            hint = "; make triples of it with make-triples" if (kind, expected) == (LabeledPair, Triple) else ""
            return f"; this looks like a file of {kind.role} ({', '.join(kind.layouts[0])}){hint}"
    return ""
