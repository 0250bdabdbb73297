"""The scripts in docs/examples run, and docs/frameworks.md shows them as they are."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from paddle_ranker import Ranker
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.server
SEARCHES = {"langchain_search.py": "langchain_classic", "llama_index_search.py": "llama_index.core",
            "haystack_search.py": "haystack"}  # fmt: skip


def run(script: str, *arguments: object, before: str = "") -> list[str]:
    """Run a script of docs/examples, after the code `before`; return its lines."""
    code = f"import runpy, sys\n{before}\nsys.argv = sys.argv[1:]\nrunpy.run_path(sys.argv[0], run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", code, f"docs/examples/{script}", *map(str, arguments)], cwd=REPOSITORY,
        env={**os.environ, "HAYSTACK_TELEMETRY_ENABLED": "False"}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("script", SEARCHES)
def test_a_search_with_reranking_is_the_frameworks_own(script: str, made: SimpleNamespace) -> None:
    if not _is_installed(SEARCHES[script]):
        pytest.skip(f"needs {SEARCHES[script]}: docs/setup.md#frameworks")
    hits = made.search("mouse", top_k=20)
    expected = Ranker.load(made.ranker).rank("mouse", [hit.text for hit in hits], 2)
    lines = [line for line in run(script, made.index, made.ranker, "mouse") if re.match(r"a\d ", line)]
    assert [line.split()[0] for line in lines] == [hits[title.index].id for title in expected]
    scores = [float(line.split()[1]) for line in lines]
    assert scores == pytest.approx([title.probability for title in expected], rel=1e-5)


def test_mteb_measures_both(made: SimpleNamespace) -> None:
    if not _is_installed("mteb"):
        pytest.skip("needs mteb: docs/setup.md#frameworks")
    mocks = "import mteb, mteb.mocks.mock_tasks as mocks\nmteb.get_task = lambda name: getattr(mocks, name)()"
    names = "MockRetrievalTask", "MockRerankingTask"
    lines = run("mteb_measure.py", made.tower, made.ranker, *names, before=mocks)
    assert [line.split()[:2] for line in lines[-2:]] == [
        [f"paddle-ranker/{model}", name] for model, name in zip(("tower", "ranker"), names)
    ]


def test_the_page_shows_the_scripts() -> None:
    text = (REPOSITORY / "docs/frameworks.md").read_text(encoding="utf-8")
    shown = dict(re.findall(r"^<!-- file: (\S+) -->\n```python\n(.*?)^```$", text, re.M | re.S))
    assert set(shown) == {f"docs/examples/{name}" for name in (*SEARCHES, "mteb_measure.py")}
    assert all(code == Path(REPOSITORY, name).read_text(encoding="utf-8") for name, code in shown.items())


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False
