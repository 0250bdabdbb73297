"""Answer questions about tables: a ranker chooses the cells of the answer, and an operation on the cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Optional, Protocol, runtime_checkable

from paddle_ranker.array_types import Array
from paddle_ranker.data.files.placed_text import PlacedText
from paddle_ranker.encoding.pair_encoder import PairRowEncoder
from paddle_ranker.model.model_kind import TOKEN_LOGITS
from paddle_ranker.scoring.engines.engine import Engine


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


@runtime_checkable
class AnsweringEncoder(Protocol):
    """Row encoder of rankers that name cells."""

    def answers(
        self, questions: Sequence[str], tables: Sequence[str], outputs: Mapping[str, Array]
    ) -> list[TableAnswer]:
        """Return the answers of the tables `tables[i]` to the questions `questions[i]`.

        outputs: the ranker's outputs for the pairs, `[n, ...]`, among them logits of tokens (`names_cells`)
        """
        ...


def table_answers(
    encoder: PairRowEncoder, questions: Sequence[str], tables: Sequence[str], outputs: Mapping[str, Array]
) -> list[TableAnswer]:
    """Return the answers of tables to questions, see `AnsweringEncoder.answers`."""
    assert isinstance(encoder, AnsweringEncoder)
    return encoder.answers(questions, tables, outputs)


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
