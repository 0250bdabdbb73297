"""What a ranker reads of documents: the passage that its tokens have room for, with most of the query's words."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Optional, Protocol

from paddle_ranker.array_types import Integers
from paddle_ranker.data.files.placed_text import CELLS, PICTURES
from paddle_ranker.errors import UsageError, refuse_text
from paddle_ranker.lexical.passages import Span, best_span, characters_for, estimated_ends
from paddle_ranker.retrieval.snapshots.searchable import Snapshot
from paddle_ranker.retrieval.stages.query import SearchedQuery
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
    query: SearchedQuery,
    documents: Sequence[Document],
    encoder: Optional[TokenCounter],
    passages_of: Mapping[str, Span],
) -> list[tuple[Span, str]]:
    """Cut documents for a ranker; return, for each, the span of its text that the ranker reads, and the input text.

    The span is the passage whose vector was found, else the whole text. If the ranker cannot read a span whole, the
    span is cut to the part with most of the query's words. The schema's template makes the input text of the span.

    encoder: encoder of the ranker's pairs; None if the ranker reads any length
    passages_of: by id, the passages whose vectors were found
    """
    refuse_text(documents, "documents", Document)
    kind = "" if encoder is None else encoder.places
    passages = {} if kind == CELLS else passages_of  # a part of a table lacks its header
    now, schema = query.collection, query.collection.info.schema
    spans = [passages.get(document.id, (0, len(document.text))) for document in documents]
    room = sys.maxsize if encoder is None else encoder.room_beside(query.model_text)
    long = [number for number, (start, end) in enumerate(spans) if end - start > room]
    if encoder is not None and long:
        beside = encoder.token_ends([schema.model_text(documents[number], "") for number in long])
        rooms, starts, parts = [max(room - len(ends), room // 4) for ends in beside], [], []
        for number, tokens in checked(zip(long, rooms)):
            text = documents[number].text[slice(*spans[number])]
            size = characters_for(text, tokens)
            start, _ = best_span(text, query.word_weights, size, schema.analyser)
            starts.append(spans[number][0] + start)
            parts.append(text[start : start + 3 * size // 2])  # long enough for `tokens` tokens of the ranker
        for number, tokens, start, part, ends in zip(long, rooms, starts, parts, encoder.token_ends(parts)):
            spans[number] = start, start + (len(part) if len(ends) <= tokens else int(ends[tokens - 1]))
    if encoder is not None and kind == PICTURES:
        return [(span, _file(now, document, encoder)) for span, document in zip(spans, documents)]
    texts = [placed_text(document, schema, kind) if kind else document.text for document in documents]
    return [
        (span, schema.model_text(document, text[slice(*span)])) for span, document, text in zip(spans, documents, texts)
    ]


def _file(now: Snapshot, document: Document, encoder: TokenCounter) -> str:
    """Return the first file of a document that a ranker of files reads, as a title; a title for none if it has none.

    Raises `UsageError` for documents of shards elsewhere, because the files stay there.
    """
    from paddle_ranker.encoding.file_pairs import FilePairEncoder

    assert isinstance(encoder, FilePairEncoder)
    files = now.files
    if files is None:
        raise UsageError(f"a ranker that reads {encoder.reads}s needs their files, and these are elsewhere: rank there")
    for file_field in now.info.schema.files:
        value = document.fields.get(file_field.name) if file_field.type == encoder.reads else None
        if value:
            return encoder.unread_title(files.read(str(value[0] if isinstance(value, list) else value)))
    return encoder.unread_title(None)
