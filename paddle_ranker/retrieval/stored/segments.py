"""Segment: some documents of a collection with their words and vectors, in files that never change.

A segment's folder has these files:

    documents.jsonl, offsets.npy    documents, one per line; start of each line, `[n + 1] int64`
    ids.bin, id_offsets.npy         ids without separators; start of each id, `[n + 1] int64`
    id_hashes.npy, text_hashes.npy  `[2, n] uint64`, ascending: 64-bit hash of an id or a text, and the row
    title_hashes.npy                the same for `Schema.key_of`
    id_key_hashes.npy               the same for `id_key`
    fields.npy, fields.jsonl        index of each value by field and document, `[fields, n] int32` (-1: none); values
    vectors.npy, scales.npy         `[n, size]` float32, float16 or int8; factors of int8 vectors
    passages.npy                    `[passages, 3] int32`, if passages have vectors: row, start, end
    FIELD.vectors.npy, ...          the same for another vector field, where documents have any number of vectors
    words_*.npy                     the inverted index: `Postings`
    states/                         stored states of the documents, if there are any
    segment.json                    number of documents; size and checksum of each file
"""

from __future__ import annotations

import itertools
import json
import os
import re
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, lru_cache, partial
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Optional, Protocol

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.array_types import Array, Booleans, Integers
from paddle_ranker.errors import CheckpointError, brief
from paddle_ranker.lexical.postings import Postings, text_hashes
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import VECTORS, RankerStates
from paddle_ranker.retrieval.stored.schema import MOST_FIELDS, Schema
from paddle_ranker.retrieval.values.facets import DATES, NUMBERS, Positions
from paddle_ranker.retrieval.values.filters import Condition, Filter
from paddle_ranker.retrieval.values.typed_values import CommonTypes, Value
from paddle_ranker.retrieval.vectors.vector_settings import VectorsInfo
from paddle_ranker.retrieval.work.steps import Kept, Steps
from paddle_ranker.retrieval.work.turns import check, checked
from paddle_ranker.storage.untrusted import check_file, inside, open_array, open_file, read_json
from paddle_ranker.unicode.characters import fold

if TYPE_CHECKING:
    from paddle_ranker.retrieval.stored.field_values import FieldValues
    from paddle_ranker.retrieval.vectors.faiss_index import FaissSegment
    from paddle_ranker.retrieval.vectors.field_vectors import FieldVectors

INFO = "segment.json"
STATES = "states"
_MAPPED = 1 << 20  # smaller files are read, because each memory-mapped file holds a descriptor
HASHES = ("id_hashes", "id_key_hashes", "text_hashes", "title_hashes")  # arrays of hashes, and the row of each
_LETTERS_OR_DIGITS = re.compile(r"[^\W\d_]+|\d+")
WORD_ARRAYS = "words_"  # prefix of the arrays by which words are searched
_LOOKED_AT = 64  # rows that are checked for removal at a time
_PARSED = 1 << 16  # bytes of values that are parsed at a time
_SCALED = 1 << 23  # fields with more bytes of values have no `numeric_values`


class SegmentStates(Protocol):
    """Open states of a segment's documents; see `snapshots.stored_states`.

    Attributes:
        arrays: arrays in files, which may be memory-mapped.
        sizes: bytes of each file.
    """

    @property
    def arrays(self) -> Sequence[Array]: ...

    @property
    def sizes(self) -> Sequence[int]: ...

    def check(self) -> None:
        """Read all files; raises `CheckpointError` for one that has changed."""


class Segment:
    """Segment that is open for reading; thread-safe.

    Attributes:
        count: number of documents.
        fields: names of the documents' fields.
        arrays: arrays in the segment's files, by name.
        vectors: vectors by field.
        postings: inverted index, None without words.
        states: stored states of the documents; None without any, and until `open_states` is called.
        matching: method, cached: called with a typed filter; returns which documents meet it, `[n] bool`.
        typed_values: method, cached: called with a field and its type; returns the field's values as `FieldValues`.
    """

    def __init__(self, folder: Path, schema: Schema):
        self.folder, self.name, self._schema = folder, folder.name, schema
        self.arrays: dict[str, NDArray[np.generic]] = {}
        self._mapped: list[tuple[mmap, int]] = []  # memory-mapped files, and their sizes when they were opened
        with self.reading():
            info = read_json(inside(inside(folder.parent, folder.name), INFO))
            self.count: int = info["count"]
            self.fields = list(info["fields"])
            names = {name for name in self.fields if isinstance(name, str)}
            if type(self.count) is not int or not len(names) == len(self.fields) <= MOST_FIELDS:
                raise ValueError(f"{INFO} states {self.count!r} documents with {brief(repr(self.fields))}")
            self._sums: dict[str, int] = dict(info["crc32"])
            sizes = info.get("bytes", {})
            for name in self._sums:
                path = inside(folder, name)
                if name in sizes and check_file(path, sys.maxsize) != sizes[name]:
                    raise ValueError(f"{name} has {path.stat().st_size:,} bytes, not {sizes[name]}")
                if path.suffix == ".npy":
                    self.arrays[path.stem] = self._held(open_array(path, _MAPPED))
            self._blobs = {name: self._blob(name) for name in ("documents.jsonl", "ids.bin", "fields.jsonl")}
            self._require_all()
            self.vectors = {name: self._vectors_of(file_prefix(name)) for name in self._vector_fields()}
            words = {n[len(WORD_ARRAYS) :]: array for n, array in self.arrays.items() if n.startswith(WORD_ARRAYS)}
            self.postings = Postings.read(words) if words else None
        self.states: Optional[SegmentStates] = None
        self.matching = lru_cache(maxsize=16)(self._matching)
        self.typed_values = lru_cache(maxsize=64)(self._typed_values)
        self._typing = lru_cache(maxsize=None)(lambda field: Kept(partial(self._common_types, field)))

    def _require_all(self) -> None:
        """Raise `ValueError` if arrays do not fit each other, or if a file is cut short."""
        count, arrays, sizes = self.count, self.arrays, {name: len(blob) for name, blob in self._blobs.items()}
        hashes = dict.fromkeys(HASHES, (2, count))
        shapes = {"offsets": (count + 1,), "id_offsets": (count + 1,), "fields": (len(self.fields), count), **hashes}
        ends = {"offsets": sizes["documents.jsonl"], "id_offsets": sizes["ids.bin"]}
        if f"{WORD_ARRAYS}terms" in arrays:
            occurrences, searched = len(arrays[f"{WORD_ARRAYS}documents"]), len(self._schema.words)
            lengths = (count,) if searched == 1 else (count, searched)
            shapes.update(
                {WORD_ARRAYS + "lengths": lengths, WORD_ARRAYS + "starts": (len(arrays[f"{WORD_ARRAYS}terms"]) + 1,)}
            )
            shapes.update(
                {
                    WORD_ARRAYS + "codes": (occurrences,),
                    WORD_ARRAYS + "pairs": (len(arrays[f"{WORD_ARRAYS}pairs"]), 2 * searched),
                }
            )
            ends[f"{WORD_ARRAYS}starts"] = occurrences
        for name in self._vector_fields():
            file = f"{file_prefix(name)}passages"
            if (passages := arrays.get(file)) is None:
                continue
            shapes[file] = (len(passages), 3)
            rows = passages[:, 0].astype(np.int64)
            fits = not (np.diff(rows) < 0).any() and (rows[:1] >= 0).all() and (rows[-1:] < count).all()
            if name == VECTORS:  # every document has a passage
                fits = fits and len(rows) >= count and not rows[:1].any() and rows[-1:].sum() == count - 1
            if not fits:
                raise ValueError(f"{file} do not fit {count:,} documents")
        for name, shape in shapes.items():
            array = arrays[name]
            is_whole = name not in ends or int(array[-1]) == ends[name]
            if array.shape != shape or array.dtype.kind not in "iu" or not is_whole:
                raise ValueError(f"{name} is {list(array.shape)}, and does not fit {count:,} documents")
        if len(self._field_ends) != len(self.fields):
            raise ValueError(f"fields.jsonl has {len(self._field_ends)} lines, not {len(self.fields)}")

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Turn an error of the block that a damaged file causes into a `CheckpointError`."""
        try:
            yield
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
            raise CheckpointError(
                f"{self.folder}: damaged ({brief(str(error))}); copy the index again, or build it anew"
            ) from error

    def require_held(self) -> None:
        """Raise `CheckpointError` if a memory-mapped file was cut short: a read beyond its end kills the process."""
        for file, size in self._mapped:
            if file.size() < size:
                raise CheckpointError(f"{self.folder}: a file was cut short while it was open; copy the index again")

    def _held(self, array: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return a memory-mapped array as a plain array, since slices of a memmap cost some microseconds each.

        The size of its file is recorded for `require_held`.
        """
        if isinstance(array, np.memmap):
            file: mmap = array._mmap  # type: ignore[attr-defined]  # `mmap.size` is the current size of the file
            self._mapped.append((file, file.size()))
        return np.asarray(array)

    def _blob(self, name: str) -> NDArray[np.uint8]:
        with open_file(inside(self.folder, name), sys.maxsize) as stream:
            if os.fstat(stream.fileno()).st_size > _MAPPED:
                return self._held(np.memmap(stream, np.uint8, "r"))  # type: ignore[return-value]
            return np.frombuffer(stream.read(), np.uint8)

    def _vector_fields(self) -> list[str]:
        """Return the names of the vector fields that have files in this segment."""
        return [name.rpartition(".")[0] or VECTORS for name in self.arrays if name.rpartition(".")[2] == "vectors"]

    def _vectors_of(self, prefix: str) -> FieldVectors:
        from paddle_ranker.retrieval.vectors.exact_search import StoredVectors
        from paddle_ranker.retrieval.vectors.field_vectors import FieldVectors

        stored = StoredVectors(self.arrays[f"{prefix}vectors"], self.arrays.get(f"{prefix}scales"))  # type: ignore[arg-type]
        return FieldVectors(self.count, stored, self.arrays.get(f"{prefix}passages"))  # type: ignore[arg-type]

    def open_index(self, name: str, info: VectorsInfo) -> Optional[FaissSegment]:
        """Return the approximate index of a field's vectors; None if every vector is compared."""
        from paddle_ranker.retrieval.vectors.faiss_index import FILE, FaissSegment

        vectors, file = self.vectors[name], file_prefix(name) + FILE
        if vectors.index is None and file in self._sums:
            with open_file(inside(self.folder, file), sys.maxsize) as stream:
                mapped = mmap(stream.fileno(), 0, access=ACCESS_READ)
            self._mapped.append((mapped, mapped.size()))
            vectors.index = FaissSegment(self.folder / file, info, len(vectors))
        return vectors.index

    def open_states(self, open_in: Callable[[Path, RankerStates, int], SegmentStates], wanted: RankerStates) -> None:
        """Open the stored states of the documents, unless they are open; see `StatesKind.open`."""
        if self.states is None:
            self.states = open_in(inside(self.folder, STATES), wanted, self.count)
            for array in self.states.arrays:
                self._held(array)

    def __len__(self) -> int:
        return self.count

    def id(self, row: int) -> str:
        return self.ids(np.array([row]))[0]

    def ids(self, rows: Integers) -> list[str]:
        offsets, blob = self.arrays["id_offsets"], self._blobs["ids.bin"].data
        with self.reading():
            return [
                str(blob[start:end], "utf-8") for start, end in zip(offsets[rows].tolist(), offsets[rows + 1].tolist())
            ]

    def document(self, row: int) -> Document:
        with self.reading():
            record = json.loads(self.line(row))
            document = Document(record["id"], record["text"], record["fields"], record["version"])
            kinds = (document.id, str), (document.text, str), (document.fields, dict), (document.version, int)
            if not all(isinstance(value, kind) for value, kind in kinds):
                raise ValueError(f"document {row + 1:,} is not as it was written")
            return document

    def document_bytes(self, rows: Sequence[int]) -> int:
        """Return how many bytes of `documents.jsonl` the documents at `rows` take."""
        indices, offsets = np.asarray(rows, np.int64), self.arrays["offsets"]
        return int((offsets[indices + 1] - offsets[indices]).sum())

    def line(self, row: int) -> bytes:
        """Return the line of `documents.jsonl` with the document in a row."""
        start, end = self.arrays["offsets"][row : row + 2].tolist()
        return bytes(self._blobs["documents.jsonl"][start:end])

    def rows_of_ids(self, ids: Sequence[str], hashes: NDArray[np.uint64]) -> Iterator[tuple[int, int]]:
        """Yield (index in `ids`, row) for each id that this segment has; `hashes` has the hash of each id."""
        candidates = list(self._hashed("id_hashes", hashes))
        candidate_ids = self.ids(np.array([row for _, row in candidates], np.int64))
        return (candidate for candidate, id in zip(candidates, candidate_ids) if id == ids[candidate[0]])

    def rows_of_hashes(self, hashes: NDArray[np.uint64]) -> Iterator[tuple[int, int]]:
        """Yield (index in `hashes`, row) for each document the hash of whose id is in `hashes`."""
        return self._hashed("id_hashes", hashes)

    def by_hash(
        self, after: Optional[tuple[int, str]], live: Optional[Booleans], count: int
    ) -> list[tuple[int, str, int]]:
        """Return (hash, id, row) of the first `count` live documents after a hash and id, ordered by hash, then id.

        after: hash and id; None: from the first document
        live: which rows are live, `[documents] bool`; None: all
        """
        (hashes, rows), entries = self.arrays["id_hashes"], list[tuple[int, str, int]]()
        start = 0 if after is None else int(np.searchsorted(hashes, np.uint64(after[0])))
        while start < len(hashes) and len(entries) < count:
            last = min(start + max(count, _LOOKED_AT), len(hashes)) - 1
            end = int(np.searchsorted(hashes, hashes[last], "right"))  # equal hashes are ordered together
            check()
            candidates = rows[start:end].astype(np.int64)
            kept = np.arange(len(candidates)) if live is None else np.flatnonzero(live[candidates])
            candidates = candidates[kept]
            batch = sorted(zip(hashes[start:end][kept].tolist(), self.ids(candidates), candidates.tolist()))
            entries += [entry for entry in batch if after is None or entry[:2] > after]
            start = end
        return entries[:count]

    def hashes_of_rows(self) -> NDArray[np.uint64]:
        """Return the hash of each document's id, `[n]`."""
        hashes, rows = self.arrays["id_hashes"].astype(np.uint64)
        by_row = np.empty(len(rows), np.uint64)
        by_row[rows.astype(np.int64)] = hashes
        return by_row

    def rows_of_texts(
        self, texts: Sequence[str], hashes: NDArray[np.uint64], live: Optional[Booleans] = None
    ) -> Iterator[tuple[int, int]]:
        """Yield, for each text that this segment has, its index in `texts` and its first live row.

        texts: distinct texts, as `Schema.identity` returns them
        hashes: the hash of each text
        live: which rows are live, `[documents] bool`; None: all
        """
        seen: set[int] = set()
        for index, row in self._hashed("text_hashes", hashes):
            is_new = index not in seen and (live is None or live[row])
            if is_new and self._schema.identity(self.document(row)) == texts[index]:
                seen.add(index)
                yield index, row

    def rows_of_titles(self, keys: Sequence[str]) -> NDArray[np.int64]:
        """Return the rows of the documents whose `Schema.key_of` is among `keys`."""
        return self._rows_of_keys("title_hashes", keys)

    def rows_of_id_keys(self, keys: Sequence[str]) -> NDArray[np.int64]:
        """Return the rows of the documents whose `id_key` is among `keys`."""
        return self._rows_of_keys("id_key_hashes", keys)

    def _rows_of_keys(self, name: str, keys: Sequence[str]) -> NDArray[np.int64]:
        rows = [of_key.astype(np.int64) for _, of_key in self._rows_by_hash(name, text_hashes(keys))]
        return np.concatenate([np.empty(0, np.int64), *rows])

    def rows_of_value(self, condition: Condition) -> NDArray[np.int64]:
        """Return the rows of the documents that meet a typed condition with `=`."""
        holds = self.typed_values(condition.field, condition.type).meeting(condition)
        if not holds.any():
            return np.empty(0, np.int64)
        # The code -1, of a document without the field, takes the last entry.
        return np.flatnonzero(np.append(holds, False)[self.codes_of(condition.field)])

    def _hashed(self, name: str, wanted: NDArray[np.uint64]) -> Iterator[tuple[int, int]]:
        for index, rows in self._rows_by_hash(name, wanted):
            yield from ((index, int(row)) for row in rows)

    def _rows_by_hash(self, name: str, wanted: NDArray[np.uint64]) -> Iterator[tuple[int, NDArray[np.uint64]]]:
        """Yield (index in `wanted`, rows) for each of the `wanted` hashes that documents have.

        name: an array of `[2, n]`, hashes in order, and the row of each hash
        """
        hashes, rows = self.arrays[name]
        starts, ends = hashes.searchsorted(wanted), hashes.searchsorted(wanted, "right")
        for index in np.flatnonzero(ends > starts).tolist():
            yield index, rows[starts[index] : ends[index]]

    def verify(self) -> tuple[int, int]:
        """Read all files of the segment; return the number of files, and their size in bytes.

        Raises `CheckpointError` for a file that has changed.
        """
        size = 0
        for name, sum in self._sums.items():
            path = self.folder / name
            if not path.is_file() or checksum(path) != sum:
                problem = "not as it was written" if path.exists() else "missing"
                raise CheckpointError(f"{path}: {problem}; copy the index again, or build it anew")
            size += path.stat().st_size
        for name, rows, wanted in (
            *((name, len(vectors.stored), len(vectors)) for name, vectors in self.vectors.items()),
            ("words", len(self.postings.lengths) if self.postings else 0, self.count),
        ):
            if rows not in (0, wanted):
                raise CheckpointError(f"{self.folder}: {rows:,} {name} of {wanted:,}; build it anew")
        files = len(self._sums)
        if self.states is not None:
            self.states.check()
            for states_size in self.states.sizes:
                files, size = files + 1, size + states_size
        return files, size

    def blob(self, name: str) -> NDArray[np.uint8]:
        """Return the bytes of `documents.jsonl`, `ids.bin` or `fields.jsonl`."""
        return self._blobs[name]

    def codes_of(self, field: str) -> NDArray[np.int32]:
        """Return, for each document, the index of its value in `values_of(field)`, `[n]`; -1 for no value."""
        if field not in self.fields:
            return np.full(self.count, -1, np.int32)
        codes: NDArray[np.int32] = self.arrays["fields"][self.fields.index(field)]
        return codes

    def values_of(self, field: str) -> list[object]:
        """Return the distinct values of a field."""
        return [value for values in checked(self.each_value(field)) for value in values]

    def each_value(self, field: str) -> Iterator[list[object]]:
        """Yield the distinct values of a field in short lists."""
        from paddle_ranker.retrieval.stored.field_values import value_lists

        with self.reading():
            yield from (values for values, _ in value_lists(self._line_of(field)))

    def some_values(self, field: str, most: int, live: Optional[Booleans]) -> tuple[list[object], bool]:
        """Return the values that live documents have in a field, and whether the list is complete.

        If the field's values take more than `most` bytes, at most the first value is returned, although it may be of a
        removed document. If the first value is a longer text, "" is returned in its place.

        live: `[n] bool`, which documents are live; None: all
        """
        line = self._line_of(field)
        check()
        if len(line) <= most:
            values = self.values_of(field)
            if live is None or not values:
                return values, True
            return list(itertools.compress(values, self.value_counts(field, live))), True
        text = bytes(line[:most]).decode("utf-8", "ignore")
        try:
            value, end = json.JSONDecoder().raw_decode(text, text.index("[") + 1)
            return [value] if end < len(text) else [], False  # at the end, a number may be cut
        except ValueError:  # the first value is longer
            return [""] if text.startswith('["') else [], False

    def _line_of(self, field: str) -> NDArray[np.uint8]:
        """Return the line of `fields.jsonl` with the values of a field; `[]` if the segment has no such field."""
        if field not in self.fields:
            return np.frombuffer(b"[]", np.uint8)
        number, ends = self.fields.index(field), self._field_ends
        return self._blobs["fields.jsonl"][int(ends[number - 1]) + 1 if number else 0 : int(ends[number])]

    @cached_property
    def _field_ends(self) -> Integers:
        """Where the lines of `fields.jsonl` end, `[fields]`."""
        return np.flatnonzero(self._blobs["fields.jsonl"] == ord("\n"))

    def bytes_of(self, field: str) -> int:
        """Return the length of a field's values as JSON, in bytes."""
        return len(self._line_of(field))

    def value(self, field: str, type: str, row: int) -> tuple[Value, ...]:
        """Return a document's value in a field as its items: those of a list, one for another value, or none."""
        code = int(self.codes_of(field)[row])
        return () if code < 0 else self.typed_values(field, type).values(code)

    def common_types(self, field: str) -> CommonTypes:
        """Return the types that fit all values of a field; a list counts by its items. The result is cached."""
        return self._typing(field).result()

    def _common_types(self, field: str) -> Steps[CommonTypes]:
        common = CommonTypes()
        for values in self.each_value(field):
            for value in values:
                for item in value if isinstance(value, list) else (value,):
                    common.add(item)
            yield
        return common

    def value_counts(self, field: str, mask: Booleans) -> Integers:
        """Return, for each value of a field, how many documents in `mask` have it; zeros at the end are left out."""
        check()
        return np.bincount(self.codes_of(field)[mask] + 1, minlength=1)[1:]

    def numeric_values(self, field: str, type: str) -> Optional[tuple[str, NDArray[np.int32], Positions]]:
        """Return `FieldValues.numeric_values` of a field.

        Returns None also if `type` is neither number nor date, and if the values take more than 8 MB.
        """
        if type not in (NUMBERS, DATES) or self.bytes_of(field) > _SCALED:
            return None
        return self.typed_values(field, type).numeric_values()

    def _typed_values(self, field: str, type: str) -> FieldValues:
        from paddle_ranker.retrieval.stored.field_values import FieldValues

        return FieldValues(self._line_of(field), type)

    def _matching(self, where: Filter) -> Booleans:
        """Return which documents meet a typed filter, `[n] bool`; results of the latest filters are cached."""
        check()
        meet = np.ones(self.count, bool)
        for condition in checked(where.conditions):
            holds = self.typed_values(condition.field, condition.type).meeting(condition)
            # The code -1, of a document without the field, takes the last entry.
            meet &= np.append(holds, condition.meets_missing)[self.codes_of(condition.field)]
        return meet


def id_key(id: str) -> str:
    """Return the folded letters and digits of an id, by which K117 is found as k117, K 117 and K-117.

    Letters and digits side by side are one; a space separates what would otherwise be another word or number.
    """
    folded, key, end = fold(id), "", 0
    for part in _LETTERS_OR_DIGITS.finditer(folded):
        is_apart = key and part.start() > end and key[-1].isdigit() == part[0][0].isdigit()
        key, end = f"{key} {part[0]}" if is_apart else key + part[0], part.end()
    return key or folded.strip()


def file_prefix(field: str) -> str:
    """Return the prefix of the names of a vector field's files."""
    return "" if field == VECTORS else f"{field}."


def checksum(path: Path) -> int:
    """Return the CRC-32 of a file."""
    crc = 0
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            crc = zlib.crc32(block, crc)
    return crc
