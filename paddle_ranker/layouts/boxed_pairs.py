"""Encode pairs whose tokens have boxes on a page, for LayoutLM and LiLT."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Optional

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.data.files.placed_text import PlacedText
from paddle_ranker.encoding.columns import EncodedPairs, EncodedTexts
from paddle_ranker.encoding.pair_encoder import LengthCheck, PairEncoder
from paddle_ranker.encoding.tokenizers.interface import Ids, ModelTokenizer
from paddle_ranker.errors import DataError, quoted

SIDE = 1000  # largest coordinate of a box in the networks
_Boxes = NDArray[np.int16]

_FAR = 0.5  # share of the page by which a box may reach outside; a box that reaches farther has other units


class BoxedPairEncoder(PairEncoder):
    """Encoder of pairs whose texts may be `PlacedText`s with boxes, `(start, end, x0, y0, x1, y1)`.

    Coordinates are fractions of the page, with the origin at its top left. A token has the box of the span that
    contains its last character; a token outside all spans has the box (0, 0, 0, 0), as in transformers. Boxes that
    reach outside the page are clipped; `clipped` counts them.

    separator: value of all four coordinates of a separator token's box, if the pair or text has a `PlacedText`
    """

    places, place_size = "boxes", 4

    def __init__(self, files: ModelTokenizer, max_seq_length: int, separator: int = 0) -> None:
        super().__init__(files, max_seq_length)
        self.clipped, self._separator = 0, separator

    def counts(self) -> dict[str, int]:
        """Return counts for a report, by phrase: pairs or texts that were truncated, boxes that were clipped."""
        return {**super().counts(), "boxes reached outside their pages and were clipped": self.clipped}

    def sample(self, text: str, random: np.random.Generator) -> str:
        """Return `text` as an example title with a random box for each character."""
        corners = np.sort(random.random((len(text), 2, 2)), axis=1).reshape(-1, 4).tolist()
        return PlacedText(text, ((place, place + 1, *box) for place, box in enumerate(corners)))

    def _with_places(self, pairs: EncodedPairs, queries: Sequence[str], titles: Sequence[str]) -> EncodedPairs:
        boxes = np.zeros((len(pairs.ids), self.place_size), np.int16)
        before, between, after = map(len, (self.template.before, self.template.between, self.template.after))
        for row, (query, title) in enumerate(zip(queries, titles)):
            start, end, second = int(pairs.offsets[row]), int(pairs.offsets[row + 1]), int(pairs.second_starts[row])
            if _has_places(query) or _has_places(title):
                boxes[end - after : end] = boxes[start + second - between : start + second] = self._separator
            self._put(boxes[start + before : start + second - between], query)
            self._put(boxes[start + second : end - after], title)
        return replace(pairs, places=boxes.reshape(-1), place_size=self.place_size)

    def _alone(
        self,
        texts: Sequence[str],
        before: Ids,
        after: Ids,
        most: int,
        check: Optional[LengthCheck] = None,
        prompt: str = "",
    ) -> EncodedTexts:
        encoded = super()._alone(texts, before, after, most, check, prompt)
        texts = [prompt + text for text in texts] if prompt else texts
        boxes = np.zeros((len(encoded.ids), self.place_size), np.int16)
        for row, text in enumerate(texts):
            start, end = int(encoded.offsets[row]), int(encoded.offsets[row + 1]) - len(after)
            if _has_places(text):
                boxes[end : end + len(after)] = self._separator
            self._put(boxes[start + len(before) : end], text)
        return replace(encoded, places=boxes.reshape(-1), place_size=self.place_size)

    def _put(self, target: _Boxes, text: str) -> None:
        """Write the boxes of a text's tokens, without truncated tokens, into `target`."""
        if not isinstance(text, PlacedText) or not text.places or not len(target):
            return
        spans = np.array([place[:2] for place in text.places], np.int64)
        last = self._tokenizer.ends([text])[0] - 1
        last = last[-len(target) :] if self.template.keeps_end else last[: len(target)]
        owner = np.searchsorted(spans[:, 0], last, side="right") - 1
        is_placed = (owner >= 0) & (last < spans[np.maximum(owner, 0), 1])
        boxes, clipped = self._boxes(text)
        if clipped:
            with self._truncated_lock:
                self.clipped += clipped
        target[is_placed] = boxes[owner[is_placed]]

    def check_places(self, title: PlacedText) -> int:
        """Return how many boxes are clipped; raises `DataError` if the places are no boxes, or no fractions."""
        return self._boxes(title)[1]

    def _boxes(self, text: PlacedText) -> tuple[_Boxes, int]:
        """Return (the boxes of a text's spans, `[spans, 4]`, from 0 to `SIDE`; how many of them are clipped)."""
        for place in text.places:
            if len(place) != 2 + self.place_size:
                form = "expected [start, end, x0, y0, x1, y1]"
                raise DataError(f"the text {quoted(text)}: a place is {list(place)}, {form}; correct it")
            if not -_FAR <= min(place[2:]) <= max(place[2:]) <= 1 + _FAR:
                problem = "expected fractions of the page: divide by 1000, or by its width and height"
                raise DataError(f"the text {quoted(text)}: a place is {list(place)}, {problem}")
        corners = np.array([place[2:] for place in text.places], np.float64)
        boxes = np.clip(np.rint(SIDE * corners), 0, SIDE)
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2])
        outside = ((corners < 0) | (corners > 1)).any(axis=1) | (corners[:, 2:] < corners[:, :2]).any(axis=1)
        return boxes.astype(np.int16), int(outside.sum())


def _has_places(text: str) -> bool:
    return isinstance(text, PlacedText) and bool(text.places)
