"""Settings of the search by vectors, as an index states them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Optional

from paddle_ranker.array_types import STORED_TYPES
from paddle_ranker.storage.declared import Between, OneOf

EXACT, FAISS = "exact", "faiss"
STRUCTURES = ("hnsw_sq8", "hnsw", "ivf_sq8", "ivf_pq", "sq8")  # structures of faiss indexes
PLAIN = re.compile(r"\w[\w.-]*")  # file name without a folder
Name = Annotated[str, PLAIN]
_MOST_EF = (1 << 31) - 1  # largest integer of faiss
_MOST_SIZE, _MOST_NEIGHBOURS = 1 << 16, 512  # components of a vector; neighbours of a graph's node


@dataclass(frozen=True)
class VectorsInfo:
    """Settings of the search by vectors.

    method: exact, faiss, or a name in `INDEXES` of what has the vectors elsewhere
    size: components of each vector
    dtype: type in which vectors are stored
    structure: structure of a faiss index, a name in `STRUCTURES`
    hnsw_m: neighbours of each vector in a graph
    hnsw_ef: number of candidates that faiss keeps while it builds or searches a graph
    uri: for vectors elsewhere, the address of their server, or the name of a file in the index folder
    collection: for vectors elsewhere, the name of their collection there
    """

    method: Name
    size: Annotated[int, Between(1, _MOST_SIZE)]
    dtype: Annotated[str, OneOf(*STORED_TYPES)] = "float32"
    structure: Annotated[str, OneOf(*STRUCTURES)] = "hnsw_sq8"
    hnsw_m: Annotated[int, Between(1, _MOST_NEIGHBOURS)] = 32
    hnsw_ef: Annotated[int, Between(1, _MOST_EF)] = 100
    uri: Optional[str] = None
    collection: Optional[Name] = None

    @property
    def are_elsewhere(self) -> bool:
        """Whether the vectors are also in another store, which searches them."""
        return self.method not in (EXACT, FAISS)

    @property
    def server(self) -> Optional[str]:
        """Address of the server that has the vectors; None if no server has them."""
        return self.uri if self.are_elsewhere and is_address(self.uri) else None


def is_address(uri: object) -> bool:
    """Return whether the `uri` of vectors elsewhere is the address of a server, not a file in the index folder."""
    return isinstance(uri, str) and "://" in uri
