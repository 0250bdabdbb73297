"""Count rows and files that are left out. A bad row raises an error unless `--skip_bad_rows` is set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from paddle_ranker.errors import DataError

REASONS_SHOWN = 3
NOT_READ = "not read:"


class LeftOut:
    """Count of things that are left out, with the first reasons.

    what: text before the count in a report, such as `skipped`
    """

    def __init__(self, what: str) -> None:
        self.what, self.count = what, 0
        self._first, self._counts = dict[str, str](), Counter[str]()  # by cause: the first reason, and their number

    @property
    def reasons(self) -> list[str]:
        """The first reasons; reasons that share a cause appear once, with their count."""
        counts = [(reason, self._counts[cause]) for cause, reason in self._first.items()]
        return [f"{reason} ({count:,} such)" if count > 1 else reason for reason, count in counts]

    def add_reason(self, reason: str, cause: str = "") -> None:
        """Count a thing that is left out, for `reason`.

        cause: cause that several reasons may share, such as a missing package; defaults to the reason
        """
        self.count += 1
        cause = cause or reason
        if cause in self._first or len(self._first) < REASONS_SHOWN:
            self._first.setdefault(cause, reason)
            self._counts[cause] += 1

    def include(self, count: int, reasons: Sequence[str]) -> None:
        """Add the count and the first reasons of another counter."""
        for reason in reasons:
            self.add_reason(reason)
        self.count += count - len(reasons)

    def report(self) -> str:
        """Return a summary: `skipped 2 (line 17: 2 columns, expected 3; …)`; "" if nothing is left out."""
        more = "; …" if self.count > sum(self._counts.values()) else ""
        return f"{self.what} {self.count:,} ({'; '.join(self.reasons)}{more})" if self.count else ""


class Skips(LeftOut):
    """Count of bad rows, with the first reasons.

    allowed: whether bad rows may be skipped (`--skip_bad_rows`)
    name_files: whether reasons include the file's name
    """

    def __init__(self, allowed: bool, *, name_files: bool = False) -> None:
        super().__init__("skipped")
        self.allowed, self._name_files = allowed, name_files

    def add(self, path: str, line: int, reason: str, cause: str = "") -> None:
        """Count a bad row, as `add_reason` does. If bad rows may not be skipped, raises `DataError`, naming the row."""
        if not self.allowed:
            remedy = "" if cause else "correct the row, "
            raise DataError(f"{path}, line {line}: {reason}; {remedy}or leave bad rows out with --skip_bad_rows")
        self.add_reason(f"{f'{path}, ' if self._name_files else ''}line {line}: {reason}", cause)
