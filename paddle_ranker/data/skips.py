"""Count what is left out of a file. A bad row is counted if `--skip_bad_rows` is set, else it raises an error."""

from __future__ import annotations

from collections.abc import Sequence

from paddle_ranker.errors import DataError

REASONS_SHOWN = 3
NOT_READ = "not read:"


class LeftOut:
    """Count of things that are left out, with the first reasons.

    what: the words before the count in a report, such as `skipped`
    """

    def __init__(self, what: str) -> None:
        self.what, self.count = what, 0
        self.reasons: list[str] = []

    def add_reason(self, reason: str) -> None:
        """Count one thing that is left out, for `reason`."""
        self.count += 1
        if len(self.reasons) < REASONS_SHOWN:
            self.reasons.append(reason)

    def include(self, count: int, reasons: Sequence[str]) -> None:
        """Add `count` things that were counted elsewhere, with the first `reasons` of these."""
        self.count += count
        self.reasons = [*self.reasons, *reasons][:REASONS_SHOWN]

    def report(self) -> str:
        """Return a summary: `skipped 2 (line 17: 2 columns, expected 3; …)`; "" if nothing is left out."""
        more = "; …" if self.count > len(self.reasons) else ""
        return f"{self.what} {self.count:,} ({'; '.join(self.reasons)}{more})" if self.count else ""


class Skips(LeftOut):
    """Count of bad rows, with the first reasons.

    allowed: whether bad rows may be skipped (`--skip_bad_rows`)
    name_files: whether reasons include the file's name
    """

    def __init__(self, allowed: bool, *, name_files: bool = False) -> None:
        super().__init__("skipped")
        self.allowed, self._name_files = allowed, name_files

    def add(self, path: str, line: int, reason: str) -> None:
        """Count a bad row; raises `DataError`, naming the row, if bad rows may not be skipped."""
        if not self.allowed:
            raise DataError(
                f"{path}, line {line}: {reason}; correct the row, or leave bad rows out with --skip_bad_rows"
            )
        self.add_reason(f"{f'{path}, ' if self._name_files else ''}line {line}: {reason}")
