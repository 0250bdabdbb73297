"""The soak: what it calls growth, how it judges answers, and a short one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.serving_client import OK, Answer
from tests.checkout import ONCE
from tests.robustness import soak, soak_traffic
from tests.robustness.soak_traffic import SOAKED, VECTORS, WRONG, Question, Tally

unit, server, slow = pytest.mark.unit, pytest.mark.server, pytest.mark.slow


@unit
def test_memory_that_grows_is_told_from_noise() -> None:
    noise = np.random.RandomState(0).standard_normal(400)
    times = np.arange(400.0)
    flat = soak.growth(list(zip(times, 500 + noise)))
    assert flat.is_flat(0.5) and abs(flat.megabytes.estimate) < 1 and flat.seconds == pytest.approx(299)
    # A tenth of a MB a second, 30 MB in the 299 seconds after the warm-up.
    grown = soak.growth(list(zip(times, 500 + 0.1 * times + noise)))
    assert grown.megabytes.low < 29.9 < grown.megabytes.high and not grown.is_flat(5)
    warm = soak.growth(list(zip(times, np.where(times < 90, times, 500))))
    assert warm.is_flat(0) and warm.held == 500
    with pytest.raises(ValueError, match="too few"):
        soak.growth([(0.0, 1.0), (1.0, 1.0)])


@unit
def test_every_answer_of_a_soak_is_checked() -> None:
    vectors = Question(VECTORS, b"", np.array([[1.0, 0.0], [0.0, 1.0]]))
    for rows, code in (([[1, 0], [0, 1]], OK), ([[0, 1], [1, 0]], WRONG), ([[1, 0]], WRONG)):
        body = json.dumps({"data": [{"embedding": row} for row in rows]}).encode()
        assert vectors.judge(Answer(OK, body)) == code
    assert vectors.judge(Answer(OK, b"{}")) == "an answer that cannot be read"
    tally = Tally()
    for code in (OK, WRONG, "429"):
        tally.add(vectors, code, 0.01)
    assert (tally.asked, tally.answered, tally.refused) == (3, 1, 1)
    assert len(tally.failures()) == 2 and len(tally.failures(busy=True)) == 1


@pytest.mark.thorough
@ONCE
@slow
@server
def test_a_short_soak(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak_traffic, "_EACH", 5)  # scoring all questions beforehand takes longer than asking some
    # So short a run says little about memory: a tenth is allowed, where half an hour has a hundredth.
    arguments = ["--minutes", "0.06", "--above_seconds", "2", "--growth", "10", "--json", str(tmp_path / "soak.json")]
    assert soak.main(arguments) == 0, capsys.readouterr().out
    found = json.loads((tmp_path / "soak.json").read_text(encoding="utf-8"))
    assert set(found["below"]) == set(SOAKED) and set(found["memory"]) == {"megabytes", "seconds", "held"}
    assert {"below the limits", "above the limits", "the server stops"} <= {phase["name"] for phase in found["phases"]}
