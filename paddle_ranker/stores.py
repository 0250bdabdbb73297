"""Files at addresses, `s3://`, `gs://` and `hdfs://`, by PyArrow's file systems, with credentials of the environment.

    fetched("s3://bucket/ranker")  # a folder of this machine's cache, which is made once
    with uploading("s3://bucket/vectors.npy") as path:  # written here, and copied when the block ends
        write(path)

An address is `SCHEME://` and a path as it is stored: nothing in it is quoted, and it holds neither keys nor settings.
"""

from __future__ import annotations

import fcntl
import fnmatch
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple, Optional

from paddle_ranker.addresses import FETCHED, scheme_of
from paddle_ranker.errors import DataError, RankerError, UsageError, brief, quoted
from paddle_ranker.libraries import cache_folder

SCHEMES = ("s3", "gs", "hdfs")
_CONNECT_SECONDS, _READ_SECONDS, _ATTEMPTS = 5, 60, 3
_VERSION_DIGITS = 24


class _StoredFile(NamedTuple):
    """A file of a store, by its path relative to a folder; `state` changes if its content changes."""

    name: str
    state: str


def stream_sha256(stream: IO[bytes]) -> str:
    """Return the SHA-256 of the rest of a stream in hexadecimal digits."""
    digest = hashlib.sha256()
    while block := stream.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


class Store:
    """The file or folder at an address: reads, lists, writes and deletes; a file is written as a whole or not at all.

    Objects of this class are pickled without credentials: each process uses those of its own environment.

    Raises `UsageError` for an address that has another scheme, or credentials; methods raise `RankerError`, which names
    the address, for what the store refuses.
    """

    def __init__(self, address: str):
        scheme, _, rest = address.partition("://")
        if scheme not in SCHEMES:
            raise UsageError(f"{address}: {scheme}:// is not known here; there are {', '.join(SCHEMES)}, and paths")
        host = rest.partition("/")[0]
        if "@" in host and scheme != "hdfs":
            raise UsageError(f"{scheme}://...@{host.rpartition('@')[2]}: keys are taken from the environment alone")
        if not host:
            raise UsageError(f"{address}: names no bucket; write {scheme}://BUCKET/NAME")
        self.address = address.rstrip("/")
        self._path = self.address.partition("://")[2]
        self._opened: Any = None

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_opened": None}

    @property
    def name(self) -> str:
        return self._path.rpartition("/")[2]

    def inside(self, name: str) -> Store:
        store = Store(f"{self.address}/{name}")
        store._opened = self._opened
        return store

    def is_file(self) -> bool:
        return self._info().is_file

    def exists(self) -> bool:
        return bool(self._info().type)

    def names(self) -> list[str]:
        """Return the names of the files and folders in this folder; [] if there is no such folder."""
        from pyarrow.fs import FileSelector

        with self._naming():
            found = self._system().get_file_info(FileSelector(self._inner, allow_not_found=True))
        return sorted(info.base_name for info in found)

    def files(self) -> list[_StoredFile]:
        """Return the files in this folder and the folders in it; for a file, itself, by the name ".".

        Raises `RankerError` if there is nothing at the address, or a name that no folder of this machine may have.
        """
        from pyarrow.fs import FileSelector

        with self._naming():
            system, here = self._system(), self._info()
            if not here.type:
                raise DataError(f"{self.address}: there is no such file or folder; check the address")
            infos = [here] if here.is_file else system.get_file_info(FileSelector(self._inner, recursive=True))
            found = []
            for info in infos:
                if info.is_file:
                    name = "." if here.is_file else info.path[len(self._inner) + 1 :]
                    if ".." in PurePosixPath(name).parts or name.startswith("/") or "\0" in name:
                        raise DataError(f"{self.address}: {quoted(name)} would be written outside the folder: refused")
                    with system.open_input_stream(info.path) as stream:
                        tag = (stream.metadata() or {}).get("ETag", b"")
                    found.append(_StoredFile(name, f"{info.size} {info.mtime_ns} {tag!r}"))
        if not found:
            raise DataError(f"{self.address}: has no files")
        return sorted(found)

    def read(self) -> Optional[bytes]:
        """Return the file's content; None if there is no such file."""
        with self._naming(), suppress(FileNotFoundError), self._system().open_input_stream(self._inner) as stream:
            return bytes(stream.read())
        return None

    def sha256(self) -> Optional[str]:
        """Return the SHA-256 of the file in hexadecimal digits; None if there is no such file."""
        with self._naming(), suppress(FileNotFoundError), self._system().open_input_stream(self._inner) as stream:
            return stream_sha256(stream)
        return None

    def write(self, content: bytes) -> None:
        """Write the file: in object stores it appears once it is whole; in HDFS it is written aside and renamed."""
        with self._naming():
            system, is_renamed = self._system(), self.address.startswith("hdfs")
            target = f"{self._inner}.unfinished" if is_renamed else self._inner
            if is_renamed:
                system.create_dir(os.path.dirname(target), recursive=True)
            with system.open_output_stream(target) as stream:
                stream.write(content)
            if is_renamed:
                with suppress(FileNotFoundError):  # HDFS renames onto no file
                    system.delete_file(self._inner)
                system.move(target, self._inner)

    def delete(self) -> None:
        """Delete the file, or the folder and all in it, if it is there."""
        with self._naming(), suppress(FileNotFoundError):
            if self.is_file():
                self._system().delete_file(self._inner)
            elif self.exists():
                self._system().delete_dir(self._inner)

    def download(self, target: Path, files: Sequence[_StoredFile]) -> None:
        """Copy the file or folder, with these `files`, to a path of this machine, which must not exist."""
        from pyarrow.fs import LocalFileSystem, copy_files

        for file in files:  # which makes no folders
            (target / file.name).parent.mkdir(parents=True, exist_ok=True)
        with self._naming():
            copy_files(
                self._inner, str(target), source_filesystem=self._system(), destination_filesystem=LocalFileSystem()
            )

    def upload(self, source: Path) -> None:
        """Copy a file, or a folder with all in it, of this machine to the address."""
        from pyarrow.fs import LocalFileSystem, copy_files

        with self._naming():
            copy_files(
                str(source), self._inner, source_filesystem=LocalFileSystem(), destination_filesystem=self._system()
            )

    def _info(self) -> Any:
        with self._naming():
            return self._system().get_file_info(self._inner)

    @property
    def _inner(self) -> str:
        """The path as the file system takes it: that of HDFS is without the host."""
        return f"/{self._path.partition('/')[2]}" if self.address.startswith("hdfs") else self._path

    def _system(self) -> Any:
        if self._opened is None:
            self._opened = _file_system(self.address)
        return self._opened

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """Turn the errors of the file system into `RankerError`, which names the address."""
        from pyarrow import ArrowException

        try:
            yield
        except (OSError, ArrowException) as error:
            raise RankerError(f"{self.address}: {brief(' '.join(str(error).split()), 300)}") from error


def _file_system(address: str) -> Any:
    import pyarrow.fs

    scheme, _, rest = address.partition("://")
    host = rest.partition("/")[0]
    if scheme == "gs":
        return pyarrow.fs.GcsFileSystem(
            endpoint_override=os.environ.get("STORAGE_EMULATOR_HOST"),
            anonymous="STORAGE_EMULATOR_HOST" in os.environ,
            scheme="http" if "STORAGE_EMULATOR_HOST" in os.environ else "https",
            retry_time_limit=timedelta(seconds=_READ_SECONDS),
        )
    if scheme == "hdfs":
        return pyarrow.fs.HadoopFileSystem.from_uri(f"hdfs://{host}")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region is None and endpoint is None:
        region = pyarrow.fs.resolve_s3_region(host)
    return pyarrow.fs.S3FileSystem(
        endpoint_override=endpoint,
        region=region,
        connect_timeout=_CONNECT_SECONDS,
        request_timeout=_READ_SECONDS,
        retry_strategy=pyarrow.fs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
    )


def fetched(address: str, *, beside: bool = False) -> str:
    """Return the path of a copy of a file or folder on this machine, which is made once in the cache.

    The copy's folder is named by sizes, times and tags of all files; another state at the address is another copy.

    beside: copy all files beside a file, as those of a model whose parameters are named
    """
    store = Store(address)
    if beside and store.is_file():
        folder, _, name = store.address.rpartition("/")
        return os.path.join(fetched(folder), name)
    files = store.files()
    return _kept(store, files, Path(os.path.realpath(cache_folder("fetched", _version(files))), store.name))


def fetch_again(path: str, address: str) -> None:
    """Make the copy that `fetched` has made at `path` on another machine, unless it is here already.

    Raises `RankerError` if the address has another state by now.
    """
    if os.path.exists(path):
        return
    store = Store(address)
    files = store.files()
    if Path(path).parent.name != _version(files):
        raise RankerError(f"{address}: is no longer what it was when the command began; run the command again")
    _kept(store, files, Path(path))


def matching(pattern: str) -> list[str]:
    """Return the addresses of the files that match a pattern with `*`, `?` or `[abc]` in its last part, sorted."""
    folder, _, name = pattern.rpartition("/")
    if not any(character in "*?[" for character in name):
        return [pattern]
    return [f"{folder}/{one}" for one in Store(folder).names() if fnmatch.fnmatchcase(one, name)]


@contextmanager
def uploading(output: str) -> Iterator[str]:
    """Yield a path of this machine for the file `output`; what is written there, and beside it, is copied at the end.

    `output` may be a path, which is yielded as it is.
    """
    if scheme_of(output) is None:
        yield output
        return
    store = Store(output)
    beside = Store(store.address.rpartition("/")[0])
    probe = beside.inside(f"{store.name}.unfinished")
    probe.write(b"")  # an address that cannot be written to is refused before the work
    probe.delete()
    with tempfile.TemporaryDirectory(prefix="paddle_ranker_") as folder:
        yield os.path.join(folder, store.name)
        for path in sorted(Path(folder).iterdir()):
            beside.inside(path.name).upload(path)


def _version(files: list[_StoredFile]) -> str:
    return hashlib.sha256(repr(files).encode()).hexdigest()[:_VERSION_DIGITS]


def _kept(store: Store, files: list[_StoredFile], target: Path) -> str:
    """Return `target`, after copying the files there unless this was done before."""
    FETCHED[str(target)] = store.address
    if target.exists():
        return str(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target.parent / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # other processes wait, and find the copy
        if not target.exists():
            temporary = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=target.parent))
            try:
                store.download(temporary / target.name, files)
                if store.files() != files:
                    raise RankerError(f"{store.address}: was replaced while it was fetched; run the command again")
                for parent, _, names in os.walk(temporary):
                    for name in names:
                        with open(os.path.join(parent, name), "rb") as stream:
                            os.fsync(stream.fileno())
                os.rename(temporary / target.name, target)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    return str(target)
