"""Check the texts and counts that a Python caller gives; errors name the wrong item."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from numbers import Integral, Real

from paddle_ranker.errors import ParameterError, UsageError, quoted, refuse_text, require_items


def require_text(value: object, name: str) -> str:
    """Return `value` if it is text; otherwise raise `UsageError`, naming the argument."""
    if not isinstance(value, str):
        raise UsageError(f"{name} is {_shown(value)}: expected text")
    return value


def is_number(value: object) -> bool:
    """Return whether `value` is a number; True and False are not."""
    return not isinstance(value, bool) and isinstance(value, Real)


def require_count(value: object, name: str, least: int = 1) -> None:
    """Raise `ParameterError`, naming the argument, unless `value` is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ParameterError(name, f"is {quoted(value)}, expected a whole number")
    if value < least:
        raise ParameterError(name, f"is {value:,}, must be at least {least}")


def list_texts(value: object, name: str) -> list[str]:
    """Return the texts of any iterable, such as a generator or a table's column, as a list.

    Raises `UsageError`, naming the argument, if it is a single text or a mapping, is not iterable, or holds anything
    but texts.
    """
    refuse_text(value, name)
    if not isinstance(value, Iterable):
        raise UsageError(f"{name} is {_shown(value)}: expected an iterable of texts")
    return require_items(value, name)


def list_searches(value: object, name: str) -> list[tuple[str, list[str]]]:
    """Return a list of (query, titles), from an iterable of pairs or from a mapping of queries to titles.

    Raises `UsageError`, naming the argument, for anything else.
    """
    if isinstance(value, Mapping):
        value = value.items()
    if not isinstance(value, Iterable) or isinstance(value, (str, bytes, bytearray)):
        raise UsageError(f"{name} is {_shown(value)}: expected pairs of a query and its titles, or a mapping of these")
    searches = []
    for place, search in enumerate(value):
        if not isinstance(search, (tuple, list)) or len(search) != 2:
            raise UsageError(f"{name}[{place}] is {_shown(search)}: expected a query and its titles, ('query', titles)")
        query, titles = search
        searches.append(
            (require_text(query, f"the query of {name}[{place}]"), list_texts(titles, f"the titles of {name}[{place}]"))
        )
    return searches


def _shown(value: object) -> str:
    if value is None:
        return "None"
    if isinstance(value, str):
        return f"the text {quoted(value)}"
    return f"{quoted(value)} ({type(value).__name__})"
