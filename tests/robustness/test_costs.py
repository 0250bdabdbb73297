"""What expensive requests cost a server, in a short form; see `python -m tests.robustness.costs`."""

from __future__ import annotations

import pytest

from tests.robustness import costs
from tests.robustness.costs import Cost, CostOptions


@pytest.mark.unit
def test_what_costs_too_much_is_a_failure() -> None:
    options = CostOptions(most_mb=100, most_seconds=5)
    good = Cost("one", 10, 1000, seconds=5, megabytes=100, longest_wait=1, answer="413 too large")
    assert not costs._is_too_much(good, options)
    for changes in ({"seconds": 6.0}, {"megabytes": 101.0}, {"answer": ""}, {"answer": "a good request failed: 503"}):
        assert costs._is_too_much(Cost(**{**vars(good), **changes}), options)


@pytest.mark.server
def test_a_server_pays_little_for_expensive_requests(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--unpacked_mb", "2", "--buffered_mb", "48", "--most_mb", "300"]
    assert costs.main([*small, "--most_seconds", "20"]) == 0, capsys.readouterr().out
    printed = capsys.readouterr().out
    assert "failures: 0" in printed and "| wrong documents | " in printed
