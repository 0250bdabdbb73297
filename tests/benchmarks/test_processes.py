"""The benchmark of several processes: how they find each other, and the command itself at tiny size."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from benchmarks import processes
from benchmarks.processes import Arrangement, environments, free_ports

unit = pytest.mark.unit


@unit
def test_one_process_needs_to_find_nobody() -> None:
    assert environments(1) == [{}]


@unit
def test_each_process_has_its_number_and_its_place_among_all() -> None:
    found = environments(3)
    assert [variables["PADDLE_TRAINER_ID"] for variables in found] == ["0", "1", "2"]
    for variables in found:
        endpoints = variables["PADDLE_TRAINER_ENDPOINTS"].split(",")
        assert variables["PADDLE_TRAINERS_NUM"] == "3" and variables["PADDLE_MASTER"] == found[0]["PADDLE_MASTER"]
        assert endpoints[int(variables["PADDLE_TRAINER_ID"])] == variables["PADDLE_CURRENT_ENDPOINT"]
        assert len({*endpoints, variables["PADDLE_MASTER"]}) == 4


@unit
def test_ports_are_free_and_differ() -> None:
    ports = free_ports(4)
    assert len(set(ports)) == 4
    for port in ports:
        with socket.socket() as one:
            one.bind(("127.0.0.1", port))


@unit
def test_arrangements_read_well() -> None:
    assert str(Arrangement(1, 1)) == "1 process, 1 thread"
    assert str(Arrangement(2, 1)) == "2 processes, 1 thread each"


@unit
def test_a_batch_that_cannot_be_shared_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert processes.main(["--batch_size", "9"]) == 2
    assert "--batch_size 9: 2 processes cannot share it equally" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_prints_a_row_for_each_arrangement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"查询{i}\t标题{i}{'文' * (i % 5)}{label}\t{label}" for i in range(6) for label in (0, 1, 2)]
    (tmp_path / "graded.tsv").write_text("\n".join(["query\ttitle\tlabel", *rows]) + "\n", encoding="utf-8")
    monkeypatch.setenv("PADDLE_RANKER_REAL_DATA", str(tmp_path / "nowhere"))  # so a vocabulary is trained on the file
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    more = ["--shape", "tiny", "--rounds", "2", "--steps", "1", "--batch_size", "4"]
    assert processes.main(["--file", str(tmp_path / "graded.tsv"), *more]) == 0
    shown = capsys.readouterr().out
    assert "tiny: 1 batches of 4 triples of graded.tsv" in shown
    figures = r" +\d+\.\d \(\d+\.\d-\d+\.\d\) +\d+\.\d\d \(\d+\.\d\d-\d+\.\d\d\) +\d+\.\d$"
    for row in ("1 process, 1 thread", "1 process, 2 threads", "2 processes, 1 thread each"):
        assert re.search(f"^{row}{figures}", shown, re.M), shown
