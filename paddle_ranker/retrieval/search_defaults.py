"""Defaults of searches, and the option of every command that may connect to Milvus on behalf of an index folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from paddle_ranker.options import Options, option
from paddle_ranker.options.declare import ANY_TEXT

SYNONYMS = (
    'a UTF-8 file of synonyms, a line each: "car, automobile" (each also finds the other) or "laptop => notebook '
    'computer" (what stands left also finds what stands right)'
)
DEPTH, RANK_TOP, TOP_K = 100, 50, 10  # see `search.SearchSettings`
FUSION = "weighted"  # level with or ahead of rrf on each of the sets in docs/collections.md


@dataclass(frozen=True)
class MilvusOptions(Options):
    """Option of commands that may connect to Milvus for the vectors of an index folder."""

    milvus_uri: Optional[str] = option(
        None,
        help="address of the Milvus server that has the index's vectors; an address that is only in the folder, which "
        "may be from anywhere, is not connected to",
        shared=True,
        addresses=ANY_TEXT,
    )
