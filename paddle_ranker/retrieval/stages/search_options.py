"""Options that several commands about searches have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from paddle_ranker.options import Options, option
from paddle_ranker.options.declare import ANY_TEXT

SYNONYMS = (
    'a UTF-8 file of synonyms, a line each: "car, automobile" (each also finds the other) or "laptop => notebook '
    'computer" (what stands left also finds what stands right)'
)


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
