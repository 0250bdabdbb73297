"""List the figures of RESULTS.md whose programs have changed since, from git.

    python -m benchmarks.stale

A figure depends on the files that its program imports, also inside functions. Each line shows a commit, the command,
the number of lines that changed since, and the files with the most changes; the reader judges if they move the figure.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "RESULTS.md"


def main() -> int:
    for commit, command in sorted(set(list_figures(RESULTS.read_text(encoding="utf-8")))):
        if not is_known(commit):
            print(f"{commit}  {command}: git has no such commit; measure again")
            continue
        changed = changes_since(commit, imported_files(program_of(command)))
        if changed:
            most = ", ".join(sorted(changed, key=lambda name: -changed[name])[:3])
            print(f"{commit}  {command}: {sum(changed.values()):,} lines in {len(changed)} files ({most})")
    return 0


def list_figures(page: str) -> Iterator[tuple[str, str]]:
    """Yield the commit and the command of each row with a figure."""
    for line in re.findall(r"^\| (`.+) \|$", page.split("## Left, and")[0], re.M):
        cells = line.split(" | ")
        commit = re.fullmatch(r"`([0-9a-f]{7,})`", cells[-1])
        if len(cells) > 2 and commit and "git show" not in cells[0]:
            yield commit[1], cells[0].split("`")[1]


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
        if path in found or not path.is_file():
            continue
        found.add(path)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [name.name for name in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{name.name}" for name in node.names)]
            left += [(ROOT / name.replace(".", "/")).with_suffix(".py") for name in names]
    return found


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


if __name__ == "__main__":
    raise SystemExit(main())
