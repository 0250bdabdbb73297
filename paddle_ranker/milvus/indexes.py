"""The kind of index; importing this module registers it, and does not need Milvus's client."""

from __future__ import annotations

from functools import partial

from paddle_ranker.milvus.store import MilvusSearch, load_pymilvus
from paddle_ranker.retrieval.index.vector_indexes import FolderIndex
from paddle_ranker.retrieval.stored.candidate_indexes import INDEXES, IndexKind

MILVUS = "milvus"

INDEXES.add(
    MILVUS,
    IndexKind(
        partial(FolderIndex, method=MILVUS),
        "by the vectors of --tower, with Milvus Lite",
        compares_vectors=True,
        in_folders=True,
        require=load_pymilvus,
        store=MilvusSearch,
    ),
)
