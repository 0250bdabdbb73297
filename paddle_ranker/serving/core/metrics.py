"""The server's metrics, for Prometheus."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Optional

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

MULTIPROCESS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"  # names the folder of several workers' metrics; set before this
# Gauges of a server with an index. All workers have the same index and log, so the latest value of any worker counts;
# each worker has its own lost lines, which are added up.
GAUGES = {
    "search_documents": ("Documents of the index", "livemostrecent"),
    "search_segments": ("Segments of the index: many small ones slow searches", "livemostrecent"),
    "search_log_bytes": ("Bytes of the files of --search_log", "livemostrecent"),
    "search_log_lost_lines": ("Lines that the log had no room for", "livesum"),
}
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_PAIRS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_RENDERS_A_SECOND = 10
_TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)


class BatchMetrics:
    """Metrics of one model's batches."""

    def __init__(self, model: str, registry: CollectorRegistry):
        from prometheus_client import Counter, Gauge, Histogram

        self._queue = Gauge(
            f"{model}_queue_pairs", "Pairs that wait for the engine", multiprocess_mode="livesum", registry=registry
        )
        self._batch_pairs = Histogram(f"{model}_batch_pairs", "Pairs of a batch", buckets=_PAIRS, registry=registry)
        self._batch_tokens = Histogram(
            f"{model}_batch_tokens", "Tokens of a batch, padding included", buckets=_TOKENS, registry=registry
        )
        self._engine = Counter(f"{model}_engine_seconds", "Seconds that the engine computed", registry=registry)
        self._pairs = Counter(f"{model}_pairs", "Pairs that were scored", registry=registry)
        self._tokens = Counter(f"{model}_tokens", "Tokens that were scored, without padding", registry=registry)
        self._padding = Counter(f"{model}_padding_tokens", "Padding that was computed beside them", registry=registry)

    def batch(self, pairs: int, tokens: int, padded_tokens: int, seconds: float) -> None:
        """Count a batch that the engine has computed in `seconds`."""
        self._batch_pairs.observe(pairs)
        self._batch_tokens.observe(padded_tokens)
        self._engine.inc(seconds)
        self._pairs.inc(pairs)
        self._tokens.inc(tokens)
        self._padding.inc(padded_tokens - tokens)

    def queue(self, pairs: int) -> None:
        """Set the gauge of waiting pairs of this process."""
        self._queue.set(pairs)


class Metrics:
    """Metrics of requests. `batches(model)` returns the metrics of a model's batches. Thread-safe.

    If the environment sets PROMETHEUS_MULTIPROC_DIR, the metrics of all workers that share that folder are added up.
    """

    def __init__(self) -> None:
        # Imported here: the package decides at import whether metrics are shared among processes.
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

        self._lock, self._rendering = threading.Lock(), threading.Lock()
        self._shared = MULTIPROCESS_VARIABLE in os.environ
        registry = self._registry = CollectorRegistry()
        if not self._shared:
            ProcessCollector(registry=registry)
        self._requests = Counter(
            "ranker_requests", "Requests by protocol and outcome", ["protocol", "outcome"], registry=registry
        )
        self._latency = Histogram(
            "ranker_request_seconds",
            "Seconds from request to answer",
            ["protocol"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._connections = Gauge(
            "ranker_connections", "Open connections", multiprocess_mode="livesum", registry=registry
        )
        self._reloads = Counter("ranker_reloads", "Times the model was loaded anew", ["outcome"], registry=registry)
        self._stages = Histogram(
            "search_stage_seconds", "Seconds of a search's stages", ["stage"], buckets=_SECONDS, registry=registry
        )
        self._empty = Counter("search_without_results", "Searches that found no document", registry=registry)
        self._models = Gauge(
            "ranker_model_info",
            "Processes that serve the model of this digest",
            ["slot", "digest"],
            multiprocess_mode="livesum",
            registry=registry,
        )
        self._digests: dict[str, str] = {}
        self._gauges: dict[str, Gauge] = {}
        self._children: dict[tuple[str, str], tuple[Counter, Histogram]] = {}
        self._batches: dict[str, BatchMetrics] = {}
        self._second = self._renders = 0  # how often the metrics were rendered in this second
        self._rendered = b"", ""

    def request(
        self, protocol: str, outcome: str, seconds: float, stages: Optional[Mapping[str, float]] = None
    ) -> None:
        """Count a request.

        outcome: ok, or the name of a fault's kind
        stages: milliseconds by stage
        """
        children = self._children.get((protocol, outcome))
        if children is None:
            children = (self._requests.labels(protocol, outcome), self._latency.labels(protocol))
            self._children[protocol, outcome] = children
        children[0].inc()
        children[1].observe(seconds)
        for stage, milliseconds in (stages or {}).items():
            self._stages.labels(stage).observe(milliseconds / 1000)

    def empty_search(self) -> None:
        self._empty.inc()

    def gauges(self, values: Mapping[str, float]) -> None:
        """Set gauges, by their names in `GAUGES`."""
        from prometheus_client import Gauge

        with self._lock:
            for name, value in values.items():
                if name not in self._gauges:
                    what, mode = GAUGES[name]
                    self._gauges[name] = Gauge(name, what, multiprocess_mode=mode, registry=self._registry)  # type: ignore[arg-type]
                self._gauges[name].set(value)

    def batches(self, model: str) -> BatchMetrics:
        """Return the metrics of a model's batches, whose names begin with `model`."""
        with self._lock:
            if model not in self._batches:
                self._batches[model] = BatchMetrics(model, self._registry)
            return self._batches[model]

    def reload(self, succeeded: bool) -> None:
        self._reloads.labels("ok" if succeeded else "failed").inc()

    def models(self, digests: Mapping[str, str]) -> None:
        """Record which models this process serves: the digest by the slot's name."""
        for name, digest in self._digests.items():
            self._models.labels(name, digest).set(0)
        self._digests = dict(digests)
        for name, digest in digests.items():
            self._models.labels(name, digest).set(1)

    def connections(self, count: int) -> None:
        """Set the number of open connections of this process."""
        self._connections.set(count)

    def shown(self, before: Callable[[], None], second: Optional[int] = None) -> tuple[bytes, str]:
        """Return `render()`, computed at most ten times a second. Further calls get the previous result.

        No key is needed to read the metrics, and rendering takes milliseconds. This bounds the load that callers can
        cause.

        before: called before the metrics are rendered
        second: the current time in whole seconds (default: by the clock)
        """
        second = int(time.monotonic()) if second is None else second
        with self._rendering:
            if second != self._second:
                self._second, self._renders = second, 0
            if self._renders < _RENDERS_A_SECOND:
                self._renders += 1
                before()
                self._rendered = self.render()
            return self._rendered

    def render(self) -> tuple[bytes, str]:
        """Return all metrics as text, and the content type of that text."""
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

        registry = self._registry
        if self._shared and self._is_in_folder():
            from prometheus_client.multiprocess import MultiProcessCollector

            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry), CONTENT_TYPE_LATEST

    @staticmethod
    def _is_in_folder() -> bool:
        """Return whether this process's file is still in the shared folder. Programs that tidy /tmp may delete it.

        Without the file, this process shows only its own counts.
        """
        return any(Path(os.environ[MULTIPROCESS_VARIABLE]).glob(f"*_{os.getpid()}.db"))
