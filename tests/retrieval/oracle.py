"""What filters mean, without the package's values: for documents whose values are written as people write them."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping
from datetime import date, datetime, timezone
from fractions import Fraction
from typing import Any

from paddle_ranker.retrieval.values.filters import Filter

_ORDERS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_DATE = re.compile(r"\d{4}-\d\d.*")


def meets(where: Filter, fields: Mapping[str, object]) -> bool:
    """Return whether a document meets a filter; dates need a month, and numbers are no texts."""
    return all(_holds(one.operator, one.values, fields.get(one.field)) for one in where.conditions)


def _holds(sign: str, values: tuple[Any, ...], value: object) -> bool:
    own = [one for one in (value if isinstance(value, list) else [value]) if one is not None]
    if sign in _ORDERS:
        return any(_ORDERS[sign](*both) for one in own for both in [_comparable(one, values[0], sign)] if both)
    is_equal = any(_ends(one, wanted) for one in own for wanted in values) or (not own and None in values)
    return is_equal != (sign == "!=")


def _ends(one: object, wanted: object) -> bool:
    low, high = _comparable(one, wanted, ">="), _comparable(one, wanted, "<=")
    return bool(low and high and low[0] >= low[1] and high[0] <= high[1])


def _comparable(one: Any, wanted: Any, sign: str) -> Any:
    if isinstance(one, bool) or isinstance(wanted, bool):
        return (one, wanted) if type(one) is type(wanted) else None
    if isinstance(one, (int, float)):
        try:
            return Fraction(one), Fraction(wanted)
        except ValueError:
            return None
    if isinstance(wanted, str) and _DATE.fullmatch(wanted) and _DATE.fullmatch(one):
        return _moment(one, False), _moment(wanted, sign in (">", "<="))
    return (one, str(wanted))


def _moment(text: str, is_end: bool) -> datetime:
    if len(text) <= len("2024-03"):
        year, month = map(int, text.split("-"))
        first = date(year + month // 12, month % 12 + 1, 1) if is_end else date(year, month, 1)
        at = datetime(first.year, first.month, first.day, tzinfo=timezone.utc)
        return datetime.fromtimestamp(at.timestamp() - 1, timezone.utc) if is_end else at
    at = datetime.fromisoformat(text.replace("Z", "+00:00"))
    at = at if at.tzinfo else at.replace(tzinfo=timezone.utc)
    return at.replace(hour=23, minute=59, second=59, microsecond=999999) if is_end and len(text) == 10 else at
