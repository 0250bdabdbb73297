"""The conformance table: messages by hand, verdicts, and the clients of this environment."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from tests.robustness import conformance
from tests.robustness.conformance import Row, judge

unit, server = pytest.mark.unit, pytest.mark.server


@unit
def test_a_client_is_judged() -> None:
    expected = [np.array([0.5, 0.25]), np.array([0.1])]
    for found, problem in (
        ([[0.5, 0.250005], [0.1]], ""),
        ([[0.5, 0.2501], [0.1]], "off by more"),
        ([[0.5], [0.1]], r"\[1, 1\] answers"),
        ([[0.5, math.nan], [0.1]], "off by more"),
    ):
        row = Row("x", "HTTP")
        judge(row, {"version": "1", "probabilities": found}, expected)
        assert row.ok == (not problem) and re.search(problem, row.problem)


@server
def test_all_clients_of_this_environment_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert conformance.main(["--json", str(tmp_path / "rows.json")]) == 0, capsys.readouterr().out
    rows = json.loads((tmp_path / "rows.json").read_text(encoding="utf-8"))["rows"]
    own = [row for row in rows if row["client"] in ("curl", "requests")]
    assert len(own) == 3 and all(row["ok"] and row["pairs"] in (18, 22) for row in own)
    assert [row for row in rows if not row["ok"] and not row["missing"]] == []
