"""Registry of endpoints: the HTTP routes of a server, and the slots that they ask.

    class Vectors(Endpoint):
        slots = ("vectors",)
        paths: ClassVar[Mapping[str, str]] = {"/v1/embeddings": "embeddings"}
        ...

    ENDPOINTS.add("embeddings", Vectors())

in a module that `PADDLE_RANKER_PLUGINS` names gives the server the path, where it has the slot `vectors`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from paddle_ranker.registry import Registry
from paddle_ranker.serving.core.config import RANKER, ServeConfig

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from paddle_ranker.serving.core.slots import Slots


class Endpoint(ABC):
    """Routes over HTTP that ask one slot of the server or several, in one request and under one deadline.

    Modules that define one are imported before the options are read: what takes long to import, its methods import.

    Attributes:
        slots: names in `SLOTS` of those that it asks; a server without one of them says so.
        paths: of its routes, and what the log and the metrics call their requests.
        example: a command line for `/docs`, with `SERVER` where the server's address belongs, http://127.0.0.1:8600.
    """

    slots: tuple[str, ...]
    paths: ClassVar[Mapping[str, str]]
    example: str = ""

    @abstractmethod
    def routes(self, slots: Slots, config: ServeConfig) -> list[BaseRoute]:
        """Return the routes, one for each of `paths`; of the `slots` it takes those that it names."""

    @abstractmethod
    def describe(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the routes' OpenAPI descriptions by path, and the schemas that they refer to by name."""


class _Rerank(Endpoint):
    """`/rerank` in the shapes of today's clients; Paddle Serving's protocols ask the same slot."""

    slots = (RANKER,)
    paths: ClassVar[Mapping[str, str]] = {"/v1/rerank": "rerank", "/v2/rerank": "rerank", "/rerank": "rerank"}
    example = (
        'curl SERVER/v1/rerank -H \'Content-Type: application/json\' -d \'{"query": "深度学习", '
        '"documents": ["深度学习在水稻病害诊断中的研究", "老年人护理教育研究"], "top_n": 1}\''
    )

    def routes(self, slots: Slots, config: ServeConfig) -> list[BaseRoute]:
        from paddle_ranker.serving.core.ranker_slot import RankerSlot
        from paddle_ranker.serving.http.rerank import routes

        return routes(slots.of(RANKER, RankerSlot), keep_texts=config.log_texts)

    def describe(self) -> tuple[dict[str, Any], dict[str, Any]]:
        from paddle_ranker.serving.http.rerank import describe

        return describe()


ENDPOINTS: Registry[Endpoint] = Registry("endpoint", recipes="plugin")
ENDPOINTS.add("rerank", _Rerank())
