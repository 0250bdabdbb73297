"""`index.json`: what an index folder holds, and which of its files count; replaced in one step."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import Optional, TypeVar

from paddle_ranker.array_types import STORED_TYPES
from paddle_ranker.data.documents import ROLES
from paddle_ranker.errors import CheckpointError, UsageError, brief
from paddle_ranker.lexical.analyser import analyser
from paddle_ranker.lexical.bm25 import K1, B
from paddle_ranker.lexical.tokens import STANDARD, TOKENIZERS
from paddle_ranker.retrieval.schema import FIELD_TYPES, MOST_FIELDS, TEXT, Field, Schema
from paddle_ranker.storage.atomic import new_file, sync
from paddle_ranker.storage.untrusted import Unchecked, UncheckedObject, inside, read_json

MANIFEST = "index.json"
WORDS = "words"  # the name of the searcher by words
VECTORS = "vectors"  # the name of the vector field of whole documents
FORMAT = 11
EXACT, FAISS, MILVUS = METHODS = ("exact", "faiss", "milvus")
STRUCTURES = ("hnsw_sq8", "hnsw", "ivf_sq8", "ivf_pq", "sq8")  # of an index of faiss
_MOST_K1 = 1000.0  # far beyond what BM25 makes sense with
_MOST = 1 << 31  # what faiss counts with
_MOST_SIZE, _MOST_NEIGHBOURS = 1 << 16, 512  # components of a vector; neighbours of an entry of a graph
_MOST_SEGMENTS, _MOST_OTHERS = 1 << 16, 100
_DELETED = re.compile(r"\.deleted-\d{1,20}\.npy", re.ASCII)
_SEGMENT = re.compile(r"segment-\d{8,}-[0-9a-f]{8}", re.ASCII)
_ONE_TEXT = Schema()
T = TypeVar("T")
_PLAIN = re.compile(r"\w[\w.-]*")  # no path


@dataclass(frozen=True)
class WordsInfo:
    """How words are searched: the tokenizer, BM25's saturation and weight of length."""

    tokenizer: str
    k1: float = K1
    b: float = B


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
class VectorField:
    """Vectors of a field's values, with its name: how they are searched, and the tower that makes them."""

    name: str
    info: VectorsInfo
    tower: Optional[TowerCopy]


@dataclass(frozen=True)
class RankerStates:
    """Stored states of documents: the folder in the index with the copy of the ranker, and what made them.

    ranker, layers, width, dtype: as of `scoring.stored.StatesInfo`
    """

    folder: str
    ranker: str
    layers: int
    width: int
    dtype: str


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
class Floors:
    """Scores that the best documents reach for unrelated queries, by searcher; see `retrieval.floors`.

    documents: how many the index had when they were measured
    """

    documents: int
    scores: Mapping[str, float]


@dataclass(frozen=True)
class IndexInfo:
    """Contents of index.json.

    generation: counts up with each change
    count: live documents
    words, vectors: how words, and vectors of whole documents, are searched; None where the index has none
    tower: makes these vectors; None where it has none
    more_vectors: further vector fields
    states: of documents, which a ranker of stored titles reads; None where the index has none
    others: names in `INDEXES` of further indexes that it is searched by, which are built in memory when needed
    next_id: the next document without an id gets this number as its id
    schema: the declared fields, and how towers and rankers read a document
    columns: of the files that documents come from: those that are `id`, `title` and `text`, by these names
    floors: of the searchers; None: too few documents to measure them
    """

    words: Optional[WordsInfo]
    vectors: Optional[VectorsInfo]
    tower: Optional[TowerCopy] = None
    others: tuple[str, ...] = ()
    segments: tuple[SegmentInfo, ...] = ()
    generation: int = 0
    next_id: int = 1
    schema: Schema = _ONE_TEXT
    more_vectors: tuple[VectorField, ...] = ()
    states: Optional[RankerStates] = None
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    floors: Optional[Floors] = None
    format: int = FORMAT

    @cached_property
    def vector_fields(self) -> dict[str, VectorField]:
        """All vector fields by name."""
        own = () if self.vectors is None else (VectorField(VECTORS, self.vectors, self.tower),)
        return {one.name: one for one in (*own, *self.more_vectors)}

    @property
    def models(self) -> list[str]:
        """The names of the folders with copies of models."""
        towers = [one.tower.folder for one in self.vector_fields.values() if one.tower is not None]
        return [*towers, *([] if self.states is None else [self.states.folder])]

    @property
    def searchers(self) -> tuple[str, ...]:
        """The names by which documents are searched."""
        return (*([WORDS] if self.words is not None else []), *self.vector_fields, *self.others)

    @property
    def count(self) -> int:
        return sum(one.live for one in self.segments)

    def same_kind(self, other: IndexInfo) -> bool:
        """Return whether documents of both have the same words and vectors, by the same tower."""
        # These differ among equal kinds.
        own = {"segments": (), "generation": 0, "next_id": 1, "columns": {}, "floors": None}
        return dataclasses.replace(other, **own) == dataclasses.replace(self, **own)  # type: ignore[arg-type]

    def files(self) -> set[str]:
        """Return the names of the folders and files of the segments."""
        return {name for one in self.segments for name in (one.name, one.deleted) if name is not None}

    def next(self, segments: Sequence[SegmentInfo], next_id: int) -> IndexInfo:
        """Return the contents of the next generation."""
        next_id = max(self.next_id, next_id)
        return dataclasses.replace(self, segments=tuple(segments), generation=self.generation + 1, next_id=next_id)


def facts_of(info: IndexInfo) -> UncheckedObject:
    """Convert the contents of index.json to JSON; the inverse of `info_of`."""
    facts: UncheckedObject = json.loads(json.dumps({**dataclasses.asdict(info), "count": info.count}))
    return facts


def write_manifest(folder: Path, info: IndexInfo) -> None:
    """Write index.json in one step; it is on the disk when this returns."""
    with new_file(inside(folder, MANIFEST)) as stream:
        facts = facts_of(info)
        json.dump(facts, stream, ensure_ascii=False, indent=1)
    sync(folder)


def read_manifest(folder: Path) -> IndexInfo:
    """Read index.json; raises `CheckpointError` if it is missing, damaged or of another format."""
    try:
        found = read_json(inside(folder, MANIFEST))
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(
            f"{folder}: is no index, it has no {MANIFEST}; make one with paddle-ranker index build"
        ) from None
    except ValueError as error:
        raise CheckpointError(f"{folder / MANIFEST}: damaged ({brief(str(error))}); copy the index again") from error
    if isinstance(found, dict) and _is_count(found.get("format")) and found["format"] != FORMAT:
        raise CheckpointError(
            f"{folder}: an index of format {found['format']}, and this version reads format {FORMAT}: build it anew, "
            "paddle-ranker index build --corpus FILE --output FOLDER"
        )
    try:
        return info_of(found)
    except (KeyError, TypeError, ValueError, UsageError) as error:
        raise CheckpointError(f"{folder / MANIFEST}: damaged ({brief(str(error))}); copy the index again") from error


def is_segment(name: object) -> bool:
    """Return whether a name is one that segments have: others are not opened, and not deleted."""
    return isinstance(name, str) and _SEGMENT.fullmatch(name) is not None


def info_of(found: Unchecked) -> IndexInfo:
    """Convert JSON to the contents of index.json.

    Raises `KeyError`, `TypeError`, `ValueError` or `UsageError` for unknown or wrong values.
    """
    values = _object(found, IndexInfo, {"count"})
    values["words"] = _optional(values["words"], WordsInfo)
    values["vectors"], values["tower"] = (
        _optional(values["vectors"], VectorsInfo),
        _optional(values["tower"], TowerCopy),
    )
    values["states"] = _optional(values["states"], RankerStates)
    values["floors"] = _optional(values["floors"], Floors)
    values["more_vectors"] = tuple(
        VectorField(one["name"], VectorsInfo(**_object(one["info"], VectorsInfo)), _optional(one["tower"], TowerCopy))
        for one in (_object(each, VectorField) for each in _list(values, "more_vectors", MOST_FIELDS))
    )
    schema = _object(values["schema"], Schema)
    fields = tuple(Field(**_object(one, Field)) for one in _list(schema, "fields", MOST_FIELDS))
    values["schema"], values["format"] = Schema(**{**schema, "fields": fields}), FORMAT
    values["segments"] = tuple(
        SegmentInfo(**_object(one, SegmentInfo)) for one in _list(values, "segments", _MOST_SEGMENTS)
    )
    values["others"] = tuple(_list(values, "others", _MOST_OTHERS))
    count = values.pop("count")
    info = IndexInfo(**values)
    names = [one.name for one in info.segments]
    embedded = {TEXT, *(field.name for field in fields if field.type in FIELD_TYPES and field.is_embedded)}
    rules: list[tuple[object, bool]] = [
        (info.generation, _is_count(info.generation)),
        (info.next_id, _is_count(info.next_id)),
        (info.others, all(isinstance(name, str) for name in info.others) and len({*info.others}) == len(info.others)),
        (names, all(map(is_segment, names)) and len({*names}) == len(names)),
        (info.columns, isinstance(info.columns, dict) and {*info.columns} <= {*ROLES}),
        (info.columns, all(isinstance(name, str) for name in dict(info.columns).values())),
    ]
    for one in info.segments:
        name, file = str(one.name), one.deleted
        is_own = isinstance(file, str) and file.startswith(name) and _DELETED.fullmatch(file, len(name)) is not None
        rules += [
            (file, (file is None or is_own) and (file is None) == (one.removed == 0)),
            (one, _is_count(one.count) and _is_count(one.removed) and one.removed <= one.count),
        ]
    rules += [(info.schema, _is_count(info.schema.passage_tokens) and _is_count(info.schema.passage_overlap))]
    for field in fields:
        rules += [
            (field, all(isinstance(text, str) and text for text in (field.name, field.type))),
            (field, isinstance(field.label, str) and isinstance(field.unit, str)),
            (field.type, field.type in FIELD_TYPES),
            (field.weight, type(field.weight) in (int, float) and 0 < field.weight <= _MOST_K1),
            (field, all(isinstance(is_so, bool) for is_so in (field.title, field.list, field.literal))),
            (field.analyser, isinstance(field.analyser, str) and bool(analyser(field.analyser))),
            (field, not field.analyser or (info.words is not None and info.words.tokenizer == STANDARD)),
        ]
    if info.words is not None:
        rules += [(info.words, info.words.tokenizer in TOKENIZERS)]
        rules += [
            (value, type(value) in (int, float) and 0 <= value <= most)
            for value, most in ((info.words.k1, _MOST_K1), (info.words.b, 1.0))
        ]
    more = info.more_vectors
    rules += [(more, len({VECTORS, *(field.name for field in more)}) == 1 + len(more))]
    rules += [
        (
            each,
            each.name.isidentifier()
            and each.name in embedded
            and each.tower is not None
            and each.info.method != MILVUS,
        )
        for each in more
    ]
    for vectors in (one.info for one in info.vector_fields.values()):
        rules += [
            (vectors.method, vectors.method in METHODS),
            (vectors.structure, vectors.structure in STRUCTURES),
            (vectors.dtype, vectors.dtype in STORED_TYPES),
            (vectors.size, _is_count(vectors.size) and 0 < vectors.size <= _MOST_SIZE),
            (vectors.hnsw_m, _is_count(vectors.hnsw_m) and 0 < vectors.hnsw_m <= _MOST_NEIGHBOURS),
            (vectors.hnsw_ef, _is_count(vectors.hnsw_ef) and 0 < vectors.hnsw_ef < _MOST),
            (vectors.uri, vectors.uri is None or is_address(vectors.uri) or _is_plain(vectors.uri)),
            (vectors.collection, vectors.collection is None or _is_plain(vectors.collection)),
            (vectors.method, vectors.method != MILVUS or None not in (vectors.uri, vectors.collection)),
        ]
    for tower in (info.tower, *(each.tower for each in more)):
        if tower is not None:
            rules += [(tower.folder, _is_plain(tower.folder)), (tower.digest, isinstance(tower.digest, str))]
    if (states := info.states) is not None:
        rules += [
            (states, _is_plain(states.folder) and isinstance(states.ranker, str) and states.dtype in STORED_TYPES),
            (states, all(_is_count(one) and one > 0 for one in (states.layers, states.width))),
        ]
    if (floors := info.floors) is not None:
        rules += [(floors, _is_count(floors.documents) and isinstance(floors.scores, dict))]
        rules += [(floors, {*floors.scores} <= {*info.searchers})]
        rules += [(floors, all(type(one) is float and isfinite(one) for one in floors.scores.values()))]
    rules += [(count, count == info.count)]  # last: the segments' numbers are checked by now
    for value, is_right in rules:
        if not is_right:
            raise ValueError(f"{value!r}")
    return info


def is_address(uri: object) -> bool:
    """Return whether Milvus's `uri` is the address of a server, not a file in the index folder."""
    return isinstance(uri, str) and "://" in uri


def _object(found: Unchecked, kind: type, more: Collection[str] = ()) -> UncheckedObject:
    """Return a JSON object with a value for each field of a class; raises `ValueError` for another."""
    fields = dataclasses.fields(kind)
    if not isinstance(found, dict):
        raise ValueError(f"{found!r} is no object")
    expected = {*(one.name for one in fields), *more}
    if unknown := {*found} - expected:
        raise ValueError(f"{unknown.pop()!r} is unknown")
    if missing := expected - {*found}:
        raise ValueError(f"{missing.pop()!r} is missing")
    return dict(found)


def _optional(found: Unchecked, kind: type[T]) -> Optional[T]:
    return None if found is None else kind(**_object(found, kind))


def _list(values: UncheckedObject, name: str, most: int) -> Sequence[Unchecked]:
    if not isinstance(values[name], (list, tuple)):
        raise ValueError(f"{name} is {values[name]!r}")
    if len(values[name]) > most:
        raise ValueError(f"{len(values[name]):,} {name}, at most {most:,} can be")
    found: Sequence[Unchecked] = values[name]
    return found


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _is_plain(name: object) -> bool:
    return isinstance(name, str) and _PLAIN.fullmatch(name) is not None
