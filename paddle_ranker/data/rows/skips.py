"""Count rows and files that are left out. A bad row raises an error unless `--skip_bad_rows` is set."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, Union

from paddle_ranker.errors import DataError

REASONS_SHOWN = 3
NOT_READ = "not read:"
NO_FIELD = "no field takes"  # start of the reason of a folder's files of a kind, which are counted together


class LeftOutItem(NamedTuple):
    """Thing that is left out.

    where: a line, a file, or a part of a file; "" if the reason says that
    reason: why
    cause: cause that several things may share, such as a missing package; "": none
    """

    where: str
    reason: str
    cause: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}" if self.where else self.reason


class LeftOut:
    """Count of things that are left out, with the first reasons.

    what: text before the count in a report, such as `skipped`
    keeps_all: whether `items` has all things that were left out, for a list of them; otherwise it stays empty
    """

    def __init__(self, what: str, *, keeps_all: bool = False) -> None:
        self.what, self.count, self.items = what, 0, list[LeftOutItem]()
        self._keeps_all = keeps_all
        self._first, self._counts = dict[str, str](), Counter[str]()  # by cause: the first reason, and their number

    @property
    def reasons(self) -> list[str]:
        """The first reasons; reasons that share a cause appear once, with their count."""
        counts = [(reason, self._counts[cause]) for cause, reason in self._first.items()]
        return [f"{reason} ({count:,} such)" if count > 1 else reason for reason, count in counts]

    def add_item(self, item: LeftOutItem) -> None:
        """Count a thing that is left out."""
        self.count += 1
        if self._keeps_all:
            self.items.append(item)
        cause = item.cause or (item.reason if item.reason.startswith(NO_FIELD) else str(item))
        if cause in self._first or len(self._first) < REASONS_SHOWN:
            self._first.setdefault(cause, str(item))
            self._counts[cause] += 1

    def include(self, count: int, reasons: Sequence[str]) -> None:
        """Add the count and the first reasons of another counter."""
        for reason in reasons:
            self.add_item(LeftOutItem("", reason))
        self.count += count - len(reasons)

    def report(self) -> str:
        """Return a summary: `skipped 2 (line 17: 2 columns, expected 3; …)`; "" if nothing is left out."""
        more = "; …" if self.has_more else ""
        return f"{self.what} {self.count:,} ({'; '.join(self.reasons)}{more})" if self.count else ""

    @property
    def has_more(self) -> bool:
        """Whether more things are left out than `report` names."""
        return self.count > sum(self._counts.values())


class Skips(LeftOut):
    """Count of bad rows, with the first reasons.

    allowed: whether bad rows may be skipped (`--skip_bad_rows`)
    name_files: whether reasons include the file's name
    """

    def __init__(self, allowed: bool, *, name_files: bool = False, keeps_all: bool = False) -> None:
        super().__init__("skipped", keeps_all=keeps_all)
        self.allowed, self._name_files = allowed, name_files

    def add(self, path: str, line: Union[int, str], reason: str, cause: str = "") -> None:
        """Count a bad row; if bad rows may not be skipped, raise `DataError`, naming the row.

        line: number of the row's line, or name of a file in the folder `path`; "": `path` as a whole
        cause: see `LeftOutItem`
        """
        is_row = isinstance(line, int)
        place = f"line {line}" if is_row else str(line)
        where = f"{path}, {place}" if is_row else os.path.join(path, place) if place else path
        if not self.allowed:
            remedy = "" if cause else "correct the row, " if is_row else "correct it, "
            left_out = "leave bad rows out" if is_row else "leave such files out"
            raise DataError(f"{where}: {reason}; {remedy}or {left_out} with --skip_bad_rows")
        self.add_item(LeftOutItem(where if self._name_files or not place else place, reason, cause))
