"""Towers of fields of files, which make the vectors of files and of texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Optional, Union

from paddle_ranker.array_types import Vectors
from paddle_ranker.data.files.file_readers import FilePiece
from paddle_ranker.encoding.columns import PICTURE, TEXT
from paddle_ranker.errors import UsageError
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.retrieval.vectors.text_vectors import Tower


class FileTower:
    """Tower of a field of pictures, and base of those of other files. Thread-safe.

    Args:
        tower: computes vectors of files, and of queries if it reads texts.

    Attributes:
        reads: what the tower reads, see `FILE_INPUTS`.
        remedy: models that read it, for messages.
    """

    reads: ClassVar[str] = PICTURE
    remedy: ClassVar[str] = "a CLIP, or train one"

    def __init__(self, tower: Tower):
        self._tower = tower

    @classmethod
    def open(cls, folder: Path, options: LoadOptions, batch_size: int) -> FileTower:
        """Open a folder, as `Tower.open` does; raises `UsageError` for a tower that does not read the files."""
        tower = Tower.open(folder, options, batch_size, for_search=True)
        if cls.reads not in tower.reads:
            what = " and ".join(f"{read}s" for read in sorted(tower.reads))
            raise UsageError(f"{folder}: a tower of {what}, and the field has {cls.reads}s; take {cls.remedy}")
        return cls(tower)

    def vectors(self, files: Sequence[Union[bytes, FilePiece]]) -> Vectors:
        """Return the vectors of files, or of pieces of them, `[n, size]`."""
        return self._tower.encode_pictures([file for file in files if isinstance(file, bytes)])

    def query_vectors(self, queries: Sequence[str]) -> Vectors:
        """Return the vectors of texts, `[n, size]`; raises `UsageError` if the tower reads no texts."""
        if TEXT not in self._tower.reads:
            raise UsageError(f"the tower reads {self.reads}s, and texts were given: take one that reads texts, too")
        return self._tower.query_vectors(queries)

    def query_read(self, query: str) -> Optional[int]:
        """Return how many code points of a query are read, from its start; None if all are."""
        return self._tower.query_read(query)
