"""The log of searches: what is confirmed is on the disk, whatever happens next."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from paddle_ranker.errors import RankerError
from paddle_ranker.serving.core import search_log
from paddle_ranker.serving.core.search_log import (
    FeedbackLine,
    LogError,
    LogReader,
    SearchLine,
    SearchLog,
    Shown,
)
from tests.conftest import REPOSITORY, largest_file

pytestmark = pytest.mark.unit

SHOWN = [
    Shown("doc-1", {"words": 3, "ranked": 1}, 0.957, "1f", [20, 80]),
    Shown("doc-2", {"vectors": 1, "ranked": 2}, None, "2f"),
]


def search(number: int = 1, query: str = "苹果手机\n价格") -> SearchLine:
    return SearchLine(f"s{number}", query, {"index": {"name": "demo", "version": 7}}, SHOWN, {"top_k": 2, "offset": 10})


def click(number: int = 1, text: str = "苹果手机\n价格") -> FeedbackLine:
    return FeedbackLine(f"s{number}", text, "doc-2", "click", position=12, dwell_ms=3100)


def test_lines_are_read_as_they_were_logged(tmp_path: Path) -> None:
    log, searched, clicked = SearchLog(tmp_path / "log"), search(), click()
    log.search(searched)
    log.feedback(clicked).result()
    log.close()
    assert list(LogReader(tmp_path / "log")) == [searched, clicked]
    (path,) = (tmp_path / "log").iterdir()
    first, second = map(json.loads, path.read_text("utf-8").splitlines())
    assert set(first) == {"time", "search_id", "query", "versions", "shown", "parameters"}
    ranks = {"words": 3, "ranked": 1}
    assert first["shown"][0] == {"id": "doc-1", "ranks": ranks, "probability": 0.957, "digest": "1f", "read": [20, 80]}
    assert set(second) == {"time", "search_id", "query", "id", "event", "position", "dwell_ms"}
    assert searched.first_position == 11


def test_a_new_file_is_begun_when_one_is_large(tmp_path: Path) -> None:
    log = SearchLog(tmp_path, rotate_mb=1)
    for number in range(3):
        log.feedback(click(number, "x" * (1 << 20))).result()
    log.close()
    assert len(list(tmp_path.iterdir())) == 3
    assert sorted(line.search_id for line in LogReader(tmp_path)) == ["s0", "s1", "s2"]


def test_a_torn_line_is_skipped_and_counted_until_it_is_whole(tmp_path: Path) -> None:
    log = SearchLog(tmp_path)
    log.feedback(click(1)).result()
    log.close()
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole + b"\x00\x00\n" + b'{"a": 1}\n' + whole[:30])
    reader = LogReader(tmp_path)
    assert [line.search_id for line in reader] == ["s1"]
    assert reader.damaged == 3
    with path.open("ab") as stream:
        stream.write(whole[30:])
    assert [line.search_id for line in reader] == ["s1"]  # what is new
    assert reader.damaged == 2
    assert list(reader) == []


def test_a_full_disk_fails_feedback_and_no_search_and_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = SearchLog(tmp_path)
    log.feedback(click(0)).result()
    (path,) = tmp_path.iterdir()
    with caplog.at_level(logging.WARNING), largest_file(path.stat().st_size + 20):
        for number in range(1, 4):
            log.search(search(number))
            with pytest.raises(LogError, match="File too large"):
                log.feedback(click(number)).result()
    lost = log.lost
    with caplog.at_level(logging.WARNING):
        log.feedback(click(4)).result()
    log.close()
    assert 3 <= lost <= 6  # a search may have been written after the limit was lifted
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert "searches go on without it" in said[0]
    assert "is written again" in said[1]
    reader = LogReader(tmp_path)
    events = [line for line in reader if isinstance(line, FeedbackLine)]
    assert [line.search_id for line in events] == ["s0", "s4"]
    assert reader.damaged == 0  # the halves were cut off


def test_a_log_stops_at_its_size_until_files_are_moved_away(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    log, large = SearchLog(folder, most_mb=1), "x" * 600_000
    log.feedback(click(0, large)).result()
    for number in (1, 2):
        log.search(search(number, large))
        with pytest.raises(LogError, match="1 MiB of --search_log_mb"):
            log.feedback(click(number, large)).result()
    (path,) = folder.iterdir()
    path.rename(tmp_path / path.name)
    log.feedback(click(3)).result()  # to the file that was moved away, which is still open
    (folder / "of-another-process.jsonl").write_bytes(bytes(1 << 20))
    with pytest.raises(LogError, match="--search_log_mb"):
        log.feedback(click(4, large)).result()
    shutil.rmtree(folder)
    (tmp_path / path.name).unlink()
    log.feedback(click(5)).result()
    log.close()
    assert [line.search_id for line in LogReader(folder)] == ["s5"] and log.lost >= 5


def test_searches_leave_room_for_feedback(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = SearchLog(tmp_path, most_mb=1)
    for number in range(40):
        log.search(search(number, "x" * 50_000))
        log.feedback(click(number)).result()
    log.close()
    lines = list(LogReader(tmp_path))
    searches = [line for line in lines if isinstance(line, SearchLine)]
    assert len(searches) == 18 and log.lost == 22 and len(lines) == 18 + 40  # seven eighths of the MiB
    assert [record.getMessage().count("--search_log_mb") for record in caplog.records] == [1]


def test_odd_folders_are_read_and_what_is_none_is_refused(tmp_path: Path) -> None:
    shown = b'[{"id":"a","ranks":{},"digest":"1f"}]'
    moved = b'{"time":"t","search_id":"s1","query":"q","versions":{},"shown":%b,"parameters":{}}\n' % shown
    (tmp_path / "moved.jsonl").write_bytes(moved)
    (tmp_path / "00000000T000000Z-0.jsonl").symlink_to(tmp_path / "moved")  # listed, and gone when it is opened
    reader = LogReader(tmp_path)
    assert list(reader) == [SearchLine("s1", "q", {}, [Shown("a", {}, None, "1f")], {}, "t")] and reader.damaged == 0
    with pytest.raises(RankerError, match="choose another folder"):
        SearchLog(tmp_path / "moved.jsonl")
    with pytest.raises(RankerError, match="no such folder"):
        LogReader(tmp_path / "none")


def test_a_disk_that_hangs_takes_a_bounded_share_of_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_log, "_MOST_WAITING", 10_000)
    log = SearchLog(tmp_path)
    with log._counting:
        log._size = 9_900  # as if a write hung
    log.search(search())
    assert log.lost == 1
    with pytest.raises(LogError, match="wait for the disk"):
        log.feedback(click()).result()
    log.close()


WRITER = """
import sys, threading
from pathlib import Path
from paddle_ranker.serving.core.search_log import FeedbackLine, SearchLine, SearchLog, Shown

log = SearchLog(Path(sys.argv[1]))
for number in range(1_000_000):
    log.search(SearchLine(f"{number}", "query", {}, [Shown("a", {"words": 1}, None, "1f")] * 50, {}))
    log.feedback(FeedbackLine(f"{number}", "query", "a", "click", 1)).result()
    print(number, flush=True)
"""


@pytest.mark.server
def test_what_was_confirmed_is_there_after_kill_9(tmp_path: Path) -> None:
    confirmed = []
    for _ in range(2):
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
        ) as writer:
            assert writer.stdout is not None
            for line in writer.stdout:
                if int(line) == 20:
                    writer.send_signal(signal.SIGKILL)
                    break
            confirmed.append(20 + len(writer.stdout.readlines()))
    reader = LogReader(tmp_path)
    lines = list(reader)
    assert len(list(tmp_path.iterdir())) == 2
    assert reader.damaged <= 2
    clicks = [int(line.search_id) for line in lines if isinstance(line, FeedbackLine)]
    assert all(clicks.count(number) == 2 for number in range(21))
    assert len(clicks) >= sum(confirmed)
    searches = {line.search_id for line in lines if isinstance(line, SearchLine)}
    assert searches >= set(map(str, clicks))  # a search is written before what is said about it


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"shown":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b"null",
        b"5",
        b'"shown"',
        b'["shown"]',
        b'{"shown": 5}',
        b'{"shown": [5]}',
        b'{"event": []}',
        b"1" * 10_000,
        b"\xff",
        b"",
        b'{"time": 5, "search_id": "s", "query": "q", "id": "a", "event": "click"}',
        b'{"time": "t", "search_id": [], "query": {}, "id": 5, "event": "click"}',
        b'{"time": "t", "search_id": "s", "query": "q", "versions": 5, "shown": [], "parameters": 5}',
        b'{"time": "t", "search_id": "s", "query": "q", "versions": {}, "shown": [{"id": 5, "ranks": {}, '
        b'"digest": "1f"}], "parameters": {}}',
    ],
)
def test_a_line_of_another_form_is_skipped_and_counted(tmp_path: Path, line: bytes) -> None:
    good = b'{"time":"t","search_id":"s","query":"q","id":"a","event":"click"}\n'
    (tmp_path / "a.jsonl").write_bytes(good + line + b"\n" + good)
    reader = LogReader(tmp_path)
    assert [found.search_id for found in reader] == ["s", "s"] and reader.damaged == 1
