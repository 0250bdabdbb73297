"""The notebooks run: their cells, in order, in an empty folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkout import ONCE

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[1]
SHOWN = {
    "search_your_file": ["Quiet mouse", "'moues' searched as mouse", "Silent mouse"],
    "train_and_compare_a_ranker": ["A study of pests of rice"],
    "from_clicks_to_a_better_search": ["clicks", "recommended: learned weights"],
}  # of what each prints, in any order


@ONCE
@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path) -> None:
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] for cell in cells), "clear the outputs"
    program = "import ast\nshown = {}\n"  # the value of a last expression is shown, as in a notebook
    for cell in cells:
        source = "".join(cell["source"])
        program += (
            f"tree = ast.parse({source!r})\n"
            "last = ast.Expression(tree.body.pop().value) if isinstance(tree.body[-1], ast.Expr) else None\n"
            "exec(compile(tree, 'cell', 'exec'), shown)\n"
            "if last is not None: print(repr(eval(compile(last, 'cell', 'eval'), shown)))\n"
        )
    (tmp_path / "cells.py").write_text(program, encoding="utf-8")
    found = subprocess.run([sys.executable, "cells.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    assert all(part in found.stdout for part in SHOWN[path.stem]), found.stdout
