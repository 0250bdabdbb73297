"""Search by words: BM25F over the inverted indexes of several parts of a collection, as if they were one index."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import NamedTuple, Optional, Union
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.array_types import Booleans, Floats, Integers
from paddle_ranker.errors import refuse_text
from paddle_ranker.lexical.analyser import ENGLISH, WRITTEN, Analyser, stem
from paddle_ranker.lexical.bm25 import K1, B, idf, length_norm, saturated
from paddle_ranker.lexical.postings import Postings, TermPostings, text_hashes
from paddle_ranker.lexical.spelling import WordVocabulary, most_errors
from paddle_ranker.lexical.tokens import Tokenizer, query_weights, tokenizer_named, weighed
from paddle_ranker.retrieval.words.query_rewriting import PREFIX, KnownWords, QueryRewriter, WordQuery
from paddle_ranker.retrieval.work.steps import in_order, run_steps
from paddle_ranker.retrieval.work.top_k import Best
from paddle_ranker.retrieval.work.turns import checked
from paddle_ranker.unicode.characters import is_han
from paddle_ranker.unicode.variants import common_form

_FREQUENT = 1 << 12  # tokens of this many documents get an exact highest score, others an upper bound
_LONG = 1 << 16  # groups of more documents do not raise the least score that is needed
_MORE = 8  # at most this many documents per wanted document are completed first
_SLACK = 1e-9  # relative, added to bounds for the rounding of sums
_MOST_READ = 200  # documents that are read to find a word as written
_MOST_REQUIRED = 8  # most groups that `may_have` checks
Word = tuple[Optional[str], ...]  # token of a query's word by each tokenizer; None if a tokenizer has no such token
FindPhrase = Callable[[str], Sequence[NDArray[np.int32]]]  # phrase to the live documents with it, by part, ascending
_Documents = Union[Integers, NDArray[np.int32]]  # numbers of documents, ascending
_PHRASE = "\1"  # prefix of the token of a `Word` that stands for a phrase


@dataclass(frozen=True)
class WordPart:
    """Words of a part of a collection.

    postings: the part's inverted index
    live: `[documents] bool`, which documents are not removed; None: no document is removed
    first: number of the part's first document in the collection
    has_word: called with a document's row and a folded word; returns whether the document has the word as written.
        Needed only if documents are removed
    """

    postings: Postings
    live: Optional[Booleans]
    first: int
    has_word: Callable[[int, str], bool] = lambda row, word: True

    def is_live(self, word: str, tokens: Sequence[str]) -> bool:
        """Return whether a live document has a word as written.

        The vocabulary also has words of removed documents, and several words may have the same token. So, if a removed
        document has a token of the word, up to 200 live documents with this token are read.

        tokens: the word's tokens
        """
        if word not in self.postings.vocabulary:
            return False
        for documents, _ in self.postings.of_terms(text_hashes(tokens)):
            alive = np.ones(len(documents), bool) if self.live is None else self.live[documents]
            rows = documents[alive][:_MOST_READ].tolist()
            if rows and (alive.all() or any(self.has_word(row, word) for row in checked(rows))):
                return True
        return False


@dataclass(frozen=True)
class CollectionStatistics:
    """Collection statistics of BM25.

    documents: number of live documents
    lengths: number of tokens in each searched field, over all documents
    """

    documents: int
    lengths: tuple[int, ...]

    @classmethod
    def of(cls, statistics: Sequence[CollectionStatistics]) -> CollectionStatistics:
        """Add up the statistics of several collections."""
        lengths = tuple(map(sum, zip(*(part.lengths for part in statistics))))
        return cls(sum(part.documents for part in statistics), lengths)


@dataclass(frozen=True)
class CountedQuery:
    """Query of one shard of a collection, with the statistics of all shards.

    statistics: statistics of all shards
    counts: number of live documents of all shards with each word of the query, see `WordSearcher.words_in`
    """

    query: Union[str, WordQuery]
    statistics: CollectionStatistics
    counts: Mapping[Word, int]

    def __str__(self) -> str:
        return str(self.query)


AnyQuery = Union[str, WordQuery, CountedQuery]
QUERY_TYPES = (str, WordQuery, CountedQuery)


def texts_of(query: AnyQuery) -> list[str]:
    """Return a query as typed and, if it has clear corrections, as corrected."""
    word_query = _word_query(query)
    return [*dict.fromkeys((word_query.given, word_query.text))]


def single_token(tokenize: Tokenizer, text: str) -> Optional[str]:
    """Return the token that stands for a whole text; None without such a token, as for several words or 笔记本."""
    if isinstance(tokenize, Analyser):
        runs = list(tokenize.runs(tokenize.fold(text)))
        if len(runs) != 1:
            return None
        if runs[0].is_word:  # of server/client, whose stems are server and client, the token of both parts
            return max(runs[0].word.texts, key=len, default=None)
    tokens = tokenize(text)
    longest = max(tokens, key=len, default="")
    return longest if tokens and all(token in longest for token in tokens) else None


def _no_phrase(text: str) -> Sequence[NDArray[np.int32]]:
    return ()


class _Term(NamedTuple):
    """Token of a query.

    weight: idf times the weight in the query
    postings: the token's postings in each part of the collection
    tables: for each part, the score that each code of `postings` adds, without `weight`
    most: for each part, the highest score that the token adds, with `weight`
    given: if the token is of a correction or synonym, the part of the query that it stands for; else ""
    """

    token: str
    weight: float
    postings: list[TermPostings]
    tables: list[Floats]
    most: list[float]
    given: str


class _CountedWords(NamedTuple):
    """The words of a query, and their documents.

    weights: weight of each word in the query
    origins: for each word of a correction or a synonym, the part of the query that it stands for
    counts: number of live documents with each word
    terms: the tokens that documents have, the rarest first
    """

    weights: Mapping[Word, float]
    origins: Mapping[Word, str]
    counts: Mapping[Word, int]
    terms: Sequence[_Term]


class _Group:
    """Tokens of a query that occur in the same documents of a part, such as the characters of a rare word.

    documents: `[n] int32`, ascending
    most: the highest score that all tokens together add
    """

    def __init__(self, documents: NDArray[np.int32]):
        self.documents, self.most = documents, 0.0
        self._values: list[tuple[Floats, float, TermPostings]] = []

    def append(self, table: Floats, weight: float, postings: TermPostings, most: float) -> None:
        """Add a token.

        table: the score that each code of `postings` adds, not yet multiplied by `weight`
        postings: the token's postings
        most: the highest score that the token adds
        """
        if len(table) <= len(postings.codes):  # tables of several fields may be far longer than a token's postings
            table, weight = weight * table, 1.0
        self._values.append((table, weight, postings))
        self.most += most

    def add_all(self, sums: Floats, kept: Optional[Booleans]) -> None:
        """Add the tokens' scores to sums of the group's own documents.

        sums: sum of each document that `kept` allows, `[n]`, changed in place
        kept: mask over the group's documents; None: all
        """
        for table, weight, (_, codes) in self._values:
            # Mode "clip" checks no index, in a third of the time of `table[codes]`.
            added = table.take(codes if kept is None else codes[kept], mode="clip")
            sums += added if weight == 1.0 else weight * added

    def add_to(self, sums: Floats, documents: Integers) -> None:
        """Add the tokens' scores to sums of any documents; a document without the tokens keeps its sum.

        sums: sum of each document, `[n]`, changed in place
        documents: the documents, `[n]`, ascending
        """
        at = self.documents.searchsorted(documents.astype(np.int32))
        is_other = self.documents.take(at, mode="clip") != documents
        for table, weight, (_, codes) in self._values:
            added = table.take(codes.take(at, mode="clip"), mode="clip")
            added[is_other] = 0.0
            sums += added if weight == 1.0 else weight * added


class WordSearcher:
    """Search by BM25F (Robertson, Zaragoza and Taylor 2004) with Lucene's idf; with one field this is Okapi BM25.

    A token's frequency in each field is multiplied by the field's weight; the sum over fields is divided by the
    document's normalised length, to which the fields add with their weights, and saturated. Lucene's
    `CombinedFieldQuery` counts alike. Idf and mean lengths count the live documents of all parts. A score adds up a
    query's tokens, the rarest first, in float64, so that it does not depend on how the collection is divided.

    Args:
        parts: the words of each part.
        tokenize: tokenizer of queries and documents; or a list with the tokenizer of each field, also for queries.
        k1, b: BM25's saturation and length normalisation.
        weights: weights of the fields, in their order in `Postings`.
        statistics: statistics of the whole collection if `parts` are one shard of it; queries must then be
            `CountedQuery`. None: `parts` are the whole collection.
        find_phrase: called with a synonym of several words; returns the documents that have it as a phrase.

    Attributes:
        statistics: statistics of the whole collection.
    """

    def __init__(
        self,
        parts: Sequence[WordPart],
        tokenize: Union[Tokenizer, Sequence[Tokenizer]],
        k1: float = K1,
        b: float = B,
        weights: Sequence[float] = (1.0,),
        statistics: Optional[CollectionStatistics] = None,
        find_phrase: FindPhrase = _no_phrase,
    ):
        self._find_phrase = find_phrase
        self._of_fields = of_fields = [tokenize] * len(weights) if callable(tokenize) else list(tokenize)
        self._parts, self._tokenizers, self._k1 = parts, list(dict.fromkeys(of_fields)), k1
        self.statistics = _statistics_of(parts, len(weights)) if statistics is None else statistics
        total = np.array(self.statistics.lengths, np.int64)
        averages = total / max(1, self.statistics.documents)
        self._tables = [self._saturated(_frequencies(part.postings, averages, b, weights)) for part in parts]
        # By tokenizer and part: weighted frequencies in the tokenizer's own fields.
        self._frequencies = [
            [_frequencies(part.postings, averages, b, weights, [t is tokenizer for t in of_fields]) for part in parts]
            for tokenizer in self._tokenizers if len(self._tokenizers) > 1
        ]  # fmt: skip
        self._highest = [float(table.max(initial=0.0)) for table in self._tables]
        self._highest_of: dict[tuple[int, int], float] = {}  # by part and hash of a frequent token
        # The stages of a search ask for its words several times; the key is the search's own `WordQuery`.
        self._counted: WeakKeyDictionary[WordQuery, _CountedWords] = WeakKeyDictionary()
        self._spare: list[Floats] = []  # buffers of zeros that searches reuse, `[documents of the largest part]` each

    @classmethod
    def of_texts(cls, texts: Iterable[str], tokenizer: str) -> WordSearcher:
        """Index texts in memory, numbered from 0; `tokenizer` is a name in `TOKENIZERS`."""
        refuse_text(texts, "texts")
        tokenize = tokenizer_named(tokenizer)
        return cls([WordPart(Postings.of(texts, tokenize), None, 0)], tokenize)

    def _saturated(self, frequencies: Floats) -> Floats:
        """Return the scores that a token of idf 1 adds for weighted frequencies, `[n]`."""
        scores, occurs = np.zeros_like(frequencies), frequencies > 0
        scores[occurs] = saturated(frequencies[occurs], 1.0, self._k1)  # a frequency of 0 divides by 0 if k1 is 0
        return scores

    def search(self, query: AnyQuery, k: int, allowed: Optional[Sequence[Booleans]] = None) -> tuple[Integers, Floats]:
        """Return the numbers and scores of the best `k` documents that share a token with a query, best first.

        allowed: for each of `parts`, `[documents] bool`, which documents may be found; None: all
        """
        terms = self._terms(query)
        best = Best(k)
        try:
            scores = self._spare.pop()
        except IndexError:
            scores = np.zeros(max((len(part.postings.lengths) for part in self._parts), default=0))
        for number, part in enumerate(self._parts):
            mask = part.live if allowed is None else allowed[number]
            self._search_part(number, terms, mask, scores, best)
        self._spare.append(scores)
        return best.result()

    def scores_of(self, query: AnyQuery, numbers: Integers) -> Floats:
        """Return the scores that `search` gives to documents, `[n]`; a document without a token of the query gets 0.

        numbers: numbers of the documents, `[n]`
        """
        terms, scores = self._terms(query), np.zeros(len(numbers))
        for number, part in enumerate(self._parts):
            here = np.flatnonzero((numbers >= part.first) & (numbers < part.first + len(part.postings.lengths)))
            sums = np.zeros(len(here))
            for group in checked(self._groups(number, terms)) if len(here) else ():
                group.add_to(sums, numbers[here] - part.first)
            scores[here] = sums
        return scores

    def title_shares(self, query: AnyQuery, field: int, numbers: Integers) -> Floats:
        """Return, for each title, the share of its tokens that the query has, `[n]`; 0 if it lacks a query token.

        If the query has corrections, both the typed and the corrected query are tried, and the higher share counts.

        field: index of the title field
        numbers: numbers of the documents
        """
        highest = np.zeros(len(numbers))
        for text in texts_of(query):
            hashes = text_hashes(dict.fromkeys(self._of_fields[field](text)))
            for part in self._parts:
                lengths = part.postings.lengths.reshape(len(part.postings.lengths), -1)[:, field]
                here = np.flatnonzero((numbers >= part.first) & (numbers < part.first + len(lengths)))
                here = here[lengths[numbers[here] - part.first] >= max(1, len(hashes))]
                if not len(here):
                    continue
                rows, times = (numbers[here] - part.first).astype(np.int32), np.zeros(len(here), np.int64)
                for term in checked(sorted(part.postings.of_terms(hashes), key=_count)):
                    of_term = _times_in(field, part.postings, term, rows)
                    has_term = of_term > 0
                    here, rows, times = here[has_term], rows[has_term], times[has_term] + of_term[has_term]
                    if not len(rows):
                        break
                highest[here] = np.maximum(highest[here], times / lengths[rows])
        return highest

    @cached_property
    def rewriter(self) -> Optional[QueryRewriter]:
        """Rewriter of queries by the words of this index; None if no field has an analyser."""
        return self.rewriter_of(self)

    def rewriter_of(self, words: KnownWords) -> Optional[QueryRewriter]:
        """Return a rewriter of queries that looks words up in `words`; None if no field has an analyser."""
        analysers = [tokenizer for tokenizer in self._tokenizers if isinstance(tokenizer, Analyser)]
        return QueryRewriter(words, analysers[0]) if analysers else None

    @property
    def _vocabularies(self) -> list[WordVocabulary]:
        """The vocabularies of the parts; they may have words of removed documents."""
        return [part.postings.vocabulary for part in self._parts if len(part.postings.spellings)]

    def near(self, word: str, unfinished: bool = False) -> list[tuple[str, int]]:
        """Return the live words at the least edit distance from a word, with this distance; see `KnownWords`."""
        for errors in range(most_errors(word) + 1):
            words = set[str]()
            for vocabulary in checked(self._vocabularies):
                for near_words in checked(vocabulary.near(word, errors, unfinished=unfinished)):
                    words.update(near_words)
            if live := self._live_words(sorted(words)):
                return [(near_word, errors) for near_word in live]
        return []

    @property
    def has_variants(self) -> bool:
        """Whether a word of this index has a spelling that is not its common form, see `alike`."""
        return any(len(part.postings.variants) for part in self._parts)

    def alike(self, words: Sequence[str]) -> list[list[str]]:
        """Return, for each word, the live words in other spellings; see `KnownWords`."""
        found = list[list[str]]()
        for word in checked(words):
            form = common_form(word)
            others = {other for part in self._parts for other in part.postings.variants.of(form)} - {word}
            found.append(self._live_words(sorted(other for other in others if self._are_alike(word, other))))
        return found

    def common_spelling(self, word: str) -> str:
        """Return the common form of a word, or the word; see `KnownWords`."""
        form = common_form(word)
        return form if form == word or self._are_alike(word, form) else word

    def _are_alike(self, word: str, other: str) -> bool:
        """Return whether two words of one common form are spellings of one word, in a field's language at least."""
        return "" in self._letters or any(common_form(word, letters) == common_form(other, letters)
                                          for letters in self._letters)  # fmt: skip

    def _begins(self, word: str, prefix: str) -> bool:
        """Return whether a word begins with a prefix as their common forms do, in a field's language at least."""
        return "" in self._letters or any(common_form(word, letters).startswith(common_form(prefix, letters))
                                          for letters in self._letters)  # fmt: skip

    @cached_property
    def _letters(self) -> frozenset[str]:
        """For each language of the fields' analysers, the letters that are no variants of others in it."""
        return frozenset(t.letters for t in self._tokenizers if isinstance(t, Analyser))

    def beginning(self, prefix: str, most: int) -> list[str]:
        """Return the shortest live words that begin with a prefix; see `KnownWords`."""
        wanted, parts = most, [part for part in self._parts if len(part.postings.spellings)]
        variants = [
            [word for word in checked(part.postings.variants.beginning(common_form(prefix)))
             if self._begins(word, prefix)]
            for part in parts
        ]  # fmt: skip
        while True:
            lists = [
                sorted({*part.postings.vocabulary.beginning(prefix, wanted), *others}, key=shortest_first)[:wanted]
                for part, others in zip(parts, variants)
            ]
            keys = [(*shortest_first(word), word) for word in checked({*chain.from_iterable(lists)})]
            live = self._live_words([word for run in run_steps(in_order(keys)) for *_, word in run])
            # A vocabulary with more words may have words that sort before a live word, so only its range counts.
            if ends := [shortest_first(words[-1]) for words in lists if len(words) == wanted]:
                live = [word for word in live if shortest_first(word) <= min(ends)]
            if len(live) >= most or not ends:
                return live[:most]
            wanted *= 4

    def _live_words(self, words: Sequence[str]) -> list[str]:
        """Return the words that a live document has, in order."""
        tokens = [self.tokens_of_word(word) for word in checked(words)]
        pairs = checked(zip(words, tokens))
        return [word for word, of_word in pairs if any(part.is_live(word, of_word) for part in self._parts)]

    def tokens_of_word(self, word: str) -> list[str]:
        """Return the tokens that the fields' analysers make of a folded word."""
        tokens = dict[str, None]()
        for tokenizer in self._tokenizers:
            if isinstance(tokenizer, Analyser):
                folded = tokenizer.fold(word) if tokenizer.table else word
                if folded.isalpha():
                    tokens[stem(folded, tokenizer.language or ENGLISH)] = None
                else:
                    for run in tokenizer.runs(folded):
                        tokens.update((token, None) for token in ([max(run.word.texts, key=len)] if run.is_word
                                                                  else run.units()))  # fmt: skip
        return list(tokens)

    def counts(self, tokens: Sequence[str]) -> list[int]:
        """Return how many live documents have each token."""
        refuse_text(tokens, "tokens")
        if not tokens:
            return []
        hashes, counts = text_hashes(tokens), np.zeros(len(tokens), np.int64)
        for part in checked(self._parts):
            sizes = part.postings.counts(hashes)
            if part.live is not None:
                occurring = np.flatnonzero(sizes)
                postings = part.postings.of_terms(hashes[occurring])
                for index, (documents, _) in checked(zip(occurring.tolist(), postings)):
                    sizes[index] = np.count_nonzero(part.live[documents])
            counts += sizes
        result: list[int] = counts.tolist()
        return result

    def counts_of(self, words: Sequence[Word]) -> list[int]:
        """Return how many live documents have each word."""
        counts = dict(zip(words, self.counts([next(filter(None, word)) for word in words])))
        for word in checked([count for count in counts if _phrase_of(count)]):
            counts[word] = sum(map(len, self._find_phrase(_phrase_of(word))))
        for word in checked([count for count in counts if len({*count}) > 1]):
            counts[word] = 0
            for number, part in enumerate(self._parts):
                postings = [part.postings.of_terms(text_hashes([token]))[0] if token else None for token in word]
                counts[word] += _live(part, self._joined(postings, number)[0])
        return [counts[word] for word in words]

    def may_have(self, terms: Sequence[Sequence[str]]) -> list[Booleans]:
        """Return, for each part, which documents may have a token of each group, `[documents] bool`.

        Only the rarest groups are checked, so a returned document may lack the tokens of the more frequent groups.

        terms: the groups, see `Analyser.phrase_terms`
        """
        masks = [np.ones(len(part.postings.lengths), bool) for part in self._parts]
        term_hashes = [text_hashes(either) for either in terms]
        sizes = [
            sum(int(part.postings.counts(hashes).sum()) for part in self._parts) for hashes in checked(term_hashes)
        ]
        rarest = sorted(range(len(term_hashes)), key=sizes.__getitem__)[:_MOST_REQUIRED]
        for hashes in checked([term_hashes[index] for index in rarest]):
            for mask, part in zip(masks, self._parts):
                has = np.zeros(len(mask), bool)
                for documents, _ in checked(part.postings.of_terms(hashes)):
                    has[documents] = True
                mask &= has
        return masks

    def weights_of(self, query: AnyQuery) -> dict[str, float]:
        """Return the weights of a query's tokens, by token; tokens that no document has are left out."""
        return {term.token: term.weight for term in self._terms(query)}

    def total_weight(self, query: AnyQuery) -> float:
        """Return the sum of the weights of the query's words, where no word counts more than once.

        A word that no document has gets the weight of its correction. Without a correction it gets the weight of a word
        in no document, or 0 if it joins two other words of the query, as 18v joins 18 and v. Pairs of ideographs count:
        in texts about other things the same characters make other pairs.
        """
        counted, origins, counts, _ = self._count_words(query)
        idfs = idf([counts[word] for word in counted], self.statistics.documents).tolist()
        weights = {word: min(times, 1.0) * of_word for (word, times), of_word in zip(counted.items(), idfs)}
        corrections = dict[Word, float]()
        for word, part in origins.items():
            for typed in self._words_of(part):
                corrections[typed] = max(corrections.get(typed, 0.0), weights[word])
        unknown = {word for word, count in counts.items() if not count}
        typed_words = [word for word in counted if word not in origins]
        tokens = {token for word in typed_words for token in word if token}
        counting = (corrections.get(word, 0.0 if _joins(word, tokens) else weights[word]) if word in unknown
                    else weights[word] for word in typed_words)  # fmt: skip
        return float(sum(counting))

    def given_of(self, query: AnyQuery) -> dict[str, str]:
        """Return the part of the query for which each token of a correction or synonym stands, by token."""
        return {term.token: term.given for term in self._terms(query) if term.given}

    def matching(self, query: AnyQuery) -> list[Booleans]:
        """Return, for each of `parts`, which live documents share a token with a query, `[documents] bool`."""
        masks = [np.zeros(len(part.postings.lengths), bool) for part in self._parts]
        for term in checked(self._terms(query)):
            for mask, postings in zip(masks, term.postings):
                mask[postings.documents] = True
        return [mask if part.live is None else mask & part.live for mask, part in zip(masks, self._parts)]

    def explain(self, query: AnyQuery, part: int, rows: Sequence[int]) -> list[dict[str, float]]:
        """Return, for each row of a part, the summands of the document's score, by token of the query."""
        summands: list[dict[str, float]] = [{} for _ in rows]
        wanted = np.array(rows, np.int32)
        for term in checked(self._terms(query)) if rows else ():
            documents, codes = term.postings[part]
            at = documents.searchsorted(wanted)
            for place in np.flatnonzero(documents.take(at, mode="clip") == wanted).tolist() if len(documents) else ():
                summands[place][term.token] = term.weight * float(term.tables[part][codes[at[place]]])
        return summands

    def words_in(self, query: AnyQuery) -> tuple[dict[Word, float], dict[Word, str]]:
        """Return the weight of each word; and, for each added word, the part of the query that it stands for.

        Both dicts are by word. Added words are those of corrections and synonyms that the query lacks.
        """
        query = query.query if isinstance(query, CountedQuery) else query
        counted, origins = self._words_of(query if isinstance(query, str) else query.given), dict[Word, str]()
        for extra in () if isinstance(query, str) else query.extras:
            words = {self._whole(extra.text): 1.0} if extra.is_whole else self._words_of(extra.text)
            for word, times in words.items():
                if word not in counted or word in origins:
                    counted[word] = max(counted.get(word, 0.0), extra.factor * times)
                    origins.setdefault(word, extra.given)
        return counted, origins

    def _whole(self, text: str) -> Word:
        """Return a text as one word: its single token by each tokenizer, or a phrase if a tokenizer gives none."""
        tokens = [single_token(tokenizer, text) for tokenizer in self._tokenizers]
        return (f"{_PHRASE}{' '.join(text.split())}",) if None in tokens else tuple(tokens)

    def _phrase(self, phrase: str, number: int, documents: NDArray[np.int32]) -> tuple[TermPostings, Floats]:
        """Return a phrase's postings in a part, and the score of each code: the least score of the phrase's words.

        number: index of the part
        documents: documents of the part that have the phrase, `[n]`, ascending
        """
        least = np.full(len(documents), np.inf)
        for word in self._words_of(phrase):
            postings = [None if token is None else self._parts[number].postings.of_terms(text_hashes([token]))[0]
                     for token in word]  # fmt: skip
            if len({*word}) == 1 and postings[0] is not None:
                (with_word, codes), table = postings[0], self._tables[number]
            else:
                (with_word, codes), table = self._joined(postings, number)
            if len(with_word):
                at = with_word.searchsorted(documents)
                added = table.take(codes.take(at, mode="clip"))
                np.minimum(least, added, out=least, where=with_word.take(at, mode="clip") == documents)
        least[np.isinf(least)] = 1.0
        return TermPostings(documents, np.arange(len(documents), dtype=np.uint32)), least

    def _terms(self, query: AnyQuery) -> Sequence[_Term]:
        return self._count_words(query).terms

    def _count_words(self, query: AnyQuery) -> _CountedWords:
        """Return the query's words with their documents; the result is cached as long as the query lives."""
        if not isinstance(query, WordQuery):
            return self._look_up(query)
        counted = self._counted.get(query)
        if counted is None:
            counted = self._counted[query] = self._look_up(query)
        return counted

    def _look_up(self, query: AnyQuery) -> _CountedWords:
        synonyms = {synonym.given for synonym in _word_query(query).synonyms}
        whole = {extra.given for extra in _word_query(query).extras if extra.is_whole}
        completed = whole.intersection(one.given for one in _word_query(query).corrected if one.by == PREFIX)
        idfs, counts = dict[Word, float](), dict[Word, int]()
        documents_of, taken = dict[Word, Sequence[_Documents]](), dict[str, tuple[float, Sequence[_Documents]]]()
        (counted, origins), counted_terms = self.words_in(query), list[tuple[int, _Term]]()
        tokens = list(dict.fromkeys(token for word in counted for token in word if token is not None))
        hashes = text_hashes(tokens)
        parts = [part.postings.of_terms(hashes) for part in self._parts]
        indices = {token: index for index, token in enumerate(tokens)}
        hashed = hashes.tolist()
        for word, times in checked(counted.items()):
            token = next(token for token in word if token is not None)
            if phrase := _phrase_of(word):
                phrases = [self._phrase(phrase, n, documents) for n, documents in enumerate(self._find_phrase(phrase))]
                postings, tables = [term_postings for term_postings, _ in phrases], [table for _, table in phrases]
                highest = [float(table.max(initial=0.0)) for table in tables]
            elif len({*word}) == 1:
                postings, tables = [part[indices[token]] for part in parts], self._tables
                highest = [self._highest_in(n, hashed[indices[token]], in_part) for n, in_part in enumerate(postings)]
            else:
                of_tokens = ([None if word_token is None else part[indices[word_token]] for word_token in word]
                             for part in parts)  # fmt: skip
                joined = [self._joined(token_postings, number) for number, token_postings in enumerate(of_tokens)]
                postings, tables = [term_postings for term_postings, _ in joined], [table for _, table in joined]
                highest = [float(table.max(initial=0.0)) for table in tables]
            if isinstance(query, CountedQuery):
                count = query.counts[word]
            else:
                count = sum(map(_live, self._parts, postings))
            counts[word], origin = count, origins.get(word, "")
            documents_of[word] = [term_postings.documents for term_postings in postings]
            if count:
                of_word = idfs[word] = float(idf(count, self.statistics.documents))
                if origin in completed:
                    # All completions are one word: they weigh no more than the typed word and the most frequent of
                    # them, and a document counts for one of these words alone.
                    if origin not in taken:
                        typed_word = self._whole(origin)
                        none: Sequence[_Documents] = [np.zeros(0, np.int32)] * len(parts)
                        taken[origin] = idfs.get(typed_word, math.inf), documents_of.get(typed_word, none)
                    least, others = taken[origin]
                    of_word = min(of_word, least)
                    taken[origin] = of_word, [_union([*both]) for both in zip(documents_of[word], others)]
                    postings = [*map(_without, postings, others)]
                elif origin in synonyms:  # a synonym counts no more than the typed words
                    typed = [idfs[typed_word] for typed_word in self._words_of(origin) if typed_word in idfs]
                    of_word = min(of_word, sum(typed)) if typed else of_word
                weight = times * of_word
                most = [score * weight * (1.0 + _SLACK) for score in highest]
                name = phrase or token.removeprefix(WRITTEN)
                counted_terms.append((count, _Term(name, weight, postings, tables, most, origin)))
        terms = [term for _, term in sorted(counted_terms, key=lambda counted_term: counted_term[0])]
        return _CountedWords(counted, origins, counts, terms)

    def _words_of(self, query: str) -> dict[Word, float]:
        if len(self._tokenizers) == 1:
            return {(token,): weight for token, weight in query_weights(self._tokenizers[0], query).items()}
        tokenized = [list(weighed(tokenize, query)) for tokenize in self._tokenizers]
        analysers = [tokenizer for tokenizer in self._tokenizers if isinstance(tokenizer, Analyser)]
        unaligned = frozenset[str]()
        if len({analyser.jieba for analyser in analysers}) > 1:  # a pair of characters is no word of jieba
            unaligned = frozenset().union(*(analyser.groups_of(query) for analyser in analysers))
        rows = [[pair for pair in pairs if pair[0] not in unaligned] for pairs in tokenized]
        words: dict[Word, float] = {}
        for aligned in zip(*rows) if len({*map(len, rows)}) == 1 else ():
            word = tuple(token for token, _ in aligned)
            words[word] = words.get(word, 0.0) + max(weight for _, weight in aligned)
        done = {token for word in words for token in word}
        for token in dict.fromkeys(token for pairs in tokenized for token, _ in pairs if token not in done):
            weights = [sum(weight for other, weight in pairs if other == token) for pairs in tokenized]
            words[tuple(token if weight else None for weight in weights)] = max(weights)
        return words

    def _joined(self, postings: Sequence[Optional[TermPostings]], number: int) -> tuple[TermPostings, Floats]:
        """Join the postings of a word's tokens in a part; return the postings and the score of each code.

        postings: for each tokenizer, the postings of its token; None if the tokenizer has none
        number: index of the part
        """
        joined = _union(given.documents for given in postings if given is not None).astype(np.int32)
        frequency = np.zeros(len(joined))
        for frequencies, term_postings in checked(zip(self._frequencies, postings)):
            if term_postings is not None:
                places = joined.searchsorted(term_postings.documents)
                frequency[places] += frequencies[number][term_postings.codes]
        kept = frequency > 0
        codes = np.arange(np.count_nonzero(kept), dtype=np.uint32)
        return TermPostings(joined[kept], codes), self._saturated(frequency[kept])

    def _highest_in(self, number: int, hashed: int, postings: TermPostings) -> float:
        """Return the highest score of a token in a part, not yet multiplied by the token's weight.

        If the token is in fewer than `_FREQUENT` documents, return an upper bound: the highest score of any token.

        number: index of the part
        hashed: hash of the token
        """
        if len(postings.codes) < _FREQUENT:
            return self._highest[number] if len(postings.codes) else 0.0
        key = (number, hashed)
        if key not in self._highest_of:
            self._highest_of[key] = float(self._tables[number][postings.codes].max())
        return self._highest_of[key]

    def _search_part(
        self, number: int, terms: Sequence[_Term], mask: Optional[Booleans], scores: Floats, best: Best
    ) -> None:
        """Score a part's documents and add them to `best`.

        Scores are added token by token, the rarest token first. Once the frequent tokens that are left cannot bring a
        new document among the best, only documents that have a score already are scored further (Turtle and Flood
        1995).

        number: index of the part
        scores: a buffer of zeros, `[documents]`; when this returns, it is all zeros again
        """
        groups = self._groups(number, terms)
        left = sum(group.most for group in groups)
        least = best.least
        if left < least:
            return
        touched: list[Integers] = []
        for index, group in enumerate(checked(groups)):
            if left < least:
                candidates = _completed(groups[index:], touched, scores, (best.k, least))
                break
            kept = None if mask is None else mask[group.documents]
            rows = (group.documents if kept is None else group.documents[kept]).astype(np.int64)
            sums = scores.take(rows, mode="clip")
            group.add_all(sums, kept)
            scores[rows] = sums
            touched.append(rows)
            if best.k <= len(sums) <= _LONG and len(above := sums[sums > least]) >= best.k:
                least = float(np.partition(above, -best.k)[-best.k])
            left -= group.most
        else:
            candidates = _union(rows[scores.take(rows, mode="clip") >= least] for rows in touched)
        best.add(candidates + self._parts[number].first, scores[candidates])
        for rows in checked(touched):
            scores[rows] = 0.0

    def _groups(self, number: int, terms: Sequence[_Term]) -> list[_Group]:
        """Group the tokens that occur in a part, in order: neighbours with the same documents form a group.

        number: index of the part
        """
        groups: list[_Group] = []
        for term in checked(terms):
            documents = term.postings[number].documents
            if not len(documents):
                continue
            if not groups or not np.array_equal(groups[-1].documents, documents):
                groups.append(_Group(documents))
            groups[-1].append(term.tables[number], term.weight, term.postings[number], term.most[number])
        return groups


def shortest_first(word: str) -> tuple[int, bytes]:
    """Sort key of words in vocabularies: shorter words first, then by bytes."""
    return len(word), word.encode()


def _joins(word: Word, tokens: Collection[str]) -> bool:
    """Return whether a word begins with one of `tokens` and ends with one, as 18v begins with 18 and ends with v.

    Words of ideographs alone do not count.
    """
    parts = [token for token in word if token]
    return all(not is_han(token) and any(token != other and token.startswith(other) for other in tokens)
               and any(token != other and token.endswith(other) for other in tokens) for token in parts)  # fmt: skip


def _without(postings: TermPostings, documents: _Documents) -> TermPostings:
    """Return postings without some documents, which are in ascending order."""
    if not len(documents):
        return postings
    is_kept = documents.take(documents.searchsorted(postings.documents), mode="clip") != postings.documents
    return TermPostings(postings.documents[is_kept], postings.codes[is_kept])


def _count(postings: TermPostings) -> int:
    return len(postings.documents)


def _phrase_of(word: Word) -> str:
    """Return the phrase that a word stands for; "" if it is no phrase."""
    return word[0][1:] if word[0] is not None and word[0].startswith(_PHRASE) else ""


def _word_query(query: AnyQuery) -> WordQuery:
    query = query.query if isinstance(query, CountedQuery) else query
    return WordQuery(query, query) if isinstance(query, str) else query


def _statistics_of(parts: Sequence[WordPart], fields: int) -> CollectionStatistics:
    count, total = 0, np.zeros(fields, np.int64)
    for part in parts:
        lengths = part.postings.lengths if part.live is None else part.postings.lengths[part.live]
        count += len(lengths)
        total += lengths.reshape(len(lengths), -1).sum(axis=0, dtype=np.int64)
    return CollectionStatistics(count, tuple(total.tolist()))


def _live(part: WordPart, postings: TermPostings) -> int:
    """Return how many documents of the postings are live."""
    documents = postings.documents
    return len(documents) if part.live is None else int(np.count_nonzero(part.live[documents]))


def _times_in(field: int, postings: Postings, term: TermPostings, rows: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return how often a term occurs in a field of the documents at `rows`, `[rows]`."""
    if not len(term.documents):
        return np.zeros(len(rows), np.int64)
    at = term.documents.searchsorted(rows)
    has_term = term.documents.take(at, mode="clip") == rows
    times: NDArray[np.int64] = postings.pairs[term.codes.take(at, mode="clip"), 2 * field] * has_term.astype(np.int64)
    return times


def _frequencies(
    postings: Postings, averages: Floats, b: float, weights: Sequence[float], counted: Optional[Sequence[bool]] = None
) -> Floats:
    """Return BM25F's weighted frequencies, `[pairs]`: the sum over fields of weight * count, divided by the norm.

    The norm is that of the whole document, whose length is the sum over fields of weight * length, as if each field
    were repeated `weight` times. If each field had its own norm, one word of a short name would outweigh all words of
    a text.

    averages: mean length of each field
    counted: which fields' counts are added; None: all fields
    """
    frequencies, lengths, average = np.zeros(len(postings.pairs)), np.zeros(len(postings.pairs)), 0.0
    for field, weight in enumerate(weights):  # a matrix product would add them in an order that depends on the part
        if counted is None or counted[field]:
            frequencies += weight * postings.pairs[:, 2 * field]
        lengths += weight * postings.pairs[:, 2 * field + 1]
        average += weight * float(averages[field])
    occurs = frequencies > 0
    frequencies[occurs] /= length_norm(lengths[occurs], average or 1.0, b)
    return frequencies


def _completed(
    groups: Sequence[_Group], touched: Sequence[Integers], scores: Floats, goal: tuple[int, float]
) -> Integers:
    """Add the scores of the tokens that are left to all documents that may be among the best; return these documents.

    Documents with the highest scores so far are completed first, which raises the score that the other documents need.
    Returned documents are ascending.

    groups: the tokens that are left
    touched: for each group whose scores have been added, its documents
    scores: scores of the part's documents so far, `[documents]`, changed in place
    goal: number `k` of wanted documents, and a score that at least `k` documents reach
    """
    (k, least), left = goal, sum(group.most for group in groups)
    reached = [scores.take(rows, mode="clip") for rows in checked(touched)]
    promising = _union(rows[row_scores >= least] for rows, row_scores in zip(touched, reached))
    if k <= len(promising) <= _MORE * k:
        sums = scores.take(promising, mode="clip")
        for group in groups:
            group.add_to(sums, promising)
        least = max(least, float(np.partition(sums, -k)[-k]))
    candidates = _union(rows[row_scores >= least - left] for rows, row_scores in zip(touched, reached))
    sums = scores.take(candidates, mode="clip")
    for group in checked(groups):
        if len(sums) > k:
            least = max(least, float(np.partition(sums, -k)[-k]))
            kept = sums >= least - left
            candidates, sums = candidates[kept], sums[kept]
        group.add_to(sums, candidates)
        left -= group.most
    scores[candidates] = sums
    return candidates


def _union(lists: Iterable[_Documents]) -> Integers:
    """Return the documents of several ascending lists, ascending, each once."""
    chosen = [documents for documents in checked(lists) if len(documents)]
    if sum(map(len, chosen)) > _LONG:  # marking takes less time than sorting, and other searches may run meanwhile
        is_chosen = np.zeros(1 + max(int(documents[-1]) for documents in chosen), bool)
        for documents in checked(chosen):
            is_chosen[documents] = True
        return np.flatnonzero(is_chosen)
    merged = np.concatenate([*chosen, np.empty(0, np.int64)])
    merged.sort(kind="stable")  # merges the lists, a tenth of the time of numpy.unique
    is_first = np.ones(len(merged), bool)
    np.not_equal(merged[1:], merged[:-1], out=is_first[1:])
    union: Integers = merged[is_first]
    return union
