"""Files that documents have in fields, such as pictures: in the index folder, each named by the SHA-256 of its bytes.

A field's value is that name. To add a file, a document has its bytes, its `Path` or a `data:` URL as the value. A path
is a `Path`, never a text, so that a document of a caller names no file of this machine.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar, Union

from paddle_ranker.data.records import DocumentRow
from paddle_ranker.errors import CheckpointError, DataError, brief, quoted
from paddle_ranker.retrieval.indexes import Document
from paddle_ranker.retrieval.schema import CONTENTS, Field, Schema, is_file_name
from paddle_ranker.storage.atomic import new_file, sync
from paddle_ranker.storage.untrusted import inside, read_file

Row = TypeVar("Row", bound=Union[Document, DocumentRow])
_MOST_BYTES = 1 << 28  # of a file


class ContentFiles:
    """The files of an index folder; `others` are folders where they are looked for, too."""

    def __init__(self, index: Path, *others: Path):
        self._index, self._others = index, others

    def path(self, name: str) -> Path:
        """Return the path of a file; raises `CheckpointError` for a name that is no file's, and a link to elsewhere."""
        if not is_file_name(name):
            raise CheckpointError(f"{self._index}: names {quoted(name)}, which is no content; copy the index again")
        paths = [inside(inside(index, "contents"), name) for index in (self._index, *self._others)]
        return next((path for path in paths if path.is_file()), paths[0])

    def read(self, name: str) -> bytes:
        """Return the bytes of a file; raises `CheckpointError` if it is missing, or not as it was written."""
        path = self.path(name)
        data = read_file(path, _MOST_BYTES) if path.is_file() else b""
        if hashlib.sha256(data).hexdigest() != name.partition(".")[0]:
            problem = "not as it was written" if path.is_file() else "missing"
            raise CheckpointError(f"{path}: {problem}; copy the index again, or add its document again")
        return data

    def keep(self, row: Row, schema: Schema) -> Row:
        """Return a document with the names of its files, which are written into the folder.

        Raises `DataError` for a file that cannot be read, that its field does not take, or that is not here.
        """
        kept = {}
        for field in schema.files:
            if (value := row.fields.get(field.name)) is not None:
                try:
                    own = [self._keep(field, one) for one in (value if isinstance(value, list) else [value])]
                except (OSError, ValueError, CheckpointError) as error:
                    problem = f"{field.name} is {quoted(value)}, expected {CONTENTS[field.type].what}"
                    raise DataError(
                        f"document {quoted(row.id or row.text)}: {problem} ({brief(str(error))})"
                    ) from error
                kept[field.name] = own if isinstance(value, list) else own[0]
        return replace(row, fields={**row.fields, **kept}) if kept else row

    def _keep(self, field: Field, value: object) -> str:
        if isinstance(value, Path):
            value = read_file(value, _MOST_BYTES)
        elif isinstance(value, str) and is_file_name(value):
            if not self.path(value).is_file():
                raise ValueError("there is no such file in the index")
            return value
        elif isinstance(value, str):
            value = bytes_of(value)
        if not isinstance(value, bytes):
            raise ValueError("give its bytes, its Path or a data: URL")
        name = f"{hashlib.sha256(value).hexdigest()}.{CONTENTS[field.type].suffix_of(value)}"
        folder = self._index / "contents"
        if not os.path.lexists(folder):
            folder.mkdir()
            sync(self._index)
        path = self.path(name)
        if not path.is_file():
            with new_file(path, "wb") as stream:
                stream.write(value)
            sync(folder)
        return name

    def forget_all_but(self, names: Iterable[str]) -> None:
        """Delete the files of other names."""
        kept = {*names}
        for index in (self._index, *self._others):
            if (index / "contents").is_dir():
                for path in inside(index, "contents").iterdir():
                    if path.name not in kept:
                        path.unlink()


def bytes_of(url: str) -> bytes:
    """Return the bytes of a `data:` URL in base64; raises `ValueError` for another text."""
    head, comma, data = url.partition(",")
    if not comma or re.fullmatch(r"data:[^,]*;base64", head, re.I) is None:
        raise ValueError("a text must be a data: URL in base64, or the name of a file in the index")
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise ValueError(f"damaged base64: {error}") from error


def with_paths(rows: Iterable[DocumentRow], schema: Schema, folder: Path) -> Iterator[DocumentRow]:
    """Yield rows of a file with the paths, from a folder on, that are the values of files' fields."""

    def path_of(value: object) -> object:
        if isinstance(value, list):
            return [*map(path_of, value)]
        is_path = isinstance(value, str) and not value.startswith("data:") and not is_file_name(value)
        return folder / str(value) if is_path else value

    for row in rows:
        paths = {one.name: path_of(row.fields[one.name]) for one in schema.files if row.fields.get(one.name)}
        yield replace(row, fields={**row.fields, **paths}) if paths else row
