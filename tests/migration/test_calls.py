"""Calls of RocketQA, Taskflow and pipelines: rows of docs/migration.md are run, and equal what PaddleNLP computes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Optional

import numpy as np
import pytest

from paddle_ranker import Ranker
from paddle_ranker.__main__ import main
from paddle_ranker.errors import CheckpointError, UsageError
from paddle_ranker.model.tower import TowerInfo
from paddle_ranker.retrieval.vectors.text_vectors import Tower
from tests.conftest import REPOSITORY, Call
from tests.migration.published import CROSS, PARA, QUERIES, QUERY, TITLES, Made, classifier, encoded, write

pytestmark = pytest.mark.parity

NAMES = ["病害", "a b", ""]  # titles of the paragraphs TITLES
_SECTION = (REPOSITORY / "docs" / "migration.md").read_text(encoding="utf-8").split("## From Python\n")[1]
ROWS = re.findall(r"^\| (.+) \| `((?:Ranker|Tower|\(Tower).*?)`(?:,.*)? \|$", _SECTION.split("\n## ")[0], re.M)


def _states(name: str, cache: Path, first: list[str], second: Optional[list[str]] = None) -> np.ndarray:
    """Return what PaddleNLP's encoder of a name computes for texts, or for texts after titles: the first states."""
    from paddlenlp.transformers import ErnieModel

    encoder = ErnieModel.from_pretrained(str(cache / name))
    encoder.eval()
    return np.concatenate([encoder(**row)[0][:, 0].numpy() for row in encoded(cache / name, first, second)])


@pytest.fixture
def expected(made: Made) -> list[Any]:
    """What the rows with code give, in the order of the page."""
    cache = made.place / "paddlenlp" / "models"
    model = classifier(type_vocab_size=4)
    joined = [f"{name} {title}" for name, title in zip(NAMES, TITLES)]
    logits = np.concatenate([model(**row).numpy() for row in encoded(cache / CROSS, QUERIES, joined)])
    titled = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
    queries, paras = made.vectors[QUERY], made.vectors[PARA]
    plain, with_titles = made.probabilities, _states(PARA, cache, NAMES, TITLES)
    pairs = np.concatenate([model(**row).numpy() for row in encoded(cache / CROSS, [QUERIES[0]] * 3, TITLES)])
    best = np.argsort(pairs[:, 0] - pairs[:, 1], kind="stable")[:2].tolist()
    return [
        Ranker, plain, titled, Tower, queries, paras, with_titles, (queries * paras).sum(1), plain, queries, paras,
        best, queries, with_titles, Ranker,
    ]  # fmt: skip


def test_each_row_of_the_page_computes_what_it_replaces(at: Path, expected: list[Any]) -> None:
    assert len(ROWS) == len(expected)
    names = {"Ranker": Ranker, "Tower": Tower, "queries": QUERIES, "paras": TITLES, "titles": NAMES}
    for (theirs, ours), wanted in zip(ROWS, expected):
        found = eval(ours, {**names, "query": QUERIES[0]})  # noqa: S307
        if isinstance(wanted, type):
            assert isinstance(found, wanted), theirs
        elif isinstance(wanted, list):
            assert [title.index for title in found] == wanted, theirs
        else:
            np.testing.assert_allclose(found, wanted, atol=1e-5, err_msg=theirs)
    assert not np.allclose(expected[5], expected[6], atol=1e-3)  # titles are read


def test_an_index_gives_the_tower_titles_and_texts(at: Path, expected: list[Any], call: Call) -> None:
    rows = [f"{number}\t{name}\t{title}" for number, (name, title) in enumerate(zip(NAMES, TITLES))]
    Path("paras.tsv").write_text("id\ttitle\ttext\n" + "\n".join(rows) + "\n", encoding="utf-8")
    line = "index build --corpus paras.tsv --tower zh_dureader_de --field title:text:title --output index --device cpu"
    status, _, errors = call(main, *line.split())
    assert status == 0, errors
    from paddle_ranker.retrieval.index.collection import Collection

    with Collection.open("index") as collection:
        stored = [part.segment.vectors["vectors"].stored for part in collection.snapshot().parts]
        found = np.concatenate([vectors.rows(np.arange(len(TITLES))) for vectors in stored])
    np.testing.assert_allclose(found, expected[6], atol=1e-2)  # stored in 16 bits


@pytest.mark.parametrize("length", [64, 9])
def test_titled_texts_are_cut_and_exported_as_the_pairs_they_are(at: Path, length: int, call: Call) -> None:
    from paddle_ranker.model.load_options import LoadOptions

    status, _, errors = call(
        main, "export", "--model", "zh_dureader_de", "--output", "static", "--max_seq_length", length
    )
    assert status == 0, errors
    assert TowerInfo.read(Path("static")).titled  # type: ignore[union-attr]
    vectors = Tower.open("static").vectors(TITLES, NAMES)
    np.testing.assert_allclose(
        vectors, Tower.open("zh_dureader_de", LoadOptions(max_seq_length=length)).vectors(TITLES, NAMES), atol=1e-5
    )


def test_titles_are_refused_where_none_are_read(at: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="reads texts alone: put each title before its text"):
        Tower.open(QUERY).vectors(TITLES, NAMES)
    with pytest.raises(UsageError, match="2 titles and 3 texts"):
        Tower.open(PARA).vectors(TITLES, NAMES[:2])
    with pytest.raises(CheckpointError, match="titled needs texts, without text_prompt"):
        TowerInfo(32, 16, text_prompt="p", titled=True)


def test_what_is_not_offered_is_refused_by_name(at: Path, tmp_path: Path) -> None:
    simbert = write(classifier("Bert", type_vocab_size=2, pool_act="linear").bert, tmp_path / "simbert")
    with pytest.raises(CheckpointError, match="pool_act is 'linear'; only tanh is done here"):
        Tower.open(simbert)
    for name in ("v1_nq_de", "pair_marco_de", "zh_dureader_de_v2"):
        with pytest.raises(CheckpointError, match="RocketQA's and not published by PaddleNLP"):
            Ranker.load(name)
