"""Notes on standard error: where they cannot be written, the work goes on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

pytestmark = pytest.mark.unit


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_note_that_cannot_be_written_is_lost_and_nothing_else() -> None:
    code = "from paddle_ranker.notes import note\nnote('one')\nnote('two')\nprint('done')"
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=full, text=True, timeout=60
        )
    assert (done.returncode, done.stdout) == (0, "done\n")
