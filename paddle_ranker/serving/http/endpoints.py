"""Registry of served models: each names its option of `serve`, its HTTP routes, and what `/info` and the metrics show.

    class Vectors(Endpoint):
        name, what, option, options = "vectors", "model of vectors", "vector_model", VectorOptions
        paths: ClassVar[Mapping[str, str]] = {"/v1/embeddings": "embeddings"}
        ...

    ENDPOINTS.add("vectors", Vectors())

in a module that `PADDLE_RANKER_PLUGINS` names gives `serve` the option `--vector_model FOLDER`, the server the path.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Optional

from paddle_ranker.errors import UsageError
from paddle_ranker.options import Options
from paddle_ranker.registry import Registry
from paddle_ranker.scoring.engines.registry import ENGINES
from paddle_ranker.serving.core.config import ServeConfig

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from paddle_ranker.serving.core.batcher import BatchObserver
    from paddle_ranker.serving.core.model_slot import ModelSlot, Served

RANKER = "ranker"


class Endpoint(ABC):
    """A kind of served model and the HTTP routes that ask it.

    Modules that define one are imported before the options are read: what takes long to import, its methods import.

    Attributes:
        name: its key in the registry and in `/info`; its metrics' names begin with it.
        what: it is called in error texts, "ranker".
        option: of `serve`, names the model's folder; its value is an attribute of `options`.
        options: what `serve` accepts for it.
        limits: those of the options that are limits, for `/info`.
        paths: of its routes, and what the log and the metrics call their requests.
        example: a command line for `/docs`, with `SERVER` where the server's address belongs, http://127.0.0.1:8600.
    """

    name: str
    what: str
    option: str
    options: type[Options]
    limits: tuple[str, ...] = ()
    paths: ClassVar[Mapping[str, str]]
    example: str = ""

    def given(self, config: ServeConfig) -> Any:
        """Return the endpoint's own options: `config` itself where it has them, else their defaults."""
        return config if isinstance(config, self.options) else self.options()

    def folder(self, config: ServeConfig) -> Optional[Path]:
        """Return the model's folder; None: this server has no such model."""
        found = getattr(self.given(config), self.option)
        return None if found is None else Path(found)

    def needs_paddle(self, config: ServeConfig) -> bool:
        """Return whether Paddle is imported with the model."""
        return True

    @abstractmethod
    def service(self, config: ServeConfig) -> ModelSlot[Any]:
        """Return what answers requests; its model comes later."""

    @abstractmethod
    def load(self, config: ServeConfig, observer: BatchObserver) -> Served:
        """Return the model of the folder, warmed up and checked; called in a thread, at the start and at each reload.

        Raises `CheckpointError` and the like where it cannot be served.
        """

    @abstractmethod
    def routes(self, service: Any, config: ServeConfig) -> list[BaseRoute]:
        """Return the routes, one for each of `paths`."""

    @abstractmethod
    def info(self, service: Any, config: ServeConfig) -> dict[str, Any]:
        """Return what `/info` shows of the model; raises `Fault(UNAVAILABLE)` until it is loaded."""

    @abstractmethod
    def describe(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the routes' OpenAPI descriptions by path, and the schemas that they refer to by name."""


class _Ranker(Endpoint):
    """Rankers, asked by `/rerank`; Paddle Serving's protocols ask the same service."""

    name, what, option, options = RANKER, "ranker", "model", ServeConfig
    paths: ClassVar[Mapping[str, str]] = {"/v1/rerank": "rerank", "/v2/rerank": "rerank", "/rerank": "rerank"}
    example = (
        'curl SERVER/v1/rerank -H \'Content-Type: application/json\' -d \'{"query": "深度学习", '
        '"documents": ["深度学习在水稻病害诊断中的研究", "老年人护理教育研究"], "top_n": 1}\''
    )

    def needs_paddle(self, config: ServeConfig) -> bool:
        return config.engine is None or ENGINES[config.engine].needs_paddle

    def service(self, config: ServeConfig) -> ModelSlot[Any]:
        from paddle_ranker.serving.core.service import EngineService

        return EngineService(config.limits)

    def load(self, config: ServeConfig, observer: BatchObserver) -> Served:
        from paddle_ranker.serving.core.models import load_served_model

        return load_served_model(config, observer)

    def routes(self, service: Any, config: ServeConfig) -> list[BaseRoute]:
        from paddle_ranker.serving.http.rerank import routes

        return routes(service, keep_texts=config.log_texts)

    def info(self, service: Any, config: ServeConfig) -> dict[str, Any]:
        from paddle_ranker.serving.http.rerank import info

        return info(service, config)

    def describe(self) -> tuple[dict[str, Any], dict[str, Any]]:
        from paddle_ranker.serving.http.rerank import describe

        return describe()


ENDPOINTS: Registry[Endpoint] = Registry("served model", recipes="paddle_ranker.recipes.endpoints")
ENDPOINTS.add(RANKER, _Ranker())


def serve_options() -> type[ServeConfig]:
    """Return the class of `serve`'s options: `ServeConfig` with those of every endpoint that is registered."""
    others = [endpoint.options for endpoint in ENDPOINTS.values() if endpoint.options is not ServeConfig]
    return dataclasses.make_dataclass("ServeOptions", [], bases=(*others, ServeConfig), frozen=True)


def served_by(config: ServeConfig) -> dict[str, Endpoint]:
    """Return the endpoints whose models this server has, by name; raises `UsageError` where there are none."""
    found = {name: endpoint for name, endpoint in ENDPOINTS.items() if endpoint.folder(config) is not None}
    if not found:
        options = " or ".join(f"--{endpoint.option}" for endpoint in ENDPOINTS.values())
        raise UsageError(f"nothing to serve: give {options}")
    return found
