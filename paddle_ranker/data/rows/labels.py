"""Labels: whole numbers from 0 to 1,000. Fractions may be retrieval scores, so they are refused unless allowed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Optional

from paddle_ranker.errors import DataError

LARGEST = 1000  # larger numbers are counts, ids or dates; grades end far below


class LabelError(Exception):
    """Number that is not a valid label; the message is the reason."""


class FractionError(Exception):
    """A fraction in place of a label. The file may be of another kind, so callers must refuse the whole file."""


def number_of(value: Any) -> Optional[float]:
    """Parse a cell as a finite number; return None for any other cell."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float, Decimal)):
        return None
    if isinstance(value, str) and "_" in value:  # Python reads "1_0" as 10
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def looks_numeric(value: Any) -> bool:
    """Return whether a cell is a number, including nan and infinity."""
    try:
        float(value)
    except (ValueError, TypeError, OverflowError):
        return False
    return True


def checked_label(number: float, *, fractions: bool = False) -> float:
    """Return `number`, if it is a valid label.

    fractions: whether fractions are allowed

    Raises `FractionError` for a fraction that is not allowed, `LabelError` for a number outside 0 to 1,000.
    """
    if not fractions and not number.is_integer():
        raise FractionError(f"{number:g}")
    if not 0 <= number <= LARGEST:
        raise LabelError(f"the label {number:g} is not from 0 to {LARGEST:,}: labels are 0 and 1, or grades")
    return number


def fraction_refusal(path: str, line: int, label: str, following: Sequence[Any], *, named: bool) -> DataError:
    """Return the error about a fractional label; its message names the probable kind of the file, and a remedy.

    label: the cell with the fraction
    following: the label cells of the following rows
    named: whether the file's header names the column `label`
    """
    numbers = [number for number in map(number_of, following) if number is not None]
    fractions = 1 + sum(not number.is_integer() for number in numbers)
    if 2 * fractions >= 1 + len(numbers) and not named:
        looks = (
            f": {fractions} of the {1 + len(numbers)} rows looked at from there on hold one: this looks like a file of "
            "pairs to score with their recall scores (query, title, recall_score), which prediction and rank take"
        )
    else:
        looks = f" ({fractions} of the {1 + len(numbers)} rows looked at from there on hold one)"
    return DataError(
        f"{path}, line {line}: the label {label} is a fraction, and labels are whole numbers from 0 up{looks}. Give a "
        "file of query, title, label; if the fractions are graded labels, type --fractional_labels true"
    )
