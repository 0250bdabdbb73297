"""What every test may ask for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real public data (`qbqtc/`, `simclue/`, ...); skips where it is absent."""
    folder = Path(os.environ.get("PADDLE_RANKER_REAL_DATA") or REPOSITORY.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"needs real data: {folder} is not there (set PADDLE_RANKER_REAL_DATA to its folder)")
    return folder
