"""Registries: names, errors, and plugins that are imported when a name is not known."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from paddle_ranker import registry
from paddle_ranker.errors import DependencyError, UsageError
from paddle_ranker.recipes import RECIPES, package_of
from paddle_ranker.registry import Registry, load_named_plugins

pytestmark = pytest.mark.unit


@pytest.fixture
def numbers(monkeypatch: pytest.MonkeyPatch) -> Registry[int]:
    """Make a registry of two items, in a process that has loaded no plugin."""
    monkeypatch.setattr(registry, "_loaded", set())
    made: Registry[int] = Registry("number", "--number")
    made.add("three", 3)
    made.add("one", 1)
    return made


def test_items_in_order_and_errors_with_those_there_are(numbers: Registry[int]) -> None:
    assert list(numbers) == ["three", "one"] and list(numbers.values()) == [3, 1] and len(numbers) == 2
    assert numbers["one"] == 1 and "three" in numbers and "two" not in numbers
    with pytest.raises(ValueError, match="number one: the name is taken"):
        numbers.add("one", 2)
    with pytest.raises(UsageError, match=r"^--number tree: choose from three, one.*did you mean three"):
        numbers["tree"]


def test_an_unknown_name_may_come_from_a_plugin(
    numbers: Registry[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    facts = tmp_path / "plugin_of_numbers-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin-of-numbers\nVersion: 1.0\n", encoding="utf-8")
    (facts / "entry_points.txt").write_text("[paddle_ranker.plugins]\nmore = plugin_of_numbers\n", encoding="utf-8")
    (tmp_path / "plugin_of_numbers.py").write_text("numbers.add('two', 2)\n", encoding="utf-8")
    monkeypatch.setattr("builtins.numbers", numbers, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "plugin_of_numbers", raising=False)
    assert "three" in numbers and "plugin_of_numbers" not in sys.modules  # loaded only when needed
    assert numbers["two"] == 2
    assert "four" not in numbers  # and only once: a second import would add a second `two`


def test_a_plugin_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PADDLE_RANKER_PLUGINS", "json, no_such_module")
    with pytest.raises(DependencyError, match=r"no_such_module cannot be imported \(.*\): install it, add its folder"):
        load_named_plugins()


def test_folders_named_like_recipes_hide_none_of_them(tmp_path: Path) -> None:
    """Python takes such a folder, if first on the path, for an editable package: all but its `__init__`."""
    for recipe in RECIPES:
        (tmp_path / recipe).mkdir()
    parts = ("kind", "commands", "plugin", "starter", "indexes")
    modules = [f"{package_of(recipe)}.{part}" for recipe in RECIPES for part in parts]
    program = "import importlib.util as u, sys\nfor name in sys.argv[1:]:\n    if u.find_spec(name): __import__(name)"
    subprocess.run([sys.executable, "-c", program, *modules], check=True, cwd=tmp_path)
