"""The memory benchmark: its texts, its measuring of a process, and the command itself at tiny size."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from benchmarks import memory
from paddle_ranker.errors import RankerError

unit = pytest.mark.unit


@unit
def test_the_sizes_are_powers_of_ten_up_to_the_largest() -> None:
    assert memory.file_sizes(1_000_000) == [10_000, 100_000, 1_000_000]
    assert memory.file_sizes(250_000) == [10_000, 100_000, 250_000]
    assert memory.file_sizes(500) == [500]


@unit
def test_a_shorter_file_is_the_beginning_of_a_longer_one() -> None:
    rows = list(memory.triples(memory.BLOCK + 5, seed=3))
    assert len(rows) == memory.BLOCK + 5
    assert list(islice(rows, 40)) == list(memory.triples(40, seed=3)) != list(memory.triples(40, seed=4))
    assert {len(row.query) for row in rows} == set(range(2, 7))
    assert {len(row.title) for row in rows} == {len(row.neg_title) for row in rows} == set(range(6, 16))
    assert len({row.title for row in rows}) > 0.99 * len(rows)
    assert {len(row.title) for row in memory.triples(9, 3, title_characters=50)} == {50}


@unit
def test_the_peak_is_the_process_s_own_and_that_of_no_earlier_one(tmp_path: Path) -> None:
    # In a process of its own, since that of the tests may be large by now.
    code = """
import sys
from pathlib import Path
from benchmarks.memory import peak_and_seconds
for megabytes in (400, 200):
    command = [sys.executable, "-c", f"x = b'1' * ({megabytes} << 20); del x; import time; time.sleep(0.2)"]
    print(*peak_and_seconds(command, Path(sys.argv[1])))
"""
    shown = subprocess.check_output([sys.executable, "-c", code, str(tmp_path / "output")], cwd=memory.ROOT, text=True)
    (large, seconds), (small, _) = (map(float, line.split()) for line in shown.splitlines())
    assert large - small == pytest.approx(200, abs=5)
    assert 200 < small < 220
    assert 0.2 < seconds < 20


@unit
def test_a_process_that_fails_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(RankerError, match="status 3: no room"):
        memory.peak_and_seconds([sys.executable, "-c", "print('no room'); raise SystemExit(3)"], tmp_path / "output")


@unit
@pytest.mark.parametrize(("name", "value"), [("parts", "rows,all"), ("shape", "huge")])
def test_an_unknown_name_is_refused(name: str, value: str, capsys: pytest.CaptureFixture) -> None:
    assert memory.main([f"--{name}", value]) == 2
    assert f"--{name} {value.split(',')[-1]}: choose from" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_prints_both_tables(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    status = memory.main(
        ["--rows", "300", "--steps", "2", "--batch_size", "4", "--data_memory_mb", "0", "--shape", "tiny",
         "--length", "32", "--long_pairs", "4", "--long_steps", "2", "--work_dir", str(tmp_path)]
    )  # fmt: skip
    shown = capsys.readouterr().out
    assert status == 0
    assert re.search(r"^ +300 +0 +\d{3,4} +\d+$", shown, re.MULTILINE)
    assert "tiny, 4 pairs of 32 tokens a batch" in shown
    assert re.search(r"^ +false +\d{3,4} +\d\.\d\d$", shown, re.MULTILINE)
    assert re.search(r"^ +true +\d{3,4} +\d\.\d\d$", shown, re.MULTILINE)
    assert list(tmp_path.iterdir()) == []
