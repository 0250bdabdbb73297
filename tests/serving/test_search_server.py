"""The command `search-serve` with two processes: its client, documents that both find at once, reloads under load."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from typing import Any, Optional

import pytest

from paddle_ranker.commands.search_serve import main
from paddle_ranker.errors import UsageError
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.serving.clients import SearchClient
from paddle_ranker.serving.clients.client_errors import RefusedError
from paddle_ranker.serving.core.limits import API_KEY_VARIABLE
from paddle_ranker.serving.core.search_log import FeedbackLine, LogReader, SearchLine
from tests.conftest import REPOSITORY
from tests.started import SECONDS, started
from tests.tiny import write_index, write_ranker, write_tower

DOCUMENTS = [
    Document(f"d{n}", f"{one}研究", {"year": 2000 + n}) for n, one in enumerate(("水稻", "老年人", "语言文化"))
]


@pytest.mark.unit
def test_the_command_needs_an_index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ranker = str(tmp_path / "ranker")
    assert main(["--ranker", ranker]) == 2 and "--index is required" in capsys.readouterr().err
    assert main(["--index", str(tmp_path)]) == 1 and "index build" in capsys.readouterr().err
    assert main(["--ranker", ranker, "--search_log", "log"]) == 2 and "--index" in capsys.readouterr().err


@pytest.mark.server
def test_two_processes_find_what_either_was_told_and_reload_without_losing_a_request(tmp_path: Path) -> None:
    index = write_index(tmp_path / "index", write_tower(tmp_path / "tower"), DOCUMENTS)
    command = [sys.executable, "-m", "paddle_ranker", "search-serve", "--index", str(index), "--port", "0"]
    command += ["--ranker", str(write_ranker(tmp_path / "ranker")), "--workers", "2", "--writable", "true"]
    command += ["--search_log", str(tmp_path / "log"), "--log_requests", "false"]
    keys = {API_KEY_VARIABLE: "a-key", "PYTHONPATH": str(REPOSITORY)}
    with started(command, tmp_path / "run", **keys) as server:
        server.until(lambda: "serving " in server.output)
        # The parent can fork again: it has not imported Paddle, which starts CUDA.
        assert "libpaddle" not in Path(f"/proc/{server.process.pid}/maps").read_text(encoding="utf-8")
        port = int(server.output.split("http://127.0.0.1:")[1].split()[0].rstrip("/,;"))

        def client() -> SearchClient:
            return SearchClient(port=port, timeout=SECONDS, api_key="a-key")

        with client() as one, SearchClient(port=port, retries=0) as stranger:
            with pytest.raises(RefusedError, match="the API key is missing"):
                stranger.add(DOCUMENTS)
            for number in range(4):
                added = one.add([Document(f"new{number}", f"水稻{number}", {"year": number})])
                assert added["added"] == 1 and added["index"]["documents"] == 4 + number
                for _ in range(5):  # each on a connection of its own, which any process takes
                    with client() as other:
                        answer = other.search("水稻", by=["words"], rank_top=2)
                        assert f"new{number}" in {hit["id"] for hit in answer["hits"]}
            assert one.document("new0") == Document("new0", "水稻0", {"year": 0})
            assert one.remove(["new0"])["removed"] == 1 and one.document("new0") is None
            paged: list[Any] = []
            cursor: Optional[str] = ""
            while cursor is not None:
                page = one.search("水稻", top_k=2, fields=[], cursor=cursor)
                paged, cursor = paged + page["hits"], page["cursor"]
            assert len(paged) == 6 and [hit["rank"] for hit in paged] == [1, 2, 3, 4, 5, 6]
            assert one.suggest("老年") == ["老年人研究"] and one.suggest("研究", top_k=1) != []
            with pytest.raises(RefusedError, match="the API key is missing"):
                stranger.suggest("老年")
            one.feedback(answer, answer["hits"][0]["id"], "click")
            with pytest.raises(UsageError, match="'no-hit' is no hit of this search"):
                one.feedback(answer, "no-hit", "click")

            stop, failed = threading.Event(), list[Any]()

            def ask() -> None:
                with client() as asking:
                    while not stop.is_set():
                        try:
                            assert len(asking.search("水稻", rank_top=3, top_k=3)["hits"]) == 3
                        except Exception as error:
                            failed.append(error)

            threads = [threading.Thread(target=ask) for _ in range(3)]
            for thread in threads:
                thread.start()
            server.process.send_signal(signal.SIGHUP)
            server.until(lambda: server.output.count('"status": "switched"') == 2)
            stop.set()
            for thread in threads:
                thread.join()
            assert failed == []
            assert len(one.search("水稻", by=["words"])["hits"]) == 4
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(SECONDS) == 0
    logged = list(LogReader(tmp_path / "log"))
    assert any(isinstance(line, FeedbackLine) and answer["search_id"].startswith(line.search_id) for line in logged)
    assert any(isinstance(line, SearchLine) and answer["search_id"].startswith(line.search_id) for line in logged)
