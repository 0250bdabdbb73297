"""Reloads through the port: those that nobody waits for end as others do, and a server's memory does not grow."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.checkout import ONCE
from tests.robustness.reloads import ReloadedServer, serve, write_ranker


@ONCE
@pytest.mark.server
def test_reloads_end_whoever_listens_and_leave_no_memory_behind(tmp_path: Path) -> None:
    model = write_ranker(tmp_path / "ranker")
    other = write_ranker(tmp_path / "other", seed=4)
    with serve(model, tmp_path / "run") as started:
        server = ReloadedServer(*started)
        before = server.ask()
        for number in range(6):
            if number == 5:
                shutil.copytree(other, model, dirs_exist_ok=True)
            server.reload(leave=number != 3)
        assert server.outcomes() == ["switched"] * 6
        assert abs(server.ask() - before) > 1e-3  # nobody heard of it, and the new model answers
        # What was kept made it 1.3 times as much by now, without the models of those who had left.
        assert server.held[-1] <= 1.15 * server.held[0], server.held
