"""The figures of RESULTS.md and of the READMEs name the command and the commit that they were measured at."""

from __future__ import annotations

import re

import pytest

from benchmarks.stale import ROOT, imported_files, is_known, list_figures, program_of

pytestmark = pytest.mark.unit
RESULTS = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")


def test_every_figure_names_its_program_and_its_commit() -> None:
    figures = list(list_figures(RESULTS))
    rows = re.findall(r"^\| `[^|]*(?:python|scripts/)[^|]*\|.*\|$", RESULTS.split("## Left, and")[0], re.M)
    assert len(figures) == len([row for row in rows if "git show" not in row]) > 40
    assert [command for _, command in figures if not program_of(command).is_file()] == []


@pytest.mark.parametrize("page", ["README.md", "README.zh.md"])
def test_a_figure_of_the_readme_is_one_of_the_results(page: str) -> None:
    known = {(commit, program_of(command)) for commit, command in list_figures(RESULTS)}
    text = (ROOT / page).read_text(encoding="utf-8")
    shown = re.findall(r"`([^`]*(?:python|scripts/)[^`]*)`[^|`]*`([0-9a-f]{7,})` \|$", text, re.M)
    assert len(shown) == 3
    assert {(commit, program_of(command)) for command, commit in shown} <= known


def test_a_program_depends_on_what_it_imports() -> None:
    files = {path.relative_to(ROOT).as_posix() for path in imported_files(ROOT / "benchmarks" / "indexes.py")}
    assert {"benchmarks/indexes.py", "paddle_ranker/retrieval/segments.py"} <= files
    assert "recall/train_simcse.py" not in files


def test_a_commit_that_git_lacks_is_told_apart() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("needs the repository's git history")
    assert is_known("HEAD") and not is_known("0" * 40)
