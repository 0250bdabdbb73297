"""Build a folder of shards: cut the corpus into parts, and make each part an index folder.

`unfinished/` in the folder is an empty index with its towers; each shard begins as a copy of it. It also has the rows
of the corpus, in files that several processes may write, which rows are each shard's, and the ids that a single index
folder would give them. If a build is killed, the next build keeps finished shards, and vectors of unfinished shards.
"""

from __future__ import annotations

import json
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Optional, Protocol

import numpy as np
from numpy.typing import DTypeLike

from paddle_ranker.array_types import Vectors
from paddle_ranker.data.rows.records import DocumentRow
from paddle_ranker.data.rows.skips import NOT_READ, BadRowsError, LeftOut, LeftOutItem, Skips
from paddle_ranker.errors import DataError, RankerError, UsageError
from paddle_ranker.lexical.postings import Hashes, text_hashes
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.index.content_staging import kept_rows, staged_files
from paddle_ranker.retrieval.index.index_folder import take_lock
from paddle_ranker.retrieval.index.ingestion import OWN, Naming, RepeatedIdsError, chunks_of, text_length
from paddle_ranker.retrieval.index.merging import Source, merge_segments
from paddle_ranker.retrieval.index.shards import shard_name, write_shards
from paddle_ranker.retrieval.snapshots.vector_search import index_writers
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import MANIFEST, IndexInfo, SegmentInfo, read_manifest, write_manifest
from paddle_ranker.retrieval.stored.schema import Schema
from paddle_ranker.retrieval.stored.segment_writing import storable
from paddle_ranker.storage.arrays import map_array
from paddle_ranker.storage.atomic import link_or_copy, make_folder, new_file, new_folder, remove_unfinished
from paddle_ranker.storage.untrusted import (
    Unchecked,
    UncheckedObject,
    folder_without_links,
    inside,
    open_file,
    read_json,
)

if TYPE_CHECKING:
    from tqdm import tqdm

    from paddle_ranker.data.rows.documents import DocumentFile

BUILD_STATE = "unfinished"
_CUT = "cut.json"
_SKIPPED = ".left_out"  # the suffix of a file that lists what was left out of a shard
_LINES, _OF_ROWS, _NUMBERS = ".jsonl", ".facts", "numbers"  # files of rows, of facts about them, and of their ids
_LEFT_OUT = -2  # in place of a number, as OWN: the row equals an earlier row
# Facts about a row: hashes of its id and its text, the text's characters, where its line starts
_FACTS = np.dtype([("id", "<u8"), ("text", "<u8"), ("length", "<i8"), ("start", "<i8"), ("has_id", "?")])
_TEXT, _LENGTH, _START = (list(_FACTS.names or ()).index(name) for name in ("text", "length", "start"))
_WAIT_SECONDS = 60.0  # for a process of a killed build that still writes to a shard
_IN_MEMORY, _BLOCK = 1 << 20, 1 << 17  # most hashes of an array in memory; hashes of an array that are merged at a time
_REPORT_SECONDS = 0.5  # between two writes of the count of a shard's finished documents


class _Hashes:
    """Set of 64-bit hashes, in sorted arrays; each array is more than twice as long as the next one.

    Arrays of more than `_IN_MEMORY` hashes are memory-mapped files without names, so that memory does not grow.

    folder: where the files are made
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._arrays = folder, list[Hashes]()

    def add(self, hashes: Sequence[int]) -> None:
        new = np.sort(np.array(hashes, np.uint64))
        while self._arrays and len(self._arrays[-1]) <= 2 * len(new):
            new = self._merged(self._arrays.pop(), new)
        self._arrays.append(new)

    def among(self, hashes: Sequence[int]) -> list[int]:
        """Return those of `hashes` that the set has."""
        wanted, is_member = np.array(hashes, np.uint64), np.zeros(len(hashes), bool)
        for array in self._arrays:
            if len(array):
                is_member |= array[np.minimum(np.searchsorted(array, wanted), len(array) - 1)] == wanted
        return [*map(int, wanted[is_member])]

    def _merged(self, one: Hashes, other: Hashes) -> Hashes:
        if len(one) + len(other) <= _IN_MEMORY:
            return np.sort(np.concatenate([one, other]), kind="stable")
        with tempfile.TemporaryFile(dir=self._folder) as stream:
            for block in _merged_blocks(one, other):
                stream.write(block.tobytes())
            stream.flush()
            return np.asarray(map_array(stream, one.dtype))


def _merged_blocks(one: Hashes, other: Hashes) -> Iterator[Hashes]:
    """Yield the values of two sorted arrays in their common order, at most two blocks at a time."""
    while len(one) and len(other):
        blocks = one[:_BLOCK], other[:_BLOCK]
        last = min(block[-1] for block in blocks)
        ends = [int(np.searchsorted(block, last, "right")) for block in blocks]
        yield np.sort(np.concatenate([block[:end] for block, end in zip(blocks, ends)]), kind="stable")
        one, other = one[ends[0] :], other[ends[1] :]
    rest = one if len(one) else other
    yield from (rest[start : start + _BLOCK] for start in range(0, len(rest), _BLOCK))


@dataclass(frozen=True)
class ShardWork:
    """Settings for building shards; each process gets a copy.

    folder: the folder of shards
    contents: folder to which the paths of documents' files are relative
    load, batch_size: how towers are opened
    skip_bad_rows: whether files that cannot be read are left out and counted
    url: URL of the tower of whole documents, if it is not in the folder
    """

    folder: Path
    contents: Path
    load: LoadOptions
    batch_size: int
    skip_bad_rows: bool
    url: Optional[str] = None

    def build(self, number: int, progress: Callable[[int], object]) -> None:
        """Build a shard, unless it is finished, or a row is refused: `left_out_in` has it then.

        progress: called with the number of documents (or texts with vectors) that are finished since the last call
        """
        from paddle_ranker.retrieval.index.towers import open_towers

        shard = _shard_of(self.folder, number)
        with Collection.open(shard, write=True, wait=_WAIT_SECONDS) as collection:
            if collection.info.generation:
                collection.writer.merge(None)
                return
            vectors_of = open_towers(collection, self.load, self.batch_size, self.url)

            def encoded(texts: Sequence[str]) -> Vectors:
                assert vectors_of is not None
                vectors = vectors_of(texts)
                progress(len(texts))
                return vectors

            state = inside(self.folder, BUILD_STATE)
            rows = _rows_of(state, number, progress if vectors_of is None else lambda _: None)
            source = _ShardRows(self.skip_bad_rows)
            # What is refused in any shard is named in one error, when all are read.
            with staged_files(collection.snapshot().files) as files, suppress(BadRowsError):
                info, processes = collection.info, self.load.threads or None
                kept = kept_rows(rows, info.schema, files, self.contents, source, processes, info.vector_fields)
                collection.writer.add_rows(kept, encoded if vectors_of is not None else None, files=files)
            collection.writer.merge(None)
        with new_file(inside(state, f"{shard_name(number)}{_SKIPPED}")) as stream:
            json.dump([source.skipped.items, source.unread.items], stream)

    def build_counted(self, number: int) -> None:
        """Build a shard, and meanwhile write the number of finished documents to a file, for `count_done`."""
        count, reported = 0, 0.0
        path = inside(inside(self.folder, BUILD_STATE), f"{shard_name(number)}.count")

        def progress(more: int) -> None:
            nonlocal count, reported
            count += more
            if time.monotonic() >= reported + _REPORT_SECONDS:
                with new_file(path) as stream:
                    stream.write(str(count))
                reported = time.monotonic()

        self.build(number, progress)
        reported = 0.0
        progress(0)


class _ShardRows:
    """`RowFile` of a shard: counts what is left out, or refused."""

    line, files_to_read = 0, None

    def __init__(self, skip_bad_rows: bool) -> None:
        self.skipped, self.unread = _left_out(skip_bad_rows)

    def refuse(self, reason: str, line: int | str, cause: str = "") -> None:
        self.skipped.add_item(LeftOutItem("", reason, cause))

    @property
    def are_refused(self) -> bool:
        return self.skipped.are_refused

    def require_good(self) -> None:
        self.skipped.require_none()

    def leave_unread(self, what: str, reason: str) -> None:
        self.unread.add_item(LeftOutItem(what, reason))


def _left_out(skip_bad_rows: bool) -> tuple[Skips, LeftOut]:
    return Skips(skip_bad_rows, name_files=True, keeps_all=True, waits=True), LeftOut(NOT_READ, keeps_all=True)


def left_out_in(folder: Path, skip_bad_rows: bool) -> tuple[Skips, LeftOut]:
    """Return the files that were skipped, and the files and parts that were not read, for the shards of a build."""
    both = _left_out(skip_bad_rows)
    for path in sorted(inside(folder, BUILD_STATE).glob(f"*{_SKIPPED}")):
        for part, items in zip(both, read_json(path)):
            for item in items:
                part.add_item(LeftOutItem(*item))
    return both


def count_done(folder: Path) -> int:
    """Return the number of finished documents (or texts with vectors) of all shards, from files of `build_counted`."""
    return sum(int(path.read_text() or 0) for path in (folder / BUILD_STATE).glob("*.count"))


@dataclass(frozen=True)
class Cut:
    """Corpus that is cut into parts.

    firsts: for each part, the number of its first row in the corpus
    sizes: for each part, the number of its documents
    repeated: number of rows without an id that were left out, because they equal an earlier row
    report: message about the rows that were read
    left_out: what was skipped or not read, with place and reason, as `DocumentFile.left_out`
    """

    firsts: Sequence[int]
    sizes: Sequence[int]
    repeated: int
    report: str
    left_out: Sequence[tuple[str, Sequence[str]]]


class ShardCluster(Protocol):
    """Processes of a cluster that read files and build shards, with the errors and notes of one process."""

    def look_at_columns(self, rows: DocumentFile) -> None:
        """Let this process open the files without reading them for facts about their columns."""

    def write_rows(self, rows: DocumentFile, schema: Schema, target: Path) -> None:
        """Call `write_rows` for each of several files; `rows` then counts what was read."""

    def build(self, work: ShardWork, count: int, progress: tqdm[None]) -> None:
        """Build the shards that are not complete yet; `count`: number of shards."""


@contextmanager
def building(folder: Path) -> Iterator[None]:
    """Keep other processes from building in this folder during the block."""
    make_folder(folder)
    with take_lock([folder]):
        remove_unfinished(folder)
        yield


def is_begun(folder: Path) -> bool:
    """Return whether a folder has a build of shards that was begun and not finished."""
    return (folder / BUILD_STATE / _CUT).exists()


def cut_before(folder: Path, identity: Mapping[str, object]) -> Cut | None:
    """Return the `Cut` of an unfinished build with this `identity`, or None; delete any other unfinished build.

    identity: facts about the build and its corpus, as for `cut`

    Raises `RankerError` if the folder has shards that belong to no unfinished build.
    """
    shards = sorted(folder.glob("shard-*"))
    if is_begun(folder):
        state: UncheckedObject = read_json(inside(inside(folder, BUILD_STATE), _CUT))
        if state.pop("identity") == json.loads(json.dumps(identity)):
            return Cut(**state)
        for path in shards:
            shutil.rmtree(path)
    elif shards:
        raise RankerError(f"{shards[0]}: is there already, and no build has begun it; name another folder")
    forget(folder)
    return None


def forget(folder: Path) -> None:
    """Delete the parts and the state of a build."""
    shutil.rmtree(folder / BUILD_STATE, ignore_errors=True)


def new_cut(folder: Path) -> AbstractContextManager[Path]:
    """Return a context manager that makes the folder for `cut` and the towers, and keeps it if the block succeeds."""
    return new_folder(folder / BUILD_STATE, replace=True)


def write_rows(rows: Iterable[DocumentRow], schema: Schema, target: Path, number: int) -> None:
    """Write rows of a corpus as lines of JSON, and what `cut` must know of each; files with higher numbers follow."""
    lines_path, facts_path = (target / f"{_rows_name(number)}{suffix}" for suffix in (_LINES, _OF_ROWS))
    with open(lines_path, "wb") as lines, open(facts_path, "wb") as stream:
        for chunk in chunks_of((storable(row, schema) for row in rows), text_length):
            facts = np.empty(len(chunk), _FACTS)
            facts["id"] = text_hashes(row.id or "" for row in chunk)
            facts["has_id"] = [row.id is not None for row in chunk]
            facts["text"] = text_hashes(schema.identity(Document("", row.text, row.fields)) for row in chunk)
            facts["length"] = [len(row.text) for row in chunk]
            for place, row in enumerate(chunk):
                if any(isinstance(value, Path) for value in row.fields.values()):
                    raise DataError(
                        f"{row.id}: is in an archive or a mail; unpack it before, or build without --shards"
                    )
                facts["start"][place] = lines.tell()
                line = json.dumps([row.id, row.text, row.fields], ensure_ascii=False)
                lines.write(f"{line}\n".encode("utf-8", "surrogatepass"))
            stream.write(facts.tobytes())


def cut(
    target: Path,
    info: IndexInfo,
    total: int,
    shards: int,
    identity: Mapping[str, object],
    report: tuple[str, Sequence[tuple[str, Sequence[str]]]],
) -> Cut:
    """Divide the rows of `write_rows` into shards of about equal size, with the ids that a single folder would give.

    target: folder of the rows
    info: contents of index.json of an empty index
    total: number of rows
    identity: facts that must be the same when the build is continued
    report: a message about the rows, and what was left out
    """
    read, firsts, sizes = 0, [0] * shards, [0] * shards
    ids, texts = _Hashes(target), _Hashes(target)  # 16 bytes per document on the disk tell rows apart
    naming = Naming[int](info.next_id, lambda numbers: text_hashes(map(str, numbers)).tolist(), ids.among, texts.among)
    facts = (row for path in sorted(target.glob(f"*{_OF_ROWS}")) for row in _values(path, _FACTS))
    with open(target / _NUMBERS, "wb") as stream:
        for chunk in chunks_of(facts, itemgetter(_LENGTH)):
            names, again = naming.names([(id if has_id else None, text) for id, text, _, _, has_id in chunk])
            numbers = np.array([_LEFT_OUT if name is None else name[1] for name in names], np.int64)
            if again:
                rows = [[name and name[0] for name in names].index(id) for id in again]
                raise RepeatedIdsError([_id_at(target, read + row, numbers[row]) for row in rows])
            stream.write(numbers.tobytes())
            documents = np.flatnonzero(numbers != _LEFT_OUT)
            ids.add([name[0] for name in names if name is not None])
            texts.add([row[_TEXT] for row, name in zip(chunk, names) if name is not None])
            spread = read + np.arange(len(documents)) * len(chunk) // max(len(documents), 1)
            places = np.minimum(spread * shards // max(total, 1), shards - 1)
            for shard, first, size in zip(*np.unique(places, return_index=True, return_counts=True)):
                firsts[shard] = firsts[shard] if sizes[shard] else read + int(documents[first])
                sizes[shard] += int(size)
            read += len(chunk)
    write_manifest(target, replace(info, next_id=naming.next_id))
    result = Cut(firsts, sizes, naming.repeated, *report)
    with new_file(target / _CUT) as stream_of_cut:
        json.dump({**result.__dict__, "identity": identity}, stream_of_cut, ensure_ascii=False)
    return result


def begin_shards(folder: Path, count: int) -> IndexInfo:
    """Create each missing shard as an empty index with its towers; return the index.json that all empty shards have."""
    empty = inside(folder, BUILD_STATE)
    info = read_manifest(empty)
    for number in range(count):
        shard = _shard_of(folder, number)
        if not (shard / MANIFEST).exists():
            with new_folder(shard) as target:
                for name in info.models:
                    shutil.copytree(folder_without_links(empty, name), target / name, copy_function=link_or_copy)
                write_manifest(target, info)
    return info


def finish(folder: Path, count: int) -> None:
    """Write `shards.json`, which makes the shards an index, and delete the parts."""
    write_shards(folder, [shard_name(number) for number in range(count)])
    forget(folder)


def recut(collection: Collection, output: Path, shards: int) -> None:
    """Copy the documents of an index into a new folder of shards, with their words and vectors.

    Raises `UsageError` if the vectors are in a store elsewhere.
    """
    snapshot = collection.snapshot()
    now = snapshot.generation
    if now.info.vectors is not None and now.info.vectors.are_elsewhere:
        raise UsageError(
            f"{collection.folder}: has its vectors in {now.info.vectors.method}; shards have theirs inside"
        )
    total, before = now.info.count, np.cumsum([0, *(int(np.count_nonzero(part.mask)) for part in now.parts)])
    make_folder(output.parent)
    with new_folder(output) as target:
        for number in range(shards):
            first, last = number * total // shards, (number + 1) * total // shards
            sources: list[Source] = []
            for part, start in zip(now.parts, before.tolist()):
                rows = np.flatnonzero(part.mask)[max(first - start, 0) : max(last - start, 0)]
                if len(rows):
                    mask = np.zeros(len(part.segment), bool)
                    mask[rows] = True
                    sources.append((part.segment, mask))
            shard = target / shard_name(number)
            shard.mkdir()
            for name in now.info.models:
                shutil.copytree(snapshot.models.folder(name), shard / name, copy_function=link_or_copy)
            for folder in collection.folders:
                if (folder / "contents").is_dir():
                    shutil.copytree(
                        folder_without_links(folder, "contents"),
                        shard / "contents",
                        copy_function=link_or_copy,
                        dirs_exist_ok=True,
                    )
            segments = []
            if sources:
                segments = [SegmentInfo(f"segment-{1:08d}-{secrets.token_hex(4)}", last - first)]
                merge_segments(shard / segments[0].name, sources, index_writers(now.info))
            write_manifest(shard, replace(now.info, segments=tuple(segments), generation=len(segments)))
        write_shards(target, [shard_name(number) for number in range(shards)])


def _shard_of(folder: Path, number: int) -> Path:
    return inside(folder, shard_name(number))


def _rows_name(number: int) -> str:
    return f"rows-{number:06d}"


def _values(path: Path, dtype: DTypeLike, first: int = 0) -> Iterator[Unchecked]:
    """Yield the values of a file of `dtype` from the index `first` on, some at a time."""
    with open_file(path, sys.maxsize) as stream:
        stream.seek(first * np.dtype(dtype).itemsize)
        while block := stream.read(_BLOCK * np.dtype(dtype).itemsize):
            yield from np.frombuffer(block, dtype).tolist()


def _lines(folder: Path, first: int) -> Iterator[bytes]:
    """Yield the lines of `write_rows` from the row `first` on."""
    for facts in sorted(folder.glob(f"*{_OF_ROWS}")):
        count = facts.stat().st_size // _FACTS.itemsize
        if first < count:
            with open_file(inside(folder, facts.with_suffix(_LINES).name), sys.maxsize) as lines:
                lines.seek(next(_values(inside(folder, facts.name), _FACTS, first))[_START])
                yield from lines
        first = max(first - count, 0)


def _id_at(folder: Path, row: int, number: int) -> str:
    """Return the id of a row of `write_rows`, whose number is that of the file `_NUMBERS`."""
    return str(json.loads(next(_lines(folder, row)))[0] if number == OWN else number)


def _rows_of(folder: Path, shard: int, progress: Callable[[int], object]) -> Iterator[DocumentRow]:
    """Yield the documents of a shard; `folder` is that of `cut`."""
    cut = read_json(inside(folder, _CUT))
    first, left = cut["firsts"][shard], cut["sizes"][shard]
    rows = zip(_lines(folder, first), _values(inside(folder, _NUMBERS), np.int64, first))
    for line, number in rows if left else ():
        if number != _LEFT_OUT:
            id, text, fields = json.loads(line)
            progress(1)
            yield DocumentRow(text, id if number == OWN else str(number), fields)
            left -= 1
            if not left:
                return
