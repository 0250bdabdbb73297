"""Write a segment: documents with their words and vectors, as the files that `Segment` reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Optional, TypeVar, Union

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.data.rows.records import DocumentRow, without_nan
from paddle_ranker.errors import DataError, brief, quoted
from paddle_ranker.lexical.postings import Postings, text_hashes
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.schema import PLACES, Schema
from paddle_ranker.retrieval.stored.segments import INFO, STATES, WORD_ARRAYS, checksum, file_prefix, id_key
from paddle_ranker.retrieval.vectors.exact_search import StoredVectors
from paddle_ranker.retrieval.vectors.faiss_index import FILE
from paddle_ranker.retrieval.vectors.field_vectors import FieldVectors
from paddle_ranker.storage.atomic import new_folder

Row = TypeVar("Row", bound=Union[Document, DocumentRow])
WriteIndex = Callable[[Path, StoredVectors, Optional[Path]], None]
WriteStates = Callable[[Path, Iterable[Document]], None]  # of documents, into an empty folder
_NO_INDEX: Mapping[str, WriteIndex] = {}


class SegmentData(NamedTuple):
    """Contents of a new segment.

    vectors: vectors of the documents, by vector field
    postings: words of the documents; None if words are not searched
    write_states: writes the stored states of documents; None if none are stored
    """

    documents: Sequence[Document]
    vectors: Mapping[str, FieldVectors]
    postings: Optional[Postings]
    write_states: Optional[WriteStates] = None


def write_segment(
    folder: Path, contents: SegmentData, schema: Schema, write_index: Mapping[str, WriteIndex] = _NO_INDEX
) -> None:
    """Write a segment into a new folder, atomically.

    write_index: by vector field, a function that writes an approximate index; called with the path of the new file, the
        vectors, and the file of an index to extend, or None
    """
    documents = contents.documents
    with new_folder(folder) as target:
        lines = [_line(document) for document in documents]
        ids = [document.id.encode("utf-8") for document in documents]
        _write_blob(target, "documents.jsonl", "offsets", lines)
        _write_blob(target, "ids.bin", "id_offsets", ids)
        arrays: dict[str, NDArray[np.generic]] = {
            "id_hashes": _sorted_hashes(text_hashes(document.id for document in documents)),
            "text_hashes": _sorted_hashes(text_hashes(map(schema.identity, documents))),
            "title_hashes": _sorted_hashes(text_hashes(map(schema.key_of, documents))),
            "id_key_hashes": _sorted_hashes(text_hashes(id_key(document.id) for document in documents)),
        }
        values_of = [schema.values(document) for document in documents]
        names, arrays["fields"], values = _field_values(values_of, {PLACES} if schema.read_files else set())
        (target / "fields.jsonl").write_bytes(b"".join(_json(value) + b"\n" for value in values))
        for name, vectors in contents.vectors.items():
            prefix = file_prefix(name)
            arrays[f"{prefix}vectors"] = vectors.stored.values
            if vectors.stored.scales is not None:
                arrays[f"{prefix}scales"] = vectors.stored.scales
            if vectors.passages is not None:
                arrays[f"{prefix}passages"] = vectors.passages
            if name in write_index:
                write_index[name](target / f"{prefix}{FILE}", vectors.stored, None)
        if contents.postings is not None:
            arrays.update({WORD_ARRAYS + name: array for name, array in contents.postings.arrays().items()})
        for name, array in arrays.items():
            np.save(target / f"{name}.npy", array)
        if contents.write_states is not None:
            (target / STATES).mkdir()
            contents.write_states(target / STATES, documents)
        write_segment_info(target, len(documents), names)


def write_segment_info(target: Path, count: int, fields: Sequence[str]) -> None:
    """Write `segment.json`, with the size and the checksum of each file in the folder."""
    paths = sorted(path for path in target.iterdir() if path.is_file())
    sizes, sums = {path.name: path.stat().st_size for path in paths}, {path.name: checksum(path) for path in paths}
    (target / INFO).write_bytes(_json({"count": count, "fields": list(fields), "bytes": sizes, "crc32": sums}))


def storable(document: Row, schema: Schema) -> Row:
    """Return a document with null in place of NaN, and with the numbers and truth values that its texts stand for.

    Raises `DataError` if the document's text, id or fields cannot be stored.
    """
    id, text, fields = document.id, document.text, document.fields
    if not isinstance(fields, Mapping) or not all(isinstance(name, str) for name in fields):
        raise DataError(f"document {quoted(text if id is None else id)}: its fields are {quoted(fields)}, expected a "
                        "mapping of names to values")  # fmt: skip
    for name, value in (("id", id), ("text", text)):
        if value is None and name == "id":
            continue
        if not isinstance(value, str) or not value:
            problem = f"its {name} is {'empty' if value == '' else 'no text'}"
        else:
            try:
                value.encode("utf-8")
                continue
            except UnicodeEncodeError:
                problem = f"its {name} holds half of a surrogate pair"
        raise DataError(f"document {quoted(text if id is None else id)}: {problem}; correct it")
    values = schema.with_values(without_nan(fields))
    return document if all(values[name] is fields[name] for name in fields) else replace(document, fields=values)


def have_same_contents(document: Document, other: Document) -> bool:
    """Return whether two documents have the same text and fields; `true`, `1` and `1.0` are different values."""
    are_equal = (document.text, document.fields) == (other.text, other.fields)
    return are_equal and _sorted(document.fields) == _sorted(other.fields)


def _sorted(fields: Mapping[str, object]) -> str:
    return json.dumps(dict(fields), sort_keys=True, default=str)


def _line(document: Document) -> bytes:
    """Convert a document to a line of JSON; raises `DataError` if it cannot be stored."""
    try:
        row = {"id": document.id, "text": document.text, "fields": dict(document.fields), "version": document.version}
        return _json(row) + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        problem = "half of a surrogate pair" if isinstance(error, UnicodeEncodeError) else brief(str(error))
        raise DataError(
            f"document {quoted(document.id)}: its fields cannot be stored ({problem}); correct them"
        ) from None


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")


def _write_blob(target: Path, name: str, offsets: str, parts: Sequence[bytes]) -> None:
    (target / name).write_bytes(b"".join(parts))
    np.save(target / f"{offsets}.npy", np.cumsum([0, *map(len, parts)], dtype=np.int64))


def _sorted_hashes(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    order = np.argsort(hashes, kind="stable")
    return np.stack([hashes[order], order.astype(np.uint64)])


def _field_values(
    documents: Sequence[Mapping[str, object]], left_out: set[str]
) -> tuple[list[str], NDArray[np.int32], list[list[object]]]:
    """Return the fields' names; each document's code of its value, `[fields, n]`; each field's values by code.

    documents: each document's values by path, see `Schema.values`
    left_out: names of fields that are left out
    """
    names = sorted({name for values in documents for name in values} - left_out)
    numbers = {name: number for number, name in enumerate(names)}
    codes = np.full((len(names), len(documents)), -1, np.int32)
    value_codes: list[dict[bytes, int]] = [{} for _ in names]
    for row, fields in enumerate(documents):
        for name, value in fields.items():
            if value is not None and name not in left_out:
                number = numbers[name]
                codes[number, row] = value_codes[number].setdefault(_json(value), len(value_codes[number]))
    values = [[json.loads(value) for value in field_codes] for field_codes in value_codes]
    return names, codes, values
