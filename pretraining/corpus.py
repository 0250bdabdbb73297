"""The documents of text files, streamed, whatever their size.

A `.txt` file (or `.txt.gz`) is lines. A document is one of them (`lines`), or those between blank ones
(`blank_lines`), or all from one title to the next (`titles`), a title being a line as ` = Title = ` in WikiText's
files. Of anything else, JSON lines, Parquet and tab-separated text as the rest of the toolkit reads them, a document
is what a row's column `text` holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from paddle_ranker.data.formats import BadRow, read_lines
from paddle_ranker.data.records import REASONS_SHOWN, RecordFile, Text
from paddle_ranker.errors import DataError

DOCUMENTS = ("lines", "blank_lines", "titles")
DOCUMENTS_HELP = ".txt is lines of text; .jsonl, .parquet and .tsv have a column text; .gz of any of them"
_TITLE = re.compile(r"= [^=].* =")  # of a page; those of its sections have more signs, with spaces between them


class Corpus:
    """The texts of several files, streamed anew by every `for` loop over it: (whether a document begins, a text).

    A text is a line or a record, so that a file of one document costs no more memory than another.

    Args:
        files: their paths.
        documents: what parts the documents of a `.txt` file, of `DOCUMENTS`.
        skip_bad_rows: leave out what cannot be read, and count it.

    Raises `DataError`, naming the file and the line, where a file is missing, empty, damaged or not UTF-8.
    """

    def __init__(self, files: Sequence[str], documents: str = "lines", skip_bad_rows: bool = False):
        self.files, self._documents, self._skip = list(files), documents, skip_bad_rows
        self.kept = self.skipped = 0
        self._reasons: list[str] = []

    def __iter__(self) -> Iterator[tuple[bool, str]]:
        self.kept = self.skipped = 0
        self._reasons = []
        for path in self.files:
            before = self.kept
            for begins, text in self._of_text(path) if _is_text(path) else self._of_records(path):
                self.kept += begins
                yield begins, text
            if self.kept == before:
                reasons = f" ({'; '.join(self._reasons)})" if self._reasons else ""
                raise DataError(f"{path}: holds no text{reasons}; leave it out, or name another file")

    @property
    def rules(self) -> dict[str, object]:
        """The settings that decide its texts, beside the files' content."""
        return {"documents": self._documents, "skip_bad_rows": self._skip}

    def report(self) -> str:
        """Return what the last loop found: `19,595 documents`, and what was skipped."""
        if not self.skipped:
            return f"{self.kept:,} documents"
        more = "; ..." if self.skipped > len(self._reasons) else ""
        return f"{self.kept:,} documents; skipped {self.skipped:,} lines ({'; '.join(self._reasons)}{more})"

    def _of_text(self, path: str) -> Iterator[tuple[bool, str]]:
        begins = True
        for line in self._lines(path):
            if not line or line.isspace():
                begins = begins or self._documents == "blank_lines"
                continue
            if self._documents == "lines" or (self._documents == "titles" and _TITLE.fullmatch(line.strip())):
                begins = True
            yield begins, line
            begins = False

    def _lines(self, path: str) -> Iterator[str]:
        for number, line in read_lines(path):
            if not isinstance(line, BadRow):
                yield line
                continue
            if not self._skip:
                raise DataError(
                    f"{path}, line {number}: {line.reason}; correct it, or leave such lines out with --skip_bad_rows"
                )
            self.skipped += 1
            if len(self._reasons) < REASONS_SHOWN:
                self._reasons.append(f"{path}, line {number}: {line.reason}")

    def _of_records(self, path: str) -> Iterator[tuple[bool, str]]:
        records = RecordFile(path, Text, skip_bad_rows=self._skip)
        for record in records:
            yield True, record.text
        if records.skipped:
            self.skipped += records.skipped
            self._reasons = [*self._reasons, f"{path}: {records.report()}"][:REASONS_SHOWN]


def _is_text(path: str) -> bool:
    return Path(path.lower().removesuffix(".gz")).suffix == ".txt"
