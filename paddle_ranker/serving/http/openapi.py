"""The server's OpenAPI description, and an HTML page that shows it without loading anything from elsewhere."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Any

from paddle_ranker import __version__
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
from paddle_ranker.serving.core.validation import Body

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
_ALSO = {  # of some operations
    READ_ONLY: "The server only reads, or a page of another site asks",
    NO_DOCUMENT: "There is no document of this id",
    NOT_FOUND: "The server keeps no log",
    ALREADY_THERE: "A document of this id is there already, and not alike",
}
NUMBER = {"type": "number"}
_STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
    "pre{background:#f4f4f4;padding:1em;overflow:auto}summary{cursor:pointer}"
)
STYLE_DIGEST = "sha256-" + base64.b64encode(sha256(_STYLE.encode()).digest()).decode()  # of the page, for its policy
MODELS_PATH = "/v1/models"


def results_schema(order: str, **parts: Any) -> dict[str, Any]:
    """Return the schema of an answer whose results have the properties `parts`; the first two are required."""
    result = {"type": "object", "required": list(parts)[:2], "properties": parts}
    return {
        "type": "object",
        "required": ["id", "model", "results"],
        "properties": {
            "id": {"type": "string"},
            "model": {"type": "string"},
            "results": {"type": "array", "description": order, "items": result},
        },
    }


_ADMIN = {
    "/live": "Whether the process answers",
    "/ready": "Whether all models are loaded and warmed up: 200, or 503",
    "/health": "As /ready",
    "/metrics": "Figures for Prometheus",
    "/info": "The models, the engine, the limits",
    MODELS_PATH: "The models' names, as OpenAI lists them",
}


def openapi(parts: Iterable[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, Any]:
    """Return the server's description, JSON-ready.

    Args:
        parts: what `Endpoint.describe` returns, for each endpoint.
    """
    schemas: dict[str, Any] = {"Error": _error_schema()}
    paths: dict[str, Any] = {}
    for described, referred in parts:
        paths.update(described)
        schemas.update(referred)
    for path, text in _ADMIN.items():
        paths[path] = {"get": {"summary": text, "responses": {"200": {"description": "OK"}}}}
    reload = {"200": {"description": "Done"}, "202": {"description": "Begun, in every worker"}}
    paths["/admin/reload"] = {"post": {"summary": "Load the models' folders anew", "responses": reload}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "paddle_ranker", "version": __version__},
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


def schemas_of(*models: Any) -> dict[str, Any]:
    """Return the schemas of pydantic's classes, a dict keyed by name."""
    schemas: dict[str, Any] = {}
    for model in models:
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(schema.pop("$defs", {}))
        if issubclass(model, Body):
            schema["additionalProperties"] = model.ignores_unknown
            if model.refused or model.without_effect:
                told = (
                    f"Without effect: {', '.join(sorted(model.without_effect))}. Refused, if they ask for something: "
                )
                schema["description"] += f" {told}{', '.join(sorted(model.refused))}."
        schemas[model.__name__] = schema
    return schemas


def operation(
    summary: str, takes: list[str], gives: list[str], what: str = "Scores", also: Sequence[FaultKind] = ()
) -> dict[str, Any]:
    """Return the description of a request that is answered with `what`.

    Args:
        takes, gives: names of the schemas of bodies and answers; a request that takes none has no body.
        also: refusals beside those of every operation.
    """
    body = {"required": True, "content": {"application/json": {"schema": _one_of(takes)}}} if takes else None
    headers = {
        "X-Request-Id": "comes back with the answer, and stands in the log",
        "X-Request-Timeout-Ms": "milliseconds after which nobody waits for the answer",
    }
    return {
        "summary": summary,
        "parameters": [
            {"name": name, "in": "header", "description": text, "schema": {"type": "string"}}
            for name, text in headers.items()
        ],
        **({"requestBody": body} if body else {}),
        "responses": {
            "200": {"description": what, "content": {"application/json": {"schema": _one_of(gives)}}},
            **{str(kind.http): _refusal(text) for kind, text in _WHEN.items()},
            **{str(kind.http): _refusal(_ALSO[kind]) for kind in also},
        },
    }


def _one_of(names: list[str]) -> dict[str, Any]:
    references: list[dict[str, Any]] = [{"$ref": f"#/components/schemas/{name}"} for name in names]
    return references[0] if len(references) == 1 else {"oneOf": references}


def _refusal(text: str) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": _one_of(["Error"])}}}


def _error_schema() -> dict[str, Any]:
    names = {"error": "what was found, and where", "error_type": ", ".join(kind.name for kind in [*_WHEN, *_ALSO])}
    names.update({"message": "as error", "request_id": "stands in the log, too", "field": "where, if in a field"})
    properties = {name: {"type": "string", "description": text} for name, text in names.items()}
    return {"type": "object", "required": ["error", "error_type", "message", "request_id"], "properties": properties}


def docs_page(description: dict[str, Any], examples: Iterable[str]) -> str:
    """Return an HTML page of `description`, which `openapi` returned, with example commands."""
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>paddle_ranker</title>",
        f"<style>{_STYLE}</style>",
        f"<h1>paddle_ranker {html.escape(__version__)}</h1>",
        "<p>The same as <a href=openapi.json>OpenAPI</a>.</p>",
    ]
    for example in examples:
        parts.append(f"<p>For example:</p><pre>{html.escape(example)}</pre>")
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            title = f"<code>{method.upper()} {html.escape(path)}</code> {html.escape(operation['summary'])}"
            parts.append(f"<details><summary>{title}</summary><pre>{_shown(operation)}</pre></details>")
    for name, schema in description["components"]["schemas"].items():
        parts.append(f"<details><summary>{html.escape(name)}</summary><pre>{_shown(schema)}</pre></details>")
    return "\n".join(parts)


def _shown(value: object) -> str:
    return html.escape(json.dumps(value, ensure_ascii=False, indent=2))
