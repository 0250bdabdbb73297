"""Hook of MkDocs that collects the pages of the site: the repository's Markdown, and the files that it links to."""

from __future__ import annotations

import posixpath
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "build" / "docs"
API = """# Python API

::: paddle_ranker.notebook.Index

::: paddle_ranker.scoring.ranker.Ranker

::: paddle_ranker.scoring.ranker.RankedTitle

::: paddle_ranker.train

::: paddle_ranker.retrieval.stages.search_engine.SearchEngine

::: paddle_ranker.serving.clients.search_client.SearchClient
"""
_LINK = re.compile(r"\]\(([^)#\s]+)(#[^)\s]*)?\)")
_LIST = re.compile(r"^([^\s|>#`-][^\n]*)\n(?=(?:- |1\. ))", re.MULTILINE)  # a list right behind a paragraph
_FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)


def on_config(config: Any) -> Any:
    """Collect the pages, and let MkDocs read them."""
    shutil.rmtree(PAGES, ignore_errors=True)
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    pages = [name for name in listed if name.endswith(".md")]
    linked = {
        posixpath.normpath(posixpath.join(posixpath.dirname(page), target))
        for page in pages
        for target, _ in _LINK.findall((ROOT / page).read_text("utf-8"))
    }
    for name in {*pages, *linked.intersection(listed)}:
        (PAGES / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, PAGES / name)
    (PAGES / "docs" / "api.md").write_text(API, "utf-8")
    config["docs_dir"] = str(PAGES)
    return config


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return a page as Python-Markdown needs it: a list begins behind an empty line."""
    parts = _FENCE.split(markdown)
    return "".join(part if place % 2 else _LIST.sub(r"\1\n\n", part) for place, part in enumerate(parts))
