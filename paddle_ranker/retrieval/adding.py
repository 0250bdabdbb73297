"""Documents to new segments of an index folder: which are new, what their ids and vectors are."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple, Optional, Union

import numpy as np

from paddle_ranker.data.records import DocumentRow
from paddle_ranker.errors import DataError, quoted
from paddle_ranker.lexical.postings import Postings, text_hashes
from paddle_ranker.lexical.tokens import tokenizer_named
from paddle_ranker.retrieval.exact import StoredVectors, Vectors
from paddle_ranker.retrieval.generation import Generation, Place
from paddle_ranker.retrieval.indexes import Document
from paddle_ranker.retrieval.manifest import IndexInfo, SegmentInfo
from paddle_ranker.retrieval.merging import Source, merge_segments
from paddle_ranker.retrieval.segments import Contents, Segment, WriteIndex, check_document, write_segment
from paddle_ranker.retrieval.vector_search import writer_of

VectorsOf = Callable[[Sequence[str]], Vectors]
AT_ONCE, CHARACTERS_AT_ONCE = 1 << 14, 1 << 25  # most documents and characters that a new segment gets


class Added(NamedTuple):
    """What `Collection.add` did: how many documents are new, replaced, and as they were."""

    new: int
    replaced: int
    unchanged: int
    repeated: int = 0  # rows without an id whose text came before


class Addition:
    """Writes new segments of documents into an index folder; they count once a new manifest names them.

    new_segment: returns the folder of a new segment
    vectors_of: returns the vectors of texts, `[n, size]`

    Attributes, of what was written: `segments`; `replaced`, the places of documents that are to be removed; `next_id`.
    """

    def __init__(self, new_segment: Callable[[], Path], now: Generation, vectors_of: VectorsOf):
        self._new_segment, self._now, self._info, self._vectors_of = new_segment, now, now.info, vectors_of
        self.segments: list[SegmentInfo] = []
        self.replaced: list[Place] = []
        self.next_id = self._info.next_id
        self._written: list[Segment] = []
        self._unchanged = self._repeated = 0

    def run(self, rows: Iterable[Union[Document, DocumentRow]]) -> Added:
        """Write segments of documents."""
        chunks = _chunks(rows)
        first, second = next(chunks, []), next(chunks, [])
        for chunk in chain([first, second] if second else [first], chunks):
            changed = self._changed(self._with_ids(chunk))
            if changed:
                self._write(changed, writer_of(self._info.vectors) if not second else None)
        added = sum(map(len, self._written))
        if second and self._written:
            folder = self._new_segment()
            sources: list[Source] = [(segment, None) for segment in self._written]
            merge_segments(folder, sources, writer_of(self._info.vectors))
            for segment in self._written:
                shutil.rmtree(segment.folder)
            self._written = [Segment(folder)]
        self.segments = [SegmentInfo(one.name, len(one)) for one in self._written]
        return Added(added - len(self.replaced), len(self.replaced), self._unchanged, self._repeated)

    def _with_ids(self, chunk: Sequence[Union[Document, DocumentRow]]) -> list[Document]:
        """Return rows as documents; of rows without an id, those alone whose text did not come before."""
        texts = list(dict.fromkeys(row.text for row in chunk if row.id is None))
        hashes, documents = text_hashes(texts), []
        given: set[str] = set()
        known = {text: self._now.at(place).id for text, place in self._now.find_texts(texts).items()}
        given.update(texts[place] for one in self._written for place, _ in one.rows_of_texts(texts, hashes))
        numbers = iter(self._free_numbers(len(texts)))
        for row in chunk:
            if row.id is None:
                if row.text in given:
                    self._repeated += 1
                    continue
                given.add(row.text)
            id = row.id or known.get(row.text) or next(numbers)
            documents.append(Document(id, row.text, row.fields))
        return documents

    def _free_numbers(self, count: int) -> list[str]:
        """Return the next numbers that are no document's id."""
        found: list[str] = []
        while len(found) < count:
            tried = [str(number) for number in range(self.next_id, self.next_id + count)]
            taken = self._now.find(tried)
            found += [number for number in tried if number not in taken][: count - len(found)]
            self.next_id = int(found[-1]) + 1 if len(found) == count else self.next_id + count
        return found

    def _changed(self, chunk: Sequence[Document]) -> list[Document]:
        """Return the documents as they are to be stored, without those that are there already."""
        ids = [document.id for document in chunk]
        hashes, times = text_hashes(ids), Counter(ids)
        again = [id for id in ids if times[id] > 1]
        again += [ids[place] for segment in self._written for place, _ in segment.rows_of_ids(ids, hashes)]
        if again:
            raise DataError(f"document {quoted(again[0])}: there are two of this id; give each its own")
        there, changed = self._now.find(ids), []
        for document in chunk:
            place = there.get(document.id)
            old = None if place is None else self._now.at(place)
            if place is None or old is None:
                changed.append(Document(document.id, document.text, document.fields))
            elif (old.text, old.fields) == (document.text, document.fields):
                self._unchanged += 1
            else:
                self.replaced.append(place)
                changed.append(Document(document.id, document.text, document.fields, old.version + 1))
        return changed

    def _write(self, chunk: Sequence[Document], write_index: Optional[WriteIndex]) -> None:
        words, vectors = self._info.words, self._info.vectors
        texts = [document.text for document in chunk]
        contents = Contents(
            chunk,
            None if vectors is None else StoredVectors.of(self._vectors(chunk, texts), vectors.dtype),
            None if words is None else Postings.of(texts, tokenizer_named(words.tokenizer)),
        )
        folder = self._new_segment()
        write_segment(folder, contents, write_index)
        self._written.append(Segment(folder))

    def _vectors(self, chunk: Sequence[Document], texts: Sequence[str]) -> Vectors:
        """Return the vectors of texts; those of texts that are in the collection are taken from there."""
        assert self._info.vectors is not None
        found = np.empty((len(texts), self._info.vectors.size), np.float32)
        there, missing = self._now.find_texts(texts), []
        for number, text in enumerate(texts):
            place = there.get(text)
            stored = None if place is None else self._now.parts[place.part].segment.vectors
            if place is None or stored is None:
                missing.append(number)
            else:
                found[number] = stored.rows(np.array([place.row]))[0]
        if missing:
            made = self._vectors_of([texts[number] for number in missing])
            found[missing] = checked_vectors(made, [chunk[number].id for number in missing], self._info)
        return found


def _chunks(documents: Iterable[Union[Document, DocumentRow]]) -> Iterator[list[Union[Document, DocumentRow]]]:
    """Yield documents that can be stored, as many at a time as a new segment gets."""
    chunk: list[Union[Document, DocumentRow]] = []
    characters = 0
    for document in documents:
        check_document(document.id, document.text)
        chunk.append(document)
        characters += len(document.text)
        if len(chunk) == AT_ONCE or characters >= CHARACTERS_AT_ONCE:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def checked_vectors(vectors: Vectors, ids: Optional[Sequence[str]], info: IndexInfo) -> Vectors:
    """Return vectors as float32, `[n, size]`; raises `DataError`, naming the first bad one, for others.

    ids: of the documents that they are of; None for queries
    """
    assert info.vectors is not None
    wanted = (len(vectors) if ids is None else len(ids), info.vectors.size)
    if vectors.shape != wanted:
        raise DataError(f"vectors of the shape {list(vectors.shape)}, expected {list(wanted)}: the index has that size")
    found = np.ascontiguousarray(vectors, np.float32)
    bad = np.flatnonzero(~np.isfinite(found).all(axis=1))
    if len(bad):
        whose = f"query {bad[0] + 1}" if ids is None else f"document {quoted(ids[bad[0]])}"
        raise DataError(f"{whose}: its vector holds numbers that are not finite (NaN or infinity); make it again")
    return found
