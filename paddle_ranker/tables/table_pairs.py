"""Encode pairs of a question and a table, for TAPAS."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, Optional

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.array_types import Array
from paddle_ranker.data.files.placed_text import CELLS, PlacedText
from paddle_ranker.encoding.columns import EncodedPairs, EncodedTexts, offsets_of
from paddle_ranker.encoding.pair_encoder import LengthCheck, PairEncoder
from paddle_ranker.encoding.tokenizers.interface import Ids, ModelTokenizer
from paddle_ranker.errors import DataError, UsageError, brief, quoted, require_pairs
from paddle_ranker.metrics.calibration import sigmoid
from paddle_ranker.model.model_kind import OPERATION_LOGITS, TOKEN_LOGITS
from paddle_ranker.notes import note_once
from paddle_ranker.scoring.table_answers import Cell, TableAnswer
from paddle_ranker.tables.cell_values import Value, column_values, ranks, relations, values_in

# Missing cells are empty, and take memory: a table may have so many, or so many for each cell that is there.
_FEW_CELLS, _SPARSE = 1 << 16, 8
_LEAST = 0.5  # cells with a higher probability are part of an answer
_EMPTY = "[EMPTY]"  # token of a cell without letters and digits
_NO_WORDS = ("n/a", "?", "nan")
_NAMED = 3  # maximum tables with left-out rows that a note names


class TableLimits(NamedTuple):
    """Maximum number of a table's columns and rows below the header, and of ranks and inverse ranks in a column."""

    columns: int = 255
    rows: int = 255
    rank: int = 255
    inverse_rank: int = 255


_LIMITS = TableLimits()


class ReadTable(NamedTuple):
    """Table of a title.

    rows: cells of each row below the header, all of equal length
    row_numbers, column_numbers: numbers of the rows and columns in the title's places; numbers may be skipped
    """

    header: list[str]
    rows: list[list[str]]
    row_numbers: list[int]
    column_numbers: list[int]


class _TokenTable(NamedTuple):
    """Table of a title, as tokens.

    rows: cells of each row below the header, all rows of equal length
    ids: ids of all cells, row by row, the header first, `[tokens]`
    cells: column, from 1, and row (0 for the header) of each token's cell, `[tokens, 2]`
    begins: for each token, the position in its cell of the first token of its word, `[tokens]`
    values: by column, from 0, the numbers or dates by row
    """

    rows: list[list[str]]
    ids: NDArray[np.int32]
    cells: NDArray[np.int64]
    begins: NDArray[np.int64]
    values: list[dict[int, Value]]


class TablePairEncoder(PairEncoder):
    """Encoder of questions and tables, `[CLS] question [SEP] header and cells`, as transformers' TapasTokenizer.

    A title is a `PlacedText` with the places `(start, end, row, column)` of its cells; row -1 is the header. A plain
    text is the header of a table of one column without rows. If a table is too long, all cells are truncated to an
    equal number of tokens, at least one. If the table is still too long, the last rows are left out.
    Truncated tables and rows left out are counted, and a note names the first tables whose rows were left out.

    The numbers of a token's place: column and row from 1, 0 (a label of earlier answers in TAPAS), rank and inverse
    rank of the cell's number or date in its column, how the question's values compare with that value, and the token's
    position in the cell.
    """

    places, place_size = CELLS, 7

    def __init__(
        self,
        files: ModelTokenizer,
        max_seq_length: int,
        restarts: bool = True,
        operations: Sequence[str] = (),
        limits: TableLimits = _LIMITS,
    ) -> None:
        """Create the encoder; `files` and `max_seq_length` are as in `PairEncoder`.

        restarts: whether positions restart in each cell
        operations: names of the operations that the ranker chooses from, such as SUM
        limits: further columns and rows are left out, larger ranks become the largest
        """
        super().__init__(files, max_seq_length)
        self._restarts, self.operations, self._limits = restarts, operations, limits
        self.template = replace(self.template, after=())
        self.cut_tables = self.left_out = self.left_out_columns = self._named = 0
        vocabulary = files.token_to_id
        self._is_inner = np.zeros(self.vocab_size + 1, bool)
        self._is_inner[[number for token, number in vocabulary.items() if token.startswith("##")]] = True
        self._empty = vocabulary.get(_EMPTY, self.unk_id)

    def counts(self) -> dict[str, int]:
        """Return counts for a report, by phrase: questions and tables that were cut, rows that were left out."""
        return {
            **super().counts(),
            "tables had cells cut to fit": self.cut_tables,
            "rows of tables did not fit and were left out": self.left_out,
            f"columns of tables after the first {self._limits.columns} were left out": self.left_out_columns,
        }

    def answers(
        self, questions: Sequence[str], tables: Sequence[str], outputs: Mapping[str, Array]
    ) -> list[TableAnswer]:
        """Return the answers of the tables `tables[i]` to the questions `questions[i]`.

        outputs: the ranker's outputs for the pairs, `[n, ...]`, among them logits of tokens

        A cell is part of the answer if the mean probability of its tokens is above 0.5, as in transformers.
        """
        pairs, answers = self.encode(questions, tables), list[TableAnswer]()
        probabilities = sigmoid(outputs[TOKEN_LOGITS].astype(np.float64))
        operations = outputs[OPERATION_LOGITS].argmax(axis=1) if OPERATION_LOGITS in outputs else None
        for row, table in enumerate(tables):
            cells = _cells(self, table, pairs.pad([row])["token_type_ids"][0], probabilities[row])
            answers.append(TableAnswer(cells, None if operations is None else self.operations[operations[row]]))
        return answers

    def room_beside(self, query: str) -> int:
        """Return `sys.maxsize`, so that no table counts as too long: `encode` shortens tables by cells and rows."""
        return sys.maxsize

    def read(self, title: str) -> ReadTable:
        """Return a title's table up to the last column read; raises `DataError` if its places have another form."""
        header, rows, row_numbers, column_numbers = _read(title)
        most = self._limits.columns
        return ReadTable(header[:most], [row[:most] for row in rows], row_numbers, column_numbers)

    def check_places(self, title: PlacedText) -> int:
        """Return 0; raises `DataError` if the places are no cells."""
        self.read(title)
        return 0

    def sample(self, text: str, random: np.random.Generator) -> str:
        """Return an example table with the words of `text`. Random numbers replace about half of the words."""
        words = [word if random.random() < 0.5 else str(random.integers(0, 99)) for word in text.split()]
        width = int(random.integers(1, 5))
        return table_text([words[start : start + width] for start in range(0, len(words), width)])

    def encode(
        self,
        queries: Sequence[str],
        titles: Sequence[str],
        *,
        truncate: bool = True,
        check: Optional[LengthCheck] = None,
    ) -> EncodedPairs:
        """Encode questions and tables; raises `UsageError` if `truncate` is False, since tables have no windows."""
        if not truncate:
            raise UsageError("tables are not cut into windows: use --windows none")
        require_pairs(queries, titles)
        tables = {title: self._table(title) for title in dict.fromkeys(titles)}
        questions = {query: self._ids([query], self.query_prompt)[0] for query in dict.fromkeys(queries)}
        room = self.max_seq_length - self.template.pair_tokens
        lengths = np.array([len(questions[q]) + len(tables[t].ids) for q, t in zip(queries, titles)], np.int64)
        if check is not None:
            check(lengths + self.template.pair_tokens, self.max_seq_length)
        ids, places, starts = [], [], []
        for query, title in zip(queries, titles):
            question, table = questions[query][: max(room // 2, room - len(tables[title].ids))], tables[title]
            self._count_truncated(np.array([len(question) < len(questions[query])]), "questions")
            kept = self._fitting(table, room - len(question), title)
            before = np.concatenate([self.template.before, question, self.template.between])
            ids.append(np.concatenate([before, table.ids[kept]]))
            starts.append(len(before))
            pair_places = np.zeros((len(ids[-1]), self.place_size), np.int16)
            pair_places[: len(before), 6] = np.arange(len(before))
            pair_places[len(before) :] = self._places(query, table)[kept]
            if not self._restarts:
                pair_places[:, 6] = np.arange(len(pair_places))
            places.append(pair_places.reshape(-1))
        offsets = offsets_of(np.array([len(pair) for pair in ids], np.int64))
        joined = np.concatenate([np.empty(0, np.int32), *ids]).astype(np.int32)
        flat = np.concatenate([np.empty(0, np.int16), *places])
        return EncodedPairs(joined, offsets, np.array(starts, np.int32), self.pad_id, flat, self.place_size)

    def _alone(
        self,
        texts: Sequence[str],
        before: Ids,
        after: Ids,
        most: int,
        check: Optional[LengthCheck] = None,
        prompt: str = "",
    ) -> EncodedTexts:
        """Raise `UsageError`: a table is read beside a question."""
        raise UsageError("TAPAS reads a table beside a question, and makes no vectors of texts: take another tower")

    def _ids(self, texts: Sequence[str], prompt: str = "") -> list[NDArray[np.int32]]:
        flat, lengths = self._after(prompt).encode(texts)
        ends = offsets_of(lengths)
        empty = np.array([self._empty], np.int32)
        spans = zip(texts, ends, ends[1:])
        return [empty if text and _has_no_words(prompt + text) else flat[start:end] for text, start, end in spans]

    def _table(self, title: str) -> _TokenTable:
        header, rows, _, column_numbers = self.read(title)
        with self._truncated_lock:
            self.left_out_columns += len(column_numbers) - len(header)
        ids = self._ids([cell for row in (header, *rows[: self._limits.rows]) for cell in row])
        lengths = np.array([len(cell_ids) for cell_ids in ids], np.int64)
        width, flat = len(header), np.concatenate([np.empty(0, np.int32), *ids])
        number = np.repeat(np.arange(len(ids)), lengths)
        inside = np.arange(len(flat)) - np.repeat(offsets_of(lengths)[:-1], lengths)
        words = np.maximum.accumulate(np.where(self._is_inner[flat], -1, np.arange(len(flat)))) if len(flat) else inside
        begins = inside - (np.arange(len(flat)) - words)
        cells = np.stack([number % width + 1, number // width], axis=1)
        values = [column_values(column) for column in zip(*rows)]
        return _TokenTable(rows, flat, cells, np.maximum(begins, -1), values)

    def _fitting(self, table: _TokenTable, room: int, title: str) -> NDArray[np.bool_]:
        """Return a mask of the table's tokens to keep, `[tokens]` bool; count cut tables and rows that are left out.

        room: maximum tokens to keep
        title: the table as text, for the note about rows that are left out
        """
        rows, longest = min(len(table.rows), self._limits.rows), int(table.begins.max(initial=-1)) + 1
        while True:
            within = table.cells[:, 1] <= rows
            costs = np.cumsum(np.bincount(table.begins[within] + 1, minlength=longest + 1)[: longest + 1])
            fitting = np.flatnonzero(costs <= room)
            most = int(fitting[-1]) if len(fitting) else 0
            if most > 0 or rows == 0 or longest == 0:
                break
            rows -= 1
        most = most if rows or not table.rows else 1  # without rows, transformers cuts the header's cells to a word
        kept: NDArray[np.bool_] = within & (table.begins < max(most, 1))
        kept &= np.cumsum(kept) <= room  # a header that is too long
        left_out = len(table.rows) - rows
        with self._truncated_lock:
            self.cut_tables += bool((within & ~kept).any())
            self.left_out += left_out
            self._named += left_out > 0
            is_named = left_out > 0 and self._named <= _NAMED
        if is_named:
            table_name = quoted(brief(str(title)))
            note_once(f"note: rows {rows + 1:,} to {len(table.rows):,} of the table {table_name} do not fit")
        return kept

    def _places(self, query: str, table: _TokenTable) -> NDArray[np.int16]:
        """Return the places of all tokens of a table, `[tokens, place_size]`, for a question."""
        columns, rows = int(table.cells[:, 0].max(initial=0)), len(table.rows)
        numbers, of_question = np.zeros((columns + 1, rows + 1, 3), np.int64), values_in(query)
        for column, values in enumerate(table.values[:columns]):
            for row, (rank, inverse) in ranks(values).items():
                numbers[column + 1, row + 1, :2] = rank, inverse
            for row, relation in relations(of_question, values).items():
                numbers[column + 1, row + 1, 2] = relation
        places = np.zeros((len(table.ids), self.place_size), np.int16)
        places[:, :2] = table.cells
        numbers[:, :, :2] = np.minimum(numbers[:, :, :2], self._limits[2:])
        places[:, 3:6] = numbers[table.cells[:, 0], table.cells[:, 1]]
        changes = np.flatnonzero((np.diff(table.cells, axis=0) != 0).any(axis=1)) + 1
        first = np.zeros(len(table.ids), np.int64)
        first[changes] = changes
        places[:, 6] = np.arange(len(table.ids)) - np.maximum.accumulate(first)
        return places


def _has_no_words(text: str) -> bool:
    text = text.lower().strip()
    return text in _NO_WORDS or not re.sub(r"[^\w\d]+", " ", text).replace("_", " ").strip()


def table_text(rows: Sequence[Sequence[str]]) -> PlacedText:
    """Return a table as a text with the places of its cells.

    rows: cells of each row; the first row is the header, others may be shorter
    """
    text, places, width = "", [], max(map(len, rows), default=0)
    for row, cells in enumerate(rows):
        for column in range(width):
            cell = cells[column] if column < len(cells) else ""
            places.append((len(text), len(text) + len(cell), row - 1, column))
            text += cell + (" | " if column + 1 < width else "\n")
    return PlacedText(text, places)


def _read(title: str) -> ReadTable:
    """Return a title's table; missing cells are empty. Raises `DataError` if the title has places of another form."""
    if not isinstance(title, PlacedText) or not title.places:
        return ReadTable([str(title)], [], [], [0])
    for cell in title.places:
        are_whole = all(type(number) is int or float(number).is_integer() for number in cell)
        if len(cell) != 4 or not are_whole or cell[2] < -1 or cell[3] < 0:
            form = "expected [start, end, row, column], where row -1 is the header"
            raise DataError(f"the text {quoted(str(title))}: a place is {list(cell)}, {form}; correct it")
    text, cells = str(title), [tuple(map(int, place)) for place in title.places]
    row_numbers = sorted({-1, *(row for _, _, row, _ in cells)})
    column_numbers = sorted({column for *_, column in cells})
    if len(row_numbers) * len(column_numbers) > max(_FEW_CELLS, _SPARSE * len(cells)):
        size = f"{len(row_numbers):,} rows and {len(column_numbers):,} columns with {len(cells):,} cells"
        raise DataError(f"the text {quoted(text)}: its places are {size}: leave out rows and columns, or add cells")
    characters = sum(end - start for start, end, *_ in cells)
    if characters > max(_FEW_CELLS, _SPARSE * len(text)):  # spans may overlap, as of a merged cell
        size = f"{len(cells):,} cells of {characters:,} characters, of a text of {len(text):,}"
        raise DataError(f"the text {quoted(text)}: its places are {size}: correct their ends")
    place = {row: number for number, row in enumerate(row_numbers)}
    beside = {column: number for number, column in enumerate(column_numbers)}
    rows = [[""] * len(beside) for _ in place]
    for start, end, row, column in cells:
        rows[place[row]][beside[column]] = text[start:end]
    return ReadTable(rows[0], rows[1:], row_numbers[1:], column_numbers)


def _cells(encoder: TablePairEncoder, table: str, types: Array, probabilities: Array) -> tuple[Cell, ...]:
    """Return the selected cells of a table.

    types: each token's type, then the numbers of its place in the table, `[length, 1 + place_size]`
    probabilities: the tokens' probabilities, `[length]`
    """
    columns, rows = types[:, 1], types[:, 2]
    tokens = np.flatnonzero((columns > 0) & (rows > 0))
    numbers, inverse = np.unique(np.stack([rows, columns])[:, tokens], axis=1, return_inverse=True)
    sums = np.bincount(inverse.reshape(-1), probabilities[tokens], numbers.shape[1])
    means = sums / np.bincount(inverse.reshape(-1), minlength=numbers.shape[1])
    read = encoder.read(table)
    return tuple(
        Cell(read.row_numbers[row - 1], read.column_numbers[column - 1], read.rows[row - 1][column - 1], float(mean))
        for (row, column), mean in zip(numbers.T.tolist(), means)
        if mean > _LEAST
    )
