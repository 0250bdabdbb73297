"""The wheel: built without a network, installed into an empty environment, and used there without a checkout."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from paddle_ranker.recipes import RECIPES
from tests.checkout import ONCE
from tests.conftest import REPOSITORY, load_script

pytestmark = [pytest.mark.server, pytest.mark.slow, ONCE]
# All but the package and the recipes must not be packaged.
FOLDERS = ("paddle_ranker", *RECIPES, "benchmarks", "deploy", "datasets", "demo_world", "tests")
FILES = ("pyproject.toml", "setup.py", "README.md", "LICENSE")


def run(*command: object, folder: Path) -> str:
    """Run a command from `folder`, with no checkout on its path; return its standard output."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment.update(PADDLE_RANKER_CACHE=str(folder / "cache"), CUDA_VISIBLE_DEVICES="")
    done = subprocess.run(
        [*map(str, command)], cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the checkout, since building leaves folders in it."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in FILES:
        shutil.copy(REPOSITORY / name, copy)
    for name in FOLDERS:
        shutil.copytree(REPOSITORY / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


class Environment:
    """An environment without pip and this project; it finds the dependencies where this process finds them."""

    def __init__(self, folder: Path):
        self.folder = folder
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=60)
        self.python = folder / "bin" / "python"
        (self.packages,) = folder.glob("lib/python*/site-packages")
        # .pth files are ignored in a folder that a .pth file adds, so that an editable installation there stays
        # invisible.
        (self.packages / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")
        self._empty = set(os.listdir(self.packages))

    def install(self, *what: object) -> set[str]:
        """Install without dependencies; return the new files in site-packages."""
        pip = [sys.executable, "-m", "pip", "--python", self.python, "install", "--no-deps", "--no-index"]
        run(*pip, "--no-build-isolation", *what, folder=self.folder)
        return set(os.listdir(self.packages)) - self._empty


@pytest.fixture(scope="module")
def installed(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-index", "--no-build-isolation"]
    run(*pip, "--wheel-dir", folder, checkout, folder=folder)
    (wheel,) = folder.glob("*.whl")
    environment = Environment(folder / "environment")
    assert {name.split("-")[0] for name in environment.install(wheel)} == {"paddle_ranker"}
    return environment


def test_only_the_package_and_its_facts(installed: Environment) -> None:
    found = {path.name for path in installed.packages.glob("paddle_ranker*")}
    assert len(found) == 2 and "paddle_ranker" in found  # and paddle_ranker-VERSION.dist-info
    (facts,) = installed.packages.glob("*.dist-info")
    page = (facts / "METADATA").read_text(encoding="utf-8")
    assert not re.search(r"\]\((?!\w+:|#)", page) and "numpy>=1.26.4" in page  # links of a checkout lead nowhere
    assert (facts / "top_level.txt").read_text(encoding="utf-8").split() == ["paddle_ranker"]
    package = installed.packages / "paddle_ranker"
    assert (package / "py.typed").is_file() and (package / "protos/descriptors.binpb").is_file()
    assert (package / "unicode/table.json").is_file()
    assert (package / "evaluation/report/page.html.j2").is_file()


def test_holds_every_recipe_and_imports_none_from_a_checkout(installed: Environment) -> None:
    package = installed.packages / "paddle_ranker"
    for name in RECIPES:
        here = {path.relative_to(REPOSITORY) for path in (REPOSITORY / name).rglob("*.py")}
        assert here == {path.relative_to(package / "recipes") for path in (package / "recipes" / name).rglob("*.py")}
    imported: set[str] = set()
    for file in package.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported.update(alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, file
                imported.add(str(node.module).split(".")[0])
    assert imported.isdisjoint(set(FOLDERS) - {"paddle_ranker"})
    assert imported > {"paddle_ranker", "numpy", "paddle"}


@pytest.mark.thorough
def test_trains_both_rankers(installed: Environment, tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert (
        load_script("datasets/make_demo.py").main(["--output_dir", str(data), "--size", "200", "--queries", "20"]) == 0
    )
    shown = run(installed.folder / "bin" / "paddle-ranker", "--help", folder=tmp_path)
    assert shown.startswith("usage: paddle-ranker COMMAND") and "doctor" in shown
    shown = run(installed.folder / "bin" / "paddle-ranker", "serve", "--help", folder=tmp_path)
    assert "--entailment_model" in shown  # registered by a recipe
    code = "from paddle_ranker.model.builtin_kinds import KINDS; print(KINDS['entailment'].__class__.__module__)"
    shown = run(installed.python, "-c", code, folder=tmp_path)
    assert shown == "paddle_ranker.recipes.multimodal_entailment.kind\n"

    command = [installed.python, "-m", "paddle_ranker", "starter", "--corpus", data / "recall" / "corpus.csv"]
    shape = ["--hidden_size", 16, "--num_hidden_layers", 1, "--vocab_size", 800, "--pretrain_steps", 2]
    starter = run(*command, *shape, folder=tmp_path).strip()
    steps = ["--model_name_or_path", starter, "--max_steps", 3, "--logging_steps", 1, "--max_seq_length", 32]
    steps += ["--batch_size", 4, "--device", "cpu", "--cpu_threads", 1]
    paddle_ranker = installed.folder / "bin" / "paddle-ranker"
    cpu = ["--device", "cpu", "--cpu_threads", 1]
    for name, folder, file, line in (
        ("train-pairwise", "sort", "train_pairwise.csv", "{'query': "),
        ("train-ce", "literature_search_rank", "train.csv", "{'text_a': "),
    ):
        dev, run_folder = data / folder / "dev_pairwise.csv", tmp_path / folder
        files = ["--train", data / folder / file, "--test", dev, "--output", run_folder]
        output = run(paddle_ranker, name, *files, *steps, folder=tmp_path)
        assert "global step 3, epoch: 1, batch: 3, loss: " in output and "eval_dev auc:" in output
        best = run_folder / "best"
        assert (best / "model_state.pdparams").is_file()
        output = run(paddle_ranker, "evaluate", "--model", best, "--test", dev, *cpu, folder=tmp_path)
        assert "eval_dev auc:" in output and ("margin_loss: " in output) is (name == "train-pairwise")
        pairs = tmp_path / "pairs.tsv"
        pairs.write_text("a\tb\n", encoding="utf-8")
        assert run(paddle_ranker, "predict", "--model", best, "--input", pairs, *cpu, folder=tmp_path).startswith(line)
    # A recipe's file as a module, with the tutorial's options.
    train = [installed.python, "-m", "paddle_ranker.recipes.ernie_matching.evaluate", "--init_from_ckpt"]
    tests = ["--test_file", data / "sort" / "dev_pairwise.csv"]
    assert "margin_loss: " in run(*train, tmp_path / "sort" / "best", *tests, *cpu, folder=tmp_path)


def test_an_editable_installation_has_the_folders_of_the_checkout(checkout: Path, tmp_path: Path) -> None:
    environment = Environment(tmp_path / "environment")
    environment.install("--editable", checkout)
    code = "import importlib, sys; print(*(importlib.import_module(name).__file__ for name in sys.argv[1:]), sep='\\n')"
    names = (*(f"{recipe}.commands" for recipe in RECIPES), "paddle_ranker.recipes", "benchmarks.inputs")
    found = [Path(line) for line in run(environment.python, "-c", code, *names, folder=tmp_path).splitlines()]
    assert all(checkout in path.parents for path in found) and len(found) == len(names)
