"""HTTP routes of Paddle Serving's servers: `/GeneralModelService/inference`, and the pipeline's gateway."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Awaitable
from functools import partial
from typing import Any, Callable

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import Scope

from paddle_ranker.errors import quoted
from paddle_ranker.paddle_serving import general_model, pipeline
from paddle_ranker.paddle_serving.json_messages import read_message, write_message
from paddle_ranker.paddle_serving.messages import GENERAL_METHODS, GENERAL_SERVICE, messages, parse
from paddle_ranker.paddle_serving.pipeline import TUTORIAL_NAMES, PipelineNames
from paddle_ranker.paddle_serving.served_models import Models
from paddle_ranker.serving.core.faults import ERROR_HEADER, INTERNAL, NO_METHOD, Fault
from paddle_ranker.serving.core.threads import run_in_thread
from paddle_ranker.serving.http.exchange import SHARE, answer, deadline_of, read_request
from paddle_ranker.serving.http.middleware import CLIENT_LEFT
from paddle_ranker.serving.slots.tower_options import TOWER_SLOT

PROTO = ("application/proto", "application/x-protobuf")
_LOG = logging.getLogger(__name__)
_VERSION = re.compile("v[0-9]+")  # paths such as /v1/embeddings are no pipeline's
Endpoint = Callable[[Request], Awaitable[Response]]


def routes(models: Models, names: PipelineNames = TUTORIAL_NAMES) -> list[BaseRoute]:
    """Return the routes. Place them last: the last one matches `POST` at any path of two parts."""
    made: list[BaseRoute] = []
    for called in (GENERAL_SERVICE.rpartition(".")[2], GENERAL_SERVICE):
        for method in GENERAL_METHODS:
            made.append(Route(f"/{called}/{method}", _general(models, method), methods=["POST"]))
        made.append(Route(f"/{called}/{{method}}", _no_method, methods=["POST"]))
    made.append(_AnyPipeline("/{name}/{method}", _gateway(models, names), methods=["POST"]))
    return made


class _AnyPipeline(Route):
    """Route of the pipeline's gateway: every path of two parts, except those under a version, `/v1/...`."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child_scope = super().matches(scope)
        if match is not Match.NONE and _VERSION.fullmatch(child_scope["path_params"]["name"]):
            return Match.NONE, {}
        return match, child_scope


def _general(models: Models, method: str) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        async def work() -> Response:
            limits, deadline = models.ranker.limits, deadline_of(request)
            content_type, share = _content_type(request), request.scope["state"].get(SHARE)
            if content_type in PROTO:
                read = partial(parse, messages().Request, bounds=general_model.bounds(models), share=share)
            else:
                read = partial(read_message, message_class=messages().Request, bounds=limits.json_bounds)
            message = await read_request(request, limits.request_bytes, read)
            if method == "debug":
                message.profile_server = True
            response = await general_model.infer(message, models, deadline=deadline, share=share)
            if content_type in PROTO:
                return answer(request, response.SerializeToString(), content_type)
            return answer(request, await run_in_thread(response.ByteSize(), write_message, response))

        return await _answered(work(), request, _general_error)

    return endpoint


def _gateway(models: Models, names: PipelineNames) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        async def work() -> Response:
            limits, deadline = models.ranker.limits, deadline_of(request)
            read = partial(read_message, message_class=messages().PipelineRequest, bounds=limits.json_bounds)
            message = await read_request(request, limits.request_bytes, read)
            message.name, message.method = request.path_params["name"], request.path_params["method"]
            try:
                if message.name in (names.service, TOWER_SLOT) and message.method != names.method:
                    problem = (
                        f"{quoted(message.method)} is no method of {quoted(message.name)}; {quoted(names.method)} is"
                    )
                    raise Fault(NO_METHOD, problem)
                share = request.scope["state"].get(SHARE)
                response = await pipeline.infer(message, models, names, deadline=deadline, share=share)
            except Fault as fault:
                response = pipeline.refusal(_noted(request, fault))
            return answer(request, await run_in_thread(response.ByteSize(), write_message, response, True))

        return await _answered(work(), request, _gateway_error)

    return endpoint


async def _no_method(request: Request) -> Response:
    method = request.path_params["method"]
    fault = Fault(NO_METHOD, f"{quoted(method)} is no method; {', '.join(GENERAL_METHODS)} are")
    return _general_error(request, _noted(request, fault))


def _noted(request: Request, fault: Fault) -> Fault:
    """Record a fault's kind for the log and the metrics. Return the fault without its traceback."""
    request.scope["state"]["outcome"] = fault.kind.name
    return fault.settled()


async def _answered(
    work: Awaitable[Response], request: Request, on_error: Callable[[Request, Fault], Response]
) -> Response:
    try:
        return await work
    except Fault as fault:
        return on_error(request, _noted(request, fault))
    except ClientDisconnect:
        return Response(status_code=CLIENT_LEFT)
    except Exception:
        _LOG.exception("an HTTP request failed")
        return on_error(request, _noted(request, Fault(INTERNAL, "internal error; see the server's log")))


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _general_error(request: Request, fault: Fault) -> Response:
    """Convert a fault to brpc's answer: an HTTP status, brpc's error number in a header, the reason as text."""
    return answer(
        request,
        str(fault).encode("utf-8", "replace"),
        "text/plain; charset=utf-8",
        fault.kind.http,
        **{ERROR_HEADER: str(fault.kind.brpc)},
        **_retry_after(fault),
    )


# Numbers of google.rpc.Code in answers of grpc-gateway, which is the pipeline's HTTP server.
_CODES = {"INVALID_ARGUMENT": 3, "DEADLINE_EXCEEDED": 4, "RESOURCE_EXHAUSTED": 8, "UNIMPLEMENTED": 12, "INTERNAL": 13}


def _gateway_error(request: Request, fault: Fault) -> Response:
    """Convert the fault of a request that is not valid for the pipeline to the answer of grpc-gateway."""
    content: dict[str, Any] = {
        "error": str(fault),
        "code": _CODES.get(fault.kind.grpc, 2),
        "message": str(fault),
        "details": [],
    }
    encoded = json.dumps(content, ensure_ascii=False).encode("utf-8", "replace")
    return answer(request, encoded, status=fault.kind.http, **_retry_after(fault))


def _retry_after(fault: Fault) -> dict[str, str]:
    return {} if fault.retry_after is None else {"retry_after": str(max(1, math.ceil(fault.retry_after)))}
