"""Insert vectors of texts into Milvus, and search it with the vector of one of the texts.

The index commands also encode the texts, and search with any text:

paddle-ranker index build --corpus milvus_data.csv --output index --tower checkpoint/tower/best --method milvus
paddle-ranker search --index index "query"
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional

import numpy as np

from paddle_ranker.data.rows.records import Line, RecordFile
from paddle_ranker.errors import DataError, UsageError
from paddle_ranker.options import Options, json_text, main_of, note, option
from paddle_ranker.options.declare import ANY_TEXT, FETCHED_FOLDER
from paddle_ranker.progress import Progress
from paddle_ranker.storage.prefetch import chunks

if TYPE_CHECKING:
    from paddle_ranker.array_types import Vectors
    from paddle_ranker.milvus.store import MilvusRows


@dataclass(frozen=True)
class MilvusSearchOptions(Options):
    data_path: str = option(help="texts, one per line", files=True, name="corpus")
    embedding_path: str = option(
        help=".npy file of their vectors, in the same order", name="vectors", addresses=FETCHED_FOLDER
    )
    batch_size: int = option(100_000, help="rows to insert at a time", minimum=1)
    index: int = option(0, help="number of the row to search with, from 0", minimum=0)
    insert: bool = option(False, help="insert texts and vectors into Milvus, and replace those there", either=True)
    search: bool = option(False, help="search, and print the nearest texts", either=True)
    top_k: int = option(10, help="number of texts to find", minimum=1, maximum=16_384)
    uri: Optional[str] = option(
        None,
        help="address of Milvus, or a file of Milvus Lite (default: http://MILVUS_HOST:MILVUS_PORT of the environment, "
        "127.0.0.1 and 19530 without)",
        addresses=ANY_TEXT,
    )
    collection: str = option("literature_search", help="name of the rows in Milvus")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.insert and not self.search:
            raise UsageError("--insert or --search: give one of them, or both")

    @property
    def address(self) -> str:
        host, port = os.environ.get("MILVUS_HOST", "127.0.0.1"), os.environ.get("MILVUS_PORT", "19530")
        return self.uri or f"http://{host}:{port}"


def run(options: MilvusSearchOptions) -> None:
    from paddle_ranker.milvus.store import MilvusRows
    from paddle_ranker.retrieval.vectors.vector_files import open_vectors

    stored = open_vectors(options.embedding_path)
    if options.search and options.index >= len(stored):
        raise UsageError(f"--index {options.index}: {options.embedding_path} has {len(stored):,} rows, from 0")
    rows = MilvusRows(options.address, options.collection, stored.values.shape[1], texts=True)
    try:
        if options.insert:
            _insert(rows, options)
        if options.search:
            query = _checked(stored.block(options.index, options.index + 1), options.index)
            (hits,) = rows.nearest(query, options.top_k)
            for key, score, text in zip(hits.keys, hits.scores, hits.texts):
                print(json_text({"index": key, "text": text, "score": score}))
    finally:
        rows.close()


def _insert(rows: MilvusRows, options: MilvusSearchOptions) -> None:
    from paddle_ranker.retrieval.vectors.vector_files import open_vectors

    stored, texts, count = open_vectors(options.embedding_path), _texts(options.data_path), 0
    with Progress(desc="insert", unit="row", total=len(stored)) as progress:
        for batch in chunks(texts, options.batch_size):
            if count + len(batch) > len(stored):
                raise DataError(f"{options.data_path}: more rows than the {len(stored):,} of {options.embedding_path}")
            vectors = _checked(stored.block(count, count + len(batch)), count)
            rows.put(np.arange(count, count + len(batch)), vectors, batch)
            count += len(batch)
            progress.update(len(batch))
    if count < len(stored):
        raise DataError(f"{options.data_path}: {count:,} rows, {options.embedding_path} has {len(stored):,}")
    rows.drop_from(count)  # drop the rest of a longer corpus
    rows.finish()
    print(f"{options.address}: {rows.count():,} rows in {options.collection}")


def _texts(path: str) -> Iterator[str]:
    """Yield the texts; raises `DataError` for a text that is too long for Milvus."""
    from paddle_ranker.milvus.store import TEXT_BYTES

    rows = RecordFile(path, Line, skip_bad_rows=True)  # the vectors may also lack bad rows
    for row in rows:
        size = len(row.text.encode("utf-8"))
        if size > TEXT_BYTES:
            raise DataError(
                f"{path}, line {rows.line}: {size:,} bytes, and Milvus holds {TEXT_BYTES:,}; shorten the text"
            )
        yield row.text
    if rows.skipped:
        note(f"{path}: {rows.report()}")


def _checked(vectors: Vectors, first: int) -> Vectors:
    from paddle_ranker.retrieval.vectors.exact_search import refuse_unstorable

    refuse_unstorable(vectors, "float32", lambda row: f"row {first + row}")
    return vectors


main = main_of(run, MilvusSearchOptions, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
