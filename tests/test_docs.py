"""The pages: links resolve, both READMEs say the same, code that is shown is code that is tested, commands exist."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

import paddle_ranker
from paddle_ranker.commands.registry import COMMANDS, OF_KIND
from paddle_ranker.recipes import RECIPES
from tests.conftest import REPOSITORY, load_script

pytestmark = pytest.mark.unit
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "benchmarks/*.md", "datasets/*.md", "tests/**/*.md")
    for path in REPOSITORY.glob(pattern)
)
FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.M | re.S)
SHOWN = re.compile(r"^<!-- file: (?P<file>\S+) -->\n```python\n(?P<code>.*?)^```$", re.M | re.S)
NAMES = [str(path.relative_to(REPOSITORY)) for path in PAGES]


def anchors(page: Path) -> set[str]:
    """Return the names under which GitHub links to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.M)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_resolve(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{link} leads nowhere"
        assert not anchor or anchor in anchors(target), f"{link}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_files_that_are_named_exist(page: Path) -> None:
    folders = "|".join(path.name for path in REPOSITORY.iterdir() if path.is_dir() and not path.name.startswith("."))
    text = page.read_text(encoding="utf-8")  # COMMIT:FILE is a file of that commit
    for name in re.findall(rf"(?<![\w./:-])((?:{folders})/[\w./]+\.(?:py|sh|md|in|txt|yml|service))\b", text):
        assert (REPOSITORY / name).is_file(), f"{name} is not there"


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


def test_both_readmes_say_the_same() -> None:
    english, chinese = ((REPOSITORY / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh.md"))

    def outline(text: str) -> dict[str, object]:
        """Return what does not depend on the language: headings' levels, tables' sizes, links, code, figures."""
        tables = re.findall(r"(?:^\|.*\n)+", text, re.M)
        code = re.sub(r"#[^\n]*|\"[^\"\n]*\"|: query.*", "", "".join(match["code"] for match in FENCE.finditer(text)))
        return {
            "headings": re.findall(r"^(#+) ", text, re.M),
            "rows": [table.count("\n") for table in tables],
            "links": [link for link in re.findall(r"\]\(([^)]+)\)", text) if not link.startswith("README")],
            "code": [line.rstrip() for line in code.splitlines()],
            "figures": [sorted(re.findall(r"\d(?:[\d.,]*\d)?", row)) for row in "".join(tables).splitlines()],
        }

    assert outline(english) == outline(chinese)
    assert english.count("\n") <= 180


def test_code_that_is_shown_is_code_that_is_tested() -> None:
    for page in PAGES:
        for shown in SHOWN.finditer(page.read_text(encoding="utf-8")):
            assert shown["code"] == (REPOSITORY / shown["file"]).read_text(encoding="utf-8"), shown["file"]


def test_python_can_train_whatever_the_page_lists() -> None:
    page = (REPOSITORY / "docs" / "python.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([a-z-]+)` \| `paddle-ranker ([a-z-]+)` \|", page, re.M)
    assert sorted(command for _, command in listed) == sorted(name for name, one in COMMANDS.items() if one.options)
    assert [command.replace("train-", "") for _, command in listed] == [name for name, _ in listed]
    assert [name for name, _ in listed if name not in str(paddle_ranker.train.__doc__)] == []


def test_contributing_names_every_extension() -> None:
    shown = set(re.findall(r"tests/extensions/own_\w+\.py", (REPOSITORY / "CONTRIBUTING.md").read_text("utf-8")))
    files = (REPOSITORY / "tests" / "extensions").glob("own_*.py")
    assert shown == {path.relative_to(REPOSITORY).as_posix() for path in files}
