"""What a ranker reads of documents: the passages that its tokens have room for, with most of the query's words."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Optional, Protocol

import numpy as np

from paddle_ranker.array_types import Integers
from paddle_ranker.data.files.placed_text import CELLS, PICTURES
from paddle_ranker.errors import UsageError
from paddle_ranker.lexical.passages import Span, best_span, characters_for, estimated_ends
from paddle_ranker.retrieval.snapshots.searchable import Snapshot
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.places import placed_text
from paddle_ranker.retrieval.work.turns import checked

_PAIR_TOKENS, _SPECIAL_TOKENS = 128, 3  # tokens of a pair, for a ranker that is not trained yet


class TokenCounter(Protocol):
    """Counter of a ranker's tokens; `PairEncoder` is one.

    Attributes:
        places: what the ranker reads in place of plain texts, see `PairEncoder.places`; "": plain texts.
    """

    @property
    def places(self) -> str: ...

    def room_beside(self, query: str) -> int: ...

    def token_ends(self, texts: Sequence[str]) -> Sequence[Integers]: ...


class EstimatedTokens:
    """Token counter that estimates tokens by the script of a text, for pairs of 128 tokens."""

    places = ""

    def room_beside(self, query: str) -> int:
        return max(_PAIR_TOKENS - _SPECIAL_TOKENS - len(estimated_ends([query])[0]), _PAIR_TOKENS // 2)

    def token_ends(self, texts: Sequence[str]) -> Sequence[Integers]:
        return estimated_ends(texts)


def texts_for_ranker(
    now: Snapshot,
    documents: Sequence[Document],
    encoder: Optional[TokenCounter],
    query: str,
    word_weights: Callable[[], Mapping[str, float]],
    passages_of: Mapping[str, Span],
) -> list[tuple[Span, str]]:
    """Cut documents for a ranker; see `Search.read`.

    encoder: encoder of the ranker's pairs; None if the ranker reads any length
    query: the query as the ranker reads it
    word_weights: returns the weight of each token of the query; called if a text is cut
    passages_of: by id, the passages whose vectors were found
    """
    kind = "" if encoder is None else encoder.places
    passages = {} if kind == CELLS else passages_of  # a part of a table lacks its header
    schema = now.info.schema
    spans = [passages.get(document.id, (0, len(document.text))) for document in documents]
    room = sys.maxsize if encoder is None else encoder.room_beside(query)
    long = [number for number, (start, end) in enumerate(spans) if end - start > room]
    if encoder is not None and long:
        beside = encoder.token_ends([schema.model_text(documents[number], "") for number in long])
        rooms, starts, parts = [max(room - len(ends), room // 4) for ends in beside], [], []
        for number, tokens in checked(zip(long, rooms)):
            text = documents[number].text[slice(*spans[number])]
            size = characters_for(text, tokens)
            start, _ = best_span(text, word_weights(), size, schema.analyser)
            starts.append(spans[number][0] + start)
            parts.append(text[start : start + 3 * size // 2])  # long enough for `tokens` tokens of the ranker
        for number, tokens, start, part, ends in zip(long, rooms, starts, parts, encoder.token_ends(parts)):
            spans[number] = start, start + (len(part) if len(ends) <= tokens else int(ends[tokens - 1]))
    if kind == PICTURES:
        return [(span, _picture(now, document)) for span, document in zip(spans, documents)]
    texts = [placed_text(document, schema, kind) if kind else document.text for document in documents]
    return [
        (span, schema.model_text(document, text[slice(*span)])) for span, document, text in zip(spans, documents, texts)
    ]


def _picture(now: Snapshot, document: Document) -> str:
    """Return the first picture of a document, for a ranker that reads pictures; a white picture if it has none.

    Raises `UsageError` for documents of shards elsewhere, because the files stay there.
    """
    from paddle_ranker.encoding.picture_pairs import PictureTitle

    files = now.files
    if files is None:
        raise UsageError("a ranker that reads pictures needs their files, and these are elsewhere: rank there")
    for file_field in now.info.schema.files:
        value = document.fields.get(file_field.name) if file_field.type == "picture" else None
        if value:
            return PictureTitle(files.read(str(value[0] if isinstance(value, list) else value)))
    return PictureTitle(np.full((1, 1, 3), 255, np.uint8))
