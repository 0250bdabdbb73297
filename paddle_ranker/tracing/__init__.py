"""Traces by OpenTelemetry: a span of each HTTP request, and in it one of each stage of a search or a rerank.

A guest of this package: no module outside imports it, and without this folder and its line in `paddle_ranker.recipes`
everything else works. It plugs in by `plugin.py`:

    OBSERVERS   opentelemetry: on if OpenTelemetry's own environment variables name an exporter
"""
