"""List the figures of RESULTS.md whose programs have changed since, from git.

    python -m benchmarks.stale
    python -m benchmarks.stale --mark

A figure depends on the files that its program imports, also inside functions. Each line shows a commit, the command,
the number of lines that changed since, and the files with the most changes: measure these figures again. `--mark`
writes `, not since` behind their commits in RESULTS.md instead, which tells readers that they are figures of that
commit; a figure that says so is not listed.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from paddle_ranker.options import Options, main_of, option
from paddle_ranker.storage.atomic import new_file

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "RESULTS.md"
NOT_SINCE = ", not since"


class Figure(NamedTuple):
    """A row of RESULTS.md.

    is_kept: whether it says that it is a figure of its commit, and not of later code
    """

    commit: str
    command: str
    is_kept: bool


@dataclass(frozen=True)
class StaleOptions(Options):
    mark: bool = option(False, help="write in RESULTS.md of which figures the program has changed since")


def list_stale(options: StaleOptions) -> int:
    page = RESULTS.read_text(encoding="utf-8")
    for commit, command in sorted({(figure.commit, figure.command) for figure in figures(page) if not figure.is_kept}):
        if not is_known(commit):
            print(f"{commit}  {command}: git has no such commit; measure again")
            continue
        changed = changes_since(commit, imported_files(program_of(command)))
        if not changed:
            continue
        if options.mark:
            page = marked(page, commit, command)
            continue
        most = ", ".join(sorted(changed, key=lambda name: -changed[name])[:3])
        print(f"{commit}  {command}: {sum(changed.values()):,} lines in {len(changed)} files ({most})")
    if options.mark:
        with new_file(RESULTS) as stream:
            stream.write(page)
    return 0


def figures(page: str) -> Iterator[Figure]:
    """Yield the rows of RESULTS.md with a figure."""
    for line in re.findall(r"^\| (`.+) \|$", page.split("## Left, and")[0], re.M):
        cells = line.split(" | ")
        commit = re.fullmatch(rf"`([0-9a-f]{{7,}})`({NOT_SINCE})?", cells[-1])
        if len(cells) > 2 and commit and "git show" not in cells[0]:
            yield Figure(commit[1], cells[0].split("`")[1], commit[2] is not None)


def marked(page: str, commit: str, command: str) -> str:
    """Return the page with `, not since` behind the commit of the rows of a command."""
    row = rf"^(\| `{re.escape(command)}`.*`{commit}`)( \|)$"
    return re.sub(row, rf"\1{NOT_SINCE}\2", page, flags=re.M)


def program_of(command: str) -> Path:
    """Return the Python file that a command starts; for a script, the training that the script starts."""
    module = re.search(r"-m ([\w.]+)", command)
    if module:
        path = ROOT / module[1].replace(".", "/")
        return path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
    script = re.search(r"\w+/\w+\.(?:py|sh)", command)
    assert script, f"{command}: no program of this checkout"
    path = ROOT / script[0]
    return path if path.suffix == ".py" else ROOT / "ernie_matching" / path.with_suffix(".py").name


def imported_files(program: Path) -> set[Path]:
    """Return a program's file and all files of the checkout that it imports, directly or through others."""
    found, left = set[Path](), [program]
    while left:
        path = left.pop()
        if path not in found and path.is_file():
            found.add(path)
            left += imports_of(path)
    return found


@cache
def imports_of(path: Path) -> list[Path]:
    """Return the paths that the modules imported by a file have in the checkout, whether they are there or not."""
    paths: list[Path] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [name.name for name in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{name.name}" for name in node.names)]
        paths += [(ROOT / name.replace(".", "/")).with_suffix(".py") for name in names]
    return paths


def is_known(commit: str) -> bool:
    return not subprocess.run(
        ["git", "cat-file", "-e", f"{commit}^{{commit}}"], cwd=ROOT, capture_output=True
    ).returncode


def changes_since(commit: str, files: set[Path]) -> dict[str, int]:
    """Return how many lines of each file have changed since a commit."""
    arguments = ["git", "diff", "--numstat", commit, "--", *sorted(map(str, files))]
    rows = subprocess.run(arguments, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    numbers = (row.split("\t") for row in rows)
    return {name: int(added) + int(removed) for added, removed, name in numbers}


main = main_of(list_stale, StaleOptions, __doc__)

if __name__ == "__main__":
    raise SystemExit(main())
