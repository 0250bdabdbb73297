"""docs/architecture.md holds: its map is the package, imports point downwards only, its files and names exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Union

import pytest

from paddle_ranker.recipes import RECIPES
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.unit
PAGE = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
CODE = ("paddle_ranker", *RECIPES, "benchmarks", "deploy", "datasets")
Function = Union[ast.FunctionDef, ast.AsyncFunctionDef]


def section(title: str) -> str:
    """Return what stands under a heading of the page, up to the next one of its level."""
    level = title.split(" ")[0]
    found = re.search(rf"^{re.escape(title)}\n(.*?)(?=^#{{1,{len(level)}}} |\Z)", PAGE, re.M | re.S)
    assert found, f"docs/architecture.md has no {title}"
    return found[1]


def first_cells(title: str) -> list[str]:
    """Return the names in the first column of the table right under a heading, top to bottom."""
    table = re.split(r"^#", section(title), maxsplit=1, flags=re.M)[0]
    return [name.rstrip("/").removesuffix(".py") for name in re.findall(r"^\| `([^`]+)` \|", table, re.M)]


ROOMS = first_cells("## The map")
SERVING = first_cells("### Inside `serving/`")


def modules() -> dict[str, Path]:
    """Return the package's modules: dotted name and file."""
    found = {}
    for path in sorted((REPOSITORY / "paddle_ranker").rglob("*.py")):
        name = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    return found


MODULES = modules()


def imports(path: Path) -> Iterator[str]:
    """Yield the modules that a file imports, wherever the import stands: in functions and for type checkers, too."""
    return imported(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def imported(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Yield the modules that these statements import."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = str(node.module)
            for alias in node.names:
                yield f"{module}.{alias.name}" if f"{module}.{alias.name}" in MODULES else module


GRAPH = {name: sorted(set(imports(path))) for name, path in MODULES.items()}


def room_of(module: str, depth: int = 1) -> str:
    """Return the room of a module, at depth 2 the room inside that; "" for the package's own `__init__`."""
    parts = module.split(".")
    return parts[depth] if len(parts) > depth else ""


def upwards(order: list[str], prefix: str, depth: int) -> list[str]:
    """Return the imports between the rooms of `order`, top to bottom, that do not point downwards."""
    inside = {module: room_of(module, depth) for module in GRAPH if module.startswith(f"{prefix}.")}
    return [
        f"{module} imports {target}"
        for module, room in inside.items()
        for target in GRAPH[module]
        if room and inside.get(target) and order.index(inside[target]) < order.index(room)
    ]


def test_the_map_shows_every_room_and_no_other() -> None:
    assert {room_of(name) for name in MODULES} - {""} == set(ROOMS)
    assert {room_of(name, 2) for name in MODULES if name.startswith("paddle_ranker.serving.")} == set(SERVING)
    assert len(ROOMS) == len(set(ROOMS)) and len(SERVING) == len(set(SERVING))


def test_imports_between_rooms_point_downwards() -> None:
    assert upwards(ROOMS, "paddle_ranker", 1) == []


def test_imports_inside_serving_point_downwards() -> None:
    assert upwards(SERVING, "paddle_ranker.serving", 2) == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    # Whatever imports nothing that is left goes; what cannot go stands in a circle, or above one.
    left = {name: {target for target in targets if target in MODULES} for name, targets in GRAPH.items()}
    while free := {name for name, targets in left.items() if not targets & left.keys()}:
        left = {name: targets for name, targets in left.items() if name not in free}
    while unused := left.keys() - {target for targets in left.values() for target in targets}:
        left = {name: targets for name, targets in left.items() if name not in unused}
    assert sorted(left) == []


def test_the_core_imports_no_recipe() -> None:
    found = [
        f"{module} imports {target}"
        for module, targets in GRAPH.items()
        for target in targets
        if target.split(".")[0] in CODE[1:] and room_of(module) != "recipes"
    ]
    assert found == []
    assert [f"{module} imports {target}" for module, targets in GRAPH.items() for target in targets
            if room_of(target) == "recipes"] == []  # fmt: skip


def functions(tree: ast.Module) -> Iterator[Function]:
    """Yield every function and method."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def test_paddle_is_imported_after_the_process_is_prepared_for_it() -> None:
    # It reads the environment when it is imported: the math library's code path would be chosen too late.
    files = [path for folder in RECIPES for path in sorted((REPOSITORY / folder).glob("*.py"))]
    of_recipes = {f"{path.parent.name}.{path.stem}": path for path in files}
    texts = {name: path.read_text(encoding="utf-8") for name, path in {**MODULES, **of_recipes}.items()}
    trees = {name: ast.parse(text) for name, text in texts.items()}
    at_import = {name: set(imported(tree.body)) for name, tree in trees.items()}
    with_paddle = {"paddle"}
    while more := {name for name, targets in at_import.items() if targets & with_paddle} - with_paddle:
        with_paddle |= more
    assert "paddle_ranker.training.trainer" in with_paddle
    # Programs import the retriever and the collection without preparing anything; `Tower.open` does that.
    assert [name for name in with_paddle if room_of(name) == "retrieval"] == []
    found = []
    for name, text in texts.items():
        if "runtime.prepare" not in text and ("\ndef main(" in text or "\nmain = " in text):
            found += [f"{name} imports {one}" for one in with_paddle.intersection(imported(ast.walk(trees[name])))]
        for function in functions(trees[name]) if "runtime.prepare" in text else ():
            calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
            first = min((one.lineno for one in calls if ast.unparse(one.func).startswith("runtime.prepare")), default=0)
            before = [node for node in ast.walk(function) if getattr(node, "lineno", first) < first]
            found += [f"{name} {function.name} imports {one}" for one in with_paddle.intersection(imported(before))]
    assert sorted(found) == []


def defined(path: Path) -> set[str]:
    """Return the names that a Python file defines: functions, classes, `Class.method`, variables."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        inside = node.body if isinstance(node, ast.ClassDef) else []
        for one, prefix in [(node, ""), *((member, f"{getattr(node, 'name', '')}.") for member in inside)]:
            if isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                names.add(prefix + one.name)
            targets = (
                one.targets if isinstance(one, ast.Assign) else [one.target] if isinstance(one, ast.AnnAssign) else []
            )
            names.update(prefix + target.id for target in targets if isinstance(target, ast.Name))
    return names


# A step of a walk or of an answer: 1. `folder/file.py`: `name`, `Class.method` - what happens there
STEP = re.compile(r"^\d+\. `(?P<file>[^`]+)`(?P<names>(?:[:,] `[^`]+`)*)", re.M)


def quoted(text: str) -> list[str]:
    """Return what stands between backticks."""
    return re.findall(r"`([^`]+)`", text)


def test_every_file_and_name_of_the_page_exists() -> None:
    steps = list(STEP.finditer(PAGE))
    assert len(steps) > 25
    missing = [step["file"] for step in steps if not (REPOSITORY / step["file"]).is_file()]
    missing += [
        f"{step['file']}: {name}"
        for step in steps
        for name in quoted(step["names"])
        if name not in defined(REPOSITORY / step["file"])
    ]
    assert missing == []
