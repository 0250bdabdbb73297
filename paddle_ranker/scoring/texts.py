"""Check the texts and counts that a Python caller gives; errors name the wrong item."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from numbers import Integral, Real

from paddle_ranker.errors import UsageError, quoted, refuse_text, require_items


def require_text(given: object, name: str) -> str:
    """Return `given` if it is text; otherwise raise `UsageError`, naming the argument."""
    if not isinstance(given, str):
        raise UsageError(f"{name} is {_shown(given)}: expected text")
    return given


def is_number(given: object) -> bool:
    """Return whether `given` is a number; True and False are not."""
    return not isinstance(given, bool) and isinstance(given, Real)


def require_count(given: object, name: str, least: int = 1) -> None:
    """Raise `UsageError`, naming the argument, unless `given` is a whole number of at least `least`."""
    if isinstance(given, bool) or not isinstance(given, Integral) or int(given) < least:
        raise UsageError(f"{name} {quoted(given)}: must be a whole number from {least} on")


def list_texts(given: object, name: str) -> list[str]:
    """Return the texts of any iterable, such as a generator or a table's column, as a list.

    Raises `UsageError`, naming the argument, if it is a single text or a mapping, is not iterable, or holds anything
    but texts.
    """
    refuse_text(given, name)
    if not isinstance(given, Iterable):
        raise UsageError(f"{name} is {_shown(given)}: expected an iterable of texts")
    return require_items(given, name)


def list_searches(given: object, name: str) -> list[tuple[str, list[str]]]:
    """Return a list of (query, titles), from an iterable of such pairs or from a mapping of queries to titles.

    Raises `UsageError`, naming the argument, for anything else.
    """
    if isinstance(given, Mapping):
        given = given.items()
    if not isinstance(given, Iterable) or isinstance(given, (str, bytes, bytearray)):
        raise UsageError(f"{name} is {_shown(given)}: expected pairs of a query and its titles, or a mapping of these")
    searches = []
    for place, search in enumerate(given):
        if not isinstance(search, (tuple, list)) or len(search) != 2:
            raise UsageError(f"{name}[{place}] is {_shown(search)}: expected a query and its titles, ('query', titles)")
        query, titles = search
        searches.append(
            (require_text(query, f"the query of {name}[{place}]"), list_texts(titles, f"the titles of {name}[{place}]"))
        )
    return searches


def _shown(given: object) -> str:
    if given is None:
        return "None"
    if isinstance(given, str):
        return f"the text {quoted(given)}"
    return f"{quoted(given)} ({type(given).__name__})"
