"""Negatives from an index in shards: each shard is searched by an actor of its own."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from paddle_ranker.commands.mine import documents_of_titles
from paddle_ranker.errors import RankerError
from paddle_ranker.registry import VARIABLE
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.index.shard_builds import recut
from paddle_ranker.retrieval.index.shards import shard_folders
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import IndexInfo, WordsInfo, read_manifest
from paddle_ranker.retrieval.stored.schema import Field, Schema
from paddle_ranker.scale import mining
from paddle_ranker.scale.mining import _separate_shards, _ShardActor
from paddle_ranker.scale.parts import Place
from paddle_ranker.scale.remote import RemoteCollection
from tests.retrieval.test_conformance import documents_of

pytest.importorskip("ray")
pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def no_process_of_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave this process its GPUs, and start no cluster in it, which Ray does when it is asked for an actor's GPUs."""
    monkeypatch.setattr(mining, "hide_other_gpus", lambda: None)
    monkeypatch.setenv(VARIABLE, "")  # as `Place.enter` sets it


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    """A folder of thirty documents and one that repeats the text of the first, in three shards."""
    with Collection.create(tmp_path / "one", IndexInfo(WordsInfo("bigram"), None)) as collection:
        collection.writer.add([*documents_of(range(30)), Document("again", documents_of([0])[0].text)])
        recut(collection, tmp_path / "shards", 3)
    return shard_folders(tmp_path / "shards")


def actor_of(folder: Path) -> _ShardActor:
    return _ShardActor(str(folder), read_manifest(folder).generation, Place.here(), 1)


def test_shards_find_what_the_whole_index_finds(shards: list[Path], tmp_path: Path) -> None:
    actors = [actor_of(folder) for folder in shards]

    def through(actor: _ShardActor) -> Any:
        def call(name: str, *args: Any) -> Future[Any]:
            future = Future[Any]()
            future.set_result(actor.call(name, *args))
            return future

        return call

    assert len(RemoteCollection([through(actor) for actor in actors])) == 31
    titles, found = {document.text for document in documents_of([0, 7, 29])} | {"none"}, dict[str, Document]()
    for actor in actors:
        found.update(actor.documents_of_titles(titles))
    with Collection.open(tmp_path / "one") as whole:
        assert found == documents_of_titles(whole.snapshot(), titles)
    assert found[documents_of([0])[0].text].id == "again"


def test_a_shard_that_was_changed_since_the_command_is_named(shards: list[Path]) -> None:
    actor = actor_of(shards[1])
    with Collection.open(shards[1], write=True) as collection:
        collection.writer.add([Document("new", "a new text")])
    with pytest.raises(RankerError, match=f"{shards[1]}: was changed while it was mined"):
        actor.call("facts", None, None)


@pytest.mark.parametrize(
    "info, are_separate",
    [
        (IndexInfo(WordsInfo("standard"), None), True),
        (IndexInfo(WordsInfo("standard"), None, others=("bm25",)), False),
        (IndexInfo(WordsInfo("standard"), None, schema=Schema((Field("cover", "picture"),))), False),
    ],
)
def test_an_index_that_needs_all_documents_in_one_process_is_opened_whole(
    info: IndexInfo, are_separate: bool, tmp_path: Path
) -> None:
    with Collection.create(tmp_path / "one", info) as collection:
        collection.writer.add(documents_of(range(4)))
        recut(collection, tmp_path / "shards", 2)
    assert bool(_separate_shards(str(tmp_path / "shards"))) is are_separate
    assert _separate_shards(str(tmp_path / "one")) == []
