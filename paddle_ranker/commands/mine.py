"""Mine hard negatives: titles of a corpus that look like answers to a query and, as far as is known, are none.

paddle-ranker mine --queries mine.tsv --corpus titles.tsv --output triples.tsv
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

from tqdm import tqdm

from paddle_ranker.data.records import write_records
from paddle_ranker.errors import DataError, UsageError
from paddle_ranker.lexical.tokens import TOKENIZERS
from paddle_ranker.options import LabelOptions, option, run_command
from paddle_ranker.options.files import paths_of
from paddle_ranker.retrieval.indexes import INDEXES, Document, IndexOptions
from paddle_ranker.scoring.options import ScoringOptions
from paddle_ranker.storage.atomic import check_writable
from paddle_ranker.storage.streams import output_free_for
from paddle_ranker.training.mining import (
    JUDGED_KINDS,
    TITLE_KINDS,
    Choice,
    Miner,
    distinct_titles,
    group_judgments,
    judged_pairs,
    open_as_one_of,
)
from paddle_ranker.training.teachers import Teachers

RERANKED = 100
SCORE_RATIO = 0.95  # the best of those that NV-Retriever (2024) compares
_METHODS = "; ".join(f"{name}, {kind.what}" for name, kind in INDEXES.items())


@dataclass(frozen=True)
class MineOptions(LabelOptions, ScoringOptions):
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
    positive_label: float = option(1.0, help="titles with this label or a higher one get negatives", above=0)
    method: str = option("bm25", help=f"how candidates are found: {_METHODS}", choices=INDEXES)
    words: str = option("jieba", help="what BM25 compares: words, bigrams, or stems", choices=tuple(TOKENIZERS))
    rank_from: int = option(1, help="best rank of a negative; above 1 skips the likeliest false negatives", minimum=1)
    rank_to: int = option(50, help="worst rank of a negative", minimum=1)
    sample: str = option("random", help="which of these ranks: the top ones, or drawn", choices=("top", "random"))
    ranker: Optional[str] = option(
        None,
        help=f"order the candidates anew with this trained ranker, a model folder ({os.pathsep!r} between several)",
    )
    rerank: Optional[int] = option(
        None, help=f"candidates that --ranker orders (default: {RERANKED}, or --rank_to if higher)", minimum=1
    )
    max_score_ratio: Optional[float] = option(
        None,
        help="leave out candidates whose probability by --ranker is above this share of the positive's (default: "
        f"{SCORE_RATIO} where there is no --margin)",
        above=0,
        maximum=1,
    )
    margin: Optional[float] = option(
        None,
        help="leave out candidates whose probability by --ranker is not so far below the positive's",
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
        for name in ("rerank", "max_score_ratio", "margin"):
            if getattr(self, name) is not None and self.ranker is None:
                raise UsageError(f"--{name} is about a ranker's scores: add --ranker, or leave it out")
        if self.rerank is not None and self.rerank < self.rank_to:
            raise UsageError(f"--rerank {self.rerank} is below --rank_to {self.rank_to}: there are no such ranks")
        sources = (*paths_of(self.queries), *paths_of(self.corpus or ""))
        if os.path.realpath(self.output_file) in map(os.path.realpath, sources):
            raise UsageError("--output must be another file than --queries and --corpus")

    @property
    def choice(self) -> Choice:
        """How negatives are chosen."""
        ratio = self.max_score_ratio
        if self.ranker and ratio is None and self.margin is None:
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


def run(options: MineOptions) -> None:
    """Mine negatives, write them, and print how many candidates were left out and why."""
    with output_free_for(options.output_file):
        _run(options)


def _run(options: MineOptions) -> None:
    check_writable(options.output_file)
    source = open_as_one_of(options.queries, JUDGED_KINDS, options)
    queries = group_judgments(judged_pairs(source))
    positives = sum(len(judged.positives(options.positive_label)) for judged in queries)
    print(f"{options.queries}: {source.report()} {source.kind.role}; {len(queries):,} queries, {positives:,} positives")
    if not positives:
        raise DataError(
            f"{options.queries}: not one title has a label of {options.positive_label:g} or more: there is nothing to "
            "mine negatives of"
        )
    texts = source
    if options.corpus is not None:
        texts = open_as_one_of(options.corpus, TITLE_KINDS, options)
    titles, repeated = distinct_titles(texts)
    print(
        f"{texts.path}: {texts.report()}; {len(titles):,} different titles, {repeated:,} repeat one of them", flush=True
    )

    ranker = Teachers(options.ranker, options) if options.ranker else None
    shown = tqdm(titles, desc="index", unit="title", disable=None)
    documents = (Document(str(number), title) for number, title in enumerate(shown))
    index = INDEXES[options.method].build(documents, IndexOptions(options.words, options.seed))
    miner = Miner(index, options.choice, ranker, options.queries)
    with tqdm(desc="mine", unit="query", total=len(queries), disable=None) as progress:
        rows = write_records(options.output_file, miner.mine(queries, progress))
    what = "triples" if options.format == "triples" else "pairs"
    print(f"wrote {rows:,} {what} to {options.output_file}: {miner.counts['negatives']:,} negatives of "
          f"{miner.counts['queries']:,} queries")  # fmt: skip
    print(f"left out or not found: {miner.report()}")
    if ranker:
        ranker.report_truncated()


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command `mine`."""
    return run_command(run, MineOptions, argv, description=__doc__ or "")


if __name__ == "__main__":
    raise SystemExit(main())
