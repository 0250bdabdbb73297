"""Bounds of the parameters of a search, which the server, `SearchEngine` and `Index` check before any stage.

check_parameters(Listing(top_k=10, sort=["-year"]), query="rice", facets=["year"])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Optional

from paddle_ranker.errors import ParameterError, nearest, quoted
from paddle_ranker.retrieval.values.filters import no_field
from paddle_ranker.retrieval.values.listing import Listing
from paddle_ranker.scoring.texts import require_count

LONGEST_QUERY = 1000  # code points of a query that are read
MOST_PARTS = 16  # phrases and exclusions of a query; each of them may read many documents
MOST_SHOWN = 1 << 13  # with more shown documents, a position drops those that are no longer in the list
LEAST_COUNTS = {"top_k": 1, "offset": 0, "depth": 1, "rank_top": 0, "snippet": 1, "field_size": 1, "group_size": 1}
_LONGEST_CURSOR = 4 * 2 * 8 * MOST_SHOWN // 3 + 24  # characters: 8 bytes each of 2 * MOST_SHOWN documents, in base64
MOST_SORTED = 1 << 13  # documents that a search lists in the order of fields
MOST_NAMES = 16  # names in facets or in sort
_MOST_VALUES, _MOST_CHARACTERS = 1000, 100_000  # values that a filter compares with, and their characters


def check_parameters(
    listing: Listing,
    greatest: Mapping[str, int] = MappingProxyType({}),
    *,
    query: Optional[str] = None,
    like: object = None,
    facets: Optional[Sequence[str]] = None,
    cursor: Optional[str] = None,
    depth: Optional[int] = None,
    rank_top: Optional[int] = None,
    snippet: Optional[int] = None,
    field_size: Optional[int] = None,
    fusion: object = None,
    ranker: object = None,
    by: Optional[Sequence[str]] = (),
    literal: bool = False,
    prefix: bool = False,
    can_rank: bool = True,
) -> None:
    """Raise `ParameterError` for a parameter that is out of bounds, or that has no effect beside another parameter.

    greatest: maximum value by parameter, for counts such as `top_k`; a server gets these maxima from its options
    query: the query; if it is empty, and there is no `like`, documents are listed
    can_rank: whether there is a ranker
    """
    is_browsing = query is not None and like is None and not query.strip()
    counts = {"top_k": listing.top_k, "offset": listing.offset, "group_size": listing.group_size}
    sizes = {"snippet": snippet, "field_size": field_size}
    for name, value in {**counts, "depth": depth, "rank_top": rank_top, **sizes}.items():
        if value is not None:
            require_count(value, name, LEAST_COUNTS[name])
            _refuse_above(greatest.get(name, value), value, name, "is {:,}")
    if not 0.0 <= listing.min_probability <= 1.0:
        raise ParameterError("min_probability", f"is {listing.min_probability}, must be at least 0 and at most 1")
    for name, names in (("sort", listing.sort), ("facets", facets or ())):
        _refuse_above(MOST_NAMES, len(names), name, "has {:,} names")
        fields = [field.removeprefix("-") if name == "sort" else field for field in names]
        if twice := next((field for field in fields if fields.count(field) > 1), None):
            raise ParameterError(name, f"names {quoted(twice)} more than once: leave one out")
    conditions = () if listing.where is None else listing.where.conditions
    values = [str(value) for condition in conditions for value in condition.values]
    _refuse_above(_MOST_VALUES, len(values), "where", "compares with {:,} values")
    _refuse_above(_MOST_CHARACTERS, sum(map(len, values)), "where", "compares with {:,} characters")
    _refuse_above(_LONGEST_CURSOR, len(cursor or ""), "cursor", "has {:,} characters")
    if cursor and listing.offset:
        raise ParameterError("cursor", "stands beside offset, which it replaces: leave one out")
    if listing.group_size > 1 and listing.group_by is None:
        raise ParameterError("group_size", "is about the groups of group_by: add it, or leave this out")
    is_sorted = bool(listing.sort) or is_browsing
    if listing.min_probability and not is_sorted and (rank_top == 0 or not can_rank):
        reason = "there is no ranker" if not can_rank else "rank_top is 0"
        raise ParameterError("min_probability", f"is about documents that are ranked, and {reason}: leave it out")
    if not is_sorted:
        return
    unused = {"like": like, "fusion": fusion, "ranker": ranker, "rank_top": rank_top}
    unused |= {"min_probability": listing.min_probability, "depth": depth if listing.group_by is None else None}
    of_words = {"by": by, "literal": literal, "prefix": prefix} if is_browsing else {}
    beside = "sort, which scores and ranks nothing" if listing.sort else "an empty query, which lists documents"
    for name, argument in {**unused, **of_words}.items():
        if argument:
            beside = "an empty query, which lists documents" if name in of_words else beside
            raise ParameterError(name, f"stands beside {beside}: leave one out")
    if listing.offset + listing.top_k > MOST_SORTED:
        problem = f"reaches beyond the first {MOST_SORTED:,} sorted documents: narrow them by where, or page by cursor"
        raise ParameterError("offset" if listing.offset else "top_k", problem, is_too_large=True)


def check_names(parameter: str, names: Sequence[str], fields: Sequence[str]) -> None:
    """Raise `ParameterError` if a parameter has a name that is not among the documents' fields."""
    allowed = {*fields}
    for name in names:
        if name not in allowed:
            raise ParameterError(parameter, no_field(name, fields))


def check_sort(sort: object, fields: Sequence[str]) -> None:
    """Raise `ParameterError`, with an example, if `sort` is no sequence of names of the documents' fields."""
    names = sort if isinstance(sort, (list, tuple)) else [sort]
    for name in names:
        plain = name.removeprefix("-") if isinstance(name, str) and not isinstance(sort, str) else None
        if plain not in fields:
            problem = f"is {quoted(sort)}, expected names of fields" if plain is None else no_field(plain, fields)
            meant = nearest(plain or "", fields) or next(iter(fields), "")
            example = f"; sort by {quoted(meant)}, or by {quoted(f'-{meant}')} for the highest first" if meant else ""
            raise ParameterError("sort", f"{problem}{example}")


def _refuse_above(most: int, count: int, parameter: str, what: str) -> None:
    if count > most:
        raise ParameterError(parameter, f"{what.format(count)}, at most {most:,} are allowed", is_too_large=True)
