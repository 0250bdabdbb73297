"""Mine hard negatives: titles of a corpus that look like answers to a query and, as far as is known, are none.

paddle-ranker mine --queries mine.tsv --corpus titles.tsv --output triples.tsv
paddle-ranker mine --queries mine.tsv --corpus titles.tsv --tower checkpoint/best --ranker ranker --output triples.tsv
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

import numpy as np

from paddle_ranker import runtime
from paddle_ranker.addresses import scheme_of
from paddle_ranker.data.rows.beir import beir_judgments
from paddle_ranker.data.rows.records import LabeledPair, Record, RecordFile, open_as_one_of, write_records
from paddle_ranker.encoding.columns import TEXT
from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.encoding.window_options import WINDOWS
from paddle_ranker.errors import DataError, UsageError
from paddle_ranker.lexical.tokens import TOKENIZERS
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.model_folder import TOWER, identify
from paddle_ranker.options import LabelOptions, RayOptions, given_of, main_of, note, note_counts, option, refuse_given
from paddle_ranker.options.declare import FETCHED, FETCHED_FOLDER, ON_CLUSTER, TAKEN
from paddle_ranker.options.input_files import folder_of, paths_of
from paddle_ranker.progress import Progress
from paddle_ranker.retrieval.index.vector_indexes import INDEXES
from paddle_ranker.retrieval.stages.search_options import MilvusOptions
from paddle_ranker.retrieval.stored.candidate_indexes import (
    CandidateIndex,
    Document,
    Hits,
    IndexOptions,
    Methods,
    TowerIndex,
)
from paddle_ranker.scoring.scoring_options import OF_MODEL, ScoringOptions
from paddle_ranker.storage.atomic import check_writable
from paddle_ranker.storage.streams import output_free_for
from paddle_ranker.stores import uploading
from paddle_ranker.training.mining import (
    JUDGED_KINDS,
    SCORE_RATIO,
    TITLE_KINDS,
    Choice,
    Judge,
    Miner,
    distinct_titles,
    group_judgments,
    judged_pairs,
    report_of,
    text_key,
    whole,
)
from paddle_ranker.training.teachers import Teachers

if TYPE_CHECKING:
    from paddle_ranker.retrieval.snapshots.snapshot import LocalSnapshot
    from paddle_ranker.retrieval.stages.search import Search
    from paddle_ranker.retrieval.stages.search_engine import SearchEngine

RERANKED = 100
DEFAULT_TOKENIZER = "jieba"
_METHODS = Methods()


@dataclass(frozen=True)
class MineOptions(LabelOptions, ScoringOptions, MilvusOptions, RayOptions):
    queries: str = option(
        help="what is known: labelled pairs (query, title, label), triples, or pairs of a query and its answer; with "
        "--index also a BEIR folder",
        files=True,
    )
    split: str = option("train", help="which of a BEIR folder's qrels")
    output_file: str = option(help="file to write to", name="output", addresses=TAKEN)
    corpus: Optional[str] = option(
        None, help="titles or texts to mine from (default: the titles of --queries)", files=True
    )
    format: str = option(
        "triples",
        help="triples (query, title, neg_title), or pairs: the rows of --queries and the negatives, with label 0",
        choices=("triples", "pairs"),
    )
    negatives: int = option(Choice.negatives, help="most negatives of one positive", minimum=1)
    min_label: float = option(1.0, help="titles with this label or a higher one get negatives", above=0)
    method: Optional[str] = option(
        None,
        help=lambda: (
            f"how candidates are found: {'; '.join(f'{name}, {INDEXES[name].what}' for name in _METHODS)} (default: "
            "tower if --tower is given, else bm25)"
        ),
        choices=_METHODS,
    )
    tower: Optional[str] = option(
        None,
        help="the tower whose vectors are compared: a folder of a tower or of any encoder, or a name",
        addresses=FETCHED_FOLDER,
    )
    index: Optional[str] = option(
        None,
        help="an index folder, whose texts are mined from, found as paddle-ranker search finds them",
        addresses=FETCHED,
    )
    words: Optional[str] = option(
        None,
        help=f"what BM25 compares: words, bigrams, or stems (default: {DEFAULT_TOKENIZER})",
        choices=tuple(TOKENIZERS),
    )
    rank_from: int = option(
        Choice.rank_from, help="best rank of a negative; above 1 skips the likeliest false negatives", minimum=1
    )
    rank_to: int = option(Choice.rank_to, help="worst rank of a negative", minimum=1)
    sample: str = option(Choice.sample, help="which of these ranks: the top ones, or drawn", choices=("top", "random"))
    ranker: Optional[str] = option(
        None,
        help=f"order the candidates anew with this trained ranker, a model folder ({os.pathsep!r} between several)",
        joins=os.pathsep,
        addresses=FETCHED_FOLDER,
    )
    rerank: Optional[int] = option(
        None, help=f"candidates that --ranker orders (default: {RERANKED}, or --rank_to if higher)", minimum=1
    )
    max_score_ratio: Optional[float] = option(
        None,
        help="leave out candidates whose probability by --ranker, or else whose cosine by --tower, is above this share "
        f"of the positive's (default: {SCORE_RATIO} where there is no --margin)",
        above=0,
        maximum=1,
    )
    margin: Optional[float] = option(
        None,
        help="leave out candidates whose probability by --ranker, or else whose cosine by --tower, is not so far below "
        "the positive's",
        minimum=0,
        maximum=1,
    )
    seed: int = option(Choice.seed, help="draws what is random", minimum=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank_from > self.rank_to:
            raise UsageError(
                f"--rank_from {self.rank_from} is above --rank_to {self.rank_to}: there is no rank between"
            )
        if self.index is not None and (self.method or self.corpus or self.tower) is not None:
            raise UsageError("--index has its own texts and way to find them: leave out --corpus, --method and --tower")
        if self.index is None and self.milvus_uri is not None:
            raise UsageError(f"--milvus_uri {self.milvus_uri}: is about an index; add --index, or leave it out")
        if self.method is None and self.index is None:
            object.__setattr__(self, "method", "tower" if self.tower else "bm25")
        kind = None if self.method is None else INDEXES[self.method]
        compares = kind is not None and kind.compares_vectors
        if compares != (self.tower is not None):
            method = self.method if compares else "tower"
            raise UsageError(f"--method {method} and --tower FOLDER belong together: give both, or neither")
        if self.words is not None and not (kind is not None and kind.compares_words):
            source = "--index" if self.method is None else f"--method {self.method}"
            raise UsageError(f"--words {self.words}: {source} finds candidates otherwise than by these; leave it out")
        if not (self.ranker or self.tower or self.index):
            refuse_given(self, OF_MODEL, "is about how a model computes: add --ranker or --tower")
        if not self.ranker:
            names = ("rerank", "positive_label", *WINDOWS, *(() if self.tower else ("max_score_ratio", "margin")))
            refuse_given(self, names, "is about a ranker's scores: add --ranker, or leave it out")
        is_beir = os.path.isdir(self.queries)
        if is_beir and self.index is None:
            raise UsageError(f"--queries {self.queries}: a BEIR folder's documents are those of --index; give that too")
        if given_of(self, ["split"]) and not is_beir:
            raise UsageError(f"--split {self.split}: {self.queries} is no BEIR folder; leave it out")
        if self.rerank is not None and self.rerank < self.rank_to:
            raise UsageError(f"--rerank {self.rerank} is below --rank_to {self.rank_to}: there are no such ranks")
        sources = (*paths_of(self.queries), *paths_of(self.corpus or ""))
        if os.path.realpath(self.output_file) in map(os.path.realpath, sources):
            raise UsageError("--output must be another file than --queries and --corpus")

    @property
    def choice(self) -> Choice:
        ratio = self.max_score_ratio
        if (self.ranker or self.tower) and ratio is None and self.margin is None:
            ratio = SCORE_RATIO
        return Choice(
            self.negatives,
            self.rank_from,
            self.rank_to,
            self.sample,
            self.seed,
            ratio,
            self.margin,
            candidates=max(self.rerank or RERANKED, self.rank_to) if self.ranker else self.rank_to,
            min_label=self.min_label,
            as_pairs=self.format == "pairs",
        )


class OpenIndex(NamedTuple):
    """Open index of `--index`.

    engine: searches the index
    documents_of_titles: called with titles; returns the documents whose text, or title and text, is one of these, by it
    tower_folder: folder of the tower of whole documents; None without such a tower
    """

    engine: SearchEngine[Any]
    documents_of_titles: Callable[[set[str]], dict[str, Document]]
    tower_folder: Optional[Path]


def open_whole_index(options: MineOptions) -> OpenIndex:
    """Open the folder of `--index` in this process."""
    runtime.prepare_command(options.cpu_threads)
    from paddle_ranker.retrieval.stages.search import SearchSettings
    from paddle_ranker.retrieval.stages.search_engine import SearchEngine

    assert options.index is not None
    settings = SearchSettings(milvus_uri=options.milvus_uri)
    engine = SearchEngine.open(
        options.index, settings, options=LoadOptions.of(options, positive_label=None), batch_size=options.batch_size
    )
    now = engine.collection.snapshot()
    return OpenIndex(engine, partial(documents_of_titles, now), now.tower_folder)


def documents_of_titles(now: LocalSnapshot, titles: set[str]) -> dict[str, Document]:
    """Return the documents whose text, or title and text, is in `titles`, by this text; of several, the last."""
    found = dict[str, Document]()
    for document in now.documents():
        texts = document.text, now.info.schema.model_text(document)
        found.update((text, document) for text in texts if text in titles)
    return found


class SearchedIndex:
    """Index of candidates that searches an index folder, and returns the passages of documents that a ranker reads.

    titles: titles of `--queries`. If a title equals a document's text, or its title and text, `reads` treats it as
        this document
    encoder: encoder of the ranker's pairs, see `texts_for_ranker`
    """

    def __init__(self, opened: OpenIndex, titles: Iterable[str], encoder: Optional[PairEncoder]):
        self._engine, self._encoder, self._schema = opened.engine, encoder, opened.engine.collection.info.schema
        titles = {*titles}
        self._keys = {*map(text_key, titles)}
        self._documents = opened.documents_of_titles(titles)
        self._searches: dict[str, Search] = {}
        self._found: dict[str, Document] = {}  # documents of the last search, by id

    def __len__(self) -> int:
        return len(self._engine.collection)

    def search(self, queries: Sequence[str], top_k: int) -> list[Hits]:
        """Return, for each query, up to `top_k` documents, best first."""
        self._searches = dict(zip(queries, self._engine.run(queries, top_k)))
        results = [search.results() for search in self._searches.values()]
        ids = list(dict.fromkeys(result.id for row in results for result in row))
        self._found = next(iter(self._searches.values())).collection.documents_of(ids) if ids else {}
        return [Hits([result.id for result in row], np.array([result.score for result in row])) for row in results]

    def document(self, id: str) -> Document:
        """Return the document with this id, which the last `search` has found; raises `KeyError` for another."""
        document = self._found[id]
        whole = self._schema.model_text(document)
        text = whole if whole != document.text and text_key(whole) in self._keys else document.text
        self._documents.setdefault(text, document)
        return Document(id, text, document.fields)

    def reads(self, query: str, titles: Sequence[str]) -> list[str]:
        """Return the titles; replace each title that the last `search` found by its document's best passage."""
        document_titles = [title for title in titles if title in self._documents]
        read = self._searches[query].ranking.read([self._documents[title] for title in document_titles], self._encoder)
        passages = {title: text for title, (_, text) in zip(document_titles, read)}
        return [passages.get(title, title) for title in titles]


def run(options: MineOptions) -> None:
    """Mine negatives, write them, and print how many candidates were left out, by reason."""
    with output_free_for(options.output_file):
        _run(options)


def _run(options: MineOptions) -> None:
    if scheme_of(options.output_file) is None:
        check_writable(options.output_file)
    mining = Mining(options)
    queries = mining.queries
    positives = sum(len(judged.positives(options.min_label)) for judged in queries)
    print(f"{options.queries}: {mining.read}; {len(queries):,} queries, {positives:,} positives", flush=True)
    if not positives:
        raise DataError(
            f"{options.queries}: not one title has a label of {options.min_label:g} or more: there is nothing to "
            "mine negatives of"
        )
    if options.ray is not None:
        rows, counts, truncations = ON_CLUSTER["mine"](options, len(queries))
    else:
        with uploading(options.output_file) as path:
            mining.open()
            with Progress(desc="mine", unit="query", total=len(queries)) as progress:
                rows = write_records(path, mining.miner.mine(queries, progress))
        counts, truncations = mining.miner.counts, []
    what = "triples" if options.format == "triples" else "pairs"
    print(f"wrote {rows:,} {what} to {options.output_file}: {counts['negatives']:,} negatives of "
          f"{counts['queries']:,} queries")  # fmt: skip
    print(f"left out or not found: {report_of(counts)}")
    for of_ranker in truncations:
        note_counts(of_ranker)


class Mining:
    """The judged queries of the files; after `open`, also the miner of the queries' negatives.

    Args:
        open_index: opens `--index`.

    Attributes:
        queries: the judged queries.
        read: description of the rows that were read, for the report.
    """

    miner: Miner

    def __init__(self, options: MineOptions, open_index: Callable[[MineOptions], OpenIndex] = open_whole_index):
        self._options, self._open_index = options, open_index
        is_beir = os.path.isdir(options.queries)
        self._opened = open_index(options) if options.index and (is_beir or options.ray is None) else None
        self._source: Optional[RecordFile[Record]] = None
        if self._opened is not None and is_beir:
            pairs, self.read = _beir_pairs(options, self._opened.engine), f"its split {options.split}"
            self.queries = group_judgments(pairs)
            return
        source = self._source = open_as_one_of(options.queries, JUDGED_KINDS, options)
        self.queries = group_judgments(judged_pairs(source))
        self.read = f"{source.report()} {source.kind.role}"
        if lacking := source.beside("query", "title", "neg_title", "label"):
            note(
                f"note: {options.output_file}: will lack {lacking} of {options.queries}, as mined negatives have none; "
                "paddle-ranker distill gives every row a teacher's score"
            )

    def open(self) -> None:
        """Open the ranker, and the index or the corpus."""
        options = self._options
        self._teachers = teachers = Teachers(options.ranker, options) if options.ranker else None
        judge: Optional[Judge] = teachers
        index: CandidateIndex
        reads = whole
        if options.index is not None:
            opened = self._opened or self._open_index(options)
            encoder = teachers.pair_encoder if teachers is not None else _tower_reader(opened)
            index = SearchedIndex(opened, [pair.title for judged in self.queries for pair in judged.pairs], encoder)
            reads = index.reads
            print(f"{options.index}: {len(index):,} texts", flush=True)
        else:
            assert self._source is not None
            index = _indexed(options, self._source)
            if judge is None and isinstance(index, TowerIndex):
                judge = index
        self.miner = Miner(index, options.choice, judge, options.queries, reads)

    def truncations(self) -> list[dict[str, int]]:
        """Return how many pairs were truncated so far: for each ranker, counts by kind of truncation."""
        return self._teachers.truncations() if self._teachers is not None else []


def _beir_pairs(options: MineOptions, engine: SearchEngine[Any]) -> list[LabeledPair]:
    """Return the judged pairs of a BEIR folder's training split, with the texts that the index has."""
    from paddle_ranker.evaluation.retrieval import read_judged

    files = beir_judgments(options.queries, options.split)
    judged = read_judged(files.qrels, files.queries, options)
    ids = {id for labels in judged.qrels.values() for id in labels}
    documents = engine.collection.snapshot().documents_of(list(ids))
    return [
        LabeledPair(judged.queries[query], documents[id].text, float(label))
        for query, labels in judged.qrels.items()
        for id, label in labels.items()
        if id in documents
    ]


def _tower_reader(opened: OpenIndex) -> Optional[PairEncoder]:
    """Return the pair encoder of the index's tower, or None if the index has no tower or no passages."""
    folder, has_passages = opened.tower_folder, bool(opened.engine.collection.info.schema.passage_tokens)
    return identify(folder).row_encoder(TOWER).tokens if folder is not None and has_passages else None


def _indexed(options: MineOptions, source: RecordFile[Record]) -> CandidateIndex:
    """Return an index of the titles of `--corpus`; without `--corpus`, of the titles of `source`."""
    texts = source
    if options.corpus is not None:
        texts = open_as_one_of(options.corpus, TITLE_KINDS, options)
    titles, counts = distinct_titles(texts)
    print(f"{texts.path}: {texts.report()}; {counts}", flush=True)
    tower = None
    if options.tower is not None:
        runtime.prepare_command(options.cpu_threads)
        from paddle_ranker.retrieval.vectors.text_vectors import open_to_compare

        load = LoadOptions.of(options, positive_label=None)
        tower = open_to_compare(options.tower, load, options.batch_size, folder_of(options.queries))
        if options.ranker is not None and tower.encoder.reads != TEXT:
            reads = tower.encoder.reads
            raise UsageError(f"--ranker scores texts, and --tower {options.tower} reads {reads}s: leave --ranker out")
    shown: Progress[str] = Progress(titles, desc="index", unit="title")
    documents = (Document(str(number), title) for number, title in enumerate(shown))
    assert options.method is not None
    return INDEXES[options.method].build(
        documents, IndexOptions(options.words or DEFAULT_TOKENIZER, options.seed, tower)
    )


main = main_of(run, MineOptions, __doc__)
