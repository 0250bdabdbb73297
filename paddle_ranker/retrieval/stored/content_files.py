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
import shutil
import stat
from collections.abc import Container, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Optional, Union

from paddle_ranker.data.files.file_readers import is_file_name
from paddle_ranker.errors import CheckpointError, brief, quoted
from paddle_ranker.retrieval.stored.candidate_indexes import Like, LikeError
from paddle_ranker.retrieval.stored.schema import FIELD_TYPES, Schema
from paddle_ranker.storage.atomic import locked
from paddle_ranker.storage.untrusted import inside, open_file, read_file

CONTENTS, STAGED, LOCK = "contents", "contents.added-", "lock"
MOST_BYTES, MOST_READ = 1 << 28, 1 << 36  # largest file in memory; largest file that is read in blocks
BLOCK = 1 << 20  # bytes of a file that are read at once


class ContentFiles:
    """Files of an index.

    index: index folder, to which new files are added
    others: further folders (shards) of the index; files are found there, but not added
    """

    def __init__(self, index: Path, *others: Path):
        self._index, self._others = index, others

    def find(self, name: str) -> Optional[Path]:
        """Return the path of a file; None if no folder has a regular file of this name. Links are not followed."""
        folders = [index / CONTENTS for index in (self._index, *self._others)] if is_file_name(name) else []
        return next(
            (folder / name for folder in folders if not folder.is_symlink() and _is_regular(folder / name)), None
        )

    def read(self, name: str) -> bytes:
        """Return the bytes of a file; raises `CheckpointError` if it is missing, or if its SHA-256 is not its name."""
        return b"".join(self._blocks(name, MOST_BYTES))

    def verify(self, name: str) -> int:
        """Check the SHA-256 of a file block by block, and return the file's size; raises as `read` does."""
        return sum(map(len, self._blocks(name, MOST_READ)))

    def _blocks(self, name: str, most: int) -> Iterator[bytes]:
        """Yield the bytes of a file in blocks; at the end raise `CheckpointError` if its SHA-256 is not its name.

        most: maximum size of the file; a larger one raises `CheckpointError`, too
        """
        if not is_file_name(name):
            raise CheckpointError(f"{self._index}: names {quoted(name)}, which is no content; copy the index again")
        path, digest = self.find(name), hashlib.sha256()
        if path is not None:
            with open_file(path, most) as stream:
                while block := stream.read(BLOCK):
                    digest.update(block)
                    yield block
        if digest.hexdigest() != name.partition(".")[0]:
            problem = "missing" if path is None else "not as it was written"
            folder = self._index / CONTENTS
            raise CheckpointError(
                f"{folder}: {quoted(name)} is {problem}; copy the index again, or add its document again"
            )

    @property
    def folders(self) -> tuple[Path, ...]:
        """The index folder and the further folders."""
        return self._index, *self._others

    def forget_staged(self) -> set[str]:
        """Delete the staging folders of killed additions; return the names of the files that were in the folders.

        Some of these files may have been published, too.
        """
        names = set[str]()
        for folder in self._index.glob(f"{STAGED}*"):
            with suppress(BlockingIOError), locked(folder / LOCK, wait=False):
                names.update(filter(is_file_name, os.listdir(folder)))
                shutil.rmtree(folder, ignore_errors=True)
        return names

    def forget(self, names: Iterable[str]) -> None:
        for name in names:
            for index in (self._index, *self._others):
                (index / CONTENTS / name).unlink(missing_ok=True)

    def forget_all_but(self, names: Container[str]) -> None:
        for index in (self._index, *self._others):
            if (index / CONTENTS).is_dir():
                for path in inside(index, CONTENTS).iterdir():
                    if path.name not in names:
                        path.unlink()


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
        data = read_file(example, MOST_BYTES) if isinstance(example, Path) else example
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
