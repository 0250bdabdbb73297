"""Registry of endpoints: the HTTP routes of a server, and the slots (models and indexes) that they use.

A module that `PADDLE_RANKER_PLUGINS` names can add an endpoint:

    class Vectors(Endpoint):
        slots = ("vectors",)
        paths: ClassVar[Mapping[str, str]] = {"/v1/vectors": "vectors"}
        ...

    ENDPOINTS.add("vectors", Vectors())

A server with the slot `vectors` then answers at this path; other servers answer that they have no such model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, ClassVar, Optional

from paddle_ranker.registry import Registry
from paddle_ranker.serving.core.faults import Fault
from paddle_ranker.serving.core.server_config import RANKER_SLOT, ServeConfig
from paddle_ranker.serving.slots.index_options import INDEX
from paddle_ranker.serving.slots.tower_options import TOWER_SLOT

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from paddle_ranker.serving.slots.slots import Slots


class Endpoint(ABC):
    """HTTP routes that use one or several slots of the server. A request may use several slots under one deadline.

    Modules that define endpoints are imported before the options are parsed. So modules that take long to import must
    be imported in the methods.

    Attributes:
        slots: names in `SLOTS` of the slots that the routes use; a server that lacks any of them refuses the requests.
        paths: name of a route's requests in the log and the metrics, by the route's path.
        methods: HTTP methods of all routes together.
        read_paths: paths whose POST changes nothing, so that pages of other sites may send it. All others refuse them.
        comes_last: whether the routes match paths of others, which must come before them.
        example: a command line for `/docs`, with `SERVER` in place of the server's address, http://127.0.0.1:8600.
    """

    slots: tuple[str, ...]
    paths: ClassVar[Mapping[str, str]]
    methods: tuple[str, ...] = ("POST",)
    read_paths: Collection[str] = ()
    comes_last: bool = False
    example: str = ""

    @abstractmethod
    def routes(self, slots: Slots, config: ServeConfig) -> list[BaseRoute]:
        """Return the routes of `paths`. The OpenAPI description shows each `DescribedRoute` among them.

        slots: all slots of the server
        """

    def announced(self, config: ServeConfig) -> Mapping[str, str]:
        """Return the paths that a server names when it has started, by what they are."""
        return {}

    def name_of(self, path: str) -> Optional[str]:
        """Return the name of requests at a path that no endpoint's `paths` have; None: it is not this endpoint's."""
        return None

    def refusal(self, fault: Fault, request_id: str) -> dict[str, object]:
        """Convert a fault to JSON for the answers of this endpoint."""
        return refusal(fault, request_id)


def refusal(fault: Fault, request_id: str) -> dict[str, object]:
    """Convert a fault to JSON, with `error` and `error_type` of Text Embeddings Inference and `message` of Cohere."""
    content: dict[str, object] = {
        "error": str(fault),
        "error_type": fault.kind.name,
        "message": str(fault),
        "request_id": request_id,
    }
    if fault.field is not None:
        content["field"] = fault.field
    return content


class _Rerank(Endpoint):
    """`/rerank`, `/score` and `/predict` in today's clients' formats."""

    slots = (RANKER_SLOT,)
    paths: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("/v1/rerank", "/v2/rerank", "/rerank"), "rerank"),
        **dict.fromkeys(("/score", "/v1/score"), "vllm"),
        "/predict": "tei",
    }
    read_paths = paths.keys()
    example = (
        'curl SERVER/v1/rerank -H \'Content-Type: application/json\' -d \'{"query": "深度学习", '
        '"documents": ["深度学习在水稻病害诊断中的研究", "老年人护理教育研究"], "top_n": 1}\''
    )

    def routes(self, slots: Slots, config: ServeConfig) -> list[BaseRoute]:
        from paddle_ranker.serving.http.rerank import routes
        from paddle_ranker.serving.slots.ranker_slot import RankerSlot

        return routes(slots.of(RANKER_SLOT, RankerSlot), keep_texts=config.log_texts)


class _SearchEndpoint(Endpoint):
    """`/v1/search`, and the other routes of an index: documents, feedback, judgments, the search page."""

    slots = (INDEX,)
    paths: ClassVar[Mapping[str, str]] = {
        "/v1/search": "search",
        "/v1/suggest": "suggest",
        "/v1/index": "index",
        "/v1/documents": "documents",
        "/v1/documents/{id:path}": "documents",
        "/v1/contents/{name}": "contents",
        "/v1/feedback": "feedback",
        "/v1/judge": "judge",
    }
    methods = ("GET", "POST", "DELETE")
    read_paths = ("/v1/search",)
    example = (
        'curl SERVER/v1/search -H \'Content-Type: application/json\' -d \'{"query": "苹果手机价格", "top_k": 3, '
        '"rank_top": 50}\''
    )

    def announced(self, config: ServeConfig) -> Mapping[str, str]:
        return {"search page": "/"}

    def routes(self, slots: Slots, config: ServeConfig) -> list[BaseRoute]:
        from paddle_ranker.serving.core.search_log import SearchIds
        from paddle_ranker.serving.http import contents, document_routes, feedback, page, search_routes, suggest
        from paddle_ranker.serving.http.page_look import PageLook
        from paddle_ranker.serving.slots.index_writing import IndexWriter
        from paddle_ranker.serving.slots.queued_search import QueuedSearch

        pipeline = QueuedSearch.of(slots)
        index = pipeline.index
        # Replicas share their key; without one, those that share callers need the file `secret` of one log's folder.
        key = config.api_key or ""
        ids = SearchIds(key.encode() if key or index.log is None else index.log.secret())
        return [
            *page.routes(PageLook.of(index.options)),
            *search_routes.routes(pipeline, ids, keep_texts=config.log_texts),
            *suggest.routes(index, keep_texts=config.log_texts),
            *document_routes.routes(index, IndexWriter(index, pipeline.tower)),
            *contents.routes(index),
            *feedback.routes(index, ids),
        ]


class _Vectors(Endpoint):
    """Vectors of texts, for clients of Text Embeddings Inference, and of texts and pictures for Cohere's."""

    slots = (TOWER_SLOT,)
    paths: ClassVar[Mapping[str, str]] = {
        "/embed": "tei_embed", "/": "tei_embed", "/embed_all": "tei_embed", "/embed_sparse": "tei_embed",
        "/v2/embed": "cohere_embed", "/v1/embed": "cohere_embed",
    }  # fmt: skip
    read_paths = paths.keys()

    def routes(self, slots: Slots, config: ServeConfig) -> list[BaseRoute]:
        from paddle_ranker.serving.http.embeddings import routes
        from paddle_ranker.serving.slots.tower_slot import TowerSlot

        return routes(slots.of(TOWER_SLOT, TowerSlot), self.paths, keep_texts=config.log_texts)


class _OpenAI(_Vectors):
    """Vectors of texts, for clients of OpenAI, Voyage and compatible services."""

    paths: ClassVar[Mapping[str, str]] = {"/v1/embeddings": "embeddings", "/embeddings": "embeddings"}
    read_paths = paths.keys()
    example = (
        'curl SERVER/v1/embeddings -H \'Content-Type: application/json\' -d \'{"input": ["深度学习", "老年人护理"]}\''
    )

    def refusal(self, fault: Fault, request_id: str) -> dict[str, object]:
        from paddle_ranker.serving.http.embeddings import openai_refusal

        return openai_refusal(fault, request_id)


ENDPOINTS: Registry[Endpoint] = Registry("endpoint", recipes="plugin")
ENDPOINTS.add("rerank", _Rerank())
ENDPOINTS.add("search", _SearchEndpoint())
ENDPOINTS.add("embeddings", _OpenAI())
ENDPOINTS.add("embed", _Vectors())
