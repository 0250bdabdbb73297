"""Indexes of vectors for `INDEXES`, as an index folder searches them: exact and faiss."""

from __future__ import annotations

import uuid
import weakref
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from paddle_ranker.array_types import Vectors
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.stored.candidate_indexes import INDEXES as INDEXES
from paddle_ranker.retrieval.stored.candidate_indexes import Document, Hits, IndexKind, IndexOptions, TowerIndex
from paddle_ranker.retrieval.stored.manifest import VECTORS, IndexInfo
from paddle_ranker.retrieval.vectors.faiss_index import load_faiss
from paddle_ranker.retrieval.vectors.vector_settings import EXACT, FAISS, VectorsInfo


def index_of_vectors(folder: Path, info: VectorsInfo, vectors: Vectors) -> Collection:
    """Make an index folder that is searched by vectors alone, not by words; return it open for writing.

    vectors: `[n, size]` float32; the id and the text of each document are the row number of its vector
    """
    collection = Collection.create(folder, IndexInfo(None, info))
    numbers = map(str, range(len(vectors)))
    collection.writer.add((Document(number, number) for number in numbers), lambda texts: vectors[[*map(int, texts)]])
    return collection


class FolderIndex(TowerIndex):
    """Index that finds documents by the inner products of vectors, with the search methods of an index folder.

    The vectors are kept in a temporary folder, which is deleted with this object.

    Args:
        method: how candidates are found among the vectors: a name in `INDEXES`, with the defaults of `index build`.
    """

    def __init__(self, documents: Iterable[Document], options: IndexOptions, method: str):
        super().__init__(documents, options)
        self._folder = TemporaryDirectory(prefix="paddle_ranker_")
        info = VectorsInfo(method, self._vectors.shape[1], uri=f"{method}.db", collection=f"ranker_{uuid.uuid4().hex}")
        self._collection = index_of_vectors(Path(self._folder.name) / "index", info, self._vectors)
        weakref.finalize(self, self._collection.close)

    def search(self, queries: Sequence[str], top_k: int) -> list[Hits]:
        results = self._collection.snapshot().search(VECTORS, self._tower.query_vectors(queries), top_k)
        return [Hits([self.ids[int(number)] for number in hits.ids], hits.scores) for hits in results]


INDEXES.add(EXACT, IndexKind(TowerIndex, "as tower", compares_vectors=True, in_folders=True))
INDEXES.add(
    FAISS,
    IndexKind(
        partial(FolderIndex, method=FAISS),
        "by the vectors of --tower, with a graph of faiss, for large corpora",
        compares_vectors=True,
        in_folders=True,
        require=load_faiss,
    ),
)
