"""Mine hard negatives: titles of a corpus that look like answers to a query and, as far as is known, are none.

paddle-ranker mine --queries mine.tsv --corpus titles.tsv --output triples.tsv
paddle-ranker mine --queries mine.tsv --corpus titles.tsv --tower checkpoint/best --ranker ranker --output triples.tsv
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional

import numpy as np
from tqdm import tqdm

from paddle_ranker import runtime
from paddle_ranker.data.records import Record, RecordFile, open_as_one_of, write_records
from paddle_ranker.encoding.options import WINDOWS
from paddle_ranker.errors import DataError, UsageError
from paddle_ranker.lexical.tokens import TOKENIZERS
from paddle_ranker.options import LabelOptions, given_of, main_of, note, option
from paddle_ranker.options.declare import shown_name
from paddle_ranker.options.files import paths_of
from paddle_ranker.retrieval.indexes import Document, Hits, Index, IndexOptions, TowerIndex
from paddle_ranker.retrieval.options import MilvusOptions
from paddle_ranker.retrieval.vector_indexes import INDEXES
from paddle_ranker.scoring.options import OF_RANKER, ScoringOptions
from paddle_ranker.storage.atomic import check_writable
from paddle_ranker.storage.streams import output_free_for
from paddle_ranker.training.mining import (
    JUDGED_KINDS,
    TITLE_KINDS,
    Choice,
    Judge,
    Miner,
    distinct_titles,
    group_judgments,
    judged_pairs,
)
from paddle_ranker.training.teachers import Teachers

if TYPE_CHECKING:
    from paddle_ranker.retrieval.search import Searcher

RERANKED = 100
WORDS = "jieba"
SCORE_RATIO = 0.95  # the best of those that NV-Retriever (2024) compares
_METHODS = "; ".join(f"{name}, {kind.what}" for name, kind in INDEXES.items())


@dataclass(frozen=True)
class MineOptions(LabelOptions, ScoringOptions, MilvusOptions):
    queries: str = option(
        help="what is known: labelled pairs (query, title, label), triples, or pairs of a query and its answer",
        files=True,
    )
    output_file: str = option(help="file to write to", name="output")
    corpus: Optional[str] = option(
        None, help="titles or texts to mine from (default: the titles of --queries)", files=True
    )
    format: str = option(
        "triples",
        help="triples (query, title, neg_title), or pairs: the rows of --queries and the negatives, with label 0",
        choices=("triples", "pairs"),
    )
    negatives: int = option(4, help="most negatives of one positive", minimum=1)
    # Of labels here, not of a classifier's classes.
    positive_label: float = option(  # type: ignore[assignment]
        1.0, help="titles with this label or a higher one get negatives", above=0
    )
    method: Optional[str] = option(
        None, help=f"how candidates are found: {_METHODS} (default: tower if --tower is given, else bm25)",
        choices=INDEXES,
    )  # fmt: skip
    tower: Optional[str] = option(
        None, help="the tower whose vectors are compared: a folder of a tower or of any encoder, or a name"
    )
    index: Optional[str] = option(
        None, help="an index folder, whose texts are mined from, found as paddle-ranker search finds them"
    )
    words: Optional[str] = option(
        None, help=f"what BM25 compares: words, bigrams, or stems (default: {WORDS})", choices=tuple(TOKENIZERS)
    )
    rank_from: int = option(1, help="best rank of a negative; above 1 skips the likeliest false negatives", minimum=1)
    rank_to: int = option(50, help="worst rank of a negative", minimum=1)
    sample: str = option("random", help="which of these ranks: the top ones, or drawn", choices=("top", "random"))
    ranker: Optional[str] = option(
        None,
        help=f"order the candidates anew with this trained ranker, a model folder ({os.pathsep!r} between several)",
        joins=os.pathsep,
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
    seed: int = option(1000, help="draws what is random", minimum=0)

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
            found = "--index" if self.method is None else f"--method {self.method}"
            raise UsageError(f"--words {self.words}: {found} finds candidates otherwise than by these; leave it out")
        for field in () if self.ranker or self.tower or self.index else given_of(self, OF_RANKER):
            raise UsageError(f"{shown_name(field)} is about how a model computes: add --ranker or --tower")
        for field in given_of(self, ("rerank", "max_score_ratio", "margin", *WINDOWS)):
            if not (self.ranker or (self.tower and field.name in ("max_score_ratio", "margin"))):
                raise UsageError(f"{shown_name(field)} is about a ranker's scores: add --ranker, or leave it out")
        if self.rerank is not None and self.rerank < self.rank_to:
            raise UsageError(f"--rerank {self.rerank} is below --rank_to {self.rank_to}: there are no such ranks")
        sources = (*paths_of(self.queries), *paths_of(self.corpus or ""))
        if os.path.realpath(self.output_file) in map(os.path.realpath, sources):
            raise UsageError("--output must be another file than --queries and --corpus")

    @property
    def choice(self) -> Choice:
        """How negatives are chosen."""
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
            positive_label=self.positive_label,
            as_pairs=self.format == "pairs",
        )


class SearchedIndex:
    """The texts of an index folder, found as its `Searcher` finds them."""

    def __init__(self, searcher: Searcher):
        self._searcher = searcher

    def __len__(self) -> int:
        return len(self._searcher.collection)

    def search(self, queries: Sequence[str], top_k: int) -> list[Hits]:
        """Return, for each query, up to `top_k` documents, best first."""
        found = self._searcher.search_many(queries, top_k)
        return [Hits([one.id for one in row], np.array([one.score for one in row])) for row in found]

    def document(self, id: str) -> Document:
        """Return the document with this id; raises `KeyError` if there is none."""
        collection = self._searcher.collection
        document = collection.document(id)
        return Document(id, collection.info.schema.passage(document), document.fields)


def run(options: MineOptions) -> None:
    """Mine negatives, write them, and print how many candidates were left out and why."""
    with output_free_for(options.output_file):
        _run(options)


def _run(options: MineOptions) -> None:
    check_writable(options.output_file)
    source = open_as_one_of(options.queries, JUDGED_KINDS, options)
    queries = group_judgments(judged_pairs(source))
    lacking = source.beside("query", "title", "neg_title", "label")
    if lacking:
        note(
            f"note: {options.output_file}: will lack {lacking} of {options.queries}, as mined negatives have none; "
            "paddle-ranker distill gives every row a teacher's score"
        )
    positives = sum(len(judged.positives(options.positive_label)) for judged in queries)
    print(f"{options.queries}: {source.report()} {source.kind.role}; {len(queries):,} queries, {positives:,} positives")
    if not positives:
        raise DataError(
            f"{options.queries}: not one title has a label of {options.positive_label:g} or more: there is nothing to "
            "mine negatives of"
        )
    judge: Optional[Judge] = Teachers(options.ranker, options) if options.ranker else None
    index: Index
    if options.index is not None:
        runtime.prepare_command(options.cpu_threads)
        from paddle_ranker.retrieval.search import Searcher, SearchSettings

        load = options.load_options()
        index = SearchedIndex(
            Searcher.open(
                options.index,
                SearchSettings(milvus_uri=options.milvus_uri),
                options=load,
                batch_size=options.batch_size,
            )
        )
        print(f"{options.index}: {len(index):,} texts", flush=True)
    else:
        index = _indexed(options, source)
        if judge is None and isinstance(index, TowerIndex):
            judge = index
    miner = Miner(index, options.choice, judge, options.queries)
    with tqdm(desc="mine", unit="query", total=len(queries), disable=None) as progress:
        rows = write_records(options.output_file, miner.mine(queries, progress))
    what = "triples" if options.format == "triples" else "pairs"
    print(f"wrote {rows:,} {what} to {options.output_file}: {miner.counts['negatives']:,} negatives of "
          f"{miner.counts['queries']:,} queries")  # fmt: skip
    print(f"left out or not found: {miner.report()}")
    if isinstance(judge, Teachers):
        judge.report()


def _indexed(options: MineOptions, source: RecordFile[Record]) -> Index:
    """Return an index of the corpus, or of the titles of `source`."""
    texts = source
    if options.corpus is not None:
        texts = open_as_one_of(options.corpus, TITLE_KINDS, options)
    titles, repeated = distinct_titles(texts)
    print(
        f"{texts.path}: {texts.report()}; {len(titles):,} different titles, {repeated:,} repeat one of them", flush=True
    )
    tower = None
    if options.tower is not None:
        runtime.prepare_command(options.cpu_threads)
        from paddle_ranker.retrieval.vectors import open_to_compare

        tower = open_to_compare(options.tower, options.load_options(), options.batch_size)
    shown = tqdm(titles, desc="index", unit="title", disable=None)
    documents = (Document(str(number), title) for number, title in enumerate(shown))
    assert options.method is not None
    return INDEXES[options.method].build(documents, IndexOptions(options.words or WORDS, options.seed, tower))


main = main_of(run, MineOptions, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
