"""Build, extend and check an index folder: documents, their words, and their vectors by a tower.

paddle-ranker index build --corpus texts.tsv --output index
paddle-ranker index build --corpus texts.tsv --output index --tower checkpoint/tower
paddle-ranker index build --corpus texts.tsv --output index --tower checkpoint/tower --shards 8 --ray local
paddle-ranker index add index --corpus more.jsonl
paddle-ranker index shard index --output sharded --shards 8
paddle-ranker index remove index 17 18
paddle-ranker index info index
paddle-ranker index check index
"""

from __future__ import annotations

import os
import shlex
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, Optional, Union

import numpy as np

from paddle_ranker import runtime
from paddle_ranker.addresses import is_url
from paddle_ranker.array_types import STORED_TYPES, Vectors
from paddle_ranker.data.files.file_readers import READERS
from paddle_ranker.data.rows.beir import beir_corpus
from paddle_ranker.data.rows.documents import DocumentFile, holds_contents
from paddle_ranker.data.rows.field_paths import by_path
from paddle_ranker.data.rows.formats import write_rows
from paddle_ranker.data.rows.records import DocumentRow, RecordFile, Text
from paddle_ranker.data.rows.skips import REFUSED, BadRowsError, LeftOutItem
from paddle_ranker.errors import (
    CheckpointError,
    DataError,
    RankerError,
    UsageError,
    listed,
    misspelt,
    quoted,
    spelling_hint,
)
from paddle_ranker.lexical.analyser import FOLDS
from paddle_ranker.lexical.tokens import STANDARD, TOKENIZERS
from paddle_ranker.model.foreign.foreign_files import require_static
from paddle_ranker.model.load_options import ON_CPU, LoadOptions
from paddle_ranker.model.model_folder import find_with_tokenizer
from paddle_ranker.model.model_options import TokenizerOptions
from paddle_ranker.model.pretrained import find_model, resolve_model
from paddle_ranker.notes import reader_may_leave
from paddle_ranker.options import (
    DeviceOptions,
    DocumentOptions,
    Options,
    RayOptions,
    note,
    option,
    redeclare,
    refuse_given,
    run_command,
)
from paddle_ranker.options.declare import ANY_TEXT, FETCHED, FETCHED_FOLDER, FOLDER_OR_URL, ON_CLUSTER
from paddle_ranker.options.input_files import folder_of, paths_of
from paddle_ranker.options.parser import build_parser
from paddle_ranker.progress import Progress
from paddle_ranker.retrieval.index import shard_builds
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.index.collection_writer import documents_for, repeated_ids_placed
from paddle_ranker.retrieval.index.content_staging import StagedFiles, kept_rows, staged_files
from paddle_ranker.retrieval.index.index_folder import WRITER_WAIT, delete
from paddle_ranker.retrieval.index.ingestion import JOURNAL, MisspeltFieldError, Unfinished, VectorsOf
from paddle_ranker.retrieval.index.model_urls import ModelUrl, TowerSettings, url_differences
from paddle_ranker.retrieval.index.shards import SHARDS, open_index
from paddle_ranker.retrieval.index.vector_indexes import INDEXES
from paddle_ranker.retrieval.snapshots.searchable import Added
from paddle_ranker.retrieval.snapshots.snapshot import LocalSnapshot
from paddle_ranker.retrieval.snapshots.stored_states import RANKER_STATES, STATES_KINDS
from paddle_ranker.retrieval.snapshots.vector_search import check_breadth, how_found, search_method, searched_exactly
from paddle_ranker.retrieval.stages.search_options import MilvusOptions
from paddle_ranker.retrieval.stored.candidate_indexes import Hits, Methods
from paddle_ranker.retrieval.stored.manifest import (
    MANIFEST,
    VECTORS,
    WORDS,
    IndexInfo,
    RankerStates,
    VectorField,
    WordsInfo,
    read_manifest,
)
from paddle_ranker.retrieval.stored.schema import FIELD_TYPES, MOST_FIELDS, TEXT, Field, FieldType, Schema
from paddle_ranker.retrieval.stored.schema_inference import folder_fields, infer_schema, schema_lines, with_part_fields
from paddle_ranker.retrieval.values.filters import Filter
from paddle_ranker.retrieval.values.typed_values import OBJECT
from paddle_ranker.retrieval.vectors.vector_settings import EXACT, FAISS, STRUCTURES, VectorsInfo, is_address
from paddle_ranker.scoring.scoring_options import BatchOptions, EngineOptions
from paddle_ranker.scoring.versions import named, versions
from paddle_ranker.storage.atomic import check_writable
from paddle_ranker.storage.digest import content_digest

_NO_WORDS = "none"
_STATES_DTYPE = "float16"
_VECTORS = VectorsInfo(EXACT, 0)  # default settings of the search by vectors
_SHOWN = {"uri": "milvus_uri"}
_OF_FAISS = ("structure", "hnsw_m", "hnsw_ef")
_CHECKED_BYTES, _CHECKED_VALUES = 10_000, 20  # fields with more values, or longer values, are not checked as filters
_CHECKED_FILTERS = 10
_WITHOUT_EFFECT = (
    "index",
    "report",
    "ray",
    "actors",
    "cpu_threads",
    "device",
    "sync",
)  # change no content of a new index


def _field_types() -> Iterator[tuple[str, FieldType]]:
    FIELD_TYPES.load_plugins()
    return FIELD_TYPES.items()


@dataclass(frozen=True)
class CorpusOptions(BatchOptions, DocumentOptions, DeviceOptions):
    """Options of `index build` and `index add`: the documents, and how their vectors are computed."""

    corpus: str = option(
        help="the documents: a text a line; columns or JSON with id, text (else title), and fields; or BEIR's folder",
        files=True,
    )
    report: Optional[str] = option(
        None,
        help="file to write that lists each row and file that is refused, skipped, cut or read in part, with the "
        "reason, also if the command fails (.tsv, .jsonl or .parquet)",
    )
    engine: Optional[str] = redeclare(EngineOptions, "engine")

    @property
    def documents_file(self) -> str:
        """The name of the documents' file or files; for a BEIR folder, the path of its corpus.jsonl."""
        return beir_corpus(self.corpus)

    @property
    def corpus_files(self) -> list[str]:
        """The paths of the documents' files; if a folder was named, the paths of all files in it."""
        files = list[str]()
        for path in paths_of(self.documents_file):
            inside = [os.path.join(parent, name) for parent, _, names in os.walk(path) for name in sorted(names)]
            files += filter(os.path.exists, inside) if os.path.isdir(path) else [path]
        return files


@dataclass(frozen=True)
class BuildOptions(TokenizerOptions, CorpusOptions, RayOptions):
    index: str = option(help="folder to make; one that is there gets what it lacks", name="output")
    tower: Optional[str] = option(
        None,
        help="makes the vectors, and is copied into the index: a folder of a tower or of any encoder, or a name; or "
        "stays where it is, the URL of a service of vectors, http://HOST/v1#MODEL (default: words alone)",
        addresses=FOLDER_OR_URL,
    )
    query_prompt: Optional[str] = option(
        None, help="text that a tower behind a URL is sent before each query (default: none)", addresses=ANY_TEXT
    )
    text_prompt: Optional[str] = option(
        None, help="text that a tower behind a URL is sent before each document (default: none)", addresses=ANY_TEXT
    )
    tower_characters: Optional[int] = option(
        None, help="characters of a text that a tower behind a URL is sent (default: 8,000)", minimum=16
    )
    store_states: Optional[str] = option(
        None,
        help="store what the lower layers of this ranker compute for each document (trained with --stored_titles); it "
        "is copied into the index, and a search with it as --ranker computes the upper layers alone",
        addresses=FETCHED_FOLDER,
    )
    states_dtype: Optional[str] = option(
        None, help=f"what stored states are stored as (default: {_STATES_DTYPE})", choices=STORED_TYPES
    )
    field_tower: str = option(
        "",
        help="search by vectors of a field, too: NAME=FOLDER of a tower that reads its values; the searcher has the "
        "field's name; several with commas, or --field_tower again",
        joins=",",
    )
    method: Optional[str] = option(
        None, help=f"how vectors are searched (default: {_VECTORS.method})", choices=Methods(in_folders=True)
    )
    structure: Optional[str] = option(
        None,
        help="structure of an index of faiss: a graph (hnsw), lists around centres (ivf), or all vectors; sq8 and pq: "
        f"over codes, and what is found so is scored with the vectors themselves (default: {_VECTORS.structure})",
        choices=STRUCTURES,
    )
    hnsw_m: Optional[int] = option(
        None, help=f"neighbours of each entry of a graph (default: {_VECTORS.hnsw_m})", minimum=2, maximum=512
    )
    hnsw_ef: Optional[int] = option(
        None,
        help=f"entries that are looked at to find these, and by default in a search (default: {_VECTORS.hnsw_ef})",
        minimum=1,
    )
    dtype: Optional[str] = option(
        None, help=f"what the components of vectors are stored as (default: {_VECTORS.dtype})", choices=STORED_TYPES
    )
    words: Optional[str] = option(
        None,
        help=f"what words are: {STANDARD}, Chinese characters and their pairs, other scripts' words; bigram, pairs of "
        f"characters; jieba's words; none, for vectors alone (default: {STANDARD})",
        choices=(*TOKENIZERS, _NO_WORDS),
    )
    searchers: tuple[str, ...] = option(
        (),
        help=lambda: (
            "search by these too, built in memory of all texts, for small collections: "
            + ", ".join(name for name, kind in INDEXES.items() if not kind.compares_vectors)
        ),
        several=True,
    )
    field: str = option(
        "",
        help=lambda: (
            "declare a field, NAME:TYPE with a type of "
            + ", ".join(f"{name} ({kind.what})" for name, kind in _field_types())
            + "; text+facet: both; also :list (but for a title); of text :weight=NUMBER, :title, :literal (its words "
            + f"correct no query), :analyser=NAME+NAME ({', '.join(FOLDS)}, a language); last :format=, how files write"
            " numbers, dates, truth values or lists (1.234,5, %d/%m/%Y, ja/nein, ;); several with commas, or --field "
            "again (default: by the values)"
        ),
        joins=",",
    )
    template: str = option(
        "",
        help="what towers and rankers read of a document: {text} and names of fields (default: '{TITLE} {text}')",
        addresses=ANY_TEXT,
    )

    passage_tokens: int = option(
        0,
        help="cut long texts at ends of sentences into passages of at most this many tokens of the tower, each with a "
        "vector; a document counts by its best passage, which the ranker reads (default: texts are not cut)",
        minimum=0,
    )
    passage_overlap: int = option(
        0, help="tokens, at most, of a passage that the next passage repeats, in whole sentences", minimum=0
    )
    milvus_uri: Optional[str] = option(
        None,
        help="with --method milvus: the address of a server, http://127.0.0.1:19530, or a file of Milvus Lite in the "
        "index folder (default: milvus.db)",
        addresses=ANY_TEXT,
    )

    shards: Optional[int] = option(
        None, help="make so many index folders, each of a part of the corpus, which are searched as one", minimum=1
    )
    sync: bool = option(False, help="remove the documents of the index that --corpus has no more")

    @property
    def _are_elsewhere(self) -> bool:
        return self.method is not None and VectorsInfo(self.method, 0).are_elsewhere

    @property
    def of_vectors(self) -> dict[str, object]:
        """The options of vector search that the user has set, as a dict with the names of `VectorsInfo`'s fields."""
        names = {"method": self.method, "structure": self.structure, "hnsw_m": self.hnsw_m, "hnsw_ef": self.hnsw_ef,
                 "dtype": self.dtype, "uri": self.milvus_uri}  # fmt: skip
        return {name: value for name, value in names.items() if value is not None}

    def vectors(self, size: int) -> VectorsInfo:
        """Return the settings of vector search, for vectors with `size` components."""
        info = replace(_VECTORS, size=size, **self.of_vectors)  # type: ignore[arg-type]
        if not info.are_elsewhere:
            return info
        uri = info.uri or f"{info.method}.db"
        return replace(
            info, uri=uri if is_address(uri) else os.path.normpath(uri), collection=f"ranker_{uuid.uuid4().hex}"
        )

    @property
    def field_towers(self) -> dict[str, str]:
        """The folder of each field's tower, by the field's name, from `--field_tower`."""
        folders = dict[str, str]()
        for part in filter(None, self.field_tower.split(",")):
            name, _, folder = part.partition("=")
            if not name.isidentifier() or not folder or name in folders or name in (WORDS, VECTORS, *INDEXES):
                raise UsageError(f"--field_tower {quoted(part)}: expected NAME=FOLDER of one field each")
            folders[name] = folder
        return folders

    @property
    def of_url(self) -> TowerSettings:
        """Settings of a tower behind a URL."""
        return TowerSettings(self.query_prompt, self.text_prompt, self.tower_characters)

    @property
    def declared(self) -> tuple[Field, ...]:
        return Field.parse_several(self.field)

    @property
    def identity(self) -> dict[str, object]:
        """Options, files and towers that determine the shards; a build resumes an unfinished one of equal identity."""
        left_out = {*_WITHOUT_EFFECT, "tower", "field_tower", "store_states"}
        files = [os.stat(path) for path in self.corpus_files]
        towers = {"tower": self.tower, "store_states": self.store_states, **self.field_towers}
        return {
            **{name: str(value) for name, value in vars(self).items() if name not in left_out},
            "files": [[file.st_size, file.st_mtime_ns] for file in files],
            "towers": {
                name: [ModelUrl.parse(folder, "--tower").model, repr(self.of_url)]  # the URL may be another later
                if is_url(folder)
                else content_digest(resolve_model(folder))
                for name, folder in towers.items()
                if folder
            },
            **named(versions(self.engine)),
        }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ray is not None and self.shards is None:
            raise UsageError(f"--ray {self.ray}: builds shards at once; add --shards, or leave it out")
        if self.shards is not None and self._are_elsewhere:
            raise UsageError(
                f"--shards {self.shards} and --method {self.method}: shards have their vectors inside; "
                "leave one of both out"
            )
        if self.store_states is not None and RANKER_STATES not in STATES_KINDS:
            raise UsageError(
                f"--store_states {quoted(self.store_states)}: this installation has no stored titles; leave it out"
            )
        if self.states_dtype is not None and self.store_states is None:
            raise UsageError(f"--states_dtype {self.states_dtype}: is about --store_states; add that, or leave it out")
        if self.store_states is not None and self.passage_tokens:
            raise UsageError(
                f"--store_states and --passage_tokens {self.passage_tokens}: states are those of whole documents; "
                "leave one of both out"
            )
        Schema(self.declared, passage_tokens=self.passage_tokens, passage_overlap=self.passage_overlap)
        if self.words not in (None, STANDARD) and any(field.analyser for field in self.declared):
            raise UsageError(f"--field with analyser=: is about --words {STANDARD}, not {self.words}; leave one out")
        if self.sync and self.skip_bad_rows:
            raise UsageError(
                "--sync and --skip_bad_rows: documents of bad rows would be removed; leave one of both out"
            )
        if self.words == _NO_WORDS and self.tower is None and not self.field_towers:
            raise UsageError("--words none and no --tower: there would be nothing to search by; add --tower")
        if self.passage_tokens and (self.tower is None or self._are_elsewhere):
            raise UsageError(
                f"--passage_tokens {self.passage_tokens}: cuts texts for vectors in the folder; add --tower, and "
                f"--method {EXACT} or {FAISS}"
            )
        if is_url(self.tower):
            ModelUrl.parse(str(self.tower), "--tower")
            if self.passage_tokens:
                raise UsageError(
                    f"--passage_tokens {self.passage_tokens}: are a tower's own tokens, and one behind a URL keeps its "
                    "tokenizer there; give rows of passages, or leave it out"
                )
        else:
            settings = ("query_prompt", "text_prompt", "tower_characters")
            refuse_given(self, settings, "is about a tower behind a URL, --tower http://HOST/v1#MODEL; leave it out")
        for name, value in self.of_vectors.items():
            shown = f"--{_SHOWN.get(name, name)} {value}"
            if self.tower is None and not self.field_towers:
                raise UsageError(f"{shown}: is about vectors, and there are none without a tower; add --tower")
            if (name in _OF_FAISS and self.method != FAISS) or (name == "uri" and not self._are_elsewhere):
                method = FAISS if name in _OF_FAISS else "milvus"
                raise UsageError(f"{shown}: is about --method {method}; add that, or leave it out")
        file = os.path.normpath(self.milvus_uri or "file")
        if not is_address(self.milvus_uri) and os.path.basename(file) != file:
            raise UsageError(f"--milvus_uri {self.milvus_uri}: expected an address, or a file's name without a folder")
        for name in self.searchers:
            if name in (WORDS, VECTORS) or INDEXES[name].compares_vectors:
                raise UsageError(f"--searchers {name}: --words, --tower and --method choose that one")

    def look_up(self) -> None:
        for model in (self.tower, self.store_states):
            if model is not None and not is_url(model):
                find_model(model)


@dataclass(frozen=True)
class AddOptions(CorpusOptions, MilvusOptions):
    index: str = option(help="the index folder", leads=True)
    tower: Optional[str] = option(
        None,
        help="refuse to add unless the index has this tower (default: its own copy); or the URL of the tower with "
        "which it was built",
        addresses=FOLDER_OR_URL,
    )
    new_fields: tuple[str, ...] = option(
        (), help="fields that are new, although the index has others of similar names", several=True, addresses=ANY_TEXT
    )


@dataclass(frozen=True)
class RemoveOptions(MilvusOptions):
    index: str = option(positional=True, help="the index folder")
    ids: tuple[str, ...] = option(
        positional=True, several=True, help="ids of the documents to remove", addresses=ANY_TEXT
    )


@dataclass(frozen=True)
class FolderOptions(Options):
    """Options of `index info`; `index check` and `index shard` have further options."""

    index: Path = option(help="the index folder", leads=True, addresses=FETCHED)  # noqa: RUF009


@dataclass(frozen=True)
class ShardOptions(FolderOptions):
    output_dir: str = option(help="folder to make", name="output")
    shards: int = option(help="how many index folders to make in it", minimum=1)


@dataclass(frozen=True)
class CheckOptions(FolderOptions, DeviceOptions, MilvusOptions):
    queries: Optional[str] = option(
        None, help="queries to search for, a text a line (default: texts of the index itself)", files=True
    )
    sample: int = option(200, help="how many queries", minimum=1)
    top_k: int = option(10, help="documents of each that are compared with those of an exact search", minimum=1)
    ef: Optional[int] = option(None, help="entries of a graph that are looked at (default: its hnsw_ef)", minimum=1)
    nprobe: Optional[int] = option(None, help="lists that are looked at (default: a sixteenth)", minimum=1)
    seed: int = option(1000, help="draws the texts", minimum=0)


def build(options: BuildOptions) -> None:
    """Build an index folder from a corpus, or add the documents that it lacks; print its contents."""
    from paddle_ranker.retrieval.index.towers import open_towers

    _require_report(options)
    collection = _finished_index(options)
    if collection is None and options.shards is not None:
        _build_shards(options, options.shards)
        return
    if options.ray is not None:
        note(f"--ray: is about a new index; {options.index} is there, and is added to here")
    with ExitStack() as ends:
        total = None
        if collection is None:
            ends.enter_context(_removed_if_empty(Path(options.index)))
            info, total = _new_info(options, Path(options.index))
            collection = _unfinished_or_new(options, info)
        ends.enter_context(collection)
        if options.store_states is not None and collection.info.states is None:
            _store_states(collection, options)
        vectors_of = open_towers(collection, LoadOptions.of(options), options.batch_size, options.tower)
        _add(collection, options, vectors_of, options.sync, total)


def _unfinished_or_new(options: BuildOptions, info: IndexInfo) -> Collection:
    """Open the unfinished index in `options.index` if its settings equal `info`, else create an empty index."""
    if _generation(Path(options.index)) is not None:
        collection = _open(options)
        if collection.info.same_kind(info):
            note(f"{options.index}: going on with the build that was begun there")
            return collection
        with collection:
            Unfinished(collection.folders, collection.info.schema).forget()
            (collection.folder / MANIFEST).unlink()
    return Collection.create(options.index, info)


def _generation(folder: Path) -> Optional[int]:
    """Return the generation of a folder's index: 0 if the first build is unfinished, None if there is no index."""
    return read_manifest(folder).generation if (folder / MANIFEST).exists() else None


@contextmanager
def _removed_if_empty(folder: Path) -> Iterator[None]:
    """Delete a new index if the block raises, unless the index holds vectors that a later build can use."""
    is_new = not folder.exists()
    before = {*folder.iterdir()} - {folder / MANIFEST} if folder.is_dir() else set[Path]()
    try:
        yield
    except Exception:
        is_begun = (folder / JOURNAL).exists() or shard_builds.is_begun(folder)
        if not _generation(folder) and not is_begun:
            for path in {*folder.iterdir()} - before if folder.is_dir() else ():
                delete(path)
            if is_new and folder.is_dir():
                folder.rmdir()
        raise


def _store_states(collection: Collection, options: BuildOptions) -> None:
    """Compute a ranker's states of an index's documents and store them, if the index has no states."""
    if collection.info.schema.passage_tokens:
        raise UsageError(f"--store_states: {options.index} has passages, and states are those of whole documents")
    runtime.prepare_command(options.cpu_threads)
    for folder in collection.folders:
        states = _copy_ranker(options, folder)
    collection.writer.store_states(states, LoadOptions.of(options, engine=None), options.batch_size)
    print(f"{options.index}: stored the states of {len(collection):,} documents")


def _copy_ranker(options: BuildOptions, index: Path) -> RankerStates:
    """Copy the ranker of `--store_states` into an index folder."""
    kind = STATES_KINDS[RANKER_STATES]
    return kind.copy_ranker(options.store_states or "", index, options.states_dtype or _STATES_DTYPE)


def _new_info(
    options: BuildOptions, index: Path, cluster: Optional[shard_builds.ShardCluster] = None
) -> tuple[IndexInfo, int]:
    """Copy the towers into a new index's folder; return the contents for index.json, and the corpus's row count.

    cluster: reads files, if there are several
    """
    from paddle_ranker.retrieval.index.towers import (
        MANY_TEXTS,
        copy_field_tower,
        copy_tower,
        copy_url_tower,
        note_export,
    )

    if options.method is not None:
        INDEXES[options.method].require()
    words = None if options.words == _NO_WORDS else WordsInfo(options.words or STANDARD)
    tower, vectors, more = None, None, list[VectorField]()
    at_url = is_url(options.tower)
    require_static(options.model_name_or_path, None if at_url else options.tower)
    schema, count = _schema(options, cluster)
    if options.tower is not None or options.field_tower or options.store_states is not None:
        runtime.prepare_command(options.cpu_threads)
    if options.tower is not None:
        copied = (
            copy_url_tower(options.tower, index, options.of_url)
            if at_url
            else copy_tower(find_with_tokenizer(options.tower, options.model_name_or_path), index)
        )
        tower = copied.copy
        vectors = options.vectors(copied.size)
        if count >= MANY_TEXTS and not at_url:
            note_export(options.tower, options.device, "index build --tower exported --engine onnx")
    for name, folder in options.field_towers.items():
        copied = copy_field_tower(schema.field(name), folder, index)
        how = options.vectors(copied.size)
        how = replace(how, method=EXACT, uri=None, collection=None) if how.are_elsewhere else how
        more.append(VectorField(name, how, copied.copy, copied.reads_texts))
    states = None
    if options.store_states is not None:
        states = _copy_ranker(options, index)
    info = IndexInfo(
        words,
        vectors,
        tower,
        options.searchers,
        schema=schema,
        more_vectors=tuple(more),
        states=states,
        columns=dict(
            DocumentFile(options.documents_file, options, files=schema.file_fields, declared=schema.spellings).columns
        ),
    )
    return info, count


def _build_shards(options: BuildOptions, count: int) -> None:
    """Build a folder of shards from a corpus, or continue an unfinished build; print the folder's contents."""
    from paddle_ranker.retrieval.index.towers import open_towers

    folder, identity = Path(options.index), options.identity
    with _removed_if_empty(folder), shard_builds.building(folder), ExitStack() as ends:
        cluster: Optional[shard_builds.ShardCluster] = None
        if options.ray is not None:
            cluster = ends.enter_context(ON_CLUSTER["index build"](options))
        cut = shard_builds.cut_before(folder, identity)
        if cut is not None:
            note(f"{folder}: going on with the shards that are begun there")
        else:
            with shard_builds.new_cut(folder) as target:
                info, total = _new_info(options, target, cluster)
                joins, file_fields = not info.schema.fields, info.schema.file_fields
                rows = DocumentFile(
                    options.documents_file,
                    options,
                    joins_title=joins,
                    files=file_fields,
                    declared=info.schema.spellings,
                    keeps_left_out=options.report is not None,
                )
                with _report_if_failed(options, rows):
                    if cluster is not None and rows.is_several:
                        cluster.write_rows(rows, info.schema, target)
                    else:
                        with Progress(rows, desc="cut", unit="document", total=total) as counted:
                            shard_builds.write_rows(counted, info.schema, target, 0)
                    read = rows.report(), rows.left_out
                    cut = shard_builds.cut(target, info, total, count, identity, read)
            if options.identity != identity:
                shard_builds.forget(folder)
                raise DataError(f"{options.corpus}: it, or a tower, was replaced while it was read; run it again")
        info = shard_builds.begin_shards(folder, count)
        load = LoadOptions.of(options) if info.models else ON_CPU
        contents, skip = folder_of(options.documents_file), options.skip_bad_rows
        work = shard_builds.ShardWork(folder, contents, load, options.batch_size, skip, options.tower)
        most = None if info.schema.passage_tokens and info.vectors is not None else sum(cut.sizes)
        with Progress(desc="index", unit="document", total=most) as progress:
            if cluster is not None:
                cluster.build(work, count, progress)
            else:
                if info.models:
                    runtime.prepare_command(options.cpu_threads)
                for number in range(count):
                    work.build(number, progress.update)
        skipped, unread = shard_builds.left_out_in(folder, skip)
        left_out = [
            *cut.left_out,
            *((part.what.rstrip(":"), item) for part in (skipped, unread) for item in part.items),
        ]
        if skipped.are_refused:
            _write_report(options, left_out)
        skipped.require_none()
        shard_builds.finish(folder, count)
    with open_index(folder, write=True, wait=WRITER_WAIT) as collection:
        open_towers(collection, load, options.batch_size, options.tower)
        collection.writer.measure_floors()
    report, info = "; ".join(filter(None, (cut.report, skipped.report(), unread.report()))), open_index(folder).info
    print(f"{options.corpus}: {report}; {_counts(Added(info.count, 0, 0, cut.repeated))}")
    print(f"{folder}: {info.count:,} documents in {count:,} shards, searched by {listed(info.searchers)}")
    _write_report(options, left_out)


def _require_report(options: CorpusOptions) -> None:
    """Raise an error before the work if `--report` cannot be written after it."""
    if options.report is not None:
        check_writable(options.report)


def _write_report(options: CorpusOptions, left_out: Sequence[tuple[str, Sequence[str]]]) -> None:
    """Write the list of `--report`, if it is wanted, and print what it has; `left_out` is as in `Cut`."""
    if options.report is None:
        return
    rows = ((what, *(" ".join(text.split()) for text in item[:2])) for what, item in left_out)
    write_rows(options.report, ("what", "where", "reason"), rows, True)
    counts = [f"{count:,} {what}" for what, count in Counter(what for what, _ in left_out).items()]
    found = f"{listed(counts)} (rows, files and parts of files)" if left_out else "nothing: all is read"
    print(f"{options.report}: lists {found}")


@contextmanager
def _report_if_failed(options: CorpusOptions, rows: Optional[DocumentFile] = None) -> Iterator[None]:
    """Write the list of `--report` if the block raises an error, with that error.

    rows: the corpus, over which the block loops; None if it is not open yet
    """
    try:
        with nullcontext() if rows is None else repeated_ids_placed(rows):
            yield
    except RankerError as raised:
        error: RankerError = raised
        if isinstance(raised, MisspeltFieldError):
            command = "" if isinstance(options, AddOptions) else "index add "
            error = raised.advising(f"{command}--new_fields {shlex.quote(raised.name)}")
        left_out = [] if rows is None else rows.left_out
        if isinstance(error, BadRowsError):
            known = {*left_out}
            items = [item for item in error.items if (REFUSED, item) not in known]
        else:
            items = [LeftOutItem(str(options.corpus), str(error))]
        _write_report(options, [*left_out, *((REFUSED, item) for item in items)])
        raise error from raised.__cause__


def _schema(options: BuildOptions, cluster: Optional[shard_builds.ShardCluster]) -> tuple[Schema, int]:
    """Return the corpus's schema and its number of rows; print the fields.

    Fields that the user has not declared are inferred from all values.

    cluster: as for `_new_info`
    """
    declared, with_files = options.declared, folder_fields(options.declared)
    file_fields = Schema(with_files).file_fields
    if any(holds_contents(path, file_fields) for path in paths_of(options.documents_file)):
        declared = with_files
    declared_schema = Schema(declared)
    rows = DocumentFile(
        options.documents_file,
        options,
        files=declared_schema.file_fields,
        declared=declared_schema.spellings,
        keeps_left_out=options.report is not None,
        goes_on=True,
    )
    if cluster is not None and rows.is_several:
        cluster.look_at_columns(rows)
    examples, notes = dict[str, object](), list[str]()

    def seen() -> Iterator[DocumentRow]:
        for row in rows:
            if len(examples) < MOST_FIELDS:
                values = {**row.fields, **by_path(row.fields)}
                values = {name: value.name if isinstance(value, Path) else value for name, value in values.items()}
                examples.update({name: value for name, value in values.items() if examples.get(name) in (None, "")})
                examples.setdefault(TEXT, row.text)
            yield row

    with _report_if_failed(options, rows):
        columns = rows.columns
        try:
            inferred = infer_schema(seen(), declared, notes.append, columns.get("title"), rows.doubted)
        except BadRowsError:
            if rows.files_to_read:  # one error names the files that cannot be read, too
                _read_files(options, rows, declared_schema)
            raise
    used = [
        field if field.format else field.in_format(rows.spellings.get(field.name))
        for field in inferred.fields
        if field.name in examples or field in options.declared
    ]
    schema = replace(
        with_part_fields(replace(inferred, fields=tuple(used))),
        template=options.template,
        passage_tokens=options.passage_tokens,
        passage_overlap=options.passage_overlap,
    )
    if len(schema.fields) > MOST_FIELDS:
        problem = f"has {len(schema.fields):,} fields, above the limit of {MOST_FIELDS:,}; leave columns out"
        raise DataError(f"{options.corpus}: {problem}")
    names, roles = {field.name for field in options.declared}, {column: role for role, column in columns.items()}
    for name in [name for name in names if name not in (*examples, TEXT)]:
        if name in roles:
            raise UsageError(
                f"--field {name}: is the column of the documents' {roles[name]}s, and no field beside; leave it out, "
                f"or add --{roles[name]}_column none"
            )
        if meant := misspelt(name, examples.keys() - names):
            raise UsageError(
                f"--field {name}: no document has this field (did you mean {meant}?); correct it, or, to have both, "
                f"declare {meant}, too"
            )
        note(f"--field {name}: no document has this field{spelling_hint(name, examples)}")
    if schema.fields:
        print("fields (--field declares them otherwise):", *schema_lines(schema, examples), sep="\n")
    for text in notes:
        note(text)
    for field in schema.files:
        if field.type == "picture" and field not in options.declared and field.name not in options.field_towers:
            read = ""
            if "scan" in FIELD_TYPES:
                install = READERS[FIELD_TYPES["scan"].reader].missing()
                needs = f", which needs pip install {install}" if install else ""
                read = f"; --field scan:scan reads the words in them{needs}"
            note(f"{options.corpus}: pictures are found by their names{read}")
    return schema, rows.kept


def _read_files(options: BuildOptions, rows: DocumentFile, schema: Schema) -> None:
    """Read the files of a corpus with bad rows, without an index; raises `BadRowsError` about all that is bad."""
    with TemporaryDirectory(prefix="paddle_ranker_") as folder, StagedFiles(Path(folder)) as files:
        for _ in kept_rows(rows, schema, files, folder_of(options.documents_file), rows):
            pass


def _finished_index(options: BuildOptions) -> Optional[Collection]:
    """Open the finished index in the folder for writing; None if there is no finished index.

    Raises `RankerError` if the index was built with settings other than the options'.
    """
    folder = Path(options.index)
    if not any((folder / name).exists() for name in (MANIFEST, SHARDS)):
        if options.shards is None and shard_builds.is_begun(folder):
            raise RankerError(f"{folder}: a build of shards was begun there; add --shards, or name another folder")
        return None
    if (folder / SHARDS).exists():
        shard_builds.forget(folder)
    elif _generation(folder) == 0:
        return None
    collection = _open(options)
    try:
        _require_same(collection, options)
    except RankerError:
        collection.close()
        raise
    return collection


def _require_same(collection: Collection, options: BuildOptions) -> None:
    """Raise `RankerError` if the user set an option that differs from the settings of an existing index."""
    from paddle_ranker.retrieval.index.towers import require_tower, tower_digest

    info = collection.info
    has_words = info.words.tokenizer if info.words else _NO_WORDS
    differences = {
        "words": (options.words or has_words, has_words),
        "searchers": (",".join(options.searchers or info.others) or "none", ",".join(info.others) or "none"),
    }
    if (options.tower is None) != (info.vectors is None):
        differences["tower"] = (options.tower or "none", "none" if info.vectors is None else "its own")
    else:
        for name, value in options.of_vectors.items():
            differences[_SHOWN.get(name, name)] = (str(value), str(getattr(info.vectors, name)))
    given_fields = {str(field) for field in options.declared}
    own_fields = {str(form) for field in info.schema.fields for form in (field, replace(field, format=""))}
    if not given_fields <= own_fields:
        differences["field"] = (",".join(sorted(given_fields)), ",".join(sorted(own_fields)) or "none")
    if options.shards is not None:
        is_one = collection.folders == [collection.folder]
        differences["shards"] = (str(options.shards), "none" if is_one else str(len(collection.folders)))
    for name in ("template", "passage_tokens", "passage_overlap"):
        if wanted := getattr(options, name):
            differences[name] = (str(wanted), str(getattr(info.schema, name) or "none"))
    if is_url(options.tower) and info.tower is not None and info.tower.is_at_url:
        differences |= url_differences(collection.folders[0], options.of_url)
    given_towers = {name: tower_digest(folder) for name, folder in options.field_towers.items()}
    own_towers = {vector.name: vector.tower.digest for vector in info.more_vectors if vector.tower is not None}
    differences["field_tower"] = (str(given_towers or own_towers), str(own_towers))
    if options.store_states is not None and info.states is not None:
        own_states = info.states.ranker, info.states.dtype
        made_by = STATES_KINDS[RANKER_STATES].digest_of(options.store_states)
        differences["store_states"] = (str((made_by, options.states_dtype or own_states[1])), str(own_states))
    for name, (wanted, built) in differences.items():
        if wanted != built:
            raise RankerError(
                f"{options.index}: is there and was built otherwise, --{name} {built}, not {wanted}; add to it with "
                "index add, or name another folder"
            )
    require_tower(collection, options.tower)


def _open(options: Union[BuildOptions, AddOptions, RemoveOptions]) -> Collection:
    """Open an index for writing; wait for a short time if a server is writing to it."""
    uri = options.milvus_uri if is_address(options.milvus_uri) else None
    opened = open_index(options.index, write=True, wait=WRITER_WAIT, milvus_uri=uri)
    opened.require_address()
    return opened


def add(options: AddOptions) -> None:
    """Add the documents of a corpus that an index lacks, and print what the index then contains."""
    from paddle_ranker.retrieval.index.towers import open_towers, require_tower

    _require_report(options)
    with _open(options) as collection:
        require_tower(collection, options.tower)
        if collection.info.models:
            runtime.prepare_command(options.cpu_threads)
        vectors_of = open_towers(collection, LoadOptions.of(options), options.batch_size, options.tower)
        _add(collection, options, vectors_of)


def _add(
    collection: Collection,
    options: CorpusOptions,
    vectors_of: Optional[VectorsOf],
    sync: Optional[bool] = None,
    total: Optional[int] = None,
) -> None:
    """Add the documents of a corpus to an index; print how many are new, replaced and unchanged.

    sync: True: remove the index's documents that are not in the corpus; False: only count them; None: ignore them
    total: number of rows of the corpus, for the progress bar; None: unknown
    """
    with _report_if_failed(options):
        rows = documents_for(collection, options.documents_file, options, keeps_left_out=options.report is not None)
    with _report_if_failed(options, rows), ExitStack() as bars:
        counted = bars.enter_context(Progress(rows, desc="index", unit="document", total=total))
        encode = vectors_of
        if vectors_of is not None:
            texts = None if collection.info.schema.passage_tokens else total
            made = bars.enter_context(Progress(desc="vectors", unit="text", total=texts))
            encode = partial(_encoded, vectors_of, made)
        files = bars.enter_context(staged_files(collection.snapshot().files))
        info, folder = collection.info, folder_of(options.documents_file)
        kept = kept_rows(counted, info.schema, files, folder, rows, embedded=info.vector_fields)
        new_fields = options.new_fields if isinstance(options, AddOptions) else ()
        added = collection.writer.add_rows(kept, encode, sync=bool(sync), files=files, new_fields=new_fields)
    collection.writer.merge(None)
    collection.writer.measure_floors()
    print(f"{options.corpus}: {rows.report()}; {_counts(added)}")
    if sync is not None and added.absent:
        what = "removed, as it has them no more" if sync else "in the index and not in it; --sync removes them"
        print(f"{options.corpus}: {added.absent:,} documents {what}")
    now = collection.snapshot()
    print(f"{collection.folder}: {len(now):,} documents, searched by {listed(now.info.searchers)}")
    for name, vectors in now.info.vector_fields.items():
        if reason := searched_exactly(vectors.info, [len(part.segment.vectors[name]) for part in now.parts]):
            note(f"{collection.folder}: {name}: {reason}")
    _write_report(options, rows.left_out)


def _counts(added: Added) -> str:
    repeated = f", {added.repeated:,} repeat a document" if added.repeated else ""
    gone = f", {added.gone:,} removed that their files have no more" if added.gone else ""
    return f"{added.new:,} new, {added.replaced:,} replaced, {added.unchanged:,} as they were{repeated}{gone}"


def _encoded(vectors_of: VectorsOf, progress: Any, texts: Sequence[str]) -> Vectors:
    vectors = vectors_of(texts)
    progress.update(len(texts))
    return vectors


def shard(options: ShardOptions) -> None:
    """Copy an index into a new folder of shards, without computing vectors again."""
    output = Path(options.output_dir)
    if output.exists():
        raise RankerError(f"{output}: is there already; name another folder")
    with open_index(options.index) as collection:
        shard_builds.recut(collection, output, options.shards)
        print(f"{output}: {len(collection):,} documents in {options.shards:,} shards")


def remove(options: RemoveOptions) -> None:
    """Remove documents from an index."""
    with _open(options) as collection:
        missing = collection.snapshot().missing(options.ids)
        if missing:
            raise RankerError(f"{options.index}: has no documents {listed(missing)}; nothing was removed")
        removed = collection.writer.remove(options.ids)
        print(f"removed {removed:,} of {len(collection) + removed:,} documents")


def info(options: FolderOptions) -> None:
    """Print the contents of an index folder."""
    collection = open_index(options.index)
    manifest = collection.info
    shards = "" if collection.folders == [collection.folder] else f" of {len(collection.folders):,} shards"
    print(f"{options.index}: {manifest.count:,} documents in {len(manifest.segments):,} segments{shards}, generation "
          f"{manifest.generation:,}")  # fmt: skip
    if manifest.words is not None:
        print(f"words: {manifest.words.tokenizer}, BM25 with k1 {manifest.words.k1:g} and b {manifest.words.b:g}")
    if manifest.schema.fields:
        print("fields:", *schema_lines(manifest.schema, {}), sep="\n")
    for name, vectors in manifest.vector_fields.items():
        print(f"{name}: {how_found(vectors.info)}; {vectors.info.size:,} components, {vectors.info.dtype}")
        if vectors.tower is not None:
            print(f"tower: {collection.folders[0] / vectors.tower.folder}, digest {vectors.tower.digest}")
    if manifest.states is not None:
        segments = [part.segment for part in collection.snapshot().parts]
        sizes = sum(sum(segment.states.sizes) for segment in segments if segment.states is not None)
        size = sizes / max(1, sum(map(len, segments)))
        ranker = collection.folders[0] / manifest.states.folder
        digest = manifest.states.ranker
        print(f"states: {manifest.states.dtype}, {size:,.0f} bytes a document, by {ranker}, digest {digest}")
    if manifest.schema.passage_tokens:
        repeated = f", of which {manifest.schema.passage_overlap} repeated" if manifest.schema.passage_overlap else ""
        print(f"passages: of at most {manifest.schema.passage_tokens} tokens{repeated}")


def check(options: CheckOptions) -> None:
    """Verify an index's files; time its searches, and measure their recall against exact searches."""
    with open_index(options.index, milvus_uri=options.milvus_uri) as collection:
        collection.require_address()
        check_breadth(collection.info.vectors, options.ef, options.nprobe)
        files, size = collection.verify()
        now = collection.snapshot()
        for name in collection.info.models:
            for folder in collection.folders:
                if not (model := folder / name).is_dir():
                    raise CheckpointError(f"{model}: is missing; copy the index again")
        print(f"{options.index}: whole; {len(collection):,} documents, {files:,} files, {size / 1e6:,.1f} MB")
        texts, vectors = _queries(now, options)
        more = {vector.name for vector in collection.info.more_vectors}  # their recall is not measured
        for by in [name for name in now.info.searchers if name not in more] if texts else ():
            queries = texts if by != VECTORS else [vector[None] for vector in vectors]
            times, hits = [], []
            for query in queries:
                began = time.perf_counter()
                batch = [query] if by != VECTORS else query
                hits += now.search(by, batch, options.top_k, ef=options.ef, nprobe=options.nprobe)
                times.append((time.perf_counter() - began) * 1e3)
            how = search_method(now.info, by, options.ef, options.nprobe)
            p50, p99 = np.percentile(times, [50, 99])
            recall = f"; {_recall(now, vectors, hits, options.top_k)}" if by == VECTORS else ""
            print(f"{by}, {how}: {len(hits):,} queries, one at a time: p50 {p50:.2f} ms, p99 {p99:.2f} ms{recall}")
        if VECTORS in now.info.searchers and len(vectors):
            _check_filters(now, vectors, options)


def _check_filters(now: LocalSnapshot, vectors: Vectors, options: CheckOptions) -> None:
    """Print the lowest recall under filters, with the filter, and the recall of searches near removed documents."""
    removed = np.array([vector for _, vector in now.sample(options.sample, options.seed, removed=True)], np.float32)
    wheres = [
        (f"{name}={value.json()}", Filter.of({name: value.json()}))
        for name, sample in now.field_values(_CHECKED_BYTES).items()
        if sample.are_all and 1 < len(sample.values) <= _CHECKED_VALUES
        for value in sample.values
        if value.kind != OBJECT
    ][:_CHECKED_FILTERS]
    filtered: list[tuple[str, Vectors, Optional[Filter]]] = [(what, vectors, where) for what, where in wheres]
    measured = []
    for what, queries, where in [*filtered, *([("removed documents' vectors", removed, None)] if len(removed) else [])]:
        hits = now.search(VECTORS, queries, options.top_k, where, options.ef, options.nprobe)
        measured.append((_recall(now, queries, hits, options.top_k, where), what))
    if wheres:
        recall, what = min(measured[: len(wheres)])
        print(f"vectors under {len(wheres):,} filters: {recall} at least ({what})")
    if len(removed):
        print(f"vectors, {len(removed):,} removed documents' as queries: {measured[-1][0]}")


def _queries(now: LocalSnapshot, options: CheckOptions) -> tuple[list[str], Vectors]:
    """Return the texts and vectors of `--queries`; without `--queries`, those of documents drawn at random.

    If the index is searched by words alone, the vectors of `--queries` are empty. Raises `UsageError` if the index has
    vectors, but no tower for `--queries`.
    """
    if options.queries is None:
        drawn = now.sample(options.sample, options.seed)
        return [document.text for document, _ in drawn], np.array([vector for _, vector in drawn], np.float32)
    texts = [row.text for row in islice(RecordFile(options.queries, Text), options.sample)]
    folder = now.tower_folder
    if folder is None:
        if now.info.vectors is not None:
            raise UsageError(f"--queries: {options.index} has no tower for their vectors; leave it out")
        return texts, np.empty((0, 0), np.float32)
    runtime.prepare_command(options.cpu_threads)
    from paddle_ranker.retrieval.vectors.text_vectors import Tower

    load = LoadOptions(device=options.device, threads=options.cpu_threads)
    tower = Tower.open(folder, load, for_search=True)
    return texts, tower.query_vectors(texts)


def _recall(
    now: LocalSnapshot, vectors: Vectors, results: Sequence[Hits], k: int, where: Optional[Filter] = None
) -> str:
    """Return the recall of `results` against an exact search, as text.

    A result counts as right if it is at least as near as the exact search's last result, up to rounding, since the
    order of equally near documents is arbitrary.
    """
    shares = []
    for hits, wanted in zip(results, now.search_exactly(vectors, k, where)):
        least = float(wanted.scores[-1]) if wanted.ids else 0.0
        near = np.count_nonzero(np.asarray(hits.scores) >= least - 1e-6 * max(1.0, abs(least)))
        shares.append(near / len(wanted.ids) if wanted.ids else 1.0)
    return f"recall@{k} against exact search {np.mean(shares):.4f}"


class _Action(NamedTuple):
    run: Callable[..., None]
    options: type[Options]


ACTIONS = {
    "build": _Action(build, BuildOptions),
    "add": _Action(add, AddOptions),
    "shard": _Action(shard, ShardOptions),
    "remove": _Action(remove, RemoveOptions),
    "info": _Action(info, FolderOptions),
    "check": _Action(check, CheckOptions),
}


def main(argv: Optional[Sequence[str]] = None) -> int:
    name, *rest = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    prog = os.path.basename(sys.argv[0])
    if name in ("-h", "--help"):
        with reader_may_leave():
            _print_help(prog)
        raise SystemExit(0)
    if name not in ACTIONS:
        hint = spelling_hint(name, list(ACTIONS))
        print(f"{prog}: error: {quoted(name)}: choose from {', '.join(ACTIONS)}{hint}", file=sys.stderr)
        return 2
    action = ACTIONS[name]
    return run_command(action.run, action.options, rest, action.run.__doc__ or "", f"{prog} {name}")


def _print_help(prog: str) -> None:
    summary, _, examples = (__doc__ or "").partition("\n\n")
    print(f"usage: {prog} ({' | '.join(ACTIONS)}) ...\n\n{summary}")
    for name, action in ACTIONS.items():
        print(f"\n{build_parser(action.options, f'{prog} {name}', action.run.__doc__ or '').format_help()}", end="")
    print("\nexamples:\n" + "\n".join(f"  {line}" for line in examples.strip().splitlines()))
