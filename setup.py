"""What the wheel brings, and what an editable installation makes importable; the rest stands in pyproject.toml.

The recipes are top-level folders of a checkout, where `python ernie_matching/train_pairwise.py` runs them and they
import each other as `from ernie_matching.data import ...`. In a wheel such names would be folders of their own in a
user's site-packages. There the recipes stand inside the package, as `paddle_ranker.recipes.ernie_matching`, and the
same imports say so.
"""

from __future__ import annotations

import os
import re
import runpy
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel

RECIPES = runpy.run_path(str(Path("paddle_ranker", "recipes", "__init__.py")))["RECIPES"]
CHECKOUT_ONLY = ("benchmarks", "demo_world")
IMPORT = re.compile(rf"\bfrom ({'|'.join(RECIPES)})((?:\.\w+)*) import\b")


def readme() -> str:
    """Return README.md for a package index, where links within a checkout lead nowhere.

    They lead to the files at `PROJECT_URL`, as docs/releasing.md says, or are plain text without it.
    """
    url = os.environ.get("PROJECT_URL", "").rstrip("/")
    target = rf"[\1]({url}/\2)" if url else r"\1"
    text = Path("README.md").read_text(encoding="utf-8")
    return re.sub(r"!?\[((?:[^][]|\[[^]]*\])*)\]\((?!\w+:|#)([^)\s]+)\)", target, text)


class BuildWheel(build_py):
    """Copy `paddle_ranker`, and the recipes into it."""

    def run(self) -> None:
        """Write the wheel's files to `build_lib`; an editable installation has none."""
        super().run()
        if self.editable_mode:
            return
        package = Path(self.build_lib) / "paddle_ranker"
        for source in recipe_files():
            target = package / "recipes" / source
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
        for file in package.rglob("*.py"):
            text = file.read_text(encoding="utf-8")
            inside = IMPORT.sub(r"from paddle_ranker.recipes.\1\2 import", text)
            if inside != text:
                file.write_text(inside, encoding="utf-8")

    def get_source_files(self) -> list[str]:
        """Return what a source distribution holds: the recipes, too."""
        return [*super().get_source_files(), *map(str, recipe_files())]


class EditableWithRecipes(editable_wheel):
    """Make the checkout's recipes, benchmarks and demo data importable under their own names."""

    def run(self) -> None:
        """Build the editable wheel of all of the checkout's packages."""
        top_level = [pattern for name in (*RECIPES, *CHECKOUT_ONLY) for pattern in (name, f"{name}.*")]
        self.distribution.packages = [*(self.distribution.packages or []), *find_packages(include=top_level)]
        super().run()


def recipe_files() -> list[Path]:
    """Return the recipes' files, relative to the checkout."""
    return sorted(file for name in RECIPES for file in Path(name).rglob("*.py"))


setup(
    long_description=readme(),
    long_description_content_type="text/markdown",
    cmdclass={"build_py": BuildWheel, "editable_wheel": EditableWithRecipes},
)
