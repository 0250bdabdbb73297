"""`index.json`: what an index folder holds, and which of its files count; replaced in one step."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from paddle_ranker.errors import CheckpointError, brief
from paddle_ranker.lexical.bm25 import K1, B
from paddle_ranker.storage.atomic import new_file, sync
from paddle_ranker.storage.untrusted import read_json

MANIFEST = "index.json"
FORMAT = 1


@dataclass(frozen=True)
class WordsInfo:
    """How words are searched: the tokenizer, BM25's saturation and weight of length, and the language of the texts.

    The language is "" where the tokenizer was chosen by its name.
    """

    tokenizer: str
    k1: float = K1
    b: float = B
    language: str = ""


@dataclass(frozen=True)
class VectorsInfo:
    """How vectors are searched.

    method: exact, faiss or milvus
    size, dtype: how many components each has, and what type they are stored as
    structure: of an index of faiss
    uri, collection: of Milvus: its address, or a file in the index folder; the name of the vectors there
    hnsw_m, hnsw_ef: neighbours of each entry of a graph; how many entries are looked at when it is built and searched
    """

    method: str
    size: int
    dtype: str = "float32"
    structure: str = "hnsw_sq8"
    hnsw_m: int = 32
    hnsw_ef: int = 100
    uri: Optional[str] = None
    collection: Optional[str] = None


@dataclass(frozen=True)
class TowerCopy:
    """The folder in the index with the copy of the tower, and the digest of the files that were copied."""

    folder: str
    digest: str


@dataclass(frozen=True)
class SegmentInfo:
    """A segment's folder and how many documents it has; the file with the removed rows, and how many those are."""

    name: str
    count: int
    deleted: Optional[str] = None
    removed: int = 0

    @property
    def live(self) -> int:
        """How many documents are not removed."""
        return self.count - self.removed


@dataclass(frozen=True)
class IndexInfo:
    """What index.json says.

    generation: counts up with each change
    count: live documents
    words, vectors: how both are searched; None where the index has none
    tower: what makes its vectors; None where it has none
    others: names in `INDEXES` of further indexes that it is searched by, which are built in memory when needed
    next_id: the next document without an id gets this number as its id
    """

    words: Optional[WordsInfo]
    vectors: Optional[VectorsInfo]
    tower: Optional[TowerCopy] = None
    others: tuple[str, ...] = ()
    segments: tuple[SegmentInfo, ...] = ()
    generation: int = 0
    next_id: int = 1
    format: int = FORMAT

    @property
    def count(self) -> int:
        return sum(one.live for one in self.segments)

    def same_kind(self, other: IndexInfo) -> bool:
        """Return whether documents of both have the same words and vectors, by the same tower."""
        return (
            dataclasses.replace(other, segments=self.segments, generation=self.generation, next_id=self.next_id) == self
        )

    def files(self) -> set[str]:
        """Return the names of the folders and files of the segments."""
        return {name for one in self.segments for name in (one.name, one.deleted) if name is not None}

    def next(self, segments: Sequence[SegmentInfo], next_id: int) -> IndexInfo:
        """Return what the next generation says."""
        next_id = max(self.next_id, next_id)
        return dataclasses.replace(self, segments=tuple(segments), generation=self.generation + 1, next_id=next_id)


def write_manifest(folder: Path, info: IndexInfo) -> None:
    """Write index.json in one step; it is on the disk when this returns."""
    with new_file(folder / MANIFEST) as stream:
        json.dump({**dataclasses.asdict(info), "count": info.count}, stream, ensure_ascii=False, indent=1)
    sync(folder)


def read_manifest(folder: Path) -> IndexInfo:
    """Read index.json; raises `CheckpointError` if it is missing, damaged or of a newer format."""
    try:
        found = read_json(folder / MANIFEST)
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(
            f"{folder}: is no index, it has no {MANIFEST}; make one with paddle-ranker index build"
        ) from None
    except ValueError as error:
        raise CheckpointError(f"{folder / MANIFEST}: damaged ({brief(str(error))}); copy the index again") from error
    if isinstance(found, dict) and isinstance(found.get("format"), int) and found["format"] > FORMAT:
        raise CheckpointError(
            f"{folder}: an index of format {found['format']}, newer than this version reads ({FORMAT})"
        )
    try:
        return _parsed(found)
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder / MANIFEST}: damaged ({brief(str(error))}); copy the index again") from error


def _parsed(found: Mapping[str, object]) -> IndexInfo:
    values = {name: value for name, value in found.items() if name != "count"}
    for name, kind in (("words", WordsInfo), ("vectors", VectorsInfo), ("tower", TowerCopy)):
        part = values[name]
        values[name] = kind(**part) if isinstance(part, dict) else None
    others = values.get("others", [])
    values["others"] = tuple(others)  # type: ignore[arg-type]
    segments = values["segments"]
    values["segments"] = tuple(SegmentInfo(**one) for one in segments)  # type: ignore[attr-defined]
    return IndexInfo(**values)  # type: ignore[arg-type]
