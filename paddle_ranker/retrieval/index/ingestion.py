"""Write documents into new segments of an index folder: find new documents, give them ids, compute their vectors."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Generic, Optional, TypeVar, Union

import numpy as np

from paddle_ranker.array_types import Vectors
from paddle_ranker.data.files.placed_text import PlacedText
from paddle_ranker.data.rows.field_paths import value_at
from paddle_ranker.data.rows.records import DocumentRow
from paddle_ranker.errors import CheckpointError, DataError, brief, misspelt, quoted
from paddle_ranker.lexical.passages import Span, cut_passages, estimated_ends
from paddle_ranker.lexical.postings import text_hashes
from paddle_ranker.model.tower import TextEncoder, TitledText
from paddle_ranker.retrieval.index.content_staging import StagedFiles
from paddle_ranker.retrieval.index.merging import Source, merge_segments, postings_of
from paddle_ranker.retrieval.snapshots.open_segments import Generation, Location
from paddle_ranker.retrieval.snapshots.searchable import Added
from paddle_ranker.retrieval.snapshots.vector_search import checked_vectors, index_writers
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import VECTORS, SegmentInfo, VectorField, is_segment
from paddle_ranker.retrieval.stored.places import pieces_in, pieces_of
from paddle_ranker.retrieval.stored.schema import MOST_FIELDS, PLACES, TEXT, FieldTower, Schema
from paddle_ranker.retrieval.stored.segment_writing import (
    SegmentData,
    WriteIndex,
    WriteStates,
    have_same_contents,
    storable,
    write_segment,
)
from paddle_ranker.retrieval.stored.segments import Segment
from paddle_ranker.retrieval.vectors.exact_search import StoredVectors
from paddle_ranker.retrieval.vectors.field_vectors import FieldVectors, Passages
from paddle_ranker.retrieval.vectors.vector_settings import VectorsInfo
from paddle_ranker.retrieval.work.turns import check, checked
from paddle_ranker.storage.atomic import new_file
from paddle_ranker.storage.prefetch import chunks_by_length
from paddle_ranker.storage.untrusted import Unchecked, inside, read_json

_T = TypeVar("_T")
_Key = TypeVar("_Key", bound=Hashable)
Name = Optional[tuple[_Key, int]]  # id of a row, and the number that it was made of, or OWN; None: the row is left out
OWN = -1
Spans = list[Span]  # of each passage of a text
VectorsOf = Callable[[Sequence[str]], Vectors]
_FIRST_PIECE, _PIECE_SECONDS = 256, 10.0  # texts of the first piece of work, and seconds that later pieces should take
_VALUES_AT_ONCE, _FILES_AT_ONCE = 256, 64  # texts and files that a further vector field's tower gets at a time
JOURNAL = "unfinished.json"  # names segments that an addition has begun
_KEPT_SECONDS = 20.0  # vectors that took longer are kept for the next run, should this one be killed
AT_ONCE, CHARACTERS_AT_ONCE = 1 << 14, 1 << 25  # most documents and characters that a new segment gets


class RepeatedIdsError(DataError):
    """Error: several documents of an addition have the same id; `ids` has such ids."""

    def __init__(self, ids: Sequence[str]) -> None:
        super().__init__(f"document {quoted(ids[0])}: there are two of this id; give each its own")
        self.ids = ids


class MisspeltFieldError(DataError):
    """Error: a document's field has a name like that of a field of the index; `name` is its name."""

    def __init__(self, document: Document, name: str, meant: str) -> None:
        self.name = name
        self._problem = (
            f"document {quoted(document.id)}: has {quoted(name)}, which the index lacks (did you mean {brief(meant)}?)"
            "; rename it, or if it is a field of its own"
        )
        super().__init__(f"{self._problem}, name it in new_fields")

    def advising(self, advice: str) -> DataError:
        """Return the error with other words about how the field is named as a new one."""
        return DataError(f"{self._problem}, {advice}")


class Naming(Generic[_Key]):
    """Source of ids for the rows of an addition that have none.

    Ids and texts may be given as they are, or as hashes of them.

    Args:
        next_id: see the attribute.
        ids_of: called with numbers; returns them as ids.
        written_ids, written_texts: called with ids or texts; return those that the addition has so far.
        index_ids, index_texts: called with ids or texts; return those that the index had before, texts with the ids.

    Attributes:
        next_id: number that the next row without an id gets.
        repeated: number of rows without an id that were left out, because they equal an earlier row.
    """

    def __init__(
        self,
        next_id: int,
        ids_of: Callable[[range], list[_Key]],
        written_ids: Callable[[list[_Key]], Iterable[_Key]],
        written_texts: Callable[[list[_Key]], Iterable[_Key]],
        index_ids: Callable[[list[_Key]], Iterable[_Key]] = lambda _: (),
        index_texts: Callable[[list[_Key]], Mapping[_Key, _Key]] = lambda _: {},
    ):
        self.next_id, self.repeated, self._ids_of = next_id, 0, ids_of
        self._written_ids, self._written_texts = written_ids, written_texts
        self._index_ids, self._index_texts = index_ids, index_texts

    def names(self, rows: Sequence[tuple[Optional[_Key], _Key]]) -> tuple[list[Name[_Key]], list[_Key]]:
        """Return a name for each row, and the ids that occur again, in the addition or in these rows.

        A row without an id gets the id of an equal document of the index, or a new number; if it equals an earlier row
        of the addition, it is left out.

        rows: id, or None, and text of each row of a chunk
        """
        ids = {id for id, _ in rows if id is not None}
        texts = list(dict.fromkeys(text for id, text in rows if id is None))
        # If another row of the chunk has the id of an equal document, the document is left to that row.
        indexed = {text: id for text, id in self._index_texts(texts).items() if id not in ids}
        seen = {*self._written_texts(texts)}
        numbers = iter(self._free_numbers(len({*texts} - {*indexed} - seen), ids))
        names = list[Name[_Key]]()
        for id, text in rows:
            if id is None and text in seen:
                self.repeated += 1
                names.append(None)
                continue
            seen.add(text)
            id = indexed.get(text) if id is None else id
            names.append(next(numbers) if id is None else (id, OWN))
        times = Counter(name[0] for name in names if name is not None)
        again = [id for id, count in times.items() if count > 1]
        return names, list(dict.fromkeys([*again, *self._written_ids([*times])]))

    def _free_numbers(self, count: int, others: set[_Key]) -> list[tuple[_Key, int]]:
        """Return the next `count` numbers that are the id of no document and not in `others`, each after its id."""
        numbers = list[tuple[_Key, int]]()
        while len(numbers) < count:
            tried = range(self.next_id, self.next_id + count)
            ids = self._ids_of(tried)
            taken = others.union(self._index_ids(ids), self._written_ids(ids))
            numbers += [(id, number) for id, number in zip(ids, tried) if id not in taken][: count - len(numbers)]
            self.next_id = numbers[-1][1] + 1 if len(numbers) == count else tried.stop
        return numbers


def _naming_of(now: Generation, written: Sequence[Segment]) -> Naming[str]:
    """Return the source of ids for an addition; the caller appends its segments to `written`."""

    def written_ids(ids: Sequence[str]) -> Iterator[str]:
        hashes = text_hashes(ids)
        return (ids[index] for segment in written for index, _ in segment.rows_of_ids(ids, hashes))

    def written_texts(texts: Sequence[str]) -> Iterator[str]:
        hashes = text_hashes(texts)
        return (texts[index] for segment in written for index, _ in segment.rows_of_texts(texts, hashes))

    def index_texts(texts: Sequence[str]) -> dict[str, str]:
        return {text: now.document_at(location).id for text, location in now.find_texts(texts).items()}

    return Naming(
        now.info.next_id, lambda numbers: [*map(str, numbers)], written_ids, written_texts, now.find, index_texts
    )


class Addition:
    """Writer of documents into new segments of index folders; the caller then adds the segments to index.json.

    A document that replaces another one goes to the folder of the replaced document. A new document goes to the
    smallest folder.

    Args:
        folders: the index folders.
        new_segment: called with a folder; returns the path of a new segment in it.
        now: the documents of the index before the addition.
        vectors_of: called with texts; returns their vectors, `[n, size]`.
        cutter: divides texts into passages.
        files: keeps the files in documents' fields.
        tower: called with the name of a further vector field; returns its tower.
        unfinished: segments of interrupted additions, whose vectors are used again; None if only `prepare` is called.
        prepared: results of `prepare` for the documents.
        write_states: writes the stored states of documents, if the index has them.
        new_fields: fields that are new, although their names are like those of fields that the index has.

    Attributes:
        segments: the segments that were written.
        replaced: locations of documents that are replaced; the caller must remove them.
        gone: locations of documents for parts that their files no longer have; the caller must remove them.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        new_segment: Callable[[Path], Path],
        now: Generation,
        vectors_of: VectorsOf,
        cutter: Cutter,
        files: StagedFiles,
        tower: Callable[[str], FieldTower],
        unfinished: Optional[Unfinished] = None,
        prepared: Sequence[SegmentData] = (),
        write_states: Optional[WriteStates] = None,
        new_fields: Iterable[str] = (),
    ):
        self._folders, self._sizes = folders, dict.fromkeys(folders, 0)
        for part in now.parts:
            self._sizes[part.segment.folder.parent] += int(np.count_nonzero(part.mask))
        self._new_segment, self._now, self._info, self._vectors_of = new_segment, now, now.info, vectors_of
        self._cutter, self._files, self._tower = cutter, files, tower
        self._unfinished, self._prepared, self._write_states = unfinished, prepared, write_states
        self.segments: list[SegmentInfo] = []
        self.replaced: list[Location] = []
        self.gone: list[Location] = []
        self._written: list[Segment] = []
        self._naming = _naming_of(now, self._written)
        self._unchanged = 0
        self._at_once = dict[str, int]()  # by vector field: number of inputs that its tower gets at a time
        self._matched = [~part.mask for part in now.parts]  # documents that are removed or have a row in this addition
        self._known = {*now.fields}
        self._right = {*new_fields, *now.info.schema.part_fields, PLACES}  # names that are no misspelt ones
        self._fields = {*self._known}

    @property
    def next_id(self) -> int:
        """Number that the next document without an id gets."""
        return self._naming.next_id

    def prepare(self, documents: Sequence[Document]) -> list[SegmentData]:
        """Compute words and vectors of the documents that `run` would write, by folder."""
        kept = [self._files.keep(storable(document, self._info.schema), self._info.schema) for document in documents]
        changed = self._changed(self._named(kept))
        return [self._segment_data(group) for group in self._by_folder(changed).values()]

    def _named(self, chunk: Sequence[Union[Document, DocumentRow]]) -> list[Document]:
        """Convert rows to documents with ids; raises `RepeatedIdsError` if an id occurs twice in the addition."""
        identity = self._info.schema.identity
        rows = [(row.id, identity(Document(row.id or "", row.text, row.fields))) for row in chunk]
        names, again = self._naming.names(rows)
        if again:
            raise RepeatedIdsError(again)
        return [Document(name[0], row.text, row.fields) for name, row in zip(names, chunk) if name is not None]

    def run(self, rows: Iterable[Union[Document, DocumentRow]]) -> Added:
        """Write segments of documents and return the counts."""
        kept = (self._files.keep(storable(row, self._info.schema), self._info.schema) for row in rows)
        chunks = chunks_of(kept, text_length)
        first, second = next(chunks, []), next(chunks, [])
        are_many = bool(second)  # if so, a folder's segments are merged, and only the merged one gets a vector index
        for chunk in chain([first, second] if are_many else [first], chunks):
            for folder, changed in self._by_folder(self._changed(self._named(chunk))).items():
                self._write(folder, changed, {} if are_many else index_writers(self._info))
                if are_many and self._info.vector_fields and self._unfinished is not None:
                    self._unfinished.keep(self._written[-1])
        added = sum(map(len, self._written))
        if are_many:
            self._written = [merged for folder in self._folders for merged in self._merged(folder)]
        self.segments = [SegmentInfo(segment.name, len(segment)) for segment in self._written]
        if self._files.read_ids:
            self.gone = [*self._gone_parts()]
        absent = sum(int(np.count_nonzero(~matched)) for matched in self._matched)
        new, replaced = added - len(self.replaced), len(self.replaced)
        return Added(new, replaced, self._unchanged, self._naming.repeated, absent, len(self.gone))

    def _merged(self, folder: Path) -> Iterator[Segment]:
        """If a folder has new segments, merge them into one segment, and yield it."""
        segments = [segment for segment in self._written if segment.folder.parent == folder]
        if segments:
            target, sources = self._new_segment(folder), list[Source]((segment, None) for segment in segments)
            merge_segments(target, sources, index_writers(self._info))
            if not self._info.vector_fields:  # segments with vectors are kept until the addition is committed
                for segment in segments:
                    shutil.rmtree(segment.folder)
            yield Segment(target, self._info.schema)

    def _by_folder(self, documents: Sequence[Document]) -> dict[Path, list[Document]]:
        """Group documents by the folder that has a document of the same id; new documents go to the smallest folder."""
        if len(self._folders) == 1:
            return {self._folders[0]: list(documents)} if documents else {}
        locations = self._now.find([document.id for document in documents])
        smallest = min(self._folders, key=self._sizes.__getitem__)
        groups = dict[Path, list[Document]]()
        for document in documents:
            location = locations.get(document.id)
            folder = smallest if location is None else self._now.segment_at(location).folder.parent
            groups.setdefault(folder, []).append(document)
        return groups

    def _gone_parts(self) -> Iterator[Location]:
        """Yield the locations of the index's documents for parts of a file that a new reading of the file lacks."""
        for part, matched in enumerate(self._matched):
            rows, segment = np.flatnonzero(~matched), self._now.parts[part].segment
            for row, id in zip(rows.tolist(), segment.ids(rows)):
                file, mark, _ = id.rpartition("#")
                if (file if mark else id) in self._files.read_ids:
                    location = Location(part, row)
                    if self._info.schema.reader_of(self._now.document_at(location)) is not None:
                        matched[row] = True
                        yield location

    @property
    def absent(self) -> list[Location]:
        """Locations of the index's documents that have no row in `run` and are not in `gone`."""
        rows_of_parts = (np.flatnonzero(~matched).tolist() for matched in self._matched)
        return [Location(part, row) for part, rows in enumerate(rows_of_parts) for row in rows]

    def _changed(self, chunk: Sequence[Document]) -> list[Document]:
        """Return the documents that are new to the index, or whose indexed version has another text or fields."""
        locations, changed = self._now.find([document.id for document in chunk]), []
        for document in chunk:
            location = locations.get(document.id)
            if location is not None:
                self._matched[location.part][location.row] = True
            old = None if location is None else self._now.document_at(location)
            if location is None or old is None:
                changed.append(Document(document.id, document.text, document.fields))
            elif have_same_contents(old, document):
                self._unchanged += 1
            else:
                self.replaced.append(location)
                changed.append(Document(document.id, document.text, document.fields, old.version + 1))
        return changed

    def _write(self, folder: Path, chunk: Sequence[Document], write_index: Mapping[str, WriteIndex]) -> None:
        contents = next((data for data in self._prepared if data.documents == chunk), None) or self._segment_data(chunk)
        segment = self._new_segment(folder)
        write_segment(segment, contents, self._info.schema, write_index)
        self._written.append(Segment(segment, self._info.schema))
        self._sizes[folder] += len(chunk)

    def _segment_data(self, chunk: Sequence[Document]) -> SegmentData:
        self._check_fields(chunk)
        words = self._info.words
        for document in checked(chunk):
            self._info.schema.check(document)
        vectors = {
            name: (self._vectors_of_texts if name == VECTORS else self._vectors_of_field)(field, chunk)
            for name, field in self._info.vector_fields.items()
        }
        return SegmentData(
            chunk,
            vectors,
            None if words is None else postings_of(chunk, self._info.schema, words.tokenizer),
            self._write_states,
        )

    def _check_fields(self, chunk: Sequence[Document]) -> None:
        for document in chunk:
            values = self._info.schema.values(document)
            if not self._fields.issuperset(values):
                for name in [name for name, value in values.items() if value not in (None, "")]:
                    is_right = name in self._fields or name in self._right
                    meant = "" if is_right else misspelt(name, self._known - values.keys())
                    if meant:
                        raise MisspeltFieldError(document, name, meant)
                self._fields.update(values)
                if len(self._fields) > MOST_FIELDS:
                    problem = f"with it, all have {len(self._fields):,} fields together, above {MOST_FIELDS:,}"
                    raise DataError(f"document {quoted(document.id)}: {problem}; name fewer")

    def _vectors_of_field(self, field: VectorField, chunk: Sequence[Document]) -> FieldVectors:
        """Return the vectors of documents' values in a field; vectors of unchanged documents are copied from the index.

        A recording has a vector for each of its pieces.
        """
        schema_field = self._info.schema.field(field.name)

        def values_of(document: Document) -> tuple[list[Unchecked], Spans]:
            values = _values_of(document, field.name)
            return values, pieces_of(document, schema_field) or [(0, 0)] * len(values)

        locations = self._now.find([document.id for document in chunk])
        values, lenders = [*map(values_of, chunk)], dict[int, Location]()
        for number, document in enumerate(chunk):
            location = locations.get(document.id)
            if location is not None and values_of(self._now.document_at(location)) == values[number]:
                lenders[number] = location
        are_files = schema_field in self._info.schema.files

        def inputs(number: int) -> list[Unchecked]:
            items, pieces = values[number]
            if not are_files:
                return items
            if any(end for _, end in pieces):
                self._files.verify(items[0])  # raises if there is no such file
                return pieces_in(self._files.find(items[0]), pieces)
            return [self._files.read(name) for name in items]

        def vectors_of(batch: list[Unchecked]) -> Vectors:
            return self._tower(field.name).vectors(batch)

        spans, most = [pieces for _, pieces in values], _FILES_AT_ONCE if are_files else _VALUES_AT_ONCE
        return self._copied_or_computed(field, chunk, spans, lenders, inputs, vectors_of, most)

    def _vectors_of_texts(self, field: VectorField, chunk: Sequence[Document]) -> FieldVectors:
        """Return the vectors of documents' passages.

        If the index has a document with the same text or id, and the tower reads the same input text of both documents,
        the indexed vectors are copied.
        """
        schema, spans, lenders = self._info.schema, self._cutter.spans(chunk), dict[int, Location]()
        texts = [schema.identity(document) for document in chunk]
        same_text, same_id = self._now.find_texts(texts), self._now.find([document.id for document in chunk])
        for number, (text, document) in enumerate(zip(texts, chunk)):
            location = same_text.get(text, same_id.get(document.id))
            if location is None:
                continue
            # Other fields may change; what the tower reads may not.
            if schema.model_text(self._now.document_at(location)) == schema.model_text(document):
                lenders[number] = location

        def inputs(number: int) -> list[Unchecked]:
            document = chunk[number]
            title, parts = schema.model_text(document, ""), [document.text[slice(*span)] for span in spans[number]]
            texts = [schema.model_text(document, part) for part in parts]
            if not title or isinstance(document.text, PlacedText):
                return texts
            return [TitledText.of(text, title, part) for text, part in zip(texts, parts)]

        return self._copied_or_computed(field, chunk, spans, lenders, inputs, self._vectors_of, AT_ONCE)

    def _copied_or_computed(
        self,
        field: VectorField,
        chunk: Sequence[Document],
        spans: Sequence[Spans],
        lenders: Mapping[int, Location],
        inputs: Callable[[int], list[Unchecked]],
        vectors_of: Callable[[list[Unchecked]], Vectors],
        most: int,
    ) -> FieldVectors:
        """Return the vectors of documents in a field: copied from the index or an interrupted addition, else computed.

        spans: for each document, the (start, end) of each of its vectors
        lenders: location of the indexed document to copy vectors from, by index in `chunk`
        inputs: called with an index in `chunk`; returns the tower's inputs for that document, one per vector
        vectors_of: called with such inputs; returns their vectors
        most: maximum number of inputs in one call of `vectors_of`
        """
        name, firsts = field.name, np.cumsum([0, *map(len, spans)])
        vectors, missing = np.empty((int(firsts[-1]), field.info.size), np.float32), list[int]()
        for number in np.flatnonzero(np.diff(firsts)).tolist():
            location, target = lenders.get(number), vectors[firsts[number] : firsts[number + 1]]
            lender = None if location is None else self._now.segment_at(location)
            if location is None or lender is None or not _copied(target, spans[number], lender, location.row, name):
                missing.append(number)
        if self._unfinished is not None:
            texts = [self._info.schema.identity(document) for document in chunk]
            missing = self._unfinished.fill(vectors, spans, texts, missing, name)
        start, unkept, kept_at = 0, 0, time.monotonic()
        while start < len(missing):
            check()
            began, stop, count = time.monotonic(), start, 0
            at_once = min(most, self._at_once.get(name, _FIRST_PIECE))
            while stop < len(missing) and (stop == start or count + len(spans[missing[stop]]) <= at_once):
                count, stop = count + len(spans[missing[stop]]), stop + 1
            batch = missing[start:stop]
            made = checked_vectors(
                vectors_of([value for number in batch for value in inputs(number)]),
                [chunk[number].id for number in batch for _ in spans[number]],
                field.info,
            )
            vectors[np.concatenate([np.arange(firsts[number], firsts[number + 1]) for number in batch])] = made
            start, now = stop, time.monotonic()
            self._at_once[name] = max(1, min(int(count * _PIECE_SECONDS / max(now - began, 1e-3)), most))
            if self._unfinished is not None and now - kept_at >= _KEPT_SECONDS and start < len(missing):
                done = missing[unkept:start]
                done_vectors = np.concatenate([vectors[firsts[number] : firsts[number + 1]] for number in done])
                kept = _field_vectors(done_vectors, [spans[number] for number in done], field.info)
                folder, schema = self._new_segment(self._folders[0]), self._info.schema
                contents = SegmentData([chunk[number] for number in done], {name: kept}, None)
                write_segment(folder, contents, schema)
                self._unfinished.keep(Segment(folder, schema))
                unkept, kept_at = start, now
        return _field_vectors(vectors, spans, field.info)


class Cutter:
    """Divider of documents' texts into passages of the schema's length.

    encoder: text encoder of the tower that reads the passages; None: tokens are estimated
    """

    def __init__(self, schema: Schema, encoder: Optional[TextEncoder] = None):
        self._schema, self._encoder = schema, encoder

    def spans(self, documents: Sequence[Document]) -> list[Spans]:
        """Return the start and end, in code points, of each passage of each document."""
        tokens, overlap, encoder = self._schema.passage_tokens, self._schema.passage_overlap, self._encoder
        if not tokens:
            return [[(0, len(document.text))] for document in documents]
        if encoder is None:
            ends = estimated_ends([document.text for document in documents])
            return [
                cut_passages(document.text, token_ends, tokens, overlap)
                for document, token_ends in zip(documents, ends)
            ]
        return [self._cut(encoder, document, tokens, overlap) for document in documents]

    def _cut(self, encoder: TextEncoder, document: Document, tokens: int, overlap: int) -> Spans:
        count, prompt, schema = encoder.tokens.count_tokens, encoder.text_prompt, self._schema
        beside = count(prompt + schema.model_text(document, ""))
        # The title and other text beside a passage leave it at least a quarter of the room.
        most = min(tokens, max(encoder.room + count(prompt) - beside, encoder.room // 4, 1))

        def counted(part: str) -> int:
            """Return the number of tokens of a passage, alone or between prompt and title, whichever is greater."""
            read = prompt + schema.model_text(document, part)
            return count(part) if read == part else max(count(part), count(read) - beside)

        (ends,) = encoder.tokens.token_ends([document.text])
        return cut_passages(document.text, ends, most, min(overlap, most // 2), counted)


def _field_vectors(vectors: Vectors, spans: Sequence[Spans], info: VectorsInfo) -> FieldVectors:
    """Convert the vectors of documents to the form of a segment.

    spans: for each document, the (start, end) of each of its vectors
    """
    passages: Optional[Passages] = None
    if any(len(document_spans) != 1 for document_spans in spans):
        rows = [(row, *span) for row, document_spans in enumerate(spans) for span in _stored(document_spans)]
        passages = np.array(rows, np.int32).reshape(-1, 3)
    return FieldVectors(len(spans), StoredVectors.of(vectors, info.dtype), passages)


def _stored(spans: Spans) -> Spans:
    """Return spans as a segment stores them: [(0, 0)] replaces a single span, because it is the whole text."""
    return spans if len(spans) != 1 else [(0, 0)]


def _values_of(document: Document, field: str) -> list[Unchecked]:
    """Return a document's non-empty values of a field."""
    value = document.text if field == TEXT else value_at(document.fields, field)
    return [item for item in (value if isinstance(value, list) else [value]) if item]


def _copied(vectors: Vectors, spans: Spans, segment: Segment, row: int, field: str) -> bool:
    """Copy the vectors of the document at `row` of a segment into `vectors`; return whether that was possible.

    Returns False if the segment has no vectors in this field, or if the document was divided into other spans.
    """
    field_vectors = segment.vectors.get(field)
    if field_vectors is None:
        return False
    rows = field_vectors.rows(row)
    passages = field_vectors.passages
    stored_spans = [(0, 0)] if passages is None else [*map(tuple, passages[rows, 1:].tolist())]
    if stored_spans != _stored(spans):
        return False
    vectors[:] = field_vectors.stored.rows(rows)
    return True


class Unfinished:
    """Segments of interrupted additions, whose vectors are used again; `unfinished.json` in each folder lists them."""

    def __init__(self, folders: Sequence[Path], schema: Schema):
        self._files = [folder / JOURNAL for folder in folders]
        self.segments: list[Segment] = []
        for index, file in zip(folders, self._files):
            if os.path.lexists(file):
                try:
                    named = read_json(inside(index, file.name))
                    if not isinstance(named, list) or not all(map(is_segment, named)):
                        raise ValueError("it names what is no segment")
                except ValueError as error:
                    raise CheckpointError(f"{file}: damaged ({brief(str(error))}); delete it") from error
                self.segments += [
                    Segment(index / name, schema) for name in dict.fromkeys(named) if (index / name).is_dir()
                ]

    def keep(self, segment: Segment) -> None:
        """Keep a segment until `forget`, although no index.json names it."""
        self.segments.append(segment)
        index = segment.folder.parent
        with new_file(inside(index, JOURNAL)) as stream:
            json.dump([kept.name for kept in self.segments if kept.folder.parent == index], stream)

    def fill(
        self, vectors: Vectors, spans: Sequence[Spans], texts: Sequence[str], missing: Sequence[int], field: str
    ) -> list[int]:
        """Copy vectors of the kept segments into `vectors`; return the indices that are still missing.

        vectors: `[n, size]`, the vectors of all texts one after the other; changed in place
        spans: for each text, its passages
        texts: texts of documents as `Schema.identity` returns them
        missing: indices of the texts without vectors
        """
        text_vectors, wanted = np.split(vectors, np.cumsum([*map(len, spans)])[:-1]), dict[str, list[int]]()
        for number in missing:
            wanted.setdefault(texts[number], []).append(number)
        names, hashes, done = [*wanted], text_hashes(wanted), set[int]()
        for segment in self.segments:
            for index, row in segment.rows_of_texts(names, hashes):
                done.update(n for n in wanted[names[index]] if _copied(text_vectors[n], spans[n], segment, row, field))
        return [number for number in missing if number not in done]

    def forget(self) -> None:
        """Delete the kept segments."""
        for file in self._files:
            file.unlink(missing_ok=True)
        for segment in self.segments:
            shutil.rmtree(segment.folder, ignore_errors=True)
        self.segments = []


def text_length(document: Union[Document, DocumentRow]) -> int:
    """Return the number of characters of a document's text."""
    return len(document.text)


def chunks_of(documents: Iterable[_T], length: Callable[[_T], int]) -> Iterator[list[_T]]:
    """Yield documents, or what stands for them, in lists of the size of a new segment; `length`: see `text_length`."""
    return chunks_by_length(documents, length, AT_ONCE, CHARACTERS_AT_ONCE)
