"""Stored states in index folders: a search with their ranker scores as one of texts, whatever was added or removed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest

from paddle_ranker import Ranker
from paddle_ranker.array_types import Array, Arrays
from paddle_ranker.commands.index import main
from paddle_ranker.errors import CheckpointError
from paddle_ranker.model.model_folder import RANKER
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.stages.search_engine import SearchEngine
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.scoring.loading import open_model
from paddle_ranker.stored_titles.stored_ranker import SplitRanker
from tests.stored_titles.test_title_states import split_ranker
from tests.tiny import write_ranker, write_tower

pytestmark = pytest.mark.unit
TEXTS = ["水稻病害诊断研究", "水稻", "农业水稻病害", "病害 a b c", "水稻病害", "水稻病害" * 20, "水稻经济 " * 4]
LONG = "d5"  # the ranker reads a part of it


@pytest.fixture(autouse=True)
def _there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    split_ranker(Path("ranker"), similarity={})
    write_corpus("texts.jsonl", TEXTS)


def write_corpus(name: str, texts: Iterable[str], first: int = 0) -> None:
    rows = [{"id": f"d{n}", "text": text, "title": f"深度 {n % 3}"} for n, text in enumerate(texts, first)]
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def build(folder: str, *more: str) -> int:
    return main(["build", "--corpus", "texts.jsonl", "--output", folder, "--words", "bigram", *more])


class Reading(Ranker):
    """Ranker that keeps the texts that it reads."""

    texts: list[str]

    def scored(self, queries: Sequence[str], titles: Sequence[str]) -> tuple[Array, Arrays]:
        self.texts = list(titles)
        return super().scored(queries, self.texts)


def searched(folder: str, ranker: str = "ranker", query: str = "水稻病害") -> tuple[dict[str, float], list[str]]:
    """Return each document's logit, and the texts that were read."""
    opened = Reading(open_model(ranker, RANKER))
    with SearchEngine.open(folder, ranker=opened) as engine:
        return {one.id: one.logit or 0.0 for one in engine.search(query, 100)}, opened.texts


def require_equal(folder: str) -> None:
    """Compare a search with one of the folder `plain`, which has the same documents and no states."""
    (found, read), (expected, read_by_plain) = searched(folder), searched("plain")
    assert found.keys() == expected.keys() and len(read_by_plain) == len(expected)
    np.testing.assert_allclose([*found.values()], [expected[id] for id in found], atol=3e-3)
    assert len(read) == (LONG in found)


@pytest.mark.parametrize("more", [(), ("--shards", "2"), ("--states_dtype", "float32")])
def test_a_search_by_states_is_that_by_texts(
    more: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("paddle_ranker.retrieval.index.merging.MOST_SEGMENTS", 1)
    folders = ("index", "plain")
    assert build("plain") == build("index", "--store_states", "ranker", *more) == 0
    require_equal("index")
    write_corpus("more.jsonl", ["水稻病害教育", "病害", "护理"], first=6)
    for change in (["add", "--corpus", "more.jsonl"], ["remove", LONG, "d1"], ["remove", "d0"]):
        assert [main([change[0], folder, *change[1:]]) for folder in folders] == [0, 0]
        require_equal("index")
    assert main(["shard", "index", "--output", "cut", "--shards", "3"]) == 0
    require_equal("cut")
    capsys.readouterr()
    assert main(["check", "cut"]) == main(["info", "index"]) == 0
    assert "states: float" in (shown := capsys.readouterr().out) and "bytes a document, by index" in shown
    # every pair of a long query and a title is longer than the ranker reads: it cuts each pair in its own way
    long = "水稻病害" * 9
    assert len(searched("index", query=long)[1]) == len(searched("plain", query=long)[0])


def test_an_index_gets_states_later_and_those_of_one_ranker(capsys: pytest.CaptureFixture[str]) -> None:
    split_ranker(Path("other"), seed=2)
    write_ranker(Path("whole"))
    assert build("plain") == build("index") == build("index", "--store_states", "ranker") == 0
    require_equal("index")
    assert build("index") == build("index", "--store_states", "ranker") == 0
    for more, message in (
        (("--store_states", "other"), "built otherwise"),
        (("--store_states", "ranker", "--states_dtype", "int8"), "built otherwise"),
        (("--states_dtype", "int8"), "is about --store_states"),
        (("--store_states", "ranker", "--passage_tokens", "9"), "leave one of both out"),
    ):
        capsys.readouterr()
        assert build("index", *more) != 0
        assert message in capsys.readouterr().err
    write_tower(Path("tower"))
    with pytest.MonkeyPatch.context() as patch:  # no model that is opened chooses its own device
        patch.setattr("paddle_ranker.runtime.find_device", lambda: pytest.fail("--device cpu was given"))
        assert build("cpu", "--tower", "tower", "--store_states", "ranker", "--device", "cpu") == 0
    assert build("passages", "--tower", "tower", "--passage_tokens", "9") == 0
    assert build("passages", "--tower", "tower", "--store_states", "ranker") != 0
    assert "has passages" in capsys.readouterr().err
    assert build("new", "--store_states", "whole") != 0
    assert "not split" in capsys.readouterr().err
    for ranker, why in (("other", "another ranker made them"), ("whole", "is not split")):
        found, read = searched("index", ranker)
        assert capsys.readouterr().err.count(why) == 1
        assert len(read) == len(TEXTS) and found == searched("plain", ranker)[0]


def test_damage_and_a_killed_addition(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert build("plain") == build("index", "--store_states", "ranker") == 0

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, Collection.open("index", write=True) as collection:
        patch.setattr(SplitRanker, "title_states", killed)
        with pytest.raises(KeyboardInterrupt):
            collection.writer.add([Document("new", "水稻")])
    require_equal("index")
    (states,) = Path("index").glob("segment-*/states/states.npy")
    whole = states.read_bytes()
    states.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    capsys.readouterr()
    assert main(["check", "index"]) != 0
    assert "states.npy: damaged" in capsys.readouterr().err
    states.write_bytes(whole[:-1])
    with pytest.raises(CheckpointError, match=r"states\.npy: is missing or cut short"):
        Collection.open("index")
    for file in states.parent.iterdir():
        file.unlink()
    states.parent.rmdir()
    with pytest.raises(CheckpointError, match="no stored states"):
        Collection.open("index")
