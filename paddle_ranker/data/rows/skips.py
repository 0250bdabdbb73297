"""Count rows and files that are left out. A bad row is an error unless `--skip_bad_rows` is set."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple, Union

from paddle_ranker.errors import DataError, brief, quoted

REASONS_SHOWN = 3
_KEPT = 60  # causes that are kept for an error
_ROOM, _REASON, _NAMES = 400, 160, 160  # characters of an error: of all reasons, of one, of names without reasons
NOT_READ, REFUSED = "not read:", "refused"
NOT_OF_A_KIND = "such files are not read"  # start of the reason of a folder's files of a kind, counted together


class SheetRow(int):
    """Number of a spreadsheet's row; `sheet` is the name of its sheet."""

    sheet: str

    def __new__(cls, row: int, sheet: str) -> SheetRow:
        made = super().__new__(cls, row)
        made.sheet = sheet
        return made


def place_in(path: str, line: Union[int, str]) -> tuple[str, str]:
    """Return a row's place in the file `path`, and the place with the path, for messages.

    line: number of the row's line, or name of a file in the folder `path`; "": `path` as a whole
    """
    if not isinstance(line, int):
        return line, os.path.join(path, line) if line else path
    place = f"sheet {quoted(line.sheet)}, row {line}" if isinstance(line, SheetRow) else f"line {line}"
    return place, f"{path}, {place}"


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
        self._first, self._counts = dict[str, LeftOutItem](), Counter[str]()  # by cause: its first item, their number

    @property
    def reasons(self) -> list[str]:
        """The first reasons; reasons that share a cause appear once, with their count."""
        return [self._reason(cause) for cause in islice(self._first, REASONS_SHOWN)]

    def _reason(self, cause: str, most: int = sys.maxsize) -> str:
        """Return the first item of a cause as text, with the count of such; `most`: characters of the reason."""
        item, count = self._first[cause], self._counts[cause]
        text = str(item._replace(reason=brief(item.reason, most)))
        return f"{text} ({count:,} such)" if count > 1 else text

    def add_item(self, item: LeftOutItem) -> None:
        """Count a thing that is left out."""
        self.count += 1
        if self._keeps_all:
            self.items.append(item)
        cause = item.cause or (item.reason if item.reason.startswith(NOT_OF_A_KIND) else str(item))
        if cause in self._first or len(self._first) < _KEPT:
            self._first.setdefault(cause, item)
            self._counts[cause] += 1

    def include(self, count: int, reasons: Sequence[str]) -> None:
        """Add the count and the first reasons of another counter."""
        for reason in reasons:
            self.add_item(LeftOutItem("", reason))
        self.count += count - len(reasons)

    def merge(self, other: LeftOut) -> None:
        """Count what another counter of the same kind has left out later."""
        self.count += other.count
        self.items += other.items
        for cause, item in other._first.items():
            if cause in self._first or len(self._first) < _KEPT:
                self._first.setdefault(cause, item)
                self._counts[cause] += other._counts[cause]

    def report(self) -> str:
        """Return a summary: `skipped 2 (line 17: 2 columns, expected 3; …)`; "" if nothing is left out."""
        more = "; …" if self.has_more else ""
        return f"{self.what} {self.count:,} ({'; '.join(self.reasons)}{more})" if self.count else ""

    @property
    def has_more(self) -> bool:
        """Whether more things are left out than `report` names."""
        return self.count > sum(self._counts[cause] for cause in islice(self._first, REASONS_SHOWN))


class BadRowsError(DataError):
    """Error that names bad rows and files; `items` lists them, as far as they were remembered."""

    def __init__(self, message: str, items: Sequence[LeftOutItem]) -> None:
        super().__init__(message)
        self.items = items


class Skips(LeftOut):
    """Count of bad rows, with the first reasons.

    allowed: whether bad rows may be skipped (`--skip_bad_rows`)
    name_files: whether reasons include the file's name
    waits: whether `add` counts bad rows that may not be skipped, so that `require_none` names all of them
    """

    def __init__(
        self, allowed: bool, *, name_files: bool = False, keeps_all: bool = False, waits: bool = False
    ) -> None:
        super().__init__("skipped" if allowed else REFUSED, keeps_all=keeps_all)
        self.allowed, self._name_files, self._waits = allowed, name_files, waits
        self._files, self._only, self._path = 0, "", ""

    @property
    def are_refused(self) -> bool:
        """Whether there are bad rows that may not be skipped."""
        return self.count > 0 and not self.allowed

    def add(self, path: str, line: Union[int, str], reason: str, cause: str = "") -> None:
        """Count a bad row; if bad rows may not be skipped, raise `DataError`, naming the row, unless the object waits.

        line: as for `place_in`
        cause: see `LeftOutItem`
        """
        is_row = isinstance(line, int)
        place, where = place_in(path, line)
        self._files += not is_row
        if not self.allowed and not self.count:
            remedy = "" if cause else "correct the row, " if is_row else "correct it, "
            left_out = "leave bad rows out" if is_row else "leave such files out"
            self._only, self._path = f"{where}: {reason}; {remedy}or {left_out} with --skip_bad_rows", path
        self.add_item(LeftOutItem(where if self._name_files or not place else place, reason, cause))
        if not self._waits:
            self.require_none()

    def merge(self, other: LeftOut) -> None:
        assert isinstance(other, Skips)
        if not self.count:
            self._only, self._path = other._only, other._path
        self._files += other._files
        super().merge(other)

    def require_none(self) -> None:
        """Raise `BadRowsError` if there are bad rows that may not be skipped."""
        if not self.are_refused:
            return
        if self.count == 1:
            only = self._only or f"{self.reasons[0]}; correct it, or leave such rows out with --skip_bad_rows"
            raise BadRowsError(only, self.items)
        shown, named, room = list[str](), list[str](), _ROOM
        items = [*self._first.items()]
        for cause, _ in items:
            reason = self._reason(cause, _REASON)
            room -= len(reason) + 2
            if room < 0 and shown:
                break
            shown.append(reason)
        left = self.count - sum(self._counts[cause] for cause, _ in items[: len(shown)])
        room = _NAMES
        for _, item in items[len(shown) :]:
            name = item.where or brief(item.reason)
            room -= len(name) + 2
            if room < 0:
                break
            named.append(name)
        left -= len(named)
        if named or left:
            more = [f"{left:,} more"] if left else []
            shown.append(f"also {' and '.join([*filter(None, [', '.join(named)]), *more])}")
        counts = ((self._files, "file", "files"), (self.count - self._files, "row", "rows"))
        what = " and ".join(f"{count:,} {one if count == 1 else several}" for count, one, several in counts if count)
        within = "" if self._name_files else f"{self._path}: "
        remedy = "" if all(item.cause for _, item in items) else "correct them, "
        raise BadRowsError(
            f"{within}{what} cannot be read: {'; '.join(shown)}; {remedy}or leave them out with --skip_bad_rows",
            self.items,
        )
