"""Add files to an index: stage the files in documents' fields, and read those whose words make documents."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import threading
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, NamedTuple, Optional, Protocol, TypeVar, Union

from paddle_ranker.data.files.file_readers import READERS, Unread, is_file_name
from paddle_ranker.data.files.reader_pool import Parts, ReaderPool
from paddle_ranker.data.rows.records import DocumentRow
from paddle_ranker.data.rows.skips import BadRowsError
from paddle_ranker.errors import CheckpointError, DataError, DependencyError, brief, listed, quoted
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.content_files import (
    BLOCK,
    CONTENTS,
    LOCK,
    MOST_BYTES,
    MOST_READ,
    STAGED,
    ContentFiles,
    bytes_of,
)
from paddle_ranker.retrieval.stored.places import pack_places, unpack_places
from paddle_ranker.retrieval.stored.schema import FIELD_TYPES, FIRST_BYTES, PLACES, Field, Schema
from paddle_ranker.retrieval.stored.segment_writing import storable
from paddle_ranker.storage.atomic import link_or_copy, locked, sync
from paddle_ranker.storage.closing import Closable
from paddle_ranker.storage.untrusted import inside, open_file, read_file

Row = TypeVar("Row", bound=Union[Document, DocumentRow])
_TITLE = "title"  # field of a file's parts with the file's title


def staged_files(files: ContentFiles) -> StagedFiles:
    """Return a `StagedFiles` for an addition to an index; close it when the addition is over."""
    return StagedFiles(*files.folders)


class StagedFiles(ContentFiles, Closable):
    """Files of an addition, in a temporary folder; `publish` copies the files into the index.

    The folder is locked until `close`, which deletes it. If the process is killed, the folder stays, without the lock,
    and has every file that was staged or published.

    Attributes:
        names: names of the staged files.
        read_ids: ids of rows whose files were read.
    """

    def __init__(self, index: Path, *others: Path):
        super().__init__(index, *others)
        self.names, self.read_ids = set[str](), set[str]()
        self._folder = index / f"{STAGED}{secrets.token_hex(8)}"
        self._lock: Optional[IO[str]] = None
        self._is_closed, self._one_thread = False, threading.RLock()

    def find(self, name: str) -> Optional[Path]:
        return self._folder / name if name in self.names else super().find(name)

    def keep(self, row: Row, schema: Schema, *, reads: bool = False) -> Row:
        """Stage the files in a document's fields; return the document with the names of the staged files.

        reads: whether to accept new files of types with a reader, such as PDF; the caller must then read their words

        Raises `DataError` for a file that cannot be read or that the field's type refuses, for the name of a file that
        the index lacks, and for damaged `places`.
        """
        kept = {}
        if schema.read_files and PLACES in row.fields:
            try:
                unpack_places(str(row.fields[PLACES]))
            except (ValueError, IndexError) as error:
                problem = f"{PLACES} is {quoted(row.fields[PLACES])}, expected what an index has written"
                raise DataError(f"document {quoted(row.id or row.text)}: {problem} ({brief(str(error))})") from error
        for field in schema.files:
            if (value := row.fields.get(field.name)) is not None:
                values = value if isinstance(value, list) else [value]
                try:
                    names = [self._keep(field, item, reads) for item in values]
                except (OSError, ValueError, CheckpointError) as error:
                    if isinstance(error, OSError) and error.filename not in map(str, values):
                        raise  # the folder's, such as a full disk: the document is right
                    # A file of an archive lies where nobody else sees it; the document's id says where it is from.
                    shown = quoted(value.name if isinstance(value, Path) else value)
                    problem = f"{field.name} is {shown}, expected {FIELD_TYPES[field.type].what}"
                    raise DataError(
                        f"document {quoted(row.id or row.text)}: {problem} ({brief(str(error))})"
                    ) from error
                kept[field.name] = names if isinstance(value, list) else names[0]
        return replace(row, fields={**row.fields, **kept}) if kept else row

    def _keep(self, field: Field, value: object, reads: bool) -> str:
        kind = FIELD_TYPES[field.type]
        if isinstance(value, str) and is_file_name(value):
            self._stage(value)
            return value
        if kind.reader and not reads:
            raise ValueError("a new one is read by `paddle-ranker index add`, or `Index.add` in Python")
        if isinstance(value, Path) and kind.reader:
            return self._stage_copy(value, kind.suffix_of)
        if isinstance(value, Path):
            value = read_file(value, MOST_BYTES)
        elif isinstance(value, str):
            value = bytes_of(value)
        if not isinstance(value, bytes):
            raise ValueError("give its bytes, its Path or a data: URL")
        suffix = kind.suffix_of(value[:FIRST_BYTES] if kind.reader else value)
        kind.check(value)
        name = f"{hashlib.sha256(value).hexdigest()}.{suffix}"
        self._stage(name, value)
        return name

    def _stage_copy(self, path: Path, suffix_of: Callable[[bytes], str]) -> str:
        """Stage a copy of a file of any size; return its name.

        suffix_of: called with the first `FIRST_BYTES` of the file; returns the suffix of its name
        """
        with open_file(path, MOST_READ) as stream:
            suffix, digest = suffix_of(stream.read(FIRST_BYTES)), hashlib.sha256()
            stream.seek(0)
            with self._one_thread:
                self._open_folder()
            copy = self._folder / f"copy-{secrets.token_hex(8)}"
            with open(copy, "xb") as target:
                while block := stream.read(BLOCK):
                    digest.update(block)
                    target.write(block)
                target.flush()
                os.fsync(target.fileno())
        name = f"{digest.hexdigest()}.{suffix}"
        self._stage(name, copy)
        copy.unlink(missing_ok=True)
        return name

    def _open_folder(self) -> None:
        if self._is_closed:
            raise ValueError("the addition is over")
        if self._lock is None:
            self._lock = locked(self._folder / LOCK, wait=False)

    def _stage(self, name: str, data: Union[bytes, Path, None] = None) -> None:
        """Stage a file under its name.

        Raises `ValueError` if the addition is over, or if `data` is None and the index has no such file.

        data: the file's bytes, or the path of a copy, which is moved. None: stage a link to the index's file, so that
            the file stays even if another writer deletes it from the index
        """
        with self._one_thread:
            if name in self.names:
                return
            self._open_folder()
            existing = self.find(name)
            if existing is None and data is None:
                raise ValueError("there is no such file in the index")
            path = self._folder / name
            if existing is not None:
                link_or_copy(existing, path)
            elif isinstance(data, Path):
                data.rename(path)
            else:
                with open(path, "xb") as stream:
                    stream.write(data or b"")
                    stream.flush()
                    os.fsync(stream.fileno())
            self.names.add(name)

    def publish(self) -> None:
        """Link or copy the staged files into the index folder; raises `DataError` if the addition is over."""
        with self._one_thread:
            if self._is_closed:
                raise DataError("the addition is over")
            folder, is_changed = self._index / CONTENTS, False
            for name in self.names:
                if super().find(name) is None:
                    if not os.path.lexists(folder):
                        folder.mkdir()
                        sync(self._index)
                    sync(self._folder)
                    path = inside(self._index, CONTENTS) / name
                    path.unlink(missing_ok=True)  # a link
                    link_or_copy(self._folder / name, path)
                    is_changed = True
            if is_changed:
                sync(folder)

    def close(self) -> None:
        """End the addition and delete its folder; `publish`, and `keep` of a file not yet staged, then raise errors."""
        with self._one_thread:
            self._is_closed = True
            if self._lock is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
                self._lock.close()
                self._lock = None


class RowFile(Protocol):
    """Corpus from which rows come; see `DocumentFile`."""

    @property
    def line(self) -> Union[int, str]:
        """Line of the latest row."""
        ...

    @property
    def files_to_read(self) -> Optional[int]:
        """Number of rows with a file to read, for a progress bar; None if it is not known."""
        ...

    def refuse(self, reason: str, line: Union[int, str], cause: str = "") -> None:
        """Count a bad row.

        cause: cause that several rows may share, such as a missing package, to report such rows together; "": none
        """
        ...

    @property
    def are_refused(self) -> bool:
        """Whether there are bad rows that may not be skipped."""
        ...

    def require_good(self) -> None:
        """Raise `BadRowsError`, which names the bad rows, if they may not be skipped."""
        ...

    def leave_unread(self, what: str, reason: str) -> None:
        """Count a file or a part of a file whose words are not read.

        what: name of the file or part, for the report
        """
        ...


class _Unreadable(DataError):
    """Error: a row's file needs a missing package; `cause` names the package and the line that installs it."""

    def __init__(self, message: str, cause: str):
        super().__init__(message)
        self.cause = cause


class _KeptRow(NamedTuple):
    """Row with the names of its staged files.

    line: the row's line in the corpus
    field: field with the file to read; "" without such a file
    parts: called without arguments; waits until the file is read, and returns its parts; None if no file is to be read
    """

    row: DocumentRow
    line: Union[int, str]
    field: str = ""
    parts: Optional[Callable[[], Parts]] = None


def kept_rows(
    rows: Iterable[DocumentRow],
    schema: Schema,
    files: StagedFiles,
    folder: Path,
    source: RowFile,
    processes: Optional[int] = None,
    embedded: Container[str] = (),
) -> Iterator[DocumentRow]:
    """Stage the files that rows of a corpus name; yield the rows with the staged files' names.

    If a row's file has a type with a reader, the file is read; each part of the file is yielded as a row, in place of
    the corpus's row.

    folder: folder to which paths in the rows are relative; files outside this folder are refused
    source: the corpus, whose `refuse` is called for a row that does not fit the schema; the row is then left out. After
        a row that may not be left out, no row is yielded; the others are read, so that one error names all bad rows
    processes: number of processes that read files (default: one per core)
    embedded: fields whose files have vectors, so that a part without words is a document, too
    """
    root = folder.resolve()

    def path_of(value: object) -> object:
        if isinstance(value, list):
            return [*map(path_of, value)]
        if not isinstance(value, str) or value.startswith("data:") or is_file_name(value):
            return value
        path = folder / value
        if root not in path.resolve().parents:
            raise DataError(f"is {quoted(value)}, which lies outside {folder}; copy the file there")
        return path

    def begun(row: DocumentRow) -> _KeptRow:
        row = storable(row, schema)
        paths = dict[str, object]()
        for name in [field.name for field in schema.files if row.fields.get(field.name)]:
            try:
                paths[name] = path_of(row.fields[name])
            except (DataError, OSError, ValueError) as error:
                raise DataError(f"document {quoted(row.id or row.text)}: {name} {error}") from error
        with_paths = replace(row, fields={**row.fields, **paths}) if paths else row
        read_fields = [field for field in schema.read_files if field.name in paths]
        if not read_fields:
            return _KeptRow(reported(files.keep(with_paths, schema)), source.line)
        if len(read_fields) > 1:
            names = listed(field.name for field in read_fields)
            problem = f"{names} are read, each into documents of its own; give each a row"
            raise DataError(f"document {quoted(row.id or row.text)}: {problem}")
        kept = reported(files.keep(with_paths, schema, reads=True))
        name = str(kept.fields[read_fields[0].name])
        path = files.find(name)
        assert path is not None
        id = row.id or (str(row.fields[read_fields[0].name]) if isinstance(paths[read_fields[0].name], Path) else name)
        try:
            parts = pool.begin(FIELD_TYPES[read_fields[0].type].reader, path, name.partition(".")[0])
        except DependencyError as error:
            raise _Unreadable(f"document {quoted(id)}: {read_fields[0].name}: {error}", str(error)) from error
        return _KeptRow(replace(kept, id=id), source.line, read_fields[0].name, parts)

    def reported(row: DocumentRow) -> DocumentRow:
        for field in schema.files:
            value = row.fields.get(field.name)
            for name in value if isinstance(value, list) else [value] if value else []:
                path = files.find(str(name))
                if path is not None and (problem := FIELD_TYPES[field.type].not_read(path)):
                    source.leave_unread(str(row.id or row.text), problem)
        return row

    def finished(kept_row: _KeptRow) -> Iterator[DocumentRow]:
        try:
            for row in (
                [kept_row.row]
                if kept_row.parts is None
                else _parts_of(kept_row, schema, source, kept_row.field in embedded)
            ):
                schema.check(row)
                if not source.are_refused:
                    yield row
            if kept_row.parts is not None:
                files.read_ids.add(str(kept_row.row.id))
        except DataError as error:
            refuse(error, kept_row.line)

    def refuse(error: DataError, line: Union[int, str]) -> None:
        cause = error.cause if isinstance(error, _Unreadable) else ""
        source.refuse(str(error).removesuffix("; correct it"), line, cause)

    waiting = deque[_KeptRow]()
    with ReaderPool(processes, source.files_to_read) as pool:
        with suppress(BadRowsError):  # of the rows; raised below, with those of the files
            for row in rows:
                try:
                    waiting.append(begun(row))
                except DataError as error:
                    refuse(error, source.line)
                while waiting and (waiting[0].parts is None or len(waiting) > pool.window):
                    yield from finished(waiting.popleft())
        for kept_row in waiting:
            yield from finished(kept_row)
    source.require_good()


def _parts_of(kept_row: _KeptRow, schema: Schema, source: RowFile, keeps_wordless: bool) -> Iterator[DocumentRow]:
    """Yield each part of a row's file as a row; report to `source` each part that is not read.

    keeps_wordless: whether to yield parts without words, too
    """
    row, title = kept_row.row, schema.title
    has_words = READERS[FIELD_TYPES[schema.field(kept_row.field).type].reader].has_words
    assert kept_row.parts is not None
    try:
        for part in kept_row.parts():
            id = f"{row.id}#{part.name}" if part.name else str(row.id)
            if isinstance(part, Unread):
                source.leave_unread(id, part.reason)
                continue
            if not part.text.strip():
                if has_words:
                    source.leave_unread(id, "no words")
                if part.name and not keeps_wordless:
                    continue
            fields = {**part.fields, **row.fields}
            if title is not None:  # the row's title, else the file's, else the file's name
                fields[title] = row.fields.get(title) or part.fields.get(_TITLE) or row.text
            if part.text.strip() and part.places:
                fields[PLACES] = pack_places(part.places)
            yield DocumentRow(part.text if part.text.strip() else row.text, id, fields)
    except DataError as error:
        raise DataError(f"document {quoted(row.id)}: {kept_row.field}: {error}") from error
    except DependencyError as error:
        raise _Unreadable(f"document {quoted(row.id)}: {kept_row.field}: {error}", str(error)) from error
