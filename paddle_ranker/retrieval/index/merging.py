"""Merge several segments into one, without removed documents, in memory that does not grow with the segments."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Optional

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.array_types import Booleans, Integers
from paddle_ranker.lexical.postings import Merging, Postings, new_rows
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.schema import Schema
from paddle_ranker.retrieval.stored.segment_writing import WriteIndex, WriteStates, write_segment_info
from paddle_ranker.retrieval.stored.segments import HASHES, STATES, WORD_ARRAYS, Segment, file_prefix
from paddle_ranker.retrieval.vectors.exact_search import StoredVectors
from paddle_ranker.retrieval.vectors.faiss_index import FILE
from paddle_ranker.retrieval.work.turns import checked
from paddle_ranker.storage.atomic import new_folder

_AT_ONCE = 1 << 14  # documents that are copied at a time
MOST_SEGMENTS, MERGE_RATIO = 8, 2  # an index with more segments merges the last ones, see `first_to_merge`
Source = tuple[Segment, Optional[Booleans]]  # a segment, and which of its documents are kept, None for all


def first_to_merge(sizes: Sequence[int]) -> Optional[int]:
    """Return the index of a segment that should be merged with all segments after it; None: merge nothing.

    If there are more than `MOST_SEGMENTS`, the last two are merged. Going backwards from them, each further segment is
    merged, too, until one has more than `MERGE_RATIO` times the documents of all segments after it.

    sizes: number of documents of each segment
    """
    if len(sizes) <= MOST_SEGMENTS:
        return None
    first = len(sizes) - 2
    while first > 0 and sizes[first - 1] <= MERGE_RATIO * sum(sizes[first:]):
        first -= 1
    return first


def merge_segments(
    folder: Path,
    sources: Sequence[Source],
    write_index: Mapping[str, WriteIndex],
    write_states: Optional[WriteStates] = None,
) -> None:
    """Write a new segment of the kept documents of several segments, in their order.

    write_index: see `write_segment`
    write_states: computes the states of the documents again; None: stored states are copied
    """
    with new_folder(folder) as target:
        count = sum(_kept(*source) for source in sources)
        _merge_blob(target, "documents.jsonl", "offsets", sources, count)
        _merge_blob(target, "ids.bin", "id_offsets", sources, count)
        for name in HASHES:
            np.save(target / f"{name}.npy", _merged_hashes(name, sources))
        fields = _merge_fields(target, sources, count)
        for field in sources[0][0].vectors:
            _merge_vectors(target, field, sources, write_index.get(field))
        _merge_words(target, [(segment.postings, mask) for segment, mask in sources if segment.postings is not None])
        _merge_states(target / STATES, sources, write_states)
        write_segment_info(target, count, fields)


def _new_array(path: Path, dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> NDArray[np.generic]:
    """Return a new array that writes to a file; an empty array cannot be memory-mapped, and is saved at once."""
    if 0 in shape:
        np.save(path, np.empty(shape, dtype))
        return np.empty(shape, dtype)
    array: NDArray[np.generic] = np.lib.format.open_memmap(path, "w+", dtype, shape)  # type: ignore[no-untyped-call]
    return array


def _kept(segment: Segment, mask: Optional[Booleans]) -> int:
    return len(segment) if mask is None else int(np.count_nonzero(mask))


def _blocks(count: int, mask: Optional[Booleans]) -> Iterator[Integers]:
    """Yield the indices below `count` that a mask keeps, in blocks; a mask of None keeps all."""
    for start in range(0, count, _AT_ONCE):
        stop = min(start + _AT_ONCE, count)
        yield np.arange(start, stop) if mask is None else start + np.flatnonzero(mask[start:stop])


def _new_rows(sources: Sequence[Source]) -> list[Integers]:
    return new_rows([(len(segment), mask) for segment, mask in sources])


def _merge_vectors(target: Path, field: str, sources: Sequence[Source], write_index: Optional[WriteIndex]) -> None:
    """Write the merged vectors of a vector field and, by `write_index` if given, their approximate index."""
    prefix, (first, mask) = file_prefix(field), sources[0]
    count = _merge_passages(target / f"{prefix}passages.npy", field, sources)
    arrays = {
        name: _merge_rows(target, f"{prefix}{name}", field, sources, count)
        for name in ("vectors", "scales")
        if f"{prefix}{name}" in first.arrays
    }
    if write_index is not None:
        stored = StoredVectors(arrays["vectors"], arrays.get("scales"))  # type: ignore[arg-type]
        write_index(target / f"{prefix}{FILE}", stored, first.folder / f"{prefix}{FILE}" if mask is None else None)


def _merge_states(target: Path, sources: Sequence[Source], write_states: Optional[WriteStates]) -> None:
    if write_states is not None:
        target.mkdir()
        write_states(target, (segment.document(row) for segment, rows in _rows(sources) for row in rows.tolist()))
    elif all((segment.folder / STATES).is_dir() for segment, _ in sources):
        from paddle_ranker.retrieval.snapshots.stored_states import kind_of_states

        target.mkdir()
        blocks = ((segment.folder / STATES, rows) for segment, rows in _rows(sources))
        kind_of_states(sources[0][0].folder.parent).merge(target, blocks)


def _rows(sources: Sequence[Source]) -> Iterator[tuple[Segment, Integers]]:
    """Yield each segment with its kept rows, in blocks."""
    return ((segment, rows) for segment, mask in sources for rows in _blocks(len(segment), mask))


def _merge_passages(file: Path, field: str, sources: Sequence[Source]) -> int:
    """Write the passages of a vector field, if a segment has any; return the number of vectors."""
    if all(segment.vectors[field].passages is None for segment, _ in sources):
        return sum(_kept(*source) for source in sources)
    merged = list[NDArray[np.int32]]()
    for (segment, _), new in zip(sources, _new_rows(sources)):
        spans = segment.vectors[field].passages
        if spans is None:  # each document has the vector of its whole text
            spans = np.zeros((len(segment), 3), np.int32)
            spans[:, 0] = np.arange(len(segment))
        moved = np.column_stack([new[spans[:, 0]], spans[:, 1:]]).astype(np.int32)
        merged.append(moved[moved[:, 0] >= 0])
    passages = np.concatenate(merged)
    np.save(file, passages)
    return len(passages)


def _merge_rows(target: Path, name: str, field: str, sources: Sequence[Source], count: int) -> NDArray[np.generic]:
    """Merge an array with one row per vector of a field into a file, and return it memory-mapped."""
    first = sources[0][0].arrays[name]
    merged = _new_array(target / f"{name}.npy", first.dtype, (count, *first.shape[1:]))
    written = 0
    for segment, mask in sources:
        vectors = segment.vectors[field]
        for rows in _blocks(len(vectors), None if mask is None else vectors.of(mask)):
            merged[written : written + len(rows)] = segment.arrays[name][rows]
            written += len(rows)
    return merged


def _merge_blob(target: Path, name: str, offsets: str, sources: Sequence[Source], count: int) -> None:
    """Write the bytes of all kept documents one after the other, and the offset where each document begins."""
    starts = _new_array(target / f"{offsets}.npy", np.dtype(np.int64), (count + 1,))
    written = 0
    with open(target / name, "wb") as stream:
        for segment, rows in _rows(sources):
            blob, old = segment.blob(name), segment.arrays[offsets]
            begins, ends = old[rows], old[rows + 1]
            # Neighbours are copied together.
            breaks = np.flatnonzero(np.diff(rows, prepend=-2, append=-2) != 1)
            for first, last in zip(breaks[:-1].tolist(), (breaks[1:] - 1).tolist()):
                stream.write(blob[begins[first] : ends[last]].data)
            starts[written + 1 : written + 1 + len(rows)] = int(starts[written]) + np.cumsum(ends - begins)
            written += len(rows)


def _merged_hashes(name: str, sources: Sequence[Source]) -> NDArray[np.uint64]:
    hashes, rows = [], []
    for (segment, _), new in zip(sources, _new_rows(sources)):
        hashed, old = segment.arrays[name]
        moved = new[old.astype(np.int64)]
        hashes.append(hashed[moved >= 0])
        rows.append(moved[moved >= 0].astype(np.uint64))
    all_hashes, all_rows = np.concatenate(hashes), np.concatenate(rows)
    order = np.lexsort((all_rows, all_hashes))
    return np.stack([all_hashes[order], all_rows[order]])


def _merge_fields(target: Path, sources: Sequence[Source], count: int) -> list[str]:
    """Write the distinct values of each field, and each document's code of its value; return the fields' names."""
    names = sorted({name for segment, _ in sources for name in segment.fields})
    merged = _new_array(target / "fields.npy", np.dtype(np.int32), (len(names), count))
    with open(target / "fields.jsonl", "wb") as stream:
        for number, name in enumerate(names):
            merged_codes: dict[str, int] = {}
            written = 0
            for segment, mask in sources:
                codes = segment.codes_of(name)
                codes = codes if mask is None else codes[mask]
                values = segment.values_of(name)
                used = np.zeros(len(values) + 1, bool)
                used[codes] = True  # the code -1, for no value, marks the last entry
                new = np.full(len(values) + 1, -1, np.int32)
                for code in np.flatnonzero(used[:-1]).tolist():
                    new[code] = merged_codes.setdefault(json.dumps(values[code], ensure_ascii=False), len(merged_codes))
                merged[number, written : written + len(codes)] = new[codes]
                written += len(codes)
            stream.write(f"[{', '.join(merged_codes)}]\n".encode())
    return names


def postings_of(documents: Sequence[Document], schema: Schema, tokenizer: str) -> Postings:
    """Return the inverted index of the searched fields of documents; `tokenizer` is a name in `TOKENIZERS`."""
    texts = [schema.searched(document) for document in checked(documents)]
    # Each item of a list is on its own line, so that no token spans two items.
    fields = [["\n".join(of_document[field]) for of_document in texts] for field in range(len(schema.words))]
    literal = [word.is_literal for word in schema.words]
    return Postings.of_fields([checked(field) for field in fields], schema.tokenizers(tokenizer), literal)


def _merge_words(target: Path, parts: Sequence[tuple[Postings, Optional[Booleans]]]) -> None:
    if not parts:
        return
    merging = Merging(parts)
    for name in ("terms", "starts", "pairs", "lengths", "spellings"):
        np.save(target / f"{WORD_ARRAYS}{name}.npy", getattr(merging, name))
    total = int(merging.starts[-1])
    documents = _new_array(target / f"{WORD_ARRAYS}documents.npy", np.dtype(np.int32), (total,))
    codes = _new_array(target / f"{WORD_ARRAYS}codes.npy", merging.code_type, (total,))
    merging.fill(documents, codes)  # type: ignore[arg-type]
