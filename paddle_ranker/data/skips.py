"""Bad rows of files: an error each, or left out, counted and reported."""

from __future__ import annotations

from paddle_ranker.errors import DataError

REASONS_SHOWN = 3


class Skips:
    """Bad rows, and the reasons of the first few.

    allowed: whether they may be left out (`--skip_bad_rows`)
    name_files: the reasons name files, too: those of several files
    """

    def __init__(self, allowed: bool, *, name_files: bool = False) -> None:
        self.allowed, self.count, self._name_files = allowed, 0, name_files
        self.reasons: list[str] = []

    def add(self, path: str, line: int, reason: str) -> None:
        """Count a bad row; raises `DataError`, naming it, where none may be left out."""
        if not self.allowed:
            raise DataError(
                f"{path}, line {line}: {reason}; correct the row, or leave bad rows out with --skip_bad_rows"
            )
        self.count += 1
        if len(self.reasons) < REASONS_SHOWN:
            self.reasons.append(f"{f'{path}, ' if self._name_files else ''}line {line}: {reason}")

    def include(self, path: str, others: Skips) -> None:
        """Count the bad rows of one of several files."""
        self.count += others.count
        self.reasons = [*self.reasons, *(f"{path}, {reason}" for reason in others.reasons)][:REASONS_SHOWN]

    def report(self) -> str:
        """Return what was left out: `skipped 2 (line 17: 2 columns, expected 3; …)`; empty where nothing was."""
        more = "; …" if self.count > len(self.reasons) else ""
        return f"skipped {self.count:,} ({'; '.join(self.reasons)}{more})" if self.count else ""
