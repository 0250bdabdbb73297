"""What expensive requests cost a server, in a short form; see `python -m tests.robustness.costs`."""

from __future__ import annotations

import pytest

from tests.checkout import ONCE
from tests.robustness import costs


@ONCE
@pytest.mark.server
def test_a_server_pays_little_for_expensive_requests(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--unpacked_mb", "2", "--buffered_mb", "48", "--most_mb", "300"]
    assert costs.main([*small, "--most_seconds", "20"]) == 0, capsys.readouterr().out
    printed = capsys.readouterr().out
    assert "failures: 0" in printed and "| wrong documents | " in printed
