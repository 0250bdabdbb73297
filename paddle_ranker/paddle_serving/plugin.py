"""What Paddle Serving adds to the server; importing this module registers it, and is fast."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Optional

from paddle_ranker.paddle_serving.pipeline_options import PipelineOptions, pipeline_options
from paddle_ranker.serving.core.server_config import ServeConfig
from paddle_ranker.serving.http.endpoints import ENDPOINTS, Endpoint
from paddle_ranker.serving.process.protocols import PROTOCOLS, PortProtocol, ServerContext
from paddle_ranker.serving.slots.slot_kinds import SERVE_OPTIONS

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from paddle_ranker.serving.core.connections import ProtocolHandler
    from paddle_ranker.serving.slots.slots import Slots


class PaddleServing(Endpoint):
    """The C++ server's paths over HTTP, and the pipeline's gateway, which takes every other path of two parts."""

    slots = ()
    paths: ClassVar[Mapping[str, str]] = {}
    comes_last = True

    def routes(self, slots: Slots, config: ServeConfig) -> list[BaseRoute]:
        from paddle_ranker.paddle_serving.http import routes
        from paddle_ranker.paddle_serving.pipeline import PipelineNames
        from paddle_ranker.paddle_serving.served_models import models_of

        options = pipeline_options(config)
        return routes(models_of(slots, config), PipelineNames(options.pipeline_service, options.pipeline_method))

    def name_of(self, path: str) -> Optional[str]:
        first, _, rest = path[1:].partition("/")
        if first.rpartition(".")[2] == "GeneralModelService":
            return "brpc_http"
        return "pipeline_http" if rest else None


async def _start_baidu_std(context: ServerContext) -> ProtocolHandler:
    from paddle_ranker.paddle_serving.port_protocols import start_baidu_std

    return await start_baidu_std(context)


async def _start_grpc(context: ServerContext) -> ProtocolHandler:
    from paddle_ranker.paddle_serving.port_protocols import start_grpc_behind_port

    return await start_grpc_behind_port(context)


SERVE_OPTIONS.add("pipeline", PipelineOptions)
ENDPOINTS.add("paddle_serving", PaddleServing())
PROTOCOLS.add("baidu_std", PortProtocol("baidu_std", b"PRPC", _start_baidu_std))
PROTOCOLS.add("grpc", PortProtocol("gRPC", b"PRI ", _start_grpc))
