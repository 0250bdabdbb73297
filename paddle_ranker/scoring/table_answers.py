"""Answer questions of tables by cells and an operation, with a ranker that names them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional, cast

import numpy as np

from paddle_ranker.array_types import Array
from paddle_ranker.encoding.table_pairs import TablePairEncoder
from paddle_ranker.metrics.calibration import sigmoid
from paddle_ranker.scoring.loading import ScoringRanker

_AT_ONCE = 16  # tables in a batch
_LEAST = 0.5  # cells with a higher probability are part of an answer


@dataclass(frozen=True)
class Cell:
    """A cell of a table: row from 0 below the header, column from 0, text, and probability that it is selected."""

    row: int
    column: int
    text: str
    probability: float


@dataclass(frozen=True)
class TableAnswer:
    """Cells of a table that answer a question, row by row, and the operation on them, such as SUM.

    operation: None if the ranker names no operations
    """

    cells: tuple[Cell, ...]
    operation: Optional[str] = None

    def as_json(self) -> dict[str, object]:
        cells = [{**vars(cell), "probability": round(cell.probability, 6)} for cell in self.cells]
        return {"cells": cells, **({} if self.operation is None else {"operation": self.operation})}

    def __str__(self) -> str:
        """Return the answer for people: `1191 (row 1, column 2), 1225 (row 2, column 2); SUM`."""
        cells = [f"{cell.text} (row {cell.row + 1:,}, column {cell.column + 1:,})" for cell in self.cells]
        return "; ".join([", ".join(cells) or "no cell", *filter(None, [self.operation])])


def names_cells(loaded: ScoringRanker) -> bool:
    """Return whether a ranker answers by cells; False for exported rankers, which compute only logits."""
    config = getattr(getattr(loaded.engine, "network", None), "config", None)
    return config is not None and bool(config.names_cells)


def table_answers(loaded: ScoringRanker, questions: Sequence[str], tables: Sequence[str]) -> list[TableAnswer]:
    """Return the answer of each table, `tables[i]`, to `questions[i]`.

    loaded: a ranker that `names_cells`

    A cell is part of the answer if the mean probability of its tokens is above 0.5, as in transformers.
    """
    from paddle_ranker.scoring.engines.dygraph import DygraphEngine

    engine, encoder = cast(DygraphEngine, loaded.engine), cast(TablePairEncoder, loaded.row_encoder)
    names, answers = engine.network.config.operations, list[TableAnswer]()
    for start in range(0, len(tables), _AT_ONCE):
        some = tables[start : start + _AT_ONCE]
        pairs = encoder.encode(questions[start : start + _AT_ONCE], some)
        arrays = pairs.pad(range(len(pairs)))
        logits, *operations = engine.call(engine.network.answers, arrays)
        chosen = operations[0].argmax(axis=1) if operations else [None] * len(some)
        probabilities = sigmoid(logits.astype(np.float64))
        for table, types, own, operation in zip(some, arrays["token_type_ids"], probabilities, chosen):
            answers.append(
                TableAnswer(_cells(encoder, table, types, own), None if operation is None else names[operation])
            )
    return answers


def _cells(encoder: TablePairEncoder, table: str, types: Array, probabilities: Array) -> tuple[Cell, ...]:
    """Return the selected cells of a table.

    types: types and places of the pair's tokens, `[length, 1 + place_size]`
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
