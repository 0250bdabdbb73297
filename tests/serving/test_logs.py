"""The server's log: lines that cannot be written are lost and counted, and hold up nothing."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from paddle_ranker.paddle_serving.general_model import infer
from paddle_ranker.paddle_serving.messages import messages
from paddle_ranker.serving.core import logs
from paddle_ranker.serving.core.faults import OVERLOADED, Fault
from paddle_ranker.serving.core.logs import JsonLog, routed_logging
from paddle_ranker.serving.core.metrics import Metrics
from paddle_ranker.serving.slots.services import CountedRequest
from tests.conftest import REPOSITORY
from tests.fake_service import FakeService, text_request
from tests.started import until

pytestmark = pytest.mark.unit


def test_what_libraries_log_is_a_line_without_the_texts_of_users(tmp_path: Path) -> None:
    for with_texts, shown in (
        (False, "request %s failed (ValueError)"),
        (True, "request 7 failed (ValueError: secret)"),
    ):
        with (tmp_path / "log").open("wb") as stream:
            log = JsonLog(stream.fileno(), with_texts=with_texts)
            with routed_logging(log):
                try:
                    raise ValueError("secret")
                except ValueError:
                    logging.getLogger("asyncio").exception("request %s failed", 7)
                logging.getLogger("asyncio").info("not worth a line")
                logging.getLogger("grpc").warning("%d calls", 3)
            loggers = [logging.getLogger(name) for name in logs.LOGGERS]  # a server in a larger program takes nothing
            assert all(logger.propagate and log not in logger.handlers for logger in loggers)
            log.close(60)
        failed, calls = map(json.loads, (tmp_path / "log").read_text(encoding="utf-8").splitlines())
        assert (failed["event"], failed["level"], failed["logger"]) == ("log", "error", "asyncio")
        assert failed["message"] == shown and "test_logs.py" in failed["where"][0]
        assert calls["message"] == "3 calls" and "where" not in calls


def test_what_cannot_be_seen_is_escaped_and_what_can_is_not(tmp_path: Path) -> None:
    seen = "深度\u3000学习 😀 é ²"
    hidden = "\x1b[2J \x7f \x85 \x9b31m \u202e \u2066 \u2028 \u200b \ufeff \U000e0041 \ud800"
    with (tmp_path / "log").open("wb") as stream:
        log = JsonLog(stream.fileno(), with_texts=True)
        log.write("request", texts={"query": seen, "documents": [hidden]})
        log.close(60)
    line = (tmp_path / "log").read_text(encoding="utf-8").rstrip("\n")
    assert json.loads(line)["texts"] == {"query": seen, "documents": [hidden]}
    assert seen in line and line.replace("\u3000", "").isprintable()


def test_a_line_holds_the_time_and_no_field_that_is_none(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as stream:
        log = JsonLog(stream.fileno())
        log.write("request", pairs=2, error=None, texts="深度")
        log.close(60)
    line = (tmp_path / "log").read_text(encoding="utf-8")
    stamp = json.loads(line)["time"]
    assert line == f'{{"time": "{stamp}", "event": "request", "pairs": 2, "texts": "深度"}}\n'
    assert time.strptime(stamp[:19], "%Y-%m-%dT%H:%M:%S") and stamp[19] == "." and stamp[23:] == "Z"


def test_a_reader_that_has_stopped_costs_lines_and_holds_up_nothing() -> None:
    code = (
        "import os\nfrom paddle_ranker.serving.core import logs\n"
        "logs._MOST_WAITING = 5\n"
        "log = logs.JsonLog(os.pipe()[1])\n"
        "for _ in range(20): log.write('request', texts='x' * 100_000)\n"  # the first fills the pipe
        "log.close(0.5)\nprint(log.lost)"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120, check=True
    )
    assert 14 <= int(done.stdout) <= 15


def test_texts_that_wait_for_a_reader_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_MOST_CHARACTERS", 1_000_000)
    reads, writes = os.pipe()
    with os.fdopen(reads, "rb") as reader, os.fdopen(writes, "wb") as writer:
        log = JsonLog(writer.fileno(), with_texts=True)
        for _ in range(30):  # the pipe takes none of them whole
            log.write("request", texts={"query": "a" * 20_000, "documents": ["b" * 40_000] * 2})
        assert log.lost == 20
        log.write("request", status=200)
        assert log.lost == 20
        lines = [json.loads(reader.readline()) for _ in range(11)]
        assert [len(line["texts"]["query"]) for line in lines[:10]] == [20_000] * 10 and lines[10]["status"] == 200
        until(lambda: log.written == log.taken)
        log.write("request", texts="c" * 2_000_000)  # alone it may be larger
        assert len(json.loads(reader.readline())["texts"]) == 2_000_000 and log.lost == 20
        log.close(60)


@pytest.mark.parametrize("log_texts", [False, True])
def test_requests_of_every_protocol_are_lines(tmp_path: Path, log_texts: bool) -> None:
    path = tmp_path / "log"
    with path.open("wb") as stream:
        log = JsonLog(stream.fileno())

        def ask(asked: FakeService, titles: list[str]) -> None:
            request = messages().Request.FromString(text_request("a", titles))
            with CountedRequest(protocol="grpc", metrics=Metrics(), log=log, log_texts=log_texts) as record:
                asyncio.run(infer(request, asked, record=record))

        ask(FakeService(), ["b", "c"])
        failing = FakeService()
        failing.failure = Fault(OVERLOADED, "a reason")
        with pytest.raises(Fault):
            ask(failing, ["b"])
        log.close()
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [(line["event"], line["protocol"], line["outcome"]) for line in lines] == [
        ("request", "grpc", "ok"),
        ("request", "grpc", "overloaded"),
    ]
    assert [line["pairs"] for line in lines] == [2, 1]
    assert lines[0].get("texts") == ({"queries": ["a", "a"], "titles": ["b", "c"]} if log_texts else None)
