"""Temporary folders: those whose processes are gone are removed at the next start, and nothing else is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from paddle_ranker.storage.temporary import PREFIX, TemporaryFolder, remove_abandoned
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.unit
_HOLD = """
import os, sys
from paddle_ranker.storage.temporary import TemporaryFolder
folder = TemporaryFolder()
open(os.path.join(folder.name, "kept"), "w").close()
print(folder.name, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def holder(place: Path) -> tuple[subprocess.Popen[str], Path]:
    """Start a process that has a temporary folder; return it and the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD], env={**os.environ, "TMPDIR": str(place), "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_has_is_not(place: Path) -> None:
    (gone, left), (alive, kept) = holder(place), holder(place)
    try:
        assert left.parent == place and oct(left.stat().st_mode)[-3:] == "700"
        gone.send_signal(signal.SIGKILL)
        gone.wait()
        assert (left / "kept").is_file()
        with TemporaryFolder() as own:
            assert not left.exists() and (kept / "kept").is_file() and Path(own).is_dir()
        assert not Path(own).exists()
    finally:
        for process in (gone, alive):
            process.kill()
            process.communicate()


def test_folders_that_are_not_of_this_kind_stay(place: Path) -> None:
    other, elsewhere = place / f"{PREFIX}of-mine", place / "elsewhere"
    for folder in (other, elsewhere):
        folder.mkdir()
        (folder / "kept").touch()
    (place / f"{PREFIX}link").symlink_to(elsewhere)
    locked_by_link = place / f"{PREFIX}trap"
    locked_by_link.mkdir()
    (locked_by_link / ".paddle_ranker.lock").symlink_to(elsewhere / "kept")
    (place / f"{PREFIX}file").touch()
    before = sorted(place.rglob("*"))
    remove_abandoned()
    assert sorted(place.rglob("*")) == before
