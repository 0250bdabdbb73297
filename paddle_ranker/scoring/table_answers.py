"""Answer questions about tables: a ranker chooses the cells of the answer, and an operation on the cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Optional

import numpy as np

from paddle_ranker.array_types import Array
from paddle_ranker.data.files.placed_text import PlacedText
from paddle_ranker.encoding.pair_encoder import PairRowEncoder
from paddle_ranker.encoding.table_pairs import TablePairEncoder
from paddle_ranker.metrics.calibration import sigmoid
from paddle_ranker.model.model_kind import OPERATION_LOGITS, TOKEN_LOGITS
from paddle_ranker.scoring.engines.engine import Engine

_LEAST = 0.5  # cells with a higher probability are part of an answer


@dataclass(frozen=True)
class Cell:
    """Cell that is part of an answer.

    row: its row, from 0 below the header
    column: its column, from 0
    probability: probability that it is part of the answer
    """

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


def names_cells(engine: Engine) -> bool:
    """Return whether a ranker answers by cells; False for exported rankers, which compute only logits."""
    return TOKEN_LOGITS in getattr(engine, "outputs", ())


def table_answers(
    encoder: PairRowEncoder, questions: Sequence[str], tables: Sequence[str], outputs: Mapping[str, Array]
) -> list[TableAnswer]:
    """Return the answers of the tables `tables[i]` to the questions `questions[i]`.

    encoder: the ranker's encoder
    outputs: the ranker's outputs for the pairs, `[n, ...]`, among them logits of tokens (`names_cells`)

    A cell is part of the answer if the mean probability of its tokens is above 0.5, as in transformers.
    """
    assert isinstance(encoder, TablePairEncoder)
    pairs, answers = encoder.encode(questions, tables), list[TableAnswer]()
    probabilities = sigmoid(outputs[TOKEN_LOGITS].astype(np.float64))
    operations = outputs[OPERATION_LOGITS].argmax(axis=1) if OPERATION_LOGITS in outputs else None
    for row, table in enumerate(tables):
        cells = _cells(encoder, table, pairs.pad([row])["token_type_ids"][0], probabilities[row])
        answers.append(TableAnswer(cells, None if operations is None else encoder.operations[operations[row]]))
    return answers


def answers_of(
    encoder: PairRowEncoder, question: str, texts: Sequence[str], outputs: Mapping[str, Array]
) -> Optional[Callable[[int], Optional[TableAnswer]]]:
    """Return a function that answers a question from the text at an index; None if the ranker names no cells.

    The function returns None for a text that is no table.

    outputs: the ranker's outputs for the question and each text, `[texts, ...]`
    """
    if TOKEN_LOGITS not in outputs:
        return None

    def answer(number: int) -> Optional[TableAnswer]:
        if not isinstance(texts[number], PlacedText):
            return None
        rows = {name: array[number : number + 1] for name, array in outputs.items()}
        return table_answers(encoder, [question], [texts[number]], rows)[0]

    return answer


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
