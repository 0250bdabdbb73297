"""An index folder: a collection's documents, their words and vectors, which can be searched while documents are added.

with Collection.open("index", write=True) as collection:
    collection.add([Document("a", "水稻病害诊断", {"lang": "zh"})])
    (hits,) = collection.search("words", ["水稻"], 10, Filter.parse(["lang=zh"]))

`index.json`, which is replaced in one step, names the segments that count (see `segments.py`) and the rows of each that
are removed. Whoever has the folder open keeps what it named then, until `refresh`. One process at a time may write.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple, Optional, Union

import numpy as np

from paddle_ranker.data.records import DocumentRow
from paddle_ranker.errors import CheckpointError, DataError, RankerError, UsageError, listed, quoted
from paddle_ranker.lexical.postings import Postings, text_hashes
from paddle_ranker.lexical.tokens import tokenizer_named
from paddle_ranker.metrics.ranking import Booleans, Floats, Integers
from paddle_ranker.retrieval.exact import StoredVectors, VectorPart, Vectors, exact_search
from paddle_ranker.retrieval.filters import Filter
from paddle_ranker.retrieval.indexes import Document, Hits
from paddle_ranker.retrieval.manifest import MANIFEST, IndexInfo, SegmentInfo, read_manifest, write_manifest
from paddle_ranker.retrieval.segments import Contents, Segment, check_document, write_segment
from paddle_ranker.retrieval.words import WordPart, WordSearcher
from paddle_ranker.storage.atomic import locked, new_file, remove_unfinished

VectorsOf = Callable[[Sequence[str]], Vectors]
AT_ONCE, CHARACTERS_AT_ONCE = 1 << 14, 1 << 25  # most documents and characters that a new segment gets
WORDS, VECTORS = "words", "vectors"
_LOCK = "writer.lock"


@dataclass(frozen=True)
class Part:
    """A segment of a generation.

    live: `[documents] bool`, which of them are not removed; None if all are there
    first: number of its first document
    """

    segment: Segment
    live: Optional[Booleans]
    first: int

    def has(self, row: int) -> bool:
        """Return whether the document in this row is live."""
        return self.live is None or bool(self.live[row])


class Place(NamedTuple):
    """Where a document is: the number of its part, and its row there."""

    part: int
    row: int


class Generation:
    """What `index.json` named at one time, open for reading; never changes."""

    def __init__(self, folder: Path, info: IndexInfo, opened: dict[str, Segment]):
        self.info, self.parts = info, []
        first = 0
        for one in info.segments:
            segment = opened.get(one.name) or Segment(folder / one.name)
            live = None
            if one.deleted is not None:
                live = np.ones(len(segment), bool)
                live[np.load(folder / one.deleted, allow_pickle=False)] = False
            self.parts.append(Part(segment, live, first))
            first += len(segment)
        self._firsts = np.array([part.first for part in self.parts], np.int64)
        self.words = self._word_searcher()

    def _word_searcher(self) -> Optional[WordSearcher]:
        words = self.info.words
        if words is None:
            return None
        parts = [WordPart(p.segment.postings, p.live, p.first) for p in self.parts if p.segment.postings is not None]
        return WordSearcher(parts, tokenizer_named(words.tokenizer), words.k1, words.b)

    def vector_parts(self) -> list[VectorPart]:
        """Return the vectors of all parts."""
        return [VectorPart(p.segment.vectors, p.live, p.first) for p in self.parts if p.segment.vectors is not None]

    def segments(self) -> dict[str, Segment]:
        """Return the open segments by name."""
        return {part.segment.name: part.segment for part in self.parts}

    def allowed(self, where: Optional[Filter]) -> Optional[list[Booleans]]:
        """Return, for each part, which documents are live and meet a filter; None without a filter."""
        if where is None:
            return None
        return [
            meet if part.live is None else meet & part.live
            for part in self.parts
            for meet in [part.segment.matching(where)]
        ]

    def hits(self, numbers: Integers, scores: Floats) -> Hits:
        """Return the documents of some numbers as hits."""
        places = np.searchsorted(self._firsts, numbers, "right") - 1
        rows = (numbers - self._firsts[places]).tolist() if len(numbers) else []
        return Hits([self.parts[place].segment.id(row) for place, row in zip(places.tolist(), rows)], scores)

    def find(self, ids: Sequence[str]) -> dict[str, Place]:
        """Return the places of the documents with these ids; those that are not here are left out."""
        hashes, found = text_hashes(ids), {}
        for number, part in enumerate(self.parts):
            for place, row in part.segment.rows_of_ids(ids, hashes):
                if part.has(row):
                    found[ids[place]] = Place(number, row)
        return found

    def find_texts(self, texts: Sequence[str]) -> dict[str, Place]:
        """Return, for each of these texts that a document has, the place of the first such document."""
        hashes = text_hashes(texts)
        found: dict[str, Place] = {}
        for number, part in enumerate(self.parts):
            for place, row in part.segment.rows_of_texts(texts, hashes):
                if part.has(row):
                    found.setdefault(texts[place], Place(number, row))
        return found

    def at(self, place: Place) -> Document:
        """Return the document in a place."""
        return self.parts[place.part].segment.document(place.row)


class Added(NamedTuple):
    """What `Collection.add` did: how many documents are new, replaced, and as they were."""

    new: int
    replaced: int
    unchanged: int
    repeated: int = 0  # rows without an id whose text came before


class Collection:
    """An index folder that is open.

    Attributes: `folder`; `info`, what its index.json says; `searchers`, the names that it can be searched by;
    `tower_folder`, its own copy of the tower, None where there are no vectors or they were made elsewhere.

    Searches may run in any number of threads, also while another thread adds, removes or refreshes.
    """

    def __init__(self, folder: Path, generation: Generation, lock: Optional[IO[str]]):
        self.folder, self._now, self._lock = folder, generation, lock
        self._tower_vectors: Optional[VectorsOf] = None

    @classmethod
    def create(cls, folder: Union[str, Path], info: IndexInfo) -> Collection:
        """Make an empty index folder and open it for writing; raises `RankerError` if there is one already."""
        folder = Path(folder)
        lock = _take_lock(folder)
        if (folder / MANIFEST).exists():
            lock.close()
            raise RankerError(f"{folder}: is an index already; add to it, or name another folder")
        write_manifest(folder, info)
        return cls(folder, Generation(folder, info, {}), lock)

    @classmethod
    def open(cls, folder: Union[str, Path], *, write: bool = False) -> Collection:
        """Open an index folder; raises `CheckpointError` for another or a damaged folder.

        write: documents may be added and removed; raises `RankerError` if another process has it open so
        """
        folder = Path(folder)
        read_manifest(folder)  # before a lock is put into a folder that is none
        lock = _take_lock(folder) if write else None
        try:
            collection = cls(folder, _open_generation(folder, {}), lock)
            if write:
                collection._clean()
            return collection
        except BaseException:
            if lock is not None:
                lock.close()
            raise

    @property
    def info(self) -> IndexInfo:
        return self._now.info

    @property
    def searchers(self) -> tuple[str, ...]:
        """The names that `search` takes."""
        return (WORDS,) * (self.info.words is not None) + (VECTORS,) * (self.info.vectors is not None)

    @property
    def tower_folder(self) -> Optional[Path]:
        tower = self.info.tower
        return None if tower is None else self.folder / tower.folder

    def __len__(self) -> int:
        return self.info.count

    def __enter__(self) -> Collection:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let others write; what is open for searches stays so until it is forgotten."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def refresh(self) -> bool:
        """Take up what others have added and removed; return whether there was anything."""
        if read_manifest(self.folder).generation == self.info.generation:
            return False
        self._now = _open_generation(self.folder, self._now.segments())
        return True

    def search(
        self,
        by: str,
        queries: Union[Sequence[str], Vectors],
        top_k: int,
        where: Optional[Filter] = None,
        ef: Optional[int] = None,
        nprobe: Optional[int] = None,
    ) -> list[Hits]:
        """Return, for each query, up to `top_k` documents, best first, equal scores in the documents' order.

        by: one of `searchers`: "words", which takes texts; "vectors", which takes vectors, `[n, size]` float32
        where: only documents whose fields meet it
        ef, nprobe: how widely an approximate index looks; raises `UsageError` for one that has no such thing
        """
        now = self._now
        for name, value in (("ef", ef), ("nprobe", nprobe)):
            if value is not None:
                raise UsageError(f"--{name} {value}: {self.folder} is searched exactly; leave --{name} out")
        if by not in self.searchers:
            raise UsageError(f"{self.folder}: cannot be searched by {quoted(by)}, only by {listed(self.searchers)}")
        allowed = now.allowed(where)
        if by == WORDS:
            assert now.words is not None
            return [now.hits(*now.words.search(str(query), top_k, allowed)) for query in queries]
        vectors = checked_vectors(np.asarray(queries), None, self.info)
        return [now.hits(*found) for found in exact_search(now.vector_parts(), vectors, top_k, allowed)]

    def document(self, id: str) -> Document:
        """Return the document with this id; raises `KeyError` if there is none."""
        now = self._now
        return now.at(now.find([id])[id])

    def has(self, id: str) -> bool:
        """Return whether there is a document with this id."""
        return id in self._now.find([id])

    def verify(self) -> tuple[int, int]:
        """Read all that index.json names; return the number of files and their bytes.

        Raises `CheckpointError` for a file that is missing or not as it was written.
        """
        found = [part.segment.verify() for part in self._now.parts]
        for part, one in zip(self._now.parts, self.info.segments):
            if one.count != len(part.segment):
                raise CheckpointError(f"{part.segment.folder}: {len(part.segment):,} documents, not {one.count:,}")
        return sum(files for files, _ in found), sum(size for _, size in found)

    def documents(self) -> Iterator[Document]:
        """Yield all documents in their order."""
        for part in self._now.parts:
            yield from (part.segment.document(row) for row in range(len(part.segment)) if part.has(row))

    def add(self, documents: Iterable[Document], vectors_of: Optional[VectorsOf] = None) -> Added:
        """Add documents, or replace those of the same id; durable when it returns, and nothing is added if it raises.

        A replaced document goes to the end of the order, its version counts up. Documents that are there as given are
        left as they are, and vectors of texts that are there are not computed again.

        vectors_of: returns the vectors of texts, `[n, size]`, where the index has vectors (default: its own tower)
        """
        return Addition(self, vectors_of or self._own_vectors).run(documents)

    def add_rows(self, rows: Iterable[DocumentRow], vectors_of: Optional[VectorsOf] = None) -> Added:
        """Add the rows of a file as `add` does.

        A row without an id is the document that has its text already, also in this file; if there is none, it gets the
        next free number as its id.
        """
        return Addition(self, vectors_of or self._own_vectors).run(rows)

    def remove(self, ids: Iterable[str]) -> int:
        """Remove the documents of these ids and return how many there were; durable when it returns."""
        self._require_lock()
        found = self._now.find(list(ids))
        if found:
            self._commit([], found.values())
        return len(found)

    def _own_vectors(self, texts: Sequence[str]) -> Vectors:
        if self._tower_vectors is None:
            if self.tower_folder is None:
                raise UsageError(f"{self.folder}: has no tower that makes vectors; give the documents' vectors")
            from paddle_ranker.retrieval.vectors import Tower

            self._tower_vectors = Tower.open(self.tower_folder).vectors
        return self._tower_vectors(texts)

    def _require_lock(self) -> None:
        if self._lock is None:
            raise UsageError(f"{self.folder}: is open for reading; open it with write=True")

    def _commit(self, added: Sequence[SegmentInfo], removed: Iterable[Place], next_id: int = 0) -> None:
        """Make a new generation: with further segments, and without some (part, row) of this one."""
        self._require_lock()
        now, generation = self._now, self.info.generation + 1
        gone: dict[int, list[int]] = {}
        for number, row in removed:
            gone.setdefault(number, []).append(row)
        segments = list(now.info.segments)
        for number, rows in gone.items():
            part = now.parts[number]
            live = np.ones(len(part.segment), bool) if part.live is None else part.live.copy()
            live[rows] = False
            dead = np.flatnonzero(~live)
            name = f"{part.segment.name}.deleted-{generation}.npy"
            with new_file(self.folder / name, "wb") as stream:
                np.save(stream, dead)
            segments[number] = SegmentInfo(part.segment.name, len(part.segment), name, len(dead))
        kept = [one for one in [*segments, *added] if one.live]
        write_manifest(self.folder, self.info.next(kept, next_id))
        self._now = _open_generation(self.folder, now.segments())
        self._clean()

    def _clean(self) -> None:
        """Delete what a killed writer has left, and what no generation from now on names."""
        remove_unfinished(self.folder)
        named = {one.name for one in self.info.segments} | {one.deleted for one in self.info.segments}
        for path in self.folder.glob("segment-*"):
            if path.name not in named:
                _delete(path)


class Addition:
    """One call of `Collection.add`: documents to segments."""

    def __init__(self, collection: Collection, vectors_of: VectorsOf):
        self._collection, self._vectors_of = collection, vectors_of
        self._now, self._info = collection._now, collection.info
        self._segments: list[SegmentInfo] = []
        self._written: list[Segment] = []
        self._replaced: list[Place] = []
        self._unchanged = self._repeated = 0
        self._next_id = self._info.next_id

    def run(self, rows: Iterable[Union[Document, DocumentRow]]) -> Added:
        """Write segments of the documents, then commit them all."""
        self._collection._require_lock()
        for chunk in _chunks(rows):
            changed = self._changed(self._with_ids(chunk))
            if changed:
                self._write(changed)
        if self._segments:
            self._collection._commit(self._segments, self._replaced, self._next_id)
        added = sum(one.count for one in self._segments)
        return Added(added - len(self._replaced), len(self._replaced), self._unchanged, self._repeated)

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
            tried = [str(number) for number in range(self._next_id, self._next_id + count)]
            taken = self._now.find(tried)
            found += [number for number in tried if number not in taken][: count - len(found)]
            self._next_id = int(found[-1]) + 1 if len(found) == count else self._next_id + count
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
                self._replaced.append(place)
                changed.append(Document(document.id, document.text, document.fields, old.version + 1))
        return changed

    def _write(self, chunk: Sequence[Document]) -> None:
        words, vectors = self._info.words, self._info.vectors
        texts = [document.text for document in chunk]
        contents = Contents(
            chunk,
            None if vectors is None else StoredVectors.of(self._vectors(chunk, texts), vectors.dtype),
            None if words is None else Postings.of(texts, tokenizer_named(words.tokenizer)),
        )
        name = f"segment-{self._info.generation + 1:08d}-{len(self._segments):05d}"
        folder = self._collection.folder / name
        if folder.exists():
            _delete(folder)
        write_segment(folder, contents)
        self._segments.append(SegmentInfo(name, len(chunk)))
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


def _open_generation(folder: Path, opened: dict[str, Segment]) -> Generation:
    """Open what index.json names; it may be replaced, and files deleted, while they are opened."""
    while True:
        info = read_manifest(folder)
        try:
            return Generation(folder, info, opened)
        except FileNotFoundError as error:
            if read_manifest(folder).generation == info.generation:
                raise CheckpointError(
                    f"{folder}: {os.path.basename(str(error.filename))} is missing; copy the index again"
                ) from error


def _take_lock(folder: Path) -> IO[str]:
    try:
        return locked(folder / _LOCK, wait=False)
    except BlockingIOError:
        raise RankerError(f"{folder}: another process is writing to it; wait for its end") from None


def _delete(path: Path) -> None:
    import shutil

    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
