"""The figures of RESULTS.md and of the READMEs: when each was measured, and which are older than the code."""

from __future__ import annotations

import ast
import csv
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import REPOSITORY

pytestmark = pytest.mark.unit
MEASURED = REPOSITORY / "benchmarks" / "measured.tsv"
OLDER, MARK = "older", "†"
GONE = "git show"  # a program that has left: its commit says all


class Figure(NamedTuple):
    """A line of measured.tsv: `digest` is that of the files' contents when it was measured, or OLDER."""

    command: str
    commit: str
    digest: str
    files: str


def figures() -> list[Figure]:
    with MEASURED.open(encoding="utf-8", newline="") as stream:
        return [Figure(**row) for row in csv.DictReader(stream, delimiter="\t")]


def code_of(path: Path) -> bytes:
    """Return what of a file's contents a figure may depend on: of Python no text, comment or layout."""
    if path.suffix != ".py":
        return path.read_bytes()
    parts = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        values = [value for _, value in ast.iter_fields(node) if isinstance(value, (str, int, float))]
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        parts += [type(node).__name__, *([] if is_text else map(str, values))]
    return " ".join(parts).encode()


def digest_of(patterns: str, root: Path = REPOSITORY) -> str:
    """Return the SHA-256 of the names and `code_of` all files that glob patterns name, its first 12 digits."""
    digest = hashlib.sha256()
    for pattern in patterns.split():
        found = sorted(path for path in root.glob(pattern) if path.is_file())
        assert found, f"{MEASURED.name}: no file is {pattern}"
        for path in found:
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + code_of(path) + b"\0")
    return digest.hexdigest()[:12]


def rows(page: str) -> Iterator[list[str]]:
    """Yield the cells of each line of a page's tables of figures."""
    text = (REPOSITORY / page).read_text(encoding="utf-8").split("## Left, and")[0]
    for line in re.findall(r"^\| (.+) \|$", text, re.M):
        cells = line.split(" | ")
        command = cells[0] if page.endswith("RESULTS.md") else cells[-1]
        if len(cells) > 2 and re.match(r"`[^`]*(?:python|scripts/|git show)", command):
            yield cells


def are_of(command: str, cell: str) -> bool:
    return re.search(rf"(?<![\w/]){re.escape(command)}(?!\w)", cell) is not None


def test_a_figure_of_results_names_the_commit_that_it_was_measured_at() -> None:
    known = figures()
    used = set()
    for command, _, _, commit in rows("benchmarks/RESULTS.md"):
        stated = re.fullmatch(rf"`([0-9a-f]{{7,}})`(?: ({MARK}))?", commit)
        assert stated, f"{command}: the last cell is {commit!r}, expected a commit, with {MARK} where it is older"
        if command.startswith(f"`{GONE}"):
            continue
        found = [entry for entry in known if entry.commit == stated[1] and are_of(entry.command, command)]
        assert found, f"{command}: {MEASURED.name} has no line for it at {stated[1]}"
        used.update(found)
        assert bool(stated[2]) == (found[0].digest == OLDER), f"{command} at {stated[1]}: {MARK} belongs to {OLDER}"
    assert used == set(known), f"{MEASURED.name}: figures that RESULTS.md has not: {set(known) - used}"


@pytest.mark.parametrize("page", ["README.md", "README.zh.md"])
def test_a_figure_of_the_readme_names_it_too(page: str) -> None:
    found = list(rows(page))
    assert len(found) == 10
    for _, _, command in found:
        entries = [entry for entry in figures() if are_of(entry.command, command)]
        assert entries, f"{page}: {MEASURED.name} has no line for {command}"
        first = entries[0]  # in the order of RESULTS.md, whose first row of a command is the README's
        assert f" `{first.commit}`" in command, f"{page}: {command} does not name {first.commit}"
        assert (MARK in command) == (first.digest == OLDER), f"{page}: {command}: {MARK} belongs to {OLDER}"


def test_what_changed_since_a_figure_was_measured_is_measured_again() -> None:
    now = {entry.files: digest_of(entry.files) for entry in figures()}
    stale = [
        f"{entry.command} was measured at {entry.commit}; the digest is {now[entry.files]} now; what changed: "
        f"git diff {entry.commit} -- {entry.files}"
        for entry in figures()
        if entry.digest not in (OLDER, now[entry.files])
    ]
    assert not stale, "\n".join(
        [
            *stale,
            "Measure these again (RESULTS.md has the whole commands) and write figures, commits and digests down; or "
            f"write {OLDER} into {MEASURED.name} and {MARK} into RESULTS.md and both READMEs. Where the change cannot "
            "move the figure, the new digest is enough",
        ]
    )


def test_a_change_of_one_file_changes_the_digest(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("a/one.py", "a/two.py", "b.py"):
        (tmp_path / name).write_text("f(0, help='one')", encoding="utf-8")
    before = digest_of("a/*.py b.py", tmp_path)
    (tmp_path / "b.py").write_text("f(0,  # why\n  help='two')", encoding="utf-8")
    assert digest_of("a/*.py b.py", tmp_path) == before  # a text moves no figure
    (tmp_path / "a/two.py").write_text("other(1)", encoding="utf-8")
    assert digest_of("a/*.py b.py", tmp_path) != before
    with pytest.raises(AssertionError, match="no file is c"):
        digest_of("c.py", tmp_path)
