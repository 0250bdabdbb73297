"""The pairs on which rankers are measured: from a labelled file, or from TREC qrels and the measured runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional, Union

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.array_types import Floats
from paddle_ranker.data.rows.records import LabeledPair, RecordFile
from paddle_ranker.data.rows.trec import Labels, Scores, read_texts
from paddle_ranker.errors import DataError
from paddle_ranker.metrics.ranking import NOT_RETURNED, RELEVANT, number_queries
from paddle_ranker.options import RowOptions

_SHOWN = 3


@dataclass(frozen=True)
class MeasuredPairs:
    """Query-title pairs, one per row, with their judgments.

    source: the file of the pairs, for messages
    query_ids, document_ids: ids, `[n]` each; in a labelled file, "q" and the query's number, "d" and the row's number
    labels: `[n] float64`; 0 for pairs that are not judged
    judged: `[n] bool`, whether the pair was judged
    candidates: `[n] bool`, whether a ranker is to score the pair
    queries, titles: texts, `[n]` each; None if only ids are known. The text may be "" if a pair is not a candidate
    has_ids: whether the ids come from the data, as in qrels; a labelled file has no ids
    searched: whether the pairs are results of searches; if so, a query whose only title is relevant counts, too
    notes: one line for each reason that rows were ignored or noticed as repeated
    """

    source: str
    query_ids: list[str]
    document_ids: list[str]
    labels: Floats
    judged: NDArray[np.bool_]
    candidates: NDArray[np.bool_]
    queries: Optional[list[str]] = None
    titles: Optional[list[str]] = None
    has_ids: bool = False
    searched: bool = False
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.labels)

    def texts(self, needed_by: str) -> tuple[list[str], list[str]]:
        """Return queries and titles of the candidates; raises `DataError` if only ids are known."""
        if self.queries is None or self.titles is None:
            raise DataError(f"{needed_by} needs texts: name the files of the ids with --queries and --documents")
        rows = np.flatnonzero(self.candidates)
        return [self.queries[row] for row in rows], [self.titles[row] for row in rows]

    def spread(self, scores: Floats) -> Floats:
        """Return scores of all pairs, `[n] float64`: `scores` for candidates, `NOT_RETURNED` for all other pairs."""
        spread = np.full(len(self), NOT_RETURNED)
        spread[self.candidates] = scores
        return spread

    def of_run(self, run: Scores, name: str) -> tuple[Floats, list[str]]:
        """Return a run's scores of the pairs, `[n] float64`, and notes on queries that the run lacks or has in excess.

        A pair that the run lacks gets `NOT_RETURNED`. Raises `DataError` if the run shares no query with the pairs. For
        pairs of a labelled file, also raises it if the run has rows that the file lacks.
        """
        scores = np.full(len(self), NOT_RETURNED)
        for row, (query, document) in enumerate(zip(self.query_ids, self.document_ids)):
            scores[row] = run.get(query, {}).get(document, NOT_RETURNED)
        wanted = set(self.query_ids)
        if not wanted & run.keys():
            raise _nothing_shared(name, run, self.source, wanted)
        notes = []
        missing, extra = len(wanted - run.keys()), len(run.keys() - wanted)
        if missing:
            notes.append(f"{name}: {missing:,} of the {len(wanted):,} judged queries are not in it; they count 0")
        if extra:
            notes.append(f"{name}: {extra:,} of its queries are not judged and left out")
        if not self.has_ids:
            rows = set(zip(self.query_ids, self.document_ids))
            strangers = sum((query, document) not in rows for query in run for document in run[query])
            if strangers:
                raise DataError(
                    f"{name}: {strangers:,} of its rows are none of {self.source}: it is another file's run"
                )
        return scores, notes


def read_labelled(path: str, rules: Optional[RowOptions] = None, *, skip_bad_rows: bool = False) -> MeasuredPairs:
    """Read a labelled file; all its pairs are judged, and all are candidates.

    A repeated row counts each time, as in scikit-learn. Raises `DataError` if the file is malformed, or if a query and
    title have several labels; the message names the lines. With `skip_bad_rows`, all rows of such a query and title
    are ignored instead, unless no row would be left.
    """
    source = RecordFile(path, LabeledPair, rules, skip_bad_rows=skip_bad_rows)
    records, left_out = read_without_contradictions(source, skip=source.skip_bad_rows)
    notes = [f"{path}: {source.report()}"] if source.skipped else []
    if left_out:
        notes.append(f"{path}: {left_out}")
    repeated = len(records) - len({(record.query, record.title) for record in records})
    if repeated:
        rows = "1 row repeats" if repeated == 1 else f"{repeated:,} rows repeat"
        notes.append(f"{path}: {rows} another's query, title and label; each counts")
    queries = [record.query for record in records]
    numbers = number_queries(queries) + 1
    # Zero-padded to equal width, so that sorting ids as text gives the order of the rows.
    width, row_width = len(str(numbers.max())), len(str(len(records)))
    everything = np.ones(len(records), bool)
    return MeasuredPairs(
        source=path,
        query_ids=[f"q{number:0{width}}" for number in numbers],
        document_ids=[f"d{row:0{row_width}}" for row in range(1, len(records) + 1)],
        labels=np.array([record.label for record in records], np.float64),
        judged=everything,
        candidates=everything,
        queries=queries,
        titles=[record.title for record in records],
        notes=notes,
    )


def require_both_classes(path: Union[str, Path], labels: Floats, needed_by: str) -> None:
    """Raise `DataError` if all pairs of a file are relevant, or if no pair is relevant.

    needed_by: name of the measure or step that needs both classes, for the message
    """
    relevant = int((labels >= RELEVANT).sum())
    if relevant in (0, len(labels)):
        raise DataError(
            f"{path}: one class only, {relevant:,} of its {len(labels):,} pairs are relevant (label >= 1): "
            f"{needed_by} needs pairs of both classes"
        )


def read_without_contradictions(source: RecordFile[LabeledPair], *, skip: bool) -> tuple[list[LabeledPair], str]:
    """Read a file, skipping pairs that have several labels; return the other records, and a note on skipped records.

    The note is "" if no record was skipped. If `skip` is False, raises `DataError` instead of skipping. Also raises
    `DataError` if no record is left.
    """
    records = list[LabeledPair]()
    first: dict[tuple[str, str], tuple[Union[int, str], float]] = {}  # line and label
    labels: dict[tuple[str, str], set[float]] = {}
    examples = []
    for record in source:
        records.append(record)
        pair = record.query, record.title
        line, label = first.setdefault(pair, (source.line, record.label))
        if record.label != label and len(labels[pair]) == 1:
            examples.append(f"lines {line} and {source.line}: labels {label:g} and {record.label:g}")
        labels.setdefault(pair, set()).add(record.label)
    if not examples:
        return records, ""
    shown = "; ".join(examples[:_SHOWN]) + ("; …" if len(examples) > _SHOWN else "")
    if not skip:
        raise DataError(
            f"{source.path}: one query and title with several labels ({shown}): correct the rows, or leave such pairs "
            "out with --skip_bad_rows"
        )
    kept = [record for record in records if len(labels[record.query, record.title]) == 1]
    if not kept:
        raise DataError(f"{source.path}: no pair is left: each has several labels ({shown})")
    return kept, f"left out {len(records) - len(kept):,} rows of a query and title with several labels ({shown})"


def judged_runs(
    source: str,
    qrels: Labels,
    runs: Mapping[str, Scores],
    *,
    candidates: Optional[Scores] = None,
    queries_file: Optional[str] = None,
    documents_file: Optional[str] = None,
    rules: Optional[RowOptions] = None,
) -> MeasuredPairs:
    """Return the pairs of qrels, and the pairs that the runs returned for the queries of the qrels.

    source: path of the qrels, for messages
    runs: all runs that will be measured, by name
    candidates: the run whose documents a ranker is to score; None: a ranker is to score the judged documents
    queries_file, documents_file: files with the texts by id, see `data.rows.trec`; None: only ids are known
    rules: options for reading `queries_file` and `documents_file`

    Raises `DataError` if a run (or the candidates) shares no query with the qrels, or if a text is missing.
    """
    named = {**runs, **({} if candidates is None else {"the candidates": candidates})}
    for name, run in named.items():
        if not qrels.keys() & run.keys():
            raise _nothing_shared(name, run, source, set(qrels))
    rows = [
        (query, document)
        for query in qrels
        for document in dict.fromkeys([*qrels[query], *(d for run in named.values() for d in run.get(query, ()))])
    ]
    scored: Mapping[str, Mapping[str, float]] = qrels if candidates is None else candidates
    chosen = np.array([document in scored.get(query, {}) for query, document in rows], bool)
    texts: list[Optional[list[str]]] = [None, None]
    for side, path in enumerate((queries_file, documents_file)):
        if path is not None:
            wanted = {row[side] for row, is_candidate in zip(rows, chosen) if is_candidate}
            texts_by_id = read_texts(path, wanted, rules)
            texts[side] = [texts_by_id.get(row[side], "") for row in rows]
    return MeasuredPairs(
        source=source,
        query_ids=[query for query, _ in rows],
        document_ids=[document for _, document in rows],
        labels=np.array([qrels[query].get(document, 0) for query, document in rows], np.float64),
        judged=np.array([document in qrels[query] for query, document in rows], bool),
        candidates=chosen,
        queries=texts[0],
        titles=texts[1],
        has_ids=True,
    )


def _nothing_shared(name: str, run: Scores, source: str, wanted: set[str]) -> DataError:
    theirs, ours = next(iter(run)), min(wanted)
    return DataError(
        f"{name} and {source} share no query (one has {theirs}, the other {ours}): are they of the same collection?"
    )
