"""A copy of the checkout without anything that was made in it, for what a newcomer types."""

from __future__ import annotations

import shutil
from importlib.metadata import version
from pathlib import Path

from tests.conftest import REPOSITORY

IS_MODERN = not version("paddlepaddle").startswith("2.")
MADE_HERE = (
    ".git", ".venv*", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", "*.egg-info", "build", "checkpoint",
    "output", "output_ce", "serving_server*", "serving_client*", "sort", "recall", "milvus", "literature_search_rank",
    ".demo.json",
)  # fmt: skip


def copy_checkout(folder: Path) -> Path:
    """Copy the checkout into a folder and return it."""
    shutil.copytree(REPOSITORY, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*MADE_HERE))
    return folder
