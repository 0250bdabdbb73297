"""What the collection of tests itself promises."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import LONGEST, REPOSITORY
from tests.started import started

TESTS = """
import pytest
@pytest.mark.unit
def test_a(): pass
def test_b(): pass
@pytest.mark.parametrize("x", [1, 2])
def test_c(x): pass
"""


@pytest.mark.server
def test_a_test_without_a_marker_fails_the_collection_before_a_choice_of_markers(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(TESTS, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-c", str(REPOSITORY / "pyproject.toml")]
    done = subprocess.run([*command, "-m", "unit", str(tmp_path)], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR, done.stdout + done.stderr
    message = next(line for line in done.stderr.splitlines() if line.startswith("ERROR: "))
    said, _, tests = message.rpartition(": ")
    assert said == "ERROR: mark these tests with one of unit, parity, server, browser, real_data, slow"
    assert [test.rpartition("::")[2] for test in tests.split(", ")] == ["test_b", "test_c[1]", "test_c[2]"]


@pytest.mark.unit
def test_the_files_that_come_first_are_there() -> None:
    assert [name for name in LONGEST if not (REPOSITORY / "tests" / name).is_file()] == []


@pytest.mark.unit
def test_what_a_command_does_last_is_waited_for_too(tmp_path: Path) -> None:
    """It may end between a look at what it has done and a look at whether it still runs."""
    looks = iter([False, True])
    with started([sys.executable, "-c", ""], tmp_path / "run") as run:
        run.process.wait()
        run.until(lambda: next(looks))
