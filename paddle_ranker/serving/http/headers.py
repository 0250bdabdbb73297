"""Names of HTTP headers that servers and clients agree on."""

from __future__ import annotations

TIMEOUT_HEADER = "x-request-timeout-ms"  # how long the caller waits
ERROR_HEADER = "x-bd-error-code"  # brpc's number of an error
