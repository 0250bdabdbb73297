"""Restarts behind nginx and deployments of broken models lose no answer: short versions of `rollouts`."""

from __future__ import annotations

import shutil

import pytest

from tests.checkout import ONCE
from tests.robustness import rollouts

pytestmark = [ONCE, pytest.mark.server, pytest.mark.slow]


@pytest.mark.thorough
@pytest.mark.skipif(shutil.which("nginx") is None, reason="needs nginx (Debian's package nginx-light)")
def test_restarts_behind_nginx_lose_nothing() -> None:
    assert rollouts.main(["--requests", "600", "--restarts", "2", "--deployments", "0"]) == 0


@pytest.mark.thorough
def test_deployments_of_a_broken_model_lose_nothing() -> None:
    pytest.importorskip("ray")
    assert rollouts.main(["--requests", "300", "--restarts", "0", "--deployments", "1"]) == 0
