"""Folders that all processes of a job share: of a file system, or of a store at an address, such as `s3://bucket/out`.

folder = open_folder("s3://bucket/out")
folder.write("part-000000.txt", b"...")  # as a whole or not at all
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Optional, Union

from paddle_ranker.addresses import scheme_of
from paddle_ranker.errors import RankerError
from paddle_ranker.storage.atomic import locked, make_folder, new_file, remove_unfinished
from paddle_ranker.storage.digest import file_sha256
from paddle_ranker.stores import Store

_DRIVER = "driver.json"  # in a store: the command that works in the folder


class Folder(ABC):
    """A folder of small files, which are written as a whole or not at all."""

    def __str__(self) -> str:
        return self.path

    path: str

    @abstractmethod
    def names(self) -> list[str]:
        """Return the names of the files."""

    @abstractmethod
    def read(self, name: str) -> Optional[bytes]:
        """Return a file's content; None if it is missing."""

    @abstractmethod
    def sha256(self, name: str) -> Optional[str]:
        """Return a file's SHA-256 in hexadecimal digits; None if it is missing."""

    @abstractmethod
    def write(self, name: str, content: bytes) -> None:
        """Write a file; a file of this name is replaced."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Delete a file, if it is there."""

    @abstractmethod
    def remove(self) -> None:
        """Delete the folder and all its files."""

    @abstractmethod
    def alone(self) -> AbstractContextManager[None]:
        """Return a context in which this command alone works in the folder.

        In a file system, a second command is refused. A store has no locks: there the second command goes on with the
        work, and `require_alone` stops the first.
        """

    @abstractmethod
    def require_alone(self) -> None:
        """Raise `RankerError` if another command has begun to work in the folder since `alone`."""


def open_folder(path: Union[str, Path]) -> Folder:
    """Return the folder at a path, which is created if missing, or at an address."""
    return _LocalFolder(Path(path)) if scheme_of(str(path)) is None else _StoreFolder(str(path))


class _LocalFolder(Folder):
    def __init__(self, path: Path):
        self._folder = make_folder(path.absolute())
        self.path = str(self._folder)

    def names(self) -> list[str]:
        return sorted(os.listdir(self._folder)) if self._folder.is_dir() else []

    def read(self, name: str) -> Optional[bytes]:
        with suppress(FileNotFoundError):
            return (self._folder / name).read_bytes()
        return None

    def sha256(self, name: str) -> Optional[str]:
        with suppress(FileNotFoundError):
            return file_sha256(self._folder / name)
        return None

    def write(self, name: str, content: bytes) -> None:
        with new_file(self._folder / name, "wb") as stream:
            stream.write(content)

    def delete(self, name: str) -> None:
        (self._folder / name).unlink(missing_ok=True)

    def remove(self) -> None:
        shutil.rmtree(self._folder)

    @contextmanager
    def alone(self) -> Iterator[None]:
        path = self._folder.with_name(f".{self._folder.name}.lock")
        try:
            lock = locked(path, wait=False)
        except BlockingIOError as error:
            raise RankerError(
                f"{self.path}: another command works there; wait until it has ended, or name another --output"
            ) from error
        with lock:
            remove_unfinished(self._folder)
            try:
                yield
            finally:
                path.unlink(missing_ok=True)

    def require_alone(self) -> None:
        pass  # `alone` has refused the other


class _StoreFolder(Folder):
    def __init__(self, address: str):
        self._store = Store(address)
        self.path, self._driver = self._store.address, b""

    def names(self) -> list[str]:
        return [name for name in self._store.names() if name != _DRIVER]

    def read(self, name: str) -> Optional[bytes]:
        return self._store.inside(name).read()

    def sha256(self, name: str) -> Optional[str]:
        return self._store.inside(name).sha256()

    def write(self, name: str, content: bytes) -> None:
        self._store.inside(name).write(content)

    def delete(self, name: str) -> None:
        self._store.inside(name).delete()

    def remove(self) -> None:
        self._store.delete()

    @contextmanager
    def alone(self) -> Iterator[None]:
        facts = {"machine": socket.gethostname(), "process": os.getpid(), "key": secrets.token_hex(8)}
        self._driver = json.dumps(facts).encode()
        self.write(_DRIVER, self._driver)
        try:
            yield
        finally:
            if self.read(_DRIVER) == self._driver:
                self.delete(_DRIVER)
            self._driver = b""

    def require_alone(self) -> None:
        if self._driver and (there := self.read(_DRIVER)) != self._driver:
            facts = json.loads(there or b"{}")
            raise RankerError(
                f"{self.path}: another command, on {facts.get('machine', 'a machine')}, has begun to work there and "
                "goes on with the parts; this one ends"
            )
