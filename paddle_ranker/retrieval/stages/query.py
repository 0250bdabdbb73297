"""The query of a search: who searches for it, and how searchers, a ranker and highlights read its words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Optional, Union

from paddle_ranker.array_types import Vectors
from paddle_ranker.errors import listed, quoted, refuse_text
from paddle_ranker.retrieval.snapshots.searchable import Matching, Snapshot
from paddle_ranker.retrieval.stored.candidate_indexes import Like, LikeError
from paddle_ranker.retrieval.stored.manifest import WORDS
from paddle_ranker.retrieval.words.query_parsing import ParsedQuery, parse_query, required_word
from paddle_ranker.retrieval.words.query_rewriting import PREFIX, WordQuery, corrected_phrases
from paddle_ranker.retrieval.words.word_search import single_token
from paddle_ranker.retrieval.work.turns import once

if TYPE_CHECKING:
    from paddle_ranker.lexical.highlights import SharedWords
    from paddle_ranker.retrieval.words.synonyms import Synonyms


class SearchedQuery:
    """Query that a snapshot is searched for, as each part of a search reads it.

    What needs a look into the index is computed when it is first read.

    Args:
        collection: the snapshot that is searched.
        text: the query, as text or parsed.
        searchers: names of the searchers.
        like: an example, a document or a file, to search by beside the query's words or in their place.
        literal, prefix, synonyms: how the query is read, see `SearchSettings`.

    Attributes:
        parsed: the parsed query.
        text: its words, as typed.
        searchers: names of the searchers that are used; `choose_searchers` and `leave_out` drop some.
        like_vectors: vector of `like` by vector field, `[1, size]`; set by `choose_searchers`.
        is_browsing: whether the query has no words, and there is no `like`: then documents are listed, not searched.
    """

    def __init__(
        self,
        collection: Snapshot,
        text: Union[str, ParsedQuery],
        searchers: Sequence[str],
        like: Optional[Like] = None,
        *,
        literal: bool = False,
        prefix: bool = False,
        synonyms: Optional[Synonyms] = None,
    ):
        refuse_text(searchers, "searchers")
        self.parsed = parse_query(text, literal=literal) if isinstance(text, str) else text
        self.text, self.collection, self.searchers = self.parsed.text, collection, tuple(searchers)
        self.like, self.like_vectors = like, dict[str, Vectors]()
        self.is_browsing = like is None and not self.has_words
        self._literal, self._prefix, self._synonyms = literal, prefix, synonyms

    @property
    def has_words(self) -> bool:
        """Whether the query has words, phrases or exclusions."""
        return bool(self.text.strip() or self.parsed.phrases or self.parsed.excluded)

    def choose_searchers(self) -> None:
        """Compute the vector of `like` in each vector field; drop searchers with nothing to search for.

        A vector field with such a vector is always kept. Another searcher is dropped if the query has no words, or if
        its tower reads no texts. Raises `LikeError` if no searcher is left, or if `like` is unknown or has no vector.
        """
        fields = self.collection.info.vector_fields
        if self.like is not None:
            if self.like.id and self.collection.missing([self.like.id]):
                raise LikeError(f"there is no document {quoted(self.like.id)}")
            for name in filter(fields.__contains__, self.searchers):
                if len(vectors := self.collection.like_vectors(name, self.like)):
                    self.like_vectors[name] = vectors
            if not self.like_vectors:
                what = f"document {quoted(self.like.id)}" if self.like.id else f"a {self.like.kind}"
                problem = f"{what} has no vector in any of {listed(self.searchers)}, which are searched"
                raise LikeError(f"{problem}; build the index with --tower or --field_tower")
        texts = {name for name in self.searchers if name not in fields or fields[name].reads_texts}
        usable = {*self.like_vectors, *(texts if self.has_words else ())}
        if not usable:
            raise LikeError(f"is required, because towers of {listed(self.searchers)} read no texts")
        self.searchers = tuple(filter(usable.__contains__, self.searchers))

    def leave_out(self, searcher: str, error: Exception) -> None:
        """Go on without a searcher; raise `error` if none is left."""
        if self.searchers == (searcher,):
            raise error
        self.searchers = tuple(name for name in self.searchers if name != searcher)

    @once
    def words(self) -> WordQuery:
        """The query with corrections and synonyms; if words are not searched, with clear corrections alone.

        The query is as typed if only fields of files are searched (see `tower_text`), or if it is literal.
        """
        if self.is_browsing or self._literal or all(map(self._has_files, self.searchers)):
            return WordQuery(self.text, self.text)
        if WORDS in self.searchers:
            return self.collection.rewrite_query(self.parsed, self._prefix, self._synonyms)
        read = self.collection.rewrite_query(self.parsed)
        return WordQuery(
            self.text, read.text, corrected=tuple(correction for correction in read.corrected if correction.is_clear)
        )

    @once
    def phrase_filter(self) -> Optional[ParsedQuery]:
        """The phrases that results must have, and the phrases that results must not have; None without either."""
        return self.collection.phrase_filter(replace(self.parsed, phrases=self._required))

    @once
    def _required(self) -> tuple[str, ...]:
        """The query's phrases; of a required word that no document has, its correction."""
        if not any(map(required_word, self.parsed.phrases)):
            return self.parsed.phrases
        return corrected_phrases(self.parsed.phrases, self.words, self.collection.info.schema.analyser)

    @property
    def phrases(self) -> list[str]:
        """The phrases that all results have."""
        return [] if self.phrase_filter is None else [*self.phrase_filter.phrases]

    @property
    def unfound(self) -> list[str]:
        """The query's phrases that the search ignores: no document has such a phrase and all phrases kept before it."""
        phrases = self.phrases
        return [phrase for phrase in self._required if phrase not in phrases]

    @property
    def model_text(self) -> str:
        """The query as rankers and towers of texts read it, with its clear corrections."""
        return self.words.text

    def tower_text(self, searcher: str) -> str:
        """The query as a searcher's tower reads it: as typed for fields of files, else `model_text`.

        Corrections come from the words of the index's texts, but pictures show things that no text names: a poodle is
        no mistyped noodle.
        """
        return self.text if self._has_files(searcher) else self.model_text

    def _has_files(self, searcher: str) -> bool:
        return any(field.name == searcher for field in self.collection.info.schema.files)

    @property
    def is_counted(self) -> bool:
        """Whether the documents that match can be counted: vectors alone find all documents, near or far."""
        return self.is_browsing or WORDS in self.searchers

    @once
    def matches(self) -> Matching:
        """The documents that meet `phrase_filter` and share a word with the query.

        If words are not searched, or the query has none, documents need no word of the query.
        """
        by_words = WORDS in self.searchers and not self.is_browsing
        return self.collection.matching(self.words if by_words else None, self.phrase_filter)

    @once
    def word_weights(self) -> dict[str, float]:
        """Weight of each token of the query in BM25, by token; needed if a long text is cut for the ranker."""
        return self.collection.word_weights(self.words)

    def has_close_words(self, ids: Sequence[str], fields: Mapping[str, float], share: float, beside_one: float) -> bool:
        """Return whether one of some documents has enough of the query's weight.

        Enough is `share` of it; or `beside_one` of it beside the document's heaviest word, with the parts of this
        word, such as the characters of a pair. The other words count as much as they add to the document's score, and
        no more than their weight: a text of many pages has some words of any query once.

        ids: the documents' ids, best first
        fields: weights of searched fields, see `Fusion.fields`
        """
        total = self.collection.query_weight(self.words)
        explained = (self.collection.explain_words(self.words, some, fields) for some in (ids[:1], ids[1:]))
        for added in chain.from_iterable(some.values() for some in explained):  # mostly the first document has enough
            weights = {token: self.word_weights[token] for token in added}
            words = ({part for part in weights if part in token} for token in weights)
            heaviest = max(words, key=lambda parts: sum(map(weights.__getitem__, parts)), default=set[str]())
            whole = sum(weights[part] for part in heaviest)
            beside = sum(min(weights[token], score) for token, score in added.items() if token not in heaviest)
            if whole + beside >= share * total or beside >= beside_one * total:
                return bool(whole)
        return False

    @once
    def shared_words(self) -> SharedWords:
        """Finder of the query's words, corrections and synonyms in texts."""
        from paddle_ranker.lexical.highlights import SharedWords

        analyser = self.collection.info.schema.analyser
        completions = {word for one in self.words.corrected if one.by == PREFIX for word in one.to}
        phrases = [
            extra.text
            for extra in self.words.extras
            if extra.is_whole
            # A completion of several parts stands for no part of it alone.
            and (
                single_token(analyser, extra.text) is None
                or (extra.text in completions and len(analyser(extra.text)) > 1)
            )
        ]
        words = [extra.text for extra in self.words.extras if extra.text not in phrases]
        return SharedWords("\n".join([self.text, *words]), analyser, phrases)
