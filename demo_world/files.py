"""Write the demo data's files, all or none, in constant memory."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import IO, Any, Optional

from tqdm import tqdm

from demo_world.scenes import Group, groups, triples
from paddle_ranker.data.rows.dice import Dice
from paddle_ranker.errors import DataError, RankerError
from paddle_ranker.storage.atomic import locked
from paddle_ranker.storage.digest import file_sha256
from paddle_ranker.storage.streams import naming_the_file

# Increase it with every change that alters a byte of the output.
GENERATOR_VERSION = 1
MANIFEST = ".demo.json"
# The collection to search holds every title of dev and test, and at most this many titles of train.
CORPUS_TRAIN_TITLES = 20_000

HEADERS: dict[str, tuple[str, ...]] = {
    "sort/train_pairwise.csv": ("query", "title", "neg_title"),
    "sort/dev_pairwise.csv": ("query", "title", "label"),
    "sort/test_pairwise.csv": (),
    "sort/dev_graded.csv": ("query", "title", "label"),
    "sort/test_graded.csv": ("query", "title", "label"),
    "sort/dev_kinds.csv": ("kind",),
    "sort/test_kinds.csv": ("kind",),
    "recall/train.csv": (),
    "recall/train_unsupervised.csv": (),
    "recall/corpus.csv": (),
    "recall/dev.csv": (),
    "recall/test.csv": (),
    "milvus/milvus_data.csv": (),
    "literature_search_rank/train.csv": (),
    "literature_search_rank/dev_pairwise.csv": ("query", "title", "label"),
    "literature_search_rank/test.csv": (),
}
FOLDERS = tuple(sorted({name.split("/")[0] for name in HEADERS}))
# Measured: 630 bytes a triple in all files together, at a million.
_BYTES_A_TRIPLE, _BYTES_A_QUERY = 700, 20_000


@dataclass(frozen=True)
class Manifest:
    """The generator's version and settings for the demo data in a folder, and the size and checksum of each file.

    `replaced`, the same facts of older files, is not empty only while files are renamed: a run that is killed then
    leaves some of `files` and some of `replaced`.
    """

    version: int
    seed: int
    size: int
    queries: int
    files: dict[str, dict[str, Any]]
    replaced: dict[str, dict[str, Any]] = field(default_factory=dict)


class _Files:
    """The temporary files of one run; rows for files that the run was not asked to write are dropped."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder = folder
        self.streams: dict[str, IO[str]] = {}
        self.digests = {name: hashlib.sha256() for name in names}
        for name in names:
            path = self.temporary(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            self.streams[name] = path.open("w", encoding="utf-8", newline="\n")
            if HEADERS[name]:
                self.row(name, *HEADERS[name])

    def temporary(self, name: str) -> Path:
        return self.folder / f"{name}.part"

    def row(self, name: str, *columns: object) -> None:
        if name in self.streams:
            line = "\t".join(map(str, columns)) + "\n"
            self.streams[name].write(line)
            self.digests[name].update(line.encode("utf-8"))

    def finish(self) -> dict[str, dict[str, Any]]:
        """Sync and close every file; return a dict from file name to size and checksum."""
        for stream in self.streams.values():
            stream.flush()
            os.fsync(stream.fileno())
            stream.close()
        facts = {}
        for name, digest in self.digests.items():
            facts[name] = {"bytes": self.temporary(name).stat().st_size, "sha256": digest.hexdigest()}
        return facts

    def publish(self) -> None:
        """Rename every temporary file to its final name."""
        for name in self.streams:
            os.replace(self.temporary(name), self.folder / name)

    def discard(self) -> None:
        for name, stream in self.streams.items():
            with contextlib.suppress(OSError):
                stream.close()
            with contextlib.suppress(OSError):
                self.temporary(name).unlink()


def read_manifest(folder: Path) -> Optional[Manifest]:
    """Return the manifest of the demo data in `folder`, or None without one; raise `DataError` if it is damaged."""
    path = folder / MANIFEST
    try:
        return Manifest(**json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}): delete it and run again") from error


def _matches(path: Path, facts: Optional[dict[str, Any]], content: bool) -> bool:
    """Return whether a file has the size in `facts` and, with `content`, also the checksum."""
    if facts is None or not path.is_file() or path.stat().st_size != facts["bytes"]:
        return False
    if not content:
        return True
    return bool(file_sha256(path) == facts["sha256"])


def _is_ours(folder: Path, name: str, manifest: Optional[Manifest]) -> bool:
    """Return whether `folder/name` equals the file that the generator wrote."""
    if manifest is None:
        return False
    return any(_matches(folder / name, facts.get(name), True) for facts in (manifest.files, manifest.replaced))


def foreign_files(folder: Path) -> list[str]:
    """Return the files with names of demo data that the generator did not write, or that were changed since."""
    manifest = read_manifest(folder)
    return [name for name in HEADERS if (folder / name).exists() and not _is_ours(folder, name, manifest)]


def has_only_demo_files(folder: Path, name: str) -> bool:
    """Return whether the folder `name` in `folder` is missing, or has only unchanged demo files."""
    manifest = read_manifest(folder)
    files = [path.relative_to(folder).as_posix() for path in (folder / name).rglob("*") if path.is_file()]
    # A run that was killed leaves `.part` files.
    parts = {f"{file}.part" for file in HEADERS}
    return all(file in parts or _is_ours(folder, file, manifest) for file in files)


def is_current(folder: Path, names: Sequence[str]) -> bool:
    """Return whether the files `names` have the sizes that this version of the generator wrote."""
    manifest = read_manifest(folder)
    if manifest is None or manifest.version != GENERATOR_VERSION:
        return False
    return all(_matches(folder / name, manifest.files.get(name), content=False) for name in names)


def write_demo(folder: Path, seed: int, size: int, queries: int, names: Sequence[str] = tuple(HEADERS)) -> Manifest:
    """Write the files `names` of the demo data to `folder`: `size` triples, `queries` queries each in dev and test.

    No old file is replaced before all new files are written. Raises `RankerError` if the folder cannot be written or
    the disk has too little room.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        needed, free = size * _BYTES_A_TRIPLE + queries * _BYTES_A_QUERY, shutil.disk_usage(folder).free
    except OSError as error:
        raise RankerError(f"{folder}: {error.strerror}; give a folder that can be written with --output") from error
    if needed > free:
        raise RankerError(
            f"{folder}: about {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free; lower --size"
        )
    with naming_the_file(folder), _alone(folder):
        return _write_all(folder, (seed, size, queries), names)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait for whoever writes demo data there: scripts that were started together want it at the same time."""
    path = folder / f"{MANIFEST}.lock"
    with locked(path, wait=True):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _write_all(folder: Path, drawn: tuple[int, int, int], names: Sequence[str]) -> Manifest:
    seed, size, queries = drawn
    files: Optional[_Files] = None
    try:
        files = _Files(folder, names)
        corpus = _write_held_out(files, seed, queries)
        _write_train(files, seed, size, corpus)
        before = read_manifest(folder)
        old = before.files if before else {}
        kept = {name: facts for name, facts in old.items() if name not in names}
        manifest = Manifest(GENERATOR_VERSION, seed, size, queries, {**kept, **files.finish()}, replaced=old)
        _write_manifest(folder, manifest)
        files.publish()
        manifest = replace(manifest, replaced={})
        _write_manifest(folder, manifest)
        return manifest
    except PermissionError as error:
        raise RankerError(f"{error.filename}: {error.strerror}; choose another folder with --output") from error
    finally:
        if files is not None:
            files.discard()


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    temporary = folder / f"{MANIFEST}.part"
    temporary.write_text(json.dumps(manifest.__dict__, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(temporary, folder / MANIFEST)


def _write_held_out(files: _Files, seed: int, queries: int) -> Iterator[str]:
    """Write dev and test; return the titles that the searched collection must hold."""
    titles: dict[str, None] = {}
    for split in ("dev", "test"):
        for group in islice(groups(seed, split), queries):
            _write_group(files, split, group)
            titles.update(dict.fromkeys(group.titles))
    return iter(titles)


def _write_group(files: _Files, split: str, group: Group) -> None:
    for title, grade in zip(group.titles, group.grades):
        label = int(grade > 0)
        files.row(f"sort/{split}_graded.csv", group.query, title, grade)
        files.row(f"sort/{split}_kinds.csv", group.kind)
        if split == "dev":
            files.row("sort/dev_pairwise.csv", group.query, title, label)
            files.row("literature_search_rank/dev_pairwise.csv", group.query, title, label)
        else:
            files.row("sort/test_pairwise.csv", group.query, title, f"{_recall_score(group.query, title):.6f}")
            files.row("literature_search_rank/test.csv", group.query, title)
        if label:
            files.row("recall/dev.csv" if split == "dev" else "recall/test.csv", group.query, title)


def _recall_score(query: str, title: str) -> float:
    """Return the share of the query's characters that occur in the title, instead of a first-stage retrieval score."""
    characters = set(query) - {" "}
    return len(characters & set(title)) / len(characters)


def _write_train(files: _Files, seed: int, size: int, corpus: Iterator[str]) -> None:
    for title in corpus:
        files.row("recall/corpus.csv", title)
        files.row("milvus/milvus_data.csv", title)
    dice = Dice(seed, "train order")
    seen: set[str] = set()  # bounded: memory stays flat for any size
    rows = islice(triples(seed), size)
    for query, title, negative in tqdm(rows, total=size, unit=" triples", disable=size < 100_000):
        files.row("sort/train_pairwise.csv", query, title, negative)
        files.row("recall/train.csv", query, title)
        files.row("recall/train_unsupervised.csv", query)
        files.row("recall/train_unsupervised.csv", title)
        labelled = [(title, 1), (negative, 0)]
        for text, label in labelled if dice.chance(0.5) else labelled[::-1]:
            files.row("literature_search_rank/train.csv", query, text, label)
        if len(seen) < CORPUS_TRAIN_TITLES and title not in seen:
            seen.add(title)
            files.row("recall/corpus.csv", title)
            files.row("milvus/milvus_data.csv", title)
