"""The figures of RESULTS.md and of the READMEs name the command and the commit that they were measured at."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import stale
from benchmarks.stale import ROOT, figures, imported_files, is_known, marked, program_of

pytestmark = pytest.mark.unit
RESULTS = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")


def test_every_figure_names_its_program_and_its_commit() -> None:
    rows_with_figures = [*figures(RESULTS)]
    rows = re.findall(r"^\| `[^|]*(?:python|scripts/)[^|]*\|.*\|$", RESULTS.split("## Left, and")[0], re.M)
    assert len(rows_with_figures) == len([row for row in rows if "git show" not in row]) > 40
    assert [command for _, command, _ in rows_with_figures if not program_of(command).is_file()] == []


@pytest.mark.parametrize("page", ["README.md", "README.zh.md"])
def test_a_figure_of_the_readme_is_one_of_the_results(page: str) -> None:
    known = {(commit, program_of(command)) for commit, command, _ in figures(RESULTS)}
    text = (ROOT / page).read_text(encoding="utf-8")
    shown = re.findall(r"`([^`]*(?:python|scripts/)[^`]*)`[^|`]*`([0-9a-f]{7,})` \|$", text, re.M)
    assert len(shown) == 3
    assert {(commit, program_of(command)) for command, commit in shown} <= known


def test_a_program_depends_on_what_it_imports() -> None:
    files = {path.relative_to(ROOT).as_posix() for path in imported_files(ROOT / "benchmarks" / "indexes.py")}
    assert {"benchmarks/indexes.py", "paddle_ranker/retrieval/stored/segments.py"} <= files
    assert "recall/train_simcse.py" not in files


def test_a_figure_of_changed_code_is_listed_until_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows of the same command at another commit, and another command at the same commit, stay as they are."""
    one, two = "python -m benchmarks.demo --seeds 1,2,3", "python -m benchmarks.demo"
    rows = [(one, "aaaaaaa"), (one, "bbbbbbb"), (two, "aaaaaaa"), (one, "aaaaaaa")]
    page = "".join(f"| `{command}` | what | {n}.5 | `{commit}` |\n" for n, (command, commit) in enumerate(rows))
    (tmp_path / "RESULTS.md").write_text(page, encoding="utf-8")
    monkeypatch.setattr(stale, "RESULTS", tmp_path / "RESULTS.md")
    monkeypatch.setattr(stale, "is_known", lambda commit: True)
    monkeypatch.setattr(stale, "changes_since", lambda commit, files: {"a.py": 3} if commit == "aaaaaaa" else {})
    assert stale.main([]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in listed] == [f"aaaaaaa  {two}", f"aaaaaaa  {one}"]
    assert stale.main(["--mark"]) == 0 and stale.main([]) == 0
    assert capsys.readouterr().out == ""
    now = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    assert [figure.is_kept for figure in figures(now)] == [True, False, True, True]
    assert now.replace(", not since", "") == page == marked(page, "bbbbbbb", two)


def test_a_commit_that_git_lacks_is_told_apart() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("needs the repository's git history")
    assert is_known("HEAD") and not is_known("0" * 40)
