"""Bad rows of a file: raise an error, or count them (`--skip_bad_rows`)."""

from __future__ import annotations

from paddle_ranker.errors import DataError

REASONS_SHOWN = 3


class Skips:
    """Number of bad rows, and the first reasons.

    allowed: whether bad rows may be skipped (`--skip_bad_rows`)
    name_files: whether reasons include the file's name
    """

    def __init__(self, allowed: bool, *, name_files: bool = False) -> None:
        self.allowed, self.count, self._name_files = allowed, 0, name_files
        self.reasons: list[str] = []

    def add(self, path: str, line: int, reason: str) -> None:
        """Count a bad row; raises `DataError`, naming the row, if bad rows may not be skipped."""
        if not self.allowed:
            raise DataError(
                f"{path}, line {line}: {reason}; correct the row, or leave bad rows out with --skip_bad_rows"
            )
        self.count += 1
        if len(self.reasons) < REASONS_SHOWN:
            self.reasons.append(f"{f'{path}, ' if self._name_files else ''}line {line}: {reason}")

    def include(self, path: str, others: Skips) -> None:
        """Add the bad rows of another file."""
        self.count += others.count
        self.reasons = [*self.reasons, *(f"{path}, {reason}" for reason in others.reasons)][:REASONS_SHOWN]

    def report(self) -> str:
        """Return a summary: `skipped 2 (line 17: 2 columns, expected 3; …)`; "" without bad rows."""
        more = "; …" if self.count > len(self.reasons) else ""
        return f"skipped {self.count:,} ({'; '.join(self.reasons)}{more})" if self.count else ""
