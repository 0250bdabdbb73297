"""Stored states of titles in a folder: the output of a split ranker's lower layers, which read each title by itself.

| file | holds |
| --- | --- |
| `states.json` | the ranker that made them, counts, and each file's size and digest |
| `states.npy` | states, `[tokens, width]` float32, float16 or int8, memory-mapped |
| `vectors.npy`, `matches.npy` | if the ranker has a similarity: these arrays of `TextStates`, in the states' type |
| `NAME_scales.npy` | if the type is int8: a factor per row of `NAME.npy`, float32 |
| `tokens.npy` | token ids, `[tokens]` int32 |
| `offsets.npy` | each title's first token, and the end, `[titles + 1]` int64 |
| `ids.npy`, `id_ends.npy` | the titles' ids, one after another in UTF-8, and their ends in bytes, if they have ids |
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, reduce
from pathlib import Path
from typing import Annotated, Optional, Union

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.array_types import STORED_TYPES, Array, Arrays
from paddle_ranker.encoding.columns import Columns, EncodedTexts, Indices, offsets_of, ragged_positions
from paddle_ranker.errors import CheckpointError, DataError, UsageError, quoted, refuse_text
from paddle_ranker.storage.arrays import ArrayFile
from paddle_ranker.storage.atomic import new_file, new_folder
from paddle_ranker.storage.declared import Count, OneOf, Width, WidthOrNone, read_declared
from paddle_ranker.storage.digest import content_digest
from paddle_ranker.storage.untrusted import check_file, inside, open_array, read_versioned
from paddle_ranker.stored_titles.signatures import SIDES, STATES

FORMAT_VERSION = 1
INFO_FILE = "states.json"
_NUMBERS = ("states", "vectors", "matches")  # arrays of the store's type
_MOST_INT8 = 127
_MAPPED_FROM = 1 << 20  # bytes; smaller files are read at once


@dataclass(frozen=True)
class StatesInfo:
    """Contents of `states.json`.

    ranker: digest of the parameters that the states depend on
    layers: number of lower layers
    width: width of a state
    vectors, matches: sizes of a title's vectors and of a token's matches, see `TextStates`; 0 without a similarity
    dtype: float16, int8 or float32
    titles, tokens: number of titles and of tokens
    files: a dict from file name to its size in bytes and its digest
    """

    ranker: str
    layers: Count
    width: Width
    vectors: WidthOrNone = 0
    matches: WidthOrNone = 0
    dtype: Annotated[str, OneOf(*STORED_TYPES)] = "float16"
    titles: Count = 0
    tokens: Count = 0
    files: dict[str, tuple[Count, str]] = field(default_factory=dict)
    format_version: Count = FORMAT_VERSION

    @property
    def sizes(self) -> dict[str, int]:
        """Number of values in a row of each stored array, by the array's name; arrays of size 0 are absent."""
        sizes = {"states": self.width, "vectors": self.vectors, "matches": self.matches}
        return {name: size for name, size in sizes.items() if size}

    @property
    def bytes_per_title(self) -> float:
        """Size of all files, divided by the number of titles."""
        return sum(size for size, _ in self.files.values()) / max(1, self.titles)


@dataclass(frozen=True)
class TextStates:
    """States of texts, computed for each text separately; text i has the tokens from `offsets[i]` to `offsets[i + 1]`.

    states: `[tokens, width]` float32
    tokens: token ids, `[tokens]` int32
    offsets: `[texts + 1]` int64
    vectors: `[texts, size]` float32, see `model.similarity.Side`; size 0 without a similarity
    matches: `[tokens, size]` float32, see `model.similarity.Side`; size 0 without a similarity
    """

    states: NDArray[np.float32]
    tokens: NDArray[np.int32]
    offsets: NDArray[np.int64]
    vectors: NDArray[np.float32]
    matches: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.offsets) - 1


@dataclass(frozen=True)
class StoredPairs(Columns):
    """Pairs of queries and titles with computed states: the input of a split ranker's upper layers.

    Row i is the pair of query `query_of[i]` and title `i`. Queries may be encoded texts without states;
    `SplitRanker.compute` then runs the lower layers on the queries of a batch.
    """

    queries: Union[TextStates, EncodedTexts]
    titles: TextStates
    query_of: NDArray[np.int64]
    pad_id: int = 0

    def __len__(self) -> int:
        return len(self.titles)

    def lengths_of(self, indices: Indices) -> NDArray[np.int64]:
        rows = np.asarray(indices, np.int64)
        queries, titles = np.diff(self.queries.offsets), np.diff(self.titles.offsets)
        lengths: NDArray[np.int64] = queries[self.query_of[rows]] + titles[rows]
        return lengths

    def take(self, indices: Indices) -> StoredPairs:
        rows = np.asarray(indices, np.int64)
        return dataclasses.replace(self, titles=taken(self.titles, rows), query_of=self.query_of[rows])

    @classmethod
    def concat(cls, parts: Sequence[StoredPairs]) -> StoredPairs:
        """Join pairs, in order; raises `ValueError` if their queries have states."""
        queries = [part.queries for part in parts if isinstance(part.queries, EncodedTexts)]
        if len(queries) < len(parts):
            raise ValueError("pairs whose queries have states are not joined")
        firsts = np.cumsum([0, *map(len, queries)])
        titles = reduce(joined, (part.titles for part in parts))
        of = np.concatenate([part.query_of + first for part, first in zip(parts, firsts.tolist())])
        return cls(EncodedTexts.concat(queries), titles, of, parts[0].pad_id)

    def pad(self, indices: Indices) -> Arrays:
        """Pad pairs: return `states`, `[batch, length, width]`, `input_ids` and `token_type_ids`, `[batch, length]`.

        The tokens of the title follow the query's. If the ranker has a similarity, also return the `vectors` and
        `matches` of each side.
        """
        assert isinstance(self.queries, TextStates)
        rows = np.asarray(indices, np.int64)
        sides = (self.queries, self.query_of[rows]), (self.titles, rows)
        starts = [side.offsets[of] for side, of in sides]
        lengths = [side.offsets[of + 1] - begin for (side, of), begin in zip(sides, starts)]
        places = np.arange((lengths[0] + lengths[1]).max(initial=0))
        in_query = places < lengths[0][:, None]
        in_title = ~in_query & (places < (lengths[0] + lengths[1])[:, None])
        states = np.zeros((*in_query.shape, self.titles.states.shape[1]), np.float32)
        ids = np.full(in_query.shape, self.pad_id, np.int64)
        for (side, _), begin, length, mask in zip(sides, starts, lengths, (in_query, in_title)):
            source = ragged_positions(begin, length)
            states[mask], ids[mask] = side.states[source], side.tokens[source]
        arrays: Arrays = {STATES: states, "input_ids": ids, "token_type_ids": in_title.astype(np.int64)}
        for name, (side, of), begin, length in zip(SIDES, sides, starts, lengths):
            if side.vectors.shape[1]:
                arrays[f"{name}_vectors"] = side.vectors[of]
                is_token = np.arange(length.max(initial=0)) < length[:, None]
                arrays[f"{name}_matches"] = matches = np.zeros((*is_token.shape, side.matches.shape[1]), np.float32)
                matches[is_token] = side.matches[ragged_positions(begin, length)]
        return arrays


def taken(texts: TextStates, rows: NDArray[np.int64]) -> TextStates:
    """Return the states of the texts at `rows` [n], in that order."""
    starts = texts.offsets[rows]
    lengths = texts.offsets[rows + 1] - starts
    source = ragged_positions(starts, lengths)
    return TextStates(
        texts.states[source], texts.tokens[source], offsets_of(lengths), texts.vectors[rows], texts.matches[source]
    )


def joined(first: TextStates, second: TextStates) -> TextStates:
    """Return the states of the texts of `first`, then of `second`."""
    offsets = np.concatenate([first.offsets, first.offsets[-1] + second.offsets[1:]])
    tokens, (states, vectors, matches) = (
        np.concatenate([first.tokens, second.tokens]),
        (np.concatenate([getattr(texts, name) for texts in (first, second)]) for name in _NUMBERS),
    )
    return TextStates(states, tokens, offsets, vectors, matches)


class StatesWriter:
    """Writer of stored states into an existing folder, part by part.

    folder: an existing folder, without files of the names that are written
    ranker: the ranker's `SplitRanker.states_info`; its `dtype` is the type of the files' numbers
    """

    def __init__(self, folder: Path, ranker: StatesInfo):
        if ranker.dtype not in STORED_TYPES:
            raise UsageError(f"dtype {quoted(ranker.dtype)}: choose from {', '.join(STORED_TYPES)}")
        self._folder, self._info = folder, ranker
        self._files: dict[str, ArrayFile] = {}
        self._tokens, self._id_bytes = 0, 0
        for name, size in ranker.sizes.items():
            self._write(name, np.zeros((0, size), ranker.dtype))
            if ranker.dtype == "int8":
                self._write(f"{name}_scales", np.zeros(0, np.float32))
        self._write("tokens", np.zeros(0, np.int32))
        self._write("offsets", np.zeros(1, np.int64))

    def append(self, titles: TextStates, ids: Optional[Sequence[str]] = None) -> None:
        """Write titles, and their ids. Either all calls must have ids, or none.

        Raises `DataError` for states that float16 cannot hold.
        """
        for name in self._info.sizes:
            values: Array = getattr(titles, name)
            if self._info.dtype == "int8":
                values, scales = quantized(values)
                self._write(f"{name}_scales", scales)
            elif self._info.dtype == "float16" and np.abs(values).max(initial=0.0) > np.finfo(np.float16).max:
                raise DataError("a state is beyond the range of float16: store the titles as int8 or float32")
            self._write(name, values.astype(self._info.dtype))
        self._write("tokens", titles.tokens)
        self._write("offsets", titles.offsets[1:] + self._tokens)
        self._tokens += len(titles.tokens)
        if ids is not None:
            refuse_text(ids, "ids")
            encoded = [id.encode("utf-8") for id in ids]
            ends = self._id_bytes + np.cumsum([len(text) for text in encoded], dtype=np.int64)
            self._write("ids", np.frombuffer(b"".join(encoded), np.uint8))
            self._write("id_ends", ends)
            self._id_bytes = int(ends[-1]) if len(ends) else self._id_bytes

    def finish(self) -> StatesInfo:
        """Write `states.json`; return its contents."""
        for file in self._files.values():
            file.finish()
        titles = self._files["offsets"].rows - 1
        if "id_ends" in self._files and self._files["id_ends"].rows != titles:
            raise ValueError("some parts had ids, and others had none")
        sizes = {file.path.name: (file.path.stat().st_size, content_digest(file.path)) for file in self._files.values()}
        info = dataclasses.replace(self._info, titles=titles, tokens=self._tokens, files=sizes)
        with new_file(self._folder / INFO_FILE) as stream:
            stream.write(json.dumps(dataclasses.asdict(info), indent=2) + "\n")
        return info

    def _write(self, name: str, array: Array) -> None:
        if name not in self._files:
            path = self._folder / f"{name}.npy"
            self._files[name] = ArrayFile(path, array.dtype.name, array.shape[1:])
        self._files[name].append(array)


def quantized(states: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return states `[n, width]` in int8, and each row's scale `[n]`; a row's largest absolute value becomes 127."""
    scales = np.abs(states).max(axis=1, initial=0.0) / np.float32(_MOST_INT8)
    safe = np.where(scales > 0, scales, np.float32(1.0))
    return np.rint(states / safe[:, None]).astype(np.int8), safe.astype(np.float32)


@contextmanager
def new_states(folder: Path, ranker: StatesInfo) -> Iterator[StatesWriter]:
    """Yield a writer; `folder` appears when the block succeeds. Raises `RankerError` if `folder` exists already."""
    with new_folder(folder) as temporary:
        writer = StatesWriter(temporary, ranker)
        yield writer
        writer.finish()


class TitleStates:
    """Stored states of titles in a folder; large files are memory-mapped.

        titles = TitleStates.open("states")
        titles.take(titles.rows_of(["id 7", "id 9"]))

    Attributes:
        folder: the folder.
        info: contents of its `states.json`.
    """

    def __init__(self, folder: Path, info: StatesInfo):
        self.folder, self.info = folder, info
        rows = {"states": info.tokens, "vectors": info.titles, "matches": info.tokens}
        expected: dict[str, tuple[tuple[int, ...], str]] = {
            "tokens": ((info.tokens,), "int32"), "offsets": ((info.titles + 1,), "int64"),
            **{name: ((rows[name], size), info.dtype) for name, size in info.sizes.items()},
            **{f"{name}_scales": ((rows[name],), "float32") for name in info.sizes if info.dtype == "int8"},
        }  # fmt: skip
        self._arrays = {name: self._array(name) for name in expected if f"{name}.npy" in info.files}
        sound = expected == {name: (array.shape, array.dtype.name) for name, array in self._arrays.items()}
        offsets = self._arrays["offsets"] if sound else np.zeros(1, np.int64)
        if not sound or offsets[0] != 0 or offsets[-1] != info.tokens or (np.diff(offsets) < 0).any():
            raise CheckpointError(f"{folder}: damaged (its files are not of one store); store the titles again")
        self._tokens, self._offsets = self._arrays["tokens"], offsets

    @classmethod
    def open(cls, folder: Union[str, Path]) -> TitleStates:
        """Open a folder that `paddle-ranker store` wrote; checks the files' sizes, but not their contents.

        Raises `CheckpointError` if the folder has no `states.json`, a file is missing or has another size, or another
        version of the toolkit wrote it.
        """
        folder = Path(folder)
        path = folder / INFO_FILE
        if not path.is_file():
            raise CheckpointError(
                f"{folder}: has no {INFO_FILE}; make it with: paddle-ranker store RANKER TITLES --output {folder}"
            )
        values = read_versioned(path, FORMAT_VERSION)
        info = read_declared(StatesInfo, path, values, "store the titles again")
        for name, (size, _) in info.files.items():
            file = inside(folder, name)
            if not file.is_file() or check_file(file, size) != size:
                raise CheckpointError(f"{file}: is missing or cut short; copy the folder again, or store again")
        return cls(folder, info)

    def check(self) -> None:
        """Check the digest of every file. If a digest differs, raises `CheckpointError`, which names the file."""
        for name, (_, digest) in self.info.files.items():
            if content_digest(self.folder / name) != digest:
                raise CheckpointError(f"{self.folder / name}: damaged; copy the folder again, or store again")

    def require_ranker(self, ranker: StatesInfo) -> None:
        """Raise `CheckpointError` unless the lower layers of this ranker made the states."""
        if (self.info.ranker, self.info.layers, self.info.width) != (ranker.ranker, ranker.layers, ranker.width):
            raise CheckpointError(
                f"{self.folder}: another ranker made these states ({self.info.ranker}, {self.info.layers} layers; "
                f"this one is {ranker.ranker}, {ranker.layers}); store the titles again"
            )

    def __len__(self) -> int:
        return self.info.titles

    @property
    def arrays(self) -> list[Array]:
        """Arrays in the files; large files are memory-mapped."""
        return [*self._arrays.values()]

    @property
    def sizes(self) -> list[int]:
        """Bytes of each file."""
        return [size for size, _ in self.info.files.values()]

    def lengths_of(self, rows: Indices) -> NDArray[np.int64]:
        """Return the token count of each title at `rows` [n], [n] int64."""
        chosen = np.asarray(rows, np.int64)
        lengths: NDArray[np.int64] = self._offsets[chosen + 1] - self._offsets[chosen]
        return lengths

    @cached_property
    def ids(self) -> list[str]:
        """Ids of the titles, in order; empty if titles have no ids."""
        if "ids.npy" not in self.info.files:
            return []
        ends = self._array("id_ends").tolist()
        whole = self._array("ids").tobytes()
        return [whole[begin:end].decode("utf-8") for begin, end in zip([0, *ends], ends)]

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {id: row for row, id in enumerate(self.ids)}

    def rows_of(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Return the rows of titles by their ids, `[n]` int64; raises `DataError` for an unknown id."""
        refuse_text(ids, "ids")
        try:
            return np.array([self._row_of[id] for id in ids], np.int64)
        except KeyError as error:
            raise DataError(f"{self.folder}: holds no title {quoted(error.args[0])}") from error

    def rows_with(self, titles: EncodedTexts) -> NDArray[np.int64]:
        """Return, for each title, the row of a stored title with equal tokens, `[n]` int64; -1 if there is none."""
        keys, order = self._by_tokens
        wanted = np.array([hash(titles[number].tobytes()) for number in range(len(titles))], np.int64)
        places = np.minimum(np.searchsorted(keys, wanted), max(0, len(keys) - 1))
        rows = np.full(len(titles), -1, np.int64)
        for number in np.flatnonzero(keys[places] == wanted) if len(keys) else ():
            row = int(order[places[number]])
            if np.array_equal(self.tokens_of(row), titles[number]):
                rows[number] = row
        return rows

    @cached_property
    def _by_tokens(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Hashes of the titles' tokens, ascending, and the rows of these titles.

        Hashes are not stored, since Python's differ between processes.
        """
        keys = np.array([hash(self.tokens_of(row).tobytes()) for row in range(len(self))], np.int64)
        order = np.argsort(keys, kind="stable")
        return keys[order], order

    def take(self, rows: Indices) -> TextStates:
        """Return the states of the titles at `rows` [n] (repeats allowed), in that order, as float32."""
        chosen = np.asarray(rows, np.int64)
        if chosen.size and (chosen.min() < 0 or chosen.max() >= len(self)):
            raise IndexError(f"rows {chosen.min()} to {chosen.max()} of {len(self)}")
        starts = self._offsets[chosen]
        lengths = self._offsets[chosen + 1] - starts
        source = ragged_positions(starts, lengths)
        states, vectors, matches = (self._numbers(name, chosen if name == "vectors" else source) for name in _NUMBERS)
        return TextStates(states, self._tokens[source], offsets_of(lengths), vectors, matches)

    def _numbers(self, name: str, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        if name not in self.info.sizes:
            return np.zeros((len(rows), 0), np.float32)
        numbers = self._arrays[name][rows].astype(np.float32)
        if self.info.dtype == "int8":
            numbers *= self._arrays[f"{name}_scales"][rows][:, None]
        return numbers

    def tokens_of(self, row: int) -> NDArray[np.int32]:
        """Return the token ids of one title, [length] int32."""
        return self._tokens[self._offsets[row] : self._offsets[row + 1]]

    def _array(self, name: str) -> Array:
        return open_array(inside(self.folder, f"{name}.npy"), _MAPPED_FROM)
