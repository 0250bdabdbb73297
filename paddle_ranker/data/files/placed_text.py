"""Texts whose spans have places, such as the boxes of words on a page, or the cells of a table.

A ranker that reads places takes a `PlacedText` as a title; all other code treats it as a plain text.

    PlacedText("Total 12", [(0, 5, 0.1, 0.8, 0.2, 0.82), (6, 8, 0.3, 0.8, 0.35, 0.82)])
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import SupportsIndex, Union

# What a ranker reads in place of plain texts: `PairEncoder.places`.
CELLS, PICTURES = "cells", "pictures"
SpanPlace = tuple[Union[int, float], ...]  # start and end in code points, and the numbers of the place


class PlacedText(str):
    """Text with `places`: `(start, end, *numbers)` for each of its spans, in the order of the text.

    start and end count code points. Two objects are equal if their texts and their places are equal. A slice keeps the
    places of its spans, and `prompt + text` keeps all places.
    """

    places: tuple[SpanPlace, ...]

    def __new__(cls, text: str, places: Iterable[Sequence[Union[int, float]]]) -> PlacedText:
        """Create the text; raises `ValueError` unless the places are spans in order, with finite numbers."""
        created = super().__new__(cls, text)
        created.places = tuple(tuple(place) for place in places)
        before = 0
        for place in created.places:
            if len(place) < 3 or not all(type(number) in (int, float) and math.isfinite(number) for number in place):
                raise ValueError(f"a place is {list(place)}, expected the numbers [start, end, ...]")
            start, end = place[:2]
            if type(start) is not int or type(end) is not int or not before <= start <= end <= len(text):
                raise ValueError(
                    f"a place is {list(place)}: expected start and end in a text of {len(text)} characters, in order"
                )
            before = start
        return created

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and str(self) == str(other) and self.places == getattr(other, "places", ())

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__

    def __getnewargs__(self) -> tuple[str, tuple[SpanPlace, ...]]:  # type: ignore[override]
        return str(self), self.places  # for pickle

    def __add__(self, other: str) -> PlacedText:
        return PlacedText(str(self) + other, self.places)

    def __radd__(self, other: str) -> PlacedText:
        shifted = ((start + len(other), end + len(other), *rest) for start, end, *rest in self.places)
        return PlacedText(other + str(self), shifted)

    def __getitem__(self, key: Union[SupportsIndex, slice]) -> str:
        """Return a character, or a slice with the places of its spans."""
        part = str(self)[key]
        if not isinstance(key, slice) or key.step not in (None, 1):
            return part
        first, last, _ = key.indices(len(self))
        spans = ((max(place[0], first), min(place[1], last), place[2:]) for place in self.places)
        return PlacedText(part, ((start - first, end - first, *rest) for start, end, rest in spans if start < end))
