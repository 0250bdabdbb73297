"""Links of the Markdown pages, on GitHub and on the site; `bash scripts/docs.sh` builds the site itself."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from tests.checkout import ONCE
from tests.conftest import REPOSITORY

pytestmark = [pytest.mark.unit, ONCE]
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]*)\)")


def pages() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return [REPOSITORY / name for name in listed.stdout.splitlines()]


@cache
def anchors(page: Path) -> frozenset[str]:
    """Return the anchors that GitHub gives to a page's headings; a second one of a name gets -1."""
    seen, found = Counter[str](), set[str]()
    for heading in re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text("utf-8")), re.MULTILINE):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        found.add(f"{name}-{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return frozenset(found)


def test_every_link_leads_to_a_file_and_a_heading() -> None:
    broken = []
    for page in pages():
        for link in LINK.findall(FENCE.sub("", page.read_text("utf-8"))):
            if "://" in link or link.startswith("mailto:"):
                continue
            name, _, anchor = link.partition("#")
            target = (page.parent / name).resolve() if name else page
            if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
                broken.append(f"{page.relative_to(REPOSITORY)}: {link}")
    assert broken == []


def test_every_page_of_docs_is_in_the_site_and_in_the_list() -> None:
    nav, index = ((REPOSITORY / name).read_text("utf-8") for name in ("mkdocs.yml", "docs/README.md"))
    names = {page.name for page in pages() if page.parent.name == "docs"} - {"README.md"}
    assert {name for name in names if f"- docs/{name}\n" not in nav} == set()
    assert {name for name in names if f"({name})" not in index} == set()


def test_every_extra_is_named_with_what_it_adds() -> None:
    project = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    listed = project.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    extras = re.findall(r"^([\w-]+) = \[", listed, re.MULTILINE)
    rows = re.findall(r"^\| (`.+?`) \|", (REPOSITORY / "docs/setup.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(extras) > 15 and {*extras} <= {name for row in rows for name in re.findall("`(.+?)`", row)}
