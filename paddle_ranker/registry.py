"""Registries: each maps names to items of one sort, such as losses, measures, engines or kinds of models.

    ENGINES: Registry[EngineKind] = Registry("engine", "--engine")
    ENGINES.add("onnx", EngineKind(...))

Option choices, help texts, tables of the documentation and error texts are made from registries. A plugin is code
outside this package that adds items when it is imported. A plugin is imported if the environment variable
`PADDLE_RANKER_PLUGINS` names its module (separated by commas), or if its package is installed with an entry point in
the group `paddle_ranker.plugins`.
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

from paddle_ranker.errors import DependencyError, UsageError, brief, spelling_hint

GROUP = "paddle_ranker.plugins"
VARIABLE = "PADDLE_RANKER_PLUGINS"

T = TypeVar("T")


class Registry(Generic[T]):
    """Items by name, in the order in which they were added.

    what: the word for an item in messages, such as "engine"
    option: the command-line option that names an item, such as "--engine"; "" if there is none
    recipes: name of a module, such as "commands". If a recipe has a module of this name, the module adds the recipe's
        items
    """

    def __init__(self, what: str, option: str = "", *, recipes: str = ""):
        self.what, self.option, self._recipes = what, option, recipes
        self._items: dict[str, T] = {}

    def add(self, name: str, item: T) -> T:
        """Add an item and return it; raises `ValueError` if the name is taken."""
        if name in self._items:
            raise ValueError(f"{self.what} {name}: the name is taken; choose another")
        self._items[name] = item
        return item

    def remove(self, name: str) -> None:
        """Remove an item, for tests; raises `KeyError` if the name is unknown."""
        del self._items[name]

    def load_plugins(self) -> None:
        """Import all plugins: modules that the environment names, entry points of packages, modules of the recipes.

        The registry calls this when a name is unknown. Raises `DependencyError` if a plugin cannot be imported.
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
        """Return an item; raises `UsageError`, which lists the known names, if the name is unknown."""
        if name not in self:
            if not len(self):
                raise UsageError(f"{self.option} {brief(name)}: this installation has no {self.what}; leave it out")
            raise UsageError(
                f"{self.option or self.what} {brief(name)}: choose from {', '.join(self)}"
                f"{spelling_hint(name, list(self))}"
            )
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def items(self) -> Iterator[tuple[str, T]]:
        """Yield (name, item) in the order in which the items were added."""
        return iter(self._items.items())

    def values(self) -> Iterator[T]:
        """Yield the items, in the order in which they were added."""
        return iter(self._items.values())


def load_named_plugins() -> None:
    """Import the modules that `PADDLE_RANKER_PLUGINS` names.

    Raises `DependencyError` if a module cannot be imported.
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
    """Return the full names of the modules called `name` of guests and recipes."""
    recipes = importlib.import_module("paddle_ranker.recipes")
    packages = map(recipes.package_of, (*recipes.GUESTS, *recipes.RECIPES))
    # Not by the specification of the module, since finding that imports the package.
    return [f"{package}.{name}" for package in packages if (_folder_of(package) / f"{name}.py").is_file()]


def _folder_of(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.origin is not None, package
    return Path(spec.origin).parent


_loaded: set[str] = set()  # names of loaded plugins, which are not loaded again


def _entry_points() -> dict[str, Callable[[], object]]:
    """Return, for each entry point of a plugin, the function that loads it, by the entry point's module."""
    # Parsing every package's metadata takes tens of milliseconds; searching it for the group's name takes a few.
    files = (file for folder in sys.path for file in glob.iglob(os.path.join(folder, "*-info", "entry_points.txt")))
    if not any(GROUP.encode() in Path(file).read_bytes() for file in files):
        return {}
    from importlib import metadata

    points = metadata.entry_points()
    # Python 3.9 returns a dict, later versions an object to select from.
    selected = points.get(GROUP, []) if isinstance(points, dict) else points.select(group=GROUP)
    return {point.value: point.load for point in selected}
