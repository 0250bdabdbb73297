"""Traces: spans of a request and of its stages, in the caller's trace, by the exporter that the environment names."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.serving.core.metrics import Metrics
from paddle_ranker.serving.core.observers import OBSERVERS, open_observers
from paddle_ranker.serving.process.worker import make_app
from tests.serving_cases import Application, close_slots, opened_slots
from tests.started import SECONDS, started_server
from tests.tiny import write_exported, write_index, write_ranker, write_tower

pytest.importorskip("opentelemetry.sdk")
TRACE, CALLER = 0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7
TRACEPARENT = f"00-{TRACE:032x}-{CALLER:016x}-01"
DOCUMENTS = [Document(f"d{n}", f"深度学习{n}的研究") for n in range(8)]
SEARCH = {"query": "深度学习", "rank_top": 3}
RERANK = {"query": "深度学习", "documents": ["语言文化", "深度学习的研究"]}


class Traced(Application):
    """A search server's application whose spans are kept."""

    def __init__(self, folder: Path) -> None:
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        from paddle_ranker.tracing.spans import Tracing

        index = write_index(folder / "index", write_tower(folder / "tower"), DOCUMENTS)
        self.config, self.slots = opened_slots(index=index, model=write_ranker(folder / "ranker"))
        self._exporter, provider = InMemorySpanExporter(), TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.app = make_app(self.slots, self.config, Metrics(), observers=[Tracing(provider)])

    def spans(self) -> tuple[Any, list[Any]]:
        """Return the span of the request that was answered since the last call, and those of its stages by begin."""
        found = list(self._exporter.get_finished_spans())
        self._exporter.clear()
        *stages, request = found
        return request, sorted(stages, key=lambda span: span.start_time)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    made = Traced(tmp_path_factory.mktemp("traced"))
    yield made
    close_slots(made.slots)


@pytest.mark.parity
@pytest.mark.parametrize(
    ("path", "body", "stages", "pairs"),
    [
        ("/v1/search", SEARCH, ["encode", "encode", "fuse", "rank", "read", "vectors", "words"], 3),
        ("/v1/rerank", RERANK, ["queue", "rank"], 2),
        ("/v1/score", {"queries": "深度学习", "documents": ["语言文化"]}, ["queue", "rank"], 1),
    ],
)
def test_a_request_and_its_stages_are_spans_of_the_callers_trace(
    site: Traced, path: str, body: Any, stages: list[str], pairs: int
) -> None:
    before = time.time_ns()
    assert site.post(path, body, traceparent=TRACEPARENT, **{"x-request-id": "mine"}).status_code == 200
    request, found = site.spans()
    after = time.time_ns()
    assert sorted(span.name for span in found) == stages
    assert request.name == f"POST {path}" and request.kind.name == "SERVER"
    assert (request.context.trace_id, request.parent.span_id) == (TRACE, CALLER)
    assert request.attributes.items() >= {
        "http.route": path, "http.response.status_code": 200, "paddle_ranker.outcome": "ok",
        "paddle_ranker.request_id": "mine", "paddle_ranker.pairs": pairs,
    }.items()  # fmt: skip
    slack = 50_000_000  # ns: the clocks are read one after the other
    assert before - slack <= request.start_time < request.end_time <= after + slack
    for span in found:
        assert (span.context.trace_id, span.parent.span_id) == (TRACE, request.context.span_id)
        assert request.start_time - slack <= span.start_time <= span.end_time <= request.end_time + slack


@pytest.mark.parity
def test_times_of_stages_are_those_of_the_answer(site: Traced) -> None:
    took = site.post("/v1/search", SEARCH).json()["took_ms"]
    request, found = site.spans()
    assert request.parent is None  # without a traceparent it begins a trace
    by_stage: dict[str, float] = {}
    for span in found:
        by_stage[span.name] = by_stage.get(span.name, 0.0) + (span.end_time - span.start_time) / 1e6
    assert by_stage == {name: pytest.approx(took[name], abs=0.01) for name in took if name != "total"}


@pytest.mark.parity
def test_what_is_refused_unsampled_or_a_check_of_health(site: Traced) -> None:
    assert site.post("/v1/rerank", {"query": "深度学习", "documents": []}).status_code == 400
    request, stages = site.spans()
    assert request.attributes["http.response.status_code"] == 400 and stages == []
    assert site.get("/v1/documents/a-users-id").status_code == 404
    request, _ = site.spans()
    assert "a-users-id" not in f"{request.name} {dict(request.attributes)}"
    assert site.get("/ready").status_code == 200
    assert site.post("/v1/rerank", RERANK, traceparent=TRACEPARENT[:-1] + "0").status_code == 200  # not sampled
    with pytest.raises(ValueError, match="unpack"):
        site.spans()


@pytest.mark.unit
@pytest.mark.parametrize(
    ("variables", "is_on", "warning"),
    [
        ({}, False, ""),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, False, ""),
        ({"OTEL_TRACES_EXPORTER": "console", "OTEL_SDK_DISABLED": "true"}, False, ""),
        ({"OTEL_TRACES_EXPORTER": "console"}, True, ""),
        (
            {"OTEL_TRACES_EXPORTER": "smoke"},
            False,
            "the exporter smoke; pip install 'paddle-ranker[otel]'",
        ),
    ],
)
def test_the_environment_switches_traces_on(
    variables: dict[str, str],
    is_on: bool,
    warning: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name in ("OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    opened = open_observers()
    assert "opentelemetry" in OBSERVERS and len(opened) == is_on
    assert warning in caplog.text and bool(warning) == bool(caplog.records)
    for observer in opened:
        observer.close()


@pytest.mark.server
@pytest.mark.parametrize("workers", [1, 2])
def test_a_server_sends_its_last_spans_when_it_stops(tmp_path: Path, workers: int) -> None:
    ranker = write_exported(tmp_path / "exported")
    environment = {"OTEL_TRACES_EXPORTER": "console", "OTEL_BSP_SCHEDULE_DELAY": "3600000"}
    with started_server(ranker, tmp_path / "run", "--workers", workers, **environment) as (server, ports):
        headers = {"traceparent": TRACEPARENT}
        address = f"http://127.0.0.1:{ports[0]}/v1/rerank"
        assert requests.post(address, json=RERANK, headers=headers, timeout=SECONDS).status_code == 200
        sent = f'"trace_id": "0x{TRACE:032x}"'
        assert sent not in server.output
        server.process.send_signal(signal.SIGTERM)
        server.until(lambda: server.process.poll() is not None, running=False)
        assert server.output.count(sent) == 3
