"""Collect encoded pairs in memory or, beyond a limit, in memory-mapped temporary files.

    collector = PairCollector(folder, max_bytes=1 << 30)
    for ...:
        collector.append(pair_encoder.encode(queries, titles), labels=labels)
    pairs, columns = collector.finish()

Pairs in memory and pairs in files give equal batches.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Optional, TypeVar, Union

import numpy as np

from paddle_ranker.encoding.columns import EncodedPairs, EncodedTexts
from paddle_ranker.errors import RankerError
from paddle_ranker.storage.arrays import map_array

MAX_BYTES = 1 << 30  # default limit of encoded pairs in memory
# Names of the pairs' arrays; the dots keep them apart from names of columns.
_IDS, _OFFSETS, _SECOND_STARTS, _PLACES = "pairs.ids", "pairs.offsets", "pairs.second_starts", "pairs.places"


class PairCollector:
    """Collector of encoded pairs in memory; beyond `max_bytes`, it moves all pairs to temporary files.

    The files are unlinked: they vanish with the arrays that read them, or with the process. If the pairs are in memory,
    `finish` takes twice their bytes for a moment.

    folder: folder for the files, which take four bytes per token, twelve per pair, and the further columns; defaults
        to the system's temporary folder, which may be in memory
    max_bytes: maximum bytes in memory
    """

    def __init__(self, folder: Optional[Path] = None, max_bytes: int = MAX_BYTES):
        self._folder = Path(tempfile.gettempdir()) if folder is None else folder
        self._max_bytes = max_bytes
        self._on_disk = False
        self._tokens = self._pad_id = self._place_size = 0
        self._columns: dict[str, _StoredColumn] = {}

    def append(self, pairs: EncodedPairs, **columns: np.ndarray) -> None:
        """Add pairs [m], and the values [m] of further `columns`; all calls must have the same column names and types.

        Raises `RankerError` if the folder has no room, `ValueError` if columns differ from the first call's in name or
        type, or have not one value for each pair.
        """
        for name, values in columns.items():
            if len(values) != len(pairs):
                raise ValueError(f"{len(pairs)} pairs and {len(values)} {name}: give one value for each pair")
        offsets = pairs.offsets if not self._columns else pairs.offsets[1:]
        new = {_IDS: pairs.ids, _OFFSETS: offsets + self._tokens, _SECOND_STARTS: pairs.second_starts, **columns}
        if pairs.places is not None:
            new[_PLACES] = pairs.places
        self._columns = self._columns or {name: _StoredColumn(values.dtype) for name, values in new.items()}
        if {name: column.dtype for name, column in self._columns.items()} != {n: v.dtype for n, v in new.items()}:
            raise ValueError(f"columns {', '.join(columns) or '(none)'}: other names or types than with earlier pairs")
        self._tokens += len(pairs.ids)
        self._pad_id, self._place_size = pairs.pad_id, pairs.place_size
        with _disk_errors(self._folder, self._nbytes):
            for name, values in new.items():
                self._columns[name].append(values)
            if not self._on_disk and self._nbytes() > self._max_bytes:
                self._on_disk = True
                for column in self._columns.values():
                    column.move_to(self._folder)

    def finish(self) -> tuple[EncodedPairs, dict[str, np.ndarray]]:
        """Return all pairs and columns, and clear the collector; read large columns with `storage.arrays.gather`."""
        if not self._columns:
            return EncodedPairs.concat([]), {}
        with _disk_errors(self._folder, self._nbytes):
            arrays = {name: self._columns.pop(name).finish() for name in list(self._columns)}
        places = arrays.pop(_PLACES, None)
        ids, offsets, second_starts = (arrays.pop(name) for name in (_IDS, _OFFSETS, _SECOND_STARTS))
        return EncodedPairs(ids, offsets, second_starts, self._pad_id, places, self._place_size), arrays

    def _nbytes(self) -> int:
        return sum(column.nbytes for column in self._columns.values())


_T = TypeVar("_T", bound=Union[EncodedTexts, EncodedPairs])


def within(texts: _T, folder: Path, max_bytes: int) -> _T:
    """Return the texts unchanged if their ids have at most `max_bytes` bytes, else with the ids in an unlinked file.

    Raises `RankerError` if the folder cannot hold the file.
    """
    nbytes = texts.ids.nbytes
    if nbytes <= max_bytes:
        return texts
    column = _StoredColumn(texts.ids.dtype)
    with _disk_errors(folder, lambda: nbytes):
        column.append(texts.ids)
        column.move_to(folder)
        return replace(texts, ids=column.finish())


@contextmanager
def _disk_errors(folder: Path, nbytes: Callable[[], int]) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # usually a full disk
        raise RankerError(
            f"{folder}: {nbytes() / 2**20:.0f} MB of encoded training data could not be kept there "
            f"({error.strerror or error}); make room, choose another --output, or keep more in memory with "
            "--data_memory_mb"
        ) from error


class _StoredColumn:
    """Growing array: a list of chunks, or a file."""

    def __init__(self, dtype: np.dtype):
        self.dtype, self.nbytes = dtype, 0
        self._chunks: list[np.ndarray] = []
        self._file: Optional[IO[bytes]] = None

    def append(self, values: np.ndarray) -> None:
        self.nbytes += values.nbytes
        if self._file is None:
            self._chunks.append(values)
            return
        left = memoryview(np.ascontiguousarray(values).view(np.uint8).data)
        while left:  # a write may be partial
            left = left[self._file.write(left) :]

    def move_to(self, folder: Path) -> None:
        # Unbuffered, since a buffer that cannot be written would raise again when the file is closed.
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        chunks, self._chunks, self.nbytes = self._chunks, [], 0
        for values in chunks:
            self.append(values)

    def finish(self) -> np.ndarray:
        if self._file is None or not self.nbytes:
            return np.concatenate([np.empty(0, self.dtype), *self._chunks])
        with self._file:
            return map_array(self._file, self.dtype)
