"""docs/architecture.md holds: its map is the package, and imports point downwards only."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from paddle_ranker.api import API
from paddle_ranker.commands.command_registry import COMMANDS
from paddle_ranker.lexical.tokens import STANDARD
from paddle_ranker.recipes import GUESTS, RECIPES
from paddle_ranker.retrieval.stored.manifest import IndexInfo, RankerStates, WordsInfo, write_manifest
from paddle_ranker.retrieval.vectors.vector_settings import VectorsInfo
from tests.checkout import ONCE
from tests.conftest import REPOSITORY
from tests.forks import run_code

pytestmark = pytest.mark.unit
PAGE = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
OUTSIDE = {*RECIPES, "benchmarks", "deploy", "datasets", "demo_world"}


def first_cells(title: str) -> list[str]:
    """Return the names in the first column of the table right under a heading of the page, top to bottom."""
    table = re.search(rf"^{re.escape(title)}\n(.*?)(?=^#|\Z)", PAGE, re.M | re.S)
    assert table, f"docs/architecture.md has no {title}"
    return [name.rstrip("/").removesuffix(".py") for name in re.findall(r"^\| `([^`]+)` \|", table[1], re.M)]


def modules() -> dict[str, Path]:
    """Return the package's modules: dotted name and file."""
    found = {}
    for path in sorted((REPOSITORY / "paddle_ranker").rglob("*.py")):
        name = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    return found


MODULES = modules()


@cache
def trees() -> dict[str, ast.Module]:
    """Return each module's syntax tree, made once: not while tests are collected, which every process does."""
    return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def imported(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Yield the modules that these statements import."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = str(node.module)
            for alias in node.names:
                yield f"{module}.{alias.name}" if f"{module}.{alias.name}" in MODULES else module


@cache
def graph() -> dict[str, list[str]]:
    """Return what each module imports, in functions and for type checkers, too."""
    return {name: sorted(set(imported(ast.walk(tree)))) for name, tree in trees().items()}


def room_of(module: str, depth: int = 1) -> str:
    """Return the room of a module, at depth 2 the room inside that; "" for the package's own `__init__`."""
    parts = module.split(".")
    return parts[depth] if len(parts) > depth else ""


@pytest.mark.parametrize(
    ("title", "prefix", "depth"),
    [
        ("## The map", "paddle_ranker", 1),
        ("### Inside `serving/`", "paddle_ranker.serving", 2),
        ("### Inside `retrieval/`", "paddle_ranker.retrieval", 2),
        ("### Inside `data/`", "paddle_ranker.data", 2),
    ],
)
def test_the_map_shows_every_room_and_imports_between_rooms_point_downwards(
    title: str, prefix: str, depth: int
) -> None:
    order = first_cells(title)
    inside = {module: room_of(module, depth) for module in graph() if module.startswith(f"{prefix}.")}
    assert sorted(set(inside.values()) - {""}) == sorted(order)
    upwards = [
        f"{module} imports {target}"
        for module, room in inside.items()
        for target in graph()[module]
        if room and inside.get(target) and order.index(inside[target]) < order.index(room)
    ]
    assert upwards == []


def test_no_classes_share_a_name() -> None:
    # Users of one framework meet its file alone, where classes are named as that framework's are.
    frameworks = "paddle_ranker.integrations."
    names = Counter(
        node.name
        for name, tree in trees().items()
        if name.startswith("paddle_ranker.") and not name.startswith(frameworks)
        for node in tree.body
        if isinstance(node, ast.ClassDef)
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_no_module_imports_the_package_itself() -> None:
    assert [module for module, targets in graph().items() if "paddle_ranker" in targets] == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    # Whatever imports nothing that is left goes; what cannot go stands in a circle, or above one.
    left = {name: {target for target in targets if target in MODULES} for name, targets in graph().items()}
    while free := {name for name, targets in left.items() if not targets & left.keys()}:
        left = {name: targets for name, targets in left.items() if name not in free}
    while unused := left.keys() - {target for targets in left.values() for target in targets}:
        left = {name: targets for name, targets in left.items() if name not in unused}
    assert sorted(left) == []


def test_the_core_imports_no_recipe_and_no_guest() -> None:
    found = [
        f"{module} imports {target}"
        for module, targets in graph().items()
        for target in targets
        if (target.split(".")[0] in OUTSIDE and room_of(module) != "recipes")
        or (room_of(target) in {"recipes", *GUESTS} and room_of(target) != room_of(module))
    ]
    assert found == []


def test_recipes_and_plugins_import_declared_names_alone_and_all_of_them() -> None:
    recipes = [path for name in RECIPES for path in (REPOSITORY / name).rglob("*.py")]
    used: dict[str, set[str]] = {}
    for path in [*recipes, *(REPOSITORY / "tests" / "extensions").glob("own_*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                package, *rooms = str(node.module).split(".")
                if package == "paddle_ranker" and not {*rooms[:1]} & {*GUESTS}:
                    used.setdefault(".".join(rooms), set()).update(alias.name for alias in node.names)
    assert used == {module: set(names) for module, names in API.items()}
    for module, names in API.items():
        there = import_module(f"paddle_ranker.{module}".rstrip("."))
        assert [name for name in names if not hasattr(there, name)] == []


# What only a guest needs beside its folder: scripts whose names the tutorial gives.
SCRIPTS = {"paddle_serving": ("*/export_to_serving.py",), "milvus": ("recall/milvus_ann_search.py",)}
# Lines that name what a guest does, their exit status, and what is said without it; INDEX is one of vectors in Milvus,
# STATES one of stored states.
REFUSED = {
    "milvus": (
        ("index build --corpus a --output b --tower c --method milvus", 2, "--method milvus: choose from exact, faiss"),
        ("mine --queries a --output b --tower c --method milvus", 2, "choose from bm25, random, tower, exact, faiss"),
        ("index info INDEX", 1, "INDEX: its vectors are in milvus, which this installation lacks"),
        ("search-serve --index INDEX --port 0", 1, "INDEX: its vectors are in milvus, which this installation lacks"),
    ),
    "remote_models": (
        ("index build --corpus a --output b --tower http://host/v1#m", 2, "asks no models behind URLs; name a folder"),
    ),
    "scale": (
        (
            "predict --model a --input b --output c --ray local",
            2,
            "--ray 'local': this installation has no cluster of Ray",
        ),
        (
            "index build --corpus a --output b --shards 2 --ray auto",
            2,
            "--ray 'auto': this installation has no cluster of Ray",
        ),
    ),
    "pictures": (
        ("index build --corpus a --output b --field photo:picture", 2, "expected NAME:TYPE with a type of text,"),
        ("starter --corpus vit/config.json --output b --picture_size 64", 2, "input of towers picture: choose from"),
        ("convert vit OUTPUT", 1, "config.json: model_type is 'vit'; qwen3, bert,"),
        ("convert vilt OUTPUT", 1, "config.json: model_type is 'vilt'; qwen3, bert,"),
    ),
    "recordings": (
        ("index build --corpus a --output b --field talk:recording", 2, "expected NAME:TYPE with a type of text,"),
    ),
    "pages": (("index build --corpus a --output b --field manual:pdf", 2, "expected NAME:TYPE with a type of text,"),),
    "layouts": (("convert layoutlm OUTPUT", 1, "config.json: model_type is 'layoutlm'; qwen3, bert,"),),
    "tables": (("convert tapas OUTPUT", 1, "config.json: model_type is 'tapas'; qwen3, bert,"),),
    "stored_titles": (
        ("predict --model a --input b --store c", 2, "--store 'c': this installation has no stored titles"),
        ("index build --corpus a --output b --store_states c", 2, "'c': this installation has no stored titles"),
        ("index info STATES", 1, "STATES: has stored states (--store_states), which this installation lacks"),
        ("search --index STATES words", 1, "STATES: has stored states (--store_states), which this installation lacks"),
        ("search-serve --index STATES --port 0", 1, "STATES: has stored states (--store_states), which this"),
    ),
    "tracking": (
        (
            "train-pairwise --train a --test b --log_to mlflow",
            2,
            "--log_to mlflow: this installation has no experiment tracker; leave it out",
        ),
    ),
}
# In a fork that has imported other packages and this one: imports from the copy, not from the checkout.
IN_COPY = """
import importlib, os, pkgutil, sys
os.chdir(sys.argv[1])
sys.path[:] = [sys.argv[1], *(path for path in sys.path if path and not os.path.isdir(f"{path}/paddle_ranker"))]
sys.meta_path[:] = [finder for finder in sys.meta_path if not finder.__module__.startswith("__editable__")]
for name in {*sys.modules}:
    if name.split(".")[0] in ("paddle_ranker", *sys.argv[2].split(",")):
        del sys.modules[name]
import paddle_ranker
assert paddle_ranker.__file__.startswith(sys.argv[1])
"""
IMPORT_ALL = """
from paddle_ranker.errors import DependencyError
from paddle_ranker.recipes import RECIPES, package_of
for package in ("paddle_ranker", *map(package_of, RECIPES)):
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
        if not module.name.endswith("__main__"):
            try:
                importlib.import_module(module.name)
            except (ImportError, DependencyError) as error:
                missing = error.__cause__ if isinstance(error, DependencyError) else error
                packages = ("paddle_ranker", *sys.argv[2].split(","))  # with the one that is deleted
                assert (missing.name or "").split(".")[0] not in packages, (module.name, error)
"""
COMMAND = """
sys.argv = ["paddle-ranker", *sys.argv[3:]]
from paddle_ranker.__main__ import main
sys.exit(main())
"""


@ONCE
@pytest.mark.parametrize("guest", [*GUESTS, "pretraining", "multimodal_entailment"])
def test_a_guest_can_be_deleted_with_its_folder(guest: str, tmp_path: Path) -> None:
    for name in ("paddle_ranker", *RECIPES):
        shutil.copytree(REPOSITORY / name, tmp_path / name)  # with its bytecode, which takes seconds to make
    shutil.rmtree(tmp_path / ("paddle_ranker" if guest in GUESTS else "") / guest)
    for script in (path for pattern in SCRIPTS.get(guest, ()) for path in tmp_path.glob(pattern)):
        script.unlink()
    lists = tmp_path / "paddle_ranker" / "recipes" / "__init__.py"
    text = lists.read_text(encoding="utf-8")
    lists.write_text(re.sub(rf'"{guest}",? ?', "", text), encoding="utf-8")

    def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        given = (str(tmp_path), ",".join(RECIPES), *arguments)
        return run_code([sys.executable, "-c", IN_COPY + code, *given])

    done = run(IMPORT_ALL + COMMAND, "help")
    assert done.returncode == 0, done.stdout
    of_milvus = VectorsInfo("milvus", 8, uri="milvus.db", collection="a")
    states = RankerStates("ranker", "0", 1, 8, "float16")
    for name, info in (
        ("INDEX", IndexInfo(WordsInfo(STANDARD), of_milvus)),
        ("STATES", IndexInfo(WordsInfo(STANDARD), None, states=states)),
    ):
        (tmp_path / name).mkdir()
        write_manifest(tmp_path / name, info)
    for model_type in ("layoutlm", "tapas", "vilt", "vit"):
        (tmp_path / model_type).mkdir()
        (tmp_path / model_type / "config.json").write_text(json.dumps({"model_type": model_type}))
        (tmp_path / model_type / "model.safetensors").touch()
    for line, status, message in REFUSED.get(guest, ()):
        refused = run(COMMAND, *line.split())
        assert refused.returncode == status and message in refused.stdout, refused.stdout
    COMMANDS.load_plugins()
    of_guest = {name for name, command in COMMANDS.items() if guest in command.module.split(".")}
    listed = {line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")}
    assert of_guest or guest in {*REFUSED, "integrations", "tracing"}  # which add no command
    assert listed & set(COMMANDS) == set(COMMANDS) - of_guest


def test_towers_need_no_recipe() -> None:
    names = "KINDS['tower'], SLOTS['tower'], ENDPOINTS['embeddings'], [n for n in RECIPES if n in sys.modules]"
    code = f"""import sys
from paddle_ranker.model.builtin_kinds import KINDS
from paddle_ranker.commands.command_registry import COMMANDS
from paddle_ranker.recipes import GUESTS, RECIPES
from paddle_ranker.serving.slots.slot_kinds import SLOTS
from paddle_ranker.serving.http.endpoints import ENDPOINTS
assert ({names})[3] == []"""
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True, timeout=60)


def test_paddle_is_imported_after_the_process_is_prepared_for_it() -> None:
    # It reads the environment when it is imported: the math library's code path would be chosen too late.
    files = [path for folder in RECIPES for path in sorted((REPOSITORY / folder).glob("*.py"))]
    of_recipes = {f"{path.parent.name}.{path.stem}": path for path in files}
    texts = {name: path.read_text(encoding="utf-8") for name, path in {**MODULES, **of_recipes}.items()}
    parsed = {name: trees().get(name) or ast.parse(text) for name, text in texts.items()}
    at_import = {name: set(imported(tree.body)) for name, tree in parsed.items()}
    with_paddle = {"paddle"}
    while more := {name for name, targets in at_import.items() if targets & with_paddle} - with_paddle:
        with_paddle |= more
    assert "paddle_ranker.training.trainer" in with_paddle
    # Programs import the retriever and the collection without preparing anything; `Tower.open` does that.
    assert [name for name in with_paddle if room_of(name) == "retrieval"] == []
    found = []
    for name, text in texts.items():
        if "runtime.prepare" not in text and ("\ndef main(" in text or "\nmain = " in text):
            found += [f"{name} imports {one}" for one in with_paddle.intersection(imported(ast.walk(parsed[name])))]
        for function in ast.walk(parsed[name]) if "runtime.prepare" in text else ():
            if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
            first = min((one.lineno for one in calls if ast.unparse(one.func).startswith("runtime.prepare")), default=0)
            before = [node for node in ast.walk(function) if getattr(node, "lineno", first) < first]
            found += [f"{name} {function.name} imports {one}" for one in with_paddle.intersection(imported(before))]
    assert sorted(found) == []


ARGUMENT = re.compile(r"([a-z_]\w*(?:, [a-z_]\w*)*): ")
DOCUMENTED = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@cache
def classes() -> dict[str, ast.ClassDef]:
    """Return the package's classes by their names."""
    return {node.name: node for tree in trees().values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}


def described_in(docstring: str) -> Iterator[str]:
    """Yield the names that begin the lines of a docstring's lists of arguments; " " for a line without one."""
    for block in re.split(r"\n\n+", docstring)[1:]:
        lines = textwrap.dedent(re.sub(r"^(Args|Attributes):\n", "", block)).split("\n")
        if block.startswith(("Args:", "Attributes:")) or ARGUMENT.match(lines[0]):
            for line in lines:
                match = ARGUMENT.match(line)
                yield from match[1].split(", ") if match else [" "] * (not line.startswith(" "))


def names_of(node: ast.AST) -> set[str]:
    """Return a function's parameters; or the fields, attributes, methods and parameters of a class and its bases."""
    if not isinstance(node, ast.ClassDef):
        return {one.arg for one in ast.walk(getattr(node, "args", node)) if isinstance(one, ast.arg)}
    names = {one.attr for one in ast.walk(node) if isinstance(one, ast.Attribute) and ast.unparse(one.value) == "self"}
    for one in node.body:
        names |= {getattr(one, "name", "")} | (names_of(one) if getattr(one, "name", "") == "__init__" else set())
        names |= {name.id for name in ast.walk(one) if isinstance(name, ast.Name) and not isinstance(one, DOCUMENTED)}
    return names.union(*(names_of(classes()[name]) for base in node.bases if (name := ast.unparse(base)) in classes()))


@pytest.mark.parametrize("module", MODULES)
def test_docstrings_describe_only_names_that_there_are_and_each_once(module: str) -> None:
    wrong = []
    for node in ast.walk(trees()[module]):
        if isinstance(node, DOCUMENTED) and (docstring := ast.get_docstring(node)):
            names, described = names_of(node), list(described_in(docstring))
            if not getattr(getattr(node, "args", None), "kwarg", None):  # which takes any name
                wrong += [(node.name, name) for name in described if name not in names]
            if not {"Args:", "Attributes:"} <= set(docstring.split("\n")):  # an attribute may be an argument
                wrong += [(node.name, name) for name in Counter(described) - Counter(set(described))]
    assert wrong == []


@pytest.mark.parametrize("folder", ["benchmarks", "datasets", "demo_world", "deploy"])
def test_programs_beside_the_package_import_modules_that_there_are(folder: str) -> None:
    """They import in functions, too, some of which run in environments of their own, where no type checker looks."""
    missing = [
        f"{path.relative_to(REPOSITORY)}: {node.module}"
        for path in sorted((REPOSITORY / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("paddle_ranker")
        if node.module not in MODULES
    ]
    assert missing == []
