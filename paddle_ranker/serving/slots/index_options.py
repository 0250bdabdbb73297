"""Options of `paddle-ranker search-serve` for an index; kept apart from its slot, which takes long to import."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from paddle_ranker.addresses import address_of
from paddle_ranker.errors import UsageError
from paddle_ranker.options import option
from paddle_ranker.options.declare import ANY_TEXT, FETCHED
from paddle_ranker.retrieval.stages.search_options import SYNONYMS, MilvusOptions
from paddle_ranker.retrieval.values.search_defaults import FUSION
from paddle_ranker.serving.core.limits import Limits
from paddle_ranker.serving.core.page_options import PAGE_OPTIONS, PageOptions
from paddle_ranker.serving.core.search_log import LOG_MB

INDEX = "index"  # name of the index's slot
LIMITS = ("hits", "depth", "queue_searches", "documents")


@dataclass(frozen=True)
class IndexSlotOptions(Limits, MilvusOptions, PageOptions):
    """Options of a server that searches an index, with limits of its requests in addition to `Limits`.

    tower_url, ranker_url: URLs that were given as `--tower` and `--ranker`, of models that searches ask; else None
    """

    index: Optional[Path] = option(  # noqa: RUF009
        None,
        either=True,
        help="an index folder, as index build makes it: POST /v1/search finds its documents",
        addresses=FETCHED,
    )
    fusion: str = option(FUSION, help="how lists become one unless a request says it, as in search: a name, or a file")
    weights: str = option("", help="weights of the searchers, words=1,vectors=2 (default: 1 each)", joins=",")
    ef: Optional[int] = option(None, help="how many vectors a graph index (HNSW) looks at", minimum=1)
    nprobe: Optional[int] = option(None, help="how many lists of an inverted index (IVF) are looked at", minimum=1)
    synonyms: Optional[Path] = option(None, help=SYNONYMS, addresses=FETCHED)  # noqa: RUF009
    writable: bool = option(False, help="add, replace and remove documents: POST and DELETE /v1/documents")
    search_log: Optional[Path] = option(  # noqa: RUF009
        None, help="a folder: searches and feedback are logged there, texts included (default: they are not)"
    )
    search_log_mb: int = option(
        LOG_MB, help="MiB that the log may have; beyond it nothing is logged until files are moved away", minimum=1
    )
    suggest_after: int = option(
        2,
        help="searches of a query with a click, from the log, after which it is suggested to everybody who types its "
        "beginning; 0: only titles are suggested",
        minimum=0,
    )
    highest_label: int = option(
        1, help="highest label of the page /judge: 1, relevant or not; 3, grades from 0 to 3", minimum=1, maximum=9
    )
    examples: tuple[str, ...] = option(
        (), several=True, help="queries that the search page suggests", addresses=ANY_TEXT
    )
    degrade: bool = option(
        True, help="answer in the order before ranking, and say so, where ranking would be late; false: refuse"
    )
    hits: int = option(100, help="greatest top_k of a request: documents of an answer", minimum=1, shared=True)
    depth: int = option(
        1000,
        help="greatest depth of a request: documents that each searcher finds before fusion",
        minimum=1,
        shared=True,
    )
    queue_searches: int = option(256, help="searches that each worker has under way", minimum=1, shared=True)
    tower_url: Optional[str] = None
    ranker_url: Optional[str] = None
    documents: int = option(1000, help="documents of a request that adds or removes some", minimum=1, shared=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.writable and self.index is not None and (address := address_of(str(self.index))) is not None:
            raise UsageError(f"--writable: {address} is only read; name an index folder of this machine")
        for name in ("writable", "search_log", "examples", "synonyms", "milvus_uri", *PAGE_OPTIONS):
            if self.index is None and getattr(self, name):
                raise UsageError(f"--{name} is about an index: name one with --index")
        if self.highest_label > 1 and self.search_log is None:
            raise UsageError("--highest_label is about judgments, which are logged: name a folder with --search_log")
