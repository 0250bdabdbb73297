"""Where files made or fetched once are kept."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(*parts: str) -> Path:
    """Return a folder of the user's cache: under `PADDLE_RANKER_CACHE`, else `XDG_CACHE_HOME`, else `~/.cache`."""
    own = os.environ.get("PADDLE_RANKER_CACHE")
    root = Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "paddle_ranker"
    return root.joinpath(*parts)
