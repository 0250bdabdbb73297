"""An index, a ranker and a tower for the frameworks' classes, and a server of all three with a key."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import REPOSITORY

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"  # read when Haystack is imported
ROWS = [
    {"id": "a0", "name": "quiet mouse", "description": "makes no noise", "price": 19.5, "brand": "Acme"},
    {"id": "a1", "name": "loud mouse", "description": "a mouse for gaming", "price": 79.0, "brand": "Globex"},
    {"id": "a2", "name": "small mouse", "description": "a mouse to travel with", "price": 49.0, "brand": "Acme"},
    {"id": "a3", "name": "keyboard", "description": "flat keys", "price": 30.0, "brand": "Globex"},
]
KEY = "a key"


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Folders: `index` without a tower, `hybrid` with one, `ranker`, `tower`; and `search`, what an `Index` finds."""
    from paddle_ranker import Index
    from tests.tiny import write_ranker, write_tower

    folder = tmp_path_factory.mktemp("made")
    ranker, tower = write_ranker(folder / "ranker"), write_tower(folder / "tower")
    index = Index.build(ROWS, folder / "index", title="name", text="description")
    Index.build(ROWS, folder / "hybrid", title="name", text="description", tower=tower)
    return SimpleNamespace(
        index=folder / "index", hybrid=folder / "hybrid", ranker=Path(ranker), tower=Path(tower), search=index.search
    )


@pytest.fixture(scope="session")
def url(made: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a server that searches `hybrid` with `ranker`, and wants `KEY`."""
    import re

    from tests.started import started

    command = [sys.executable, "-m", "paddle_ranker", "search-serve", "--index", str(made.hybrid),
               "--ranker", str(made.ranker), "--port", "0"]  # fmt: skip
    folder = tmp_path_factory.mktemp("served") / "work"
    with started(command, folder, PYTHONPATH=str(REPOSITORY), PADDLE_RANKER_API_KEY=KEY) as server:
        server.until(lambda: "serving " in server.output)
        found: Any = re.search(r"http://127\.0\.0\.1:\d+", server.output)
        yield found[0]
