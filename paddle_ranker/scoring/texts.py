"""The texts that a caller from Python gives: any iterable of them, and an error that names anything else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from paddle_ranker.errors import UsageError


def require_text(given: object, name: str) -> str:
    """Return a text; raises `UsageError`, naming the argument, for anything else."""
    if not isinstance(given, str):
        raise UsageError(f"{name} is {_shown(given)}: expected text")
    return given


def list_texts(given: object, name: str) -> list[str]:
    """Return the texts of any iterable, a generator or a column of a table, say.

    Raises `UsageError`, naming the argument, for a single text, whose letters would be taken for texts, for what is no
    iterable, and for anything in it that is no text.
    """
    if isinstance(given, str):
        raise UsageError(f"{name} is {_shown(given)}: expected several texts, as in [{given[:40]!r}]")
    if not isinstance(given, Iterable) or isinstance(given, (bytes, bytearray)):
        raise UsageError(f"{name} is {_shown(given)}: expected an iterable of texts")
    texts = list(given)
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise UsageError(f"{name}[{place}] is {_shown(text)}: expected text")
    return texts


def list_searches(given: object, name: str) -> list[tuple[str, list[str]]]:
    """Return queries and the titles of each: of pairs (query, titles), or of a mapping from queries to titles.

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
        return f"the text {given[:40]!r}"
    return f"{repr(given)[:40]} ({type(given).__name__})"
