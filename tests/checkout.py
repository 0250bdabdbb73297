"""A copy of the checkout without anything that was made in it, for what a newcomer types."""

from __future__ import annotations

import shutil
from pathlib import Path

import paddle
import pytest

from tests.conftest import REPOSITORY, THOROUGH

IS_MODERN = not paddle.__version__.startswith("2.")
# For what takes long and does the same on both stacks.
ONCE = pytest.mark.skipif(not IS_MODERN, reason="nothing in it depends on the stack: the modern one runs it")
# Of so many generated changes of a model's settings a run tries one; all of them take half an hour.
SETTINGS_STEP = 1 if THOROUGH else 16
SHORT_STEP = 1 if THOROUGH else 4  # where a change takes a fourth of the time
MADE_HERE = (
    ".git", ".venv*", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", "*.egg-info", "build", "checkpoint",
    "output", "output_ce", "serving_server*", "serving_client*", ".demo.json",
)  # fmt: skip
MADE_IN_DATASETS = ("sort", "recall", "milvus", "literature_search_rank")


def copy_checkout(folder: Path) -> Path:
    """Copy the checkout into a folder and return it."""
    made = shutil.ignore_patterns(*MADE_HERE)

    def ignored(inside: str, names: list[str]) -> set[str]:
        is_datasets = Path(inside) == REPOSITORY / "datasets"
        return made(inside, names) | (set(names) & {*MADE_IN_DATASETS} if is_datasets else set())

    shutil.copytree(REPOSITORY, folder, dirs_exist_ok=True, ignore=ignored)
    return folder
