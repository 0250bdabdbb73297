"""BEIR's folders: a collection with queries and judgments, in the files of the BEIR benchmark.

| file | holds |
| --- | --- |
| `corpus.jsonl` | documents: `_id`, `title`, `text`, perhaps `metadata` |
| `queries.jsonl` | queries: `_id`, `text` |
| `qrels/test.tsv` | a header, then query, document, label |
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, Union

from paddle_ranker.data.rows.formats import write_rows
from paddle_ranker.data.rows.trec import Labels, checked_id, rows_of
from paddle_ranker.errors import DataError, listed
from paddle_ranker.options.input_files import join_files, paths_of
from paddle_ranker.storage.atomic import make_folder, new_folder

CORPUS, QUERIES, QRELS = "corpus.jsonl", "queries.jsonl", "qrels"


class BeirJudgments(NamedTuple):
    """Paths of a folder's queries and of a split's qrels."""

    queries: str
    qrels: str


def beir_corpus(path: str) -> str:
    """Return `path`, one path or several joined by `os.pathsep`, with each BEIR folder replaced by its `corpus.jsonl`.

    Other folders and files stay as they are.
    """
    files = [os.path.join(name, CORPUS) for name in paths_of(path)]
    return join_files([file if os.path.exists(file) else name for file, name in zip(files, paths_of(path))])


def beir_judgments(folder: Union[str, Path], split: str) -> BeirJudgments:
    """Find a BEIR folder's queries and judgments; raises `DataError` if they are missing."""
    folder = Path(folder)
    qrels = folder / QRELS / f"{split}.tsv"
    splits = sorted(path.stem for path in (folder / QRELS).glob("*.tsv"))
    if not (folder / QUERIES).is_file() or not splits:
        raise DataError(f"{folder}: no BEIR folder, which has {CORPUS}, {QUERIES} and {QRELS}/{split}.tsv")
    if split not in splits:
        raise DataError(f"{folder}: has no split {split}, only {listed(splits)}")
    return BeirJudgments(str(folder / QUERIES), str(qrels))


def write_beir(
    folder: Path,
    documents: Iterable[tuple[str, str, Mapping[str, object]]],
    queries: Mapping[str, str],
    splits: Mapping[str, Labels],
) -> None:
    """Write a BEIR folder atomically.

    documents: (id, text, fields) for each document; the field `title` becomes BEIR's title
    queries: texts by id
    splits: a dict from the name of a split to its labels, as `labels[query][document]`

    Raises `DataError` for an id that TREC's formats cannot hold, `RankerError` if the folder exists.
    """
    make_folder(folder.parent)
    corpus = (
        (checked_id(str(folder), id), fields.get("title", ""), text, {k: v for k, v in fields.items() if k != "title"})
        for id, text, fields in documents
    )
    asked = ((checked_id(str(folder), id), text) for id, text in queries.items())
    with new_folder(folder) as made:
        write_rows(str(made / CORPUS), ("_id", "title", "text", "metadata"), corpus, header=True)
        write_rows(str(made / QUERIES), ("_id", "text"), asked, header=True)
        (made / QRELS).mkdir()
        for split, labels in splits.items():
            columns = ("query-id", "corpus-id", "score")
            write_rows(str(made / QRELS / f"{split}.tsv"), columns, rows_of(labels), header=True)
