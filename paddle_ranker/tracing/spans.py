"""Spans of requests and their stages, made once a request is answered, from the times that the server notes anyway."""

from __future__ import annotations

import os
import time
from importlib import metadata
from typing import Any

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from paddle_ranker.serving.core.observers import AnsweredRequest
from paddle_ranker.version import __version__

_CONTEXT = (b"traceparent", b"tracestate")
_FLUSH_MILLISECONDS = 5000


def open_provider(named: str) -> TracerProvider:
    """Return what sends spans to an exporter, by a name of OTEL_TRACES_EXPORTER: otlp, console, or a package's.

    Sampler, service name, address and batches are those of OpenTelemetry's environment variables. Raises `ImportError`
    if there is no such exporter.
    """
    if named == "otlp":
        is_grpc = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "").startswith("grpc")
        named = "otlp_proto_grpc" if is_grpc else "otlp_proto_http"
    found = [
        point
        for distribution in metadata.distributions()
        for point in distribution.entry_points
        if (point.group, point.name) == ("opentelemetry_traces_exporter", named)
    ]
    if not found:
        raise ImportError(f"no package has the exporter {named}")
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(found[0].load()()))
    return provider


class Tracing:
    """Observer that makes spans. A request with `traceparent` continues the caller's trace.

    provider: makes the spans, and sends them from a thread of its own
    """

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("paddle_ranker", __version__)
        self._propagator = TraceContextTextMapPropagator()

    def answered(self, request: AnsweredRequest) -> None:
        if request.protocol == "operators":  # health checks, and metrics
            return
        end = time.time_ns()
        carrier = {
            name.decode(): request.headers[name].decode("latin-1") for name in _CONTEXT if name in request.headers
        }
        attributes: dict[str, Any] = {
            "http.request.method": request.method,
            "http.response.status_code": request.status,
            "paddle_ranker.protocol": request.protocol,
            "paddle_ranker.outcome": request.outcome,
            "paddle_ranker.request_id": request.request_id,
        }
        if request.path is not None:
            attributes["http.route"] = request.path
        if request.pairs is not None:
            attributes["paddle_ranker.pairs"] = request.pairs
        span = self._tracer.start_span(
            f"{request.method} {request.path or request.protocol}",
            self._propagator.extract(carrier),
            SpanKind.SERVER,
            attributes,
            start_time=end - int(1e9 * request.seconds),
        )
        if span.is_recording():
            shift, inside = time.time_ns() - time.monotonic_ns(), set_span_in_context(span)
            for name, began, ended in request.spans:
                if name != "total":
                    stage = self._tracer.start_span(name, inside, start_time=shift + int(1e9 * began))
                    stage.end(shift + int(1e9 * ended))
            if request.status >= 500:
                span.set_status(StatusCode.ERROR, request.outcome)
        span.end(end)

    def close(self) -> None:
        self._provider.force_flush(_FLUSH_MILLISECONDS)
        self._provider.shutdown()
