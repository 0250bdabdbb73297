"""Rows that a Python caller gives, as the file that a command reads."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Optional, cast

from paddle_ranker.errors import UsageError, quoted
from paddle_ranker.options.input_files import ShownFile, copied_fifo
from paddle_ranker.retrieval.values.typed_values import plain
from paddle_ranker.storage.atomic import link_or_copy

Rows = Any  # a data frame, or an iterable of mappings, texts or `Document`s; see `notebook.Index.build`
_TEXTS = ("id", "title", "text", "query")  # columns that hold texts, never files


@contextmanager
def as_file(rows: Rows, texts: Sequence[Optional[str]] = ()) -> Iterator[str]:
    """Yield `rows` if it is a path; otherwise write the rows to a temporary file and yield its path.

    Messages call the temporary file "rows". A pipe is copied to a temporary file, too.

    texts: further columns that hold texts, see `written_rows`
    """
    if isinstance(rows, (str, Path)):
        with ExitStack() as stack:
            yield copied_fifo(str(rows), stack)
        return
    with written_rows(rows, texts) as path:
        yield ShownFile(path, "rows")


@contextmanager
def written_rows(rows: Rows, texts: Sequence[Optional[str]] = ()) -> Iterator[str]:
    """Write rows to a temporary file of JSON lines, yield the file's path, and delete the file after the block.

    texts: names of columns that hold texts, besides id, title, text and query

    Raises `UsageError` if `rows` is no series of rows, and for a row that is none or has bytes as a text.
    """
    if rows is None or isinstance(rows, (Mapping, bytes)) or not isinstance(rows, Iterable):
        raise UsageError(f"rows: {quoted(rows)}: expected several rows, as in [{{'id': '1', 'text': 'a text'}}]")
    if any(name is not None for name in getattr(getattr(rows, "index", None), "names", ())):
        rows = rows.reset_index()  # a named index of pandas is a column, such as the id
    for method in ("to_dicts", "to_dict"):  # polars, pandas
        if hasattr(rows, "columns") and hasattr(rows, method):
            rows = getattr(rows, method)(*(["records"] if method == "to_dict" else []))
    with tempfile.TemporaryDirectory(prefix="paddle_ranker_") as folder:
        path = Path(folder) / "rows.jsonl"

        def plain_or_copied(value: Any) -> Any:
            """Convert a value for JSON; copy the file of a `Path` to the temporary folder.

            The value of a `Path` becomes the copy's path, relative to the temporary folder.
            """
            if not isinstance(value, Path):
                return _plain(value)
            path_digest = hashlib.sha256(os.fsencode(value.resolve())).hexdigest()
            copy = Path(folder, path_digest[:8], value.name)  # the document's id, unless it has one
            if not copy.exists():
                copy.parent.mkdir()
                link_or_copy(value.resolve(), copy)
            return copy.relative_to(folder).as_posix()

        with path.open("w", encoding="utf-8", errors="surrogatepass") as stream:
            for number, row in enumerate(cast("Iterable[Any]", rows), start=1):
                values = _mapping(row, number)
                for name in (*_TEXTS, *texts):
                    if name is not None and isinstance(values.get(name), (bytes, bytearray, memoryview)):
                        raise UsageError(f"rows, row {number:,}: its {name} is bytes, expected text: decode it")
                stream.write(json.dumps(values, ensure_ascii=False, default=plain_or_copied) + "\n")
        yield str(path)


def _mapping(row: Any, number: int) -> Mapping[str, Any]:
    if isinstance(row, str):
        return {"text": row}
    if isinstance(row, Mapping):
        return {str(name): value for name, value in row.items()}
    if all(hasattr(row, name) for name in ("id", "text", "fields")):
        return {"id": row.id, "text": row.text, **row.fields}
    raise UsageError(f"rows, row {number:,}: {quoted(row)}: expected a data frame, mappings, texts or Documents")


def _plain(value: Any) -> Any:
    """Convert a value for JSON: NumPy's numbers to Python's, dates to text, bytes to a `data:` URL."""
    if isinstance(value, bytes):
        return f"data:;base64,{base64.b64encode(value).decode()}"
    converted = plain(value)
    if converted is not value:
        return converted
    raise UsageError(f"rows: {quoted(value)}: a field holds text, numbers, truth values, dates, and lists of these")
