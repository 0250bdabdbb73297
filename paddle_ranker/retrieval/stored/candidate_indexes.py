"""Indexes, which retrieve candidate documents for a query; each kind of index is registered by name in `INDEXES`.

index = INDEXES["bm25"].build(documents, IndexOptions(words="bigram"))
for hit_id in index.search(["query"], 10)[0].ids:
    print(index.document(hit_id).text)
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Optional, Protocol

import numpy as np

from paddle_ranker.array_types import Floats
from paddle_ranker.errors import DataError, ParameterError, UsageError, refuse_text
from paddle_ranker.registry import Registry
from paddle_ranker.retrieval.words.word_search import WordSearcher
from paddle_ranker.storage.untrusted import Unchecked

if TYPE_CHECKING:
    from paddle_ranker.retrieval.vectors.text_vectors import Tower


@dataclass(frozen=True)
class Document:
    """Document of a collection: a text with further fields.

    id: id that is unique in the collection
    fields: further values, by name
    version: 1 at first, and 1 more after each replacement
    """

    id: str
    text: str
    fields: Mapping[str, object] = field(default_factory=dict)
    version: int = 1


class Hits(NamedTuple):
    """Documents found for a query, best first.

    ids, scores: ids and scores of the documents, `[found]`
    passages: for each document, start and end, in code points, of the passage that matched; None for a document whose
        whole text matched. The list is None if no text has passages
    titles: scores of the documents' titles, `[found] float64`, see `Generation.with_titles`; None if no title matches
    """

    ids: list[str]
    scores: Floats
    passages: Optional[list[Optional[tuple[int, int]]]] = None
    titles: Optional[Floats] = None

    def without(self, id: str) -> Hits:
        if id not in self.ids:
            return self
        kept = [index for index, hit_id in enumerate(self.ids) if hit_id != id]
        passages = None if self.passages is None else [self.passages[index] for index in kept]
        titles = None if self.titles is None else self.titles[kept]
        return Hits([self.ids[index] for index in kept], self.scores[kept], passages, titles)


class LikeError(ParameterError):
    """Error: the example of a search is unknown or fits no field."""

    def __init__(self, problem: str):
        super().__init__("like", problem)


class Like(NamedTuple):
    """Example for a search of similar documents: a document of the index, or a file.

    id: id of the document; "" for a file
    kind: type of the file, the name in `FIELD_TYPES` of fields that hold such files; "" for a document
    data: bytes of the file
    """

    id: str = ""
    kind: str = ""
    data: bytes = b""


class CandidateIndex(Protocol):
    """Collection of documents that can be searched."""

    def __len__(self) -> int: ...

    def search(self, queries: Sequence[str], top_k: int) -> list[Hits]:
        """Return, for each query, up to `top_k` documents, best first."""
        ...

    def document(self, id: str) -> Document:
        """Return the document with this id; raises `KeyError` if there is none."""
        ...


@dataclass(frozen=True)
class IndexOptions:
    """Options for building an index, of which each kind of index reads some.

    words: tokenizer for an index that compares words: "jieba" for words, or "bigram" for pairs of characters
    seed: random seed for an index that draws documents at random
    tower: computes vectors for an index that compares vectors
    """

    words: str = "jieba"
    seed: int = 1000
    tower: Optional[Tower] = None


@dataclass(frozen=True)
class IndexKind:
    """Kind of index that users can choose.

    build: makes an index from documents and options
    what: describes how the index finds documents, for help texts
    compares_vectors: whether the index compares vectors, which `IndexOptions.tower` computes
    compares_words: whether the index reads `IndexOptions.words`; if not, `mine --words` is refused
    in_folders: whether `index build --method` accepts this kind, for the vectors of an index folder
    require: raises `DependencyError` if a package that the kind needs is missing
    store: if vectors of an index folder are elsewhere, opens them: returns a `VectorStore` for (folder, its
        `VectorsInfo`, address of the server that the caller has named)
    """

    build: Callable[[Iterable[Document], IndexOptions], CandidateIndex]
    what: str
    compares_vectors: bool = False
    compares_words: bool = False
    in_folders: bool = False
    require: Callable[[], object] = bool
    store: Optional[Callable[[Path, Unchecked, Optional[str]], object]] = None


INDEXES: Registry[IndexKind] = Registry("index", "--method", recipes="indexes")


class Methods(Collection[str]):
    """The names in `INDEXES`, read when they are needed; with `in_folders`, those that `index build --method` takes."""

    def __init__(self, in_folders: bool = False):
        self._in_folders = in_folders

    def __iter__(self) -> Iterator[str]:
        INDEXES.load_plugins()
        return (name for name, kind in INDEXES.items() if kind.in_folders or not self._in_folders)

    def __contains__(self, name: object) -> bool:
        return any(name == own for own in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Documents:
    """Documents of an index by id; raises `DataError` if two documents have the same id.

    Attributes:
        by_id: the documents by id.
        ids: the ids, in the order of the documents.
    """

    def __init__(self, documents: Iterable[Document]):
        refuse_text(documents, "documents", Document)
        self.by_id: dict[str, Document] = {}
        for document in documents:
            if document.id in self.by_id:
                raise DataError(f"document {document.id}: there are two of this id; give each its own")
            self.by_id[document.id] = document
        self.ids = list(self.by_id)

    def __len__(self) -> int:
        return len(self.ids)

    def document(self, id: str) -> Document:
        return self.by_id[id]


class WordIndex(Documents):
    """Index that finds documents by BM25; documents that share no token with a query are not found."""

    def __init__(self, documents: Iterable[Document], options: IndexOptions):
        super().__init__(documents)
        self._words = WordSearcher.of_texts((document.text for document in self.by_id.values()), options.words)

    def search(self, queries: Sequence[str], top_k: int) -> list[Hits]:
        """Return, for each query, up to `top_k` documents, best first, equal scores in the documents' order."""
        refuse_text(queries, "queries")
        results = (self._words.search(query, top_k) for query in queries)
        return [Hits([self.ids[number] for number in numbers.tolist()], scores) for numbers, scores in results]


class RandomIndex(Documents):
    """Index that draws documents at random, seeded by the query and `IndexOptions.seed`; a baseline."""

    def __init__(self, documents: Iterable[Document], options: IndexOptions):
        super().__init__(documents)
        self._seed = options.seed

    def search(self, queries: Sequence[str], top_k: int) -> list[Hits]:
        """Return `top_k` different documents for each query, or all if there are fewer, each with score 0."""
        refuse_text(queries, "queries")
        count = min(top_k, len(self))
        draws = (random.Random(f"{self._seed}\t{query}").sample(range(len(self)), count) for query in queries)
        return [Hits([self.ids[number] for number in drawn], np.zeros(count)) for drawn in draws]


class TowerIndex(Documents):
    """Index that finds documents by the inner product of a document's and a query's vector, which a tower makes."""

    def __init__(self, documents: Iterable[Document], options: IndexOptions):
        from paddle_ranker.retrieval.vectors.text_vectors import nearest

        super().__init__(documents)
        if options.tower is None:
            raise UsageError("vectors need what makes them: name the folder of a tower with --tower")
        self._tower, self._nearest = options.tower, nearest
        parts = list(self._tower.stream(document.text for document in self.by_id.values()))
        self._vectors = np.concatenate(parts) if parts else np.empty((0, 1), np.float32)
        self._numbers = {document.text: number for number, document in enumerate(self.by_id.values())}

    def search(self, queries: Sequence[str], top_k: int) -> list[Hits]:
        refuse_text(queries, "queries")
        found, products = self._nearest(self._vectors, self._tower.query_vectors(queries), top_k)
        pairs = zip(found.tolist(), products.astype(np.float64))
        return [Hits([self.ids[number] for number in numbers], scores) for numbers, scores in pairs]

    def score(self, queries: Sequence[str], titles: Sequence[str]) -> Floats:
        """Return the inner product of the vectors of queries[i] and titles[i], for each i, `[n] float64`."""
        refuse_text(queries, "queries")
        refuse_text(titles, "titles")
        numbers = {query: number for number, query in enumerate(dict.fromkeys(queries))}
        others = list(dict.fromkeys(title for title in titles if title not in self._numbers))
        of_queries = self._tower.query_vectors(list(numbers))
        of_others = dict(zip(others, self._tower.vectors(others))) if others else {}
        of_titles = [of_others[t] if t in of_others else self._vectors[self._numbers[t]] for t in titles]
        products: Floats = np.einsum("ij,ij->i", of_queries[[numbers[query] for query in queries]], of_titles)
        return products.astype(np.float64)


INDEXES.add("bm25", IndexKind(WordIndex, "by the words that they share with the query", compares_words=True))
INDEXES.add("random", IndexKind(RandomIndex, "at random"))
INDEXES.add("tower", IndexKind(TowerIndex, "by the vectors of --tower", compares_vectors=True))
