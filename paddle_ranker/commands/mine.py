"""Mine hard negatives: titles of a corpus that look like answers to a query and, as far as is known, are none."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Optional, Protocol

from tqdm import tqdm

from paddle_ranker.data.formats import check_writable
from paddle_ranker.data.records import LabeledPair, Record, RecordFile, Triple, write_records
from paddle_ranker.errors import DataError, UsageError
from paddle_ranker.lexical.tokens import TOKENIZERS
from paddle_ranker.metrics.ranking import Floats
from paddle_ranker.options import option, run_command
from paddle_ranker.scoring.options import ScoringOptions
from paddle_ranker.training.mining import (
    JUDGED_KINDS,
    TITLE_KINDS,
    Candidate,
    Choice,
    Index,
    JudgedQuery,
    RandomTitles,
    group_judgments,
    judged_pairs,
    open_as_one_of,
    text_key,
    titles_of,
)
from paddle_ranker.training.teachers import Teachers

QUERIES_AT_ONCE = 32  # searched, and scored, together
RERANKED = 100
SCORE_RATIO = 0.95  # the best of those that NV-Retriever (2024) compares


@dataclass(frozen=True)
class MineOptions(ScoringOptions):
    queries: str = option(
        help="what is known: labelled pairs (query, title, label), triples, or pairs of a query and its answer"
    )
    output_file: str = option(help="file to write to")
    corpus: Optional[str] = option(None, help="titles or texts to mine from (default: the titles of --queries)")
    format: str = option(
        "triples",
        help="triples (query, title, neg_title), or pairs: the rows of --queries and the negatives, with label 0",
        choices=("triples", "pairs"),
    )
    negatives: int = option(4, help="most negatives of one positive", minimum=1)
    positive_label: float = option(1.0, help="titles with this label or a higher one get negatives", above=0)
    method: str = option("bm25", help="how candidates are found; random: at random", choices=("bm25", "random"))
    words: str = option("jieba", help="what BM25 compares: words, or character bigrams", choices=tuple(TOKENIZERS))
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
        if os.path.realpath(self.output_file) in (os.path.realpath(self.queries), os.path.realpath(self.corpus or "")):
            raise UsageError("--output_file must be another file than --queries and --corpus")

    @property
    def candidates(self) -> int:
        """How many candidates of a query are looked at."""
        return max(self.rerank or RERANKED, self.rank_to) if self.ranker else self.rank_to

    @property
    def choice(self) -> Choice:
        """How negatives are chosen of them."""
        ratio = self.max_score_ratio
        if self.ranker and ratio is None and self.margin is None:
            ratio = SCORE_RATIO
        return Choice(
            self.negatives, self.rank_from, self.rank_to, self.sample, self.seed, ratio, self.margin
        )  # fmt: skip


class Judge(Protocol):
    """What scores candidates and positives."""

    def score(self, queries: Sequence[str], titles: Sequence[str]) -> Floats:
        """Return the probability of every (queries[i], titles[i]), `[n] float64`."""
        ...


class Miner:
    """Mine the negatives of judged queries; `counts` says what happened to candidates and queries."""

    def __init__(self, titles: Sequence[str], index: Index, options: MineOptions, ranker: Optional[Judge]) -> None:
        self._titles, self._index, self._ranker = titles, index, ranker
        self._options, self._choice = options, options.choice
        self.counts: Counter[str] = Counter()

    def mine(self, queries: Sequence[JudgedQuery], progress: Optional[tqdm[Any]] = None) -> Iterator[Record]:
        """Yield triples, or the judged pairs and the negatives, of all queries, in their order.

        Raises `DataError` at the end where not one negative was found.
        """
        for start in range(0, len(queries), QUERIES_AT_ONCE):
            part = queries[start : start + QUERIES_AT_ONCE]
            # Answers that are found cost a place each, the query itself one, whatever the window asks for.
            top = self._options.candidates + max(len(judged.answers) for judged in part) + 1
            candidates = [
                self._choice.unknown(judged, [self._titles[number] for number in found], self.counts)
                for judged, (found, _) in zip(part, self._index.search([judged.query for judged in part], top))
            ]
            candidates = [titles[: self._options.candidates] for titles in candidates]
            positives = [judged.positives(self._options.positive_label) for judged in part]
            for judged, own, ranked in zip(part, positives, self._ranked(part, positives, candidates)):
                yield from self._of_query(judged, own, ranked)
            if progress is not None:
                progress.update(len(part))
        if not self.counts["negatives"]:
            raise DataError(f"{self._options.queries}: not one negative was found ({self.report()})")

    def _ranked(
        self, part: Sequence[JudgedQuery], positives: list[list[LabeledPair]], candidates: list[list[str]]
    ) -> Iterator[tuple[list[Candidate], list[Candidate]]]:
        """Yield the positives and the candidates, best first, of each query; with the ranker's scores if there is one.

        Candidates of equal probability keep BM25's order.
        """
        texts = [[pair.title for pair in own] + found for own, found in zip(positives, candidates)]
        if self._ranker is None:
            scored = [[Candidate(title) for title in titles] for titles in texts]
        else:
            queries = [judged.query for judged, titles in zip(part, texts) for _ in titles]
            probabilities = iter(self._ranker.score(queries, [title for titles in texts for title in titles]).tolist())
            scored = [[Candidate(title, next(probabilities)) for title in titles] for titles in texts]
        for own, every in zip(positives, scored):
            found = every[len(own) :]
            yield every[: len(own)], sorted(found, key=lambda candidate: -(candidate.probability or 0.0))

    def _of_query(
        self, judged: JudgedQuery, positives: list[LabeledPair], ranked: tuple[list[Candidate], list[Candidate]]
    ) -> Iterator[Record]:
        scored, candidates = ranked
        pairs = self._options.format == "pairs"
        if pairs:
            yield from judged.pairs
        self.counts["queries"] += bool(positives)
        self.counts["queries without a positive"] += not positives
        window = self._choice.window(candidates)
        if positives and not window:
            self.counts["queries without a candidate"] += 1
            return
        written = set(judged.keys)
        for pair, positive in zip(positives, scored):
            chosen = self._choice.choose(judged.query, positive, window, self.counts)
            self.counts["positives with fewer negatives than asked for"] += len(chosen) < self._options.negatives
            for negative in chosen:
                key = text_key(negative.title)
                if not pairs:
                    yield Triple(pair.query, pair.title, negative.title)
                elif key not in written:
                    yield LabeledPair(pair.query, negative.title, 0.0)
                else:
                    continue
                written.add(key)
                self.counts["negatives"] += 1

    def report(self) -> str:
        """Say how many candidates were left out, and why, and what was not found."""
        shown = [f"{name}: {count:,}" for name, count in self.counts.items() if count and name not in _SAID]
        return "; ".join(shown) or "nothing left out"


_SAID = {"queries", "negatives"}


def read_titles(source: RecordFile[Record]) -> tuple[list[str], int]:
    """Return the distinct titles of a file, the first spelling of each, and how many repeat one of them."""
    distinct: dict[str, str] = {}
    count = 0
    for title in titles_of(source):
        distinct.setdefault(text_key(title), title)
        count += 1
    return list(distinct.values()), count - len(distinct)


def run(options: MineOptions) -> None:
    """Mine, write, and say what was left out."""
    check_writable(options.output_file)
    source = open_as_one_of(options.queries, JUDGED_KINDS, skip_bad_rows=options.skip_bad_rows)
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
        texts = open_as_one_of(options.corpus, TITLE_KINDS, skip_bad_rows=options.skip_bad_rows)
    titles, repeated = read_titles(texts)
    print(
        f"{texts.path}: {texts.report()}; {len(titles):,} different titles, {repeated:,} repeat one of them", flush=True
    )

    ranker = Teachers(options.ranker, options) if options.ranker else None
    miner = Miner(titles, _index(options, titles), options, ranker)
    with tqdm(desc="mine", unit="query", total=len(queries), disable=None) as progress:
        rows = write_records(options.output_file, miner.mine(queries, progress))
    what = "triples" if options.format == "triples" else "pairs"
    print(f"wrote {rows:,} {what} to {options.output_file}: {miner.counts['negatives']:,} negatives of "
          f"{miner.counts['queries']:,} queries")  # fmt: skip
    print(f"left out or not found: {miner.report()}")
    if ranker:
        ranker.say_truncated()


def _index(options: MineOptions, titles: Sequence[str]) -> Index:
    if options.method == "random":
        return RandomTitles(len(titles), options.seed)
    from paddle_ranker.lexical.index import BM25Index

    return BM25Index(tqdm(titles, desc="index", unit="title", disable=None), options.words)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command `mine`."""
    return run_command(run, MineOptions, argv, description=__doc__ or "")


if __name__ == "__main__":
    raise SystemExit(main())
