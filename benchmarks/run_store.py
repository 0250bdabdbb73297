"""Finished runs on the disk, so that a long benchmark can be stopped and gone on with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np

from paddle_ranker.metrics.ranking import Floats
from paddle_ranker.storage.atomic import make_folder, new_file

Run = tuple[Floats, float]  # a score a pair, `[pairs] float64`, and seconds of training


class RunStore:
    """Keep each run under a name made from the facts that decide it; without a folder nothing is kept.

    The facts are options and data: after a change of the code, take another folder.
    """

    def __init__(self, folder: Optional[str]) -> None:
        self.folder = make_folder(folder) if folder is not None else None

    def get(self, facts: Mapping[str, Any], compute: Callable[[], Run]) -> Run:
        """Return the run of these facts, from the disk where it is there, else computed and kept."""
        if self.folder is None:
            return compute()
        path = self._path(facts)
        if path.is_file():
            with np.load(path, allow_pickle=False) as stored:
                return stored["scores"], float(stored["seconds"])
        scores, seconds = compute()
        with new_file(path, "wb") as stream:
            np.savez(stream, scores=scores, seconds=np.float64(seconds))
        return scores, seconds

    def _path(self, facts: Mapping[str, Any]) -> Path:
        assert self.folder is not None
        text = json.dumps(facts, sort_keys=True, ensure_ascii=False)
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.npz"


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file: the fact that says what data it holds."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
