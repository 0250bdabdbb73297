"""Scores and vectors of files of any size, by processes of a Ray cluster, for options `--ray`.

Pipelines of Ray Data use models by these classes:

    actors = {"compute": ActorPoolStrategy(size=2), "num_cpus": 1}
    dataset.map_batches(ScorePairs, fn_constructor_args=("checkpoint/best",), **actors)
    dataset.map_batches(EncodeTexts, fn_constructor_args=("checkpoint/tower",), **actors)
"""

from __future__ import annotations

import io
import json
import os
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, Union

import numpy as np

from paddle_ranker import runtime
from paddle_ranker.data.rows.documents import DocumentFile
from paddle_ranker.data.rows.formats import line_count
from paddle_ranker.data.rows.records import Pair, RecordFile
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.pretrained import resolved
from paddle_ranker.options import RayOptions, note, note_counts
from paddle_ranker.options.declare import fields_of, shown_name
from paddle_ranker.options.input_files import paths_of
from paddle_ranker.scale.identity import Identity
from paddle_ranker.scale.parts import Done, Parts, Source, Work, run
from paddle_ranker.scoring.scoring_options import PrintingOptions
from paddle_ranker.storage.digest import content_digest, json_digest
from paddle_ranker.storage.prefetch import CHUNK, chunks

if TYPE_CHECKING:
    from paddle_ranker.array_types import Vectors
    from paddle_ranker.retrieval.vectors.parallel_encoding import EncodePlan


class RowSource(Source):
    """Rows of files, divided into parts of the sizes that the commands compute at once on one machine.

    rows: the files' rows
    fields: names of the fields of the rows that go into parts
    in_texts: whether `text_parts` divides the rows into parts (by characters); if not, `chunks` does (by rows)
    """

    def __init__(self, rows: Union[RecordFile[Any], DocumentFile], fields: Sequence[str], in_texts: bool = False):
        self._rows, self._fields, self._in_texts = rows, tuple(fields), in_texts

    def parts(self) -> Iterator[Sequence[object]]:
        from paddle_ranker.retrieval.vectors.text_vectors import text_parts

        if self._in_texts:
            yield from text_parts(getattr(row, self._fields[0]) for row in self._rows)
            return
        yield from chunks([getattr(row, name) for name in self._fields] for row in self._rows)

    def report(self) -> str:
        return f"{self._rows.path}: {self._rows.report()}" if self._rows.skipped else ""

    def count(self) -> Optional[int]:
        counts = [line_count(path) for path in paths_of(os.fspath(self._rows.path))]
        return None if None in counts else sum(count for count in counts if count)


class _ScoreParts(Work):
    """Work that scores pairs and writes the lines that `predict` prints.

    With `topk`, the lines are those of the best titles of each query of the part. They are written as JSON, with query
    and scores, and `predict` merges the parts.
    """

    extension, unit = ".txt", "pair"

    def __init__(self, options: PrintingOptions, names: tuple[str, str]):
        self._options, self._names = options, names
        self.extension = ".jsonl" if options.format == "json" else ".txt"

    def open(self) -> None:
        from paddle_ranker.model.model_folder import RANKER
        from paddle_ranker.scoring.files import scorer_for
        from paddle_ranker.scoring.loading import open_model

        self._parts = open_model(self._options.params_path, RANKER, LoadOptions.of(self._options))
        self._scorer = scorer_for(self._parts, self._options)

    def compute(self, rows: Sequence[Any]) -> tuple[bytes, int, Mapping[str, int]]:
        from paddle_ranker.scoring.files import CutOff, printed_pair, truncations

        before = Counter(truncations(self._parts.row_encoder, self._scorer.windows))
        scores = self._scorer.score([row[0] for row in rows], [row[1] for row in rows]).tolist()
        counts = Counter(truncations(self._parts.row_encoder, self._scorer.windows)) - before
        cut, best = CutOff(self._options.min_probability), dict[str, list[tuple[float, str]]]()
        lines = list[str]()
        for (query, title, recall), score in zip(rows, scores):
            titles = best.setdefault(query, [])
            if cut.keeps(score):
                line = printed_pair(query, title, score, recall, self._names, self._options.format)
                lines.append(line)
                titles.append((score, line))
        if (top_k := self._options.topk) is not None:
            best = {query: sorted(titles, key=lambda title: -title[0])[:top_k] for query, titles in best.items()}
            lines = [*map(json.dumps, best.items())]
        counts.update({CutOff.SEEN: cut.seen, CutOff.LEFT_OUT: cut.left_out})
        return *_written(lines), counts


def predict(options: PrintingOptions, names: tuple[str, str]) -> tuple[int, int]:
    """Score files on a cluster, and write the lines that `predict` prints into a folder. Return (pairs, parts).

    Each part of the files becomes one file of lines. With `topk`, the best titles of all parts are merged on this
    machine's disk, and written in files of some thousand lines.

    names: names of the two columns of texts
    """
    from paddle_ranker.scoring.files import CutOff

    options = replace(options, params_path=resolved(options.params_path))
    assert options.ray is not None and options.output_file is not None
    model = options.params_path if os.path.isdir(options.params_path) else os.path.dirname(options.params_path)
    contents = {"params_path": model, "input_file": options.input_file}
    identity, top_k = identity_of(options, contents, read=("input_file",)), options.topk
    output = Parts(options.output_file, identity)
    source = RowSource(RecordFile(options.input_file, Pair, options), ("query", "title", "recall_score"))
    with output.folder.alone():
        parts = output
        if top_k is not None:
            output.begin()
            if output.manifest is not None:
                note(f"{output.folder}: is done already")
                return _size_of(output.manifest)
            parts = Parts(f"{options.output_file}.scored", identity)
        done = run(
            source,
            _ScoreParts(options, names),
            parts,
            options.ray,
            allow_open=options.ray_open,
            actors=options.actors,
            threads=options.cpu_threads or 1,
            load=LoadOptions.of(options),
        )
        if top_k is not None:
            made_of, extension = json_digest([part.source for part in done]), Path(done[0].name).suffix
            written = 0
            for lines in _merged(parts, done, top_k):
                output.write(written, made_of, extension, *_written(lines), {})
                written += 1
            merged = output.finish(written)
            parts.folder.remove()
    counts = total(done)
    seen, left_out = counts.pop(CutOff.SEEN, 0), counts.pop(CutOff.LEFT_OUT, 0)
    note_counts(counts)
    CutOff.note(options.min_probability, seen, left_out)
    return _size_of(done if top_k is None else merged)


def _size_of(done: Sequence[Done]) -> tuple[int, int]:
    """Return (rows, parts)."""
    return sum(part.rows for part in done), len(done)


def _merged(parts: Parts, done: Sequence[Done], top_k: int) -> Iterator[list[str]]:
    """Yield the lines of the best titles of each query, some thousand at a time, queries in order of first occurrence.

    A database on the disk merges the parts, each with its own best titles: memory does not grow with them.
    """
    with (
        tempfile.TemporaryDirectory(prefix="paddle_ranker_") as folder,
        closing(sqlite3.connect(os.path.join(folder, "titles.sqlite"), isolation_level=None)) as titles,
    ):
        for setting in ("journal_mode = OFF", "synchronous = OFF", "temp_store = FILE"):
            titles.execute(f"PRAGMA {setting}")
        titles.execute("CREATE TABLE best (query TEXT, part INT, row INT, place INT, score REAL, line TEXT)")
        titles.execute("BEGIN")
        for part in done:
            for row, found in enumerate(parts.content(part).splitlines()):
                query, best = json.loads(found)
                key = json.dumps(query)  # a query may have characters that SQLite refuses
                # Without a title above --min_probability, a query has its place all the same.
                rows = [(key, part.number, row, place, *title) for place, title in enumerate(best)]
                titles.executemany(
                    "INSERT INTO best VALUES (?, ?, ?, ?, ?, ?)", rows or [(key, part.number, row, 0, None, None)]
                )
        lines = titles.execute(
            "SELECT line FROM (SELECT line, row_number() OVER titles AS number, "
            "first_value(part) OVER rows AS first_part, "
            "first_value(row) OVER rows AS first_row FROM best "
            "WINDOW titles AS (PARTITION BY query ORDER BY score DESC, part, place), "
            "rows AS (PARTITION BY query ORDER BY part, row)) "
            "WHERE line IS NOT NULL AND number <= ? ORDER BY first_part, first_row, number",
            (top_k,),
        )
        while some := lines.fetchmany(CHUNK):
            yield [line for (line,) in some]


def _written(lines: Sequence[str]) -> tuple[bytes, int]:
    """Return the content of a file with these lines, and their number."""
    return "".join(f"{line}\n" for line in lines).encode(), len(lines)


def identity_of(options: RayOptions, contents: Mapping[str, Optional[str]], read: Sequence[str] = ()) -> Identity:
    """Return all that a command's results depend on: digests of models and files, other options, and versions.

    contents: for each option that names a file or a model, the path whose contents are digested, by the field's name
    read: the options of `contents` whose files the reading task reads; actors open the others
    """
    without_effect = ("ray", "actors", "debug", "resume", "output_file")
    digests = {name: content_digest(path) for name, path in contents.items() if path}
    facts = {
        shown_name(field): digests.get(field.name, getattr(options, field.name))
        for field in fields_of(type(options))
        if field.name not in without_effect
    }
    by_path = [
        {contents[name] or "": digest for name, digest in digests.items() if (name in read) is wanted}
        for wanted in (True, False)
    ]
    return Identity.of(facts, by_path[0], by_path[1], getattr(options, "engine", None))


def total(done: Sequence[Done]) -> Counter[str]:
    """Return the sums of the parts' `counts`, by name."""
    counts = Counter[str]()
    for part in done:
        counts.update(part.counts)
    return counts


class _EncodeParts(Work):
    """Work that writes the vectors of texts, as `.npy` files."""

    extension, unit = ".npy", "text"

    def __init__(self, plan: EncodePlan):
        self._plan = plan

    def open(self) -> None:
        self._tower = self._plan.open_tower()

    def compute(self, rows: Sequence[Any]) -> tuple[bytes, int, Mapping[str, int]]:
        tower, before, stream = self._tower, self._tower.cut, io.BytesIO()
        vectors = tower.query_vectors(rows) if self._plan.queries else tower.vectors(rows)
        np.save(stream, vectors, allow_pickle=False)
        cut = {f"texts were cut to {tower.encoder.max_length} tokens": tower.cut - before}
        return stream.getvalue(), len(vectors), {what: count for what, count in cut.items() if count}


@contextmanager
def encode(
    plan: EncodePlan,
    rows: Union[RecordFile[Any], DocumentFile],
    options: Any,
    facts: Mapping[str, object],
    read: Mapping[str, str],
    opened: Mapping[str, str],
) -> Iterator[Iterator[Vectors]]:
    """Encode texts with actors, in parts beside the output file. Give the block the vectors of each part, in order.

    The parts are deleted when the block ends without an error. A note says how many texts were cut to the tower's
    maximum length.

    facts, read, opened: as for `Identity.of`
    """
    parts = Parts(f"{options.output_file}.parts", Identity.of(facts, read, opened, plan.options.engine))
    with parts.folder.alone():
        yield _encoded(plan, RowSource(rows, ("text",), in_texts=True), parts, options)
        parts.folder.remove()


def _encoded(plan: EncodePlan, source: RowSource, parts: Parts, options: RayOptions) -> Iterator[Vectors]:
    assert options.ray is not None
    threads = plan.options.threads or 1
    work = _EncodeParts(replace(plan, options=replace(plan.options, threads=threads)))
    done = run(
        source, work, parts, options.ray, allow_open=options.ray_open, actors=options.actors, threads=threads,
        load=plan.options, label="encode",
    )  # fmt: skip
    for part in done:
        yield np.load(io.BytesIO(parts.content(part)), allow_pickle=False)
    note_counts(total(done))


class ScorePairs:
    """Callable for `map_batches` of Ray Data that adds a column `probability` to batches of pairs.

    model: a ranker on every machine, as `Ranker.load` takes it
    query, title: names of the columns with the texts
    threads: threads of the engine
    how: further arguments of `Ranker.load`
    """

    def __init__(self, model: str, query: str = "query", title: str = "title", threads: int = 1, **how: Any):
        runtime.prepare(threads)
        from paddle_ranker.scoring.ranker import Ranker

        self._ranker, self._columns = Ranker.load(model, threads=threads, **how), (query, title)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        queries, titles = ([*map(str, batch[name])] for name in self._columns)
        return {**batch, "probability": self._ranker.score(queries, titles)}


class EncodeTexts:
    """Callable for `map_batches` of Ray Data that adds a column `vector` to batches of texts.

    tower: a tower on every machine, as `Tower.open` takes it
    text: name of the column with the texts
    queries: whether the texts are queries
    threads: threads of the engine
    """

    def __init__(self, tower: str, text: str = "text", queries: bool = False, threads: int = 1):
        runtime.prepare(threads)
        from paddle_ranker.retrieval.vectors.text_vectors import Tower

        self._tower, self._text, self._queries = Tower.open(tower, LoadOptions(threads=threads)), text, queries

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        make = self._tower.query_vectors if self._queries else self._tower.vectors
        return {**batch, "vector": make([*map(str, batch[self._text])])}
