"""Files of vectors (`.npy`), written part by part; an interrupted run can be continued.

`VectorFile` appends rows to `NAME.part`. After each part it writes to `NAME.part.json` how many rows there are, and the
identity of their source. A continued run first cuts off the rows that the JSON file does not count, so the file gets
the same bytes as without an interruption. int8 vectors have their scales in a second file: `vectors.npy`,
`vectors.scales.npy`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import IO, Union

import numpy as np

from paddle_ranker.array_types import STORED_TYPES, Array, Vectors
from paddle_ranker.errors import DataError, RankerError
from paddle_ranker.retrieval.vectors.exact_search import StoredVectors, refuse_unstorable
from paddle_ranker.storage.arrays import HEADER, npy_header
from paddle_ranker.storage.atomic import make_folder, naming_the_file, new_file
from paddle_ranker.storage.untrusted import read_header, read_json


def scales_path(path: Union[str, Path]) -> Path:
    """Return the path of the scales of int8 vectors: `vectors.scales.npy` for `vectors.npy`."""
    path = Path(path)
    return path.with_name(f"{path.name[: -len('.npy')] if path.suffix == '.npy' else path.name}.scales.npy")


def open_vectors(path: Union[str, Path]) -> StoredVectors:
    """Open a file of vectors, memory-mapped; raises `DataError` if the vectors or their scales are not valid."""
    path = Path(path)
    values: Array = _mapped(path, 2)
    if values.dtype != np.int8:
        return StoredVectors(values)
    scales = _mapped(scales_path(path), 1)
    if len(scales) != len(values):
        raise DataError(f"{scales_path(path)}: {len(scales):,} scales, {path.name} has {len(values):,} vectors")
    return StoredVectors(values, scales)


def _mapped(path: Path, dimensions: int) -> Array:
    try:
        mapped = read_header(partial(np.load, path, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: not a file of vectors ({error}); paddle-ranker encode writes one") from error
    types = STORED_TYPES if dimensions == 2 else ("float32",)
    if mapped.ndim != dimensions or mapped.dtype.name not in types:
        raise DataError(f"{path}: holds {mapped.dtype} {list(mapped.shape)}, expected vectors of {' or '.join(types)}")
    array: Array = mapped
    return array


class VectorFile:
    """File of vectors that is being written.

    Args:
        path: the file; it appears when `finish` is called, and replaces an older one.
        dtype: float32, float16 or int8.
        identity: facts about the source of the vectors, JSON-ready; only a run with the same identity is continued.
        resume: continue an interrupted run, if there is one.

    Attributes:
        rows: number of rows written.

    Raises `RankerError` if the interrupted run had another identity.
    """

    def __init__(self, path: Union[str, Path], dtype: str, identity: Mapping[str, object], resume: bool = False):
        self.path, self.dtype, self.identity = Path(path), dtype, dict(identity)
        make_folder(self.path.parent)
        self._state = self.path.with_name(f"{self.path.name}.part.json")
        self._finals = [self.path, scales_path(self.path)] if dtype == "int8" else [self.path]
        self._parts = [final.with_name(f"{final.name}.part") for final in self._finals]
        self.rows, self._size, self.is_done = 0, 0, False
        self._widths: list[int] = []  # bytes of a row in each file
        self._streams: list[IO[bytes]] = []
        if resume and self._state.is_file():
            self._read_state()
        if self.is_done:  # the run was killed before the file was moved to its path
            self._publish()
            return
        self._streams = [part.open("r+b" if self.rows else "w+b") for part in self._parts]
        for stream, width in zip(self._streams, self._widths):
            stream.truncate(HEADER + self.rows * width)
            stream.seek(0, os.SEEK_END)

    def append(self, vectors: Vectors) -> None:
        """Write vectors, `[n, size]`; they are synced to disk when this method returns.

        Raises `DataError` for a vector that cannot be stored.
        """
        refuse_unstorable(vectors, self.dtype, lambda row: f"{self.path}, text {self.rows + row + 1}")
        if not self._widths:
            self._size = vectors.shape[1]
            self._set_widths()
        stored = StoredVectors.of(vectors, self.dtype)
        arrays = [stored.values] if stored.scales is None else [stored.values, stored.scales]
        with naming_the_file(self.path):
            for stream, array in zip(self._streams, arrays):
                if not self.rows:
                    stream.write(b"\0" * HEADER)
                stream.write(np.ascontiguousarray(array).data)
                stream.flush()
                os.fsync(stream.fileno())
        self.rows += len(vectors)
        self._write_state()

    def finish(self) -> None:
        """Complete the file and move it to its path; raises `RankerError` if no vectors were appended."""
        if self.is_done:
            return
        if not self._widths:
            raise RankerError(f"{self.path}: there are no vectors to write")
        kinds = [np.dtype(self.dtype), np.dtype(np.float32)]
        shapes = [(self.rows, self._size), (self.rows,)]
        for stream, kind, shape in zip(self._streams, kinds, shapes):
            stream.seek(0)
            stream.write(npy_header(kind, shape))
            stream.flush()
            os.fsync(stream.fileno())
            stream.close()
        self.is_done = True
        self._write_state()
        self._publish()

    def close(self) -> None:
        """Close the files; the rows written so far stay, so that a later run can continue."""
        for stream in self._streams:
            stream.close()

    def _set_widths(self) -> None:
        self._widths = [self._size * np.dtype(self.dtype).itemsize, np.dtype(np.float32).itemsize]

    def _publish(self) -> None:
        for part, final in reversed(list(zip(self._parts, self._finals))):  # the vectors last
            if part.exists():
                os.replace(part, final)
        self._state.unlink(missing_ok=True)

    def _write_state(self) -> None:
        state = {"rows": self.rows, "size": self._size, "done": self.is_done, "identity": self.identity}
        with new_file(self._state) as stream:
            stream.write(json.dumps(state, ensure_ascii=False, indent=2) + "\n")

    def _read_state(self) -> None:
        again = "leave out --resume to start anew"
        try:
            state = read_json(self._state)
            rows, size, done, identity = (state[name] for name in ("rows", "size", "done", "identity"))
            if not (type(rows) is int and type(size) is int and rows >= 0 and size > 0):
                raise ValueError(f"{rows!r} rows of {size!r}")
        except (ValueError, LookupError, TypeError) as error:
            raise RankerError(f"{self._state}: damaged ({type(error).__name__}: {error}); {again}") from error
        changed = [name for name in {**identity, **self.identity} if identity.get(name) != self.identity.get(name)]
        if changed:
            was, now = identity.get(changed[0]), self.identity.get(changed[0])
            raise RankerError(f"{self.path}: was begun with {changed[0]} {was}, now {now}; {again}")
        self.rows, self._size, self.is_done = rows, size, bool(done)
        self._set_widths()
        for part, width in zip(self._parts, self._widths):
            held = part.stat().st_size if part.exists() else 0
            if not self.is_done and held < HEADER + rows * width:
                raise RankerError(
                    f"{part}: has {held:,} bytes, fewer than the {rows:,} rows that were written; {again}"
                )
