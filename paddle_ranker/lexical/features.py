"""Features of a query's words in texts: 24 features of a pair, and features of the texts of a list.

The logistic regression on the 24 features is a baseline: a ranker that does not beat it has learned nothing useful.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from paddle_ranker.array_types import Floats
from paddle_ranker.errors import package_for
from paddle_ranker.lexical.bm25 import BM25, WordStatistics
from paddle_ranker.lexical.tokens import Tokenizer, letters
from paddle_ranker.metrics.logistic import relevant_of
from paddle_ranker.metrics.ranking import standardised
from paddle_ranker.unicode.character_kinds import normalise

FEATURES = (
    "bm25_words",
    "bm25_words_normalised",
    "bm25_bigrams",
    "bm25_bigrams_normalised",
    "coverage_words",  # share of the query's idf that the title holds
    "coverage_bigrams",
    "longest_run",  # longest shared run of characters over the query's length
    "whole_query",  # 1 if that run is the whole query
    "query_length",
    "title_length",
    "jaccard_words",
    "jaccard_bigrams",
    "first_match",  # position in the title of the first and the last shared bigram, 0 to 1; 1 without a match
    "last_match",
    "match_span",  # characters from the first to the last shared bigram over the query's length
    "rarest_missing_word",  # idf of the query's rarest token that the title lacks
    "rarest_missing_bigram",
    "title_matched",  # share of the title's idf that the query holds
    "numbers_missing",  # numbers and Latin words that only one text has
    "numbers_extra",
    "latin_missing",
    "latin_extra",
    "title_asks",  # 1 if the title has a question mark
    "title_breaks",  # 1 if the title has a colon or an ellipsis
)
LIST_FEATURES = (
    "coverage",  # share of the weight of the query's tokens that the text has
    "coverage_pairs",  # the same for tokens with more than one character
    "coverage_letters",  # share of the query's distinct letters and digits that the text has
    "longest_run",
    "whole_query",
    "text_length",
    "first_match",
    "last_match",
    "match_span",
    "rarest_missing",  # weight of the query's heaviest token that the text lacks
    "numbers_missing",
    "numbers_extra",
    "latin_missing",
    "latin_extra",
    "text_asks",
    "text_breaks",
    "likeness",  # mean Jaccard similarity to the list's other texts
    "likeness_first",  # the same for the first ten texts
)
_FIRST = 10  # texts of `likeness_first`
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_LATIN = re.compile(r"[a-z]+")


class _Characters:
    """Forms of a text by which its characters are compared."""

    def __init__(self, text: str) -> None:
        self.plain = normalise(text)
        self.letters = letters(self.plain)
        self.numbers, self.latin = set(_NUMBER.findall(self.plain)), set(_LATIN.findall(self.plain))

    def shared_run(self, title: _Characters) -> tuple[float, float]:
        """Return the features `longest_run` and `whole_query` of this query and a title."""
        run = longest_shared_run(self.letters, title.letters)
        return run / max(len(self.letters), 1), float(run == len(self.letters))

    def differences(self, title: _Characters) -> list[float]:
        """Return the features of this query and a title from `numbers_missing` to the last of `FEATURES`."""
        return [
            len(self.numbers - title.numbers),
            len(title.numbers - self.numbers),
            len(self.latin - title.latin),
            len(title.latin - self.latin),
            float("?" in title.plain),
            float(":" in title.plain or "..." in title.plain),
        ]


class _TextForms(NamedTuple):
    """Forms of a text from which the features of a pair are computed."""

    words: list[str]
    bigrams: list[str]
    characters: _Characters


class LexicalFeatures:
    """Extractor of the features of pairs, which learns idf from titles."""

    def __init__(self) -> None:
        self._words = BM25("jieba", normalised=False)
        self._bigrams = BM25("bigram", normalised=False)

    def fit(self, titles: Sequence[str]) -> None:
        """Learn idf and mean length from the distinct titles."""
        self._words.fit([], titles)
        self._bigrams.fit([], titles)

    def transform(self, queries: Sequence[str], titles: Sequence[str]) -> NDArray[np.float64]:
        """Return the features of the pairs, `[pairs, 24] float64`, in the order of `FEATURES`."""
        read = lru_cache(maxsize=4096)(self._read)  # a query has many titles
        rows = [self._pair(read(query), self._read(title)) for query, title in zip(queries, titles)]
        return np.array(rows, np.float64).reshape(len(rows), len(FEATURES))

    def _read(self, text: str) -> _TextForms:
        characters = _Characters(text)
        return _TextForms(self._words.tokenize(characters.plain), self._bigrams.tokenize(characters.plain), characters)

    def _pair(self, query: _TextForms, title: _TextForms) -> list[float]:
        bm25_words = self._words.score_tokens(query.words, title.words)
        bm25_bigrams = self._bigrams.score_tokens(query.bigrams, title.bigrams)
        query_words, title_words = set(query.words), set(title.words)
        query_bigrams, title_bigrams = set(query.bigrams), set(title.bigrams)
        words, bigrams = self._words.statistics, self._bigrams.statistics
        letters_of_query, letters_of_title = len(query.characters.letters), len(title.characters.letters)
        matches = [position for position, bigram in enumerate(title.bigrams) if bigram in query_bigrams]
        first, last = (matches[0], matches[-1]) if matches else (len(title.bigrams), len(title.bigrams))
        count = max(len(title.bigrams), 1)
        return [
            bm25_words,
            bm25_words / (self._words.score_tokens(query.words, query.words) or 1.0),
            bm25_bigrams,
            bm25_bigrams / (self._bigrams.score_tokens(query.bigrams, query.bigrams) or 1.0),
            _share(query_words, title_words, words),
            _share(query_bigrams, title_bigrams, bigrams),
            *query.characters.shared_run(title.characters),
            np.log1p(letters_of_query),
            np.log1p(letters_of_title),
            _jaccard(query_words, title_words),
            _jaccard(query_bigrams, title_bigrams),
            first / count,
            last / count,
            min((last - first + 2) / max(letters_of_query, 1), 5.0) if matches else 0.0,
            max(map(words.idf, query_words - title_words), default=0.0),
            max(map(bigrams.idf, query_bigrams - title_bigrams), default=0.0),
            _share(title_words, query_words, words),
            *query.characters.differences(title.characters),
        ]


def longest_shared_run(query: str, title: str) -> int:
    """Return the length, in characters, of the longest substring that both texts have."""
    best = 0
    for start in range(len(query)):
        while start + best < len(query) and query[start : start + best + 1] in title:
            best += 1
    return best


def list_features(query: str, weights: Mapping[str, float], texts: Iterable[str], tokenize: Tokenizer) -> Floats:
    """Return the features of a list's texts, `[texts, features] float64`, in the order of `LIST_FEATURES`.

    Args:
        weights: weight of each token of the query, by token; a result of `Snapshot.word_weights`.
        texts: texts of the list, best first.
        tokenize: tokenizer of the collection.
    """
    characters, pairs = _Characters(query), {token: weight for token, weight in weights.items() if len(token) > 1}
    total, of_pairs = sum(weights.values()) or 1.0, sum(pairs.values()) or 1.0
    query_letters = set(characters.letters)
    rows, token_sets = list[list[float]](), list[set[str]]()
    for text in texts:
        tokens, of_text = tokenize(text), _Characters(text)
        distinct, count = set(tokens), max(len(tokens), 1)
        matches = [position for position, token in enumerate(tokens) if token in weights]
        first, last = (matches[0], matches[-1]) if matches else (len(tokens), len(tokens))
        missing = [weight for token, weight in weights.items() if token not in distinct]
        missing_pairs = (weight for token, weight in pairs.items() if token not in distinct)
        token_sets.append(distinct)
        rows.append([
            1.0 - sum(missing) / total,
            1.0 - sum(missing_pairs) / of_pairs,
            len(query_letters & set(of_text.letters)) / max(len(query_letters), 1),
            *characters.shared_run(of_text),
            np.log1p(len(of_text.letters)),
            first / count,
            last / count,
            (last - first) / max(len(weights), 1),
            max(missing, default=0.0),
            *characters.differences(of_text),
        ])  # fmt: skip
    alike, count = _similarities(token_sets), len(rows)
    others = alike.sum(axis=1) / max(count - 1, 1)
    first_others = np.minimum(_FIRST, count) - (np.arange(count) < _FIRST)
    to_first = alike[:, :_FIRST].sum(axis=1) / np.maximum(first_others, 1)
    text_features = np.array(rows, np.float64).reshape(count, len(LIST_FEATURES) - 2)
    return np.column_stack([text_features, others, to_first])


def _similarities(token_sets: Sequence[set[str]]) -> Floats:
    """Return the Jaccard similarity of each pair of sets, `[sets, sets]`, with 0 on the diagonal."""
    columns = {token: column for column, token in enumerate(set().union(*token_sets))}
    has_token = np.zeros((len(token_sets), len(columns)), np.float64)
    for row, tokens in enumerate(token_sets):
        has_token[row, [columns[token] for token in tokens]] = 1.0
    shared, sizes = has_token @ has_token.T, has_token.sum(axis=1)
    similarities: Floats = shared / np.maximum(sizes[:, None] + sizes - shared, 1.0)
    np.fill_diagonal(similarities, 0.0)
    return similarities


def _share(tokens: set[str], others: set[str], statistics: WordStatistics) -> float:
    total = sum(map(statistics.idf, tokens))
    return sum(map(statistics.idf, tokens & others)) / total if total else 0.0


def _jaccard(first: set[str], second: set[str]) -> float:
    return len(first & second) / len(first | second) if first or second else 0.0


class LexicalLogistic:
    """Ranker by a logistic regression on the 24 standardised lexical features; labels of 1 or more are relevant."""

    def __init__(self) -> None:
        self.features = LexicalFeatures()
        self._model = _standardised_logistic()

    def fit(self, queries: Sequence[str], titles: Sequence[str], labels: ArrayLike) -> None:
        """Learn idf from the titles, and the regression's weights from the labels.

        Raises `DataError` if all pairs are relevant or none is.
        """
        relevant = relevant_of(labels)
        self.features.fit(titles)
        self._model.fit(self.features.transform(queries, titles), relevant)

    def score(self, queries: Sequence[str], titles: Sequence[str]) -> NDArray[np.float64]:
        """Return one logit per pair, `[pairs] float64`."""
        return np.asarray(self._model.decision_function(self.features.transform(queries, titles)), np.float64)

    def cross_fit(
        self, queries: Sequence[str], titles: Sequence[str], labels: ArrayLike, folds: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Score each pair by weights that were learned from the labels of all folds but its own, `[pairs] float64`.

        Idf is learned from all titles, because it needs no labels. Each model scores all pairs, and `standardised`
        scales these scores, so that scores of different folds can be compared.

        folds: the fold of each pair, `[pairs]`
        """
        labels = np.asarray(labels, np.float64)
        self.features.fit(titles)
        features = self.features.transform(queries, titles)
        scores = np.zeros(len(labels))
        for fold in np.unique(folds):
            held_out = folds == fold
            self._model.fit(features[~held_out], relevant_of(labels[~held_out]))
            scores[held_out] = standardised(self._model.decision_function(features))[held_out]
        return scores


def _standardised_logistic() -> Any:
    with package_for("a logistic baseline", "scikit-learn"):
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
