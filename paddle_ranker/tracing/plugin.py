"""Switch traces on; importing this module registers it, and does not import OpenTelemetry."""

from __future__ import annotations

import logging
import os
from typing import Optional

from paddle_ranker.serving.core.observers import OBSERVERS, Observer

_EXPORTER = "OTEL_TRACES_EXPORTER"
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_LOG = logging.getLogger(__name__)


def _open() -> Optional[Observer]:
    """Open the exporter that the environment names; a cluster may set these variables for all of its programs.

    So what is missing is a warning, and not an error.
    """
    named = os.environ.get(_EXPORTER) or ("otlp" if any(map(os.environ.get, _ENDPOINTS)) else "none")
    if named == "none" or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    try:
        from paddle_ranker.tracing.spans import Tracing, open_provider

        return Tracing(open_provider(named))
    except ImportError as error:
        _LOG.warning("no traces are sent: %s; pip install 'paddle-ranker[otel]', or set %s=none", error, _EXPORTER)
    return None


OBSERVERS.add("opentelemetry", _open)
