"""The server's OpenAPI description, and a page that shows it and needs nothing from elsewhere."""

from __future__ import annotations

import html
import json
from typing import Any

from paddle_ranker import __version__
from paddle_ranker.serving.core.faults import (
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
    UNAVAILABLE: "The model is not loaded yet, or the server stops",
    TIMED_OUT: "The deadline passed",
}
_NUMBER = {"type": "number"}


def _answer(order: str, **parts: Any) -> dict[str, Any]:
    """Return the schema of an answer whose results have `parts`, of which the first two are always there."""
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


_RANKED = _answer(
    "best first",
    index={"type": "integer"},
    relevance_score={**_NUMBER, "description": "the probability of relevance"},
    document={"type": "object", "properties": {"text": {"type": "string"}}},
)
_JUDGED = _answer(
    "in the order of the pairs",
    label={"type": "string", "description": "the likeliest class"},
    probabilities={"type": "object", "additionalProperties": _NUMBER},
)
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
    "/ready": "Whether all models are loaded and warmed up: 200, or 503",
    "/health": "As /ready",
    "/metrics": "Figures for Prometheus",
    "/info": "The models, the engine, the limits",
}
_EXAMPLE = {"query": "深度学习", "documents": ["深度学习在水稻病害诊断中的研究", "老年人护理教育研究"], "top_n": 1}
_FORM = {
    "type": "object",
    "properties": {
        **{name: {"type": "string"} for name in ("text_1", "text_2")},
        **{name: {"type": "string", "format": "binary"} for name in ("image_1", "image_2")},
    },
}


def openapi(*, ranker: bool = True, entailment: bool = False) -> dict[str, Any]:
    """Return the description, JSON-ready.

    Args:
        ranker, entailment: whether the server has such a model.
    """
    schemas: dict[str, Any] = {"Error": _error_schema()}
    paths: dict[str, Any] = {}
    if ranker:
        _describe_ranking(paths, schemas)
    if entailment:
        _describe_entailment(paths, schemas)
    for path, text in _OPERATORS.items():
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


def _describe_ranking(paths: dict[str, Any], schemas: dict[str, Any]) -> None:
    from paddle_ranker.serving.http.rerank import RerankRequest, TextsRequest

    schemas.update({"Ranked": _RANKED, "Scored": _SCORED, **_schemas_of(RerankRequest, TextsRequest)})
    ranked = _operation("Rank documents for a query", ["RerankRequest"], ["Ranked"])
    paths.update({path: {"post": ranked} for path in ("/v1/rerank", "/v2/rerank")})
    either = _operation(
        "Rank documents, or texts as Text Embeddings Inference has them", ["RerankRequest", "TextsRequest"],
        ["Ranked", "Scored"],
    )  # fmt: skip
    paths["/rerank"] = {"post": either}


def _describe_entailment(paths: dict[str, Any], schemas: dict[str, Any]) -> None:
    from multimodal_entailment.endpoint import PostPair, PostPairs

    schemas.update({"Judged": _JUDGED, **_schemas_of(PostPair, PostPairs)})
    operation = _operation(
        "Say for pairs of posts whether the second follows from the first", ["PostPairs", "PostPair"], ["Judged"]
    )
    operation["requestBody"]["content"]["multipart/form-data"] = {"schema": _FORM}
    paths["/v1/entailment"] = {"post": operation}


def _schemas_of(*models: Any) -> dict[str, Any]:
    schemas: dict[str, Any] = {}
    for model in models:
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(schema.pop("$defs", {}))
        schemas[model.__name__] = schema
    return schemas


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
        "<p>The same as <a href=openapi.json>OpenAPI</a>.</p>",
    ]
    if "/v1/rerank" in description["paths"]:
        parts.append(f"<p>For example:</p><pre>{_shown_example()}</pre>")
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
