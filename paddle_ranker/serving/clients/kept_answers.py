"""Keep a teacher's answers on the disk, so that none is asked for twice."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from paddle_ranker.errors import DataError, RankerError
from paddle_ranker.storage.atomic import make_folder

Pair = tuple[str, str]
_VERSION = 1
_BUSY_SECONDS = 60.0  # that another process may write


class KeptAnswers:
    """The scores that a teacher has given pairs, in a file of SQLite; several processes may share it.

    A score is on its way to the disk when `add` returns: a process that is killed loses none, and a machine that
    loses its power the last ones at most. Scores are added, never changed. The file holds digests, not texts.

    Args:
        path: the file; it and its folder are made if missing.
        teacher: what tells this teacher from others: URL, protocol, model.

    Raises `RankerError` if the file cannot be written to, `DataError` if it is something else.
    """

    def __init__(self, path: Path, teacher: Sequence[str]):
        self.path = path
        self._teacher = digest_of(teacher)
        make_folder(path.parent)
        with self._named():
            self._file = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
            version = self._file.execute("PRAGMA user_version").fetchone()[0]
            tables = self._file.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if version != _VERSION and (version or tables):
                raise DataError(f"{path}: holds no answers that this version can read; name another --teacher_answers")
            self._file.execute("PRAGMA journal_mode=WAL")
            self._file.execute("PRAGMA synchronous=NORMAL")
            self._file.execute(
                "CREATE TABLE IF NOT EXISTS answers (pair BLOB PRIMARY KEY, score REAL NOT NULL) WITHOUT ROWID"
            )
            self._file.execute(f"PRAGMA user_version={_VERSION}")

    def find(self, pairs: Iterable[Pair]) -> dict[Pair, float]:
        """Return the scores of those pairs that have one."""
        found = {}
        with self._named():
            for pair in pairs:
                row = self._file.execute("SELECT score FROM answers WHERE pair = ?", (self._key(pair),)).fetchone()
                if row is not None:
                    found[pair] = float(row[0])
        return found

    def add(self, scores: dict[Pair, float]) -> None:
        """Keep the scores, all or none of them."""
        with self._named():
            self._file.execute("BEGIN IMMEDIATE")
            try:
                rows = ((self._key(pair), score) for pair, score in scores.items())
                self._file.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?)", rows)
                self._file.execute("COMMIT")
            except BaseException:
                self._file.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Write everything into the one file."""
        self._file.close()

    def _key(self, pair: Pair) -> bytes:
        return digest_of([self._teacher.hex(), *pair])

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Raise SQLite's errors as errors that name the file."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            problem = f"{self.path}: the answers cannot be kept there ({error}); name another file: --teacher_answers"
            raise RankerError(problem) from error


def digest_of(parts: Sequence[str]) -> bytes:
    """Return 16 bytes that stand for these texts in this order."""
    made = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        made.update(len(data).to_bytes(8, "big") + data)
    return made.digest()[:16]
