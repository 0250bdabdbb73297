"""Files in documents' fields, such as pictures, which the index folder keeps under the SHA-256 of their bytes.

In the index, the value of such a field is the file's name: SHA-256 and suffix. In a document to add, the value is the
file's bytes, its `Path`, a `data:` URL, or the name of a file that the index has. A text is never read as a path, so
that a document from a client cannot name a file of the server.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import secrets
import shutil
import stat
import threading
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, NamedTuple, Optional, Protocol, TypeVar, Union

from paddle_ranker.data.file_readers import READERS, Unread, is_file_name
from paddle_ranker.data.reader_pool import Parts, ReaderPool
from paddle_ranker.data.records import DocumentRow
from paddle_ranker.errors import CheckpointError, DataError, DependencyError, brief, listed, quoted
from paddle_ranker.retrieval.candidate_indexes import Document, Like, LikeError
from paddle_ranker.retrieval.places import pack_places, unpack_places
from paddle_ranker.retrieval.schema import FIELD_TYPES, FIRST_BYTES, PLACES, Field, Schema
from paddle_ranker.retrieval.segment_writing import storable
from paddle_ranker.storage.atomic import link_or_copy, locked, sync
from paddle_ranker.storage.closing import Closable
from paddle_ranker.storage.untrusted import inside, open_file, read_file

Row = TypeVar("Row", bound=Union[Document, DocumentRow])
_CONTENTS, _STAGED, _LOCK = "contents", "contents.added-", "lock"
_MOST_BYTES, _MOST_READ = 1 << 28, 1 << 36  # largest file in memory; largest file that is read in blocks
_BLOCK = 1 << 20  # bytes of a file that are read at once
_TITLE = "title"  # field of a file's parts with the file's title


class ContentFiles:
    """Files of an index.

    index: index folder, to which new files are added
    others: further folders (shards) of the index; files are found there, but not added
    """

    def __init__(self, index: Path, *others: Path):
        self._index, self._others = index, others

    def find(self, name: str) -> Optional[Path]:
        """Return the path of a file; None if no folder has a regular file of this name. Links are not followed."""
        folders = [index / _CONTENTS for index in (self._index, *self._others)] if is_file_name(name) else []
        return next(
            (folder / name for folder in folders if not folder.is_symlink() and _is_regular(folder / name)), None
        )

    def read(self, name: str) -> bytes:
        """Return the bytes of a file; raises `CheckpointError` if it is missing, or if its SHA-256 is not its name."""
        return b"".join(self._blocks(name, _MOST_BYTES))

    def verify(self, name: str) -> int:
        """Check the SHA-256 of a file block by block, and return the file's size; raises as `read` does."""
        return sum(map(len, self._blocks(name, _MOST_READ)))

    def _blocks(self, name: str, most: int) -> Iterator[bytes]:
        """Yield the bytes of a file in blocks; at the end raise `CheckpointError` if its SHA-256 is not its name.

        most: maximum size of the file; a larger one raises `CheckpointError`, too
        """
        if not is_file_name(name):
            raise CheckpointError(f"{self._index}: names {quoted(name)}, which is no content; copy the index again")
        path, digest = self.find(name), hashlib.sha256()
        if path is not None:
            with open_file(path, most) as stream:
                while block := stream.read(_BLOCK):
                    digest.update(block)
                    yield block
        if digest.hexdigest() != name.partition(".")[0]:
            problem = "missing" if path is None else "not as it was written"
            folder = self._index / _CONTENTS
            raise CheckpointError(
                f"{folder}: {quoted(name)} is {problem}; copy the index again, or add its document again"
            )

    def staged(self) -> StagedFiles:
        """Return a `StagedFiles` for an addition; close it when the addition is over."""
        return StagedFiles(self._index, *self._others)

    def forget_staged(self) -> set[str]:
        """Delete the staging folders of killed additions; return the names of the files that were in the folders.

        Some of these files may have been published, too.
        """
        names = set[str]()
        for folder in self._index.glob(f"{_STAGED}*"):
            with suppress(BlockingIOError), locked(folder / _LOCK, wait=False):
                names.update(filter(is_file_name, os.listdir(folder)))
                shutil.rmtree(folder, ignore_errors=True)
        return names

    def forget(self, names: Iterable[str]) -> None:
        for name in names:
            for index in (self._index, *self._others):
                (index / _CONTENTS / name).unlink(missing_ok=True)

    def forget_all_but(self, names: Container[str]) -> None:
        for index in (self._index, *self._others):
            if (index / _CONTENTS).is_dir():
                for path in inside(index, _CONTENTS).iterdir():
                    if path.name not in names:
                        path.unlink()


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
        self._folder = index / f"{_STAGED}{secrets.token_hex(8)}"
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
            value = read_file(value, _MOST_BYTES)
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
        with open_file(path, _MOST_READ) as stream:
            suffix, digest = suffix_of(stream.read(FIRST_BYTES)), hashlib.sha256()
            stream.seek(0)
            with self._one_thread:
                self._open_folder()
            copy = self._folder / f"copy-{secrets.token_hex(8)}"
            with open(copy, "xb") as target:
                while block := stream.read(_BLOCK):
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
            self._lock = locked(self._folder / _LOCK, wait=False)

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
            folder, is_changed = self._index / _CONTENTS, False
            for name in self.names:
                if super().find(name) is None:
                    if not os.path.lexists(folder):
                        folder.mkdir()
                        sync(self._index)
                    sync(self._folder)
                    path = inside(self._index, _CONTENTS) / name
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


def _is_regular(path: Path) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def bytes_of(url: str) -> bytes:
    """Return the bytes of a `data:` URL in base64; raises `ValueError` for another text."""
    head, comma, data = url.partition(",")
    if not comma or re.fullmatch(r"data:[^,]*;base64", head, re.I) is None:
        raise ValueError("a text must be a data: URL in base64, or the name of a file in the index")
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise ValueError(f"damaged base64: {error}") from error


def like_of(example: Union[str, Path, bytes], schema: Schema) -> Like:
    """Convert an example to `Like`; raises `LikeError` for a file that no field of the schema takes.

    example: the id of a document, the path of a file, or the bytes of a file
    """
    if isinstance(example, str):
        return Like(example)
    try:
        data = read_file(example, _MOST_BYTES) if isinstance(example, Path) else example
        problems = list[str]()
        for kind in schema.examples:
            try:
                FIELD_TYPES[kind].suffix_of(data)
                return Like(kind=kind, data=data)
            except ValueError as error:
                problems.append(f"expected {FIELD_TYPES[kind].what} ({brief(str(error))})")
    except (OSError, CheckpointError) as error:
        problems = [f"it cannot be read ({brief(str(error))})"]
    shown = str(example) if isinstance(example, Path) else "the file"
    raise LikeError(f"{shown}: {' or '.join(problems) or 'no field of the index has files; give an id'}")


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
        """Count a bad row; raises `DataError` if bad rows may not be skipped.

        cause: cause that several rows may share, such as a missing package, to report such rows together; "": none
        """
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
    source: the corpus, whose `refuse` is called for a row that does not fit the schema; the row is then left out
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
        row = storable(row)
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
        for row in rows:
            try:
                waiting.append(begun(row))
            except DataError as error:
                refuse(error, source.line)
            while waiting and (waiting[0].parts is None or len(waiting) > pool.window):
                yield from finished(waiting.popleft())
        for kept_row in waiting:
            yield from finished(kept_row)


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
