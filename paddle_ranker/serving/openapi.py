"""The server's OpenAPI description, and a page that shows it and needs nothing from elsewhere."""

from __future__ import annotations

import html
import json
from typing import Any

from paddle_ranker import __version__
from paddle_ranker.serving.faults import (
    INTERNAL,
    INVALID,
    OVERLOADED,
    TIMED_OUT,
    TOO_LARGE,
    UNAUTHORIZED,
    UNAVAILABLE,
    UNPROCESSABLE,
    FaultKind,
)

_WHEN = {
    INVALID: "The body is not JSON, or a header is wrong",
    UNAUTHORIZED: "The API key is missing or wrong",
    TOO_LARGE: "Above a limit that /info shows",
    UNPROCESSABLE: "A field is missing or of the wrong type; `field` names it",
    OVERLOADED: "Too much waits for the engine; Retry-After says how many seconds",
    INTERNAL: "The engine failed",
    UNAVAILABLE: "The ranker is not loaded yet, or the server stops",
    TIMED_OUT: "The deadline passed",
}
_NUMBER = {"type": "number"}
_RANKED = {
    "type": "object",
    "required": ["id", "model", "results"],
    "properties": {
        "id": {"type": "string"},
        "model": {"type": "string"},
        "results": {
            "type": "array",
            "description": "best first",
            "items": {
                "type": "object",
                "required": ["index", "relevance_score"],
                "properties": {
                    "index": {"type": "integer"},
                    "relevance_score": {**_NUMBER, "description": "the probability of relevance"},
                    "document": {"type": "object", "properties": {"text": {"type": "string"}}},
                },
            },
        },
    },
}
_SCORED = {
    "type": "array",
    "description": "best first",
    "items": {
        "type": "object",
        "required": ["index", "score"],
        "properties": {"index": {"type": "integer"}, "score": _NUMBER, "text": {"type": "string"}},
    },
}
_OPERATORS = {
    "/live": "Whether the process answers",
    "/ready": "Whether the ranker is loaded and warmed up: 200, or 503",
    "/health": "As /ready",
    "/metrics": "Figures for Prometheus",
    "/info": "The ranker, the engine, the limits",
}
_EXAMPLE = {"query": "深度学习", "documents": ["深度学习在水稻病害诊断中的研究", "老年人护理教育研究"], "top_n": 1}


def openapi() -> dict[str, Any]:
    """Return the description, JSON-ready."""
    from paddle_ranker.serving.rerank import RerankRequest, TextsRequest

    template = "#/components/schemas/{model}"
    schemas: dict[str, Any] = {"Ranked": _RANKED, "Scored": _SCORED, "Error": _error_schema()}
    for model in (RerankRequest, TextsRequest):
        schema = model.model_json_schema(ref_template=template)
        schemas.update(schema.pop("$defs", {}))
        schemas[model.__name__] = schema
    ranked = _operation("Rank documents for a query", ["RerankRequest"], ["Ranked"])
    paths: dict[str, Any] = {path: {"post": ranked} for path in ("/v1/rerank", "/v2/rerank")}
    either = _operation(
        "Rank documents, or texts as Text Embeddings Inference has them", ["RerankRequest", "TextsRequest"],
        ["Ranked", "Scored"],
    )  # fmt: skip
    paths["/rerank"] = {"post": either}
    for path, text in _OPERATORS.items():
        paths[path] = {"get": {"summary": text, "responses": {"200": {"description": "OK"}}}}
    reload = {"200": {"description": "Done"}, "202": {"description": "Begun, in every worker"}}
    paths["/admin/reload"] = {"post": {"summary": "Load the model's folder anew", "responses": reload}}
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


def _operation(summary: str, takes: list[str], gives: list[str]) -> dict[str, Any]:
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
        "requestBody": {"required": True, "content": {"application/json": {"schema": _one_of(takes)}}},
        "responses": {
            "200": {"description": "Scores", "content": {"application/json": {"schema": _one_of(gives)}}},
            **{str(kind.http): _refusal(text) for kind, text in _WHEN.items()},
        },
    }


def _one_of(names: list[str]) -> dict[str, Any]:
    references: list[dict[str, Any]] = [{"$ref": f"#/components/schemas/{name}"} for name in names]
    return references[0] if len(references) == 1 else {"oneOf": references}


def _refusal(text: str) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": _one_of(["Error"])}}}


def _error_schema() -> dict[str, Any]:
    names = {"error": "what was found, and where", "error_type": ", ".join(_name(kind) for kind in _WHEN)}
    names.update({"message": "as error", "request_id": "stands in the log, too", "field": "where, if in a field"})
    properties = {name: {"type": "string", "description": text} for name, text in names.items()}
    return {"type": "object", "required": ["error", "error_type", "message", "request_id"], "properties": properties}


def _name(kind: FaultKind) -> str:
    return kind.name


def docs_page(description: dict[str, Any]) -> str:
    """Return the description as a page of HTML."""
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>paddle_ranker</title>",
        "<style>body{font:16px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
        "pre{background:#f4f4f4;padding:1em;overflow:auto}summary{cursor:pointer}</style>",
        f"<h1>paddle_ranker {html.escape(__version__)}</h1>",
        "<p>The same as <a href=openapi.json>OpenAPI</a>. For example:</p>",
        f"<pre>{_shown_example()}</pre>",
    ]
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            title = f"<code>{method.upper()} {html.escape(path)}</code> {html.escape(operation['summary'])}"
            parts.append(f"<details><summary>{title}</summary><pre>{_shown(operation)}</pre></details>")
    for name, schema in description["components"]["schemas"].items():
        parts.append(f"<details><summary>{html.escape(name)}</summary><pre>{_shown(schema)}</pre></details>")
    return "\n".join(parts)


def _shown_example() -> str:
    data = json.dumps(_EXAMPLE, ensure_ascii=False)
    return html.escape(f"curl http://127.0.0.1:8600/v1/rerank -H 'Content-Type: application/json' -d '{data}'")


def _shown(value: object) -> str:
    return html.escape(json.dumps(value, ensure_ascii=False, indent=2))
