"""`index.json`: description of an index folder, and list of its valid files; replaced atomically."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Optional

from paddle_ranker.array_types import STORED_TYPES
from paddle_ranker.data.rows.field_paths import ROLES
from paddle_ranker.errors import CheckpointError, UsageError, brief
from paddle_ranker.lexical.analyser import analyser
from paddle_ranker.lexical.bm25 import K1, B
from paddle_ranker.lexical.tokens import STANDARD, TOKENIZERS
from paddle_ranker.retrieval.stored.schema import FIELD_TYPES, MOST_FIELDS, TEXT, Schema
from paddle_ranker.retrieval.vectors.vector_settings import PLAIN, Name, VectorsInfo, is_address
from paddle_ranker.storage.declared import Between, Count, OneOf, Positive, read_declared
from paddle_ranker.storage.untrusted import Unchecked, UncheckedObject, inside, read_json

MANIFEST = "index.json"
WORDS = "words"  # name of the searcher by words
VECTORS = "vectors"  # name of the vector field of whole documents
URL_FOLDER = "tower_at_url"  # folder that describes a tower behind a URL, in the place of a copy
FORMAT = 17
_MOST_K1 = 1000.0  # far above any useful value
_MOST_SEGMENTS, _MOST_OTHERS = 1 << 16, 100
_DELETED = re.compile(r"\.deleted-\d{1,20}\.npy", re.ASCII)
_SEGMENT = re.compile(r"segment-\d{8,}-[0-9a-f]{8}", re.ASCII)
_ONE_TEXT = Schema()


@dataclass(frozen=True)
class WordsInfo:
    """Settings of the search by words: the tokenizer, and BM25's k1 (saturation) and b (length normalisation)."""

    tokenizer: Annotated[str, OneOf(*TOKENIZERS)]
    k1: Annotated[float, Between(0, _MOST_K1)] = K1
    b: Annotated[float, Between(0, 1)] = B


@dataclass(frozen=True)
class TowerCopy:
    """Copy of a tower in an index: folder of the copy, and digest of the copied files."""

    folder: Name
    digest: str

    @property
    def is_at_url(self) -> bool:
        """Whether the tower is behind a URL, which the folder does not name; the folder only describes it."""
        return self.folder == URL_FOLDER


@dataclass(frozen=True)
class VectorField:
    """Description of the vectors of a field's values.

    name: name of the field
    info: how the vectors are searched
    tower: copy of the tower that computes the vectors; None if callers supply the vectors
    reads_texts: whether the tower computes vectors of texts, too, so that texts of queries can be searched for
    """

    name: str
    info: VectorsInfo
    tower: Optional[TowerCopy]
    reads_texts: bool = True


@dataclass(frozen=True)
class RankerStates:
    """Description of the stored states of documents.

    folder: folder in the index with the copy of the ranker that computed them
    ranker, layers: digest of everything that the states depend on, and number of the lower layers that compute them
    width, dtype: number of values of a state, and their type
    """

    folder: Name
    ranker: str
    layers: Positive
    width: Positive
    dtype: Annotated[str, OneOf(*STORED_TYPES)]


@dataclass(frozen=True)
class SegmentInfo:
    """Entry of a segment in index.json.

    name: name of the segment's folder
    count: number of documents, including removed documents
    deleted: name of the file with the removed rows; None if there are none
    removed: number of removed rows
    """

    name: Annotated[str, _SEGMENT]
    count: Count
    deleted: Optional[str] = None
    removed: Count = 0

    @property
    def live(self) -> int:
        """Number of documents that are not removed."""
        return self.count - self.removed


@dataclass(frozen=True)
class Floors:
    """Scores that the best documents reach for random queries, by vector searcher; see `retrieval.floors`.

    documents: number of the index's documents when the floors were measured
    telling: the searchers that give queries about a document higher scores
    """

    documents: Count
    scores: dict[str, float]
    telling: tuple[str, ...]

    def can_tell(self, searchers: Iterable[str]) -> bool:
        """Return whether one of the vector searchers gives queries about a document higher scores than random ones."""
        return any(name in self.telling for name in searchers)

    @classmethod
    def merged(cls, floors: Sequence[Optional[Floors]]) -> Optional[Floors]:
        """Merge the floors of shards: keep the highest floor of each searcher that has a floor in every shard.

        Returns None if a shard has no floors.
        """
        measured = [shard_floors for shard_floors in floors if shard_floors is not None]
        if not measured or len(measured) < len(floors):
            return None
        names = [name for name in measured[0].scores if all(name in shard_floors.scores for shard_floors in measured)]
        scores = {name: max(shard_floors.scores[name] for shard_floors in measured) for name in names}
        telling = tuple(name for name in names if all(name in shard_floors.telling for shard_floors in measured))
        return cls(max(shard_floors.documents for shard_floors in measured), scores, telling)


@dataclass(frozen=True)
class IndexInfo:
    """Contents of index.json.

    words: how words are searched; None if words are not searched
    vectors: how vectors of whole documents are searched; None if documents have no such vectors
    tower: tower that computes the vectors of whole documents; None if callers supply the vectors
    others: further searchers, by name in `INDEXES`; each is built in memory when it is first needed
    segments: the segments that are searched
    generation: grows by 1 with each change
    next_id: number that the next document without an id gets
    schema: the declared fields, and how towers and rankers read a document
    more_vectors: further vector fields
    states: stored states of the documents, for one ranker; None if no states are stored
    columns: column of the corpus by role: `id`, `title`, `text`
    floors: floors of the vector searchers; None if they are not measured: without towers, or with too few documents
    count: number of documents that are not removed
    """

    words: Optional[WordsInfo]
    vectors: Optional[VectorsInfo]
    tower: Optional[TowerCopy] = None
    others: Annotated[tuple[str, ...], Between(0, _MOST_OTHERS)] = ()
    segments: Annotated[tuple[SegmentInfo, ...], Between(0, _MOST_SEGMENTS)] = ()
    generation: Count = 0
    next_id: Count = 1
    schema: Schema = _ONE_TEXT
    more_vectors: Annotated[tuple[VectorField, ...], Between(0, MOST_FIELDS)] = ()
    states: Optional[RankerStates] = None
    columns: dict[str, str] = dataclasses.field(default_factory=dict)
    floors: Optional[Floors] = None
    format: int = FORMAT

    @cached_property
    def vector_fields(self) -> dict[str, VectorField]:
        of_documents = () if self.vectors is None else (VectorField(VECTORS, self.vectors, self.tower),)
        return {field.name: field for field in (*of_documents, *self.more_vectors)}

    @property
    def models(self) -> list[str]:
        """The names of the folders with copies of models."""
        towers = [field.tower.folder for field in self.vector_fields.values() if field.tower is not None]
        return [*towers, *([] if self.states is None else [self.states.folder])]

    @property
    def searchers(self) -> tuple[str, ...]:
        return (*([WORDS] if self.words is not None else []), *self.vector_fields, *self.others)

    @property
    def count(self) -> int:
        return sum(segment.live for segment in self.segments)

    def same_kind(self, other: IndexInfo) -> bool:
        """Return whether another index has the same settings of words, vectors, towers, fields and stored states."""
        # Indexes of the same kind may differ in these values.
        differing = {"segments": (), "generation": 0, "next_id": 1, "columns": {}, "floors": None}
        return dataclasses.replace(other, **differing) == dataclasses.replace(self, **differing)  # type: ignore[arg-type]

    @classmethod
    def merged(cls, infos: Mapping[str, IndexInfo]) -> IndexInfo:
        """Merge the contents of the shards' index.json.

        infos: contents by the shard's name, which messages show

        Raises `UsageError` for shards of different kinds.
        """
        first, *_ = infos
        for name, info in infos.items():
            if not info.same_kind(infos[first]):
                raise UsageError(
                    f"{name}: was built otherwise than {first}, as index info shows; build it with the same tower, "
                    "words and fields"
                )
        return dataclasses.replace(
            infos[first],
            segments=tuple(segment for info in infos.values() for segment in info.segments),
            generation=sum(info.generation for info in infos.values()),
            next_id=max(info.next_id for info in infos.values()),
            floors=Floors.merged([info.floors for info in infos.values()]),
        )

    def files(self) -> set[str]:
        """Return the names of the segments' folders and of the files with their removed rows."""
        return {name for segment in self.segments for name in (segment.name, segment.deleted) if name is not None}

    def next(self, segments: Sequence[SegmentInfo], next_id: int) -> IndexInfo:
        """Return the contents of index.json for the next generation, which has `segments`."""
        next_id = max(self.next_id, next_id)
        return dataclasses.replace(self, segments=tuple(segments), generation=self.generation + 1, next_id=next_id)


def facts_of(info: IndexInfo) -> UncheckedObject:
    """Convert the contents of index.json to JSON; the inverse of `info_of`."""
    facts: UncheckedObject = json.loads(json.dumps({**dataclasses.asdict(info), "count": info.count}))
    return facts


def write_manifest(folder: Path, info: IndexInfo) -> None:
    """Replace index.json atomically; it is synced to disk when this returns."""
    from paddle_ranker.storage.atomic import new_file, sync

    with new_file(inside(folder, MANIFEST)) as stream:
        facts = facts_of(info)
        json.dump(facts, stream, ensure_ascii=False, indent=1)
    sync(folder)


def read_manifest(folder: Path) -> IndexInfo:
    """Read index.json; raises `CheckpointError` if it is missing, damaged or of another format."""
    try:
        facts = read_json(inside(folder, MANIFEST))
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(
            f"{folder}: is no index, it has no {MANIFEST}; make one with paddle-ranker index build"
        ) from None
    except ValueError as error:
        raise CheckpointError(f"{folder / MANIFEST}: damaged ({brief(str(error))}); copy the index again") from error
    if isinstance(facts, dict) and type(facts.get("format")) is int and facts["format"] != FORMAT:
        raise CheckpointError(
            f"{folder}: an index of format {facts['format']}, and this version reads format {FORMAT}: build it anew, "
            "paddle-ranker index build --corpus FILE --output FOLDER"
        )
    try:
        return info_of(facts, folder / MANIFEST)
    except (ValueError, UsageError) as error:
        raise CheckpointError(f"{folder / MANIFEST}: damaged ({brief(str(error))}); copy the index again") from error


def is_segment(name: object) -> bool:
    """Return whether a name is that of a segment; folders of other names are neither opened nor deleted."""
    return isinstance(name, str) and _SEGMENT.fullmatch(name) is not None


def info_of(facts: Unchecked, path: Path) -> IndexInfo:
    """Convert JSON to the contents of index.json.

    Raises `CheckpointError`, `ValueError` or `UsageError` for bad JSON.

    path: path of index.json, for messages
    """
    values = dict(facts) if isinstance(facts, dict) else {}
    count = values.pop("count", None)
    info = read_declared(IndexInfo, path, values, "copy the index again", exact=True)
    names, fields, more = [segment.name for segment in info.segments], info.schema.fields, info.more_vectors
    embedded = {TEXT, *(field.name for field in fields if field.type in FIELD_TYPES and field.is_embedded)}
    rules: list[tuple[object, bool]] = [
        (info.format, info.format == FORMAT),
        (info.others, len({*info.others}) == len(info.others)),
        (names, len({*names}) == len(names)),
        (info.columns, {*info.columns} <= {*ROLES}),
        (count, type(count) is int and count == info.count),
        (more, len({VECTORS, *(field.name for field in more)}) == 1 + len(more)),
    ]
    for segment in info.segments:
        file = segment.deleted
        is_own = (
            file is not None and file.startswith(segment.name) and bool(_DELETED.fullmatch(file, len(segment.name)))
        )
        rules += [
            (segment, is_own == (segment.removed > 0) == (file is not None)),
            (segment, segment.removed <= segment.count),
        ]
    for field in fields:
        rules += [
            (field, bool(field.name) and field.type in FIELD_TYPES and (field.weight > 0 or not field.is_text)),
            (field.analyser, bool(analyser(field.analyser))),
            (field, not field.analyser or (info.words is not None and info.words.tokenizer == STANDARD)),
        ]
    for vector_field in more:
        is_field = vector_field.name.isidentifier() and vector_field.name in embedded
        rules += [(vector_field, is_field and vector_field.tower is not None and not vector_field.info.are_elsewhere)]
    for vectors in (vector_field.info for vector_field in info.vector_fields.values()):
        rules += [
            (vectors.uri, vectors.uri is None or is_address(vectors.uri) or PLAIN.fullmatch(vectors.uri) is not None),
            (vectors.method, not vectors.are_elsewhere or None not in (vectors.uri, vectors.collection)),
        ]
    if info.floors is not None:
        rules += [(info.floors, {*info.floors.telling} <= {*info.floors.scores} <= {*info.searchers})]
    for value, is_right in rules:
        if not is_right:
            raise ValueError(f"{value!r}")
    return info
