"""The server's OpenAPI description, built from pydantic models."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, Optional

from pydantic import BaseModel, Field, TypeAdapter
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send
from typing_extensions import NotRequired, TypedDict

from paddle_ranker.serving.core.faults import (
    ALREADY_THERE,
    INTERNAL,
    INVALID,
    NO_DOCUMENT,
    NOT_FOUND,
    OVERLOADED,
    READ_ONLY,
    TIMED_OUT,
    TOO_LARGE,
    UNAUTHORIZED,
    UNAVAILABLE,
    UNPROCESSABLE,
    FaultKind,
)
from paddle_ranker.version import __version__

_WHEN = {
    INVALID: "The body is not JSON, or a header is wrong",
    UNAUTHORIZED: "The API key is missing or wrong",
    TOO_LARGE: "Above a limit that /info shows",
    UNPROCESSABLE: "A field is missing or of the wrong type; `field` names it",
    OVERLOADED: "Too much waits for the engine; Retry-After says how many seconds",
    INTERNAL: "The engine failed",
    UNAVAILABLE: "The model is not loaded yet, or the server stops",
    TIMED_OUT: "The deadline passed",
}
_ALSO = {  # faults of some routes
    READ_ONLY: "The server only reads, or a page of another site asks",
    NO_DOCUMENT: "There is no document of this id",
    NOT_FOUND: "The server keeps no log",
    ALREADY_THERE: "A document of this id is there already, and not alike",
}
_HEADERS = [
    {"name": name, "in": "header", "description": text, "schema": {"type": "string"}}
    for name, text in (
        ("X-Request-Id", "comes back with the answer, and stands in the log"),
        ("X-Request-Timeout-Ms", "milliseconds after which nobody waits for the answer"),
    )
]
MODELS_PATH = "/v1/models"
_COMMAND = re.compile(r"SERVER(\S+) .*-d '(.*)'")  # of an example: path and body
_ADMIN = {
    "/live": "Whether the process answers",
    "/ready": "Whether all models are loaded and warmed up: 200, or 503",
    "/health": "As /ready",
    "/metrics": "Metrics for Prometheus",
    "/info": "The models, the engine, the limits",
    MODELS_PATH: "The models' names, as OpenAI lists them",
}


class Error(TypedDict):
    """A refused request."""

    error: Annotated[str, Field(description="what was found, and where")]
    error_type: Annotated[str, Field(description=", ".join(kind.name for kind in [*_WHEN, *_ALSO]))]
    message: Annotated[str, Field(description="as error")]
    request_id: Annotated[str, Field(description="stands in the log, too")]
    field: NotRequired[Annotated[str, Field(description="where, if in a field")]]


class _Handler:
    """ASGI application that calls one handler, without Starlette's error layers: the middleware answers errors."""

    def __init__(self, handler: Callable[[Request], Awaitable[Response]]):
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._handler(Request(scope, receive))
        await response(scope, receive, send)


def address_parameters(model: type[BaseModel], names: Mapping[str, str] = MappingProxyType({})) -> list[dict[str, Any]]:
    """Describe the fields of a model as query parameters, in OpenAPI's form.

    names: the parameter's name by the field's name, for parameters that have another name than their field
    """
    described = model.model_json_schema()
    required = described.get("required", ())
    return [
        {"name": names.get(name, name), "in": "query", "required": name in required, "schema": schema}
        for name, schema in described["properties"].items()
    ]


class DescribedRoute(Route):
    """A route that the OpenAPI description shows.

    Args:
        summary: says what a request does, as a verb and an object.
        takes: types of the body, any that pydantic knows; if empty, a request has no body.
        gives: types of the answer; if empty, the answer is a file.
        what: description of the answer.
        also: kinds of faults in addition to those of every route.
        parameters: OpenAPI's parameters of the path or the query.
        forms: further content types of the body, and the body's type in each.
    """

    def __init__(
        self,
        method: str,
        path: str,
        handler: Callable[[Request], Awaitable[Response]],
        summary: str,
        takes: Sequence[object] = (),
        gives: Sequence[object] = (),
        what: str = "Scores",
        *,
        also: Sequence[FaultKind] = (),
        parameters: Sequence[Mapping[str, Any]] = (),
        forms: Optional[Mapping[str, object]] = None,
    ):
        super().__init__(path, _Handler(handler), methods=[method])
        self.method, self.summary, self.takes, self.gives, self.what = method.lower(), summary, takes, gives, what
        self.also, self.parameters, self.forms = also, parameters, forms or {}


def openapi(routes: Iterable[BaseRoute], examples: Sequence[str] = ()) -> dict[str, Any]:
    """Return the OpenAPI description of each `DescribedRoute` in `routes` and of the admin routes, JSON-ready.

    examples: command lines that the description shows at its beginning: `curl SERVER/v1/search -d '{"query": "…"}'`
    """
    bodies = {path: json.loads(body) for path, body in _COMMAND.findall("\n".join(examples))}
    schemas: dict[str, Any] = {}
    paths: dict[str, dict[str, Any]] = {}

    def refer(*kinds: object) -> dict[str, Any]:
        """Return the schema of a value of any of these types. Add the schemas of its parts to `schemas`."""
        adapters: list[Any] = [(number, "validation", TypeAdapter(kind)) for number, kind in enumerate(kinds)]
        made, named = TypeAdapter.json_schemas(adapters, ref_template="#/components/schemas/{model}")
        schemas.update(named.get("$defs", {}))
        return {"oneOf": list(made.values())} if len(made) > 1 else made[0, "validation"]

    error = _content(refer(Error))
    for route in routes:
        if not isinstance(route, DescribedRoute):
            continue
        shown: dict[str, Any] = {
            "tags": ["Requests"],
            "summary": route.summary,
            "parameters": [*_HEADERS, *route.parameters],
        }
        if route.takes:
            forms = {content_type: {"schema": refer(form)} for content_type, form in route.forms.items()}
            shown["requestBody"] = {"required": True, "content": {**_content(refer(*route.takes)), **forms}}
            if route.path_format in bodies:
                shown["requestBody"]["content"]["application/json"]["example"] = bodies[route.path_format]
        refusals = {**_WHEN, **{kind: _ALSO[kind] for kind in route.also}}
        shown["responses"] = {
            "200": {
                "description": route.what,
                "content": _content(refer(*route.gives)) if route.gives else {"*/*": {}},
            },
            **{str(kind.http): {"description": text, "content": error} for kind, text in refusals.items()},
        }
        paths.setdefault(route.path_format, {})[route.method] = shown
    for path, text in _ADMIN.items():
        paths[path] = {"get": {"tags": ["Operation"], "summary": text, "responses": {"200": {"description": "OK"}}}}
    reload = {"200": {"description": "Done"}, "202": {"description": "Begun, in every worker"}}
    paths["/admin/reload"] = {
        "post": {"tags": ["Operation"], "summary": "Load the models' folders anew", "responses": reload}
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "paddle_ranker",
            "version": __version__,
            "description": "\n\n".join(f"```bash\n{example}\n```" for example in examples),
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
        "security": [{}, {"bearer": []}, {"key": []}],
    }


def _content(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
