"""Stream the documents of text files of any size.

In a `.txt` file (or `.txt.gz`), a document is one line (`lines`), the lines between blank lines (`blank_lines`), or the
lines from one title to the next (`titles`); a title is a line such as ` = Title = ` in WikiText's files. In all other
formats that the toolkit reads (JSON lines, Parquet, tab-separated text), a document is a row's column `text`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from paddle_ranker.data.rows.formats import BadRow, read_lines
from paddle_ranker.data.rows.records import RecordFile, Text
from paddle_ranker.data.rows.skips import REASONS_SHOWN
from paddle_ranker.errors import DataError

DOCUMENTS = ("lines", "blank_lines", "titles")
DOCUMENTS_HELP = ".txt with lines of text; .jsonl, .parquet or .tsv with a column text; any of these with .gz"
# The title of a page; titles of its sections have more signs, with spaces between them.
_TITLE = re.compile(r"= [^=].* =")


class Corpus:
    """Stream of the texts of several files. Each `for` loop rereads the files, as (True if a document begins, text).

    A text is a line or a record, not a document, so that a large document needs no more memory.

    Args:
        files: the files' paths.
        documents: separator of the documents of a `.txt` file; one of `DOCUMENTS`.
        skip_bad_rows: skip lines that cannot be read, and count them.

    Raises `DataError`, naming the file and the line, if a file is missing, empty, damaged or not UTF-8.
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
        """Return the settings that, with the files' content, determine the texts."""
        return {"documents": self._documents, "skip_bad_rows": self._skip}

    def report(self) -> str:
        """Return the number of documents in the last loop (`19,595 documents`), and the skipped lines with reasons."""
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
