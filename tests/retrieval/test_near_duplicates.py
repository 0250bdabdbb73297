"""Texts that are nearly the same: the estimate against the sets of shingles, and groups of search results."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest

from paddle_ranker.commands import search as search_command
from paddle_ranker.errors import UsageError
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.stages.near_duplicates import CHARACTERS, RESEMBLANCE, leaders, sketches_of
from paddle_ranker.retrieval.stages.search_engine import SearchEngine
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import IndexInfo, WordsInfo
from paddle_ranker.retrieval.stored.schema import Field, Schema
from tests.conftest import Call
from tests.serving.test_search import Site

pytestmark = pytest.mark.unit
WORDS = [
    "rice",
    "水稻",
    "disease",
    "病害",
    "statistics",
    "of",
    "研究",
    "the",
    "field",
    "田间",
    "ranking",
    "index",
    "种植",
]
VIM = "Vim is an almost compatible version of the UNIX editor Vi. Many new features have been added: multi level undo, "
VIM += "syntax highlighting, command line history, on-line help. This package contains a version of vim compiled with "
DOCUMENTS = [
    Document("vim-gtk3", VIM + "a GTK3 GUI.", {"title": "vim-gtk3", "section": "editors"}),
    Document("nano", "GNU nano is an easy-to-use text editor, unlike vim.", {"title": "nano"}),
    Document("vim-motif", VIM + "a Motif GUI.", {"title": "vim-motif", "section": "editors"}),
    Document("vim-nox", VIM.upper() + "no GUI", {"title": "vim-nox"}),
    Document("vim-doc", "HTML manual of vim, with nothing else", {"title": "vim-doc"}),
]


def resemblance(first: str, second: str) -> float:
    """Return the share of five-character shingles that both texts have."""
    sets = list[set[str]]()
    for text in (first, second):
        words = " ".join(re.findall(r"\w+", text[:CHARACTERS].casefold())).ljust(5)
        sets.append({words[n : n + 5] for n in range(len(words) - 4)})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def test_the_estimate_is_near_the_share_of_shingles() -> None:
    draw, decided, near = random.Random(1), 0, 0
    for length in (2, 4, 8, 30, 100, 300):
        texts = [" ".join(draw.choices(WORDS, k=length))]
        for _ in range(60):  # with more and more of its words replaced
            words = texts[0].split()
            for _ in range(draw.randrange(1 + length // 4)):
                words[draw.randrange(length)] = draw.choice(WORDS)
            texts.append(" ".join(words))
        for text in texts[1:]:
            wanted = resemblance(texts[0], text)
            if abs(wanted - RESEMBLANCE) > (0.05 if length < 10 else 0.1):  # nearer for short texts
                decided += 1
                near += wanted > RESEMBLANCE
                assert leaders(sketches_of([texts[0], text]))[1] == (0 if wanted > RESEMBLANCE else 1), (texts[0], text)
    assert decided > 200 and 50 < near < decided - 50


def test_a_text_is_compared_with_first_texts_alone() -> None:
    chain = ["".join(f"<{n}> " * 3 for n in range(start, start + 60)) for start in (0, 5, 10, 15, 20)]
    assert resemblance(chain[0], chain[1]) > 0.83 and resemblance(chain[0], chain[2]) < 0.75
    assert leaders(sketches_of(chain)) == [0, 0, 2, 2, 4]
    assert leaders(sketches_of(["A!", "a", "b", "?", "!", "\ud800"])) == [0, 0, 2, 3, 4, 5]
    assert leaders(sketches_of(["x" * CHARACTERS, "x" * CHARACTERS + "other"])) == [0, 0]


def index_of(folder: Path, documents: list[Document]) -> Path:
    schema = Schema((Field("title", "text", 3.0, title=True), Field("section", "keyword")))
    with Collection.create(folder, IndexInfo(WordsInfo("standard"), None, schema=schema)) as collection:
        for one in documents:  # a segment each, in which documents are found in another order than they are ranked
            collection.writer.add([one], merge=False)
    return folder


def test_the_best_of_nearly_the_same_documents_is_shown(tmp_path: Path, call: Call) -> None:
    folder = index_of(tmp_path / "index", DOCUMENTS)
    with SearchEngine.open(folder) as engine:
        for query in ("vim motif", "vim GTK3", "editor vim"):
            alone = [one.id for one in engine.search(query)]
            variants = [id for id in alone if id in ("vim-gtk3", "vim-motif", "vim-nox")]
            found = {one.id: one.similar for one in engine.search(query, group_by="content")}
            assert list(found) == [id for id in alone if id not in variants[1:]], query
            assert found.pop(variants[0]) == tuple(variants[1:]) and not any(found.values())
        sections = engine.search("vim", group_by="section")  # those without a section are no group
        assert len(sections) == 4 and not any(one.similar for one in sections)
        with pytest.raises(UsageError, match=r"'sections' is no field .* title, content"):
            engine.search("vim", group_by="sections")
    status, printed, _ = call(search_command.main, "--index", folder, "vim motif", "--group_by", "content")
    assert status == 0 and "\n      similar: vim-gtk3, vim-nox\n" in printed
    call(search_command.main, "--index", folder, "vim motif", "--group_by=content", f"--output={tmp_path / 'run.json'}")
    (line,) = (tmp_path / "run.json").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["results"][0]["similar"] == ["vim-gtk3", "vim-nox"]


def test_the_server_says_which_documents_are_similar(tmp_path: Path) -> None:
    site = Site(index=index_of(tmp_path / "index", DOCUMENTS), writable=True)
    first, second, third = site.search("vim motif", group_by="content")["hits"]
    assert first["similar"] == ["vim-gtk3", "vim-nox"] and "similar" not in second and "similar" not in third
    two = site.search("vim motif", group_by="content", group_size=2)["hits"]
    assert len(two) == 4 and two[0]["similar"] == ["vim-nox"]
    page = site.search("vim motif", group_by="content", top_k=1, cursor="")
    next_page = site.search("vim motif", group_by="content", top_k=1, cursor=page["cursor"])
    assert next_page["hits"][0]["id"] == second["id"]
    # A field of that name keeps its meaning.
    named = [{"id": id, "text": "vim", "content": id[0]} for id in ("other", "another", "of")]
    assert site.ask("POST", "/v1/documents", {"documents": named}).status_code == 200
    found = site.search("vim", group_by="content")["hits"]
    assert len(found) == 7 and not any("similar" in hit for hit in found)
    site.close()
