"""Registries: losses, measures, engines, kinds of models and the like by name, each declared in one place.

    ENGINES: Registry[EngineKind] = Registry("engine", "--engine")
    ENGINES.add("onnx", EngineKind(...))

Choices, help texts, tables of the documentation and error texts are made from them. Code outside this package adds to
them when it is imported; it is imported where the environment variable `PADDLE_RANKER_PLUGINS` names its modules
(separated by commas), or where it is installed with an entry point in the group `paddle_ranker.plugins`.
"""

from __future__ import annotations

import glob
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Callable, Generic, TypeVar

from paddle_ranker.errors import DependencyError, UsageError, did_you_mean

GROUP = "paddle_ranker.plugins"
VARIABLE = "PADDLE_RANKER_PLUGINS"

T = TypeVar("T")


class Registry(Generic[T]):
    """Items by name, in the order in which they were added.

    Args:
        what: an item is called in messages, "engine".
        option: where a user names one, "--engine"; "" where there is no such option.
        recipes: name of the module in which a recipe of this project adds its items; those without one add none.
    """

    def __init__(self, what: str, option: str = "", *, recipes: str = ""):
        self.what, self.option, self._recipes = what, option, recipes
        self._items: dict[str, T] = {}

    def add(self, name: str, item: T) -> T:
        """Add an item and return it; raises `ValueError` where the name is taken."""
        if name in self._items:
            raise ValueError(f"{self.what} {name}: there is one of that name; choose another")
        self._items[name] = item
        return item

    def remove(self, name: str) -> None:
        """Take an item out again, for tests."""
        del self._items[name]

    def load_plugins(self) -> None:
        """Import the plugins: those that the environment names, those of installed packages, what the recipes add.

        Called where a name is not known. Raises `DependencyError` where one cannot be imported.
        """
        load_named_plugins()
        loaders = _entry_points()
        for module in _modules_of_recipes(self._recipes) if self._recipes else ():
            loaders[module] = partial(importlib.import_module, module)
        for name, load in loaders.items():
            if name in _loaded:
                continue
            _loaded.add(name)
            try:
                load()
            except ImportError as error:
                raise DependencyError(
                    f"the installed plugin {name} cannot be imported ({error}): repair or uninstall its package"
                ) from error

    def __contains__(self, name: object) -> bool:
        if name not in self._items:
            self.load_plugins()
        return name in self._items

    def __getitem__(self, name: str) -> T:
        """Return an item; raises `UsageError`, with the names there are, where there is none of that name."""
        if name not in self:
            raise UsageError(
                f"{self.option or self.what} {name}: choose from {', '.join(self)}{did_you_mean(name, list(self))}"
            )
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def items(self) -> Iterator[tuple[str, T]]:
        """Yield names and items, in the order in which they were added."""
        return iter(self._items.items())

    def values(self) -> Iterator[T]:
        """Yield the items, in the order in which they were added."""
        return iter(self._items.values())


def load_named_plugins() -> None:
    """Import the modules that `PADDLE_RANKER_PLUGINS` names.

    Raises `DependencyError` where one cannot be imported.
    """
    for name in filter(None, (part.strip() for part in os.environ.get(VARIABLE, "").split(","))):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise DependencyError(
                f"{VARIABLE}={os.environ[VARIABLE]}: {name} cannot be imported ({error}): install it, add its folder "
                "to PYTHONPATH, or unset the variable"
            ) from error


def _modules_of_recipes(name: str) -> list[str]:
    """Return the modules of that name in this project's recipes, which this package knows by their names alone."""
    recipes = importlib.import_module("paddle_ranker.recipes")
    return [
        f"{package}.{name}"
        for package in map(recipes.package_of, recipes.RECIPES)
        if importlib.util.find_spec(f"{package}.{name}") is not None
    ]


_loaded: set[str] = set()  # plugins that were loaded: each is once


def _entry_points() -> dict[str, Callable[[], object]]:
    """Return what loads each entry point of the group, by its module's name."""
    # Parsing every package's metadata takes tens of milliseconds, looking for the group's name in it a few.
    files = (file for folder in sys.path for file in glob.iglob(os.path.join(folder, "*-info", "entry_points.txt")))
    if not any(GROUP.encode() in Path(file).read_bytes() for file in files):
        return {}
    from importlib import metadata

    points = metadata.entry_points()
    # Python 3.9 has a dict here, later ones an object to select from.
    found = points.get(GROUP, []) if isinstance(points, dict) else points.select(group=GROUP)
    return {point.value: point.load for point in found}
