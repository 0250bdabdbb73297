"""Mine hard negatives: read judged queries from a data file, and choose candidates as negatives of each positive.

Labelled pairs, triples or pairs say which titles answer a query and which do not. Negatives are retrieved candidates in
a range of ranks, without those that probably answer the query.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import repeat
from typing import TYPE_CHECKING, Optional, Protocol

from paddle_ranker.array_types import Floats
from paddle_ranker.data.rows.records import LabeledPair, Pair, Record, RecordFile, Text, TitleRow, Triple
from paddle_ranker.data.rows.skips import LeftOut, LeftOutItem
from paddle_ranker.errors import DataError
from paddle_ranker.lexical.tokens import letters
from paddle_ranker.retrieval.stored.candidate_indexes import CandidateIndex
from paddle_ranker.unicode.character_kinds import normalise

if TYPE_CHECKING:
    from tqdm import tqdm

QUERIES_AT_ONCE = 32  # queries that are searched and scored together
SCORE_RATIO = 0.95  # the best ratio in NV-Retriever's comparison (2024)

KNOWN, ITSELF, NEAR = "known answers", "the query itself", "scores too near the positive's"
JUDGED_KINDS: tuple[type[Record], ...] = (LabeledPair, Triple, Pair)
TITLE_KINDS: tuple[type[Record], ...] = (Triple, LabeledPair, TitleRow, Text)


@lru_cache(maxsize=1024)  # long documents are candidates of many queries
def text_key(text: str) -> str:
    """Return the key of a text: its letters and digits, with width and case folded.

    Texts with equal keys are treated as the same text.
    """
    return letters(text) or normalise(text).strip()


@dataclass
class JudgedQuery:
    """A query and its judged titles.

    pairs: the judged pairs as in the file
    keys: `text_key`s of all judged titles
    answers: `text_key`s of the titles that answer the query
    """

    query: str
    pairs: list[LabeledPair] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    answers: set[str] = field(default_factory=set)

    def add(self, pair: LabeledPair) -> None:
        self.pairs.append(pair)
        self.keys.add(text_key(pair.title))
        if pair.label > 0:
            self.answers.add(text_key(pair.title))

    def positives(self, least: float) -> list[LabeledPair]:
        """Return the pairs with labels of at least `least`, in order; titles with the same `text_key` occur once."""
        pairs: dict[str, LabeledPair] = {}
        for pair in self.pairs:
            if pair.label >= least:
                pairs.setdefault(text_key(pair.title), pair)
        return list(pairs.values())


def judged_pairs(records: Iterable[Record]) -> Iterator[LabeledPair]:
    """Convert records to labelled pairs: a triple to two, labelled 1 and 0; an unlabelled pair gets the label 1."""
    for record in records:
        if isinstance(record, LabeledPair):
            yield LabeledPair(record.query, record.title, record.label)
        elif isinstance(record, Triple):
            yield LabeledPair(record.query, record.title, 1.0)
            yield LabeledPair(record.query, record.neg_title, 0.0)
        elif isinstance(record, Pair):
            yield LabeledPair(record.query, record.title, 1.0)


def group_judgments(pairs: Iterable[LabeledPair]) -> list[JudgedQuery]:
    """Group judged pairs by query, in order of first occurrence; queries with the same `text_key` are one query."""
    groups: dict[str, JudgedQuery] = {}
    for pair in pairs:
        groups.setdefault(text_key(pair.query), JudgedQuery(pair.query)).add(pair)
    return list(groups.values())


@dataclass(frozen=True)
class Candidate:
    """A title that may become a negative.

    title: the title
    probability: the ranker's probability that the title is relevant; None without a ranker
    read: the part of the title that a ranker reads
    """

    title: str
    probability: Optional[float] = None
    read: str = ""


@dataclass(frozen=True)
class Choice:
    """Settings for choosing negatives among a query's ranked candidates.

    negatives: maximum number of negatives of one positive
    rank_from, rank_to: the window: the first and the last rank of candidates that are used; rank 1 is the best
    sample: `top` takes the best candidates in the window, `random` draws from the window
    seed: seed of the draws
    max_score_ratio: candidates are dropped if their probability is above this ratio times the positive's probability,
        as in NV-Retriever's TopK-PercPos (de Souza P. Moreira et al., 2024)
    margin: candidates are dropped unless their probability is at least this much below the positive's probability, as
        in TopK-MarginPos
    candidates: number of candidates of a query that are ranked
    min_label: minimum label of titles that get negatives
    as_pairs: whether to yield labelled pairs (the judged pairs, and the negatives with label 0) instead of triples
    """

    negatives: int = 4
    rank_from: int = 1
    rank_to: int = 50
    sample: str = "random"
    seed: int = 1000
    max_score_ratio: Optional[float] = None
    margin: Optional[float] = None
    candidates: int = rank_to
    min_label: float = 1.0
    as_pairs: bool = False

    def unknown(self, judged: JudgedQuery, titles: Sequence[str], counts: Counter[str]) -> list[str]:
        """Return the titles that are neither known answers nor the query, in order.

        counts: receives the number of titles that are left out, by reason

        An index may have a title under several ids: of titles with the same `text_key`, only the first is returned.
        """
        kept, query = dict[str, str](), text_key(judged.query)
        for title in titles:
            key = text_key(title)
            if key in judged.answers:
                counts[KNOWN] += 1
            elif key == query:
                counts[ITSELF] += 1
            else:
                kept.setdefault(key, title)
        return list(kept.values())

    def window(self, ranked: Sequence[Candidate]) -> Sequence[Candidate]:
        return ranked[self.rank_from - 1 : self.rank_to]

    def choose(
        self,
        query: str,
        positive: Candidate,
        window: Sequence[Candidate],
        counts: Counter[str],
    ) -> list[Candidate]:
        """Return the negatives of one positive; a random draw depends only on seed, query, positive and window.

        window: the candidates to choose from, best first
        counts: receives the number of dropped candidates, by reason
        """
        allowed = [candidate for candidate in window if self._far_below(positive, candidate)]
        counts[NEAR] += len(window) - len(allowed)
        if self.sample == "top" or len(allowed) <= self.negatives:
            return allowed[: self.negatives]
        return random.Random(f"{self.seed}\t{query}\t{positive.title}").sample(allowed, self.negatives)

    def _far_below(self, positive: Candidate, candidate: Candidate) -> bool:
        if positive.probability is None or candidate.probability is None:
            return True
        limit = positive.probability
        if self.max_score_ratio is not None:
            limit = min(limit, self.max_score_ratio * positive.probability)
        if self.margin is not None:
            limit = min(limit, positive.probability - self.margin)
        return candidate.probability <= limit


class Judge(Protocol):
    """Interface of one or several rankers that score candidates and positives."""

    def score(self, queries: Sequence[str], titles: Sequence[str]) -> Floats:
        """Return the probability of every (queries[i], titles[i]), `[n] float64`."""
        ...


Reads = Callable[[str, Sequence[str]], Sequence[str]]


def whole(query: str, titles: Sequence[str]) -> Sequence[str]:
    """Return the titles unchanged, for a ranker that reads them whole."""
    return titles


class Miner:
    """Miner of negatives for the judged queries of a file.

    Args:
        index: index that finds candidates.
        choice: settings for choosing negatives among the candidates.
        ranker: scores and orders the candidates; None: candidates stay in the index's order.
        source: path of the file, for messages.
        reads: called with a query and titles; returns the part of each title that a ranker reads.

    Attributes:
        counts: statistics for `report_of`.
    """

    def __init__(
        self,
        index: CandidateIndex,
        choice: Choice,
        ranker: Optional[Judge] = None,
        source: str = "",
        reads: Reads = whole,
    ) -> None:
        self._index, self._ranker, self._reads = index, ranker, reads
        self._choice, self._source = choice, source
        self.counts: Counter[str] = Counter()

    def mine(self, queries: Sequence[JudgedQuery], progress: Optional[tqdm[None]] = None) -> Iterator[Record]:
        """Yield the triples of all queries in order; with `as_pairs`, yield the judged pairs and the negatives.

        Raises `DataError` at the end if no negative was found for any query.
        """
        yield from self.mine_part(queries, progress)
        require_negatives(self._source, self.counts)

    def mine_part(self, queries: Sequence[JudgedQuery], progress: Optional[tqdm[None]] = None) -> Iterator[Record]:
        """Mine a part of the queries as `mine` does, but do not raise an error if there are no negatives."""
        for start in range(0, len(queries), QUERIES_AT_ONCE):
            part = queries[start : start + QUERIES_AT_ONCE]
            # Retrieve enough that `candidates` remain after the known answers and the query itself are removed.
            top = self._choice.candidates + max(len(judged.answers) for judged in part) + 1
            candidates = [
                self._choice.unknown(judged, [self._index.document(id).text for id in hits.ids], self.counts)
                for judged, hits in zip(part, self._index.search([judged.query for judged in part], top))
            ]
            candidates = [titles[: self._choice.candidates] for titles in candidates]
            positives = [judged.positives(self._choice.min_label) for judged in part]
            for judged, relevant, ranked in zip(part, positives, self._ranked(part, positives, candidates)):
                yield from self._of_query(judged, relevant, ranked)
            if progress is not None:
                progress.update(len(part))

    def _ranked(
        self, part: Sequence[JudgedQuery], positives: list[list[LabeledPair]], candidates: list[list[str]]
    ) -> Iterator[tuple[list[Candidate], list[Candidate]]]:
        """Yield each query's positives, and its candidates, best first; both have probabilities if there is a ranker.

        part: the queries
        positives: positives of each query
        candidates: titles of each query's candidates, in the index's order; candidates with equal probabilities stay in
            this order
        """
        texts = [[pair.title for pair in relevant] + titles for relevant, titles in zip(positives, candidates)]
        read = [self._reads(judged.query, titles) for judged, titles in zip(part, texts)]
        probabilities: Iterator[Optional[float]] = repeat(None)
        if self._ranker is not None:
            queries = [judged.query for judged, titles in zip(part, texts) for _ in titles]
            probabilities = iter(self._ranker.score(queries, [text for parts in read for text in parts]).tolist())
        scored = [[*map(Candidate, titles, probabilities, parts)] for titles, parts in zip(texts, read)]
        for relevant, every in zip(positives, scored):
            ranked = every[len(relevant) :]
            yield every[: len(relevant)], sorted(ranked, key=lambda candidate: -(candidate.probability or 0.0))

    def _of_query(
        self, judged: JudgedQuery, positives: list[LabeledPair], ranked: tuple[list[Candidate], list[Candidate]]
    ) -> Iterator[Record]:
        scored, candidates = ranked
        pairs = self._choice.as_pairs
        if pairs:
            read = self._reads(judged.query, [pair.title for pair in judged.pairs])
            yield from (replace(pair, title=text) for pair, text in zip(judged.pairs, read))
        self.counts["queries"] += bool(positives)
        self.counts["queries without a positive"] += not positives
        window = self._choice.window(candidates)
        if positives and not window:
            self.counts["queries without a candidate"] += 1
            return
        written = set(judged.keys)
        for pair, positive in zip(positives, scored):
            chosen = self._choice.choose(judged.query, positive, window, self.counts)
            self.counts["positives with fewer negatives than asked for"] += len(chosen) < self._choice.negatives
            for negative in chosen:
                key = text_key(negative.title)
                if not pairs:
                    yield Triple(pair.query, positive.read, negative.read)
                elif key not in written:
                    yield LabeledPair(pair.query, negative.read, 0.0)
                else:
                    continue
                written.add(key)
                self.counts["negatives"] += 1


def report_of(counts: Counter[str]) -> str:
    """Return the counts as text: dropped candidates by reason, and queries without positives or negatives."""
    shown = [f"{name}: {count:,}" for name, count in counts.items() if count and name not in _REPORTED_APART]
    return "; ".join(shown) or "nothing left out"


def require_negatives(source: str, counts: Counter[str]) -> None:
    """Raise `DataError` if no negative was found for any query of a file."""
    if not counts["negatives"]:
        raise DataError(f"{source}: not one negative was found ({report_of(counts)})")


_REPORTED_APART = {"queries", "negatives"}


def distinct_titles(source: RecordFile[Record]) -> tuple[list[str], str]:
    """Return the distinct titles of a file, and a summary, which names the lines of the first repeated titles.

    Of titles with the same `text_key`, the first is returned.
    """
    distinct: dict[str, str] = {}
    repeated = LeftOut("")
    for record in source:
        titles = (getattr(record, name, None) for name in ("title", "neg_title", "text"))
        for title in filter(None, titles):
            key = text_key(title)
            if key in distinct:
                repeated.add_item(LeftOutItem("", f"line {source.line}"))
            distinct.setdefault(key, title)
    places = f" ({'; '.join(repeated.reasons)}{'; …' if repeated.has_more else ''})" if repeated.count else ""
    return list(distinct.values()), f"{len(distinct):,} different titles, {repeated.count:,} repeat one of them{places}"
