"""The pages: commands and their options exist, and code that is shown is code that is tested."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from paddle_ranker.commands.registry import COMMANDS, OF_KIND
from paddle_ranker.recipes import RECIPES
from tests.conftest import REPOSITORY, load_script

pytestmark = pytest.mark.unit
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "benchmarks/*.md", "datasets/*.md", "tests/**/*.md")
    for path in REPOSITORY.glob(pattern)
)
SHOWN = re.compile(r"^<!-- file: (?P<file>\S+) -->\n```python\n(?P<code>.*?)^```$", re.M | re.S)
NAMES = [str(path.relative_to(REPOSITORY)) for path in PAGES]


# A command of the package, of a recipe, of a benchmark, with what follows it; NAMES IN CAPITALS stand for something.
COMMAND = re.compile(
    r"(?:(?<![\w./-])paddle-ranker (?P<installed>[a-z][a-z-]*)"
    r"|python (?:-u )?(?:-m paddle\.distributed\.launch (?:--\w+ \S+ )+)?"
    r"(?:-m (?P<module>[a-z_]+(?:\.\w+)*)(?: (?P<command>[a-z][a-z-]*))?|(?P<file>[a-z_]+/[\w/]+\.py)))"
    r"(?P<options>(?:\\\n|[^\n`#|])*)"
)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_and_their_options_exist(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for found in COMMAND.finditer(page.read_text(encoding="utf-8")):
        module, command, file = found["module"], found["command"], found["file"]
        command = command or found["installed"]
        if (module == "paddle_ranker" or found["installed"]) and command:
            assert command in COMMANDS, found[0]
            runs = [COMMANDS[command].load().main]
            of_kinds = [module for name, module in OF_KIND.items() if name.split()[0] == command]
            runs += [importlib.import_module(module).main for module in of_kinds]
        elif file and file.split("/")[0] in (*RECIPES, "deploy", "datasets"):
            runs = [load_script(file).main]
        elif module and module.split(".")[0] in ("benchmarks", "tests"):
            assert (REPOSITORY / module.replace(".", "/")).with_suffix(".py").is_file(), found[0]
            continue
        else:
            continue
        for run in runs:  # one for each kind of model
            with pytest.raises(SystemExit):
                run(["--help"])
        known = capsys.readouterr().out
        for option in re.findall(r"(?<!\S)--[a-z]\w*", found["options"]):
            assert re.search(rf"{option}\b", known), f"{found[0]}: no {option}"


def test_code_that_is_shown_is_code_that_is_tested() -> None:
    for page in PAGES:
        for shown in SHOWN.finditer(page.read_text(encoding="utf-8")):
            assert shown["code"] == (REPOSITORY / shown["file"]).read_text(encoding="utf-8"), shown["file"]
